"""Measured geometry of a sample on the pixels of the vision input, by the rule of a protocol."""

import reprlib
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.image_utils import ChannelDimension

from modeling_ide3d.auxiliary.alignment import METRIC
from processing import geometry_rules
from processing.image_reading_ide3d import is_turned
from processing.pixel_rules_ide3d import infer_layout
from processing.sample_rules import check_sample
from processing.token_grid import TokenGrid
from trainer.data.pseudo_inputs import check_kind, mask_pseudo
from trainer.geometry import check_camera_to_world, check_depth, check_intrinsics, scale_intrinsics
from trainer.geometry.checks import Protocol
from trainer.teachers.pseudo_rules import ALIGNMENTS, ConfidenceRule

__all__ = [
    "check_teacher_features",
    "pad_geometry",
    "pad_teacher_features",
    "prepare_geometry",
    "resize_geometry",
    "to_tensor",
]

GEOMETRY_KEYS = ("depth", "intrinsics", "camera_to_world")


def prepare_geometry(
    sample: Mapping[str, Any],
    grid: TokenGrid,
    protocol: Protocol,
    frame_size: Sequence[int] | None = None,
    confidence_rule: ConfidenceRule | None = None,
) -> dict[str, Tensor] | None:
    """Check and resize the geometry of a sample; None for a sample without any.

    See `resize_geometry`.

    Args:
        sample: Sample with `frames` and its geometry.
        grid: Vision input and its tokens.
        protocol: "clean" or "paper".
        frame_size: Height and width of the frames; None: read from them.
        confidence_rule: Rule of the confidences of pseudo depth; None: the default one.

    Depth may come alone or with intrinsics: without poses the sample trains the depth term and no frame pairs.
    Geometry of the kind "pseudo" is masked and brought to a scale like metres first, see `mask_pseudo`.

    Shape:
        sample:  depth (V, h, w) metres, intrinsics (V, 3, 3) of the pixels of `frames`, camera_to_world (V, 4, 4).
        output:  depth (V, H, W) and, where given, intrinsics (V, 3, 3) and camera_to_world (V, 4, 4); in "paper" with
                 poses also native_depth (V, h, w) and native_intrinsics (V, 3, 3); of pseudo geometry also
                 depth_alignment (), long.

    Raises:
        ValueError: If a part is missing, shapes or frame counts differ, depth, cameras or poses are broken, or they do
            not belong together (`processing.sample_rules`).
        TypeError: If a part holds no numbers.
    """
    given = [key for key in GEOMETRY_KEYS if sample.get(key) is not None]
    is_pseudo = check_kind(sample, protocol, has_depth="depth" in given)
    if not given:
        return None
    if given != list(GEOMETRY_KEYS[: len(given)]):
        raise ValueError(
            f"Intrinsics need depth, and poses need both: expected {GEOMETRY_KEYS} together, or the first one or two "
            f"of them, got only {given}."
        )
    frames = sample.get("frames")
    if frames is None:
        raise ValueError(f"{given} need the `frames` that they were measured with.")
    if turned := [index for index, frame in enumerate(frames) if hasattr(frame, "getexif") and is_turned(frame)]:
        raise ValueError(
            f"The EXIF orientation turns the frames {turned[:3]} ({len(turned)} in all), while {given} belong to the "
            "stored pixels. Remove the tag, or turn the geometry with `ImageOps.exif_transpose(frame)`."
        )
    size = frame_size or _frame_size(frames)
    if is_pseudo:
        sample = mask_pseudo(sample, confidence_rule or ConfidenceRule(), tuple(size))
    depth, intrinsics, poses = (_numbers(sample[key], key) if key in given else None for key in GEOMETRY_KEYS)
    geometry_rules.check_depth(depth, len(frames))
    if intrinsics is not None:
        geometry_rules.check_intrinsics(intrinsics, len(frames), size)
    geometry_rules.check_same_view(depth.shape[1:], size, intrinsics)
    if poses is not None:
        geometry_rules.check_poses(poses, len(frames), is_rigid=protocol == "clean")
        check_sample(depth, intrinsics, poses, size)
    geometry = _resize(depth, intrinsics, poses, size, grid, protocol)
    if is_pseudo:
        geometry["depth_alignment"] = torch.tensor(ALIGNMENTS.index(sample["depth_alignment"]))
    return geometry


def resize_geometry(
    depth: Tensor,
    intrinsics: Tensor | None,
    camera_to_world: Tensor | None,
    frame_size: Sequence[int],
    grid: TokenGrid,
    protocol: Protocol,
) -> dict[str, Tensor]:
    """Resize the geometry of a video whose whole frames are resized to the vision input.

    clean: depth on the pixels of the vision input, nearest by pixel centres.

    paper: the whole frame on the pixels that the vision tower sees, nearest by corners, as the original; the pixels
    that it does not see are 0. For 384 px and patches of 14 the frame is squashed onto 378 px. It then lies up to 6 px
    beside the features that are compared with it. Depth as it came and its cameras go along, for the masks of frame
    pairs.

    Args:
        depth: z-depth in metres, 0 = no measurement.
        intrinsics: Cameras of pixels of `frame_size`; None: not known.
        camera_to_world: Poses in metres, together with `intrinsics`; None: not known.
        frame_size: Height and width that `intrinsics` belong to.
        grid: Vision input and its tokens.
        protocol: "clean" or "paper".

    Shape:
        depth:           (V, h, w).
        intrinsics:      (V, 3, 3).
        camera_to_world: (V, 4, 4).
        output:          `depth` (V, H, W) and, where known, `intrinsics` and `camera_to_world`; in "paper" with poses
                         also `native_depth` (V, h, w) and `native_intrinsics`.

    Raises:
        ValueError: If depth, cameras or poses are broken.
    """
    # The checks of `processing.geometry_rules` would copy the tensors from their device to the host.
    check_depth(depth)
    if intrinsics is not None:
        check_intrinsics(intrinsics, frame_size=tuple(frame_size))
    if camera_to_world is not None:
        check_camera_to_world(camera_to_world, is_rigid=protocol == "clean")
    return _resize(depth, intrinsics, camera_to_world, frame_size, grid, protocol)


def _resize(
    depth: Tensor,
    intrinsics: Tensor | None,
    camera_to_world: Tensor | None,
    frame_size: Sequence[int],
    grid: TokenGrid,
    protocol: Protocol,
) -> dict[str, Tensor]:
    size, mode = (grid.image_size, "nearest-exact") if protocol == "clean" else (grid.covered_size, "nearest")
    geometry = {"depth": F.interpolate(depth[None], size=size, mode=mode)[0]}
    if protocol == "paper":
        unseen = [full - covered for full, covered in zip(grid.image_size, grid.covered_size, strict=True)]
        geometry["depth"] = F.pad(geometry["depth"], (0, unseen[1], 0, unseen[0]))
    if intrinsics is not None:
        geometry["intrinsics"] = _scale_to(intrinsics, frame_size, size)
    if camera_to_world is not None:
        geometry["camera_to_world"] = camera_to_world
        if protocol == "paper":
            geometry["native_depth"] = depth
            geometry["native_intrinsics"] = _scale_to(intrinsics, frame_size, depth.shape[1:])
    return geometry


def pad_geometry(
    per_sample: Sequence[dict[str, Tensor] | None], num_frames: int, grid: TokenGrid
) -> dict[str, Tensor]:
    """Pad the geometry of samples to one batch, with `has_geometry` (B,).

    Args:
        per_sample: Results of `prepare_geometry`.
        num_frames: Number of frames of the batch.
        grid: Vision input and its tokens.

    Where some samples have poses and others depth without them, `has_poses` (B,) says which have. Where some geometry
    is pseudo, `depth_alignment` (B,) says what is unknown about it.

    Raises:
        ValueError: If native depth has several sizes; a batch holds one.
    """
    given = [geometry for geometry in per_sample if geometry is not None]
    if not given:
        return {}
    sizes = sorted({tuple(geometry["native_depth"].shape[1:]) for geometry in given if "native_depth" in geometry})
    if len(sizes) > 1:
        raise ValueError(
            f'Protocol "paper" needs depth of one size in a batch, got {sizes}. Batch samples of one source, or one '
            "at a time as the original."
        )
    # Padded frames need valid cameras too, though no loss reads them.
    fills = {
        "depth": torch.zeros(grid.image_size),
        "intrinsics": torch.eye(3),
        "camera_to_world": torch.eye(4),
        "native_depth": torch.zeros(sizes[0] if sizes else ()),
        "native_intrinsics": torch.eye(3),
    }
    device = given[0]["depth"].device
    batch = {
        key: fill.to(device).repeat(len(per_sample), num_frames, 1, 1)
        for key, fill in fills.items()
        if any(key in geometry for geometry in given)
    }
    for index, geometry in enumerate(per_sample):
        for key, value in (geometry or {}).items():
            if value.dim():
                batch[key][index, : len(value)] = value
    batch["has_geometry"] = torch.tensor([geometry is not None for geometry in per_sample])
    has_poses = torch.tensor([geometry is not None and "camera_to_world" in geometry for geometry in per_sample])
    if has_poses.any() and (has_poses != batch["has_geometry"]).any():
        batch["has_poses"] = has_poses
    if any("depth_alignment" in geometry for geometry in given):
        metric = torch.tensor(METRIC)
        batch["depth_alignment"] = torch.stack([(each or {}).get("depth_alignment", metric) for each in per_sample])
    return batch


def pad_teacher_features(per_sample: Sequence[Tensor | None], num_frames: int) -> dict[str, Tensor]:
    """Pad the teacher features (V, rows, cols, C) of samples with zeros to one batch.

    Args:
        per_sample: Features of each sample; None: it has none.
        num_frames: Number of frames of the batch.

    Raises:
        ValueError: If features have several widths.
    """
    given = {index: features for index, features in enumerate(per_sample) if features is not None}
    if not given:
        return {}
    first = next(iter(given.values()))
    dtype = reduce(torch.promote_types, (features.dtype for features in given.values()))
    batch = first.new_zeros(len(per_sample), num_frames, *first.shape[1:], dtype=dtype)
    for index, features in given.items():
        if features.shape[-1] != first.shape[-1]:
            raise ValueError(
                f"Sample {index}: `teacher_features` have {features.shape[-1]} channels, those of an earlier sample "
                f"of the batch have {first.shape[-1]} channels. Use one teacher for all samples."
            )
        batch[index, : len(features)] = features
    return {"teacher_features": batch}


def to_tensor(values: Any, name: str = "values") -> Tensor:
    """Return an array, tensor or list of real numbers or booleans as tensor.

    Arrays that must not be written, as datasets give them, are copied.

    Args:
        values: Numbers of any shape.
        name: Name of the values in messages.

    Raises:
        TypeError: If they are no numbers, or lists of different length.
    """
    if not isinstance(values, Tensor):
        try:
            array = np.asarray(values)
            values = torch.from_numpy(array if array.flags.writeable else array.copy())
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"`{name}` must be an array of numbers, got {type(values).__name__} {reprlib.repr(values)}."
            ) from error
    if values.is_complex() or values.layout != torch.strided:
        found = values.dtype if values.is_complex() else values.layout
        raise TypeError(f"`{name}` must be a dense array of real numbers, got {found}.")
    return values


def check_teacher_features(features: Any, num_frames: int, grid: TokenGrid) -> Tensor:
    """Return the teacher features of a sample, checked, as floating point tensor.

    Integers and float64 become float32.

    Args:
        features: Features on the token grid.
        num_frames: Number of frames of the sample, V.
        grid: Token grid.

    Shape:
        features: (V, rows, cols, C).

    Raises:
        ValueError: If the shape is another one, or a number is NaN or infinite, also as float32.
        TypeError: If they are no numbers.
    """
    features = to_tensor(features, "teacher_features")
    expected = (num_frames, *grid.shape)
    if tuple(features.shape[:-1]) != expected or not features.shape[-1]:
        raise ValueError(f"teacher_features must have shape {(*expected, 'C')}, got {tuple(features.shape)}.")
    if features.dtype == torch.bool:
        raise TypeError("`teacher_features` must be numbers, got bool.")
    if features.dtype == torch.float64 or not features.is_floating_point():
        features = features.float()
    if not (finite := torch.isfinite(features)).all():
        frames = torch.nonzero(~finite.flatten(1).all(1)).flatten().tolist()
        raise ValueError(
            f"teacher_features hold {int((~finite).sum())} values that are NaN or Inf, in frames {frames}. Compute "
            "them again; a vector of zeros is no target."
        )
    return features


def _scale_to(intrinsics: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Return the intrinsics of frames of size `old` (height, width), resized to `new`."""
    return scale_intrinsics(intrinsics, new[1] / old[1], new[0] / old[0])


def _frame_size(frames: Any) -> tuple[int, int]:
    first = frames[0]
    if hasattr(first, "height"):
        return first.height, first.width
    shape = np.shape(first)
    # The video processor takes channels first too.
    return tuple(shape[:2] if infer_layout(shape, "frames") == ChannelDimension.LAST else shape[1:])


def _numbers(values: Any, name: str) -> Tensor:
    """Return the values of a key as float32."""
    tensor = to_tensor(values, name)
    if tensor.dtype == torch.bool:
        raise TypeError(f"`{name}` must be numbers, got bool.")
    return tensor.float()
