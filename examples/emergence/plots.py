"""Plot the results of a study: answers, differences, labels saved, probes."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.evaluation.pages import RIGHT, WRONG

from .curves import Curve, curve_means, label_curves, shared_seeds
from .scores import METRICS
from .summary import PROBES, Pair, Summary

__all__ = ["plot_answers", "plot_differences", "plot_labels", "plot_probes", "plot_study"]

COLOURS = (
    "#667085",
    "#98a2b3",
    "#1d6fd6",
    "#0f9d76",
    "#c2410c",
    "#7c3aed",
    "#b45309",
    "#be185d",
    "#0e7490",
    "#4d7c0f",
)
INK, MUTED = "#1d2433", "#667085"
SHOWN = ("position_50", "distance", "closer", "direction", "colour")
SHOWN_PROBES = ("depth_delta1", "beyond_position", "within_half_metre")


def short(words: str, length: int = 34) -> str:
    """Return words cut for an axis."""
    return words if len(words) <= length else words[: length - 1] + "\u2026"


def panels(figure: Figure, names: Sequence[str], hidden: Sequence[str] = ("top", "right")) -> list[Axes]:
    """Add a panel for each name, side by side, without the frame's sides in `hidden`."""
    added = []
    for column in range(len(names)):
        axes = figure.add_subplot(1, len(names), column + 1)
        axes.spines[list(hidden)].set_visible(False)
        added.append(axes)
    return added


def plot_answers(summary: Summary) -> Figure:
    """Plot the accuracy of every arm, a dot a seed.

    The dotted line is the best predictor without sight.
    """
    arms = list(summary["rows"].items())
    figure = Figure(figsize=(11, 1.0 + 0.4 * len(arms)), layout="constrained")
    for column, (metric, axes) in enumerate(zip(SHOWN, panels(figure, SHOWN, ("top", "right", "left")), strict=True)):
        for line, (_, arm) in enumerate(arms):
            entry, colour = arm["accuracy"][metric], COLOURS[line % len(COLOURS)]
            seeds = [100 * value for value in entry["per_seed"]]
            axes.barh(line, 100 * entry["mean"], color=colour, alpha=0.35, height=0.7)
            axes.plot(seeds, [line] * len(seeds), "o", ms=4, c=colour)
        known = [value for value in summary["baselines"].get(metric, {}).values() if value is not None]
        if known:
            axes.axvline(100 * max(known), color=INK, lw=1, ls=":")
        values = [100 * value for _, arm in arms for value in arm["accuracy"][metric]["per_seed"]]
        values += [100 * max(known)] if known else []
        axes.set_xlim(max(0, min(values) - 8), min(100.5, max(values) + 4))
        axes.set_title(METRICS[metric], fontsize=9)
        labels = [short(summary["labels"][name]) for name, _ in arms]
        axes.set_yticks(range(len(arms)), labels if not column else [])
        axes.tick_params(labelsize=8, length=0)
        axes.invert_yaxis()
    return figure


def plot_differences(summary: Summary) -> Figure:
    """Plot every pair of arms in points.

    The thick line is the interval over scenes, the thin one that over seeds.
    """
    pairs = summary["differences"]
    figure = Figure(figsize=(11, 1.0 + 0.42 * len(pairs)), layout="constrained")
    for column, (metric, axes) in enumerate(zip(SHOWN, panels(figure, SHOWN, ("top", "right", "left")), strict=True)):
        for line, pair in enumerate(pairs):
            if metric in pair["metrics"]:
                plot_difference(axes, line, pair, metric)
        axes.axvline(0, color=INK, lw=1)
        axes.set_title(METRICS[metric], fontsize=9)
        names = [
            f"{short(summary['labels'][pair['row']], 24)}\n\u2212 {short(summary['labels'][pair['other']], 24)}"
            for pair in pairs
        ]
        axes.set_yticks(range(len(pairs)), names if not column else [])
        axes.tick_params(labelsize=7.5, length=0)
        axes.set_ylim(len(pairs) - 0.5, -0.5)
    return figure


def plot_difference(axes: Axes, line: int, pair: Pair, metric: str) -> None:
    """Plot one difference at the height `line`; it has a colour where it is established."""
    entry, colour = pair["metrics"][metric], MUTED
    if entry["is_established"]:
        colour = RIGHT if entry["value"] > 0 else WRONG
    for interval, width in ((entry["seed_interval"], 1.2), (entry["scene_interval"], 4.5)):
        if interval is not None:
            axes.plot([100 * edge for edge in interval], [line, line], lw=width, c=colour, alpha=0.75)
    axes.plot(100 * entry["value"], line, "o", ms=5, c=colour)


def plot_labels(summary: Summary, curves: Mapping[str, Curve]) -> Figure:
    """Plot accuracy by number of labelled rooms, a dot a seed.

    Lines go through means of the seeds that all points have.
    """
    figure = Figure(figsize=(11, 3.0), layout="constrained")
    seeds = shared_seeds(summary, curves.values())
    for column, (metric, axes) in enumerate(zip(SHOWN, panels(figure, SHOWN), strict=True)):
        for number, (first, curve) in enumerate(curves.items()):
            colour = COLOURS[2 * number % len(COLOURS)]  # the first two are alike
            for rooms, name in curve:
                values = summary["rows"][name]["accuracy"][metric]["per_seed"]
                axes.plot([rooms] * len(values), [100 * value for value in values], ".", ms=4, c=colour)
            means = [100 * mean for mean in curve_means(summary, curve, metric, seeds)] if seeds else []
            sizes = [rooms for rooms, _ in curve][: len(means)]
            axes.plot(sizes, means, lw=1.5, c=colour, label=summary["labels"][first])
        axes.set_xscale("log")
        sizes = sorted({rooms for curve in curves.values() for rooms, _ in curve})
        axes.set_xticks(sizes, list(map(str, sizes)))
        axes.minorticks_off()
        axes.set_title(METRICS[metric], fontsize=9)
        axes.tick_params(labelsize=7.5)
        if not column:
            axes.legend(fontsize=7, frameon=False)
    return figure


def plot_probes(summary: Summary) -> Figure:
    """Plot probes of every layer by arm, a dot a seed.

    Dots are filled where a geometry loss may read the layer.
    """
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    arms = list(summary["rows"].items())
    first = arms[0][1]["probes"]
    for column, (probe, axes) in enumerate(zip(SHOWN_PROBES, panels(figure, SHOWN_PROBES), strict=True)):
        layers = [layer for layer, entry in first.items() if probe in entry]
        for line, (name, arm) in enumerate(arms):
            shift, colour = (line - len(arms) / 2) * 0.6 / max(1, len(arms)), COLOURS[line % len(COLOURS)]
            for at, layer in enumerate(layers):
                entry = arm["probes"][layer]
                style = {"mfc": colour if entry["read_by_losses"] else "white"}
                values = entry[probe]["per_seed"]
                label = summary["labels"][name] if not at else None
                axes.plot([at + shift] * len(values), values, "o", ms=4.5, c=colour, label=label, **style)
        if probe == "depth_delta1" and layers:
            axes.axhline(first[layers[0]]["position_delta1"], color=INK, lw=1, ls=":")
        axes.set_title(PROBES[probe][0], fontsize=9)
        axes.set_xticks(range(len(layers)), layers)
        axes.tick_params(labelsize=8, length=0)
        if not column:
            axes.legend(fontsize=7, frameon=False)
    return figure


def plot_study(summary: Summary) -> dict[str, Figure]:
    """Return all figures that a summary has numbers for, by name."""
    figures = {"answers": plot_answers(summary), "probes": plot_probes(summary)}
    if summary["differences"]:
        figures["differences"] = plot_differences(summary)
    if curves := label_curves(summary):
        figures["labels"] = plot_labels(summary, curves)
    return figures
