"""Pinhole cameras: from depth to points, from points to pixels, and between views."""

import math

import torch
from torch import Tensor

from trainer.geometry.checks import Protocol, check_intrinsics, check_protocol, multiply_matrices, to_float

__all__ = [
    "MIN_PROJECTED_DEPTH",
    "camera_values",
    "invert_pose",
    "pixel_grid",
    "project_points",
    "relative_pose",
    "scale_intrinsics",
    "transform_points",
    "unproject_depth",
]

MIN_PROJECTED_DEPTH = 1e-6  # Metres. A point on or behind the plane of the camera centre has no pixel.


def pixel_grid(height: int, width: int, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return pixel coordinates (u right, v down), integer at pixel centres, each (H, W)."""
    v = torch.arange(height, device=like.device, dtype=like.dtype)
    u = torch.arange(width, device=like.device, dtype=like.dtype)
    v, u = torch.meshgrid(v, u, indexing="ij")
    return u, v


def camera_values(intrinsics: Tensor, extra_dims: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return focal lengths and centre (fx, fy, cx, cy), with `extra_dims` axes of length one."""
    shape = intrinsics.shape[:-2] + (1,) * extra_dims
    fx, fy = intrinsics[..., 0, 0].reshape(shape), intrinsics[..., 1, 1].reshape(shape)
    return fx, fy, intrinsics[..., 0, 2].reshape(shape), intrinsics[..., 1, 2].reshape(shape)


def unproject_depth(
    depth: Tensor, intrinsics: Tensor, camera_to_world: Tensor | None = None, *, protocol: Protocol = "clean"
) -> Tensor:
    """Return the points that pixels see, in the world frame or in the camera frame.

    Source: official `unproject`; x = (u - cx) z / fx, y = (v - cy) z / fy with integer pixel centres. Differs: pixels
    without depth become NaN, so that they can never count as points. The original puts them at the camera centre, and
    `protocol="paper"` does so too. NaN compares as False, so every box or distance test drops it.

    Args:
        depth: z-depth in metres, 0 = no measurement.
        intrinsics: Cameras of these pixels.
        camera_to_world: Poses; None keeps the camera frame.
        protocol: "clean" or "paper".

    Shape:
        depth:           (..., H, W), metres.
        intrinsics:      (..., 3, 3), pixels.
        camera_to_world: (..., 4, 4), metres.
        output:          (..., H, W, 3), metres. Differentiable in all three.

    Raises:
        ValueError: If the shapes do not agree, intrinsics are singular, or the protocol is unknown.

    Example:
        >>> intrinsics = torch.tensor([[100.0, 0.0, 1.0], [0.0, 100.0, 0.0], [0.0, 0.0, 1.0]])
        >>> unproject_depth(torch.tensor([[2.0, 2.0]]), intrinsics)[0, 0].tolist()
        [-0.019999999552965164, 0.0, 2.0]
    """
    check_protocol(protocol)
    check_intrinsics(intrinsics)
    if depth.dim() < 2 or depth.shape[:-2] != intrinsics.shape[:-2]:
        raise ValueError(
            f"`depth` (..., H, W) and `intrinsics` (..., 3, 3) must share the leading axes, "
            f"got {tuple(depth.shape)} and {tuple(intrinsics.shape)}."
        )
    depth, intrinsics = to_float(depth), to_float(intrinsics)
    u, v = pixel_grid(depth.shape[-2], depth.shape[-1], like=depth)
    fx, fy, cx, cy = camera_values(intrinsics, extra_dims=2)
    points = torch.stack(((u - cx) * depth / fx, (v - cy) * depth / fy, depth), dim=-1)
    if camera_to_world is not None:
        points = transform_points(camera_to_world, points)
    if protocol == "clean":
        points = torch.where((depth > 0).unsqueeze(-1), points, torch.nan)
    return points


def transform_points(transform: Tensor, points: Tensor) -> Tensor:
    """Apply `points_target = target_from_source @ points_source`.

    Shape:
        transform: (..., 4, 4). Its leading axes are those of the points; the points may have more behind them.
        points:    (..., *, 3), metres.
        output:    (..., *, 3), as the points.

    Raises:
        ValueError: If the shapes do not agree.
    """
    leading = transform.shape[:-2]
    if transform.shape[-2:] != (4, 4) or points.shape[-1:] != (3,) or points.shape[: len(leading)] != leading:
        raise ValueError(
            f"`transform` (..., 4, 4) and `points` (..., *, 3) must share the leading axes, "
            f"got {tuple(transform.shape)} and {tuple(points.shape)}."
        )
    transform, points = to_float(transform), to_float(points)
    flat = points.reshape(*leading, math.prod(points.shape[len(leading) : -1]), 3)
    # Written out, column by column: a matrix product would lose digits in mixed precision, see `multiply_matrices`.
    columns = transform[..., None, :3, :].unbind(-1)
    moved = sum((flat[..., axis, None] * columns[axis] for axis in range(3)), start=columns[3])
    return moved.reshape(points.shape)


def project_points(points: Tensor, intrinsics: Tensor, camera_to_world: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the pixels and depths at which a camera sees points; the inverse of `unproject_depth`.

    A point on or behind the plane through the camera centre has no pixel: its coordinates are NaN, its depth stays.

    Args:
        points: Points in the world frame, or in the camera frame without `camera_to_world`.
        intrinsics: One camera per leading index; the points may have more axes behind the leading ones.
        camera_to_world: Poses of the cameras; None = the points are in the camera frame already.

    Shape:
        points:          (..., *, 3), metres.
        intrinsics:      (..., 3, 3), pixels.
        camera_to_world: (..., 4, 4), metres.
        output:          pixels (..., *, 2) as (u, v), and z-depth (..., *) in metres. Differentiable.

    Raises:
        ValueError: If the shapes do not agree, or intrinsics are singular.
    """
    check_intrinsics(intrinsics)
    leading = intrinsics.shape[:-2]
    if points.shape[-1:] != (3,) or points.shape[: len(leading)] != leading:
        raise ValueError(
            f"`points` (..., *, 3) and `intrinsics` (..., 3, 3) must share the leading axes, "
            f"got {tuple(points.shape)} and {tuple(intrinsics.shape)}."
        )
    points, intrinsics = to_float(points), to_float(intrinsics)
    if camera_to_world is not None:
        points = transform_points(invert_pose(camera_to_world), points)
    fx, fy, cx, cy = camera_values(intrinsics, extra_dims=points.dim() - len(leading) - 1)
    x, y, z = points.unbind(-1)
    has_pixel = z > MIN_PROJECTED_DEPTH
    # The division must be finite where it is not used: NaN would reach gradients.
    divisor = torch.where(has_pixel, z, 1.0)
    pixels = torch.stack((fx * x / divisor + cx, fy * y / divisor + cy), dim=-1)
    return torch.where(has_pixel.unsqueeze(-1), pixels, torch.nan), z


def invert_pose(transform: Tensor) -> Tensor:
    """Invert motions (..., 4, 4): world_to_camera from camera_to_world."""
    return torch.linalg.inv(to_float(transform))


def relative_pose(source_camera_to_world: Tensor, target_camera_to_world: Tensor) -> Tensor:
    """Return the motion from the source camera's frame to the target camera's frame.

    target_from_source = inverse(target_camera_to_world) @ source_camera_to_world (official `T_relative`).

    Shape:
        source_camera_to_world, target_camera_to_world: (..., 4, 4), metres.
        output:                                         (..., 4, 4), metres. Differentiable.

    Raises:
        ValueError: If the shapes differ, or are not (..., 4, 4).
    """
    source, target = to_float(source_camera_to_world), to_float(target_camera_to_world)
    if source.shape[-2:] != (4, 4) or source.shape != target.shape:
        raise ValueError(
            f"Both poses must have the same shape (..., 4, 4), got {tuple(source.shape)} and {tuple(target.shape)}. "
            "Have (..., 3, 4)? Append the row 0 0 0 1."
        )
    return multiply_matrices(invert_pose(target), source)


def scale_intrinsics(intrinsics: Tensor, scale_x: float | Tensor, scale_y: float | Tensor | None = None) -> Tensor:
    """Return the intrinsics of the image resized by `scale_x` (width) and `scale_y` (height).

    Integer coordinates are pixel centres, so a resize by s moves the pixel u to (u + 0.5) s - 0.5. The focal lengths
    are multiplied by s, and the centre moves like every other pixel.

    Args:
        intrinsics: Cameras.
        scale_x: New width over old width.
        scale_y: New height over old height; None: `scale_x`.

    Shape:
        intrinsics: (..., 3, 3), pixels.
        output:     (..., 3, 3), pixels of the resized image.

    Raises:
        ValueError: If intrinsics are singular, or a scale is not positive.

    Example:
        >>> scale_intrinsics(torch.tensor([[8.0, 0.0, 3.5], [0.0, 8.0, 3.5], [0.0, 0.0, 1.0]]), 0.5)[0].tolist()
        [4.0, 0.0, 1.5]
    """
    check_intrinsics(intrinsics)
    intrinsics = to_float(intrinsics)
    scale_x = torch.as_tensor(scale_x, dtype=intrinsics.dtype, device=intrinsics.device)
    scale_y = scale_x if scale_y is None else torch.as_tensor(scale_y, dtype=scale_x.dtype, device=intrinsics.device)
    if not ((scale_x > 0).all() and (scale_y > 0).all()):
        raise ValueError(
            f"Scales must be positive, got `scale_x` {scale_x.tolist()} and `scale_y` {scale_y.tolist()}."
        )
    scaled = intrinsics.clone()
    scaled[..., 0, 0] = intrinsics[..., 0, 0] * scale_x
    scaled[..., 1, 1] = intrinsics[..., 1, 1] * scale_y
    scaled[..., 0, 2] = (intrinsics[..., 0, 2] + 0.5) * scale_x - 0.5
    scaled[..., 1, 2] = (intrinsics[..., 1, 2] + 0.5) * scale_y - 0.5
    return scaled
