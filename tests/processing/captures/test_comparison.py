"""The comparison of the other tests sees what they claim that it sees."""

import dataclasses

import numpy as np
import pytest
from capture_rooms import CAMERA, check_same, look, reprojection_error


@pytest.mark.parametrize(
    ("name", "change", "least"),
    [
        ("intrinsics", np.array([[0, 0, 0.01], [0, 0, 0], [0, 0, 0]]), 0.0099),
        ("intrinsics", np.array([[0.05, 0, 0], [0, 0, 0], [0, 0, 0]]), 0.01),
        ("camera_to_world", np.array([[0, 0, 0, 1e-3], *np.zeros((3, 4))]), 0.01),
    ],
)
def test_small_errors_are_seen_in_both_directions(name, change, least):
    truth = look(CAMERA)
    other = dataclasses.replace(truth, **{name: getattr(truth, name) + change.astype(np.float32)})
    assert reprojection_error(truth, other) > least and reprojection_error(other, truth) > least
    with pytest.raises(AssertionError):
        check_same(other, truth)
    assert reprojection_error(truth, truth) == 0
