"""`load_task`: samples of a benchmark as a `datasets.Dataset`."""

import json
import logging
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet
from datasets import Features, List, Value

from processing.argument_rules import check_text, check_texts
from processing.benchmarks.prompts import SOURCE_TEMPLATES, question_of
from processing.benchmarks.readers.files import checked_box, read_boxes
from processing.benchmarks.readers.records import NOTES, object_ids, sample_faults, sample_name, video_scene
from processing.benchmarks.readers.requirements import check_box_source, requirements_for
from processing.benchmarks.readers.scenes import FrameLists
from processing.benchmarks.readers.tasks import NO_BOXES, SPATIAL_TASKS, Layout, Task, find_task
from processing.limits import check_bound, check_file, load_json, parse_json

__all__ = ["FEATURES", "load_task", "read_records"]

logger = logging.getLogger(__name__)

_PARQUET = b"PAR1"  # first bytes; the library reads from the end
_ROWS = 256  # of a parquet file that are read at a time
_TYPE_UNKNOWN = "question-type-unknown"
_BOX = List(Value("float64"))

FEATURES = Features(
    {
        "id": Value("string"),
        "task": Value("string"),
        "scene_id": Value("string"),
        "question": Value("string"),
        "options": List(Value("string")),
        "answers": List(Value("string")),
        "question_type": Value("string"),
        "candidate_boxes": List(_BOX),
        "gt_boxes": List(_BOX),
        "object_ids": List(Value("int32")),
        "input_box": _BOX,
        "frame_names": List(Value("string")),
        "source_text": Value("string"),
        "metadata": Value("string"),
    }
)


def load_task(
    task: str,
    split: str,
    data_dir: str | Path,
    *,
    boxes: str | None = None,
    frames: str = "uniform",
    num_frames: int = 32,
    coverage: float | None = None,
    scenes: Collection[str] | None = None,
    mode: str | None = None,
) -> datasets.Dataset:
    """Load the samples of a benchmark in the order of its file, without opening pictures.

    Args:
        task: Key of `TASKS`.
        split: Name of one of its splits.
        data_dir: Folder in the public layout, see `Layout`.
        boxes: Candidates of grounding, "gt" (annotated instances), "pred" (Mask3D proposals), or "none"; None is the
            original's choice, "gt" in training and "pred" otherwise.
        frames: Rule for the frames that are shown: "uniform" over the pictures in the scene's folder, "listed" uniform
            over EmbodiedScan's image list (the original's rule), "coverage" by maximum coverage.
        num_frames: Largest number of frames.
        coverage: Share of the scene's voxels in (0, 1] that is enough with frames="coverage", such as 0.9; None takes
            all frames.
        scenes: Scene ids whose samples are kept; None keeps all.
        mode: "rgb_only" reads no box and no id of an object: their columns are empty, `metadata` lacks the id, and
            `source_text`, which spells the centre of a box in Scan2Cap, is empty for tasks with boxes. None is the
            task's default, see `requirements_for`.

    Returns:
        Dataset with the columns of `FEATURES`, which the package's docstring explains.

    Raises:
        FileNotFoundError: A file or folder that this task needs does not exist; the message names it.
        TypeError: An argument of another kind.
        ValueError: An unknown name, or a file whose contents are not as expected; the message names file and sample.
    """
    spec = find_task(task, check_text(split, "split"))
    source = check_box_source(boxes, split)
    reads_boxes = requirements_for(task, mode, split=split, frames=frames).reads_boxes
    if boxes is not None and spec.kind == "ground" and not reads_boxes:
        raise ValueError(f"`boxes` are candidates of mode='proposals', got {boxes!r} with mode={mode!r}.")
    wanted = None if scenes is None else check_texts(scenes, "scenes")
    layout = Layout(data_dir)
    lists = FrameLists(layout, frames, num_frames, coverage)
    path, records = read_records(layout, spec, split)
    passed = NOTES if split != "train" else {*NOTES, _TYPE_UNKNOWN}  # Only scores are split by types.
    rows = [_row(spec, split, record, passed, path, number, reads_boxes) for number, record in enumerate(records)]
    if task == "vsibench":
        _put_scenes(rows, layout)
    if wanted is not None:
        rows = _of_scenes(rows, wanted, path)
    if not rows:
        raise ValueError(f"Expected at least one sample, {path} has none.")
    if split == "train":
        _tell_unknown_types(spec, records, path, reads_boxes)
    if twice := [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]:
        told = f"{path} has {len(twice)} ids twice, such as {twice[:3]}"
        if split != "train":
            raise ValueError(f"{told}. Scores would be wrong: remove these samples.")
        logger.warning("%s. Training takes both: remove one if they are the same sample.", told)
    if spec.kind == "ground" and reads_boxes and source != NO_BOXES:
        _put_candidates(rows, layout, split, source)
    _put_frames(rows, lists)
    return datasets.Dataset.from_list(rows, features=FEATURES, split=datasets.NamedSplit(split))


def read_records(layout: Layout, task: Task, split: str) -> tuple[Path, list[dict]]:
    """Return the annotation file of a task and its records as they stand there.

    Raises:
        FileNotFoundError: None of the files that may hold them exists.
        ValueError: The file is not a list of objects.
    """
    candidates = layout.annotations(task, split)
    path = next((candidate for candidate in candidates if os.path.lexists(candidate)), None)
    if path is None:
        raise FileNotFoundError(f"{task.name} {split} needs {' or '.join(map(str, candidates))}, none exists.")
    if path.suffix == ".parquet":
        return path, _read_parquet(path)
    if path.suffix == ".jsonl":
        check_file(path, "IDE3D_MAX_JSON_BYTES")
        lines = path.read_bytes().splitlines()
        records = [parse_json(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    else:
        records = load_json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{path} must be a list of samples, each an object. Make it again.")
    return path, records


def _read_parquet(path: Path) -> list[dict]:
    """Return the rows of a parquet file, whose declared and real sizes are bounded."""
    check_file(path)
    records: list[dict] = []
    with path.open("rb") as stream:
        start = stream.read(len(_PARQUET))
    if start != _PARQUET:
        raise ValueError(f"{path} is not a complete parquet file, copy it again: it begins with {start!r}.")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            facts = file.metadata
            declared = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
            check_bound(max(declared, facts.num_rows), "IDE3D_MAX_UNPACKED_BYTES", f"{path}, unpacked,")
            size = 0
            for batch in file.iter_batches(batch_size=_ROWS):  # A short dictionary may stand for long columns.
                size += batch.nbytes
                check_bound(size, "IDE3D_MAX_UNPACKED_BYTES", f"{path}, unpacked,")
                records += batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a complete parquet file, copy it again: {error}.") from error
    return records


def _row(
    task: Task, split: str, record: dict, passed: Collection[str], path: Path, number: int, reads_boxes: bool
) -> dict[str, Any]:
    where = f"{path}, sample {sample_name(record, number)}"
    faults = sample_faults(task, record, reads_boxes=reads_boxes)
    fault = next((text for kind, text in faults if kind not in passed), None)
    if fault is not None:
        raise ValueError(f"{where}: {fault.rstrip('.')}. Correct or remove it; `ide3d doctor` lists all such samples.")
    try:
        if task.name in SPATIAL_TASKS:
            return _spatial_row(task, split, record)
        return _llava_row(task, record, reads_boxes)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{where}: a field is missing or of another type than expected: {error}. Make it again."
        ) from error


def _spatial_row(task: Task, split: str, record: dict) -> dict[str, Any]:
    known = ("id", "dataset", "scene_name", "scene_id", "question_type", "question", "ground_truth", "options")
    return {
        "id": str(record["id"]),
        "task": task.name,
        "scene_id": video_scene(task, record, split),
        "question": record["question"],
        "options": record.get("options") or [],
        "answers": [str(record["ground_truth"])],
        "question_type": record["question_type"],
        **_no_boxes(),
        "source_text": "",
        "metadata": json.dumps({key: value for key, value in record.items() if key not in known}),
    }


def _llava_row(task: Task, record: dict, reads_boxes: bool) -> dict[str, Any]:
    metadata, turns = record["metadata"], {turn["from"]: turn["value"] for turn in record["conversations"]}
    row = {
        "id": str(record["id"]),
        "task": task.name,
        "scene_id": record["video"],
        "question": turns["human"],
        "options": [],
        "answers": [],
        "question_type": metadata["question_type"],
        **_no_boxes(),
        "source_text": turns["human"],
        "metadata": json.dumps(metadata),
    }
    if task.name in SOURCE_TEMPLATES:
        row["question"] = question_of(task.name, turns["human"])
    if task.kind == "describe":
        row["answers"] = record.get("annotations", [turns["gpt"]])
    elif task.kind == "answer":
        row["answers"] = metadata.get("answers", [turns["gpt"]])
    if not reads_boxes:
        facts = json.dumps({key: value for key, value in metadata.items() if key != "object_id"})
        return row if task.kind == "answer" else {**row, "source_text": "", "metadata": facts}
    if task.kind == "ground":
        row["object_ids"] = object_ids(metadata)
        boxes = record["box"] if task.name == "multi3drefer" else [record["box"]]
        row["gt_boxes"] = [checked_box(box, f"box {index}") for index, box in enumerate(boxes)]
    elif task.kind == "describe":
        row["object_ids"] = object_ids(metadata) if "object_id" in metadata else []
        row["gt_boxes"] = [checked_box(record["gt_box"], "gt_box")]
        row["input_box"] = [] if record["box_input"] is None else checked_box(record["box_input"], "box_input")
    return row


def _tell_unknown_types(task: Task, records: list[dict], path: Path, reads_boxes: bool) -> None:
    """Warn of question types that training does not look at."""
    faults = [kind for record in records for kind, _ in sample_faults(task, record, reads_boxes=reads_boxes)]
    found = faults.count(_TYPE_UNKNOWN)
    if found:
        logger.warning("%s: the question types of %d samples are unknown. Training does not need them.", path, found)


def _of_scenes(rows: list[dict], wanted: tuple[str, ...], path: Path) -> list[dict]:
    """Return the rows about the scenes that are wanted."""
    chosen = set(wanted)
    rows = [row for row in rows if row["scene_id"] in chosen]
    absent = sorted(chosen - {row["scene_id"] for row in rows})
    if not rows:
        raise ValueError(f"Expected at least one sample of the scenes in `scenes`, {absent[:5]}, {path} has none.")
    if absent:
        logger.warning("%s has no sample of %d of the `scenes`, such as %s.", path, len(absent), absent[:3])
    return rows


def _no_boxes() -> dict[str, list]:
    return {"candidate_boxes": [], "gt_boxes": [], "object_ids": [], "input_box": []}


def _put_frames(rows: list[dict], lists: FrameLists) -> None:
    names: dict[str, list[str]] = {}
    absent: list[str] = []
    for scene_id in dict.fromkeys(row["scene_id"] for row in rows):
        try:
            names[scene_id] = lists.names(scene_id)
        except FileNotFoundError as error:
            absent.append(str(error))
    if absent:
        more = f" {len(absent) - 1} more scenes fail too; `ide3d doctor` lists them." if absent[1:] else ""
        raise FileNotFoundError(absent[0] + more)
    for row in rows:
        row["frame_names"] = names[row["scene_id"]]


def _put_scenes(rows: list[dict], layout: Layout) -> None:
    """Name the frames of a scene instead of its video file where only they exist."""
    for row in rows:
        if not layout.video(row["scene_id"]).is_file():
            folder = row["scene_id"].removeprefix("vsibench/")
            row["scene_id"] = folder if layout.frames(folder).is_dir() else row["scene_id"]


def _put_candidates(rows: list[dict], layout: Layout, split: str, source: str) -> None:
    path = layout.boxes(split, source)
    if not os.path.lexists(path):
        raise FileNotFoundError(f"The candidates of grounding need {path}, which does not exist.")
    boxes = read_boxes(path)
    absent = sorted({row["scene_id"] for row in rows} - set(boxes))
    if absent:
        raise ValueError(f"{path} has no boxes for {len(absent)} scenes that are asked about, such as {absent[:3]}.")
    for row in rows:
        row["candidate_boxes"] = boxes[row["scene_id"]]
        count = len(row["candidate_boxes"])
        if source == "gt" and any(not 0 <= n < count for n in row["object_ids"]):
            raise ValueError(
                f"{path}: {row['scene_id']} has {count} boxes, but sample {row['id']} is about the objects "
                f"{row['object_ids']}. Boxes and annotations are of different versions: take both of one."
            )
