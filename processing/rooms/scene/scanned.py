"""Layouts of five scanned rooms: real sizes, doors, windows and boxes of furniture, to be furnished in any style.

Source: captures of the npm package `@iwer/sem` 2.4.0 (MIT, its text is in `scanned_rooms.json`), converted by
`tests/scanned_rooms/from_captures.py`. A scanned room is furnished as a rectangle, that around its floor; the walls of
its niches are in `walls` alone. A door or window in such a wall is left out.
"""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from processing.rooms.scene.furniture import FLOOR_PIECES, Piece, Support
from processing.rooms.scene.layout import Room, RoomObject
from processing.rooms.scene.palette import COLOURS
from processing.rooms.scene.primitives import Primitive, bounds, moved, yaw_matrix
from processing.rooms.scene.shell import WALL_YAWS, build_planned_shell
from processing.rooms.scene.small_things import TOP_PIECES, WALL_PIECES
from processing.rooms.scene.styles import Style

__all__ = ["ScannedBox", "ScannedRoom", "build_scanned_room", "scanned_rooms"]

Build = Callable[[np.random.Generator, str, Style], Piece]

_FILE = Path(__file__).with_name("scanned_rooms.json")
_ON_FLOOR = 0.15  # metres above the floor below which a box stands on it
_IN_WALL = 0.3  # metres between an opening or picture and the wall of the rectangle that it belongs to
_TALL, _LONG = 1.2, 1.3  # metres: a bookshelf rather than a table or cabinet; a sofa rather than an armchair
_PICTURE_DEPTH = 0.03  # metres


@dataclass(frozen=True)
class ScannedBox:
    """Box of a piece of furniture.

    `kind` is a kind of furniture of the rooms. `center` and `size` (3,) are in metres, `size` along the axes of the
    box; `yaw` is the angle of its first axis, radians.
    """

    kind: str
    center: np.ndarray
    size: np.ndarray
    yaw: float

    @property
    def low(self) -> float:
        """Height of the lower side above the floor, metres."""
        return float(self.center[2] - self.size[2] / 2)


@dataclass(frozen=True)
class ScannedRoom:
    """Layout of a scanned room in the world frame of the rooms.

    z points up, the floor is at 0, and the rectangle is centred. `size` is width, depth and height of the rectangle
    around the floor. `walls` (n, 4) are the ends (x, y, x, y) of the true walls. `plans` are doors and windows as
    `build_planned_shell` takes them. `pictures` are the wall, place along it, height of the middle, width and height
    of pictures. All in metres.
    """

    name: str
    size: tuple[float, float, float]
    walls: np.ndarray
    plans: tuple[tuple[int, float, float, tuple[float, float], bool], ...]
    pictures: tuple[tuple[int, float, float, float, float], ...]
    boxes: tuple[ScannedBox, ...]


def _kind(label: str, size: np.ndarray, has_screen: bool) -> str | None:
    """Return the kind of furniture that a label of the scan stands for, if any."""
    if label == "couch":
        return "sofa" if max(size[:2]) >= _LONG else "armchair"
    if label in ("table", "storage"):
        if size[2] >= _TALL:
            return "bookshelf"
        return "cabinet" if label == "storage" else "desk" if has_screen else "table"
    return label if label in ("lamp", "plant") else None


def _wall_of(point: np.ndarray, size: np.ndarray) -> tuple[int, float, float]:
    """Return the nearest wall, the place along it and the distance from it, metres."""
    found = []
    for wall, yaw in enumerate(WALL_YAWS):
        along, outward = (yaw_matrix(yaw).T @ point)[:2]
        found.append((abs(size[1 if wall % 2 == 0 else 0] / 2 - outward), wall, float(along)))
    gap, wall, along = min(found)
    return wall, along, gap


def _read_room(entry: Mapping[str, Any]) -> ScannedRoom:
    size = np.array(entry["size"])
    plans, pictures = [], []
    for key in ("doors", "windows", "pictures"):
        for x, y, z, width, height in entry[key]:
            wall, along, gap = _wall_of(np.array([x, y, 0.0]), size)
            if gap > _IN_WALL:
                continue
            if key == "pictures":
                pictures.append((wall, along, z, width, height))
            else:
                low = 0.0 if key == "doors" else max(0.0, z - height / 2)
                plans.append((wall, along, width, (low, min(z + height / 2, size[2] - 0.05)), key == "doors"))
    screens = [np.array(box["center"]) for box in entry["boxes"] if box["label"] == "screen"]
    boxes = []
    for box in entry["boxes"]:
        center, extent = np.array(box["center"]), np.array(box["size"])
        has_screen = any((np.abs(screen - center)[:2] < extent[:2].max() / 2).all() for screen in screens)
        kind = _kind(box["label"], extent, has_screen)
        if kind is not None:
            boxes.append(ScannedBox(kind, center, extent, float(box["yaw"])))
    return ScannedRoom(
        entry["name"], tuple(entry["size"]), np.array(entry["walls"]), tuple(plans), tuple(pictures), tuple(boxes)
    )


@functools.cache
def scanned_rooms() -> tuple[ScannedRoom, ...]:
    """Return the layouts of all scanned rooms."""
    return tuple(_read_room(entry) for entry in json.loads(_FILE.read_text())["rooms"])


def _fit(piece: Piece, size: np.ndarray) -> Piece:
    """Return a piece stretched to a size (3,), metres, about the middle of its base.

    Parts that are turned, such as leaves, are stretched roughly: a plant may miss its size by 5 %.
    """
    low, high = piece.extent
    factors = size / (high - low)
    middle = np.array([*(low + high)[:2] / 2, low[2]])

    def stretch(part: Primitive) -> Primitive:
        # Parts lie along the axes, up to a turn of cushions: each half side is stretched as the axis it is nearest to.
        half = np.abs(part.rotation.T) @ factors / np.abs(part.rotation.T).sum(1) * part.half
        return replace(part, center=(part.center - middle) * factors, half=half)

    supports = [
        Support(
            (s.z - middle[2]) * factors[2],
            tuple((np.array(s.x) - middle[0]) * factors[0]),
            tuple((np.array(s.y) - middle[1]) * factors[1]),
        )
        for s in piece.supports
    ]
    return replace(piece, parts=[stretch(part) for part in piece.parts], supports=supports)


def _back_to_wall(box: ScannedBox, size: np.ndarray) -> tuple[float, np.ndarray]:
    """Return yaw and size (3,) of a piece whose back is to the nearest wall."""
    wall, _, _ = _wall_of(np.array([*box.center[:2], 0.0]), size)
    quarter = round((WALL_YAWS[wall] - box.yaw) / (np.pi / 2))
    if box.kind in ("sofa", "bookshelf", "cabinet") and box.size[quarter % 2] < box.size[1 - quarter % 2]:
        # The long side is the front: the nearest wall is beside such a piece, another one behind it.
        options = [quarter + 1, quarter - 1]
        inward = [
            -(yaw_matrix(box.yaw + turn * np.pi / 2) @ np.array([0, 1.0, 0]))[:2] @ box.center[:2] for turn in options
        ]
        quarter = options[int(np.argmin(inward))]
    extent = box.size if quarter % 2 == 0 else box.size[[1, 0, 2]]
    return box.yaw + quarter * np.pi / 2, extent


def _support_of(box: ScannedBox, objects: list[RoomObject]) -> int:
    """Return the id of the object below a box, 0 for none."""
    for thing in objects:
        inside = (np.abs(thing.center - box.center)[:2] <= thing.size[:2] / 2).all()
        if inside and abs(thing.high[2] - box.low) < _ON_FLOOR:
            return thing.id
    return 0


def _placed(number: int, piece: Piece, yaw: float, offset: np.ndarray, place: str, support: int = 0) -> RoomObject:
    """Return a piece at its place in the room."""
    low, high = piece.extent
    corners = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    parts = moved(piece.parts, yaw, offset)
    return RoomObject(
        number,
        piece.category,
        piece.colour,
        piece.feature,
        parts,
        corners @ yaw_matrix(yaw)[:2, :2].T + offset[:2],
        place,
        *bounds(parts),
        support_id=support,
        yaw=yaw,
        supports=piece.supports,
    )


def build_scanned_room(
    rng: np.random.Generator, scanned: ScannedRoom, style: Style, pieces: Mapping[str, Build] | None = None
) -> Room:
    """Furnish a scanned layout.

    Every box gets a piece of its kind and size, in a drawn colour.

    Args:
        rng: Generator of looks.
        scanned: Entry of `scanned_rooms`.
        style: Style of the room.
        pieces: Functions that build pieces, by kind; None takes those of the rooms' own solids.
    """
    pieces, size = FLOOR_PIECES if pieces is None else pieces, np.array(scanned.size)
    shell = build_planned_shell(rng, style, scanned.size, list(scanned.plans))
    objects: list[RoomObject] = []

    for box in sorted(scanned.boxes, key=lambda box: box.low):
        is_low, colour = box.low < _ON_FLOOR, str(rng.choice(COLOURS))
        if not is_low and not (box.kind == "lamp" and (support := _support_of(box, objects))):
            continue
        build = pieces[box.kind] if is_low else TOP_PIECES[box.kind]
        yaw, extent = _back_to_wall(box, size)
        offset = np.array([*box.center[:2], 0.0 if is_low else objects[support - 1].high[2]])
        piece = _fit(build(rng, colour, style), np.array([*extent[:2], box.center[2] + box.size[2] / 2 - offset[2]]))
        place, below = ("floor", 0) if is_low else ("top", support)
        objects.append(_placed(len(objects) + 1, piece, yaw, offset, place, below))
    for wall, along, middle, width, height in scanned.pictures:
        piece = _fit(
            WALL_PIECES["picture"](rng, str(rng.choice(COLOURS)), style), np.array([width, _PICTURE_DEPTH, height])
        )
        turn = yaw_matrix(WALL_YAWS[wall])
        away = shell.wall_distance(wall) - _PICTURE_DEPTH / 2 - 0.001
        offset = turn @ np.array([along, away, middle - height / 2])
        objects.append(_placed(len(objects) + 1, piece, WALL_YAWS[wall], offset, "wall"))
    return Room(shell, objects, [], "")
