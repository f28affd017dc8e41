"""Boxes that a session says in words: parsed, several, none, or no answer."""

import pytest

from processing.boxes_in_words import write_boxes
from processing.oriented_boxes import CameraBox
from trainer.session import SaidBoxes, SceneSession
from trainer.session.said_boxes import LOCATE

BOX = CameraBox(1, (-0.34, 0.12, 2.31), (0.61, 0.88, 0.58), 0.0)


@pytest.fixture
def session(scene_model, processor, frames):
    return SceneSession(scene_model, processor, frames, do_sample_frames=False)


@pytest.fixture
def asked(monkeypatch):
    """Put answers into the model's mouth; returns what it was asked, and how."""
    seen = {}

    def say(*answers):
        def ask(self, questions, **settings):
            seen.update(settings, questions=questions)
            return list(answers)

        monkeypatch.setattr(SceneSession, "ask", ask)
        return seen

    return say


def test_one_several_none_and_no_answer(session, asked):
    one, several = write_boxes([BOX]), write_boxes([BOX, BOX])
    seen = asked(one, several, "[]", "It is in the corner.")
    found = session.boxes(["the {red} chair", "all lamps", "the cat", "the bed"])
    assert seen["questions"][:2] == ["Locate the {red} chair in 3D.", "Locate all lamps in 3D."]
    assert found[0] == SaidBoxes("the {red} chair", one, (BOX,))
    assert [entry.boxes and len(entry.boxes) for entry in found] == [1, 2, (), None]
    assert found[3].text == "It is in the corner." and "no strict JSON" in found[3].problem
    assert [entry.problem for entry in found[:3]] == [None] * 3


def test_a_frame_that_was_not_shown_is_no_answer(session, asked):
    asked(write_boxes([CameraBox(session.num_frames, BOX.center, BOX.size, 0.0)]))
    (found,) = session.boxes(["the chair"])
    assert found.boxes is None and "frame" in found.problem


@pytest.mark.parametrize("numbers", ["digits", "bins"])
def test_as_many_boxes_as_asked_for_fit_into_an_answer(session, asked, processor, numbers):
    seen = asked("[]")
    session.boxes(["all chairs"], numbers=numbers, max_boxes=3, batch_size=1)
    far = CameraBox(2, (-2.17, -1.04, 9.87), (1.23, 2.34, 1.99), -0.7)
    text = write_boxes([far] * 3, numbers=numbers)
    assert len(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) < seen["max_new_tokens"]
    assert seen["batch_size"] == 1 and LOCATE == "Locate {description} in 3D."


def test_a_model_that_never_learned_boxes_gives_no_answer(session):
    (found,) = session.boxes(["the chair"], max_boxes=1)
    assert found.boxes is None and found.problem


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"descriptions": "the chair"}, TypeError, "`descriptions` must be a list"),
        ({"descriptions": [""]}, ValueError, "`descriptions` is empty"),
        ({"descriptions": [[{"role": "user", "content": "x"}]]}, TypeError, "`descriptions` must be texts"),
        ({"template": "Where?"}, ValueError, "`template` must hold {description}"),
        ({"template": None}, TypeError, "`template` must be a text"),
        ({"numbers": "roman"}, ValueError, "numbers"),
        ({"numbers": "tokens"}, ValueError, "the tokenizer has no <bin_0>"),
        ({"max_boxes": 0}, ValueError, "`max_boxes` must be"),
        ({"max_boxes": 65}, ValueError, "`max_boxes` must be"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(session, asked, options, error, told):
    seen = asked("[]")
    with pytest.raises(error, match=told):
        session.boxes(**{"descriptions": ["the chair"], **options})
    assert not seen
