"""Name the files of a run, and say which settings its weights depend on."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from processing.writing import whole_file

from ..storage import load_json
from .recipe import Arm, Entries, Study

__all__ = [
    "ADVICE",
    "RunFiles",
    "baselines_name",
    "check_settings",
    "describe_lesson",
    "describe_run",
    "save_weights",
]

ADVICE = "Remove it, and what it says is done again."
# Entries of a study that the weights of a run do not depend on.
LEFT_OUT = {"rows", "seeds", "control", "pairs", "output_dir", "known_results"}
LEFT_OUT |= {"validation_rooms", "test_rooms", "first_test_room", "probe_rooms"}
LEFT_OUT_OF_ARM = {"label", "more_seeds"}
OF_LESSON = ("num_rooms", "image_size", "patch_size", "num_frames", "hidden_size", "lesson")
OF_LESSON += ("reading", "text_layers", "say_boxes")


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Paths of what a run keeps.

    Args:
        output: Output folder of the study.
        arm: Name of the arm.
        seed: Seed of the run.
    """

    output: Path
    arm: str
    seed: int

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.output / "runs" / f"seed{self.seed}-{self.arm}"

    @property
    def lesson(self) -> Path:
        """Weights after the lessons that all runs share."""
        return self.output / "lesson.safetensors"

    def pool(self, settings: Mapping[str, object]) -> Path:
        """Return the path of the weights after the pool phase.

        Arms of equal `Study.pool_settings` share them.
        """
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
        """Return the path of the scores and probes of a split."""
        return self.folder / f"{split}.json"


def save_weights(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    with whole_file(path) as unfinished:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, unfinished)


def baselines_name(study: Study, split: str) -> str:
    """Return the file name of the scores without sight, which names their rooms."""
    return f"baselines-{study.scored_name(split)}.json"


def describe_run(study: Study, arm: Arm) -> Entries:
    """Return the settings that the weights of a run depend on."""
    entries = {**dataclasses.asdict(study), "teacher_wavelengths": list(study.teacher_wavelengths)}  # as JSON has it
    kept = {name: value for name, value in entries.items() if name not in LEFT_OUT}
    own = {name: value for name, value in arm.settings().items() if name not in LEFT_OUT_OF_ARM}
    return {**kept, "row": own}


def describe_lesson(study: Study) -> Entries:
    """Return the settings that the weights after the lessons depend on."""
    return {name: value for name, value in dataclasses.asdict(study).items() if name in OF_LESSON}


def check_settings(path: Path, settings: Mapping[str, object]) -> None:
    """Check that a file, if it is there, was made with these settings.

    Raises:
        ValueError: If it was made with others.
    """
    if not path.is_file():
        return
    found = load_json(path, ADVICE)["settings"]
    if found != settings:
        changed = sorted(name for name in {*found, *settings} if found.get(name) != settings.get(name))
        raise ValueError(
            f"{path} was made with other settings of {', '.join(changed)}. Give the study another `output_dir`, or "
            "remove what is there."
        )
