import numpy as np
import pytest
from probe_rows import make_rows

from trainer.evaluation.probes.information import estimate_information, shuffle_rows
from trainer.evaluation.probes.linear_probe import split_by_scene


def estimate(rows, features, log_depth, **options):
    split = split_by_scene(rows.scenes)
    return estimate_information(features, np.exp(log_depth), rows.cells, rows.scenes, split, **options)


def is_zero(entry, slack=0.002):
    """Within its interval, or so near that no one would call it information."""
    low, high = entry["interval"]
    return low - slack <= 0 <= high + slack


def held_out_mean(rows, log_ratio):
    """What the true densities give on the same held-out tokens: mean of log p(d | t) / p(d), and its error."""
    values = log_ratio[split_by_scene(rows.scenes).test]
    return values.mean(), values.std() / np.sqrt(len(values))


@pytest.mark.parametrize("correlation", [0.3, 0.7, 0.95])
def test_gaussian_channel(correlation):
    """I = -1/2 log(1 - r^2), of one channel among others that say nothing."""
    truth = -0.5 * np.log(1 - correlation**2)
    rows = make_rows(num_scenes=90)
    channel = rows.noise[:, 2].astype(float)
    log_depth = correlation * channel + np.sqrt(1 - correlation**2) * rows.rng.normal(size=len(rows))
    found = estimate(rows, rows.noise, log_depth)
    ratio = truth - (log_depth - correlation * channel) ** 2 / (2 * (1 - correlation**2)) + log_depth**2 / 2
    sample, error = held_out_mean(rows, ratio)
    assert abs(sample - truth) < 3 * error
    assert sample - 0.025 < found["information"]["value"] < sample + 0.005
    assert sample - 0.035 < found["information_bound"]["value"] < sample
    assert found["information_bound"]["interval"][0] < truth
    # Nothing depends on the place here.
    assert found["beyond_position"]["value"] == pytest.approx(sample, abs=0.03)
    assert found["beyond_position_bound"]["value"] < sample
    assert abs(found["position_information"]["value"]) < 0.02
    assert is_zero(found["shuffled"]) and is_zero(found["shuffled_beyond_position"])
    assert found["entropy"]["value"] - found["remaining"]["value"] == pytest.approx(found["information"]["value"])


@pytest.mark.parametrize("noise", [0.8, 0.4, 0.2])
def test_laplace_channel(noise):
    """A Laplace variable of scale 1 is one of scale b plus an independent part; then I = log(1 / b)."""
    rows = make_rows(num_scenes=90)
    part = np.where(rows.rng.random(len(rows)) < noise**2, 0.0, rows.rng.laplace(size=len(rows)))
    log_depth = part + rows.rng.laplace(scale=noise, size=len(rows))
    found = estimate(rows, rows.with_channel(part), log_depth)
    truth = np.log(1 / noise)
    sample, error = held_out_mean(rows, truth - np.abs(log_depth - part) / noise + np.abs(log_depth))
    assert abs(sample - truth) < 3 * error
    assert sample - 0.08 < found["information"]["value"] < sample + 0.005
    assert sample - 0.09 < found["information_bound"]["value"] < sample
    assert found["information_bound"]["interval"][0] < truth
    assert is_zero(found["shuffled"]) and is_zero(found["shuffled_beyond_position"])


def test_tokens_that_say_nothing_have_no_information_and_no_bound_above_it():
    rows = make_rows(num_scenes=18, per_scene=30, channels=100)
    found = estimate(rows, rows.noise, rows.rng.normal(size=len(rows)))
    for name in ("information", "beyond_position", "shuffled", "shuffled_beyond_position"):
        assert is_zero(found[name], slack=0.02), name
    assert found["information_bound"]["value"] < 0.01 and found["beyond_position_bound"]["value"] < 0.01


def test_what_the_place_tells_is_told_apart_from_what_the_token_tells():
    """Depth = place + token + noise: beyond the place it is a Gaussian channel."""
    rows = make_rows(num_scenes=90)
    place = np.linspace(-2, 2, 25)[rows.cells]
    log_depth = place + 0.8 * rows.noise[:, 0] + 0.6 * rows.rng.normal(size=len(rows))
    rest = log_depth - place
    noise = rest - 0.8 * rows.noise[:, 0]
    sample, error = held_out_mean(rows, -0.5 * np.log(0.36) - noise**2 / 0.72 + rest**2 / 2)
    assert abs(sample + 0.5 * np.log(0.36)) < 3 * error
    both = estimate(rows, rows.with_channel(place), log_depth)
    assert sample - 0.025 < both["beyond_position"]["value"] < sample + 0.01
    assert both["beyond_position_bound"]["value"] < sample
    total = both["position_information"]["value"] + both["beyond_position"]["value"]
    assert both["information"]["value"] == pytest.approx(total, abs=0.06)
    # A token that knows its place and nothing else.
    only_place = estimate(rows, place[:, None].astype(np.float32), log_depth)
    assert only_place["information"]["value"] > 0.3
    assert is_zero(only_place["beyond_position"]) and only_place["beyond_position_bound"]["value"] < 0
    assert is_zero(only_place["shuffled"])


def test_information_does_not_depend_on_units_or_on_how_channels_are_mixed():
    rows = make_rows()
    log_depth = 0.9 * rows.noise[:, 0] + 0.4 * rows.rng.normal(size=len(rows))
    mixed = rows.noise @ rows.rng.normal(size=(8, 8)) * 30 + 100
    metres = estimate(rows, rows.noise, log_depth)["information"]["value"]
    feet = estimate(rows, mixed.astype(np.float32), log_depth + np.log(3.28))["information"]["value"]
    assert feet == pytest.approx(metres, abs=0.01)


def test_a_wrong_family_stays_below_the_truth():
    """The sign of depth is read from one channel: two values, log 2 nats, which no distribution around a line fits."""
    rows = make_rows()
    sign = rows.rng.choice([-1.0, 1.0], size=len(rows))
    log_depth = sign * (1 + rows.rng.random(len(rows)))
    found = estimate(rows, rows.with_channel(sign), log_depth)
    assert 0.4 < found["information_bound"]["value"] <= found["information"]["value"] < np.log(2) + 0.02


def test_a_warning_says_that_the_control_fails(caplog, monkeypatch):
    rows = make_rows(num_scenes=18, per_scene=50)
    estimate(rows, rows.noise, rows.noise[:, 0])
    assert caplog.text == ""
    module = "trainer.evaluation.probes.information.shuffle_rows"
    monkeypatch.setattr(module, lambda groups, seed: np.arange(len(groups)))  # exchanges nothing
    estimate(rows, rows.noise, rows.noise[:, 0])
    assert "Control shuffled is" in caplog.text and "Control shuffled_beyond_position is" in caplog.text


def test_same_seed_same_numbers_and_other_shuffles_with_another():
    rows = make_rows(num_scenes=12, per_scene=50)
    log_depth = rows.noise[:, 0] + rows.rng.normal(size=len(rows))
    first, second, other = (estimate(rows, rows.noise, log_depth, seed=seed) for seed in (0, 0, 1))
    assert first == second
    assert first["information"]["value"] == other["information"]["value"]
    assert first["shuffled"]["value"] != other["shuffled"]["value"]


def test_repeated_depths_make_fewer_bins_and_stay_finite():
    rows = make_rows(num_scenes=12, per_scene=50)
    log_depth = np.where(rows.noise[:, 0] > 0, 0.0, 1.0)
    found = estimate(rows, rows.noise, log_depth)
    assert 0 < found["information"]["value"] < np.log(2) + 0.02
    assert found["entropy"]["value"] == pytest.approx(np.log(2), abs=0.05)


def test_a_held_out_depth_that_nobody_expected_costs_a_finite_price():
    """Tokens that say everything but for a few: the mixture is narrow, and the few lie far from it on both sides."""
    rows = make_rows(num_scenes=30, per_scene=100)
    log_depth = rows.noise[:, 0].astype(float)
    odd = np.flatnonzero(split_by_scene(rows.scenes).test)[::50]
    log_depth[odd] = np.where(np.arange(len(odd)) % 2, 40.0, -40.0)
    found = estimate(rows, rows.noise, log_depth)
    assert all(np.isfinite(entry["value"]) for entry in found.values())
    assert found["information"]["value"] > 2.5


def test_bins_bound_what_can_be_measured():
    rows = make_rows(num_scenes=12, per_scene=100)
    found = estimate(rows, rows.noise, rows.noise[:, 0], num_bins=8)
    assert 0.8 * np.log(8) < found["information"]["value"] < np.log(8) + 0.02
    with pytest.raises(ValueError, match="`num_bins` must be at least 2, got 1"):
        estimate(rows, rows.noise, rows.noise[:, 0], num_bins=1)


def test_rows_are_exchanged_within_their_group():
    groups = np.repeat([0, 1, 2], [5, 100, 1])[np.random.default_rng(0).permutation(106)]
    index = shuffle_rows(groups, seed=0)
    assert sorted(index) == list(range(106))
    assert (groups[index] == groups).all()
    assert (index != np.arange(106)).mean() > 0.9


def test_wrong_rows_raise():
    rows = make_rows(num_scenes=6, per_scene=5)
    split = split_by_scene(rows.scenes)
    with pytest.raises(ValueError, match="positive metres"):
        estimate_information(rows.noise, np.zeros(len(rows)), rows.cells, rows.scenes, split)
    with pytest.raises(ValueError, match="`cells` must have a row for each of 30 tokens"):
        estimate_information(rows.noise, np.ones(len(rows)), rows.cells[1:], rows.scenes, split)
