import tracemalloc

import numpy as np
import pytest
from probe_rows import make_rows
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trainer.evaluation.probes import linear_probe
from trainer.evaluation.probes.linear_probe import (
    cell_medians,
    fit_linear_probe,
    probe_depth,
    probe_position,
    split_by_scene,
)


def planted(rows, outputs, seed=1):
    """A linear map of the channels, (C, outputs)."""
    return np.random.default_rng(seed).normal(size=(rows.noise.shape[1], outputs)) * 0.2


def test_no_scene_is_in_two_parts_and_the_split_follows_from_the_seed():
    scenes = make_rows(num_scenes=30).scenes
    split = split_by_scene(scenes, seed=3)
    parts = [set(scenes[rows]) for rows in (split.fit, split.choose, split.test)]
    assert [len(part) for part in parts] == [15, 5, 10]
    assert len(set.union(*parts)) == 30
    assert (split.fit.astype(int) + split.choose + split.test == 1).all()
    # The order of the rows does not matter.
    order = np.random.default_rng(0).permutation(len(scenes))
    assert (split_by_scene(scenes[order], seed=3).test == split.test[order]).all()
    assert (split_by_scene(scenes, seed=4).test != split.test).any()


def test_too_few_scenes_raise():
    with pytest.raises(ValueError, match="at least 6 scenes .* got 5"):
        split_by_scene([f"s{index}" for index in range(5)])
    split = split_by_scene([f"s{index}" for index in range(6)])
    assert [int(rows.sum()) for rows in (split.fit, split.choose, split.test)] == [3, 1, 2]


def test_a_planted_map_is_found_far_from_the_origin_and_beside_a_constant_channel():
    rows = make_rows()
    weight = planted(rows, 2)
    targets = rows.noise @ weight + np.array([3.0, -1.0])
    features = np.concatenate([rows.noise + 500, np.full((len(rows), 1), 7.0, np.float32)], axis=1)
    probe, held = fit_linear_probe(features, targets, split_by_scene(rows.scenes))
    np.testing.assert_allclose(probe.weight[:-1], weight, atol=2e-4)
    assert (probe.weight[-1] == 0).all()
    np.testing.assert_allclose(probe.predict(features), targets, atol=2e-3)
    np.testing.assert_allclose(held, targets[split_by_scene(rows.scenes).choose], atol=2e-3)


@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_the_probe_is_ridge_of_scikit_learn_on_standardised_channels(penalty, monkeypatch):
    rows = make_rows(num_scenes=12, per_scene=20, channels=30)
    features = rows.noise * np.geomspace(0.01, 100, 30, dtype=np.float32) + 3
    targets = rows.noise @ planted(rows, 2) + rows.rng.normal(size=(len(rows), 2))
    split = split_by_scene(rows.scenes)
    monkeypatch.setattr(linear_probe, "PENALTIES", np.array([penalty]))
    monkeypatch.setattr(linear_probe, "BLOCK", 50)  # of 160 training rows
    probe, held = fit_linear_probe(features, targets, split)
    for chosen, read, expected in (
        (split.train, split.test, probe.predict(features[split.test])),
        (split.fit, split.choose, held),
    ):
        ridge = make_pipeline(StandardScaler(), Ridge(alpha=penalty * chosen.sum()))
        ridge.fit(features[chosen].astype(np.float64), targets[chosen])
        np.testing.assert_allclose(expected, ridge.predict(features[read].astype(np.float64)), rtol=1e-6)


def test_many_rows_take_the_memory_of_a_block_and_of_predictions():
    peaks = []
    for per_scene in (500, 2000):
        rows = make_rows(num_scenes=60, per_scene=per_scene, channels=64)
        split = split_by_scene(rows.scenes)
        tracemalloc.start()
        fit_linear_probe(rows.noise, rows.noise[:, :1].astype(np.float64), split)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    added = 60 * 1500 * 64 * 4  # bytes of the features that the second has more
    assert peaks[1] - peaks[0] < 0.5 * added


def test_the_penalty_is_chosen_without_the_held_out_scenes():
    """Other targets in the held-out scenes change nothing of the probe."""
    rows = make_rows(num_scenes=12, per_scene=20, channels=30)
    split = split_by_scene(rows.scenes)
    targets = rows.noise[:, :1] + rows.rng.normal(size=(len(rows), 1))
    changed = np.where(split.test[:, None], rows.rng.normal(size=targets.shape) * 100, targets)
    first, second = (fit_linear_probe(rows.noise, values, split)[0] for values in (targets, changed))
    assert first.penalty == second.penalty > 1e-6
    assert (first.weight == second.weight).all()


def test_tokens_that_say_nothing_predict_hardly_worse_than_a_constant():
    rows = make_rows(num_scenes=12, per_scene=40, channels=80)
    targets = rows.rng.normal(size=(len(rows), 1))
    split = split_by_scene(rows.scenes)
    probe, _ = fit_linear_probe(rows.noise, targets, split)
    error, constant = (
        ((prediction - targets[split.test]) ** 2).mean()
        for prediction in (probe.predict(rows.noise[split.test]), targets[split.train].mean())
    )
    free = np.linalg.lstsq(rows.noise[split.train], targets[split.train], rcond=None)[0]
    assert ((rows.noise[split.test] @ free - targets[split.test]) ** 2).mean() > 1.2 * constant
    assert error < 1.08 * constant


def test_depth_of_a_planted_map_is_read_and_of_noise_is_not():
    rows = make_rows()
    depth = np.exp(0.5 + rows.noise @ planted(rows, 1)[:, 0])
    split = split_by_scene(rows.scenes)
    found = probe_depth(rows.noise, depth, rows.cells, rows.scenes, split)
    assert found["abs_rel"]["value"] < 1e-3 and found["delta1"]["value"] > 0.998
    assert found["abs_rel_gain"]["interval"][0] > 0.2 and found["delta1_gain"]["interval"][0] > 0.3
    blind = probe_depth(rows.rng.normal(size=rows.noise.shape), depth, rows.cells, rows.scenes, split)
    low, high = blind["delta1_gain"]["interval"]
    assert low < 0.02 and high > -0.02
    assert found["position_abs_rel"] == blind["position_abs_rel"]


def test_depth_scores_are_those_of_the_definition():
    """A constant prediction of 2 m everywhere: blank tokens, and scenes that are all alike but for the last one."""
    rows = make_rows(num_scenes=6, per_scene=4, num_cells=2)
    depth = np.full(len(rows), 2.0)
    split = split_by_scene(rows.scenes)
    scored = np.unique(rows.scenes[split.test])
    depth[rows.scenes == scored[0]] = 2.4  # within 1.25, off by 1/6
    depth[rows.scenes == scored[1]] = 4.0  # off by 1/2
    found = probe_depth(np.zeros((len(rows), 3)), depth, rows.cells, rows.scenes, split)
    for prefix in ("", "position_"):
        assert found[f"{prefix}abs_rel"]["value"] == pytest.approx((1 / 6 + 1 / 2) / 2)
        assert found[f"{prefix}delta1"]["value"] == pytest.approx(0.5)
    assert found["abs_rel"]["interval"] == [None, None], "two scenes are too few"
    assert found["abs_rel_gain"]["value"] == pytest.approx(0, abs=1e-12)


def test_position_constant_is_the_median_of_the_cell_in_training_scenes():
    values, cells = np.array([[1.0], [2.0], [9.0], [50.0], [3.0]]), np.array([0, 0, 0, 0, 1])
    train = np.array([True, True, True, False, False])
    assert cell_medians(values, cells, train)[:, 0].tolist() == [2.0, 2.0, 2.0, 2.0, 2.0]
    train = np.array([True, True, True, False, True])
    assert cell_medians(values, cells, train)[:, 0].tolist() == [2.0, 2.0, 2.0, 2.0, 3.0]


def test_depth_that_only_the_place_tells_gives_no_gain():
    rows = make_rows()
    place = np.linspace(-1, 1, 25)[rows.cells]
    features = rows.with_channel(place)
    found = probe_depth(features, np.exp(place), rows.cells, rows.scenes, split_by_scene(rows.scenes))
    assert found["delta1"]["value"] == found["position_delta1"]["value"] == 1
    assert abs(found["abs_rel_gain"]["value"]) < 1e-3


def test_points_of_a_planted_map_are_read():
    rows = make_rows()
    points = rows.noise @ planted(rows, 3) * 4
    split = split_by_scene(rows.scenes)
    found = probe_position(rows.noise, points, rows.cells, rows.scenes, split)
    assert found["distance"]["value"] < 1e-3 and found["within_half_metre"]["value"] == 1
    assert found["within_half_metre_gain"]["interval"][0] > 0.5
    assert found["distance_gain"]["value"] == pytest.approx(
        found["position_distance"]["value"] - found["distance"]["value"]
    )
    # Twice as far away, half as many metres are right: the figure is one of metres.
    far = probe_position(rows.noise[:, :1], points * 2, rows.cells, rows.scenes, split)
    near = probe_position(rows.noise[:, :1], points, rows.cells, rows.scenes, split)
    assert far["distance"]["value"] == pytest.approx(2 * near["distance"]["value"], rel=1e-6)


def test_intervals_are_over_scenes_and_not_over_tokens():
    """Tokens of a scene err together: many of them make no narrower interval."""
    few, many = make_rows(num_scenes=30, per_scene=2), make_rows(num_scenes=30, per_scene=200)
    widths = []
    for rows in (few, many):
        names, index = np.unique(rows.scenes, return_inverse=True)
        depth = np.exp(np.random.default_rng(5).normal(size=len(names)) * 0.5)[index]
        found = probe_depth(np.zeros((len(rows), 1)), depth, rows.cells, rows.scenes, split_by_scene(rows.scenes))
        low, high = found["abs_rel"]["interval"]
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((10, 2, 3))}, r"\(N, C\)"),
        ({"features": np.zeros((0, 3))}, r"\(N, C\)"),
        ({"depth": np.ones(9)}, "`depth` must have a row for each of"),
        ({"depth": "zero"}, "positive metres"),
        ({"depth": "nan"}, "NaN or Inf"),
        ({"features": "nan"}, "`features` hold NaN or Inf"),
        ({"cells": "float"}, "`cells` must be integers"),
        ({"scenes": np.array(["a"])}, "`scenes` must have a row"),
    ],
)
def test_wrong_rows_raise(changes, message):
    rows = make_rows(num_scenes=6, per_scene=5)
    arguments = {"features": rows.noise, "depth": np.ones(len(rows)), "cells": rows.cells, "scenes": rows.scenes}
    split = split_by_scene(rows.scenes)
    for name, value in changes.items():
        if isinstance(value, str):
            array = arguments[name].astype(float)
            array.flat[3] = {"zero": 0.0, "nan": np.nan, "float": 0.0}[value]
            value = array
        arguments[name] = value
    with pytest.raises(ValueError, match=message):
        probe_depth(**arguments, split=split)


def test_points_of_another_shape_raise():
    rows = make_rows(num_scenes=6, per_scene=5)
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        probe_position(rows.noise, np.ones((len(rows), 2)), rows.cells, rows.scenes, split_by_scene(rows.scenes))
