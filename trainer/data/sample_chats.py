"""Chats of a training sample: their form, and whether they teach anything."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from processing.chat_rules_ide3d import check_chat, list_texts

__all__ = ["list_chats"]

WORDS_OF_CELLS = "cell_words"  # labels of another collator, which asks for no answer


def list_chats(
    sample: Mapping[str, Any], tell: Callable[..., None], name: str | int
) -> list[Sequence[Mapping[str, Any]]]:
    """Return the chats of a sample, checked.

    A chat without an answer is told: it serves samples that train another term, and prompts.

    Args:
        sample: Sample with its `messages`.
        tell: Function that warns, of a message and its values.
        name: Name of the sample.

    Raises:
        ValueError: If `messages` are no chat or list of chats, or an answer has no words.
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
        tell("Sample %r: %s no assistant message: no words are learned from them.", name, fault)
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
