"""Kill a training with SIGKILL again and again, resume it, and compare with the run that nobody stopped.

    PYTHONPATH=.:tests python tests/trainer/kill_and_resume.py [OUTPUT]

The process is killed while it writes a checkpoint, right after one, and between two. What `get_last_checkpoint` gives
must be whole, no whole checkpoint may be lost, and losses, weights, heads and optimizer of the last must be those of
the reference, bit for bit. Exits with 1 otherwise.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from training_samples import build_collator, build_model, make_grounding_sample, make_mixed_batch

from trainer import IDE3DTrainer, IDE3DTrainingArguments
from trainer.loop.checkpoints import GEOMETRY_WEIGHTS, get_last_checkpoint, is_whole, list_checkpoints

STEPS = 8
WEIGHTS = ("model.safetensors", GEOMETRY_WEIGHTS)
logger = logging.getLogger("kill_and_resume")


def train(output: Path) -> None:
    """The run: random pairs, accumulation, a schedule, a checkpoint at every step; resumed where there is one."""
    args = IDE3DTrainingArguments(
        output_dir=str(output),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="steps",
        save_steps=1,
        logging_steps=1,
        max_steps=STEPS,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        pair_mode="random",
        geometry_start_step=1,
        geometry_warmup_steps=2,
        learning_rate=3e-3,
        weight_decay=0.01,
    )
    samples = [*make_mixed_batch(), make_grounding_sample(2, seed=7)]
    trainer = IDE3DTrainer(build_model(), args, train_dataset=samples, data_collator=build_collator())
    trainer.train(resume_from_checkpoint=get_last_checkpoint(output) is not None)


def start(output: Path) -> subprocess.Popen:
    """The run in a process of its own."""
    with open(output.parent / f"{output.name}.log", "ab") as log:
        return subprocess.Popen([sys.executable, __file__, "--run", str(output)], stdout=log, stderr=log)


def read_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """All tensors of a checkpoint, those of the optimizer included, and its losses; half of one raises."""
    tensors = {f"{name}/{key}": value for name in WEIGHTS for key, value in load_file(folder / name).items()}
    optimizer = torch.load(folder / "optimizer.pt", weights_only=True)
    for index, state in optimizer["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items()}
    torch.load(folder / "scheduler.pt", weights_only=True)
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    if not (folder / "rng_state.pth").is_file():
        raise FileNotFoundError(folder / "rng_state.pth")
    return tensors, [entry for entry in history if "loss" in entry]


def kill_at(process: subprocess.Popen, output: Path, moment: str, step: int) -> bool:
    """Wait for the moment and kill; whether half a checkpoint was left."""
    checkpoint = output / f"checkpoint-{step}"
    while process.poll() is None:
        if (moment == "writing" and checkpoint.is_dir()) or is_whole(checkpoint):
            if moment == "between":
                time.sleep(0.1)
            process.kill()
            process.wait()
            is_half = not is_whole(list_checkpoints(output)[-1])
            logger.info(
                "killed at step %d (%s); %d checkpoints left, the last %s",
                step,
                moment,
                len(list_checkpoints(output)),
                "is half of one" if is_half else "is whole",
            )
            return is_half
        time.sleep(0.003)
    raise RuntimeError(f"The run ended with {process.returncode} before it could be killed; see {output}.log.")


def check_left(output: Path, step: int) -> None:
    """Raise unless all checkpoints before `step` are there and whole, and the last is the one to resume from."""
    whole = [folder for folder in list_checkpoints(output) if is_whole(folder)]
    for folder in whole:
        read_checkpoint(folder)
    steps = [int(folder.name.rpartition("-")[2]) for folder in whole]
    if steps != list(range(1, len(steps) + 1)) or len(steps) < step - 1:
        raise RuntimeError(f"Killed at step {step}, only the checkpoints {steps} are left.")
    if get_last_checkpoint(output) != (str(whole[-1]) if whole else None):
        raise RuntimeError(f"{get_last_checkpoint(output)} is not the last of {steps}.")


def main() -> int:
    """Run, kill, resume, compare; 0 if all is equal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", nargs="?", type=Path)
    parser.add_argument("--run", type=Path, help="train into this folder and stop; what the script starts itself")
    words = parser.parse_args()
    if words.run:
        train(words.run)
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = words.output or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    whole, killed = folder / "whole", folder / "killed"
    reference = start(whole)
    halves = 0
    for moment, step in (("writing", 1), ("whole", 3), ("writing", 4), ("writing", 5), ("between", 6)):
        halves += kill_at(start(killed), killed, moment, step)
        check_left(killed, step)
    if start(killed).wait() or reference.wait():
        logger.error("A run failed; see the logs in %s.", folder)
        return 1
    (expected, losses), (actual, resumed) = (read_checkpoint(run / f"checkpoint-{STEPS}") for run in (whole, killed))
    unequal = [name for name, value in expected.items() if not torch.equal(value, actual[name])]
    is_equal = not unequal and expected.keys() == actual.keys() and losses == resumed
    logger.info(
        "%d tensors, %d unequal; %d losses, %s",
        len(expected),
        len(unequal),
        len(losses),
        "equal" if losses == resumed else "unequal",
    )
    if not halves:
        logger.error("No kill came while a checkpoint was written: nothing was shown. Run this again.")
    return 0 if is_equal and halves else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
