"""What a hidden state and a visual token show is what their targets were measured at, in every family."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_hosts import HOSTS, VIDEO, WIDTH
from torch import nn
from torch.nn import functional as F

from modeling_ide3d.auxiliary.state_layers import pool_patches
from trainer.supervision.geometry_supervision import GeometrySupervision
from trainer.supervision.recorder import ForwardRecorder
from trainer.supervision.vision_layouts import LAYOUTS, find_layout


class Mean(nn.Module):
    """Mean of the four patches of a token, or of one, padded to the width of the language model."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if states.dim() == 2:  # Qwen merges four states that lie beside each other
            states = states.unflatten(0, (-1, 4)).mean(1)
        elif states.shape[-1] != self.width:  # InternVL has put the channels of four patches behind each other
            states = states.unflatten(-1, (-1, self.width)).mean(-2)
        return F.pad(states, (0, WIDTH - self.width))


@torch.no_grad()
def build_ruler(name: str) -> nn.Module:
    """A model whose states are the mean colours of what they look at: layers pass through, positions are silent."""
    model = HOSTS[name].build_model().train()
    core = model.model
    layout = find_layout(model.config)
    for parameter in layout.find_module(core, "blocks").parameters():
        parameter.zero_()
    for key, parameter in core.named_parameters():
        if "pos_embed" in key or "position_embedding" in key or "cls_token" in key:
            parameter.zero_()
    (projection,) = [
        module for module in layout.find_module(core, "tower").modules() if hasattr(module, "kernel_size")
    ]
    projection.weight.zero_()
    for colour in range(3):
        projection.weight[colour, colour] = 1 / projection.weight[0, 0].numel()
    if projection.bias is not None:
        projection.bias.zero_()
    if hasattr(core, "visual"):
        core.visual.merger = Mean(32)
    else:
        core.multi_modal_projector = Mean(32)
    core.language_model.layers = nn.ModuleList()
    core.language_model.norm = nn.Identity()
    return model


def ramps(frames: int, height: int, width: int, merged: int) -> np.ndarray:
    """Red grows to the right, green downwards, blue from one time step to the next."""
    video = np.zeros((frames, height, width, 3))
    video[..., 0] = 255 * (np.arange(width) + 0.5) / width
    video[..., 1] = 255 * ((np.arange(height) + 0.5) / height)[:, None]
    video[..., 2] = 50 * (np.arange(frames) // merged + 1)[:, None, None]
    return video.round().astype(np.uint8)


VIDEOS = {
    # Frame counts, also odd ones, and sizes that differ; 3 x 5 tokens are no whole windows of 2 x 2.
    "qwen2_5_vl": [(5, 90, 140), None, (2, 120, 60), (4, 90, 140)],
    "qwen3_vl": [(5, 90, 140), None, (2, 120, 60), (4, 90, 140)],
    "internvl": [(3, 90, 140), None, (1, 60, 60), (2, 84, 84)],
    "llava_onevision": [(3, 90, 140), None, (3, 60, 60)],
}


@pytest.mark.parametrize("layer", [None, "vision.1"])
@pytest.mark.parametrize("colour", [0, 1, 2], ids=["column", "row", "time"])
@pytest.mark.parametrize("name", HOSTS)
def test_states_and_targets_show_the_same_place(name, colour, layer):
    """A colour of the frames, given as depth and as teacher too, is what states and tokens see there."""
    model = build_ruler(name)
    videos = [None if size is None else ramps(*size, HOSTS[name].merged_frames) for size in VIDEOS[name]]
    chosen = None if layer is None else [layer]
    supervision = GeometrySupervision.attach(model, validator="light", teacher_size=1, distillation_layers=chosen)
    seen = {"levels": [], "grids": [], "depth": [], "tokens": [], "teacher": []}

    def see_levels(module, args):
        seen["levels"].append(args[0])
        seen["grids"].append(args[1])

    supervision.geometric_validator.register_forward_pre_hook(see_levels)

    def see_tokens(module, args):
        seen["tokens"].append(args[0] if layer is None else pool_patches(args[0][layer], args[1]))

    supervision.teacher_projector.register_forward_pre_hook(see_tokens)

    def see_targets(module, args):
        seen["depth"].append(args[1]["depth"])
        seen["teacher"].append(args[1]["teacher_features"])

    supervision.criterion.register_forward_pre_hook(see_targets)
    depth = [None if video is None else torch.tensor(video[..., colour] / 255.0) for video in videos]
    inputs = HOSTS[name].build_inputs(videos, do_normalize=False)
    model(**inputs)
    places = supervision.layout.find_videos(inputs["input_ids"], inputs)
    teacher = [None] * len(videos)
    for place in places:
        whole = F.interpolate(depth[place.sample][None], place.grid.image_size, mode="nearest-exact")[0]
        index = place.grid.token_index()
        cells = [whole[:, index == token].mean(-1) for token in range(place.grid.rows * place.grid.cols)]
        teacher[place.sample] = torch.stack(cells, -1).unflatten(-1, place.grid.shape).unsqueeze(-1)
    supervision.compute_terms(depth=depth, teacher_features=teacher)

    assert [place.sample for place in places] == [i for i, video in enumerate(videos) if video is not None]
    assert len(seen["depth"]) == len({place.grid for place in places})
    compared = 0
    for levels, grid, target in zip(seen["levels"], seen["grids"], seen["depth"], strict=True):
        patch = HOSTS[name].patch_size
        shown = F.avg_pool2d(target.flatten(0, 1).unsqueeze(1), patch).flatten(1)
        is_frame = shown.amax(-1) > 0  # the others are padding
        for level in levels:
            states = level.flatten(0, 1)[is_frame][..., colour]
            assert states.shape == (is_frame.sum(), grid[0] * grid[1])
            torch.testing.assert_close(states, shown[is_frame], atol=0.02, rtol=0)
        compared += int(is_frame.sum())
    for tokens, target in zip(seen["tokens"], seen["teacher"], strict=True):
        torch.testing.assert_close(tokens[..., colour], target[..., 0], atol=0.02, rtol=0)
    assert compared == sum(place.steps for place in places) == sum(len(tokens) for tokens in seen["tokens"])


@pytest.mark.parametrize("name", HOSTS)
def test_inner_states_are_what_enters_a_layer(name):
    """They are the hidden states that the model itself returns, in Qwen3-VL with what is added to them after it."""
    model = HOSTS[name].build_model().train()
    layout = find_layout(model.config)
    inputs = HOSTS[name].build_inputs([ramps(4, 90, 140, HOSTS[name].merged_frames)])
    recorder = ForwardRecorder(model.model, layout, ("language.0", "language.1", "language.2"))
    told = model(**inputs, output_hidden_states=True).hidden_states
    recorded = recorder.take()
    recorder.remove()
    assert torch.equal(recorded.states["language.0"], told[0]) and torch.equal(recorded.final_states, told[2])
    difference = (recorded.states["language.1"] - told[1]).abs().amax(-1)
    is_visual = inputs["input_ids"] == layout.video_token_id
    assert difference[~is_visual].max() == 0
    assert bool((difference[is_visual] > 0).all()) == (name == "qwen3_vl")
    assert set(recorded.states) == {"language.0", "language.1"}


def test_a_wrong_order_of_patches_is_seen_by_that_test():
    """The tolerance above is far below what a patch in a wrong place is off by."""
    model = build_ruler("qwen2_5_vl")
    layout = find_layout(model.config)
    inputs = HOSTS["qwen2_5_vl"].build_inputs([ramps(4, 90, 140, 2)], do_normalize=False)
    recorder = ForwardRecorder(model.model, layout, ("vision.0", "vision.2"))
    model(**inputs)
    states = recorder.take().states["vision.2"]
    recorder.remove()
    places = layout.find_videos(inputs["input_ids"], inputs)
    right = layout.arrange_states(states, places, inputs)[0]
    for change in ({"window_size": None}, {"is_block_ordered": False}):
        wrong = dataclasses.replace(layout, **change).arrange_states(states, places, inputs)[0]
        assert (wrong - right)[..., :2].abs().amax() > 0.05


def test_every_family_has_a_tested_layout():
    assert set(LAYOUTS) == set(HOSTS) == set(VIDEOS)


@pytest.mark.parametrize("name", HOSTS)
def test_other_families_are_refused_by_name(name):
    config = HOSTS[name].build_model().config
    for other in set(LAYOUTS) - {name}:
        with pytest.raises(ValueError, match=f"{other!r} was asked for, but the model is of type {name!r}"):
            find_layout(config, other)
    with pytest.raises(ValueError, match=r"layouts of \['internvl'.*got 'clip'"):
        find_layout(config, "clip")


@pytest.fixture(scope="module")
def model():
    return HOSTS["qwen2_5_vl"].build_model()


@pytest.fixture(scope="module")
def inputs():
    return HOSTS["qwen2_5_vl"].build_inputs([ramps(4, 90, 140, 2), ramps(2, 60, 60, 2)])


class TestMismatch:
    """A layout of another model says what it expected and what came."""

    @pytest.mark.parametrize("field", ["tower", "blocks", "language_model"])
    def test_missing_parts(self, model, field):
        layout = dataclasses.replace(find_layout(model.config), **{field: "visual.encoder"})
        with pytest.raises(ValueError, match=rf"{field}='visual.encoder'.* no part 'encoder', only .*'blocks'"):
            ForwardRecorder(model.model, layout, ("vision.0",))
        assert not model.model._forward_pre_hooks

    def test_too_few_layers(self, model):
        with pytest.raises(ValueError, match="ModuleList of at least 3 layers; got ModuleList of 2"):
            ForwardRecorder(model.model, find_layout(model.config), ("vision.0", "vision.3"))

    @pytest.mark.parametrize(
        "change", [{"pool_stride": 1}, {"tokens_after_video": 1}, {"tokens_after_row": 1}, {"video_token_id": 5}]
    )
    def test_tokens(self, model, inputs, change):
        layout = dataclasses.replace(find_layout(model.config), **change)
        with pytest.raises(ValueError, match=r"have .* visual tokens, but the samples have .* of token"):
            layout.find_videos(inputs["input_ids"], inputs)

    def test_states(self, model, inputs):
        layout = find_layout(model.config)
        places = layout.find_videos(inputs["input_ids"], inputs)
        with pytest.raises(ValueError, match=r"shape \(7, 32\).* 136 patches"):
            layout.arrange_states(torch.zeros(7, 32), places, inputs)

    def test_several_videos_of_a_sample(self, model, inputs):
        ids = inputs["input_ids"].flatten()[None]
        with pytest.raises(ValueError, match="one video a sample"):
            find_layout(model.config).find_videos(ids, inputs)

    def test_the_grid_is_missing(self, model, inputs):
        with pytest.raises(ValueError, match="without video_grid_thw"):
            find_layout(model.config).find_videos(
                inputs["input_ids"], {"pixel_values_videos": inputs["pixel_values_videos"]}
            )

    def test_another_tower_of_llava(self):
        config = HOSTS["llava_onevision"].build_model().config
        config.vision_config.model_type = "clip_vision_model"
        with pytest.raises(ValueError, match="siglip_vision_model, got clip_vision_model"):
            find_layout(config)

    def test_oblong_patches(self):
        config = HOSTS["internvl"].build_model().config
        config.vision_config.patch_size = [14, 7]
        with pytest.raises(ValueError, match="square, got 14 x 7"):
            find_layout(config)


def test_visual_tokens_of_the_hosts_are_counted_as_their_models_do():
    """The placeholders of the batches above are right: each model checks them against its own features."""
    for name, host in HOSTS.items():
        inputs = host.build_inputs([ramps(2, 90, 140, 2)])
        host.build_model()(**inputs)
        token = host.build_model().config.image_token_id if name == "internvl" else VIDEO
        inputs["input_ids"][inputs["input_ids"] == token] = 7
        with pytest.raises(ValueError, match="do not match"):
            host.build_model()(**inputs)
