"""The scripts of examples/ as modules, and rooms that are made once for all tests."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import datasets
import pytest
import yaml

from processing.rooms import load_rooms
from trainer import export_inference_model

EXAMPLES = Path(__file__).parents[2] / "examples"
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


@pytest.fixture
def example(monkeypatch) -> Callable[[str], ModuleType]:
    """`example("train")` imports examples/train.py."""
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as where Python runs a script: some import their neighbours
    return lambda name: importlib.import_module(f"examples.{name}")


@pytest.fixture
def train(example) -> ModuleType:
    """examples/train.py."""
    return example("train")


@pytest.fixture
def run_train(train, monkeypatch) -> Callable[..., None]:
    """`run_train(recipe, "--max_steps", 3)` runs its command line."""

    def call(*words) -> None:
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words)])
        train.main()

    return call


@pytest.fixture(scope="session")
def _rooms_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("rooms")


@pytest.fixture(autouse=True)
def _rooms_are_kept(monkeypatch, _rooms_folder) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", _rooms_folder)


@pytest.fixture
def tiny_recipe(tmp_path) -> Callable[..., Path]:
    """`tiny_recipe(max_steps=3)` writes a recipe of a few rooms and steps; its output folder is `tmp_path / "out"`."""

    def write(**changes) -> Path:
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({**TINY_RECIPE, "output_dir": str(tmp_path / "out"), **changes}))
        return path

    return write


@pytest.fixture
def tiny_export(example, tmp_path) -> Path:
    """Folder of an export that knows the words of the rooms and nothing else."""
    train = example("train")
    data = train.DataArguments(image_size=32, num_frames=2)
    texts = train.list_texts(load_rooms("train", 4, **train.room_options(data)))
    model, processor = train.load_model(train.ModelArguments(hidden_size=32), data, texts, None)
    return export_inference_model(model, processor, tmp_path / "tiny_export")
