"""Fixtures of a recipe of a few rooms and steps; a `conftest.py` that imports them gives them to its folder."""

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import yaml

TINY_RECIPE = {
    "num_rooms": 4,
    "num_validation_rooms": 1,
    "image_size": 32,
    "patch_size": 8,
    "num_frames": 2,
    "hidden_size": 32,
    "max_questions": 4,
    "place_samples": 1,
    "naming_steps": 1,
    "reading_steps": 1,
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "learning_rate": 1e-3,
    "save_strategy": "steps",
    "save_steps": 1,
    "logging_steps": 1,
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
}


@pytest.fixture(scope="session")
def rooms_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("rooms")


@pytest.fixture(autouse=True)
def rooms_are_kept(monkeypatch, rooms_folder) -> None:
    """Rooms are rendered once for all tests of a session."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", rooms_folder)


@pytest.fixture
def tiny_recipe(tmp_path) -> Callable[..., Path]:
    """`tiny_recipe(max_steps=3)` writes a recipe of a few rooms and steps; its output folder is `tmp_path / "out"`."""

    def write(**changes) -> Path:
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({**TINY_RECIPE, "output_dir": str(tmp_path / "out"), **changes}))
        return path

    return write
