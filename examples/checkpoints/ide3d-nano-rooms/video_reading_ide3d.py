"""Turn whatever a person calls a video into frames: arrays, lists of images, video files, folders of images."""

import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers.image_utils import is_pil_image
from transformers.video_utils import VideoMetadata

from .frame_order_ide3d import check_count, check_indices
from .image_opening_ide3d import is_animation, is_image, is_image_path
from .image_reading_ide3d import FrameSampler, list_images, read_animation, read_images
from .pixel_rules_ide3d import COLOUR_CHANNELS, check_dense
from .video_decoding_ide3d import DecodingOptions, decode_with_pyav
from .video_sources_ide3d import is_source, open_source, to_local_path
from .video_torchcodec_ide3d import decode_with_torchcodec

logger = logging.getLogger(__name__)

BYTES = (bytes, bytearray, memoryview)
DECODERS = {"pyav": decode_with_pyav, "torchcodec": decode_with_torchcodec}
BACKEND_VARIABLE = "IDE3D_VIDEO_BACKEND"  # names one of them, where no argument does


def list_videos(videos: Any) -> list[Any]:
    """Return a flat list with one entry for each video.

    A stored video is a path or URL (video file, folder of images, picture, animation), bytes, an open binary file, a
    value of `datasets.Video`, or a list of stored pictures (paths, URLs, bytes or `datasets` values). In memory it is
    a list of frames (PIL images or arrays of rank 3), an array or tensor of rank 4, or one single frame. A PIL image
    that is animated is a video too. Arrays of rank 5 and nested lists are batches. Calling the function on its own
    result changes nothing.

    Args:
        videos (`Any`):
            One video or an arbitrarily nested list of videos.

    Returns:
        `list`: Stored videos are entries as they were given; paths become `str`. Other entries are a list of stored
        pictures, a list of frames, an array of rank 4, or an animated PIL image.

    Raises:
        ValueError: for an empty list or an array of another rank.
        TypeError: for anything that is not a video.
    """
    if is_source(videos):
        return [os.fspath(videos) if isinstance(videos, os.PathLike) else videos]
    if is_pil_image(videos):
        return [videos] if is_animation(videos) else [[videos]]
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        if isinstance(videos, torch.Tensor):
            check_dense(videos)
        if videos.ndim not in (3, 4, 5):
            raise ValueError(
                f"A video has the shape (frames, height, width, 3) or (frames, 3, height, width), got "
                f"{tuple(videos.shape)}. A single frame may leave out the first dimension."
            )
        if videos.ndim == 3:
            _warn_of_one_frame(videos)
        return list(videos) if videos.ndim == 5 else [videos] if videos.ndim == 4 else [videos[None]]
    if not isinstance(videos, (list, tuple)):
        raise TypeError(
            "A video is a path, URL, bytes, binary file, an array or tensor of rank 4, or a list of PIL images, "
            f"arrays or image paths, got {type(videos).__name__}."
        )
    if not videos:
        raise ValueError("A video has no frames: got an empty list. Give at least one frame, or leave the video out.")
    is_list_of_paths = all(_is_stored_image(item) for item in videos) and not any(map(is_animation, videos))
    if is_list_of_paths or all(_is_frame(item) for item in videos):
        return [[os.fspath(item) if isinstance(item, os.PathLike) else item for item in videos]]
    return [video for item in videos for video in list_videos(item)]


def is_stored(video: Any) -> bool:
    """Return whether an entry of [`list_videos`] has to be read from disk or network."""
    if isinstance(video, list):
        return isinstance(video[0], (str, *BYTES, dict)) or hasattr(video[0], "read")
    return not isinstance(video, (np.ndarray, torch.Tensor))


def read_video(
    source: Any,
    sample_indices_fn: FrameSampler,
    backend: str | None = None,
    *,
    seeks: bool = True,
    num_threads: int | None = None,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[np.ndarray, VideoMetadata]:
    """Read the wanted frames of a stored video.

    Video files are decoded by PyAV, which brings its own FFmpeg (see [`decode_with_pyav`]), or on request by
    torchcodec (see [`decode_with_torchcodec`]). Every door gives the same upright pixels at the same times. The images
    of a folder are taken in natural order (2 before 10).

    Of a video file, what lies between a wanted frame and the next key frame need not be decoded. Its packets are read
    and checked, but damage within its pictures is not found; `seeks=False` decodes them too.

    Args:
        source (`Any`):
            Video file: path, `file:`, `http:` or `https:` URL, bytes, binary file object, or value of
            `datasets.Video`. Or a folder of images, a single or animated image, or a list of stored images.
        sample_indices_fn (`Callable`):
            Gets `metadata` and returns the indices of the wanted frames, in any order; an index may come repeatedly.
        backend (`str`, *optional*):
            Decoder of video files, `"pyav"` or `"torchcodec"`. Default: the environment variable
            `IDE3D_VIDEO_BACKEND`, or PyAV.
        seeks (`bool`, *optional*, defaults to `True`):
            Whether a video file is decoded from key frames on, where the frames are surely the same. Otherwise all
            frames up to the last wanted one are decoded.
        num_threads (`int`, *optional*):
            Threads that decode a video file, at least 1. Default: the number that FFmpeg chooses by the processor.
        transform (`Callable`, *optional*):
            Function of each wanted picture of a video file, of shape `(height, width, 3)`, uint8, once it is decoded.
            Its result, an array of one shape and type, is kept instead. So a long video fits into memory.

    Returns:
        `tuple[np.ndarray, VideoMetadata]`: frames of shape `(frames, height, width, 3)`, uint8 RGB, one for each index
        and in the order of the indices; and metadata with `total_num_frames` of the source, the `frames_indices`
        taken, and for video files the true `timestamps` in seconds.

    Raises:
        FileNotFoundError: when nothing is there.
        ConnectionError: when a download fails.
        TypeError: when `sample_indices_fn` or `num_threads` gives no whole numbers.
        ValueError: for a folder without images, a file that is truncated or no video, no index, or indices of frames
            that the video does not have.
        ImportError: when PyAV cannot be imported.
    """
    if num_threads is not None:
        check_count(num_threads, "num_threads")
    options = DecodingOptions(seeks, num_threads or 0, transform)
    asked: list[int] = []

    def sample_increasing(metadata: VideoMetadata) -> list[int]:
        # Every decoder reads forwards and each frame once.
        asked[:] = check_indices(sample_indices_fn(metadata=metadata), metadata.total_num_frames)
        return sorted(set(asked))

    frames, metadata = _read_increasing(source, sample_increasing, choose_backend(backend), options)
    taken = list(metadata.frames_indices)
    if taken != asked:
        frames = frames[[taken.index(index) for index in asked]]
    metadata.frames_indices = asked
    return frames, metadata


def choose_backend(backend: str | None = None) -> str:
    """Return the decoder of video files that [`read_video`] takes.

    Args:
        backend (`str`, *optional*):
            Name of the decoder. Default: the environment variable `IDE3D_VIDEO_BACKEND`, or `"pyav"`.

    Raises:
        ValueError: for a name that no decoder has.
    """
    backend = backend or os.environ.get(BACKEND_VARIABLE) or "pyav"
    if backend not in DECODERS:
        raise ValueError(
            f"Expected one of {sorted(DECODERS)} as backend of videos, got {backend!r}. Is {BACKEND_VARIABLE} set?"
        )
    return backend


def _read_increasing(
    source: Any, sample_indices_fn: FrameSampler, backend: str, options: DecodingOptions
) -> tuple[np.ndarray, VideoMetadata]:
    """Read a stored video as [`read_video`] does, at increasing indices."""
    if isinstance(source, (list, tuple)):
        return read_images(source, f"the list of {len(source)} images", sample_indices_fn)
    path = to_local_path(source)
    if path is not None and os.path.isdir(path):
        return read_images(list_images(path), f"the folder {path}", sample_indices_fn)
    if is_pil_image(source) or (path is not None and is_image(path)):
        return read_animation(source, sample_indices_fn)
    with open_source(source) as (file, name):
        if path is None and is_image(file):  # Bytes and downloads have no ending: the content tells.
            file.seek(0)
            return read_animation(file, sample_indices_fn, name)
        return DECODERS[backend](file, name, sample_indices_fn, options)


def _warn_of_one_frame(frame: np.ndarray | torch.Tensor) -> None:
    """Warn where depth maps and a frame with its channels first look the same."""
    is_float = frame.is_floating_point() if isinstance(frame, torch.Tensor) else frame.dtype.kind == "f"
    if is_float and frame.shape[0] in COLOUR_CHANNELS and frame.shape[2] not in COLOUR_CHANNELS:
        logger.warning(
            "A video of shape %s is read as one frame with %d channels. If these are depth maps, they are no frames; "
            "a single frame is (1, channels, height, width) without doubt.",
            tuple(frame.shape), frame.shape[0],
        )  # fmt: skip


def _is_frame(item: Any) -> bool:
    if is_pil_image(item):
        return not is_animation(item)
    return isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim == 3


def _is_stored_image(item: Any) -> bool:
    return is_image_path(item) or ((isinstance(item, (*BYTES, dict)) or hasattr(item, "read")) and is_image(item))
