"""COLMAP's models: cameras and poses of pictures, text or binary, beside a folder `images`.

Source: colmap.github.io/format.html and colmap's `src/colmap/scene/reconstruction_io.cc`:

    cameras.txt / .bin: id, model, width, height, parameters. images.txt / .bin: id, quaternion w x y z and translation
    of world to camera, camera id, name; behind each the points it sees, which are not read, nor are points3D, rigs and
    frames.
    Axes are x right, y down, z forward. The corner of the picture is (0, 0) and the middle of its first pixel
    (0.5, 0.5), so that our principal point is half a pixel less.

Lengths have a unit of their own unless the model was aligned with measured places; `scale` gives its metres. Lenses
with distortion are moved to the pinhole camera of the same focal lengths by pycolmap's camera models. The files are
read here, each size checked first: pycolmap 4.2 reads on for ever where `points3D.bin` is cut.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from processing.captures.capture import Capture
from processing.captures.pictures import picture_reader
from processing.captures.tables import number
from processing.captures.undistortion import Undistorter
from processing.frame_order_ide3d import natural_key
from processing.limits import check_file
from processing.scene_names import check_name

__all__ = ["LOOKED_FOR", "NAME", "check_model", "read", "recognise"]

NAME = "colmap"
LOOKED_FOR = "cameras.bin and images.bin (or .txt), there or in sparse/0, beside a folder images"

# Models by number: name and number of parameters. The first parameters are f, cx, cy or fx, fy, cx, cy.
_MODELS = {
    0: ("SIMPLE_PINHOLE", 3), 1: ("PINHOLE", 4), 2: ("SIMPLE_RADIAL", 4), 3: ("RADIAL", 5), 4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8), 6: ("FULL_OPENCV", 12), 7: ("FOV", 5), 8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5), 10: ("THIN_PRISM_FISHEYE", 12),
}  # fmt: skip
_COUNTS = dict(_MODELS.values())
_ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
_PINHOLE = ("SIMPLE_PINHOLE", "PINHOLE")
_PLACES = ("", "sparse/0", "sparse")  # of the model, below the given folder
_MAX_NAME = 1000  # Bytes.


@dataclass(frozen=True)
class _Camera:
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
        bends = self.parameters[3 if self.model in _ONE_FOCAL else 4 :]
        return self.model in _PINHOLE or ("FISHEYE" not in self.model and not bends.any())

    def undistorter(self) -> Undistorter:
        """Return what moves pictures of this lens to a pinhole camera."""
        try:
            import pycolmap
        except ImportError as error:
            raise ImportError(
                f"Pictures of the camera model {self.model} are undistorted by pycolmap: `pip install pycolmap`, or "
                "run `colmap image_undistorter` and open its output."
            ) from error
        camera = pycolmap.Camera(
            model=self.model, width=self.size[1], height=self.size[0], params=self.parameters.tolist()
        )
        focal, centre = self.intrinsics[[0, 1], [0, 1]], self.intrinsics[:2, 2] + 0.5

        def lens(points: np.ndarray) -> np.ndarray:
            rays = np.concatenate([points, np.ones((len(points), 1))], 1)
            return (camera.img_from_cam(rays) - centre) / focal

        return Undistorter(lens, self.intrinsics, self.size)


def _find(path: Path) -> tuple[Path, str] | None:
    """Return the folder of the model and the ending of its files."""
    for place in _PLACES:
        for ending in (".bin", ".txt"):
            if all((path / place / f"{name}{ending}").is_file() for name in ("cameras", "images")):
                return path / place, ending
    return None


def check_model(folder: Path) -> None:
    """Check that binary files of a model are as long as they say.

    To be called before pycolmap reads them: version 4.2 takes cameras that are cut off for whole ones, and may read a
    cut `points3D.bin` on for ever.

    Raises:
        ValueError: If a file is cut off, longer than it says, or larger than the limit.
    """
    for name, walk in (("cameras", _binary_cameras), ("images", _binary_views), ("points3D", _walk_points)):
        if (folder / f"{name}.bin").is_file():
            walk(folder / f"{name}.bin")


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    found = _find(path)
    return None if found is None else f"cameras{found[1]}, images{found[1]} in {found[0].name}"


def read(path: Path) -> Capture:
    """Read cameras, poses and names of the registered pictures, in natural order of the names."""
    model, ending = _find(path)
    cameras = (_binary_cameras if ending == ".bin" else _text_cameras)(model / f"cameras{ending}")
    views = (_binary_views if ending == ".bin" else _text_views)(model / f"images{ending}")
    if not views:
        raise ValueError(f"{model / f'images{ending}'} names no pictures: nothing was registered.")
    views = sorted(views, key=lambda view: natural_key(view[2]))
    pictures = _find_pictures(path, model)
    files = [pictures / check_name(name, "file", str(model / f"images{ending}")) for _, _, name in views]
    if missing := [file.name for file in files if not file.exists()]:
        raise FileNotFoundError(
            f"{pictures} lacks {len(missing)} of {len(files)} pictures of the model, such as {missing[0]}. Copy them."
        )
    if unknown := {number for _, number, _ in views}.difference(cameras):
        raise ValueError(f"{model}: pictures have the cameras {sorted(unknown)}, which cameras{ending} lacks.")
    used = [cameras[number] for _, number, _ in views]
    sizes = {camera.size for camera in used}
    if len(sizes) > 1:
        raise ValueError(
            f"{model}: pictures must have one size, got {sorted(sizes)} (height, width). Split the model."
        )
    is_straight = all(camera.is_straight for camera in used)
    others = sorted(place.name for place in model.parent.glob("[0-9]*")) if model.name == "0" else []
    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(Path(name).with_suffix("").as_posix() for _, _, name in views),
        read_frames=_straightened([number for _, number, _ in views], cameras, picture_reader(files)),
        intrinsics=np.stack([camera.intrinsics for camera in used]),
        camera_size=sizes.pop(),
        camera_to_world=np.linalg.inv(np.stack([pose for pose, _, _ in views])),
        is_metric=False,
    ).with_notes(
        "" if is_straight else "pictures are distorted; they are moved to a pinhole camera of the same focal lengths.",
        f"of the models {', '.join(others)} the first is read." if len(others) > 1 else "",
    )


def _find_pictures(path: Path, model: Path) -> Path:
    places = [path, *model.parents[:3]] if model != path else [path, *path.resolve().parents[:2]]
    for place in places:
        if (place / "images").is_dir():
            return place / "images"
    raise FileNotFoundError(f"{path} has no folder `images` beside its model. Put the pictures of the model there.")


def _straightened(
    numbers: Sequence[int], cameras: dict[int, _Camera], read_frames: Callable[[Sequence[int]], Iterator[np.ndarray]]
) -> Callable[[Sequence[int]], Iterator[np.ndarray]]:
    def read(indices: Sequence[int]) -> Iterator[np.ndarray]:
        movers: dict[int, Undistorter] = {}
        for index, picture in zip(indices, read_frames(indices), strict=True):
            camera = cameras[numbers[index]]
            if not camera.is_straight:
                if numbers[index] not in movers:
                    movers = {numbers[index]: camera.undistorter()}
                picture = movers[numbers[index]].move_picture(picture)
            yield picture

    return read


def _camera(model: str, width: float, height: float, parameters: Sequence[float], where: str) -> _Camera:
    if model not in _COUNTS:
        raise ValueError(
            f"{where}: camera models read are {', '.join(_COUNTS)}, got {model!r:.40}. Undistort them first."
        )
    if len(parameters) != _COUNTS[model] or not np.isfinite(parameters).all():
        raise ValueError(f"{where}: {model} has {_COUNTS[model]} finite parameters, got {list(parameters)!r:.100}.")
    if not (0 < width < 2**20 and 0 < height < 2**20):
        raise ValueError(f"{where}: pictures of {width} x {height} pixels are none. Is the file damaged?")
    return _Camera(model, (int(height), int(width)), np.array(parameters, np.float64))


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


def _binary_cameras(file: Path) -> dict[int, _Camera]:
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


def _binary_views(file: Path) -> list[tuple[np.ndarray, int, str]]:
    data, views = _Bytes(file), []
    for _ in range(data.take("Q")[0]):
        name, *pose, camera = data.take("I7dI")
        text = data.take_text()
        views.append((_pose(pose, f"{file}, picture {name}"), camera, text))
        data.skip(24 * data.take("Q")[0])
    data.check_end()
    return views


def _walk_points(file: Path) -> None:
    """Check that a file ends with its last point: id, position, colour, error, views."""
    data = _Bytes(file)
    for _ in range(data.take("Q")[0]):
        data.skip(8 * data.take("Q3d3BdQ")[-1])
    data.check_end()


def _lines(file: Path) -> list[str]:
    check_file(file, "IDE3D_MAX_JSON_BYTES")
    try:
        return [line for line in file.read_text(encoding="utf-8-sig").splitlines() if not line.startswith("#")]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be text in UTF-8: {error}.") from error


def _whole(value: float, file: Path) -> int:
    if not value.is_integer():
        raise ValueError(f"{file}: ids are whole numbers, got {value}. Write the file again.")
    return int(value)


def _text_cameras(file: Path) -> dict[int, _Camera]:
    cameras = {}
    for line in filter(str.strip, _lines(file)):
        name, model, *rest = [*line.split(), "", ""]
        values = [number(entry, file) for entry in (name, *filter(None, rest))]
        if len(values) < 3:
            raise ValueError(f"{file} must hold id, model, width, height and parameters in a line, got {line[:80]!r}.")
        cameras[_whole(values[0], file)] = _camera(model, values[1], values[2], values[3:], f"{file}, camera {name}")
    return cameras


def _text_views(file: Path) -> list[tuple[np.ndarray, int, str]]:
    """Return pose, camera and name of each picture; every second line holds points."""
    views = []
    for line in _lines(file)[::2]:
        entries = line.split(maxsplit=9)
        if not entries:
            continue
        if len(entries) != 10:
            raise ValueError(f"{file} must hold id, pose, camera and name in a line, got {line[:80]!r}.")
        values = [number(entry, file) for entry in entries[:9]]
        views.append((_pose(values[1:8], f"{file}, picture {entries[0]}"), _whole(values[8], file), entries[9]))
    return views
