"""Count labels saved: with how many labelled rooms the control equals an arm."""

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .files import LEFT_OUT_OF_ARM
from .summary import Summary

__all__ = ["Curve", "curve_means", "label_curves", "rooms_needed", "shared_seeds"]

Curve = Sequence[tuple[int, str]]  # numbers of labelled rooms, each with the arm that has so many


def label_curves(summary: Summary) -> dict[str, list[tuple[int, str]]]:
    """Return arms that differ in the number of labelled rooms alone.

    They are sorted by rooms; the key is the name of the first arm of the study.
    """
    settings, groups = summary["settings"], {}
    for name in summary["rows"]:
        arm = dict(settings["rows"][name])
        rooms = arm["labelled_rooms"] or settings["labelled_rooms"]
        own = {entry: arm[entry] for entry in arm if entry not in {*LEFT_OUT_OF_ARM, "labelled_rooms"}}
        groups.setdefault(json.dumps(own, sort_keys=True), []).append((rooms, name))
    return {group[0][1]: sorted(group) for group in groups.values() if len(group) > 1}


def find_control(summary: Summary, curves: Mapping[str, Curve]) -> Curve | None:
    """Return the curve that the control is on."""
    return next((curve for curve in curves.values() if any(name == summary["control"] for _, name in curve)), None)


def shared_seeds(summary: Summary, curves: Iterable[Curve]) -> list[int]:
    """Return the seeds that all points of curves have."""
    own = [summary["rows"][name]["seeds"] for curve in curves for _, name in curve]
    return [seed for seed in own[0] if all(seed in seeds for seeds in own)]


def curve_means(summary: Summary, curve: Curve, metric: str, seeds: Sequence[int]) -> list[float]:
    """Return the mean of a metric over seeds at every point of a curve.

    Args:
        summary: Summary of the study.
        curve: Curve of `label_curves`.
        metric: Name of the metric.
        seeds: Seeds that all points have.
    """
    means = []
    for _, name in curve:
        arm = summary["rows"][name]
        known = dict(zip(arm["seeds"], arm["accuracy"][metric]["per_seed"], strict=True))
        means.append(float(np.mean([known[seed] for seed in seeds])))
    return means


def rooms_needed(sizes: Sequence[int], means: Sequence[float], wanted: float) -> str:
    """Return where a curve first reaches a value, in two digits.

    Between its points it is straight on a logarithmic scale.

    Args:
        sizes: Numbers of labelled rooms of the points, ascending.
        means: Values of the points.
        wanted: Value to reach.
    """
    for index, value in enumerate(means):
        if value < wanted:
            continue
        if index == 0:
            return f"under {sizes[0]}" if value > wanted else str(sizes[0])
        share = (wanted - means[index - 1]) / (value - means[index - 1])
        low, high = np.log(sizes[index - 1]), np.log(sizes[index])
        return f"{float(f'{np.exp(low + share * (high - low)):.2g}'):.0f}"
    return f"over {sizes[-1]}"
