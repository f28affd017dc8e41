"""The export of ScanNet's SensReader: folders `color`, `depth`, `pose` and `intrinsic`.

Source: github.com/ScanNet/ScanNet, SensReader/python (`SensorData.export_*`) and the README of the data:

    color/N.jpg; depth/N.png: 16 bits, millimetres, 0 = no measurement, registered to the colour camera.
    pose/N.txt: camera to world, 4 x 4, metres, x right, y down, z forward; -inf where tracking was lost.
    intrinsic/intrinsic_color.txt: 4 x 4, pixels of the colour pictures. It says nothing of pixel centres; numbers are
        taken as they are, as in `PosedVideo.from_folder`.
"""

from pathlib import Path

import numpy as np

from processing.captures.capture import Capture
from processing.captures.pictures import depth_reader, list_files, match_names, picture_reader
from processing.limits import check_file
from processing.scene_folders import read_matrix

__all__ = ["LOOKED_FOR", "NAME", "read", "recognise"]

NAME = "scannet"
LOOKED_FOR = "folders color (0.jpg) and pose (0.txt), beside depth and intrinsic"
_CAMERA = "intrinsic/intrinsic_color.txt"


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    folders = [name for name in ("color", "depth", "pose", "intrinsic") if (path / name).is_dir()]
    return f"folders {', '.join(folders)}" if {"color", "pose"} <= {*folders} else None


def read(path: Path) -> Capture:
    """Read names, camera and poses of an exported scan."""
    files = list_files(path / "color", ".jpg", ".png")
    if not files:
        raise FileNotFoundError(f"{path / 'color'} holds no pictures. Expected files such as 0.jpg.")
    poses = match_names(files, path / "pose", ".txt", "pose")
    depth = match_names(files, path / "depth", ".png", "depth")
    cameras = None
    if (path / _CAMERA).exists():
        check_file(path / _CAMERA, None)
        cameras = np.repeat(read_matrix(path / _CAMERA, (3, 4))[None, :3, :3], len(files), 0)
    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(file.stem for file in files),
        read_frames=picture_reader(files),
        read_depth=None if depth is None else depth_reader(depth, 0.001),
        intrinsics=cameras,
        camera_to_world=None if poses is None else np.stack([read_matrix(file, (4,)) for file in poses]),
    ).with_notes("" if cameras is not None else f"no {_CAMERA}, so there are no intrinsics; give `intrinsics`.")
