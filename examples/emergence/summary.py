"""Compute all numbers of a study: arms beside the control, with intervals."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from trainer.evaluation.compare import compare_paired, seed_interval

from .recipe import Entries, Study
from .results import Baselines, Run, SplitScores
from .scores import METRICS

__all__ = ["PROBES", "ArmSummary", "Interval", "Pair", "Summary", "summarise_study"]

# Numbers of the probes that are tabled: words, probe, entry, and whether more is better.
PROBES = {
    "depth_delta1": ("depth, linear: delta1", "depth", "delta1", True),
    "depth_abs_rel": ("depth, linear: AbsRel", "depth", "abs_rel", False),
    "delta1_gain": ("delta1 beyond the place in the picture", "depth", "delta1_gain", True),
    "within_half_metre": ("3D point within 0.5 m, linear", "position", "within_half_metre", True),
    "information": ("nats about depth", "information", "information", True),
    "beyond_position": ("nats beyond the place in the picture", "information", "beyond_position", True),
    "beyond_position_bound": ("lower bound of these", "information", "beyond_position_bound", True),
    "matched": ("nearest token in another view is right", "correspondence", "moved_matched", True),
}
Interval = tuple[float, float] | None


class Spread(TypedDict):
    """Mean over seeds, the value of each seed, and, of answers, the standard deviation."""

    mean: float
    per_seed: list[float]
    sd: float | None


class Cost(TypedDict, total=False):
    """CPU seconds of steps and of the whole training, and numbers of parameters."""

    pool: float
    questions: float
    cpu_seconds: float
    parameters: dict[str, int]


class ArmSummary(TypedDict):
    """Numbers of an arm.

    A layer of `probes` has a `Spread` for each of `PROBES` that it has.
    """

    seeds: list[int]
    accuracy: dict[str, Spread]
    probes: dict[str, dict]
    cost: Cost


class Gap(TypedDict):
    """A difference of answers, see `trainer.evaluation.paired.Difference`."""

    value: float
    per_seed: Sequence[float]
    scene_interval: Interval
    scene_intervals: Sequence[Interval]
    seed_interval: Interval
    is_established: bool


class Planned(TypedDict):
    """Differences over the seeds of the study alone."""

    seeds: list[int]
    metrics: dict[str, Gap]


class Pair(TypedDict, total=False):
    """Differences of two arms by metric.

    `planned` is there where they have more seeds than the study.
    """

    row: str
    other: str
    seeds: list[int]
    metrics: dict[str, Gap]
    planned: Planned


class ProbePair(TypedDict):
    """Differences of the probes of two arms, with the interval over seeds."""

    row: str
    other: str
    seeds: list[int]
    layers: dict[str, dict[str, dict[str, float | list[float] | Interval]]]


class Summary(TypedDict):
    """All numbers of a study, see `summarise_study`."""

    split: str
    rooms: int
    questions: dict[str, int]
    control: str
    labels: dict[str, str]
    rows: dict[str, ArmSummary]
    differences: list[Pair]
    probe_differences: list[ProbePair]
    baselines: Baselines
    runs: dict[str, int]
    settings: Entries


def summarise_study(study: Study, split: str, runs: Sequence[Run], baselines: Baselines) -> Summary:
    """Compute all numbers of a study.

    Args:
        study: Study.
        split: Split of the results.
        runs: Runs of `collect_runs`.
        baselines: Scores of `score_baselines`.

    Returns:
        `rows` has the numbers of every arm. `differences` compares each arm with the control, and the other pairs of
        the study, over the seeds that both have; `probe_differences` does so for the probes. An arm with another
        number of labelled rooms is compared in `Study.pairs` alone.

    Raises:
        ValueError: If two results are about other rooms or questions.
    """
    by_arm: dict[str, dict[int, Run]] = {name: {} for name in study.rows}
    for run in runs:
        by_arm[run["row"]][run["seed"]] = run
    by_arm = {name: own for name, own in by_arm.items() if own}
    differences, probe_differences = [], []
    for arm, other in choose_pairs(study, by_arm):
        seeds = [seed for seed in by_arm[arm] if seed in by_arm[other]]
        if not seeds:
            continue
        ours, theirs = ([by_arm[name][seed]["result"] for seed in seeds] for name in (arm, other))
        pair = {"row": arm, "other": other, "seeds": seeds}
        differences.append({**pair, "metrics": compare_answers(ours, theirs)})
        planned = [index for index, seed in enumerate(seeds) if seed in study.seeds]
        if 0 < len(planned) < len(seeds):
            metrics = compare_answers([ours[index] for index in planned], [theirs[index] for index in planned])
            differences[-1]["planned"] = {"seeds": [seeds[index] for index in planned], "metrics": metrics}
        probe_differences.append({**pair, "layers": compare_probes(ours, theirs)})
    first = runs[0]["result"]
    return {
        "split": split,
        "rooms": first["rooms"],
        "questions": {name: int(digits(counts).sum()) for name, counts in first["counts"].items()},
        "control": study.control,
        "labels": study.labels(),
        "rows": {name: describe_arm(list(own.values())) for name, own in by_arm.items()},
        "differences": differences,
        "probe_differences": probe_differences,
        "baselines": dict(baselines),
        "runs": {"done": len(runs), "planned": len(study.runs())},
        "settings": dataclasses.asdict(study),
    }


def choose_pairs(study: Study, known: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return the pairs of arms that are compared, of those that have results."""
    labelled = study.rooms_labelled(study.control)
    pairs = [(arm, study.control) for arm in known if arm != study.control and study.rooms_labelled(arm) == labelled]
    return [pair for pair in dict.fromkeys([*pairs, *study.pairs]) if set(pair) <= set(known)]


def digits(text: str) -> np.ndarray:
    """Return numbers (scenes,) from a digit a scene."""
    return np.array(list(map(int, text)), np.int64)


def describe_arm(runs: Sequence[Run]) -> ArmSummary:
    """Return means over the seeds of an arm."""
    results = [run["result"] for run in runs]
    accuracy = {}
    for name in METRICS:
        values = [result["accuracy"][name] for result in results]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        accuracy[name] = {"mean": float(np.mean(values)), "per_seed": values, "sd": spread}
    layers = {}
    for layer, probed in results[0]["probes"].items():
        entries = {name: [read_probe(result, layer, name) for result in results] for name in PROBES}
        known = {name: values for name, values in entries.items() if None not in values}
        layers[layer] = {
            "read_by_losses": probed["read_by_losses"],
            "position_delta1": probed["depth"]["position_delta1"]["value"],
            "position_abs_rel": probed["depth"]["position_abs_rel"]["value"],
            **{name: {"mean": float(np.mean(v)), "per_seed": v} for name, v in known.items()},
        }
    return {
        "seeds": [run["seed"] for run in runs],
        "accuracy": accuracy,
        "probes": layers,
        "cost": describe_cost(runs),
    }


def describe_cost(runs: Sequence[Run]) -> Cost:
    """Return what a step and a training of an arm take, averaged over seeds."""
    cost: Cost = {}
    for phase in ("pool", "questions"):
        parts = [run["training"]["phases"][phase] for run in runs if phase in run["training"]["phases"]]
        if parts:
            cost[phase] = float(np.mean([part["cpu_seconds"] / part["steps"] for part in parts]))
    whole = [sum(part["cpu_seconds"] for part in run["training"]["phases"].values()) for run in runs]
    return {**cost, "cpu_seconds": float(np.mean(whole)), "parameters": runs[0]["training"]["parameters"]}


def read_probe(result: SplitScores, layer: str, name: str) -> float | None:
    """Return a number of a probe, None where there is none."""
    _, probe, entry, _ = PROBES[name]
    found = result["probes"].get(layer, {}).get(probe)
    return None if found is None else found[entry]["value"]


def compare_answers(ours: Sequence[SplitScores], theirs: Sequence[SplitScores]) -> dict[str, Gap]:
    """Return the difference of every metric.

    Results of both sides have the same seeds, in order.

    Raises:
        ValueError: If results are about other rooms or questions.
    """
    if any(result["counts"] != ours[0]["counts"] for result in (*ours, *theirs)):
        raise ValueError("Results are about other rooms or questions: remove those of an earlier choice of rooms.")
    found = {}
    for name in METRICS:
        counts = digits(ours[0]["counts"][name])
        if counts.sum():
            sides = (np.stack([digits(result["hits"][name]) for result in side]) for side in (ours, theirs))
            difference = compare_paired(*sides, counts)
            found[name] = {**dataclasses.asdict(difference), "is_established": difference.is_established}
    return found


def compare_probes(ours: Sequence[SplitScores], theirs: Sequence[SplitScores]) -> dict[str, dict]:
    """Return the differences of all probes by layer, with the interval over seeds."""
    layers: dict[str, dict] = {}
    for layer in ours[0]["probes"]:
        for name in PROBES:
            values = [[read_probe(result, layer, name) for result in side] for side in (ours, theirs)]
            if None in values[0] + values[1]:
                continue
            gaps = [a - b for a, b in zip(*values, strict=True)]
            layers.setdefault(layer, {})[name] = {
                "value": float(np.mean(gaps)),
                "per_seed": gaps,
                "seed_interval": seed_interval(gaps),
            }
    return layers
