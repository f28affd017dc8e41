"""What `follow_clicks.py` calls true moves with the camera and is not seen through; each rule is scored by it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchmarks.follow_clicks import RULES, Surfaces, cut, judge, tabulate

from processing import PosedVideo, TokenGrid
from trainer.session import FollowedObject

GRID = TokenGrid(64, 8, 1)
CELL = 0.25  # metres of the wall, 2 m away, that a cell shows
RADIUS = 0.15


@pytest.fixture
def video():
    """A wall of other colours in each cell; the second camera stands one cell further to the right."""
    wall = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    poses = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    poses[1, 0, 3] = CELL
    frames = np.stack([wall[:, :64], wall[:, 8:]])
    return PosedVideo(frames, np.full((2, 64, 64), 2.0), [[64, 0, 31.5], [0, 64, 31.5], [0, 0, 1]], poses)


def session(video, follow):
    tokens = np.random.default_rng(1).normal(size=(2, 8, 8, 16))
    return SimpleNamespace(
        token_grid=GRID,
        video=SimpleNamespace(frames=video.frames, tokens=tokens),
        follow=lambda mark: FollowedObject(torch.from_numpy(follow(mark)), 0.5, True, (0, 1)),
    )


def moved(mark):
    """Where the camera's step brings a click."""
    row, col = int(mark.point[1]) // 8, int(mark.point[0]) // 8
    cells = np.zeros((2, 8, 8), bool)
    cells[mark.frame, row, col] = True
    other = col + (1 if mark.frame else -1)
    if 0 <= other < 8:
        cells[1 - mark.frame, row, other] = True
    return cells


def test_a_place_is_where_the_camera_sees_it(video):
    surfaces = Surfaces.of(video, GRID)
    shown = surfaces.show(surfaces.middles[0, 8 * 3 + 5], RADIUS).reshape(2, 8, 8)
    assert np.argwhere(shown).tolist() == [[0, 3, 5], [1, 3, 4]]


def test_what_stands_before_a_place_hides_it(video):
    depth = video.depth.copy()
    depth[1, 24:32, 32:40] = 1.0
    surfaces = Surfaces.of(PosedVideo(video.frames, depth, video.intrinsics, video.camera_to_world), GRID)
    shown = surfaces.show(surfaces.middles[0, 8 * 3 + 5], RADIUS).reshape(2, 8, 8)
    assert np.argwhere(shown).tolist() == [[0, 3, 5]]


def test_cells_without_depth_are_known_nowhere(video):
    depth = video.depth.copy()
    depth[1, :8, :8] = 0
    surfaces = Surfaces.of(PosedVideo(video.frames, depth, video.intrinsics, video.camera_to_world), GRID)
    assert np.argwhere(~surfaces.measured()).tolist() == [[1, 0]]
    assert not surfaces.show(surfaces.middles[0, 1], RADIUS)[1].any()


def test_a_right_follower_has_all_and_pictures_tell_as_much_here(video):
    clicks = list(judge(session(video, moved), video, RADIUS))
    assert len(clicks) == 2 * 8 * 7  # the outer column of each frame is in no other one
    scores = tabulate(clicks, [str(index % 6) for index in range(len(clicks))])
    assert {name: scores["cells_at_truth"][name]["percent"] for name in ("followed", "colour", "pixels")} == {
        "followed": 100.0,
        "colour": 100.0,
        "pixels": 100.0,
    }
    assert scores["truth_covered"]["percent"] == 100.0
    assert scores["cells_at_truth"]["random"]["percent"] == pytest.approx(100 / 64, abs=0.06)
    assert scores["cells_at_truth"]["same_place"]["percent"] == 0.0


def test_to_take_everything_is_no_better_than_chance(video):
    clicks = list(judge(session(video, lambda mark: np.ones((2, 8, 8), bool)), video, RADIUS))
    for entry in clicks:
        assert entry["covered"] == 1 and [entry[name] for name in RULES] == pytest.approx([1 / 64] * len(RULES))


def test_a_click_that_is_not_carried_covers_nothing(video):
    def stay(mark):
        cells = moved(mark)
        cells[1 - mark.frame] = False
        return cells

    entry = next(judge(session(video, stay), video, RADIUS))
    assert entry == {"covered": 0.0, "is_object": True, "cells": 0}


def test_a_walk_is_cut_into_videos_without_shared_frames(video):
    walk = PosedVideo(np.arange(14, dtype=np.uint8)[:, None, None, None].repeat(3, 3).repeat(8, 1).repeat(8, 2))
    taken = [part.frames[:, 0, 0, 0].tolist() for part in cut(walk, 3, 2)]
    assert taken == [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]]
