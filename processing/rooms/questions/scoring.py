"""Scores of answers in words."""

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from processing.argument_rules import check_choice, check_keys
from processing.rooms.questions.wording import TYPES

__all__ = ["DISTANCE_TOLERANCE", "POSITION_TOLERANCE", "read_numbers", "score_answer"]

DISTANCE_TOLERANCE = 0.15  # of the true length
POSITION_TOLERANCE = 0.5  # metres

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def read_numbers(text: str) -> list[float]:
    """Return all numbers of a text in order, with blanks around signs allowed."""
    text = re.sub(r"-\s+", "-", text)
    # A run of blanks is tried from its start alone: its length would count squared.
    text = re.sub(r"(?<!\s)\s*\.\s*(?=\d)", ".", text)
    return [float(number) for number in _NUMBER.findall(text)]


def _words(text: str) -> str:
    return " ".join(text.lower().strip(" .\n\t").split())


def _check_question(question: Any) -> list[float]:
    """Return the numbers behind a question's answer; check what its score needs."""
    check_keys(question, ("type", "answer"), "question")
    check_choice(question["type"], TYPES, "question: type")
    if not isinstance(question["answer"], str):
        raise TypeError(f"`question: answer` must be text, got {type(question['answer']).__name__}.")
    value = question.get("value")
    value = [] if value is None else value.tolist() if hasattr(value, "tolist") else value
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if not is_list or not all(isinstance(x, Real) and math.isfinite(x) for x in value):
        raise ValueError(f"`question: value` must be a list of finite numbers, got {reprlib.repr(value)}.")
    if question["type"] == "position" and len(value) != 3:
        raise ValueError(f"`question: value` of a position must be x, y and z, got {reprlib.repr(value)}.")
    return [float(x) for x in value]


def score_answer(question: Mapping[str, Any], text: str) -> bool:
    """Return whether `text` answers a question of a room.

    Lengths (distance, height) count within 15 % of the truth, positions within 0.5 m; everything else must be the same
    words, case, blanks and a final point aside.

    Args:
        question: Entry of a row's `questions`.
        text: Answer in words.

    Raises:
        TypeError: If `question` is no mapping or `text` no text.
        ValueError: If `question` lacks a part, or has an unknown type.
    """
    if not isinstance(text, str):
        raise TypeError(f"`text` must be an answer in words, got {type(text).__name__}.")
    value = _check_question(question)
    if question["type"] == "position":
        numbers = read_numbers(text)
        return len(numbers) == 3 and math.dist(numbers, value) <= POSITION_TOLERANCE
    if question["type"] in ("distance", "size") and value:
        numbers = read_numbers(text)
        return len(numbers) == 1 and abs(numbers[0] - value[0]) <= DISTANCE_TOLERANCE * value[0]
    return _words(text) == _words(question["answer"])
