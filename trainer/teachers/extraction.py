"""Extraction of teacher features for a folder of scenes, by one process or several."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from processing.argument_rules import path_text
from processing.benchmarks import load_scene
from processing.benchmarks.readers.files import read_infos
from processing.benchmarks.readers.scenes import FrameLists
from processing.benchmarks.readers.tasks import Layout
from processing.benchmarks.readers.teacher import PATCH_GRIDS
from processing.frame_order_ide3d import check_count
from processing.regions import check_grid
from processing.scene_names import check_name, check_names
from processing.token_grid import TokenGrid
from trainer.processes import join_processes
from trainer.teachers.identity import StoreIdentity
from trainer.teachers.original import OriginalStoreTeacher
from trainer.teachers.protocol import FrameSource, Teacher, check_teacher
from trainer.teachers.store import read_scene, save_scene, scene_path

__all__ = ["ExtractionReport", "extract_features", "list_scenes"]

logger = logging.getLogger("trainer.teachers")

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
    output_dir = path_text(output_dir, "output_dir")
    layout = Layout(data_dir)
    state = join_processes()
    wanted = list_wanted(layout, scene_ids, frames, num_frames)
    identity = StoreIdentity.of(teacher, grid)
    todo = list_unfinished(output_dir, identity, wanted)
    state.wait_for_everyone()  # no process writes before all have read the folder
    share = todo[state.process_index :: state.num_processes]
    for scene in tqdm(share, desc="Teacher features", unit="scene", disable=not state.is_main_process):
        video = load_scene(data_dir, scene, frame_names=wanted[scene].frame_names)
        features = teacher.compute_features(video.frames, None, grid, wanted[scene])
        if features is None:
            raise ValueError(f"{teacher.name} gives no features of frames alone; compute them in training.")
        channels = features.shape[-1] if getattr(features, "ndim", 0) else None
        if channels not in (None, teacher.feature_size):
            raise ValueError(
                f"{scene}: {teacher.name} gives `features` of {channels} channels, its `feature_size` is "
                f"{teacher.feature_size}. Set the one that is right."
            )
        save_scene(output_dir, identity, wanted[scene], features)
    state.wait_for_everyone()
    return _report(teacher, layout, output_dir, list(wanted), len(todo))


def list_wanted(layout: Layout, scene_ids: Sequence[str], frames: str, num_frames: int) -> dict[str, FrameSource]:
    """Return the frames of each scene, by a rule of the training.

    Raises:
        FileNotFoundError: If a scene does not exist.
        TypeError: If an argument is of another type.
        ValueError: If there is no scene, or one is a video file.
    """
    scene_ids = check_names(scene_ids, "scene_ids")
    if not scene_ids:
        raise ValueError("`scene_ids` name no scene: give at least one.")
    check_count(num_frames)
    lists = FrameLists(layout, frames, num_frames)
    wanted = {scene: FrameSource(scene, tuple(lists.names(scene))) for scene in scene_ids}
    videos = [scene for scene, source in wanted.items() if not source.frame_names]
    if videos:
        raise ValueError(f"{videos[0]} is a video file, and stores go by the names of frames. Unpack its frames.")
    return wanted


def list_unfinished(output_dir: str | Path, identity: StoreIdentity, wanted: dict[str, FrameSource]) -> list[str]:
    """Return the scenes that are not stored yet.

    Raises:
        ValueError: If a file does not belong together with the new ones.
    """
    for path in sorted(Path(output_dir).rglob("*.safetensors")):
        scene = read_scene(path)
        scene.identity.check_equal(identity, path)
        source = wanted.get(scene.scene_id)
        if source is not None and scene.frame_names != source.frame_names:
            raise ValueError(
                f"{path} has the frames {list(scene.frame_names)}, not {list(source.frame_names)}. Give another "
                "folder, or remove the file."
            )
    return [scene for scene in wanted if not scene_path(output_dir, scene).is_file()]


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
