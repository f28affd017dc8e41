"""Write the tables of a study in Markdown, from its summary.

The words of these tables stand in the results that are published in docs/study*: they are kept to the letter.
"""

from collections.abc import Mapping, Sequence

from processing.tables import NOTHING, format_number, format_percent

from .baselines import BASELINE_NAMES
from .curves import Curve, curve_means, find_control, label_curves, rooms_needed, shared_seeds
from .scores import METRICS
from .summary import PROBES, Interval, Pair, Summary

__all__ = [
    "OVERVIEW",
    "SAVED",
    "answer_cells",
    "difference_cells",
    "format_tables",
    "markdown",
    "overview_cells",
    "probe_cells",
    "saved_cells",
]

SAVED = (
    "With how many labelled rooms the control is as right, at equally many question steps: where its curve first "
    "reaches the same, between its points on a logarithmic scale. Means over the seeds that all points have."
)
OVERVIEW = (
    "Points; * established: the intervals over scenes and over seeds are both clear of zero. Not corrected for the "
    "number of comparisons."
)
LENGTHS = ("position_50", "position_100", "distance")  # metrics that labels are counted by

Cells = tuple[list[str], list[list[str]]]  # head and lines of a table


def points(difference: float) -> str:
    """Return a difference of shares in points."""
    return format_percent(difference, sign=True)


def band(interval: Interval) -> str:
    """Return an interval in points."""
    return "[one seed]" if interval is None else f"[{points(interval[0])}, {points(interval[1])}]"


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, not padded, as the published tables are."""
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [head, ["---"] * len(head), *lines])


def name_seeds(seeds: Sequence[int]) -> str:
    """Return seeds for a cell."""
    return " ".join(map(str, seeds))


def answer_cells(summary: Summary) -> Cells:
    """Return the accuracy of every arm, and of the predictors without sight."""
    lines = []
    for name, arm in summary["rows"].items():
        shares = []
        for metric in METRICS:
            entry = arm["accuracy"][metric]
            spread = "" if entry["sd"] is None else f" ({format_percent(entry['sd'])})"
            shares.append(format_percent(entry["mean"]) + spread)
        lines.append([summary["labels"][name], name_seeds(arm["seeds"]), *shares])
    for baseline in BASELINE_NAMES:
        values = [summary["baselines"].get(metric, {}).get(baseline) for metric in METRICS]
        if any(value is not None for value in values):
            words = f"without sight: {baseline.replace('_', ' ')}"
            lines.append([words, NOTHING, *map(format_percent, values)])
    return ["row", "seeds", *METRICS.values()], lines


def difference_cells(pair: Pair) -> Cells:
    """Return the differences of two arms, a line for each metric."""
    head = ["asked for", "difference", "each seed", "95 % over scenes", "95 % over seeds", "verdict"]
    planned = pair.get("planned")
    if planned:
        head.append(f"seeds {name_seeds(planned['seeds'])} alone, the recipe's")
    lines = []
    for name, entry in pair["metrics"].items():
        verdict = "not established"
        if entry["is_established"]:
            verdict = "better" if entry["value"] > 0 else "worse"
        each = ", ".join(map(points, entry["per_seed"]))
        bands = [band(entry["scene_interval"]), band(entry["seed_interval"])]
        lines.append([METRICS[name], points(entry["value"]), each, *bands, verdict])
        if planned:
            own = planned["metrics"][name]
            lines[-1].append(f"{points(own['value'])} {band(own['seed_interval'])}")
    return head, lines


def overview_cells(summary: Summary) -> Cells:
    """Return all pairs of arms, a line a pair; a star marks what is established."""
    lines = []
    for pair in summary["differences"]:
        values = []
        for metric in METRICS:
            entry = pair["metrics"].get(metric)
            star = "*" if entry is not None and entry["is_established"] else ""
            values.append(NOTHING if entry is None else points(entry["value"]) + star)
        lines.append([*pair_labels(summary, pair), name_seeds(pair["seeds"]), *values])
    return ["row", "less", "seeds", *METRICS.values()], lines


def pair_labels(summary: Summary, pair: Pair) -> list[str]:
    """Return the names of two arms in tables."""
    return [summary["labels"][pair["row"]], summary["labels"][pair["other"]]]


def saved_cells(summary: Summary, curves: Mapping[str, Curve]) -> Cells:
    """Return how many labelled rooms the control needs for what the other arms reach.

    There are no lines if the control has no curve, or no seed has all points of it and of another one.
    """
    head = ["row", "labelled rooms", *(f"the control needs, {METRICS[metric]}" for metric in LENGTHS), "seeds"]
    lines, control = [], find_control(summary, curves)
    for curve in curves.values():
        seeds = shared_seeds(summary, [curve, control]) if control not in (None, curve) else []
        if not seeds:
            continue
        sizes = [rooms for rooms, _ in control]
        known = {metric: curve_means(summary, control, metric, seeds) for metric in LENGTHS}
        own = {metric: curve_means(summary, curve, metric, seeds) for metric in LENGTHS}
        for index, (rooms, name) in enumerate(curve):
            needed = [rooms_needed(sizes, known[metric], own[metric][index]) for metric in LENGTHS]
            lines.append([summary["labels"][name], str(rooms), *needed, name_seeds(seeds)])
    return head, lines


def probe_cells(summary: Summary) -> Cells:
    """Return the probes of every arm and layer.

    A star marks layers that a geometry loss may read.
    """
    lines = []
    for name, arm in summary["rows"].items():
        for layer, entry in arm["probes"].items():
            star = "*" if entry["read_by_losses"] else ""
            values = [format_number(entry.get(probe, {}).get("mean"), 3) for probe in PROBES]
            lines.append([summary["labels"][name], layer + star, *values])
    return ["row", "layer", *(words for words, *_ in PROBES.values())], lines


def cost_cells(summary: Summary) -> Cells:
    """Return what the training of every arm takes."""
    head = ["row", "step without questions", "step with questions", "whole training", "parameters exported"]
    lines = []
    for name, arm in summary["rows"].items():
        cost = arm["cost"]
        steps = [format_number(cost.get(part), 3) for part in ("pool", "questions")]
        whole = [f"{cost['cpu_seconds']:.0f}", f"{cost['parameters']['export']:,}"]
        lines.append([summary["labels"][name], *steps, *whole])
    return head, lines


def format_tables(summary: Summary) -> str:
    """Return all tables in Markdown."""
    done, planned = summary["runs"]["done"], summary["runs"]["planned"]
    parts = [
        f"Split {summary['split']}, {summary['rooms']} rooms, {done} of {planned} runs. Shares in percent, mean over "
        "seeds (standard deviation over seeds); rows may have other seeds, so the differences below are what to "
        "compare them by.",
        markdown(*answer_cells(summary)),
    ]
    head, saved = saved_cells(summary, label_curves(summary))
    if saved:
        parts += [f"Labels saved. {SAVED}", markdown(head, saved)]
    if summary["differences"]:
        parts += [f"All differences. {OVERVIEW}", markdown(*overview_cells(summary))]
    for pair in summary["differences"]:
        first, second = pair_labels(summary, pair)
        seeds = f"{len(pair['seeds'])} seeds ({', '.join(map(str, pair['seeds']))})"
        parts += [f"**{first}** less **{second}**, points, {seeds}:", markdown(*difference_cells(pair))]
    layers = [layer for arm in summary["rows"].values() for layer in arm["probes"].values()]
    alone = f"{layers[0]['position_delta1']:.3f}, AbsRel {layers[0]['position_abs_rel']:.3f}" if layers else "-"
    parts += [
        f"Probes of frozen tokens. The place in the picture alone: delta1 {alone}. * read by a geometry loss, where "
        "the row has one.",
        markdown(*probe_cells(summary)),
        "Cost, CPU seconds:",
        markdown(*cost_cells(summary)),
    ]
    return "\n\n".join(parts) + "\n"
