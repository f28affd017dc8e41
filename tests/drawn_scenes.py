"""Boxes and a camera for drawings, with numbers that one checks by hand."""

from typing import Any

import numpy as np

__all__ = ["BITS", "INTRINSICS", "cuboid"]

BITS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
INTRINSICS = np.array([[100.0, 0, 79.5], [0, 100, 59.5], [0, 0, 1]], np.float32)


def cuboid(centre: Any, size: Any = (1, 1, 1)) -> np.ndarray:
    """Corners (8, 3) of an axis-aligned box."""
    return np.asarray(centre) + BITS * np.asarray(size)
