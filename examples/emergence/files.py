"""Files of the emergence study: where runs keep what they have done, written whole or not at all."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from .recipe import Row, Study

__all__ = [
    "RunFiles",
    "baselines_name",
    "check_settings",
    "describe_lesson",
    "describe_run",
    "load_json",
    "save_weights",
    "write_json",
]

# Entries of a study that the weights of a run do not depend on.
LEFT_OUT = {"rows", "seeds", "control", "pairs", "output_dir", "known_results"}
LEFT_OUT |= {"validation_rooms", "test_rooms", "first_test_room", "probe_rooms"}
LEFT_OUT_OF_ROW = {"label", "more_seeds"}
OF_LESSON = ("num_rooms", "image_size", "patch_size", "num_frames", "hidden_size", "lesson")
# That counts where there is a lesson in reading, which trains the layers of the language model.
OF_READING = ("reading", "text_layers", "say_boxes")


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Where a run keeps what it has done.

    Args:
        output: Folder of the study.
        row: Name.
        seed: Seed.
    """

    output: Path
    row: str
    seed: int

    @property
    def folder(self) -> Path:
        """Of this run."""
        return self.output / "runs" / f"seed{self.seed}-{self.row}"

    @property
    def lesson(self) -> Path:
        """Weights after the lesson that all runs share."""
        return self.output / "lesson.safetensors"

    def pool(self, settings: Mapping[str, Any]) -> Path:
        """Weights after the phase without questions, which rows of equal `Study.pool_settings` share."""
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        return self.output / "pools" / f"seed{self.seed}-{key}.safetensors"

    @property
    def weights(self) -> Path:
        """Weights at the end."""
        return self.folder / "weights.safetensors"

    @property
    def training(self) -> Path:
        """Settings, losses and cost; written when the training is done."""
        return self.folder / "training.json"

    def result(self, split: str) -> Path:
        """Scores and probes of a split."""
        return self.folder / f"{split}.json"


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".incomplete")
    unfinished.write_text(json.dumps(content) + "\n", encoding="utf-8")
    unfinished.replace(path)


def save_weights(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".incomplete")
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, unfinished)
    unfinished.replace(path)


def baselines_name(study: Study, split: str) -> str:
    """File name of the scores without sight; it says which rooms they are about."""
    return f"baselines-{study.scored_name(split)}.json"


def describe_run(study: Study, row: Row) -> dict[str, Any]:
    """What the weights of a run depend on; a row's label and its number of seeds are not among it."""
    entries = {**dataclasses.asdict(study), "teacher_wavelengths": list(study.teacher_wavelengths)}  # as JSON has it
    kept = {name: value for name, value in entries.items() if name not in LEFT_OUT}
    own = {name: value for name, value in dataclasses.asdict(row).items() if name not in LEFT_OUT_OF_ROW}
    return {**kept, "row": own}


def describe_lesson(study: Study) -> dict[str, Any]:
    """What the weights after the lesson depend on."""
    names = OF_LESSON if study.reading is None else (*OF_LESSON, *OF_READING)
    return {name: value for name, value in dataclasses.asdict(study).items() if name in names}


def load_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Remove it, and what it says is done again.") from error


def check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Raise ValueError if a file is there that was made with other settings."""
    if not path.is_file():
        return
    found = load_json(path)["settings"]
    if found != settings:
        changed = sorted(name for name in {*found, *settings} if found.get(name) != settings.get(name))
        raise ValueError(
            f"{path} was made with other settings of {', '.join(changed)}. Give the study another output_dir, or "
            "remove what is there."
        )
