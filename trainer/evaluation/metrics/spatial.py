"""Scores that VSI-Bench and ReVSI share: choices by accuracy, numbers by mean relative accuracy."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.evaluation.metrics.answers import NUMERIC_TYPES, score_spatial_answer
from trainer.evaluation.metrics.scores import Protocol, Score, mean_score, per_type
from trainer.field_rules import find_near

__all__ = ["spatial_scores"]


def spatial_scores(
    predictions: Sequence[dict[str, Any]],
    references: Sequence[dict[str, Any]],
    protocol: Protocol,
    tasks: dict[str, str],
) -> dict[str, Score]:
    """Return the scores of answers to spatial questions.

    Args:
        predictions: Answers, each with its `text`.
        references: Truths, each with `text` and `question_type`.
        protocol: "clean" or "paper".
        tasks: Known types of questions, and the task that each belongs to.

    Returns:
        `macro`, the mean over the tasks, each the mean over its types; `micro`, the mean over samples; and the score
        of each type.

    Raises:
        ValueError: If a type is unknown, or a truth cannot be read; the message names the reference.
    """
    types = [reference["question_type"] for reference in references]
    for number, reference in enumerate(references):
        _check_truth(f"`references`[{number}]", reference["text"], reference["question_type"], tasks)
    values = [
        score_spatial_answer(found["text"], meant["text"], kind, protocol=protocol)
        for found, meant, kind in zip(predictions, references, types, strict=True)
    ]
    micro = mean_score(values)
    kinds = list(dict.fromkeys(types))
    columns = np.array([[kind == other for other in kinds] for kind in types], dtype=np.float64)
    asked = [tasks[kind] for kind in kinds]

    def macro(sums: np.ndarray, _: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            means = sums[:, : len(kinds)] / sums[:, len(kinds) :]
        of_task = [
            np.mean([means[:, index] for index, other in enumerate(asked) if other == task], axis=0)
            for task in dict.fromkeys(asked)
        ]
        return np.mean(of_task, axis=0)

    statistics = np.concatenate([columns * micro.statistics, columns], axis=1)
    return {
        "macro": Score(statistics, macro, bounds=(0, 100), needs=columns),
        "micro": micro,
        **per_type({"score": micro}, types),
    }


def _check_truth(name: str, text: str, kind: str, tasks: dict[str, str]) -> None:
    """Raise ValueError for an unknown type, and for a truth that its rule cannot read."""
    if kind not in tasks:
        near = find_near(kind, tuple(tasks))
        raise ValueError(f"{name}: `question_type` must be one of {tuple(tasks)}, got {kind!r:.100}.{near}")
    if not kind.startswith(NUMERIC_TYPES):
        if not text.strip():
            raise ValueError(f"{name}: `text` must be the letter of the right option, got {text!r:.100}.")
        return
    try:
        is_finite = math.isfinite(float(text))
    except ValueError:
        is_finite = False
    if not is_finite:
        raise ValueError(f"{name}: `text` must be a finite number for {kind!r}, got {text!r:.100}.")
