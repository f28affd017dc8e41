"""7-Scenes: one folder a sequence, three files a frame.

Source: readme of the RGB-D Dataset 7-Scenes (Microsoft Research):

    frame-NNNNNN.color.png; frame-NNNNNN.depth.png: 16 bits, millimetres, 65535 = no measurement.
    frame-NNNNNN.pose.txt: camera to world, 4 x 4, metres, x right, y down, z forward.
    Depth camera: focal length 585, principal point (320, 240), of 640 x 480 pixels. Colour was not calibrated, and
    depth is not registered to it.

The colour camera is taken as focal length 525 with the same principal point, as relocalisation papers do that use
this data (DSAC*, HLoc). `frame-NNNNNN.depth.proj.png` is depth that such papers registered to it, and preferred.
Otherwise the map is resampled from 585 to 525 by the nearest pixel; the 2.5 cm between both cameras stay.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from processing.captures.capture import Capture
from processing.captures.pictures import depth_reader, list_files, match_names, picture_reader
from processing.scene_folders import read_matrix

__all__ = ["LOOKED_FOR", "NAME", "read", "recognise"]

NAME = "7scenes"
LOOKED_FOR = "frame-000000.color.png and frame-000000.pose.txt"

_COLOUR, _DEPTH = ".color.png", (".depth.proj.png", ".depth.png")
_SIZE = (480, 640)
_CENTRE = (320.0, 240.0)
_COLOUR_FOCAL, _DEPTH_FOCAL = 525.0, 585.0
_NO_MEASUREMENT = (65535,)


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    if not path.is_dir():
        return None
    first = min((entry.name for entry in path.glob(f"frame-*{_COLOUR}")), default=None)
    return first if first and (path / f"{first.removesuffix(_COLOUR)}.pose.txt").exists() else None


def read(path: Path) -> Capture:
    """Read names and poses of a sequence."""
    files = list_files(path, _COLOUR)
    poses = match_names(files, path, ".pose.txt", "pose", _COLOUR)
    registered, raw = (match_names(files, path, ending, "depth", _COLOUR) for ending in _DEPTH)
    depth, note = None, ""
    if registered is not None:
        depth = depth_reader(registered, 0.001, _NO_MEASUREMENT)
    elif raw is not None:
        depth = _resampled(depth_reader(raw, 0.001, _NO_MEASUREMENT))
        note = "depth is resampled from the depth camera (585 pixels) to the colour camera (525 pixels)."
    camera = np.array([[_COLOUR_FOCAL, 0, _CENTRE[0]], [0, _COLOUR_FOCAL, _CENTRE[1]], [0, 0, 1]])
    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(file.name.removesuffix(_COLOUR) for file in files),
        read_frames=picture_reader(files),
        read_depth=depth,
        intrinsics=np.repeat(camera[None], len(files), 0),
        camera_size=_SIZE,
        camera_to_world=None if poses is None else np.stack([read_matrix(file, (4,)) for file in poses]),
        notes=tuple(filter(None, ("colour was never calibrated: its focal length is taken as 525 pixels.", note))),
    )


def _resampled(read_depth: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
    """Return a reader whose maps have the view of the colour camera."""

    def read(index: int) -> np.ndarray:
        depth = read_depth(index)
        if depth.shape != _SIZE:
            raise ValueError(f"Depth of 7-Scenes must have {_SIZE[0]} x {_SIZE[1]} pixels, got {depth.shape}.")
        rows, columns = (
            np.rint((np.arange(side) - centre) * _DEPTH_FOCAL / _COLOUR_FOCAL + centre).astype(int)
            for side, centre in zip(_SIZE, _CENTRE[::-1], strict=True)
        )
        seen = depth[rows.clip(0, _SIZE[0] - 1)[:, None], columns.clip(0, _SIZE[1] - 1)]
        is_outside = ((rows < 0) | (rows >= _SIZE[0]))[:, None] | (columns < 0) | (columns >= _SIZE[1])
        return np.where(is_outside, np.float32(0), seen)

    return read
