"""Checks of the doctor on samples and boxes. Nothing raises; what is wrong becomes a `Finding`."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from processing.benchmarks.doctor.findings import Finding
from processing.benchmarks.readers.annotations import read_records
from processing.benchmarks.readers.files import read_boxes
from processing.benchmarks.readers.records import box_faults, object_ids, sample_faults, sample_name
from processing.benchmarks.readers.tasks import Layout, Task
from processing.limits import load_json

__all__ = ["check_boxes", "check_samples"]

_UNUSABLE = ("field-missing", "scene-id-bad")  # Faults of samples that are not looked at any further.
_SAME_BOX = 0.01  # Metres; files round to a millimetre or two.


def check_samples(
    layout: Layout, task: Task, split: str, reads_boxes: bool = True
) -> tuple[list[Finding], list[dict] | None]:
    """Return findings on the annotation file of a task, and its records or None.

    Args:
        layout: Paths of the benchmark folder.
        task: Benchmark.
        split: Name of the split.
        reads_boxes: Whether the boxes of the samples are judged.
    """

    def finding(kind: str, path: Path, detail: str) -> Finding:
        return Finding(kind, str(path), detail, task=task.name, split=split)

    try:
        path, records = read_records(layout, task, split)
    except FileNotFoundError:
        return [finding("annotations-missing", layout.annotations(task, split)[0], "it does not exist")], None
    except (OSError, ValueError) as error:
        path = next(path for path in layout.annotations(task, split) if os.path.lexists(path))
        return [finding("annotations-broken", path, str(error))], None
    if not records:
        return [finding("annotations-empty", path, "it holds no sample")], None
    findings, good = [], []
    for number, record in enumerate(records):
        faults = list(sample_faults(task, record, reads_boxes=reads_boxes))
        findings += [finding(kind, path, f"sample {sample_name(record, number)}: {text}") for kind, text in faults]
        if not any(kind in _UNUSABLE for kind, _ in faults):
            good.append(record)
    twice = [name for name, count in Counter(str(record["id"]) for record in good).items() if count > 1]
    kind = "train-id-twice" if split == "train" else "id-twice"
    findings += [finding(kind, path, f"id {name[:200]}") for name in twice]
    if task.name == "scan2cap" and reads_boxes and good and all(record["box_input"] is None for record in good):
        findings.append(finding("input-boxes-null", path, f"box_input is null in all {len(good)} samples"))
    return findings, good


def check_boxes(layout: Layout, task: Task, split: str, source: str, records: list[dict]) -> list[Finding]:
    """Return findings on the candidate boxes of a grounding task and its samples."""
    path = layout.boxes(split, source)

    def finding(kind: str, detail: str, scene_id: str | None = None) -> Finding:
        return Finding(kind, str(path), detail, scene_id, task.name, split)

    if not os.path.lexists(path):
        return [finding("boxes-missing", "it does not exist")]
    try:
        boxes = read_boxes(path)
    except (OSError, ValueError) as error:
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


def _loose_box_findings(path: Path, finding, error: Exception) -> list[Finding]:
    """Return findings on the single boxes of a file that `read_boxes` refuses."""
    try:
        scenes = load_json(path)
    except (OSError, ValueError):
        scenes = None
    if not isinstance(scenes, dict) or not all(isinstance(boxes, list) for boxes in scenes.values()):
        return [finding("boxes-broken", str(error))]
    found = [
        finding(kind, f"{scene_id}: {text}", scene_id)
        for scene_id, boxes in scenes.items()
        for kind, text in box_faults(boxes)
    ]
    return found or [finding("boxes-broken", str(error))]


def _identity_faults(task: Task, record: dict, boxes: dict[str, list]) -> Iterator[tuple[str, str]]:
    """Yield faults of a train sample whose object ids do not lead to its boxes."""
    candidates, ids = boxes.get(record["video"], []), object_ids(record["metadata"])
    truth = record["box"] if task.name == "multi3drefer" else [record["box"]]
    if not candidates or not isinstance(truth, list):
        return
    for number, box in zip(ids, truth, strict=False):
        if not 0 <= number < len(candidates):
            yield "object-id-unknown", f"sample {record['id']}: object {number} of {len(candidates)} boxes"
        elif not list(box_faults([box])) and np.abs(np.subtract(box, candidates[number])).max() > _SAME_BOX:
            yield "object-box-differs", f"sample {record['id']}: its box is not that of object {number}"
