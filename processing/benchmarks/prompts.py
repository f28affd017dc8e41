"""The words around a question: six tasks, two protocols, training and evaluation.

`protocol="paper"` repeats the original. It writes the description in small letters behind a capital and tells
coordinates that no RGB frame shows. Training has a sentence that evaluation lacks, and three tasks begin with a blank.
`protocol="clean"` says the same without these, and the same in training as in evaluation.

A prompt follows the video and its newline in the user's turn. The chat template of `IDE3DProcessor` then gives the
original's `<image>` + newline + text. VSI-Bench has no prompt in the original; its own is used.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from processing.benchmarks.readers.tasks import TASKS, find_task

__all__ = ["PROTOCOLS", "STAGES", "build_chat", "build_prompt", "format_source_text", "prompt_digest", "question_of"]

PROTOCOLS = ("clean", "paper")
STAGES = ("train", "eval")
GROUND = "<ground>"

SPATIAL_INSTRUCTION = (
    "The video captures 3D spatial information of a scene. Please focus on the spatial relationships in the video and "
    "answer the following questions.\n"
)
# User turns of the original's annotation files. "{point}" is a box centre as "[x, y, z]" with two decimals.
SOURCE_TEMPLATES = {
    "scanrefer": "<image>Identify the object according to the following description.\n{question}",
    "multi3drefer": (
        "<image>Identify the object according to the following description.\n{question}\n"
        "There may be no corresponding object, or there may be one or more objects."
    ),
    "scan2cap": "<image> Carefully watch the video and describe the object located at {point} in detail.",
    "scanqa": "<image> {question} Answer the question simply.",
    "sqa3d": "<image> {question} Answer the question using a single word or phrase.",
}
_CLEAN_SCAN2CAP = f"Carefully watch the video and describe the object {GROUND} in detail."
_VSI_START = "These are frames of a video.\n"
_VSI_NUMBER = "Please answer the question using a single word or phrase."
_VSI_CHOICE = "Answer with the option's letter from the given choices directly."


def format_source_text(task: str, *, question: str = "", point: list[float] | None = None) -> str:
    """Return the user turn of an annotation file of the original.

    Args:
        task: Key of `TASKS` with such a file.
        question: Description or question; for SQA3D the situation, a blank and the question.
        point: Centre (x, y, z) of the box to describe, metres; None is a missing box, which the original spells as
            the origin.
    """
    if task in ("scanrefer", "multi3drefer"):
        question = question.capitalize()
    return SOURCE_TEMPLATES[task].format(question=question, point=_spelled(point))


def question_of(task: str, source_text: str) -> str:
    """Return the description or question in a user turn of an annotation file.

    Args:
        task: Key of `TASKS` with such a file.
        source_text: Words of the user as the file has them.

    Returns:
        The text; "" for Scan2Cap.

    Raises:
        ValueError: The text does not follow the original's template, so the file is of another version.
    """
    before, _, after = SOURCE_TEMPLATES[task].partition("{point}" if task == "scan2cap" else "{question}")
    fits = source_text.startswith(before) and source_text.endswith(after)
    if not fits or len(source_text) < len(before) + len(after):
        raise ValueError(
            f"A user turn of {task} must read {SOURCE_TEMPLATES[task]!r}, got {source_text!r}. The file was made for "
            "another model: make it again."
        )
    return "" if task == "scan2cap" else source_text[len(before) : len(source_text) - len(after)]


def build_prompt(task: str, sample: Mapping[str, Any], *, protocol: str = "clean", stage: str = "eval") -> str:
    """Return the user's words behind the video.

    Args:
        task: Key of `TASKS`.
        sample: Row of `load_task`; `question`, `options` and `input_box` are read.
        protocol: "clean" or "paper".
        stage: "train" or "eval"; they differ under "paper" only.

    Raises:
        TypeError: A sample, or a field of it, of another type.
        ValueError: Unknown task, protocol or stage, or a task without a prompt. Also a field that is missing or cannot
            be meant, and, under "clean", a sample of Scan2Cap without a box to describe.
    """
    spec = find_task(task)
    if not spec.has_prompt:
        raise ValueError(f"{task} has no prompt here. Its result files can be scored.")
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {PROTOCOLS}, got {protocol!r}.")
    if not isinstance(stage, str) or stage not in STAGES:
        raise ValueError(f"`stage` must be one of {STAGES}, got {stage!r}.")
    _check_sample(task, sample, protocol)
    if task == "vsibench":
        return _vsi_prompt(sample)
    if protocol == "clean":
        return _clean_prompt(task, sample)
    point = list(sample["input_box"])[:3] or None
    text = format_source_text(task, question=sample["question"], point=point).replace("<image>", "")
    if task == "scan2cap":
        text = text.replace(_spelled(point), f"{_spelled(point)} {GROUND}")
    return SPATIAL_INSTRUCTION + text if stage == "train" else text


def _check_sample(task: str, sample: Any, protocol: str) -> None:
    """Raise TypeError or ValueError unless the fields that a prompt reads are of their kinds."""
    if not isinstance(sample, Mapping):
        raise TypeError(
            f"`sample` must be a dict, a row of `load_task`, got {sample!r:.100} ({type(sample).__name__})."
        )
    is_caption, is_choice = task == "scan2cap", task == "vsibench"
    needed = {
        "question": not is_caption or protocol == "paper",
        "options": is_choice,
        "input_box": is_caption or (protocol == "paper" and not is_choice),
    }
    for field in (field for field, is_needed in needed.items() if is_needed):
        if field not in sample:
            raise ValueError(f"`sample` lacks the field {field!r}, it has {list(sample)[:12]}.")
        value, where = sample[field], f"`sample`: `{field}`"
        if field == "question":
            if not isinstance(value, str):
                raise TypeError(f"{where} must be text, got {value!r:.100} ({type(value).__name__}).")
            if not (is_caption or value.strip()):
                raise ValueError(f"{where} must ask something, got {value!r:.100}.")
        elif isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__len__"):
            raise TypeError(f"{where} must be a list, got {value!r:.100} ({type(value).__name__}).")
        elif field == "options" and not all(isinstance(option, str) for option in value):
            raise TypeError(f"{where} must be texts, got {value!r:.100}.")
        elif field == "input_box" and (len(value) not in (0, 6) or not all(map(_is_finite, value))):
            raise ValueError(f"{where} must be a box of six finite numbers, or empty, got {value!r:.100}.")


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _clean_prompt(task: str, sample: Mapping[str, Any]) -> str:
    if task != "scan2cap":
        return SOURCE_TEMPLATES[task].replace("<image>", "").strip().replace("{question}", sample["question"].strip())
    if not len(sample["input_box"]):
        raise ValueError(
            f"Sample {sample['id']} has no box to describe. Leave it out; its score is that of no caption."
        )
    return _CLEAN_SCAN2CAP


def _vsi_prompt(sample: Mapping[str, Any]) -> str:
    if not len(sample["options"]):
        return f"{_VSI_START}{sample['question']}\n{_VSI_NUMBER}"
    return "\n".join([_VSI_START + sample["question"], "Options:", *sample["options"], _VSI_CHOICE])


def _spelled(point: list[float] | None) -> str:
    return "[{:.2f}, {:.2f}, {:.2f}]".format(*(point or (0.0, 0.0, 0.0)))


def build_chat(task: str, sample: Mapping[str, Any], *, protocol: str = "clean", stage: str = "eval") -> list[dict]:
    """Return messages for the chat template: video, prompt and, in training, the answer.

    In training the answer is the first of `answers`, or `<ground>` where an object is looked for. Arguments and errors
    are those of `build_prompt`.
    """
    text = build_prompt(task, sample, protocol=protocol, stage=stage)
    user = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}
    if stage == "eval":
        return [user]
    if TASKS[task].kind == "ground":
        answer = GROUND
    else:
        answers = sample.get("answers")
        if isinstance(answers, str) or not hasattr(answers, "__len__") or not len(answers):
            raise ValueError(f"`sample`: `answers` must be a list of texts, at least one, got {answers!r:.100}.")
        answer = answers[0]
        if not isinstance(answer, str) or not answer.strip():
            raise ValueError(f"`sample`: `answers` must be texts that are not empty, got {answer!r:.100}.")
    return [user, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def prompt_digest(task: str, *, protocol: str = "clean", stage: str = "eval") -> str:
    """Return a short digest of a prompt's wording, the same for the same words."""
    blank = {"id": "", "question": "a Question", "input_box": [0.0] * 6, "options": []}
    texts = [build_prompt(task, blank, protocol=protocol, stage=stage)]
    if task == "vsibench":
        texts.append(build_prompt(task, {**blank, "options": ["{option}"]}, protocol=protocol, stage=stage))
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
