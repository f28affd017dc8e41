"""Turn whatever a person calls a video into frames: arrays, lists of images, video files, folders of images."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.image_utils import is_pil_image
from transformers.utils import is_av_available, is_torchcodec_available
from transformers.video_utils import VideoMetadata, load_video

from .image_opening_ide3d import is_animation, is_image, is_image_path
from .image_reading_ide3d import FrameSampler, list_images, read_animation, read_images


def list_videos(videos: Any) -> list[Any]:
    """Return a flat list with one entry for each video.

    One video is a path or URL (video file, folder of images, picture, animation) or a list of stored pictures (paths,
    URLs, bytes or `datasets` values). In memory it is a list of frames (PIL images or arrays of rank 3), an array or
    tensor of rank 4, or one single frame. A PIL image that is animated is a video too. Arrays of rank 5 and nested
    lists are batches. Calling the function on its own result changes nothing.

    Args:
        videos (`Any`):
            One video or an arbitrarily nested list of videos.

    Returns:
        `list`: Each entry is a `str`, a list of stored pictures, a list of frames, an array of rank 4, or an animated
        PIL image.

    Raises:
        ValueError: for an empty list or an array of another rank.
        TypeError: for anything that is not a video.
    """
    if isinstance(videos, (str, os.PathLike)):
        return [os.fspath(videos)]
    if is_pil_image(videos):
        return [videos] if is_animation(videos) else [[videos]]
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        if videos.ndim not in (3, 4, 5):
            raise ValueError(
                f"A video has the shape (frames, height, width, 3) or (frames, 3, height, width), got "
                f"{tuple(videos.shape)}. A single frame may leave out the first dimension."
            )
        return list(videos) if videos.ndim == 5 else [videos] if videos.ndim == 4 else [videos[None]]
    if not isinstance(videos, (list, tuple)):
        raise TypeError(
            "A video is a path, an array or tensor of rank 4, or a list of PIL images, arrays or image paths, got "
            f"{type(videos).__name__}."
        )
    if not videos:
        raise ValueError("A video has no frames: got an empty list. Give at least one frame, or leave the video out.")
    is_list_of_paths = all(_is_stored_image(item) for item in videos) and not is_animation(videos[0])
    if is_list_of_paths or all(_is_frame(item) for item in videos):
        return [[os.fspath(item) if isinstance(item, os.PathLike) else item for item in videos]]
    return [video for item in videos for video in list_videos(item)]


def is_stored(video: Any) -> bool:
    """Return whether an entry of [`list_videos`] has to be read from disk or network."""
    if isinstance(video, list):
        return isinstance(video[0], (str, bytes, dict))
    return not isinstance(video, (np.ndarray, torch.Tensor))


def read_video(path: str | Sequence[str], sample_indices_fn: FrameSampler) -> tuple[np.ndarray, VideoMetadata]:
    """Read the wanted frames of a stored video.

    Video files are decoded by PyAV, which brings its own ffmpeg, and by torchcodec where PyAV is missing. A rotation
    stored in the file (phones held upright) is applied. The images of a folder are taken in natural order (2 before
    10).

    Args:
        path (`str` or `list[str]`):
            Video file, URL, folder of images, single image, or list of image paths.
        sample_indices_fn (`Callable`):
            Gets `metadata` and returns the indices of the wanted frames, in any order; an index may come repeatedly.

    Returns:
        `tuple[np.ndarray, VideoMetadata]`: frames of shape `(frames, height, width, 3)`, uint8 RGB, one for each index
        and in the order of the indices; and metadata with `total_num_frames` of the source and the `frames_indices`
        taken.

    Raises:
        FileNotFoundError: when nothing is there.
        ValueError: for a folder without images, a file that is truncated or no video, no index, or indices of frames
            that the video does not have.
        ImportError: when neither PyAV nor torchcodec can be imported.
    """
    asked: list[int] = []

    def sample_increasing(metadata: VideoMetadata) -> list[int]:
        # Every decoder reads forwards and each frame once.
        asked[:] = _check_indices(sample_indices_fn(metadata=metadata), metadata.total_num_frames)
        return sorted(set(asked))

    frames, metadata = _read_increasing(path, sample_increasing)
    taken = list(metadata.frames_indices)
    if taken != asked:
        frames = frames[[taken.index(index) for index in asked]]
    metadata.frames_indices = asked
    return frames, metadata


class _FrameIndexError(ValueError):
    """Indices of frames that there are not: the fault is the caller's, not the file's."""


def _check_indices(indices: Any, total: int | None) -> list[int]:
    indices = [int(index) for index in indices]
    if not indices:
        raise _FrameIndexError("Expected the index of at least one frame, got none.")
    last = total - 1 if total else max(indices)  # a stream may not say how many frames it has
    if wrong := [index for index in indices if not 0 <= index <= last]:
        raise _FrameIndexError(f"Expected frame indices from 0 to {last}, the last of the video, got {wrong}.")
    return indices


def _read_increasing(path: str | Sequence[str], sample_indices_fn: FrameSampler) -> tuple[np.ndarray, VideoMetadata]:
    """Read a stored video as [`read_video`] does, at increasing indices."""
    if isinstance(path, (list, tuple)):
        return read_images(path, f"the list of {len(path)} images", sample_indices_fn)
    if isinstance(path, str) and os.path.isdir(path):
        return read_images(list_images(path), f"the folder {path}", sample_indices_fn)
    if is_image(path):
        return read_animation(path, sample_indices_fn)
    if path.startswith(("http://", "https://")):
        backend = "pyav" if is_av_available() else "torchcodec"
        return load_video(path, backend=backend, sample_indices_fn=sample_indices_fn)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"No video file or folder of images at {path}. Check the path; the current "
                                f"directory is {os.getcwd()}.")  # fmt: skip
    if os.path.getsize(path) == 0:
        raise ValueError(f"{path} is an empty file. Copy or download it again.")
    if is_av_available():
        return _decode_with_pyav(path, sample_indices_fn)
    if is_torchcodec_available():
        return _decode_with_torchcodec(path, sample_indices_fn)
    raise ImportError(f"To read {path}, install PyAV (`pip install av`) or torchcodec (`pip install torchcodec`).")


def _is_frame(item: Any) -> bool:
    if is_pil_image(item):
        return not is_animation(item)
    return isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim == 3


def _is_stored_image(item: Any) -> bool:
    return is_image_path(item) or (isinstance(item, (bytes, dict)) and is_image(item))


def _decode_with_torchcodec(path: str, sample_indices_fn: FrameSampler) -> tuple[np.ndarray, VideoMetadata]:
    try:
        frames, metadata = load_video(path, backend="torchcodec", sample_indices_fn=sample_indices_fn)
    except _FrameIndexError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(_unreadable(path, error)) from error
    return frames.permute(0, 2, 3, 1).numpy(), metadata


def _decode_with_pyav(path: str, sample_indices_fn: FrameSampler) -> tuple[np.ndarray, VideoMetadata]:
    try:
        import av
    except ImportError as error:
        raise ImportError(f"To read {path}, install PyAV (`pip install av`).") from error
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no video stream. Give a file with moving pictures.")
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            # Some containers (.mkv, .webm) do not store the number of frames: count the packets, which is quick.
            total = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        metadata = VideoMetadata(total_num_frames=total, fps=float(rate) if rate else None, video_backend="pyav")
        frames, decoded = _decode_frames(av.open(path), sample_indices_fn, metadata)
        if decoded < total:
            _check_not_truncated(path, decoded, total)
            metadata.total_num_frames = decoded
            frames, _ = _decode_frames(av.open(path), sample_indices_fn, metadata)
    except av.error.FFmpegError as error:
        raise ValueError(_unreadable(path, error)) from error
    metadata.height, metadata.width = frames[0].shape[:2]
    metadata.duration = metadata.total_num_frames / metadata.fps if metadata.fps else None
    return np.stack(frames), metadata


def _decode_frames(container: Any, sample_indices_fn: FrameSampler, metadata: VideoMetadata) -> tuple[list, int]:
    """Return the frames at the sampled indices, and the number of frames decoded for them."""
    if metadata.total_num_frames < 1:
        return [], 0
    metadata.frames_indices = [int(index) for index in sample_indices_fn(metadata=metadata)]
    wanted, frames, decoded = set(metadata.frames_indices), [], 0
    with container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for index, frame in enumerate(container.decode(stream)):
            decoded = index + 1
            if index in wanted:
                picture = frame.to_ndarray(format="rgb24")
                frames.append(np.rot90(picture, k=round(frame.rotation / 90)) if frame.rotation else picture)
            if index == metadata.frames_indices[-1]:
                return frames, metadata.total_num_frames
    return frames, decoded


def _check_not_truncated(path: str, decoded: int, total: int) -> None:
    # Edit lists and pictures without a key frame cost a healthy file a few frames at its ends.
    tolerated = max(2, total // 100)
    if decoded < 1 or decoded < total - tolerated:
        raise ValueError(
            f"{path} announces {total} frames but only {decoded} can be decoded: the file is truncated or damaged. "
            "Copy or download it again, or rescue its beginning with `ffmpeg -i FILE rescued.mp4`."
        )


def _unreadable(path: str, error: Exception) -> str:
    return (
        f"{path} cannot be decoded as a video ({error}). It is damaged, cut off, or no video file. Copy or download "
        "it again, or convert it with `ffmpeg -i FILE converted.mp4`."
    )
