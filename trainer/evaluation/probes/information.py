"""Geometric information: the nats about its depth that a linear reader finds in a visual token.

Bounds. D is the log depth of a token, T the token, and B the bin of D among bins that training scenes fixed. For any
conditional distribution q that was fitted on other scenes (Barber and Agakov, 2003),

    I(D; T) >= I(B; T) = H(B) - H(B | T) >= H(B) - E[-log q(B | T)].

The mean over held-out scenes estimates the last expectation without bias. H(B) is not known, and an estimate of it can
claim too much.

- `information` is the cross entropy without the token less the cross entropy with it. The first of these is an *upper*
  bound of H(B). So this is the information, plus the marginal's own misfit, less the conditional's: an estimate, no
  bound.
- `information_bound` has the entropy of the held-out bins' frequencies in place of H(B). Entropy is concave, so it is
  on average *below* H(B), and the result is a lower bound in expectation over held-out scenes. The tokens of one scene
  may depend on each other; scenes must be sampled independently and have about as many tokens each.

The gap between the two is what is not known of H(B).

Position. The place of a token in the picture says much about its depth, and tokens know their place. What they hold
beyond that is I(D; T | cell), `beyond_position`, with cross entropies given the cell in place of the others.
`beyond_position_bound` is its lower bound; it has coarser bins, and is loose where a cell has few held-out tokens.

Reader. q is a mixture. Its parts are normal and Laplace distributions of many widths around a linear prediction from
the token (ridge), and the frequencies of the bins. Given the cell, the frequencies in the cell are a part too. The
weights of the parts are fitted on scenes that the prediction was not fitted on. The distribution without the token is
the same mixture for blank tokens, so that a token that says nothing gives 0.

Limits. Information that a linear prediction cannot read is not counted; Xu et al. (2020) call what a reader can read
usable information. No figure can exceed log(number of bins) nats.
"""

import logging
import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from trainer.evaluation.metrics.scores import mean_score
from trainer.evaluation.probes.linear_probe import (
    Intervals,
    SceneSplit,
    cell_rows,
    check_measured,
    fit_linear_probe,
    with_intervals,
)

__all__ = ["estimate_information", "shuffle_rows"]

logger = logging.getLogger(__name__)

NUM_BINS = 64
NUM_BINS_IN_CELL = 16  # for `beyond_position_bound`: the entropy of few tokens in many bins is far too low
WIDTHS = 2.0 ** (np.arange(-8, 5) / 2)  # multiples of the standard deviation of the prediction's errors
PRIOR_ROWS = 16.0  # a cell with so many rows weighs its own numbers as much as those of all cells
STEPS = 200  # steps of expectation maximisation, which is convex here
LEAST_SHARE = 1e-3  # share of the frequencies in the mixture: a depth like no other has some probability
SHUFFLE_TOLERANCE = 0.01  # nats


@dataclass(frozen=True)
class _Depths:
    """Log depths (N,) and their bins between `edges` (K - 1,), with cells (N,) and the split of the rows."""

    target: np.ndarray
    bins: np.ndarray
    edges: np.ndarray
    cells: np.ndarray
    split: SceneSplit


@dataclass(frozen=True)
class _Prediction:
    """Log depth that a reader expects of the rows of `choose` and of `test`.

    Args:
        choose: Expected log depths of the rows of `choose`.
        test: Expected log depths of the rows of `test`.
        knows_cell: Whether the reader knows the cell of a token.
    """

    choose: np.ndarray
    test: np.ndarray
    knows_cell: bool = False


def _bin_depths(target: np.ndarray, cells: np.ndarray, split: SceneSplit, num_bins: int) -> _Depths:
    """Make bins with about as many training rows each; fewer where depths repeat."""
    edges = np.unique(np.quantile(target[split.train], np.arange(1, num_bins) / num_bins))
    return _Depths(target, np.searchsorted(edges, target, side="right"), edges, cells, split)


def shuffle_rows(groups: np.ndarray, seed: int) -> np.ndarray:
    """Return indices (N,) that exchange rows at random within their group."""
    order = np.random.default_rng(seed).permutation(len(groups))
    shuffled = order[np.argsort(groups[order], kind="stable")]
    result = np.empty(len(groups), np.int64)
    result[np.argsort(groups, kind="stable")] = shuffled
    return result


def _cell_means(values: np.ndarray, cells: np.ndarray, rows: np.ndarray, prior: float = PRIOR_ROWS) -> np.ndarray:
    """Return means (cells, K) over the chosen rows of every cell.

    They are pulled towards the mean of all chosen rows, which counts as much as `prior` rows.
    """
    overall = values[rows].mean(0, dtype=np.float64)
    table = np.tile(overall, (int(cells.max()) + 1, 1))
    for cell, members in cell_rows(cells, rows):
        total = values[members].sum(0, dtype=np.float64)
        table[cell] = (total + prior * overall) / (len(members) + prior)
    return table


def _frequencies(depths: _Depths, rows: np.ndarray, per_cell: bool) -> np.ndarray:
    """Return the probability of every bin from the chosen rows; none is 0.

    Shape:
        output: (1, K), or (cells, K) if `per_cell`.
    """
    size = len(depths.edges) + 1
    counts = np.bincount(depths.bins[rows], minlength=size).astype(np.float64)
    overall = (counts + 1) / (counts.sum() + size)
    if not per_cell:
        return overall[None]
    key = depths.cells[rows] * size + depths.bins[rows]
    own = np.bincount(key, minlength=(int(depths.cells.max()) + 1) * size).reshape(-1, size)
    return (own + PRIOR_ROWS * overall) / (own.sum(1, keepdims=True) + PRIOR_ROWS)


def _cumulative(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the normal and the Laplace distribution function at `z`, both of standard deviation 1."""
    return stats.norm.cdf(z), stats.laplace.cdf(z, scale=math.sqrt(0.5))


def _experts(
    depths: _Depths, rows: np.ndarray, counted: np.ndarray, location: np.ndarray, spread: np.ndarray, per_cell: bool
) -> np.ndarray:
    """Return the probability of the bin of a row by each part of the mixture.

    Shape:
        output: (rows, parts); frequencies come first.
    """
    bins, cells = depths.bins[rows], depths.cells[rows]
    edges = np.concatenate([[-np.inf], depths.edges, [np.inf]])
    columns = [_frequencies(depths, counted, False)[0, bins]]
    if per_cell:
        columns.append(_frequencies(depths, counted, True)[cells, bins])
    low, high = (edges[bins] - location) / spread, (edges[bins + 1] - location) / spread
    for width in WIDTHS:
        columns += [
            upper - lower for upper, lower in zip(_cumulative(high / width), _cumulative(low / width), strict=True)
        ]
    return np.stack(columns, axis=1)


def _spreads(depths: _Depths, errors: np.ndarray, per_cell: bool) -> np.ndarray:
    """Return the standard deviation (N,) of a prediction's errors.

    The errors are those of `choose`, of the own cell if `per_cell`.
    """
    squares = np.zeros((len(depths.target), 1))
    squares[depths.split.choose, 0] = errors**2
    cells = depths.cells if per_cell else np.zeros_like(depths.cells)
    spread = np.sqrt(_cell_means(squares, cells, depths.split.choose))[cells, 0]
    return np.maximum(spread, np.finfo(np.float32).eps)


def _cross_entropy(depths: _Depths, prediction: _Prediction) -> np.ndarray:
    """Return -log q (rows of test,) of the bins, in nats, for the mixture around a prediction."""
    split, per_cell = depths.split, prediction.knows_cell
    spread = _spreads(depths, depths.target[split.choose] - prediction.choose, per_cell)
    known = _experts(depths, split.choose, split.fit, prediction.choose, spread[split.choose], per_cell)
    weights = np.full(known.shape[1], 1 / known.shape[1])
    for _ in range(STEPS):
        shares = known * weights
        weights = (shares / shares.sum(1, keepdims=True)).mean(0)
    weights *= 1 - LEAST_SHARE
    weights[0] += LEAST_SHARE
    held_out = _experts(depths, split.test, split.train, prediction.test, spread[split.test], per_cell)
    return -np.log(held_out @ weights)


def _read_tokens(depths: _Depths, features: np.ndarray) -> _Prediction:
    """Predict log depth from tokens."""
    probe, choose = fit_linear_probe(features, depths.target[:, None], depths.split)
    return _Prediction(choose[:, 0], probe.predict(features[depths.split.test])[:, 0])


def _read_tokens_in_cells(depths: _Depths, features: np.ndarray, usual: np.ndarray) -> _Prediction:
    """Predict log depth from the difference between a token and the others of its cell.

    The prediction is added to `usual` (N,), the usual log depth of the cell.
    """
    # Without a prior: a channel that only names the cell becomes 0, and says nothing that the cell does not.
    means = _cell_means(features, depths.cells, depths.split.fit, prior=0.0)
    centred = features - means.astype(np.float32)[depths.cells]
    rest = _Depths(depths.target - usual, depths.bins, depths.edges, depths.cells, depths.split)
    read = _read_tokens(rest, centred)
    return _Prediction(usual[depths.split.choose] + read.choose, usual[depths.split.test] + read.test, True)


def _read(depths: _Depths, features: np.ndarray, seed: int) -> dict[str, _Prediction]:
    """Predict log depth with the token, without it, exchanged, and given the cell."""
    cells, split = depths.cells, depths.split
    blank = np.zeros((len(features), 1), np.float32)
    usual = _cell_means(depths.target[:, None], cells, split.fit)[cells, 0]
    part = split.choose + 2 * split.test  # rows are exchanged within a part: no scene crosses the split
    exchanged = features[shuffle_rows(part, seed)]
    exchanged_in_cell = features[shuffle_rows(part * (int(cells.max()) + 1) + cells, seed)]
    return {
        "nothing": _read_tokens(depths, blank),
        "tokens": _read_tokens(depths, features),
        "exchanged": _read_tokens(depths, exchanged),
        "cell": _read_tokens_in_cells(depths, blank, usual),
        "both": _read_tokens_in_cells(depths, features, usual),
        "exchanged in cell": _read_tokens_in_cells(depths, exchanged_in_cell, usual),
    }


def _plug_in(keys: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Return -log of the share (n,) of a row's key among the rows of its group.

    The mean is the plug-in entropy of the keys in their groups.
    """
    _, key, key_counts = np.unique(keys, return_inverse=True, return_counts=True)
    _, group, group_counts = np.unique(within, return_inverse=True, return_counts=True)
    return -np.log(key_counts[key] / group_counts[group])


def estimate_information(
    features: np.ndarray,
    depth: np.ndarray,
    cells: np.ndarray,
    scenes: np.ndarray,
    split: SceneSplit,
    *,
    num_bins: int = NUM_BINS,
    seed: int = 0,
) -> Intervals:
    """Estimate the mutual information of tokens and depth.

    The module's docstring says what each number means and which bound holds.

    Args:
        features: Tokens.
        depth: z-depth in metres.
        cells: Place of the token in the grid, row * cols + col.
        scenes: Scene of each token.
        split: Split of the rows from `split_by_scene`; `test` is scored.
        num_bins: Number of bins of log depth, with about as many tokens each; at most 16 for `beyond_position_bound`.
        seed: Seed of the shuffles.

    Returns:
        Nats a token, each with its value and its 95 % interval (over scenes, at fixed q and frequencies).

        - `information`, `information_bound`: of token and depth.
        - `position_information`: of cell and depth.
        - `beyond_position`, `beyond_position_bound`: of token and depth, given the cell.
        - `shuffled`, `shuffled_beyond_position`: `information` and `beyond_position` of tokens that are exchanged at
          random (within their cell). They must be 0 within error, or less by the cost of fitting noise.
        - `entropy`, `remaining`: cross entropy of the bins without and with the token.

    Shape:
        features: (N, C); depth, cells, scenes: (N,).

    Raises:
        ValueError: If a shape differs, a depth is not positive, or there are fewer than two bins.
    """
    check_measured(features, depth, cells, scenes)
    if num_bins < 2:
        raise ValueError(f"`num_bins` must be at least 2, got {num_bins}.")
    target = np.log(depth.astype(np.float64))
    depths = _bin_depths(target, cells, split, num_bins)
    predictions = _read(depths, features, seed)
    loss = {name: _cross_entropy(depths, prediction) for name, prediction in predictions.items()}
    coarse = _bin_depths(target, cells, split, min(num_bins, NUM_BINS_IN_CELL))
    bins, places = depths.bins[split.test], cells[split.test]
    bins_in_cells = places * (len(coarse.edges) + 1) + coarse.bins[split.test]
    values = {
        "information": loss["nothing"] - loss["tokens"],
        "information_bound": _plug_in(bins, np.zeros_like(bins)) - loss["tokens"],
        "position_information": loss["nothing"] - loss["cell"],
        "beyond_position": loss["cell"] - loss["both"],
        "beyond_position_bound": _plug_in(bins_in_cells, places) - _cross_entropy(coarse, predictions["both"]),
        "shuffled": loss["nothing"] - loss["exchanged"],
        "shuffled_beyond_position": loss["cell"] - loss["exchanged in cell"],
        "entropy": loss["nothing"],
        "remaining": loss["tokens"],
    }
    scores = {name: mean_score(value, percent=False) for name, value in values.items()}
    result = with_intervals(scores, scenes[split.test])
    _warn_of_bias(result)
    return result


def _warn_of_bias(result: Intervals) -> None:
    """Warn where a control is surely above 0."""
    for name in ("shuffled", "shuffled_beyond_position"):
        low = result[name]["interval"][0]
        if low is not None and low > SHUFFLE_TOLERANCE:
            logger.warning(
                "Control %s is %.3f nats, surely more than 0: the other figures are too high by about as much.",
                name,
                result[name]["value"],
            )
