"""Differences between two ways of training, on numbers whose answers are known."""

import numpy as np
import pytest
from scipy import stats

from trainer.evaluation.compare import compare_paired, seed_interval
from trainer.evaluation.metrics.scores import Score, summarise


@pytest.mark.parametrize("count", [2, 3, 31, 200])
def test_seed_interval_is_that_of_a_t_test(count):
    values = np.random.default_rng(count).normal(0.05, 0.01, count)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert seed_interval(values.tolist()) == pytest.approx((low, high), rel=1e-9)


def test_one_seed_has_no_interval_and_equal_seeds_one_of_no_width():
    assert seed_interval([0.1]) is None
    assert seed_interval([0.25, 0.25, 0.25]) == (0.25, 0.25)


def test_interval_of_many_seeds_nears_the_normal_one():
    low, high = seed_interval([0.0, 2.0] * 50)
    assert (low + high) / 2 == pytest.approx(1.0)
    assert high - low == pytest.approx(2 * 1.96 * np.std([0, 2] * 50, ddof=1) / 10, rel=0.02)


def test_equal_answers_differ_by_nothing():
    hits = np.tile([[1, 0, 2, 2], [0, 1, 1, 2]], 30)
    difference = compare_paired(hits, hits, np.full(120, 2))
    assert difference.value == 0 and difference.per_seed == (0, 0)
    assert difference.scene_interval == (0, 0) and not difference.is_established


def test_one_more_right_answer_in_every_scene_of_every_seed_is_certain():
    theirs = np.random.default_rng(0).integers(0, 4, (3, 120))
    difference = compare_paired(theirs + 1, theirs, np.full(120, 4))
    assert difference.per_seed == pytest.approx((0.25,) * 3)
    assert difference.scene_interval == pytest.approx((0.25, 0.25))
    assert difference.seed_interval == pytest.approx((0.25, 0.25))
    assert difference.is_established
    assert compare_paired(theirs, theirs + 1, np.full(120, 4)).is_established, "worse is established too"


def test_seeds_that_disagree_establish_nothing():
    counts = np.full(400, 4)
    theirs = np.full((2, 400), 2)
    difference = compare_paired(theirs + np.array([[1], [0]]), theirs, counts)
    assert difference.scene_interval == pytest.approx((0.125, 0.125))
    assert difference.seed_interval[0] < 0 < difference.seed_interval[1]
    assert not difference.is_established


def test_scenes_are_drawn_whole():
    """Ten equal answers a scene are one observation: the interval is that of scenes, not of answers."""
    rng = np.random.default_rng(1)
    gaps = rng.choice([-1, 1], 100)
    ours, theirs = (10 * (gaps == sign)[None].astype(int) for sign in (1, -1))
    low, high = compare_paired(ours, theirs, np.full(100, 10)).scene_interval
    expected = 2 * 1.96 * gaps.std() / np.sqrt(100)
    assert high - low == pytest.approx(expected, rel=0.15)


def test_pairing_removes_what_scenes_have_in_common():
    rng = np.random.default_rng(2)
    theirs = rng.integers(0, 2, (1, 200)) * 8
    ours = np.minimum(theirs + 1, 9)
    low, high = compare_paired(ours, theirs, np.full(200, 9)).scene_interval
    assert low == pytest.approx(1 / 9) and high == pytest.approx(1 / 9)


@pytest.mark.parametrize("scenes", [4, 5, 99])
def test_few_scenes_have_the_band_of_scores(scenes):
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 9, scenes)
    theirs, ours = (rng.binomial(counts, share, (2, scenes)) for share in (0.3, 0.6))
    difference = compare_paired(ours, theirs, counts)
    found = [*difference.scene_intervals, difference.scene_interval]
    if scenes < 5:
        assert found == [None] * 3
        return
    names = np.repeat(np.arange(scenes), counts).astype(str)
    for gaps, interval in zip([*(ours - theirs), (ours - theirs).mean(0)], found, strict=True):
        score = Score(np.repeat(gaps / counts, counts), bounds=(-1, 1))
        assert interval == pytest.approx(summarise({"gap": score}, names)["bands"]["gap"])


def test_one_scene_or_one_seed_has_no_interval():
    difference = compare_paired(np.array([[2]]), np.array([[1]]), np.array([2]))
    assert difference.value == 0.5
    assert difference.scene_interval is None and difference.seed_interval is None and not difference.is_established


@pytest.mark.parametrize(
    ("ours", "counts", "message"),
    [
        (np.ones((2, 3)), np.ones(4), "Expected right answers"),
        (np.ones(3), np.ones(3), "Expected right answers"),
        (np.zeros((1, 3)), np.zeros(3), "Expected questions"),
        (np.full((1, 3), 2), np.ones(3), "more right answers"),
    ],
)
def test_broken_numbers_are_refused(ours, counts, message):
    with pytest.raises(ValueError, match=message):
        compare_paired(ours, ours, counts)
