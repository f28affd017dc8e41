"""Rules for boxes of objects, in metres and in pixels; the other parts of a sample have `geometry_rules`.

Functions take arrays, tensors or nested lists, and judge them as float32.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from processing.geometry_rules import as_float32

__all__ = ["MAX_MEDIAN_BOX", "check_boxes", "check_boxes_2d", "check_frame_size", "find_bad_boxes"]

MAX_MEDIAN_BOX = 30.0  # Metres, longest side. Few rooms are that long; furniture in centimetres or millimetres is.


def find_bad_boxes(boxes: Any) -> np.ndarray:
    """Return the indices of the boxes that are not finite or have a negative size.

    Shape:
        boxes: (N, 6), (cx, cy, cz, dx, dy, dz), metres.
        output: (bad boxes,), increasing.
    """
    array = as_float32(boxes)
    return np.flatnonzero(~(np.isfinite(array).all(axis=1) & (array[:, 3:] >= 0).all(axis=1)))


def check_boxes(boxes: Any, *, is_metric: bool = True, name: str = "boxes") -> None:
    """Raise ValueError unless every box (cx, cy, cz, dx, dy, dz) is finite with sizes of at least 0.

    Args:
        boxes: Axis-aligned boxes (N, 6), full sizes, metres.
        is_metric: Whether to ask for sizes that are plausible in metres.
        name: Name of the array in messages.
    """
    array = as_float32(boxes, name)
    if array.ndim != 2 or array.shape[1] != 6:
        raise ValueError(f"`{name}` must have shape (N, 6), (cx, cy, cz, dx, dy, dz), got {array.shape}.")
    if len(bad := find_bad_boxes(array)):
        raise ValueError(
            f"`{name}` must be finite with sizes that are not negative, got {array[bad[0]].tolist()} as number "
            f"{bad[0]}. Sizes are full sides in metres, not corners."
        )
    if is_metric and len(array) and (side := float(np.median(array[:, 3:].max(axis=1)))) > MAX_MEDIAN_BOX:
        raise ValueError(
            f"`{name}` must be in metres, but the median of their longest sides is {side:.4g}. Are they in "
            "millimetres or centimetres? Divide by 1000 or 100."
        )


def check_frame_size(frame_size: Any) -> tuple[int, int]:
    """Return height and width of frames in whole pixels; ValueError for anything else."""
    given = frame_size.tolist() if hasattr(frame_size, "tolist") else frame_size  # arrays and tensors
    sides = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    is_whole = [
        isinstance(side, Real) and not isinstance(side, bool) and 0 < side < np.inf and side == int(side)
        for side in sides
    ]
    if is_whole != [True, True]:
        raise ValueError(f"`frame_size` must be height and width in pixels, got {str(frame_size)[:80]!r}.")
    return int(sides[0]), int(sides[1])


def check_boxes_2d(boxes: Any, frame_size: Sequence[int], *, name: str = "boxes") -> None:
    """Raise ValueError unless boxes are (left, top, right, bottom) in pixels of the frames.

    A box may reach out of the frame. Boxes that all lie in 0 to 1 are shares of the frame; boxes outside of it, or
    several that leave it while all lie in 0 to 1000, are numbers of other pictures.

    Args:
        boxes: Boxes (..., 4); NaN and empty boxes are passed over.
        frame_size: Height and width of the frames in pixels.
        name: Name of the array in messages.
    """
    height, width = check_frame_size(frame_size)
    array = as_float32(boxes, name).reshape(-1, 4)
    if len(broken := array[np.isinf(array).any(axis=1)]):
        raise ValueError(
            f"`{name}` must be pixels of the frame, or NaN where there is none, got {broken[0].tolist()}."
        )
    left, top, right, bottom = array.T
    if ((right < left) | (bottom < top)).any():
        raise ValueError(
            f"`{name}` must be (left, top, right, bottom) with left <= right and top <= bottom, got "
            f"{array[(right < left) | (bottom < top)][0].tolist()}. Is it (left, top, width, height)?"
        )
    array = array[(right > left) & (bottom > top)]
    if not len(array):
        return
    left, top, right, bottom = array.T
    size = f"`{name}` must be in pixels of frames of {height} x {width} (height x width)"
    if array.min() >= 0 and array.max() <= 1 and max(height, width) > 1:
        raise ValueError(
            f"{size}, got numbers in 0 to 1 such as {array[0].tolist()}. Are they shares of the frame? Multiply left "
            f"and right by {width}, top and bottom by {height}."
        )
    is_outside = (left >= width) | (top >= height) | (right <= 0) | (bottom <= 0)
    leaves = (right > 1.05 * width) | (bottom > 1.05 * height)
    if is_outside.any() or (leaves.sum() >= 2 and 2 * leaves.sum() > len(array) and array.max() <= 1000):
        first = array[is_outside if is_outside.any() else leaves][0].tolist()
        cause = "Give NaN where an object is not in a frame"
        if array.min() >= 0 and array.max() <= 1000:
            cause = (
                "Do they run from 0 to 1000, as some models write them? Multiply left and right by "
                f"{width} / 1000, top and bottom by {height} / 1000"
            )
        raise ValueError(f"{size}, got {first} outside of them. {cause}; or are they of pictures of another size?")
