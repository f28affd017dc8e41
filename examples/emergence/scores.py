"""Measure a run: answers about unseen rooms, and geometry in frozen tokens."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch

from modeling_ide3d import IDE3DForConditionalGeneration
from processing import IDE3DProcessor
from processing.posed_video import PosedVideo
from processing.rooms.questions.scoring import DISTANCE_TOLERANCE, read_numbers, score_answer
from processing.rooms.samples import video_arrays
from trainer.evaluation.probes import run_probes
from trainer.evaluation.probes.linear_probe import SceneSplit, fit_linear_probe
from trainer.evaluation.probes.token_sources import IDE3DTokens
from trainer.session.region_reading import answer_from_regions, pool_sample_regions

from .questions import split_references

__all__ = ["CONTROLS", "METRICS", "judge", "score_split"]

# Shares of right answers. Controls ask for what a picture shows without any geometry.
METRICS = {
    "position_50": "3D centre within 0.5 m",
    "position_25": "3D centre within 0.25 m",
    "position_100": "3D centre within 1 m",
    "distance": "distance within 15 %",
    "closer": "closer of two",
    "direction": "left or right (control)",
    "colour": "colour (control)",
    "read_position_50": "centre within 0.5 m, linear from the region",
    "read_distance": "distance within 15 %, linear from the region",
}
CONTROLS = ("direction", "colour")
RADII = {"position_25": 0.25, "position_50": 0.5, "position_100": 1.0}  # metres
TOKENS_PER_SCENE = 192
DECIMALS = 4  # of the probes: enough for tables

Judged = dict[str, bool]  # whether an answer is right, by the metrics that its question belongs to
Content = TypeVar("Content")


def probed_layers(vision: int, text: int) -> list[str]:
    """Return the layers that are probed: of the tower, and of the language model.

    The tower is probed in the middle and at its end, the language model at its input, behind its first layer and at
    its end. No loss reads that first layer.

    Args:
        vision: Number of layers of the tower.
        text: Number of layers of the language model.
    """
    numbers = {"vision": (vision // 2, vision), "language": (0, 1, text)}
    return [f"{part}.{number}" for part, own in numbers.items() for number in dict.fromkeys(own)]


def judge(question: Mapping, answer: str) -> Judged:
    """Return whether an answer is right, by the metrics that its question belongs to."""
    if question["type"] != "position":
        return {question["type"]: bool(score_answer(question, answer))}
    numbers = read_numbers(answer)
    error = math.dist(numbers, question["value"]) if len(numbers) == 3 else math.inf
    return {name: error <= radius for name, radius in RADII.items()}


def count_hits(per_room: Sequence[Sequence[Judged]]) -> dict[str, dict[str, str]]:
    """Count right answers and questions of every room by metric, a digit a room.

    Raises:
        ValueError: If a room has more than nine questions of a kind.
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
    model: IDE3DForConditionalGeneration,
    processor: IDE3DProcessor,
    samples: Sequence[dict],
    rooms: Iterable[Mapping],
    labelled: Sequence[dict],
    read_by_losses: Sequence[str] = (),
) -> dict[str, int | dict]:
    """Measure answers and probes of a model.

    Args:
        model: Model in evaluation mode.
        processor: Processor of the model.
        samples: Samples of `read_asked`.
        rooms: Rooms of `load_rooms` that are probed.
        labelled: Samples that the model was trained on; a linear map from the features of their regions is fitted.
        read_by_losses: Layers that a loss of the training read.

    Returns:
        `rooms`, their number; `hits` and `counts`, see `count_hits`; `accuracy` by metric; `probes` by layer, see
        `run_probes`; `seconds`.
    """
    start = time.perf_counter()
    asked = [sample for sample in samples if sample["questions"]]
    answers = iter(answer_from_regions(model, processor, asked))
    linear = iter(read_regions(model, processor, labelled, asked))
    per_room = []
    for sample in samples:
        texts = next(answers) if sample["questions"] else []
        entries = [judge(question, text) for question, text in zip(sample["questions"], texts, strict=True)]
        per_room.append(entries + (next(linear) if sample["questions"] else []))
    sums = count_hits(per_room)
    answered = time.perf_counter()
    scenes = (PosedVideo(**video_arrays(room)) for room in rooms)
    source = IDE3DTokens(model, processor, read_by_losses)
    layers = probed_layers(model.config.vision_config.num_hidden_layers, model.config.text_config.num_hidden_layers)
    probes = run_probes(source, scenes, layers, tokens_per_scene=TOKENS_PER_SCENE)
    accuracy = {
        name: sum(map(int, sums["hits"][name])) / max(1, sum(map(int, sums["counts"][name]))) for name in METRICS
    }
    seconds = {"answers": round(answered - start, 1), "probes": round(time.perf_counter() - answered, 1)}
    return {"rooms": len(samples), **sums, "accuracy": accuracy, "probes": shorten(probes), "seconds": seconds}


def read_regions(
    model: IDE3DForConditionalGeneration, processor: IDE3DProcessor, labelled: Sequence[dict], asked: Sequence[dict]
) -> list[list[Judged]]:
    """Read centre and distance from the features of regions by ridge regressions.

    Returns what is right, by sample.

    They are fitted on the labelled samples; the last quarter of these chooses the penalty.
    """
    samples = [*labelled, *asked]
    regions = pool_sample_regions(model, processor, samples)
    found: list[list[Judged]] = [[] for _ in asked]
    for kind in ("position", "distance"):
        pointed, features = [], []
        for index, sample in enumerate(samples):
            for question, own in zip(sample["questions"], split_references(sample), strict=True):
                if question["type"] == kind:
                    pointed.append((index, question["value"]))
                    features.append(regions[index][own[0]])
        part = np.digitize([index for index, _ in pointed], [0.75 * len(labelled), len(labelled)])
        split = SceneSplit(part == 0, part == 1, part == 2)
        values, inputs = np.array([value for _, value in pointed]), torch.stack(features).float().cpu().numpy()
        probe, _ = fit_linear_probe(inputs, values, split)
        for (index, value), guess in zip(pointed, probe.predict(inputs), strict=True):
            if index >= len(labelled):
                error = math.dist(guess, value)
                most = RADII["position_50"] if kind == "position" else DISTANCE_TOLERANCE * value[0]
                name = "read_position_50" if kind == "position" else "read_distance"
                found[index - len(labelled)].append({name: bool(error <= most)})
    return found


def shorten(entry: Content) -> Content:
    """Return JSON content with its numbers rounded to `DECIMALS`."""
    if isinstance(entry, float):
        return round(entry, DECIMALS)
    if isinstance(entry, dict):
        return {key: shorten(value) for key, value in entry.items()}
    return [shorten(value) for value in entry] if isinstance(entry, list) else entry
