"""Rules for two answers in words being the same answer."""

import re
from collections.abc import Sequence

import numpy as np

__all__ = [
    "clean_answer",
    "normalise_answer",
    "question_type",
    "read_number",
    "read_option",
    "refined_match",
    "relative_accuracy",
    "score_spatial_answer",
]

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
# Misspelt words of SQA3D's answers, and what its evaluation makes of them.
MISSPELT = {
    "letf": "left",
    "let": "left",
    "tehre": "there",
    "rigth": "right",
    "rght": "right",
    "behine": "behind",
    "tv": "TV",
    "chai": "chair",
    "wasing": "washing",
    "waslked": "walked",
    "oclock": "o'clock",
}
# VSI-Bench and ReVSI: beginnings of the types of questions whose answer is a number, and the thresholds of their
# relative accuracy.
NUMERIC_TYPES = ("object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation")
THRESHOLDS = np.linspace(0.5, 0.95, 10)
ROUNDING = 1e-9
SQA3D_TYPES = ("what", "is", "how", "can", "which")


def clean_answer(text: str) -> str:
    """Return the form in which SQA3D compares answers.

    Source: SQA3D's evaluation, which LEO and 3D-IDE use. Its oddities are kept: "let" becomes "left", one article
    before a word goes, and of the numbers above twenty only 23 becomes a word.
    """
    text = re.sub(r" +", " ", text.lower().strip(" "))
    text = re.sub(r"[^a-z0-9,'\s:-]+", "", re.sub(r"\. {2,}", ". ", text))
    for wrong, right in MISSPELT.items():
        text = re.sub(rf"\b{wrong}\b", right, text)
    text = re.sub(r"\bo' +clock\b", "o'clock", text)
    words = {str(value): word for value, word in enumerate(NUMBERS)} | {"23": "twenty-three", "none": "zero"}
    text = re.sub(rf"\b({'|'.join(sorted(words, key=len, reverse=True))})\b", lambda found: words[found[1]], text)
    text = re.sub(r"\b([a-zA-Z]+)[0-9]\b", r"\1", text)
    for article in ("a", "an", "the"):
        text = re.sub(rf"\b{article} ([a-zA-Z]+)", r"\1", text)
    return re.sub(r"\bbackwards\b", "backward", text)


def normalise_answer(text: str) -> str:
    """Return lower case words without punctuation and articles; numbers below a hundred become words.

    The `clean` protocols compare this form, and their n-gram scores read it. Unlike `clean_answer` it changes no word
    that is spelled right, and treats every number and every article alike.
    """
    text = re.sub(r"[’`]", "'", text.lower())
    text = re.sub(r"\bo'?\s*clock\b", "oclock", text)
    text = re.sub(r"(?<=\d)[.,](?=\d)", "\0", text)  # a decimal point is no punctuation
    text = re.sub(r"[^\w\s\0]|_", " ", text).replace("\0", ".")
    return " ".join(_spell(word) for word in text.split() if word not in ("a", "an", "the"))


def _spell(word: str) -> str:
    """Return a whole number below a hundred in words, and any other word unchanged."""
    if word == "none":
        return "zero"
    digits = word.lstrip("0")
    if not word.isascii() or not word.isdigit() or len(digits) > 2:
        return word
    value = int(digits or "0")
    if value <= 20:
        return NUMBERS[value]
    tens = TENS[value // 10 - 2]
    return f"{tens} {NUMBERS[value % 10]}" if value % 10 else tens


def refined_match(prediction: str, references: Sequence[str], *, protocol: str = "clean") -> tuple[bool, bool]:
    """Return the exact and the refined match of a cleaned answer.

    A refined match is an exact one, or one text holds the other when blanks are left out.

    Source: LEO, which stops at the first reference that matches in either way. An exact match further on is not seen
    then, and an empty answer matches everything. "paper" keeps both, "clean" neither.

    Args:
        prediction: Cleaned answer.
        references: Cleaned answers that are accepted.
        protocol: "clean" or "paper".
    """
    if protocol == "clean":
        words = prediction.split()
        glued = "".join(words)
        others = ["".join(reference.split()) for reference in references]
        held = any(glued in other or other in glued for other in others if other) if glued else False
        exact = any(words == reference.split() for reference in references)
        return exact, exact or held
    for reference in references:
        if prediction == reference:
            return True, True
        glued, other = "".join(prediction.split()), "".join(reference.split())
        if glued in other or other in glued:
            return False, True
    return False, False


def question_type(question: str, *, protocol: str = "clean") -> str:
    """Return the type of a question of SQA3D: what, is, how, can, which, or others.

    Source: SQA3D, which compares the first letters, so that "canvas or poster?" is a "can" question. "clean" compares
    the first word.
    """
    text = question.lower().strip()
    if protocol == "clean":
        first = re.match(r"[a-z]+(?:'[a-z]+)?", text)
        return first[0] if first and first[0] in SQA3D_TYPES else "others"
    return next((kind for kind in SQA3D_TYPES if text.startswith(kind)), "others")


def read_option(text: str, *, protocol: str = "clean") -> str:
    """Return the letter of a multiple choice answer in lower case.

    Source: VSI-Bench takes the first word without its dots. "clean" also reads "(B)", "B)", "B: left" and "Option B".
    """
    if protocol == "paper":
        return text.split(" ")[0].rstrip(".").strip().lower()
    found = re.match(r"\s*(?:(?:the )?(?:correct )?(?:answer|option)(?: is)?:?\s*)?\(?([a-z])\b", text, re.IGNORECASE)
    return found[1].lower() if found else ""


def read_number(text: str, *, protocol: str = "clean") -> float | None:
    """Return the number that an answer gives, None if it gives none.

    Source: VSI-Bench takes the first word without its dots, which must be a number. "clean" takes the first number.
    """
    if protocol == "paper":
        try:
            return float(text.split(" ")[0].rstrip(".").strip())
        except ValueError:
            return None
    found = re.search(r"-?\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3}\b)", "", text))
    if found:
        return float(found[0])
    words = [NUMBERS.index(word) for word in re.findall(r"[a-z]+", text.lower()) if word in NUMBERS]
    return float(words[0]) if words else None


def relative_accuracy(found: float, true: float, *, protocol: str = "clean") -> float:
    """Return the share of thresholds t that the relative error of a number stays below.

    The thresholds are 0.50, 0.55, ..., 0.95, and the relative error |found - true| / true must be at most 1 - t. The
    original divides by `true`, and misses some errors that equal 1 - t but for rounding. "clean" forgives rounding,
    and for a true 0 asks for 0.

    Args:
        found: Number that the answer gives.
        true: Number that is right.
        protocol: "clean" or "paper".
    """
    if protocol == "paper":
        with np.errstate(divide="ignore", invalid="ignore"):
            return float((np.abs(np.float64(found) - true) / np.float64(true) <= 1 - THRESHOLDS).mean())
    return float((abs(found - true) <= (1 - THRESHOLDS + ROUNDING) * abs(true)).mean())


def score_spatial_answer(text: str, true: str, kind: str, *, protocol: str = "clean") -> float:
    """Score an answer of VSI-Bench or ReVSI in [0, 1].

    A choice counts 1 for the right letter, a number its relative accuracy.

    Args:
        text: Answer of the model.
        true: Letter or number that is right.
        kind: Type of the question.
        protocol: "clean" or "paper".
    """
    if not kind.startswith(NUMERIC_TYPES):
        return float(read_option(text, protocol=protocol) == true.strip().lower())
    number = read_number(text, protocol=protocol)
    return 0.0 if number is None else relative_accuracy(number, float(true), protocol=protocol)
