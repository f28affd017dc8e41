import dataclasses

import numpy as np
import pytest
import torch
from painted_scenes import painted_scene
from transformers import AutoModel, SiglipVisionConfig

from processing.token_grid import TokenGrid
from trainer.evaluation.probes.linear_probe import probe_depth, split_by_scene
from trainer.evaluation.probes.token_sources import VisionTowerTokens
from trainer.evaluation.probes.tokens import collect_tokens, median_pixels


@pytest.fixture(scope="module")
def tower():
    """Random weights on 5 x 5 patches of 9 px: 45 of 48 px are seen."""
    torch.manual_seed(0)
    config = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=48,
        patch_size=9,
        vision_use_head=False,
    )
    return VisionTowerTokens(AutoModel.from_config(config).eval(), [0.5] * 3, [0.5] * 3)


class Turned:
    """The tokens of a tower, rows and columns exchanged."""

    def __init__(self, source):
        self.layers, self.default_layers, self.read_by_losses = source.layers, source.default_layers, None
        self.grid, self._source = source.grid, source

    def encode(self, frames, layers):
        return {layer: tokens.transpose(1, 2) for layer, tokens in self._source.encode(frames, layers).items()}


def test_the_median_pixel_of_hand_made_tokens():
    grid = TokenGrid((4, 7), 2, 1)  # 2 x 3 tokens; the last column of pixels belongs to nobody
    depth = torch.tensor(
        [[5.0, 1, 0, 0, 3, 3, 9], [2, 4, 0, 0, 3, 3, 9], [0, 0, 7, 6, 1, 0, 9], [0, 8, 0, 0, 0, 2, 9]]
    )
    pixels = median_pixels(torch.stack([depth, torch.zeros(4, 7)]), grid)
    assert pixels[1].tolist() == [-1] * 6
    values = [depth.flatten()[pixel].item() if pixel >= 0 else None for pixel in pixels[0].tolist()]
    # Four values: the lower of the two in the middle; none; four alike; one; two; two.
    assert values == [2.0, None, 3.0, 8.0, 6.0, 1.0]
    assert grid.token_index().flatten()[pixels[0][pixels[0] >= 0]].tolist() == [0, 2, 3, 4, 5]
    with pytest.raises(ValueError, match=r"\(V, 4, 7\), got \(2, 7, 4\)"):
        median_pixels(torch.zeros(2, 7, 4), grid)


@pytest.mark.parametrize("size", [(48, 48), (60, 96)])
def test_painted_depth_is_read_through_the_whole_path_and_turned_grids_are_caught(tower, size):
    """Frames of another size and shape than the input, which is not whole patches wide."""
    scenes = [painted_scene(index, height=size[0], width=size[1]) for index in range(24)]
    straight, turned = (collect_tokens(source, scenes, ["vision.0"])["vision.0"] for source in (tower, Turned(tower)))
    split = split_by_scene(straight.scenes)
    assert len(straight.depth) == 24 * 3 * 25
    found = probe_depth(straight.features, straight.depth, straight.cells, straight.scenes, split)
    assert found["abs_rel"]["value"] < 0.02 and found["position_abs_rel"]["value"] > 0.2
    wrong = probe_depth(turned.features, turned.depth, turned.cells, turned.scenes, split)
    assert wrong["abs_rel"]["value"] > 0.1


def test_rows_are_what_was_measured(tower):
    scene = painted_scene(0)
    table = collect_tokens(tower, [scene], ["vision.1"])["vision.1"]
    frame, cell = np.divmod(np.arange(75), 25)
    assert (table.cells == cell).all() and set(table.scenes) == {"painted000"} and table.grid == (5, 5)
    rows, cols = np.divmod(cell, 5)
    for row in (0, 30, 74):
        block = scene.depth[frame[row], rows[row] * 9 : rows[row] * 9 + 9, cols[row] * 9 : cols[row] * 9 + 9]
        assert table.depth[row] == pytest.approx(np.median(block))
        u, v = table.points[row, :2] / table.depth[row] * 50 + 23.5  # the cameras stand still
        assert cols[row] * 9 <= round(u) < cols[row] * 9 + 9 and rows[row] * 9 <= round(v) < rows[row] * 9 + 9
    assert (table.points[:, 2] == table.depth).all()


def test_tokens_without_a_measured_pixel_are_dropped_and_counted(tower):
    whole, pierced = (collect_tokens(tower, [painted_scene(0, holes=h)], ["vision.0"])["vision.0"] for h in (0, 1))
    assert whole.unmeasured == 0
    # 32 of 48 columns are measured: the fourth token has 5 of its 9, the fifth has none.
    assert pierced.unmeasured == 3 * 5 and len(pierced.depth) == 3 * 20
    assert set(pierced.cells % 5) == {0, 1, 2, 3}
    kept = np.isin(whole.cells % 5, [0, 1, 2, 3])
    assert (whole.features[kept] == pierced.features).all()


def test_so_many_tokens_of_a_scene_and_the_same_of_each_layer(tower):
    scenes = [painted_scene(index) for index in range(3)]
    tables = collect_tokens(tower, scenes, tokens_per_scene=20, seed=1)
    assert list(tables) == ["vision.0", "vision.last"]
    first, last = tables.values()
    assert np.unique(first.scenes, return_counts=True)[1].tolist() == [20, 20, 20]
    assert (first.cells == last.cells).all() and (first.depth == last.depth).all()
    again = collect_tokens(tower, scenes, tokens_per_scene=20, seed=1)["vision.0"]
    assert (again.features == first.features).all()
    other = collect_tokens(tower, scenes, tokens_per_scene=20, seed=2)["vision.0"]
    assert (other.cells != first.cells).any()
    # All tokens are asked for their match, not the drawn ones alone; the cameras stand still.
    assert first.matches["painted000"]["queries"] <= 3 * 2 * 25


def test_points_are_in_the_frame_of_the_first_camera(tower):
    scene = painted_scene(0)
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = [[0, 0, 1], [1, 0, 0], [0, 1, 0]], [4.0, -3.0, 2.0]
    poses = scene.camera_to_world.copy()
    poses[1, :3, 3] = [0.5, 0.0, -0.2]
    first = collect_tokens(tower, [dataclasses.replace(scene, camera_to_world=poses)], ["vision.0"])["vision.0"]
    world = collect_tokens(tower, [dataclasses.replace(scene, camera_to_world=moved @ poses)], ["vision.0"])[
        "vision.0"
    ]
    np.testing.assert_allclose(first.points, world.points, atol=1e-4)
    np.testing.assert_allclose(first.points[25:50, 2], first.depth[25:50] - 0.2, atol=1e-5)


def test_what_cannot_be_probed_raises(tower):
    scene = painted_scene(0)
    cases = [
        ([dataclasses.replace(scene, depth=None)], {}, "painted000 has no depth"),
        ([dataclasses.replace(scene, camera_to_world=None)], {}, "has no camera_to_world"),
        ([scene, scene], {}, r"Several scenes are called \['painted000'\]"),
        ([], {}, "no scenes"),
        ([scene], {"layers": ["vision.7"]}, r"no layers \['vision.7'\]"),
        ([scene], {"layers": []}, "and a layer"),
        ([scene], {"tokens_per_scene": 0}, "`tokens_per_scene` >= 1"),
    ]
    for scenes, options, message in cases:
        with pytest.raises(ValueError, match=message):
            collect_tokens(tower, scenes, **options)


def test_tokens_of_another_grid_raise(tower):
    turned = Turned(tower)
    turned.grid = lambda layer: TokenGrid((48, 60), 9, 1)
    with pytest.raises(ValueError, match=r"vision.0 of painted000 must have shape \(3, 5, 6, C\)"):
        collect_tokens(turned, [painted_scene(0)], ["vision.0"])
