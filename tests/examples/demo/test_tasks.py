"""What the stranger gets, and scores that mean something."""

import json

import numpy as np
import pytest

from examples.demo import tasks as tasks_module
from processing.rooms import load_rooms
from processing.token_grid import TokenGrid

GRID = TokenGrid(32, 8, 1)


@pytest.fixture
def rooms() -> list[dict]:
    return list(load_rooms("test", 3, image_size=32, num_frames=2))


class TestTasks:
    def test_what_the_stranger_gets_tells_no_answer_and_no_geometry(self, rooms, tmp_path):
        tasks = tasks_module.write_tasks(rooms, GRID, tmp_path / "inputs")
        given = json.loads((tmp_path / "inputs" / "tasks.json").read_text())
        assert given == [entry["task"] for entry in tasks] and len(given) == len(rooms)
        for scene in given:
            assert set(scene) == {"name", "video", "questions", "requests"}
            assert all(set(item) == {"id", "text"} for item in [*scene["questions"], *scene["requests"]])
            assert not any("<ground>" in item["text"] for item in scene["questions"])
            arrays = np.load(tmp_path / "inputs" / f"{scene['name']}.npz")
            assert {name: arrays[name].dtype for name in arrays} == {"candidates": bool}
        kinds = {file.suffix for file in (tmp_path / "inputs").rglob("*") if file.is_file()}
        assert kinds <= {".mp4", ".png", ".npz", ".json"}

    def test_all_questions_in_words_are_asked_but_descriptions(self, rooms, tmp_path):
        tasks = tasks_module.write_tasks(rooms, GRID, tmp_path / "inputs")
        for room, entry in zip(rooms, tasks, strict=True):
            words = [q for q in room["questions"] if q["reference"] == "word" and q["type"] != "description"]
            texts = [item["text"] for item in [*entry["task"]["questions"], *entry["task"]["requests"]]]
            assert sorted(texts) == sorted(q["question"] for q in words)

    def test_first_scenes_are_videos_and_the_rest_pictures(self, rooms, tmp_path, monkeypatch):
        monkeypatch.setattr(tasks_module, "NUM_VIDEOS", 1)
        rooms = [{**rooms[0], "questions": []}, *rooms[1:]]  # a room without questions is passed over
        tasks = tasks_module.write_tasks(rooms, GRID, tmp_path / "inputs")
        videos = [tmp_path / "inputs" / entry["task"]["video"] for entry in tasks]
        assert len(videos) == 2 and videos[0].suffix == ".mp4"
        assert [file.name for file in sorted(videos[1].iterdir())] == ["0000.png", "0001.png"]


def truthful(tasks: list[dict]) -> list[dict]:
    """Answers of somebody who knows."""
    answers = []
    for entry in tasks:
        answers += [{"id": key, "answer": question["answer"]} for key, question in entry["questions"].items()]
        answers += [
            {"id": key, "choice": int(np.argmax(sample["region_targets"]))}
            for key, sample in entry["requests"].items()
        ]
    return answers


def spoil(tasks: list[dict], answers: list[dict], kind: str) -> list[dict]:
    """The same answers, but for those to one type of question and all choices."""
    types = {key: question["type"] for entry in tasks for key, question in entry["questions"].items()}
    targets = {key: sample["region_targets"] for entry in tasks for key, sample in entry["requests"].items()}
    return [
        {"id": key, "choice": int(np.argmin(targets[key]))}
        if (key := answer["id"]) in targets
        else ({**answer, "answer": "no idea"} if types[key] == kind else answer)
        for answer in answers
    ]


class TestScores:
    @pytest.fixture
    def table(self) -> list[dict]:
        names = {"majority": 0.5, "text": 0.25, "mean_row": None, "bottom_row": None}
        named = [{"type": kind, "reference": "word", "number": 9, **names} for kind in tasks_module.QUESTION_TYPES]
        return [*named, *({**row, "reference": "region", "majority": 0.75} for row in named)]

    @pytest.fixture
    def asked(self, rooms, tmp_path):
        return tasks_module.write_tasks(rooms, GRID, tmp_path / "inputs")

    def test_truth_scores_one_beside_the_baselines_of_words(self, asked, table):
        hits = {"model": tasks_module.mark_answers(asked, truthful(asked))}
        scores, grounding = tasks_module.score_table(hits, table), tasks_module.score_grounding(asked, hits)
        assert scores and all(row["model"] == 1.0 and row["majority"] == 0.5 for row in scores)
        assert sum(row["n"] for row in scores) == sum(len(entry["task"]["questions"]) for entry in asked)
        assert grounding["model"] == 1.0 and 0 < grounding["chance"] < 1
        assert grounding["n"] == sum(len(entry["task"]["requests"]) for entry in asked)

    def test_wrong_answers_count_by_type_and_model(self, asked, table):
        right = truthful(asked)
        wrong = spoil(asked, right, "distance")
        hits = {name: tasks_module.mark_answers(asked, said) for name, said in (("before", wrong), ("after", right))}
        rows = {row["type"]: row for row in tasks_module.score_table(hits, table)}
        assert rows["distance"]["before"] == 0 and rows["distance"]["after"] == 1 and rows["distance"]["n"] > 0
        assert all(row["before"] == row["after"] == 1 for kind, row in rows.items() if kind != "distance")
        grounding = tasks_module.score_grounding(asked, hits)
        assert grounding["before"] == 0 and grounding["after"] == 1

    def test_gain_is_a_mean_over_types_with_the_error_of_pairs(self):
        before = {"counting": np.array([0, 0, 1, 1], bool), "closer": np.ones(10, bool), "grounding": np.ones(3, bool)}
        after = {"counting": np.array([1, 0, 1, 1], bool), "closer": np.ones(10, bool), "grounding": np.zeros(3, bool)}
        mean = tasks_module.mean_gain(before, after)
        assert (mean["before"], mean["after"], mean["gain"]) == (0.75, 0.875, 0.125)
        # One of four pairs gained one: variance 3/16, over four questions, halved by the mean over two types.
        assert mean["standard_error"] == pytest.approx((3 / 16 / 4) ** 0.5 / 2)

    def test_scenes_show_their_own_depth_and_answers_though_rooms_are_passed_over(self, rooms, tmp_path):
        rooms = [{**rooms[0], "questions": []}, *rooms[1:]]
        tasks = tasks_module.write_tasks(rooms, GRID, tmp_path / "inputs")
        depth = [np.full((2, 16, 16), float(index)) for index in range(len(rooms))]
        right = truthful(tasks)
        before = spoil(tasks, right, "counting")
        tasks_module.write_scenes(tasks, right, tmp_path / "scenes", before=before, depth=depth)
        for index, room in enumerate(rooms[1:], 1):
            scene = np.load(tmp_path / "scenes" / f"{room['scene_id']}.npz")
            assert (scene["predicted_depth"] == index).all()
            assert np.array_equal(scene["depth"], np.stack([np.asarray(image) for image in room["depth"]]))
            assert np.array_equal(scene["found_mask"], scene["true_mask"])
            facts = json.loads((tmp_path / "scenes" / f"{room['scene_id']}.json").read_text())
            assert facts["is_right"] and all(answer["is_right"] for answer in facts["answers"])
            assert {a["before"] == "no idea" for a in facts["answers"] if a["type"] == "counting"} <= {True}
            assert {a["before"] == a["truth"] for a in facts["answers"] if a["type"] != "counting"} == {True}

    def test_scenes_of_a_model_without_validator_have_no_depth_by_it(self, asked, tmp_path):
        tasks_module.write_scenes(asked, truthful(asked), tmp_path / "scenes")
        scene = np.load(tmp_path / "scenes" / f"{asked[0]['task']['name']}.npz")
        facts = json.loads((tmp_path / "scenes" / f"{asked[0]['task']['name']}.json").read_text())
        assert "predicted_depth" not in scene and "before" not in facts
