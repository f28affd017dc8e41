"""Files of chats in both dialects, with small media: a video, folders of frames, a scan with geometry, pictures."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from exporting import write_video
from PIL import Image

from processing.rooms.generate import make_room

SIZE, VIEWS = 28, 3


def ask(question: str, answer: str = "It is near.") -> list[dict[str, str]]:
    """A chat in LLaVA's dialect."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def say(question: Any, answer: str = "It is near.") -> list[dict[str, Any]]:
    """A chat in the dialect of `messages`."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def write_picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_scan(folder: Path, index: int = 0) -> Path:
    """A rendered room in the posed_images layout: NNNNN.jpg, .png and .txt."""
    room = make_room("train", 0, index, SIZE, VIEWS)[1]
    folder.mkdir(parents=True)
    for number in range(VIEWS):
        (folder / f"{number:05}.jpg").write_bytes(_as_jpeg(room["frames"][number]["bytes"]))
        metres = np.asarray(_open(room["depth"][number]["bytes"]), dtype=np.float32)
        Image.fromarray((metres * 1000).astype(np.uint16)).save(folder / f"{number:05}.png")
        np.savetxt(folder / f"{number:05}.txt", np.asarray(room["camera_to_world"][number]))
    np.savetxt(folder / "intrinsic.txt", np.asarray(room["intrinsics"]).reshape(-1, 3, 3)[0])
    return folder


def write_media(folder: Path) -> Path:
    """`room.mp4`, `frames/` of pictures, `scan/` with geometry, `a.png` and `b.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_video(folder / "room.mp4")
    for number in range(VIEWS):
        write_picture(folder / "frames" / f"frame_{number}.png", number)
    write_scan(folder / "scan")
    for seed, name in enumerate(("a.png", "b.png")):
        write_picture(folder / name, 10 + seed)
    return folder


def mixed_rows() -> list[dict[str, Any]]:
    """A chat of each kind of media and dialect; the media are those of `write_media`."""
    parts = [{"type": "video", "path": "scan"}, {"type": "text", "text": "Where is the ball?"}]
    return [
        {"id": 1, "video": "room.mp4", "conversations": ask("<image>\nWhere is the ball?", "It is far.")},
        {"id": "two", "messages": say(parts)},
        {"image": ["a.png", "b.png"], "conversations": ask("<image><image>Which is near?", "The first.")},
        {"videos": ["frames"], "messages": say("<video>\nWhat is it?", "A ball.")},
        {"messages": say("Name it.", "The ball.")},
        {"video": [f"frames/frame_{number}.png" for number in range(2)], "messages": say("<video>Name it.")},
    ]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Rows as JSON lines, an indented JSON list, or parquet, by the ending of the path."""
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(list(rows), indent=1))
    else:
        keys = {key for row in rows for key in row}
        columns = {key: [row.get(key) for row in rows] for key in sorted(keys)}
        pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def _open(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def _as_jpeg(content: bytes) -> bytes:
    stream = io.BytesIO()
    _open(content).convert("RGB").save(stream, "JPEG", quality=95)
    return stream.getvalue()
