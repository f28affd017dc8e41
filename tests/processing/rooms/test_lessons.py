"""Samples drawn anew: what they ask is true of the frames they show, and follows from seed and index alone."""

from typing import get_args

import numpy as np
import pytest

from processing.boxes_in_words import parse_boxes
from processing.rooms import load_rooms
from processing.rooms.box_questions import ask_boxes
from processing.rooms.lessons import (
    Lesson,
    LessonSamples,
    draw_evenly,
    find_mentions,
    mention_masks,
    retake_room,
    say_otherwise,
)
from processing.rooms.samples import naming_sample
from processing.token_grid import TokenGrid

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
            assert not sample["region_masks"][-1].any() and not sample["region_targets"][:, -2].any()  # seen nowhere
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


def test_naming_leaves_depth_out_where_geometry_terms_alone_shall_teach_it(rooms):
    row = rooms[0]
    for depth in (True, False):
        rngs = map(np.random.default_rng, range(24))
        drawn = [naming_sample(row, GRID, rng, depth=depth)["cell_words"] for rng in rngs]
        assert any(word.isdigit() for words in drawn for word in np.unique(words)) == depth
        said = [lessons(rooms, "naming", num_passes=8, naming_depth=depth)[index]["cell_words"] for index in range(32)]
        assert any(word.isdigit() for words in said for word in np.unique(words)) == depth
    with pytest.raises(TypeError, match="naming_depth"):
        lessons(rooms, "naming", naming_depth="no")


def test_words_look_at_an_object_in_the_frame_that_its_box_is_said_in(rooms):
    counts = []
    for row in rooms:
        asked = {**row, "questions": ask_boxes(row, np.random.default_rng(0))}
        ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
        kinds = sorted({thing["category"] for thing in row["objects"]})
        for question, mentions in zip(asked["questions"], mention_masks(asked, GRID, kinds), strict=True):
            boxes = parse_boxes(question["answer"])
            ((_, cells),) = mentions
            assert set(cells.any(axis=(1, 2)).nonzero()[0]) == {box.frame for box in boxes}
            for v, r, c in np.argwhere(cells):
                here = {n for n, box in zip(question["target_objects"], boxes, strict=True) if box.frame == v}
                assert here & set(np.unique(ids[v, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8]))
            counts.append(len(boxes))
    assert {0, 1} <= set(counts) and max(counts) > 1


def test_types_are_drawn_evenly():
    questions = [{"type": kind, "n": n} for kind, count in (("a", 9), ("b", 2), ("c", 5)) for n in range(count)]
    drawn = draw_evenly(questions, 8, np.random.default_rng(0))
    counts = {kind: sum(q["type"] == kind for q in drawn) for kind in "abc"}
    assert counts == {"a": 3, "b": 2, "c": 3}
    assert len({(q["type"], q["n"]) for q in drawn}) == 8
    assert len(draw_evenly(questions, 100, np.random.default_rng(0))) == 16


class TestMentions:
    OBJECTS = [
        {"id": 1, "category": "chair", "colour": "red"},
        {"id": 2, "category": "chair", "colour": "blue"},
        {"id": 3, "category": "shelf", "colour": "red"},
        {"id": 4, "category": "plant", "colour": "red"},
        {"id": 5, "category": "armchair", "colour": "blue"},
    ]
    KINDS = ("armchair", "chair", "plant", "shelf", "sofa")

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("Is the red chair left of the shelf?", [("chair", [1]), ("shelf", [3])]),
            ("Of the blue chair and the blue armchair, which is taller?", [("chair", [2]), ("armchair", [5])]),
            ("How many chairs are there?", [("chairs", [1, 2])]),
            ("Show all shelves.", [("shelves", [3])]),
            ("Find all red things.", [("red", [1, 3])]),
            ("Where is the plant in meters?", [("plant", [4])]),
            ("Is there a green chair in the room?", [("chair", [])]),
            ("Can you see a sofa?", [("sofa", [])]),
            ("What can you see?", []),
        ],
    )
    def test_words(self, text, found):
        assert find_mentions(text, self.OBJECTS, self.KINDS) == found

    def test_questions_name_what_they_are_about(self, rooms):
        for row in rooms:
            asked = [q for q in row["questions"] if q["reference"] == "word" and q["hint_objects"]]
            assert asked
            for question in asked:
                found = find_mentions(question["question"], row["objects"], [t["category"] for t in row["objects"]])
                assert sorted(n for _, ids in found for n in ids) == sorted(question["hint_objects"])

    def test_cells_show_what_is_named(self, rooms):
        row = rooms[0]
        ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
        blocks = ids.reshape(len(ids), 8, 8, 8, 8).swapaxes(2, 3)
        kinds = [thing["category"] for thing in row["objects"]]
        masks = mention_masks(row, GRID, kinds)
        assert len(masks) == len(row["questions"])
        later = 0
        for question, entries in zip(row["questions"], masks, strict=True):
            found = find_mentions(question["question"], row["objects"], kinds)
            assert [word for word, _ in entries] == [word for word, _ in found]
            for (_, objects), (_, cells) in zip(found, entries, strict=True):
                assert all(np.isin(block, objects).any() for block in blocks[cells])
                if question["hint_objects"]:
                    assert cells[0].any() and not cells[1:].any()  # what is asked about is shown by the first frame
                later += cells[1:].any()
        assert later

    def test_samples_in_words_have_them(self, rooms):
        for lesson in ("word", "view"):
            sample = lessons(rooms, lesson)[0]
            assert len(sample["mentions"]) == len(sample["messages"])
            assert all(cells.shape == (len(sample["frames"]), 8, 8) for m in sample["mentions"] for _, cells in m)
        assert "mentions" not in lessons(rooms, "region")[0]


class TestOtherWords:
    def test_keep_what_is_named_and_in_which_order_it_is_asked(self, rooms):
        rng = np.random.default_rng(0)
        changed = set()
        for row in rooms:
            kinds = [thing["category"] for thing in row["objects"]]
            for question in row["questions"]:
                if question["reference"] != "word" or question["type"] == "description":
                    continue
                text = say_otherwise(question["question"], rng)
                assert text != question["question"]
                changed.add(question["type"])
                named = [sorted(find_mentions(words, row["objects"], kinds)) for words in (text, question["question"])]
                assert named[0] == named[1]
                if question["type"] in ("closer", "size"):  # the first and the second are those of the text
                    named = [find_mentions(words, row["objects"], kinds) for words in (text, question["question"])]
                    assert named[0] == named[1]
        assert {"closer", "direction", "distance", "colour", "existence", "grounding"} <= changed

    def test_sides_are_asked_of_the_same_object(self):
        rng = np.random.default_rng(0)
        asked = "On which side of the red bed is the blue lamp, left or right?"
        texts = {say_otherwise(asked, rng) for _ in range(30)}
        assert len(texts) == 3
        for text in texts:
            assert "the blue lamp left" in text or "the blue lamp right" in text or "is the blue lamp on?" in text

    def test_what_no_template_says_stays(self):
        assert say_otherwise("Who lives here?", np.random.default_rng(0)) == "Who lives here?"

    def test_some_questions_are_asked_otherwise(self, rooms):
        known = [q["question"] for q in rooms[0]["questions"]]
        asked = [q["question"] for index in range(4) for q in lessons(rooms)[index]["questions"]]
        odd = [
            text
            for text in asked
            if text.startswith(("How far away", "Which is nearer", "Do you see", "What color", "Show me", "Locate"))
        ]
        assert known and odd and len(odd) < len(asked) / 2
