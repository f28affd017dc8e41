"""Answers from frames alone: what a model finds or describes without given boxes, as cells of frames and words.

An answer says nothing of the world. To find: `{"regions": [{"cells": {"00010": [37, 38]}, "score": 0.61}]}`, where a
cell is row * cols + column of the token grid in a named frame; or `{"text": ...}`, the model's boxes in words. To
describe: text, and the region that a click led to. `lifting` brings them to the world, where the truth is known.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from processing.benchmarks import Task, build_chat, build_prompt
from processing.token_grid import TokenGrid
from trainer.evaluation.clicks import Clicks
from trainer.evaluation.metrics.scores import Protocol
from trainer.session.said_boxes import LOCATE
from trainer.session.scene_session import SceneSession

__all__ = [
    "FINDINGS",
    "WORD_TOKENS",
    "Finding",
    "describe_clicked",
    "find_by_regions",
    "find_by_words",
    "find_fault",
    "read_cells",
]

Finding = Literal["regions", "words"]
FINDINGS = ("regions", "words")
WORD_TOKENS = 384  # eight boxes in words, 48 tokens each


def find_by_regions(
    session: SceneSession, task: Task, samples: Sequence[Mapping[str, Any]], protocol: Protocol
) -> list[dict[str, Any]]:
    """Find objects among the regions that the session proposes.

    ScanRefer, where an object always exists, takes the best region, whether it exceeds "no such object" or not.

    Args:
        session: Session of the scene.
        task: ScanRefer or Multi3DRefer.
        samples: Samples of the scene.
        protocol: Protocol of the prompts.
    """
    prompts = [build_prompt(task.name, sample, protocol=protocol, stage="eval") for sample in samples]
    names = [f"sample {sample['id']}" for sample in samples]
    proposals = session.propose()
    answers = []
    for sample, found in zip(samples, session.find_each(prompts, template="{description}", names=names), strict=True):
        masks, scores = found.masks, found.scores
        if task.name == "scanrefer" and found.totals:
            best = int(np.argmax(found.totals))
            masks, scores = proposals.masks[best : best + 1], found.totals[best : best + 1]
        rows = [_as_row(mask, score, sample["frame_names"]) for mask, score in zip(masks, scores, strict=True)]
        answers.append({"regions": rows})
    return answers


def find_by_words(
    session: SceneSession, samples: Sequence[Mapping[str, Any]], max_new_tokens: int
) -> list[dict[str, Any]]:
    """Ask for boxes in words; see `processing.boxes_in_words`.

    Args:
        session: Session of the scene.
        samples: Samples of the scene.
        max_new_tokens: Largest number of tokens of an answer.
    """
    descriptions = [sample["question"].strip().rstrip(".") for sample in samples]
    questions = [LOCATE.replace("{description}", text) for text in descriptions]
    names = [f"sample {sample['id']}" for sample in samples]
    return [{"text": text} for text in session.ask(questions, max_new_tokens=max_new_tokens, names=names)]


def describe_clicked(
    session: SceneSession, task: Task, samples: Sequence[Mapping[str, Any]], clicks: Clicks, max_new_tokens: int
) -> list[dict[str, Any]]:
    """Describe the regions that clicks lead to; an object without a click gets no words.

    Args:
        session: Session of the scene.
        task: Scan2Cap.
        samples: Samples of the scene.
        clicks: Clicks of the samples.
        max_new_tokens: Largest number of tokens of a description.

    Raises:
        ValueError: If a click lies where the vision tower sees nothing; the message names the sample.
    """
    followed: dict[str, Any] = {}
    for sample in samples:
        if (mark := clicks.marks[sample["id"]]) is not None:
            try:
                followed[sample["id"]] = session.follow(mark)
            except ValueError as error:
                raise ValueError(f"Click of sample {sample['id']!r}: {error}") from None
    # The prompt of the protocol "clean" points at a region; numbers of a box are not in it.
    chat = build_chat(task.name, {"id": "", "input_box": [0.0] * 6}, protocol="clean", stage="eval")
    regions = [found.mask[None] for found in followed.values()]
    names = [f"sample {name}" for name in followed]
    texts = session.ask([chat] * len(followed), regions, max_new_tokens=max_new_tokens, names=names)
    said = dict(zip(followed, texts, strict=True))
    answers = []
    for sample in samples:
        found = followed.get(sample["id"])
        rows = [] if found is None else [_as_row(found.mask, found.score, sample["frame_names"])]
        answers.append({"text": said.get(sample["id"], "").strip(), "regions": rows})
    return answers


def _as_row(mask: torch.Tensor, score: float, frame_names: Sequence[str]) -> dict[str, Any]:
    """Return a region (V, rows, cols) as an answer holds it."""
    flat = mask.flatten(1)
    seen = {name: flat[view].nonzero().flatten().tolist() for view, name in enumerate(frame_names) if flat[view].any()}
    return {"cells": seen, "score": float(score)}


def read_cells(row: Mapping[str, Any], frame_names: Sequence[str], grid: TokenGrid) -> torch.Tensor:
    """Return the mask (V, rows, cols) of a region of an answer.

    Args:
        row: Region of an answer.
        frame_names: Names of the V frames; cells of other frames are left out.
        grid: Token grid of the model.
    """
    mask = torch.zeros(len(frame_names), grid.rows * grid.cols, dtype=torch.bool)
    for view, name in enumerate(frame_names):
        mask[view, row["cells"].get(name, [])] = True
    return mask.view(len(frame_names), *grid.shape)


def find_fault(
    task: Task, finding: Finding, sample: Mapping[str, Any], answer: Mapping[str, Any], grid: TokenGrid
) -> str | None:
    """Return what is wrong with a stored answer of this mode; None if nothing is.

    Args:
        task: Task with regions.
        finding: Way in which objects were looked for.
        sample: Sample of the answer.
        answer: Answer as it is stored.
        grid: Token grid of the model.
    """
    name = sample["id"]
    has_text, has_regions = (
        task.kind == "describe" or finding == "words",
        task.kind == "describe" or finding == "regions",
    )
    wanted = {"id", "scene_id"} | ({"text"} if has_text else set()) | ({"regions"} if has_regions else set())
    if set(answer) != wanted:
        return f"the answer to {name!r} must have {', '.join(sorted(wanted))}, it has {', '.join(sorted(answer))}"
    if has_text and not isinstance(answer["text"], str):
        return f'the answer to {name!r} must have a "text"'
    rows = answer.get("regions", [])
    if isinstance(rows, list) and all(_is_region(row, sample["frame_names"], grid) for row in rows):
        return None
    return f'the "regions" of the answer to {name!r} must be lists of cells of frames that were shown, and a score'


def _is_region(row: Any, frame_names: Sequence[str], grid: TokenGrid) -> bool:
    if not isinstance(row, dict) or set(row) != {"cells", "score"} or not isinstance(row["cells"], dict):
        return False
    last = grid.rows * grid.cols - 1
    return (
        type(row["score"]) in (int, float)
        and math.isfinite(row["score"])
        and set(row["cells"]) <= set(frame_names)
        and all(
            isinstance(cells, list) and all(type(cell) is int and 0 <= cell <= last for cell in cells)
            for cells in row["cells"].values()
        )
    )
