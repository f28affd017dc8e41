"""Boxes against depth and poses, and numbers of boxes against the size of frames."""

import dataclasses

import numpy as np
import pytest
import torch

from processing import PosedVideo, TokenGrid
from processing.box_rules import check_boxes, check_boxes_2d
from processing.geometry_rules import check_intrinsics, check_same_view
from processing.regions import regions_from_boxes_2d
from processing.rooms import load_rooms
from processing.sample_rules import find_strange_boxes


@pytest.fixture(scope="module")
def room():
    return PosedVideo.from_room(load_rooms("test", 1, num_frames=6, image_size=96)[0])


def strange(video: PosedVideo, boxes, **options):
    size = video.frames.shape[1:3]
    return find_strange_boxes(boxes, video.depth, video.intrinsics, video.camera_to_world, size, **options)


def test_true_boxes_pass_in_any_part_of_the_video(room):
    for index in (range(6), [0], [5, 2]):
        assert strange(room.select_frames(index), room.boxes, is_thorough=True) is None


def test_boxes_of_another_scene_are_told_on_request(room):
    boxes = room.boxes + np.array([30, 30, 0, 0, 0, 0])
    assert strange(room, boxes) is None
    assert "No measured point of 6 frames lies in any of" in strange(room, boxes, is_thorough=True).text
    with pytest.raises(ValueError, match="No measured point"):
        dataclasses.replace(room, boxes=boxes).check()


def test_boxes_in_millimetres_are_refused():
    with pytest.raises(ValueError, match="median of their longest sides is 500"):
        check_boxes([[0, 0, 0, 500, 400, 300]] * 3)


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[0.1, 0.2, 0.5, 0.9]], "numbers in 0 to 1 .*Multiply left and right by 640, top and bottom by 480"),
        ([[100, 500, 900, 980]], "0 to 1000.*Multiply left and right by 640 / 1000"),
        ([[10, 20, 700, 300], [0, 0, 600, 900], [5, 5, 50, 50]], "0 to 1000"),
        ([[-50, 10, -5, 30]], "outside of them. Give NaN"),
        ([[50, 10, 40, 30]], "left, top, width, height"),
    ],
)
def test_boxes_that_are_no_pixels_of_the_frames_are_refused(boxes, words):
    with pytest.raises(ValueError, match=words):
        check_boxes_2d(boxes, (480, 640))
    with pytest.raises(ValueError, match=words):
        regions_from_boxes_2d(torch.tensor(boxes, dtype=torch.float32)[:, None], (480, 640), TokenGrid(56, 14, 2))


@pytest.mark.parametrize(
    "boxes",
    [[[0, 0, 640, 480]], [[-20, -10, 30, 30]], [[500, 300, 660, 490]], [[float("nan")] * 4], [[0, 0, 0, 0]], []],
)
def test_boxes_that_reach_out_or_are_not_there_pass(boxes):
    check_boxes_2d(np.array(boxes, np.float32).reshape(-1, 4), (480, 640))


def test_a_negative_frame_size_is_refused():
    with pytest.raises(ValueError, match="`frame_size` must be height and width"):
        check_boxes_2d([[0, 0, 5, 5]], (-480, 640))


def test_aspects_are_compared_and_squashed_frames_told_by_their_camera():
    check_same_view((480, 640), (968, 1296))
    with pytest.raises(ValueError, match="of another aspect"):
        check_same_view((480, 640), (384, 384))
    with pytest.raises(ValueError, match="Turn the maps"):
        check_same_view((640, 480), (480, 640))
    squashed = np.array([[300.0, 0, 192], [0, 400.0, 192], [0, 0, 1]])
    check_same_view((480, 640), (384, 384), squashed[None])
    with pytest.raises(ValueError, match="of another aspect"):
        check_same_view((480, 640), (384, 384), np.array([[[300.0, 0, 192], [0, 300, 192], [0, 0, 1]]]))


@pytest.mark.parametrize(
    ("camera", "words"),
    [
        ([[1170, 0, 648], [0, 1170, 484], [0, 0, 1]], "principal point lies outside"),
        ([[4000, 0, 320], [0, 4000, 240], [0, 0, 1]], None),
        ([[0.8, 0, 0.5], [0, 1.1, 0.5], [0, 0, 1]], "normalised"),
        ([[585, 0, 320], [0, 585, 240], [9, 9, 9]], "not a pinhole camera"),
        ([[9000, 0, 320], [0, 9000, 240], [0, 0, 1]], "above 10 times"),
    ],
)
def test_cameras_that_are_not_of_these_frames_are_refused(camera, words):
    cameras = np.array([camera], np.float32)
    if words is None:
        check_intrinsics(cameras, frame_size=(480, 640))
        return
    with pytest.raises(ValueError, match=words):
        check_intrinsics(cameras, frame_size=(480, 640))
