"""Marks of a person in one frame, a point, a box or a mask, on the token grid."""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

from processing.regions import regions_from_boxes_2d, regions_from_masks
from processing.token_grid import TokenGrid

__all__ = ["Mark"]


@dataclass(frozen=True)
class Mark:
    """A mark in one frame; exactly one of point, box and mask.

    Args:
        frame: Index among the frames that the model sees, 0 for the first.
        frame_size: Height and width of that frame in pixels; of a mask its own shape is the default.
        point: Click (x, y) in pixels between pixel edges: (0, 0) is the top-left corner, (w, h) the bottom-right.
        box: Box (left, top, right, bottom) in pixels between pixel edges.
        mask: Pixels of the object, bool (h, w).

    Raises:
        TypeError: If a part is of another type.
        ValueError: If none or several of the three are given, the mark lies outside of the frame, or is empty.
    """

    frame: int
    frame_size: tuple[int, int] | None = None
    point: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("point", "box", "mask") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"A mark is one of `point`, `box` and `mask`, got {' and '.join(given) or 'none'}.")
        if isinstance(self.frame, bool) or not isinstance(self.frame, Integral):
            raise TypeError(f"`frame` must be the index of a frame, got {self.frame!r}.")
        if self.mask is not None:
            self._check_mask()
        else:
            _check_numbers("frame_size", self.frame_size, 2)
            if not all(isinstance(side, Integral) and side >= 1 for side in self.frame_size):
                raise ValueError(f"`frame_size` must be (height, width) in whole pixels, got {self.frame_size}.")
            self._check_inside()

    def _check_mask(self) -> None:
        if not isinstance(self.mask, np.ndarray) or self.mask.dtype != bool or self.mask.ndim != 2:
            kind = f"{getattr(self.mask, 'dtype', type(self.mask).__name__)} {getattr(self.mask, 'shape', '')}"
            raise TypeError(f"`mask` must be a bool array (h, w), got {kind.strip()}.")
        if self.frame_size is not None and tuple(self.frame_size) != self.mask.shape:
            raise ValueError(f"`frame_size` {tuple(self.frame_size)} is not the shape of `mask`, {self.mask.shape}.")
        if not self.mask.any():
            raise ValueError("`mask` marks no pixel. Mark at least one.")

    def _check_inside(self) -> None:
        height, width = self.frame_size
        name = "point" if self.point is not None else "box"
        values = getattr(self, name)
        _check_numbers(name, values, 2 if name == "point" else 4)
        xs, ys = values[::2], values[1::2]
        if not (all(0 <= x <= width for x in xs) and all(0 <= y <= height for y in ys)):
            raise ValueError(
                f"`{name}` {tuple(values)} lies outside of the frame, {width} px wide and {height} px high."
            )
        if name == "box" and not (xs[0] < xs[1] and ys[0] < ys[1]):
            raise ValueError(f"`box` must be (left, top, right, bottom) with an area, got {tuple(values)}.")

    def to_cells(self, grid: TokenGrid, num_frames: int) -> np.ndarray:
        """Return the cells (rows, cols), bool, that the mark covers.

        Args:
            grid: Token grid of the model.
            num_frames: Frames that the model sees.

        Raises:
            ValueError: If there is no such frame, the model sees no cell of the mark, or a mask is coarser than the
                grid.
        """
        if not 0 <= self.frame < num_frames:
            raise ValueError(f"`frame` must be the index of one of the {num_frames} frames shown, got {self.frame}.")
        if self.mask is not None:
            cells = regions_from_masks(torch.from_numpy(self.mask[None]), grid)[0, 0]
        elif self.box is not None:
            cells = regions_from_boxes_2d(torch.tensor([self.box]), self.frame_size, grid)[0, 0]
        else:
            cells = self._cell_of_point(grid)
        if not cells.any():
            seen = " x ".join(
                f"{side / full:.1%}" for side, full in zip(grid.covered_size, grid.image_size, strict=True)
            )
            raise ValueError(
                f"The mark lies at the edge that the vision tower does not see: it sees {seen} of a frame."
            )
        return cells.numpy()

    def _cell_of_point(self, grid: TokenGrid) -> torch.Tensor:
        """Return the cell that holds the point; the frame's edge belongs to its last pixel."""
        cells = torch.zeros(grid.shape, dtype=torch.bool)
        (x, y), (height, width) = self.point, self.frame_size
        v = min(y, height - 0.5) * grid.image_size[0] / height - 0.5
        u = min(x, width - 0.5) * grid.image_size[1] / width - 0.5
        row, col = grid.locate(torch.tensor(v, dtype=torch.float64), torch.tensor(u, dtype=torch.float64))
        if row >= 0 and col >= 0:
            cells[row, col] = True
        return cells


def _check_numbers(name: str, values: Any, count: int) -> None:
    """Raise TypeError or ValueError unless `values` are `count` finite numbers."""
    is_list = isinstance(values, (tuple, list)) and len(values) == count
    if not is_list or not all(isinstance(value, Real) and not isinstance(value, bool) for value in values):
        raise TypeError(f"`{name}` must be {count} numbers, got {values!r}.")
    if not all(np.isfinite(value) for value in values):
        raise ValueError(f"`{name}` must be finite numbers, got {tuple(values)}.")
