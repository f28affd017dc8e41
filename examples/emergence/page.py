"""Write the report of a study: plots, and a page with all tables."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.figure

from processing.writing import write_text
from trainer.evaluation.pages import (
    Cell,
    Figure,
    Heading,
    Page,
    Section,
    Table,
    Text,
    Tiles,
    embed_figure,
    render_html,
)

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
TONES = {"better": "right", "worse": "wrong", "not established": "quiet"}  # of verdicts


def as_table(cells: Cells) -> Table:
    """Return a table of the page; verdicts have a colour."""
    head, lines = cells
    return Table(head, [[Cell(text, TONES.get(text, "")) for text in line] for line in lines])


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


def build_page(summary: Summary, figures: Mapping[str, matplotlib.figure.Figure]) -> Page:
    """Return the page of the figures and tables of a study."""
    done, planned = summary["runs"]["done"], summary["runs"]["planned"]
    state = f"{done} of {planned} runs, split {summary['split']}, {summary['rooms']} rooms"
    pictures = {name: embed_figure(figure) for name, figure in figures.items()}
    answers = (
        "Percent right, mean over seeds (standard deviation over seeds). Dots are seeds; the dotted line is the best "
        "predictor that sees no pixel."
    )
    blocks = [Figure(pictures["answers"], answers), as_table(answer_cells(summary))]
    sections = [Section("Answers about unseen rooms", blocks)]
    if "differences" in pictures:
        words = "Points; the thick line is the 95 % interval over scenes, the thin one over seeds."
        blocks = [Figure(pictures["differences"], words)]
        blocks += [Text(OVERVIEW, "quiet"), as_table(overview_cells(summary))]
        for pair in summary["differences"]:
            blocks += [Heading(" less ".join(pair_labels(summary, pair))), as_table(difference_cells(pair))]
        sections.append(Section("Differences", blocks))
    if "labels" in pictures:
        words = "Percent right by number of rooms with questions; dots are seeds, lines go through the means of the "
        words += "seeds that all points have."
        blocks = [Figure(pictures["labels"], words)]
        cells = saved_cells(summary, label_curves(summary))
        blocks += [Text(SAVED, "quiet"), as_table(cells)] if cells[1] else []
        sections.append(Section("Labels saved", blocks))
    probes = (
        "Probes on scenes that they were not fitted on. A depth loss trains depth into the layers that it reads (*, "
        "filled dots), so the others are the control."
    )
    blocks = [Figure(pictures["probes"], probes), as_table(probe_cells(summary))]
    sections.append(Section("What frozen tokens know", blocks))
    return Page("Does 3D emerge?", sections, subtitle=state, introduction=[Text(HOW), Tiles(headline(summary))])


def write_report(summary: Summary, folder: Path) -> Path:
    """Write the plots and `report.html` of a summary to a folder and return the page."""
    figures = plot_study(summary)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=110)
    path = folder / "report.html"
    write_text(path, render_html(build_page(summary, figures)))
    return path
