"""Named regions of a video from a file: boxes in JSON, instance ids or masks in NumPy's formats."""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from processing.argument_rules import as_path, check_whole
from processing.frame_order_ide3d import check_indices
from processing.limits import check_archive, check_file, load_json
from processing.regions import check_grid, regions_from_boxes_2d, regions_from_ids, regions_from_masks
from processing.token_grid import TokenGrid

__all__ = ["NamedRegions", "read_regions"]

NO_BOX = [float("nan")] * 4
FORMATS = (
    "Expected .json (boxes), .npy (instance ids (V, h, w) or masks (N, V, h, w)), or .npz (one such array, or a mask "
    "(V, h, w) for each name)."
)


@dataclass(frozen=True)
class NamedRegions:
    """Regions of the frames that a model sees, with a name for each.

    Args:
        names: N names, in the order of the masks.
        masks: Region masks, bool (N, V, rows, cols).
    """

    names: tuple[str, ...]
    masks: Tensor

    def __len__(self) -> int:
        return len(self.names)


def read_regions(path: str | Path, grid: TokenGrid, frame_indices: Sequence[int], total_frames: int) -> NamedRegions:
    """Read regions from a file.

    The file describes all frames of the video, or those that are shown.

    `.json` holds boxes, as pixels of the frame between its edges, (left, top, right, bottom)::

        {"frame_size": [480, 640],
         "boxes": {"chair": [[40, 120, 180, 330], null], "table": {"12": [300, 90, 420, 260]}}}

    `frame_size` is (height, width). The boxes of an object are a list with one entry for each frame, null where it is
    not seen. They may also be a mapping from the index of a frame in the video to its box.

    `.npy` holds instance ids, integer (V, h, w) with 0 for nothing, or masks, bool (N, V, h, w). `.npz` holds one such
    array, or a mask, bool (V, h, w), under the name of each object. Pickled objects are refused.

    Args:
        path: File of the regions.
        grid: Token grid of the model.
        frame_indices: Indices of the V frames that are shown.
        total_frames: Frames of the video.

    Returns:
        The regions that some token of the frames shown holds.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: An argument of another kind.
        ValueError: Indices outside of the video, a file of another kind or of other frames, or none of its objects is
            seen.
    """
    path = as_path(path, "path")
    check_grid(grid)
    total_frames = check_whole(total_frames, "total_frames", 1)
    indices = check_indices(frame_indices, total_frames, "`frame_indices`")
    try:
        check_file(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no file of regions at {path}. {FORMATS}") from error
    shown = _Frames(path, tuple(indices), total_frames)
    read = {".json": _from_boxes, ".npy": _from_arrays, ".npz": _from_arrays}.get(path.suffix)
    if read is None:
        raise ValueError(f"{path} is no file of regions. {FORMATS}")
    try:
        names, masks = read(shown, grid)
    except (TypeError, ValueError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error
    is_seen = masks.flatten(1).any(1)
    if not is_seen.any():
        raise ValueError(f"No region of {path} is in the frames shown, {shown.listed}. Mark objects in these frames.")
    kept = tuple(name for name, seen in zip(names, is_seen.tolist(), strict=True) if seen)
    return NamedRegions(kept, masks[is_seen])


@dataclass(frozen=True)
class _Frames:
    """The frames that are shown, and the file whose entries are matched to them."""

    path: Path
    indices: tuple[int, ...]
    total: int

    @property
    def listed(self) -> str:
        return ", ".join(map(str, self.indices))

    def choose(self, count: int, what: str) -> list[int]:
        """Choose the entries of the frames shown among `count` entries."""
        if count == self.total:
            return list(self.indices)
        if count == len(self.indices):
            return list(range(count))
        raise ValueError(
            f"{what} in {self.path} has {count} frames, but the video has {self.total}, of which {len(self.indices)} "
            f"are shown ({self.listed}). Give one entry for each frame of the video, or for each that is shown."
        )


def _from_boxes(shown: _Frames, grid: TokenGrid) -> tuple[list[str], Tensor]:
    content = load_json(shown.path)
    if not isinstance(content, dict) or set(content) != {"frame_size", "boxes"}:
        keys = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{shown.path} must hold `frame_size` and `boxes`, got {keys}.")
    size, boxes = content["frame_size"], content["boxes"]
    sides = size if isinstance(size, list) else []
    if len(sides) != 2 or not all(type(side) is int and 0 < side < 2**20 for side in sides):
        raise ValueError(f"`frame_size` in {shown.path} must be [height, width] in pixels, got {reprlib.repr(size)}.")
    if not isinstance(boxes, dict) or not boxes:
        given = reprlib.repr(boxes)
        raise ValueError(f"`boxes` in {shown.path} must map the name of each object to its boxes, got {given}.")
    if not all(name.strip() for name in boxes):
        raise ValueError(f"`boxes` in {shown.path} must name each object, got an empty name. Write what it is.")
    rows = [_boxes_of(name, entries, shown) for name, entries in boxes.items()]
    return list(boxes), regions_from_boxes_2d(torch.tensor(rows), (size[0], size[1]), grid)


def _boxes_of(name: str, entries: Any, shown: _Frames) -> list[list[float]]:
    """Boxes of one object in the frames shown, NaN where it has none."""
    what = f"Object {name!r}"
    if isinstance(entries, dict):
        unknown = [key for key in entries if not _is_index(key, shown.total)]
        if unknown:
            raise ValueError(
                f"{what} in {shown.path} has boxes in frames {unknown[:5]}, the video has {shown.total}. Name them by "
                "index, 0 for the first."
            )
        found = [entries.get(str(index)) for index in shown.indices]
    elif isinstance(entries, list):
        found = [entries[place] for place in shown.choose(len(entries), what)]
    else:
        given = reprlib.repr(entries)
        raise ValueError(f"{what} in {shown.path} must have a list or a mapping of boxes, got {given}.")
    for box in found:
        is_box = isinstance(box, list) and len(box) == 4 and all(type(side) in (int, float) for side in box)
        if box is not None and not (is_box and not any(abs(side) >= 2**31 for side in box)):
            given = reprlib.repr(box)
            raise ValueError(f"{what} in {shown.path}: a box is [left, top, right, bottom] or null, got {given}.")
    return [NO_BOX if box is None else [float(side) for side in box] for box in found]


def _is_index(key: str, total: int) -> bool:
    # Zeros in front would name another key than the one that is looked up, and the box would be lost.
    return key.isascii() and key.isdecimal() and len(key) < 10 and str(int(key)) == key and int(key) < total


def _from_arrays(shown: _Frames, grid: TokenGrid) -> tuple[list[str], Tensor]:
    try:
        if shown.path.suffix == ".npz":
            check_archive(shown.path)
            with np.load(shown.path, allow_pickle=False) as content:
                arrays = {name: content[name] for name in content.files}
        else:  # A memory map fails on a shape that the file does not hold, where a plain read takes the memory first.
            arrays = {"": np.array(np.load(shown.path, mmap_mode="r", allow_pickle=False))}
    except Exception as error:  # Parsers of headers and archives raise a dozen types.
        raise ValueError(f"{shown.path} cannot be read as arrays ({error}). {FORMATS}") from error
    first = next(iter(arrays.values()), np.zeros(0))
    if len(arrays) == 1 and first.dtype.kind in "iu" and first.ndim == 3:
        ids = first[shown.choose(len(first), "The array of ids")]
        found = [int(number) for number in np.unique(ids) if number > 0]
        return [str(number) for number in found], regions_from_ids(ids.astype(np.int64), found, grid)
    if len(arrays) == 1 and first.dtype == bool and first.ndim == 4:
        masks = first[:, shown.choose(first.shape[1], "The array of masks")]
        return [str(number) for number in range(len(masks))], regions_from_masks(masks, grid)
    if arrays and all(array.dtype == bool and array.ndim == 3 for array in arrays.values()):
        masks = [array[shown.choose(len(array), f"Mask {name!r}")] for name, array in arrays.items()]
        if len({mask.shape for mask in masks}) == 1:
            return [name or "0" for name in arrays], regions_from_masks(np.stack(masks), grid)
    kinds = ", ".join(f"{array.dtype} {array.shape}" for array in arrays.values()) or "nothing"
    raise ValueError(f"{shown.path} holds {kinds}. {FORMATS}")
