"""Reproduce the paper's scores: convert checkpoints, run its five benchmarks, and compare with what was published."""

import json
import logging
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedConfig

from modeling_ide3d.conversion import convert_checkpoint
from processing.benchmarks import TASKS
from processing.benchmarks.doctor import examine
from processing.writing import write_text
from trainer.evaluation.published import PUBLISHED, Comparison, compare_scores, write_table
from trainer.evaluation.results import EvaluationSettings
from trainer.evaluation.runner import run_evaluation
from trainer.processes import count_launched

__all__ = ["build_command", "check_data", "reproduce"]

logger = logging.getLogger(__name__)

SOURCE_FILE = "converted_from.txt"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
GIGABYTE = 1024**3


def check_data(data: Path, tasks: Sequence[str], skip_invalid_poses: bool) -> None:
    """Let the data doctor look at the splits that the paper reports, each scene once.

    Args:
        data: Folder in the public layout.
        tasks: Keys of `TASKS`.
        skip_invalid_poses: Whether the runner leaves out frames whose pose is not finite, so that they stop nothing.

    Raises:
        ValueError: If a task cannot be run; the doctor's report says why, and how to mend it.
    """
    excused = {"pose-not-finite"} if skip_invalid_poses else set()
    for split in dict.fromkeys(TASKS[task].eval_split for task in tasks):
        chosen = [task for task in tasks if TASKS[task].eval_split == split]
        diagnosis = examine(data, tasks=chosen, splits=[split])
        broken = [state.task for state in diagnosis.splits if not state.is_there or set(state.stopped_by) - excused]
        if broken:
            raise ValueError(
                f"{data} cannot be used for {', '.join(broken)}. Mend it, or choose other --tasks. "
                f"The data doctor says:\n\n{diagnosis.as_text()}"
            )
        logger.info("%s", diagnosis.as_text())


def find_model(source: Path, folder: Path) -> Path:
    """Return the folder of the converted model: in `folder`, unless the checkpoint itself is converted.

    Raises:
        FileNotFoundError: If the checkpoint, or its tokenizer, is missing.
        ValueError: If `folder` holds the model of another checkpoint.
    """
    target, record = folder / "model", folder / SOURCE_FILE
    if (target / "config.json").is_file():
        origin = record.read_text(encoding="utf-8") if record.is_file() else "a folder that is not known"
        if origin != str(source.resolve()):
            raise ValueError(
                f"{target} was converted from {origin}, not from {source.resolve()}: choose another --output, or "
                f"name {target} itself as the checkpoint."
            )
        return target
    if not (source / "config.json").is_file():
        raise FileNotFoundError(f"There is no checkpoint in {source}: expected a folder with config.json and weights.")
    if not any((source / name).is_file() for name in TOKENIZER_FILES):
        raise FileNotFoundError(f"{source} has no tokenizer: put {' or '.join(TOKENIZER_FILES)} beside the weights.")
    return source if PreTrainedConfig.get_config_dict(source)[0].get("model_type") == "ide3d" else target


def convert(source: Path, target: Path, vision_tower: Path | None) -> None:
    """Convert a checkpoint unless that was done before, and remember where it came from."""
    if not (target / "config.json").is_file():
        logger.info("%s", convert_checkpoint(source, target, vision_tower=vision_tower))
        write_text(target.parent / SOURCE_FILE, str(source.resolve()))


def build_command(settings: EvaluationSettings, launcher: str) -> list[str]:
    """Build the runner's command line, one flag for each setting, behind a launcher of processes."""
    given = {**vars(settings), "max_memory": settings.max_memory / GIGABYTE}
    words = ["--no-meteor"] if given.pop("meteor") is False else []
    for name, value in given.items():
        if value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words += map(str, value if isinstance(value, tuple) else [value])
    return [*shlex.split(launcher), "-m", "trainer.evaluation", *words]


def reproduce(
    checkpoints: Sequence[Path], data: Path, output: Path, tasks: Sequence[str] = tuple(PUBLISHED), *,
    vision_tower: Path | None = None, launcher: str | None = None, **settings
) -> list[Comparison]:  # fmt: skip
    """Convert the checkpoints, run the benchmarks and write `reproduction.md` after each of them.

    Checkpoints that are converted, and runs that are finished, are left as they are.

    Args:
        checkpoints: Folders in the original layout, or converted ones.
        data: Folder of the benchmarks in the public layout.
        output: Folder that gets a folder for each checkpoint, with the model and a folder for each benchmark.
        tasks: Keys of `PUBLISHED`.
        vision_tower: See `convert_checkpoint`.
        launcher: Command that starts several processes, such as "accelerate launch --num_processes 8".
        **settings: Changes to `EvaluationSettings`.

    Returns:
        One comparison for each score of each checkpoint.

    Raises:
        FileNotFoundError: If a checkpoint is missing.
        ValueError: If the data are not complete, or the output folder holds answers of another run.
    """
    if count_launched() > 1:
        raise ValueError("Start this in one process without a launcher, and name the launcher by --launcher.")
    names = [source.resolve().name for source in checkpoints]
    if len(set(names)) < len(names):
        raise ValueError(f"Checkpoints must differ in the names of their folders, got {names}.")
    targets = [find_model(source, output / name) for source, name in zip(checkpoints, names, strict=True)]
    check_data(data, tasks, settings.get("skip_invalid_poses", False))
    comparisons: list[Comparison] = []
    for source, name, target in zip(checkpoints, names, targets, strict=True):
        convert(source, target, vision_tower)
        for task in tasks:
            run = EvaluationSettings(
                model=str(target), task=task, data=str(data), protocol="paper", output=str(output / name / task),
                meteor=False, **settings,
            )  # fmt: skip
            if launcher is None:
                results = run_evaluation(run)
            else:
                subprocess.run(build_command(run, launcher), check=True)
                results = json.loads(Path(run.output, "results.json").read_text(encoding="utf-8"))
            comparisons += compare_scores(name, results)
            write_table(output, comparisons)
    return comparisons
