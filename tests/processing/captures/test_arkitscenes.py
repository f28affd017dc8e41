"""ARKitScenes: association by time, and the direction of the sky."""

import numpy as np
import pytest
from capture_rooms import check_same, look
from capture_writers_phones import write_arkitscenes

from processing.captures import find_capture, open_capture


@pytest.fixture(scope="module")
def room():
    return look(step=0.001)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_room_is_read_upright_however_the_device_was_held(room, tmp_path, quarters):
    folder = write_arkitscenes(tmp_path / "41048190", room, quarters=quarters)
    check_same(open_capture(folder), room, step=0.001)
    turned = [note for note in find_capture(folder).notes if "sky" in note]
    assert len(turned) == (quarters > 0)


def test_the_layout_of_the_detection_set(room, tmp_path):
    frames = write_arkitscenes(tmp_path / "scan" / "41048190_frames", room, quarters=1)
    frames.parent.rename(tmp_path / "41048190")
    check_same(open_capture(tmp_path / "41048190"), room, step=0.001)


def test_poses_between_two_are_interpolated_and_far_ones_are_not_taken(room, tmp_path):
    folder = write_arkitscenes(tmp_path / "41048190", room)
    lines = (folder / "lowres_wide.traj").read_text().splitlines()
    (folder / "lowres_wide.traj").write_text("\n".join([lines[0], lines[2]]))
    capture = find_capture(folder)
    middle = room.camera_to_world[[0, 2], :3, 3].mean(0)
    np.testing.assert_allclose(capture.camera_to_world[1, :3, 3], middle, atol=1e-5)
    assert np.isnan(capture.camera_to_world[3]).all() and "1 of 4 frames have no pose" in capture.notes[0]


def test_pictures_without_depth_are_left_out_and_told(room, tmp_path):
    folder = write_arkitscenes(tmp_path / "41048190", room)
    sorted((folder / "lowres_depth").iterdir())[1].unlink()
    video = open_capture(folder)
    np.testing.assert_array_equal(video.frames, room.frames[[0, 2, 3]])
    np.testing.assert_allclose(video.depth, room.depth[[0, 2, 3]], atol=1e-6)
    assert "1 of 4 pictures have no depth" in find_capture(folder).notes[0]


def test_the_likely_mistakes_are_told(room, tmp_path):
    folder = write_arkitscenes(tmp_path / "41048190", room)
    camera = sorted((folder / "lowres_wide_intrinsics").iterdir())[2]
    text = camera.read_text()
    camera.write_text("100 72 83")
    with pytest.raises(ValueError, match="must have 6 columns, it has 3"):
        open_capture(folder)
    camera.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks the camera of 1 pictures, such as 41048190_6845.300.pincam"):
        open_capture(folder)
    camera.write_text(text)
    trajectory = folder / "lowres_wide.traj"
    rows = [line.split() for line in trajectory.read_text().splitlines()]
    trajectory.write_text("\n".join(" ".join([f"{float(row[0]) + 60:.3f}", *row[1:]]) for row in rows))
    with pytest.raises(ValueError, match="has no pose within 0.15 s"):
        open_capture(folder)


def test_a_trajectory_of_camera_to_world_is_told(room, tmp_path):
    from scipy.spatial.transform import Rotation

    folder = write_arkitscenes(tmp_path / "41048190", room)
    rows = []
    for index, pose in enumerate(room.camera_to_world.astype(np.float64)):
        numbers = (6845.1 + index / 10, *Rotation.from_matrix(pose[:3, :3]).as_rotvec(), *pose[:3, 3])
        rows.append(" ".join(f"{value:.9g}" for value in numbers))
    (folder / "lowres_wide.traj").write_text("\n".join(rows))
    with pytest.raises(ValueError, match="do not belong together|contradict each other"):
        open_capture(folder)
