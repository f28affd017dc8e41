"""A room that the shipped nano model knows how to look at: its video, its pictures and the ids of its objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from exporting import write_frames
from tiny_recipes import rooms_are_kept, rooms_folder, tiny_recipe

from processing.rooms import load_rooms

__all__ = ["rooms_are_kept", "rooms_folder", "tiny_recipe"]  # fixtures


@dataclass(frozen=True)
class RoomFiles:
    """Files of a room of four frames."""

    video: Path
    frames: Path
    ids: Path
    objects: Sequence[dict]


@pytest.fixture(scope="session")
def room(tmp_path_factory) -> RoomFiles:
    folder = tmp_path_factory.mktemp("room")
    (row,) = load_rooms("test", 1, image_size=64, num_frames=4, cache_dir=str(folder / "cache"))
    (folder / "frames").mkdir()
    for index, frame in enumerate(row["frames"]):
        frame.save(folder / "frames" / f"{index}.png")
    frames = np.stack([np.asarray(frame) for frame in row["frames"]])
    write_frames(folder / "room.mp4", frames.repeat(4, 1).repeat(4, 2))
    np.save(folder / "ids.npy", np.stack([np.asarray(ids) for ids in row["instance_ids"]]))
    return RoomFiles(folder / "room.mp4", folder / "frames", folder / "ids.npy", row["objects"])
