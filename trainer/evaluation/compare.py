"""Differences between two ways of training: how far scenes, and how far seeds, could have made them.

Two questions have two answers. Would other scenes of the kind have shown the same? A bootstrap that draws whole scenes
says so, with the trained models as they are. Would other seeds have? The spread of the differences over seeds says so.
A difference is established where both intervals lie clear of zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Difference", "compare_paired", "seed_interval"]

RESAMPLES = 2000
# 97.5th percentile of Student's t by degrees of freedom, from 1.
T_QUANTILES = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)
NORMAL_QUANTILE = 1.9600


@dataclass(frozen=True)
class Difference:
    """Shares of right answers, one way less the other.

    Args:
        value: Mean over seeds.
        per_seed: Of each seed.
        scene_interval: 95 % for other scenes, seeds as they are; None for fewer than two scenes.
        scene_intervals: The same of each seed.
        seed_interval: 95 % for other seeds, by Student's t; None for one seed.
    """

    value: float
    per_seed: tuple[float, ...]
    scene_interval: tuple[float, float] | None
    scene_intervals: tuple[tuple[float, float] | None, ...]
    seed_interval: tuple[float, float] | None

    @property
    def is_established(self) -> bool:
        """Whether both intervals are there and lie on one side of zero."""
        intervals = (self.scene_interval, self.seed_interval)
        return None not in intervals and (
            all(low > 0 for low, _ in intervals) or all(high < 0 for _, high in intervals)
        )


def seed_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of a normal quantity from a few values; None for fewer than two."""
    count = len(values)
    if count < 2:
        return None
    quantile = T_QUANTILES[count - 2] if count - 2 < len(T_QUANTILES) else NORMAL_QUANTILE
    mean, half = float(np.mean(values)), quantile * float(np.std(values, ddof=1)) / math.sqrt(count)
    return mean - half, mean + half


def compare_paired(
    ours: np.ndarray, theirs: np.ndarray, counts: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Difference of the share of right answers between two ways of training, asked the same questions.

    The bootstrap draws scenes with replacement, the same ones for both ways and for all seeds: questions about one
    scene, and answers of two models to one question, depend on each other.

    Args:
        ours: Right answers of each seed in each scene.
        theirs: The same of the other way; row k is the same seed.
        counts: Questions of each scene.
        resamples: Draws of the bootstrap.
        seed: Of the draws.

    Shape:
        ours, theirs: (seeds, scenes); counts: (scenes,).

    Raises:
        ValueError: Other shapes, no question, or more right answers than questions.
    """
    ours, theirs, counts = (np.asarray(part, np.float64) for part in (ours, theirs, counts))
    if ours.ndim != 2 or ours.shape != theirs.shape or counts.shape != ours.shape[1:] or not len(ours):
        raise ValueError(
            f"Expected right answers (seeds, scenes) of two ways and questions (scenes,), got {ours.shape}, "
            f"{theirs.shape} and {counts.shape}."
        )
    if not counts.sum() or (np.maximum(ours, theirs) > counts).any():
        raise ValueError("Expected questions, and in no scene more right answers than questions.")
    gaps = ours - theirs
    per_seed = gaps.sum(1) / counts.sum()
    scenes = len(counts)
    scene_interval, scene_intervals = None, [None] * len(ours)
    if scenes > 1:
        rng = np.random.default_rng(seed)
        draws = rng.multinomial(scenes, np.full(scenes, 1 / scenes), size=resamples)
        asked = draws @ counts
        drawn = (draws @ gaps.T)[asked > 0] / asked[asked > 0, None]
        scene_intervals = [_percentiles(column) for column in drawn.T]
        scene_interval = _percentiles(drawn.mean(1))
    return Difference(
        value=float(per_seed.mean()),
        per_seed=tuple(per_seed.tolist()),
        scene_interval=scene_interval,
        scene_intervals=tuple(scene_intervals),
        seed_interval=seed_interval(per_seed.tolist()),
    )


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
