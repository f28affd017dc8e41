"""Text and tokens of a question about a video, split where the video stands."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

__all__ = ["Question", "check_count", "list_questions", "render_question", "split_at_video", "tokenize_after_video"]

Question = str | list[dict[str, Any]]  # a text, or a chat with one video


def list_questions(questions: Iterable[Question], name: str = "questions") -> list[Question]:
    """Return questions as a list, each of which says something.

    Args:
        questions: Texts, or chats with one video each.
        name: Name of the argument in messages.

    Raises:
        TypeError: If it is a single text or chat, or an entry is neither of both.
        ValueError: If a text is empty.
    """
    if isinstance(questions, (str, bytes, Mapping)) or not isinstance(questions, Iterable):
        raise TypeError(
            f"`{name}` must be a list of texts or chats, got {type(questions).__name__} {questions!r}. Put a single "
            "one into a list."
        )
    questions = list(questions)
    for index, question in enumerate(questions):
        if isinstance(question, str) and not question.strip():
            raise ValueError(f"Entry {index} of `{name}` is empty, got {question!r}. Leave it out or write a text.")
        is_chat = isinstance(question, (list, tuple)) and question and all(isinstance(m, Mapping) for m in question)
        if not isinstance(question, str) and not is_chat:
            raise TypeError(
                f"Entry {index} of `{name}` must be a text or a chat, a list of messages, got "
                f"{type(question).__name__} {question!r}. Put a single chat into a list."
            )
    return questions


def check_count(value: Any, name: str) -> None:
    """Raise ValueError unless a value is an integer of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value!r}. Give a whole number.")


def render_question(processor: Any, question: Question, system: str | None = None) -> str:
    """Return the chat text of a question up to where the answer begins.

    Args:
        processor: `IDE3DProcessor`.
        question: Text, or a whole chat with one video.
        system: System prompt in front of a text; default: that of the chat template.
    """
    if isinstance(question, str):
        chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
        if system is not None:
            chat.insert(0, {"role": "system", "content": system})
    else:
        chat = question
    return processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def split_at_video(processor: Any, text: str) -> tuple[str, str]:
    """Return what all questions share, the video token included, and what is the question's own.

    Raises:
        ValueError: If the text has no video token, or several.
    """
    head, video, tail = text.partition(processor.video_token)
    if not video or video in tail:
        raise ValueError(f"A question needs exactly one {processor.video_token} in its chat, got {text!r}.")
    return head + video, tail


def tokenize_after_video(processor: Any, tail: str) -> Tensor:
    """Return the token ids (L,) of the text behind a video."""
    # The video token is a token of its own, so that what follows it is split as in the whole text.
    return torch.tensor(processor.tokenizer(processor.video_token + tail, add_special_tokens=False)["input_ids"][1:])
