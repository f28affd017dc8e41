"""Rendered rooms that come along, made when they are first asked for."""

from pathlib import Path

from processing.rooms.generate import make_room
from processing.rooms.questions.wording import object_phrase

__all__ = ["ROOM_NAMES", "render_room"]

# Test rooms, which the shipped model has not seen, of the lens and walk that it knows.
ROOM_NAMES = ("Room 1", "Room 2", "Room 3")
IMAGE_SIZE = 256  # pixels; the shipped model sees 64, people more
NUM_FRAMES = 8


def render_room(name: str, folder: Path) -> tuple[Path, str]:
    """Return a folder of pictures of a room, and what stands in it.

    Args:
        name: One of `ROOM_NAMES`.
        folder: Folder that keeps the rooms.

    Raises:
        ValueError: If there is no such room.
    """
    if name not in ROOM_NAMES:
        raise ValueError(f"There are the rooms {', '.join(ROOM_NAMES)}, got {name!r}.")
    target = Path(folder) / name
    words = target.with_suffix(".txt")
    if not words.is_file():
        _, row = make_room("test", 0, ROOM_NAMES.index(name), IMAGE_SIZE, NUM_FRAMES)
        target.mkdir(parents=True, exist_ok=True)
        for index, frame in enumerate(row["frames"]):
            (target / f"{index}.png").write_bytes(frame["bytes"])
        named = [object_phrase(row["objects"], thing) for thing in row["objects"]]
        words.write_text(", ".join(filter(None, named)), encoding="utf-8")
    return target, words.read_text(encoding="utf-8")
