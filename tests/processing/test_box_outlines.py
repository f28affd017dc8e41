"""Outlines of boxes are those of casting every ray, and cast few."""

import numpy as np
import torch

from processing import TokenGrid, box_outlines
from processing.box_outlines import outline_shares

GRID = TokenGrid((140, 182), 14, 3)


def cameras_and_poses(count, seed=0):
    noise = np.random.default_rng(seed)
    cameras, poses = np.repeat(np.eye(3)[None], count, 0), np.repeat(np.eye(4)[None], count, 0)
    cameras[:, [0, 1], [0, 1]] = noise.uniform(90, 200, (count, 2))
    cameras[:, 0, 2], cameras[:, 1, 2] = noise.uniform(60, 120, count), noise.uniform(50, 90, count)
    for pose in poses:
        turn = np.linalg.qr(noise.normal(size=(3, 3)))[0]
        pose[:3, :3] = turn * np.sign(np.linalg.det(turn))
        pose[:3, 3] = noise.uniform(-2, 2, 3)
    return torch.from_numpy(cameras), torch.from_numpy(poses)


def limits(count, seed=1):
    noise = np.random.default_rng(seed)
    centres, sizes = noise.uniform(-4, 4, (count, 3)), 10 ** noise.uniform(-2.5, 0.8, (count, 3))
    return torch.from_numpy(centres - sizes / 2), torch.from_numpy(centres + sizes / 2)


def test_shares_are_those_of_casting_every_ray(monkeypatch):
    """Boxes of all sizes, before, behind and around cameras."""
    (low, high), (cameras, poses) = limits(60), cameras_and_poses(8)
    low[0], high[0] = poses[3, :3, 3] - 0.5, poses[3, :3, 3] + 0.5
    parts = (low, high, cameras, poses, GRID)
    found, cast = outline_shares(*parts), []
    hit = box_outlines._rays_hit_box
    monkeypatch.setattr(box_outlines, "_rays_hit_box", lambda *args: cast.append(args[1].shape[0]) or hit(*args))
    outline_shares(*parts)
    cells = 60 * 8 * GRID.rows * GRID.cols
    assert 0 < sum(cast) < cells / 2
    monkeypatch.setattr(box_outlines, "_cells_around", lambda *args: torch.ones(60, 8, *GRID.shape, dtype=torch.bool))
    expected = outline_shares(*parts)
    assert sum(cast) > cells
    assert torch.equal(found, expected)
    assert (expected[0, 3] == 1).all() and (expected[1:] > 0.5).any()


def test_a_box_that_looks_straight_along_the_axes_is_not_missed():
    camera = torch.tensor([[[100.0, 0, 69.5], [0, 100, 69.5], [0, 0, 1]]]).double()
    grid = TokenGrid(140, 14, 1)
    low, high = torch.tensor([[-0.28, -0.28, 2.0]]).double(), torch.tensor([[0.28, 0.28, 3.0]]).double()
    shares = outline_shares(low, high, camera, torch.eye(4)[None].double(), grid)[0, 0]
    assert (shares[4:6, 4:6] == 1).all() and shares.sum() == 4
