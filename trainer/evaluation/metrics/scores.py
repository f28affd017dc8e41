"""Scores of a benchmark, each with a band for other scenes of the same kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["RESAMPLES", "Protocol", "Score", "check_protocol", "mean_score", "per_type", "summarise"]

Protocol = Literal["clean", "paper"]
RESAMPLES = 1000


@dataclass
class Score:
    """A function of sums over samples, such as a mean or corpus BLEU.

    Args:
        statistics: Numbers (n, k) that each sample adds to the sums.
        finish: Function of sums (R, k) and numbers of samples (R,) that returns scores (R,); None: mean of one column.
        members: Samples that count, (n,), bool; None: all.
    """

    statistics: np.ndarray
    finish: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    members: np.ndarray | None = None

    def __post_init__(self):
        self.statistics = np.asarray(self.statistics, dtype=np.float64)
        if self.statistics.ndim == 1:
            self.statistics = self.statistics[:, None]
        if self.members is None:
            self.members = np.ones(len(self.statistics), bool)

    def of(self, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return scores (R,) from sums (R, k) and counts (R,); NaN where nothing was counted."""
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = sums[:, 0] / counts if self.finish is None else self.finish(sums, counts)
        return np.where(counts > 0, scores, np.nan)


def check_protocol(protocol: str) -> None:
    """Raise `ValueError` for a protocol that does not exist."""
    if protocol not in ("clean", "paper"):
        raise ValueError(f'`protocol` must be "clean" or "paper", got {protocol!r}.')


def mean_score(values: Sequence[float] | np.ndarray, percent: bool = True) -> Score:
    """Return the mean of one number per sample as a score, by default in percent."""
    return Score(np.asarray(values, dtype=np.float64) * (100 if percent else 1))


def per_type(scores: dict[str, Score], types: Sequence[str]) -> dict[str, Score]:
    """Return the same scores over the samples of each type, as `type/score`.

    The types stand in the order in which they appear.
    """
    found = {}
    kinds = np.asarray(types)
    for kind in dict.fromkeys(types):
        for name, score in scores.items():
            found[f"{kind}/{name}"] = Score(score.statistics, score.finish, score.members & (kinds == kind))
    return found


def summarise(
    scores: dict[str, Score], scenes: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Return values, 95 % bands and sample counts.

    Questions about one scene are not independent, so the band is a bootstrap over scenes. Scenes are sampled with
    replacement `resamples` times, and the 2.5th and 97.5th percentile of the scores are kept.

    Args:
        scores: Scores by name.
        scenes: Scene of each sample.
        resamples: Number of samples of the bootstrap; 0 leaves the bands out.
        seed: Seed of the bootstrap.

    Returns:
        Each score by name; `bands` with [low, high] by name, [None, None] for fewer than two scenes; `counts`.
    """
    result: dict[str, Any] = {}
    bands, counts = {}, {}
    names, scene_index = np.unique(np.asarray(scenes, dtype=str), return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    for name, score in scores.items():
        kept = score.statistics * score.members[:, None]
        per_scene = np.zeros((len(names), kept.shape[1]))
        np.add.at(per_scene, scene_index, kept)
        number = np.bincount(scene_index, weights=score.members, minlength=len(names))
        result[name] = float(score.of(per_scene.sum(0, keepdims=True), number.sum(keepdims=True))[0])
        counts[name] = int(number.sum())
        drawn = score.of(draws @ per_scene, draws @ number)
        drawn = drawn[np.isfinite(drawn)]
        few = len(names) < 2 or not len(drawn)
        bands[name] = [None, None] if few else [float(edge) for edge in np.percentile(drawn, (2.5, 97.5))]
    return {**result, "bands": bands if resamples else {}, "counts": counts}
