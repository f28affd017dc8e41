"""ScanRefer: is the box that was found the one that was meant?"""

import numpy as np

from trainer.evaluation.benchmark_metric import BOX, TEXT, BenchmarkMetric
from trainer.evaluation.boxes import box_iou
from trainer.evaluation.scores import Score, mean_score, per_type


class ScanRefer(BenchmarkMetric):
    """Share of boxes whose overlap with the true one is at least 0.25 and 0.5, also for `unique` and `multiple`.

    An empty predicted box is a miss. "paper" has 1e-8 in the denominator of the overlap and takes negative sizes for
    absolute ones; "clean" has neither, and refuses negative sizes.
    """

    prediction_fields = {"box": BOX}
    reference_fields = {"box": BOX, "question_type": TEXT}
    citation = "Chen et al., ScanRefer: 3D object localization in RGB-D scans using natural language, ECCV 2020."

    def _scores(self, predictions, references, protocol) -> dict[str, Score]:
        overlaps = np.array(
            [
                box_iou([found["box"]], [meant["box"]], protocol=protocol)[0, 0] if len(found["box"]) else 0.0
                for found, meant in zip(predictions, references, strict=True)
            ]
        )
        scores = {f"acc@{limit}": mean_score(overlaps >= limit) for limit in (0.25, 0.5)}
        return {**scores, **per_type(scores, [reference["question_type"] for reference in references])}
