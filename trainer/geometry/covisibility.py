"""Covisibility: pixels of one view whose surface another view sees too."""

import torch
from torch import Tensor

from trainer.geometry.cameras import camera_values, invert_pose, relative_pose
from trainer.geometry.checks import Protocol, check_intrinsics, check_protocol, to_float
from trainer.geometry.frame_pairs import FramePairs, usable_frames
from trainer.geometry.warping import (
    drop_missing,
    find_inside,
    interpolate_depth,
    invert_depth,
    land_pixels,
    move_points,
    pick_nearest,
    place_rows,
    split_pairs,
)

__all__ = ["compute_covisible_share", "compute_voxel_overlap", "covisibility_mask"]

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

    Beside the mask, memory does not grow with the number of pairs: they are warped a few at a time.

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
    check_intrinsics(pairs.gather_source(intrinsics))
    if protocol == "clean":
        check_intrinsics(pairs.gather_target(intrinsics))
    size = (depth.shape[2], depth.shape[3])
    mask = torch.empty(len(pairs), *size, dtype=torch.bool, device=depth.device)
    for part in split_pairs(len(pairs), size, depth.device):
        some = pairs.select(part)
        if protocol == "paper":
            mask[part] = _find_hits(depth, intrinsics, some)
        else:
            is_per_pair = isinstance(relative_tolerance, Tensor) and relative_tolerance.dim() > 0
            share = relative_tolerance[part] if is_per_pair else relative_tolerance
            mask[part] = _find_agreements(depth, intrinsics, some, share, absolute_tolerance)
    return mask


def _find_agreements(
    depth: Tensor, intrinsics: Tensor, pairs: FramePairs, relative_tolerance: float | Tensor, absolute_tolerance: float
) -> Tensor:
    """Return the target pixels (N, H, W) at which the source view measured the same depth."""
    landing = land_pixels(
        drop_missing(pairs.gather_target(depth)),
        pairs.gather_target(intrinsics),
        pairs.gather_source(intrinsics),
        invert_pose(pairs.target_from_source),
    )
    source_depth = drop_missing(pairs.gather_source(depth))
    tolerance = (landing.z * relative_tolerance).add_(absolute_tolerance)
    is_same = pick_nearest(source_depth, landing).sub_(landing.z).abs_() <= tolerance
    is_inside = find_inside(landing, (depth.shape[2], depth.shape[3]), margin=0.5)
    # Places outside are moved to the border, and places that are NaN anywhere: neither counts.
    u, v = (
        place.nan_to_num_(0.0).clamp_(0, length - 1)
        for place, length in ((landing.u, depth.shape[3]), (landing.v, depth.shape[2]))
    )
    between = interpolate_depth(invert_depth(source_depth), u, v).depth
    is_same |= between.sub_(landing.z).abs_() <= tolerance
    return is_same.logical_and_(is_inside)


def _find_hits(depth: Tensor, intrinsics: Tensor, pairs: FramePairs) -> Tensor:
    """Return the target pixels (N, H, W) hit by a source point, by the official rule."""
    height, width = depth.shape[2:]
    source_depth, cameras = pairs.gather_source(depth), pairs.gather_source(intrinsics)
    u, v, z = move_points(source_depth, cameras, pairs.target_from_source)
    fx, fy, cx, cy = camera_values(cameras, extra_dims=2)
    divisor = z + PAPER_DEPTH_EPSILON
    u, v = u.mul_(fx).div_(divisor).add_(cx), v.mul_(fy).div_(divisor).add_(cy)
    is_hit = (u >= 0).logical_and_(u < width).logical_and_(v >= 0).logical_and_(v < height)
    is_hit = is_hit.logical_and_(z > PAPER_MIN_DEPTH).logical_and_(source_depth > PAPER_MIN_DEPTH)
    rows, columns = torch.where(is_hit, v, 0.0).int(), torch.where(is_hit, u, 0.0).int()
    hits = torch.zeros(source_depth.numel() + 1, dtype=torch.bool, device=depth.device)
    cells = place_rows(rows, (height, width)).add_(columns)
    cells = torch.where(is_hit, cells, len(hits) - 1)  # All misses share one.
    return hits.index_fill_(0, cells.view(-1).long(), True)[:-1].view(source_depth.shape)


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
