"""Plain reference of pair masks and view consistency: all pairs at once, one line a formula, gradients by autograd.

Slow, and its memory grows with the number of pairs. Tests and benchmarks compare `covisibility_mask` and
`ViewConsistencyLoss` with it.
"""

import torch
from torch import Tensor

from trainer.geometry import FramePairs, project_points, transform_points, unproject_depth
from trainer.geometry.cameras import MIN_PROJECTED_DEPTH, invert_pose
from trainer.geometry.checks import multiply_matrices
from trainer.geometry.warping import project_rays

__all__ = ["move_pixels", "plain_consistency", "plain_mask"]

MIN_PIXELS = 10  # Compared pixels of a pair that counts.
ROUNDING = 1e-5  # Relative difference of two depths that are the same.


def plain_mask(
    depth: Tensor,
    intrinsics: Tensor,
    pairs: FramePairs,
    *,
    protocol: str = "clean",
    relative_tolerance: float | Tensor = 0.02,
    absolute_tolerance: float = 0.02,
) -> Tensor:
    """Return the target pixels (N, H, W) that the source frames see; arguments as `covisibility_mask`."""
    depth, cameras = depth.float(), pairs.gather_source(intrinsics.float())
    if protocol == "paper":
        return _plain_hits(pairs.gather_source(depth), cameras, pairs.target_from_source)
    target_depth = pairs.gather_target(depth)
    points = unproject_depth(target_depth, pairs.gather_target(intrinsics.float()))
    pixels, z = project_points(transform_points(invert_pose(pairs.target_from_source), points), cameras)
    tolerance = absolute_tolerance + relative_tolerance * z
    nearest, between = sample_depth(pairs.gather_source(depth), pixels)
    is_same = ((nearest - z).abs() <= tolerance) | ((between - z).abs() <= tolerance)
    return is_same & (target_depth > 0)


def _plain_hits(source_depth: Tensor, intrinsics: Tensor, target_from_source: Tensor) -> Tensor:
    height, width = source_depth.shape[-2:]
    points = transform_points(target_from_source, unproject_depth(source_depth, intrinsics, protocol="paper"))
    x, y, z = points.unbind(-1)
    u = x * intrinsics[:, 0, 0, None, None] / (z + 1e-6) + intrinsics[:, 0, 2, None, None]
    v = y * intrinsics[:, 1, 1, None, None] / (z + 1e-6) + intrinsics[:, 1, 2, None, None]
    is_hit = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (z > 0.01) & (source_depth > 0.01)
    pair, row, column = is_hit.nonzero(as_tuple=True)
    hits = torch.zeros_like(is_hit)
    hits[pair, v[pair, row, column].long(), u[pair, row, column].long()] = True
    return hits


def sample_depth(depth: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the depth of the nearest pixel and between the four pixels around; NaN where there is none.

    Shape:
        depth:  (N, H, W), metres.
        pixels: (N, H, W, 2), (u, v).
        output: (N, H, W) each, metres.
    """
    height, width = depth.shape[-2:]
    u, v = pixels.unbind(-1)
    is_inside = (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
    u, v = torch.where(is_inside, u, 0.0), torch.where(is_inside, v, 0.0)
    has_depth = depth > 0
    # The fill is finite: NaN would reach the gradients of the pixels, even where it is not used.
    flat, has_depth = torch.where(has_depth, depth, 1.0).flatten(1), has_depth.flatten(1)

    def pick(row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        index = row.long().clamp(0, height - 1) * width + column.long().clamp(0, width - 1)
        return flat.gather(1, index.flatten(1)).view(index.shape), has_depth.gather(1, index.flatten(1)).view(
            index.shape
        )

    nearest, has_nearest = pick((v + 0.5).floor(), (u + 0.5).floor())
    u, v = u.clamp(0, width - 1), v.clamp(0, height - 1)
    left, top = u.floor(), v.floor()
    right_share, low_share = u - left, v - top
    # A neighbour of weight zero must not matter: on the last column and row it would lie outside.
    right, low = torch.where(right_share > 0, left + 1, left), torch.where(low_share > 0, top + 1, top)
    corners = [pick(top, left), pick(top, right), pick(low, left), pick(low, right)]
    upper = torch.lerp(1 / corners[0][0], 1 / corners[1][0], right_share)
    lower = torch.lerp(1 / corners[2][0], 1 / corners[3][0], right_share)
    between = 1 / torch.lerp(upper, lower, low_share)
    has_all = corners[0][1] & corners[1][1] & corners[2][1] & corners[3][1]
    return (
        torch.where(is_inside & has_nearest, nearest, torch.nan),
        torch.where(is_inside & has_all, between, torch.nan),
    )


def plain_consistency(
    prediction: Tensor,
    intrinsics: Tensor,
    pairs: FramePairs,
    depth: Tensor | None = None,
    relative: float = 0.02,
    absolute: float = 0.02,
) -> Tensor:
    """Return the loss, a scalar with gradient; arguments as `ViewConsistencyLoss` and its tolerances."""
    prediction, cameras = prediction.float(), intrinsics.float()
    zero = (prediction * 0).sum()
    if not len(pairs):
        return zero
    there = pairs.target_from_source.float()
    motion = torch.cat((there, invert_pose(there)))
    rows = ((pairs.batch,) * 2, (pairs.source, pairs.target), (pairs.target, pairs.source))
    batch, source, target = (torch.cat(row) for row in rows)
    cameras = cameras[batch, source], cameras[batch, target]
    warped, sampled = _plain_warp(prediction[batch, source], prediction[batch, target], cameras, motion)
    is_hidden = warped.detach() > sampled.detach() + (absolute + relative * warped.detach())
    if depth is not None:
        measured = depth.float()
        moved, found = _plain_warp(measured[batch, source], measured[batch, target], cameras, motion)
        differs = (moved - found).abs() > absolute + relative * moved
        is_hidden = torch.where(torch.isfinite(moved - found), differs, is_hidden)
    is_compared = torch.isfinite(warped) & torch.isfinite(sampled) & ~is_hidden
    difference = (torch.where(is_compared, warped, 0.0) - torch.where(is_compared, sampled, 0.0)).abs()
    difference = torch.where(difference > ROUNDING * warped.detach(), difference, 0.0)
    counts = is_compared.flatten(1).sum(1).view(2, -1).sum(0)
    pair_loss = difference.flatten(1).sum(1).view(2, -1).sum(0) / counts.clamp(min=1)
    weight = pairs.weight.to(pair_loss) * (counts >= MIN_PIXELS)
    return zero + (pair_loss * weight).sum() / weight.sum().clamp(min=torch.finfo(torch.float32).tiny)


def move_pixels(depth: Tensor, cameras: tuple[Tensor, Tensor], target_from_source: Tensor) -> tuple[Tensor, Tensor]:
    """Return pixels (N, H, W, 2) and z-depth (N, H, W) of each pixel in another view, NaN where it has none.

    They are those of `project_points` up to rounding: the homogeneous pixel is depth times a ray, plus a shift.

    Args:
        depth: Depth (N, H, W) of the pixels, metres; 0 = none.
        cameras: Intrinsics (N, 3, 3) of the pixels and of the other view.
        target_from_source: Motion (N, 4, 4), metres.
    """
    rays = torch.stack(project_rays(*cameras, target_from_source, depth.shape[1:]), -1)
    shift = multiply_matrices(cameras[1], target_from_source[:, :3, 3:])[:, None, None, :, 0]
    moved = depth.unsqueeze(-1) * rays + shift
    z = moved[..., 2]
    has_pixel = (depth > 0) & (z > MIN_PROJECTED_DEPTH)
    pixels = moved[..., :2] / torch.where(has_pixel, z, 1.0).unsqueeze(-1)
    return torch.where(has_pixel.unsqueeze(-1), pixels, torch.nan), torch.where(has_pixel, z, torch.nan)


def _plain_warp(
    source: Tensor, target: Tensor, cameras: tuple[Tensor, Tensor], target_from_source: Tensor
) -> tuple[Tensor, Tensor]:
    pixels, z = move_pixels(source, cameras, target_from_source)
    last = pixels.new_tensor([target.shape[-1] - 1, target.shape[-2] - 1])
    is_inside = ((pixels >= 0) & (pixels <= last)).all(-1)  # Beyond the outer pixel centres nothing lies in between.
    return torch.where(is_inside, z, torch.nan), sample_depth(target, pixels)[1]
