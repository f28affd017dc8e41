"""Bags of ROS 1 and ROS 2."""

import numpy as np
import pytest
from capture_rooms import CAMERA, check_same, look
from capture_writers_ros import write_ros_bag

from processing.captures import find_capture, open_capture

pytest.importorskip("rosbags")


@pytest.fixture(scope="module")
def room():
    return look(step=0.001)


@pytest.mark.parametrize(("version", "is_compressed"), [(1, False), (2, False), (2, True)])
def test_a_room_is_read_as_it_was(room, tmp_path, version, is_compressed):
    path = write_ros_bag(tmp_path, room, version=version, is_compressed=is_compressed)
    check_same(open_capture(path), room, step=0.001, colour=3 * is_compressed)
    assert "poses are those of camera_optical in map" in " ".join(find_capture(path).notes)


def test_depth_in_metres_has_nan_where_nothing_is_measured(room, tmp_path):
    near = room.__class__(room.frames, room.depth * (room.depth < 3), room.intrinsics, room.camera_to_world)
    video = open_capture(write_ros_bag(tmp_path, near, is_float=True), frames=[2, 0])
    np.testing.assert_array_equal(video.depth, near.depth[[2, 0]])
    np.testing.assert_array_equal(video.frames, room.frames[[2, 0]])


def test_depth_of_another_camera_is_left_out_and_told(room, tmp_path):
    path = write_ros_bag(tmp_path, room, depth_frame="depth_optical")
    capture = find_capture(path)
    assert capture.read_depth is None and "is not registered to the colour camera" in " ".join(capture.notes)


def test_a_camera_that_nothing_moves_has_no_poses(room, tmp_path):
    capture = find_capture(write_ros_bag(tmp_path, room, is_moved=False))
    assert capture.camera_to_world is None and "nothing in /tf moves" in " ".join(capture.notes)


def test_a_distorted_lens_is_undone(room, tmp_path):
    path = write_ros_bag(tmp_path, room, distortion=(0.2, -0.03, 0.004, -0.003, 0.0))
    video = open_capture(path, parts=["camera_to_world"])
    assert "moved to a pinhole camera" in " ".join(find_capture(path).notes)
    assert (video.frames != room.frames).mean() > 0.3
    np.testing.assert_allclose(video.intrinsics[0], CAMERA, rtol=1e-6)


def test_several_cameras_are_told_by_their_topics(room, tmp_path):
    path = write_ros_bag(tmp_path, room, extra=("/left/image",))
    with pytest.raises(ValueError, match="several topics of colour pictures: /camera/color/image_raw, /left/image"):
        open_capture(path)


@pytest.mark.parametrize("version", [1, 2])
def test_cut_bags_are_refused(room, tmp_path, version):
    path = write_ros_bag(tmp_path, room, version=version)
    for file in [path] if version == 1 else [*path.glob("*.db3")]:
        content = file.read_bytes()
        for length in (0, 20, len(content) // 2):
            file.write_bytes(content[:length])
            with pytest.raises(ValueError, match=r"cannot be read as a bag|room.bag|no topic"):
                open_capture(path)
