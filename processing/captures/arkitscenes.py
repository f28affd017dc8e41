"""ARKitScenes: pictures, depth and cameras by time, a trajectory, and pictures that lie on their side.

Source: github.com/apple/ARKitScenes, DATA.md and `tenFpsDataLoader.py`:

    lowres_wide/ID_T.png, vga_wide or wide: pictures at second T; lowres_wide_intrinsics/ID_T.pincam: width, height,
        fx, fy, cx, cy of each. Their times differ by up to a millisecond.
    lowres_depth/ID_T.png: 16 bits, millimetres along z, 0 = no measurement.
    lowres_wide.traj: time, axis-angle (3), translation (3): world to camera, x right, y down, z forward, metres; about
        ten rows a second. The world's z axis points up.

Pictures are stored as the sensor lies, whichever way the device was held. The poses say where the sky is; users tell
that `metadata.csv` is wrong about it for many scans. Pictures, depth, cameras and poses are turned by quarters, so
that up is at the top. A frame is a picture with depth within 0.02 s; its pose is interpolated between two
that are at most 0.15 s away. Apple counts the principal point from the corner of the picture, so that ours is half a
pixel less.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from processing.captures.capture import Capture
from processing.captures.pictures import depth_reader, list_files, picture_reader
from processing.captures.tables import number, read_numbers
from processing.captures.timing import check_increasing, interpolate_poses, match_times
from processing.captures.turning import find_turns, turn_camera, turn_poses

__all__ = ["LOOKED_FOR", "NAME", "read", "recognise"]

NAME = "arkitscenes"
LOOKED_FOR = "lowres_wide.traj beside vga_wide, lowres_wide or wide and their _intrinsics, there or in ID_frames"

_PICTURES = ("vga_wide", "lowres_wide", "wide")
_CAMERA_TOLERANCE, _DEPTH_TOLERANCE, _POSE_TOLERANCE = 0.002, 0.02, 0.15  # Seconds.
_UP = np.array([0.0, 0, 1])
_WORDS = {0: "", 1: "a quarter counter-clockwise", 2: "half", 3: "a quarter clockwise"}


def _find(path: Path) -> tuple[Path, str] | None:
    """Return the folder of the scan, and the name of that of its pictures."""
    for place in (path, path / f"{path.name}_frames"):
        if (place / "lowres_wide.traj").is_file():
            for name in _PICTURES:
                if (place / name).is_dir() and (place / f"{name}_intrinsics").is_dir():
                    return place, name
    return None


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    found = _find(path)
    return None if found is None else f"lowres_wide.traj, {found[1]}, {found[1]}_intrinsics"


def read(path: Path) -> Capture:
    """Associate pictures, depth, cameras and poses by time, and find the sky."""
    folder, name = _find(path)
    times, files = _list_times(folder / name, ".png")
    camera_times, camera_files = _list_times(folder / f"{name}_intrinsics", ".pincam")
    notes, depth = [], None
    if (folder / "lowres_depth").is_dir():
        depth_times, depth_files = _list_times(folder / "lowres_depth", ".png")
        match = match_times(times, depth_times, _DEPTH_TOLERANCE)
        if not (match >= 0).any():
            raise ValueError(
                f"{folder}: no map of lowres_depth lies within {_DEPTH_TOLERANCE} s of a picture of {name}."
            )
        if lost := int((match < 0).sum()):
            notes.append(f"{lost} of {len(times)} pictures have no depth within {_DEPTH_TOLERANCE} s: left out.")
        times, files = times[match >= 0], [file for file, place in zip(files, match, strict=True) if place >= 0]
        depth = depth_reader([depth_files[place] for place in match if place >= 0], 0.001)
    own = match_times(times, camera_times, _CAMERA_TOLERANCE)
    if (own < 0).any():
        raise FileNotFoundError(
            f"{folder / f'{name}_intrinsics'} lacks the camera of {int((own < 0).sum())} pictures, such as "
            f"{files[int(np.argmax(own < 0))].stem}.pincam. Download them again."
        )
    cameras, size = _read_cameras([camera_files[place] for place in own])
    poses = interpolate_poses(times, *_read_trajectory(folder / "lowres_wide.traj"), _POSE_TOLERANCE)
    is_lost = ~np.isfinite(poses).all(axis=(1, 2))
    if is_lost.all():
        raise ValueError(f"{folder}: lowres_wide.traj has no pose within {_POSE_TOLERANCE} s of a picture of {name}.")
    if is_lost.any():
        notes.append(f"{is_lost.sum()} of {len(times)} frames have no pose; `skip_invalid_poses` leaves them out.")
    turns = find_turns(poses, _UP)
    if turns:
        notes.append(f"the sky is not at the top: pictures, depth, cameras and poses are turned by {_WORDS[turns]}.")
    cameras, size = turn_camera(cameras, size, turns)
    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(file.stem for file in files),
        read_frames=_turned_frames(picture_reader(files), turns),
        read_depth=None if depth is None else lambda index: np.ascontiguousarray(np.rot90(depth(index), turns)),
        intrinsics=cameras,
        camera_size=size,
        camera_to_world=turn_poses(poses, turns),
        notes=tuple(notes),
    )


def _turned_frames(
    read_frames: Callable[[Sequence[int]], Iterator[np.ndarray]], turns: int
) -> Callable[[Sequence[int]], Iterator[np.ndarray]]:
    def read(indices: Sequence[int]) -> Iterator[np.ndarray]:
        for picture in read_frames(indices):
            yield np.ascontiguousarray(np.rot90(picture, turns))

    return read


def _list_times(folder: Path, suffix: str) -> tuple[np.ndarray, list[Path]]:
    """Return times in seconds, increasing, and files named ID_T."""
    files = list_files(folder, suffix)
    if not files:
        raise FileNotFoundError(f"{folder} holds no files {suffix}. Download the scan again.")
    times = np.array([number(file.stem.rpartition("_")[2], file) for file in files])
    order = np.argsort(times, kind="stable")
    check_increasing(times[order], folder)
    return times[order], [files[place] for place in order]


def _read_cameras(files: Sequence[Path]) -> tuple[np.ndarray, tuple[int, int]]:
    """Return cameras (V, 3, 3) and the one size of their pictures."""
    rows = []
    for file in files:
        table = read_numbers(file, 6)
        if len(table) != 1 or not np.isfinite(table).all():
            raise ValueError(f"{file} must hold one line of six finite numbers. Download it again.")
        rows.append(table[0])
    rows = np.stack(rows)
    sizes = {(int(height), int(width)) for width, height in rows[:, :2]}
    if len(sizes) > 1:
        raise ValueError(f"{files[0].parent}: pictures must have one size, got {sorted(sizes)} (height, width).")
    cameras = np.tile(np.eye(3), (len(rows), 1, 1))
    cameras[:, [0, 1], [0, 1]], cameras[:, :2, 2] = rows[:, 2:4], rows[:, 4:6] - 0.5
    return cameras, sizes.pop()


def _read_trajectory(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return times in seconds, and camera to world (n, 4, 4)."""
    table = read_numbers(file, 7)
    check_increasing(table[:, 0], file)
    if not np.isfinite(table).all():
        raise ValueError(f"{file} must hold finite numbers. Download it again.")
    world_to_camera = np.tile(np.eye(4), (len(table), 1, 1))
    world_to_camera[:, :3, :3] = Rotation.from_rotvec(table[:, 1:4]).as_matrix()
    world_to_camera[:, :3, 3] = table[:, 4:]
    return table[:, 0], np.linalg.inv(world_to_camera)
