"""Figures of an evaluation in 1, 2 and 3 processes and in batches of 1, 2 and 3 samples, as a table.

    PYTHONPATH=.:tests python tests/benchmarks/evaluation_processes.py

Every column is one figure; each row has its largest distance from one process with batches of one sample. The same
script, with --figures FILE under torchrun, evaluates and writes the figures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from equal_gradients import mixture
from training_samples import build_collator, build_model, chat, make_grounding_sample, make_regions, make_sample
from transformers import EvalPrediction

from trainer import IDE3DTrainer, IDE3DTrainingArguments
from trainer.processes import leave_processes

REPOSITORY = Path(__file__).resolve().parents[2]
BATCH_SIZES = (1, 2, 3)
TIMES = ("runtime", "per_second", "preparation_time")


def seven_samples() -> list[dict[str, Any]]:
    """Answers of 3 to 14 tokens; videos of 1 to 4 frames; with and without geometry, teacher, regions and video."""
    long = chat(answer="It is near. It is near. The ball")
    pointing = [chat("How far is <ground>?", "2 m"), chat("Where is the ball?", "It is near. 2 m")]
    return [
        *mixture(),
        make_sample(4, seed=5, teacher=True, messages=long),
        {"messages": chat(kind=None, answer="It is near. The ball")},
        make_grounding_sample(2, regions=2, seed=6, messages=pointing, region_masks=make_regions(2, 2))
        | {"region_references": [0], "region_targets": None},
    ]


def cases() -> dict[str, tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Samples and training arguments by name."""
    samples = seven_samples()
    plain = [{key: sample[key] for key in ("messages", "frames") if key in sample} for sample in samples]
    plain = [sample for sample in plain if "<ground>" not in json.dumps(sample["messages"])]
    return {
        "seven": (samples, {}),
        "random pairs": (samples, {"pair_mode": "random", "pairs_per_frame": 1}),
        "without geometry": (plain, {}),
        "two": (samples[:2], {}),
    }


def describe_answers(prediction: EvalPrediction) -> dict[str, float]:
    """Metrics that depend on the number, the order and the content of what is gathered."""
    labels, logits = prediction.label_ids, prediction.predictions
    said = labels[:, 1:] != -100
    right = (logits[:, :-1].argmax(-1) == labels[:, 1:]) & said
    rows = range(1, len(labels) + 1)
    return {
        "answers": len(labels),
        "order": float(sum(row * int(count) for row, count in zip(rows, said.sum(1), strict=True))),
        "right": float(right.sum()),
    }


def evaluate(folder: Path) -> dict[str, dict[str, float]]:
    """Evaluate each case in each size of batches; a key is "CASE, BATCH_SIZE"."""
    found = {}
    for name, (samples, options) in cases().items():
        for size in BATCH_SIZES:
            args = IDE3DTrainingArguments(
                output_dir=str(folder),
                use_cpu=True,
                ddp_backend="gloo",
                report_to="none",
                disable_tqdm=True,
                per_device_eval_batch_size=size,
                overlap_weight=0.3,
                **options,
            )
            trainer = IDE3DTrainer(
                build_model(), args, data_collator=build_collator(), compute_metrics=describe_answers
            )
            metrics = trainer.evaluate(samples)
            found[f"{name}, {size}"] = {key: value for key, value in metrics.items() if not key.endswith(TIMES)}
    return found


def start_processes(script: str | Path, processes: int, folder: Path, *words: str) -> None:
    """Run a script of the tests in several processes, in a folder.

    Raises:
        RuntimeError: If one of them fails, with what it wrote.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    done = subprocess.run([*command, str(script), *words], env=environment, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])


def launch(processes: int, folder: Path) -> dict[str, dict[str, float]]:
    """Return the figures of `evaluate` in several processes."""
    file = folder / f"figures_{processes}.json"
    start_processes(__file__, processes, folder, "--figures", str(file))
    return json.loads(file.read_text())


def largest_distance(one: dict[str, float], other: dict[str, float]) -> float:
    """Largest distance of two sets of figures, relative to values above 1; infinite where their names differ."""
    if one.keys() != other.keys():
        return float("inf")
    return max(abs(value - other[name]) / max(1.0, abs(value)) for name, value in one.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, help="file to write, in the processes of a launcher")
    figures = parser.parse_args().figures
    if figures is not None:
        found = evaluate(figures.parent / "run")
        if int(os.environ["RANK"]) == 0:
            figures.write_text(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        tables = {processes: launch(processes, Path(folder)) for processes in (1, 2, 3)}
    for name in cases():
        truth = tables[1][f"{name}, 1"]
        sys.stdout.write(f"\n{name}\nprocesses batch distance  ")
        sys.stdout.write("  ".join(key.removeprefix("eval_") for key in truth) + "\n")
        for processes, table in tables.items():
            for size in BATCH_SIZES:
                row = table[f"{name}, {size}"]
                values = "  ".join(f"{value:.6f}" for value in row.values())
                sys.stdout.write(f"{processes:9} {size:5} {largest_distance(truth, row):8.1e}  {values}\n")


if __name__ == "__main__":
    main()
    leave_processes()
