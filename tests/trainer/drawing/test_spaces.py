"""With poses there is one world; without them each camera is a space of its own."""

import numpy as np
import pytest
from drawn_scenes import INTRINSICS, cuboid

from trainer.drawing import Cameras, ObjectMark
from trainer.drawing.spaces import list_spaces


def test_poses_bring_boxes_cameras_and_points_into_one_world(make, poses):
    (space,) = list_spaces(make(cameras=Cameras(INTRINSICS, poses)))
    assert space.frame is None and space.up.tolist() == [0, 0, 1]
    (box,) = space.boxes
    assert box.corners.mean(0) == pytest.approx((1, 3, 0)) and box.number == 1
    assert space.positions == pytest.approx(np.array([[0, 2, 0], [2.5, 2, 0]]))
    assert [camera.pose[0, 3] for camera in space.cameras] == [0, 1, 2]
    # A pixel at the left border is 80 px left of the axis: 0.16 m at 0.2 m.
    assert space.cameras[0].corners[0] == pytest.approx((-0.16, 0.2, 0.12))


def test_without_poses_frames_have_nothing_in_common(make):
    spaces = list_spaces(make())
    assert [space.frame for space in spaces] == [0, 1, 2]
    assert [len(space.boxes) for space in spaces] == [0, 1, 0] and [len(s.positions) for s in spaces] == [1, 0, 1]
    assert all(space.up.tolist() == [0, -1, 0] for space in spaces)
    assert spaces[1].boxes[0].corners.mean(0) == pytest.approx((0, 0, 3))


def test_regions_alone_have_no_place_in_3d(make):
    mark = ObjectMark("x", np.ones((3, 2, 2), bool))
    assert list_spaces(make(marks=[mark], points=None)) == []


def test_a_tilted_world_keeps_its_own_up(make, poses):
    angle = np.radians(40)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    poses[:, :3, :3] = turn @ poses[:, :3, :3]
    mark = ObjectMark("x", None, cuboid((0, 0, 3)), 0)
    (space,) = list_spaces(make(marks=[mark], cameras=Cameras(None, poses)))
    assert space.up == pytest.approx(turn @ (0, 0, 1), abs=1e-6)
