"""Give a stranger frames, questions and regions to choose from, and score the answers."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import av
import numpy as np
from tqdm import tqdm

from processing.rooms import score_answer
from processing.rooms.samples import room_samples
from processing.token_grid import TokenGrid
from processing.writing import write_json
from trainer.evaluation.rooms import BASELINES

__all__ = [
    "Answer",
    "Task",
    "mark_answers",
    "mean_gain",
    "read_answers",
    "score_grounding",
    "score_table",
    "write_scenes",
    "write_tasks",
]

QUESTION_TYPES = ("existence", "counting", "colour", "size", "direction", "closer", "distance", "position")
NUM_VIDEOS = 5  # scenes that the stranger gets as .mp4 and the report shows
ENLARGED = 4  # times that a video is larger than its frames, so that the codec keeps the colours

Hits = dict[str, np.ndarray]  # which answers are right, by type of question


class Answer(TypedDict, total=False):
    """A line of the stranger: `answer`, or `choice` with the `scores` of all regions."""

    id: str
    answer: str
    choice: int
    scores: list[float]


class Asked(TypedDict):
    """A question or a request that the stranger is given."""

    id: str
    text: str


class Given(TypedDict):
    """A room as the stranger gets it; `video` is a file or a folder."""

    name: str
    video: str
    questions: list[Asked]
    requests: list[Asked]


class Task(TypedDict):
    """A room as the stranger gets it, with the truth.

    `questions` and samples of `requests` are by id; `index` is that of the room.
    """

    task: Given
    room: Mapping
    index: int
    questions: dict[str, dict]
    requests: dict[str, dict]


def write_video(frames: np.ndarray, path: Path) -> None:
    """Write frames (V, h, w, 3), uint8, as an .mp4."""
    large = frames.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.height, stream.width, stream.pix_fmt = *large.shape[1:3], "yuv420p"
        stream.options = {"crf": "8"}
        for frame in large:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_frames(room: Mapping, frames: np.ndarray, path: Path, is_video: bool) -> str:
    """Write the frames of a room as a video, or as a folder of pictures.

    Returns:
        Name of the file or folder, which lies beside `path`.
    """
    if is_video:
        video = path.with_name(f"{path.name}.mp4")
        write_video(frames, video)
        return video.name
    path.mkdir()
    for view, image in enumerate(room["frames"]):
        image.save(path / f"{view:04d}.png")
    return path.name


def write_tasks(rooms: Iterable[Mapping], grid: TokenGrid, folder: Path) -> list[Task]:
    """Write videos, candidate regions and `tasks.json` for the stranger; return the same with the truth.

    Rooms without questions or without requests are left out.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tasks: list[Task] = []
    for index, room in enumerate(tqdm(rooms, desc="Questions", unit="room")):
        samples = room_samples(room, grid, reference="word", types=(*QUESTION_TYPES, "grounding"))
        ground = [sample for sample in samples if "region_targets" in sample]
        questions = [entry for sample in samples if "region_targets" not in sample for entry in sample["questions"]]
        if not questions or not ground:
            continue
        name = room["scene_id"].replace("/", "-")
        video = write_frames(room, ground[0]["frames"], folder / name, is_video=len(tasks) < NUM_VIDEOS)
        np.savez_compressed(folder / f"{name}.npz", candidates=ground[0]["region_masks"])
        asked = {f"{name}/q{number}": entry for number, entry in enumerate(questions)}
        sought = {f"{name}/g{number}": sample for number, sample in enumerate(ground)}
        given: Given = {
            "name": name,
            "video": video,
            "questions": [{"id": key, "text": entry["question"]} for key, entry in asked.items()],
            "requests": [{"id": key, "text": entry["questions"][0]["question"]} for key, entry in sought.items()],
        }
        tasks.append({"task": given, "room": room, "index": index, "questions": asked, "requests": sought})
    write_json(folder / "tasks.json", [entry["task"] for entry in tasks])
    return tasks


def read_answers(path: Path) -> list[Answer]:
    """Return the answers that the stranger wrote, a line each."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def mark_answers(tasks: Sequence[Task], answers: Sequence[Answer]) -> Hits:
    """Return which answers are right, by type of question.

    The type of requests is "grounding". The order is that of the tasks.
    """
    by_id, hits = {answer["id"]: answer for answer in answers}, {}
    for entry in tasks:
        for key, question in entry["questions"].items():
            hits.setdefault(question["type"], []).append(score_answer(question, by_id[key]["answer"]))
        for key, sample in entry["requests"].items():
            hits.setdefault("grounding", []).append(_is_found(sample, by_id[key]))
    return {kind: np.array(values, bool) for kind, values in sorted(hits.items())}


def score_table(hits: Mapping[str, Hits], table: Sequence[dict]) -> list[dict[str, str | int | float | None]]:
    """Return the accuracy of each question type beside its baselines.

    Args:
        hits: Hits of `mark_answers` by name of the model.
        table: Scores of `processing.rooms.baselines.Baselines.score`.

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


def score_grounding(tasks: Sequence[Task], hits: Mapping[str, Hits]) -> dict[str, float]:
    """Return the share of objects that were found, by model, beside chance."""
    chance = [sample["region_targets"].mean() for entry in tasks for sample in entry["requests"].values()]
    shares = {name: float(marks["grounding"].mean()) for name, marks in hits.items()}
    return {"n": len(chance), **shares, "chance": float(np.mean(chance))}


def mean_gain(before: Hits, after: Hits) -> dict[str, float]:
    """Return the mean accuracy over question types before and after, and the gain.

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
    tasks: Sequence[Task],
    answers: Sequence[Answer],
    folder: Path,
    *,
    before: Sequence[Answer] | None = None,
    depth: Sequence[np.ndarray] | None = None,
) -> None:
    """Write the scenes of the report: those whose videos the stranger got.

    Args:
        tasks: Tasks of `write_tasks`.
        answers: Answers of the stranger.
        folder: Folder of the scenes, replaced.
        before: Answers of the stranger to the same, with the model before fine-tuning.
        depth: Depth (V, h, w) in metres by the validator, of each room.
    """
    shutil.rmtree(folder, ignore_errors=True)
    by_id = {answer["id"]: answer for answer in answers}
    earlier = {answer["id"]: answer for answer in before or []}
    for entry in tasks[:NUM_VIDEOS]:
        # A room without questions has a depth, but no task.
        _write_scene(entry, by_id, earlier, None if depth is None else depth[entry["index"]], folder)


def _write_scene(
    entry: Task,
    by_id: Mapping[str, Answer],
    earlier: Mapping[str, Answer],
    predicted: np.ndarray | None,
    folder: Path,
) -> None:
    """Write frames, the found and the true region of one request, depth, and answers."""
    names = {thing["id"]: f"{thing['colour']} {thing['category']}" for thing in entry["room"]["objects"]}
    # One request: the first that has a target, found rather than missed.
    key, sample = min(
        entry["requests"].items(),
        key=lambda item: (item[1]["region_targets"][-1], not _is_found(item[1], by_id[item[0]])),
    )
    labels = [*(names[int(number)] for number in sample["object_ids"]), "no such object"]
    nothing = np.zeros((1, *sample["region_masks"].shape[1:]), bool)
    masks, choice = np.concatenate([sample["region_masks"], nothing]), by_id[key]["choice"]
    content = {
        "scene_id": entry["room"]["scene_id"],
        "request": sample["questions"][0]["question"],
        "found": labels[choice],
        "truth": ", ".join(label for label, hit in zip(labels, sample["region_targets"], strict=True) if hit),
        "is_right": _is_found(sample, by_id[key]),
        **({"before": labels[earlier[key]["choice"]]} if earlier else {}),
        "answers": _shown_answers(entry, by_id, earlier),
    }
    name = entry["task"]["name"]
    write_json(folder / f"{name}.json", content)
    np.savez_compressed(
        folder / f"{name}.npz",
        frames=sample["frames"],
        depth=sample["depth"],
        found_mask=masks[choice],
        true_mask=masks[sample["region_targets"]].any(0),
        **({} if predicted is None else {"predicted_depth": predicted}),
    )


def _shown_answers(entry: Task, by_id: Mapping[str, Answer], earlier: Mapping[str, Answer]) -> list[dict]:
    """Return up to two answers of each type."""
    by_type = {kind: [] for kind in QUESTION_TYPES}
    for number, question in entry["questions"].items():
        by_type[question["type"]].append((number, question))
    return [
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
    ]


def _is_found(sample: Mapping, answer: Answer) -> bool:
    return bool(sample["region_targets"][answer["choice"]])
