"""Metric of ReVSI: multiple choice by accuracy, numbers by mean relative accuracy."""

from trainer.evaluation.metrics.benchmark_metric import TEXT, BenchmarkMetric
from trainer.evaluation.metrics.scores import Score
from trainer.evaluation.metrics.spatial import spatial_scores

WAYS = ("forward_easy", "backward_easy", "forward_hard", "backward_hard")
TASKS = {
    "object_counting_single": "object_counting",
    "object_counting_multiple": "object_counting",
    "object_abs_distance": "object_abs_distance",
    "object_size_estimation": "object_size_estimation",
    "room_size_estimation_single": "room_size_estimation",
    "room_size_estimation_multiple": "room_size_estimation",
    "object_rel_distance_closest": "object_rel_distance",
    "object_rel_distance_farthest": "object_rel_distance",
    "route_planning": "route_planning",
    **{f"object_rel_direction_{way}": "object_rel_direction" for way in WAYS},
}


class ReVSI(BenchmarkMetric):
    """Accuracy of choices and mean relative accuracy of numbers, as `macro` and `micro` means.

    `macro`, the published number, is the mean over the seven tasks; the types of a task are averaged before. `micro`
    is the mean over samples. "paper" reads the first word of an answer; "clean" finds the letter or the number in it.

    Source: the task `revsi` of lmms-eval, by the benchmark's authors.
    """

    prediction_fields = {"text": TEXT}
    reference_fields = {"text": TEXT, "question_type": TEXT}
    citation = (
        "Zhang et al., ReVSI: Rebuilding visual spatial intelligence evaluation for accurate assessment of VLM 3D "
        "reasoning, ICML 2026."
    )

    def _scores(self, predictions, references, protocol) -> dict[str, Score]:
        found = [{"text": prediction["text"].strip()} for prediction in predictions]  # theirs strips, VSI-Bench's not
        return spatial_scores(found, references, protocol, TASKS)
