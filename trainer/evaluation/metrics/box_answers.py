"""Worth of one answer of boxes in words: overlaps, centre error, and whether it is an answer at all."""

import numpy as np

from processing.boxes import box_iou, reaches
from processing.boxes_in_words import NumberStyle, parse_boxes
from processing.oriented_boxes import box_in_world, enclosing_boxes, oriented_iou
from trainer.evaluation.metrics.boxes import overlap_f1

__all__ = ["LIMITS", "judge_boxes"]

LIMITS = (0.25, 0.5)


def judge_boxes(
    text: str, boxes: list[list[float]], poses: list[list[list[float]]], numbers: NumberStyle
) -> dict[str, float]:
    """Return what one answer adds to each score of the metric `boxes_in_words`.

    Args:
        text: Answer of a model.
        boxes: True boxes (N, 7) in the world, see `processing.oriented_boxes`.
        poses: Poses (V, 4, 4) of the frames that were shown, camera to world, metres.
        numbers: Way in which measures are written.

    Returns:
        `unparsable`; `f1@0.25` and `f1@0.5` over all boxes; of the first box of answer and truth `acc@...`,
        `rotated_acc@...` and `center_error` in metres, NaN without a box.
    """
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
