"""Rules of pseudo geometry: what may be unknown about it, which pixels count, and which scale it is stored in."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from processing.geometry_rules import as_float32
from trainer.field_rules import check_choice, check_number
from trainer.geometry import find_disagreements

__all__ = [
    "ALIGNMENTS",
    "Alignment",
    "ConfidenceRule",
    "check_confidence",
    "choose_alignment",
    "mask_disagreements",
    "normalise_scale",
]

Alignment = Literal["metric", "scale", "affine", "inverse"]
# What is unknown about depth, by the numbers that `modeling_ide3d.auxiliary.alignment` gives it.
ALIGNMENTS = ("metric", "scale", "affine", "inverse")
NOMINAL_DEPTH = 2.0  # Median depth that data of unknown scale are given: checks and tolerances are those of rooms.
COMPARED_SIZE = 96  # Pixels of the longer side at which views are compared in training.


@dataclass(frozen=True)
class ConfidenceRule:
    """Which pixels of pseudo depth are sure enough to be trained on.

    Depth of confidence 0 never is. The values of other confidences mean something else in every network, so the
    default goes by their order.

    Args:
        drop_share: Share of each frame's pixels with depth, the least sure ones, that is left out, 0 to below 1.
        min_confidence: Least confidence that is trained on, 0 or more.

    Raises:
        TypeError: If a value is no number.
        ValueError: If it is out of its range.
    """

    drop_share: float = 0.1
    min_confidence: float = 0.0

    def __post_init__(self):
        check_number("drop_share", self.drop_share, 0, 1)
        check_number("min_confidence", self.min_confidence, 0, math.inf)
        if self.drop_share == 1:
            raise ValueError("drop_share must be below 1, got 1: no pixel would be left.")

    def mask(self, depth: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """Return depth (V, h, w), 0 where it is not sure enough."""
        kept = (confidence > 0) & (confidence >= self.min_confidence) & (depth > 0)
        for frame, sure in zip(kept, confidence, strict=True):
            if frame.any():
                frame &= sure >= np.quantile(sure[frame], self.drop_share, method="lower")
        return np.where(kept, depth, 0.0).astype(np.float32)


def choose_alignment(alignment: Any, *, has_poses: bool) -> str:
    """Return the given alignment, or the default: "scale" with poses, "affine" without.

    Raises:
        ValueError: If it is unknown, or contradicts poses: those need depth of one scale and no shift.
    """
    if alignment is None:
        return "scale" if has_poses else "affine"
    check_choice("depth_alignment", alignment, ALIGNMENTS)
    if has_poses and alignment in ("affine", "inverse"):
        raise ValueError(
            f"depth_alignment {alignment!r} leaves the shift of each frame open, which poses do not allow. Leave the "
            'poses out, or give depth that has their scale: "scale", or "metric" if both are in metres.'
        )
    return alignment


def check_confidence(confidence: Any, depth: np.ndarray) -> np.ndarray:
    """Return the confidence of depth (V, h, w) as float32, checked.

    Raises:
        TypeError: If it holds no numbers.
        ValueError: If its shape is another one, or a value is negative or not finite.
    """
    if getattr(confidence, "dtype", None) in (np.dtype(bool), torch.bool):
        confidence = np.asarray(confidence, np.float32)
    values = as_float32(confidence, "depth_confidence")
    if values.shape != depth.shape:
        raise ValueError(
            f"`depth_confidence` must have the shape of `depth`, {depth.shape}, got {values.shape}. Give one value a "
            "pixel."
        )
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("`depth_confidence` holds NaN, Inf or negative values. Write 0 where depth must not be used.")
    return values


def normalise_scale(depth: np.ndarray, camera_to_world: Any, alignment: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Give depth of unknown scale, and its poses, a median of 2.

    With alignment "scale" it is the median of the video, otherwise that of each frame.

    Args:
        depth: Depth; 0 = no value.
        camera_to_world: Poses in the unit of the depth; None: not known.
        alignment: Entry of `ALIGNMENTS`; metric data stay as they are.

    Shape:
        depth:           (V, h, w).
        camera_to_world: (V, 4, 4).
    """
    poses = None if camera_to_world is None else as_float32(camera_to_world, "camera_to_world")
    if alignment == "metric" or depth.ndim != 3:
        return depth, poses
    if alignment != "scale":
        factors = np.array([_factor(frame) for frame in depth], np.float32)
        return depth * factors[:, None, None], poses
    factor = _factor(depth)
    if poses is not None and poses.ndim == 3 and poses.shape[1] >= 3:
        poses = poses.copy()
        poses[:, :3, -1] *= factor
    return depth * factor, poses


def mask_disagreements(depth: np.ndarray, intrinsics: Any, camera_to_world: Any) -> np.ndarray:
    """Return depth that is 0 where two views contradict each other, see `find_disagreements`.

    Of large maps every k-th pixel is compared, `COMPARED_SIZE` of the longer side at most.

    Args:
        depth: Depth; 0 = no value.
        intrinsics: Cameras of these pixels.
        camera_to_world: Poses in the unit of the depth.

    Shape:
        depth:           (V, h, w).
        intrinsics:      (V, 3, 3), pixels.
        camera_to_world: (V, 4, 4).
    """
    step = max(1, -(-max(depth.shape[1:]) // COMPARED_SIZE))
    small = torch.from_numpy(depth[:, ::step, ::step].copy())
    cameras = torch.tensor(np.asarray(intrinsics, np.float32)).clone()
    cameras[:, :2] /= step  # Every step-th pixel centre: pixel u becomes u / step.
    found = find_disagreements(small, cameras, torch.from_numpy(np.asarray(camera_to_world, np.float32))).numpy()
    if not found.any():
        return depth
    height, width = depth.shape[1:]
    found = found.repeat(step, axis=1).repeat(step, axis=2)[:, :height, :width]
    return np.where(found, 0.0, depth).astype(np.float32)


def _factor(depth: np.ndarray) -> np.float32:
    values = depth[depth > 0]
    return np.float32(NOMINAL_DEPTH / np.median(values) if len(values) else 1.0)
