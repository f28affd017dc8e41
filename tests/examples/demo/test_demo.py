"""The demo: a stranger who cannot know us, scores that mean something, checks that fail, all of it in miniature."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from processing.regions import TokenGrid
from processing.rooms import load_rooms

STRANGER = Path(__file__).parents[3] / "examples" / "demo" / "stranger.py"
GRID = TokenGrid(32, 8, 1)


@pytest.fixture
def demo():
    return importlib.import_module("examples.demo.__main__")


@pytest.fixture
def tasks_module():
    return importlib.import_module("examples.demo.tasks")


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
    def test_what_the_stranger_gets_tells_no_answer_and_no_geometry(self, tasks_module, rooms, tmp_path):
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

    def test_all_questions_in_words_are_asked_but_descriptions(self, tasks_module, rooms, tmp_path):
        tasks = tasks_module.write_tasks(rooms, GRID, tmp_path / "inputs")
        for room, entry in zip(rooms, tasks, strict=True):
            words = [q for q in room["questions"] if q["reference"] == "word" and q["type"] != "description"]
            texts = [item["text"] for item in [*entry["task"]["questions"], *entry["task"]["requests"]]]
            assert sorted(texts) == sorted(q["question"] for q in words)

    def test_first_scenes_are_videos_and_the_rest_pictures(self, tasks_module, rooms, tmp_path, monkeypatch):
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
    def table(self, tasks_module) -> list[dict]:
        names = {"majority": 0.5, "text": 0.25, "mean_row": None, "bottom_row": None}
        named = [{"type": kind, "reference": "word", "number": 9, **names} for kind in tasks_module.QUESTION_TYPES]
        return [*named, *({**row, "reference": "region", "majority": 0.75} for row in named)]

    @pytest.fixture
    def asked(self, tasks_module, rooms, tmp_path):
        return tasks_module.write_tasks(rooms, GRID, tmp_path / "inputs")

    def test_truth_scores_one_beside_the_baselines_of_words(self, tasks_module, asked, table):
        hits = {"model": tasks_module.mark_answers(asked, truthful(asked))}
        scores, grounding = tasks_module.score_table(hits, table), tasks_module.score_grounding(asked, hits)
        assert scores and all(row["model"] == 1.0 and row["majority"] == 0.5 for row in scores)
        assert sum(row["n"] for row in scores) == sum(len(entry["task"]["questions"]) for entry in asked)
        assert grounding["model"] == 1.0 and 0 < grounding["chance"] < 1
        assert grounding["n"] == sum(len(entry["task"]["requests"]) for entry in asked)

    def test_wrong_answers_count_by_type_and_model(self, tasks_module, asked, table):
        right = truthful(asked)
        wrong = spoil(asked, right, "distance")
        hits = {name: tasks_module.mark_answers(asked, said) for name, said in (("before", wrong), ("after", right))}
        rows = {row["type"]: row for row in tasks_module.score_table(hits, table)}
        assert rows["distance"]["before"] == 0 and rows["distance"]["after"] == 1 and rows["distance"]["n"] > 0
        assert all(row["before"] == row["after"] == 1 for kind, row in rows.items() if kind != "distance")
        grounding = tasks_module.score_grounding(asked, hits)
        assert grounding["before"] == 0 and grounding["after"] == 1

    def test_gain_is_a_mean_over_types_with_the_error_of_pairs(self, tasks_module):
        before = {"counting": np.array([0, 0, 1, 1], bool), "closer": np.ones(10, bool), "grounding": np.ones(3, bool)}
        after = {"counting": np.array([1, 0, 1, 1], bool), "closer": np.ones(10, bool), "grounding": np.zeros(3, bool)}
        mean = tasks_module.mean_gain(before, after)
        assert (mean["before"], mean["after"], mean["gain"]) == (0.75, 0.875, 0.125)
        # One of four pairs gained one: variance 3/16, over four questions, halved by the mean over two types.
        assert mean["standard_error"] == pytest.approx((3 / 16 / 4) ** 0.5 / 2)

    def test_scenes_show_their_own_depth_and_answers_though_rooms_are_passed_over(self, tasks_module, rooms, tmp_path):
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

    def test_scenes_of_a_model_without_validator_have_no_depth_by_it(self, tasks_module, asked, tmp_path):
        tasks_module.write_scenes(asked, truthful(asked), tmp_path / "scenes")
        scene = np.load(tmp_path / "scenes" / f"{asked[0]['task']['name']}.npz")
        facts = json.loads((tmp_path / "scenes" / f"{asked[0]['task']['name']}.json").read_text())
        assert "predicted_depth" not in scene and "before" not in facts


class TestChecks:
    @pytest.fixture
    def good(self, demo, monkeypatch):
        monkeypatch.setattr(demo, "MUST_BE_AHEAD", ("existence", "colour", "direction"))
        baselines = {"n": 900, "majority": 0.5, "text": 0.4, "mean_row": 0.45, "bottom_row": None}
        shipped = [{"type": kind, "model": 0.6, **baselines} for kind in demo.MUST_BE_AHEAD]
        tuned = [{"type": kind, "before": 0.4, "after": 0.6, **baselines} for kind in demo.MUST_BE_AHEAD]
        mean = {"before": 0.4, "after": 0.6, "gain": 0.2, "standard_error": 0.01}
        found = {"n": 900, "model": 0.5, "after": 0.5, "chance": 0.1}
        return (
            {"scores": shipped, "grounding": dict(found)},
            {"scores": tuned, "grounding": dict(found), "mean": mean},
            {"abs_rel": 0.1, "abs_rel_constant": 0.3},
        )

    @staticmethod
    def failed(checks: list[dict]) -> list[str]:
        return [check["name"] for check in checks if not check["passed"]]

    def test_all_pass(self, demo, good):
        checks = demo.compare(*good)
        assert self.failed(checks) == [] and len(checks) == 2 * len(demo.MUST_BE_AHEAD) + 4
        assert all(check["detail"] for check in checks)
        json.dumps(checks)

    @pytest.mark.parametrize("baseline", ["majority", "text", "mean_row"])
    @pytest.mark.parametrize(("part", "words"), [(0, "as shipped"), (1, "after fine-tuning")])
    def test_level_with_words_alone_fails(self, demo, good, baseline, part, words):
        entry = good[part]["scores"][0]
        entry[baseline] = 0.6
        assert self.failed(demo.compare(*good)) == [f"{words}, {entry['type']} is ahead of who does not look"]

    @pytest.mark.parametrize(("part", "words"), [(0, "as shipped"), (1, "after fine-tuning")])
    def test_finding_by_chance_fails(self, demo, good, part, words):
        good[part]["grounding"]["chance"] = 0.49
        assert self.failed(demo.compare(*good)) == [f"{words}, finding objects beats chance"]

    def test_a_lead_within_noise_fails(self, demo, good):
        entry = good[0]["scores"][0]
        entry |= {"n": 50, "majority": 0.59}
        assert self.failed(demo.compare(*good)) == [f"as shipped, {entry['type']} is ahead of who does not look"]

    def test_nothing_measured_fails(self, demo, good):
        scores = good[1]["scores"]
        missing = scores.pop()["type"]
        scores[0]["after"] = float("nan")
        failed = self.failed(demo.compare(*good))
        kinds = (missing, scores[0]["type"])
        assert sorted(failed) == sorted(f"after fine-tuning, {kind} is ahead of who does not look" for kind in kinds)

    @pytest.mark.parametrize("change", [{"gain": -0.1}, {"gain": 0.0, "standard_error": 0.0}, {"standard_error": 0.1}])
    def test_no_gain_beyond_noise_fails(self, demo, good, change):
        good[1]["mean"].update(change)
        assert self.failed(demo.compare(*good)) == ["fine-tuning helps"]

    def test_no_better_than_a_constant_fails(self, demo, good):
        good[2]["abs_rel"] = 0.3
        assert self.failed(demo.compare(*good)) == ["validator beats constant depth"]


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestMiniature:
    @pytest.fixture
    def run(self, demo, tiny_recipe, tiny_export, tmp_path, monkeypatch):
        """Runs the demo from a folder that is not the repository's; gives its exit code."""
        lessons = {"lessons": ["view=1", "word=1", "place=1", "region=1"], "naming_steps": 0, "reading_steps": 0}
        recipe = tiny_recipe(room_style="loft", model_name_or_path="nowhere", mixture_batches="grouped", **lessons)
        monkeypatch.setattr(demo, "NUM_TEST_ROOMS", 3)
        monkeypatch.setattr(demo, "NUM_BASELINE_ROOMS", 4)
        monkeypatch.setattr(demo, "RECIPE", recipe)
        monkeypatch.setattr(demo, "CHECKPOINT", tiny_export)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")

        def call(*words: str):
            monkeypatch.setattr(sys, "argv", ["demo", "--output_dir", "out", *words])
            with pytest.raises(SystemExit) as end:
                demo.main()
            return end.value.code

        return call

    @pytest.mark.slow
    def test_the_whole_path(self, demo, run, monkeypatch):
        code, folder = run(), Path("out")
        summary = json.loads((folder / "summary.json").read_text())
        assert code == (0 if summary["passed"] else 1)
        assert summary["passed"] == all(check["passed"] for check in summary["checks"])
        assert summary["steps"] == 2 and summary["parameters"]["export"] < summary["parameters"]["training"]
        assert summary["rooms"]["style"] == "loft"
        for part, names in (("shipped", {"model"}), ("fine_tuned", {"before", "after"})):
            asked = json.loads((folder / "inputs" / part / "tasks.json").read_text())
            assert asked[0]["name"].startswith("loft_test_" if part == "fine_tuned" else "test_")
            expected = {item["id"] for scene in asked for item in [*scene["questions"], *scene["requests"]]}
            for name in {"shipped"} if part == "shipped" else names:
                answers = read_lines(folder / f"answers_{name}.jsonl")
                assert {answer["id"] for answer in answers} == expected and len(answers) == len(expected)
            assert len(list((folder / "scenes" / part).glob("*.json"))) == len(asked)
            assert all(names <= set(row) for row in [*summary[part]["scores"], summary[part]["grounding"]])
        assert not (folder / "nowhere").exists()
        losses = set().union(*json.loads((folder / "log_history.json").read_text()))
        terms = ("language", "depth", "cross_view_depth", "distillation")
        assert {f"loss_{term}" for term in terms} <= losses
        assert "accuracy" in (folder / "export" / "README.md").read_text()
        assert (folder / "report.html").stat().st_size > 10_000 and (folder / "picture.png").is_file()

        # Again: it goes on from the last checkpoint, where nothing is left to learn.
        weights = (folder / "export" / "model.safetensors").read_bytes()
        monkeypatch.setattr(demo, "ask_stranger", lambda model, inputs, answers: read_lines(answers))
        assert run() == code
        assert (folder / "export" / "model.safetensors").read_bytes() == weights

    def test_a_missing_model_is_named(self, run, demo, monkeypatch, tmp_path):
        monkeypatch.setattr(demo, "CHECKPOINT", tmp_path / "no_model")
        assert "no_model has no config.json" in run()
