"""Which frames of a scene are shown, and the scene itself as a `PosedVideo` that opens only what is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from processing.benchmarks.readers.files import read_infos, read_selected_frames
from processing.benchmarks.readers.tasks import Layout
from processing.posed_video import PosedVideo, rescaled_intrinsics
from processing.video_reading_ide3d import read_video

__all__ = ["FRAME_RULES", "FrameLists", "load_scene", "scene_infos", "uniform_names"]

FRAME_RULES = ("uniform", "listed", "coverage")
SCENE_PARTS = ("frames", "poses", "depth")
_SPLITS = ("train", "val", "test")


def uniform_names(names: Sequence[str], count: int) -> list[str]:
    """At most `count` of the names, first and last included: `linspace` cut to integers, the rule of the original."""
    if count >= len(names):
        return list(names)
    return [names[i] for i in np.linspace(0, len(names) - 1, count).astype(int)]


class FrameLists:
    """Names of the frames to show, by scene.

    Args:
        layout: paths.
        rule: "uniform" over the pictures in the folder, "listed" uniform over EmbodiedScan's list, or "coverage".
        num_frames: at most this many.
        coverage: with "coverage", stop at the first frame with which this share of the scene's voxels is seen.

    Raises:
        ValueError: an unknown rule, no frames, a share outside (0, 1], or a share with another rule.
        FileNotFoundError: the file of the rule does not exist.
    """

    def __init__(self, layout: Layout, rule: str = "uniform", num_frames: int = 32, coverage: float | None = None):
        if rule not in FRAME_RULES:
            raise ValueError(f"frames must be one of {FRAME_RULES}, got {rule!r}")
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        if coverage is not None and (rule != "coverage" or not 0 < coverage <= 1):
            raise ValueError(f'coverage is a share in (0, 1] for frames="coverage", got {coverage} with {rule!r}')
        self.layout, self.rule, self.num_frames, self.coverage = layout, rule, num_frames, coverage
        self._listed = scene_infos(layout) if rule == "listed" else {}
        self._selected = read_selected_frames(layout.selected_frames) if rule == "coverage" else {}

    def names(self, scene_id: str) -> list[str]:
        """Frame names in order of time; none where the scene is a video file, which is sampled when it is read.

        Raises:
            FileNotFoundError: the scene has neither frames nor a video.
            ValueError: the rule's file does not list the scene.
        """
        if scene_id.startswith("vsibench/"):
            if not self.layout.video(scene_id).is_file():
                raise FileNotFoundError(f"{scene_id} has no video: expected {self.layout.video(scene_id)}")
            return []
        if self.rule == "coverage":
            return self._by_coverage(scene_id)
        if self.rule == "listed":
            if scene_id not in self._listed:
                raise ValueError(f"EmbodiedScan's files list no images of {scene_id}; use frames='uniform'")
            names = [Path(name).stem for name in self._listed[scene_id]["images"]]
        else:
            names = folder_names(self.layout, scene_id)
        return uniform_names(names, self.num_frames)

    def _by_coverage(self, scene_id: str) -> list[str]:
        if scene_id not in self._selected:
            raise ValueError(f"{self.layout.selected_frames} lists no frames of {scene_id}; use frames='uniform'")
        entry = self._selected[scene_id]
        count = min(self.num_frames, len(entry["frame_names"]))
        if self.coverage is not None:
            seen = np.cumsum(entry["voxel_nums"]) >= self.coverage * entry["num_all_voxels"]
            count = min(count, int(np.argmax(seen)) + 1 if seen.any() else count)
        return sorted(entry["frame_names"][:count], key=int)


def folder_names(layout: Layout, scene_id: str) -> list[str]:
    """Names of all frames in the folder of a scene, sorted.

    Raises:
        FileNotFoundError: no such folder, or no frame in it.
    """
    folder = layout.frames(scene_id)
    names = sorted(file.stem for file in folder.glob("*.jpg") if file.stem.isdigit())
    if not names:
        raise FileNotFoundError(f"{scene_id} has no frames: expected {folder / '00000.jpg'} and so on")
    return names


def scene_infos(layout: Layout) -> dict[str, dict]:
    """EmbodiedScan's facts of all scenes, of every split whose file exists.

    Raises:
        FileNotFoundError: there is none of these files.
        ValueError: one of them cannot be read.
    """
    infos, found = {}, False
    for split in _SPLITS:
        path = next((path for path in layout.infos(split) if path.is_file()), None)
        if path is not None:
            infos.update(_cached_infos(path, path.stat().st_mtime_ns))
            found = True
    if not found:
        raise FileNotFoundError(f"there is no {layout.infos('val')[1]}, nor the file of another split")
    return infos


@lru_cache(maxsize=8)
def _cached_infos(path: Path, modified: int) -> dict[str, dict]:
    return read_infos(path)


def load_scene(
    data_dir: str | Path,
    scene_id: str,
    *,
    frame_names: Sequence[str] | None = None,
    parts: Collection[str] = ("frames",),
    num_frames: int = 32,
    skip_invalid_poses: bool = False,
) -> PosedVideo:
    """A scene of a benchmark; nothing is opened but what `parts` names.

    Args:
        data_dir: folder in the public layout.
        scene_id: "scannet/scene0000_00".
        frame_names: the frames, as in a sample of `load_task`; None or none takes `num_frames` uniformly.
        parts: of "frames", "poses", "depth". Frames are always read. "poses" brings camera_to_world in the
            axis-aligned world frame, in which the boxes are, and intrinsics; it needs EmbodiedScan's file.
        num_frames: see frame_names; a video file of VSI-Bench is sampled by the rule of `IDE3DVideoProcessor`.
        skip_invalid_poses: leave out frames whose pose holds inf or nan, with a warning; `frame_names` of the result
            says which are left.

    Raises:
        FileNotFoundError: the scene, a frame or a part of it does not exist.
        ValueError: an unknown part, or contents that `PosedVideo` refuses, such as poses that are not finite.
    """
    unknown = sorted(set(parts) - set(SCENE_PARTS))
    if unknown:
        raise ValueError(f"parts are {SCENE_PARTS}, got {unknown}")
    layout = Layout(data_dir)
    if scene_id.startswith("vsibench/"):
        if set(parts) - {"frames"}:
            raise FileNotFoundError(f"{scene_id} is a video without poses or depth; ask for parts=('frames',)")
        return _read_video_file(layout.video(scene_id), scene_id, num_frames)
    names = list(frame_names) if frame_names else uniform_names(folder_names(layout, scene_id), num_frames)
    scene = PosedVideo.from_folder(
        layout.frames(scene_id),
        frame_names=names,
        parts=[{"poses": "camera_to_world"}.get(part, part) for part in parts if part != "frames"],
        skip_invalid_poses=skip_invalid_poses,
    )
    scene = dataclasses.replace(scene, scene_id=scene_id)
    return _aligned(scene, layout) if "poses" in parts else scene


def _aligned(scene: PosedVideo, layout: Layout) -> PosedVideo:
    """Poses in the axis-aligned world frame, and EmbodiedScan's depth camera on the pixels of the frames."""
    infos = scene_infos(layout)
    if scene.scene_id not in infos:
        raise ValueError(f"EmbodiedScan's files have no axis_align_matrix of {scene.scene_id}")
    info = infos[scene.scene_id]
    intrinsics = scene.intrinsics
    depth_file = layout.frames(scene.scene_id) / f"{scene.frame_names[0]}.png"
    if depth_file.is_file():
        with Image.open(depth_file) as image:  # the header alone
            depth_size = (image.height, image.width)
        intrinsics = rescaled_intrinsics(info["depth_cam2img"][:3, :3], depth_size, scene.frames.shape[1:3])
    elif intrinsics is None:
        raise FileNotFoundError(f"{depth_file.parent} has neither intrinsic.txt nor a depth image: no camera is known")
    poses = info["axis_align_matrix"] @ scene.camera_to_world.astype(np.float64)
    return dataclasses.replace(scene, camera_to_world=poses, intrinsics=intrinsics)


def _read_video_file(path: Path, scene_id: str, num_frames: int) -> PosedVideo:
    def sample(metadata, **kwargs):
        total = metadata.total_num_frames
        return np.arange(total) if num_frames >= total else np.linspace(0, total - 1, num_frames).astype(int)

    frames, metadata = read_video(str(path), sample)
    names = tuple(f"{index:05d}" for index in metadata.frames_indices)
    return PosedVideo(np.asarray(frames), frame_names=names, scene_id=scene_id)
