"""Scores of a model on procedural rooms, beside those of words alone and of image height alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from processing.rooms import load_rooms
from processing.rooms.questions.baselines import Baselines, image_rows
from processing.rooms.questions.scoring import score_answer
from processing.rooms.samples import room_samples
from processing.tables import format_band, format_percent, markdown_table
from processing.token_grid import TokenGrid
from trainer.evaluation.metrics.scores import mean_score, summarise
from trainer.session.scene_session import SceneSession
from trainer.session.video_scene import load_inference_model

__all__ = [
    "BASELINES",
    "JudgedQuestion",
    "evaluate_rooms",
    "format_room_table",
    "is_ahead",
    "judge_room",
    "judge_rooms",
    "tabulate",
]

BASELINES = ("majority", "text", "mean_row", "bottom_row")
_MAX_NEW_TOKENS = 24


@dataclass
class JudgedQuestion:
    """A question of a room with its answer.

    Args:
        scene_id: Name of the room.
        question: Entry of the row's `questions`.
        answer: Answer in words; for a request to find something, the object that was found.
        is_right: Whether the answer counts, see `score_answer`; a request counts if the found region is a true one.
        baselines: Whether each baseline would be right, see `Baselines.judge`.
    """

    scene_id: str
    question: dict
    answer: str
    is_right: bool
    baselines: dict[str, bool]


def judge_room(
    model: nn.Module, processor: Any, row: dict, baselines: Baselines, reference: str | None = None
) -> list[JudgedQuestion]:
    """Ask a model all questions of a room.

    Args:
        model: `IDE3DForConditionalGeneration` in evaluation mode.
        processor: `IDE3DProcessor` of the model.
        row: Row of `load_rooms` at the model's image size.
        baselines: Baselines that were fitted on other rooms.
        reference: "word" or "region" for questions that name objects, or point at them; None asks both.
    """
    grid = TokenGrid.of(processor)
    session, at = None, image_rows(row)
    judged = []
    for sample in room_samples(row, grid, reference=reference):
        session = session or SceneSession(model, processor, sample["frames"], do_sample_frames=False)
        questions = sample["questions"]
        if "region_targets" in sample:
            texts = [question["question"] for question in questions]
            masks, targets = torch.from_numpy(sample["region_masks"]), sample["region_targets"]
            choice = int(session.ground(texts, masks, template="{description}")[0].argmax())
            answers = ["no such object" if choice == len(masks) else f"object {sample['object_ids'][choice]}"]
            right = [bool(targets[choice])]
        else:
            answers = session.ask(*_questions_with_regions(sample), max_new_tokens=_MAX_NEW_TOKENS)
            right = [score_answer(question, answer) for question, answer in zip(questions, answers, strict=True)]
        judged += [
            JudgedQuestion(row["scene_id"], question, answer, is_right, baselines.judge(question, at))
            for question, answer, is_right in zip(questions, answers, right, strict=True)
        ]
    return judged


def _questions_with_regions(sample: dict) -> tuple[list[str], list[torch.Tensor | None]]:
    """Return the texts of a sample's questions and the masks that each points at."""
    references = list(sample.get("region_references", ()))
    texts, regions = [], []
    for question in sample["questions"]:
        count = len(question["region_objects"])
        own, references = references[:count], references[count:]
        texts.append(question["question"])
        regions.append(torch.from_numpy(sample["region_masks"][own]) if count else None)
    return texts, regions


def judge_rooms(
    model: nn.Module, processor: Any, rows: Iterable[dict], baselines: Baselines, reference: str | None = None
) -> list[JudgedQuestion]:
    """Ask a model all questions of all rooms, with a progress bar; see `judge_room`."""
    bar = tqdm(rows, desc="Rooms", unit="room")
    return [entry for row in bar for entry in judge_room(model, processor, row, baselines, reference)]


def tabulate(judged: Sequence[JudgedQuestion]) -> list[dict[str, Any]]:
    """Return the accuracy of each type and form of reference, with bands over rooms.

    Returns:
        Dicts with type ("size" of one object is "height"), reference, n, model, band [low, high], each baseline (None
        where it has nothing to say), best (the name of the best one), lead over it and its lead_band; shares in
        [0, 1]. The bands are 95 % over rooms, [None, None] for too few rooms; that of the lead is paired.
    """
    groups: dict[tuple[str, str], list[JudgedQuestion]] = {}
    for entry in judged:
        kind, question = entry.question["type"], entry.question
        kind = "height" if kind == "size" and question["value"] else kind
        groups.setdefault((kind, question["reference"]), []).append(entry)
    table = []
    for (kind, reference), entries in sorted(groups.items()):
        hits = {name: [e.baselines[name] for e in entries] for name in BASELINES if name in entries[0].baselines}
        means = {name: float(np.mean(values)) for name, values in hits.items()}
        best = max(means, key=means.get)
        right = np.array([entry.is_right for entry in entries], float)
        scores = {
            "model": mean_score(right, percent=False),
            "lead": mean_score(right - np.array(hits[best], float), percent=False),
        }
        summary = summarise(scores, [entry.scene_id for entry in entries])
        table.append(
            {
                "type": kind,
                "reference": reference,
                "n": len(entries),
                "model": summary["model"],
                "band": summary["bands"]["model"],
                **{name: means.get(name) for name in BASELINES},
                "best": best,
                "lead": summary["lead"],
                "lead_band": summary["bands"]["lead"],
            }
        )
    return table


def is_ahead(row: dict[str, Any]) -> bool:
    """Return whether a row of `tabulate` is surely above its best baseline.

    It never is for too few rooms.
    """
    low = row["lead_band"][0]
    return low is not None and low > 0


def format_room_table(table: Sequence[dict[str, Any]]) -> str:
    """Return the table in Markdown, in percent.

    `~` marks a lead that is not surely above zero.
    """
    head = ["type", "refers by", "n", "model", "95 % band", "majority", "text-only", "mean row", "bottom row", "lead"]
    rows = [
        [
            row["type"],
            row["reference"],
            row["n"],
            format_percent(row["model"]),
            format_band([None if edge is None else 100 * edge for edge in row["band"]]),
            *(format_percent(row[name]) for name in BASELINES),
            format_percent(row["lead"], sign=True) + ("" if is_ahead(row) else " ~"),
        ]
        for row in table
    ]
    return markdown_table(head, rows, "llrrrrrrrr")


def evaluate_rooms(
    model: str | Path,
    *,
    split: str = "test",
    style: str = "plain",
    num_rooms: int = 500,
    num_baseline_rooms: int = 1000,
    reference: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Ask a model about procedural rooms of its own image size and number of frames.

    Args:
        model: Folder of an exported model, or its name on the Hub.
        split: Split of the rooms, "validation" or "test".
        style: Style of the rooms.
        num_rooms: Rooms that are asked about.
        num_baseline_rooms: Training rooms that the baselines are fitted on.
        reference: "word" or "region" for questions that name objects, or point at them; None asks both.
        device: See `load_inference_model`.

    Returns:
        `split`, `num_rooms`, `table` (see `tabulate`), and `answers` with question, truth and answer each, as JSON
        holds them.

    Raises:
        ValueError: If the model is none of ours, or `load_rooms` refuses a setting.
    """
    loaded, processor = load_inference_model(model, device=device, dtype=torch.float32)
    options = {
        "style": style,
        "image_size": processor.image_size,
        "num_frames": processor.video_processor.num_frames,
    }
    baselines = Baselines(load_rooms("train", num_baseline_rooms, **options))
    rooms = load_rooms(split, num_rooms, **options)
    judged = judge_rooms(loaded, processor, rooms, baselines, reference)
    answers = [
        {
            "scene_id": entry.scene_id,
            **{key: entry.question[key] for key in ("type", "reference", "question")},
            "truth": entry.question["answer"],
            "answer": entry.answer,
            "is_right": entry.is_right,
        }
        for entry in judged
    ]
    return {"split": split, "num_rooms": len(rooms), "table": tabulate(judged), "answers": answers}
