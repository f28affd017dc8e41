"""Scores of boxes in words on procedural rooms, beside those of the mean box of each kind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from tqdm import tqdm

from processing import PosedVideo
from processing.argument_rules import check_choice, check_whole
from processing.boxes_in_words import NumberStyle, write_boxes
from processing.oriented_boxes import box_in_camera
from processing.rooms import load_rooms
from processing.rooms.box_questions import BoxLesson, MeanBoxes, box_sample, show_room
from processing.tables import format_band, format_number, markdown_table
from trainer.data.scene_regions import SceneRegions
from trainer.evaluation.metrics.box_answers import judge_boxes
from trainer.evaluation.metrics.loading import load_metric
from trainer.session.scene_session import SceneSession
from trainer.session.video_scene import load_inference_model

__all__ = ["RoomFinding", "evaluate_room_boxes", "format_box_table"]

RoomFinding = Literal["words", "regions", "proposals"]
_REQUEST = "Find {description}."  # the first of the requests that rooms teach
_TOKENS_A_BOX = 48  # in digits a box takes 37 of a nano model
_MOST_BOXES = 8  # of an answer in a room; a longer one is cut off, and so is no answer
_FAMILY = 19  # of the seeds of questions


def evaluate_room_boxes(
    model: str | Path,
    *,
    lesson: BoxLesson | None = None,
    finding: RoomFinding = "words",
    split: str = "test",
    style: str = "plain",
    num_rooms: int = 500,
    num_baseline_rooms: int = 1000,
    num_frames: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Ask a model where objects of rooms are, and score its boxes in words.

    With "words" and "regions" the model is given frames alone. Poses, depth and true boxes are read by the scorer.

    Args:
        model: Folder of an exported model, or its name on the Hub.
        lesson: Way of writing numbers, lenses and field of view; those that the model was trained with.
        finding: Source of a box. "words": the model says it. "regions": the model finds regions, see
            `SceneSession.find`; their boxes are those of their measured points, see `SceneRegions.enclosing_box`.
            "proposals": the model chooses one of the true boxes of the room, or none, see `SceneSession.ground`; it is
            given their cells by depth. Boxes of the last two are written as if they had been said.
        split: Split of the rooms, "validation" or "test".
        style: Style of the rooms.
        num_rooms: Rooms that are asked about.
        num_baseline_rooms: Training rooms that the mean boxes are fitted on.
        num_frames: Frames of a room; default: as many as the model's processor takes.
        device: See `load_inference_model`.

    Returns:
        `split`, `num_rooms`, `finding`, `numbers`, `lenses` and `field_of_view`; `model` and `mean_box`, the scores of
        the metric by question type ("one", "several", "none"). `answers` with question, truth, answer and type each,
        and what the answer is worth, see `judge_boxes`.

    Raises:
        TypeError: If `lesson` is no `BoxLesson`.
        ValueError: If the model is none of ours, `finding` is unknown, or `load_rooms` refuses a setting.
    """
    lesson = BoxLesson() if lesson is None else lesson
    if not isinstance(lesson, BoxLesson):
        raise TypeError(f"`lesson` must be a BoxLesson or None, got {lesson!r:.100}.")
    check_choice(finding, get_args(RoomFinding), "finding")
    check_whole(num_baseline_rooms, "num_baseline_rooms", 1)
    loaded, processor = load_inference_model(model, device=device, dtype=torch.float32)
    options = {
        "style": style,
        "image_size": processor.image_size,
        "num_frames": processor.video_processor.num_frames if num_frames is None else num_frames,
    }
    rooms = load_rooms(split, num_rooms, **options)
    mean_boxes = MeanBoxes(load_rooms("train", num_baseline_rooms, **options), lesson.numbers)
    references, guesses, answers, asked = [], [], [], []
    for index, row in enumerate(tqdm(rooms, desc="Rooms", unit="room")):
        rng = np.random.default_rng([_FAMILY, index])
        shown = show_room(row, rng, lesson)
        sample = box_sample(shown, rng, lesson.numbers)
        if sample is None:
            continue
        session = SceneSession(loaded, processor, sample["frames"], do_sample_frames=False)
        questions = sample["questions"]
        if finding == "words":
            answers += session.ask([q["question"] for q in questions], max_new_tokens=_MOST_BOXES * _TOKENS_A_BOX)
        else:
            answers += _choose_boxes(session, shown, [q["words"] for q in questions], finding, lesson.numbers)
        guesses += [mean_boxes.answer(question) for question in questions]
        references += [_reference(row, question) for question in questions]
        asked += questions
    return {
        "split": split,
        "num_rooms": len(rooms),
        "finding": finding,
        "numbers": lesson.numbers,
        "lenses": lesson.lenses,
        "field_of_view": lesson.field_of_view,
        "model": _score(answers, references, lesson),
        "mean_box": _score(guesses, references, lesson),
        "answers": [
            {
                "scene_id": meant["scene_id"],
                "type": meant["question_type"],
                "question": q["question"],
                "truth": q["answer"],
                "answer": answer,
                **_worth(answer, meant, lesson),
            }
            for q, meant, answer in zip(asked, references, answers, strict=True)
        ],
    }


def format_box_table(result: dict[str, Any]) -> str:
    """Return the scores of `evaluate_room_boxes` in Markdown: percent, centre errors in metres."""
    model, mean_box = result["model"], result["mean_box"]

    def row(name: str) -> list[str]:
        digits = 2 if "center_error" in name else 1
        band = format_band(model["bands"][name], digits)
        scores = (format_number(each.get(name), digits) for each in (model, mean_box))
        return [name, str(model["counts"][name]), *scores, band]

    return markdown_table(["score", "n", "model", "mean box", "95 % band"], list(map(row, model["counts"])), "lrrrr")


def _choose_boxes(
    session: SceneSession, row: dict, words: list[str], finding: RoomFinding, numbers: NumberStyle
) -> list[str]:
    """Return for each request the boxes of the regions that the model chooses, in words.

    Words of the first camera: the poses bring them back to the world, whichever frame shows the object.
    """
    regions = SceneRegions(PosedVideo.from_room(row), session.token_grid, "depth", "clean")
    if finding == "proposals":
        given = [[thing["box"]] for thing in row["objects"]]
        cosines = session.ground(words, regions.masks([box for (box,) in given]), template=_REQUEST)
        chosen = [[*given, []][best] for best in cosines.argmax(1)]
    else:
        found = session.find_each(words, template=_REQUEST)
        chosen = [[regions.enclosing_box(mask) for mask in each.masks] for each in found]
    pose = row["camera_to_world"][0]
    return [write_boxes([box_in_camera(b, pose) for b in boxes if b], numbers=numbers) for boxes in chosen]


def _reference(row: dict, question: dict) -> dict[str, Any]:
    boxes = {thing["id"]: [*thing["box"], 0.0] for thing in row["objects"]}
    count = len(question["target_objects"])
    return {
        "scene_id": row["scene_id"],
        "boxes": [boxes[n] for n in question["target_objects"]],
        "camera_to_world": np.asarray(row["camera_to_world"]).tolist(),
        "question_type": "none" if count == 0 else "one" if count == 1 else "several",
    }


def _worth(text: str, reference: dict[str, Any], lesson: BoxLesson) -> dict[str, float | None]:
    """Return what one answer is worth, None where it has no centre."""
    worth = judge_boxes(text, reference["boxes"], reference["camera_to_world"], lesson.numbers)
    return {name: float(value) if np.isfinite(value) else None for name, value in worth.items()}


def _score(texts: Sequence[str], references: list[dict[str, Any]], lesson: BoxLesson) -> dict[str, Any]:
    predictions = [{"text": text} for text in texts]
    metric = load_metric("boxes_in_words")
    return metric.compute(predictions=predictions, references=references, numbers=lesson.numbers)
