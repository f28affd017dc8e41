"""Outlines of 3D boxes in the cells of frames: which share of each token's rays hits a box."""

import torch
from torch import Tensor

from processing.token_grid import TokenGrid

__all__ = ["outline_shares"]

RAYS_PER_SIDE = 6  # Rays per token and side for boxes without depth; 36 rays resolve the share of 12.5%.
_PAIRS = 4096  # of box and cell at once: their rays fill 4 MB
_PIXEL_MARGIN = 1e-3  # around a projected box, far above what float64 rounds
_MIN_DEPTH = 1e-6  # metres; a box that reaches nearer to the plane of the camera has no outline in pixels


def outline_shares(low: Tensor, high: Tensor, cameras: Tensor, poses: Tensor, grid: TokenGrid) -> Tensor:
    """Return the share of each token's rays that hit a box before it.

    Rays are cast in the cells around the projected corners alone, and in the whole frame where a box reaches the plane
    of the camera. A box that no ray hits has a tiny share, below every threshold, in the token of its centre.

    Args:
        low: Lower limits of the boxes, world frame.
        high: Upper limits.
        cameras: Intrinsics of the vision input's pixels.
        poses: Camera to world, OpenCV axes.
        grid: Token grid.

    Shape:
        low, high: (N, 3), metres, float64.
        cameras:   (V, 3, 3), pixels, float64.
        poses:     (V, 4, 4), metres, float64.
        output:    (N, V, rows, cols), float64.
    """
    rays = RAYS_PER_SIDE
    v = (torch.arange(grid.rows * rays).double() + 0.5) * grid.covered_size[0] / (grid.rows * rays) - 0.5
    u = (torch.arange(grid.cols * rays).double() + 0.5) * grid.covered_size[1] / (grid.cols * rays) - 0.5
    v, u = torch.meshgrid(v, u, indexing="ij")
    x = (u - cameras[:, 0, 2, None, None]) / cameras[:, 0, 0, None, None]
    y = (v - cameras[:, 1, 2, None, None]) / cameras[:, 1, 1, None, None]
    directions = torch.stack((x, y, torch.ones_like(x)), dim=-1) @ poses[:, None, :3, :3].mT
    by_cell = directions.view(len(cameras), grid.rows, rays, grid.cols, rays, 3).transpose(2, 3).flatten(3, 4)
    shares = torch.zeros(len(low), len(cameras), grid.rows, grid.cols, dtype=torch.float64)
    for pairs in torch.nonzero(_cells_around(low, high, cameras, poses, grid)).split(_PAIRS):
        box, view, row, column = pairs.unbind(1)
        hit = _rays_hit_box(poses[view, None, :3, 3], by_cell[view, row, column], low[box, None], high[box, None])
        shares[box, view, row, column] = hit.double().mean(-1)
    return torch.maximum(shares, _centre_share((low + high) / 2, cameras, poses, grid))


def _cells_around(low: Tensor, high: Tensor, cameras: Tensor, poses: Tensor, grid: TokenGrid) -> Tensor:
    """Return the cells (N, V, rows, cols) outside of which no ray can hit a box."""
    sides = torch.cartesian_prod(*3 * [torch.tensor([0.0, 1.0], dtype=torch.float64)])
    corners = low[:, None] + sides * (high - low)[:, None]
    x, y, z = _to_cameras(corners.flatten(0, 1), poses).view(len(low), 8, len(poses), 3).transpose(1, 2).unbind(-1)
    is_outlined = (z > _MIN_DEPTH).all(-1)
    is_behind = (z < -_MIN_DEPTH).all(-1)
    divisor = torch.where(z > _MIN_DEPTH, z, 1.0)
    around = []
    for axis, coordinates, cells in ((0, x, grid.cols), (1, y, grid.rows)):
        length = grid.covered_size[1 - axis]
        pixels = cameras[:, axis, axis, None] * coordinates / divisor + cameras[:, axis, 2, None] + 0.5
        edges = torch.arange(cells + 1, dtype=torch.float64) * length / cells
        reaches = (pixels.amin(-1) - _PIXEL_MARGIN)[..., None] <= edges[1:]
        reaches &= (pixels.amax(-1) + _PIXEL_MARGIN)[..., None] >= edges[:-1]
        around.append(reaches | ~is_outlined[..., None])
    columns, rows = around
    return rows[..., :, None] & columns[..., None, :] & ~is_behind[..., None, None]


def _to_cameras(points: Tensor, poses: Tensor) -> Tensor:
    """Return world points (N, 3) in the frame of each camera, (N, V, 3)."""
    world_to_camera = torch.linalg.inv(poses)
    return torch.einsum("vij,nj->nvi", world_to_camera[:, :3, :3], points) + world_to_camera[:, :3, 3]


def _rays_hit_box(centres: Tensor, directions: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return whether rays (P, K, 3) from centres (P, 1, 3) meet boxes (P, 1, 3) in front of the camera."""
    # A direction of exactly 0 gives +-Inf, which minimum and maximum order rightly. 0 / 0 on a face becomes +-Inf.
    near, far = (low - centres) / directions, (high - centres) / directions
    near, far = torch.where(near.isnan(), -torch.inf, near), torch.where(far.isnan(), torch.inf, far)
    enter = torch.minimum(near, far).amax(-1)
    leave = torch.maximum(near, far).amin(-1)
    return (leave >= enter) & (leave > 0)


def _centre_share(centres: Tensor, cameras: Tensor, poses: Tensor, grid: TokenGrid) -> Tensor:
    """Return shares (N, V, rows, cols) that are tiny at each box centre's token, else 0.

    They lie below every threshold; a visible box that no ray hits is then not missed.
    """
    points = _to_cameras(centres, poses)
    z = points[..., 2]
    divisor = torch.where(z > 0, z, 1.0)
    u = cameras[:, 0, 0] * points[..., 0] / divisor + cameras[:, 0, 2]
    v = cameras[:, 1, 1] * points[..., 1] / divisor + cameras[:, 1, 2]
    row, column = grid.locate(v, u)
    is_seen = (z > 0) & (row >= 0)
    shares = torch.zeros(*z.shape, grid.rows * grid.cols + 1, dtype=torch.float64)
    index = torch.where(is_seen, row * grid.cols + column, grid.rows * grid.cols)
    shares.scatter_(2, index.unsqueeze(-1), torch.finfo(torch.float64).tiny)
    return shares[..., :-1].view(*z.shape, *grid.shape)
