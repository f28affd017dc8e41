"""Metric of ScanRefer, which compares the found box with the true one."""

from trainer.evaluation.metrics.benchmark_metric import BOX, TEXT, BenchmarkMetric
from trainer.evaluation.metrics.boxes import overlap_scores
from trainer.evaluation.metrics.scores import Score, per_type


class ScanRefer(BenchmarkMetric):
    """Share of boxes that overlap the true one by at least 0.25 and 0.5 (in "clean" within 1e-6).

    Both shares are also given for `unique` and `multiple`. An empty predicted box is a miss. "paper" has 1e-8 in the
    denominator of the overlap and takes negative sizes for absolute ones; "clean" has neither, and refuses negative
    sizes.
    """

    prediction_fields = {"box": BOX}
    reference_fields = {"box": BOX, "question_type": TEXT}
    citation = "Chen et al., ScanRefer: 3D object localization in RGB-D scans using natural language, ECCV 2020."

    def _scores(self, predictions, references, protocol) -> dict[str, Score]:
        scores = overlap_scores(predictions, references, protocol)
        return {**scores, **per_type(scores, [reference["question_type"] for reference in references])}
