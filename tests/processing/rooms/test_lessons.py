"""Samples drawn anew: what they ask is true of the frames they show, and follows from seed and index alone."""

from typing import get_args

import numpy as np
import pytest

from processing.regions import TokenGrid
from processing.rooms import load_rooms
from processing.rooms.lessons import Lesson, LessonSamples, draw_evenly, retake_room
from processing.rooms.samples import naming_sample

GRID = TokenGrid(64, 8, 1)


@pytest.fixture(scope="module")
def rooms():
    return [dict(row) for row in load_rooms("validation", 4, image_size=64, num_frames=3, num_proc=1)]


def lessons(rooms, lesson="word", **options):
    return LessonSamples(rooms, GRID, lesson, **options)


class TestRetake:
    def test_distances_are_those_from_the_first_frame_that_is_shown(self, rooms):
        for row in rooms:
            retaken = retake_room(row, [2, 1], np.random.default_rng(0))
            assert len(retaken["frames"]) == len(retaken["depth"]) == 2
            pose = np.array(row["camera_to_world"][2])
            centers = {thing["id"]: np.array(thing["center"]) for thing in row["objects"]}
            asked = [q for q in retaken["questions"] if q["type"] == "distance"]
            assert asked
            for question in asked:
                distance = np.linalg.norm(centers[question["hint_objects"][0]] - pose[:3, 3])
                assert question["value"][0] == pytest.approx(distance, abs=1e-3)

    def test_backwards_swaps_sides_where_the_camera_does(self, rooms):
        """Sides are read off the columns of the frame that comes first."""
        row = rooms[0]
        for views in ([0], [2]):
            ids = np.asarray(row["instance_ids"][views[0]])
            column = {n: np.nonzero(ids == n)[1].mean() for n in np.unique(ids[ids > 0])}
            for question in retake_room(row, views, np.random.default_rng(1))["questions"]:
                if question["type"] == "direction":
                    one, two = question["hint_objects"]
                    assert question["answer"] == ("left" if column[one] < column[two] else "right")

    def test_counts_what_these_frames_show(self, rooms):
        for row in rooms:
            for question in retake_room(row, [1], np.random.default_rng(0))["questions"]:
                if question["type"] == "counting":
                    ids = np.asarray(row["instance_ids"][1])
                    kinds = [
                        t for t in row["objects"] if t["category"] in question["question"].replace("shelve", "shelf")
                    ]
                    shown = sum((ids == thing["id"]).mean() >= 0.004 for thing in kinds)
                    assert int(question["answer"]) == shown


class TestSamples:
    @pytest.mark.parametrize("lesson", get_args(Lesson))
    def test_follow_from_seed_and_index(self, rooms, lesson):
        one, again, other = (lessons(rooms, lesson, num_passes=3, seed=seed)[5] for seed in (0, 0, 1))
        assert one["messages"] == again["messages"]
        words = [str(s.get("cell_words", s["messages"])) for s in (one, again, other)]
        assert words[0] == words[1] != words[2]

    def test_a_room_is_asked_other_things_at_the_next_visit(self, rooms):
        drawn = lessons(rooms, num_passes=2)
        assert len(drawn) == 8
        assert drawn[0]["scene_id"] == drawn[4]["scene_id"] and drawn[0]["messages"] != drawn[4]["messages"]

    def test_frames(self, rooms):
        assert all(len(lessons(rooms, lesson)[0]["frames"]) == 1 for lesson in ("place", "view"))
        assert all(len(lessons(rooms, lesson)[0]["frames"]) == 3 for lesson in ("naming", "region", "word"))

    def test_words_name_and_regions_point(self, rooms):
        asked = {
            lesson: [q for i in range(4) for q in lessons(rooms, lesson)[i]["questions"]]
            for lesson in ("word", "region")
        }
        for reference, questions in asked.items():
            assert {q["reference"] for q in questions} == {reference}
            assert "description" not in {q["type"] for q in questions}
        assert {"existence", "colour", "direction", "grounding"} <= {q["type"] for q in asked["word"]}

    def test_requests_have_a_row_of_targets_each(self, rooms):
        for index in range(4):
            sample = lessons(rooms)[index]
            requests = [q for q in sample["questions"] if q["type"] == "grounding"]
            assert sample["region_targets"].shape == (len(requests), len(sample["object_ids"]) + 1)
            for row, question in zip(sample["region_targets"], requests, strict=True):
                assert set(sample["object_ids"][row[:-1]]) <= set(question["target_objects"])
                assert row[-1] == (not row[:-1].any())

    def test_a_reader_beyond_the_end(self, rooms):
        with pytest.raises(IndexError, match="There are 4 samples, got index 4"):
            lessons(rooms)[4]

    def test_rooms_that_show_nothing(self, rooms):
        bare = [np.zeros((64, 64), np.uint8)] * 3
        empty = [{**rooms[0], "objects": [], "questions": [], "instance_ids": bare}]
        with pytest.raises(ValueError, match="No question of the lesson 'region' fits any of 1 rooms"):
            lessons(empty, "region")[0]

    def test_unknown_lesson(self, rooms):
        with pytest.raises(ValueError, match="lesson must be one of"):
            lessons(rooms, "words")


def test_naming_says_what_a_cell_shows(rooms):
    row, seen = rooms[0], set()
    ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
    by_id = {thing["id"]: thing for thing in row["objects"]}
    for seed in range(24):
        words = naming_sample(row, GRID, np.random.default_rng(seed))["cell_words"]
        spoken = {word for word in np.unique(words) if word.startswith(" ")}
        seen |= spoken
        for word in spoken:
            v, r, c = np.argwhere(words == word)[0]
            inside = set(np.unique(ids[v, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8])) - {0}
            names = {name for n in inside for name in (by_id[n]["colour"], by_id[n]["category"])}
            assert any(word.strip().startswith(name[:-1]) for name in names), word
    assert {f" {thing['colour']}" for thing in row["objects"]} & seen
    assert {f" {thing['category']}" for thing in row["objects"]} & seen


def test_types_are_drawn_evenly():
    questions = [{"type": kind, "n": n} for kind, count in (("a", 9), ("b", 2), ("c", 5)) for n in range(count)]
    drawn = draw_evenly(questions, 8, np.random.default_rng(0))
    counts = {kind: sum(q["type"] == kind for q in drawn) for kind in "abc"}
    assert counts == {"a": 3, "b": 2, "c": 3}
    assert len({(q["type"], q["n"]) for q in drawn}) == 8
    assert len(draw_evenly(questions, 100, np.random.default_rng(0))) == 16
