"""An answer that grows is at its end that of the session, and refuses what the session refuses."""

import pytest
import torch

from trainer.session import SceneSession, stream_answer

QUESTION = "What is <ground>?"
NEW_TOKENS = 5


@pytest.fixture
def session(scene_model, processor, frames):
    return SceneSession(scene_model, processor, frames)


def test_it_grows_by_a_token_and_ends_as_the_session_answers(session):
    regions = torch.rand(1, 3, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.4
    (whole,) = session.answer([QUESTION], [regions], max_new_tokens=NEW_TOKENS)
    steps = list(stream_answer(session, QUESTION, regions, max_new_tokens=NEW_TOKENS))
    assert [len(step.tokens) for step in steps] == [*range(1, len(whole.tokens) + 1), len(whole.tokens)]
    assert all(step.tokens == whole.tokens[: len(step.tokens)] for step in steps)
    assert (steps[-1].text, steps[-1].margins) == (whole.text, whole.margins)


def test_an_answer_that_nobody_waits_for_leaves_the_session_as_it_was(session):
    (whole,) = session.answer(["Where?"], max_new_tokens=NEW_TOKENS)
    growing = stream_answer(session, "Is there a lamp?", max_new_tokens=NEW_TOKENS)
    next(growing)
    growing.close()
    assert session.answer(["Where?"], max_new_tokens=NEW_TOKENS)[0].tokens == whole.tokens
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"question": " "}, "is empty"),
        ({"question": QUESTION}, "The question points at more regions than the 0 given"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 10**12}, "of `max_memory` are left"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_the_first_token(session, given, message):
    given = {"question": "Where?", **given}
    with pytest.raises(ValueError, match=message):
        next(stream_answer(session, given.pop("question"), **given))
