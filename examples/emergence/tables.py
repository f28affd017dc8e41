"""Tables of the emergence study: every row beside its control, with what scenes and what seeds could have done."""

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.evaluation.paired import compare_paired, seed_interval

from .files import LEFT_OUT_OF_ROW, RunFiles, check_settings, describe_run, load_json
from .recipe import Study
from .scores import BASELINE_NAMES, METRICS

__all__ = [
    "OVERVIEW",
    "PROBES",
    "SAVED",
    "answer_rows",
    "collect_runs",
    "curve_means",
    "difference_rows",
    "format_tables",
    "label_curves",
    "overview_rows",
    "probe_rows",
    "saved_rows",
    "shared_seeds",
    "summarise_study",
]

logger = logging.getLogger("emergence")

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
SAVED = (
    "With how many labelled rooms the control is as right, at equally many question steps: where its curve first "
    "reaches the same, between its points on a logarithmic scale. Means over the seeds that all points have."
)
OVERVIEW = (
    "Points; * established: the intervals over scenes and over seeds are both clear of zero. Not corrected for the "
    "number of comparisons."
)
LENGTHS = ("position_50", "position_100", "distance")  # metrics that labels are counted by
Interval = tuple[float, float] | None


def collect_runs(study: Study, split: str) -> list[dict[str, Any]]:
    """Results of the runs that are done, in the order of the study.

    Returns:
        For each run `row`, `seed`, `training` (see `train_run`) and `result` (see `score_split`).

    Raises:
        ValueError: A run was done with other settings or asked about other rooms, or a result is damaged.
    """
    found = []
    for row, seed in study.runs():
        files = RunFiles(Path(study.output_dir), row, seed)
        settings = describe_run(study, study.rows[row])
        check_settings(files.training, settings)
        if files.training.is_file() and files.result(split).is_file():
            parts = {"training": load_json(files.training), "result": load_json(files.result(split))}
            if not is_about(study, split, parts["result"]):
                raise ValueError(
                    f"{files.result(split)} is about other rooms than the {study.num_scored(split)} from "
                    f"{study.first_scored(split)} on. Give the study another output_dir, or remove what is there."
                )
            found.append({"row": row, "seed": seed, **parts})
            continue
        if study.known_results is None:
            continue
        known = Path(study.known_results) / f"{split}-seed{seed}-{row}.json"
        if known.is_file():
            run = load_json(known)
            if run["training"]["settings"] == settings and is_about(study, split, run["result"]):
                found.append(run)
            else:
                logger.warning("%s is left out: it has other settings, or is about other rooms.", known)
    return found


def is_about(study: Study, split: str, result: Mapping[str, Any]) -> bool:
    """Whether a result is about the rooms of the study; one without `first_room` is told by their number alone."""
    first = study.first_scored(split)
    return result["rooms"] == study.num_scored(split) and result.get("first_room", first) == first


def digits(text: str) -> np.ndarray:
    """Numbers (scenes,) from a digit a scene."""
    return np.array(list(map(int, text)), np.int64)


def summarise_study(
    study: Study, split: str, runs: Sequence[Mapping[str, Any]], baselines: Mapping[str, Any]
) -> dict[str, Any]:
    """All numbers of a study.

    Args:
        study: The study.
        split: Whose results these are.
        runs: See `collect_runs`.
        baselines: See `score_baselines`.

    Returns:
        `rows`: for each row its seeds, accuracy by metric (mean, per_seed, sd), probes by layer, and cost;
        `differences`: `compare_paired` of each row and the control, and of the other pairs, over the seeds that both
        have, with `planned`, the same over the seeds of the study alone where a row has more; `probe_differences`:
        the same of the probes, with the seeds' interval; `baselines`; `runs` done and planned. A row with another
        number of labelled rooms is compared in `study.pairs` alone.

    Raises:
        ValueError: Two results are about other rooms or questions.
    """
    by_row: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        by_row.setdefault(run["row"], {})[run["seed"]] = run
    by_row = {name: by_row[name] for name in study.rows if name in by_row}
    labelled = {name: row.labelled_rooms or study.labelled_rooms for name, row in study.rows.items()}
    pairs = [(row, study.control) for row in by_row if row != study.control]
    pairs = [pair for pair in pairs if labelled[pair[0]] == labelled[study.control]]
    pairs = [pair for pair in dict.fromkeys([*pairs, *study.pairs]) if set(pair) <= set(by_row)]
    differences, probe_differences = [], []
    for row, other in pairs:
        seeds = [seed for seed in by_row[row] if seed in by_row[other]]
        if not seeds:
            continue
        ours, theirs = ([by_row[name][seed]["result"] for seed in seeds] for name in (row, other))
        entry = {"row": row, "other": other, "seeds": seeds}
        differences.append({**entry, "metrics": compare_answers(ours, theirs)})
        planned = [place for place, seed in enumerate(seeds) if seed in study.seeds]
        if 0 < len(planned) < len(seeds):
            metrics = compare_answers([ours[place] for place in planned], [theirs[place] for place in planned])
            differences[-1]["planned"] = {"seeds": [seeds[place] for place in planned], "metrics": metrics}
        probe_differences.append({**entry, "layers": compare_probes(ours, theirs)})
    first = runs[0]["result"]
    return {
        "split": split,
        "rooms": first["rooms"],
        "questions": {name: int(digits(counts).sum()) for name, counts in first["counts"].items()},
        "control": study.control,
        "labels": {name: row.label or name for name, row in study.rows.items()},
        "rows": {name: describe_row(list(seeds.values())) for name, seeds in by_row.items()},
        "differences": differences,
        "probe_differences": probe_differences,
        "baselines": dict(baselines),
        "runs": {"done": len(runs), "planned": len(study.runs())},
        "settings": dataclasses.asdict(study),
    }


def describe_row(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of a row."""
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
    cost = {}
    for phase in ("pool", "questions"):
        parts = [run["training"]["phases"][phase] for run in runs if phase in run["training"]["phases"]]
        if parts:
            cost[phase] = float(np.mean([part["cpu_seconds"] / part["steps"] for part in parts]))
    whole = [sum(part["cpu_seconds"] for part in run["training"]["phases"].values()) for run in runs]
    cost |= {"cpu_seconds": float(np.mean(whole)), "parameters": runs[0]["training"]["parameters"]}
    return {"seeds": [run["seed"] for run in runs], "accuracy": accuracy, "probes": layers, "cost": cost}


def read_probe(result: Mapping[str, Any], layer: str, name: str) -> float | None:
    """A number of a probe, None where there is none."""
    _, probe, entry, _ = PROBES[name]
    found = result["probes"].get(layer, {}).get(probe)
    return None if found is None else found[entry]["value"]


def compare_answers(ours: Sequence[Mapping], theirs: Sequence[Mapping]) -> dict[str, Any]:
    """Difference of every metric; the results of the two are of the same seeds, in order."""
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


def compare_probes(ours: Sequence[Mapping], theirs: Sequence[Mapping]) -> dict[str, Any]:
    """Difference of every number of the probes by layer, with the interval over seeds."""
    layers: dict[str, Any] = {}
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


def points(value: float) -> str:
    """A difference of shares in points."""
    return f"{100 * value:+.1f}"


def band(interval: Interval, scale: float = 100, digits_shown: int = 1) -> str:
    """An interval, in points by default."""
    if interval is None:
        return "[one seed]"
    return f"[{scale * interval[0]:+.{digits_shown}f}, {scale * interval[1]:+.{digits_shown}f}]"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def name_seeds(seeds: Sequence[int]) -> str:
    """Seeds for a cell."""
    return " ".join(map(str, seeds))


def answer_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Accuracy of every row, and of the predictors without sight, as head and cells."""
    head = ["row", "seeds", *METRICS.values()]
    cells = []
    for name, row in summary["rows"].items():
        shares = []
        for metric in METRICS:
            entry = row["accuracy"][metric]
            spread = "" if entry["sd"] is None else f" ({100 * entry['sd']:.1f})"
            shares.append(f"{100 * entry['mean']:.1f}{spread}")
        cells.append([summary["labels"][name], name_seeds(row["seeds"]), *shares])
    for baseline in BASELINE_NAMES:
        values = [summary["baselines"].get(metric, {}).get(baseline) for metric in METRICS]
        if any(value is not None for value in values):
            words = f"without sight: {baseline.replace('_', ' ')}"
            cells.append([words, "-", *("-" if value is None else f"{100 * value:.1f}" for value in values)])
    return head, cells


def difference_rows(summary: Mapping[str, Any], difference: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """One pair of rows as head and cells, a line for each metric."""
    head = ["asked for", "difference", "each seed", "95 % over scenes", "95 % over seeds", "verdict"]
    planned = difference.get("planned")
    if planned:
        head.append(f"seeds {name_seeds(planned['seeds'])} alone, the recipe's")
    cells = []
    for name, entry in difference["metrics"].items():
        verdict = "not established"
        if entry["is_established"]:
            verdict = "better" if entry["value"] > 0 else "worse"
        each = ", ".join(map(points, entry["per_seed"]))
        bands = [band(entry[key]) for key in ("scene_interval", "seed_interval")]
        cells.append([METRICS[name], points(entry["value"]), each, *bands, verdict])
        if planned:
            own = planned["metrics"][name]
            cells[-1].append(f"{points(own['value'])} {band(own['seed_interval'])}")
    return head, cells


def overview_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """All pairs of rows as head and cells, a line a pair; a star marks what is established."""
    head = ["row", "less", "seeds", *METRICS.values()]
    cells = []
    for difference in summary["differences"]:
        names = [summary["labels"][difference[side]] for side in ("row", "other")]
        values = []
        for metric in METRICS:
            entry = difference["metrics"].get(metric)
            star = "*" if entry is not None and entry["is_established"] else ""
            values.append("-" if entry is None else points(entry["value"]) + star)
        cells.append([*names, name_seeds(difference["seeds"]), *values])
    return head, cells


def label_curves(summary: Mapping[str, Any]) -> dict[str, list[tuple[int, str]]]:
    """Rows that differ in the number of labelled rooms alone: by the name of the first, (rooms, row) by rooms."""
    settings, groups = summary["settings"], {}
    for name in summary["rows"]:
        row = dict(settings["rows"][name])
        rooms = row["labelled_rooms"] or settings["labelled_rooms"]
        own = {entry: row[entry] for entry in row if entry not in {*LEFT_OUT_OF_ROW, "labelled_rooms"}}
        groups.setdefault(json.dumps(own, sort_keys=True), []).append((rooms, name))
    return {group[0][1]: sorted(group) for group in groups.values() if len(group) > 1}


def shared_seeds(summary: Mapping[str, Any], curves: Iterable[Sequence[tuple[int, str]]]) -> list[int]:
    """Seeds that all points of curves have."""
    own = [summary["rows"][name]["seeds"] for curve in curves for _, name in curve]
    return [seed for seed in own[0] if all(seed in seeds for seeds in own)]


def curve_means(
    summary: Mapping[str, Any], curve: Sequence[tuple[int, str]], metric: str, seeds: Sequence[int]
) -> list[float]:
    """Mean of a metric over seeds at every point of a curve (see `label_curves`), all of which have these seeds."""
    means = []
    for _, name in curve:
        row = summary["rows"][name]
        known = dict(zip(row["seeds"], row["accuracy"][metric]["per_seed"], strict=True))
        means.append(float(np.mean([known[seed] for seed in seeds])))
    return means


def rooms_needed(sizes: Sequence[int], means: Sequence[float], wanted: float) -> str:
    """Where a curve first reaches a value, straight between its points on a logarithmic scale; two digits."""
    for place, value in enumerate(means):
        if value < wanted:
            continue
        if place == 0:
            return f"under {sizes[0]}" if value > wanted else str(sizes[0])
        share = (wanted - means[place - 1]) / (value - means[place - 1])
        low, high = np.log(sizes[place - 1]), np.log(sizes[place])
        return f"{float(f'{np.exp(low + share * (high - low)):.2g}'):.0f}"
    return f"over {sizes[-1]}"


def saved_rows(
    summary: Mapping[str, Any], curves: Mapping[str, Sequence[tuple[int, str]]]
) -> tuple[list[str], list[list[str]]]:
    """How many labelled rooms the control needs for what the other rows reach, as head and cells.

    No cells if the control has no curve, or no seed has all points of it and of another one.
    """
    head = ["row", "labelled rooms", *(f"the control needs, {METRICS[metric]}" for metric in LENGTHS), "seeds"]
    control = next((curve for curve in curves.values() if any(name == summary["control"] for _, name in curve)), None)
    cells = []
    for curve in curves.values():
        seeds = shared_seeds(summary, [curve, control]) if control not in (None, curve) else []
        if not seeds:
            continue
        sizes = [rooms for rooms, _ in control]
        known = {metric: curve_means(summary, control, metric, seeds) for metric in LENGTHS}
        own = {metric: curve_means(summary, curve, metric, seeds) for metric in LENGTHS}
        for place, (rooms, name) in enumerate(curve):
            needed = [rooms_needed(sizes, known[metric], own[metric][place]) for metric in LENGTHS]
            cells.append([summary["labels"][name], str(rooms), *needed, name_seeds(seeds)])
    return head, cells


def probe_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Probes of every row and layer as head and cells; a star marks layers that a geometry loss may read."""
    head = ["row", "layer", *(words for words, *_ in PROBES.values())]
    cells = []
    for name, row in summary["rows"].items():
        for layer, entry in row["probes"].items():
            star = "*" if entry["read_by_losses"] else ""
            values = [f"{entry[probe]['mean']:.3f}" if probe in entry else "-" for probe in PROBES]
            cells.append([summary["labels"][name], layer + star, *values])
    return head, cells


def format_tables(summary: Mapping[str, Any]) -> str:
    """All tables in Markdown."""
    done, planned = summary["runs"]["done"], summary["runs"]["planned"]
    parts = [
        f"Split {summary['split']}, {summary['rooms']} rooms, {done} of {planned} runs. Shares in percent, mean over "
        "seeds (standard deviation over seeds); rows may have other seeds, so the differences below are what to "
        "compare them by.",
        markdown(*answer_rows(summary)),
    ]
    head, saved = saved_rows(summary, label_curves(summary))
    if saved:
        parts += [f"Labels saved. {SAVED}", markdown(head, saved)]
    if summary["differences"]:
        parts += [f"All differences. {OVERVIEW}", markdown(*overview_rows(summary))]
    for difference in summary["differences"]:
        labels = [summary["labels"][difference[side]] for side in ("row", "other")]
        parts += [
            f"**{labels[0]}** less **{labels[1]}**, points, {len(difference['seeds'])} seeds "
            f"({', '.join(map(str, difference['seeds']))}):",
            markdown(*difference_rows(summary, difference)),
        ]
    gap = [layer for row in summary["rows"].values() for layer in row["probes"].items()]
    place = f"{gap[0][1]['position_delta1']:.3f}, AbsRel {gap[0][1]['position_abs_rel']:.3f}" if gap else "-"
    parts += [
        f"Probes of frozen tokens. The place in the picture alone: delta1 {place}. * read by a geometry loss, where "
        "the row has one.",
        markdown(*probe_rows(summary)),
        "Cost, CPU seconds:",
        markdown(
            ["row", "step without questions", "step with questions", "whole training", "parameters exported"],
            [
                [
                    summary["labels"][name],
                    *(f"{row['cost'][part]:.3f}" if part in row["cost"] else "-" for part in ("pool", "questions")),
                    f"{row['cost']['cpu_seconds']:.0f}",
                    f"{row['cost']['parameters']['export']:,}",
                ]
                for name, row in summary["rows"].items()
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"
