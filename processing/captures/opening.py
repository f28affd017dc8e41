"""Recognise captures and open them."""

import importlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from processing.argument_rules import as_path, check_choice
from processing.captures.capture import Capture
from processing.frame_order_ide3d import sort_frames
from processing.posed_video import PosedVideo

__all__ = ["FORMATS", "CaptureFormat", "Found", "find_capture", "list_captures", "open_capture", "recognise"]

# Name of each format: the module of this package that reads it.
FORMATS = {
    "scannet": "scannet",
    "posed_images": "posed_images",
    "sens": "scannet_sens",
    "tum": "tum",
    "7scenes": "seven_scenes",
    "nerfstudio": "nerfstudio",
    "colmap": "colmap",
    "record3d": "record3d",
    "stray_scanner": "stray_scanner",
    "polycam": "polycam",
    "arkitscenes": "arkitscenes",
    "replica": "replica",
    "hypersim": "hypersim",
}
_LEVELS = 2  # Folders below the given one that are searched for captures.
_MOST_FOLDERS = 10_000


class CaptureFormat(Protocol):
    """A module that reads one format.

    Attributes:
        NAME: Key of `FORMATS`.
        LOOKED_FOR: Files by which the format is recognised, for messages.
    """

    NAME: str
    LOOKED_FOR: str

    def recognise(self, path: Path) -> str | None:
        """Return the evidence that a path is of this format, or None."""

    def read(self, path: Path) -> Capture:
        """Read frame names, cameras and poses; pixels are read by `Capture.load`."""


@dataclass(frozen=True)
class Found:
    """A capture that was recognised, not read.

    Attributes:
        path: Folder or file.
        format: Key of `FORMATS`.
        evidence: Files that speak for the format.
    """

    path: Path
    format: str
    evidence: str


def _module(name: str) -> CaptureFormat:
    return importlib.import_module(f"processing.captures.{FORMATS[name]}")


def recognise(path: Path) -> list[Found]:
    """Return the formats that a folder or file may have; one, as a rule."""
    found = ((name, _module(name).recognise(path)) for name in FORMATS)
    return [Found(path, name, evidence) for name, evidence in found if evidence]


def find_capture(path: Any, *, format: str = "auto") -> Capture:
    """Recognise a capture and read all of it but its pixels.

    Args:
        path: Folder or file of one capture.
        format: Key of `FORMATS`, or "auto", which recognises exactly one.

    Returns:
        Frame names, cameras, poses, and functions that read pixels.

    Raises:
        TypeError: An argument of another kind.
        FileNotFoundError: Nothing is there, or the format lacks a file.
        ValueError: No format or several are recognised, or a file holds anything else than the format says.
        ImportError: The package that reads this format is not installed.
    """
    check_choice(format, ("auto", *FORMATS), "format")
    where = as_path(path, "path")
    if not where.exists():
        raise FileNotFoundError(f"{where} does not exist. Give the folder or file of a capture.")
    found = recognise(where)
    if format != "auto":
        module = _module(format)
        if format not in [entry.format for entry in found]:
            raise ValueError(f"{where} is no capture of the format {format!r}: expected {module.LOOKED_FOR}.")
        return module.read(where)
    if len(found) > 1:
        told = "; ".join(f"{entry.format} ({entry.evidence})" for entry in found)
        raise ValueError(f"{where} may be of several formats: {told}. Name one by `format`.")
    if not found:
        looked = "; ".join(f"{name}: {_module(name).LOOKED_FOR}" for name in FORMATS)
        inside = list_captures(where) if where.is_dir() else []
        hint = f" There are captures inside, such as {inside[0].path}: give one of them." if inside else ""
        raise ValueError(f"{where} is no capture of a known format.{hint} Looked for {looked}.")
    return _module(found[0].format).read(where)


def open_capture(
    path: Any,
    *,
    format: str = "auto",
    frames: int | Sequence[int] | None = None,
    parts: Collection[str] | None = None,
    skip_invalid_poses: bool = False,
    intrinsics: Any = None,
    scale: float | None = None,
) -> PosedVideo:
    """Read a capture of a known format as a `PosedVideo`.

    Conventions of the format (axes, unit of depth, direction of poses, place of the principal point) are undone:
    depth is in metres along z, poses are camera to world in OpenCV axes, integer coordinates are pixel centres.
    All frames that are read are checked against each other (`PosedVideo.check`, up to a second); data sets that read
    many captures may call `find_capture(path).load(...)`, which looks at a few points only.

    Args:
        path: Folder or file of one capture.
        format: Key of `FORMATS`, or "auto", which recognises exactly one.
        frames: Number of frames to take, uniformly from the first to the last, or indices of frames; default is all.
        parts: Parts to read beside the frames, of "depth" and "camera_to_world"; intrinsics come with either. None
            reads what there is, () the frames alone.
        skip_invalid_poses: Whether to leave out frames without a finite pose, with a warning.
        intrinsics: Camera (3, 3) of the frames' pixels, or one for each frame of the capture, where the capture has
            none or another one is known better.
        scale: Metres of one unit of the capture, for reconstructions from pictures alone. None takes the numbers as
            they are, and warns where they are not in metres.

    Returns:
        Frames, and depth, cameras and poses where the capture has them.

    Raises:
        TypeError: An argument of another kind.
        FileNotFoundError: Nothing is there, or the format lacks a file.
        ValueError: No format or several are recognised, a file holds anything else than the format says, or the parts
            do not belong together, as in `PosedVideo`.
        ImportError: The package that reads this format is not installed.
    """
    capture = find_capture(path, format=format)
    options = {"parts": parts, "skip_invalid_poses": skip_invalid_poses, "intrinsics": intrinsics, "scale": scale}
    video = capture.load(frames, **options)
    video.check()
    return video


def list_captures(path: Any) -> list[Found]:
    """Return the captures in a folder and below it, or that of a file.

    Folders inside of a capture are not searched.

    Raises:
        TypeError: It is no path.
        FileNotFoundError: Nothing is there.
        ValueError: There are too many folders.
    """
    start = as_path(path, "path")
    if not start.exists():
        raise FileNotFoundError(f"{start} does not exist. Give a folder or file.")
    found: list[Found] = []
    layer, seen = [start], 0
    for level in range(_LEVELS + 1):
        below: list[Path] = []
        for place in layer:
            seen += 1
            if seen > _MOST_FOLDERS:
                raise ValueError(f"{start} holds more than {_MOST_FOLDERS} folders and files. Give a smaller folder.")
            if here := recognise(place):
                found += here
            elif place.is_dir() and level < _LEVELS:
                names = sort_frames(entry.name for entry in place.iterdir() if not entry.name.startswith("."))
                below += [place / name for name in names if (place / name).is_dir() or "." in name]
        layer = below
    return found
