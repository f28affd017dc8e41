"""Store rooms as arrays that all runs map, so that a run renders nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from processing.rooms import load_rooms
from processing.rooms.samples import cell_objects
from processing.rooms.scene.furniture import FLOOR_PIECES
from processing.rooms.scene.palette import COLOURS
from processing.rooms.scene.small_things import CEILING_PIECES, TOP_PIECES, WALL_PIECES
from processing.token_grid import TokenGrid
from processing.writing import write_json

from ..storage import load_json
from .files import ADVICE
from .pseudo import distort_geometry

__all__ = ["COLOUR_WORDS", "COLUMN_WORDS", "KIND_WORDS", "ROW_WORDS", "RoomArrays", "decode_room", "store_rooms"]

ARRAYS = ("frames", "depth", "intrinsics", "camera_to_world", "colours", "kinds")
# One letter each, so that no word means two things: columns from left to right, rows from top to bottom.
COLUMN_WORDS, ROW_WORDS = "abcdefghij", "klmnopqrst"
COLOUR_WORDS = list(COLOURS)
KIND_WORDS = sorted({*FLOOR_PIECES, *TOP_PIECES, *WALL_PIECES, *CEILING_PIECES})
VIDEO_CHAT = [{"role": "user", "content": [{"type": "video"}]}]
NUM_SCALED_BY = 64  # rooms whose depth and brightness set the scale of the grey target
LEAST_DEPTH = 0.05  # metres; 0 would mean "no measurement"


def store_rooms(folder: Path, split: str, num_rooms: int, grid: TokenGrid, num_frames: int) -> Path:
    """Write the rooms of a split as arrays and return their folder.

    They are complete or not there.

    Args:
        folder: Folder of all such arrays; the rooms get a folder of the split's name in it.
        split: Split of `load_rooms`.
        num_rooms: Number of rooms.
        grid: Token grid of the model; frames have the size of its vision input.
        num_frames: Number of frames of a room.

    Raises:
        ValueError: If the folder holds other rooms.
    """
    rooms = load_rooms(split, num_rooms, image_size=grid.image_size[0], num_frames=num_frames)
    target, source = folder / split, f"{rooms._fingerprint} {grid}"
    if (target / "names.json").is_file():
        if load_json(target / "names.json", ADVICE)["source"] != source:
            raise ValueError(f"{target} holds other rooms than the study asks for: remove it, or change `output_dir`.")
        return target
    target.mkdir(parents=True, exist_ok=True)
    size, shape = (num_rooms, num_frames), grid.image_size
    shapes = {
        "frames": ((*size, *shape, 3), np.uint8),
        "depth": ((*size, *shape), np.float32),
        "intrinsics": ((*size, 3, 3), np.float32),
        "camera_to_world": ((*size, 4, 4), np.float32),
        "colours": ((*size, *grid.shape), np.int8),
        "kinds": ((*size, *grid.shape), np.int8),
    }
    arrays = {
        key: np.lib.format.open_memmap(target / f"{key}.npy", "w+", dtype, full)
        for key, (full, dtype) in shapes.items()
    }
    scenes = []
    for index, room in enumerate(tqdm(rooms, desc=f"Rooms of {split}", unit="room")):
        for key in ("frames", "depth"):
            arrays[key][index] = np.stack([np.asarray(image) for image in room[key]])
        for key in ("intrinsics", "camera_to_world"):
            arrays[key][index] = room[key]
        shown = cell_objects(room, grid)
        for key, words, names in (("colours", COLOUR_WORDS, "colour"), ("kinds", KIND_WORDS, "category")):
            arrays[key][index] = np.array([*(words.index(thing[names]) for thing in room["objects"]), -1])[shown]
        scenes.append(room["scene_id"])
    for array in arrays.values():
        array.flush()
    write_json(target / "names.json", {"source": source, "names": scenes})  # last: it says that the rest is whole
    return target


class RoomArrays(Sequence[dict]):
    """Rooms that `store_rooms` wrote, as samples without questions.

    Nothing is read before it is asked for.

    Args:
        folder: Folder of the rooms.
        target: Content of `depth`: "depth" in metres, or "grey", the brightness of each pixel. Brightness is brought
            to mean and spread of the depth, so that a loss of the same size regresses it.
        is_pseudo: Whether depth and poses are those of `distort_geometry`, the same at every visit.

    Raises:
        ValueError: If the target is unknown.
    """

    def __init__(self, folder: Path, target: str = "depth", is_pseudo: bool = False):
        if target not in ("depth", "grey"):
            raise ValueError(f"`target` must be depth or grey, got {target!r}.")
        self.names: list[str] = load_json(folder / "names.json", ADVICE)["names"]
        self.arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in ARRAYS}
        self.target, self.scale, self.is_pseudo = target, (0.0, 0.0), is_pseudo
        if target == "grey":
            grey = to_grey(self.arrays["frames"][:NUM_SCALED_BY])
            depth = self.arrays["depth"][:NUM_SCALED_BY]
            slope = float(depth.std() / grey.std())
            self.scale = (slope, float(depth.mean() - slope * grey.mean()))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        room = {key: np.array(self.arrays[key][index]) for key in ARRAYS[:4]}
        if self.target == "grey":
            slope, offset = self.scale
            room["depth"] = np.clip(slope * to_grey(room["frames"]) + offset, LEAST_DEPTH, None).astype(np.float32)
        if self.is_pseudo:
            room |= distort_geometry(room["depth"], room["camera_to_world"], index)
        return {"scene_id": self.names[index], "messages": VIDEO_CHAT, **room}

    def cell_words(self, index: int, kind: int) -> np.ndarray:
        """Return words (V, rows, cols) of a room's cells, "" = none.

        Args:
            index: Index of the room.
            kind: 0 colours, 1 kinds of furniture, 2 columns, 3 rows.
        """
        if kind < 2:
            words, key = (COLOUR_WORDS, "colours") if kind == 0 else (KIND_WORDS, "kinds")
            return np.array([*words, ""])[self.arrays[key][index]]
        shape = self.arrays["colours"].shape[1:]
        rows, cols = shape[1:]
        if kind == 2:
            return np.broadcast_to(np.array(list(COLUMN_WORDS))[np.arange(cols) * 10 // cols], shape)
        return np.broadcast_to(np.array(list(ROW_WORDS))[np.arange(rows) * 10 // rows][:, None], shape)


def to_grey(frames: np.ndarray) -> np.ndarray:
    """Return luma (...) in [0, 1] of frames (..., 3), uint8, by ITU-R BT.601."""
    return (frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)) / 255


def decode_room(room: Mapping) -> dict:
    """Return a room of `load_rooms` with its pictures as arrays."""
    pictures = ("frames", "depth", "instance_ids")
    return {**room, **{key: [np.asarray(image) for image in room[key]] for key in pictures}}
