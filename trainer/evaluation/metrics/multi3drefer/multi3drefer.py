"""Metric of Multi3DRefer, where a description means no object, one or several."""

import datasets

from trainer.evaluation.metrics.benchmark_metric import BOX, TEXT, BenchmarkMetric
from trainer.evaluation.metrics.boxes import matched_f1
from trainer.evaluation.metrics.scores import Score, mean_score, per_type


class Multi3DRefer(BenchmarkMetric):
    """Mean F1 over descriptions at overlaps of 0.25 and 0.5, also by type.

    The types are zt, st and mt, with and without distractors. "paper" matches boxes for the largest sum of overlaps in
    float32, as the original does; "clean" so that most pairs reach the threshold. `boxes.choose_objects` decides
    before which objects belong to the answer.
    """

    prediction_fields = {"boxes": datasets.Sequence(BOX)}
    reference_fields = {"boxes": datasets.Sequence(BOX), "question_type": TEXT}
    citation = "Zhang et al., Multi3DRefer: Grounding text description to multiple 3D objects, ICCV 2023."

    def _scores(self, predictions, references, protocol) -> dict[str, Score]:
        pairs = list(zip(predictions, references, strict=True))
        scores = {
            f"f1@{limit}": mean_score(
                [matched_f1(found["boxes"], meant["boxes"], limit, protocol=protocol) for found, meant in pairs]
            )
            for limit in (0.25, 0.5)
        }
        return {**scores, **per_type(scores, [reference["question_type"] for reference in references])}
