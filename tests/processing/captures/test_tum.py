"""TUM RGB-D: lists of pictures and poses, associated by time."""

import numpy as np
import pytest
from capture_rooms import CAMERA, check_same, look
from capture_writers import write_tum

from processing.captures import find_capture, open_capture


@pytest.fixture(scope="module")
def room():
    return look(step=1 / 5000)


def test_a_room_is_read_as_it_was(room, tmp_path):
    check_same(open_capture(write_tum(tmp_path / "room", room), intrinsics=CAMERA), room, step=1 / 5000)


def test_depth_goes_to_the_nearest_picture_in_time(room, tmp_path):
    """The second depth is lost: its picture is left out, and takes no other's depth."""
    folder = write_tum(tmp_path / "room", room)
    lines = (folder / "depth.txt").read_text().splitlines()
    (folder / "depth.txt").write_text("\n".join(lines[:2] + lines[3:]))
    video = open_capture(folder, intrinsics=CAMERA)
    np.testing.assert_allclose(video.depth, room.depth[[0, 2, 3]], atol=1e-6)
    np.testing.assert_array_equal(video.frames, room.frames[[0, 2, 3]])
    assert "1 of 4 pictures have no depth" in find_capture(folder).notes[0]


def test_poses_between_two_are_interpolated(room, tmp_path):
    folder = write_tum(tmp_path / "room", room)
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    (folder / "groundtruth.txt").write_text("\n".join(lines[:2] + lines[3:]))
    pose = find_capture(folder).camera_to_world[1]
    middle = room.camera_to_world[[0, 2]].astype(np.float64)
    np.testing.assert_allclose(pose[:3, 3], middle[:, :3, 3].mean(0), atol=1e-5)
    ends = [np.trace(pose[:3, :3].T @ rotation[:3, :3]) for rotation in middle]
    assert ends[0] == pytest.approx(ends[1], abs=1e-4)  # half of the turn from either


def test_frames_far_from_every_pose_have_none(room, tmp_path):
    folder = write_tum(tmp_path / "room", room)
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    (folder / "groundtruth.txt").write_text("\n".join(lines[:4]))
    assert np.isnan(find_capture(folder).camera_to_world[3]).all()
    with pytest.raises(ValueError, match="not finite"):
        open_capture(folder, intrinsics=CAMERA)
    assert len(open_capture(folder, intrinsics=CAMERA, skip_invalid_poses=True)) == 3


def test_the_camera_of_freiburg_is_that_of_the_benchmark(tmp_path):
    camera = np.array([[525, 0, 319.5], [0, 525, 239.5], [0, 0, 1]])
    room = look(camera, (480, 640), num_frames=2, step=1 / 5000)
    check_same(open_capture(write_tum(tmp_path / "rgbd_dataset_freiburg1_desk", room)), room, step=1 / 5000)


def test_times_of_another_clock_are_told(room, tmp_path):
    folder = write_tum(tmp_path / "room", room, depth_delay=5.0)
    with pytest.raises(ValueError, match="no time of depth.txt lies within 0.02 s"):
        open_capture(folder)
    folder = write_tum(tmp_path / "other", room)
    text = (folder / "groundtruth.txt").read_text()
    (folder / "groundtruth.txt").write_text(text.replace("\n1300000", "\n1400000"))
    with pytest.raises(ValueError, match="no poses within 0.05 s"):
        open_capture(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("groundtruth.txt", "1300000000.0 0 0 0 0.5 0 0 1\n", "quaternions must have the length 1"),
        ("groundtruth.txt", "1300000000.0 0 0 0 0 0 0\n", "line 1, must have 8 columns, it has 7"),
        ("rgb.txt", "2.0 rgb/a.png\n1.0 rgb/b.png\n", "times must be finite and increase"),
        ("rgb.txt", "1.0 ../../secret.png\n", "must stay inside its folder"),
        ("rgb.txt", "# nothing\n", "holds no rows"),
    ],
)
def test_a_broken_list_is_refused(room, tmp_path, name, text, message):
    folder = write_tum(tmp_path / "room", room)
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        open_capture(folder)


def test_depth_in_millimetres_is_told(room, tmp_path):
    """Data sets in the layout of TUM that store millimetres are five times too near."""
    folder = write_tum(tmp_path / "room", look(step=0.001))
    from capture_writers import picture, steps

    for file, depth in zip(sorted((folder / "depth").iterdir()), room.depth, strict=True):
        file.write_bytes(picture(steps(depth, 0.001)))
    with pytest.raises(ValueError, match="`depth`, `intrinsics` and `camera_to_world` do not belong together"):
        open_capture(folder, intrinsics=CAMERA)
