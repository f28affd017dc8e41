"""Files of COLMAP's models: cameras, registered pictures and points, text or binary; dense depth maps.

Source: colmap.github.io/format.html and colmap's `src/colmap/scene/reconstruction_io.cc`:

    cameras.txt / .bin: id, model, width, height, parameters. images.txt / .bin: id, quaternion w x y z and translation
    of world to camera, camera id, name; behind each the keypoints x, y and the id of the point they show.
    points3D.txt / .bin: id, position, colour, reprojection error, and the pictures that show it. Rigs and frames are
    not read. stereo/depth_maps/*.bin: width, height and 1 in digits, each before an &, then float32 row by row.
    Axes are x right, y down, z forward. The corner of the picture is (0, 0) and the middle of its first pixel
    (0.5, 0.5), so that our principal point is half a pixel less.

Each size is checked before it is believed: pycolmap 4.2 reads on for ever where `points3D.bin` is cut.
"""

import re
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from processing.captures.tables import number
from processing.limits import check_file
from processing.scene_names import check_name

__all__ = [
    "PLACES",
    "ColmapCamera",
    "ColmapImage",
    "ColmapPoints",
    "find_model",
    "read_depth_map",
    "read_model",
    "read_points",
]

PLACES = ("", "sparse/0", "sparse")  # of a model, below the folder of its scene

# Models by number: name and number of parameters. The first parameters are f, cx, cy or fx, fy, cx, cy.
_MODELS = {
    0: ("SIMPLE_PINHOLE", 3), 1: ("PINHOLE", 4), 2: ("SIMPLE_RADIAL", 4), 3: ("RADIAL", 5), 4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8), 6: ("FULL_OPENCV", 12), 7: ("FOV", 5), 8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5), 10: ("THIN_PRISM_FISHEYE", 12),
}  # fmt: skip
_COUNTS = dict(_MODELS.values())
_ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
_PINHOLE = ("SIMPLE_PINHOLE", "PINHOLE")
_KEYPOINT = np.dtype([("pixel", "<f8", 2), ("point", "<i8")])  # -1: of no point
_MAX_NAME = 1000  # Bytes.
_MAX_ID = 2**53  # Above, float64 skips whole numbers.


@dataclass(frozen=True)
class ColmapCamera:
    """Camera of a model.

    Args:
        model: Name of COLMAP's camera model, such as "OPENCV".
        size: Height and width of its pictures in pixels.
        parameters: Parameters in COLMAP's order: focal lengths, principal point from the corner, distortion.
    """

    model: str
    size: tuple[int, int]
    parameters: np.ndarray

    @property
    def intrinsics(self) -> np.ndarray:
        """Camera (3, 3) whose integer coordinates are pixel centres."""
        first = 1 if self.model in _ONE_FOCAL else 2
        focal, centre = np.resize(self.parameters[:first], 2), self.parameters[first : first + 2] - 0.5
        return np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]])

    @property
    def is_straight(self) -> bool:
        """Whether its lens has no distortion."""
        bends = self.parameters[3 if self.model in _ONE_FOCAL else 4 :]
        return self.model in _PINHOLE or ("FISHEYE" not in self.model and not bends.any())


@dataclass(frozen=True)
class ColmapImage:
    """Registered picture of a model.

    Args:
        name: Path of its file, which stays inside the folder of pictures.
        camera: Number of its camera.
        world_to_camera: Pose (4, 4) in the unit of the model, OpenCV axes.
        points: Ids (N,) of the points that it shows; empty where they were not asked for.
    """

    name: str
    camera: int
    world_to_camera: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class ColmapPoints:
    """Points of a model in the order of their ids.

    Args:
        ids: Ids (P,), ascending.
        positions: Positions (P, 3) in the world, in the unit of the model.
        errors: Reprojection errors (P,) in pixels; negative where none was computed.
        num_views: Number of keypoints (P,) that show the point.
    """

    ids: np.ndarray
    positions: np.ndarray
    errors: np.ndarray
    num_views: np.ndarray

    def find_rows(self, ids: np.ndarray, where: Path) -> np.ndarray:
        """Return the rows (N,) of the points with these ids (N,); raise ValueError for an unknown one."""
        rows = np.searchsorted(self.ids, ids)
        is_known = rows < len(self.ids)
        is_known[is_known] = self.ids[rows[is_known]] == ids[is_known]
        if not is_known.all():
            raise ValueError(
                f"{where}: pictures show the points {ids[~is_known][:4].tolist()}, which points3D lacks. Copy the "
                "files of one model."
            )
        return rows


def find_model(folder: Path, places: Sequence[str] = PLACES) -> tuple[Path, str] | None:
    """Find a model; return its folder and the ending of its files, ".bin" or ".txt"."""
    for place in places:
        for ending in (".bin", ".txt"):
            if all((folder / place / f"{name}{ending}").is_file() for name in ("cameras", "images")):
                return folder / place, ending
    return None


def read_model(
    model: Path, ending: str, *, has_points: bool = False
) -> tuple[dict[int, ColmapCamera], list[ColmapImage]]:
    """Read the cameras of a model by number, and its registered pictures.

    Args:
        model: Folder of the model.
        ending: Ending of its files, see `find_model`.
        has_points: Whether the points that each picture shows are read too.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is cut off, longer than it says or too large. Also if there are no pictures, or one has a
            broken pose, an unknown camera, or a name that leads out of its folder. Or if a camera is none of COLMAP's.
    """
    is_binary = ending == ".bin"
    cameras = (_binary_cameras if is_binary else _text_cameras)(model / f"cameras{ending}")
    images = (_binary_images if is_binary else _text_images)(model / f"images{ending}", has_points)
    if not images:
        raise ValueError(f"{model / f'images{ending}'} names no pictures: nothing was registered.")
    if unknown := {image.camera for image in images}.difference(cameras):
        raise ValueError(
            f"{model / f'images{ending}'}: pictures have the cameras {sorted(unknown)}, which cameras{ending} lacks."
        )
    return cameras, images


def read_points(model: Path, ending: str) -> ColmapPoints:
    """Read the points of a model.

    Args:
        model: Folder of the model.
        ending: Ending of its files, see `find_model`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is cut off, longer than it says or too large, or has a position that is not finite.
    """
    file = model / f"points3D{ending}"
    ids, numbers = array("q"), array("d")
    for point, *values in (_binary_points if ending == ".bin" else _text_points)(file):
        ids.append(point)
        numbers.extend(values)
    order = np.argsort(ids)
    table = np.array(numbers).reshape(-1, 5)[order]
    if not np.isfinite(table[:, :4]).all():
        raise ValueError(f"{file} holds points that are not finite. Reconstruct again.")
    return ColmapPoints(np.array(ids)[order], table[:, :3], table[:, 3], table[:, 4].astype(int))


def read_depth_map(file: Path) -> np.ndarray:
    """Read a dense depth map.

    Returns:
        Depth (h, w), float32, in the unit of the model. A value that is not finite or not above 0 is no depth.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no depth map, not as long as it says, or too large.
    """
    check_file(file)
    content = file.read_bytes()
    header = re.match(rb"(\d{1,6})&(\d{1,6})&1&", content)
    if header is None:
        raise ValueError(f"{file} must be a depth map of COLMAP, which begins with WIDTH&HEIGHT&1&. Make it again.")
    width, height = int(header[1]), int(header[2])
    expected = header.end() + 4 * width * height
    if len(content) != expected:
        raise ValueError(
            f"{file} must have {expected} bytes for a depth map of {width} x {height} px, got {len(content)}. Copy it "
            "again."
        )
    return np.frombuffer(content, "<f4", offset=header.end()).reshape(height, width)


def _camera(model: str, width: float, height: float, parameters: Sequence[float], where: str) -> ColmapCamera:
    if model not in _COUNTS:
        raise ValueError(
            f"{where}: camera models read are {', '.join(_COUNTS)}, got {model!r:.40}. Undistort them first."
        )
    if len(parameters) != _COUNTS[model] or not np.isfinite(parameters).all():
        raise ValueError(f"{where}: {model} has {_COUNTS[model]} finite parameters, got {list(parameters)!r:.100}.")
    if not (0 < width < 2**20 and 0 < height < 2**20):
        raise ValueError(f"{where}: pictures of {width} x {height} pixels are none. Is the file damaged?")
    return ColmapCamera(model, (int(height), int(width)), np.array(parameters, np.float64))


def _pose(numbers: Sequence[float], where: str) -> np.ndarray:
    """Return world to camera (4, 4) from a quaternion w x y z and a translation."""
    quaternion = np.array([*numbers[1:4], numbers[0]])
    if not abs(np.linalg.norm(quaternion) - 1) <= 0.01 or not np.isfinite(numbers).all():
        raise ValueError(f"{where}: a pose must be a unit quaternion and a translation, got {list(numbers)!r:.120}.")
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_quat(quaternion).as_matrix(), numbers[4:]
    return pose


class _Bytes:
    """Contents of a binary file in order; reading beyond its end is an error."""

    def __init__(self, file: Path):
        check_file(file)
        self.file, self.content, self.place = file, file.read_bytes(), 0

    def take(self, kinds: str) -> tuple[Any, ...]:
        layout = struct.Struct(f"<{kinds}")
        self.skip(layout.size)
        return layout.unpack_from(self.content, self.place - layout.size)

    def take_array(self, kind: np.dtype, count: int) -> np.ndarray:
        self.skip(kind.itemsize * count)
        return np.frombuffer(self.content, kind, count, self.place - kind.itemsize * count)

    def skip(self, count: int) -> None:
        if self.place + count > len(self.content):
            raise ValueError(f"{self.file} ends within an entry. It was not copied whole, or is another file.")
        self.place += count

    def take_text(self) -> str:
        end = self.content.find(b"\0", self.place, self.place + _MAX_NAME + 1)
        if end < 0:
            raise ValueError(f"{self.file} holds no name of a picture at byte {self.place}. Is it another file?")
        text, self.place = self.content[self.place : end], end + 1
        return text.decode("utf-8", "surrogateescape")

    def check_end(self) -> None:
        if self.place != len(self.content):
            raise ValueError(
                f"{self.file} has {len(self.content) - self.place} bytes behind its last entry. Copy it again."
            )


def _binary_cameras(file: Path) -> dict[int, ColmapCamera]:
    data, cameras = _Bytes(file), {}
    for _ in range(data.take("Q")[0]):
        name, model, width, height = data.take("2i2Q")
        if model not in _MODELS:
            raise ValueError(
                f"{file}: camera models read are numbers 0 to {max(_MODELS)}, got {model}. Undistort them first."
            )
        kind, count = _MODELS[model]
        cameras[name] = _camera(kind, width, height, data.take(f"{count}d"), f"{file}, camera {name}")
    data.check_end()
    return cameras


def _binary_images(file: Path, has_points: bool) -> list[ColmapImage]:
    data, images = _Bytes(file), []
    for _ in range(data.take("Q")[0]):
        number, *pose, camera = data.take("I7dI")
        name, pose = check_name(data.take_text(), "file", str(file)), _pose(pose, f"{file}, picture {number}")
        shown = data.take_array(_KEYPOINT, data.take("Q")[0])["point"]
        images.append(ColmapImage(name, camera, pose, shown[shown >= 0] if has_points else shown[:0].copy()))
    data.check_end()
    return images


def _binary_points(file: Path) -> Iterator[tuple[float, ...]]:
    """Yield id, position, error and number of views of each point."""
    data = _Bytes(file)
    for _ in range(data.take("Q")[0]):
        name, x, y, z, _, _, _, error, views = data.take("q3d3BdQ")
        data.skip(8 * views)
        yield name, x, y, z, error, views
    data.check_end()


def _lines(file: Path) -> list[str]:
    check_file(file, "IDE3D_MAX_JSON_BYTES")
    try:
        return [line for line in file.read_text(encoding="utf-8-sig").splitlines() if not line.startswith("#")]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be text in UTF-8: {error}.") from error


def _whole(value: float, file: Path) -> int:
    if not value.is_integer() or abs(value) > _MAX_ID:
        raise ValueError(f"{file}: ids are whole numbers, got {value}. Write the file again.")
    return int(value)


def _text_cameras(file: Path) -> dict[int, ColmapCamera]:
    cameras = {}
    for line in filter(str.strip, _lines(file)):
        name, model, *rest = [*line.split(), "", ""]
        values = [number(entry, file) for entry in (name, *filter(None, rest))]
        if len(values) < 3:
            raise ValueError(f"{file} must hold id, model, width, height and parameters in a line, got {line[:80]!r}.")
        cameras[_whole(values[0], file)] = _camera(model, values[1], values[2], values[3:], f"{file}, camera {name}")
    return cameras


def _text_images(file: Path, has_points: bool) -> list[ColmapImage]:
    """Return the pictures; every second line holds keypoints."""
    images, lines = [], [*_lines(file), ""]
    for line, keypoints in zip(lines[::2], lines[1::2], strict=False):
        entries = line.split(maxsplit=9)
        if not entries:
            continue
        if len(entries) != 10:
            raise ValueError(f"{file} must hold id, pose, camera and name in a line, got {line[:80]!r}.")
        values = [number(entry, file) for entry in entries[:9]]
        pose = _pose(values[1:8], f"{file}, picture {entries[0]}")
        shown = _text_keypoints(keypoints, file) if has_points else []
        points = np.array([point for point in shown if point >= 0], np.int64)
        images.append(ColmapImage(check_name(entries[9], "file", str(file)), _whole(values[8], file), pose, points))
    return images


def _text_keypoints(line: str, file: Path) -> list[int]:
    """Return the id of the point that each keypoint shows; -1 for none."""
    entries = line.split()
    if len(entries) % 3:
        raise ValueError(f"{file} must hold x, y and a point for each keypoint of a line, got {line[:80]!r}.")
    return [_whole(number(entry, file), file) for entry in entries[2::3]]


def _text_points(file: Path) -> Iterator[tuple[float, ...]]:
    """Yield id, position, error and number of views of each point."""
    for line in filter(str.strip, _lines(file)):
        entries = line.split()
        if len(entries) < 8 or len(entries) % 2:
            raise ValueError(f"{file} must hold id, position, colour, error and views in a line, got {line[:80]!r}.")
        name, x, y, z, *_, error = [number(entry, file) for entry in entries[:8]]
        yield _whole(name, file), x, y, z, error, (len(entries) - 8) // 2
