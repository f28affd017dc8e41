"""Runs of a study: they start alike, share what they may share, and go on where they were killed."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from examples.emergence import models, rooms, training
from examples.emergence.files import RunFiles
from examples.emergence.recipe import Arm, Phase


def test_arms_of_a_seed_see_the_same_questions_and_start_alike(prepared, monkeypatch):
    _, study = prepared
    seen = {}
    original = training.train_phase

    def record(model, collator, steps, args, has_layers, **options):
        if has_layers:
            texts = [[q["question"] for sample in steps[k] for q in sample.get("questions", [])] for k in range(2)]
            scenes = [[s["scene_id"] for s in steps[k] if "questions" not in s] for k in range(2)]
            layers = {k: v.clone() for k, v in model.state_dict().items() if "language_model.layers" in k}
            seen[args.output_dir.rpartition("-")[2]] = texts, scenes, layers
        return original(model, collator, steps, args, has_layers, **options)

    monkeypatch.setattr(training, "train_phase", record)
    training.train_run(study, "exposure", 1)
    training.train_run(study, "all", 1)
    assert seen["exposure"][:2] == seen["all"][:2]
    assert len(seen["all"][0][0]) > 2 and all(map(len, seen["all"][1]))
    for name, value in seen["all"][2].items():
        assert torch.equal(value, seen["exposure"][2][name]), name


def test_a_killed_run_goes_on_behind_its_last_phase(prepared, monkeypatch):
    _, study = prepared
    files = RunFiles(Path(study.output_dir), "all", 1)
    training.train_run(study, "all", 1)
    whole = load_file(files.weights)
    pool = files.pool(study.pool_settings(study.rows["all"]))
    for file in (*files.folder.iterdir(), pool):
        file.unlink()
    original, phases = training.train_phase, []

    def killed_in_questions(model, collator, steps, args, has_layers, **options):
        if has_layers:
            raise KeyboardInterrupt
        phases.append("pool")
        return original(model, collator, steps, args, has_layers, **options)

    monkeypatch.setattr(training, "train_phase", killed_in_questions)
    with pytest.raises(KeyboardInterrupt):
        training.train_run(study, "all", 1)
    assert not files.training.exists() and pool.is_file()

    def only_questions(model, collator, steps, args, has_layers, **options):
        phases.append("questions" if has_layers else "pool")
        return original(model, collator, steps, args, has_layers, **options)

    monkeypatch.setattr(training, "train_phase", only_questions)
    training.train_run(study, "all", 1)
    assert phases == ["pool", "questions"]
    resumed = load_file(files.weights)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert set(json.loads(files.training.read_text())["phases"]) == {"pool", "questions"}


@pytest.mark.slow
def test_arms_of_one_pool_phase_train_it_once(prepared, monkeypatch):
    _, study = prepared
    few = dataclasses.replace(study.rows["all"], labelled_rooms=2)
    study = dataclasses.replace(study, rows={**study.rows, "all_2": few})
    original, phases = training.train_phase, []

    def record(model, collator, steps, args, has_layers, **options):
        phases.append("questions" if has_layers else "pool")
        return original(model, collator, steps, args, has_layers, **options)

    monkeypatch.setattr(training, "train_phase", record)
    for arm in ("all", "all_2", "exposure"):
        training.train_run(study, arm, 1)
    training.train_run(study, "all", 2)
    assert phases == ["pool", "questions", "questions", "pool", "questions", "pool", "questions"]


def test_a_lesson_in_reading_trains_the_language_model_and_leaves_the_tower(write_study):
    phase = Phase(steps=2, rooms=0, views=2, learning_rate=1e-2, vision_learning_rate=0.0, max_questions=3)
    _, plain = write_study()
    study = dataclasses.replace(plain, reading=phase, output_dir=plain.output_dir + "-reading")
    weights = {}
    for name, each in (("plain", plain), ("reading", study)):
        folder = Path(each.output_dir) / "rooms"
        rooms.store_rooms(folder, "train", each.num_rooms, models.study_grid(each), each.num_frames)
        weights[name] = load_file(training.take_lesson(each))
    layers = {name for name in weights["reading"] if "language_model.layers" in name}
    assert layers and set(weights["reading"]) == set(weights["plain"])
    start = models.build_model(study, Arm(), training.LESSON_SEED, models.build_processor(study)).state_dict()
    assert any(not torch.equal(weights["reading"][name], start[name]) for name in layers)
    assert all(torch.equal(weights["plain"][name], start[name]) for name in layers)
    for name, value in weights["plain"].items():
        if "vision_tower" in name:
            assert torch.equal(weights["reading"][name], value), name
    with pytest.raises(ValueError, match="other settings of reading"):
        training.take_lesson(dataclasses.replace(study, reading=dataclasses.replace(phase, steps=3)))


def test_a_lesson_of_another_study_is_refused(prepared):
    _, study = prepared
    training.take_lesson(study)
    with pytest.raises(ValueError, match="other settings of lesson"):
        training.take_lesson(dataclasses.replace(study, lesson=dataclasses.replace(study.lesson, steps=9)))


def test_pools_of_other_teachers_are_others(write_study):
    pools = set()
    for camera in ("first", "own"):
        _, study = write_study(teacher_camera=camera)
        pools.add(RunFiles(Path("."), "all", 1).pool(study.pool_settings(study.rows["all"])))
    assert len(pools) == 2
