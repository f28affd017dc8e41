"""Baselines without sight: the most frequent answer, the words alone, the height in the image."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from processing.rooms.questions.scoring import score_answer
from processing.rooms.questions.wording import metres, position_words
from processing.rooms.scene.palette import COLOURS
from processing.tables import format_percent, markdown_table

__all__ = ["Baselines", "format_table", "image_rows"]

_MIN_SUPPORT = 12  # training questions behind an answer by words; below it fewer words are looked at
_ROW_BINS = 12
_COLOUR_WORDS = re.compile(r"\b(" + "|".join(COLOURS) + r")\b")
_NO_OBJECT = "no such object"


def image_rows(row: dict) -> dict[int, tuple[float, float]]:
    """Return mean and bottom row of each object, frame 0, shares of the height."""
    ids = np.asarray(row["instance_ids"][0])
    result = {}
    for n in np.unique(ids[ids > 0]).tolist():
        rows = np.nonzero((ids == n).any(axis=1))[0]
        result[n] = (float(np.nonzero(ids == n)[0].mean() / len(ids)), float(rows.max() / len(ids)))
    return result


def _text_keys(question: dict) -> list[tuple]:
    """List keys of a question's words: all, without colours, the last four, the form."""
    text = question["question"].lower()
    bare = " ".join(_COLOUR_WORDS.sub("", text).split())
    form = (question["type"], question["reference"], bool(question["value"]))
    return [(*form, text), (*form, bare), (*form, " ".join(bare.split()[-4:])), form]


def _is_right(question: dict, guess: str) -> bool:
    if question["type"] == "grounding":
        return guess == _NO_OBJECT and not question["target_objects"]
    return score_answer(question, guess)


def _best_answer(questions: list[dict]) -> str:
    """Return the one answer that scores best on these questions."""
    if questions[0]["type"] == "grounding":
        return _NO_OBJECT
    values = np.array([q["value"] for q in questions]) if questions[0]["value"] else None
    if values is not None and questions[0]["type"] == "position":
        near = np.linalg.norm(values[:, None] - values[None, :400], axis=-1) <= 0.5
        return position_words(values[near.sum(axis=0).argmax()])
    if values is not None and questions[0]["type"] != "counting":
        grid = np.arange(0.1, 10, 0.1)
        right = np.abs(grid[:, None] - values[None, :, 0]) <= 0.15 * values[None, :, 0]
        return metres(grid[right.sum(axis=1).argmax()])
    return Counter(q["answer"] for q in questions).most_common(1)[0][0]


class Baselines:
    """Predictors without sight, fitted on some rooms and scored on others.

    Args:
        rows: Rooms to fit on, rows of `load_rooms`.
    """

    def __init__(self, rows: Iterable[dict]):
        groups, self.heights = defaultdict(list), ([], [])
        for row in rows:
            at = image_rows(row)
            for question in row["questions"]:
                for key in _text_keys(question):
                    groups[key].append(question)
                if question["type"] == "distance":
                    for kind in (0, 1):
                        self.heights[kind].append((at[question["hint_objects"][0]][kind], question))
        self.answers = {
            key: _best_answer(found) for key, found in groups.items() if len(key) == 3 or len(found) >= _MIN_SUPPORT
        }
        self.bins = [self._fit_heights(pairs) for pairs in self.heights]

    @staticmethod
    def _fit_heights(pairs: list[tuple[float, dict]]) -> tuple[np.ndarray, list[str]]:
        heights = np.array([height for height, _ in pairs])
        edges = np.quantile(heights, np.linspace(0, 1, _ROW_BINS + 1)[1:-1])
        bins = np.digitize(heights, edges)
        everything = [q for _, q in pairs]
        answers = []
        for index in range(_ROW_BINS):
            inside = [q for q, b in zip(everything, bins, strict=True) if b == index]
            answers.append(_best_answer(inside or everything))
        return edges, answers

    def answer_by_words(self, question: dict) -> str | None:
        """Return the best answer given the question's words, None for a form never seen."""
        return next((self.answers[key] for key in _text_keys(question) if key in self.answers), None)

    def answer_by_majority(self, question: dict) -> str | None:
        """Return the best answer given only the form of the question."""
        return self.answers.get(_text_keys(question)[-1])

    def answer_by_height(self, question: dict, rows: dict[int, tuple[float, float]], kind: int) -> str | None:
        """Answer "closer" and "distance" by mean rows (kind 0) or bottom rows (kind 1)."""
        heights = [rows[n][kind] for n in question["hint_objects"]]
        if question["type"] == "closer":
            return "the first" if heights[0] > heights[1] else "the second"
        if question["type"] == "distance":
            edges, answers = self.bins[kind]
            return answers[int(np.digitize(heights[0], edges))]
        return None

    def judge(self, question: dict, rows: dict[int, tuple[float, float]]) -> dict[str, bool]:
        """Judge each baseline on a question: majority, text, mean_row, bottom_row.

        Args:
            question: Entry of a row's `questions`.
            rows: Result of `image_rows` for that row.
        """
        hits = {
            "majority": _is_right(question, self.answer_by_majority(question) or ""),
            "text": _is_right(question, self.answer_by_words(question) or ""),
        }
        if question["type"] in ("closer", "distance"):
            hits["mean_row"] = _is_right(question, self.answer_by_height(question, rows, 0))
            hits["bottom_row"] = _is_right(question, self.answer_by_height(question, rows, 1))
        return hits

    def score(self, rows: Iterable[dict]) -> list[dict]:
        """Return the accuracy per question type and form of reference.

        Returns:
            Dicts with type, reference, number, majority, text, mean_row, bottom_row (accuracies in [0, 1] or None).
        """
        totals = defaultdict(lambda: defaultdict(list))
        for row in rows:
            at = image_rows(row)
            for question in row["questions"]:
                result = totals[question["type"], question["reference"]]
                for name, hit in self.judge(question, at).items():
                    result[name].append(hit)
        table = []
        for (kind, reference), result in sorted(totals.items()):
            scores = {name: float(np.mean(hits)) for name, hits in result.items()}
            empty = {"majority": None, "text": None, "mean_row": None, "bottom_row": None}
            table.append({"type": kind, "reference": reference, "number": len(result["majority"]), **empty, **scores})
        return table


def format_table(table: list[dict]) -> str:
    """Format the scores as lines of text, in percent."""
    names = ("majority", "text", "mean_row", "bottom_row")
    rows = [
        [entry["type"], entry["reference"], entry["number"], *(format_percent(entry[name]) for name in names)]
        for entry in table
    ]
    return markdown_table(["type", "reference", "number", *names], rows, "llrrrrr")
