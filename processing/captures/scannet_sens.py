"""`.sens`: the raw stream of a ScanNet scan.

Source: github.com/ScanNet/ScanNet, SensReader (`sensorData.h`, version 4; `SensorData.py`). Little endian:

    uint32 version; uint64 length and the sensor's name; four 4 x 4 float32 matrices by rows: intrinsics and extrinsics
    of colour, then of depth; int32 compression of colour (0 raw, 1 PNG, 2 JPEG) and of depth (0 raw, 1 zlib, 2 OCCI);
    uint32 width and height of colour, then of depth; float32 steps of depth in one metre; uint64 number of frames.
    Each frame: float32 4 x 4 camera to world by rows; two uint64 times; two uint64 sizes; both contents.

Axes are x right, y down, z forward, metres. Depth is registered to the colour camera: their extrinsics are the
identity. Poses of -inf mean that tracking was lost. The file is never read whole: a first pass reads the heads of the
frames, `load` the chosen ones.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from processing.captures.capture import Capture
from processing.image_reading_ide3d import read_image
from processing.limits import check_bound, check_file
from processing.scene_folders import check_steps

__all__ = ["LOOKED_FOR", "NAME", "read", "recognise"]

NAME = "sens"
LOOKED_FOR = "a file .sens, or a folder with one"

_VERSION = 4
_MAX_NAME = 1024  # Bytes of the sensor's name.
_MAX_SIDE = 2**14  # Pixels.
_COLOUR_PICTURES, _COLOUR_RAW = (1, 2), 0
_DEPTH_RAW, _DEPTH_ZLIB = 0, 1
_FRAME_HEAD = struct.Struct("<16f4Q")


@dataclass(frozen=True)
class _Head:
    intrinsics: np.ndarray
    colour_kind: int
    depth_kind: int
    colour_size: tuple[int, int]
    depth_size: tuple[int, int]
    steps_per_metre: float
    num_frames: int


def _file(path: Path) -> Path | None:
    if path.is_dir():
        files = sorted(path.glob("*.sens"))
        return files[0] if len(files) == 1 else None
    return path if path.suffix == ".sens" else None


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    file = _file(path)
    return None if file is None else file.name


def read(path: Path) -> Capture:
    """Read the heads of all frames of a stream."""
    file = _file(path)
    size = check_file(file, None)
    with file.open("rb") as stream:
        head = _read_head(stream, file)
        poses, places = _read_frame_heads(stream, file, head, size)

    def read_frames(indices: Sequence[int]) -> Iterator[np.ndarray]:
        with file.open("rb") as stream:
            for index in indices:
                start, length, _ = places[index]
                yield _read_colour(_take(stream, start, length), head, f"{file}, frame {index}")

    def read_depth(index: int) -> np.ndarray:
        start, colour_length, length = places[index]
        with file.open("rb") as stream:
            content = _take(stream, start + colour_length, length)
        return _read_depth(content, head, f"{file}, frame {index}")

    has_depth = places[:, 2].any()
    if has_depth and len(empty := np.flatnonzero(places[:, 2] == 0)):
        raise ValueError(f"{file} lacks the depth of {len(empty)} frames, such as {empty[0]}. Get the file again.")
    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(f"{index:06d}" for index in range(head.num_frames)),
        read_frames=read_frames,
        read_depth=read_depth if has_depth else None,
        intrinsics=np.repeat(head.intrinsics[None], head.num_frames, 0),
        camera_size=head.colour_size,
        camera_to_world=poses,
    )


def _take(stream: BinaryIO, start: int, length: int) -> bytes:
    stream.seek(start)
    return stream.read(length)


def _read_head(stream: BinaryIO, file: Path) -> _Head:
    def unpack(kinds: str) -> tuple:
        layout = struct.Struct(f"<{kinds}")
        content = stream.read(layout.size)
        if len(content) < layout.size:
            raise ValueError(f"{file} ends within its head. It is no .sens file, or was not copied whole.")
        return layout.unpack(content)

    version, name_length = unpack("IQ")
    if version != _VERSION or name_length > _MAX_NAME:
        raise ValueError(
            f"{file} must be a .sens file of version {_VERSION}, got version {version}. Is it another file?"
        )
    stream.seek(name_length, io.SEEK_CUR)
    matrices = np.array(unpack("64f")).reshape(4, 4, 4)
    colour_kind, depth_kind, *sides = unpack("2i4I")
    steps, num_frames = unpack("fQ")
    if colour_kind not in (_COLOUR_RAW, *_COLOUR_PICTURES) or depth_kind not in (_DEPTH_RAW, _DEPTH_ZLIB):
        raise ValueError(
            f"{file} has colour of kind {colour_kind} and depth of kind {depth_kind}; read are 0 (raw), 1 (PNG) and 2 "
            "(JPEG), and 0 (raw) and 1 (zlib). Export it by ScanNet's SensReader, and open the export."
        )
    if max(sides) > _MAX_SIDE or not 0 < steps < 1e6:
        raise ValueError(f"{file} announces pictures of {sides} pixels and {steps} steps in a metre. Is it damaged?")
    for what, extrinsics in (("colour", matrices[1]), ("depth", matrices[3])):
        if not np.allclose(extrinsics, np.eye(4), atol=1e-3):
            raise ValueError(
                f"{file}: the extrinsics of {what} are not the identity, so depth and colour differ in their view. "
                "Export it by ScanNet's SensReader and register the depth."
            )
    sizes = (sides[1], sides[0]), (sides[3], sides[2])
    return _Head(matrices[0, :3, :3], colour_kind, depth_kind, *sizes, steps, num_frames)


def _read_frame_heads(stream: BinaryIO, file: Path, head: _Head, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return poses (V, 4, 4), and start of colour, length of colour and length of depth (V, 3) in bytes."""
    if head.num_frames * _FRAME_HEAD.size > size or not head.num_frames:
        raise ValueError(
            f"{file} announces {head.num_frames} frames, which its {size} bytes do not hold. Copy it again."
        )
    poses, places = [], []
    for index in range(head.num_frames):
        content = stream.read(_FRAME_HEAD.size)
        if len(content) < _FRAME_HEAD.size:
            raise ValueError(f"{file} ends before frame {index} of {head.num_frames}. It was not copied whole.")
        *pose, _, _, colour, depth = _FRAME_HEAD.unpack(content)
        start = stream.tell()
        if start + colour + depth > size:
            raise ValueError(f"{file} ends within frame {index} of {head.num_frames}. It was not copied whole.")
        poses.append(np.array(pose).reshape(4, 4))
        places.append((start, colour, depth))
        stream.seek(start + colour + depth)
    return np.stack(poses), np.array(places, np.int64)


def _read_colour(content: bytes, head: _Head, where: str) -> np.ndarray:
    height, width = head.colour_size
    if head.colour_kind == _COLOUR_RAW:
        if len(content) != height * width * 3:
            raise ValueError(f"{where} must hold {height * width * 3} bytes of colour, it has {len(content)}.")
        return np.frombuffer(content, np.uint8).reshape(height, width, 3)
    picture = read_image(content, where)
    if picture.shape[:2] != (height, width):
        raise ValueError(f"{where} must be a picture of {height} x {width}, as announced, got {picture.shape[:2]}.")
    return picture


def _read_depth(content: bytes, head: _Head, where: str) -> np.ndarray:
    """Return depth in metres, after its declared size is checked."""
    height, width = head.depth_size
    wanted = height * width * 2
    check_bound(wanted, "IDE3D_MAX_UNPACKED_BYTES", where)
    if head.depth_kind == _DEPTH_ZLIB:
        try:
            content = zlib.decompressobj().decompress(content, wanted + 1)
        except zlib.error as error:
            raise ValueError(f"{where}: depth is no whole zlib stream, get the file again: {error}.") from error
    if len(content) != wanted:
        raise ValueError(f"{where} must hold {wanted} bytes of depth, it has {len(content)}. Get the file again.")
    steps = np.frombuffer(content, "<u2").reshape(height, width)
    check_steps(steps[None], Path(where))
    return (steps / head.steps_per_metre).astype(np.float32)
