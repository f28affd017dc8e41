"""What is measured of a run: answers about objects of unseen rooms, and what frozen tokens know of geometry."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from processing.posed_video import PosedVideo
from processing.regions import TokenGrid
from processing.rooms.baselines import Baselines, image_rows
from processing.rooms.samples import room_samples, video_arrays
from processing.rooms.scoring import DISTANCE_TOLERANCE, read_numbers, score_answer
from trainer.evaluation.linear_probe import SceneSplit, fit_linear_probe
from trainer.evaluation.probes import run_probes
from trainer.evaluation.region_reading import answer_from_regions, pool_sample_regions
from trainer.evaluation.token_sources import IDE3DTokens

from .rooms import QUESTION_TYPES, decode_room, split_references

__all__ = ["METRICS", "first_view", "judge", "read_asked", "score_baselines", "score_split", "store_asked"]

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
BASELINE_NAMES = ("majority", "text", "mean_row", "bottom_row", "mask")
RIDGE = 1e-3
TOKENS_PER_SCENE = 192


def probed_layers(vision: int, text: int) -> list[str]:
    """Middle and end of the tower; what enters the language model, its first layer (no loss reads it) and its end."""
    numbers = {"vision": (vision // 2, vision), "language": (0, 1, text)}
    return [f"{part}.{number}" for part, own in numbers.items() for number in dict.fromkeys(own)]


def first_view(row: Mapping[str, Any]) -> dict:
    """A room as a video of its first frame, which all its questions that point at objects are about."""
    row = decode_room(row)
    pictures = ("frames", "depth", "instance_ids", "intrinsics", "camera_to_world")
    return {**row, **{key: row[key][:1] for key in pictures}}


def store_asked(folder: Path, rooms: Sequence[Mapping[str, Any]], grid: TokenGrid) -> None:
    """Write what the rooms of a split are asked, for `read_asked`: once for all runs, whole or not at all."""
    path = folder / "asked.json"
    if path.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    entries, frames, masks = [], [], []
    for row in tqdm(rooms, desc="Questions", unit="room", disable=None):
        row = first_view(row)
        found = room_samples(row, grid, reference="region", types=QUESTION_TYPES) or [{"questions": []}]
        entry = {"scene_id": row["scene_id"], "questions": found[0]["questions"], "regions": 0}
        if found[0]["questions"]:
            masks.append(found[0]["region_masks"])
            entry |= {"regions": len(masks[-1]), "references": found[0]["region_references"].tolist()}
        entries.append(entry)
        frames.append(np.stack(row["frames"]))
    np.savez(folder / "asked.npz", frames=np.stack(frames), masks=np.concatenate(masks))
    unfinished = folder / "asked.incomplete"
    unfinished.write_text(json.dumps(entries), encoding="utf-8")
    unfinished.replace(path)


def read_asked(folder: Path) -> list[dict]:
    """Samples as `room_samples` gives them, of the first view of each room; `questions` may be empty."""
    with np.load(folder / "asked.npz") as arrays:
        frames, masks = arrays["frames"], arrays["masks"]
    samples, start = [], 0
    for entry, own in zip(json.loads((folder / "asked.json").read_text(encoding="utf-8")), frames, strict=True):
        end = start + entry["regions"]
        sample = {"scene_id": entry["scene_id"], "frames": own, "questions": entry["questions"]}
        samples.append({**sample, "region_masks": masks[start:end], "region_references": entry.get("references", [])})
        start = end
    return samples


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
    model: nn.Module,
    processor: Any,
    samples: Sequence[Mapping[str, Any]],
    rooms: Sequence[Mapping[str, Any]],
    labelled: Sequence[Mapping[str, Any]],
    read_by_losses: Sequence[str] = (),
) -> dict[str, Any]:
    """Answers and probes of a model.

    Args:
        model: In evaluation mode.
        processor: Its processor.
        samples: Of `read_asked`.
        rooms: Rows of `load_rooms` that are probed.
        labelled: Samples that the model was trained on, for what a linear map reads from the features of regions.
        read_by_losses: Layers that a loss of the training read.

    Returns:
        `rooms`, their number; `hits` and `counts`, see `count_hits`; `accuracy` by metric; `probes` by layer, see
        `run_probes`; `seconds`.
    """
    start = time.perf_counter()
    asked = [sample for sample in samples if sample["questions"]]
    answers = iter(answer_from_regions(model, processor, asked))
    per_room = []
    linear = iter(read_regions(model, processor, labelled, asked))
    for sample in samples:
        texts = next(answers) if sample["questions"] else []
        entries = [judge(q, text) for q, text in zip(sample["questions"], texts, strict=True)]
        per_room.append(entries + (next(linear) if sample["questions"] else []))
    sums = count_hits(per_room)
    answered = time.perf_counter()
    scenes = (PosedVideo(**video_arrays(row)) for row in rooms)
    source = IDE3DTokens(model, processor, read_by_losses)
    layers = probed_layers(model.config.vision_config.num_hidden_layers, model.config.text_config.num_hidden_layers)
    probes = run_probes(source, scenes, layers, tokens_per_scene=TOKENS_PER_SCENE)
    accuracy = {
        name: sum(map(int, sums["hits"][name])) / max(1, sum(map(int, sums["counts"][name]))) for name in METRICS
    }
    seconds = {"answers": round(answered - start, 1), "probes": round(time.perf_counter() - answered, 1)}
    return {"rooms": len(samples), **sums, "accuracy": accuracy, "probes": shorten(probes), "seconds": seconds}


def read_regions(
    model: nn.Module, processor: Any, labelled: Sequence[Mapping], asked: Sequence[Mapping]
) -> list[list[dict[str, bool]]]:
    """What ridge regressions read from the features of regions: whether centre and distance are right, by sample.

    They are fitted on the labelled samples; the last quarter of these chooses the penalty.
    """
    samples = [*labelled, *asked]
    regions = pool_sample_regions(model, processor, samples)
    found: list[list[dict[str, bool]]] = [[] for _ in asked]
    for kind in ("position", "distance"):
        rows, features = [], []
        for index, sample in enumerate(samples):
            for question, own in zip(sample["questions"], split_references(sample), strict=True):
                if question["type"] == kind:
                    rows.append((index, question["value"]))
                    features.append(regions[index][own[0]])
        part = np.digitize([index for index, _ in rows], [0.75 * len(labelled), len(labelled)])
        split = SceneSplit(part == 0, part == 1, part == 2)
        values = np.array([value for _, value in rows])
        probe, _ = fit_linear_probe(torch.stack(features).float().cpu().numpy(), values, split)
        read = probe.predict(torch.stack(features).float().cpu().numpy())
        for (index, value), guess in zip(rows, read, strict=True):
            if index >= len(labelled):
                error = math.dist(guess, value)
                is_right = (
                    error <= RADII["position_50"] if kind == "position" else error <= DISTANCE_TOLERANCE * value[0]
                )
                name = "read_position_50" if kind == "position" else "read_distance"
                found[index - len(labelled)].append({name: bool(is_right)})
    return found


def shorten(entry: Any) -> Any:
    """The same with numbers of four decimals, which are enough for tables."""
    if isinstance(entry, float):
        return round(entry, 4)
    if isinstance(entry, dict):
        return {key: shorten(value) for key, value in entry.items()}
    return [shorten(value) for value in entry] if isinstance(entry, list) else entry


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
