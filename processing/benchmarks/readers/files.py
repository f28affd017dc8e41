"""Readers of the file kinds of the public layout. No file runs code: pickles pass an allow-list."""

import pickle
import reprlib
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy import sparse

from processing.benchmarks.readers.pickles import load_pickle, load_torch
from processing.box_rules import find_bad_boxes
from processing.geometry_rules import find_nonfinite
from processing.limits import check_archive, check_bound, check_file, load_json
from processing.scene_names import check_name

__all__ = [
    "boxes_from_masks",
    "checked_box",
    "open_array",
    "read_boxes",
    "read_infos",
    "read_masks",
    "read_point_cloud",
    "read_selected_frames",
]

INFO_FIELDS = ("sample_idx", "images", "axis_align_matrix", "depth_cam2img")
CLOUD_FIELDS = ("xyz", "rgb", "normal", "sem_labels", "instance_ids", "aabb_obj_ids", "aabb_corner_xyz")
_MAX_NUMBER = 1e30  # Above it float32 has no number.
CLOUD_REQUIRED = ("xyz", "instance_ids", "aabb_obj_ids", "aabb_corner_xyz")

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


def open_array(path: str | Path) -> np.ndarray:
    """Open an `.npy` file without objects as a memory map, without reading it yet.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file holds no array, or is cut off.
    """
    size = check_file(path, None)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (*_BROKEN, OSError) as error:
        raise ValueError(f"{path} is not a complete array, make it again: {error}.") from error
    if not isinstance(array, np.memmap) or array.dtype.kind not in "biuf":
        raise ValueError(f"{path} must hold one array of numbers, got {_kind_of(array)}. Make it again.")
    declared = array.offset + array.nbytes
    if declared != size:
        raise ValueError(
            f"{path} must have {declared} bytes for its shape {array.shape}, it has {size}. Make it again."
        )
    return array


def _kind_of(array: Any) -> str:
    return f"one of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__


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
    numbers = isinstance(box, list | tuple) and len(box) == 6 and all(type(x) in (int, float) for x in box)
    if not numbers:
        raise ValueError(f"{where}: a box is six numbers cx, cy, cz, dx, dy, dz, got {reprlib.repr(box)}.")
    if max(map(abs, box)) > _MAX_NUMBER or len(find_bad_boxes([box])):
        raise ValueError(f"{where}: a box must be finite with sizes that are not negative, got {reprlib.repr(box)}.")
    return [float(x) for x in box]


def read_boxes(path: str | Path) -> dict[str, list[list[float]]]:
    """Read the boxes of `scannet_<split>_<gt|pred>_box.json` by scene id, in the order of the file.

    In the file of the train split the index of a box is the id of its object.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file holds anything but scene ids with lists of six finite numbers.
    """
    scenes = load_json(path)
    if not isinstance(scenes, dict):
        raise ValueError(f"{path} must map scene ids to lists of boxes, got {type(scenes).__name__}.")
    for scene_id, boxes in scenes.items():
        check_name(scene_id, where=str(path))
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
    contents = load_pickle(path) if Path(path).suffix == ".pkl" else load_json(path)
    if not isinstance(contents, dict) or not isinstance(contents.get("data_list"), list):
        raise ValueError(f'{path} must hold a dict with a list "data_list". Is it an EmbodiedScan file?')
    infos = {}
    for item in contents["data_list"]:
        if not isinstance(item, dict):
            raise ValueError(f"{path}: `data_list` must hold dicts, got {type(item).__name__}.")
        scene_id = item.get("sample_idx")
        if isinstance(scene_id, str) and scene_id.startswith("scannet/"):
            check_name(scene_id, where=str(path))
            infos[scene_id] = _read_info(item, f"{path}, scene {scene_id}")
    return infos


def _read_info(item: dict, where: str) -> dict:
    missing = [name for name in INFO_FIELDS if item.get(name) is None]
    if missing:
        raise ValueError(f"{where} lacks {missing}. Take the file of the public release.")
    info = {}
    for name in ("axis_align_matrix", "depth_cam2img"):
        info[name] = _read_matrix(item[name], f"{where}: `{name}`")
    images = item["images"]
    if not isinstance(images, list) or not all(isinstance(image, dict) and "img_path" in image for image in images):
        raise ValueError(f"{where}: `images` must be a list of dicts with img_path, got {type(images).__name__}.")
    return {"images": [check_name(image["img_path"], "path of an image", where) for image in images], **info}


def _read_matrix(value: Any, what: str) -> np.ndarray:
    """Return a matrix (4, 4) of float64 from an array or nested lists."""
    # Lists in a pickle may hold each other many times over, so their lengths come before an array is made of them.
    if isinstance(value, list | tuple) and len(value) == 4 and all(isinstance(row, list | tuple) for row in value):
        is_matrix = all(len(row) == 4 and all(isinstance(x, int | float | np.number) for x in row) for row in value)
    else:
        is_matrix = isinstance(value, np.ndarray) and value.shape == (4, 4) and value.dtype.kind in "biuf"
    if not is_matrix:
        found = f"shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{what} must be a 4 x 4 matrix of numbers, got {found}. Take the file of the release.")
    try:
        matrix = np.array(value, np.float64)
    except OverflowError:
        matrix = np.full((4, 4), np.inf)
    if len(find_nonfinite(matrix)):
        raise ValueError(f"{what} must be a finite 4 x 4 matrix, it holds NaN or Inf. Take the file of the release.")
    return matrix


def read_masks(path: str | Path, max_masks: int | None = 50) -> np.ndarray:
    """Read instance proposals of a `<scene>.mask.npz` that SciPy's `save_npz` wrote.

    Args:
        path: Path of the file.
        max_masks: Number of masks to read, from the first on; 50 in the original, None reads all.

    Returns:
        Masks (n_masks, n_vertices), bool.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file holds no sparse matrix in one of the formats csr, csc and coo, or is larger than declared
            or allowed.
    """
    check_archive(path)
    try:
        matrix = sparse.load_npz(path)
        if matrix.format not in ("csr", "csc", "coo"):
            raise ValueError(f"its format is {matrix.format}")
        if matrix.format != "coo":
            matrix.check_format(full_check=True)  # SciPy would write outside of the array at an index of a bad file.
        rows, columns = matrix.shape
        count = rows if max_masks is None else min(rows, max_masks)
        # A dense mask has a byte for each vertex, and a few words of sparse ones may stand for any number of rows.
        check_bound(count * columns + 8 * rows, "IDE3D_MAX_UNPACKED_BYTES", f"{path}, as masks,")
        return matrix.tocsr()[:max_masks].toarray() != 0
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


def read_point_cloud(path: str | Path) -> dict[str, np.ndarray]:
    """Read the point cloud of a scene from `<scene>.pth` or its pickle-free `<scene>.safetensors`.

    Returns:
        Arrays by name: xyz (P, 3), axis-aligned world, metres; instance_ids (P,); aabb_obj_ids (N,); aabb_corner_xyz
        (N, 8, 3); and rgb, normal and sem_labels if the file has them.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is of another kind, or holds anything but arrays.
    """
    check_file(path)
    if Path(path).suffix == ".safetensors":
        try:
            cloud = load_file(path)
        except (*_BROKEN, SafetensorError, OSError) as error:
            raise ValueError(f"{path} is not a file of plain arrays: {error}. Make it again.") from error
    else:
        cloud = load_torch(path)
    if not isinstance(cloud, dict):
        raise ValueError(f"{path} must hold a dict of arrays, got {type(cloud).__name__}.")
    missing = [name for name in CLOUD_REQUIRED if cloud.get(name) is None]
    if missing:
        raise ValueError(f"{path} lacks {missing}. Make it again.")
    arrays = {name: cloud[name] for name in CLOUD_FIELDS if cloud.get(name) is not None}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise ValueError(f"{path}: `{name}` must be an array of numbers, got {_kind_of(array)}. Make it again.")
        arrays[name] = np.asarray(array)
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
        video = reprlib.repr(item.get("video_id"))
        missing = [name for name in ("video_id", "frame_files", "voxel_nums", "num_all_voxels") if name not in item]
        if missing:
            raise ValueError(f"{path}: scene {video} lacks {missing}.")
        for name, kind in {"frame_files": str, "voxel_nums": int}.items():
            if not isinstance(item[name], list) or not all(isinstance(value, kind) for value in item[name]):
                raise ValueError(f"{path}: `{name}` of {video} must be a list of {kind.__name__}.")
        if not isinstance(item["num_all_voxels"], int) or not isinstance(item["video_id"], str):
            raise ValueError(f"{path}: `num_all_voxels` and `video_id` of {video} must be a number and text.")
        for name in (item["video_id"], *item["frame_files"]):
            check_name(name, "name of a scene or frame", str(path))
        if len(item["frame_files"]) != len(item["voxel_nums"]) or not item["frame_files"]:
            counts = f"{len(item['frame_files'])} frame_files and {len(item['voxel_nums'])} voxel_nums"
            raise ValueError(f"{path}: {video} has {counts}. Expected as many of both, and at least one.")
        scene_id = item["video_id"] if "/" in item["video_id"] else f"scannet/{item['video_id']}"
        scenes[scene_id] = {
            "frame_names": [Path(name).stem for name in item["frame_files"]],
            "voxel_nums": item["voxel_nums"],
            "num_all_voxels": item["num_all_voxels"],
        }
    return scenes


def _listed(path: str | Path) -> list[dict]:
    items = load_json(path)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{path} must be a list of objects, got {type(items).__name__}.")
    return items
