"""nerfstudio's `transforms.json`, also as ScanNet++ has it beside its pictures.

Source: docs.nerf.studio, "Data conventions"; nerfstudio's `nerfstudio_dataparser.py` and `cameras.py`; the ScanNet++
documentation of `dslr/nerfstudio` and `iphone/nerfstudio`:

    transform_matrix: camera to world, 4 x 4, OpenGL axes (x right, y up, z backward). `applied_transform` is undone,
        and `applied_scale` divided out, so that the world is the one before nerfstudio.
    fl_x, fl_y, cx, cy, w, h: pixels of the picture, for all frames or for each; rays go through the middle of a pixel
        at (u + 0.5, v + 0.5), so that our principal point is half a pixel less. `camera_angle_x` of older files is the
        horizontal angle, with the principal point in the middle.
    camera_model: PINHOLE, OPENCV (k1 to k4, p1, p2) or OPENCV_FISHEYE (k1 to k4); distorted pictures are moved to the
        pinhole camera of the same numbers, see `processing.captures.undistortion`.
    depth_file_path: 16-bit PNG, millimetres along z, 0 = no measurement.

Poses that come from COLMAP have a unit of their own. Lengths count as metres where the frames have depth, and in
ScanNet++.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from processing.captures.capture import Capture
from processing.captures.pictures import depth_reader, picture_reader
from processing.captures.tables import finite_number
from processing.captures.undistortion import Undistorter, fisheye_lens, radial_tangential_lens
from processing.frame_order_ide3d import natural_key
from processing.geometry_rules import find_bad_poses
from processing.image_reading_ide3d import inspect_image
from processing.limits import load_json
from processing.pose_rules import convert_poses
from processing.scene_names import check_name

__all__ = ["LOOKED_FOR", "NAME", "read", "recognise"]

NAME = "nerfstudio"
LOOKED_FOR = "transforms.json, or ScanNet++'s nerfstudio/transforms_undistorted.json or nerfstudio/transforms.json"

# ScanNet++: the file, and the folder of its pictures.
_SCANNETPP = (
    ("nerfstudio/transforms_undistorted.json", "resized_undistorted_images"),
    ("nerfstudio/transforms.json", "resized_images"),
    ("nerfstudio/transforms.json", "rgb"),
)
_ENDINGS = ("", ".png", ".jpg", ".jpeg")  # files of NeRF's first data sets leave the ending out
_PINHOLE, _OPENCV, _FISHEYE = ("PINHOLE", "SIMPLE_PINHOLE"), ("OPENCV", "perspective"), "OPENCV_FISHEYE"
_UNIT = 0.001  # Metres.


@dataclass(frozen=True)
class _Camera:
    intrinsics: np.ndarray
    size: tuple[int, int]
    model: str
    coefficients: tuple[float, ...]  # k1 to k4, p1, p2

    @property
    def is_straight(self) -> bool:
        return self.model in _PINHOLE or (self.model != _FISHEYE and not any(self.coefficients))

    def undistorter(self) -> Undistorter:
        *radial, p1, p2 = self.coefficients
        lens = fisheye_lens(radial) if self.model == _FISHEYE else radial_tangential_lens(radial, (p1, p2))
        return Undistorter(lens, self.intrinsics, self.size)


def _find(path: Path) -> tuple[Path, Path, bool] | None:
    """Return the file, the folder that its names start from, and whether it is ScanNet++'s."""
    if path.is_file():
        is_named = path.suffix == ".json" and path.name.startswith("transforms")
        return (path, path.parent, False) if is_named else None
    if (path / "transforms.json").is_file():
        return path / "transforms.json", path, False
    for name, pictures in _SCANNETPP:
        if (path / name).is_file() and (path / pictures).is_dir():
            return path / name, path / pictures, True
    return None


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    found = _find(path)
    return None if found is None else f"{found[0].name}{', ScanNet++' if found[2] else ''}"


def read(path: Path) -> Capture:
    """Read cameras, poses and names of the frames, in natural order of the names."""
    file, folder, is_scannetpp = _find(path)
    content = load_json(file)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise ValueError(f"{file} must hold a list `frames` with an object a frame. Is it another file?")
    notes = []
    if bad := sum(bool(frame.get("is_bad")) for frame in frames):
        notes.append(f"{bad} of {len(frames)} frames are marked `is_bad` and left out.")
    frames = [frame for frame in frames if not frame.get("is_bad")]
    if not frames:
        raise ValueError(f"{file}: all frames are marked `is_bad`. Nothing is left to read.")
    frames = sorted(frames, key=lambda frame: natural_key(_name(frame, "file_path", file)))
    files = [_locate(folder, _name(frame, "file_path", file), file) for frame in frames]
    cameras = [_read_camera({**content, **frame}, picture, file) for frame, picture in zip(frames, files, strict=True)]
    sizes = {camera.size for camera in cameras}
    if len(sizes) > 1:
        raise ValueError(f"{file}: frames must have one size, got {sorted(sizes)} (height, width). Split the capture.")
    depth = _read_depth_names(frames, folder, file)
    if not all(camera.is_straight for camera in cameras):
        notes.append("pictures are distorted; they are moved to a pinhole camera of the same numbers.")
    read_frames, read_depth = _straighten(
        cameras, picture_reader(files), None if depth is None else depth_reader(depth, _UNIT)
    )
    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(_frame_names(files, folder)),
        read_frames=read_frames,
        read_depth=read_depth,
        intrinsics=np.stack([camera.intrinsics for camera in cameras]),
        camera_size=sizes.pop(),
        camera_to_world=_read_poses(frames, content, file),
        is_metric=is_scannetpp or depth is not None,
        notes=tuple(notes),
    )


def _frame_names(files: Sequence[Path], folder: Path) -> Iterator[str]:
    for file in files:
        yield file.relative_to(folder).with_suffix("").as_posix()


def _name(frame: Mapping[str, Any], key: str, file: Path) -> str:
    name = frame.get(key)
    if not isinstance(name, str):
        raise ValueError(f"{file}: each frame needs the text `{key}`, got {name!r:.60}.")
    return check_name(name.removeprefix("./"), "file", f"{file}, `{key}`")


def _locate(folder: Path, name: str, file: Path) -> Path:
    """Return the picture of a frame, whose ending may be left out."""
    for ending in _ENDINGS:
        if (folder / f"{name}{ending}").is_file():
            return folder / f"{name}{ending}"
    raise FileNotFoundError(f"{file} names the picture {name}, which {folder} lacks. Copy the pictures beside it.")


def _read_depth_names(frames: Sequence[Mapping[str, Any]], folder: Path, file: Path) -> list[Path] | None:
    has_depth = ["depth_file_path" in frame for frame in frames]
    if not any(has_depth):
        return None
    if not all(has_depth):
        raise ValueError(
            f"{file}: {has_depth.count(False)} of {len(frames)} frames have no `depth_file_path`. Give all or none."
        )
    return [folder / _name(frame, "depth_file_path", file) for frame in frames]


def _read_camera(values: Mapping[str, Any], picture: Path, file: Path) -> _Camera:
    if "w" not in values or "h" not in values:
        facts = inspect_image(picture)
        values = {**values, "w": facts.width, "h": facts.height}
    width, height = (finite_number(values, key, file) for key in ("w", "h"))
    if "fl_x" not in values and "camera_angle_x" in values:
        angle = finite_number(values, "camera_angle_x", file)
        if not 0 < angle < math.pi:
            raise ValueError(f"{file}: `camera_angle_x` must be an angle in radians below pi, got {angle}.")
        values = {**values, "fl_x": width / 2 / math.tan(angle / 2)}
    focal = finite_number(values, "fl_x", file)
    model = values.get("camera_model", _OPENCV[0])
    if model not in (*_PINHOLE, *_OPENCV, _FISHEYE):
        known = ", ".join((*_PINHOLE, _OPENCV[0], _FISHEYE))
        raise ValueError(
            f"{file}: `camera_model` must be one of {known}, got {model!r:.60}. Undistort the pictures first."
        )
    camera = np.array(
        [
            [focal, 0, finite_number(values, "cx", file, width / 2) - 0.5],
            [0, finite_number(values, "fl_y", file, focal), finite_number(values, "cy", file, height / 2) - 0.5],
            [0, 0, 1],
        ]
    )
    bends = tuple(finite_number(values, key, file, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    return _Camera(camera, (round(height), round(width)), model, bends)


def _read_poses(frames: Sequence[Mapping[str, Any]], content: Mapping[str, Any], file: Path) -> np.ndarray:
    """Return camera to world (V, 4, 4) in OpenCV axes, in the world before nerfstudio."""
    poses = np.stack([_matrix(frame.get("transform_matrix"), "transform_matrix", (4, 4), file) for frame in frames])
    if "applied_scale" in content:
        scale = finite_number(content, "applied_scale", file)
        if scale <= 0:
            raise ValueError(f"{file}: `applied_scale` must be positive, got {scale}.")
        poses[:, :3, 3] /= scale
    if "applied_transform" in content:
        applied = np.eye(4)
        applied[:3] = _matrix(content["applied_transform"], "applied_transform", (3, 4), file)
        if len(find_bad_poses(applied[None])):
            raise ValueError(
                f"{file}: `applied_transform` must be a rotation and a translation, got {applied.tolist()}."
            )
        poses = np.linalg.inv(applied) @ poses
    return convert_poses(poses, "opengl")


def _matrix(value: Any, key: str, shape: tuple[int, int], file: Path) -> np.ndarray:
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != shape:
        raise ValueError(f"{file}: `{key}` must be {shape[0]} x {shape[1]} numbers, got {value!r:.80}.")
    return matrix


def _straighten(
    cameras: Sequence[_Camera],
    read_frames: Callable[[Sequence[int]], Iterator[np.ndarray]],
    read_depth: Callable[[int], np.ndarray] | None,
) -> tuple[Callable, Callable | None]:
    """Return readers that move distorted pictures and depth to pinhole cameras."""
    movers: dict[tuple, Undistorter] = {}

    def mover(index: int) -> Undistorter | None:
        camera = cameras[index]
        if camera.is_straight:
            return None
        key = (camera.intrinsics.tobytes(), camera.model, camera.coefficients)
        if key not in movers:
            if len(movers) > 8:  # each holds a map of the size of a picture
                movers.clear()
            movers[key] = camera.undistorter()
        return movers[key]

    def frames(indices: Sequence[int]) -> Iterator[np.ndarray]:
        for index, picture in zip(indices, read_frames(indices), strict=True):
            lens = mover(index)
            yield picture if lens is None else lens.move_picture(picture)

    def depth(index: int) -> np.ndarray:
        lens = mover(index)
        return read_depth(index) if lens is None else lens.move_depth(read_depth(index))

    return frames, None if read_depth is None else depth
