"""7-Scenes: registered depth, and depth of the depth camera."""

import numpy as np
import pytest
from capture_rooms import check_same, look
from capture_writers import matrix_text, write_seven_scenes

from processing import PosedVideo
from processing.captures import open_capture

COLOUR = np.array([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]])
DEPTH = np.array([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]])


@pytest.fixture(scope="module")
def room():
    return look(COLOUR, (480, 640), num_frames=2, step=0.001)


def test_a_room_with_registered_depth_is_read_as_it_was(room, tmp_path):
    check_same(open_capture(write_seven_scenes(tmp_path / "seq-01", room)), room, step=0.001)


def test_depth_of_the_depth_camera_is_moved_to_the_colour_camera(room, tmp_path):
    """Pixels are at most half of one of the depth camera off, so that surfaces agree but at their edges."""
    raw = look(DEPTH, (480, 640), num_frames=2).depth
    video = open_capture(write_seven_scenes(tmp_path / "seq-01", room, raw))
    is_measured = video.depth > 0
    assert 0.75 < is_measured.mean() < 0.85  # (525 / 585) squared
    error = np.abs(video.depth - room.depth)[is_measured]
    assert np.median(error) < 0.002 and np.quantile(error, 0.95) < 0.02
    # As if it were registered, it would be off by centimetres.
    assert np.median(np.abs(raw - room.depth)) > 0.01
    video.check()


def test_the_number_for_no_measurement_is_none(room, tmp_path):
    near = PosedVideo(room.frames, room.depth * (room.depth < 3), room.intrinsics, room.camera_to_world)
    folder = write_seven_scenes(tmp_path / "seq-01", near)
    video = open_capture(folder)
    assert (video.depth[room.depth >= 3] == 0).all() and video.depth.max() < 3.001


def test_the_likely_mistakes_are_told(room, tmp_path):
    folder = write_seven_scenes(tmp_path / "seq-01", room)
    for index, pose in enumerate(room.camera_to_world):
        (folder / f"frame-{index:06d}.pose.txt").write_text(matrix_text(pose @ np.diag([1, -1, -1, 1])))
    with pytest.raises(ValueError, match="OpenGL"):
        open_capture(folder)
    (folder / "frame-000001.pose.txt").unlink()
    with pytest.raises(FileNotFoundError, match="lacks pose files of 1 frames"):
        open_capture(folder)
    with pytest.raises(ValueError, match=r"captures inside, such as .*seq-01: give one of them"):
        open_capture(tmp_path)
