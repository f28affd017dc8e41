"""Boxes in words on rooms: a model that answers with the truth scores fully, one that says nothing does not."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ide3d import nano_model
from processing.boxes_in_words import parse_boxes
from processing.regions import regions_from_ids
from processing.rooms.box_questions import BoxLesson
from trainer.evaluation import room_boxes
from trainer.evaluation.room_boxes import evaluate_room_boxes, format_box_table
from trainer.session.scene_session import SceneSession

OPTIONS = {"split": "validation", "num_rooms": 2, "num_baseline_rooms": 3, "device": "cpu"}


def remember_samples(monkeypatch) -> list[dict]:
    """Samples that the evaluation asks about, while it does."""
    samples, make = [], room_boxes.box_sample

    def remember(*given, **options):
        samples.append(make(*given, **options))
        return samples[-1]

    monkeypatch.setattr(room_boxes, "box_sample", remember)
    return samples


def test_the_truth_scores_fully_and_the_mean_box_does_not(monkeypatch):
    """The answers are put into the model's mouth."""
    samples = remember_samples(monkeypatch)
    monkeypatch.setattr(SceneSession, "ask", lambda *_, **__: [q["answer"] for q in samples[-1]["questions"]])
    lesson = BoxLesson(lenses="several", field_of_view="unify")
    result = evaluate_room_boxes(nano_model(), lesson=lesson, num_frames=2, **OPTIONS)
    frames = {box.frame for entry in result["answers"] for box in parse_boxes(entry["truth"])}
    assert frames == {0, 1}  # of the four that the processor takes
    assert (result["numbers"], result["lenses"], result["field_of_view"]) == ("digits", "several", "unify")
    model, mean = result["model"], result["mean_box"]
    assert model["acc@0.25"] == model["f1@0.25"] == 100 and model["unparsable"] == 0
    assert model["center_error"] < 0.01 < 0.2 < mean["center_error"] and mean["acc@0.25"] < 60
    assert mean["none/f1@0.25"] == 0  # it always says one box
    assert all(entry["truth"] == entry["answer"] for entry in result["answers"])
    for entry in result["answers"]:
        assert entry["f1@0.5"] == 1 and not entry["unparsable"]
        assert (entry["center_error"] is None) == (entry["type"] == "none")
    table = format_box_table(result)
    assert "| acc@0.25" in table and "| one/center_error" in table and "mean box" in table.splitlines()[0]


def test_a_model_that_never_learned_boxes_gives_no_answers():
    result = evaluate_room_boxes(nano_model(), **{**OPTIONS, "num_rooms": 1})
    assert result["model"]["unparsable"] > 50 and result["mean_box"]["unparsable"] == 0
    assert result["num_rooms"] == 1 and result["answers"]
    assert "| unparsable" in format_box_table(result)


def test_a_model_that_chooses_the_meant_box_scores_fully_where_one_is_meant(monkeypatch):
    """In rooms object k has the id k + 1; the last column is "no such object"."""
    samples = remember_samples(monkeypatch)

    def ground(session, texts, masks, *, template):
        questions = samples[-1]["questions"]
        assert texts == [q["words"] for q in questions] and "{description}" in template
        assert any(masks[q["target_objects"][0] - 1].any() for q in questions if q["target_objects"])
        meant = [q["target_objects"][0] - 1 if q["target_objects"] else len(masks) for q in questions]
        return torch.nn.functional.one_hot(torch.tensor(meant), len(masks) + 1).float()

    monkeypatch.setattr(SceneSession, "ground", ground)
    result = evaluate_room_boxes(nano_model(), finding="proposals", num_frames=2, **OPTIONS)
    model = result["model"]
    assert result["finding"] == "proposals" and model["unparsable"] == 0
    assert model["one/f1@0.5"] == model["none/f1@0.5"] == 100 and model["center_error"] < 0.02


def test_found_regions_are_lifted_to_boxes(monkeypatch):
    """Found regions that are the cells of the meant objects; what is lost is lost by cells."""
    samples, rows, show = remember_samples(monkeypatch), [], room_boxes.show_room
    monkeypatch.setattr(room_boxes, "show_room", lambda row, *_: rows.append(row) or show(row, *_))

    def find_each(session, texts, *, template):
        ids = np.stack([np.asarray(image) for image in rows[-1]["instance_ids"]])
        meant = [q["target_objects"] for q in samples[-1]["questions"]]
        return [SimpleNamespace(masks=regions_from_ids(ids, n, session.token_grid)) for n in meant]

    monkeypatch.setattr(SceneSession, "find_each", find_each)
    model = evaluate_room_boxes(nano_model(), finding="regions", num_frames=2, **OPTIONS)["model"]
    assert model["center_error"] < 0.8 and model["acc@0.25"] > 20
    assert model["none/f1@0.25"] == 100 and model["unparsable"] == 0


def test_settings_are_checked_before_anything_is_loaded():
    with pytest.raises(TypeError, match="`lesson` must be a BoxLesson"):
        evaluate_room_boxes("missing", lesson={"numbers": "digits"})
    with pytest.raises(ValueError, match="`finding` must be"):
        evaluate_room_boxes("missing", finding="boxes")
    with pytest.raises(ValueError, match="`num_baseline_rooms` must be"):
        evaluate_room_boxes("missing", num_baseline_rooms=0)
