"""The one rule for "is this a sample of the benchmark", which readers and doctor share."""

import math
import reprlib
from collections.abc import Iterator
from typing import Any

from processing.benchmarks.prompts import SOURCE_TEMPLATES, question_of
from processing.benchmarks.readers.files import checked_box
from processing.benchmarks.readers.tasks import SPATIAL_TASKS, Task
from processing.scene_names import check_name

__all__ = ["QUESTION_TYPES", "box_faults", "object_ids", "sample_faults", "sample_name", "video_scene"]

QUESTION_TYPES = {
    "scanrefer": {"unique", "multiple"},
    "multi3drefer": {"zt_wo_d", "zt_w_d", "st_wo_d", "st_w_d", "mt"},
    "sqa3d": {"what", "is", "how", "can", "which", "others"},
}
VSI_NUMBERS = {"object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation"}
VSI_CHOICES = {f"object_rel_direction_{level}" for level in ("easy", "medium", "hard")} | {
    "object_rel_distance",
    "route_planning",
    "obj_appearance_order",
}
REVSI_NUMBERS = {
    *(f"{what}_{which}" for what in ("object_counting", "room_size_estimation") for which in ("single", "multiple")),
    "object_abs_distance",
    "object_size_estimation",
}
REVSI_CHOICES = {
    *(f"object_rel_direction_{way}_{level}" for way in ("forward", "backward") for level in ("easy", "hard")),
    "object_rel_distance_closest",
    "object_rel_distance_farthest",
    "route_planning",
}
_SPATIAL_TYPES = {"vsibench": (VSI_NUMBERS, VSI_CHOICES), "revsi": (REVSI_NUMBERS, REVSI_CHOICES)}
_SCENE_FIELDS = {"vsibench": ("dataset", "scene_name"), "revsi": ("scene_id",)}
_FIELDS = {
    "scanrefer": ("box",),
    "multi3drefer": ("box",),
    "scan2cap": ("box_input", "gt_box"),
}


NOTES = {"truth-zero"}  # Faults of a sample that can be used all the same.
_MAX_ID = 2**31  # Object ids are stored as int32.


def sample_name(record: dict, number: int) -> str:
    """Return the id of a sample for messages, or its place in the file."""
    return str(record["id"])[:200] if _is_text_or_number(record.get("id")) else f"number {number}"


def sample_faults(task: Task, record: dict, *, reads_boxes: bool = True) -> Iterator[tuple[str, str]]:
    """Yield each fault of a sample as a key of `KINDS` and a sentence.

    `KINDS` is the doctor's; the sentence has no period.

    Args:
        task: Benchmark of the sample.
        record: Sample as it stands in the file.
        reads_boxes: Whether boxes and ids of objects are read; if not, they may be missing or anything.
    """
    is_spatial = task.name in SPATIAL_TASKS
    yield from _spatial_faults(task, record) if is_spatial else _llava_faults(task, record, reads_boxes)


def video_scene(task: Task, record: dict, split: str) -> str:
    """Return the scene id of the video file that a spatial record asks about.

    Args:
        task: Benchmark of the record, of `SPATIAL_TASKS`.
        record: Record as it stands in the file.
        split: Split of the benchmark; each subset of ReVSI has videos of its own.
    """
    first = [split] if task.name == "revsi" else []
    return "/".join([task.name, *first, *(str(record[name]) for name in _SCENE_FIELDS[task.name])])


def object_ids(metadata: dict) -> list[int]:
    """Return the object ids in a sample's metadata.

    Args:
        metadata: Mapping whose `object_id` is one id, or a list of them, as numbers or as text.

    Raises:
        ValueError: One of them is neither.
    """
    ids = metadata["object_id"] if isinstance(metadata["object_id"], list) else [metadata["object_id"]]
    if not all(_is_id(number) for number in ids):
        raise ValueError(
            f"`metadata.object_id` must be a number from 0 on, or a list of them, got {reprlib.repr(ids)}. Write the "
            "index of the object in the scan."
        )
    return [int(number) for number in ids]


def _is_id(value: Any) -> bool:
    # `isdigit` alone holds for superscripts, which `int` does not read.
    is_number = isinstance(value, int) and not isinstance(value, bool)
    is_text = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10
    return (is_number or is_text) and 0 <= int(value) < _MAX_ID


def _is_text_or_number(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _bad_fields(task: Task, record: dict, reads_boxes: bool) -> list[str]:
    """Return the names of fields that are missing or of another type than expected."""
    metadata, turns = record.get("metadata"), record.get("conversations")
    bad = [name for name in _FIELDS.get(task.name, ()) if reads_boxes and name not in record]
    bad += [] if _is_text_or_number(record.get("id")) else ["id"]
    bad += [] if isinstance(record.get("video"), str) and "/" in record["video"] else ["video"]
    if not isinstance(metadata, dict) or not isinstance(metadata.get("question_type"), str):
        bad.append("metadata.question_type")
    elif reads_boxes and (task.kind == "ground" or "object_id" in metadata):
        ids = metadata.get("object_id")
        ids = ids if isinstance(ids, list) else [ids]
        bad += [] if all(_is_id(number) for number in ids) else ["metadata.object_id"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return [*bad, "conversations"]
    said = {turn.get("from"): turn.get("value") for turn in turns}
    return bad + [f"a turn from {name}" for name in ("human", "gpt") if not isinstance(said.get(name), str)]


def _llava_faults(task: Task, record: dict, reads_boxes: bool) -> Iterator[tuple[str, str]]:
    """Yield pairs of kind and detail."""
    bad = _bad_fields(task, record, reads_boxes)
    if bad:
        yield "field-missing", f"it lacks {', '.join(bad)}, or has another type there"
        return
    yield from _name_faults(record["video"])
    metadata = record["metadata"]
    turns: dict[str, str] = {turn["from"]: turn["value"] for turn in record["conversations"]}
    if task.name in SOURCE_TEMPLATES:
        try:
            question = question_of(task.name, turns["human"])
        except ValueError:
            yield "prompt-foreign", f"the user says {turns['human'][:90]!r}"
        else:
            if task.kind != "describe" and not question.strip():
                yield "question-empty", "nothing is asked"
    if task.kind == "describe":
        answers = record.get("annotations", [turns["gpt"]])
    else:
        answers = metadata.get("answers", [turns["gpt"]])
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        yield "answer-missing", f"its answers must be text that is not empty, they are {reprlib.repr(answers)}"
    types = QUESTION_TYPES.get(task.name)
    if types is not None and metadata["question_type"] not in types:
        yield "question-type-unknown", f"its type {metadata['question_type'][:90]!r} is none of {sorted(types)}"
    if reads_boxes and task.kind == "ground":
        boxes = record["box"] if task.name == "multi3drefer" else [record["box"]]
        yield from box_faults(boxes)
    elif reads_boxes and task.kind == "describe":
        yield from box_faults([record["gt_box"], *([record["box_input"]] if record["box_input"] is not None else [])])


def _name_faults(scene_id: str) -> Iterator[tuple[str, str]]:
    try:
        check_name(scene_id)
    except ValueError as error:
        yield "scene-id-bad", str(error)


def box_faults(boxes: Any) -> Iterator[tuple[str, str]]:
    """Yield the faults of a list of boxes, as `sample_faults` does.

    Args:
        boxes: Value that should be a list of boxes (cx, cy, cz, dx, dy, dz), metres.
    """
    if not isinstance(boxes, list):
        yield (
            "box-null" if boxes is None else "box-bad",
            f"its boxes must be a list of boxes, they are {reprlib.repr(boxes)}",
        )
        return
    for box in boxes:
        if box is None:
            yield "box-null", "a box is null"
            continue
        try:
            checked_box(box, "box")
        except ValueError as error:
            yield "box-bad", str(error)


def _spatial_faults(task: Task, record: dict) -> Iterator[tuple[str, str]]:
    kinds = {"question": str, "question_type": str} | dict.fromkeys(_SCENE_FIELDS[task.name], str | int)
    kinds |= {"id": str | int, "ground_truth": str | int | float, "options": list | None}
    missing = [
        name
        for name, kind in kinds.items()
        if not isinstance(record.get(name), kind) or isinstance(record.get(name), bool)
    ]
    if "options" not in missing and not all(isinstance(option, str) for option in record.get("options") or []):
        missing.append("options")
    if missing:
        yield "field-missing", f"it lacks {', '.join(missing)}, or has another type there"
        return
    yield from _name_faults("/".join(str(record[name]) for name in _SCENE_FIELDS[task.name]))
    if not record["question"].strip():
        yield "question-empty", "nothing is asked"
    kind, truth, options = record["question_type"], str(record["ground_truth"]), record.get("options") or []
    numbers, choices = _SPATIAL_TYPES[task.name]
    if kind in choices:
        letters = [option.partition(".")[0].strip() for option in options]
        if truth not in letters:
            yield "choice-bad", f"the truth is {truth!r}, the options are {letters}"
    elif kind in numbers:
        try:
            number = float(truth)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            yield "choice-bad", f"the truth is {truth!r}, which is no number from 0 on"
        elif number == 0:
            yield "truth-zero", "the truth is 0"
    else:
        yield "question-type-unknown", f"its type {kind[:90]!r} is none of {sorted(choices | numbers)}"
