"""The geometric validator against the original depth head."""

import re

import pytest
import torch

from modeling_ide3d.auxiliary.dpt_head import DPTHead, embed_positions
from modeling_ide3d.auxiliary.geometric_validator import (
    GeometricValidator,
    GeometricValidatorConfig,
    convert_original_state_dict,
    rename_original_key,
)

pytestmark = pytest.mark.parity

DEPTH = {"atol": 2e-5, "rtol": 2e-5}
GRADIENT = {"atol": 1e-6, "rtol": 1e-3}


def load_validator(tensors: dict[str, torch.Tensor], **config) -> GeometricValidator:
    """Validator with the golden weights; its sizes are those of the weights."""
    weights = {key: value for key, value in tensors.items() if key.startswith("dpt_module.")}
    state_dict = convert_original_state_dict(weights)
    config = GeometricValidatorConfig.from_state_dict(state_dict, **config)
    validator = GeometricValidator(config)
    validator.load_state_dict(state_dict, strict=True)
    return validator


def square_grid(features: torch.Tensor) -> tuple[int, int]:
    side = round(features.shape[2] ** 0.5)
    return side, side


@pytest.fixture
def tensors(golden) -> dict[str, torch.Tensor]:
    return golden("dpt.safetensors")


@pytest.fixture
def validator(tensors, golden_json) -> GeometricValidator:
    return load_validator(tensors, patch_size=golden_json("dpt.json")["config"]["patch_size"])


@pytest.fixture
def features(tensors) -> list[torch.Tensor]:
    return [tensors[f"in.multilevel_features.{level}"].requires_grad_() for level in range(4)]


def test_position_embedding(tensors):
    names = [match for key in tensors if (match := re.fullmatch(r"pos\.embed_.*_aspect(\d+)/(\d+)", key))]
    assert names
    for match in names:
        rows, cols, channels = tensors[match[0]].shape
        aspect = int(match[1]) / int(match[2])
        positions = embed_positions(rows, cols, channels, aspect, device=torch.device("cpu"))
        torch.testing.assert_close(positions.permute(1, 2, 0), tensors[match[0]], atol=1e-6, rtol=1e-6)


def test_projection(tensors, validator):
    projected = validator.decoder.projection(tensors["in.multilevel_features.0"])
    torch.testing.assert_close(projected, tensors["out.projected_tokens.0"], **DEPTH)


def test_depth_confidence_and_gradients(tensors, validator, features):
    output = validator(tuple(features), square_grid(features[0]))
    torch.testing.assert_close(output.depth, tensors["out.depth"].squeeze(-1), **DEPTH)
    torch.testing.assert_close(output.confidence, tensors["out.depth_conf"], **DEPTH)

    (output.depth.mean() + 0.1 * output.confidence.mean()).backward()
    for level, feature in enumerate(features):
        expected = tensors[f"out.grad_features.{level}_of_mean(depth)+0.1mean(conf)"]
        torch.testing.assert_close(feature.grad, expected, **GRADIENT)
    parameters = dict(validator.named_parameters())
    names = [key.removeprefix("out.grad.") for key in tensors if key.startswith("out.grad.")]
    assert names
    for name in names:
        gradient = parameters[rename_original_key(name)].grad
        torch.testing.assert_close(gradient, tensors[f"out.grad.{name}"], **GRADIENT)


def test_relu_of_the_skip_connection_matters(golden_json, tensors, validator, features, monkeypatch):
    """A residual unit that adds x instead of relu(x) is off by what the original's authors of the vectors measured."""

    def plain(self, x):
        return x + self.conv2(torch.relu(self.conv1(torch.relu(x))))

    monkeypatch.setattr("modeling_ide3d.auxiliary.dpt_head.ResidualUnit.forward", plain)
    depth = validator(tuple(features), square_grid(features[0])).depth
    difference = (depth - tensors["out.depth"].squeeze(-1)).abs().max().item()
    assert difference == pytest.approx(golden_json("dpt.json")["max_abs_diff_if_relu_not_inplace"], rel=1e-3)


def test_head_on_a_grid_that_is_not_square(tensors, validator):
    keys = sorted(
        (key for key in tensors if key.startswith("head.in.tokens.")), key=lambda key: int(key.split(".")[-1])
    )
    name = next(key for key in tensors if key.startswith("head.out.depth_"))
    expected = tensors[name].squeeze(-1)[0]
    patch_grid = tuple(pixels // validator.config.patch_size for pixels in expected.shape[-2:])
    tokens = [tensors[key][0, :, -patch_grid[0] * patch_grid[1] :] for key in keys]
    head: DPTHead = validator.decoder.head
    log_depth, log_confidence = head(patch_grid, *tokens).unbind(1)
    torch.testing.assert_close(log_depth.exp(), expected, **DEPTH)
    torch.testing.assert_close(1 + log_confidence.exp(), tensors[name.replace("depth", "conf")][0], **DEPTH)


def test_cross_view_and_gradients(tensors, validator, features):
    kept = tensors["crossview.in.valid_masks"].flatten(1).any(1).nonzero().squeeze(1)
    torch.testing.assert_close(kept, tensors["crossview.out.valid_pair_indices"])
    output = validator.predict_cross_view(
        tuple(features),
        square_grid(features[0]),
        tensors["crossview.in.batch_indices"][kept],
        tensors["crossview.in.frame_i_indices"][kept],
        tensors["crossview.in.T_relatives"][kept],
    )
    torch.testing.assert_close(output.depth, tensors["crossview.out.cross_view_depth"].squeeze(-1), **DEPTH)
    torch.testing.assert_close(output.confidence, tensors["crossview.out.cross_view_depth_conf"], **DEPTH)

    output.depth.mean().backward()
    expected = tensors["crossview.out.grad.camera_pose_embedding.0_of_mean(depth)"]
    torch.testing.assert_close(validator.relative_pose_embedding[0].weight.grad, expected.T, **GRADIENT)
    expected = tensors["crossview.out.grad_features.3_of_mean(depth)"]
    torch.testing.assert_close(features[3].grad, expected, **GRADIENT)


def test_full_size_frame(golden):
    tensors = golden("dpt_378.safetensors")
    features = tuple(tensors[f"in.multilevel_features.{level}"] for level in range(4))
    name = next(key for key in tensors if key.startswith("out.depth_row"))
    row, index = tensors[name].squeeze(-1), int(name.removeprefix("out.depth_row"))
    patch_grid = square_grid(features[0])
    validator = load_validator(tensors, patch_size=row.shape[-1] // patch_grid[1])
    with torch.no_grad():
        output = validator(features, patch_grid)
    torch.testing.assert_close(output.depth[..., ::3, ::3], tensors["out.depth_stride3"].squeeze(-1), **DEPTH)
    torch.testing.assert_close(output.confidence[..., ::3, ::3], tensors["out.depth_conf_stride3"], **DEPTH)
    torch.testing.assert_close(output.depth[..., index, :], row, **DEPTH)
    torch.testing.assert_close(output.depth.double().sum().float(), tensors["out.depth_sum"], atol=0, rtol=1e-5)
    torch.testing.assert_close(
        output.confidence.double().sum().float(), tensors["out.depth_conf_sum"], atol=0, rtol=1e-5
    )


def test_official_sizes_are_the_defaults(golden_json):
    official = golden_json("dpt.json")["config"]["official"]
    config = GeometricValidatorConfig()
    assert config.vision_hidden_size == official["vision_hidden_size"]
    assert config.projection_size == official["feature_projector_out"] == official["dim_in"]
    assert config.features == official["features"]
    assert config.out_channels == tuple(official["out_channels"])
