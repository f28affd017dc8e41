"""Answers of the mode "rgb_only" come from frames: geometry may be deleted or random bytes, and is never opened."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ide3d import nano_model
from processing.benchmarks import TASKS
from processing.benchmarks.export.rooms import export_rooms
from trainer.evaluation import EvaluationSettings, run_evaluation
from trainer.evaluation.clicks import make_clicks

REPOSITORY = Path(__file__).resolve().parents[3]
NUM_FRAMES = 4
# Task and what else is set.
RUNS = {
    "scanrefer": ("scanrefer", {}),
    "scanrefer-words": ("scanrefer", {"finding": "words"}),
    "multi3drefer": ("multi3drefer", {}),
    "scan2cap": ("scan2cap", {"clicks": "clicks.json"}),
    "scanqa": ("scanqa", {}),
    "sqa3d": ("sqa3d", {}),
}
GEOMETRY = (
    "embodiedscan/*",
    "metadata/*",
    "scannet/posed_images/*/*.png",
    "scannet/posed_images/*/*.txt",
    "scannet/mask/*",
    "scannet/pcd_with_object_aabbs/*/*",
    "scannet/posed_images_3d_feature_vggt/*/*",
)


def files_of_geometry(folder: Path) -> list[Path]:
    found = [sorted(folder.glob(pattern)) for pattern in GEOMETRY]
    assert all(found)
    return [path for paths in found for path in paths]


def change_annotations(folder: Path, change) -> None:
    """Change the boxes, ids of objects and spelled centres of all samples."""
    for path in (folder / "processed").glob("*.json"):
        records = json.loads(path.read_text())
        for record in records:
            change(record, [name for name in ("box", "box_input", "gt_box") if name in record])
        path.write_text(json.dumps(records))


def without_boxes(record: dict, fields: list[str]) -> None:
    record["metadata"].pop("object_id", None)
    for name in fields:
        del record[name]
    if "gt_box" in fields:
        spelled = record["conversations"][0]["value"]
        record["conversations"][0]["value"] = f"{spelled[: spelled.index('[')]}[] in detail."


def with_random_boxes(record: dict, fields: list[str]) -> None:
    if fields:
        record["metadata"]["object_id"] = random.randbytes(4).hex()
    for name in fields:
        record[name] = random.randbytes(8).hex()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same rooms whole, without geometry, and with random bytes in its place."""
    place = tmp_path_factory.mktemp("removal")
    whole = export_rooms(place / "whole", num_scenes=1, image_size=64, num_frames=NUM_FRAMES)
    removed, noise = (Path(shutil.copytree(whole, place / name)) for name in ("removed", "noise"))
    for path in files_of_geometry(removed):
        path.unlink()
    change_annotations(removed, without_boxes)
    random.seed(0)
    for path in files_of_geometry(noise):
        path.write_bytes(random.randbytes(200))
    change_annotations(noise, with_random_boxes)
    make_clicks(whole, place / "clicks.json", num_frames=NUM_FRAMES)
    return {"whole": whole, "removed": removed, "noise": noise}


def settings_of(folders, name, run, **changes) -> dict:
    task, options = RUNS[run]
    place = folders["whole"].parent
    options = {key: str(place / value) if key == "clicks" else value for key, value in options.items()}
    fields = {"model": str(nano_model()), "task": task, "data": str(folders[name]), "mode": "rgb_only"}
    fields |= {"num_frames": NUM_FRAMES, "max_new_tokens": 12, "meteor": False, "answer_only": True}
    return {**fields, "output": str(place / "answers" / name / run), **options, **changes}


@pytest.fixture(scope="module")
def answers(folders):
    """Answers of each run on each folder, made in one process that watches what is opened."""
    place = folders["whole"].parent
    rows = [settings_of(folders, name, run) for name in folders for run in RUNS]
    given = settings_of(folders, "whole", "scanrefer", mode="proposals", output=str(place / "given"))
    rows.append({**given, "must_fail": True})
    (place / "runs.json").write_text(json.dumps(rows))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("answer_under_watch.py")), str(place / "runs.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    *clean, caught = json.loads(done.stdout)
    assert not any(clean) and len(caught) == 1
    return {
        name: {run: (place / "answers" / name / run / "answers.jsonl").read_bytes() for run in RUNS}
        for name in folders
    }


def test_all_five_tasks_of_the_paper_are_run():
    assert {task for task, _ in RUNS.values()} == {
        name for name, task in TASKS.items() if task.file_stems and task.has_prompt
    }


@pytest.mark.parametrize("run", RUNS)
def test_answers_are_the_same_bytes_without_geometry_and_with_noise(answers, run):
    assert answers["whole"][run] == answers["removed"][run] == answers["noise"][run]
    rows = [json.loads(line) for line in answers["removed"][run].splitlines()]
    assert len(rows) > 4
    assert any(row.get("text") or row.get("regions") for row in rows)


@pytest.mark.parametrize("run", RUNS)
def test_answers_are_scored_where_the_truth_is(answers, folders, run, monkeypatch):
    """The answers of the folder without geometry, with the whole one as data; nothing is asked again."""
    monkeypatch.setattr("trainer.evaluation.runner.SceneSession", None)
    settings = settings_of(folders, "removed", run, data=str(folders["whole"]), answer_only=False)
    results = run_evaluation(EvaluationSettings(**settings))
    assert results["mode"] == "rgb_only" and results["scores"]["clean"][results["main_score"]] is not None
    assert (Path(settings["output"]) / "answers.jsonl").read_bytes() == answers["whole"][run]
    report = (Path(settings["output"]) / "report.md").read_text()
    assert "Mode rgb_only" in report


@pytest.mark.parametrize("run", ["scanrefer", "scan2cap"])
def test_without_the_truth_the_answers_are_kept_and_the_error_says_so(answers, folders, run):
    settings = settings_of(folders, "removed", run, answer_only=False)
    with pytest.raises((ValueError, FileNotFoundError), match="The answers are stored in"):
        run_evaluation(EvaluationSettings(**settings))
    assert (Path(settings["output"]) / "answers.jsonl").read_bytes() == answers["whole"][run]
