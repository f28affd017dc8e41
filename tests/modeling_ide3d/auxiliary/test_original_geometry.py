"""The training-only weights of a converted checkpoint in the training class."""

import logging

import pytest
import torch
from original_checkpoints import (
    OLDER,
    VISION,
    build_model,
    build_original_heads,
    older_weights,
    original_weights,
    without,
    write_source,
)
from safetensors.torch import save_file

from modeling_ide3d.auxiliary import (
    load_converted_for_training,
    original_geometry,
    read_original_geometry,
)
from modeling_ide3d.conversion import convert_checkpoint, names


@pytest.fixture(scope="module")
def model():
    return build_model()


def test_heads_of_3d_ide_are_trained_on(tmp_path, model):
    heads = build_original_heads()
    weights = without(original_weights(model), "model.dpt_module.", "model.proj_3d.") | heads
    convert_checkpoint(write_source(tmp_path / "source", weights), tmp_path / "target")
    loaded = load_converted_for_training(tmp_path / "target")
    state = loaded.geometry_state_dict()
    assert torch.equal(
        state["geometric_validator.decoder.head.norm.weight"], heads["model.dpt_module.depth_head.norm.weight"]
    )
    assert torch.equal(
        state["geometric_validator.relative_pose_embedding.1.weight"],
        heads["model.dpt_module.camera_pose_embedding.1"].T,
    )
    assert torch.equal(state["teacher_projector.linear_2.weight"], heads["model.proj_3d.2.weight"])
    assert len(state) == len(heads)
    assert torch.equal(loaded.lm_head.weight, weights["lm_head.weight"])
    assert loaded.geometric_validator.config.layer_indices == (0, 1, 1, 2)
    frames = torch.randn(1, 2, 3, VISION["image_size"], VISION["image_size"])
    assert loaded.predict_depth(frames).depth.shape == (1, 2, VISION["image_size"], VISION["image_size"])
    chosen = load_converted_for_training(tmp_path / "target", layer_indices=(0, 1, 2, 2), dtype=torch.bfloat16)
    assert chosen.geometric_validator.config.layer_indices == (0, 1, 2, 2)
    assert chosen.teacher_projector.linear_1.weight.dtype == torch.bfloat16


def test_conversion_and_training_name_the_same_file():
    """Neither package may import the other, so the name stands in both."""
    assert original_geometry.TRAINING_ONLY_FILE == names.TRAINING_ONLY_FILE


def test_projection_of_the_older_family_alone(tmp_path, model, caplog):
    projection = {key: tensor for key, tensor in build_original_heads().items() if ".proj_3d." in key}
    weights = without(older_weights(model, 300), "model.proj_3d.") | projection
    source = write_source(tmp_path / "source", weights, **OLDER)
    convert_checkpoint(source, tmp_path / "target", ignore_position_encoding=True)
    with caplog.at_level(logging.WARNING):
        loaded = load_converted_for_training(tmp_path / "target")
    assert loaded.geometric_validator is None
    assert torch.equal(loaded.teacher_projector.linear_1.weight, projection["model.proj_3d.0.weight"])
    assert "model.corres_linear.weight" in caplog.text


def test_checkpoint_without_heads_says_how_to_build_them(tmp_path, model):
    weights = without(original_weights(model), "model.dpt_module.", "model.proj_3d.")
    convert_checkpoint(write_source(tmp_path / "source", weights), tmp_path / "target")
    with pytest.raises(FileNotFoundError, match="had no training-only weights.*validator_config"):
        load_converted_for_training(tmp_path / "target")


def test_heads_that_do_not_load_are_named(tmp_path):
    file = tmp_path / "heads.safetensors"
    save_file({"model.dpt_module.point_head.norm.weight": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match="point_head"):
        read_original_geometry(file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="heads.safetensors is truncated"):
        read_original_geometry(file)


@pytest.mark.parametrize("lost", ["depth_head.norm.bias", "feature_projector.0.weight"])
def test_incomplete_heads_are_refused(tmp_path, model, lost):
    heads = without(build_original_heads(), f"model.dpt_module.{lost}")
    weights = without(original_weights(model), "model.dpt_module.", "model.proj_3d.") | heads
    convert_checkpoint(write_source(tmp_path / "source", weights), tmp_path / "target")
    with pytest.raises(ValueError, match="missing|lack"):
        load_converted_for_training(tmp_path / "target")
