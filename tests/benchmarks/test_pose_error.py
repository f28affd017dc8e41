"""The guesses that `pose_error.py` measures a model beside, on walks whose errors are known."""

import numpy as np
import pytest
import torch
from analytic_scenes import camera_to_world
from benchmarks.pose_error import STILL, Walks, as_numbers, cut, go_on
from training_samples import make_sample

from processing import PosedVideo
from trainer.losses.relative_pose import measure_pose_errors
from trainer.supervision.camera_targets import select_pose_pairs


def pair(poses):
    return select_pose_pairs(torch.stack(poses)[None], torch.ones(1, len(poses), dtype=torch.bool))


def test_a_camera_that_goes_on_as_it_began_is_guessed_to_the_digit():
    step = camera_to_world(yaw=0.2, pitch=0.05, position=(0.3, 0.0, 0.1))
    pairs = pair([torch.linalg.matrix_power(step, number) for number in range(4)])
    guessed = go_on(pairs)
    torch.testing.assert_close(guessed, pairs.target_from_source, atol=1e-5, rtol=0)
    depth = torch.full((len(guessed),), 2.0)
    degrees, percent = measure_pose_errors(as_numbers(guessed, depth), pairs.target_from_source, depth)
    assert degrees.max() < 0.01 and percent.max() < 0.01


def test_standing_still_is_off_by_the_motion():
    """0.3 m of 2 m mean depth are 15 percent."""
    pairs = pair([torch.eye(4), camera_to_world(yaw=np.pi / 6, position=(0.3, 0.0, 0.0))])
    depth = torch.full((2,), 2.0)
    degrees, percent = measure_pose_errors(torch.tensor(STILL).expand(2, -1), pairs.target_from_source, depth)
    assert degrees.tolist() == pytest.approx([30.0, 30.0], abs=1e-3)
    assert percent.tolist() == pytest.approx([15.0, 15.0], abs=1e-3)


def test_walks_are_cut_by_their_gap_and_drawn_again_alike():
    sample = make_sample(9)
    video = PosedVideo(*(sample[key] for key in ("frames", "depth", "intrinsics", "camera_to_world")))
    assert [len(cut(video, gap)) for gap in (1, 2)] == [6, 3]
    assert np.array_equal(cut(video, 2)[1]["camera_to_world"], video.camera_to_world[1:8:2])
    walks = Walks([video], gaps=(1, 2))
    first, again = walks[3], walks[3]
    assert np.array_equal(first["frames"], again["frames"]) and len(first["frames"]) == 4
    steps = {
        tuple(np.flatnonzero((video.camera_to_world == pose).all((1, 2)))[0] for pose in walks[i]["camera_to_world"])
        for i in range(20)
    }
    assert {abs(a - b) for a, b, *_ in steps} == {1, 2} and {a < b for a, b, *_ in steps} == {True, False}
