"""One answer of a session, token by token as the model says it."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modeling_ide3d.grounding_ide3d import find_open_references
from processing.argument_rules import check_whole
from trainer.session.decoding import SceneAnswer
from trainer.session.questions import Question, list_questions, list_regions

if TYPE_CHECKING:
    from trainer.session.scene_session import SceneSession

__all__ = ["check_references", "stream_answer"]


def stream_answer(
    session: "SceneSession", question: Question, regions: Tensor | None = None, *, max_new_tokens: int = 64
) -> Iterator[SceneAnswer]:
    """Yield the answer to one question as it grows, once for each token.

    The words and tokens of the last one are those of `session.answer`. Ask the session nothing else before that.

    Args:
        session: Session of the scene.
        question: Text, or a chat with one video.
        regions: Bool masks (N, V, rows, cols) that its `<ground>` tokens stand for, in order.
        max_new_tokens: Largest number of tokens of the answer.

    Raises:
        TypeError: If the question is no text or chat, regions are no array, or `max_new_tokens` is no integer.
        ValueError: As `session.answer` does. All errors but those of scores come before the first token.
    """
    check_whole(max_new_tokens, "max_new_tokens", 1)
    (question,) = list_questions([question])
    (own,) = list_regions([regions], 1)
    tokens = session._tokenize(question)
    check_references(session, [tokens], [own], ["The question"])
    session._groups([tokens], max_new_tokens, None)  # raises where it does not fit
    suffix = session._embed(tokens, own)
    for (answer,) in session.decoder.stream(session.questions, [suffix], max_new_tokens, names=["the question"]):
        text = session.processor.decode(answer.tokens, skip_special_tokens=True)
        yield SceneAnswer(text, list(answer.tokens), list(answer.margins))


def check_references(
    session: "SceneSession", tokens: Sequence[Tensor], regions: Sequence[Tensor | None], names: Sequence[str]
) -> None:
    """Raise ValueError if a question points at more regions than were given.

    Args:
        session: Session that the questions are for.
        tokens: Token ids (L_i,) of each question.
        regions: Masks (N_i, V, rows, cols) of each, or None.
        names: Names of the questions in the message.
    """
    ground, ends = session.model.config.ground_token_id, sorted(session.decoder.end_tokens)
    for row, own, name in zip(tokens, regions, names, strict=True):
        count = torch.tensor([0 if own is None else len(own)])
        if find_open_references(row[None], ground, ends, count).any():
            raise ValueError(
                f"{name} points at more regions than the {int(count)} given: give a mask for each "
                f"{session.processor.ground_token}, in order."
            )
