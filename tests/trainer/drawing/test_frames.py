"""Regions and boxes stand on the frames where they belong, with words for those who cannot see them."""

import numpy as np
import pytest
from drawn_scenes import INTRINSICS, cuboid

from processing import TokenGrid
from trainer.drawing import Cameras, ObjectMark, WorldBox
from trainer.drawing.frames import choose_frames, describe_frame, draw_frame, draw_sheet, shorten
from trainer.drawing.spaces import PALETTE, mark_colour, text_colour


def changed(drawing, frame, width=None):
    """Pixels (h, w) of a frame that the drawing changed."""
    picture = np.asarray(draw_frame(drawing, frame, width))
    return (picture != 200).any(-1)


def test_a_region_is_tinted_in_its_cells_alone(make):
    seen = changed(make(), 0)
    assert seen[32:88, 2:38].all()  # rows 1 and 2 of 4, column 0 of 4: 30 to 90, 0 to 40
    assert not seen[95:].any() and not seen[:, 45:].any()


@pytest.mark.parametrize("cell", [(1, 0), (0, 3), (3, 3)])
def test_numbers_of_marks_at_one_place_stand_beside_each_other(make, cell):
    masks = np.zeros((3, 4, 4), bool)
    masks[(0, *cell)] = True
    picture = np.asarray(draw_frame(make(marks=[ObjectMark("x", masks)] * 3, points=None), 0, 320))
    for number in range(3):
        assert (picture == mark_colour(number)).all(-1).sum() > 80, "a number is hidden"


def test_cells_lie_on_the_pixels_that_the_model_sees(make):
    """A grid that sees 84 of 100 pixels spreads its cells over that share of the frame."""
    masks = np.zeros((3, 3, 3), bool)
    masks[0, 2, 2] = True
    grid = TokenGrid(100, 14, 2)
    assert grid.shape == (4, 4) and grid.covered_size == (98, 98)
    masks = np.zeros((3, 4, 4), bool)
    masks[0, 3, 3] = True
    rows, cols = np.nonzero(changed(make(marks=[ObjectMark("x", masks)], grid=grid), 0))
    assert rows.max() <= 120 * 0.98 + 2 and cols.max() <= 160 * 0.98 + 2 and rows.max() > 110


def test_a_box_is_drawn_in_its_own_frame_or_by_poses_in_all(make, poses):
    alone = make()
    assert [changed(alone, frame).any() for frame in range(3)] == [True, True, False]
    assert [changed(make(cameras=None), frame).any() for frame in range(3)] == [True, False, False]
    posed = make(cameras=Cameras(INTRINSICS, poses))
    rows, cols = np.nonzero(changed(posed, 2))
    # In frame 2 the box, 3 m ahead of frame 1, stands 1 m to the left: its near face spans -1.5 to -0.5 at 2.5 m.
    assert cols.min() == pytest.approx(79.5 - 60, abs=3) and cols.max() == pytest.approx(79.5 - 100 * 0.5 / 3.5, abs=3)


def test_a_box_of_the_world_is_drawn_too(make, poses):
    box = WorldBox("true", cuboid((0, 3, 0)))
    drawing = make(marks=(), boxes=[box], cameras=Cameras(INTRINSICS, poses))
    rows, cols = np.nonzero(changed(drawing, 0))
    assert cols.max() == pytest.approx(79.5 + 20, abs=3) and "1 true: box" in describe_frame(drawing, 0)


def test_words_say_what_is_marked_and_where(make):
    drawing = make(frame_names=["10", "20", "30"])
    assert describe_frame(drawing, 0) == "Frame 10: 1 the chair: region middle left."
    assert describe_frame(drawing, 1) == "Frame 20: 2 the box: box."
    assert describe_frame(drawing, 2) == "Frame 30: nothing is marked."


def test_frames_that_show_a_mark_come_first(make):
    masks = np.zeros((40, 4, 4), bool)
    masks[[7, 33], 0, 0] = True
    drawing = make(frames=np.zeros((40, 30, 40, 3), np.uint8), marks=[ObjectMark("x", masks)], cameras=None)
    assert choose_frames(drawing, 2) == [7, 33]
    nothing = make(frames=np.zeros((40, 30, 40, 3), np.uint8), marks=[], cameras=None)
    assert choose_frames(nothing, 3)[0] == 0 and choose_frames(nothing, 3)[-1] == 39


def test_a_sheet_has_frames_legend_and_the_colours_of_the_marks(make):
    sheet = np.asarray(draw_sheet(make(notes=["the lamp: no such object"], title="Küche und стул")))
    for number in (0, 1):
        assert (sheet[:130, :40] == mark_colour(number)).all(-1).any(), "the legend"
    assert sheet.shape[1] > 800


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (6, 3), (8, 4), (12, 4)])
def test_a_sheet_leaves_few_places_empty(make, count, columns):
    frames = np.full((count, 60, 60, 3), 200, np.uint8)
    sheet = draw_sheet(make(frames=frames, marks=[], cameras=None, points=None))
    assert (sheet.width - 12) // (420 + 12) == columns


def test_long_labels_are_cut_in_pictures():
    assert shorten("a\n b " * 60).endswith("…") and len(shorten("x" * 500)) == 48 and shorten("a\n b") == "a b"


def test_numbers_are_read_on_every_colour():
    """The contrast of words and ground is at least that of WCAG's level AA."""

    def luminance(colour):
        return np.dot([((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour], [0.2126, 0.7152, 0.0722])

    for number in range(len(PALETTE)):
        pair = sorted([luminance(mark_colour(number)), luminance(text_colour(number))])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5
