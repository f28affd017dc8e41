"""What is measured of a run: answers about objects of unseen rooms, and what frozen tokens know of geometry."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from emergence_rooms import QUESTION_TYPES, decode_room
from torch import nn

from processing.posed_video import PosedVideo
from processing.regions import TokenGrid
from processing.rooms.baselines import Baselines, image_rows
from processing.rooms.samples import room_samples, video_arrays
from processing.rooms.scoring import read_numbers, score_answer
from trainer.evaluation.probes import run_probes
from trainer.evaluation.region_reading import answer_from_regions
from trainer.evaluation.token_sources import IDE3DTokens

__all__ = ["METRICS", "first_view", "judge", "score_baselines", "score_split"]

# Shares of right answers. Controls ask for what a picture shows without any geometry.
METRICS = {
    "position_50": "3D centre within 0.5 m",
    "position_25": "3D centre within 0.25 m",
    "position_100": "3D centre within 1 m",
    "distance": "distance within 15 %",
    "closer": "closer of two",
    "direction": "left or right (control)",
    "colour": "colour (control)",
}
CONTROLS = ("direction", "colour")
RADII = {"position_25": 0.25, "position_50": 0.5, "position_100": 1.0}  # metres
# Of tower and language model; which of them a loss reads is said beside the numbers.
PROBED_LAYERS = ("vision.3", "vision.4", "language.0", "language.1", "language.3")
BASELINE_NAMES = ("majority", "text", "mean_row", "bottom_row", "mask")
RIDGE = 1e-3


def first_view(row: Mapping[str, Any]) -> dict:
    """A room as a video of its first frame, which all its questions that point at objects are about."""
    row = decode_room(row)
    pictures = ("frames", "depth", "instance_ids", "intrinsics", "camera_to_world")
    return {**row, **{key: row[key][:1] for key in pictures}}


def judge(question: Mapping[str, Any], answer: str) -> dict[str, bool]:
    """Whether an answer is right, by the metrics that its question belongs to."""
    if question["type"] != "position":
        return {question["type"]: bool(score_answer(question, answer))}
    numbers = read_numbers(answer)
    error = math.dist(numbers, question["value"]) if len(numbers) == 3 else math.inf
    return {name: error <= radius for name, radius in RADII.items()}


def count_hits(per_room: Sequence[Sequence[Mapping[str, bool]]]) -> dict[str, dict[str, str]]:
    """Right answers and questions of every room by metric, a digit a room.

    Raises:
        ValueError: A room has more than nine questions of a kind.
    """
    hits, counts = ({name: [] for name in METRICS} for _ in range(2))
    for answers in per_room:
        for name in METRICS:
            own = [entry[name] for entry in answers if name in entry]
            hits[name].append(sum(own))
            counts[name].append(len(own))
    if max(map(max, counts.values())) > 9:
        raise ValueError("A room has more than nine questions of a kind; expected a digit a room.")
    return {
        "hits": {name: "".join(map(str, values)) for name, values in hits.items()},
        "counts": {name: "".join(map(str, values)) for name, values in counts.items()},
    }


def score_split(
    model: nn.Module, processor: Any, rooms: Sequence[Mapping[str, Any]], grid: TokenGrid, num_probe_rooms: int
) -> dict[str, Any]:
    """Answers and probes of a model.

    Args:
        model: In evaluation mode.
        processor: Its processor.
        rooms: Rows of `load_rooms`.
        grid: Token grid of the model.
        num_probe_rooms: So many of the rooms, from the first, are probed.

    Returns:
        `rooms`, their number; `hits` and `counts`, see `count_hits`; `accuracy` by metric; `probes` by layer, see
        `run_probes`; `seconds`.
    """
    start = time.perf_counter()
    samples = []
    for row in rooms:
        found = room_samples(first_view(row), grid, reference="region", types=QUESTION_TYPES)
        samples += found or [{"questions": []}]
    asked = [sample for sample in samples if sample["questions"]]
    answers = iter(answer_from_regions(model, processor, asked))
    per_room = []
    for sample in samples:
        texts = next(answers) if sample["questions"] else []
        per_room.append([judge(q, text) for q, text in zip(sample["questions"], texts, strict=True)])
    sums = count_hits(per_room)
    answered = time.perf_counter()
    scenes = (open_scene(rooms[index]) for index in range(min(num_probe_rooms, len(rooms))))
    layers = [layer for layer in PROBED_LAYERS if layer in IDE3DTokens(model, processor).layers]
    probes = run_probes(IDE3DTokens(model, processor), scenes, layers, tokens_per_scene=192)
    accuracy = {
        name: sum(map(int, sums["hits"][name])) / max(1, sum(map(int, sums["counts"][name]))) for name in METRICS
    }
    seconds = {"answers": round(answered - start, 1), "probes": round(time.perf_counter() - answered, 1)}
    return {"rooms": len(rooms), **sums, "accuracy": accuracy, "probes": shorten(probes), "seconds": seconds}


def shorten(entry: Any) -> Any:
    """The same with numbers of four decimals, which are enough for tables."""
    if isinstance(entry, float):
        return round(entry, 4)
    if isinstance(entry, dict):
        return {key: shorten(value) for key, value in entry.items()}
    return [shorten(value) for value in entry] if isinstance(entry, list) else entry


def open_scene(row: Mapping[str, Any]) -> PosedVideo:
    """A room as the probes take it."""
    return PosedVideo(**video_arrays(row))


def mask_features(row: Mapping[str, Any], number: int) -> np.ndarray:
    """What the mask of an object tells by itself in frame 0: place, extent and share of the picture, and squares."""
    seen = np.asarray(row["instance_ids"][0]) == number
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


def score_baselines(
    fit_rooms: Sequence[Mapping[str, Any]], rooms: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float | None]]:
    """Shares of right answers of predictors that see no pixel, by metric.

    majority, text, mean_row and bottom_row: see `Baselines`. mask: a ridge regression from place, extent and size of
    the true mask in frame 0 to centre and distance.

    Args:
        fit_rooms: Rows of `load_rooms` that they are fitted on.
        rooms: Rows that they are scored on.
    """
    fit_rooms = [decode_room(row) for row in fit_rooms]
    baselines, weights = Baselines(fit_rooms), fit_masks(fit_rooms)
    found: dict[str, dict[str, list[bool]]] = {name: {} for name in METRICS}
    for row in rooms:
        row = decode_room(row)
        at = image_rows(row)
        for question in row["questions"]:
            if question["reference"] != "region" or question["type"] not in QUESTION_TYPES:
                continue
            guesses = {
                "majority": baselines.answer_by_majority(question),
                "text": baselines.answer_by_words(question),
                "mean_row": baselines.answer_by_height(question, at, 0),
                "bottom_row": baselines.answer_by_height(question, at, 1),
            }
            if question["type"] in weights:
                values = mask_features(row, question["hint_objects"][0]) @ weights[question["type"]]
                guesses["mask"] = " ".join(f"{value:.3f}" for value in values)
            for baseline, guess in guesses.items():
                if guess is not None:
                    for name, is_right in judge(question, guess).items():
                        found[name].setdefault(baseline, []).append(is_right)
    return {
        name: {key: float(np.mean(hits[key])) if key in hits else None for key in BASELINE_NAMES}
        for name, hits in found.items()
    }


def fit_masks(rooms: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Weights of the mask baseline for positions and distances."""
    weights = {}
    for kind in ("position", "distance"):
        pairs = [
            (mask_features(row, question["hint_objects"][0]), question["value"])
            for row in rooms
            for question in row["questions"]
            if question["type"] == kind and question["reference"] == "region"
        ]
        if pairs:
            x, y = (np.array(part) for part in zip(*pairs, strict=True))
            weights[kind] = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ y)
    return weights
