"""Stray Scanner: a video, depth maps and a table of poses."""

import numpy as np
import pytest
from capture_rooms import check_same, look
from capture_writers_phones import write_stray_scanner

from processing.captures import open_capture


@pytest.fixture(scope="module")
def room():
    return look(step=0.001)


def test_a_room_is_read_as_it_was(room, tmp_path):
    check_same(open_capture(write_stray_scanner(tmp_path / "room", room)), room, step=0.001, colour=6)


def test_frames_of_the_video_keep_their_depth_and_poses(room, tmp_path):
    video = open_capture(write_stray_scanner(tmp_path / "room", room), frames=[3, 1])
    error = [np.abs(video.frames[0].astype(int) - frame).mean() for frame in room.frames]
    assert np.argmin(error) == 3 and error[3] < 6 < error[1]
    np.testing.assert_allclose(video.depth, room.depth[[3, 1]], atol=1e-6)
    np.testing.assert_allclose(video.camera_to_world, room.camera_to_world[[3, 1]], atol=1e-6)


def test_poses_and_frames_must_be_as_many(room, tmp_path):
    folder = write_stray_scanner(tmp_path / "room", room)
    lines = (folder / "odometry.csv").read_text().splitlines()
    (folder / "odometry.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"rgb.mp4 has 4 frames, and odometry.csv 3 poses"):
        open_capture(folder)


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("odometry.csv", lambda text: text.split("\n", 1)[1], ValueError, "must begin with a row of names"),
        ("odometry.csv", lambda text: "a,b\n1,2\n", ValueError, "line 1, must have 7 to 31 columns, it has 2"),
        ("odometry.csv", lambda text: text.replace("000001, ", "000001, nan"), ValueError, "must hold"),
        ("camera_matrix.csv", lambda text: text.splitlines()[0], ValueError, "must hold 3 rows"),
        ("camera_matrix.csv", lambda text: text.replace(",", ";"), ValueError, "must have 3 columns"),
    ],
)
def test_a_broken_table_is_refused(room, tmp_path, name, change, error, message):
    folder = write_stray_scanner(tmp_path / "room", room)
    (folder / name).write_text(change((folder / name).read_text()))
    with pytest.raises(error, match=message):
        open_capture(folder)


def test_a_missing_map_is_named(room, tmp_path):
    folder = write_stray_scanner(tmp_path / "room", room)
    (folder / "depth" / "000002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 4 maps, such as 000002.png"):
        open_capture(folder)
