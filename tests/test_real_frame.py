"""The one real frame of the repository is what its log says, and a real camera's depth passes our readers."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from real_frame.from_rawlog import CLASS, read_rawlog

from processing import PosedVideo
from processing.captures import open_capture

FOLDER = Path(__file__).with_name("real_frame")


@pytest.fixture(scope="module")
def frame():
    return PosedVideo.from_folder(FOLDER)


def test_it_is_read_as_a_scene_without_poses(frame):
    assert frame.frames.shape == (1, 480, 640, 3) and frame.depth.shape == (1, 480, 640)
    assert frame.camera_to_world is None
    assert (open_capture(FOLDER).depth == frame.depth).all()


def test_depth_is_metres_with_the_holes_of_a_real_sensor(frame):
    measured = frame.depth[frame.depth > 0]
    assert 1.2 < measured.min() < measured.max() < 2.6
    assert 0.05 < (frame.depth == 0).mean() < 0.2


def test_the_wall_behind_the_shelf_is_a_plane(frame):
    """Inverse depth of a plane is linear in the pixels, whatever the camera."""
    v, u = np.mgrid[30:110, 60:600]
    depth = frame.depth[0, 30:110, 60:600]
    features = np.stack([u, v, np.ones_like(u)], -1)[depth > 0].astype(float)
    inverse = 1 / depth[depth > 0].astype(float)
    weights = np.linalg.lstsq(features, inverse, rcond=None)[0]
    errors = np.abs(1 / (features @ weights) - 1 / inverse)
    assert np.median(errors) < 0.02 and np.percentile(errors, 95) < 0.06


def test_depth_lies_on_the_colours(frame):
    """The suitcase on the shelf is black and nearer than the wall around it."""
    case, wall = (slice(160, 200), slice(140, 270)), (slice(60, 120), slice(140, 270))
    assert frame.frames[0][case].mean() < 90 < frame.frames[0][wall].mean()
    nearer = np.median(frame.depth[0][case]) - np.median(frame.depth[0][wall])
    assert nearer < -0.2


def make_log(unit=0.001):
    colour = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    depth = np.array([[0, 1000, 2000], [1, 2, 65535]], "<u2")
    camera = struct.pack("<8d", *range(8)) + bytes(8) + struct.pack("<4d", 500, 510, 1.5, 1.0)
    head = b"\xa2mrpt::obs::" + CLASS + bytes(5) + b"\x94mrpt::poses::CPose3D\x03" + bytes(96) + b"\x88\x01"
    body = struct.pack("<I", 1) + bytes(16) + b"\x01" + struct.pack("<fII", unit, 2, 3) + depth.tobytes()
    pictures = b"\x01\x91mrpt::img::CImage\x09\x00\x01" + struct.pack("<ii", -3, -2) + colour.tobytes() + b"\x88\x00"
    return head + body + pictures + 2 * (b"\x92mrpt::img::TCamera\x04" + camera), colour, depth


def test_a_log_is_read_by_its_own_numbers():
    data, colour, depth = make_log()
    read = read_rawlog(gzip.decompress(gzip.compress(data)))
    assert (read[0] == colour[..., ::-1]).all() and (read[1] == depth).all()
    assert read[2].tolist() == [[500, 0, 1.5], [0, 510, 1.0], [0, 0, 1]]


def test_another_log_is_refused():
    with pytest.raises(ValueError, match="Expected one observation of class and version"):
        read_rawlog(b"CObservationImage" + bytes(99))
    with pytest.raises(ValueError, match=r"Expected ranges in millimetres, got steps of 0.00025"):
        read_rawlog(make_log(unit=0.00025)[0])
