"""nerfstudio's transforms.json, ScanNet++, and lenses with distortion."""

import json

import numpy as np
import pytest
from capture_rooms import CAMERA, SIZE, check_same, look
from capture_writers_posed import bend, colour_error, write_nerfstudio, write_scannetpp

from processing import PosedVideo
from processing.captures import find_capture, open_capture
from processing.captures.undistortion import Undistorter, fisheye_lens, radial_tangential_lens

OPENCV = (0.2, -0.03, 0.004, -0.003)  # k1, k2, p1, p2
FISHEYE = (0.03, -0.01, 0.004, -0.001)
MARGIN = 40


@pytest.fixture(scope="module")
def room():
    return look(step=0.001)


@pytest.mark.parametrize("is_turned", [True, False])
def test_a_room_is_read_as_it_was(room, tmp_path, is_turned):
    folder = write_nerfstudio(tmp_path / "room", room, is_turned=is_turned)
    check_same(open_capture(folder), room, step=0.001)
    check_same(open_capture(folder / "transforms.json"), room, step=0.001)


def test_poses_without_depth_are_not_in_metres(room, tmp_path, caplog):
    folder = write_nerfstudio(tmp_path / "room", room, has_depth=False)
    check_same(open_capture(folder), room)
    assert "not in metres" in caplog.text and not find_capture(folder).is_metric
    caplog.clear()
    assert open_capture(folder, scale=2.0).camera_to_world[0, 0, 3] == pytest.approx(2 * room.camera_to_world[0, 0, 3])
    assert "not in metres" not in caplog.text


def test_a_scale_of_nerfstudio_is_undone(room, tmp_path):
    folder = write_nerfstudio(tmp_path / "room", room, is_turned=False)
    change(folder, lambda content: content.update(applied_scale=0.25))
    for_each(folder, lambda frame: [row.__setitem__(3, row[3] / 4) for row in frame["transform_matrix"][:3]])
    check_same(open_capture(folder), room, step=0.001)


def test_scannetpp_is_read_beside_its_pictures_without_bad_frames(room, tmp_path):
    folder = write_scannetpp(tmp_path / "dslr", room)
    check_same(
        open_capture(folder),
        room.__class__(
            *(part[[0, 1, 3]] for part in (room.frames, room.depth, room.intrinsics, room.camera_to_world))
        ),
    )
    assert find_capture(folder).is_metric and "1 of 4 frames are marked `is_bad`" in find_capture(folder).notes[0]


def test_pictures_of_half_the_size_have_half_the_camera(room, tmp_path):
    """The half of a picture is the middle of two pixels, so the camera is moved by pixel centres."""
    folder = write_nerfstudio(tmp_path / "room", room, has_depth=False)
    half = look(np.array([[41.5, 0, 23.0], [0, 39.5, 18.375], [0, 0, 1]]), (36, 50), step=0.001)
    write_nerfstudio(folder / "small", half, has_depth=False)
    for file in (folder / "small" / "images").iterdir():
        file.rename(folder / "images" / file.name)
    (folder / "small" / "transforms.json").unlink()
    check_same(open_capture(folder), half)


def test_the_angle_of_older_files(room, tmp_path):
    folder = write_nerfstudio(tmp_path / "room", room, has_depth=False)
    keep = ("frames", "applied_transform")
    change(folder, lambda content: [content.pop(key) for key in [*content] if key not in keep])
    change(folder, lambda content: content.update(camera_angle_x=2 * np.arctan(50 / 83)))
    camera = open_capture(folder).intrinsics[0]
    np.testing.assert_allclose(camera, [[83, 0, 49.5], [0, 83, 35.5], [0, 0, 1]], rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "bends", "lens"),
    [
        ("OPENCV", OPENCV, radial_tangential_lens(OPENCV[:2], OPENCV[2:])),
        ("OPENCV_FISHEYE", FISHEYE, fisheye_lens(FISHEYE)),
    ],
)
def test_distorted_pictures_become_those_of_a_pinhole_camera(room, tmp_path, model, bends, lens):
    """The lens is pycolmap's, to the last digits; the room is seen as by a camera without one."""
    pycolmap = pytest.importorskip("pycolmap")
    parameters = [CAMERA[0, 0], CAMERA[1, 1], CAMERA[0, 2] + 0.5, CAMERA[1, 2] + 0.5, *bends]
    camera = pycolmap.Camera(model=model, width=SIZE[1], height=SIZE[0], params=parameters)
    points = np.random.default_rng(0).uniform(-0.7, 0.7, (200, 2))
    pixels = camera.img_from_cam(np.concatenate([points, np.ones((200, 1))], 1)) - 0.5
    np.testing.assert_allclose(lens(points) * CAMERA[[0, 1], [0, 1]] + CAMERA[:2, 2], pixels, atol=1e-9)

    wide = look(
        CAMERA + np.array([[0, 0, MARGIN], [0, 0, MARGIN], [0, 0, 0]]), tuple(side + 2 * MARGIN for side in SIZE)
    )
    frames = bend(wide.frames, CAMERA, SIZE, MARGIN, camera)
    names = ("k1", "k2", "p1", "p2") if model == "OPENCV" else ("k1", "k2", "k3", "k4")
    bent = PosedVideo(frames, None, room.intrinsics, room.camera_to_world)
    folder = write_nerfstudio(
        tmp_path / "room", bent, has_depth=False, lens={"camera_model": model, **dict(zip(names, bends, strict=True))}
    )
    read = open_capture(folder)
    assert colour_error(read.frames, room.frames) < colour_error(frames, room.frames) / 2
    assert "moved to a pinhole camera" in find_capture(folder).notes[0]


def test_depth_is_moved_with_its_rays():
    """A plane seen through a lens: its z-depth is that of the pinhole ray."""
    lens = radial_tangential_lens((0.3,))
    mover = Undistorter(lens, CAMERA, SIZE)
    u, _ = np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0]))
    moved = mover.move_depth(1 + u / 100.0)
    x = (np.arange(SIZE[1]) - CAMERA[0, 2]) / CAMERA[0, 0]
    y = (np.arange(SIZE[0]) - CAMERA[1, 2]) / CAMERA[1, 1]
    fallen = (
        lens(np.stack([np.tile(x, SIZE[0]), np.repeat(y, SIZE[1])], 1))[:, 0].reshape(SIZE) * CAMERA[0, 0]
        + CAMERA[0, 2]
    )
    is_seen = moved > 0
    assert 0.5 < is_seen.mean() < 1
    assert np.abs(moved - (1 + fallen / 100))[is_seen].max() <= 0.00501


def change(folder, edit):
    content = json.loads((folder / "transforms.json").read_text())
    edit(content)
    (folder / "transforms.json").write_text(json.dumps(content))


def for_each(folder, edit):
    change(folder, lambda content: [edit(frame) for frame in content["frames"]])


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda content: content.pop("fl_x"), ValueError, "`fl_x` must be a finite number"),
        (lambda content: content.update(cx="50"), ValueError, "`cx` must be a finite number"),
        (lambda content: content.update(camera_model="EQUIRECTANGULAR"), ValueError, "`camera_model` must be one of"),
        (lambda content: content.update(frames=[]), ValueError, "must hold a list `frames`"),
        (lambda content: content.update(applied_transform=[[2, 0, 0, 0]] * 3), ValueError, "`applied_transform`"),
        (lambda content: content["frames"][0].update(file_path="../../secret.png"), ValueError, "must stay inside"),
        (lambda content: content["frames"][0].update(file_path="gone.png"), FileNotFoundError, "gone.png, which"),
        (lambda content: content["frames"][0].pop("depth_file_path"), ValueError, "1 of 4 frames have no `depth_file"),
        (lambda content: content["frames"][0].update(transform_matrix=[[1]]), ValueError, "`transform_matrix` must"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_by_its_key(room, tmp_path, edit, error, message):
    folder = write_nerfstudio(tmp_path / "room", room)
    change(folder, edit)
    with pytest.raises(error, match=message):
        open_capture(folder)


def test_poses_in_opencv_axes_are_told(room, tmp_path):
    """The likeliest mistake of those who write this file by hand."""
    folder = write_nerfstudio(tmp_path / "room", room, is_turned=False)
    axes = np.diag([1.0, -1, -1, 1])
    for_each(
        folder, lambda frame: frame.update(transform_matrix=(np.array(frame["transform_matrix"]) @ axes).tolist())
    )
    with pytest.raises(ValueError, match="OpenGL"):
        open_capture(folder)
