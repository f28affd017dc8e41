"""Stored teacher features of a scene on the token grid of a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from processing.argument_rules import check_choice, check_texts
from processing.benchmarks.readers.files import open_array
from processing.benchmarks.readers.scenes import folder_names
from processing.benchmarks.readers.tasks import Layout
from processing.frame_order_ide3d import find_uniform_indices
from processing.regions import check_grid
from processing.token_grid import TokenGrid
from processing.token_pooling import pool_teacher_features

__all__ = ["PATCH_GRIDS", "load_teacher_features", "open_teacher", "stored_names"]

PROTOCOLS = ("clean", "paper")
# Number of patches of a frame: their grid, rows first, of 392 x 518, 336 x 448 and 224 x 224 pixels.
PATCH_GRIDS = {1036: (28, 37), 768: (24, 32), 256: (16, 16)}


def stored_names(names: Sequence[str], count: int) -> list[str]:
    """Return the names of the frames that a store was made from.

    Args:
        names: Names of all frames of the folder, sorted.
        count: Number of frames in the store; a scene with fewer has some of them more than once.
    """
    return [names[index] for index in find_uniform_indices(len(names), count, can_repeat=True)]


def open_teacher(path: str | Path) -> np.ndarray:
    """Open a `vggt_sliced.npy` as a memory map (V, patches, C), without reading it yet.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file holds no array (1, V, patches, C) with a known number of patches, or is cut off.
    """
    store = open_array(path)
    if store.ndim != 4 or len(store) != 1 or store.shape[2] not in PATCH_GRIDS or 0 in store.shape:
        raise ValueError(
            f"{path} must have shape (1, V, patches, C) with {sorted(PATCH_GRIDS)} patches, got {store.shape}. "
            "Extract the features again."
        )
    return store[0]


def load_teacher_features(
    data_dir: str | Path,
    scene_id: str,
    frame_names: Sequence[str],
    grid: TokenGrid,
    protocol: Literal["clean", "paper"] = "clean",
) -> np.ndarray:
    """Read the features of frames, averaged to the token grid: `teacher_features` of a training sample.

    The store keeps no names; it was sampled over the sorted pictures of the folder. Only frames that it holds can be
    read, so ask for as many frames as it has, by the rule "uniform". Its patches show the whole frame.

    Args:
        data_dir: Folder in the public layout.
        scene_id: Name such as "scannet/scene0000_00".
        frame_names: Names of the frames.
        grid: Token grid of the model.
        protocol: Rule by which patches are pooled to the grid, see `pool_teacher_features`.

    Returns:
        Array (V, rows, cols, C), float32.

    Raises:
        FileNotFoundError: No store, or no frames, of this scene.
        TypeError: An argument of another kind.
        ValueError: No frame or an unknown protocol, or the store cannot be read, holds values that are not finite, or
            lacks one of the frames.
    """
    frame_names = check_texts(frame_names, "frame_names", is_ordered=True)
    if not frame_names:
        raise ValueError("`frame_names` must name at least one frame, got none.")
    check_choice(protocol, PROTOCOLS, "protocol")
    check_grid(grid)
    layout = Layout(data_dir)
    path = layout.teacher(scene_id)
    store = open_teacher(path)
    stored = stored_names(folder_names(layout, scene_id), len(store))
    absent = [name for name in frame_names if name not in stored]
    if absent:
        raise ValueError(
            f"{path} holds {len(store)} frames, {stored[0]} to {stored[-1]}, but not {absent[:5]}. Choose the frames "
            f"uniformly from the folder with num_frames={len(store)}, or extract the features again."
        )
    features = torch.from_numpy(np.asarray(store[[stored.index(name) for name in frame_names]], np.float32))
    if not torch.isfinite(features).all():
        raise ValueError(f"{path} holds values that are not finite. Extract the features again.")
    patches = features.unflatten(1, PATCH_GRIDS[store.shape[1]])
    return pool_teacher_features(patches, grid, protocol=protocol).numpy()
