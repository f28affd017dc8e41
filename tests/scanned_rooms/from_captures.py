"""Write `processing/rooms/scene/scanned_rooms.json` from the captures of the npm package `@iwer/sem`.

    npm pack @iwer/sem@2.4.0 && tar xzf iwer-sem-2.4.0.tgz
    python tests/scanned_rooms/from_captures.py package/captures processing/rooms/scene/scanned_rooms.json

The package's licence (MIT) is copied into the file. Of each capture it keeps planes and boxes, in metres to the
millimetre; meshes are left out. A room is turned until its walls lie along the axes (z up, floor at 0) and moved until
the rectangle around its floor is centred.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # z up from y up
NAMES = ("living_room", "meeting_room", "music_room", "office_large", "office_small")
HOLES = {"DOOR_FRAME": "doors", "WINDOW_FRAME": "windows", "WALL_ART": "pictures"}


def read_entity(entity: dict) -> dict:
    """Return label, centre (3,), axes (3, 3) as columns, and size (3,) of a plane or box, z up, metres.

    A plane spans the first and third axis: its second size is 0.
    """
    placed = entity["locatable_META"]
    turn = UP @ Rotation.from_quat([placed["orientation"][axis] for axis in "xyzw"]).as_matrix()
    position = UP @ np.array([placed["position"][axis] for axis in "xyz"])
    if "bounded3D_META" in entity:
        bounds = entity["bounded3D_META"]
        size = np.array([bounds["extent"][side] for side in ("width", "height", "depth")])
        middle = np.array([bounds["offset"][axis] for axis in "xyz"]) + size / 2
    else:
        extent = entity["bounded2D_META"]["extent"]
        size, middle = np.array([extent["width"], 0, extent["height"]]), np.zeros(3)
    return {
        "label": entity["semanticLabel_META"],
        "is_box": "bounded3D_META" in entity,
        "center": position + turn @ middle,
        "axes": turn,
        "size": size,
    }


def _wall_turn(walls: list[dict]) -> np.ndarray:
    """Return the rotation (3, 3) about z that lays most of the walls' length along the axes."""
    angles = np.array([np.arctan2(wall["axes"][1, 0], wall["axes"][0, 0]) for wall in walls])
    weights = np.array([wall["size"][0] for wall in walls])
    angle = np.angle((weights * np.exp(4j * angles)).sum()) / 4  # a quarter turn is none
    return Rotation.from_euler("z", -angle).as_matrix()


def convert(capture: dict, name: str) -> dict:
    """Return a room's rectangle, walls, openings, pictures and boxes."""
    entities = [read_entity(entity) for entity in capture["spatialEntities"] if "triangleMesh_META" not in entity]
    walls = [entity for entity in entities if entity["label"] == "WALL_FACE"]
    turn = _wall_turn(walls)
    ends = np.array(
        [
            turn @ (wall["center"] + side * wall["axes"][:, 0] * wall["size"][0] / 2)
            for wall in walls
            for side in (-1, 1)
        ]
    )
    low, high = ends.min(0), ends.max(0)
    floor = next(entity for entity in entities if entity["label"] == "FLOOR")["center"][2]
    origin = np.array([*(low + high)[:2] / 2, floor])

    def place(point: np.ndarray) -> list[float]:
        return (turn @ point - origin).round(3).tolist()

    room = {
        "name": name,
        "size": [*(high - low)[:2].round(3).tolist(), round(float(walls[0]["size"][2]), 3)],
        "walls": (ends - origin)[:, :2].reshape(-1, 4).round(3).tolist(),
        **{kind: [] for kind in HOLES.values()},
        "boxes": [],
    }
    for entity in entities:
        if entity["label"] in HOLES:
            room[HOLES[entity["label"]]].append([*place(entity["center"]), *entity["size"][[0, 2]].round(3).tolist()])
        elif entity["is_box"]:
            along = turn @ entity["axes"][:, 0]
            room["boxes"].append(
                {
                    "label": entity["label"].lower(),
                    "center": place(entity["center"]),
                    "size": entity["size"].round(3).tolist(),
                    "yaw": round(float(np.arctan2(along[1], along[0])), 4),
                }
            )
    return room


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    rooms = [convert(json.loads((args.captures / f"{name}.json").read_text()), name) for name in NAMES]
    contents = {
        "source": "npm @iwer/sem 2.4.0, captures",
        "licence": (args.captures.parent / "LICENSE").read_text(),
        "rooms": rooms,
    }
    lines = json.dumps(contents, indent=None, separators=(",", ":")).replace('{"name"', '\n{"name"')
    args.output.write_text(lines + "\n")


if __name__ == "__main__":
    main()
