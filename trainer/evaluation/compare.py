"""Differences between two ways of training, with what other scenes and other seeds could have changed.

An interval over whole scenes says how far other scenes of the kind could change a difference between trained models.
The spread of the differences over seeds says how far other seeds could. A difference is established where both
intervals lie clear of zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from trainer.evaluation.metrics.bands import scene_band

__all__ = ["Difference", "compare_paired", "seed_interval"]

RESAMPLES, SEED = 2000, 0  # of the bootstrap
BOOTSTRAP_SCENES = (
    100  # With 5, 10, 20 scenes percentiles of a bootstrap hold the truth in 84, 90, 93 % instead of 95.
)


@dataclass(frozen=True)
class Difference:
    """Difference between the shares of right answers of two ways of training.

    Args:
        value: Mean of the differences over seeds.
        per_seed: Difference of each seed.
        scene_interval: 95 % interval for other scenes and these seeds; None for too few scenes.
        scene_intervals: `scene_interval` of each seed by itself.
        seed_interval: 95 % interval for other seeds, by Student's t; None for one seed.
    """

    value: float
    per_seed: tuple[float, ...]
    scene_interval: tuple[float, float] | None
    scene_intervals: tuple[tuple[float, float] | None, ...]
    seed_interval: tuple[float, float] | None

    @property
    def is_established(self) -> bool:
        """Whether both intervals are known and lie on the same side of zero."""
        intervals = (self.scene_interval, self.seed_interval)
        return None not in intervals and (
            all(low > 0 for low, _ in intervals) or all(high < 0 for _, high in intervals)
        )


def seed_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean by Student's t, None for one value."""
    if len(values) < 2:
        return None
    mean, half = float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return mean - half, mean + half


def compare_paired(ours: np.ndarray, theirs: np.ndarray, counts: np.ndarray) -> Difference:
    """Compare the shares of right answers of two ways of training to the same questions.

    Questions about one scene, and answers of two models to one question, depend on each other: whole scenes are what
    varies, the same ones for both ways and for all seeds. From 100 scenes on they are sampled with replacement, as the
    protocol of the study says; for fewer the interval is that of `scene_band`.

    Args:
        ours: Number of right answers of each seed in each scene.
        theirs: Numbers of the other way; row k belongs to the same seed as row k of `ours`.
        counts: Number of questions of each scene.

    Shape:
        ours, theirs: (seeds, scenes); counts: (scenes,).

    Raises:
        ValueError: If the shapes do not agree, there is no question, or a scene has more right answers than questions.
    """
    ours, theirs, counts = (np.asarray(part, np.float64) for part in (ours, theirs, counts))
    if ours.ndim != 2 or ours.shape != theirs.shape or counts.shape != ours.shape[1:] or not len(ours):
        raise ValueError(
            f"Expected right answers `ours` and `theirs` (seeds, scenes) and questions `counts` (scenes,), got "
            f"{ours.shape}, {theirs.shape} and {counts.shape}."
        )
    if not counts.sum() or (np.maximum(ours, theirs) > counts).any():
        raise ValueError("Expected questions, and in no scene more right answers than questions.")
    gaps = ours - theirs
    per_seed = gaps.sum(1) / counts.sum()
    *scene_intervals, scene_interval = _scene_intervals(np.vstack([gaps, gaps.mean(0)]), counts)
    return Difference(
        value=float(per_seed.mean()),
        per_seed=tuple(per_seed.tolist()),
        scene_interval=scene_interval,
        scene_intervals=tuple(scene_intervals),
        seed_interval=seed_interval(per_seed.tolist()),
    )


def _scene_intervals(gaps: np.ndarray, counts: np.ndarray) -> list[tuple[float, float] | None]:
    """Return the interval of each row of gaps (rows, scenes) over counts (scenes,)."""
    scenes = len(counts)
    if scenes < BOOTSTRAP_SCENES:
        others = np.maximum(counts.sum() - counts, 1)  # no questions are left where one scene has them all
        return [
            scene_band(gap.sum() / counts.sum(), (gap.sum() - gap) / others, counts[:, None], (-1, 1)) for gap in gaps
        ]
    times = np.random.default_rng(SEED).multinomial(scenes, np.full(scenes, 1 / scenes), size=RESAMPLES)
    asked = times @ counts
    resampled = (times @ gaps.T)[asked > 0] / asked[asked > 0, None]
    return [tuple(np.percentile(column, (2.5, 97.5)).tolist()) for column in resampled.T]
