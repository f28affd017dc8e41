"""Warp of depth maps from one view into another, a few pairs at a time.

The numbers are those of `unproject_depth`, `transform_points` and `project_points`, bit for bit on a CPU: the order of
operations is theirs. Maps stand in the place of points (N, H, W, 3), and operations write into the memory they have.
NaN marks what has no value: it compares as False. Nothing here has a gradient.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.geometry.cameras import MIN_PROJECTED_DEPTH, camera_values
from trainer.geometry.checks import multiply_matrices

__all__ = [
    "Interpolation",
    "Landing",
    "drop_missing",
    "find_corners",
    "find_inside",
    "interpolate_depth",
    "invert_depth",
    "land_on_rays",
    "land_pixels",
    "move_points",
    "pick_nearest",
    "place_rows",
    "project_rays",
    "split_pairs",
]

# Pixels that are warped at once. On a CPU the maps of a pair should stay in the cache; a GPU wants more work a call.
CPU_PIXELS = 2**17
GPU_PIXELS = 2**21
MISSING_INVERSE = 1e19  # 1 / metres, of missing depth.
MIN_INTERPOLATED = 1e-9  # Metres. Below it a share of the depth was missing.


class Landing(NamedTuple):
    """Places where the pixels of one view lie in another.

    They are NaN for pixels without depth and for points behind the other camera.

    Shape:
        u, v: (N, H, W), pixels of the other view, right and down; they may lie outside of it.
        z:    (N, H, W), metres, z-depth in the other view.
    """

    u: Tensor
    v: Tensor
    z: Tensor


class Interpolation(NamedTuple):
    """Depth between the four pixels around each place, with what its derivatives need.

    Shape:
        depth:        (N, H, W), metres; NaN where a pixel that counts has no depth.
        upper, lower: (N, H, W), 1 / metres, inverse depth on the row above and on the row below.
        right, low:   (N, H, W), share of the right column and of the lower row, 0 to 1.
        corners:      four times (N, H, W), 1 / metres: upper left, upper right, lower left, lower right.
        cells:        (N, H, W), int32, place of the upper left pixel in the flattened map of `invert_depth`.
    """

    depth: Tensor
    upper: Tensor
    lower: Tensor
    right: Tensor
    low: Tensor
    corners: list[Tensor]
    cells: Tensor


def split_pairs(num_pairs: int, size: tuple[int, int], device: torch.device) -> Iterator[slice]:
    """Yield slices of pairs that are few enough to be warped at once.

    Args:
        num_pairs: Number of all pairs.
        size: Height and width of their maps.
        device: Device of the maps.
    """
    pixels = CPU_PIXELS if device.type == "cpu" else GPU_PIXELS
    step = max(1, pixels // max(1, size[0] * size[1]))
    for start in range(0, num_pairs, step):
        yield slice(start, start + step)


def drop_missing(depth: Tensor) -> Tensor:
    """Return the depth, with NaN where nothing was measured."""
    return F.threshold(depth, 0.0, torch.nan)


def invert_depth(depth: Tensor) -> Tensor:
    """Return inverse depth for `interpolate_depth`, with one more column and row.

    Missing depth gets a huge inverse: any share of it shows between pixels, while 0 times it is still 0.

    Shape:
        depth:  (N, H, W), metres; NaN = no depth, see `drop_missing`.
        output: (N, H + 1, W + 1), 1 / metres.
    """
    return F.pad(depth, (0, 1, 0, 1), value=1.0).nan_to_num_(1 / MISSING_INVERSE).reciprocal_()


def move_points(depth: Tensor, intrinsics: Tensor, target_from_source: Tensor) -> list[Tensor]:
    """Return the points that pixels see, in the frame of another camera.

    Shape:
        depth:              (N, H, W), metres.
        intrinsics:         (N, 3, 3), of these pixels.
        target_from_source: (N, 4, 4), metres.
        output:             x, y and z, (N, H, W) each, metres.
    """
    u, v, fx, fy = _centred_pixels(intrinsics, depth.shape[1:])
    x, y = (depth * u).div_(fx), (depth * v).div_(fy)
    product = torch.empty_like(x)
    moved = []
    for row in target_from_source[:, :3, :, None, None].unbind(1):
        # Products and sums by themselves: `addcmul` rounds once where the sum of a product rounds twice.
        coordinate = (x * row[:, 0]).add_(row[:, 3])
        coordinate += torch.mul(y, row[:, 1], out=product)
        coordinate += torch.mul(depth, row[:, 2], out=product)
        moved.append(coordinate)
    return moved


def project_rays(
    intrinsics: Tensor, target_intrinsics: Tensor, target_from_source: Tensor, size: tuple[int, int]
) -> list[Tensor]:
    """Return the change of each point's homogeneous target pixel (u z, v z, z), per metre of depth.

    Shape:
        intrinsics:         (N, 3, 3), of the pixels.
        target_intrinsics:  (N, 3, 3), of the target views.
        target_from_source: (N, 4, 4), metres.
        output:             three times (N, *size); pixels, pixels and no unit.
    """
    u, v, fx, fy = _centred_pixels(intrinsics, size)
    x, y = u / fx, v / fy
    rows = multiply_matrices(target_intrinsics, target_from_source[:, :3, :3])[..., None, None].unbind(1)
    return [x * row[:, 0] + (y * row[:, 1] + row[:, 2]) for row in rows]


def land_on_rays(depth: Tensor, rays: list[Tensor], target_intrinsics: Tensor, target_from_source: Tensor) -> Landing:
    """Return where the pixels of source views lie in target views, by rays.

    Rounding differs from `land_pixels`; several depths of one view share their rays. Where the place is NaN there, it
    is (0, 0) here, and z is NaN.

    Shape:
        depth:              (N, H, W), metres; NaN = no measurement, see `drop_missing`.
        rays:               three times (N, H, W), see `project_rays`.
        target_intrinsics:  (N, 3, 3), pixels.
        target_from_source: (N, 4, 4), metres.
    """
    u, v, z = (
        (depth * ray).add_(shift)
        for ray, shift in zip(
            rays, multiply_matrices(target_intrinsics, target_from_source[:, :3, 3:])[..., None].unbind(1), strict=True
        )
    )
    z = F.threshold_(z, MIN_PROJECTED_DEPTH, torch.nan)
    return Landing(u.div_(z).nan_to_num_(0.0), v.div_(z).nan_to_num_(0.0), z)


def land_pixels(depth: Tensor, intrinsics: Tensor, target_intrinsics: Tensor, target_from_source: Tensor) -> Landing:
    """Return where the pixels of source views lie in target views.

    Shape:
        depth:                         (N, H, W), metres; NaN = no measurement, see `drop_missing`.
        intrinsics, target_intrinsics: (N, 3, 3), pixels.
        target_from_source:            (N, 4, 4), metres.
    """
    u, v, z = move_points(depth, intrinsics, target_from_source)
    z = F.threshold_(z, MIN_PROJECTED_DEPTH, torch.nan)
    fx, fy, cx, cy = camera_values(target_intrinsics, extra_dims=2)
    return Landing(u.mul_(fx).div_(z).add_(cx), v.mul_(fy).div_(z).add_(cy), z)


def find_inside(landing: Landing, size: tuple[int, int], margin: float) -> Tensor:
    """Return the pixels (N, H, W) that land in a picture of `size` (height, width), bool.

    Args:
        landing: Places of the pixels.
        size: Height and width of the other view.
        margin: Pixels beyond the outer pixel centres; 0.5 reaches to the border of the picture.
    """
    beyond = [
        torch.maximum(place - (length - 1 + margin), -margin - place)
        for place, length in ((landing.u, size[1]), (landing.v, size[0]))
    ]
    return torch.maximum(*beyond) <= 0


def pick_nearest(depth: Tensor, landing: Landing) -> Tensor:
    """Return the depth (N, H, W) of the pixel nearest to each place.

    Places outside get the depth of the border, places that are NaN that of any pixel: the caller leaves both out.

    Shape:
        depth: (N, h, w), metres.
    """
    rows = (landing.v + 0.5).nan_to_num_(0.0).clamp_(0, depth.shape[1] - 1).int()
    columns = (landing.u + 0.5).nan_to_num_(0.0).clamp_(0, depth.shape[2] - 1).int()
    return _pick(depth, place_rows(rows, (depth.shape[1], depth.shape[2])).add_(columns))


def interpolate_depth(inverse: Tensor, u: Tensor, v: Tensor) -> Interpolation:
    """Interpolate inverse depth, which is linear on planes, between the four pixels around each place.

    Shape:
        inverse: (N, h + 1, w + 1), 1 / metres, see `invert_depth`.
        u, v:    (N, H, W), pixels, 0 to w - 1 and 0 to h - 1.
    """
    left, top = u.floor(), v.floor()
    cells = place_rows(top.int(), (inverse.shape[1], inverse.shape[2])).add_(left.int())
    # The column and the row that `invert_depth` adds have a share of 0.
    corners = [each.index_select(0, cells.view(-1)).view(cells.shape) for each in find_corners(inverse)]
    right, low = torch.sub(u, left, out=left), torch.sub(v, top, out=top)
    upper, lower = torch.lerp(corners[0], corners[1], right), torch.lerp(corners[2], corners[3], right)
    between = F.threshold_(torch.lerp(upper, lower, low).reciprocal_(), MIN_INTERPOLATED, torch.nan)
    return Interpolation(between, upper, lower, right, low, corners, cells)


def find_corners(maps: Tensor) -> list[Tensor]:
    """Return flattened maps that start at a cell, right of it, below it, and diagonally.

    Shape:
        maps: (N, h + 1, w + 1), contiguous.
    """
    flat, width = maps.view(-1), maps.shape[2]
    return [flat[start:] for start in (0, 1, width, width + 1)]


def place_rows(rows: Tensor, size: tuple[int, int]) -> Tensor:
    """Replace rows of maps (N, *size) by the places of their first pixels in the flattened maps.

    Shape:
        rows: (N, H, W), int32; overwritten.
    """
    rows *= size[1]
    if len(rows) > 1:
        first = torch.arange(len(rows), dtype=rows.dtype, device=rows.device) * (size[0] * size[1])
        rows += first.view(-1, 1, 1)
    return rows


def _centred_pixels(intrinsics: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return u - cx (N, 1, W), v - cy (N, H, 1), and the focal lengths (N, 1, 1)."""
    fx, fy, cx, cy = camera_values(intrinsics, extra_dims=2)
    u = torch.arange(size[1], dtype=intrinsics.dtype, device=intrinsics.device) - cx
    v = torch.arange(size[0], dtype=intrinsics.dtype, device=intrinsics.device).unsqueeze(1) - cy
    return u, v, fx, fy


def _pick(depth: Tensor, cells: Tensor) -> Tensor:
    return depth.reshape(-1).index_select(0, cells.view(-1)).view(cells.shape)
