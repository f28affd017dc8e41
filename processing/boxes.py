"""Overlap of axis-aligned boxes."""

from typing import Literal

import numpy as np

__all__ = ["IOU_TOLERANCE", "box_iou", "reaches"]

IOU_TOLERANCE = 1e-6  # Rounding in boxes of metres moves an overlap by less.


def box_iou(
    boxes_a: np.ndarray,
    boxes_b: np.ndarray,
    *,
    protocol: Literal["clean", "paper"] = "clean",
    dtype: type = np.float64,
) -> np.ndarray:
    """Return the intersection over union of axis-aligned boxes (cx, cy, cz, dx, dy, dz), full sizes.

    Source: ScanRefer; the original adds 1e-8 to the union and takes a negative size for its absolute value.

    Args:
        boxes_a: Boxes (N, 6), metres.
        boxes_b: Boxes (M, 6), metres.
        protocol: "paper" keeps both oddities of the original; "clean" has no such term and refuses negative sizes.
        dtype: Type of the computation; the original of Multi3DRefer has float32.

    Returns:
        Array (N, M), in [0, 1]; 0 for boxes without volume.

    Raises:
        ValueError: An unknown protocol, a box without six finite numbers, or (clean) one of negative size.
    """
    if protocol not in ("clean", "paper"):
        raise ValueError(f'`protocol` must be "clean" or "paper", got {protocol!r}.')
    corners = []
    for boxes in (boxes_a, boxes_b):
        boxes = np.asarray(boxes, dtype=dtype).reshape(-1, 6) if np.size(boxes) == 0 else np.asarray(boxes, dtype)
        if boxes.ndim != 2 or boxes.shape[1] != 6 or not np.isfinite(boxes).all():
            raise ValueError(f"Boxes must be finite (N, 6), centre and full sizes in metres, got shape {boxes.shape}.")
        if protocol == "clean" and (boxes[:, 3:] < 0).any():
            raise ValueError("A box has a negative size. Expected (cx, cy, cz, dx, dy, dz), not two corners.")
        half = np.abs(boxes[:, 3:]) / 2
        corners.append((boxes[:, :3] - half, boxes[:, :3] + half))
    (low_a, high_a), (low_b, high_b) = corners
    overlap = np.minimum(high_a[:, None], high_b[None]) - np.maximum(low_a[:, None], low_b[None])
    inter = overlap.clip(min=0).prod(-1)
    union = (high_a - low_a).prod(-1)[:, None] + (high_b - low_b).prod(-1)[None] - inter
    if protocol == "paper":
        return inter / (union + dtype(1e-8))
    return np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0)


def reaches(iou: np.ndarray | float, threshold: float, *, protocol: Literal["clean", "paper"] = "clean") -> np.ndarray:
    """Return whether overlaps reach a threshold, bool of the shape of `iou`.

    In "clean" an overlap reaches it that is less by no more than `IOU_TOLERANCE`: whether one of exactly the threshold
    counts would else depend on rounding. "paper" compares as the original does, without a tolerance.

    Args:
        iou: Intersection over union, in [0, 1].
        threshold: Least overlap that counts.
        protocol: "clean" or "paper".
    """
    return np.asarray(iou) >= threshold - (IOU_TOLERANCE if protocol == "clean" else 0)
