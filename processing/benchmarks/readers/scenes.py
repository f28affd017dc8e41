"""Names of the frames that are shown of a scene, and the scene as a `PosedVideo` of the parts that are asked for."""

import os
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from processing.argument_rules import check_choice, check_flag, check_number, check_texts, check_whole
from processing.benchmarks.readers.files import read_infos, read_selected_frames
from processing.benchmarks.readers.tasks import FRAME_RULES, Layout, is_video_file
from processing.frame_order_ide3d import find_uniform_indices, sort_frames
from processing.geometry_rules import rescaled_intrinsics
from processing.image_opening_ide3d import open_image
from processing.posed_video import PosedVideo
from processing.scene_folders import list_frame_names, warn_of_lost_pictures
from processing.scene_names import check_name, check_names
from processing.video_reading_ide3d import read_video

__all__ = [
    "FrameLists",
    "check_same_camera",
    "folder_names",
    "load_scene",
    "scene_infos",
    "uniform_names",
]

SCENE_PARTS = ("frames", "poses", "depth")
# Largest ratio of focal lengths. Frames are often made smaller than their `intrinsic.txt` says, by 4 at most.
_SAME_CAMERA = 5.0
_SPLITS = ("train", "val", "test")


def uniform_names(names: Sequence[str], count: int) -> list[str]:
    """Return at most `count` of the names by `find_uniform_indices`, first and last included."""
    return [names[index] for index in find_uniform_indices(len(names), count)]


class FrameLists:
    """Names of the frames to show, by scene.

    Args:
        layout: Paths of the benchmark folder.
        rule: "uniform" over the pictures in the folder, "listed" uniform over EmbodiedScan's list, or "coverage".
        num_frames: Largest number of frames, at least 1.
        coverage: Share of the scene's voxels in (0, 1] that is enough, with "coverage" only; None takes all frames.

    Raises:
        TypeError: A number of frames that is no integer.
        ValueError: An unknown rule, no frames, a share outside (0, 1], or a share with another rule.
        FileNotFoundError: The file of the rule does not exist.
    """

    def __init__(self, layout: Layout, rule: str = "uniform", num_frames: int = 32, coverage: float | None = None):
        check_choice(rule, FRAME_RULES, "frames")
        num_frames = check_whole(num_frames, "num_frames", 1)
        if coverage is not None:
            coverage = check_number(coverage, "coverage", "a share of the scene", above=0, largest=1)
            if rule != "coverage":
                raise ValueError(f'`coverage` is for frames="coverage", got it with {rule!r}. Leave it out.')
        self.layout, self.rule, self.num_frames, self.coverage = layout, rule, num_frames, coverage
        self._listed = scene_infos(layout) if rule == "listed" else {}
        self._selected = read_selected_frames(layout.selected_frames) if rule == "coverage" else {}

    def names(self, scene_id: str) -> list[str]:
        """Return the frame names in order of time; none for a video file.

        Args:
            scene_id: Name such as "scannet/scene0000_00". A video file is sampled when it is read.

        Raises:
            FileNotFoundError: The scene has neither frames nor a video.
            ValueError: The rule's file does not list the scene.
        """
        if is_video_file(scene_id):
            if not self.layout.video(scene_id).is_file():
                raise FileNotFoundError(f"{scene_id} has no video: expected {self.layout.video(scene_id)}.")
            return []
        if self.rule == "coverage":
            return self._by_coverage(scene_id)
        if self.rule == "listed":
            if scene_id not in self._listed:
                raise ValueError(f"EmbodiedScan's files list no images of {scene_id}. Use frames='uniform'.")
            names = [Path(name).stem for name in self._listed[scene_id]["images"]]
        else:
            names = folder_names(self.layout, scene_id)
        return uniform_names(names, self.num_frames)

    def _by_coverage(self, scene_id: str) -> list[str]:
        if scene_id not in self._selected:
            raise ValueError(f"{self.layout.selected_frames} lists no frames of {scene_id}. Use frames='uniform'.")
        entry = self._selected[scene_id]
        count = min(self.num_frames, len(entry["frame_names"]))
        if self.coverage is not None:
            seen = np.cumsum(entry["voxel_nums"]) >= self.coverage * entry["num_all_voxels"]
            count = min(count, int(np.argmax(seen)) + 1 if seen.any() else count)
        return sort_frames(entry["frame_names"][:count])


def folder_names(layout: Layout, scene_id: str) -> list[str]:
    """Return the names of all frames in the folder of a scene, in natural order.

    Raises:
        FileNotFoundError: No such folder, or no frame in it.
    """
    folder = layout.frames(scene_id)
    names = list_frame_names(folder)
    if not names:
        raise FileNotFoundError(f"{scene_id} has no frames: expected {folder / '00000.jpg'} and so on.")
    warn_of_lost_pictures(folder, names)
    return names


def check_same_camera(listed: np.ndarray, stored: np.ndarray, where: str) -> None:
    """Raise ValueError where EmbodiedScan and the folder disagree on a camera.

    Args:
        listed: EmbodiedScan's camera (3, 3), in the frames' pixels.
        stored: Camera (3, 3) of `intrinsic.txt` or `depth_intrinsic.txt`, in the same pixels, a pinhole camera.
        where: Scene, in messages.
    """
    ratio = np.diagonal(listed)[:2] / np.diagonal(stored)[:2]
    if not (1 / _SAME_CAMERA < ratio.min() and ratio.max() < _SAME_CAMERA):
        raise ValueError(
            f"{where}: `depth_cam2img` of EmbodiedScan's file has focal lengths {ratio.round(3).tolist()} times those "
            "of the scene's folder. Take both of one release, in pixels of the depth images."
        )


def scene_infos(layout: Layout) -> dict[str, dict]:
    """Read EmbodiedScan's facts of all scenes, of every split whose file exists.

    Returns:
        Facts of `read_infos` by scene id.

    Raises:
        FileNotFoundError: None of these files exists.
        ValueError: One of them cannot be read.
    """
    infos, found = {}, False
    for split in _SPLITS:
        path = next((path for path in layout.infos(split) if os.path.lexists(path)), None)
        if path is not None:
            infos.update(_cached_infos(path, path.stat().st_mtime_ns))
            found = True
    if not found:
        raise FileNotFoundError(f"Expected {layout.infos('val')[1]} or the file of another split, none exists.")
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
    """Read a scene of a benchmark; no file is opened but those of `parts`.

    Args:
        data_dir: Folder in the public layout.
        scene_id: Name such as "scannet/scene0000_00".
        frame_names: Names of the frames, as in a sample of `load_task`; None or none takes `num_frames` uniformly.
        parts: Parts to read, of "frames", "poses", "depth". Frames are always read. "poses" brings camera_to_world in
            the axis-aligned world frame, in which the boxes are, and intrinsics; it needs EmbodiedScan's file.
        num_frames: Largest number of frames without `frame_names`. A video file is sampled by the rule of
            `IDE3DVideoProcessor`.
        skip_invalid_poses: Whether to leave out, with a warning, frames whose pose holds inf or nan; `frame_names` of
            the result says which are left.

    Raises:
        FileNotFoundError: The scene, a frame or a part of it does not exist.
        TypeError: An argument of another type.
        ValueError: An unknown part, a name that leads out of the folder, or contents that `PosedVideo` refuses, such
            as poses that are not finite.
    """
    parts = check_texts(parts, "parts", SCENE_PARTS)
    num_frames = check_whole(num_frames, "num_frames", 1)
    skip_invalid_poses = check_flag(skip_invalid_poses, "skip_invalid_poses")
    names = [] if frame_names is None else check_names(frame_names, "frame_names", "name of a frame", is_ordered=True)
    layout = Layout(data_dir)
    if is_video_file(check_name(scene_id, where="`scene_id`")):
        if set(parts) - {"frames"}:
            raise FileNotFoundError(f"{scene_id} is a video without poses or depth. Ask for parts=('frames',).")
        return _read_video_file(layout.video(scene_id), scene_id, num_frames)
    names = names or uniform_names(folder_names(layout, scene_id), num_frames)
    scene = PosedVideo.from_folder(
        layout.frames(scene_id),
        frame_names=names,
        parts=[{"poses": "camera_to_world"}.get(part, part) for part in parts if part != "frames"],
        skip_invalid_poses=skip_invalid_poses,
    )
    scene = scene.named(scene_id)
    return _aligned(scene, layout) if "poses" in parts else scene


def _aligned(scene: PosedVideo, layout: Layout) -> PosedVideo:
    """Return the scene in the axis-aligned world frame, with EmbodiedScan's depth camera."""
    infos = scene_infos(layout)
    if scene.scene_id not in infos:
        raise ValueError(
            f"EmbodiedScan's files have no axis_align_matrix of {scene.scene_id}. Take the file of the right split."
        )
    info = infos[scene.scene_id]
    intrinsics = scene.intrinsics
    depth_file = layout.frames(scene.scene_id) / f"{scene.frame_names[0]}.png"
    if depth_file.is_file():
        with open_image(depth_file) as image:  # The header alone is read.
            depth_size = (image.height, image.width)
        intrinsics = rescaled_intrinsics(info["depth_cam2img"][:3, :3], depth_size, scene.frames.shape[1:3])
        if scene.intrinsics is not None:
            check_same_camera(intrinsics, np.asarray(scene.intrinsics)[0], scene.scene_id)
    elif intrinsics is None:
        raise FileNotFoundError(
            f"Expected intrinsic.txt or a depth image in {depth_file.parent} to know the camera, found neither."
        )
    poses = info["axis_align_matrix"] @ scene.camera_to_world.astype(np.float64)
    return scene.with_cameras(poses, intrinsics)


def _read_video_file(path: Path, scene_id: str, num_frames: int) -> PosedVideo:
    frames, metadata = read_video(
        str(path), lambda metadata: find_uniform_indices(metadata.total_num_frames, num_frames)
    )
    names = tuple(f"{index:05d}" for index in metadata.frames_indices)
    return PosedVideo(np.asarray(frames), frame_names=names, scene_id=scene_id)
