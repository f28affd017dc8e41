"""Metric of VSI-Bench: multiple choice by accuracy, numbers by mean relative accuracy."""

from trainer.evaluation.metrics.benchmark_metric import TEXT, BenchmarkMetric
from trainer.evaluation.metrics.scores import Score
from trainer.evaluation.metrics.spatial import spatial_scores

DIRECTION = "object_rel_direction"  # easy, medium and hard are one task
TASKS = {
    "object_counting": "object_counting",
    "object_abs_distance": "object_abs_distance",
    "object_size_estimation": "object_size_estimation",
    "room_size_estimation": "room_size_estimation",
    "object_rel_distance": "object_rel_distance",
    "obj_appearance_order": "obj_appearance_order",
    "route_planning": "route_planning",
    DIRECTION: DIRECTION,
    **{f"{DIRECTION}_{level}": DIRECTION for level in ("easy", "medium", "hard")},
}


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
        return spatial_scores(predictions, references, protocol, TASKS)
