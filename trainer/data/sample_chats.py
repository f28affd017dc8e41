"""Chats of a training sample: their form, and whether they teach anything."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from processing.chat_rules_ide3d import check_chat, list_texts

__all__ = ["check_answers", "list_chats"]

WORDS_OF_CELLS = "cell_words"  # labels of another collator, which asks for no answer


def list_chats(sample: Mapping[str, Any]) -> list[Sequence[Mapping[str, Any]]]:
    """Return the chats of a sample, their form checked.

    Args:
        sample: Sample with its `messages`.

    Raises:
        ValueError: If `messages` are no chat or list of chats.
    """
    messages = sample.get("messages")
    if messages is None or (isinstance(messages, Sequence) and not len(messages)):
        raise ValueError(
            f"messages is {'missing' if messages is None else 'empty'}; expected a chat or a list of chats."
        )
    if not _is_packed(messages):
        check_chat(messages, "messages")
        return [messages]
    for index, chat in enumerate(messages):
        check_chat(chat, f"chat {index}")
    return list(messages)


def check_answers(sample: Mapping[str, Any], tell: Callable[..., None], name: str | int) -> None:
    """Check that the chats of a sample have words to learn.

    The template has taken them before.

    A chat without an answer is told: it serves samples that train another term, and prompts.

    Args:
        sample: Sample with its `messages`.
        tell: Function that warns, of a message and its values.
        name: Name of the sample.

    Raises:
        ValueError: If an answer has no words.
    """
    messages = sample["messages"]
    is_packed = _is_packed(messages)
    without = []
    for index, chat in enumerate(messages if is_packed else [messages]):
        answers = [number for number, message in enumerate(chat) if message["role"] == "assistant"]
        if empty := [number for number in answers if not "".join(list_texts(chat[number])).strip()]:
            raise ValueError(
                f"Message {empty[0]} of {f'chat {index}' if is_packed else 'messages'} is an answer without words: "
                "there is nothing to learn. Give the answer, or leave the sample out."
            )
        if not answers:
            without.append(index)
    if without and sample.get(WORDS_OF_CELLS) is None:
        fault = f"chats {without} of messages have" if is_packed else "messages have"
        tell("Sample %r: %s no assistant message: no words are learned from them.", name, fault)


def _is_packed(messages: Any) -> bool:
    return isinstance(messages, Sequence) and isinstance(messages[0], (list, tuple))
