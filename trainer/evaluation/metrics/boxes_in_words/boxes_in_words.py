"""Metric of 3D boxes that a model says in words: the true poses bring them to the world, here and nowhere else."""

from dataclasses import replace
from typing import get_args

import datasets
import numpy as np

from processing.argument_rules import check_choice
from processing.boxes import box_iou, reaches
from processing.boxes_in_words import NumberStyle, parse_boxes
from processing.oriented_boxes import box_in_world, enclosing_boxes, oriented_iou
from trainer.evaluation.metrics.benchmark_metric import POSE, TEXT, TURNED_BOX, BenchmarkMetric
from trainer.evaluation.metrics.boxes import overlap_f1
from trainer.evaluation.metrics.scores import Score, mean_score, per_type

LIMITS = (0.25, 0.5)


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
            _judge(found["text"], meant["boxes"], meant["camera_to_world"], numbers)
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


def _judge(
    text: str, boxes: list[list[float]], poses: list[list[list[float]]], numbers: NumberStyle
) -> dict[str, float]:
    """Return what one answer adds to each score."""
    true = np.array(boxes, np.float64).reshape(-1, 7)
    try:
        answer, is_answer = parse_boxes(text, numbers=numbers, num_frames=len(poses)), True
    except ValueError:
        answer, is_answer = (), False
    found = np.array([box_in_world(box, poses[box.frame]) for box in answer]).reshape(-1, 7)
    plain, turned = box_iou(enclosing_boxes(found), enclosing_boxes(true)), oriented_iou(found[:1], true)
    # NaN: no centre was said.
    row = {"unparsable": not is_answer, "center_error": np.nan}
    for limit in LIMITS:
        # What is no answer is a miss where there is nothing to find, too.
        row[f"f1@{limit}"] = overlap_f1(plain, limit) if is_answer else 0.0
        row[f"acc@{limit}"] = bool(plain[:1].size) and bool(reaches(plain[0, 0], limit))
        row[f"rotated_acc@{limit}"] = bool(turned.size) and bool(reaches(turned[0, 0], limit))
    if len(found) and len(true):
        row["center_error"] = float(np.linalg.norm(found[0, :3] - true[0, :3]))
    return row
