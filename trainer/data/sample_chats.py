"""Chats of a training sample: their form, and whether they teach anything."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from processing.chat_rules_ide3d import check_chat, list_texts

__all__ = ["list_chats"]

OTHER_TARGETS = ("depth", "teacher_features", "region_targets", "mentions")
WORDS_OF_CELLS = "cell_words"  # labels of another collator, which asks for no answer


def list_chats(
    sample: Mapping[str, Any], has_teacher: bool, tell: Callable[..., None], name: str | int
) -> list[Sequence[Mapping[str, Any]]]:
    """Return the chats of a sample, checked.

    Args:
        sample: Sample with its `messages`.
        has_teacher: Whether a teacher gives the sample features to learn from.
        tell: Function that warns, of a message and its values.
        name: Name of the sample.

    Raises:
        ValueError: If `messages` are no chat or list of chats, an answer has no words, or a chat has no answer and the
            sample nothing else to learn.
    """
    messages = sample.get("messages")
    if messages is None or (isinstance(messages, Sequence) and not len(messages)):
        raise ValueError(
            f"messages is {'missing' if messages is None else 'empty'}; expected a chat or a list of chats."
        )
    is_packed = isinstance(messages, Sequence) and isinstance(messages[0], (list, tuple))
    chats = list(messages) if is_packed else [messages]
    without = []
    for index, chat in enumerate(chats):
        title = f"chat {index}" if is_packed else "messages"
        check_chat(chat, title)
        if not _count_answers(chat, title):
            without.append(index)
    if without and sample.get(WORDS_OF_CELLS) is None:
        fault = f"chats {without} of messages have" if is_packed else "messages have"
        if not has_teacher and all(sample.get(key) is None for key in OTHER_TARGETS):
            raise ValueError(
                f"{fault} no assistant message: there is nothing to learn. Add the answer as "
                "{'role': 'assistant', 'content': ...}."
            )
        tell("Sample %r: %s no assistant message, so that no words are learned from them.", name, fault)
    return chats


def _count_answers(chat: Sequence[Any], title: str) -> int:
    """Return the number of answers; each must have words."""
    answers = 0
    for index, message in enumerate(chat):
        if isinstance(message, Mapping) and message["role"] == "assistant":
            answers += 1
            if not "".join(list_texts(message)).strip():
                raise ValueError(
                    f"Message {index} of {title} is an answer without words: there is nothing to learn. Give the "
                    "answer, or leave the sample out."
                )
    return answers
