"""The order of frames that are files, and which of the frames of a video are shown."""

import os
import re
from collections.abc import Iterable

import numpy as np

__all__ = ["find_uniform_indices", "natural_key", "sort_frames"]


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
    """
    if count >= num_frames and not can_repeat:
        return np.arange(num_frames)
    return np.linspace(0, num_frames - 1, count).astype(int)
