"""Bands of scores: how far a score could be from that of all scenes of the same kind."""

import numpy as np
from scipy import stats

__all__ = ["MIN_SCENES", "scene_band"]

MIN_SCENES = 5  # The spread over fewer scenes says too little of the spread over all.
LOW_TAIL, HIGH_TAIL = 0.025, 0.975


def scene_band(
    value: float, without: np.ndarray, needs: np.ndarray, bounds: tuple[float, float] | None = None
) -> tuple[float, float] | None:
    """Return the 95 % band of a score for other scenes of the same kind.

    Questions about one scene are not independent, so scenes are what counts. The standard error comes from leaving out
    one scene at a time (jackknife), which holds for ratios of sums over scenes of unequal size. Student's t has the
    degrees of freedom of these sizes (Satterthwaite): one large scene among small ones knows little of the spread.

    A score near an end of its range has a lopsided band: that of a share with the same standard error (Clopper and
    Pearson with an effective number of samples, after Korn and Graubard). Where all scenes agree, the band holds what
    a share of scenes that no draw has shown yet could change.

    `tests/benchmarks/band_coverage.py` measures how often such bands hold the truth.

    Args:
        value: Score of all scenes.
        without: Score without each scene, (S,).
        needs: Amount of each scene in each part that the score is made of, (S, P), such as its number of samples.
        bounds: Least and largest possible score; None: unbounded.

    Returns:
        Low and high end; None where a part of the score comes from fewer than `MIN_SCENES` scenes.
    """
    if ((needs > 0).sum(0) < MIN_SCENES).any():
        return None
    without = without[(needs > 0).any(1)]
    scenes = len(without)
    error = float(np.sqrt((scenes - 1) * without.var()))
    t = stats.t.ppf(HIGH_TAIL, min(_degrees_of_freedom(part[part > 0]) for part in needs.T))
    if bounds is None:
        return float(value - t * error), float(value + t * error)
    low, high = bounds
    share = float(np.clip((value - low) / (high - low), 0, 1))
    error /= high - low
    if error < 1e-9:  # rounding of equal scenes
        unseen = 1 - LOW_TAIL ** (1 / scenes)
        edges = share - unseen * share, share + unseen * (1 - share)
    else:
        samples = share * (1 - share) * (stats.norm.ppf(HIGH_TAIL) / (t * error)) ** 2
        hits, misses = samples * share, samples * (1 - share)
        edges = stats.beta.ppf(LOW_TAIL, hits, misses + 1), stats.beta.ppf(HIGH_TAIL, hits + 1, misses)
    return tuple(low + (high - low) * float(edge) for edge in edges)


def _degrees_of_freedom(amounts: np.ndarray) -> float:
    """Return Satterthwaite's degrees of freedom of the jackknife, for scenes of these sizes (S,)."""
    weights = amounts / amounts.sum()
    pull = (weights / (1 - weights)) ** 2  # of leaving out each scene
    residuals = np.eye(len(weights)) - weights[:, None] - weights + (weights**2).sum()
    return (pull * residuals.diagonal()).sum() ** 2 / (pull[:, None] * pull * residuals**2).sum()
