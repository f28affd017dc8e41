import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from original_checkpoints import original_decoder_names
from transformers import SiglipVisionConfig

from modeling_ide3d.auxiliary import (
    GeometricValidator,
    GeometricValidatorConfig,
    IDE3DForConditionalGenerationWithGeometry,
)
from modeling_ide3d.auxiliary.geometric_validator import convert_original_state_dict, rename_original_key
from modeling_ide3d.auxiliary.relative_pose import TRANSLATION_SCALE, encode_relative_pose

VISION = SiglipVisionConfig(
    hidden_size=12, intermediate_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=24, patch_size=6
)
GRID = (4, 5)  # a grid need not be square


def build(**overrides) -> GeometricValidator:
    torch.manual_seed(0)
    return GeometricValidator(GeometricValidatorConfig.light(VISION, projection_size=16, **overrides)).eval()


def build_features(batch_size: int = 2, views: int = 3, dtype=torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    shape = (batch_size, views, GRID[0] * GRID[1], VISION.hidden_size)
    return tuple(torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(4))


def build_poses(count: int) -> torch.Tensor:
    pose = torch.eye(4).repeat(count, 1, 1)
    pose[:, :3, 3] = torch.arange(3 * count).reshape(count, 3) / 10
    return pose


def test_every_pixel_gets_a_positive_depth_and_a_confidence_above_one():
    output = build()(build_features(), GRID)
    assert output.depth.shape == output.confidence.shape == (2, 3, 24, 30)
    assert (output.depth > 0).all()
    assert (output.confidence > 1).all()


@pytest.mark.parametrize("stride", [1, 2, 3, 6])
def test_output_stride_lowers_the_resolution(stride):
    validator = build(output_stride=stride)
    output = validator(build_features(), GRID)
    assert tuple(output.depth.shape[-2:]) == validator.output_size(GRID) == (24 // stride, 30 // stride)


def test_output_stride_must_divide_the_frame():
    with pytest.raises(ValueError, match="output_stride must divide the 24 x 30 pixels"):
        build(output_stride=4)(build_features(), GRID)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_chunks_do_not_change_the_result(chunk):
    whole, chunked = build(), build(frames_per_chunk=chunk)
    features = build_features()
    torch.testing.assert_close(chunked(features, GRID).depth, whole(features, GRID).depth)
    pair = (torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1]), build_poses(3))
    for validator in (whole, chunked):
        validator.relative_pose_embedding[1].weight.data.fill_(0.1)
    torch.testing.assert_close(
        chunked.predict_cross_view(features, GRID, *pair).depth, whole.predict_cross_view(features, GRID, *pair).depth
    )


def test_frames_do_not_see_each_other():
    validator, features = build(), build_features()
    changed = tuple(level.detach().clone() for level in features)
    for level in changed:
        level[1, 2] += 1
    before, after = validator(features, GRID).depth, validator(changed, GRID).depth
    torch.testing.assert_close(after[0], before[0], atol=0, rtol=0)
    torch.testing.assert_close(after[1, :2], before[1, :2], atol=0, rtol=0)
    assert (after[1, 2] != before[1, 2]).any()


def test_cross_view_starts_as_the_source_view():
    """The pose map starts at zero: the first prediction is the source frame's own depth."""
    validator, features = build(), build_features()
    batch, source = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2])
    output = validator.predict_cross_view(features, GRID, batch, source, build_poses(3))
    torch.testing.assert_close(output.depth, validator(features, GRID).depth[batch, source])


def test_cross_view_learns_from_the_pose():
    validator, features = build(), build_features()
    batch, source = torch.tensor([0, 0]), torch.tensor([1, 1])
    validator.predict_cross_view(features, GRID, batch, source, build_poses(2)).depth.sum().backward()
    for embedding in validator.relative_pose_embedding:
        assert embedding.weight.grad.abs().sum() > 0
        embedding.weight.data.normal_(generator=torch.Generator().manual_seed(2))
    depth = validator.predict_cross_view(features, GRID, batch, source, build_poses(2)).depth
    assert (depth[0] - depth[1]).abs().max() > 1e-3


def test_no_pairs_give_an_empty_prediction():
    none = torch.zeros(0, dtype=torch.long)
    output = build().predict_cross_view(build_features(), GRID, none, none, torch.zeros(0, 4, 4))
    assert output.depth.shape == output.confidence.shape == (0, 24, 30)


def test_gradients_reach_every_level_and_every_weight():
    validator, features = build(), build_features()
    output = validator(features, GRID)
    (output.depth.mean() + output.confidence.mean()).backward()
    assert all(level.grad.abs().sum() > 0 for level in features)
    for name, parameter in validator.named_parameters():
        if not name.startswith("relative_pose_embedding"):
            assert parameter.grad is not None, name


def test_activation_checkpointing_keeps_the_gradients():
    gradients = []
    for checkpointing in (False, True):
        validator, features = build(frames_per_chunk=2).train(), build_features()
        if checkpointing:
            validator.activation_checkpointing_enable()
            assert validator.decoder.gradient_checkpointing
        validator(features, GRID).depth.mean().backward()
        gradients.append([parameter.grad for parameter in validator.decoder.parameters()] + [features[0].grad])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, atol=0, rtol=0)


def test_runs_in_the_dtype_of_its_weights_and_returns_float32():
    validator, features = build().to(torch.bfloat16), build_features()
    output = validator(features, GRID)
    assert output.depth.dtype == output.confidence.dtype == torch.float32
    assert (output.depth > 0).all()
    cross = validator.predict_cross_view(features, GRID, torch.tensor([0]), torch.tensor([1]), build_poses(1))
    assert cross.depth.dtype == torch.float32


def test_five_steps_lower_the_error():
    validator, features = build().train(), build_features()
    target = torch.full((2, 3, 24, 30), 2.5)
    optimizer = torch.optim.Adam(validator.parameters(), lr=1e-2)
    errors = []
    for _ in range(6):
        error = (validator(features, GRID).depth - target).abs().mean()
        errors.append(error.item())
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert errors[-1] < 0.7 * errors[0]


def test_random_initialisation_keeps_the_scale_of_narrow_heads():
    depth = build()(build_features(), GRID).depth
    # Normal weights of deviation 0.02, as language models have, would leave 1e-6 of the features here.
    assert depth.log().std() > 1e-3
    assert depth.log().abs().max() < 3


def test_a_validator_is_rebuilt_from_its_weights():
    validator, features = build(), build_features()
    validator.relative_pose_embedding[0].weight.data.fill_(0.5)
    weights = validator.state_dict()
    others = {"patch_size": VISION.patch_size, "layer_indices": (1, 2, 3, 4), "frames_per_chunk": None}
    config = GeometricValidatorConfig.from_state_dict(weights, **others)
    assert config == validator.config
    again = GeometricValidator(config)
    again.load_state_dict(weights)
    pair = (torch.tensor([0]), torch.tensor([1]), build_poses(1))
    expected = validator.predict_cross_view(features, GRID, *pair).depth
    torch.testing.assert_close(again.predict_cross_view(features, GRID, *pair).depth, expected, atol=0, rtol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_attention_of_the_whole_training_model_can_be_chosen(tiny_config, attention):
    """The heads have no attention, and do not stand in the way."""
    config = tiny_config()
    validator_config = GeometricValidatorConfig.light(config.vision_config)
    model = IDE3DForConditionalGenerationWithGeometry(config, validator_config, teacher_size=6)
    model.set_attn_implementation(attention)
    assert model.config.text_config._attn_implementation == attention


def test_heads_of_a_loaded_training_model_start_by_their_own_rule(make_tiny_model, tmp_path):
    make_tiny_model().save_pretrained(tmp_path)
    config = GeometricValidatorConfig.light(make_tiny_model().config.vision_config)
    model = IDE3DForConditionalGenerationWithGeometry.from_pretrained(tmp_path, validator_config=config)
    validator = model.geometric_validator
    assert all(embedding.weight.abs().sum() == 0 for embedding in validator.relative_pose_embedding)
    assert (validator.decoder.head.norm.weight == 1).all()
    for layer in (
        validator.decoder.head.pixel_conv,
        validator.decoder.projection[0],
        validator.decoder.head.resizes[0],
    ):
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx((1 / (3 * fan_in)) ** 0.5, rel=0.2)


def test_sizes_follow_the_vision_tower():
    config = GeometricValidatorConfig.from_vision_config(VISION)
    assert config.vision_hidden_size == VISION.hidden_size
    assert config.projection_hidden_size == 2 * VISION.hidden_size
    assert config.patch_size == VISION.patch_size
    assert config.layer_indices == (1, 2, 3, 4)
    assert GeometricValidatorConfig.from_vision_config(VISION, layer_indices=(0, 1, 2, 4)).layer_indices == (
        0,
        1,
        2,
        4,
    )
    official = SiglipVisionConfig(hidden_size=1152, num_hidden_layers=26, patch_size=14)
    assert GeometricValidatorConfig.from_vision_config(official) == GeometricValidatorConfig()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layer_indices", (1, 2, 3), "must have 4 entries"),
        ("layer_indices", (1, 2, 3, -1), "non-negative and ascending"),
        ("features", 20, "multiple of 8"),
        ("out_channels", (16, 16, 30, 32), "multiples of 4"),
        ("output_stride", 0, "at least 1"),
        ("frames_per_chunk", 0, "at least 1"),
        ("protocol", "quaternion", "protocol"),
        ("features", "wide", "features"),
    ],
)
def test_config_says_what_is_wrong(field, value, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        GeometricValidatorConfig(**{field: value})


def test_a_misspelt_field_and_a_wrong_type_set_later_are_refused():
    with pytest.raises(TypeError, match="output_strid"):
        GeometricValidatorConfig(output_strid=2)
    with pytest.raises(StrictDataclassError, match="output_stride"):
        GeometricValidatorConfig().output_stride = "two"


def test_wrong_features_are_named():
    validator, features = build(), build_features()
    with pytest.raises(ValueError, match="must hold 4 levels"):
        validator(features[:3], GRID)
    with pytest.raises(ValueError, match=r"shape \(B, V, 25, 12\) for a grid of \(5, 5\)"):
        validator(features, (5, 5))
    with pytest.raises(ValueError, match=r"target_from_source \(N, 4, 4\)"):
        validator.predict_cross_view(features, GRID, torch.tensor([0]), torch.tensor([0]), torch.eye(4))


def test_original_names_cover_every_weight():
    names = {name: rename_original_key(name) for name in original_decoder_names()}
    assert set(names.values()) == set(build().state_dict())
    with pytest.raises(ValueError, match="not a weight of the original dpt_module"):
        rename_original_key("model.dpt_module.depth_head.scratch.output_conv3.weight")


def test_original_pose_embeddings_are_turned():
    stored = torch.arange(16.0 * 3).reshape(16, 3)
    converted = convert_original_state_dict({"model.dpt_module.camera_pose_embedding.2": stored})
    torch.testing.assert_close(converted["relative_pose_embedding.2.weight"], stored.T)


def turn(angle: float) -> torch.Tensor:
    """Motion that turns about the vertical axis and goes 2 m to the right."""
    motion = torch.eye(4)
    cos, sin = torch.tensor(angle).cos(), torch.tensor(angle).sin()
    motion[0, 0], motion[0, 2], motion[2, 0], motion[2, 2] = cos, sin, -sin, cos
    motion[0, 3] = 2.0
    return motion


class TestPoseNumbers:
    def test_clean_numbers_are_scaled_and_zero_without_motion(self):
        numbers = encode_relative_pose(torch.stack([torch.eye(4), turn(0.3)]), "clean")
        assert numbers.shape == (2, 9) and not numbers[0].any()
        assert numbers[1, 0] == 1.0 and numbers.abs().max() <= 1.0

    def test_a_pose_can_be_told_from_its_clean_numbers(self):
        """Two columns are all of a rotation: the third is their cross product."""
        motion = turn(1.1)
        numbers = encode_relative_pose(motion[None], "clean")[0]
        first, second = numbers[3:].view(2, 3) + torch.eye(3)[:2]
        rotation = torch.stack([first, second, torch.linalg.cross(first, second)], dim=1)
        torch.testing.assert_close(rotation, motion[:3, :3])
        torch.testing.assert_close(numbers[:3] * TRANSLATION_SCALE, motion[:3, 3])

    def test_paper_numbers_are_the_matrix_row_by_row(self):
        assert torch.equal(encode_relative_pose(turn(0.3)[None], "paper"), turn(0.3).view(1, 16))

    @pytest.mark.parametrize("protocol", ["clean", "paper"])
    def test_training_starts_at_the_own_view(self, protocol):
        validator, features = build(protocol=protocol).eval(), build_features()
        pair = (torch.tensor([0]), torch.tensor([1]), turn(0.3)[None])
        own = validator.predict_cross_view(features, GRID, *pair).depth[0]
        torch.testing.assert_close(own, validator(features, GRID).depth[0, 1])
        for embedding in validator.relative_pose_embedding:
            torch.nn.init.normal_(embedding.weight)
        moved = validator.predict_cross_view(features, GRID, *pair).depth[0]
        still = validator.predict_cross_view(features, GRID, *pair[:2], torch.eye(4)[None]).depth[0]
        assert not torch.allclose(moved, own) and torch.equal(still, own) == (protocol == "clean")

    @pytest.mark.parametrize("protocol", ["clean", "paper"])
    def test_the_protocol_is_read_from_weights(self, protocol):
        weights = build(protocol=protocol).state_dict()
        assert GeometricValidatorConfig.from_state_dict(weights).protocol == protocol

    def test_other_pose_embeddings_are_refused(self):
        weights = build().state_dict() | {"relative_pose_embedding.0.weight": torch.zeros(12, 7)}
        with pytest.raises(ValueError, match="takes 7 numbers"):
            GeometricValidatorConfig.from_state_dict(weights)
