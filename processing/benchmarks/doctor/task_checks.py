"""Checks of the doctor on samples and boxes. Nothing raises; what is wrong becomes a `Finding`."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from processing.benchmarks.doctor.findings import Finding
from processing.benchmarks.prompts import SOURCE_TEMPLATES, question_of
from processing.benchmarks.readers.annotations import object_ids, read_records
from processing.benchmarks.readers.files import checked_box, read_boxes, read_json
from processing.benchmarks.readers.tasks import Layout, Task

__all__ = ["QUESTION_TYPES", "check_boxes", "check_samples"]

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
_SAME_BOX = 0.01  # Metres; files round to a millimetre or two.
_FIELDS = {
    "scanrefer": ("box",),
    "multi3drefer": ("box",),
    "scan2cap": ("box_input", "gt_box"),
}


def check_samples(layout: Layout, task: Task, split: str) -> tuple[list[Finding], list[dict] | None]:
    """Return findings on the annotation file of a task, and its records or None."""

    def finding(kind: str, path: Path, detail: str) -> Finding:
        return Finding(kind, str(path), detail, task=task.name, split=split)

    try:
        path, records = read_records(layout, task, split)
    except FileNotFoundError:
        return [finding("annotations-missing", layout.annotations(task, split)[0], "it does not exist")], None
    except (OSError, ValueError) as error:
        path = next(path for path in layout.annotations(task, split) if path.is_file())
        return [finding("annotations-broken", path, str(error))], None
    if not records:
        return [finding("annotations-empty", path, "it holds no sample")], None
    findings, good = [], []
    for number, record in enumerate(records):
        faults = list(_vsi_faults(record) if task.name == "vsibench" else _llava_faults(task, record))
        findings += [finding(kind, path, f"sample {record.get('id', number)}: {text}") for kind, text in faults]
        if not any(kind == "field-missing" for kind, _ in faults):
            good.append(record)
    if split != "train":
        twice = [name for name, count in Counter(str(record.get("id")) for record in records).items() if count > 1]
        findings += [finding("id-twice", path, f"id {name}") for name in twice]
    if task.name == "scan2cap" and good and all(record["box_input"] is None for record in good):
        findings.append(finding("input-boxes-null", path, f"box_input is null in all {len(good)} samples"))
    return findings, good


def _bad_fields(task: Task, record: dict) -> list[str]:
    """Return the names of fields that are missing or of another type than expected."""
    metadata, turns = record.get("metadata"), record.get("conversations")
    bad = [name for name in _FIELDS.get(task.name, ()) if name not in record]
    bad += [] if isinstance(record.get("id"), str | int) else ["id"]
    bad += [] if isinstance(record.get("video"), str) and "/" in record["video"] else ["video"]
    if not isinstance(metadata, dict) or not isinstance(metadata.get("question_type"), str):
        bad.append("metadata.question_type")
    elif task.kind == "ground" or "object_id" in metadata:
        ids = metadata.get("object_id")
        ids = ids if isinstance(ids, list) else [ids]
        bad += [] if all(str(number).isdigit() for number in ids) else ["metadata.object_id"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return [*bad, "conversations"]
    said = {turn.get("from"): turn.get("value") for turn in turns}
    return bad + [f"a turn from {name}" for name in ("human", "gpt") if not isinstance(said.get(name), str)]


def _llava_faults(task: Task, record: dict) -> Iterator[tuple[str, str]]:
    """Yield pairs of kind and detail."""
    bad = _bad_fields(task, record)
    if bad:
        yield "field-missing", f"it lacks {', '.join(bad)}, or has another type there"
        return
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
        yield "answer-missing", f"the answers are {answers!r}"
    types = QUESTION_TYPES.get(task.name)
    if types is not None and metadata["question_type"] not in types:
        yield "question-type-unknown", f"{metadata['question_type']!r} is none of {sorted(types)}"
    if task.kind == "ground":
        boxes = record["box"] if task.name == "multi3drefer" else [record["box"]]
        yield from _box_faults(boxes)
    elif task.kind == "describe":
        yield from _box_faults([record["gt_box"], *([record["box_input"]] if record["box_input"] is not None else [])])


def _box_faults(boxes: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(boxes, list):
        yield "box-null" if boxes is None else "box-bad", f"the boxes are {boxes!r}"
        return
    for box in boxes:
        if box is None:
            yield "box-null", "a box is null"
            continue
        try:
            checked_box(box, "box")
        except ValueError as error:
            yield "box-bad", str(error)


def _vsi_faults(record: dict) -> Iterator[tuple[str, str]]:
    kinds = {"question": str, "question_type": str} | dict.fromkeys(("dataset", "scene_name"), str | int)
    kinds |= {"id": str | int, "ground_truth": str | int | float, "options": list | None}
    missing = [name for name, kind in kinds.items() if not isinstance(record.get(name), kind)]
    if "options" not in missing and not all(isinstance(option, str) for option in record.get("options") or []):
        missing.append("options")
    if missing:
        yield "field-missing", f"it lacks {', '.join(missing)}, or has another type there"
        return
    if not record["question"].strip():
        yield "question-empty", "nothing is asked"
    kind, truth, options = record["question_type"], str(record["ground_truth"]), record.get("options") or []
    if kind in VSI_CHOICES:
        letters = [option.partition(".")[0].strip() for option in options]
        if truth not in letters:
            yield "choice-bad", f"the truth is {truth!r}, the options are {letters}"
    elif kind in VSI_NUMBERS:
        try:
            number = float(truth)
        except ValueError:
            yield "choice-bad", f"the truth is {truth!r}, which is no number"
        else:
            if number == 0:
                yield "truth-zero", "the truth is 0"
    else:
        yield "question-type-unknown", f"{kind!r} is none of {sorted(VSI_CHOICES | VSI_NUMBERS)}"


def check_boxes(layout: Layout, task: Task, split: str, source: str, records: list[dict]) -> list[Finding]:
    """Return findings on the candidate boxes of a grounding task and its samples."""
    path = layout.boxes(split, source)

    def finding(kind: str, detail: str, scene_id: str | None = None) -> Finding:
        return Finding(kind, str(path), detail, scene_id, task.name, split)

    if not path.is_file():
        return [finding("boxes-missing", "it does not exist")]
    try:
        boxes = read_boxes(path)
    except ValueError as error:
        return _loose_box_findings(path, finding, error)
    findings = []
    for scene_id in dict.fromkeys(record["video"] for record in records):
        if scene_id not in boxes:
            findings.append(finding("boxes-scene-missing", f"{scene_id} is not in it", scene_id))
        elif not boxes[scene_id]:
            findings.append(finding("boxes-none", f"{scene_id} has no boxes", scene_id))
    if source == "gt":
        findings += [finding(*fault) for record in records for fault in _identity_faults(task, record, boxes)]
    return findings


def _loose_box_findings(path: Path, finding, error: ValueError) -> list[Finding]:
    """Return findings on the single boxes of a file that `read_boxes` refuses."""
    try:
        scenes = read_json(path)
    except ValueError:
        scenes = None
    if not isinstance(scenes, dict) or not all(isinstance(boxes, list) for boxes in scenes.values()):
        return [finding("boxes-broken", str(error))]
    return [
        finding(kind, f"{scene_id}: {text}", scene_id)
        for scene_id, boxes in scenes.items()
        for kind, text in _box_faults(boxes)
    ]


def _identity_faults(task: Task, record: dict, boxes: dict[str, list]) -> Iterator[tuple[str, str]]:
    """Yield faults of a train sample whose object ids do not lead to its boxes."""
    candidates, ids = boxes.get(record["video"], []), object_ids(record["metadata"])
    truth = record["box"] if task.name == "multi3drefer" else [record["box"]]
    if not candidates or truth is None:
        return
    for number, box in zip(ids, truth, strict=False):
        if not 0 <= number < len(candidates):
            yield "object-id-unknown", f"sample {record['id']}: object {number} of {len(candidates)} boxes"
        elif box is not None and len(box) == 6 and np.abs(np.subtract(box, candidates[number])).max() > _SAME_BOX:
            yield "object-box-differs", f"sample {record['id']}: its box is not that of object {number}"
