"""Media of chats: every kind gives the same upright frames at the same places, a scan its geometry too."""

import numpy as np
import pytest
from chat_files import VIEWS, write_media

from processing import PosedVideo
from processing.chats import read_media
from processing.chats.media import read_pictures
from processing.image_reading_ide3d import read_image


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return write_media(tmp_path_factory.mktemp("media"))


def test_a_video_file(media):
    read = read_media("room.mp4", media, num_frames=4)
    assert set(read) == {"frames"} and read["frames"].shape == (4, 48, 64, 3)
    every = read_media("room.mp4", media)["frames"]
    assert len(every) == 6
    np.testing.assert_array_equal(read["frames"], every[[0, 1, 3, 5]])


def test_a_folder_of_frames_and_a_list_of_them(media):
    frames = np.stack([read_image(media / "frames" / f"frame_{number}.png") for number in range(VIEWS)])
    np.testing.assert_array_equal(read_media("frames", media)["frames"], frames)
    names = [f"frames/frame_{number}.png" for number in range(VIEWS)]
    np.testing.assert_array_equal(read_media(names, media, num_frames=2)["frames"], frames[[0, VIEWS - 1]])


def test_a_scan_brings_its_geometry(media):
    read = read_media("scan", media, num_frames=2)
    scan = PosedVideo.from_folder(media / "scan", indices=[0, VIEWS - 1])
    assert set(read) == {"frames", "frame_names", "depth", "intrinsics", "camera_to_world"}
    for name, value in read.items():
        np.testing.assert_array_equal(value, getattr(scan, name))
    assert set(read_media("scan", media, has_geometry=False)) == {"frames", "frame_names"}


def test_pictures(media):
    pictures = read_pictures(["a.png", str(media / "b.png")], media)
    for name, picture in zip(("a.png", "b.png"), pictures, strict=True):
        np.testing.assert_array_equal(picture, read_image(media / name))


@pytest.mark.parametrize("path", ["no.mp4", "scan/no", "x" * 5000])
def test_what_is_not_there(media, path):
    with pytest.raises(FileNotFoundError, match="does not exist|no path of a file"):
        read_media(path, media)


def test_what_is_no_video(media, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.mp4"):
        read_media("a.mp4", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        read_media("empty", tmp_path)
