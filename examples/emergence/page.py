"""Write the report of a study: plots, and a page with all tables."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from ..pages import Cell, Heading, Picture, Section, Table, Tiles, Words, write_page
from .curves import label_curves
from .plots import plot_study
from .scores import CONTROLS, METRICS
from .summary import Summary
from .tables import (
    OVERVIEW,
    SAVED,
    Cells,
    answer_cells,
    difference_cells,
    overview_cells,
    pair_labels,
    probe_cells,
    saved_cells,
)

__all__ = ["write_report"]

HOW = (
    "A small model of the library's classes is trained on posed RGB-D rooms, a few of which have questions. All arms "
    "of a seed start from the same weights and see the same questions in the same order, equally often. They differ "
    "in the losses on rooms without questions. Depth, poses and teacher are used in training only. Answers are read "
    "from the features of the region that a question points at, from RGB alone, with the video itself masked. Regions "
    "are true masks. A difference is called established where the interval over scenes and that over seeds both lie "
    "clear of zero."
)
KINDS = {"better": "right", "worse": "wrong", "not established": "quiet"}  # styles of verdicts


def as_table(cells: Cells) -> Table:
    """Return a table of the page; verdicts have a style."""
    head, lines = cells
    return Table(head, [[Cell(text, KINDS.get(text, "")) for text in line] for line in lines])


def headline(summary: Summary) -> list[tuple[str, str]]:
    """Return large figures of the comparison of all losses, else of the first one."""
    pairs = [pair for pair in summary["differences"] if pair["other"] == summary["control"]]
    if not pairs:
        return []
    pair = next((pair for pair in pairs if pair["row"] == "all"), pairs[0])
    tiles = []
    for metric in ("position_50", "distance", *CONTROLS):
        entry = pair["metrics"].get(metric)
        if entry is not None:
            verdict = "established" if entry["is_established"] else "not established"
            words = f"points, {METRICS[metric]}: {' less '.join(pair_labels(summary, pair))} ({verdict})"
            tiles.append((f"{100 * entry['value']:+.1f}", words))
    return tiles


def build_sections(summary: Summary, figures: Mapping[str, Figure]) -> list[Section]:
    """Return the sections of the page."""
    done, planned = summary["runs"]["done"], summary["runs"]["planned"]
    state = f"{done} of {planned} runs, split {summary['split']}, {summary['rooms']} rooms"
    answers = (
        "Percent right, mean over seeds (standard deviation over seeds). Dots are seeds; the dotted line is the best "
        "predictor that sees no pixel."
    )
    sections = [
        Section("Does 3D emerge?", [Words(state, is_quiet=True), Words(HOW), Tiles(headline(summary))]),
        Section(
            "Answers about unseen rooms",
            [Words(answers, True), Picture("Accuracy", figures["answers"]), as_table(answer_cells(summary))],
        ),
    ]
    if "differences" in figures:
        words = "Points; the thick line is the 95 % interval over scenes, the thin one over seeds."
        parts = [Words(words, True), Picture("Differences", figures["differences"])]
        parts += [Words(OVERVIEW, True), as_table(overview_cells(summary))]
        for pair in summary["differences"]:
            parts += [Heading(" less ".join(pair_labels(summary, pair))), as_table(difference_cells(pair))]
        sections.append(Section("Differences", parts))
    if "labels" in figures:
        words = "Percent right by number of rooms with questions; dots are seeds, lines go through the means of the "
        words += "seeds that all points have."
        parts = [Words(words, True), Picture("Accuracy by labelled rooms", figures["labels"])]
        cells = saved_cells(summary, label_curves(summary))
        parts += [Words(SAVED, True), as_table(cells)] if cells[1] else []
        sections.append(Section("Labels saved", parts))
    probes = (
        "Probes on scenes that they were not fitted on. A depth loss trains depth into the layers that it reads (*, "
        "filled dots), so the others are the control."
    )
    parts = [Words(probes, True), Picture("Probes", figures["probes"]), as_table(probe_cells(summary))]
    return [*sections, Section("What frozen tokens know", parts)]


def write_report(summary: Summary, folder: Path) -> Path:
    """Write the plots and `report.html` of a summary to a folder and return the page."""
    figures = plot_study(summary)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=110)
    return write_page(folder / "report.html", "Does 3D emerge?", build_sections(summary, figures))
