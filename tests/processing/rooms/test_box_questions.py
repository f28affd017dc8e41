"""Questions about boxes: their answers are the rooms' true boxes, in words and back in the world."""

import numpy as np
import pytest

from processing.boxes import box_iou
from processing.boxes_in_words import parse_boxes
from processing.focal_length import FOCAL_SHARE
from processing.oriented_boxes import box_in_world, enclosing_boxes, oriented_iou
from processing.rooms import load_rooms
from processing.rooms.box_questions import (
    BoxLesson,
    MeanBoxes,
    ask_boxes,
    box_sample,
    change_lens,
    pointed_outlines,
    show_room,
)
from processing.rooms.lessons import LessonSamples, take_views
from processing.token_grid import TokenGrid


@pytest.fixture(scope="module")
def rooms():
    return [dict(row) for row in load_rooms("validation", 4, image_size=64, num_frames=3, num_proc=1)]


def rng(seed=0):
    return np.random.default_rng(seed)


def world_boxes(text, row, numbers="digits"):
    poses = np.asarray(row["camera_to_world"], float)
    return [box_in_world(box, poses[box.frame]) for box in parse_boxes(text, numbers=numbers, num_frames=len(poses))]


class TestAnswers:
    @pytest.mark.parametrize(("numbers", "least"), [("digits", 0.7), ("bins", 0.2), ("tokens", 0.2)])
    def test_are_the_true_boxes(self, rooms, numbers, least):
        """But for rounding, which is much for a clock of a few centimetres."""
        overlaps = []
        for row in rooms:
            true = {o["id"]: [*o["box"], 0.0] for o in row["objects"]}
            for question in ask_boxes(row, rng(), numbers):
                found = world_boxes(question["answer"], row, numbers)
                assert len(found) == len(question["target_objects"])
                for box, n in zip(found, question["target_objects"], strict=True):
                    assert np.abs(box[:3] - true[n][:3]).max() < {"digits": 0.01}.get(numbers, 0.035)
                    overlaps.append(oriented_iou([box], [true[n]])[0, 0])
        assert np.mean(overlaps) > least and np.median(overlaps) > least + 0.1

    def test_the_frame_shows_most_of_the_object(self, rooms):
        for row in rooms:
            ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
            for question in ask_boxes(row, rng()):
                for box, n in zip(parse_boxes(question["answer"]), question["target_objects"], strict=True):
                    shown = (ids == n).sum(axis=(1, 2))
                    assert shown[box.frame] == shown.max() > 0

    def test_ask_for_one_for_several_and_for_none(self, rooms):
        numbers = [len(q["target_objects"]) for row in rooms for q in ask_boxes(row, rng())]
        assert numbers.count(1) > numbers.count(0) > 0 and max(numbers) > 1
        for row in rooms:
            objects = {o["id"]: o for o in row["objects"]}
            for question in ask_boxes(row, rng()):
                named = question["question"].lower()
                assert all(objects[n]["category"] == question["kind"] for n in question["target_objects"])
                if not question["target_objects"]:
                    assert question["answer"] == "[]"
                    assert not any(f"the {o['colour']} {o['category']}" in named for o in row["objects"])

    def test_follow_from_the_generator(self, rooms):
        assert ask_boxes(rooms[0], rng(1)) == ask_boxes(rooms[0], rng(1)) != ask_boxes(rooms[0], rng(2))

    def test_a_single_frame_is_frame_zero(self, rooms):
        row = take_views(rooms[0], [2])
        asked = ask_boxes(row, rng())
        assert {b.frame for q in asked for b in parse_boxes(q["answer"])} == {0}
        assert all(np.isfinite(world_boxes(q["answer"], row)).all() for q in asked)

    def test_a_room_that_shows_nothing_has_no_sample(self, rooms):
        empty = {**rooms[0], "instance_ids": [np.zeros((64, 64), np.uint8)] * 3}
        assert box_sample(empty, rng()) is None


class TestOutlines:
    def test_are_where_the_frame_shows_the_object(self, rooms):
        """Corners of a flat box, seen by the frame's camera, are the ends of the object in pixels."""
        count = 0
        for row in rooms:
            for question in ask_boxes(row, rng(), outlines=True):
                for box, n in zip(parse_boxes(question["answer"]), question["target_objects"], strict=True):
                    rows, columns = np.nonzero(np.asarray(row["instance_ids"][box.frame]) == n)
                    focal, _, middle = np.asarray(row["intrinsics"][box.frame])[0]
                    for axis, places in enumerate((columns, rows)):
                        ends = np.array([-0.5, 0.5]) * box.size[axis] + box.center[axis]
                        seen = focal * ends / box.center[2] + middle
                        np.testing.assert_allclose(seen, [places.min(), places.max() + 1], atol=0.5)
                        count += 1
        assert count > 20

    def test_say_nothing_of_depth(self, rooms):
        """Another depth and other poses leave questions and answers as they are."""
        row = rooms[0]
        far = {**row, "depth": [9 * np.asarray(image) for image in row["depth"]]}
        far["camera_to_world"] = np.asarray(row["camera_to_world"]) + np.eye(4, k=3) * 5
        asked = ask_boxes(row, rng(), outlines=True)
        assert asked == ask_boxes(far, rng(), outlines=True)
        assert len({box.center[2] for q in asked for box in parse_boxes(q["answer"])}) == 1

    def test_can_be_pointed_at(self, rooms):
        """Each region lies inside the outline that its question asks for, in the frame that the answer names."""
        grid = TokenGrid(64, 8, 1)
        for row in rooms:
            sample = pointed_outlines(row, grid, rng(), max_questions=5)
            assert 0 < len(sample["questions"]) == len(sample["region_references"]) <= 5
            for question, region in zip(sample["questions"], sample["region_references"], strict=True):
                assert question["question"].count("<ground>") == 1
                (box,) = parse_boxes(question["answer"])
                views, rows_, columns = np.nonzero(sample["region_masks"][region])
                assert set(views) <= {box.frame}
                focal, _, middle = np.asarray(row["intrinsics"][box.frame])[0]
                for places, axis in ((columns, 0), (rows_, 1)):
                    low, high = (box.center[axis] + side * box.size[axis] / 2 for side in (-1, 1))
                    seen = 8 * np.array([places.min() + 1, places.max()])  # pixels inside the outermost cells
                    assert (seen[0] > focal * low / 2.5 + middle - 1) and (seen[1] < focal * high / 2.5 + middle + 1)

    def test_are_asked_for_in_words_of_their_own(self, rooms):
        asked = {q["question"] for row in rooms for q in ask_boxes(row, rng(), outlines=True)}
        assert all("2D" in text for text in asked)
        assert not any("2D" in q["question"] for row in rooms for q in ask_boxes(row, rng()))


class TestLenses:
    def test_a_longer_lens_shows_the_same_points(self, rooms):
        """Depth at the middle of a pixel is where the room has it, seen through the new camera."""
        row = rooms[0]
        for seed in range(4):
            changed = change_lens(row, rng(seed))
            old, new = np.asarray(row["depth"][1]), changed["depth"][1]
            shift = np.asarray(row["intrinsics"])[1, :2, 2] - changed["intrinsics"][1, :2, 2]
            left, top = shift.round().astype(int)
            assert np.allclose(shift, [left, top])
            np.testing.assert_array_equal(new, old[top : top + new.shape[0], left : left + new.shape[1]])
            assert new.shape[1] < 64 and changed["instance_ids"][0].shape == new.shape
            assert changed["frames"][0].dtype == np.uint8 and changed["camera_to_world"] == row["camera_to_world"]

    def test_lenses_differ_squashed_and_are_one_unified(self, rooms):
        shares = {}
        for field_of_view in ("squash", "unify"):
            shown = [show_room(rooms[0], rng(s), BoxLesson("digits", "several", field_of_view)) for s in range(6)]
            shares[field_of_view] = [r["intrinsics"][0, 0, 0] / r["frames"][0].shape[1] for r in shown]
        assert np.ptp(shares["squash"]) > 0.2
        np.testing.assert_allclose(shares["unify"], FOCAL_SHARE, rtol=0.01)

    def test_answers_are_true_through_any_lens(self, rooms):
        lesson = BoxLesson(lenses="several", field_of_view="unify")
        row = show_room(rooms[1], rng(3), lesson)
        true = {o["id"]: o["box"] for o in row["objects"]}
        questions = ask_boxes(row, rng())
        assert questions
        for question in questions:
            for box, n in zip(world_boxes(question["answer"], row), question["target_objects"], strict=True):
                assert np.abs(box[:3] - true[n][:3]).max() < 0.01

    @pytest.mark.parametrize("wrong", [{"numbers": "roman"}, {"lenses": "two"}, {"field_of_view": "wide"}])
    def test_unknown_settings_are_named(self, wrong):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be one of"):
            BoxLesson(**wrong)


class TestLesson:
    @pytest.mark.parametrize(("lesson", "lenses"), [("box", "one"), ("box", "several"), ("outline", "one")])
    def test_samples_are_of_the_form_of_the_others(self, rooms, lesson, lenses):
        samples = LessonSamples(
            rooms, TokenGrid(64, 8, 1), lesson, num_passes=3, max_questions=5, boxes=BoxLesson(lenses=lenses)
        )
        counts = set()
        for index in range(len(samples)):
            sample = samples[index]
            counts.add(len(sample["frames"]))
            assert 0 < len(sample["messages"]) == len(sample["questions"]) == len(sample["mentions"]) <= 5
            assert sample["frames"].shape[:3] == sample["depth"].shape
            assert all(word_and_cells for word_and_cells in sample["mentions"])
            assert all(("2D" in q["question"]) == (lesson == "outline") for q in sample["questions"])
            for question, mentions in zip(sample["questions"], sample["mentions"], strict=True):
                (_, cells) = mentions[-1]
                assert cells.shape == (len(sample["frames"]), 8, 8)
                if not question["target_objects"]:
                    assert not cells.any()
        assert counts == {1, 2, 3}

    def test_other_lessons_draw_what_they_drew(self, rooms):
        """Their seeds do not depend on this lesson."""
        samples = LessonSamples(rooms, TokenGrid(64, 8, 1), "word")
        assert samples.lesson == "word" and "kind" not in samples[0]["questions"][0]


class TestMeanBox:
    def test_by_hand(self):
        """Two chairs, 1 m and 3 m ahead of a camera that looks along y: the mean is 2 m ahead."""
        pose = [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 1], [0, 0, 0, 1]]
        ids = np.zeros((8, 8), np.uint8)
        ids[:4, :4] = 1

        def room(y, side):
            chair = {"id": 1, "category": "chair", "colour": "red", "box": [0, y, 1, side, side, side]}
            chair |= {"center": chair["box"][:3], "size": chair["box"][3:], "place": "floor"}
            return {"objects": [chair], "instance_ids": [ids], "camera_to_world": [pose]}

        mean = MeanBoxes([room(1, 0.4), room(3, 0.6)])
        (box,) = parse_boxes(mean.answer({"kind": "chair"}))
        assert box.frame == 0 and box.center == pytest.approx((0, 0, 2)) and box.size == pytest.approx((0.5,) * 3)
        assert mean.answer({"kind": "sofa"}) == mean.answer({"kind": "chair"})
        with pytest.raises(ValueError, match="`rows` must be rooms"):
            MeanBoxes([])

    def test_is_a_weak_guess_in_rooms(self, rooms):
        mean = MeanBoxes(rooms)
        hits = []
        for row in rooms:
            true = {o["id"]: o["box"] for o in row["objects"]}
            for question in ask_boxes(row, rng()):
                if len(question["target_objects"]) == 1:
                    box = enclosing_boxes(world_boxes(mean.answer(question), row))
                    hits.append(box_iou(box, [true[question["target_objects"][0]]])[0, 0] >= 0.25)
        assert np.mean(hits) < 0.5
