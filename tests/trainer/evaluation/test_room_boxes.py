"""Boxes in words on rooms: a model that answers with the truth scores fully, one that says nothing does not."""

import pytest

from ide3d import nano_model
from processing.boxes_in_words import parse_boxes
from processing.rooms.box_questions import BoxLesson
from trainer.evaluation import room_boxes
from trainer.evaluation.room_boxes import evaluate_room_boxes, format_box_table
from trainer.session.scene_session import SceneSession

OPTIONS = {"split": "validation", "num_rooms": 2, "num_baseline_rooms": 3, "device": "cpu"}


def test_the_truth_scores_fully_and_the_mean_box_does_not(monkeypatch):
    """The answers are put into the model's mouth."""
    said = {}
    make = room_boxes.box_sample

    def remember(*given, **options):
        sample = make(*given, **options)
        said.update({q["question"]: q["answer"] for q in sample["questions"]})
        return sample

    monkeypatch.setattr(room_boxes, "box_sample", remember)
    monkeypatch.setattr(SceneSession, "ask", lambda self, texts, **_: [said[text] for text in texts])
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


def test_settings_are_checked_before_anything_is_loaded():
    with pytest.raises(TypeError, match="`lesson` must be a BoxLesson"):
        evaluate_room_boxes("missing", lesson={"numbers": "digits"})
    with pytest.raises(ValueError, match="`num_baseline_rooms` must be"):
        evaluate_room_boxes("missing", num_baseline_rooms=0)
