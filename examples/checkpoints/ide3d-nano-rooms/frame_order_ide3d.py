"""The order of frames that are files, and which frames of a video are taken: counts, indices, rules."""

import operator
import os
import re
import reprlib
from collections.abc import Iterable, KeysView, Mapping, Set
from typing import Any

import numpy as np

__all__ = ["check_count", "check_indices", "find_uniform_indices", "natural_key", "sort_frames"]

MAX_COUNT = 2**63 - 1  # sys.maxsize, by which some say "all"; NumPy counts no further


def natural_key(path: str | os.PathLike) -> tuple[list[int | str], str]:
    """Return a sorting key that compares runs of digits as numbers: `frame2.jpg` comes before `frame10.jpg`.

    Args:
        path (`str` or `os.PathLike`):
            Name of a frame, or path of a file; folders above it do not count.

    Returns:
        `tuple[list[int | str], str]`: Letters are compared without case, and what is then equal as it is written.
    """
    name = os.path.basename(os.fspath(path))
    parts = re.split(r"(\d+)", name)  # letters and digits in turn
    return [int(part) if place % 2 else part.lower() for place, part in enumerate(parts)], name


def sort_frames(names: Iterable[str]) -> list[str]:
    """Sort the names or paths of frames by [`natural_key`], as every reader does."""
    return sorted(names, key=natural_key)


def check_count(count: Any, name: str = "num_frames") -> None:
    """Check that a number of frames is a whole number of at least 1.

    Args:
        count (`Any`):
            Number to check.
        name (`str`, *optional*):
            Name of the argument in messages.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is less than 1, or more than computers count to.
    """
    wanted = f"{name} must be an integer of at least 1"
    try:
        number = None if isinstance(count, (bool, np.bool_)) else operator.index(count)
    except (TypeError, ValueError, RuntimeError):  # arrays and tensors of several numbers
        number = None
    if number is None:
        raise TypeError(f"{wanted}, got {reprlib.repr(count)} of type {type(count).__name__}.")
    if not 1 <= number <= MAX_COUNT:
        raise ValueError(f"{wanted}{' and below 2^63' if number > 1 else ''}, got {reprlib.repr(count)}.")


def check_indices(indices: Any, total: int, name: str = "frame indices") -> list[int]:
    """Return the indices of frames as integers.

    Args:
        indices (`Iterable`):
            Whole numbers in `[0, total)`, at least one, in any order; one may come repeatedly.
        total (`int`):
            Frames of the video.
        name (`str`, *optional*):
            Name of the argument in messages.

    Raises:
        TypeError: if they are no list of numbers; flags and parts of a frame are none.
        ValueError: if there are none, or one lies outside of the video.
    """
    is_unordered = isinstance(indices, (Mapping, Set)) and not isinstance(indices, KeysView)
    if is_unordered or isinstance(indices, (str, bytes)):  # which would be letters
        raise TypeError(f"Expected {name} to be whole numbers of frames in a list, such as [0, 8], got {indices!r}.")
    try:
        numbers = np.asarray(
            [*indices] if isinstance(indices, Iterable) and getattr(indices, "ndim", 1) else [indices]
        )
    except ValueError:  # lists of several lengths
        numbers = np.asarray(["?"])
    is_whole = numbers.dtype.kind in "iuf" and np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all()
    if numbers.size and not is_whole:
        raise TypeError(f"Expected {name} to be whole numbers of frames, such as [0, 8], got {indices!r}.")
    chosen = [int(number) for number in numbers.ravel()]
    if not chosen:
        raise ValueError(f"Expected {name} to name the index of at least one frame, got none.")
    if wrong := [index for index in chosen if not 0 <= index < total]:
        raise ValueError(f"Expected {name} from 0 to {total - 1}, the last frame of the video, got {wrong}.")
    return chosen


def find_uniform_indices(num_frames: int, count: int, *, can_repeat: bool = False) -> np.ndarray:
    """Choose `count` of the frames of a video uniformly, first and last included.

    The rule of the original: `linspace(0, num_frames - 1, count)`, cut to integers.

    Args:
        num_frames (`int`):
            Frames of the video.
        count (`int`):
            Frames to choose, at least 1.
        can_repeat (`bool`, *optional*, defaults to `False`):
            Whether a video with fewer frames gives some of them more than once. By default it gives each once.

    Returns:
        `np.ndarray` of shape `(count,)`, or `(num_frames,)` where that is less: indices that do not decrease.

    Raises:
        TypeError, ValueError: if `count` is no integer of at least 1.
    """
    check_count(count)
    if count >= num_frames and not can_repeat:
        return np.arange(num_frames)
    return np.linspace(0, num_frames - 1, count).astype(int)
