"""Pictures of the demo: what the model saw and found in a room, what the validator measured, how the losses fell."""

import base64
import io
import json
import math
import textwrap
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image

__all__ = ["FOUND", "RIGHT", "TRUTH", "WRONG", "Scene", "draw_losses", "draw_scene", "draw_story", "to_png"]

FOUND, TRUTH = "#ff1f9c", "#12d6ff"  # Neither is a colour of the rooms' furniture.
RIGHT, WRONG = "#13804a", "#c02a2a"
INK, MUTED = "#1d2433", "#667085"
DEPTH_COLOURS, NO_DEPTH = "turbo", "#9aa0aa"
MAX_COLUMNS = 6  # Frames side by side; of longer videos evenly spaced ones, the first among them.
MAX_PICTURE_BYTES = 400_000  # A README's picture should load at once.
LOSS_TITLES = {
    "loss": "total",
    "loss_language": "language",
    "loss_grounding": "grounding",
    "loss_depth": "depth",
    "loss_cross_view_depth": "cross-view depth",
    "loss_overlap_l1": "overlap depth",
    "loss_view_consistency": "view consistency",
    "loss_distillation": "distillation",
}
SCENE_KEYS = {"scene_id", "request", "found", "truth", "is_right", "answers"}
ANSWER_KEYS = {"type", "question", "answer", "truth", "is_right"}
ARRAYS = ("frames", "depth", "found_mask", "true_mask")
OPTIONAL_ARRAYS = ("predicted_depth",)


@dataclass(frozen=True)
class Scene:
    """A test room: what was asked, what the model said and found, and the truth.

    `facts` and its answers may hold `before`: what was found and said before fine-tuning.

    Shape:
        frames:          (V, h, w, 3), uint8, RGB.
        depth:           (V, h, w), metres, z-depth; 0 means no measurement.
        found_mask:      (V, rows, cols), bool; the region the model chose, empty for "no such object".
        true_mask:       (V, rows, cols), bool; the region it should choose.
        predicted_depth: (V, h2, w2), metres; by the validator, None for a model that has none.
    """

    facts: dict
    frames: np.ndarray
    depth: np.ndarray
    found_mask: np.ndarray
    true_mask: np.ndarray
    predicted_depth: np.ndarray | None = None

    @classmethod
    def load(cls, file: Path) -> "Scene":
        """Read `<name>.json` and the arrays of `<name>.npz` beside it.

        Raises:
            FileNotFoundError: There are no arrays beside the file.
            ValueError: A file is damaged, misses an entry, or holds an array of the wrong shape.
        """
        arrays_file = file.with_suffix(".npz")
        if not arrays_file.is_file():
            raise FileNotFoundError(f"{file} has no {arrays_file.name} beside it. Run the demo again.")
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            with np.load(arrays_file, allow_pickle=False) as data:
                arrays = {name: data[name] for name in ARRAYS + OPTIONAL_ARRAYS if name in data}
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{file} or {arrays_file.name} is damaged: {error}. Run the demo again.") from error
        missing = sorted((SCENE_KEYS - set(facts)) | (set(ARRAYS) - set(arrays)))
        missing += sorted(
            {f"answers: {key}" for answer in facts.get("answers", []) for key in ANSWER_KEYS - set(answer)}
        )
        if missing:
            raise ValueError(f"{file} and {arrays_file.name} miss {', '.join(missing)}. Run the demo again.")
        scene = cls(facts, **arrays)
        scene.check_shapes(file.stem)
        return scene

    def check_shapes(self, name: str) -> None:
        """Stop if the arrays do not belong together.

        Raises:
            ValueError: An array has the wrong shape.
        """
        if (
            self.frames.ndim != 4
            or self.frames.shape[-1] != 3
            or self.frames.dtype != np.uint8
            or not self.frames.size
        ):
            raise ValueError(
                f"{name}: frames must be (V, h, w, 3) uint8, got {self.frames.shape} {self.frames.dtype}."
            )
        views, grid = len(self.frames), self.true_mask.shape[1:]
        expected = {
            "depth": self.frames.shape[:3],
            "true_mask": (views, *grid[:2]),
            "found_mask": (views, *grid[:2]),
        }
        if self.predicted_depth is not None:
            expected["predicted_depth"] = (views, *self.predicted_depth.shape[1:3])
        for key, shape in expected.items():
            if getattr(self, key).shape != shape:
                raise ValueError(
                    f"{name}: {key} must have shape {shape} for {views} frames, "
                    f"got {getattr(self, key).shape}. Run the demo again."
                )

    def depth_range(self) -> tuple[float, float]:
        """Least and greatest depth to show, metres: of all measurements but the farthest 1%."""
        measured = self.depth[self.depth > 0]
        if not measured.size:
            raise ValueError(f"{self.facts['scene_id']}: depth has no measurement above 0 metres.")
        return float(measured.min()), float(max(np.quantile(measured, 0.99), measured.min() + 0.1))


def to_png(figure: Figure) -> str:
    """The figure as a `data:` address that a page can hold."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def outline(mask: np.ndarray) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Border of the cells of a (rows, cols) mask: segments ((x, y), (x, y)) with x and y from 0 to 1."""
    rows, cols = mask.shape
    padded = np.pad(mask, 1)
    across = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])
    along = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    segments = [((c / cols, r / rows), ((c + 1) / cols, r / rows)) for r, c in across]
    return segments + [((c / cols, r / rows), (c / cols, (r + 1) / rows)) for r, c in along]


def draw_outline(axes: Axes, segments: list, colour: str, width: float, is_dashed: bool = False) -> None:
    """Draw the border that `outline` gives on a picture that `draw_image` has drawn."""
    if not is_dashed:  # What a dashed line runs over has an edge already.
        dark = LineCollection(segments, colors="black", linewidths=width + 1.6, alpha=0.6, capstyle="projecting")
        axes.add_collection(dark)
    style, cap = ((0, (2.2, 1.6)), "butt") if is_dashed else ("solid", "projecting")
    axes.add_collection(LineCollection(segments, colors=colour, linewidths=width, linestyle=style, capstyle=cap))


def draw_image(axes: Axes, image: np.ndarray, **options) -> object:
    """Show a picture on coordinates that run from 0 to 1, whatever its size, so that pictures and masks fit."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color="#c9ced8", linewidth=0.8)
    shown = axes.imshow(image, extent=(0, 1, 1, 0), aspect="auto", **options)
    axes.set(xlim=(0, 1), ylim=(1, 0))
    return shown


def draw_regions(axes: Axes, scene: Scene, view: int, width: float = 2.2) -> None:
    """Outline the true and the found region in one view; dashed in both colours where the borders are the same."""
    true, found = outline(scene.true_mask[view]), outline(scene.found_mask[view])
    draw_outline(axes, true, TRUTH, width)
    draw_outline(axes, [segment for segment in found if segment not in true], FOUND, width)
    draw_outline(axes, [segment for segment in found if segment in true], FOUND, width, is_dashed=True)


def draw_depth(axes: Axes, depth: np.ndarray, limits: tuple[float, float]) -> object:
    """Show a depth map (h, w) in metres; grey where there is no measurement."""
    measured = np.ma.masked_where(~(depth > 0), depth)
    axes.set_facecolor(NO_DEPTH)
    return draw_image(axes, measured, cmap=DEPTH_COLOURS, vmin=limits[0], vmax=limits[1], interpolation="nearest")


def shown_views(views: int) -> list[int]:
    """At most `MAX_COLUMNS` views, evenly spaced, the first among them."""
    return [int(view) for view in np.linspace(0, views - 1, min(views, MAX_COLUMNS)).round()]


def draw_scene(scene: Scene) -> Figure:
    """Frames with the regions, one column a frame; below, if a validator measured it, its depth and the true one."""
    views = shown_views(len(scene.frames))
    height, width = scene.frames.shape[1:3]
    tile = 10.6 / max(len(views), 4)
    left, right, top, gap = 1.15, 0.75, 0.3, 0.06
    tall = tile * height / width
    rows = 1 if scene.predicted_depth is None else 3
    size = (left + len(views) * (tile + gap) + right, top + rows * (tall + gap))
    figure = Figure(figsize=size, dpi=120)
    limits = scene.depth_range()
    for column, view in enumerate(views):
        x = (left + column * (tile + gap)) / size[0]
        panels = [
            figure.add_axes((x, 1 - (top + (row + 1) * (tall + gap) - gap) / size[1], tile / size[0], tall / size[1]))
            for row in range(rows)
        ]
        draw_image(panels[0], scene.frames[view])
        panels[0].set_title(f"frame {view + 1}", size=10, color=MUTED, pad=4)
        draw_regions(panels[0], scene, view)
        if rows == 3:
            draw_depth(panels[1], scene.predicted_depth[view], limits)
            shown = draw_depth(panels[2], scene.depth[view], limits)
        if column == 0:
            for axes, label in zip(panels, ("RGB", "depth by the\nvalidator", "true depth")[:rows], strict=True):
                axes.set_ylabel(label, size=10, color=INK, rotation=0, ha="right", va="center", labelpad=8)
    if rows == 1:
        return figure
    bar = figure.add_axes((1 - (right - 0.06) / size[0], gap / size[1], 0.13 / size[0], (2 * tall + gap) / size[1]))
    figure.colorbar(shown, cax=bar, extend="max").ax.tick_params(labelsize=9, colors=INK)
    bar.set_title("m", size=9, color=MUTED, pad=10)
    return figure


def draw_losses(history: list[dict]) -> Figure:
    """One small plot for each logged component of the training loss; logarithmic where it falls far.

    Raises:
        ValueError: Nothing was logged.
    """
    curves = {
        key: np.array(
            [(row["step"], row[key]) for row in history if "step" in row and row.get(key) is not None], float
        )
        for key in LOSS_TITLES
    }
    curves = {key: points for key, points in curves.items() if len(points)}
    if not curves:
        raise ValueError(f"The log history has none of {', '.join(LOSS_TITLES)} beside a step. Was the model trained?")
    columns = min(len(curves), 4)
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(11.5 * max(columns, 2) / 4, 2.35 * rows), dpi=120, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.1)
    for place, (key, points) in enumerate(curves.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        steps, values = points.T
        width = max(1, len(values) // 20)
        smooth = np.array([values[max(0, n - width + 1) : n + 1].mean() for n in range(len(values))])
        axes.plot(steps, values, color="#9db4e8", linewidth=0.9, marker="." if len(values) < 8 else None)
        axes.plot(steps, smooth, color="#2c4fa3", linewidth=1.7)
        known = values[np.isfinite(values)]
        if known.size and known.min() > 0 and known.max() > 5 * known.min():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(f"{LOSS_TITLES[key]}  {smooth[-1]:#.3g}", size=10, color=INK, loc="left")
        axes.tick_params(labelsize=8, colors=MUTED, which="both")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(color="#e6e9ef", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#c9ced8")
    return figure


def _story_answers(scene: Scene) -> list[dict]:
    """Up to three answers to questions of different types."""
    by_type: dict[str, dict] = {}
    for answer in scene.facts["answers"]:
        by_type.setdefault(answer["type"], answer)
    return list(by_type.values())[:3]


def _write_answers(figure: Figure, answers: list[dict], x: float, y: float, line: float) -> None:
    """Questions and answers as text from (x, y) of the figure downwards, a line high `line`."""
    for answer in answers:
        wrapped = textwrap.wrap(answer["question"], 38) or [""]
        figure.text(x, y, "\n".join(wrapped), size=10, color=INK, va="top", linespacing=1.25)
        y -= line * len(wrapped) + 0.15 * line
        mark, colour = ("\u2713", RIGHT) if answer["is_right"] else ("\u2717", WRONG)
        said = textwrap.wrap(f"{mark} {answer['answer']}", 36)[:2] or [mark]
        figure.text(x, y, "\n".join(said), size=11, color=colour, weight="bold", va="top", linespacing=1.25)
        y -= line * 1.1 * len(said)
        if not answer["is_right"]:
            figure.text(x, y, f"truth: {answer['truth']}", size=9, color=MUTED, va="top")
            y -= line
        y -= 0.75 * line


def draw_story(scene: Scene, file: Path) -> None:
    """Write the one picture of the README: video in, region found, depth learned in training, questions answered.

    Args:
        scene: The room to show; it must have a predicted depth.
        file: PNG to write, 1200 px wide, below `MAX_PICTURE_BYTES`.

    Raises:
        ValueError: The picture is larger than `MAX_PICTURE_BYTES` even with 256 colours.
    """
    size, margin, gap, below = (12.0, 3.86), 0.16, 0.06, 0.28
    figure = Figure(figsize=size, dpi=100, facecolor="white")
    big, top = 2.92, 0.62
    small = (big - gap) / 2

    def place(x: float, y: float, width: float) -> Axes:
        return figure.add_axes((x / size[0], 1 - (y + width) / size[1], width / size[0], width / size[1]))

    bold = {"color": INK, "weight": "bold", "va": "top"}

    def title(x: float, words: str, detail: str, colour: str = MUTED) -> None:
        figure.text(x / size[0], 1 - 0.13 / size[1], words, size=11.5 * min(1, 34 / len(words)), **bold)
        figure.text(x / size[0], 1 - 0.36 / size[1], detail, size=9.5, color=colour, va="top")

    chosen = scene.found_mask if scene.found_mask.any() else scene.true_mask
    view = 0 if chosen[0].any() else int(chosen.sum(axis=(1, 2)).argmax())
    title(margin, "1  A video, plain RGB", f"{len(scene.frames)} frames; no depth, no poses")
    views = shown_views(len(scene.frames))
    for n, shown in enumerate([views[round(k)] for k in np.linspace(0, len(views) - 1, 4)]):
        draw_image(place(margin + n % 2 * (small + gap), top + n // 2 * (small + gap), small), scene.frames[shown])
    x = margin + big + 0.2
    title(x, f"2  \u201c{scene.facts['request']}\u201d", f"found: {scene.facts['found']}", FOUND)
    axes = place(x, top, big)
    draw_image(axes, scene.frames[view])
    draw_outline(axes, outline(scene.found_mask[view]), FOUND, 2.6)
    x += big + 0.2
    title(x, "3  Depth", "in training only")
    limits = scene.depth_range()
    for n, (depth, words) in enumerate(((scene.predicted_depth, "by the validator"), (scene.depth, "true"))):
        axes = place(x, top + n * (small + gap), small)
        draw_depth(axes, depth[view], limits)
        style = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "boxstyle": "round,pad=0.2"}
        axes.text(0.04, 0.95, words, size=8.5, color=INK, va="bottom", bbox=style)
    x += small + 0.24
    title(x, "4  Questions in words", "answered from RGB by the exported model")
    _write_answers(figure, _story_answers(scene), x / size[0], 1 - (top + 0.02) / size[1], 0.205 / size[1])
    figure.text(margin / size[0], 0.32 * below / size[1], f"Room {scene.facts['scene_id']}", size=8, color=MUTED)
    _save_small(figure, file)


def _save_small(figure: Figure, file: Path) -> None:
    """Write a PNG, with a palette of 256 colours if all colours take too many bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    image = Image.open(buffer).convert("RGB")
    image.save(file, optimize=True)
    if file.stat().st_size > MAX_PICTURE_BYTES:
        image.quantize(256).save(file, optimize=True)
    if file.stat().st_size > MAX_PICTURE_BYTES:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, more than {MAX_PICTURE_BYTES}. Draw fewer frames.")
