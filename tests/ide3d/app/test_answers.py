"""A scene answers as its session does, keeps turns, follows a click, and lights up what is found."""

import numpy as np
import pytest

from ide3d import nano_model
from ide3d.app.answers import HOW_FAR, find_object, list_pictures, mark_object, stream_words
from ide3d.app.scenes import SceneShelf
from ide3d.app.settings import PageSettings
from trainer.session import SceneSession

NANO = str(nano_model())
LIMITS = {"keeps_turns": False, "max_tokens": 16, "max_seconds": 60}


@pytest.fixture(scope="module")
def shelf():
    return SceneShelf(PageSettings((NANO,), device="cpu"))


@pytest.fixture
def opened(shelf, room):
    return shelf.open("visitor", NANO, room.frames, "room")


def say(opened, question, **limits) -> str:
    *_, last = stream_words(opened, question, **{**LIMITS, **limits})
    return last.text


def test_words_grow_to_what_the_session_answers(opened):
    question = "How far is the table from the camera?"
    steps = list(stream_words(opened, question, **LIMITS))
    (whole,) = opened.scene.ask([question])
    assert steps[-1].text == whole and len(steps) > 2
    assert all(whole.startswith(step.text) for step in steps)
    assert 0 < steps[0].first_seconds == steps[-1].first_seconds <= steps[-1].seconds


def test_earlier_turns_are_read_where_that_is_asked_for(opened, monkeypatch):
    said = []
    tokenize = SceneSession._tokenize
    monkeypatch.setattr(SceneSession, "_tokenize", lambda self, asked: said.append(asked) or tokenize(self, asked))
    mark_object(opened, 0, (0.5, 0.8))
    first = say(opened, HOW_FAR)
    say(opened, "Is there a bed in the room?")
    say(opened, "What colour is <ground>?", keeps_turns=True)
    assert said[-2] == "Is there a bed in the room?"
    texts = [part.get("text") for message in said[-1] for part in message["content"] if part["type"] == "text"]
    assert texts[:2] == [HOW_FAR, first] and texts[-1] == "What colour is <ground>?"
    assert len(opened.turns) == 3


def test_a_question_about_a_marked_object_needs_a_mark(opened):
    with pytest.raises(ValueError, match="but none is marked. Click one first"):
        say(opened, HOW_FAR)
    mark_object(opened, 0, (0.5, 0.8))
    assert "meters" in say(opened, HOW_FAR)


def test_an_answer_that_takes_too_long_is_cut(opened):
    (only,) = stream_words(opened, "How far is the table from the camera?", **{**LIMITS, "max_seconds": 1e-9})
    assert only.is_cut and only.tokens == 1


def test_a_click_is_followed_as_the_session_follows_it(opened):
    words = mark_object(opened, 1, (0.5, 0.8))
    (mark,) = opened.drawing.marks
    assert np.array_equal(mark.masks, opened.marked.numpy())
    row, col = int(0.8 * mark.masks.shape[1]), int(0.5 * mark.masks.shape[2])
    assert mark.masks[1, row, col]
    assert words.startswith("Marked") and "seen in the frames" in words
    with pytest.raises(ValueError, match="lies outside of the frame"):
        mark_object(opened, 0, (1.5, 0.5))


def test_what_is_found_lights_up_and_stands_in_3d(opened):
    words = find_object(opened, "the orange cabinet", is_nano=True)
    assert words.startswith("the orange cabinet: region")
    region, *_, box = opened.drawing.marks
    assert region.masks.any() and box.corners.shape == (8, 3) and 0 <= box.frame < len(opened.scene.frames)
    assert 0.5 < box.corners.mean(0)[2] < 10  # metres before the camera of its frame
    pictures = list_pictures(opened.drawing)
    assert len(pictures) == len(opened.scene.frames)
    plain = list_pictures(opened.draw([]))
    lit = [np.any(np.asarray(now) != np.asarray(then)) for (now, _), (then, _) in zip(pictures, plain, strict=True)]
    assert any(lit) and [("the orange cabinet" in told) for _, told in pictures] == lit
    assert "seen in the frames" in words and opened.marked is not None


def test_what_is_not_there_is_said(opened):
    words = find_object(opened, "the red chair", is_nano=True)
    assert words.startswith("the red chair: no such object") and opened.drawing.marks == ()
