"""Pseudo geometry of a scene in the file of its teacher: what is written, and how it is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from processing.geometry_rules import as_float32, check_depth, check_intrinsics, check_poses
from processing.sample_rules import check_sample
from trainer.teachers.pseudo_rules import Alignment, check_confidence, choose_alignment, normalise_scale

__all__ = ["PseudoGeometry", "check_tensors", "pack_geometry", "read_geometry"]

DEPTH, CONFIDENCE, INTRINSICS, POSES = "depth", "depth_confidence", "intrinsics", "camera_to_world"
MATRICES = {INTRINSICS: 3, POSES: 4}
KINDS = {DEPTH: ("F16", "F32"), CONFIDENCE: ("F16", "F32"), INTRINSICS: ("F32",), POSES: ("F32",)}


@dataclass(frozen=True, eq=False)
class PseudoGeometry:
    """Depth of frames from a network or a reconstruction, with cameras where known.

    Args:
        depth: z-depth, or inverse depth where the alignment of the source is "inverse"; 0 = no value.
        confidence: Confidence of each pixel, 0 = not to be used, larger = surer; None: not known.
        intrinsics: Cameras of the pixels of `depth`; None: not known.
        camera_to_world: Poses, OpenCV axes, in the unit of the depth; None: not known.

    Shape:
        depth:           (V, h, w).
        confidence:      (V, h, w).
        intrinsics:      (V, 3, 3), pixels; integer coordinates are pixel centres.
        camera_to_world: (V, 4, 4).

    Raises:
        TypeError: If a part holds no numbers.
        ValueError: If shapes do not agree, poses come without intrinsics, or the confidence is broken.
    """

    depth: np.ndarray
    confidence: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    camera_to_world: np.ndarray | None = None

    def __post_init__(self):
        depth = as_float32(self.depth, DEPTH)
        if depth.ndim != 3 or 0 in depth.shape:
            raise ValueError(f"`depth` must have shape (V, h, w), got {depth.shape}. Stack one map a frame.")
        put = {"depth": depth}
        if self.confidence is not None:
            put["confidence"] = check_confidence(self.confidence, depth)
        for name, side in MATRICES.items():
            if getattr(self, name) is not None:
                put[name] = as_float32(getattr(self, name), name)
                expected = (len(depth), side, side)
                if put[name].shape != expected:
                    raise ValueError(f"`{name}` must have shape {expected}, got {put[name].shape}.")
        if POSES in put and INTRINSICS not in put:
            raise ValueError("`camera_to_world` needs `intrinsics`. Give both, or depth alone.")
        for name, value in put.items():
            object.__setattr__(self, name, value)


def pack_geometry(geometry: PseudoGeometry, alignment: Alignment, num_frames: int, scene_id: str) -> dict[str, Tensor]:
    """Return the tensors of a file, with depth and confidence as float16.

    Depth of unknown scale, and its poses, get a median of 2, see `normalise_scale`.

    Args:
        geometry: Geometry of the scene.
        alignment: Alignment that it needs, see `ALIGNMENTS`.
        num_frames: Number of frames of the scene.
        scene_id: Name of the scene, for messages.

    Raises:
        TypeError: If it is no `PseudoGeometry`.
        ValueError: If it is of other frames, depth, cameras or poses are broken or do not belong together, or float16
            does not hold a depth.
    """
    if not isinstance(geometry, PseudoGeometry):
        raise TypeError(f"{scene_id}: `geometry` must be a PseudoGeometry, got {geometry!r:.100}.")
    try:
        choose_alignment(alignment, has_poses=geometry.camera_to_world is not None)
        size = geometry.depth.shape[1:]
        depth, poses = normalise_scale(geometry.depth, geometry.camera_to_world, alignment)
        check_depth(depth, num_frames)
        if geometry.intrinsics is not None:
            check_intrinsics(geometry.intrinsics, num_frames, size)
        if poses is not None:
            check_poses(poses, num_frames)
            check_sample(depth, geometry.intrinsics, poses, size)
        halves = torch.from_numpy(depth).half()
        if not torch.isfinite(halves).all():
            raise ValueError(f"float16 holds depth up to 65504, got up to {depth.max():.4g}. Write 0 there.")
    except ValueError as error:
        raise ValueError(f"{scene_id}: {error}") from error
    tensors = {DEPTH: halves}
    if geometry.confidence is not None:
        largest = torch.finfo(torch.float16).max  # surer than that is as sure
        tensors[CONFIDENCE] = torch.from_numpy(geometry.confidence).clamp(max=largest).half()
    if geometry.intrinsics is not None:
        tensors[INTRINSICS] = torch.from_numpy(geometry.intrinsics)
    if poses is not None:
        tensors[POSES] = torch.from_numpy(poses)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def check_tensors(file: Any, num_frames: int) -> tuple[str, ...]:
    """Return the names of the tensors of geometry in an open file.

    Raises:
        ValueError: If one has another type or shape than those of a scene.
    """
    names = tuple(name for name in KINDS if name in file.keys())
    if not names:
        return ()
    parts = {name: file.get_slice(name) for name in names}
    shapes = {name: tuple(part.get_shape()) for name, part in parts.items()}
    for name, part in parts.items():
        shape = shapes.get(DEPTH, ())
        expected = (num_frames, MATRICES[name], MATRICES[name]) if name in MATRICES else shape
        is_whole = len(shape) == 3 and shape[0] == num_frames and 0 not in shape
        if part.get_dtype() not in KINDS[name] or shapes[name] != expected or not is_whole:
            raise ValueError(f"{name} {shapes[name]} of type {part.get_dtype()} for {num_frames} frames")
    if POSES in names and INTRINSICS not in names:
        raise ValueError(f"{POSES} without {INTRINSICS}")
    return names


def read_geometry(
    path: Path, names: Sequence[str], frame_names: Sequence[str], places: Sequence[int]
) -> PseudoGeometry:
    """Read the geometry of some frames.

    Args:
        path: File of a scene, whose header was checked.
        names: Tensors of geometry that it holds.
        frame_names: Names of the frames, for messages.
        places: Index of each frame in the file.

    Raises:
        ValueError: If a value is not finite or negative.
    """
    parts = {}
    with safe_open(path, framework="pt") as file:
        for name in names:
            stored = file.get_slice(name)
            parts[name] = torch.cat([stored[place : place + 1] for place in places]).float().numpy()
            flat = parts[name].reshape(len(places), -1)
            is_good = np.isfinite(flat).all(1) & ((flat >= 0).all(1) if name not in MATRICES else True)
            if not is_good.all():
                broken = [frame for frame, is_whole in zip(frame_names, is_good, strict=True) if not is_whole]
                raise ValueError(
                    f"{path} holds NaN, Inf or negative numbers in `{name}` of the frames {broken[:4]}. Remove it and "
                    "make the geometry again."
                )
    return PseudoGeometry(parts[DEPTH], parts.get(CONFIDENCE), parts.get(INTRINSICS), parts.get(POSES))
