"""Base class of the benchmarks' metrics: typed inputs, two protocols, and bands."""

import abc
from typing import Any

import datasets
import evaluate

from trainer.evaluation.metrics.scores import Protocol, Score, check_protocol, summarise

__all__ = ["BOX", "NUMBER", "TEXT", "BenchmarkMetric"]

TEXT, NUMBER = datasets.Value("string"), datasets.Value("float64")
BOX = datasets.Sequence(NUMBER)


class BenchmarkMetric(evaluate.Metric, abc.ABC):
    """An `evaluate` module that scores one benchmark.

    `compute(predictions=..., references=..., protocol="clean")` takes one dict per sample in each list, with the
    fields of `prediction_fields` and `reference_fields`. Every reference has a `scene_id`. All scores are in percent.

    The result holds the scores by name, their 95 % bands over scenes as `bands` ([None, None] below five scenes), and
    `counts`. `protocol="paper"` repeats the original, bug for bug. `bands=False` leaves the bands out.
    """

    prediction_fields: dict[str, Any]
    reference_fields: dict[str, Any]
    citation: str

    def _info(self) -> evaluate.MetricInfo:
        references = {"scene_id": TEXT, **self.reference_fields}
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation=self.citation,
            inputs_description=BenchmarkMetric.__doc__,
            features=datasets.Features({"predictions": dict(self.prediction_fields), "references": references}),
        )

    def _compute(
        self,
        predictions: list[dict],
        references: list[dict],
        protocol: Protocol = "clean",
        bands: bool = True,
        resamples: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        check_protocol(protocol)
        if not references:
            raise ValueError("There is nothing to score: `predictions` and `references` are empty.")
        scores = self._scores(predictions, references, protocol, **options)
        scenes = [reference["scene_id"] for reference in references]
        return summarise(scores, scenes, bands=bands, resamples=resamples, seed=seed)

    @abc.abstractmethod
    def _scores(
        self, predictions: list[dict], references: list[dict], protocol: Protocol, **options: Any
    ) -> dict[str, Score]:
        """Return the scores of a benchmark by name.

        Args:
            predictions: Fields of `prediction_fields` of each sample.
            references: Fields of `reference_fields` and `scene_id` of each sample.
            protocol: "clean" or "paper".
            options: Options of this metric, such as `variant`.
        """
