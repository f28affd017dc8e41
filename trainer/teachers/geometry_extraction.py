"""Making of pseudo geometry for a folder of scenes, and its sources by the words of a command line."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from processing.argument_rules import path_text
from processing.benchmarks.readers.tasks import Layout
from trainer.teachers.array_source import ArraySource
from trainer.teachers.colmap_source import ColmapSource
from trainer.teachers.depth_estimation import DepthEstimationSource
from trainer.teachers.identity import StoreIdentity
from trainer.teachers.inspection import MANY_DISAGREEMENTS, measure_disagreement
from trainer.teachers.missing_scenes import list_wanted, store_missing
from trainer.teachers.protocol import FrameSource, GeometrySource, check_source
from trainer.teachers.pseudo_rules import Alignment
from trainer.teachers.store import save_scene, scene_path

__all__ = ["GeometryReport", "extract_geometry", "load_geometry_source"]

logger = logging.getLogger("trainer.teachers")


@dataclass(frozen=True)
class GeometryReport:
    """Result of an extraction in numbers.

    Args:
        scenes: Number of scenes whose geometry is stored now.
        computed: Number of scenes that this run computed, in all processes.
        stored_bytes: Size of the stored files.
    """

    scenes: int
    computed: int
    stored_bytes: int

    def __str__(self) -> str:
        return f"{self.scenes} scenes ({self.computed} computed now), {self.stored_bytes / 1e6:.1f} MB"


def load_geometry_source(
    kind: str,
    *,
    folder: str | Path | None = None,
    name: str | None = None,
    version: str | None = None,
    licence: str | None = None,
    alignment: Alignment | None = None,
    batch_size: int = 8,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> GeometrySource:
    """Make the source of pseudo geometry that a command line names.

    Args:
        kind: "arrays" or "colmap", files in `folder`; else a depth network of Transformers by folder or name.
        folder: Folder of arrays (`ArraySource`) or reconstructions (`ColmapSource`).
        name: Name of what made the arrays.
        version: Version of what made the arrays.
        licence: Licence of its weights.
        alignment: Alignment that the geometry needs; needed for arrays.
        batch_size: Number of frames at a time of a network.
        device: Device of a network.
        dtype: Type of a network.

    Raises:
        OSError: If weights or files do not exist.
        TypeError: If an argument is of another type; the message names it.
        ValueError: If this source does not have an option, lacks one, or refuses its value.
    """
    kind = path_text(kind, "kind")
    given: dict[str, Any] = {"folder": folder, "name": name, "version": version, "licence": licence}
    given = {key: value for key, value in {**given, "alignment": alignment}.items() if value is not None}
    if kind == "arrays":
        return ArraySource(**_exactly(kind, given, ("folder", "name", "version", "licence", "alignment")))
    if kind == "colmap":
        return ColmapSource(**_exactly(kind, given, ("folder",)))
    if not Path(kind).exists() and "/" not in kind:
        raise ValueError(
            f"A source of geometry is arrays, colmap, or a depth network by folder or name on the Hub, got {kind!r}."
        )
    if stray := sorted(set(given) - {"licence", "alignment"}):
        raise ValueError(f"A depth network takes licence and alignment, got {stray}.")
    return DepthEstimationSource(kind, **given, batch_size=batch_size, device=device, dtype=dtype)


def extract_geometry(
    source: GeometrySource,
    data_dir: str | Path,
    output_dir: str | Path,
    scene_ids: Sequence[str],
    *,
    frames: str = "uniform",
    num_frames: int = 32,
) -> GeometryReport:
    """Make and store the pseudo geometry that is not stored yet.

    Each process of a distributed run takes its share of the scenes. A file appears when it is whole, so a run may be
    killed at any time and started again. A scene whose views contradict each other at many pixels is named in a
    warning.

    Args:
        source: Source of the geometry.
        data_dir: Folder in the public layout, whose pictures are read.
        output_dir: Folder that gets `<scene_id>.safetensors`, see `TeacherStore`.
        scene_ids: Names of scenes, such as "scannet/scene0000_00".
        frames: Rule of the frames, "uniform", "listed" or "coverage" as in `load_task`; the rule of the training.
        num_frames: Number of frames of a scene at most.

    Raises:
        FileNotFoundError: If a scene, a frame or its geometry does not exist.
        TypeError: If an argument is of another type; the message names it.
        ValueError: If there is no scene, or the folder holds something of another source or of other frames. Also if
            the geometry of a scene is broken or contradicts itself; the message names the scene.
    """
    check_source(source)
    wanted = list_wanted(Layout(data_dir), scene_ids, frames, num_frames)
    identity = StoreIdentity.of_source(source)

    def store(names: FrameSource, pictures: np.ndarray) -> None:
        geometry = source.compute_geometry(pictures, names)
        save_scene(output_dir, identity, names, geometry=geometry)
        contradicted = measure_disagreement(geometry)
        if contradicted is not None and contradicted > MANY_DISAGREEMENTS:
            logger.warning(
                "%s: views contradict each other at %.0f %% of the pixels, which training leaves out. Look at its "
                "depth and poses.",
                names.scene_id,
                100 * contradicted,
            )

    computed = store_missing(output_dir, identity, data_dir, wanted, store, title="Pseudo geometry")
    stored = sum(scene_path(output_dir, scene).stat().st_size for scene in wanted)
    return GeometryReport(len(wanted), computed, stored)


def _exactly(kind: str, given: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the given options, or raise ValueError unless they are those of these names."""
    if set(given) != set(names):
        raise ValueError(f"The kind {kind} needs {list(names)}, got {sorted(given) or 'none of them'}.")
    return given
