"""Base class of the benchmarks' metrics: typed inputs, two protocols, and bands."""

import abc
from collections.abc import Callable
from typing import Any

import datasets
import evaluate

from processing.argument_rules import check_flag
from trainer.evaluation.metrics.columns import (
    read_box,
    read_boxes,
    read_column,
    read_id,
    read_overlap,
    read_poses,
    read_text,
    read_texts,
    read_turned_boxes,
)
from trainer.evaluation.metrics.ngrams import has_java
from trainer.evaluation.metrics.scores import Protocol, Score, check_protocol, summarise

__all__ = ["BOX", "NUMBER", "POSE", "TEXT", "TURNED_BOX", "BenchmarkMetric"]

TEXT, NUMBER = datasets.Value("string"), datasets.Value("float64")
BOX = datasets.Sequence(NUMBER)
TURNED_BOX = datasets.Sequence(NUMBER, length=7)
POSE = datasets.Sequence(datasets.Sequence(NUMBER, length=4), length=4)
IDS = ("id", "scene_id")


class BenchmarkMetric(evaluate.Metric, abc.ABC):
    """An `evaluate` module that scores one benchmark.

    `compute(predictions=..., references=..., protocol="clean")` takes one dict per sample in each list, with the
    fields of `prediction_fields` and `reference_fields`. Every reference has a `scene_id`. All scores are in percent.

    The result holds the scores by name, their 95 % bands over scenes as `bands` ([None, None] below five scenes), and
    `counts`. `protocol="paper"` repeats the original, bug for bug. `bands=False` leaves the bands out,
    `jackknife=True` adds what they are made from, see `summarise`.
    """

    prediction_fields: dict[str, Any]
    reference_fields: dict[str, Any]
    citation: str
    variants: tuple[str, ...] = ()

    def _info(self) -> evaluate.MetricInfo:
        references = {"scene_id": TEXT, **self.reference_fields}
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation=self.citation,
            inputs_description=BenchmarkMetric.__doc__,
            features=datasets.Features({"predictions": dict(self.prediction_fields), "references": references}),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None) -> None:
        """Check samples, and add them to those that `compute` scores.

        Raises:
            TypeError: If a column is no sequence of mappings, or a field is of another type.
            ValueError: If the columns differ in length, or a field is missing or cannot be meant; the message names
                column, number and field.
        """
        found = read_column("predictions", predictions, _rules(self.prediction_fields))
        meant = read_column("references", references, _rules({"scene_id": TEXT, **self.reference_fields}))
        if len(found) != len(meant):
            raise ValueError(
                f"`predictions` and `references` must be of one length, got {len(found)} and {len(meant)}."
            )
        for number, reference in enumerate(meant):
            if reference.get("box") == []:
                raise ValueError(f"`references`[{number}]: `box` must be a box of six numbers, got an empty one.")
        if found:
            super().add_batch(predictions=found, references=meant)

    def add(self, *, prediction: Any = None, reference: Any = None) -> None:
        """Check a sample, and add it to those that `compute` scores; see `add_batch`."""
        self.add_batch(predictions=[prediction], references=[reference])

    def compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> dict[str, Any] | None:
        """Score samples, and those that were added before; see the class.

        Raises:
            TypeError: If an option or a sample is of another type.
            ValueError: If an option or a sample cannot be meant, or there is nothing to score.
        """
        check_protocol(options.get("protocol", "clean"))
        for name in ("bands", "jackknife", "meteor"):
            if options.get(name) is not None or name != "meteor" and name in options:
                options[name] = check_flag(options[name], name)
        self._check_variant(options.get("variant"), options.get("meteor"))
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        if self.writer is None:
            raise ValueError("There is nothing to score: `predictions` and `references` are empty.")
        return super().compute(**options)

    def _check_variant(self, variant: Any, meteor: bool | None) -> None:
        if variant is not None and (not isinstance(variant, str) or variant not in self.variants):
            known = " and ".join(f'"{name}"' for name in self.variants)
            has = f"the `variant` {known}" if known else "no `variant`"
            raise ValueError(f"{type(self).__name__} has {has}, got {variant!r:.100}.")
        if (meteor or variant == "ptb") and not has_java():
            what = "`meteor`" if meteor else '`variant` "ptb"'
            raise RuntimeError(f"{what} needs Java, and there is no `java` on the path: install a JRE (17).")

    def _compute(
        self,
        predictions: list[dict],
        references: list[dict],
        protocol: Protocol = "clean",
        bands: bool = True,
        jackknife: bool = False,
        resamples: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        check_protocol(protocol)
        if not references:
            raise ValueError("There is nothing to score: `predictions` and `references` are empty.")
        scores = self._scores(predictions, references, protocol, **options)
        scenes = [reference["scene_id"] for reference in references]
        return summarise(scores, scenes, bands=bands, jackknife=jackknife, resamples=resamples, seed=seed)

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


def _rules(fields: dict[str, Any]) -> dict[str, Callable[[Any], Any]]:
    """Return the rule of each field by its declared type."""
    kinds = {str(TEXT): read_text, str(NUMBER): read_overlap, str(BOX): read_box}
    kinds |= {str(datasets.Sequence(TEXT)): read_texts, str(datasets.Sequence(BOX)): read_boxes}
    kinds |= {str(datasets.Sequence(TURNED_BOX)): read_turned_boxes, str(datasets.Sequence(POSE)): read_poses}
    return {name: read_id if name in IDS else kinds[str(kind)] for name, kind in fields.items()}
