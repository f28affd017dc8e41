"""Which folders of a run are whole checkpoints."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import SiglipVisionConfig

from modeling_ide3d.auxiliary import GeometricValidatorConfig
from trainer.loop.checkpoints import (
    GEOMETRY_WEIGHTS,
    clear_checkpoint,
    get_last_checkpoint,
    is_whole,
    list_checkpoints,
    save_heads,
)


def write(folder, state='{"global_step": 1}'):
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    if state is not None:
        (folder / "trainer_state.json").write_text(state)
    return folder


@pytest.mark.parametrize("state", [None, "", json.dumps({"global_step": 12, "log_history": [1, 2]})[:-3]])
def test_a_state_that_is_missing_or_cut_off(tmp_path, state):
    assert not is_whole(write(tmp_path / "checkpoint-1", state))


def test_the_last_is_the_one_of_the_largest_step_that_is_whole(tmp_path):
    for step in (2, 10, 9):
        write(tmp_path / f"checkpoint-{step}")
    write(tmp_path / "checkpoint-11", state=None)
    write(tmp_path / "checkpoint-mine")
    write(tmp_path / "old-checkpoint-12")
    (tmp_path / "checkpoint-13").write_text("a file")
    assert get_last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"checkpoint-{k}" for k in (2, 9, 10, 11)]


def test_there_is_none(tmp_path):
    assert get_last_checkpoint(tmp_path / "nowhere") is None
    write(tmp_path / "checkpoint-1", state=None)
    assert get_last_checkpoint(tmp_path) is None


@pytest.mark.parametrize("has_rotation", [True, False])
def test_interrupted_ones_go_only_where_old_ones_are_deleted(tmp_path, has_rotation):
    for name, state in {
        "checkpoint-1": "{}",
        "checkpoint-2": None,
        "checkpoint-mine": None,
        "incomplete": None,
    }.items():
        write(tmp_path / name, state)
    clear_checkpoint(write(tmp_path / "checkpoint-3"), has_rotation)
    left = {"checkpoint-1", "checkpoint-mine", "incomplete"} | (set() if has_rotation else {"checkpoint-2"})
    assert {path.name for path in tmp_path.iterdir()} == left
    clear_checkpoint(tmp_path / "checkpoint-3", has_rotation)  # nothing to clear


def test_heads_are_the_same_bytes_however_often_they_are_written(tmp_path):
    """`findings/safetensors_metadata_order.sh`: several entries of metadata would come in random order."""
    config = GeometricValidatorConfig.light(
        SiglipVisionConfig(hidden_size=8, num_hidden_layers=4, num_attention_heads=2)
    )
    written = set()
    for _ in range(8):
        save_heads({"geometric_validator.weight": torch.arange(3.0)}, tmp_path, config)
        written.add((tmp_path / GEOMETRY_WEIGHTS).read_bytes())
    with safe_open(tmp_path / GEOMETRY_WEIGHTS, framework="pt") as file:
        assert len(file.metadata()) == len(written) == 1
