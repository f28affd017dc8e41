"""Covisibility: pixels of one view whose surface another view sees too."""

import torch
from torch import Tensor

from trainer.geometry.cameras import invert_pose, project_points, relative_pose, transform_points, unproject_depth
from trainer.geometry.checks import Protocol, check_intrinsics, check_protocol, to_float
from trainer.geometry.frame_pairs import FramePairs, usable_frames

__all__ = ["compute_covisible_share", "compute_voxel_overlap", "covisibility_mask", "sample_depth"]

RELATIVE_TOLERANCE = 0.02  # Of measured depth.
PAPER_MIN_DEPTH = 0.01  # Metres, official: nearer points count as missing, in both views.
PAPER_MIN_OVERLAP_POINTS = 100  # Official: frames with fewer share nothing.
PAPER_DEPTH_EPSILON = 1e-6  # Official: added to z before the division.
OVERLAP_SIZE = 48  # Pixels of the longer side for the share of covisible pixels.


def covisibility_mask(
    depth: Tensor,
    intrinsics: Tensor,
    pairs: FramePairs,
    *,
    protocol: Protocol = "clean",
    relative_tolerance: float | Tensor = RELATIVE_TOLERANCE,
    absolute_tolerance: float = 0.02,
) -> Tensor:
    """Return the target pixels that the source frame of each pair sees too.

    clean: the surface point of every target pixel is projected into the source view with that view's own intrinsics.
    It is covisible if it lands inside the image and the source measured the same depth there (z-test: a nearer surface
    in between hides it). The measured depth is taken at the nearest pixel, or between the four pixels around (inverse
    depth, which is exact on planes). One agreement is enough, so that neither slopes nor object borders leave holes.
    Pixels without depth in either view are never covisible.

    paper: official reprojection rule. Source points are moved with the source's intrinsics for *both* views. They are
    projected with u = x f / (z + 1e-6) + c and truncated to whole pixels, and every target pixel hit by one of them is
    set. There is no occlusion test, the target's own depth is not read, and holes between the hits stay.

    Args:
        depth: Measured depth of all frames; 0 = no measurement.
        intrinsics: Cameras of these pixels.
        pairs: Frame pairs of the batch.
        protocol: "clean" or "paper".
        relative_tolerance: Share of the depth by which two depths of one surface may differ (clean); one of each pair
            as a tensor (N, 1, 1).
        absolute_tolerance: Metres added to this share (clean).

    Shape:
        depth:      (B, V, H, W), metres.
        intrinsics: (B, V, 3, 3), pixels.
        output:     (N, H, W), bool, in the target view.

    Raises:
        ValueError: If the shapes do not agree, intrinsics of a paired frame are singular, or the protocol is unknown.
    """
    check_protocol(protocol)
    if depth.dim() != 4 or intrinsics.shape != (*depth.shape[:2], 3, 3):
        raise ValueError(
            f"`depth` must have shape (B, V, H, W) and `intrinsics` (B, V, 3, 3), "
            f"got {tuple(depth.shape)} and {tuple(intrinsics.shape)}."
        )
    depth, intrinsics = to_float(depth.detach()), to_float(intrinsics.detach())
    source_intrinsics = pairs.gather_source(intrinsics)
    check_intrinsics(source_intrinsics)
    if protocol == "paper":
        return _reprojection_mask(pairs.gather_source(depth), source_intrinsics, pairs.target_from_source)
    target_depth = pairs.gather_target(depth)
    points = unproject_depth(target_depth, pairs.gather_target(intrinsics))
    points = transform_points(invert_pose(pairs.target_from_source), points)
    pixels, z = project_points(points, source_intrinsics)
    tolerance = absolute_tolerance + relative_tolerance * z
    nearest, between = sample_depth(pairs.gather_source(depth), pixels)
    is_same = ((nearest - z).abs() <= tolerance) | ((between - z).abs() <= tolerance)
    return is_same & (target_depth > 0)


def sample_depth(depth: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Sample depth at given pixels: of the nearest pixel, and between the four around.

    In between the inverse depth is interpolated, which is linear on planes. The result is NaN outside the image and
    where a pixel that counts has no depth.

    Shape:
        depth:  (N, H, W), metres.
        pixels: (N, H, W, 2), (u, v).
        output: (N, H, W) each, metres. Differentiable in both, also beside NaN.
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
    upper = (1 - right_share) / corners[0][0] + right_share / corners[1][0]
    lower = (1 - right_share) / corners[2][0] + right_share / corners[3][0]
    between = 1 / ((1 - low_share) * upper + low_share * lower)
    has_all = corners[0][1] & corners[1][1] & corners[2][1] & corners[3][1]
    return (
        torch.where(is_inside & has_nearest, nearest, torch.nan),
        torch.where(is_inside & has_all, between, torch.nan),
    )


def _reprojection_mask(source_depth: Tensor, intrinsics: Tensor, target_from_source: Tensor) -> Tensor:
    """Return the target pixels (N, H, W) hit by a source point, by the official rule."""
    height, width = source_depth.shape[-2:]
    points = transform_points(target_from_source, unproject_depth(source_depth, intrinsics, protocol="paper"))
    x, y, z = points.unbind(-1)
    focal_x, focal_y = intrinsics[:, 0, 0, None, None], intrinsics[:, 1, 1, None, None]
    divisor = z + PAPER_DEPTH_EPSILON
    u = x * focal_x / divisor + intrinsics[:, 0, 2, None, None]
    v = y * focal_y / divisor + intrinsics[:, 1, 2, None, None]
    is_hit = (
        (u >= 0) & (u < width) & (v >= 0) & (v < height) & (z > PAPER_MIN_DEPTH) & (source_depth > PAPER_MIN_DEPTH)
    )
    u, v = torch.where(is_hit, u, 0.0).long(), torch.where(is_hit, v, 0.0).long()
    index = torch.where(is_hit, v * width + u, height * width).flatten(1)  # The extra cell takes all misses.
    hits = torch.zeros(index.shape[0], height * width + 1, dtype=torch.bool, device=index.device)
    return hits.scatter_(1, index, True)[:, :-1].view(source_depth.shape)


def compute_covisible_share(
    depth: Tensor, intrinsics: Tensor, camera_to_world: Tensor, *, valid: Tensor | None = None
) -> Tensor:
    """Return the share of a frame's measured pixels that every other frame sees too.

    It serves to choose pairs by overlap. Depth is first reduced by whole steps (nearest) to at most 48 pixels a side.

    Args:
        depth: Measured depth; 0 = no measurement.
        intrinsics: Cameras of these pixels.
        camera_to_world: Poses.
        valid: Frames or samples that are used; None: all.

    Shape:
        depth:           (B, V, H, W), metres.
        intrinsics:      (B, V, 3, 3), pixels.
        camera_to_world: (B, V, 4, 4), metres.
        valid:           (B, V) or (B,) bool; frames that are not used get 0.
        output:          (B, V, V), 0 to 1; row = source, column = the target whose pixels are counted.
    """
    usable = usable_frames(camera_to_world, valid)
    batch_size, num_views, height, width = depth.shape
    step = max(1, -(-max(height, width) // OVERLAP_SIZE))
    small = depth[..., ::step, ::step]
    cameras = to_float(intrinsics).clone()
    cameras[..., :2, :] /= step  # Every step-th pixel centre: pixel u becomes u / step, no half-pixel shift.
    is_pair = usable[:, :, None] & usable[:, None, :]
    batch, source, target = is_pair.nonzero(as_tuple=True)
    poses = to_float(camera_to_world)
    motion = relative_pose(poses[batch, source], poses[batch, target])
    pairs = FramePairs(source, target, batch, motion, poses.new_ones(len(source)))
    seen = covisibility_mask(small, cameras, pairs).flatten(1).sum(1)
    measured = (pairs.gather_target(small) > 0).flatten(1).sum(1)
    share = poses.new_zeros(batch_size, num_views, num_views)
    share[batch, source, target] = seen / measured.clamp(min=1)
    return share


def compute_voxel_overlap(world_points: Tensor, mask: Tensor, voxel_size: float) -> Tensor:
    """Return the intersection over union of the voxels that two frames see.

    The official overlap rule, for all pairs of every scene. Voxels are trunc(point / voxel_size), so those around 0
    are twice as wide. Frames with fewer than 100 points share 0. Differs: all points are used, where the original
    samples 5,000 of them without a seed.

    Args:
        world_points: Points of the pixels.
        mask: Pixels that count.
        voxel_size: Side of a voxel in metres.

    Shape:
        world_points: (B, V, H, W, 3), metres.
        mask:         (B, V, H, W), bool.
        output:       (B, V, V), 0 to 1.

    Raises:
        ValueError: If the shapes do not agree, the mask is not bool, or the size is not positive.
    """
    if world_points.dim() != 5 or world_points.shape[-1] != 3 or mask.shape != world_points.shape[:-1]:
        raise ValueError(
            f"`world_points` must have shape (B, V, H, W, 3) and `mask` (B, V, H, W), "
            f"got {tuple(world_points.shape)} and {tuple(mask.shape)}."
        )
    if mask.dtype != torch.bool or not voxel_size > 0:
        raise ValueError(f"Expected a bool `mask` and a positive `voxel_size`, got {mask.dtype} and {voxel_size}.")
    batch, frame = mask.nonzero()[:, :2].unbind(1)
    voxels = (to_float(world_points)[mask] / voxel_size).trunc().long()
    # Sorted by sample first: the voxels of a sample are consecutive, and count from its own first one.
    voxels, voxel = torch.unique(torch.cat((batch.unsqueeze(1), voxels), 1), dim=0, return_inverse=True)
    per_sample = torch.bincount(voxels[:, 0], minlength=len(mask))
    voxel = voxel - (per_sample.cumsum(0) - per_sample)[batch]
    size = (*mask.shape[:2], max(1, int(per_sample.max()) if len(mask) else 1))
    occupied = torch.zeros(size, dtype=torch.float64, device=mask.device)  # Float64 is left alone by autocast.
    occupied[batch, frame, voxel] = 1.0
    count = occupied.sum(-1)
    common = occupied @ occupied.mT
    overlap = common / (count[:, :, None] + count[:, None, :] - common).clamp(min=1)
    has_enough = mask.flatten(2).sum(-1) >= PAPER_MIN_OVERLAP_POINTS
    return (overlap * (has_enough[:, :, None] & has_enough[:, None, :])).float()
