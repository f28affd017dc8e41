"""Checks of cameras and depth; each returns None or raises an error that names the fault."""

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "check_camera_to_world",
    "check_depth",
    "check_intrinsics",
    "check_protocol",
    "check_same_shape",
    "is_measurement",
    "multiply_matrices",
    "to_float",
]

Protocol = Literal["paper", "clean"]
PROTOCOLS = ("paper", "clean")

# The limits of `processing.geometry_rules`, which this package cannot import; a test holds them equal.
RIGID_TOLERANCE = 1e-3
PINHOLE_TOLERANCE = 1e-3
MIN_FOCAL_SHARE = 0.05
MAX_FOCAL_SHARE = 10.0
MIN_MEDIAN_DEPTH = 0.05  # Metres.
MAX_MEDIAN_DEPTH = 100.0  # Metres.


def check_protocol(protocol: str) -> None:
    """Raise ValueError unless `protocol` is "paper" or "clean"."""
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {PROTOCOLS}, got {protocol!r:.100}.")


def check_same_shape(expected_name: str, expected: Tensor, **tensors: Tensor) -> None:
    """Raise ValueError for the first of `tensors` whose shape is not that of `expected`.

    Args:
        expected_name: Name of `expected` in the message.
        expected: Tensor with the expected shape.
        tensors: Other tensors by name.
    """
    for name, tensor in tensors.items():
        if tensor.shape != expected.shape:
            raise ValueError(
                f"`{name}` must have the shape of `{expected_name}`, {tuple(expected.shape)}, "
                f"got {tuple(tensor.shape)}."
            )


def to_float(tensor: Tensor) -> Tensor:
    """Cast to float32; float64 stays, so that gradients can be checked numerically."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def multiply_matrices(left: Tensor, right: Tensor) -> Tensor:
    """Return `left @ right` of small matrices (..., n, n) in the precision they have.

    A matrix product proper would follow autocast to bfloat16 or run in TF32, three digits either way: a camera 5 m
    from the origin would be off by centimetres.
    """
    return (left.unsqueeze(-1) * right.unsqueeze(-3)).sum(-2)


def check_camera_to_world(camera_to_world: Tensor, *, is_rigid: bool = True, name: str = "camera_to_world") -> None:
    """Raise ValueError unless every matrix is a finite rigid motion.

    Args:
        camera_to_world: Poses, camera to world.
        is_rigid: Whether to ask for an orthonormal rotation without reflection and a last row (0, 0, 0, 1).
        name: Name of the tensor in the message.

    Shape:
        camera_to_world: (..., 4, 4), metres.
    """
    if camera_to_world.shape[-2:] != (4, 4):
        raise ValueError(f"`{name}` must have shape (..., 4, 4), got {tuple(camera_to_world.shape)}.")
    matrices = to_float(camera_to_world.detach())
    _raise_where(
        ~torch.isfinite(matrices).all(-1).all(-1), f"`{name}` holds NaN or Inf", "Drop frames without a pose."
    )
    if not is_rigid:
        return
    rotation = matrices[..., :3, :3]
    eye = torch.eye(3, device=matrices.device, dtype=matrices.dtype)
    error = (multiply_matrices(rotation.mT, rotation) - eye).abs().amax((-2, -1))
    last_row = (matrices[..., 3, :] - matrices.new_tensor([0.0, 0.0, 0.0, 1.0])).abs().amax(-1)
    # NaN, which products of huge numbers give, is no rigid motion either.
    is_rotation = (error <= RIGID_TOLERANCE) & (torch.linalg.det(rotation) > 0)
    is_bad = ~(is_rotation & (last_row <= RIGID_TOLERANCE))
    if is_bad.any():
        smallest = torch.linalg.det(rotation).min().item()
        worst = f"max |R^T R - I| = {error.max().item():.3g}, smallest det R = {smallest:.3g}"
        _raise_where(
            is_bad,
            f"`{name}` is not a rigid motion ({worst})",
            "Expected a rotation, a translation in metres and a last row 0 0 0 1. Transposed or scaled matrices?",
        )


def check_intrinsics(
    intrinsics: Tensor, *, frame_size: tuple[int, int] | None = None, name: str = "intrinsics"
) -> None:
    """Raise ValueError unless every matrix is a finite pinhole camera without skew.

    Focal lengths must be positive.

    Args:
        intrinsics: Cameras.
        frame_size: Height and width of the frames in pixels; None does not compare them.
        name: Name of the tensor in the message.

    Shape:
        intrinsics: (..., 3, 3), pixels.
    """
    if intrinsics.shape[-2:] != (3, 3):
        raise ValueError(
            f"`{name}` must have shape (..., 3, 3), got {tuple(intrinsics.shape)}. "
            "Is it 4x4? Pass `intrinsics[..., :3, :3]`."
        )
    matrices = to_float(intrinsics.detach())
    _raise_where(~torch.isfinite(matrices).all(-1).all(-1), f"`{name}` hold NaN or Inf", "Check the camera file.")
    is_singular = (matrices[..., 0, 0] <= 0) | (matrices[..., 1, 1] <= 0)
    _raise_where(is_singular, f"`{name}` are singular: a focal length is not positive", "Expected fx > 0 and fy > 0.")
    rest = torch.stack((matrices[..., 0, 1], matrices[..., 1, 0], matrices[..., 2, 0], matrices[..., 2, 1]), dim=-1)
    is_bad = (rest.abs().amax(-1) > PINHOLE_TOLERANCE) | ((matrices[..., 2, 2] - 1).abs() > PINHOLE_TOLERANCE)
    _raise_where(is_bad, f"`{name}` are not a pinhole camera", "Expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].")
    if frame_size is not None:
        shares = torch.stack((matrices[..., 0, 0] / frame_size[1], matrices[..., 1, 1] / frame_size[0]), dim=-1)
        _raise_where(
            shares.amin(-1) < MIN_FOCAL_SHARE,
            f"`{name}` have a focal length below {MIN_FOCAL_SHARE} of the frame's side",
            "Expected pixels. Is the camera normalised? Multiply its rows by the frame's width and height.",
        )
        place = torch.stack((matrices[..., 0, 2] / frame_size[1], matrices[..., 1, 2] / frame_size[0]), dim=-1)
        margin = 0.5 / torch.tensor([frame_size[1], frame_size[0]], device=matrices.device)
        advice = f"Expected the camera of frames of {tuple(frame_size)}. Is it that of pictures of another size?"
        is_outside = ((place < -margin) | (place > 1 - margin)).any(-1)
        _raise_where(is_outside, f"`{name}` have a principal point outside of the frame", advice)
        _raise_where(
            shares.amax(-1) > MAX_FOCAL_SHARE,
            f"`{name}` have a focal length above {MAX_FOCAL_SHARE:g} times the frame's side",
            advice,
        )


def is_measurement(depth: Tensor) -> bool:
    """Return whether no value is NaN, infinite or negative, in one pass.

    Shape:
        depth: any, metres.
    """
    if not depth.numel():
        return True
    lowest, highest = torch.stack(torch.aminmax(depth.detach())).tolist()  # NaN if any value is NaN.
    return 0 <= lowest and highest < math.inf


def check_depth(depth: Tensor, *, name: str = "depth") -> None:
    """Raise ValueError for NaN, Inf or negative depth, and where the median cannot be metres.

    Shape:
        depth: any, metres; 0 means no measurement.
    """
    values = to_float(depth.detach())
    if not is_measurement(values):
        _raise_broken_depth(values, name)
    below, above = ((values < MIN_MEDIAN_DEPTH).sum(), (values > MAX_MEDIAN_DEPTH).sum())
    measured, below, far = torch.stack((values.count_nonzero(), below, above)).tolist()
    near = below - (values.numel() - measured)
    if measured and not near <= (measured - 1) // 2 < measured - far:
        raise ValueError(
            f"`{name}` must be in metres, but its median is {values[values > 0].median().item():.4g}. "
            "Millimetres? Divide by 1000 before. Metres that were divided? Leave them as they are."
        )


def _raise_broken_depth(values: Tensor, name: str) -> None:
    """Raise ValueError with the number of values that are NaN or infinite, or else negative."""
    not_finite = int((~torch.isfinite(values)).sum())
    if not_finite:
        raise ValueError(
            f"`{name}` holds {not_finite} values that are NaN or Inf. Write 0 where nothing was measured."
        )
    raise ValueError(
        f"`{name}` holds {int((values < 0).sum())} negative values, lowest {values.min().item():.4g}. "
        "Write 0 where nothing was measured."
    )


def _raise_where(is_bad: Tensor, message: str, advice: str) -> None:
    if not is_bad.any():
        return
    where = [tuple(index) for index in is_bad.nonzero().tolist()[:4]]
    place = f" at index {where}" if is_bad.dim() else ""
    raise ValueError(f"{message}{place}, {int(is_bad.sum())} of {is_bad.numel()} matrices. {advice}")
