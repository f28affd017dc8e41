"""Replica as NICE-SLAM rendered it: pictures and depth in `results`, poses in `traj.txt`.

Source: github.com/cvg/nice-slam, `src/utils/datasets.py` (class Replica) and `configs/Replica/replica.yaml`:

    results/frameNNNNNN.jpg; results/depthNNNNNN.png: 16 bits along z, `scale` steps in a metre, 0 = no measurement.
    traj.txt: one line a frame, 16 numbers by rows: camera to world, x right, y down, z forward, metres. (NICE-SLAM
        flips y and z after it has read them.)
    cam_params.json, beside the scene or above it: {"camera": {w, h, fx, fy, cx, cy, scale}}; coordinates are pixel
        centres (cx = 599.5 for w = 1200).
"""

from pathlib import Path

import numpy as np

from processing.captures.capture import Capture
from processing.captures.pictures import depth_reader, list_files, picture_reader
from processing.captures.tables import finite_number, read_numbers
from processing.limits import load_json

__all__ = ["LOOKED_FOR", "NAME", "read", "recognise"]

NAME = "replica"
LOOKED_FOR = "traj.txt and results/frame000000.jpg"

_KEYS = ("w", "h", "fx", "fy", "cx", "cy", "scale")
_PICTURE, _DEPTH = "frame", "depth"


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    is_there = (path / "traj.txt").is_file() and any(path.glob("results/frame*.jpg"))
    return "traj.txt, results/frame*.jpg" if is_there else None


def read(path: Path) -> Capture:
    """Read camera and poses of a scene."""
    files = [file for file in list_files(path / "results", ".jpg") if file.name.startswith(_PICTURE)]
    table = read_numbers(path / "traj.txt", 16)
    if len(table) != len(files):
        raise ValueError(
            f"{path}: results holds {len(files)} pictures and traj.txt {len(table)} poses. Copy both again."
        )
    names = [file.stem.removeprefix(_PICTURE) for file in files]
    depth = [path / "results" / f"{_DEPTH}{name}.png" for name in names]
    missing = [file.name for file in depth if not file.exists()]
    if missing and len(missing) < len(depth):
        raise FileNotFoundError(
            f"{path / 'results'} lacks {len(missing)} depth maps, such as {missing[0]}. Copy them again."
        )
    camera, size, unit = _read_camera(path)
    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(names),
        read_frames=picture_reader(files),
        read_depth=None if missing else depth_reader(depth, unit),
        intrinsics=np.repeat(camera[None], len(files), 0),
        camera_size=size,
        camera_to_world=table.reshape(-1, 4, 4),
    )


def _read_camera(path: Path) -> tuple[np.ndarray, tuple[int, int], float]:
    """Return camera (3, 3), height and width, and metres of one step of depth."""
    places = (path / "cam_params.json", path.resolve().parent / "cam_params.json")
    file = next((place for place in places if place.exists()), None)
    if file is None:
        raise FileNotFoundError(
            f"{path} has no cam_params.json, nor has the folder above it. NICE-SLAM's archive has one beside the "
            "scenes."
        )
    content = load_json(file)
    values = content.get("camera") if isinstance(content, dict) else None
    numbers = {key: finite_number(values if isinstance(values, dict) else {}, key, file) for key in _KEYS}
    if wrong := [key for key, value in numbers.items() if value <= 0]:
        raise ValueError(f"{file}: `{wrong[0]}` must be above 0, got {numbers[wrong[0]]}. Write the camera again.")
    width, height, fx, fy, cx, cy, scale = numbers.values()
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), (round(height), round(width)), 1 / scale
