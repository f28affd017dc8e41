"""Corners in any order give the same edges; lines end where the camera's view ends."""

import numpy as np
import pytest
from drawn_scenes import BITS, INTRINSICS
from scipy.spatial.transform import Rotation

from trainer.drawing.boxes import box_edges, box_size, clip_lines, order_corners, project_lines


@pytest.mark.parametrize("size", [(1, 1, 1), (0.01, 2, 1.5), (3, 0.2, 0.2), (1, 1, 0), (2, 0, 0)])
@pytest.mark.parametrize("seed", range(3))
def test_edges_have_the_lengths_of_the_box_whatever_the_order(size, seed):
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    corners = (BITS * size @ turn.T + (1, 2, 3))[rng.permutation(8)].astype(np.float32)
    ordered = order_corners(corners)
    assert sorted(box_size(ordered)) == pytest.approx(sorted(size), abs=1e-5)
    lengths = np.linalg.norm(np.diff(box_edges(ordered), axis=1)[:, 0], axis=-1)
    assert sorted(lengths) == pytest.approx(sorted([*size] * 4), abs=1e-5)
    assert ordered.mean(0) == pytest.approx((1, 2, 3), abs=1e-5)


@pytest.mark.parametrize("degrees", [0, 30, -40, 90])
def test_sizes_go_by_the_axes_whatever_the_order(degrees):
    """A box 3 m long in x lies along y after a quarter turn."""
    turn = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    corners = BITS * (3, 2, 1) @ turn.T
    expected = (2, 3, 1) if degrees == 90 else (3, 2, 1)
    for seed in range(4):
        shuffled = corners[np.random.default_rng(seed).permutation(8)]
        assert box_size(order_corners(shuffled)) == pytest.approx(expected)
    assert box_size(order_corners(BITS * (0.5, 0, 2))) == pytest.approx((0.5, 0, 2))


@pytest.mark.parametrize(
    "corners",
    [
        np.zeros((8, 3)),
        np.random.default_rng(0).normal(size=(8, 3)),
        BITS @ np.array([[1, 0.4, 0], [0, 1, 0], [0, 0, 1]]),  # skewed
        np.concatenate([BITS[:7], BITS[:1]]),  # a corner twice
    ],
)
def test_points_that_are_no_box_are_refused(corners):
    with pytest.raises(ValueError, match="`corners` must be the eight corners"):
        order_corners(corners)


def test_a_cube_is_seen_where_the_pinhole_camera_says():
    lines = project_lines(box_edges(order_corners(BITS + (0, 0, 2.5))), INTRINSICS, (120, 160))
    assert len(lines) == 12
    assert lines.reshape(-1, 2).min(0) == pytest.approx((79.5 - 25, 59.5 - 25))  # 0.5 m at 2 m with 100 px
    assert lines.reshape(-1, 2).max(0) == pytest.approx((79.5 + 25, 59.5 + 25))


def test_a_box_around_or_behind_the_camera_gives_no_pixel_far_outside():
    assert len(project_lines(box_edges(order_corners(BITS + (0, 0, -2))), INTRINSICS, (120, 160))) == 0
    around = project_lines(box_edges(order_corners(BITS * (1, 1, 20))), INTRINSICS, (120, 160))
    assert len(around) and np.isfinite(around).all()
    assert (around > -5).all() and (around < 165).all()


def test_lines_are_cut_at_a_plane():
    lines = np.array([[[0.0, 0, -1], [0, 0, 1]], [[0, 0, 1], [0, 0, 2]], [[0, 0, -2], [0, 0, -1]]])
    cut = clip_lines(lines, np.array([[0.0, 0, 1, -0.5]]))
    assert cut.tolist() == [[[0, 0, 0.5], [0, 0, 1]], [[0, 0, 1], [0, 0, 2]]]
