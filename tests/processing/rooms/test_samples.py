"""From rooms to samples: words of cells, and masks of what is pointed at."""

import numpy as np
import pytest

from processing.rooms.samples import cell_colours, cell_depth, naming_samples, room_samples, video_arrays
from processing.rooms.scene.palette import COLOURS
from processing.token_grid import TokenGrid

GRID = TokenGrid(48, 8, 1)


def shares(row: dict, number: int) -> np.ndarray:
    """Share of each cell (V, rows, cols) that an object fills."""
    ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
    side = ids.shape[1] // GRID.rows
    return (ids == number).reshape(len(ids), GRID.rows, side, GRID.cols, side).mean((2, 4))


class TestNaming:
    def test_four_lessons_over_one_video(self, rooms):
        row = rooms[0][1]
        samples = naming_samples(row, GRID)
        assert len(samples) == 4
        for sample in samples:
            assert sample["cell_words"].shape == (len(row["frames"]), *GRID.shape)
            assert sample["cell_words"].dtype.kind == "U"
            assert sample["messages"][-1] == {"role": "user", "content": [{"type": "video"}]}
            assert {"frames", "depth", "intrinsics", "camera_to_world"} <= set(sample) and "questions" not in sample

    def test_words_are_colour_depth_column_and_row(self, rooms):
        row = rooms[1][1]
        words = [sample["cell_words"] for sample in naming_samples(row, GRID)]
        depth = np.stack([np.asarray(image) for image in row["depth"]])
        side = depth.shape[1] // GRID.rows
        metres = np.minimum(np.floor(depth[:, side // 2 :: side, side // 2 :: side]), 9).astype(int).astype(str)
        assert sum(np.array_equal(named, metres) for named in words) == 1
        assert sum(set(np.unique(named)) <= {"", *COLOURS} for named in words) == 1
        assert sum((named == named[:1, :1]).all() and len(set(named[0, 0])) == GRID.cols for named in words) == 1
        assert sum((named == named[:1, :, :1]).all() and len(set(named[0, :, 0])) == GRID.rows for named in words) == 1

    def test_words_but_colours_are_one_letter_or_digit_on_fine_grids_too(self, rooms):
        for sample in naming_samples(rooms[0][1], TokenGrid(48, 2, 1)):
            words = set(np.unique(sample["cell_words"]))
            assert words <= {"", *COLOURS} or all(len(word) == 1 for word in words)


class TestCells:
    def test_colour_is_that_of_an_object_in_the_cell(self, rooms):
        filled = 0
        for _, row in rooms[:10]:
            colours = cell_colours(row, GRID)
            best, shown, large = np.zeros(colours.shape), np.zeros(colours.shape, bool), 0
            for thing in row["objects"]:
                share = shares(row, thing["id"])
                shown |= (share > 0) & (colours == thing["colour"])
                best, large = np.maximum(best, share), large + (share.max() >= 0.5)
            assert (shown | (colours == "")).all()
            assert (colours[best >= 0.5] != "").all()
            # A small object names the cell that it fills most, and no other.
            assert ((colours != "") & (best < 0.5)).sum() <= len(row["objects"]) - large
            filled += (colours != "").sum()
        assert filled > 100

    @pytest.mark.parametrize("grid", [GRID, TokenGrid(50, 7, 2), TokenGrid((40, 64), 8, 1)])
    def test_depth_is_read_at_the_middle(self, grid):
        size = 96
        v, u = np.mgrid[:size, :size] + 0.5  # what a pixel shows, in pixels of the frame
        for axis, picture in ((0, v), (1, u)):
            seen, pixels = cell_depth(picture[None], grid)
            cells = grid.shape[axis]
            at = (np.arange(cells) + 0.5) / cells * grid.covered_size[axis] / grid.image_size[axis] * size
            assert seen.shape == (1, *grid.shape) and [len(side) for side in pixels] == list(grid.shape)
            assert np.abs(np.moveaxis(seen[0], axis, 0) - at[:, None]).max() <= 0.5 + 1e-9

    def test_depth_and_pixels_agree(self, rooms):
        depth = video_arrays(rooms[0][1])["depth"]
        seen, (v, u) = cell_depth(depth, GRID)
        assert np.array_equal(seen[1, 2, 3], depth[1, v[2], u[3]])


class TestPointed:
    def test_a_cell_is_mostly_the_object_if_there_is_such_a_cell(self, rooms):
        strict = 0
        for _, row in rooms[:10]:
            sample = room_samples(row, GRID, reference="region", types=("distance", "colour"))[0]
            for number, mask in zip(sample["object_ids"].tolist(), sample["region_masks"], strict=True):
                share = shares(row, number)[0]
                assert not mask[1:].any()
                if share.max() >= 0.5:
                    strict += 1
                    assert np.array_equal(mask[0], share >= 0.5)
                elif share.any():
                    assert mask[0].sum() == 1 and share[mask[0]] == share.max()
                else:
                    assert not mask.any()
        assert strict > 10

    def test_all_frames_where_asked_for(self, rooms):
        row = rooms[0][1]
        first, every = (
            room_samples(row, GRID, reference="region", types=("distance",), first_frame_only=only)[0]["region_masks"]
            for only in (True, False)
        )
        assert every[:, 1:].any() and not first[:, 1:].any()

    def test_grounding_candidates_keep_the_share_of_the_benchmarks(self, rooms):
        row = rooms[0][1]
        sample = room_samples(row, GRID, types=("grounding",), max_questions=1)[0]
        for number, mask in zip(sample["object_ids"].tolist(), sample["region_masks"], strict=True):
            share = shares(row, number)
            if share.max() >= 0.125:
                assert np.array_equal(mask, share >= 0.125)
