"""Render the one picture of the README: video, region, depth, questions and answers."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from processing.frame_order_ide3d import find_uniform_indices
from trainer.evaluation.pages import RIGHT, WRONG

from .pictures import FOUND, INK, MUTED, outline, render_depth, render_image, render_outline, shown_views
from .scene import Scene

__all__ = ["render_story"]

MAX_BYTES = 400_000  # a README's picture should load at once
WIDTH, HEIGHT = 12.0, 3.86  # inches, at 100 pixels an inch
MARGIN, GAP, TOP, BOTTOM = 0.16, 0.06, 0.62, 0.28  # inches
LARGE = 2.92  # inches of a side of the large picture
SMALL = (LARGE - GAP) / 2  # inches of a side of the small ones
LINE = 0.205 / HEIGHT  # height of a line of text


def render_story(scene: Scene, file: Path) -> None:
    """Write the picture of a room.

    Args:
        scene: Room to show; it must have a predicted depth.
        file: PNG to write, 1200 px wide, at most `MAX_BYTES`.

    Raises:
        ValueError: If the picture is larger than `MAX_BYTES` even with 256 colours.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=100, facecolor="white")
    chosen = scene.found_mask if scene.found_mask.any() else scene.true_mask
    view = 0 if chosen[0].any() else int(chosen.sum(axis=(1, 2)).argmax())
    _render_title(figure, MARGIN, "1  A video, plain RGB", f"{len(scene.frames)} frames; no depth, no poses")
    views = shown_views(len(scene.frames))
    for n, shown in enumerate(views[k] for k in find_uniform_indices(len(views), 4, can_repeat=True)):
        corner = MARGIN + n % 2 * (SMALL + GAP), TOP + n // 2 * (SMALL + GAP)
        render_image(_add_square(figure, *corner, SMALL), scene.frames[shown])
    x = MARGIN + LARGE + 0.2
    found = f"found: {scene.facts['found']}"
    _render_title(figure, x, f"2  \u201c{scene.facts['request']}\u201d", found, FOUND)
    axes = _add_square(figure, x, TOP, LARGE)
    render_image(axes, scene.frames[view])
    render_outline(axes, outline(scene.found_mask[view]), FOUND, 2.6)
    x += LARGE + 0.2
    _render_title(figure, x, "3  Depth", "in training only")
    limits = scene.depth_range()
    for n, (depth, words) in enumerate(((scene.predicted_depth, "by the validator"), (scene.depth, "true"))):
        axes = _add_square(figure, x, TOP + n * (SMALL + GAP), SMALL)
        render_depth(axes, depth[view], limits)
        style = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "boxstyle": "round,pad=0.2"}
        axes.text(0.04, 0.95, words, size=8.5, color=INK, va="bottom", bbox=style)
    x += SMALL + 0.24
    _render_title(figure, x, "4  Questions in words", "answered from RGB by the exported model")
    _write_answers(figure, _story_answers(scene), x / WIDTH, 1 - (TOP + 0.02) / HEIGHT)
    credit = f"Room {scene.facts['scene_id']}"
    figure.text(MARGIN / WIDTH, 0.32 * BOTTOM / HEIGHT, credit, size=8, color=MUTED)
    _save_small(figure, file)


def _add_square(figure: Figure, x: float, y: float, side: float) -> Axes:
    """Add a square panel; lengths are in inches from the upper left corner."""
    return figure.add_axes((x / WIDTH, 1 - (y + side) / HEIGHT, side / WIDTH, side / HEIGHT))


def _render_title(figure: Figure, x: float, words: str, detail: str, colour: str = MUTED) -> None:
    bold = {"color": INK, "weight": "bold", "va": "top"}
    figure.text(x / WIDTH, 1 - 0.13 / HEIGHT, words, size=11.5 * min(1, 34 / len(words)), **bold)
    figure.text(x / WIDTH, 1 - 0.36 / HEIGHT, detail, size=9.5, color=colour, va="top")


def _story_answers(scene: Scene) -> list[dict]:
    """Return up to three answers to questions of different types."""
    by_type: dict[str, dict] = {}
    for answer in scene.facts["answers"]:
        by_type.setdefault(answer["type"], answer)
    return list(by_type.values())[:3]


def _write_answers(figure: Figure, answers: Sequence[dict], x: float, y: float) -> None:
    """Write questions and answers from (x, y) of the figure downwards."""
    for answer in answers:
        wrapped = textwrap.wrap(answer["question"], 38) or [""]
        figure.text(x, y, "\n".join(wrapped), size=10, color=INK, va="top", linespacing=1.25)
        y -= LINE * len(wrapped) + 0.15 * LINE
        mark, colour = ("\u2713", RIGHT) if answer["is_right"] else ("\u2717", WRONG)
        said = textwrap.wrap(f"{mark} {answer['answer']}", 36)[:2] or [mark]
        figure.text(x, y, "\n".join(said), size=11, color=colour, weight="bold", va="top", linespacing=1.25)
        y -= LINE * 1.1 * len(said)
        if not answer["is_right"]:
            figure.text(x, y, f"truth: {answer['truth']}", size=9, color=MUTED, va="top")
            y -= LINE
        y -= 0.75 * LINE


def _save_small(figure: Figure, file: Path) -> None:
    """Write a PNG, with 256 colours if all of them take too many bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    image = Image.open(buffer).convert("RGB")
    image.save(file, optimize=True)
    if file.stat().st_size > MAX_BYTES:
        image.quantize(256).save(file, optimize=True)
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, more than {MAX_BYTES}. Show fewer frames.")
