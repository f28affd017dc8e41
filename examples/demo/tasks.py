"""What the demo hands to a stranger (RGB frames, questions in words, regions to choose from), and its scores."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from processing.rooms import score_answer
from processing.rooms.samples import room_samples
from processing.token_grid import TokenGrid
from trainer.evaluation.rooms import BASELINES

QUESTION_TYPES = ("existence", "counting", "colour", "size", "direction", "closer", "distance", "position")
NUM_VIDEOS = 5  # scenes that the stranger gets as .mp4 and the report shows


def write_video(frames: np.ndarray, path: Path) -> None:
    """Frames (V, h, w, 3) uint8 as an .mp4, enlarged four times so that the codec keeps the colours."""
    import av

    large = frames.repeat(4, axis=1).repeat(4, axis=2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.height, stream.width, stream.pix_fmt = *large.shape[1:3], "yuv420p"
        stream.options = {"crf": "8"}
        for frame in large:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_tasks(rooms: Any, grid: TokenGrid, folder: Path) -> list[dict]:
    """Videos, candidate regions and `tasks.json` for the stranger; returns the same with the truth, kept here."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tasks, given = [], []
    for index, room in enumerate(tqdm(rooms, desc="Questions", unit="room")):
        samples = room_samples(room, grid, reference="word", types=(*QUESTION_TYPES, "grounding"))
        ground = [sample for sample in samples if "region_targets" in sample]
        questions = [entry for sample in samples if "region_targets" not in sample for entry in sample["questions"]]
        if not questions or not ground:
            continue
        name = room["scene_id"].replace("/", "-")
        if len(given) < NUM_VIDEOS:
            video = f"{name}.mp4"
            write_video(ground[0]["frames"], folder / video)
        else:
            video = name
            (folder / video).mkdir()
            for view, image in enumerate(room["frames"]):
                image.save(folder / video / f"{view:04d}.png")
        np.savez_compressed(folder / f"{name}.npz", candidates=ground[0]["region_masks"])
        asked = {f"{name}/q{number}": entry for number, entry in enumerate(questions)}
        sought = {f"{name}/g{number}": sample for number, sample in enumerate(ground)}
        task = {
            "name": name,
            "video": video,
            "questions": [{"id": key, "text": entry["question"]} for key, entry in asked.items()],
            "requests": [{"id": key, "text": entry["questions"][0]["question"]} for key, entry in sought.items()],
        }
        given.append(task)
        tasks.append({"task": task, "room": room, "index": index, "questions": asked, "requests": sought})
    (folder / "tasks.json").write_text(json.dumps(given, indent=1))
    return tasks


def mark_answers(tasks: list[dict], answers: list[dict]) -> dict[str, np.ndarray]:
    """Which answers are right, by type of question ("grounding" for requests), in the order of the tasks."""
    by_id, hits = {answer["id"]: answer for answer in answers}, {}
    for entry in tasks:
        for key, question in entry["questions"].items():
            hits.setdefault(question["type"], []).append(score_answer(question, by_id[key]["answer"]))
        for key, sample in entry["requests"].items():
            hits.setdefault("grounding", []).append(_is_found(sample, by_id[key]))
    return {kind: np.array(values, bool) for kind, values in sorted(hits.items())}


def score_table(hits: dict[str, dict[str, np.ndarray]], table: list[dict]) -> list[dict]:
    """Accuracy per question type beside its baselines.

    Args:
        hits: What `mark_answers` gives for each model that was asked, by the model's name.
        table: What `processing.rooms.questions.baselines.Baselines.score` gives.

    Returns:
        Dicts with type, n, one accuracy a model, majority, text, mean_row, bottom_row.
    """
    baselines = {row["type"]: row for row in table if row["reference"] == "word"}
    kinds = [kind for kind in QUESTION_TYPES if kind in next(iter(hits.values()))]
    return [
        {
            "type": kind,
            "n": len(next(iter(hits.values()))[kind]),
            **{name: float(marks[kind].mean()) for name, marks in hits.items()},
            **{name: baselines[kind][name] for name in BASELINES},
        }
        for kind in kinds
    ]


def score_grounding(tasks: list[dict], hits: dict[str, dict[str, np.ndarray]]) -> dict[str, float]:
    """Share of requests whose object was found, by model, beside the chance of an even choice."""
    chance = [sample["region_targets"].mean() for entry in tasks for sample in entry["requests"].values()]
    shares = {name: float(marks["grounding"].mean()) for name, marks in hits.items()}
    return {"n": len(chance), **shares, "chance": float(np.mean(chance))}


def mean_gain(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean accuracy over question types before and after, and what is between them.

    The standard error is that of the gain, with each question's answers before and after taken as a pair and
    questions as independent.
    """
    kinds = [kind for kind in QUESTION_TYPES if kind in before]
    gains = [after[kind].astype(float) - before[kind] for kind in kinds]
    return {
        "before": float(np.mean([before[kind].mean() for kind in kinds])),
        "after": float(np.mean([after[kind].mean() for kind in kinds])),
        "gain": float(np.mean([gain.mean() for gain in gains])),
        "standard_error": float(np.sqrt(sum(gain.var() / len(gain) for gain in gains)) / len(kinds)),
    }


def write_scenes(
    tasks: list[dict],
    answers: list[dict],
    folder: Path,
    *,
    before: list[dict] | None = None,
    depth: list[np.ndarray] | None = None,
) -> None:
    """Scenes of the report: those whose videos the stranger got.

    Args:
        tasks: What `write_tasks` gives.
        answers: The stranger's.
        folder: Replaced.
        before: The stranger's answers to the same with the model before fine-tuning.
        depth: Depth by the validator of each room, metres.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    by_id = {answer["id"]: answer for answer in answers}
    earlier = {answer["id"]: answer for answer in before or []}
    for entry in tasks[:NUM_VIDEOS]:
        # A room without questions has a depth, but no task.
        _write_scene(entry, by_id, earlier, None if depth is None else depth[entry["index"]], folder)


def _write_scene(entry: dict, by_id: dict, earlier: dict, predicted: np.ndarray | None, folder: Path) -> None:
    """Frames, the found and the true region of one request, depth, and up to two answers of each type."""
    names = {thing["id"]: f"{thing['colour']} {thing['category']}" for thing in entry["room"]["objects"]}
    # One request: the first that has a target, found rather than missed.
    key, sample = min(
        entry["requests"].items(),
        key=lambda item: (item[1]["region_targets"][-1], not _is_found(item[1], by_id[item[0]])),
    )
    labels = [*(names[int(number)] for number in sample["object_ids"]), "no such object"]
    nothing = np.zeros((1, *sample["region_masks"].shape[1:]), bool)
    masks, choice = np.concatenate([sample["region_masks"], nothing]), by_id[key]["choice"]
    by_type = {kind: [] for kind in QUESTION_TYPES}
    for number, question in entry["questions"].items():
        by_type[question["type"]].append((number, question))
    content = {
        "scene_id": entry["room"]["scene_id"],
        "request": sample["questions"][0]["question"],
        "found": labels[choice],
        "truth": ", ".join(label for label, hit in zip(labels, sample["region_targets"], strict=True) if hit),
        "is_right": _is_found(sample, by_id[key]),
        **({"before": labels[earlier[key]["choice"]]} if earlier else {}),
        "answers": [
            {
                "type": question["type"],
                "question": question["question"],
                "answer": by_id[number]["answer"],
                "truth": question["answer"],
                "is_right": bool(score_answer(question, by_id[number]["answer"])),
                **({"before": earlier[number]["answer"]} if earlier else {}),
            }
            for found in by_type.values()
            for number, question in found[:2]
        ],
    }
    name = entry["task"]["name"]
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1))
    np.savez_compressed(
        folder / f"{name}.npz",
        frames=sample["frames"],
        depth=sample["depth"],
        found_mask=masks[choice],
        true_mask=masks[sample["region_targets"]].any(0),
        **({} if predicted is None else {"predicted_depth": predicted}),
    )


def _is_found(sample: dict, answer: dict) -> bool:
    return bool(sample["region_targets"][answer["choice"]])
