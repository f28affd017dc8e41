"""Overlap of axis-aligned boxes, matching, and the choice of objects from grounding scores."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from processing.boxes import box_iou, reaches
from trainer.evaluation.metrics.scores import Protocol, Score, check_protocol, mean_score

__all__ = ["box_iou", "choose_object", "choose_objects", "matched_f1", "overlap_f1", "overlap_scores"]

TEMPERATURE = 0.07  # the one of training
CUMULATIVE_THRESHOLD = 0.4


def overlap_scores(
    predictions: Sequence[Mapping], references: Sequence[Mapping], protocol: Protocol
) -> dict[str, Score]:
    """Return `acc@0.25` and `acc@0.5` of dicts with one `box` each.

    An empty predicted box is a miss.
    """
    overlaps = np.array(
        [
            box_iou([found["box"]], [meant["box"]], protocol=protocol)[0, 0] if len(found["box"]) else 0.0
            for found, meant in zip(predictions, references, strict=True)
        ]
    )
    return {f"acc@{limit}": mean_score(reaches(overlaps, limit, protocol=protocol)) for limit in (0.25, 0.5)}


def matched_f1(
    predicted: np.ndarray, expected: np.ndarray, threshold: float, *, protocol: Protocol = "clean"
) -> float:
    """Return the F1 of two sets of boxes, where each box counts once.

    Source: Multi3DRefer. The original matches for the largest sum of overlaps, and then asks which pairs reach the
    threshold. "clean" matches so that most pairs reach it. Two empty sets have F1 = 1.

    Args:
        predicted: Boxes (N, 6) that were found.
        expected: Boxes (M, 6) that were meant.
        threshold: Overlap that a pair must reach, see `reaches`.
        protocol: "clean" or "paper".
    """
    if len(predicted) == 0 or len(expected) == 0:
        return float(len(predicted) == len(expected))
    iou = box_iou(predicted, expected, protocol=protocol, dtype=np.float32 if protocol == "paper" else np.float64)
    return overlap_f1(iou, threshold, protocol=protocol)


def overlap_f1(iou: np.ndarray, threshold: float, *, protocol: Protocol = "clean") -> float:
    """Return the F1 of two sets of boxes from their overlaps (N, M); see `matched_f1`."""
    if 0 in iou.shape:
        return float(iou.shape == (0, 0))
    is_hit = reaches(iou, threshold, protocol=protocol)
    value = iou if protocol == "paper" else is_hit + iou / (1 + min(iou.shape))
    rows, columns = linear_sum_assignment(value, maximize=True)
    return 2 * int(is_hit[rows, columns].sum()) / sum(iou.shape)


def choose_object(scores: Sequence[float]) -> int | None:
    """Return the index of the best real object of scores (N + 1,), None without objects.

    The last score belongs to "no such object". Source: ScanRefer, where an object always exists, so that "no such
    object" falls back to the best real one.
    """
    return int(np.argmax(scores[:-1])) if len(scores) > 1 else None


def choose_objects(
    scores: Sequence[float],
    *,
    threshold: float = CUMULATIVE_THRESHOLD,
    protocol: Protocol = "clean",
) -> list[int]:
    """Return the objects that a description means, best first, from scores (N + 1,).

    The last score belongs to "no such object"; where it is best, the list is empty. Otherwise the probabilities of the
    objects are added, best first, up to and with the one that reaches the threshold.

    Source: Multi3DRefer decoding of the original. It takes the probabilities from a softmax that holds "no such
    object" too, so that its mass makes the set larger; "clean" leaves it out.

    Args:
        scores: Cosine similarities (N + 1,).
        threshold: Sum of probabilities that the chosen objects reach.
        protocol: "clean" or "paper".
    """
    check_protocol(protocol)
    scores = np.asarray(scores, dtype=np.float32)
    if len(scores) < 2 or int(np.argmax(scores)) == len(scores) - 1:
        return []
    shifted = np.exp((scores - scores.max()) / np.float32(TEMPERATURE))
    weights = shifted[:-1] / (shifted.sum() if protocol == "paper" else shifted[:-1].sum())
    order = np.argsort(-weights, kind="stable")
    reached = np.flatnonzero(np.cumsum(weights[order]) >= threshold)
    return order[: reached[0] + 1 if len(reached) else len(order)].tolist()
