"""ScanNet's three forms: posed_images, the export of SensReader, and the stream."""

import struct

import numpy as np
import pytest
from capture_rooms import check_same, look
from capture_writers import matrix_text, write_posed_images, write_scannet, write_sens

from processing.captures import find_capture, open_capture


@pytest.fixture(scope="module")
def room():
    return look(step=0.001)


@pytest.mark.parametrize("write", [write_posed_images, write_scannet])
def test_a_room_in_folders_is_read_as_it_was(room, tmp_path, write):
    check_same(open_capture(write(tmp_path / "scene0000_00", room)), room, step=0.001, colour=3)


@pytest.mark.parametrize(("colour", "is_packed"), [("PNG", True), ("JPEG", True), ("RAW", False)])
def test_a_room_in_a_stream_is_read_as_it_was(room, tmp_path, colour, is_packed):
    file = write_sens(tmp_path, room, colour=colour, is_packed=is_packed)
    for path in (file, tmp_path):
        check_same(open_capture(path), room, step=0.001, colour=3 if colour == "JPEG" else 0)
    assert open_capture(file).scene_id == "scene"


def test_frames_are_chosen_in_every_form(room, tmp_path):
    for write in (write_posed_images, write_scannet, write_sens):
        path = write(tmp_path / write.__name__, room)
        video = open_capture(path, frames=[2, 0])
        np.testing.assert_array_equal(video.depth, room.depth[[2, 0]])
        assert len(open_capture(path, frames=2)) == 2
        assert open_capture(path, frames=[0], parts=()).camera_to_world is None


@pytest.mark.parametrize("write", [write_posed_images, write_scannet])
def test_lost_tracking_is_told_and_left_out_on_request(room, tmp_path, write, caplog):
    folder = write(tmp_path / "scene", room)
    pose = next(folder.rglob("*1.txt"))
    pose.write_text(matrix_text(np.full((4, 4), -np.inf)))
    with pytest.raises(ValueError, match="not finite"):
        open_capture(folder)
    assert len(open_capture(folder, skip_invalid_poses=True)) == len(room) - 1
    assert len(open_capture(folder, frames=3, skip_invalid_poses=True)) == 3
    assert "without a valid pose" in caplog.text


def test_a_missing_part_of_a_folder_is_named(room, tmp_path):
    folder = write_scannet(tmp_path / "scene", room)
    (folder / "depth" / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match="lacks depth files of 1 frames, such as 2.png"):
        open_capture(folder)
    (folder / "intrinsic" / "intrinsic_color.txt").unlink()
    (folder / "depth").rename(folder / "other")
    assert "give `intrinsics`" in find_capture(folder).notes[0]
    video = open_capture(folder, intrinsics=room.intrinsics[0])
    np.testing.assert_array_equal(video.intrinsics, room.intrinsics)
    assert video.depth is None


def test_poses_the_other_way_round_are_told(room, tmp_path):
    folder = write_scannet(tmp_path / "scene", room)
    for index, pose in enumerate(room.camera_to_world):
        (folder / "pose" / f"{index}.txt").write_text(matrix_text(np.linalg.inv(pose)))
    with pytest.raises(ValueError, match="world to camera"):
        open_capture(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "ends within frame"),
        (lambda content: b"\x03" + content[1:], "version 4, got version 3"),
        (lambda content: content[:60], "ends within its head"),
        (lambda content: content[:302] + struct.pack("<Q", 2**40) + content[310:], "announces 1099511627776 frames"),
        (lambda content: content[:278] + struct.pack("<i", 2) + content[282:], "depth of kind 2"),
        (lambda content: content[:282] + struct.pack("<I", 2**30) + content[286:], "announces pictures"),
    ],
)
def test_a_damaged_stream_is_refused(room, tmp_path, damage, message):
    file = write_sens(tmp_path, room)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=message):
        open_capture(file)


def test_depth_that_unpacks_to_more_than_announced_is_refused(room, tmp_path):
    file = write_sens(tmp_path, room)
    content = bytearray(file.read_bytes())
    content[290:298] = struct.pack("<2I", 10, 10)
    file.write_bytes(content)
    with pytest.raises(ValueError, match="must hold 200 bytes of depth"):
        open_capture(file)
