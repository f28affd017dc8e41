"""The scripts of examples/ as modules, and rooms that are made once for all tests."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from tiny_recipes import rooms_are_kept, rooms_folder, tiny_recipe

from processing.rooms import load_rooms
from trainer import export_inference_model
from trainer.recipes import DataArguments, ModelArguments, room_options
from trainer.recipes.data import list_texts
from trainer.recipes.models import load_model

__all__ = ["rooms_are_kept", "rooms_folder", "tiny_recipe"]  # fixtures

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch) -> Callable[[str], ModuleType]:
    """`example("train")` imports examples/train.py."""
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as where Python runs a script: some import their neighbours
    return lambda name: importlib.import_module(f"examples.{name}")


@pytest.fixture
def tiny_export(tmp_path) -> Path:
    """Folder of an export that knows the words of the rooms and nothing else."""
    data = DataArguments(image_size=32, num_frames=2)
    texts = list_texts(load_rooms("train", 4, **room_options(data)))
    model, processor = load_model(ModelArguments(hidden_size=32), data, texts, None)
    return export_inference_model(model, processor, tmp_path / "tiny_export")
