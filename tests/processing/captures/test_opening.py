"""Recognition, choice of frames, and arguments of the door."""

import numpy as np
import pytest
from capture_rooms import look
from capture_writers import write_scannet, write_sens, write_tum

from processing.captures import FORMATS, find_capture, list_captures, open_capture


@pytest.fixture(scope="module")
def room():
    return look(step=0.001)


def test_exactly_one_format_must_fit(room, tmp_path):
    folder = write_tum(write_scannet(tmp_path / "scene", room), room)
    with pytest.raises(ValueError, match=r"may be of several formats: scannet .*tum .* Name one by `format`"):
        open_capture(folder)
    assert len(open_capture(folder, format="scannet")) == len(room)
    with pytest.raises(ValueError, match=r"no capture of the format '7scenes': expected frame-000000.color.png"):
        open_capture(folder, format="7scenes")


def test_what_was_looked_for_is_told(tmp_path):
    with pytest.raises(ValueError, match="no capture of a known format") as told:
        open_capture(tmp_path)
    assert all(f"{name}: " in str(told.value) for name in FORMATS)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_capture(tmp_path / "nowhere")


def test_captures_below_a_folder_are_listed(room, tmp_path):
    write_scannet(tmp_path / "scans" / "a", room)
    write_sens(tmp_path / "scans" / "b", room)
    (tmp_path / "scans" / "notes.txt").write_text("x")
    found = list_captures(tmp_path)
    assert [(entry.path.name, entry.format) for entry in found] == [("a", "scannet"), ("b", "sens")]
    assert list_captures(tmp_path / "scans" / "b" / "scene.sens")[0].format == "sens"


def test_only_chosen_frames_are_read(room, tmp_path):
    folder = write_scannet(tmp_path / "scene", room)
    (folder / "color" / "1.jpg").write_bytes(b"no picture")
    assert open_capture(folder, frames=[0, 2]).frame_names == ("0", "2")
    assert open_capture(folder, frames=2).frame_names == ("0", "3")
    with pytest.raises(ValueError, match=r"1.jpg"):
        open_capture(folder)


def test_more_frames_than_memory_is_for_are_refused_before_they_are_read(room, tmp_path, monkeypatch):
    folder = write_scannet(tmp_path / "scene", room)
    monkeypatch.setenv("IDE3D_MAX_UNPACKED_BYTES", str(2 * room.frames[0].nbytes))
    (folder / "color" / "3.jpg").write_bytes(b"never opened")
    with pytest.raises(ValueError, match=r"4 frames of 72 x 100 .choose some by `frames`."):
        open_capture(folder)
    assert len(open_capture(folder, frames=[0, 1])) == 2


def test_scale_multiplies_depth_and_poses_alike(room, tmp_path):
    folder = write_scannet(tmp_path / "scene", room)
    whole, half = open_capture(folder), open_capture(folder, scale=0.5)
    np.testing.assert_allclose(half.depth, whole.depth / 2)
    np.testing.assert_allclose(half.camera_to_world[:, :3, 3], whole.camera_to_world[:, :3, 3] / 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"format": "x"}, ValueError, "`format`"),
        ({"frames": 0}, ValueError, "frames must be an integer of at least 1"),
        ({"frames": [9]}, ValueError, "`frames`"),
        ({"frames": "all"}, TypeError, "`frames`"),
        ({"frames": 1.5}, TypeError, "`frames`"),
        ({"parts": ["colour"]}, ValueError, "`parts`"),
        ({"skip_invalid_poses": "yes"}, TypeError, "`skip_invalid_poses`"),
        ({"intrinsics": np.eye(4)}, ValueError, "`intrinsics` must have shape"),
        ({"scale": 0}, ValueError, "`scale` must be a finite number above 0, metres of one unit"),
        ({"scale": "1"}, TypeError, "`scale`"),
    ],
)
def test_arguments_are_checked_by_name(room, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        open_capture(write_scannet(tmp_path / "scene", room), **options)


def test_a_capture_says_what_it_holds_before_pixels_are_read(room, tmp_path):
    capture = find_capture(write_scannet(tmp_path / "scene", room))
    assert (capture.format, len(capture), capture.scene_id) == ("scannet", len(room), "scene")
    assert capture.intrinsics.shape == (len(room), 3, 3) and capture.read_depth is not None


def test_the_page_names_every_format():
    from doc_pages import find_table

    named = [row[0].strip("`") for row in find_table("captures.md", "Formats")]
    assert named == list(FORMATS)
