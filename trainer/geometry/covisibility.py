"""Which pixels of one view show what another view sees too."""

import torch
from torch import Tensor

from trainer.geometry.cameras import project_points, transform_points, unproject_depth
from trainer.geometry.checks import Protocol, check_intrinsics, check_protocol, to_float
from trainer.geometry.frame_pairs import FramePairs, usable_frames

PAPER_MIN_DEPTH = 0.01  # Metres, official: nearer points count as missing, in both views.
PAPER_MIN_OVERLAP_POINTS = 100  # Official: frames with fewer share nothing.
PAPER_DEPTH_EPSILON = 1e-6  # Official: added to z before the division.


def covisibility_mask(
    depth: Tensor,
    intrinsics: Tensor,
    pairs: FramePairs,
    *,
    protocol: Protocol = "clean",
    relative_tolerance: float = 0.02,
    absolute_tolerance: float = 0.02,
) -> Tensor:
    """Target pixels that the source frame of each pair sees too.

    clean: the surface point of every target pixel is projected into the source view with that view's own intrinsics.
    It is covisible if it lands inside the image and the source measured the same depth there (z-test: a nearer surface
    in between hides it). The measured depth is taken at the nearest pixel, or between the four pixels around (inverse
    depth, which is exact on planes); one agreement is enough, so that neither slopes nor object borders leave holes.
    Pixels without depth in either view are never covisible.

    paper: official reprojection rule. Source points are moved with the source's intrinsics for *both* views, projected
    with u = x f / (z + 1e-6) + c, and truncated to whole pixels; every target pixel hit by one of them is set. No
    occlusion test, the target's own depth is not read, holes of the splat stay.

    Args:
        depth: Measured depth of all frames; 0 = no measurement.
        intrinsics: Cameras of these pixels.
        pairs: Frame pairs of the batch.
        protocol: "clean" or "paper".
        relative_tolerance: Share of the depth by which two depths of one surface may differ (clean).
        absolute_tolerance: Metres added to it (clean).

    Shape:
        depth:      (B, V, H, W), metres.
        intrinsics: (B, V, 3, 3), pixels.
        output:     (N, H, W), bool, in the target view.

    Raises:
        ValueError: Shapes that do not go together, singular intrinsics of a paired frame, an unknown protocol.
    """
    check_protocol(protocol)
    if depth.dim() != 4 or intrinsics.shape != (*depth.shape[:2], 3, 3):
        raise ValueError(
            f"depth must have shape (B, V, H, W) and intrinsics (B, V, 3, 3), "
            f"got {tuple(depth.shape)} and {tuple(intrinsics.shape)}."
        )
    depth, intrinsics = to_float(depth.detach()), to_float(intrinsics.detach())
    source_intrinsics = pairs.gather_source(intrinsics)
    check_intrinsics(source_intrinsics)
    if protocol == "paper":
        return _reprojection_mask(pairs.gather_source(depth), source_intrinsics, pairs.target_from_source)
    target_depth = pairs.gather_target(depth)
    points = unproject_depth(target_depth, pairs.gather_target(intrinsics))
    points = transform_points(torch.linalg.inv(to_float(pairs.target_from_source)), points)
    pixels, z = project_points(points, source_intrinsics)
    tolerance = absolute_tolerance + relative_tolerance * z
    nearest, between = _sample_depth(pairs.gather_source(depth), pixels)
    is_same = ((nearest - z).abs() <= tolerance) | ((between - z).abs() <= tolerance)
    return is_same & (target_depth > 0)


def _sample_depth(depth: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Depth (N, H, W) at pixels (N, H, W, 2): of the nearest pixel, and between the four around; NaN without one."""
    height, width = depth.shape[-2:]
    u, v = pixels.unbind(-1)
    is_inside = (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
    u, v = torch.where(is_inside, u, 0.0), torch.where(is_inside, v, 0.0)
    flat = torch.where(depth > 0, depth, torch.nan).flatten(1)

    def pick(row: Tensor, column: Tensor) -> Tensor:
        index = row.long().clamp(0, height - 1) * width + column.long().clamp(0, width - 1)
        return flat.gather(1, index.flatten(1)).view(index.shape)

    nearest = pick((v + 0.5).floor(), (u + 0.5).floor())
    u, v = u.clamp(0, width - 1), v.clamp(0, height - 1)
    left, top = u.floor(), v.floor()
    right_share, low_share = u - left, v - top
    # A neighbour of weight zero must not matter: on the last column and row it would lie outside.
    right, low = torch.where(right_share > 0, left + 1, left), torch.where(low_share > 0, top + 1, top)
    upper = (1 - right_share) / pick(top, left) + right_share / pick(top, right)
    lower = (1 - right_share) / pick(low, left) + right_share / pick(low, right)
    between = 1 / ((1 - low_share) * upper + low_share * lower)
    return torch.where(is_inside, nearest, torch.nan), torch.where(is_inside, between, torch.nan)


def _reprojection_mask(source_depth: Tensor, intrinsics: Tensor, target_from_source: Tensor) -> Tensor:
    """Official rule: target pixels hit by a source point, (N, H, W)."""
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
    depth: Tensor, intrinsics: Tensor, camera_to_world: Tensor, *, valid: Tensor | None = None, max_size: int = 48
) -> Tensor:
    """Share of every frame's measured pixels that every other frame sees too, for choosing pairs by overlap.

    Computed on depth reduced by whole steps (nearest) to at most `max_size` pixels a side.

    Shape:
        depth:           (B, V, H, W), metres; 0 = no measurement.
        intrinsics:      (B, V, 3, 3), pixels.
        camera_to_world: (B, V, 4, 4), metres.
        valid:           (B, V) or (B,) bool; frames that are not used get 0.
        output:          (B, V, V), 0 to 1; row = source, column = the target whose pixels are counted.
    """
    usable = usable_frames(camera_to_world, valid)
    batch_size, num_views, height, width = depth.shape
    step = max(1, -(-max(height, width) // max_size))
    small = depth[..., ::step, ::step]
    cameras = to_float(intrinsics).clone()
    cameras[..., :2, :] /= step  # Every step-th pixel centre: pixel u becomes u / step, no half-pixel shift.
    is_pair = usable[:, :, None] & usable[:, None, :]
    batch, source, target = is_pair.nonzero(as_tuple=True)
    poses = to_float(camera_to_world)
    motion = torch.linalg.inv(poses[batch, target]) @ poses[batch, source]
    pairs = FramePairs(source, target, batch, motion, poses.new_ones(len(source)))
    seen = covisibility_mask(small, cameras, pairs).flatten(1).sum(1)
    measured = (pairs.gather_target(small) > 0).flatten(1).sum(1)
    share = poses.new_zeros(batch_size, num_views, num_views)
    share[batch, source, target] = seen / measured.clamp(min=1)
    return share


def compute_voxel_overlap(world_points: Tensor, mask: Tensor, voxel_size: float) -> Tensor:
    """Intersection over union of the voxels two frames see, all pairs of one scene. Official overlap rule.

    Voxels are trunc(point / voxel_size), so those around 0 are twice as wide. Frames with fewer than 100 points share
    0.
    Differs: all points are used, where the original takes 5,000 of them at random without a seed.

    Shape:
        world_points: (V, H, W, 3), metres.
        mask:         (V, H, W), bool.
        output:       (V, V), 0 to 1.
    """
    if world_points.dim() != 4 or world_points.shape[-1] != 3 or mask.shape != world_points.shape[:-1]:
        raise ValueError(
            f"world_points must have shape (V, H, W, 3) and mask (V, H, W), "
            f"got {tuple(world_points.shape)} and {tuple(mask.shape)}."
        )
    num_views = mask.shape[0]
    frame = mask.nonzero()[:, 0]
    voxels = (to_float(world_points)[mask] / voxel_size).trunc().long()
    _, voxel = torch.unique(voxels, dim=0, return_inverse=True)
    occupied = torch.zeros(num_views, int(voxel.max()) + 1 if len(voxel) else 1, device=mask.device)
    occupied[frame, voxel] = 1.0
    count = occupied.sum(1)
    common = occupied @ occupied.T
    overlap = common / (count[:, None] + count[None, :] - common).clamp(min=1)
    has_enough = mask.flatten(1).sum(1) >= PAPER_MIN_OVERLAP_POINTS
    return overlap * (has_enough[:, None] & has_enough[None, :])
