"""COLMAP's models, text and binary."""

import numpy as np
import pytest
from capture_rooms import CAMERA, SIZE, check_same, look
from capture_writers_posed import bend, colour_error, write_colmap, write_colmap_text

from processing import PosedVideo
from processing.captures import find_capture, open_capture


@pytest.fixture(scope="module")
def room():
    return look()


def test_a_room_as_text_is_read_as_it_was(room, tmp_path):
    folder = write_colmap_text(tmp_path / "room", room)
    check_same(open_capture(folder), room)
    check_same(open_capture(folder / "sparse" / "0"), room)


def test_a_room_as_pycolmap_writes_it_is_read_as_it_was(room, tmp_path):
    pytest.importorskip("pycolmap")
    check_same(open_capture(write_colmap(tmp_path / "room", room)), room)


def test_lengths_have_a_unit_of_their_own(room, tmp_path, caplog):
    folder = write_colmap_text(tmp_path / "room", room)
    video = open_capture(folder, scale=3.0)
    np.testing.assert_allclose(video.camera_to_world[:, :3, 3], 3 * room.camera_to_world[:, :3, 3], rtol=1e-6)
    assert not caplog.text
    open_capture(folder)
    assert "not in metres" in caplog.text


def test_a_distorted_lens_is_undone(room, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    bends, margin = (0.2, -0.03, 0.004, -0.003), 40
    parameters = [CAMERA[0, 0], CAMERA[1, 1], CAMERA[0, 2] + 0.5, CAMERA[1, 2] + 0.5, *bends]
    camera = pycolmap.Camera(model="OPENCV", width=SIZE[1], height=SIZE[0], params=parameters)
    moved = CAMERA + np.array([[0, 0, margin], [0, 0, margin], [0, 0, 0]])
    frames = bend(look(moved, tuple(side + 2 * margin for side in SIZE)).frames, CAMERA, SIZE, margin, camera)
    bent = PosedVideo(frames, None, room.intrinsics, room.camera_to_world)
    read = open_capture(write_colmap_text(tmp_path / "room", bent, model="OPENCV", bends=bends))
    assert colour_error(read.frames, room.frames) < colour_error(frames, room.frames) / 2


def test_a_second_model_is_told(room, tmp_path):
    folder = write_colmap_text(tmp_path / "room", room)
    (folder / "sparse" / "1").mkdir()
    assert "of the models 0, 1 the first is read" in find_capture(folder).notes[0]


def test_missing_pictures_are_named(room, tmp_path):
    folder = write_colmap_text(tmp_path / "room", room)
    (folder / "images" / "00001.png").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of 4 pictures of the model, such as 00001.png"):
        open_capture(folder)
    (folder / "images").rename(folder / "pictures")
    with pytest.raises(FileNotFoundError, match="no folder `images` beside its model"):
        open_capture(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("cameras.txt", "PINHOLE", "EQUIRECTANGULAR", "camera models read are SIMPLE_PINHOLE"),
        ("cameras.txt", "PINHOLE", "OPENCV", "OPENCV has 8 finite parameters"),
        ("cameras.txt", "\n7 ", "\n8 ", "pictures have the cameras .7., which cameras.txt lacks"),
        ("images.txt", " 00001.png", " ../../secret.png", "must stay inside its folder"),
        ("images.txt", " 7 00001.png", "", "must hold id, pose, camera and name"),
        ("images.txt", "\n39 ", "\n39 5", "a pose must be a unit quaternion"),
    ],
)
def test_a_broken_text_is_refused(room, tmp_path, name, old, new, message):
    folder = write_colmap_text(tmp_path / "room", room)
    file = folder / "sparse" / "0" / name
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        open_capture(folder)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin"])
def test_cut_files_are_refused_at_once(room, tmp_path, name):
    pytest.importorskip("pycolmap")
    file = write_colmap(tmp_path / "room", room) / "sparse" / "0" / name
    content = file.read_bytes()
    for length in (4, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match=name):
            open_capture(tmp_path / "room")
    file.write_bytes((2**40).to_bytes(8, "little") + content[8:])
    with pytest.raises(ValueError, match=name):
        open_capture(tmp_path / "room")
