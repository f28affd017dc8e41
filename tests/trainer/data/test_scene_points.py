"""Cells of depth give the masks of all points, bit for bit, and look at few points."""

import numpy as np
import pytest
import torch

from processing import TokenGrid
from processing.regions import regions_from_boxes_3d
from trainer.data.scene_points import ScenePoints
from trainer.geometry import unproject_depth

GRIDS = [TokenGrid(384, 14, 2), TokenGrid((70, 98), 14, 1), TokenGrid(64, 8, 3)]


def scene(size, num_views=4, seed=0):
    """Depth with slopes, steps and holes, cameras and turned poses."""
    noise = np.random.default_rng(seed)
    v, u = np.mgrid[: size[0], : size[1]] / np.array(size)[:, None, None]
    depth = np.stack([1 + view + u + v * noise.uniform(-0.9, 0.9) + 2 * (u > 0.4) for view in range(num_views)])
    depth[noise.random(depth.shape) < 0.1] = 0
    depth[:, : size[0] // 5, : size[1] // 3] = 0
    poses = np.repeat(np.eye(4)[None], num_views, 0)
    for pose in poses:
        pose[:3, :3] = np.linalg.qr(noise.normal(size=(3, 3)))[0]
        pose[:3, 3] = noise.uniform(-3, 3, 3)
    focal = size[1] * 0.8
    camera = np.array([[focal, 0, size[1] / 2], [0, focal * 1.1, size[0] / 2.2], [0, 0, 1]])
    return tuple(torch.tensor(part).float() for part in (depth, np.repeat(camera[None], num_views, 0), poses))


def boxes_of(points, count=30, seed=1):
    """Boxes around measured points, of all sizes; the first holds everything, the last nothing."""
    noise = torch.Generator().manual_seed(seed)
    seen = points.flatten(0, 2)
    seen = seen[seen.isfinite().all(-1)]
    centres = seen[torch.randint(len(seen), (count,), generator=noise)].double()
    sizes = 10 ** torch.empty(count, 3).uniform_(-2, 0.7, generator=noise).double()
    ends = torch.tensor([[0.0, 0, 0, 99, 99, 99], [50, 50, 50, 1, 1, 1]]).double()
    return torch.cat((ends[:1], torch.cat((centres, sizes), 1), ends[1:]))


@pytest.mark.parametrize("protocol", ["clean", "paper"])
@pytest.mark.parametrize("size", [(120, 160), (97, 61)])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_masks_are_those_of_all_points(grid, size, protocol):
    parts = scene(size)
    points = unproject_depth(*parts, protocol=protocol)
    boxes, layout = boxes_of(points), ScenePoints(*parts, grid, protocol)
    for min_share in (0.125, 0.5, 0.001):
        expected = regions_from_boxes_3d(boxes, points, grid, min_share=min_share, protocol=protocol)
        found = layout.masks(boxes, min_share)
        assert torch.equal(found, expected)
        assert expected[0].any() and expected[1:-1].any() and not expected[-1].any()
    assert layout.masks(torch.zeros(0, 6)).shape == (0, len(parts[0]), *grid.shape)


@pytest.mark.parametrize("protocol", ["clean", "paper"])
def test_limits_of_boxes_count_to_the_last_bit(protocol):
    """Faces of the boxes lie exactly on points, of which some would fall out if a bit were different."""
    grid, parts = GRIDS[0], scene((60, 80), num_views=2, seed=3)
    points = unproject_depth(*parts, protocol=protocol)
    seen = points[:, ::7, ::7].reshape(-1, 3)
    seen = seen[seen.isfinite().all(-1)][:40]
    boxes = torch.stack([torch.cat(((a + b) / 2, (a - b).abs())) for a, b in zip(seen, seen.flip(0), strict=True)])
    expected = regions_from_boxes_3d(boxes, points, grid, min_share=1e-3, protocol=protocol)
    assert torch.equal(ScenePoints(*parts, grid, protocol).masks(boxes, 1e-3), expected)


def test_points_of_cells_are_those_of_unprojecting(monkeypatch):
    grid, parts = TokenGrid(28, 14, 1), scene((20, 30), num_views=2)
    layout = ScenePoints(*parts, grid, "clean")
    cells = torch.stack(layout._points(torch.arange(2 * grid.rows * grid.cols)), -1)
    inside = (layout.low[:, None] <= cells) & (cells <= layout.high[:, None])
    assert inside[cells.isfinite()].all()
    expected = unproject_depth(*parts)
    found, wanted = (
        sorted(part.reshape(-1, 3)[part.reshape(-1, 3).isfinite().all(1)].tolist()) for part in (cells, expected)
    )
    assert found == wanted


def test_few_points_are_computed(monkeypatch):
    parts = scene((120, 160))
    layout, looked_at = ScenePoints(*parts, GRIDS[0], "clean"), []
    compute = layout._points
    monkeypatch.setattr(layout, "_points", lambda cells: looked_at.append(len(cells)) or compute(cells))
    around = torch.tensor([[0.0, 0, 0, 99, 99, 99]])
    assert layout.masks(around).any() and looked_at == []
    one = boxes_of(unproject_depth(*parts), count=1)[1:2]
    layout.masks(torch.cat((one[:, :3], torch.full((1, 3), 0.2)), 1))
    assert 0 < sum(looked_at) < layout.num_measured.numel() / 8


def test_depth_that_is_coarser_than_the_grid_is_refused():
    with pytest.raises(ValueError, match=r"`depth` must be of at least a pixel per token, got 10 x 90 px"):
        ScenePoints(*scene((10, 90)), GRIDS[0], "clean")
    with pytest.raises(ValueError, match="protocol"):
        ScenePoints(*scene((20, 30)), GRIDS[0], "original")
