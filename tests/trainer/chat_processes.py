"""Two processes train on files of chats by a recipe, stop, and go on; each writes down which rows it opened.

Run by `test_processes.py`: torchrun --nproc_per_node 2 chat_processes.py OUTPUT [--streaming]
"""

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

import datasets
from chat_files import mixed_rows, say, write_media, write_rows
from torch import distributed
from training_samples import build_model, build_processor

from trainer.data import chat_samples
from trainer.loop import chat_stream
from trainer.processes import leave_processes
from trainer.recipes import read_recipe, train

STEPS = 6


def prepare(output: Path) -> None:
    """Write media, eight chats and a tiny checkpoint."""
    write_media(output)
    rows = [*mixed_rows(), {"messages": say("Is it red?", "Yes.")}, {"messages": say("Is it blue?", "No.")}]
    write_rows(output / "a.jsonl", rows[:5])
    write_rows(output / "b.json", rows[5:])
    build_model().save_pretrained(output / "model")
    build_processor().save_pretrained(output / "model")
    (output / "recipe.yaml").write_text(
        f"model_name_or_path: {output / 'model'}\nsource: chats\nchats: [{output / 'a.jsonl'}, {output / 'b.json'}]\n"
        f"num_frames: 2\nmax_steps: {STEPS}\nper_device_train_batch_size: 1\nsave_strategy: steps\nsave_steps: 2\n"
        "use_cpu: true\nddp_backend: gloo\nlearning_rate: 1.0e-3\nreport_to: none\ndisable_tqdm: true\n"
        "validator: light\nteacher: point_map\nlogging_steps: 1\n"
    )


def main() -> None:
    output, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    if rank == 0:
        prepare(output)
        (output / "ready").touch()
    while not (output / "ready").exists():
        time.sleep(0.2)
    datasets.config.HF_DATASETS_CACHE = output / "cache"
    opened: list[str] = []
    read_sample = chat_samples.read_sample

    def noted(row, *given, **options):
        opened.append(row["where"])
        return read_sample(row, *given, **options)

    chat_samples.read_sample = chat_stream.read_sample = noted

    def run(name: str) -> str:
        words = ["--output_dir", str(output / name), "--streaming", str("--streaming" in sys.argv)]
        train(*read_recipe(output / "recipe.yaml", words))
        return hashlib.sha256((output / name / f"checkpoint-{STEPS}" / "model.safetensors").read_bytes()).hexdigest()

    report = {"whole": run("whole"), "opened": list(opened)}
    if rank == 0:
        (output / "resumed").mkdir()
        shutil.copytree(output / "whole" / "checkpoint-2", output / "resumed" / "checkpoint-2")
    distributed.barrier()
    opened.clear()
    report |= {"resumed": run("resumed"), "opened_again": list(opened)}
    (output / f"report_{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
    leave_processes()
