"""The names at the door: each is the one of its package, and the nano model is where it is said to be."""

import ast
import importlib
from pathlib import Path

import pytest
from transformers import AutoConfig

import ide3d

HOMES = {
    "GeometrySupervision": "trainer",
    "IDE3DConfig": "modeling_ide3d",
    "IDE3DDataCollator": "trainer",
    "IDE3DForConditionalGeneration": "modeling_ide3d",
    "IDE3DProcessor": "processing",
    "IDE3DTrainer": "trainer",
    "IDE3DTrainingArguments": "trainer",
    "IDE3DVideoProcessor": "processing",
    "PosedVideo": "processing",
    "SceneSession": "trainer.session",
    "TokenGrid": "processing",
    "export_inference_model": "trainer",
    "load_rooms": "processing.rooms",
    "nano_model": "ide3d.nano",
    "open_video": "trainer.session",
}


@pytest.mark.parametrize("name", HOMES)
def test_a_name_is_that_of_its_package(name):
    assert getattr(ide3d, name) is getattr(importlib.import_module(HOMES[name]), name)


def test_the_stub_lists_these_names():
    stub = ast.parse((Path(ide3d.__file__).parent / "__init__.pyi").read_text(encoding="utf-8"))
    listed = [alias.asname for node in stub.body for alias in node.names]
    assert sorted(listed) == sorted(HOMES) == sorted(ide3d.__all__)


def test_the_nano_model_is_whole():
    folder = ide3d.nano_model()
    assert isinstance(folder, Path) and (folder / "model.safetensors").is_file()
    assert AutoConfig.from_pretrained(folder).model_type == "ide3d"


def test_a_missing_nano_model_is_named(monkeypatch, tmp_path):
    nano = importlib.import_module("ide3d.nano")
    monkeypatch.setattr(nano, "INSTALLED", tmp_path)
    monkeypatch.setattr(nano, "IN_REPOSITORY", tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="holds the nano model. Install ide3d again"):
        nano.nano_model()
    (tmp_path / "config.json").write_text("{}")
    assert nano.nano_model() == tmp_path
