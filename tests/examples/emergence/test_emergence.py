"""The emergence study on a few rooms: rows that start alike, runs that go on where they were killed, tables."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from examples.emergence import __main__ as emergence_main
from examples.emergence import exports as emergence_exports
from examples.emergence import files as emergence_files
from examples.emergence import recipe as emergence_recipe
from examples.emergence import rooms as emergence_rooms
from examples.emergence import run as emergence_run
from examples.emergence import scores as emergence_scores
from examples.emergence import tables as emergence_tables
from processing.rooms import load_rooms
from processing.rooms.samples import room_samples
from trainer import IDE3DDataCollator
from trainer.evaluation.region_reading import answer_from_regions
from trainer.nano_lessons import RegionReadingCollator

PHASE = {"rooms": 1, "learning_rate": 1e-3, "vision_learning_rate": 1e-3}
TINY = {
    "seeds": [1, 2],
    "num_rooms": 8,
    "labelled_rooms": 3,
    "validation_rooms": 7,
    "test_rooms": 7,
    "probe_rooms": 7,
    "image_size": 32,
    "num_frames": 2,
    "hidden_size": 32,
    "text_layers": 2,
    "control": "exposure",
    "lesson": {"steps": 1, **PHASE},
    "pool": {"steps": 2, **PHASE},
    "questions": {"steps": 2, **PHASE, "views": 2, "words": 4, "max_questions": 3},
    "rows": {"exposure": None, "all": {"depth": 0.5, "cross_view": 0.1, "teacher": 0.5}},
    "pairs": [["all", "exposure"]],
}


@pytest.fixture
def write_study(tmp_path):
    """`write_study(seeds=[1])` writes the recipe of a tiny study and returns its file and what is read from it."""
    recipe = emergence_recipe

    def write(**changes):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**TINY, "output_dir": str(tmp_path / "out"), **changes}, sort_keys=False))
        return path, recipe.read_study(path)

    return write


@pytest.fixture
def emergence():
    return emergence_main


@pytest.fixture
def run():
    return emergence_run


@pytest.fixture
def prepared(emergence, run, write_study):
    """A tiny study with its rooms, baselines and lesson."""
    path, study = write_study()
    files = run.RunFiles(emergence.Path(study.output_dir), "", 0)
    emergence.store_rooms(files.output / "rooms", "train", study.num_rooms, run.study_grid(study), study.num_frames)
    run.take_lesson(study)
    emergence.prepare(study, str(path), "validation")
    return path, study


@pytest.mark.slow
def test_a_study_is_run_resumed_and_reported(emergence, run, prepared, monkeypatch, tmp_path, caplog):
    path, study = prepared
    assert emergence.report(study, "validation") is None
    assert [job.name for job in emergence.find_missing(study, str(path), "validation")] == [
        *("exposure, seed 1", "all, seed 1", "exposure, seed 2", "all, seed 2")
    ]

    def run_here(jobs, workers):
        for job in jobs:
            run.main(list(job.command[3:]))
            yield job, True, 1.0

    monkeypatch.setattr(emergence, "run_jobs", run_here)
    emergence.main([str(path), "--workers", "1", "--keep", str(tmp_path / "kept")])
    output = emergence.Path(study.output_dir)
    summary = json.loads((output / "summary.json").read_text())
    assert summary["runs"] == {"done": 4, "planned": 4} and summary["rooms"] == 7
    assert set(summary["rows"]) == {"exposure", "all"} and summary["rows"]["all"]["seeds"] == [1, 2]
    assert summary["baselines"]["position_50"]["mask"] is not None
    assert [(pair["row"], pair["other"]) for pair in summary["differences"]] == [("all", "exposure")]
    assert summary["rows"]["all"]["cost"]["parameters"] == summary["rows"]["exposure"]["cost"]["parameters"]
    layers = {name: row["probes"]["vision.4"]["read_by_losses"] for name, row in summary["rows"].items()}
    assert layers == {"exposure": False, "all": True}
    assert not summary["rows"]["all"]["probes"]["language.1"]["read_by_losses"]
    for name in ("answers.png", "differences.png", "probes.png", "report.html", "tables.md"):
        assert (output / name).stat().st_size > 500
    assert "<script" not in (output / "report.html").read_text()

    assert emergence.find_missing(study, str(path), "validation") == []
    kept = dataclasses.replace(study, output_dir=str(tmp_path / "elsewhere"), known_results=str(tmp_path / "kept"))
    assert emergence.find_missing(kept, str(path), "validation") == []
    longer = dataclasses.replace(study.questions, steps=3)
    assert len(emergence.find_missing(dataclasses.replace(kept, questions=longer), str(path), "validation")) == 4
    assert sum("is left out" in record.getMessage() for record in caplog.records) == 4
    with pytest.raises(ValueError, match="other settings of questions"):
        emergence.find_missing(dataclasses.replace(study, questions=longer), str(path), "validation")


def test_rows_of_a_seed_see_the_same_questions_and_start_alike(run, prepared, monkeypatch):
    _, study = prepared
    seen = {}
    original = run.train_phase

    def record(model, collator, steps, args, has_layers):
        if has_layers:
            texts = [[q["question"] for sample in steps[k] for q in sample.get("questions", [])] for k in range(2)]
            rooms = [[s["scene_id"] for s in steps[k] if "questions" not in s] for k in range(2)]
            layers = {k: v.clone() for k, v in model.state_dict().items() if "language_model.layers" in k}
            seen[args.output_dir.rpartition("-")[2]] = texts, rooms, layers
        return original(model, collator, steps, args, has_layers)

    monkeypatch.setattr(run, "train_phase", record)
    run.train_run(study, "exposure", 1)
    run.train_run(study, "all", 1)
    assert seen["exposure"][:2] == seen["all"][:2]
    assert len(seen["all"][0][0]) > 2 and all(map(len, seen["all"][1]))
    for name, value in seen["all"][2].items():
        assert torch.equal(value, seen["exposure"][2][name]), name


def test_a_killed_run_goes_on_behind_its_last_phase(run, prepared, monkeypatch):
    _, study = prepared
    files = run.RunFiles(run.Path(study.output_dir), "all", 1)
    run.train_run(study, "all", 1)
    whole = load_file(files.weights)
    pool = files.pool(study.pool_settings(study.rows["all"]))
    for file in (*files.folder.iterdir(), pool):
        file.unlink()
    original, phases = run.train_phase, []

    def killed_in_questions(model, collator, steps, args, has_layers):
        if has_layers:
            raise KeyboardInterrupt
        phases.append("pool")
        return original(model, collator, steps, args, has_layers)

    monkeypatch.setattr(run, "train_phase", killed_in_questions)
    with pytest.raises(KeyboardInterrupt):
        run.train_run(study, "all", 1)
    assert not files.training.exists() and pool.is_file()

    def only_questions(model, collator, steps, args, has_layers):
        phases.append("questions" if has_layers else "pool")
        return original(model, collator, steps, args, has_layers)

    monkeypatch.setattr(run, "train_phase", only_questions)
    run.train_run(study, "all", 1)
    assert phases == ["pool", "questions"]
    resumed = load_file(files.weights)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert set(json.loads(files.training.read_text())["phases"]) == {"pool", "questions"}


def test_rows_of_one_pool_phase_train_it_once(run, prepared, monkeypatch):
    _, study = prepared
    few = dataclasses.replace(study.rows["all"], labelled_rooms=2)
    study = dataclasses.replace(study, rows={**study.rows, "all_2": few})
    original, phases = run.train_phase, []

    def record(model, collator, steps, args, has_layers):
        phases.append("questions" if has_layers else "pool")
        return original(model, collator, steps, args, has_layers)

    monkeypatch.setattr(run, "train_phase", record)
    for row in ("all", "all_2", "exposure"):
        run.train_run(study, row, 1)
    run.train_run(study, "all", 2)
    assert phases == ["pool", "questions", "questions", "pool", "questions", "pool", "questions"]


def test_exports_of_rows_are_told_apart_by_what_is_in_them(run, prepared, caplog):
    """Losses leave no tensor and no entry; another width would be seen."""
    exports = emergence_exports
    path, study = prepared
    with pytest.raises(SystemExit, match="exposure, seed 1, is not trained"):
        exports.main([str(path), "--seed", "1"])
    for row in study.rows:
        run.train_run(study, row, 1)
    with caplog.at_level("INFO", "emergence"):
        exports.main([str(path), "--seed", "1", "--rounds", "1"])
    output = exports.Path(study.output_dir)
    found = json.loads((output / "exports-seed1.json").read_text())
    assert {name: entry["is_same"] for name, entry in found.items()} == {"exposure": True, "all": True}
    assert found["all"]["bytes"] == found["exposure"]["bytes"] and found["exposure"]["ratio"] == [1.0, 1.0, 1.0]
    assert "DIFFERENT" not in caplog.text and caplog.text.count("the same") == 1
    folder = output / "exports" / "seed1-all"
    facts = exports.describe_export(folder)
    weights = load_file(folder / exports.WEIGHTS)
    name = next(name for name in weights if weights[name].ndim == 2)
    run.save_weights(folder / exports.WEIGHTS, {**weights, name: weights[name][:, :-1]})
    assert exports.describe_export(folder)["tensors"] != facts["tensors"]


def test_results_about_other_rooms_are_not_taken(write_study):
    """Neither those of an earlier choice of test rooms, nor a pair whose questions differ."""
    tables = emergence_tables
    _, study = write_study(first_test_room=2)
    assert tables.is_about(study, "test", {"rooms": 7, "first_room": 2})
    assert not tables.is_about(study, "test", {"rooms": 7, "first_room": 0})
    assert not tables.is_about(study, "test", {"rooms": 8})
    ours = {"hits": dict.fromkeys(tables.METRICS, "10"), "counts": dict.fromkeys(tables.METRICS, "11")}
    theirs = {**ours, "counts": dict.fromkeys(tables.METRICS, "12")}
    with pytest.raises(ValueError, match="other rooms or questions"):
        tables.compare_answers([ours], [theirs])


def test_planned_seeds_are_also_compared_alone(write_study):
    tables = emergence_tables
    rows = {"exposure": {"more_seeds": [3]}, "all": {"depth": 1.0, "more_seeds": [3]}}
    _, study = write_study(rows=rows, pairs=[])
    hits = {"exposure": {1: "00", 2: "00", 3: "00"}, "all": {1: "10", 2: "11", 3: "00"}}
    cost = {"phases": {"questions": {"steps": 1, "cpu_seconds": 1.0}}, "parameters": {"export": 1}}
    runs = [
        {
            "row": row,
            "seed": seed,
            "training": cost,
            "result": {
                "rooms": 2,
                "probes": {},
                "accuracy": dict.fromkeys(tables.METRICS, 0.5),
                "hits": dict.fromkeys(tables.METRICS, text),
                "counts": dict.fromkeys(tables.METRICS, "11"),
            },
        }
        for row, own in hits.items()
        for seed, text in own.items()
    ]
    (difference,) = tables.summarise_study(study, "test", runs, {})["differences"]
    assert difference["seeds"] == [1, 2, 3] and difference["planned"]["seeds"] == [1, 2]
    values = [part["metrics"]["distance"]["value"] for part in (difference, difference["planned"])]
    assert values == pytest.approx([0.5, 0.75])


def test_boxes_are_said_by_the_words_of_the_lesson():
    rooms = emergence_rooms
    masks = np.zeros((2, 1, 8, 8), bool)
    masks[0, 0, 2:5, 6] = True
    questions = [
        {"question": "Which is closer, <ground> or <ground>?", "answer": "the first", "region_objects": [7, 3]},
        {"question": "How far is <ground>?", "answer": "2.0 meters", "region_objects": [3]},
    ]
    sample = {"region_masks": masks, "region_references": [1, 0, 0], "questions": questions, "messages": [[], []]}
    said = rooms.say_boxes(sample)
    # Column 6 of 8 is the eighth tenth; rows 2 to 4 are the third and the sixth. The empty region has no place.
    texts = ["Which is closer, <ground> or <ground> h h m p?", "How far is <ground> h h m p?"]
    assert [question["question"] for question in said["questions"]] == texts
    assert [chat[0]["content"][1]["text"] for chat in said["messages"]] == texts
    assert [chat[1]["content"][0]["text"] for chat in said["messages"]] == ["the first", "2.0 meters"]
    assert "messages" not in rooms.say_boxes({k: v for k, v in sample.items() if k != "messages"})


def test_flat_questions_are_answered_by_the_mask(run, write_study):
    """Every middle and extent, and nothing that asks for depth, in the order in which regions are pointed at."""
    _, study = write_study()
    rooms, grid = emergence_rooms, run.study_grid(study)
    rows = load_rooms("train", 8, image_size=32, num_frames=2)
    samples = rooms.draw_flat_questions([rows[0], rows[1]], grid, 3)
    assert samples
    for sample in samples:
        references = iter(sample["region_references"])
        for question, chat in zip(sample["questions"], sample["messages"], strict=True):
            own = [next(references) for _ in question["region_objects"]]
            assert question["type"] in ("flat", "direction", "colour")
            assert chat[0]["content"][1]["text"].count("<ground>") == len(own)
            if question["type"] != "flat":
                assert [sample["object_ids"][at] for at in own] == question["region_objects"]
                continue
            y, x = sample["region_masks"][own[0], 0].nonzero()
            wanted = (x.max() - x.min() + 1, y.max() - y.min() + 1)
            if question["question"] == rooms.MIDDLE_QUESTION:
                wanted = (x.mean() + 0.5, y.mean() + 0.5)
            numbers = [float(word) for word in chat[1]["content"][0]["text"].split()[1::2]]
            np.testing.assert_allclose(numbers, wanted, atol=0.051)
        assert next(references, None) is None


def test_a_lesson_in_reading_trains_the_language_model_and_leaves_the_tower(emergence, run, write_study):
    phase = run.Phase(steps=2, rooms=0, views=2, learning_rate=1e-2, vision_learning_rate=0.0, max_questions=3)
    _, plain = write_study()
    study = dataclasses.replace(plain, reading=phase, output_dir=plain.output_dir + "-reading")
    weights = {}
    for name, each in (("plain", plain), ("reading", study)):
        folder = emergence.Path(each.output_dir) / "rooms"
        emergence.store_rooms(folder, "train", each.num_rooms, run.study_grid(each), each.num_frames)
        weights[name] = load_file(run.take_lesson(each))
    layers = {name for name in weights["reading"] if "language_model.layers" in name}
    assert layers == set(weights["reading"]) - set(weights["plain"])
    start = run.build_model(study, run.Row(), run.LESSON_SEED, run.build_processor(study)).state_dict()
    assert any(not torch.equal(weights["reading"][name], start[name]) for name in layers)
    for name, value in weights["plain"].items():
        if "vision_tower" in name:
            assert torch.equal(weights["reading"][name], value), name
    with pytest.raises(ValueError, match="other settings of reading"):
        run.take_lesson(dataclasses.replace(study, reading=dataclasses.replace(phase, steps=3)))


def test_jitter_moves_lengths_and_nothing_else():
    rooms = emergence_rooms
    questions = [
        {"type": "position", "question": "Where?", "answer": "x 0.0 y 0.0 z 3.0", "value": [0.0, 0.0, 3.0]},
        {"type": "distance", "question": "How far?", "answer": "0.3 meters", "value": [0.3]},
        {"type": "colour", "question": "Which?", "answer": "red", "value": None},
    ]
    rng, answers = np.random.default_rng(0), []
    for _ in range(300):
        chats = rooms.jitter_answers({"questions": questions}, 0.2, rng)["messages"]
        answers.append([chat[1]["content"][0]["text"] for chat in chats])
    depths = np.array([float(answer[0].split()[-1]) for answer in answers])
    lengths = np.array([float(answer[1].split()[0]) for answer in answers])
    assert depths.mean() == pytest.approx(3.0, abs=0.05) and depths.std() == pytest.approx(0.2, abs=0.04)
    assert lengths.min() == 0.1 and {answer[2] for answer in answers} == {"red"}


def test_a_run_waits_for_the_weights_that_another_one_makes(emergence, tmp_path):
    made = tmp_path / "pool"
    script = "import sys, time, pathlib; time.sleep(0.5); pathlib.Path(sys.argv[1]).touch()"
    makes = emergence.Job("all", 1, tmp_path / "a.log", (sys.executable, "-c", script, str(made)), made)
    check = "import sys, pathlib; sys.exit(not pathlib.Path(sys.argv[1]).is_file())"
    takes = emergence.Job("all_2", 1, tmp_path / "b.log", (sys.executable, "-c", check, str(made)), made)
    assert [is_good for _, is_good, _ in emergence.run_jobs([makes, takes], 2)] == [True, True]


def test_curves_are_of_rows_that_differ_in_labelled_rooms_alone(write_study):
    rows = {"exposure": None, "all_2": {"depth": 1.0, "labelled_rooms": 2, "label": "few"}, "all": {"depth": 1.0}}
    _, study = write_study(
        rows={**rows, "exposure": {"more_seeds": [3]}, "all": {"depth": 1.0, "more_seeds": [3]}}, pairs=[]
    )
    labels = {name: row.label or name for name, row in study.rows.items()}
    summary = {"settings": dataclasses.asdict(study), "rows": dict.fromkeys(rows), "labels": labels}
    curves = emergence_tables.label_curves(summary)
    assert curves == {"all_2": [(2, "all_2"), (3, "all")]}


def test_labels_saved_are_read_from_the_controls_curve(write_study):
    tables = emergence_tables
    rows = {
        "exposure": None,
        "exposure_1": {"labelled_rooms": 1},
        "all": {"depth": 1.0},
        "all_1": {"depth": 1.0, "labelled_rooms": 1},
        "exposure_8": {"labelled_rooms": 8},
    }
    _, study = write_study(rows=rows, pairs=[])
    # The second seed of the control has no partner, so it must not move the curve.
    shares = {"exposure_1": [0.2], "exposure": [0.3, 0.9], "exposure_8": [0.4], "all": [0.41], "all_1": [0.35]}
    summary = {
        "settings": dataclasses.asdict(study),
        "labels": {name: name for name in rows},
        "control": "exposure",
        "rows": {
            name: {
                "seeds": list(range(1, 1 + len(values))),
                "accuracy": {metric: {"per_seed": values} for metric in tables.METRICS},
            }
            for name, values in shares.items()
        },
    }
    _, cells = tables.saved_rows(summary, tables.label_curves(summary))
    # .35 lies half way between .3 (3 rooms) and .4 (8 rooms): sqrt(24) rooms.
    assert [[*cell[:3], cell[-1]] for cell in cells] == [["all_1", "1", "5", "1"], ["all", "3", "over 8", "1"]]
    assert tables.rooms_needed([1, 3], [0.2, 0.3], 0.1) == "under 1"
    assert tables.rooms_needed([1000, 4000], [0.2, 0.3], 0.27) == "2600"
    del summary["rows"]["exposure"], summary["rows"]["exposure_1"]  # what is left of the control is no curve
    assert tables.saved_rows(summary, tables.label_curves(summary))[1] == []


def test_rows_can_have_seeds_of_their_own(emergence, run, write_study):
    path, study = write_study(rows={"exposure": {"more_seeds": [3, 4]}, "all": {"depth": 1.0, "more_seeds": [3]}})
    jobs = [(job.row, job.seed) for job in emergence.find_missing(study, str(path), "validation")]
    shared = [(row, seed) for seed in (1, 2) for row in ("exposure", "all")]
    assert jobs == [*shared, ("exposure", 3), ("all", 3), ("exposure", 4)]
    assert emergence.select(study, None, [3]).runs() == [("exposure", 3), ("all", 3)]
    assert emergence.select(study, ["exposure"], [4, 1]).runs() == [("exposure", 1), ("exposure", 4)]
    with pytest.raises(ValueError, match="none of the seeds"):
        emergence.select(study, None, [4])
    with pytest.raises(ValueError, match=r"no \[9\]"):
        emergence.select(study, None, [9])
    fewer = dataclasses.replace(study.rows["all"], more_seeds=())
    assert run.describe_run(study, study.rows["all"]) == run.describe_run(study, fewer)
    with pytest.raises(ValueError, match="more_seeds must be a list of whole numbers"):
        write_study(rows={"exposure": {"more_seeds": 3}})
    with pytest.raises(ValueError, match=r"row all has seeds \[5\] that the control"):
        write_study(rows={"exposure": None, "all": {"more_seeds": [5]}})


def test_a_lesson_of_another_study_is_refused(run, prepared):
    _, study = prepared
    run.take_lesson(study)
    with pytest.raises(ValueError, match="other settings of lesson"):
        run.take_lesson(dataclasses.replace(study, lesson=dataclasses.replace(study.lesson, steps=9)))


def test_the_grey_target_is_brightness_with_the_spread_of_depth(prepared):
    _, study = prepared
    rooms = emergence_rooms
    place = rooms.Path(study.output_dir) / "rooms" / "train"
    depth, grey = rooms.RoomArrays(place), rooms.RoomArrays(place, "grey")
    both = [np.stack([data[index]["depth"] for index in range(len(data))]) for data in (depth, grey)]
    assert both[1].mean() == pytest.approx(both[0].mean(), rel=0.1)
    assert both[1].std() == pytest.approx(both[0].std(), rel=0.1)
    luma = rooms.to_grey(depth[3]["frames"])
    assert np.corrcoef(luma.ravel(), grey[3]["depth"].ravel())[0, 1] > 0.99
    np.testing.assert_array_equal(depth[3]["frames"], grey[3]["frames"])


def test_answers_from_regions_are_those_of_a_masked_video(run, write_study):
    """The first word of each answer is the one that the training model, the video masked, finds most likely."""
    _, study = write_study()
    scores, recipe = (
        emergence_scores,
        emergence_recipe,
    )
    processor, grid = run.build_processor(study), run.study_grid(study)
    model = run.build_model(study, recipe.Row(), 3, processor).eval()
    rows = load_rooms("validation", 7, image_size=32, num_frames=2)
    samples = []
    for index in range(3):
        row = scores.first_view(rows[index])
        samples += room_samples(row, grid, reference="region", types=("distance", "closer", "colour"))
    answers = answer_from_regions(model, processor, samples, max_new_tokens=1)
    batch = RegionReadingCollator(IDE3DDataCollator(processor))(samples)
    with torch.no_grad():
        logits = model(**batch).logits
    for index, own in enumerate(answers):
        for place, answer in enumerate(own):
            is_answer = (batch["segment_ids"][index] == place + 1) & (batch["labels"][index] != -100)
            chosen = logits[index, int(is_answer.nonzero()[0]) - 1].argmax()
            assert processor.decode([int(chosen)], skip_special_tokens=True) == answer


def test_judged_by_distance():
    scores = emergence_scores
    question = {"type": "position", "value": [0.0, 0.0, 2.0], "answer": "x 0.0 y 0.0 z 2.0"}
    assert scores.judge(question, "x 0.0 y 0.3 z 2.0") == {
        "position_25": False,
        "position_50": True,
        "position_100": True,
    }
    assert not any(scores.judge(question, "x 0.0 y").values())
    assert scores.judge({"type": "colour", "value": [], "answer": "red"}, "red") == {"colour": True}


def test_hits_are_a_digit_a_room():
    scores = emergence_scores
    sums = scores.count_hits([[{"colour": True}, {"colour": False}], [], [{"colour": True}]])
    assert sums["hits"]["colour"] == "101" and sums["counts"]["colour"] == "201"
    with pytest.raises(ValueError, match="more than nine"):
        scores.count_hits([[{"colour": True}] * 10])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": None}, "rows must map names"),
        ({"rows": {"exposure": {"dept": 1.0}}}, "row exposure has unknown entries .*dept"),
        ({"rows": {"exposure": {"depth": "much"}}}, "depth must be float, got 'much'"),
        ({"rows": {"exposure": {"target": "colour"}}}, "target of row exposure must be one of"),
        ({"rows": {"exposure": {"pool": False, "depth": 1.0}}}, "sees no rooms"),
        ({"rows": {"exposure": {"target": "grey", "teacher": 1.0}}}, "other views need depth, and so does a teacher"),
        (
            {"rows": {"exposure": {"target": "grey", "cross_view": 1.0}}, "teacher_camera": "own"},
            "other views need depth",
        ),
        ({"rows": {"exposure": {"target": "grey", "depth": 1.0}}}, "have depth alone"),
        ({"rows": {"exposure": {"labelled_rooms": 9}}}, "labels more than the 8 rooms"),
        ({"control": "nothing"}, "control must be one of the rows"),
        ({"pairs": [["all", "nothing"]]}, "pairs name rows"),
        ({"seeds": "1, 2"}, "seeds must be a list"),
        ({"seeds": [1.5]}, "seeds must be a list"),
        ({"pool": {"steps": 2}}, "pool misses learning_rate, rooms"),
        ({"questions": {"steps": 2, **PHASE}}, "views must be at least 1"),
        ({"num_rooms": "many"}, "num_rooms must be int"),
        ({"teacher_camera": "last"}, "teacher_camera must be one of .*'last'"),
        ({"colour": 1}, "unknown entries .*colour"),
    ],
)
def test_a_bad_recipe_is_refused(write_study, changes, message):
    with pytest.raises(ValueError, match=message):
        write_study(**changes)


def test_files_that_are_no_recipe_are_refused(tmp_path):
    read_study = emergence_recipe.read_study
    path = tmp_path / "bad.yaml"
    path.write_text("- a list")
    with pytest.raises(ValueError, match="must hold lines"):
        read_study(path)
    path.write_text("rows: {")
    with pytest.raises(ValueError, match="is no YAML"):
        read_study(path)


@pytest.mark.parametrize(
    ("name", "camera"),
    [("emergence.yaml", "own"), ("emergence_second.yaml", "first"), ("emergence_small.yaml", "own")],
)
def test_shipped_recipes_are_whole(run, caplog, monkeypatch, name, camera):
    """Each has the teacher that its protocol says, and takes every result that lies in the folder it names."""
    monkeypatch.chdir(Path(__file__).parents[3])
    study = emergence_recipe.read_study(Path("examples/recipes") / name, output_dir="outputs/not_there")
    assert study.control in study.rows and "all" in study.rows
    assert run.build_teacher(study).camera == camera
    if study.known_results is not None:
        files = list(Path(study.known_results).glob("test-*.json"))
        assert len(emergence_tables.collect_runs(study, "test")) == len(files) > 0
        assert not caplog.records


def test_pools_of_other_teachers_are_others(run, write_study):
    pools = set()
    for camera in ("first", "own"):
        _, study = write_study(teacher_camera=camera)
        pools.add(run.RunFiles(Path("."), "all", 1).pool(study.pool_settings(study.rows["all"])))
    assert len(pools) == 2


def test_a_new_protocol_scores_on_rooms_that_no_other_opened(run, write_study):
    _, study = write_study(test_rooms=2, first_test_room=3)
    rooms = run.open_split(study, "test")
    assert rooms["scene_id"] == load_rooms("test", 5, image_size=32, num_frames=2)["scene_id"][3:]
    assert len(run.open_split(study, "validation")) == 7


def test_unknown_rows_are_refused(emergence, write_study):
    _, study = write_study()
    assert list(emergence.select(study, ["exposure"], [2]).rows) == ["exposure"]
    with pytest.raises(ValueError, match="The study has no"):
        emergence.select(study, ["nothing", "exposure"], None)
    with pytest.raises(ValueError, match="compared with 'exposure'"):
        emergence.select(study, ["all"], None)


def test_processes_run_side_by_side_and_failures_are_told(emergence, tmp_path):
    words = {"good": "import os; print(os.environ['OMP_NUM_THREADS'])", "bad": "raise SystemExit('no such thing')"}
    jobs = [emergence.Job(name, 1, tmp_path / f"{name}.log", (sys.executable, "-c", w)) for name, w in words.items()]
    ended = {job.row: is_good for job, is_good, _ in emergence.run_jobs(jobs, 2)}
    assert ended == {"good": True, "bad": False}
    assert jobs[0].log.read_text() == "1\n"
    assert "no such thing" in emergence.describe_failure(jobs[1])


def test_processes_end_with_the_study(emergence, tmp_path):
    wait = (sys.executable, "-c", "import time; time.sleep(60)")
    jobs = [emergence.Job("quick", 1, tmp_path / "q.log", (sys.executable, "-c", "")), None]
    jobs[1] = emergence.Job("slow", 1, tmp_path / "s.log", wait)
    started = []
    original = emergence.start
    emergence.start = lambda job: started.append(original(job)) or started[-1]
    try:
        running = emergence.run_jobs(jobs, 2)
        next(running)
        running.close()
    finally:
        emergence.start = original
    assert all(isinstance(process, subprocess.Popen) and process.poll() is not None for process in started)


def test_a_study_that_is_told_to_end_ends_its_runs(emergence, tmp_path):
    pid = tmp_path / "pid"
    run = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(60)"
    script = f"""
import pathlib, signal, sys
from examples.emergence import __main__ as emergence
signal.signal(signal.SIGTERM, emergence.stop)
job = emergence.Job("slow", 1, pathlib.Path({str(tmp_path / "log")!r}), (sys.executable, "-c", {run!r}))
list(emergence.run_jobs([job], 1))
"""
    study = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 60
    while not (pid.is_file() and pid.read_text()):
        assert study.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    study.terminate()
    assert study.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_damaged_result_is_named(write_study):
    tables, files_of = (
        emergence_tables,
        emergence_files,
    )
    _, study = write_study()
    files = files_of.RunFiles(files_of.Path(study.output_dir), "all", 1)
    files_of.write_json(files.training, {"settings": files_of.describe_run(study, study.rows["all"])})
    files.result("validation").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        tables.collect_runs(study, "validation")
