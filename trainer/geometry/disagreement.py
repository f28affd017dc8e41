"""Pixels of two views that contradict each other: one sees through what the other measures."""

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.geometry.cameras import project_points, relative_pose, transform_points, unproject_depth
from trainer.geometry.checks import check_intrinsics, to_float

__all__ = ["find_disagreements"]

NEIGHBOURS = (1, 2, 4)  # Distances of compared frames along the video, in both directions.


@torch.no_grad()
def find_disagreements(
    depth: Tensor,
    intrinsics: Tensor,
    camera_to_world: Tensor,
    *,
    relative_tolerance: float = 0.1,
    neighbours: tuple[int, ...] = NEIGHBOURS,
) -> Tensor:
    """Find the pixels at which two views of a video contradict each other.

    The surface point of each pixel is moved into the frames before and after. If it lies clearly in front of the depth
    that the other frame has there, that frame looks through it: one of both is wrong, and both pixels are found. A
    point that lies behind the other frame's depth is hidden there and says nothing. So that borders of objects are no
    contradiction, the point has to lie in front of all depth within one pixel.

    Depth and poses may have any common scale: the tolerance is a share of the depth.

    Args:
        depth: z-depth; 0 = no value.
        intrinsics: Cameras of these pixels.
        camera_to_world: Poses, OpenCV axes, in the unit of the depth.
        relative_tolerance: Share of the depth by which two depths of one surface may differ.
        neighbours: Distances of compared frames along the video.

    Shape:
        depth:           (V, H, W).
        intrinsics:      (V, 3, 3), pixels.
        camera_to_world: (V, 4, 4).
        output:          (V, H, W), bool.

    Raises:
        ValueError: If the shapes do not agree, or intrinsics are singular.

    Example:
        >>> camera = torch.tensor([[8.0, 0.0, 3.5], [0.0, 8.0, 3.5], [0.0, 0.0, 1.0]]).expand(2, 3, 3)
        >>> wall = torch.full((2, 8, 8), 3.0)
        >>> wall[0, 2:5, 2:5] = 1.5  # The first view measures something that the second one looks through.
        >>> find_disagreements(wall, camera, torch.eye(4).repeat(2, 1, 1)).flatten(1).sum(1).tolist()
        [9, 9]
    """
    if depth.dim() != 3:
        raise ValueError(f"`depth` must have shape (V, H, W), got {tuple(depth.shape)}.")
    count = len(depth)
    for name, value, side in (("intrinsics", intrinsics, 3), ("camera_to_world", camera_to_world, 4)):
        if value.shape != (count, side, side):
            raise ValueError(f"`{name}` must have shape ({count}, {side}, {side}), got {tuple(value.shape)}.")
    check_intrinsics(intrinsics)
    depth, intrinsics, poses = to_float(depth), to_float(intrinsics), to_float(camera_to_world)
    found = torch.zeros_like(depth, dtype=torch.bool)
    # The nearest depth around each pixel; infinite where there is none.
    nearest = -F.max_pool2d(-torch.where(depth > 0, depth, torch.inf).unsqueeze(1), 3, 1, 1).squeeze(1)
    for step in neighbours:
        first = torch.arange(count - step, device=depth.device) if step < count else torch.arange(0)
        for own, other in ((first, first + step), (first + step, first)):
            for one, two in zip(own.tolist(), other.tolist(), strict=True):
                _compare(one, two, depth, nearest, intrinsics, poses, relative_tolerance, found)
    return found


def _compare(
    one: int,
    two: int,
    depth: Tensor,
    nearest: Tensor,
    intrinsics: Tensor,
    poses: Tensor,
    tolerance: float,
    found: Tensor,
) -> None:
    """Mark in `found` where frame `two` looks through frame `one`, in both frames."""
    height, width = depth.shape[1:]
    points = unproject_depth(depth[one : one + 1], intrinsics[one : one + 1])
    points = transform_points(relative_pose(poses[one : one + 1], poses[two : two + 1]), points)
    pixels, z = project_points(points, intrinsics[two : two + 1])
    pixels, z = (pixels[0] + 0.5).floor(), z[0]
    is_inside = ((pixels >= 0) & (pixels < pixels.new_tensor([width, height]))).all(-1) & (z > 0)
    index = torch.where(is_inside, pixels[..., 1] * width + pixels[..., 0], 0.0).long()
    seen = nearest[two].flatten()[index]
    is_through = is_inside & torch.isfinite(seen) & (z * (1 + tolerance) < seen)
    found[one] |= is_through
    found[two].view(-1)[index[is_through]] = True
