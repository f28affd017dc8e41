"""Marks of a person: the cells that they cover, and what cannot be marked."""

import numpy as np
import pytest

from processing.proposals import Mark
from processing.token_grid import TokenGrid

GRID = TokenGrid(64, 8, 1)
SIZE = (480, 640)  # a cell is 60 px high and 80 px wide


@pytest.mark.parametrize(
    ("point", "cell"), [((0, 0), (0, 0)), ((81, 59), (0, 1)), ((79, 61), (1, 0)), ((640, 480), (7, 7))]
)
def test_a_click_marks_the_cell_that_holds_it(point, cell):
    cells = Mark(1, SIZE, point=point).to_cells(GRID, 4)
    assert cells.sum() == 1 and cells[cell]


def test_a_box_marks_the_cells_that_it_covers():
    cells = Mark(0, SIZE, box=(80, 60, 240, 120)).to_cells(GRID, 1)
    assert np.argwhere(cells).tolist() == [[1, 1], [1, 2]]


def test_a_mask_marks_the_cells_that_it_fills():
    mask = np.zeros(SIZE, bool)
    mask[:60, 560:] = True
    assert np.argwhere(Mark(0, mask=mask).to_cells(GRID, 1)).tolist() == [[0, 7]]


def test_the_edge_that_the_tower_does_not_see_is_told():
    with pytest.raises(ValueError, match="does not see"):
        Mark(0, (384, 384), point=(383, 10)).to_cells(TokenGrid(384, 14, 2), 1)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({}, ValueError, "one of"),
        ({"point": (1, 1), "box": (0, 0, 5, 5)}, ValueError, "point and box"),
        ({"point": (641, 10)}, ValueError, "outside of the frame"),
        ({"point": (-1, 10)}, ValueError, "outside of the frame"),
        ({"point": (float("nan"), 10)}, ValueError, "finite"),
        ({"point": (1, 2, 3)}, TypeError, "2 numbers"),
        ({"point": "xy"}, TypeError, "2 numbers"),
        ({"box": (10, 10, 10, 20)}, ValueError, "with an area"),
        ({"box": (10, 10, 700, 20)}, ValueError, "outside of the frame"),
        ({"mask": np.zeros(SIZE, bool)}, ValueError, "no pixel"),
        ({"mask": np.zeros(SIZE)}, TypeError, "bool array"),
        ({"mask": np.ones((9, 9), bool)}, ValueError, "frame_size"),
        ({"point": (1, 1), "frame_size": None}, TypeError, "frame_size"),
        ({"point": (1, 1), "frame_size": (0, 4)}, ValueError, "frame_size"),
        ({"point": (1, 1), "frame": "first"}, TypeError, "index of a frame"),
    ],
)
def test_marks_that_mark_nothing_are_named(fields, error, words):
    with pytest.raises(error, match=words):
        Mark(**{"frame": 0, "frame_size": SIZE, **fields})


def test_a_frame_that_is_not_shown_is_named():
    with pytest.raises(ValueError, match="one of the 4 frames"):
        Mark(4, SIZE, point=(1, 1)).to_cells(GRID, 4)
