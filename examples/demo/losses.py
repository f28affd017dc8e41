"""Plot how the losses of a training fell."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from .pictures import FRAME, INK, MUTED

__all__ = ["plot_losses"]

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


def plot_losses(history: Sequence[Mapping[str, float]]) -> Figure:
    """Plot each logged component of the training loss.

    The scale is logarithmic where a component falls far.

    Args:
        history: Entries of the trainer's log.

    Raises:
        ValueError: If nothing was logged.
    """
    curves = {
        key: np.array(
            [(entry["step"], entry[key]) for entry in history if "step" in entry and entry.get(key) is not None], float
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
    for number, (key, points) in enumerate(curves.items()):
        plot_curve(figure.add_subplot(rows, columns, number + 1), LOSS_TITLES[key], points)
    return figure


def plot_curve(axes: Axes, title: str, points: np.ndarray) -> None:
    """Plot one component: points (N, 2) of step and value, and their running mean."""
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
    axes.set_title(f"{title}  {smooth[-1]:#.3g}", size=10, color=INK, loc="left")
    axes.tick_params(labelsize=8, colors=MUTED, which="both")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(color="#e6e9ef", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FRAME)
