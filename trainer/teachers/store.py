"""Stored teacher features and pseudo geometry: one safetensors file a scene, with its facts, memory-mapped."""

import json
import reprlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from processing.argument_rules import path_text
from processing.limits import check_file, parse_json
from processing.regions import check_grid
from processing.scene_names import check_name, check_names, path_inside
from processing.token_grid import TokenGrid
from processing.writing import write_bytes
from trainer.teachers.identity import StoreIdentity
from trainer.teachers.protocol import FrameSource
from trainer.teachers.stored_geometry import PseudoGeometry, check_tensors, pack_geometry, read_geometry

__all__ = ["StoredScene", "TeacherStore", "has_header", "read_scene", "save_scene", "scene_path"]

# The one key of the metadata: safetensors writes several in an order that changes from run to run.
HEADER = "ide3d_teacher_features"
FORMAT, FORMAT_WITH_GEOMETRY = 1, 2  # Old files hold features alone, and so are new ones without geometry.
KINDS = ("F16", "BF16", "F32")  # Types of features that are read; float16 is what is written.


@dataclass(frozen=True)
class StoredScene:
    """Header of a file.

    Args:
        identity: Identity of the store.
        scene_id: Name of the scene.
        frame_names: Names of the frames, in the order of the features.
        shape: Shape (V, rows, cols, C) of the features; None: the file holds geometry alone.
        geometry: Names of the tensors of geometry.
    """

    identity: StoreIdentity
    scene_id: str
    frame_names: tuple[str, ...]
    shape: tuple[int, int, int, int] | None
    geometry: tuple[str, ...] = ()


def scene_path(folder: str | Path, scene_id: str) -> Path:
    """Return the path of a scene's file.

    Raises:
        ValueError: If the id would lead out of the folder.
    """
    return Path(folder) / f"{check_name(scene_id)}.safetensors"


def save_scene(
    folder: str | Path,
    identity: StoreIdentity,
    source: FrameSource,
    features: Tensor | None = None,
    geometry: PseudoGeometry | None = None,
) -> Path:
    """Write features and geometry of a scene, whichever the identity speaks of, as float16.

    The file appears when it is whole.

    Args:
        folder: Folder of the store.
        identity: Facts of the store.
        source: Scene and frames.
        features: Features (V, rows, cols, C).
        geometry: Pseudo geometry of the frames.

    Raises:
        TypeError: If the features are no tensor of fractions, or the geometry is none.
        ValueError: If the shape is not that of frames and grid, float16 does not hold a value, or a frame comes twice.
            Also if the geometry is broken, or the scene id or a symlink leads out of the folder.
    """
    folder = path_text(folder, "folder")
    _check_unique(source.frame_names, source.scene_id)
    tensors: dict[str, Tensor] = {}
    if identity.has_features:
        tensors["features"] = _pack_features(identity, source, features)
    if identity.alignment is not None:
        tensors |= pack_geometry(geometry, identity.alignment, len(source.frame_names), source.scene_id)
    facts = asdict(identity)
    if identity.alignment is None:
        del facts["alignment"]
    header = {
        "format": FORMAT if identity.alignment is None else FORMAT_WITH_GEOMETRY,
        "scene_id": source.scene_id,
        "frame_names": source.frame_names,
        "identity": facts,
    }
    path = path_inside(folder, f"{check_name(source.scene_id)}.safetensors")
    write_bytes(path, save(tensors, metadata={HEADER: json.dumps(header)}))
    return path


def _pack_features(identity: StoreIdentity, source: FrameSource, features: Any) -> Tensor:
    """Return features as float16, checked."""
    if isinstance(features, np.ndarray) and features.dtype.kind == "f":
        features = torch.from_numpy(features.astype(features.dtype.newbyteorder("="), copy=False))
    if not isinstance(features, Tensor) or not features.is_floating_point() or features.layout != torch.strided:
        shown = features.dtype if isinstance(features, (Tensor, np.ndarray)) else reprlib.repr(features)
        raise TypeError(f"{source.scene_id}: `features` must be a tensor of fractions such as float32, got {shown}.")
    expected = (len(source.frame_names), *identity.grid.shape)
    if features.dim() != 4 or tuple(features.shape[:3]) != expected or not features.shape[-1]:
        raise ValueError(
            f"{source.scene_id}: `features` must have shape {(*expected, 'C')}, got {tuple(features.shape)}."
        )
    halves = features.detach().to("cpu", torch.float16).contiguous()
    if not torch.isfinite(halves).all():
        largest = features[torch.isfinite(features)].abs().amax() if torch.isfinite(features).any() else torch.nan
        raise ValueError(
            f"{source.scene_id}: float16 holds values up to 65504, the features have NaN, Inf or up to {largest:.4g}."
        )
    return halves


def has_header(path: str | Path) -> bool:
    """Return whether a file begins as one of a store, even if it is broken."""
    with Path(path).open("rb") as file:
        return HEADER.encode() in file.read(4096)


def read_scene(path: str | Path) -> StoredScene:
    """Read and check the header of a file.

    Safetensors also checks the length of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not of this format, or was cut off.
    """
    check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata, shape, kind = file.metadata() or {}, None, None
            if "features" in file.keys():
                shape = tuple(file.get_slice("features").get_shape())
                kind = file.get_slice("features").get_dtype()
            header = parse_json(metadata[HEADER].encode("utf-8"), "its header")
            names = header["frame_names"]
            if not isinstance(names, list) or kind not in (*KINDS, None):
                raise ValueError(f"features of type {kind} for the frames {reprlib.repr(names)}")
            geometry = check_tensors(file, len(names))
        names = check_names(names, "frame_names", "name of a frame", is_ordered=True)
        _check_unique(names, "its header")
        if header["format"] not in (FORMAT, FORMAT_WITH_GEOMETRY):
            raise ValueError(f"format {header['format']}, expected {FORMAT} or {FORMAT_WITH_GEOMETRY}")
        identity = StoreIdentity(**header["identity"])
        scene = StoredScene(identity, check_name(header["scene_id"]), tuple(names), shape, geometry)
        if (shape is not None, bool(geometry)) != (identity.has_features, identity.alignment is not None):
            raise ValueError(f"features {shape} and geometry {geometry}, other than its header says")
        if shape is not None and (
            len(shape) != 4 or not shape[-1] or shape[:3] != (len(scene.frame_names), *identity.grid.shape)
        ):
            raise ValueError(f"features {shape} for {len(scene.frame_names)} frames of {identity.grid.shape} tokens")
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ValueError(
            f"{path} holds no whole teacher features: {error}. Remove it and extract it again."
        ) from error
    return scene


class TeacherStore:
    """A folder that `python -m trainer.teachers` filled, as a teacher.

    Name, version, licence and protocol are those of the teacher that made the features. Files are memory-mapped: a
    sample reads the frames that it names and nothing else. Nothing stays open, so that the workers of a data loader
    can share it.

    Args:
        folder: Output folder of the extraction.

    Raises:
        FileNotFoundError: If the folder holds no features.
        TypeError: If `folder` is no path.
        ValueError: If a file holds something else.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(path_text(folder, "folder"))
        first = next(iter(sorted(self.folder.rglob("*.safetensors"))), None)
        if first is None:
            raise FileNotFoundError(f"{folder} holds no teacher features: make them by `python -m trainer.teachers`.")
        scene = read_scene(first)
        self.identity = scene.identity
        self.feature_size = None if scene.shape is None else scene.shape[-1]
        self.name, self.version = self.identity.teacher, self.identity.version
        self.licence, self.preprocessing = self.identity.licence, self.identity.preprocessing
        self.protocol, self.alignment = self.identity.protocol, self.identity.alignment

    def compute_features(
        self,
        frames: Any,
        geometry: dict[str, Tensor] | None,
        grid: TokenGrid,
        source: FrameSource | None = None,
    ) -> Tensor:
        """Look the features of `source` up; see `Teacher` and `load_features`.

        Raises:
            ValueError: If the sample does not name its frames, or names another number of them. Also as in
                `load_features`.
        """
        if source is None:
            raise ValueError(
                "Stored features are found by scene and frame: the sample needs `scene_id` and `frame_names`."
            )
        if not isinstance(source, FrameSource):
            raise TypeError(f"`source` must be a FrameSource, got {source!r:.100}.")
        if frames is not None and len(frames) != len(source.frame_names):
            raise ValueError(f"The sample has {len(frames)} frames and {len(source.frame_names)} `frame_names`.")
        return self.load_features(source.scene_id, source.frame_names, grid)

    def load_features(self, scene_id: str, frame_names: Sequence[str], grid: TokenGrid) -> Tensor:
        """Read the features of these frames in this order.

        Args:
            scene_id: Name of the scene, such as "scannet/scene0000_00".
            frame_names: Names of frames, such as "00010".
            grid: Token grid of the model.

        Returns:
            Tensor (V, rows, cols, feature_size), float32.

        Raises:
            FileNotFoundError: If there are no features of this scene.
            TypeError: If `grid` is no `TokenGrid`, or `frame_names` are no sequence.
            ValueError: If the store has another grid or teacher, lacks a frame, or holds NaN or Inf; the message names
                the file.
        """
        check_grid(grid)
        if not self.identity.has_features:
            raise ValueError(f"{self.folder} holds geometry alone, no features: give it as `pseudo_geometry`.")
        if grid != self.identity.grid:
            raise ValueError(
                f"{self.folder} holds features for {_describe(self.identity.grid)}, the model has {_describe(grid)}. "
                "Extract them for this model."
            )
        path, scene, frame_names = self._find_frames(scene_id, frame_names, "features")
        if scene.shape[-1] != self.feature_size:
            raise ValueError(f"{path} has {scene.shape[-1]} channels, the rest of the store {self.feature_size}.")
        with safe_open(path, framework="pt") as file:
            if tuple(frame_names) == scene.frame_names:
                features = file.get_tensor("features").float()
            else:
                stored = file.get_slice("features")
                places = [scene.frame_names.index(name) for name in frame_names]
                features = torch.cat([stored[place : place + 1] for place in places]).float()
        is_finite = torch.isfinite(features).flatten(1).all(1).tolist()
        if not all(is_finite):
            broken = [name for name, is_good in zip(frame_names, is_finite, strict=True) if not is_good]
            raise ValueError(
                f"{path} holds NaN or Inf in the frames {_shorten(broken)}. Remove it and extract the features again."
            )
        return features

    def has_scene(self, scene_id: str) -> bool:
        """Return whether there is a file of this scene."""
        return scene_path(self.folder, scene_id).is_file()

    def load_geometry(self, scene_id: str, frame_names: Sequence[str]) -> PseudoGeometry:
        """Read the pseudo geometry of these frames in this order.

        Args:
            scene_id: Name of the scene, such as "scannet/scene0000_00".
            frame_names: Names of frames, such as "00010".

        Raises:
            FileNotFoundError: If there is no file of this scene.
            ValueError: If the store has no geometry, the file is of another source, lacks a frame, or holds broken
                numbers; the message names the file.
        """
        if self.alignment is None:
            raise ValueError(f"{self.folder} holds features alone, no geometry: make it by `ide3d geometry`.")
        path, scene, frame_names = self._find_frames(scene_id, frame_names, "geometry")
        places = [scene.frame_names.index(name) for name in frame_names]
        return read_geometry(path, scene.geometry, frame_names, places)

    def _find_frames(
        self, scene_id: str, frame_names: Sequence[str], what: str
    ) -> tuple[Path, StoredScene, Sequence[str]]:
        """Return path and header of a scene's file, and the checked names."""
        frame_names = check_names(frame_names, "frame_names", "name of a frame", is_ordered=True)
        path = scene_path(self.folder, scene_id)
        if not path.is_file():
            raise FileNotFoundError(f"{self.folder} holds no {what} of the scene {scene_id}: expected {path}.")
        scene = read_scene(path)
        scene.identity.check_equal(self.identity, path)
        if scene.scene_id != scene_id:
            raise ValueError(f"{path} holds {what} of {scene.scene_id}, not of {scene_id}.")
        if not len(frame_names):
            raise ValueError(f"`frame_names` of {scene_id} name no frame.")
        absent = [name for name in frame_names if name not in scene.frame_names]
        if absent:
            raise ValueError(
                f"{path} holds the frames {_shorten(scene.frame_names)}, the sample has {_shorten(frame_names)}: "
                f"{_shorten(absent)} lack {what}. Extract the frames that you train with."
            )
        return path, scene, frame_names


def _check_unique(names: Sequence[str], where: str) -> None:
    """Raise ValueError for two frames of one name: features are found by it."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{where}: `frame_names` hold {_shorten(twice)} more than once. Give each frame one name.")


def _describe(grid: TokenGrid) -> str:
    height, width = grid.image_size
    return (
        f"{grid.rows} x {grid.cols} tokens on {height} x {width} px (patches of {grid.patch_size}, "
        f"stride {grid.pool_stride})"
    )


def _shorten(names: Sequence[str]) -> str:
    listed = ", ".join(names[:4])
    return listed if len(names) <= 4 else f"{listed} ... {names[-1]} ({len(names)})"
