"""One rule says what a task opens in which mode; readers and doctor follow it."""

import json

import pytest
from commanding import run_command

from processing.benchmarks import TASKS, load_scene, load_task, requirements_for
from processing.benchmarks.doctor import examine
from processing.benchmarks.readers.requirements import MODES, list_modes

EVALUATED = [name for name, task in TASKS.items() if task.has_prompt]
BOXED = ("scanrefer", "multi3drefer", "scan2cap")
BOX_FIELDS = ("box", "box_input", "gt_box")


@pytest.mark.parametrize("task", EVALUATED)
def test_rgb_only_names_frames_and_annotations_alone(task):
    needed = requirements_for(task, "rgb_only")
    assert needed.parts == ("frames",) and not needed.reads_boxes
    assert {path.split("/")[0] for path in needed.files} <= {"processed", "vsibench", "revsi", "<dataset>"}
    assert {path.rsplit(".", 1)[1] for path in needed.files} <= {"json", "parquet", "jpg", "mp4"}
    assert needed.needs_clicks == (task == "scan2cap")


@pytest.mark.parametrize("task", EVALUATED)
def test_the_default_is_what_tasks_always_needed(task):
    assert requirements_for(task).parts == TASKS[task].needs
    assert list_modes(task)[0] == ("proposals" if task in BOXED else "rgb_only")


def test_proposals_name_the_files_of_geometry():
    needed = requirements_for("scanrefer", "proposals")
    assert "metadata/scannet_val_pred_box.json" in needed.files and needed.reads_boxes
    assert {"<dataset>/posed_images/<scene>/<frame>.txt", "<dataset>/posed_images/<scene>/<frame>.png"} <= {
        *needed.files
    }
    without = requirements_for("scanrefer", "proposals", regions="poses", boxes="gt", split="train")
    assert "depth" not in without.parts and "metadata/scannet_train_gt_box.json" in without.files


def test_every_file_that_is_named_exists(rooms):
    for task in EVALUATED:
        for mode in list_modes(task):
            sample = load_task(task, TASKS[task].eval_split, rooms, mode=mode)[0]
            dataset, scene = sample["scene_id"].split("/")[-2:]
            names = {
                "<dataset>": dataset,
                "<scene>": scene,
                "<frame>": (sample["frame_names"] or ["none: a video"])[0],
            }
            paths = requirements_for(task, mode).files
            for word, name in names.items():
                paths = [path.replace(word, name) for path in paths]
            for path in paths:
                is_there = (rooms / path).is_file() or (rooms / path.replace(".json", ".pkl")).is_file()
                assert is_there or "none: a video" in path, path


def test_frames_that_geometry_chose_are_of_the_other_mode():
    for frames in ("listed", "coverage"):
        assert list_modes("scanqa", frames) == ("proposals",)
        with pytest.raises(ValueError, match="uniform"):
            requirements_for("scanqa", "rgb_only", frames=frames)
    assert "metadata/scannet_select_frames.json" in requirements_for("scanqa", frames="coverage").files


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("scanqa", "proposals"), "scanqa has the mode 'rgb_only'"),
        (("nr3d", "rgb_only"), "nr3d has the mode 'proposals'"),
        (("scanqa", "rgbd"), "`mode` must be one of"),
        (("chess", "rgb_only"), "task"),
    ],
)
def test_unknown_modes_and_modes_of_other_tasks_are_named(arguments, told):
    with pytest.raises(ValueError, match=told):
        requirements_for(*arguments)


@pytest.fixture
def boxless(data):
    """Rooms whose annotations hold no box and no object; poses, depth and boxes are gone."""
    for path in (data / "processed").glob("*.json"):
        records = json.loads(path.read_text())
        for record in records:
            record["metadata"].pop("object_id", None)
            for field in BOX_FIELDS:
                record.pop(field, None)
        path.write_text(json.dumps(records))
    for pattern in ("*.png", "*.txt", "*.pkl", "*box.json", "*frames.json"):
        for path in data.rglob(pattern):
            path.unlink()
    return data


@pytest.mark.parametrize("task", BOXED)
def test_samples_without_boxes_are_read(task, boxless, rooms):
    read, whole = (load_task(task, "val", folder, mode="rgb_only") for folder in (boxless, rooms))
    assert read.to_list() == whole.to_list()
    for sample in read:
        assert not sample["gt_boxes"] and not sample["candidate_boxes"] and not sample["input_box"]
        assert not sample["object_ids"] and not sample["source_text"]
    for key in ("id", "scene_id", "question", "answers", "question_type", "frame_names"):
        assert read[key] == load_task(task, "val", rooms)[key]
    with pytest.raises(ValueError, match="box"):
        load_task(task, "val", boxless, boxes="none")
    assert len(load_scene(boxless, read[0]["scene_id"], frame_names=read[0]["frame_names"]))


def test_true_boxes_are_read_without_candidates(data):
    (data / "metadata" / "scannet_val_pred_box.json").unlink()
    sample = load_task("scanrefer", "val", data, boxes="none")[0]
    assert sample["gt_boxes"] and not sample["candidate_boxes"]
    with pytest.raises(ValueError, match="`boxes` are candidates of mode='proposals'"):
        load_task("scanrefer", "val", data, boxes="pred", mode="rgb_only")


def test_the_doctor_judges_by_the_mode(boxless):
    for task in BOXED:
        assert not examine(boxless, tasks=[task], splits=["val"]).can_run(task)
        diagnosis = examine(boxless, tasks=[task], splits=["val"], mode="rgb_only")
        assert diagnosis.can_run(task) and diagnosis.splits[0].mode == "rgb_only"
    assert examine(boxless, mode="rgb_only").can_run()
    run_command("doctor", boxless, "--task", "scanrefer", code=1)
    run_command("doctor", boxless, "--task", "scanrefer", "--mode", "rgb_only")
    with pytest.raises(ValueError, match="scanqa has the mode"):
        examine(boxless, tasks=["scanqa"], mode="proposals")


def test_there_are_two_modes():
    assert MODES == ("proposals", "rgb_only")
