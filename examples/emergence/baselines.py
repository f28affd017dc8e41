"""Score predictors that see no pixel: majority, words, height in the picture, true mask."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from processing.rooms.questions.baselines import Baselines, image_rows

from .questions import QUESTION_TYPES
from .rooms import decode_room
from .scores import METRICS, judge

__all__ = ["BASELINE_NAMES", "score_baselines"]

BASELINE_NAMES = ("majority", "text", "mean_row", "bottom_row", "mask")
RIDGE = 1e-3


def mask_features(room: Mapping, number: int) -> np.ndarray:
    """Return what the mask of an object tells by itself in frame 0.

    This is its position, extent and share of the picture, and their products.

    Args:
        room: Room of `decode_room`.
        number: Id of the object.
    """
    seen = np.asarray(room["instance_ids"][0]) == number
    v, u = np.nonzero(seen)
    height, width = seen.shape
    shape = [
        u.mean() / width,
        v.mean() / height,
        v.max() / height,
        np.ptp(u) / width,
        np.ptp(v) / height,
        math.log(seen.mean()),
    ]
    return np.array([1.0, *shape, *(a * b for i, a in enumerate(shape) for b in shape[i:])])


def score_baselines(fit_rooms: Sequence[Mapping], rooms: Sequence[Mapping]) -> dict[str, dict[str, float | None]]:
    """Return shares of right answers of predictors that see no pixel, by metric.

    majority, text, mean_row and bottom_row are those of `Baselines`. mask is a ridge regression from place, extent and
    size of the true mask in frame 0 to centre and distance.

    Args:
        fit_rooms: Rooms of `load_rooms` that they are fitted on.
        rooms: Rooms that they are scored on.
    """
    fit_rooms = [decode_room(room) for room in fit_rooms]
    baselines, weights = Baselines(fit_rooms), fit_masks(fit_rooms)
    found: dict[str, dict[str, list[bool]]] = {name: {} for name in METRICS}
    for room in rooms:
        room = decode_room(room)
        heights = image_rows(room)
        for question in room["questions"]:
            if question["reference"] != "region" or question["type"] not in QUESTION_TYPES:
                continue
            guesses = {
                "majority": baselines.answer_by_majority(question),
                "text": baselines.answer_by_words(question),
                "mean_row": baselines.answer_by_height(question, heights, 0),
                "bottom_row": baselines.answer_by_height(question, heights, 1),
            }
            if question["type"] in weights:
                values = mask_features(room, question["hint_objects"][0]) @ weights[question["type"]]
                guesses["mask"] = " ".join(f"{value:.3f}" for value in values)
            for baseline, guess in guesses.items():
                if guess is not None:
                    for name, is_right in judge(question, guess).items():
                        found[name].setdefault(baseline, []).append(is_right)
    return {
        name: {key: float(np.mean(hits[key])) if key in hits else None for key in BASELINE_NAMES}
        for name, hits in found.items()
    }


def fit_masks(rooms: Sequence[Mapping]) -> dict[str, np.ndarray]:
    """Fit the mask baseline; return its weights for positions and distances."""
    weights = {}
    for kind in ("position", "distance"):
        pairs = [
            (mask_features(room, question["hint_objects"][0]), question["value"])
            for room in rooms
            for question in room["questions"]
            if question["type"] == kind and question["reference"] == "region"
        ]
        if pairs:
            x, y = (np.array(part) for part in zip(*pairs, strict=True))
            weights[kind] = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ y)
    return weights
