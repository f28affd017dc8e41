"""Scores of answers in words."""

import math
import re

__all__ = ["DISTANCE_TOLERANCE", "POSITION_TOLERANCE", "read_numbers", "score_answer"]

DISTANCE_TOLERANCE = 0.15  # of the true length
POSITION_TOLERANCE = 0.5  # metres

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def read_numbers(text: str) -> list[float]:
    """Return all numbers of a text in order, with blanks around signs allowed."""
    return [float(number) for number in _NUMBER.findall(re.sub(r"\s*\.\s*(?=\d)", ".", re.sub(r"-\s+", "-", text)))]


def _words(text: str) -> str:
    return " ".join(text.lower().strip(" .\n\t").split())


def score_answer(question: dict, text: str) -> bool:
    """Return whether `text` answers a question of a room.

    Lengths (distance, height) count within 15 % of the truth, positions within 0.5 m; everything else must be the same
    words, case, blanks and a final point aside.

    Args:
        question: Entry of a row's `questions`.
        text: Answer in words.
    """
    value = list(question["value"])
    if question["type"] == "position":
        numbers = read_numbers(text)
        return len(numbers) == 3 and math.dist(numbers, value) <= POSITION_TOLERANCE
    if question["type"] in ("distance", "size") and value:
        numbers = read_numbers(text)
        return len(numbers) == 1 and abs(numbers[0] - value[0]) <= DISTANCE_TOLERANCE * value[0]
    return _words(text) == _words(question["answer"])
