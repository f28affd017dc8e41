"""Render what the model saw and found in a room, and what the validator measured."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from processing.frame_order_ide3d import find_uniform_indices

from .scene import Scene

__all__ = [
    "FOUND",
    "INK",
    "MUTED",
    "TRUTH",
    "outline",
    "render_depth",
    "render_image",
    "render_outline",
    "render_scene",
    "shown_views",
]

FOUND, TRUTH = "#ff1f9c", "#12d6ff"  # neither is a colour of the rooms' furniture
INK, MUTED, FRAME = "#1d2433", "#667085", "#c9ced8"
DEPTH_COLOURS, NO_DEPTH = "turbo", "#9aa0aa"
MAX_COLUMNS = 6  # frames side by side; of longer videos evenly spaced ones, the first among them
SCENE_WIDTH = 10.6  # inches of all frames of a scene
LEFT, RIGHT, TOP, GAP = 1.15, 0.75, 0.3, 0.06  # inches around and between the frames of a scene

Segment = tuple[tuple[float, float], tuple[float, float]]


def outline(mask: np.ndarray) -> list[Segment]:
    """Return the border of the cells of a mask (rows, cols).

    It consists of segments ((x, y), (x, y)), with x and y from 0 to 1.
    """
    rows, cols = mask.shape
    padded = np.pad(mask, 1)
    across = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])
    along = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    segments = [((c / cols, r / rows), ((c + 1) / cols, r / rows)) for r, c in across]
    return segments + [((c / cols, r / rows), (c / cols, (r + 1) / rows)) for r, c in along]


def render_outline(
    axes: Axes, segments: Sequence[Segment], colour: str, width: float, is_dashed: bool = False
) -> None:
    """Put the border of `outline` on a picture of `render_image`."""
    if not is_dashed:  # what a dashed line runs over has an edge already
        dark = LineCollection(segments, colors="black", linewidths=width + 1.6, alpha=0.6, capstyle="projecting")
        axes.add_collection(dark)
    style, cap = ((0, (2.2, 1.6)), "butt") if is_dashed else ("solid", "projecting")
    axes.add_collection(LineCollection(segments, colors=colour, linewidths=width, linestyle=style, capstyle=cap))


def render_image(axes: Axes, image: np.ndarray, **options) -> AxesImage:
    """Show a picture on coordinates from 0 to 1, so that pictures and masks fit."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=FRAME, linewidth=0.8)
    shown = axes.imshow(image, extent=(0, 1, 1, 0), aspect="auto", **options)
    axes.set(xlim=(0, 1), ylim=(1, 0))
    return shown


def render_regions(axes: Axes, scene: Scene, view: int, width: float = 2.2) -> None:
    """Outline the true and the found region in one view.

    The line is dashed in both colours where the borders are the same.
    """
    true, found = outline(scene.true_mask[view]), outline(scene.found_mask[view])
    render_outline(axes, true, TRUTH, width)
    render_outline(axes, [segment for segment in found if segment not in true], FOUND, width)
    render_outline(axes, [segment for segment in found if segment in true], FOUND, width, is_dashed=True)


def render_depth(axes: Axes, depth: np.ndarray, limits: tuple[float, float]) -> AxesImage:
    """Show a depth map (h, w) in metres, grey where there is no measurement."""
    measured = np.ma.masked_where(~(depth > 0), depth)
    axes.set_facecolor(NO_DEPTH)
    return render_image(axes, measured, cmap=DEPTH_COLOURS, vmin=limits[0], vmax=limits[1], interpolation="nearest")


def shown_views(views: int) -> list[int]:
    """Return at most `MAX_COLUMNS` views, evenly spaced, the first among them."""
    return find_uniform_indices(views, MAX_COLUMNS).tolist()


def render_scene(scene: Scene) -> Figure:
    """Render frames with the regions, a column a frame.

    Below them, if a validator measured it, stand its depth and the true one.
    """
    views, labels = shown_views(len(scene.frames)), ["RGB"]
    if scene.predicted_depth is not None:
        labels += ["depth by the\nvalidator", "true depth"]
    height, width = scene.frames.shape[1:3]
    tile = SCENE_WIDTH / max(len(views), 4)
    tall = tile * height / width
    size = (LEFT + len(views) * (tile + GAP) + RIGHT, TOP + len(labels) * (tall + GAP))
    figure = Figure(figsize=size, dpi=120)
    limits = scene.depth_range()
    for column, view in enumerate(views):
        x = (LEFT + column * (tile + GAP)) / size[0]
        bottoms = [1 - (TOP + (row + 1) * (tall + GAP) - GAP) / size[1] for row in range(len(labels))]
        panels = [figure.add_axes((x, bottom, tile / size[0], tall / size[1])) for bottom in bottoms]
        render_image(panels[0], scene.frames[view])
        panels[0].set_title(f"frame {view + 1}", size=10, color=MUTED, pad=4)
        render_regions(panels[0], scene, view)
        if scene.predicted_depth is not None:
            render_depth(panels[1], scene.predicted_depth[view], limits)
            shown = render_depth(panels[2], scene.depth[view], limits)
        if column == 0:
            for axes, label in zip(panels, labels, strict=True):
                axes.set_ylabel(label, size=10, color=INK, rotation=0, ha="right", va="center", labelpad=8)
    if scene.predicted_depth is None:
        return figure
    bar = figure.add_axes((1 - (RIGHT - 0.06) / size[0], GAP / size[1], 0.13 / size[0], (2 * tall + GAP) / size[1]))
    figure.colorbar(shown, cax=bar, extend="max").ax.tick_params(labelsize=9, colors=INK)
    bar.set_title("m", size=9, color=MUTED, pad=10)
    return figure
