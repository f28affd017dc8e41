"""The demo: a stranger who cannot know us, scores that mean something, checks that fail, all of it in miniature."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from processing.regions import TokenGrid
from processing.rooms import load_rooms

STRANGER = Path(__file__).parents[2] / "examples" / "demo_stranger.py"
GRID = TokenGrid(32, 8, 1)


@pytest.fixture
def demo(example):
    return example("demo")


@pytest.fixture
def tasks_module(example):
    return example("demo_tasks")


@pytest.fixture
def data(example):
    return example("train").DataArguments(image_size=32, num_frames=2)


@pytest.fixture
def rooms() -> list[dict]:
    return list(load_rooms("test", 3, image_size=32, num_frames=2))


class TestStranger:
    def isolated(self, code: str) -> subprocess.CompletedProcess:
        load = f"import importlib.util; spec = importlib.util.spec_from_file_location('stranger', {str(STRANGER)!r}); "
        load += "stranger = importlib.util.module_from_spec(spec); spec.loader.exec_module(stranger); "
        return subprocess.run([sys.executable, "-I", "-c", load + code], capture_output=True, text=True, cwd="/")

    def test_our_packages_are_out_of_reach_and_loaded_ones_are_noticed(self):
        code = """
stranger.forget_ours()
refused = []
for name in ("processing", "processing.rooms", "modeling_ide3d.configuration_ide3d", "trainer"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        refused.append(str(error))
import json, types, sys
json.loads("{}")  # all else is there
sys.modules["trainer"] = types.ModuleType("trainer")
sys.modules["trainer"].__spec__ = importlib.util.spec_from_loader("trainer", None)
try:
    stranger.forget_ours()
except RuntimeError as error:
    print(len(refused), error)
""".strip()
        done = self.isolated("\n" + code)
        assert done.stdout.startswith("4 trainer can be imported"), done.stderr[-2000:]

    def test_imports_nothing_of_ours(self):
        text = STRANGER.read_text()
        assert not any(f"import {name}" in text or f"from {name}" in text for name in ("processing", "trainer"))


class TestTasks:
    def test_what_the_stranger_gets_tells_no_answer_and_no_geometry(self, tasks_module, rooms, data, tmp_path):
        tasks = tasks_module.write_tasks(rooms, GRID, tmp_path / "inputs", data)
        given = json.loads((tmp_path / "inputs" / "tasks.json").read_text())
        assert given == [entry["task"] for entry in tasks]
        for scene in given:
            assert set(scene) == {"name", "video", "questions", "requests"}
            assert all(set(question) == {"id", "text", "regions"} for question in scene["questions"])
            assert all(set(request) == {"id", "text"} for request in scene["requests"])
            arrays = np.load(tmp_path / "inputs" / f"{scene['name']}.npz")
            assert {name: arrays[name].dtype for name in arrays} == {"pointed": bool, "candidates": bool}
            for question in scene["questions"]:
                assert question["text"].count("<ground>") == len(question["regions"])
        kinds = {file.suffix for file in (tmp_path / "inputs").rglob("*") if file.is_file()}
        assert kinds <= {".mp4", ".png", ".npz", ".json"}

    def test_regions_are_those_the_question_is_about(self, tasks_module, rooms, data, tmp_path):
        for entry in tasks_module.write_tasks(rooms, GRID, tmp_path / "inputs", data):
            objects = entry["truth"]["talk"]["object_ids"]
            for question in entry["task"]["questions"]:
                truth, regions = entry["truth"]["ids"][question["id"]]
                assert regions == question["regions"]
                assert [int(objects[region]) for region in regions] == truth["region_objects"]

    def test_first_scenes_are_videos_and_the_rest_pictures(self, tasks_module, rooms, data, tmp_path, monkeypatch):
        monkeypatch.setattr(tasks_module, "NUM_VIDEOS", 1)
        rooms = [{**rooms[0], "questions": []}, *rooms[1:]]  # a room without questions is passed over
        tasks = tasks_module.write_tasks(rooms, GRID, tmp_path / "inputs", data)
        videos = [tmp_path / "inputs" / entry["task"]["video"] for entry in tasks]
        assert len(videos) == 2 and videos[0].suffix == ".mp4"
        assert [file.name for file in sorted(videos[1].iterdir())] == ["0000.png", "0001.png"]


def truthful(tasks: list[dict]) -> list[dict]:
    """Answers of somebody who knows."""
    answers = []
    for entry in tasks:
        for key, (question, regions) in entry["truth"]["ids"].items():
            if regions is None:
                answers.append({"id": key, "choice": int(np.argmax(question["region_targets"]))})
            else:
                answers.append({"id": key, "answer": question["answer"]})
    return answers


class TestScores:
    @pytest.fixture
    def table(self, example) -> list[dict]:
        names = {"majority": 0.5, "text": 0.25, "mean_row": None, "bottom_row": None}
        kinds = example("train").REGION_QUESTIONS
        pointed = [{"type": kind, "reference": "region", "number": 9, **names} for kind in kinds]
        return [*pointed, *({**row, "reference": "word", "majority": 0.75} for row in pointed)]

    @pytest.fixture
    def asked(self, tasks_module, rooms, data, tmp_path):
        return tasks_module.write_tasks(rooms, GRID, tmp_path / "inputs", data)

    def test_truth_scores_one_beside_the_baselines_of_regions(self, tasks_module, asked, table, rooms, tmp_path):
        depth = [np.full((2, 16, 16), float(index)) for index in range(len(rooms))]
        scores, grounding = tasks_module.score_answers(asked, truthful(asked), table, depth, tmp_path / "scenes")
        assert scores and all(row["model"] == 1.0 and row["majority"] == 0.5 for row in scores)
        assert sum(row["n"] for row in scores) == sum(len(entry["task"]["questions"]) for entry in asked)
        assert grounding["accuracy"] == 1.0 and 0 < grounding["chance"] < 1
        assert grounding["n"] == sum(len(entry["task"]["requests"]) for entry in asked)

    def test_wrong_answers_count_by_type(self, tasks_module, asked, table, rooms, tmp_path):
        answers, spoilt = truthful(asked), 0
        targets = {key: truth[0] for entry in asked for key, truth in entry["truth"]["ids"].items()}
        for answer in answers:
            question = targets[answer["id"]]
            if "choice" in answer:
                answer["choice"] = int(np.argmin(question["region_targets"]))
            elif question["type"] == "distance":
                answer["answer"], spoilt = "no idea", spoilt + 1
        depth = [np.zeros((2, 16, 16))] * len(rooms)
        scores, grounding = tasks_module.score_answers(asked, answers, table, depth, tmp_path / "scenes")
        by_type = {row["type"]: row for row in scores}
        assert by_type["distance"]["model"] == 0 and by_type["distance"]["n"] == spoilt > 0
        assert all(row["model"] == 1 for kind, row in by_type.items() if kind != "distance")
        assert grounding["accuracy"] == 0

    def test_scenes_show_their_own_depth_though_rooms_are_passed_over(
        self, tasks_module, table, rooms, data, tmp_path
    ):
        rooms = [{**rooms[0], "questions": []}, *rooms[1:]]
        tasks = tasks_module.write_tasks(rooms, GRID, tmp_path / "inputs", data)
        depth = [np.full((2, 16, 16), float(index)) for index in range(len(rooms))]
        tasks_module.score_answers(tasks, truthful(tasks), table, depth, tmp_path / "scenes")
        for index, room in enumerate(rooms[1:], 1):
            scene = np.load(tmp_path / "scenes" / f"{room['scene_id'].replace('/', '-')}.npz")
            assert (scene["predicted_depth"] == index).all()
            assert np.array_equal(scene["depth"], np.stack([np.asarray(image) for image in room["depth"]]))
            assert np.array_equal(scene["found_mask"], scene["true_mask"])


class TestChecks:
    @pytest.fixture
    def good(self, demo):
        scores = [
            {"type": kind, "n": 900, "model": 0.6, "majority": 0.5, "text": 0.4, "mean_row": 0.3, "bottom_row": 0.3}
            for kind in demo.MUST_BEAT_BASELINES
        ]
        return scores, {"abs_rel": 0.1, "abs_rel_constant": 0.3}

    @staticmethod
    def failed(checks: list[dict]) -> list[str]:
        return [check["name"] for check in checks if not check["passed"]]

    def test_all_pass(self, demo, good):
        checks = demo.compare(*good)
        assert self.failed(checks) == [] and len(checks) == len(demo.MUST_BEAT_BASELINES) + 1
        assert all(check["detail"] for check in checks)
        json.dumps(checks)

    @pytest.mark.parametrize("baseline", ["majority", "text", "mean_row", "bottom_row"])
    def test_level_with_a_baseline_fails(self, demo, good, baseline):
        good[0][0][baseline] = 0.6
        assert self.failed(demo.compare(*good)) == [f"{good[0][0]['type']} beats its baselines"]

    def test_distance_is_measured_against_words_and_not_against_height(self, demo, good):
        distance = next(entry for entry in good[0] if entry["type"] == "distance")
        distance |= {"mean_row": 0.6, "bottom_row": 0.7}
        assert self.failed(demo.compare(*good)) == []
        distance["text"] = 0.6
        assert self.failed(demo.compare(*good)) == ["distance beats its baselines"]

    def test_a_lead_within_noise_fails(self, demo, good):
        good[0][0] |= {"n": 50, "majority": 0.59}
        assert self.failed(demo.compare(*good)) == [f"{good[0][0]['type']} beats its baselines"]

    def test_nothing_measured_fails(self, demo, good):
        missing = good[0].pop(1)["type"]
        good[0][0]["model"] = float("nan")
        failed = self.failed(demo.compare(*good))
        assert sorted(failed) == sorted(f"{kind} beats its baselines" for kind in (missing, good[0][0]["type"]))

    def test_no_better_than_a_constant_fails(self, demo, good):
        good[1]["abs_rel"] = 0.3
        assert self.failed(demo.compare(*good)) == ["validator beats constant depth"]


def test_miniature_of_the_whole_path(demo, tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "NUM_TEST_ROOMS", 3)
    monkeypatch.setattr(demo, "RECIPE", tiny_recipe())
    monkeypatch.setattr(sys, "argv", ["demo.py", "--output_dir", str(tmp_path / "demo")])
    with pytest.raises(SystemExit) as end:
        demo.main()
    folder = tmp_path / "demo"
    summary = json.loads((folder / "summary.json").read_text())
    assert end.value.code == (0 if summary["passed"] else 1)
    assert summary["passed"] == all(check["passed"] for check in summary["checks"])
    assert {row["type"] for row in summary["scores"]} >= set(demo.MUST_BEAT_BASELINES)
    assert summary["steps"] == 2 and summary["parameters"]["export"] < summary["parameters"]["training"]

    asked = json.loads((folder / "inputs" / "tasks.json").read_text())
    expected = {item["id"] for scene in asked for item in [*scene["questions"], *scene["requests"]]}
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert {answer["id"] for answer in answers} == expected and len(answers) == len(expected)
    assert not (folder / "nowhere").exists()

    assert "accuracy" in (folder / "export" / "README.md").read_text()
    assert (folder / "report.html").stat().st_size > 10_000 and (folder / "picture.png").is_file()
    assert len(list((folder / "scenes").glob("*.json"))) == len(asked)
