"""Questions about places: one cell of the first frame each, and answers that depth and ids bear out."""

from collections import Counter

import numpy as np
import pytest

from processing.rooms import score_answer
from processing.rooms.places import place_sample
from processing.rooms.samples import cell_colours
from processing.token_grid import TokenGrid

GRIDS = [TokenGrid(48, 8, 1), TokenGrid(50, 7, 2)]  # the second leaves pixels out and pools


def questions_with_cells(sample: dict):
    """Pairs of a question and the cells (row, column) of its `<ground>` tokens."""
    cells = [tuple(np.argwhere(mask[0])[0]) for mask in sample["region_masks"]]
    references = iter(sample["region_references"].tolist())
    return [
        (entry, [cells[next(references)] for _ in range(entry["question"].count("<ground>"))])
        for entry in sample["questions"]
    ]


def point(row: dict, grid: TokenGrid, cell: tuple[int, int]) -> np.ndarray:
    """What the first frame shows in the middle of a cell, by the ray through that pixel."""
    depth, camera = np.asarray(row["depth"][0], np.float64), np.asarray(row["intrinsics"][0], np.float64)
    v, u = (
        int((index + 0.5) / cells * covered / full * length)
        for index, cells, covered, full, length in zip(
            cell, grid.shape, grid.covered_size, grid.image_size, depth.shape, strict=True
        )
    )
    z = depth[v, u]
    return np.array([(u - camera[0, 2]) / camera[0, 0] * z, (v - camera[1, 2]) / camera[1, 1] * z, z])


@pytest.mark.parametrize("grid", GRIDS)
def test_every_ground_token_is_one_cell_of_the_first_frame(rooms, grid):
    sample = place_sample(rooms[0][1], grid, np.random.default_rng(0), 11)
    masks = sample["region_masks"]
    assert len(sample["messages"]) == len(sample["questions"]) == 11
    assert masks.shape == (len(masks), len(sample["frames"]), *grid.shape) and masks.dtype == bool
    assert (masks[:, 0].sum((1, 2)) == 1).all() and not masks[:, 1:].any()
    tokens = sum(entry["question"].count("<ground>") for entry in sample["questions"])
    assert len(masks) == tokens and sample["region_references"].tolist() == list(range(tokens))
    for entry, chat in zip(sample["questions"], sample["messages"], strict=True):
        assert chat[0]["content"][-1]["text"] == entry["question"] and entry["question"][0].isupper()
        assert chat[1]["content"][0]["text"] == entry["answer"]


@pytest.mark.parametrize("grid", GRIDS)
def test_answers_agree_with_depth_and_ids(rooms, grid):
    kinds = Counter()
    for _, row in rooms[:8]:
        colours = cell_colours(row, grid)[0]
        for entry, cells in questions_with_cells(place_sample(row, grid, np.random.default_rng(1), 20)):
            points = [point(row, grid, cell) for cell in cells]
            kinds[entry["type"]] += 1
            assert score_answer(entry, entry["answer"])
            if entry["type"] == "distance":
                np.testing.assert_allclose(entry["value"], [np.linalg.norm(points[0])], rtol=1e-4)
            elif entry["type"] == "position":
                np.testing.assert_allclose(entry["value"], points[0], rtol=1e-4, atol=1e-5)
            elif entry["type"] == "closer":
                near, far = map(np.linalg.norm, points)
                assert entry["answer"] == ("the first" if near < far else "the second")
            elif entry["type"] == "colour":
                assert entry["answer"] == colours[cells[0]] != ""
    assert set(kinds) == {"distance", "position", "closer", "direction", "colour"}
    assert max(kinds.values()) - min(kinds.values()) <= 8  # in turn: at most one more a room


def test_left_and_right_are_of_the_place_that_the_question_is_about(rooms, monkeypatch):
    grid, row = GRIDS[0], rooms[0][1]
    for wording, subject in (("Is {a} left or right of {b}?", 0), ("Seen from {b}, is {a} left or right?", 1)):
        monkeypatch.setitem(place_sample.__globals__["TEMPLATES"], "direction", (wording,))
        sample = place_sample(row, grid, np.random.default_rng(2), 40)
        asked = [(e, cells) for e, cells in questions_with_cells(sample) if e["type"] == "direction"]
        assert {entry["answer"] for entry, _ in asked} == {"left", "right"}
        for entry, cells in asked:
            assert abs(cells[0][1] - cells[1][1]) >= 2
            assert (entry["answer"] == "left") == (cells[subject][1] < cells[1 - subject][1])


def test_pairs_differ_clearly_in_distance(rooms):
    grid, row = GRIDS[0], rooms[3][1]
    for entry, cells in questions_with_cells(place_sample(row, grid, np.random.default_rng(3), 40)):
        if entry["type"] == "closer":
            near, far = sorted(np.linalg.norm(point(row, grid, cell)) for cell in cells)
            assert far >= 1.149 * near


def test_no_colour_is_asked_where_nothing_has_one(rooms):
    bare = {**rooms[0][1], "objects": []}
    sample = place_sample(bare, GRIDS[0], np.random.default_rng(0), 16)
    assert Counter(entry["type"] for entry in sample["questions"]) == dict.fromkeys(
        ("distance", "position", "closer", "direction"), 4
    )


def test_the_generator_alone_decides(rooms):
    row = rooms[0][1]
    first, again, other = (place_sample(row, GRIDS[0], np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first["questions"] == again["questions"] != other["questions"]
    assert np.array_equal(first["region_masks"], again["region_masks"])


def test_one_frame_alone(rooms):
    row = rooms[0][1]
    turned = {
        key: [value[1]] if key in ("frames", "depth", "instance_ids", "intrinsics", "camera_to_world") else value
        for key, value in row.items()
    }
    sample = place_sample(row, GRIDS[0], np.random.default_rng(0), 15, view=1)
    assert sample["region_masks"].shape[1] == len(sample["frames"]) == len(sample["depth"]) == 1
    assert np.array_equal(sample["frames"][0], np.asarray(row["frames"][1]))
    for entry, cells in questions_with_cells(sample):
        if entry["type"] == "position":
            np.testing.assert_allclose(entry["value"], point(turned, GRIDS[0], cells[0]), rtol=1e-4, atol=1e-5)
