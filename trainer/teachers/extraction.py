"""Extraction of teacher features for a folder of scenes, by one process or several."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from processing.benchmarks.readers.files import read_infos
from processing.benchmarks.readers.tasks import Layout
from processing.benchmarks.readers.teacher import PATCH_GRIDS
from processing.regions import check_grid
from processing.scene_names import check_name, check_names
from processing.token_grid import TokenGrid
from trainer.teachers.identity import StoreIdentity
from trainer.teachers.missing_scenes import list_wanted, store_missing
from trainer.teachers.original import OriginalStoreTeacher
from trainer.teachers.protocol import FrameSource, Teacher, check_teacher
from trainer.teachers.store import read_scene, save_scene, scene_path

__all__ = ["ExtractionReport", "extract_features", "list_scenes"]

ORIGINAL_PATCHES = max(PATCH_GRIDS)  # Patches of a frame; the original stores all of them, in float32.
ORIGINAL_BYTES = 4


@dataclass(frozen=True)
class ExtractionReport:
    """Result of an extraction in numbers.

    Args:
        scenes: Number of scenes whose features are stored now.
        computed: Number of scenes that this run computed, in all processes.
        stored_bytes: Size of the stored files.
        original_bytes: Size of the same frames and channels as the original stores them: its own files where they were
            read, else float32 of 1036 patches a frame.
    """

    scenes: int
    computed: int
    stored_bytes: int
    original_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.scenes} scenes ({self.computed} computed now), {self.stored_bytes / 1e6:.1f} MB, "
            f"{self.original_bytes / self.stored_bytes:.1f} times smaller than as the original stores them "
            f"({self.original_bytes / 1e6:.1f} MB)"
        )


def list_scenes(data_dir: str | Path, *, split: str | None = None, scene_ids: Sequence[str] = ()) -> list[str]:
    """List the scenes to extract: given ones, a split, or all of the folder.

    A split is read from EmbodiedScan's file; all scenes are the folders `*/posed_images/*`.

    Args:
        data_dir: Folder in the public layout.
        split: Split of EmbodiedScan; None: no split.
        scene_ids: Names of scenes; empty: not given.

    Raises:
        FileNotFoundError: If the folder does not exist or holds no scene, or there is no file of the split.
        ValueError: If both a split and scenes are given, or a scene twice.
    """
    layout = Layout(data_dir)
    scene_ids = check_names(scene_ids, "scene_ids")
    if split is not None:
        check_name(split, "split")
    if split and scene_ids:
        raise ValueError(f"Give a split or scenes, not both, got split {split!r} and {len(scene_ids)} scenes.")
    if scene_ids:
        twice = sorted({scene for scene in scene_ids if list(scene_ids).count(scene) > 1})
        if twice:
            raise ValueError(f"`scene_ids` name {twice} more than once. Name each scene once.")
        return scene_ids
    if split:
        path = next((path for path in layout.infos(split) if path.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"Split {split!r} is listed in {layout.infos(split)[1]}, which does not exist.")
        return sorted(read_infos(path))
    folders = sorted(folder for folder in layout.root.glob("*/posed_images/*") if folder.is_dir())
    if not folders:
        raise FileNotFoundError(
            f"{data_dir} holds no scenes: expected folders such as scannet/posed_images/scene0000_00."
        )
    return [f"{folder.parent.parent.name}/{folder.name}" for folder in folders]


def extract_features(
    teacher: Teacher,
    grid: TokenGrid,
    data_dir: str | Path,
    output_dir: str | Path,
    scene_ids: Sequence[str],
    *,
    frames: str = "uniform",
    num_frames: int = 32,
) -> ExtractionReport:
    """Compute and store the features that are not stored yet.

    Each process of a distributed run takes its share of the scenes. A file appears when it is whole, so a run may be
    killed at any time and started again. Everything that is in the folder already is checked before anything is
    computed.

    Args:
        teacher: Teacher that needs frames alone.
        grid: Token grid of the model that will be trained.
        data_dir: Folder in the public layout.
        output_dir: Folder that gets `<scene_id>.safetensors`, see `TeacherStore`.
        scene_ids: Names of scenes, such as "scannet/scene0000_00".
        frames: Rule of the frames, "uniform", "listed" or "coverage" as in `load_task`; the rule of the training.
        num_frames: Number of frames of a scene at most.

    Returns:
        Numbers of scenes and bytes.

    Raises:
        FileNotFoundError: If a scene or a frame does not exist.
        TypeError: If an argument is of another type; the message names it.
        ValueError: If there is no scene, or the processes of a launcher do not know each other. Also if the folder
            holds features that do not belong together with the new ones: of another teacher, preprocessing, grid or
            protocol, of other frames, or a file that is not whole.
    """
    check_teacher(teacher)
    check_grid(grid)
    layout = Layout(data_dir)
    wanted = list_wanted(layout, scene_ids, frames, num_frames)
    identity = StoreIdentity.of(teacher, grid)

    def store(source: FrameSource, pictures: np.ndarray) -> None:
        features = teacher.compute_features(pictures, None, grid, source)
        if features is None:
            raise ValueError(f"{teacher.name} gives no features of frames alone; compute them in training.")
        channels = features.shape[-1] if getattr(features, "ndim", 0) else None
        if channels not in (None, teacher.feature_size):
            raise ValueError(
                f"{source.scene_id}: {teacher.name} gives `features` of {channels} channels, its `feature_size` is "
                f"{teacher.feature_size}. Set the one that is right."
            )
        save_scene(output_dir, identity, source, features)

    computed = store_missing(output_dir, identity, data_dir, wanted, store, title="Teacher features")
    return _report(teacher, layout, output_dir, list(wanted), computed)


def _report(
    teacher: Teacher, layout: Layout, output_dir: str | Path, scene_ids: list[str], computed: int
) -> ExtractionReport:
    stored = original = 0
    for scene in scene_ids:
        path = scene_path(output_dir, scene)
        stored += path.stat().st_size
        if isinstance(teacher, OriginalStoreTeacher):
            original += layout.teacher(scene).stat().st_size
        else:
            frames, *_, channels = read_scene(path).shape
            original += frames * ORIGINAL_PATCHES * channels * ORIGINAL_BYTES
    return ExtractionReport(len(scene_ids), computed, stored, original)
