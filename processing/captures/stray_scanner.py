"""Recordings of the app Stray Scanner: a video, depth maps and a table of poses.

Source: github.com/strayrobots/scanner, docs/format.md and `OdometryEncoder.swift`:

    rgb.mp4: frames; camera_matrix.csv: 3 x 3, pixels of the frames.
    depth/NNNNNN.png: 16 bits, millimetres along z, 0 = no measurement; confidence/NNNNNN.png is not read.
    odometry.csv: timestamp, frame, x, y, z, qx, qy, qz, qw: camera to world, metres. The app turns ARKit's axes by
        half a turn about x, so that they are x right, y down, z forward.

The k-th row of odometry.csv belongs to the k-th frame of the video, and to the depth of the number in its column
`frame`. Apple counts the principal point from the corner of the picture, so that ours is half a pixel less.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from processing.captures.capture import Capture
from processing.captures.pictures import depth_reader
from processing.captures.tables import make_poses, number, read_numbers, read_rows
from processing.video_reading_ide3d import read_video

__all__ = ["LOOKED_FOR", "NAME", "read", "recognise"]

NAME = "stray_scanner"
LOOKED_FOR = "rgb.mp4 and odometry.csv"

_COLUMNS = ("frame", "x", "y", "z", "qx", "qy", "qz", "qw")
_AT_ONCE = 16  # Frames that are decoded together.


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    return LOOKED_FOR if all((path / name).is_file() for name in ("rgb.mp4", "odometry.csv")) else None


def read(path: Path) -> Capture:
    """Read camera and poses of a recording."""
    table = _read_odometry(path / "odometry.csv")
    files = [path / "depth" / f"{int(index):06d}.png" for index in table[:, 0]]
    missing = [file.name for file in files if not file.exists()]
    if missing and len(missing) < len(files):
        raise FileNotFoundError(
            f"{path / 'depth'} lacks {len(missing)} of {len(files)} maps, such as {missing[0]}. Was it copied whole?"
        )
    camera = read_numbers(path / "camera_matrix.csv", 3, delimiter=",")
    if camera.shape != (3, 3):
        raise ValueError(f"{path / 'camera_matrix.csv'} must hold 3 rows of 3 numbers, got {len(camera)} rows.")
    camera[:2, 2] -= 0.5
    poses = make_poses(table[:, 1:4], table[:, 4:8], path / "odometry.csv")
    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(f"{int(index):06d}" for index in table[:, 0]),
        read_frames=_video_reader(path / "rgb.mp4", len(table)),
        read_depth=None if missing else depth_reader(files, 0.001),
        intrinsics=np.repeat(camera[None], len(table), 0),
        camera_to_world=poses,
    )


def _read_odometry(file: Path) -> np.ndarray:
    """Return frame, position and quaternion (V, 8)."""
    heads = read_rows(file, columns=range(7, 32), delimiter=",")[0]
    if missing := [name for name in _COLUMNS if name not in heads]:
        raise ValueError(f"{file} must begin with a row of names, among them {', '.join(missing)}, got {heads}.")
    rows = read_rows(file, columns={len(heads)}, delimiter=",")[1:]
    if not rows:
        raise ValueError(f"{file} holds no poses. Was the recording stopped at once?")
    places = [heads.index(name) for name in _COLUMNS]
    table = np.array([[number(row[place], file) for place in places] for row in rows])
    if not np.isfinite(table).all() or (table[:, 0] != np.floor(table[:, 0])).any() or (table[:, 0] < 0).any():
        raise ValueError(f"{file} must hold finite numbers, and whole ones in the column `frame`. Copy it again.")
    return table


def _video_reader(file: Path, count: int):
    """Return a function of increasing indices that yields frames of the video."""

    def read(indices: Sequence[int]) -> Iterator[np.ndarray]:
        for start in range(0, len(indices), _AT_ONCE):
            wanted = [*indices[start : start + _AT_ONCE]]

            def sample(metadata, wanted: list[int] = wanted) -> list[int]:
                if metadata.total_num_frames != count:
                    raise ValueError(
                        f"{file} has {metadata.total_num_frames} frames, and odometry.csv {count} poses. They must be "
                        "as many: copy both again."
                    )
                return wanted

            yield from read_video(file, sample)[0]

    return read
