"""Pictures, depth and cameras in messages of ROS; see `processing.captures.ros_bag` for the conventions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from processing.captures.undistortion import Undistorter, fisheye_lens, radial_tangential_lens
from processing.image_reading_ide3d import read_image

__all__ = ["RosLens", "depth_of", "find_lens", "is_colour", "is_depth", "picture_of", "stamp_of"]

# Channels of each encoding, in the order red, green, blue.
_COLOURS = {"rgb8": (3, [0, 1, 2]), "bgr8": (3, [2, 1, 0]), "rgba8": (4, [0, 1, 2]), "bgra8": (4, [2, 1, 0]),
            "mono8": (1, [0, 0, 0])}  # fmt: skip
# Type and metres of one step of each encoding.
_DEPTHS = {"16UC1": ("u2", 0.001), "32FC1": ("f4", 1.0)}


@dataclass(frozen=True)
class RosLens:
    """Camera of the pictures of a topic.

    Attributes:
        intrinsics: Camera (3, 3), pixels; integer coordinates are pixel centres.
        size: Height and width of the pictures.
        mover: Mover of distorted pictures to a pinhole camera; None where there is no distortion.
    """

    intrinsics: np.ndarray
    size: tuple[int, int]
    mover: Undistorter | None


def stamp_of(message: Any) -> float:
    """Return the time of a message's header in seconds."""
    stamp = message.header.stamp
    return stamp.sec + stamp.nanosec * 1e-9


def is_colour(message: Any) -> bool:
    """Return whether a message of a picture holds colours that are read."""
    if hasattr(message, "encoding"):
        return message.encoding in _COLOURS
    return "depth" not in message.format.lower() and "16UC1" not in message.format and "32FC1" not in message.format


def is_depth(message: Any) -> bool:
    """Return whether a message of a picture holds depth that is read."""
    return hasattr(message, "encoding") and message.encoding in _DEPTHS


def _rows(message: Any, row_bytes: int, where: str) -> np.ndarray:
    """Return the bytes of a raw picture (h, row_bytes), without what is behind each row."""
    height, step, content = message.height, message.step, np.asarray(message.data, np.uint8)
    if step < row_bytes or len(content) != height * step or 0 in (height, row_bytes):
        raise ValueError(
            f"{where}: a picture of {height} x {message.width} must have {height * row_bytes} bytes, it has "
            f"{len(content)} in rows of {step}. Record the bag again."
        )
    return content.reshape(height, step)[:, :row_bytes]


def picture_of(message: Any, where: str) -> np.ndarray:
    """Return the picture (h, w, 3) uint8 RGB of a message.

    Raises:
        ValueError: It is of another kind than the first one of its topic, or cut.
    """
    if not hasattr(message, "encoding"):
        return read_image(bytes(message.data), where)
    if message.encoding not in _COLOURS:
        raise ValueError(f"{where}: encodings read are {', '.join(_COLOURS)}, got {message.encoding!r:.40}.")
    channels, order = _COLOURS[message.encoding]
    rows = _rows(message, message.width * channels, where)
    return np.ascontiguousarray(rows.reshape(message.height, message.width, channels)[..., order])


def depth_of(message: Any, where: str) -> np.ndarray:
    """Return z-depth (h, w) float32 of a message, metres; 0 = no measurement.

    Raises:
        ValueError: It is of another kind than the first one of its topic, or cut.
    """
    if not is_depth(message):
        raise ValueError(f"{where}: encodings of depth read are {', '.join(_DEPTHS)}. Record the bag again.")
    kind, unit = _DEPTHS[message.encoding]
    kind = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    rows = np.ascontiguousarray(_rows(message, message.width * kind.itemsize, where))
    depth = (rows.view(kind) / (1 / unit)).astype(np.float32)
    return np.where(np.isfinite(depth), depth, np.float32(0))


def find_lens(infos: Sequence[Any], topic: str, where: Path) -> RosLens | None:
    """Return the camera of a topic of pictures, from the CameraInfo of its frame.

    Args:
        infos: Messages of CameraInfo in the frame of the topic.
        topic: Name of the topic; with "rect" in it, its pictures are rectified.
        where: Bag, in messages.

    Raises:
        ValueError: Several cameras, or a lens that is not known.
    """
    if not infos:
        return None
    if len({(info.height, info.width) for info in infos}) > 1:
        raise ValueError(f"{where}: several CameraInfo of one frame differ in size. Record that of {topic} alone.")
    info = infos[0]
    # Fields are capital in ROS 1, and small in ROS 2.
    k, d, p = (np.asarray(getattr(info, name, getattr(info, name.upper(), None)), np.float64) for name in "kdp")
    size = (info.height, info.width)
    if "rect" in topic:
        return RosLens(p.reshape(3, 4)[:, :3], size, None)
    camera = k.reshape(3, 3)
    if not d.any():
        return RosLens(camera, size, None)
    if info.distortion_model == "plumb_bob" and len(d) in (4, 5):
        lens = radial_tangential_lens((d[0], d[1], *d[4:]), (d[2], d[3]))
    elif info.distortion_model in ("equidistant", "fisheye") and len(d) == 4:
        lens = fisheye_lens(d)
    else:
        raise ValueError(
            f"{where}: distortion models read are plumb_bob and equidistant, got {info.distortion_model!r:.40} with "
            f"{len(d)} numbers. Record rectified pictures (image_proc)."
        )
    return RosLens(camera, size, Undistorter(lens, camera, size))
