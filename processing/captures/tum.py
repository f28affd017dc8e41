"""TUM RGB-D: `rgb.txt`, `depth.txt` and `groundtruth.txt`, associated by time.

Source: "File Formats" and "Intrinsic Camera Calibration of the Kinect" of the TUM RGB-D benchmark's pages:

    rgb.txt, depth.txt: time and file of each picture; lines that begin with # are comments.
    depth: PNG of 16 bits, 5000 steps in a metre, 0 = no measurement, registered to the colour picture.
    groundtruth.txt: time tx ty tz qx qy qz qw, pose of the colour camera's optical centre, camera to world, x right,
        y down, z forward, metres.
    intrinsics: not in the folder. The authors recommend fx = fy = 525, cx = 319.5, cy = 239.5 for all freiburg
        sequences of 640 x 480 pixels; coordinates are pixel centres.

A frame is a colour picture with depth within 0.02 s, as in the benchmark's `associate.py`. Its pose is interpolated
between two that are at most 0.05 s away, where `associate.py` takes the nearest one.
"""

from pathlib import Path

import numpy as np

from processing.captures.capture import Capture
from processing.captures.pictures import depth_reader, picture_reader
from processing.captures.tables import make_poses, number, read_numbers, read_rows
from processing.captures.timing import check_increasing, interpolate_poses, match_times
from processing.scene_folders import is_there
from processing.scene_names import check_name

__all__ = ["LOOKED_FOR", "NAME", "read", "recognise"]

NAME = "tum"
LOOKED_FOR = "rgb.txt, beside depth.txt and groundtruth.txt"

_DEPTH_TOLERANCE, _POSE_TOLERANCE = 0.02, 0.05  # Seconds.
_UNIT = 1 / 5000  # Metres.
_FREIBURG = np.array([[525, 0, 319.5], [0, 525, 239.5], [0, 0, 1]])
_FREIBURG_SIZE = (480, 640)


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    names = [name for name in ("rgb.txt", "depth.txt", "groundtruth.txt") if (path / name).is_file()]
    return ", ".join(names) if "rgb.txt" in names and len(names) > 1 else None


def read(path: Path) -> Capture:
    """Associate colour, depth and poses of a sequence by time."""
    times, files = _read_list(path / "rgb.txt")
    depth = poses = None
    notes = []
    if is_there(path / "depth.txt"):
        depth_times, depth_files = _read_list(path / "depth.txt")
        match = match_times(times, depth_times, _DEPTH_TOLERANCE)
        if not (match >= 0).any():
            raise ValueError(
                f"{path}: no time of depth.txt lies within {_DEPTH_TOLERANCE} s of one of rgb.txt ({times[0]:.3f} to "
                f"{times[-1]:.3f} s against {depth_times[0]:.3f} to {depth_times[-1]:.3f} s). Are both in seconds?"
            )
        if lost := int((match < 0).sum()):
            notes.append(
                f"{lost} of {len(times)} pictures have no depth within {_DEPTH_TOLERANCE} s and are left out."
            )
        times, files = times[match >= 0], [file for file, place in zip(files, match, strict=True) if place >= 0]
        depth = [depth_files[place] for place in match if place >= 0]
    if is_there(path / "groundtruth.txt"):
        table = read_numbers(path / "groundtruth.txt", 8)
        check_increasing(table[:, 0], path / "groundtruth.txt")
        known = make_poses(table[:, 1:4], table[:, 4:], path / "groundtruth.txt")
        poses = interpolate_poses(times, table[:, 0], known, _POSE_TOLERANCE)
        is_lost = ~np.isfinite(poses).all(axis=(1, 2))
        if is_lost.all():
            raise ValueError(
                f"{path}: groundtruth.txt has no poses within {_POSE_TOLERANCE} s of the pictures ({times[0]:.3f} to "
                f"{times[-1]:.3f} s against {table[0, 0]:.3f} to {table[-1, 0]:.3f} s). Are both in seconds?"
            )
        if is_lost.any():
            notes.append(f"{is_lost.sum()} of {len(times)} frames have no pose; `skip_invalid_poses` leaves them out.")
    cameras = None
    if "freiburg" in path.resolve().name:
        cameras = np.repeat(_FREIBURG[None], len(files), 0)
        notes.append("intrinsics are those that the benchmark recommends; the folder holds none.")
    else:
        notes.append("the folder holds no intrinsics, and its name no freiburg camera; give `intrinsics`.")
    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(file.stem for file in files),
        read_frames=picture_reader(files),
        read_depth=None if depth is None else depth_reader(depth, _UNIT),
        intrinsics=cameras,
        camera_size=_FREIBURG_SIZE,
        camera_to_world=poses,
        notes=tuple(notes),
    )


def _read_list(path: Path) -> tuple[np.ndarray, list[Path]]:
    """Return times in seconds, and the files of a list of pictures."""
    rows = read_rows(path, columns={2})
    times = np.array([number(time, path) for time, _ in rows])
    check_increasing(times, path)
    return times, [path.parent / check_name(name, "file", str(path)) for _, name in rows]
