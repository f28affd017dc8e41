"""Polycam's raw data, with poses before and after the app's optimisation."""

import json

import numpy as np
import pytest
from capture_rooms import check_same, look
from capture_writers_phones import write_polycam

from processing.captures import open_capture


@pytest.fixture(scope="module")
def room():
    return look(step=0.001)


@pytest.mark.parametrize("prefix", ["corrected_", ""])
def test_a_room_is_read_as_it_was(room, tmp_path, prefix):
    folder = write_polycam(tmp_path / "room", room, prefix=prefix)
    check_same(open_capture(folder), room, step=0.001, colour=3)
    check_same(open_capture(folder / "keyframes"), room, step=0.001, colour=3)
    assert open_capture(folder).frame_names == ("96", "103", "110", "117")


def test_corrected_poses_are_preferred(room, tmp_path):
    folder = write_polycam(write_polycam(tmp_path / "room", room), look(step=0.001), prefix="")
    for file in (folder / "keyframes" / "cameras").iterdir():
        file.write_text(json.dumps({**json.loads(file.read_text()), "t_03": 99.0}))
    check_same(open_capture(folder), room, step=0.001, colour=3)


def test_the_likely_mistakes_are_told(room, tmp_path):
    folder = write_polycam(tmp_path / "room", room)
    file = folder / "keyframes" / "corrected_cameras" / "103.json"
    values = json.loads(file.read_text())
    for change, message in (
        ({"t_12": None}, r"103.json: `t_12` must be a finite number"),
        ({"fx": "500"}, r"`fx` must be a finite number"),
        ({"width": 640}, "must have one size"),
        ({"t_00": 5.0}, "not a rigid motion"),
    ):
        file.write_text(json.dumps({**values, **change}))
        with pytest.raises(ValueError, match=message):
            open_capture(folder)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks camera files of 1 frames, such as 103.json"):
        open_capture(folder)


def test_transforms_that_were_taken_for_opencv_are_told(room, tmp_path):
    folder = write_polycam(tmp_path / "room", room)
    for file in (folder / "keyframes" / "corrected_cameras").iterdir():
        values = json.loads(file.read_text())
        values |= {f"t_{row}{column}": -values[f"t_{row}{column}"] for row in range(3) for column in (1, 2)}
        file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="OpenGL"):
        open_capture(folder)
    assert np.isfinite(open_capture(folder, parts=["camera_to_world"]).camera_to_world).all()
