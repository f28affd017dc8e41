"""Linear probes of frozen tokens: ridge regression, scored in scenes that it was not fitted on."""

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
TEST_SHARE, CHOOSE_SHARE = 1 / 3, 1 / 4  # of all scenes; of the scenes that are not scored
PENALTIES = 10.0 ** np.arange(-6, 4)  # beside channels of variance 1
SMALLEST_SCALE = 1e-6  # share of the largest scale; a channel that varies less is rounding
BLOCK = 16384  # rows at a time in float64
NEAR = 0.5  # metres
DELTA = 1.25

Intervals = dict[str, dict[str, float | list[float | None] | None]]


@dataclass(frozen=True)
class SceneSplit:
    """Rows to fit weights on, to choose settings on, and to score.

    No scene is in two parts.

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
    """Part the rows by their scene.

    A third of the scenes is scored, and a quarter of the others chooses settings. The scenes of a seed never change:
    stored results of the study are compared with new ones.

    Args:
        scenes: Scene of each row, (N,). The order of the rows does not matter.
        seed: Seed of the split.

    Raises:
        ValueError: If there are fewer than `MIN_SCENES` scenes.
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
    """Raise ValueError unless all columns have a finite row for each token.

    Args:
        features: Tokens (N, C).
        columns: Arrays by name with N rows each.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"`features` must have shape (N, C), a row for each token, got {features.shape}.")
    for name, values in {"features": features, **columns}.items():
        if len(values) != len(features):
            raise ValueError(f"`{name}` must have a row for each of {len(features)} tokens, got {len(values)}.")
        if np.issubdtype(values.dtype, np.number) and not np.isfinite(values).all():
            raise ValueError(f"`{name}` hold NaN or Inf: leave out tokens without a measurement.")


def check_measured(features: np.ndarray, depth: np.ndarray, cells: np.ndarray, scenes: np.ndarray) -> None:
    """Raise ValueError unless all columns have a row for each token and allowed values.

    Args:
        features: Tokens (N, C).
        depth: z-depth (N,), positive, metres.
        cells: Place of the token in the grid, row * cols + col, (N,).
        scenes: Scene of each token, (N,).
    """
    check_rows(features, depth=depth, cells=cells, scenes=scenes)
    if depth.ndim != 1 or not (depth > 0).all():
        raise ValueError(f"`depth` must be positive metres (N,), got {depth.shape} down to {depth.min():.3g}.")
    if cells.ndim != 1 or not np.issubdtype(cells.dtype, np.integer) or cells.min() < 0:
        raise ValueError(f"`cells` must be integers row * cols + col (N,), got {cells.dtype} {cells.shape}.")


def _sum_products(features: np.ndarray, targets: np.ndarray, rows: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Sum the products of [1, features - offset, targets] over the chosen rows, by blocks.

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
    """A linear map: targets = features @ weight + bias.

    Args:
        weight: Weights (C, K).
        bias: Constants (K,).
        penalty: Penalty of the fit, beside channels of variance 1.
    """

    weight: np.ndarray
    bias: np.ndarray
    penalty: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return targets (N, K) of features (N, C)."""
        blocks = [features[start : start + BLOCK] @ self.weight for start in range(0, len(features), BLOCK)]
        return np.concatenate(blocks) + self.bias if blocks else np.zeros((0, len(self.bias)))


def _solve_ridge(products: np.ndarray, offset: np.ndarray, penalties: Sequence[float]) -> list[LinearProbe]:
    """Return a ridge regression on standardised channels for each penalty.

    The constant is not penalised. The solver is that of `Ridge(solver="cholesky")` of scikit-learn.
    """
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
    """Fit a ridge regression, with a penalty chosen on scenes outside of the fit.

    Args:
        features: Tokens.
        targets: Values to read from the tokens.
        split: Split of the rows. Candidates are fitted on `fit`; the penalty of the least squared error on `choose` is
            taken for the fit on both.

    Returns:
        The probe fitted on all of `split.train`, and the predictions of the one fitted on `split.fit` alone for the
        rows of `split.choose`. The latter are predictions of unseen scenes, from which errors can be learned.

    Shape:
        features: (N, C); targets: (N, K); predictions: (rows of choose, K).

    Raises:
        ValueError: If a shape differs, or a value is not finite.
    """
    if targets.ndim != 2:
        raise ValueError(f"`targets` must have shape (N, K), got {targets.shape}.")
    check_rows(features, targets=targets, split=split.test)
    # Subtracted before the squares are summed: an offset far from zero would cost their digits.
    offset = features[np.flatnonzero(split.fit)[:BLOCK]].mean(0, dtype=np.float64)
    fitted, held = (_sum_products(features, targets, rows, offset) for rows in (split.fit, split.choose))
    candidates = _solve_ridge(fitted, offset, PENALTIES)
    predictions = [probe.predict(features[split.choose]) for probe in candidates]
    errors = [((prediction - targets[split.choose]) ** 2).sum() for prediction in predictions]
    best = int(np.argmin(errors))
    return _solve_ridge(fitted + held, offset, PENALTIES[best : best + 1])[0], predictions[best]


def cell_rows(cells: np.ndarray, chosen: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return every cell that has chosen rows, with their indices."""
    order = np.flatnonzero(chosen)
    order = order[np.argsort(cells[order], kind="stable")]
    present, starts = np.unique(cells[order], return_index=True)
    return list(zip(present.tolist(), np.split(order, starts[1:]), strict=True))


def cell_medians(values: np.ndarray, cells: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return the median over the training rows of each row's cell.

    This constant knows nothing but the place of a token in the picture.

    Shape:
        values: (N, K); cells: (N,), integer; train: (N,), bool; output: (N, K). A cell without training rows gets the
        median of all.
    """
    table = np.tile(np.median(values[train], axis=0), (int(cells.max()) + 1, 1))
    for cell, rows in cell_rows(cells, train):
        table[cell] = np.median(values[rows], axis=0)
    return table[cells]


def with_intervals(scores: dict[str, Score], scenes: np.ndarray) -> Intervals:
    """Return values and 95 % intervals (over scenes) by name.

    The value is None where nothing was counted, the interval [None, None] there and for too few scenes.
    """
    summary = summarise(scores, scenes)
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
) -> Intervals:
    """Score the depth of tokens as a ridge regression of log depth reads it.

    Predictions are cut to the range of the training depths. The constant beside them is the median depth of the
    token's place in the picture.

    Args:
        features: Tokens.
        depth: z-depth in metres.
        cells: Place of the token in the grid, row * cols + col.
        scenes: Scene of each token.
        split: Split of the rows; `test` is scored.

    Returns:
        Scores, each with its interval.

        - `abs_rel`: mean |p - d| / d. `delta1`: share within a factor of 1.25.
        - `position_abs_rel`, `position_delta1`: the same of the constant.
        - `abs_rel_gain`, `delta1_gain`: how much better the tokens are; paired, positive is better.

    Shape:
        features: (N, C); depth, cells, scenes: (N,).

    Raises:
        ValueError: If a shape differs, or a depth is not positive.
    """
    check_measured(features, depth, cells, scenes)
    target = np.log(depth.astype(np.float64))[:, None]
    probe, _ = fit_linear_probe(features, target, split)
    test = split.test
    # Cut to the depths of training scenes: the exponential of one stray prediction would dominate the mean.
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
    return with_intervals({k: mean_score(v, percent=False) for k, v in scores.items()}, scenes[test])


def probe_position(
    features: np.ndarray,
    points: np.ndarray,
    cells: np.ndarray,
    scenes: np.ndarray,
    split: SceneSplit,
) -> Intervals:
    """Score the points in the room that a ridge regression reads from tokens.

    The constant beside them is the median point of the token's place in the picture.

    Args:
        features: Tokens.
        points: Points on the surface that each token shows, metres, in the frame of the first camera.
        cells: Place of the token in the grid, row * cols + col.
        scenes: Scene of each token.
        split: Split of the rows; `test` is scored.

    Returns:
        Scores, each with its interval.

        - `distance`: mean error in metres. `within_half_metre`: share of errors below 0.5 m.
        - `position_distance`, `position_within_half_metre`: the same of the constant.
        - `distance_gain`, `within_half_metre_gain`: how much better the tokens are; paired, positive is better.

    Shape:
        features: (N, C); points: (N, 3); cells, scenes: (N,).

    Raises:
        ValueError: If a shape differs.
    """
    check_rows(features, points=points, cells=cells, scenes=scenes)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"`points` must have shape (N, 3), metres, got {points.shape}.")
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
    return with_intervals({k: mean_score(v, percent=False) for k, v in scores.items()}, scenes[test])
