"""A drawing of two objects with regions and boxes, whose places are known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from drawn_scenes import INTRINSICS, cuboid

from trainer.drawing import Cameras, Drawing, ObjectMark, PointCloud


@pytest.fixture
def poses() -> np.ndarray:
    """Three cameras in a world with z up, which look along +y and step by 1 m along x."""
    pose = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    pose[:, :3, 0], pose[:, :3, 1], pose[:, :3, 2] = (1, 0, 0), (0, 0, -1), (0, 1, 0)
    pose[:, 0, 3] = (0, 1, 2)
    return pose


@pytest.fixture
def make() -> Callable[..., Drawing]:
    """`make(title="x")` makes a drawing without poses; fields replace."""

    def build(**fields: Any) -> Drawing:
        masks = np.zeros((3, 4, 4), bool)
        masks[0, 1:3, 0] = True
        marks = (
            ObjectMark("the chair", masks, score=0.5),
            ObjectMark("the box", None, cuboid((0, 0, 3)), frame=1),
        )
        points = PointCloud([[0, 0, 2], [0.5, 0, 2]], np.array([[255, 0, 0], [0, 255, 0]], np.uint8), [0, 2])
        given = {"frames": np.full((3, 120, 160, 3), 200, np.uint8), "marks": marks, "points": points}
        return Drawing(**{**given, "cameras": Cameras(INTRINSICS), "title": "Two objects", **fields})

    return build
