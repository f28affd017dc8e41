"""The words around a question: seven tasks, two protocols, training and evaluation.

`protocol="paper"` repeats the original. It writes the description in small letters behind a capital and tells
coordinates that no RGB frame shows. Training has a sentence that evaluation lacks, and three tasks begin with a blank.
`protocol="clean"` says the same without these, and the same in training as in evaluation.

A prompt follows the video and its newline in the user's turn. The chat template of `IDE3DProcessor` then gives the
original's `<image>` + newline + text. VSI-Bench and ReVSI have no prompt in the original; their own
are used.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from processing.argument_rules import check_choice, check_keys, check_text, check_texts
from processing.benchmarks.readers.tasks import SPATIAL_TASKS, TASKS, find_task
from processing.box_rules import check_boxes

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
_NUMBER_ENDS = {
    "vsibench": "Please answer the question using a single word or phrase.",
    "revsi": "Answer the question using a single integer or decimal number.",
}
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
        TypeError: An argument, or a field of the sample, of another kind.
        ValueError: Unknown task, protocol or stage, or a task without a prompt. A sample without a question, or,
            under "clean", one of Scan2Cap without a box to describe.
    """
    spec = find_task(task)
    if not spec.has_prompt:
        raise ValueError(f"{task} has no prompt here. Its result files can be scored.")
    check_choice(protocol, PROTOCOLS, "protocol")
    check_choice(stage, STAGES, "stage")
    check_keys(sample, ("input_box",) if task == "scan2cap" else ("question",), "sample")
    if task in SPATIAL_TASKS:
        return _spatial_prompt(task, sample)
    point = _point_of(sample) if task == "scan2cap" else None
    if protocol == "clean":
        return _clean_prompt(task, sample, point)
    question = "" if task == "scan2cap" else _text_of(sample, "question")
    text = format_source_text(task, question=question, point=point).replace("<image>", "")
    if task == "scan2cap":
        text = text.replace(_spelled(point), f"{_spelled(point)} {GROUND}")
    return SPATIAL_INSTRUCTION + text if stage == "train" else text


def _text_of(sample: Mapping[str, Any], name: str) -> str:
    """Return a field of a sample that must be text with words in it."""
    text = check_text(sample[name], f"sample: {name}")
    if not text.strip():
        raise ValueError(f"`sample: {name}` must hold words, got {text!r}.")
    return text


def _texts_of(sample: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return a list of texts of a sample; none where it is missing."""
    values = sample.get(name)
    return () if values is None else check_texts(values, f"sample: {name}", is_ordered=True)


def _point_of(sample: Mapping[str, Any]) -> list[float] | None:
    """Return the centre of the box to describe, metres; None where there is no box."""
    box = sample["input_box"]
    if box is None or (isinstance(box, list | tuple) and not box) or getattr(box, "shape", None) == (0,):
        return None
    check_boxes([box], is_metric=False, name="sample: input_box")
    return [float(x) for x in box[:3]]


def _clean_prompt(task: str, sample: Mapping[str, Any], point: list[float] | None) -> str:
    if task != "scan2cap":
        question = _text_of(sample, "question").strip()
        return SOURCE_TEMPLATES[task].replace("<image>", "").strip().replace("{question}", question)
    if point is None:
        name = str(sample.get("id", ""))[:200]
        raise ValueError(f"Sample {name} has no box to describe. Leave it out; its score is that of no caption.")
    return _CLEAN_SCAN2CAP


def _spatial_prompt(task: str, sample: Mapping[str, Any]) -> str:
    question, options = _text_of(sample, "question"), _texts_of(sample, "options")
    if not options:
        return f"{_VSI_START}{question}\n{_NUMBER_ENDS[task]}"
    return "\n".join([_VSI_START + question, "Options:", *options, _VSI_CHOICE])


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
        answers = _texts_of(sample, "answers")
        if not answers or not answers[0].strip():
            raise ValueError(f"`sample: answers` must hold an answer in words to train on, got {list(answers)[:3]}.")
        answer = answers[0]
    return [user, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def prompt_digest(task: str, *, protocol: str = "clean", stage: str = "eval") -> str:
    """Return a short digest of a prompt's wording, the same for the same words."""
    blank = {"id": "", "question": "a Question", "input_box": [0.0] * 6, "options": []}
    texts = [build_prompt(task, blank, protocol=protocol, stage=stage)]
    if task in SPATIAL_TASKS:
        texts.append(build_prompt(task, {**blank, "options": ["{option}"]}, protocol=protocol, stage=stage))
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
