"""Linear probes of frozen tokens: what a ridge regression reads from them in scenes that it was not fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from trainer.evaluation.metrics.scores import Score, mean_score, summarise

__all__ = [
    "MIN_SCENES",
    "LinearProbe",
    "SceneSplit",
    "cell_medians",
    "cell_rows",
    "check_measured",
    "check_rows",
    "fit_linear_probe",
    "probe_depth",
    "probe_position",
    "split_by_scene",
    "with_intervals",
]

MIN_SCENES = 6  # two to score on, one to choose the penalty on, three to fit on
TEST_SHARE, CHOOSE_SHARE = 1 / 3, 1 / 4  # of all scenes; of those that are left
PENALTIES = 10.0 ** np.arange(-6, 4)  # beside channels of variance 1
SMALLEST_SCALE = 1e-6  # of the largest channel; a channel that varies less is rounding
BLOCK = 16384  # rows at a time in float64
NEAR = 0.5  # metres
DELTA = 1.25

Intervals = dict[str, dict[str, float | list[float | None] | None]]


@dataclass(frozen=True)
class SceneSplit:
    """Which rows weights are fitted on, settings are chosen on, and scores are made of; no scene is in two parts.

    Shape:
        fit, choose, test: (N,), bool.
    """

    fit: np.ndarray
    choose: np.ndarray
    test: np.ndarray

    @property
    def train(self) -> np.ndarray:
        """Rows (N,) that are not scored."""
        return self.fit | self.choose


def split_by_scene(scenes: Sequence[str] | np.ndarray, seed: int = 0) -> SceneSplit:
    """Part the rows by their scene: a third of the scenes is scored, a quarter of the others chooses settings.

    Args:
        scenes: Scene of each row, (N,).
        seed: Of the draw; the order of the rows does not matter.

    Raises:
        ValueError: Fewer than `MIN_SCENES` scenes.
    """
    names, index = np.unique(np.asarray(scenes, dtype=str), return_inverse=True)
    if len(names) < MIN_SCENES:
        raise ValueError(f"Probes need at least {MIN_SCENES} scenes to fit, choose and score on, got {len(names)}.")
    num_test = max(2, round(len(names) * TEST_SHARE))
    num_choose = max(1, round((len(names) - num_test) * CHOOSE_SHARE))
    part = np.zeros(len(names), np.int8)
    order = np.random.default_rng(seed).permutation(len(names))
    part[order[:num_test]], part[order[num_test : num_test + num_choose]] = 2, 1
    return SceneSplit(part[index] == 0, part[index] == 1, part[index] == 2)


def check_rows(features: np.ndarray, **columns: np.ndarray) -> None:
    """Raise ValueError unless `features` is a finite (N, C) and every column has N finite entries, one a token."""
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features must have shape (N, C), a row for each token, got {features.shape}.")
    for name, values in {"features": features, **columns}.items():
        if len(values) != len(features):
            raise ValueError(f"{name} must have a row for each of {len(features)} tokens, got {len(values)}.")
        if np.issubdtype(values.dtype, np.number) and not np.isfinite(values).all():
            raise ValueError(f"{name} hold NaN or Inf: leave out tokens without a measurement.")


def check_measured(features: np.ndarray, depth: np.ndarray, cells: np.ndarray, scenes: np.ndarray) -> None:
    """Raise ValueError unless these are tokens (N, C) with positive depths (N,), whole cells (N,) and scenes (N,)."""
    check_rows(features, depth=depth, cells=cells, scenes=scenes)
    if depth.ndim != 1 or not (depth > 0).all():
        raise ValueError(f"depth must be positive metres (N,), got {depth.shape} down to {depth.min():.3g}.")
    if cells.ndim != 1 or not np.issubdtype(cells.dtype, np.integer) or cells.min() < 0:
        raise ValueError(f"cells must be integers row * cols + col (N,), got {cells.dtype} {cells.shape}.")


def _sum_products(features: np.ndarray, targets: np.ndarray, rows: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Sum the products of [1, features - offset, targets] over the chosen rows, a block at a time.

    Ridge of scikit-learn takes all rows at once in float64. With 200,000 rows of 128 channels it took 277 MiB beside
    the features, these sums 50 MiB.
    """
    size = 1 + features.shape[1] + targets.shape[1]
    products = np.zeros((size, size))
    index = np.flatnonzero(rows)
    for start in range(0, len(index), BLOCK):
        block = index[start : start + BLOCK]
        joined = np.concatenate([np.ones((len(block), 1)), features[block] - offset, targets[block]], axis=1)
        products += joined.T @ joined
    return products


@dataclass(frozen=True)
class LinearProbe:
    """targets = features @ weight + bias.

    Shape:
        weight: (C, K); bias: (K,).
    """

    weight: np.ndarray
    bias: np.ndarray
    penalty: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Targets (N, K) of features (N, C)."""
        blocks = [features[start : start + BLOCK] @ self.weight for start in range(0, len(features), BLOCK)]
        return np.concatenate(blocks) + self.bias if blocks else np.zeros((0, len(self.bias)))


def _solve_ridge(products: np.ndarray, offset: np.ndarray, penalties: Sequence[float]) -> list[LinearProbe]:
    """Return a ridge regression on standardised channels for each penalty; the constant is not penalised."""
    width = len(offset)
    means = products[0, 1:] / products[0, 0]
    covariance = products[1:, 1:] / products[0, 0] - np.outer(means, means)
    scale = np.sqrt(np.clip(np.diag(covariance)[:width], 0, None))
    varies = scale > SMALLEST_SCALE * max(scale.max(), np.finfo(np.float64).tiny)
    inverse = np.divide(1, scale, out=np.zeros(width), where=varies)[:, None]
    matrix, cross = covariance[:width, :width] * inverse * inverse.T, covariance[:width, width:] * inverse
    probes = []
    for penalty in penalties:
        weight = inverse * linalg.solve(matrix + penalty * np.eye(width), cross, assume_a="pos")
        probes.append(LinearProbe(weight, means[width:] - (means[:width] + offset) @ weight, float(penalty)))
    return probes


def fit_linear_probe(features: np.ndarray, targets: np.ndarray, split: SceneSplit) -> tuple[LinearProbe, np.ndarray]:
    """Ridge regression whose penalty is chosen on scenes that it was not fitted on.

    Args:
        features: Tokens.
        targets: What to read from them.
        split: The penalty of the least squared error on `choose`, after a fit on `fit`, is used for the fit on both.

    Returns:
        The probe fitted on all of `split.train`, and what the one fitted on `split.fit` alone predicts for the rows of
        `split.choose`: predictions of unseen scenes, from which errors can be learned.

    Shape:
        features: (N, C); targets: (N, K); predictions: (rows of choose, K).

    Raises:
        ValueError: Other shapes, or values that are not finite.
    """
    if targets.ndim != 2:
        raise ValueError(f"targets must have shape (N, K), got {targets.shape}.")
    check_rows(features, targets=targets, split=split.test)
    # Taken off before the squares are summed: a common offset far from zero would cost their digits.
    offset = features[np.flatnonzero(split.fit)[:BLOCK]].mean(0, dtype=np.float64)
    fitted, held = (_sum_products(features, targets, rows, offset) for rows in (split.fit, split.choose))
    candidates = _solve_ridge(fitted, offset, PENALTIES)
    predictions = [probe.predict(features[split.choose]) for probe in candidates]
    errors = [((prediction - targets[split.choose]) ** 2).sum() for prediction in predictions]
    best = int(np.argmin(errors))
    return _solve_ridge(fitted + held, offset, PENALTIES[best : best + 1])[0], predictions[best]


def cell_rows(cells: np.ndarray, chosen: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Every cell that has chosen rows, with their indices."""
    order = np.flatnonzero(chosen)
    order = order[np.argsort(cells[order], kind="stable")]
    present, starts = np.unique(cells[order], return_index=True)
    return list(zip(present.tolist(), np.split(order, starts[1:]), strict=True))


def cell_medians(values: np.ndarray, cells: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The constant that knows nothing but where a token lies in the picture: its cell's median over training rows.

    Shape:
        values: (N, K); cells: (N,), integer; train: (N,), bool; output: (N, K). A cell without training rows gets the
        median of all.
    """
    table = np.tile(np.median(values[train], axis=0), (int(cells.max()) + 1, 1))
    for cell, rows in cell_rows(cells, train):
        table[cell] = np.median(values[rows], axis=0)
    return table[cells]


def with_intervals(scores: dict[str, Score], scenes: np.ndarray, seed: int = 0) -> Intervals:
    """Values and 95 % intervals (bootstrap over scenes) by name.

    The value is None where nothing was counted, the interval [None, None] there and for one scene.
    """
    summary = summarise(scores, scenes, seed=seed)
    return {
        name: {"value": None if np.isnan(summary[name]) else summary[name], "interval": summary["bands"][name]}
        for name in scores
    }


def _depth_errors(prediction: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ratio = np.maximum(prediction / depth, depth / prediction)
    return np.abs(prediction - depth) / depth, ratio < DELTA


def probe_depth(
    features: np.ndarray,
    depth: np.ndarray,
    cells: np.ndarray,
    scenes: np.ndarray,
    split: SceneSplit,
    seed: int = 0,
) -> Intervals:
    """Depth of a token, read linearly (log depth), beside the median depth of its place in the picture.

    Predictions are cut to the range of the training depths.

    Returns:
        `abs_rel` (mean |p - d| / d), `delta1` (share within a factor of 1.25), the same of the position-only constant
        (`position_abs_rel`, `position_delta1`), and by how much the tokens are better (`abs_rel_gain`,
        `delta1_gain`, paired: positive is better), each with its interval.

    Shape:
        features: (N, C); depth: (N,), metres; cells: (N,), place of the token in the grid; scenes: (N,).

    Raises:
        ValueError: Other shapes, or depths that are not positive.
    """
    check_measured(features, depth, cells, scenes)
    target = np.log(depth.astype(np.float64))[:, None]
    probe, _ = fit_linear_probe(features, target, split)
    test = split.test
    # Within what was measured in training scenes: the exponential of a stray prediction would be all of the mean.
    low, high = target[split.train].min(), target[split.train].max()
    read = np.exp(np.clip(probe.predict(features[test])[:, 0], low, high))
    abs_rel, delta1 = _depth_errors(read, depth[test])
    constant = np.exp(cell_medians(target, cells, split.train)[test, 0])
    position_abs_rel, position_delta1 = _depth_errors(constant, depth[test])
    scores = {
        "abs_rel": abs_rel,
        "delta1": delta1,
        "position_abs_rel": position_abs_rel,
        "position_delta1": position_delta1,
        "abs_rel_gain": position_abs_rel - abs_rel,
        "delta1_gain": delta1.astype(float) - position_delta1,
    }
    return with_intervals({k: mean_score(v, percent=False) for k, v in scores.items()}, scenes[test], seed)


def probe_position(
    features: np.ndarray,
    points: np.ndarray,
    cells: np.ndarray,
    scenes: np.ndarray,
    split: SceneSplit,
    seed: int = 0,
) -> Intervals:
    """Where in the room the surface of a token lies, read linearly, beside the median point of its place.

    Returns:
        `distance` (mean error, metres), `within_half_metre` (share), the same of the position-only constant
        (`position_distance`, `position_within_half_metre`), and `distance_gain` and `within_half_metre_gain` (paired:
        positive is better), each with its interval.

    Shape:
        features: (N, C); points: (N, 3), metres, in the frame of the first camera; cells: (N,); scenes: (N,).

    Raises:
        ValueError: Other shapes.
    """
    check_rows(features, points=points, cells=cells, scenes=scenes)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points must have shape (N, 3), metres, got {points.shape}.")
    probe, _ = fit_linear_probe(features, points, split)
    test = split.test
    distance = np.linalg.norm(probe.predict(features[test]) - points[test], axis=1)
    constant = cell_medians(points, cells, split.train)[test]
    position_distance = np.linalg.norm(constant - points[test], axis=1)
    scores = {
        "distance": distance,
        "within_half_metre": distance < NEAR,
        "position_distance": position_distance,
        "position_within_half_metre": position_distance < NEAR,
        "distance_gain": position_distance - distance,
        "within_half_metre_gain": (distance < NEAR) - (position_distance < NEAR).astype(float),
    }
    return with_intervals({k: mean_score(v, percent=False) for k, v in scores.items()}, scenes[test], seed)
