"""The one place that opens the media of chats: videos, folders of frames, scans with geometry, pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from processing.argument_rules import as_path, check_flag, check_text, check_texts
from processing.frame_order_ide3d import check_count, find_uniform_indices
from processing.image_reading_ide3d import read_image
from processing.posed_video import PosedVideo
from processing.scene_folders import list_frame_names
from processing.video_reading_ide3d import read_video

__all__ = ["find_media", "read_media", "read_pictures"]


def find_media(path: str, folder: str | Path) -> Path:
    """Return the file or folder that a row names.

    Args:
        path: Path as the row has it; one that is not absolute begins in `folder`.
        folder: Folder of the media.

    Raises:
        FileNotFoundError: If nothing is there.
    """
    place = Path(folder, path)
    try:
        is_there = place.exists()
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"{str(place)[:300]} is no path of a file: {error}.") from error
    if not is_there:
        raise FileNotFoundError(f"{place} does not exist. Relative paths begin in the folder of the media; check it.")
    return place


def read_media(
    video: str | list[str],
    folder: str | Path = ".",
    *,
    num_frames: int = 32,
    has_geometry: bool = True,
    skip_invalid_poses: bool = False,
) -> dict[str, Any]:
    """Read the frames of a video, and the geometry of a scan.

    Frames are taken uniformly, first and last included. A folder with `NNNNN.jpg` and depth or poses beside them is a
    scan as `PosedVideo.from_folder` reads it; any other folder holds the frames of a video.

    Args:
        video: Path of a video file or of a folder, or the paths of frames.
        folder: Folder that relative paths begin in.
        num_frames: Number of frames (V), at most.
        has_geometry: Whether to read depth, intrinsics and poses of a scan.
        skip_invalid_poses: Whether to leave out frames whose pose is not finite, where poses are read.

    Returns:
        `frames` (V, h, w, 3) uint8, and of a scan `frame_names`. With geometry also what the scan has of `depth`
        (V, hd, wd) metres, `intrinsics` (V, 3, 3) and `camera_to_world` (V, 4, 4), as the collator takes them.

    Raises:
        TypeError: If an argument is of another kind.
        FileNotFoundError: If nothing is there.
        ValueError: If it cannot be read, or its parts contradict each other.
    """
    check_count(num_frames)
    folder = as_path(folder, "folder")
    has_geometry, skip_invalid_poses = (
        check_flag(has_geometry, "has_geometry"),
        check_flag(skip_invalid_poses, "skip_invalid_poses"),
    )
    if isinstance(video, list):
        video = check_texts(video, "video", is_ordered=True)
        if not video:
            raise ValueError("`video` must be a path or the paths of frames, got an empty list.")
        return {"frames": _read_frames([str(find_media(path, folder)) for path in video], num_frames)}
    check_text(video, "video")
    place = find_media(video, folder)
    names = list_frame_names(place) if place.is_dir() else []
    if names and any(place.joinpath(f"{names[0]}{suffix}").exists() for suffix in (".txt", ".png")):
        return _read_scan(place, names, num_frames, has_geometry, skip_invalid_poses)
    # Captures of other tools are recognised here, before a folder is taken for one of frames.
    return {"frames": _read_frames(str(place), num_frames)}


def read_pictures(paths: list[str] | tuple[str, ...], folder: str | Path) -> list[np.ndarray]:
    """Read pictures (h, w, 3) uint8, upright."""
    return [read_image(str(find_media(path, folder))) for path in paths]


def _read_frames(source: str | list[str], num_frames: int) -> np.ndarray:
    return read_video(source, lambda metadata: find_uniform_indices(metadata.total_num_frames, num_frames))[0]


def _read_scan(
    folder: Path, names: list[str], num_frames: int, has_geometry: bool, skip_invalid_poses: bool
) -> dict[str, Any]:
    scan = PosedVideo.from_folder(
        folder,
        frame_names=[names[index] for index in find_uniform_indices(len(names), num_frames)],
        parts=None if has_geometry else (),
        skip_invalid_poses=skip_invalid_poses and has_geometry,
    )
    parts = ("frames", "frame_names", "depth", "intrinsics", "camera_to_world")
    return {part: getattr(scan, part) for part in parts if getattr(scan, part) is not None}
