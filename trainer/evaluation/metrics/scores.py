"""Scores of a benchmark, each with a band for other scenes of the same kind."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal

import numpy as np

from trainer.evaluation.metrics.bands import scene_band

__all__ = ["Protocol", "Score", "check_protocol", "mean_score", "per_type", "summarise"]

Protocol = Literal["clean", "paper"]


@dataclass
class Score:
    """A function of sums over samples, such as a mean or corpus BLEU.

    Args:
        statistics: Numbers (n, k) that each sample adds to the sums.
        finish: Function of sums (R, k) and numbers of samples (R,) that returns scores (R,); None: mean of one column.
        members: Samples that count, (n,), bool; None: all.
        bounds: Least and largest possible score; None: unbounded.
        needs: Amount of each sample in each part that the score is made of, (n, p); None: the members. A band asks for
            enough scenes in every part.
    """

    statistics: np.ndarray
    finish: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    members: np.ndarray | None = None
    bounds: tuple[float, float] | None = None
    needs: np.ndarray | None = None

    def __post_init__(self):
        self.statistics = _columns("statistics", self.statistics)
        count = len(self.statistics)
        self.members = np.ones(count, bool) if self.members is None else np.asarray(self.members)
        if self.members.dtype != bool or self.members.shape != (count,):
            raise ValueError(
                f"`members` must be bool, ({count},), got {self.members.dtype} {self.members.shape}. It says which of "
                "the samples count."
            )
        if self.needs is not None and len(_columns("needs", self.needs)) != count:
            raise ValueError(f"`needs` must have a row for each of {count} samples, got {np.shape(self.needs)}.")
        if self.finish is not None and not callable(self.finish):
            raise TypeError(f"`finish` must be a function of sums and counts, got {self.finish!r:.100}.")
        if self.bounds is not None:
            self._check_bounds()

    def _check_bounds(self) -> None:
        are_two = isinstance(self.bounds, (tuple, list)) and len(self.bounds) == 2
        if not are_two or not all(isinstance(end, Real) for end in self.bounds) or not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"`bounds` must be (least, largest) possible score, got {self.bounds!r:.100}.")

    def of(self, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return scores (R,) from sums (R, k) and counts (R,); NaN where nothing was counted."""
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = sums[:, 0] / counts if self.finish is None else self.finish(sums, counts)
        return np.where(counts > 0, scores, np.nan)


def _columns(name: str, values: Any) -> np.ndarray:
    """Return numbers of samples (n, k) as float64."""
    try:
        array = np.asarray(values)
    except ValueError:  # ragged lists
        array = np.array(None)
    if array.ndim not in (1, 2) or array.size and array.dtype.kind not in "biuf":
        raise TypeError(f"`{name}` must be an array of numbers (n, k), got {array.dtype} {array.shape}.")
    array = array.astype(np.float64)
    return array if array.ndim == 2 else array[:, None]


def check_protocol(protocol: str) -> None:
    """Raise `ValueError` for a protocol that does not exist."""
    if not isinstance(protocol, str) or protocol not in ("clean", "paper"):
        raise ValueError(f'`protocol` must be "clean" or "paper", got {protocol!r}.')


def mean_score(values: Sequence[float] | np.ndarray, percent: bool = True) -> Score:
    """Return the mean of one number per sample as a score, by default in percent.

    It is bounded where all values lie in [0, 1] (a share), or in [-1, 1] (a difference of shares).
    """
    values, scale = np.asarray(values, dtype=np.float64), 100 if percent else 1
    bounds = next(((low * scale, scale) for low in (0, -1) if ((low <= values) & (values <= 1)).all()), None)
    return Score(values * scale, bounds=bounds)


def per_type(scores: dict[str, Score], types: Sequence[str]) -> dict[str, Score]:
    """Return the same scores over the samples of each type, as `type/score`.

    The types stand in the order in which they appear.
    """
    found = {}
    kinds = np.asarray(types)
    for kind in dict.fromkeys(types):
        for name, score in scores.items():
            found[f"{kind}/{name}"] = replace(score, members=score.members & (kinds == kind))
    return found


def summarise(
    scores: dict[str, Score],
    scenes: Sequence[str],
    *,
    bands: bool = True,
    jackknife: bool = False,
    resamples: int | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """Return values, 95 % bands for other scenes, and sample counts; see `scene_band`.

    Args:
        scores: Scores by name.
        scenes: Scene of each sample.
        bands: Whether to give bands.
        jackknife: Whether to give what bands are made from, so that another run can be compared scene by scene.
        resamples: Has no effect since bands are no bootstrap any more, except that 0 leaves them out. Goes in 0.3.
        seed: Has no effect. Goes in 0.3.

    Returns:
        Each score by name; `bands` with [low, high] by name, [None, None] for too few scenes; `counts`.
        With `jackknife` also `jackknife`: `scenes`, their names, and `scores`, by name a dict of the arguments of
        `scene_band` as lists (`value`, `without`, `needs`, `bounds`), with scenes in that order.
    """
    if resamples is not None or seed is not None:
        warnings.warn("`resamples` and `seed` have no effect. Give `bands=False`.", DeprecationWarning, stacklevel=2)
        bands = bands and resamples != 0
    result: dict[str, Any] = {}
    found, counts, parts = {}, {}, {}
    names, scene_index = np.unique(np.asarray(scenes, dtype=str), return_inverse=True)

    def by_scene(amounts: np.ndarray) -> np.ndarray:
        sums = np.zeros((len(names), amounts.shape[1]))
        np.add.at(sums, scene_index, amounts)
        return sums

    for name, score in scores.items():
        members = score.members[:, None]
        sums, number = by_scene(score.statistics * members), by_scene(members.astype(float))[:, 0]
        total, count = sums.sum(0, keepdims=True), number.sum(keepdims=True)
        result[name] = float(score.of(total, count)[0])
        counts[name] = int(count[0])
        needs = number[:, None] if score.needs is None else by_scene(score.needs * members)
        without = score.of(total - sums, count - number)
        band = scene_band(result[name], without, needs, score.bounds)
        found[name] = [None, None] if band is None else list(band)
        parts[name] = {"value": result[name], "without": without.tolist(), "needs": needs.tolist()}
        parts[name]["bounds"] = score.bounds and list(score.bounds)
    details = {"jackknife": {"scenes": names.tolist(), "scores": parts}} if jackknife else {}
    return {**result, "bands": found if bands else {}, "counts": counts, **details}
