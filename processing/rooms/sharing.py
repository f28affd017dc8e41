"""Rooms as a folder of parquet files with a dataset card, as the Hub and `datasets.load_dataset` read it."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Features, Image, List, Value
from huggingface_hub import DatasetCard, DatasetCardData
from PIL import Image as PILImage

from processing.argument_rules import as_path
from processing.rooms.dataset import FEATURES, load_rooms
from processing.rooms.generate import SPLITS
from processing.rooms.scene.styles import PLAIN
from processing.writing import whole_folder, write_text

__all__ = ["QUESTION_FEATURES", "export_room_dataset", "is_room_dataset"]

TAG = "ide3d-rooms"
ROOMS, QUESTIONS = "rooms", "questions"  # the two tables
MILLIMETRES, FARTHEST = 1000, 2**16 - 1
ROWS_PER_FILE = 1000

QUESTION_FEATURES = Features(
    {
        "scene_id": Value("string"),
        "first_frame": Image(),
        "type": Value("string"),
        "reference": Value("string"),
        "question": Value("string"),
        "answer": Value("string"),
        "value": List(Value("float32")),
        "region_objects": List(Value("int32")),
        "target_objects": List(Value("int32")),
    }
)

TEXT = """
# Procedural rooms with posed RGB-D video and questions

{rooms} furnished rooms, rendered: {frames} frames of {size} x {size} pixels each, with exact depth, cameras, instances
and questions whose answers follow from the geometry. Style `{style}`, seed {seed}. Made by the command

```bash
{command}
```

```python
from datasets import load_dataset

rooms = load_dataset({place}, "rooms", split="{split}")
questions = load_dataset({place}, "questions", split="{split}")
```

## Tables

`rooms` has one row for each room:

| Column | Content |
|---|---|
| `scene_id` | names style, split, seed and index |
| `frames` | RGB images in the order of time |
| `depth` | 16-bit images, z-depth in millimetres |
| `instance_ids` | 8-bit images; 0 is what belongs to the room itself |
| `intrinsics` | (frames, 3, 3), pixels; pixel centres are whole numbers |
| `camera_to_world` | (frames, 4, 4), metres; camera x right, y down, z forward; world z up, floor at 0 |
| `objects` | id, category, colour, axis-aligned box (cx, cy, cz, dx, dy, dz) in metres, feature, place, support |
| `questions` | the questions about the room, as below |

`questions` has one row for each question, to look through and to search:

| Column | Content |
|---|---|
| `first_frame` | first frame of the room |
| `type`, `reference` | kind of question; whether it names objects ("word") or points at them ("region") |
| `question`, `answer` | `<ground>` in a question stands for a region |
| `value` | numbers behind a metric answer, metres |
| `region_objects` | objects that the `<ground>` of a question stand for, in order |
| `target_objects` | objects that a request means |

Distances are from the first camera to the centre of an object's box. Positions are that centre in the first camera's
frame, metres.

## Limits

The rooms are generated, and simple: what a model scores on them says nothing about real rooms. Depth is rounded to
millimetres.
"""


def export_room_dataset(
    target: str | Path,
    *,
    num_scenes: int = 100,
    style: str = PLAIN.name,
    seed: int = 0,
    image_size: int = 126,
    num_frames: int = 8,
    num_proc: int | None = None,
    repo_id: str | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Write rooms of all splits as parquet files with a dataset card.

    `datasets.load_dataset(target, "rooms")` reads them, `"questions"` a table with one row for each question.

    Args:
        target: Folder to make. Only an earlier folder of this function is replaced.
        num_scenes: Number of rooms of each split.
        style: See `load_rooms`, as `seed`, `image_size`, `num_frames`, `num_proc` and `cache_dir`.
        seed: Seed of the family of rooms.
        image_size: Height and width of frames in pixels.
        num_frames: Frames per room.
        num_proc: Processes that render.
        repo_id: Name on the Hub that the card loads. Default: the folder.
        cache_dir: Folder where `datasets` keeps the rooms.

    Returns:
        Path of the folder.

    Raises:
        FileExistsError: If the target holds something else.
        ValueError: If `load_rooms` refuses an argument.
        TypeError: If `load_rooms` refuses an argument.
    """
    target = as_path(target, "target")
    shape = {"style": style, "seed": seed, "image_size": image_size, "num_frames": num_frames}
    with whole_folder(target, is_room_dataset, refusal="is not an earlier set of rooms") as unfinished:
        for split in SPLITS:
            rooms = load_rooms(split, num_scenes, **shape, num_proc=num_proc, cache_dir=cache_dir)
            stored = rooms.with_format("arrow")  # images as the bytes that are stored
            for number, start in enumerate(range(0, num_scenes, ROWS_PER_FILE)):
                part = stored[start : start + ROWS_PER_FILE].to_pylist()
                file = f"{split}-{number:05d}.parquet"
                _write(unfinished / ROOMS / file, [_shared_row(row) for row in part], FEATURES)
                _write(unfinished / QUESTIONS / file, list(_question_rows(part)), QUESTION_FEATURES)
        write_text(unfinished / "README.md", _card(target, repo_id, num_scenes, shape))
    return target


def is_room_dataset(folder: Path) -> bool:
    """Return whether a folder is one that `export_room_dataset` wrote, and nothing else."""
    card = folder / "README.md"
    if {path.name for path in folder.iterdir()} != {ROOMS, QUESTIONS, card.name} or not card.is_file():
        return False
    try:
        return TAG in (DatasetCard.load(card).data.tags or [])
    except ValueError:  # no metadata
        return False


def _shared_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with depth in millimetres, which any viewer of pictures opens."""
    return {**row, "depth": [_as_millimetres(image["bytes"]) for image in row["depth"]]}


def _as_millimetres(stored: bytes) -> dict[str, Any]:
    """Return the 16-bit PNG of a float32 image in metres."""
    metres = np.asarray(PILImage.open(io.BytesIO(stored)))
    millimetres = np.clip(np.rint(metres * MILLIMETRES), 1, FARTHEST).astype(np.uint16)  # 0 would be no measurement
    buffer = io.BytesIO()
    PILImage.fromarray(millimetres).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def _question_rows(rooms: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield each question of the rooms with the first frame of its room."""
    for row in rooms:
        for question in row["questions"]:
            known = {key: question[key] for key in QUESTION_FEATURES if key in question}
            yield {"scene_id": row["scene_id"], "first_frame": row["frames"][0], **known}


def _write(file: Path, rows: list[dict[str, Any]], features: Features) -> None:
    """Write rows as a parquet file."""
    file.parent.mkdir(exist_ok=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(file)


def _card(target: Path, repo_id: str | None, num_scenes: int, shape: dict[str, Any]) -> str:
    """Return the dataset card, with the metadata that the Hub's viewer reads."""
    tables = [
        {
            "config_name": table,
            "data_files": [{"split": split, "path": f"{table}/{split}-*.parquet"} for split in SPLITS],
            **({"default": True} if table == ROOMS else {}),
        }
        for table in (ROOMS, QUESTIONS)
    ]
    data = DatasetCardData(
        pretty_name="Procedural rooms with posed RGB-D video and questions",
        license="apache-2.0",
        language="en",
        annotations_creators="machine-generated",
        task_categories=["visual-question-answering", "video-text-to-text"],
        tags=[TAG, "3d", "indoor", "depth", "synthetic"],
        configs=tables,
    )
    style, seed, size, frames = (shape[key] for key in ("style", "seed", "image_size", "num_frames"))
    command = (
        f"ide3d rooms share FOLDER --num-scenes {num_scenes} --style {style} --seed {seed} --image-size {size} "
        f"--num-frames {frames}"
    )
    text = TEXT.format(
        rooms=num_scenes * len(SPLITS),
        frames=frames,
        size=size,
        style=style,
        seed=seed,
        command=command,
        split=SPLITS[0],
        place=json.dumps(repo_id or str(target)),
    )
    return f"---\n{data.to_yaml()}\n---\n{text}"
