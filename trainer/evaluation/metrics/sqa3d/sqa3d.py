"""Metric of SQA3D, which asks about a scene from where one stands."""

import datasets

from trainer.evaluation.metrics.answers import clean_answer, normalise_answer, refined_match
from trainer.evaluation.metrics.benchmark_metric import TEXT, BenchmarkMetric
from trainer.evaluation.metrics.scores import Score, mean_score, per_type


class SQA3D(BenchmarkMetric):
    """Exact match of cleaned answers, also by type of question.

    - "paper": SQA3D's own cleaning, and the first accepted answer alone.
    - "clean": any accepted answer, and a cleaning that treats all numbers and articles alike.

    `variant="leo"` adds LEO's refined match, where one answer may hold the other. The type (what, is, how, can, which,
    others) is a field of the reference; `answers.question_type` reads it from the question.
    """

    prediction_fields = {"text": TEXT}
    reference_fields = {"texts": datasets.Sequence(TEXT), "question_type": TEXT}
    citation = "Ma et al., SQA3D: Situated question answering in 3D scenes, ICLR 2023."
    variants = ("leo",)

    def _scores(self, predictions, references, protocol, variant=None) -> dict[str, Score]:
        shape, most = (clean_answer, 1) if protocol == "paper" else (normalise_answer, None)
        matches, refined = [], []
        for prediction, reference in zip(predictions, references, strict=True):
            accepted = reference["texts"][:most]
            matches.append(shape(prediction["text"]) in [shape(text) for text in accepted])
            cleaned = [clean_answer(text) for text in accepted]
            refined.append(refined_match(clean_answer(prediction["text"]), cleaned, protocol=protocol)[1])
        scores = {"em": mean_score(matches)}
        if variant == "leo":
            scores["leo/refined-em"] = mean_score(refined)
        return {**scores, **per_type(scores, [reference["question_type"] for reference in references])}
