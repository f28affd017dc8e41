"""Record3D: archives and folders."""

import json
import zipfile

import numpy as np
import pytest
from capture_rooms import check_same, look
from capture_writers_phones import write_record3d

from processing import PosedVideo
from processing.captures import open_capture
from processing.captures.record3d import declared_size

liblzfse = pytest.importorskip("liblzfse")


@pytest.fixture(scope="module")
def room():
    return look()


@pytest.mark.parametrize(("is_archive", "has_own"), [(True, True), (True, False), (False, True)])
def test_a_room_is_read_as_it_was(room, tmp_path, is_archive, has_own):
    check_same(open_capture(write_record3d(tmp_path, room, is_archive=is_archive, has_own=has_own)), room, colour=3)


def test_depth_of_fewer_pixels_shares_the_view(room, tmp_path):
    """Half the pixels: their middles are those of two by two."""
    half = look(np.array([[41.5, 0, 23.0], [0, 39.5, 18.375], [0, 0, 1]]), (36, 50))
    video = open_capture(
        write_record3d(tmp_path, PosedVideo(room.frames, half.depth, room.intrinsics, room.camera_to_world))
    )
    np.testing.assert_array_equal(video.depth, half.depth)
    np.testing.assert_allclose(video.intrinsics, room.intrinsics, rtol=1e-6)


def test_no_measurement_is_zero(room, tmp_path):
    far = PosedVideo(room.frames, room.depth * (room.depth < 3), room.intrinsics, room.camera_to_world)
    np.testing.assert_array_equal(open_capture(write_record3d(tmp_path, far)).depth, far.depth)


@pytest.mark.parametrize(
    "plain", [bytes(200_000), bytes(range(256)) * 40, np.random.default_rng(0).bytes(70_000), b"ab"]
)
def test_the_size_that_blocks_declare_is_the_one_they_unpack_to(plain):
    assert declared_size(liblzfse.compress(plain), "x") == len(plain)


def rewrite(file, change):
    with zipfile.ZipFile(file) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def edit(key, value):
    def change(files):
        metadata = json.loads(files["metadata"])
        metadata[key] = value
        files["metadata"] = json.dumps(metadata).encode()

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (edit("poses", [[0, 0, 0, 1, 0, 0, 0]]), ValueError, "`poses` must hold 4 x 7 numbers"),
        (edit("poses", [[1, 0, 0, 1, 0, 0, 0]] * 4), ValueError, "quaternions must have the length 1"),
        (edit("dw", 2**20), ValueError, "`dh` and `dw` must be pixels"),
        (edit("dw", 99), ValueError, "must unpack to 28512 bytes"),
        (lambda files: files.pop("metadata"), FileNotFoundError, "lacks metadata"),
        (
            lambda files: files.pop("rgbd/2.depth"),
            FileNotFoundError,
            "lacks the depth of frames, such as rgbd/2.depth",
        ),
        (lambda files: files.pop("rgbd/2.jpg"), ValueError, "numbered from 0 on without a gap"),
        (
            lambda files: files.update({"rgbd/1.depth": files["rgbd/1.depth"][:-9]}),
            ValueError,
            "no whole LZFSE stream",
        ),
        (
            lambda files: files.update({"rgbd/1.depth": liblzfse.compress(bytes(10**7))}),
            ValueError,
            "must unpack to 28800 bytes",
        ),
    ],
)
def test_the_likely_mistakes_are_told(room, tmp_path, change, error, message):
    file = write_record3d(tmp_path, room)
    rewrite(file, change)
    with pytest.raises(error, match=message):
        open_capture(file)
