"""Metric of VSI-Bench: multiple choice by accuracy, numbers by mean relative accuracy."""

import math

import numpy as np

from trainer.evaluation.metrics.answers import NUMERIC_TYPES, score_spatial_answer
from trainer.evaluation.metrics.benchmark_metric import TEXT, BenchmarkMetric
from trainer.evaluation.metrics.scores import Score, mean_score, per_type
from trainer.field_rules import find_near

DIRECTION = "object_rel_direction"  # easy, medium and hard are one task
CHOICE_TYPES = ("object_rel_distance", "obj_appearance_order", "route_planning")


class VSIBench(BenchmarkMetric):
    """Accuracy of choices and mean relative accuracy of numbers, as `macro` and `micro` means.

    `macro`, the published number, is the mean over the eight tasks; the three levels of relative direction are
    averaged before. `micro` is the mean over samples. "paper" reads the first word of an answer; "clean" finds the
    letter or the number in it.
    """

    prediction_fields = {"text": TEXT}
    reference_fields = {"text": TEXT, "question_type": TEXT}
    citation = "Yang et al., Thinking in space: How multimodal large language models see, remember, and recall spaces."

    def _scores(self, predictions, references, protocol) -> dict[str, Score]:
        types = [reference["question_type"] for reference in references]
        for number, reference in enumerate(references):
            _check_truth(f"`references`[{number}]", **reference)
        values = [
            score_spatial_answer(found["text"], meant["text"], kind, protocol=protocol)
            for found, meant, kind in zip(predictions, references, types, strict=True)
        ]
        micro = mean_score(values)
        kinds = list(dict.fromkeys(types))
        columns = np.array([[kind == other for other in kinds] for kind in types], dtype=np.float64)
        tasks = [DIRECTION if kind.startswith(DIRECTION) else kind for kind in kinds]

        def macro(sums: np.ndarray, _: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore", divide="ignore"):
                means = sums[:, : len(kinds)] / sums[:, len(kinds) :]
            of_task = [
                np.mean([means[:, index] for index, other in enumerate(tasks) if other == task], axis=0)
                for task in dict.fromkeys(tasks)
            ]
            return np.mean(of_task, axis=0)

        statistics = np.concatenate([columns * micro.statistics, columns], axis=1)
        return {
            "macro": Score(statistics, macro, bounds=(0, 100), needs=columns),
            "micro": micro,
            **per_type({"score": micro}, types),
        }


def _check_truth(name: str, text: str, question_type: str, **_: str) -> None:
    """Raise ValueError for an unknown type, and for a truth that its rule cannot read."""
    known = (*NUMERIC_TYPES, *CHOICE_TYPES, DIRECTION)
    if question_type not in known and not question_type.startswith(f"{DIRECTION}_"):
        near = find_near(question_type, known)
        raise ValueError(f"{name}: `question_type` must be one of {known}, got {question_type!r:.100}.{near}")
    if question_type not in NUMERIC_TYPES:
        if not text.strip():
            raise ValueError(f"{name}: `text` must be the letter of the right option, got {text!r:.100}.")
        return
    try:
        is_finite = math.isfinite(float(text))
    except ValueError:
        is_finite = False
    if not is_finite:
        raise ValueError(f"{name}: `text` must be a finite number for {question_type!r}, got {text!r:.100}.")
