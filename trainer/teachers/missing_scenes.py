"""Scenes of a folder that a store lacks: which they are, and how processes share the work on them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from processing.argument_rules import path_text
from processing.benchmarks import load_scene
from processing.benchmarks.readers.scenes import FrameLists
from processing.benchmarks.readers.tasks import Layout
from processing.frame_order_ide3d import check_count
from processing.scene_names import check_names
from trainer.processes import join_processes
from trainer.teachers.identity import StoreIdentity
from trainer.teachers.protocol import FrameSource
from trainer.teachers.store import read_scene, scene_path

__all__ = ["list_wanted", "store_missing"]


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


def store_missing(
    output_dir: str | Path,
    identity: StoreIdentity,
    data_dir: str | Path,
    wanted: dict[str, FrameSource],
    store: Callable[[FrameSource, np.ndarray], None],
    *,
    title: str,
) -> int:
    """Store the scenes that a folder lacks, each in one of the processes.

    What the folder holds already is checked before anything is computed.

    Args:
        output_dir: Folder of the store.
        identity: Identity of the store.
        data_dir: Folder in the public layout, whose pictures are read.
        wanted: Frames of each scene, by its name.
        store: Function that computes and stores a scene; gets its names, and its frames (V, h, w, 3) uint8.
        title: Words before the bar of progress.

    Returns:
        Number of scenes that were stored now, in all processes.

    Raises:
        FileNotFoundError: If a frame does not exist.
        TypeError: If `output_dir` is no path.
        ValueError: If a file of the folder does not belong together with the new ones, or the processes of a launcher
            do not know each other.
    """
    output_dir = path_text(output_dir, "output_dir")
    state = join_processes()
    missing = _list_missing(output_dir, identity, wanted)
    state.wait_for_everyone()  # no process writes before all have read the folder
    share = missing[state.process_index :: state.num_processes]
    for scene in tqdm(share, desc=title, unit="scene", disable=not state.is_main_process):
        store(wanted[scene], load_scene(data_dir, scene, frame_names=wanted[scene].frame_names).frames)
    state.wait_for_everyone()
    return len(missing)


def _list_missing(output_dir: str | Path, identity: StoreIdentity, wanted: dict[str, FrameSource]) -> list[str]:
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
