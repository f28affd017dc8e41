"""Readers of the file kinds of the public layout. No file runs code: pickles pass an allow-list."""

import json
import pickle
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy import sparse

from processing.geometry_rules import find_bad_boxes, find_nonfinite

__all__ = [
    "boxes_from_masks",
    "checked_box",
    "load_pickle",
    "open_array",
    "read_boxes",
    "read_infos",
    "read_json",
    "read_masks",
    "read_point_cloud",
    "read_selected_frames",
]

INFO_FIELDS = ("sample_idx", "images", "axis_align_matrix", "depth_cam2img")
CLOUD_FIELDS = ("xyz", "rgb", "normal", "sem_labels", "instance_ids", "aabb_obj_ids", "aabb_corner_xyz")
CLOUD_REQUIRED = ("xyz", "instance_ids", "aabb_obj_ids", "aabb_corner_xyz")

_BUILTINS = {
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "set",
    "slice",
    "str",
    "tuple",
}
_NUMPY = {"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"}
_NUMPY_MODULES = {
    "numpy",
    "numpy.core.multiarray",
    "numpy._core.multiarray",
    "numpy.core.numeric",
    "numpy._core.numeric",
}


# Errors of the parsers of pickle, zip and array headers on bytes that are no such file.
_BROKEN = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    SyntaxError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    MemoryError,
    OverflowError,
    NotImplementedError,
)


class _AllowListUnpickler(pickle.Unpickler):
    """Unpickler of numpy arrays, numpy scalars and plain builtins; everything else is refused by name."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return super().find_class("builtins", name)
        if (module, name) == ("_codecs", "encode"):  # Old protocols spell bytes so.
            return super().find_class(module, name)
        if module in _NUMPY_MODULES and name in _NUMPY:
            # Files of NumPy 1 name numpy.core, which later versions moved.
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is neither numpy nor a plain builtin")


def load_pickle(path: str | Path) -> Any:
    """Read a pickle of numpy arrays and builtins; no other name is ever looked up.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no pickle, is cut off, or names any other class or function.
    """
    with open(path, "rb") as file:
        try:
            return _AllowListUnpickler(file).load()
        except _BROKEN as error:
            raise ValueError(f"{path} is not a pickle of arrays and builtins alone: {error}.") from error


def open_array(path: str | Path) -> np.ndarray:
    """Open an `.npy` file without objects as a memory map, without reading it yet.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file holds no array, or is cut off.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (*_BROKEN, OSError) as error:
        raise ValueError(f"{path} is not a complete array, make it again: {error}.") from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no JSON, or is cut off.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not complete JSON, download or make it again: {error}.") from error


def checked_box(box: Any, where: str) -> list[float]:
    """Return the six numbers (cx, cy, cz, dx, dy, dz) of a box as floats.

    Args:
        box: Contents of a file that should be a box.
        where: Beginning of the error's message.

    Raises:
        ValueError: Anything but six finite numbers with sizes that are not negative.
    """
    if box is None:
        raise ValueError(f"{where}: the box is null. Expected cx, cy, cz, dx, dy, dz.")
    numbers = isinstance(box, list | tuple) and all(isinstance(x, int | float) for x in box)
    if not numbers or len(box) != 6:
        raise ValueError(f"{where}: a box is six numbers cx, cy, cz, dx, dy, dz, got {box!r}.")
    if len(find_bad_boxes([box])):
        raise ValueError(f"{where}: a box must be finite with sizes that are not negative, got {box}.")
    return [float(x) for x in box]


def read_boxes(path: str | Path) -> dict[str, list[list[float]]]:
    """Read the boxes of `scannet_<split>_<gt|pred>_box.json` by scene id, in the order of the file.

    In the file of the train split the index of a box is the id of its object.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file holds anything but scene ids with lists of six finite numbers.
    """
    scenes = read_json(path)
    if not isinstance(scenes, dict):
        raise ValueError(f"{path} must map scene ids to lists of boxes, got {type(scenes).__name__}.")
    for scene_id, boxes in scenes.items():
        if not isinstance(boxes, list):
            raise ValueError(f"{path}: {scene_id} must have a list of boxes, got {type(boxes).__name__}.")
    return {
        scene_id: [checked_box(box, f"{path}, {scene_id}, box {index}") for index, box in enumerate(boxes)]
        for scene_id, boxes in scenes.items()
    }


def read_infos(path: str | Path) -> dict[str, dict]:
    """Read the scenes of ScanNet from an EmbodiedScan file (`.pkl`) or its pickle-free export (`.json`).

    Returns:
        By scene id: `images` (paths below the data folder, in the order of the file), `axis_align_matrix` (4, 4) and
        `depth_cam2img` (4, 4), float64.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is of another kind, or a scene lacks one of these fields; the message names it.
    """
    contents = load_pickle(path) if Path(path).suffix == ".pkl" else read_json(path)
    if not isinstance(contents, dict) or not isinstance(contents.get("data_list"), list):
        raise ValueError(f'{path} must hold a dict with a list "data_list". Is it an EmbodiedScan file?')
    infos = {}
    for item in contents["data_list"]:
        if not isinstance(item, dict):
            raise ValueError(f"{path}: `data_list` must hold dicts, got {type(item).__name__}.")
        scene_id = str(item.get("sample_idx"))
        if scene_id.startswith("scannet/"):
            infos[scene_id] = _read_info(item, f"{path}, scene {scene_id}")
    return infos


def _read_info(item: dict, where: str) -> dict:
    missing = [name for name in INFO_FIELDS if item.get(name) is None]
    if missing:
        raise ValueError(f"{where} lacks {missing}. Take the file of the public release.")
    info = {}
    for name in ("axis_align_matrix", "depth_cam2img"):
        try:
            info[name] = np.asarray(item[name], np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: `{name}` is no matrix of numbers: {error}.") from error
        if info[name].shape != (4, 4) or len(find_nonfinite(info[name])):
            raise ValueError(f"{where}: `{name}` must be a finite 4 x 4 matrix, got shape {info[name].shape}.")
    images = item["images"]
    if not isinstance(images, list) or not all(isinstance(image, dict) and "img_path" in image for image in images):
        raise ValueError(f"{where}: `images` must be a list of dicts with img_path, got {type(images).__name__}.")
    return {"images": [str(image["img_path"]) for image in images], **info}


def read_masks(path: str | Path, max_masks: int | None = 50) -> np.ndarray:
    """Read instance proposals of a `<scene>.mask.npz` that SciPy's `save_npz` wrote.

    Args:
        path: Path of the file.
        max_masks: Number of masks to read, from the first on; 50 in the original, None reads all.

    Returns:
        Masks (n_masks, n_vertices), bool.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file holds no sparse matrix in one of the formats csr, csc and coo.
    """
    try:
        matrix = sparse.load_npz(path)
        if matrix.format not in ("csr", "csc", "coo"):
            raise ValueError(f"its format is {matrix.format}")
        if matrix.format != "coo":
            matrix.check_format(full_check=True)  # SciPy would write outside of the array at an index of a bad file.
        return matrix.tocsr()[:max_masks].toarray() != 0
    except FileNotFoundError:
        raise
    except (*_BROKEN, OSError) as error:
        raise ValueError(
            f"{path} is not a sparse matrix of SciPy (csr, csc or coo), copy it again: {error}."
        ) from error


def boxes_from_masks(masks: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Return the axis-aligned box of the vertices in each mask.

    Args:
        masks: Proposals (N, n_vertices), bool.
        vertices: Points (n_vertices, 3), metres.

    Returns:
        Boxes (N, 6), (cx, cy, cz, dx, dy, dz), metres.

    Raises:
        ValueError: Sizes that differ, or a mask without a vertex.
    """
    if masks.shape[1:] != vertices.shape[:1]:
        raise ValueError(
            f"Masks of {masks.shape[1]} vertices do not fit {len(vertices)} vertices. Take both of one mesh."
        )
    empty = np.flatnonzero(~masks.any(axis=1))
    if len(empty):
        raise ValueError(f"Masks {empty.tolist()} hold no vertex. Leave them out.")
    low = np.array([vertices[mask].min(axis=0) for mask in masks]).reshape(-1, 3)
    high = np.array([vertices[mask].max(axis=0) for mask in masks]).reshape(-1, 3)
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def _safe_numpy_globals() -> list:
    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    names = ("numpy.core.multiarray", "numpy._core.multiarray")
    allowed: list = [np.ndarray, np.dtype]
    for function in ("_reconstruct", "scalar"):
        allowed += [(getattr(multiarray, function), f"{module}.{function}") for module in names]
    return allowed + [
        type(np.dtype(code)) for code in ("bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "f2", "f4", "f8")
    ]


def read_point_cloud(path: str | Path) -> dict[str, np.ndarray]:
    """Read the point cloud of a scene from `<scene>.pth` or its pickle-free `<scene>.safetensors`.

    Returns:
        Arrays by name: xyz (P, 3), axis-aligned world, metres; instance_ids (P,); aabb_obj_ids (N,); aabb_corner_xyz
        (N, 8, 3); and rgb, normal and sem_labels if the file has them.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is of another kind, or holds anything but arrays.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        if Path(path).suffix == ".safetensors":
            cloud = load_file(path)
        else:
            with torch.serialization.safe_globals(_safe_numpy_globals()):
                cloud = torch.load(path, map_location="cpu", weights_only=True)
    except (*_BROKEN, SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a point cloud of plain arrays: {reason}.") from error
    if not isinstance(cloud, dict):
        raise ValueError(f"{path} must hold a dict of arrays, got {type(cloud).__name__}.")
    missing = [name for name in CLOUD_REQUIRED if cloud.get(name) is None]
    if missing:
        raise ValueError(f"{path} lacks {missing}. Make it again.")
    arrays = {name: np.asarray(cloud[name]) for name in CLOUD_FIELDS if cloud.get(name) is not None}
    for name, shape in {"xyz": (-1, 3), "aabb_corner_xyz": (-1, 8, 3)}.items():
        if arrays[name].ndim != len(shape) or arrays[name].shape[1:] != shape[1:]:
            raise ValueError(
                f"{path}: `{name}` must have shape {shape} with any first size, got {arrays[name].shape}."
            )
    return arrays


def read_selected_frames(path: str | Path) -> dict[str, dict]:
    """Read the frames by maximum coverage of `scannet_select_frames.json`.

    Returns:
        By scene id: `frame_names` (in greedy order), `voxel_nums` (voxels that each adds), `num_all_voxels`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is of another kind, or the lists of a scene differ in length.
    """
    scenes = {}
    for item in _listed(path):
        missing = [name for name in ("video_id", "frame_files", "voxel_nums", "num_all_voxels") if name not in item]
        if missing:
            raise ValueError(f"{path}: scene {item.get('video_id')} lacks {missing}.")
        for name, kind in {"frame_files": str, "voxel_nums": int}.items():
            if not isinstance(item[name], list) or not all(isinstance(value, kind) for value in item[name]):
                raise ValueError(f"{path}: `{name}` of {item['video_id']} must be a list of {kind.__name__}.")
        if not isinstance(item["num_all_voxels"], int) or not isinstance(item["video_id"], str):
            raise ValueError(
                f"{path}: `num_all_voxels` and `video_id` of {item['video_id']} must be a number and text."
            )
        if len(item["frame_files"]) != len(item["voxel_nums"]) or not item["frame_files"]:
            counts = f"{len(item['frame_files'])} frame_files and {len(item['voxel_nums'])} voxel_nums"
            raise ValueError(f"{path}: {item['video_id']} has {counts}. Expected as many of both, and at least one.")
        scene_id = item["video_id"] if "/" in item["video_id"] else f"scannet/{item['video_id']}"
        scenes[scene_id] = {
            "frame_names": [Path(name).stem for name in item["frame_files"]],
            "voxel_nums": item["voxel_nums"],
            "num_all_voxels": item["num_all_voxels"],
        }
    return scenes


def _listed(path: str | Path) -> list[dict]:
    items = read_json(path)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{path} must be a list of objects, got {type(items).__name__}.")
    return items
