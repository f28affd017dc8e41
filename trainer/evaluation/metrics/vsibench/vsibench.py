"""Metric of VSI-Bench: multiple choice by accuracy, numbers by mean relative accuracy."""

import numpy as np

from trainer.evaluation.metrics.answers import score_spatial_answer
from trainer.evaluation.metrics.benchmark_metric import TEXT, BenchmarkMetric
from trainer.evaluation.metrics.scores import Score, mean_score, per_type

DIRECTION = "object_rel_direction"  # easy, medium and hard are one task


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
