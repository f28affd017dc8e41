"""VSI-Bench: multiple choice by accuracy, numbers by mean relative accuracy."""

import numpy as np

from trainer.evaluation.answers import read_number, read_option
from trainer.evaluation.benchmark_metric import TEXT, BenchmarkMetric
from trainer.evaluation.scores import Score, mean_score, per_type

NUMERIC = ("object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation")
DIRECTION = "object_rel_direction"  # easy, medium and hard are one task
THRESHOLDS = np.linspace(0.5, 0.95, 10)
ROUNDING = 1e-9


def relative_accuracy(found: float, true: float, protocol: str = "clean") -> float:
    """Share of the thresholds t = 0.50, 0.55, ..., 0.95 for which |found - true| / true is at most 1 - t.

    The original divides by `true`, and by floating point chance misses some errors that equal 1 - t; "clean" forgives
    rounding, and for a true 0 asks for 0.
    """
    if protocol == "paper":
        with np.errstate(divide="ignore", invalid="ignore"):
            return float((np.abs(np.float64(found) - true) / np.float64(true) <= 1 - THRESHOLDS).mean())
    return float((abs(found - true) <= (1 - THRESHOLDS + ROUNDING) * abs(true)).mean())


class VSIBench(BenchmarkMetric):
    """Accuracy of choices and mean relative accuracy of numbers; `macro` over the eight tasks, `micro` over samples.

    `macro`, the published number, is the mean over tasks after the three levels of relative direction were averaged.
    "paper" reads the first word of an answer; "clean" finds the letter or the number in it.
    """

    prediction_fields = {"text": TEXT}
    reference_fields = {"text": TEXT, "question_type": TEXT}
    citation = "Yang et al., Thinking in space: How multimodal large language models see, remember, and recall spaces."

    def _scores(self, predictions, references, protocol) -> dict[str, Score]:
        types = [reference["question_type"] for reference in references]
        values = [
            self._value(found["text"], meant["text"], kind, protocol)
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
        return {"macro": Score(statistics, macro), "micro": micro, **per_type({"score": micro}, types)}

    @staticmethod
    def _value(found: str, true: str, kind: str, protocol: str) -> float:
        if kind not in NUMERIC:
            return float(read_option(found, protocol=protocol) == true.strip().lower())
        number = read_number(found, protocol=protocol)
        return 0.0 if number is None else relative_accuracy(number, float(true), protocol)
