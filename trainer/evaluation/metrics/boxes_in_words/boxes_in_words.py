"""Metric of 3D boxes that a model says in words: the true poses bring them to the world, here and nowhere else."""

from dataclasses import replace
from typing import get_args

import datasets
import numpy as np

from processing.argument_rules import check_choice
from processing.boxes_in_words import NumberStyle
from trainer.evaluation.metrics.benchmark_metric import POSE, TEXT, TURNED_BOX, BenchmarkMetric
from trainer.evaluation.metrics.box_answers import LIMITS, judge_boxes
from trainer.evaluation.metrics.scores import Score, mean_score, per_type


class BoxesInWords(BenchmarkMetric):
    """Overlap and centre error of boxes in words, and the share of unparsable answers.

    `text` is an answer as `processing.boxes_in_words.write_boxes` writes it. `boxes` are the true boxes (N, 7) in the
    world, see `processing.oriented_boxes`, and `camera_to_world` the poses (V, 4, 4) of the frames that were shown.
    The option `numbers` says how measures are written. A text that cannot be parsed, or names a frame that was not
    shown, is no answer: it finds nothing, and `unparsable` counts it.

    Questions with one true box are scored by the first box of an answer. `acc@0.25` and `acc@0.5` compare the
    axis-aligned boxes around both, `rotated_acc@0.25` and `rotated_acc@0.5` the boxes as they are turned.
    `center_error` is the mean distance of the centres in metres, over those questions that were answered with a box.
    All questions, with one box, several or none, enter `f1@0.25` and `f1@0.5` of the axis-aligned boxes, which are
    those of Multi3DRefer. All scores are also given by type; one that no question counts for is left out. There is no
    "paper" protocol.
    """

    prediction_fields = {"text": TEXT}
    reference_fields = {
        "boxes": datasets.Sequence(TURNED_BOX),
        "camera_to_world": datasets.Sequence(POSE),
        "question_type": TEXT,
    }
    citation = "Chen et al., ScanRefer, ECCV 2020, and Zhang et al., Multi3DRefer, ICCV 2023, for the overlaps."

    def _scores(self, predictions, references, protocol, numbers: NumberStyle = "digits") -> dict[str, Score]:
        if protocol != "clean":
            raise ValueError('`protocol` must be "clean": the original has no boxes in words.')
        check_choice(numbers, get_args(NumberStyle), "numbers")
        rows = [
            judge_boxes(found["text"], meant["boxes"], meant["camera_to_world"], numbers)
            for found, meant in zip(predictions, references, strict=True)
        ]
        columns = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
        is_one = np.array([len(meant["boxes"]) == 1 for meant in references])
        of_one = {name: replace(mean_score(columns[name]), members=is_one) for name in columns if "acc@" in name}
        error = columns["center_error"]
        is_measured = is_one & np.isfinite(error)
        scores = {
            **of_one,
            "center_error": Score(np.where(is_measured, error, 0), members=is_measured),
            **{f"f1@{limit}": mean_score(columns[f"f1@{limit}"]) for limit in LIMITS},
            "unparsable": mean_score(columns["unparsable"]),
        }
        scores |= per_type(scores, [meant["question_type"] for meant in references])
        return {name: score for name, score in scores.items() if score.members.any()}
