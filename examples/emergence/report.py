"""Plots of the emergence study, and one page for a browser with all of its tables."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..demo.pictures import RIGHT, WRONG, to_png
from ..demo.report import STYLE, table, tile_row
from .scores import CONTROLS, METRICS
from .tables import (
    OVERVIEW,
    PROBES,
    SAVED,
    answer_rows,
    curve_means,
    difference_rows,
    label_curves,
    overview_rows,
    probe_rows,
    saved_rows,
    shared_seeds,
)

__all__ = ["draw_answers", "draw_differences", "draw_labels", "draw_probes", "write_report"]

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
SHOWN = ("position_50", "distance", "closer", "direction", "colour")
HOW = (
    "A small model of the library's classes is trained on posed RGB-D rooms, a few of which have questions. All rows "
    "of a seed start from the same weights and see the same questions in the same order, equally often; they differ "
    "in the losses on rooms without questions. Depth, poses and teacher are used in training only. Answers are read "
    "from the features of the region that a question points at, from RGB alone, with the video itself masked; regions "
    "are true masks. A difference is called established where the interval over scenes and that over seeds both lie "
    "clear of zero."
)


def short(words: str, length: int = 34) -> str:
    """Words cut for an axis."""
    return words if len(words) <= length else words[: length - 1] + "\u2026"


def draw_answers(summary: Mapping[str, Any]) -> Figure:
    """Accuracy of every row, a dot a seed, the best predictor without sight as a line."""
    rows = list(summary["rows"].items())
    figure = Figure(figsize=(11, 1.0 + 0.4 * len(rows)), layout="constrained")
    for place, metric in enumerate(SHOWN):
        axes = figure.add_subplot(1, len(SHOWN), place + 1)
        for line, (_, row) in enumerate(rows):
            entry, colour = row["accuracy"][metric], COLOURS[line % len(COLOURS)]
            axes.barh(line, 100 * entry["mean"], color=colour, alpha=0.35, height=0.7)
            axes.plot(
                [100 * value for value in entry["per_seed"]], [line] * len(entry["per_seed"]), "o", ms=4, c=colour
            )
        known = [value for value in summary["baselines"].get(metric, {}).values() if value is not None]
        if known:
            axes.axvline(100 * max(known), color="#1d2433", lw=1, ls=":")
        values = [100 * value for _, row in rows for value in row["accuracy"][metric]["per_seed"]]
        values += [100 * max(known)] if known else []
        axes.set_xlim(max(0, min(values) - 8), min(100.5, max(values) + 4))
        axes.set_title(METRICS[metric], fontsize=9)
        axes.set_yticks(range(len(rows)), [short(summary["labels"][name]) for name, _ in rows] if not place else [])
        axes.tick_params(labelsize=8, length=0)
        axes.invert_yaxis()
        axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def draw_differences(summary: Mapping[str, Any]) -> Figure:
    """Every pair of rows: difference in points with the interval over scenes (thick) and over seeds (thin)."""
    pairs = summary["differences"]
    figure = Figure(figsize=(11, 1.0 + 0.42 * len(pairs)), layout="constrained")
    for place, metric in enumerate(SHOWN):
        axes = figure.add_subplot(1, len(SHOWN), place + 1)
        for line, pair in enumerate(pairs):
            entry = pair["metrics"].get(metric)
            if entry is None:
                continue
            colour = "#667085"
            if entry["is_established"]:
                colour = RIGHT if entry["value"] > 0 else WRONG
            for key, width in (("seed_interval", 1.2), ("scene_interval", 4.5)):
                if entry[key] is not None:
                    axes.plot([100 * edge for edge in entry[key]], [line, line], lw=width, c=colour, alpha=0.75)
            axes.plot(100 * entry["value"], line, "o", ms=5, c=colour)
        axes.axvline(0, color="#1d2433", lw=1)
        axes.set_title(METRICS[metric], fontsize=9)
        names = [
            f"{short(summary['labels'][p['row']], 24)}\n\u2212 {short(summary['labels'][p['other']], 24)}"
            for p in pairs
        ]
        axes.set_yticks(range(len(pairs)), names if not place else [])
        axes.tick_params(labelsize=7.5, length=0)
        axes.set_ylim(len(pairs) - 0.5, -0.5)
        axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def draw_labels(summary: Mapping[str, Any], curves: Mapping[str, Sequence[tuple[int, str]]]) -> Figure:
    """Accuracy by number of labelled rooms: a dot a seed, a line a row through the means of seeds with all points."""
    figure = Figure(figsize=(11, 3.0), layout="constrained")
    seeds = shared_seeds(summary, curves.values())
    for place, metric in enumerate(SHOWN):
        axes = figure.add_subplot(1, len(SHOWN), place + 1)
        for number, (first, curve) in enumerate(curves.items()):
            colour = COLOURS[2 * number % len(COLOURS)]  # the first two are alike
            for rooms, name in curve:
                values = summary["rows"][name]["accuracy"][metric]["per_seed"]
                axes.plot([rooms] * len(values), [100 * value for value in values], ".", ms=4, c=colour)
            means = [100 * mean for mean in curve_means(summary, curve, metric, seeds)] if seeds else []
            axes.plot(
                [rooms for rooms, _ in curve][: len(means)], means, lw=1.5, c=colour, label=summary["labels"][first]
            )
        axes.set_xscale("log")
        sizes = sorted({rooms for curve in curves.values() for rooms, _ in curve})
        axes.set_xticks(sizes, list(map(str, sizes)))
        axes.minorticks_off()
        axes.set_title(METRICS[metric], fontsize=9)
        axes.tick_params(labelsize=7.5)
        axes.spines[["top", "right"]].set_visible(False)
        if not place:
            axes.legend(fontsize=7, frameon=False)
    return figure


def draw_probes(summary: Mapping[str, Any]) -> Figure:
    """Probes of every layer by row, a dot a seed; a filled marker where a geometry loss may read the layer."""
    shown = ("depth_delta1", "beyond_position", "within_half_metre")
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    rows = list(summary["rows"].items())
    for place, probe in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), place + 1)
        layers = [layer for layer, entry in rows[0][1]["probes"].items() if probe in entry]
        for line, (name, row) in enumerate(rows):
            shift, colour = (line - len(rows) / 2) * 0.6 / max(1, len(rows)), COLOURS[line % len(COLOURS)]
            for at, layer in enumerate(layers):
                entry = row["probes"][layer]
                style = {"mfc": colour} if entry["read_by_losses"] else {"mfc": "white"}
                values = entry[probe]["per_seed"]
                label = summary["labels"][name] if not at else None
                axes.plot([at + shift] * len(values), values, "o", ms=4.5, c=colour, label=label, **style)
        if probe == "depth_delta1" and layers:
            axes.axhline(rows[0][1]["probes"][layers[0]]["position_delta1"], color="#1d2433", lw=1, ls=":")
        axes.set_title(PROBES[probe][0], fontsize=9)
        axes.set_xticks(range(len(layers)), layers)
        axes.tick_params(labelsize=8, length=0)
        axes.spines[["top", "right"]].set_visible(False)
        if not place:
            axes.legend(fontsize=7, frameon=False)
    return figure


def as_html(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table of the page from words."""
    rows = []
    for line in cells:
        styled = []
        for cell in line:
            name = {"better": "right", "worse": "wrong", "not established": "quiet"}.get(cell, "")
            styled.append(f'<td class="{name}">{escape(cell)}</td>' if name else f"<td>{escape(cell)}</td>")
        rows.append(f"<tr>{''.join(styled)}</tr>")
    return table(list(head), rows)


def headline(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Large figures of the first comparison that has all losses, else of the first one."""
    pairs = [pair for pair in summary["differences"] if pair["other"] == summary["control"]]
    if not pairs:
        return []
    pair = next((pair for pair in pairs if pair["row"] == "all"), pairs[0])
    words = f"{summary['labels'][pair['row']]} less {summary['labels'][pair['other']]}"
    tiles = []
    for metric in ("position_50", "distance", *CONTROLS):
        entry = pair["metrics"].get(metric)
        if entry is not None:
            verdict = "established" if entry["is_established"] else "not established"
            tiles.append((f"{100 * entry['value']:+.1f}", f"points, {METRICS[metric]}: {words} ({verdict})"))
    return tiles


def write_report(summary: Mapping[str, Any], folder: Path) -> Path:
    """Write the plots and `report.html` of a summary; returns the page.

    Args:
        summary: See `summarise_study`.
        folder: Where they go.
    """
    figures = {"answers": draw_answers(summary), "probes": draw_probes(summary)}
    if summary["differences"]:
        figures["differences"] = draw_differences(summary)
    if curves := label_curves(summary):
        figures["labels"] = draw_labels(summary, curves)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=110)
    done, planned = summary["runs"]["done"], summary["runs"]["planned"]
    state = f"{done} of {planned} runs, split {summary['split']}, {summary['rooms']} rooms"
    parts = [
        f"<section><h1>Does 3D emerge?</h1><p class='quiet'>{escape(state)}</p><p>{HOW}</p>"
        f"{tile_row(headline(summary))}</section>",
        "<section><h2>Answers about unseen rooms</h2><p class='quiet'>Percent right, mean over seeds (standard "
        "deviation over seeds). Dots are seeds; the dotted line is the best predictor that sees no pixel.</p>"
        f'<img alt="Accuracy" src="{to_png(figures["answers"])}">{as_html(*answer_rows(summary))}</section>',
    ]
    if summary["differences"]:
        picture = to_png(figures["differences"])
        parts.append(
            "<section><h2>Differences</h2><p class='quiet'>Points; the thick line is the 95 % interval over scenes, "
            f'the thin one over seeds.</p><img alt="Differences" src="{picture}">'
            f"<p class='quiet'>{OVERVIEW}</p>{as_html(*overview_rows(summary))}"
        )
        for pair in summary["differences"]:
            names = [escape(summary["labels"][pair[side]]) for side in ("row", "other")]
            parts.append(f"<h3>{names[0]} less {names[1]}</h3>{as_html(*difference_rows(summary, pair))}")
        parts.append("</section>")
    if curves:
        head, saved = saved_rows(summary, curves)
        parts.append(
            "<section><h2>Labels saved</h2><p class='quiet'>Percent right by number of rooms with questions; dots are "
            "seeds, lines go through the means of the seeds that all points have.</p>"
            f'<img alt="Accuracy by labelled rooms" src="{to_png(figures["labels"])}">'
            f"{f'<p class=quiet>{SAVED}</p>{as_html(head, saved)}' if saved else ''}</section>"
        )
    parts.append(
        "<section><h2>What frozen tokens know</h2><p class='quiet'>Probes on scenes that they were not fitted on. A "
        "depth loss trains depth into the layers that it reads (*, filled dots), so the others are the control.</p>"
        f'<img alt="Probes" src="{to_png(figures["probes"])}">{as_html(*probe_rows(summary))}</section>'
    )
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Does 3D emerge?</title>"
        f"<style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>"
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path
