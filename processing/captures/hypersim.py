"""Hypersim: one camera of a scene, with distances along rays.

Source: github.com/apple/ml-hypersim, README (camera trajectories, coordinate conventions, camera intrinsics):

    images/scene_cam_NN_final_preview/frame.IIII.tonemap.jpg: pictures.
    images/scene_cam_NN_geometry_hdf5/frame.IIII.depth_meters.hdf5: float, metres from the camera's centre to the
        surface, not along z; NaN or Inf = no surface. It is divided here by the length of (x, y, 1) of its ray.
    _detail/cam_NN/camera_keyframe_positions.hdf5 and camera_keyframe_orientations.hdf5: camera to world, asset units,
        x right, y up, z backward; camera_keyframe_frame_indices.hdf5: the frame IIII of each.
    _detail/metadata_scene.csv: meters_per_asset_unit.

The lens sees 60 degrees across unless `metadata_camera_parameters.csv`, of ml-hypersim's contributions, lies beside or
above the scene: its M_cam_from_uv is the lens of each scene. Files are read by h5py, the declared shape checked first.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from processing.captures.capture import Capture
from processing.captures.pictures import list_files, picture_reader
from processing.captures.tables import number
from processing.image_reading_ide3d import inspect_image
from processing.limits import check_bound, check_file
from processing.pose_rules import convert_poses

__all__ = ["LOOKED_FOR", "NAME", "read", "recognise"]

NAME = "hypersim"
LOOKED_FOR = "_detail/cam_00 and images/scene_cam_00_final_preview; of several cameras, the folder _detail/cam_00"

_KINDS = (".tonemap.jpg", ".color.jpg")
_ANGLE = math.pi / 3  # Across, of the default lens.
_LENSES = "metadata_camera_parameters.csv"
_DEEPEST = 65504.0  # Metres; what float16 holds.


def _find(path: Path) -> tuple[Path, list[str]]:
    """Return the scene, and the names of its cameras that have pictures."""
    if path.parent.name == "_detail":
        scene, cameras = path.parent.parent, [path.name]
    else:
        scene = path
        cameras = sorted(place.name for place in path.glob("_detail/cam_*") if place.is_dir())
    return scene, [name for name in cameras if (scene / "images" / f"scene_{name}_final_preview").is_dir()]


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    scene, cameras = _find(path)
    return f"_detail and images of {', '.join(cameras)}" if cameras else None


def read(path: Path) -> Capture:
    """Read lens and poses of the one camera of a scene."""
    scene, cameras = _find(path)
    if len(cameras) > 1:
        raise ValueError(
            f"{path} has the cameras {', '.join(cameras)}. Give the folder of one: {scene / '_detail' / cameras[0]}."
        )
    files: list[Path] = []
    for kind in _KINDS:
        files = files or list_files(scene / "images" / f"scene_{cameras[0]}_final_preview", kind)
    if not files:
        raise FileNotFoundError(
            f"{scene / 'images'} holds no pictures of {cameras[0]}, such as frame.0000.tonemap.jpg."
        )
    names = [file.name.split(".")[1] for file in files]
    depth = [
        scene / "images" / f"scene_{cameras[0]}_geometry_hdf5" / f"frame.{name}.depth_meters.hdf5" for name in names
    ]
    missing = [file.name for file in depth if not file.exists()]
    if missing and len(missing) < len(depth):
        raise FileNotFoundError(
            f"{depth[0].parent} lacks {len(missing)} maps, such as {missing[0]}. Download them again."
        )
    facts = inspect_image(files[0])
    size = (facts.height, facts.width)
    camera, note = _read_lens(scene, size)

    def read_depth(index: int) -> np.ndarray:
        distance = _read_array(depth[index], 2)
        if distance.shape[0] * size[1] != distance.shape[1] * size[0]:
            raise ValueError(f"{depth[index]} must have the aspect of the pictures {size}, got {distance.shape}.")
        return _along_z(distance, camera, size)

    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(names),
        read_frames=picture_reader(files),
        read_depth=None if missing else read_depth,
        intrinsics=np.repeat(camera[None], len(files), 0),
        camera_size=size,
        camera_to_world=_read_poses(scene, cameras[0], names),
    ).with_notes(note)


def _read_array(file: Path, rank: int) -> np.ndarray:
    """Return the array that a file calls `dataset`, float64, after its declared size is checked."""
    check_file(file)
    try:
        import h5py
    except ImportError as error:
        raise ImportError("Files of Hypersim are HDF5: `pip install h5py`.") from error
    try:
        with h5py.File(file, "r") as content:
            is_plain = isinstance(content.get("dataset", getlink=True), h5py.HardLink)
            data: Any = content["dataset"] if is_plain else None
            if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external or data.dtype.kind not in "iuf":
                raise ValueError("it holds no plain array `dataset` of numbers")
            if data.ndim != rank:
                raise ValueError(f"`dataset` must have {rank} axes, got the shape {data.shape}")
            check_bound(data.size * 8, "IDE3D_MAX_UNPACKED_BYTES", f"{file}, unpacked,")
            return data[()].astype(np.float64)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as HDF5 of Hypersim, download it again: {error}.") from error


def _read_poses(scene: Path, camera: str, names: Sequence[str]) -> np.ndarray:
    """Return camera to world (V, 4, 4), OpenCV axes, metres."""
    folder = scene / "_detail" / camera
    positions = _read_array(folder / "camera_keyframe_positions.hdf5", 2)
    rotations = _read_array(folder / "camera_keyframe_orientations.hdf5", 3)
    numbers = _read_array(folder / "camera_keyframe_frame_indices.hdf5", 1)
    if positions.shape != (len(numbers), 3) or rotations.shape != (len(numbers), 3, 3):
        raise ValueError(
            f"{folder} must hold as many positions and orientations as frame indices, got {positions.shape}, "
            f"{rotations.shape} and {numbers.shape}. Download it again."
        )
    places = {int(index): place for place, index in enumerate(numbers)}
    if lost := [name for name in names if not name.isdigit() or int(name) not in places]:
        raise ValueError(f"{folder} has no pose of the frames {lost[:5]}. Do pictures and camera belong together?")
    index = [places[int(name)] for name in names]
    poses = np.tile(np.eye(4), (len(names), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = rotations[index], positions[index] * _read_unit(scene)
    return convert_poses(poses, "opengl")


def _rows(file: Path) -> list[dict[str, str]]:
    check_file(file, "IDE3D_MAX_JSON_BYTES")
    try:
        with file.open(encoding="utf-8-sig", newline="") as content:
            return list(csv.DictReader(content))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} must be a table of text in UTF-8: {error}.") from error


def _read_unit(scene: Path) -> float:
    """Return the metres of one asset unit."""
    file = scene / "_detail" / "metadata_scene.csv"
    for row in _rows(file):
        if row.get("parameter_name") == "meters_per_asset_unit":
            unit = number(row.get("parameter_value") or "", file)
            if 0 < unit < math.inf:
                return unit
    raise ValueError(f"{file} must name a positive `meters_per_asset_unit`. Download it again.")


def _read_lens(scene: Path, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Return camera (3, 3) of the pictures, and a sentence where it is the default."""
    height, width = size
    file = next(
        (place / _LENSES for place in (scene, *scene.resolve().parents[:2]) if (place / _LENSES).exists()), None
    )
    if file is None:
        focal = width / 2 / math.tan(_ANGLE / 2)
        camera = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        return camera, f"the lens is taken as 60 degrees across; {_LENSES} beside the scene would name it."
    row = next((row for row in _rows(file) if row.get("scene_name") == scene.resolve().name), None)
    if row is None:
        raise ValueError(f"{file} has no row of the scene {scene.resolve().name}. Keep the names of the scenes.")
    lens = np.array([[number(row.get(f"M_cam_from_uv_{i}{j}") or "", file) for j in range(3)] for i in range(3)])
    if np.abs(lens[[0, 1, 2, 2], [1, 0, 0, 1]]).max() > 1e-6 or not lens[0, 0] * lens[1, 1] > 0 or not lens[2, 2] < 0:
        raise ValueError(
            f"{file}: the lens of {scene.resolve().name} is tilted, and no pinhole camera. Choose another scene."
        )
    # A ray is M (u, v, 1) with u, v from -1 to 1 over the picture's edges, v up, and the camera looks along -z.
    half = np.array([width, height]) / 2
    focal = half * -lens[2, 2] / lens[[0, 1], [0, 1]]
    shift = half * lens[:2, 2] / lens[[0, 1], [0, 1]] * [-1, 1]
    centre = half - 0.5 + shift
    return np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]]), ""


def _along_z(distance: np.ndarray, camera: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return z-depth (h, w) float32 from distances to the camera's centre; 0 = no surface."""
    factor = distance.shape[1] / size[1]
    u, v = ((np.arange(side) + 0.5) / factor - 0.5 for side in (distance.shape[1], distance.shape[0]))
    x, y = (u - camera[0, 2]) / camera[0, 0], (v - camera[1, 2]) / camera[1, 1]
    depth = distance / np.sqrt(1 + x[None] ** 2 + y[:, None] ** 2)
    is_seen = np.isfinite(depth) & (depth > 0) & (depth < _DEEPEST)
    return np.where(is_seen, depth, 0).astype(np.float32)
