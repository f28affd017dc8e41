"""`.r3d` of the app Record3D: a zip archive, or the folder that it unpacks to.

Source: record3d.app, "Exporting"; the reader of the app's author (github.com/marek-simonik/record3d); nerfstudio's
`record3d_utils.py`:

    metadata: JSON; w, h: size of the pictures; dw, dh: size of the depth maps; K: 9 numbers by columns, of w x h
        pixels. perFrameIntrinsicCoeffs: fx, fy, cx, cy of each frame, preferred to K. poses: x, y, z, w, tx, ty, tz of
        each frame, camera to world, metres. Axes are OpenGL's (ARKit's), of the picture as it is stored.
    rgbd/N.jpg; rgbd/N.depth: LZFSE of float32, dw x dh, metres along z, NaN = no measurement; rgbd/N.conf is not read.

Apple counts the principal point from the corner of the picture, so that ours is half a pixel less.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from processing.captures.capture import Capture
from processing.captures.tables import make_poses
from processing.image_reading_ide3d import read_image
from processing.limits import check_archive, check_bound, check_file, parse_json
from processing.pose_rules import convert_poses

__all__ = ["LOOKED_FOR", "NAME", "declared_size", "read", "recognise"]

NAME = "record3d"
LOOKED_FOR = "a file .r3d, or a folder with metadata and rgbd/0.jpg"

_MAX_SIDE = 2**14  # Pixels.
_SLACK = 4096  # Bytes that a packed map may have beyond the plain one.


class _Files:
    """Members of an archive, or files of a folder."""

    def __init__(self, path: Path):
        self.path = path
        if path.is_file():
            check_archive(path, is_npz=False)
            with zipfile.ZipFile(path) as archive:
                self.names = {member.filename for member in archive.infolist()}
        else:
            pictures = path / "rgbd"
            self.names = {f"rgbd/{entry.name}" for entry in pictures.iterdir()} if pictures.is_dir() else set()
            self.names |= {"metadata"} if (path / "metadata").exists() else set()

    def read(self, name: str) -> bytes:
        """Return the contents of one file."""
        if name not in self.names:
            raise FileNotFoundError(f"{self.path} lacks {name}. Was the recording copied whole?")
        if self.path.is_dir():
            check_file(self.path / name)
            return (self.path / name).read_bytes()
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(name)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
            raise ValueError(f"{self.path}, {name}, cannot be unpacked, copy it again: {error}.") from error


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    if path.is_file():
        return path.name if path.suffix == ".r3d" else None
    is_there = (path / "metadata").is_file() and (path / "rgbd" / "0.jpg").is_file()
    return "metadata, rgbd/0.jpg" if is_there else None


def read(path: Path) -> Capture:
    """Read cameras and poses of a recording."""
    files = _Files(path)
    metadata = parse_json(files.read("metadata"), f"{path}, metadata")
    if not isinstance(metadata, dict):
        raise ValueError(f"{path}, metadata, must be an object of JSON, got {type(metadata).__name__}.")
    numbers = sorted(
        int(name[5:-4])
        for name in files.names
        if name.startswith("rgbd/") and name.endswith(".jpg") and name[5:-4].isdigit()
    )
    if not numbers:
        raise FileNotFoundError(f"{path} holds no pictures. Expected rgbd/0.jpg and so on.")
    if numbers != list(range(len(numbers))):
        raise ValueError(
            f"{path}: pictures must be numbered from 0 on without a gap, as poses are, got {numbers[:5]}..."
        )
    poses = _read_poses(metadata, len(numbers), path)
    has_depth = [f"rgbd/{index}.depth" in files.names for index in numbers]
    if any(has_depth) and not all(has_depth):
        lost = has_depth.index(False)
        raise FileNotFoundError(f"{path} lacks the depth of frames, such as rgbd/{lost}.depth. Was it copied whole?")

    def read_frames(indices: Sequence[int]) -> Iterator[np.ndarray]:
        for index in indices:
            yield read_image(files.read(f"rgbd/{index}.jpg"), f"{path}, rgbd/{index}.jpg")

    def read_depth(index: int) -> np.ndarray:
        size = _size(metadata, ("dh", "dw"), path)
        depth = _unpack(files.read(f"rgbd/{index}.depth"), size, f"{path}, rgbd/{index}.depth")
        return np.where(np.isnan(depth), np.float32(0), depth)

    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(map(str, numbers)),
        read_frames=read_frames,
        read_depth=read_depth if any(has_depth) else None,
        intrinsics=_read_cameras(metadata, len(numbers), path),
        camera_size=_size(metadata, ("h", "w"), path),
        camera_to_world=poses,
    )


def _size(metadata: Mapping[str, Any], keys: tuple[str, str], path: Path) -> tuple[int, int]:
    values = tuple(metadata.get(key) for key in keys)
    if not all(isinstance(value, int) and 0 < value <= _MAX_SIDE for value in values):
        raise ValueError(f"{path}, metadata: `{keys[0]}` and `{keys[1]}` must be pixels, got {values}.")
    return values


def _table(metadata: Mapping[str, Any], key: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    try:
        table = np.array(metadata[key], np.float64)
    except (TypeError, ValueError):
        table = np.zeros(0)
    if table.shape != shape:
        wanted = " x ".join(map(str, shape))
        raise ValueError(
            f"{path}, metadata: `{key}` must hold {wanted} numbers, one row a picture, got an array {table.shape}."
        )
    return table


def _read_poses(metadata: Mapping[str, Any], count: int, path: Path) -> np.ndarray | None:
    if not metadata.get("poses"):
        return None
    table = _table(metadata, "poses", (count, 7), path)
    return convert_poses(make_poses(table[:, 4:], table[:, :4], path), "opengl")


def _read_cameras(metadata: Mapping[str, Any], count: int, path: Path) -> np.ndarray:
    if metadata.get("perFrameIntrinsicCoeffs"):
        numbers = _table(metadata, "perFrameIntrinsicCoeffs", (count, 4), path)
    else:
        numbers = np.repeat(_table(metadata, "K", (9,), path)[[0, 4, 6, 7]][None], count, 0)
    cameras = np.tile(np.eye(3), (count, 1, 1))
    cameras[:, [0, 1], [0, 1]], cameras[:, :2, 2] = numbers[:, :2], numbers[:, 2:] - 0.5
    return cameras


def _unpack(content: bytes, size: tuple[int, int], where: str) -> np.ndarray:
    """Return float32 (dh, dw), after the size that the packed blocks declare is checked."""
    wanted = size[0] * size[1] * 4
    check_bound(wanted, "IDE3D_MAX_UNPACKED_BYTES", where)
    if len(content) > wanted + _SLACK or declared_size(content, where) != wanted:
        raise ValueError(f"{where} must unpack to {wanted} bytes, {size[0]} x {size[1]} float32. Is it another file?")
    try:
        import liblzfse
    except ImportError as error:
        raise ImportError("Depth of Record3D is packed by LZFSE: `pip install pyliblzfse`.") from error
    try:
        plain = liblzfse.decompress(content)
    except liblzfse.error as error:
        raise ValueError(f"{where} is no whole LZFSE stream, copy it again.") from error
    if len(plain) != wanted:
        raise ValueError(f"{where} must unpack to {wanted} bytes, it has {len(plain)}. Copy it again.")
    return np.frombuffer(plain, "<f4").reshape(size)


def declared_size(content: bytes, where: str) -> int:
    """Return how many bytes the blocks of an LZFSE stream say they unpack to.

    Source: `lzfse_internal.h` of Apple's reference implementation: every block begins with a mark of four bytes and
    the size of its plain bytes.

    Raises:
        ValueError: It is no such stream.
    """
    total = place = 0
    while (mark := content[place : place + 4]) != b"bvx$":
        plain = int.from_bytes(content[place + 4 : place + 8], "little")
        if mark == b"bvx-":
            length = 8 + plain
        elif mark == b"bvxn":
            length = 12 + int.from_bytes(content[place + 8 : place + 12], "little")
        elif mark == b"bvx2":
            fields = [int.from_bytes(content[place + 8 * k : place + 8 * k + 8], "little") for k in (1, 2, 3)]
            length = (fields[2] & 0xFFFFFFFF) + (fields[0] >> 20 & 0xFFFFF) + (fields[1] >> 40 & 0xFFFFF)
        else:
            raise ValueError(f"{where} is no whole LZFSE stream: no block begins at byte {place}. Copy it again.")
        if length < 8:
            raise ValueError(f"{where} is no whole LZFSE stream: the block at byte {place} is damaged. Copy it again.")
        total, place = total + plain, place + length
    return total
