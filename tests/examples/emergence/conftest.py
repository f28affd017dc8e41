"""Recipes of a tiny study, and what its runs share."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from examples.emergence import models, rooms, study, training
from examples.emergence.recipe import Study, read_study

PHASE = {"rooms": 1, "learning_rate": 1e-3, "vision_learning_rate": 1e-3}
TINY = {
    "seeds": [1, 2],
    "num_rooms": 8,
    "labelled_rooms": 3,
    "validation_rooms": 7,
    "test_rooms": 7,
    "probe_rooms": 7,
    "image_size": 32,
    "num_frames": 2,
    "hidden_size": 32,
    "text_layers": 2,
    "control": "exposure",
    "lesson": {"steps": 1, **PHASE},
    "reading": {"steps": 0, **PHASE},
    "pool": {"steps": 2, **PHASE},
    "questions": {"steps": 2, **PHASE, "views": 2, "words": 4, "max_questions": 3},
    "rows": {"exposure": None, "all": {"depth": 0.5, "cross_view": 0.1, "teacher": 0.5}},
    "pairs": [["all", "exposure"]],
}


@pytest.fixture
def write_study(tmp_path) -> Callable[..., tuple[Path, Study]]:
    """`write_study(seeds=[1])` writes the recipe of a tiny study and returns its file and what is read from it."""

    def write(**changes) -> tuple[Path, Study]:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**TINY, "output_dir": str(tmp_path / "out"), **changes}, sort_keys=False))
        return path, read_study(path)

    return write


@pytest.fixture
def prepare(write_study) -> Callable[..., tuple[Path, Study]]:
    """`prepare(seeds=[1])` writes a tiny study as `write_study` does, with its rooms, baselines and lessons."""

    def make(**changes) -> tuple[Path, Study]:
        path, tiny = write_study(**changes)
        folder = Path(tiny.output_dir) / "rooms"
        rooms.store_rooms(folder, "train", tiny.num_rooms, models.study_grid(tiny), tiny.num_frames)
        training.take_lesson(tiny)
        study.prepare(tiny, str(path), "validation")
        return path, tiny

    return make


@pytest.fixture
def prepared(prepare) -> tuple[Path, Study]:
    """A tiny study with its rooms, baselines and lessons."""
    return prepare()
