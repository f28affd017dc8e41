"""Turn whatever a person calls a video into frames: arrays, lists of images, video files, folders of images."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers.image_utils import ChannelDimension, is_pil_image, load_image
from transformers.video_utils import VideoMetadata

from .frame_order_ide3d import sort_frames
from .video_decoding_ide3d import decode_with_pyav
from .video_sources_ide3d import is_source, open_source, to_local_path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
COLOUR_CHANNELS = (1, 3, 4)  # grey, RGB, RGB with transparency
DEPTH_LIKE_MODES = ("I", "F")  # Pillow's 16 bit, 32 bit and float modes all begin with one of these letters

FrameSampler = Callable[..., np.ndarray]


def list_videos(videos: Any) -> list[Any]:
    """Return a flat list with one entry for each video.

    A stored video is a path or URL (video file, folder of images, single image), bytes, an open binary file, a value
    of `datasets.Video`, or a list of image paths. In memory it is a list of frames (PIL images or arrays of
    rank 3), an array or tensor of rank 4, or one single frame. Arrays of rank 5 and nested lists are batches. Calling
    the function on its own result changes nothing.

    Args:
        videos (`Any`):
            One video or an arbitrarily nested list of videos.

    Returns:
        `list`: Each entry is a stored video as it was given, a list of image paths, a list of frames, or an array of
        rank 4. Paths become `str`.

    Raises:
        ValueError: for an empty list or an array of another rank.
        TypeError: for anything that is not a video.
    """
    if is_source(videos):
        return [os.fspath(videos) if isinstance(videos, os.PathLike) else videos]
    if is_pil_image(videos):
        return [[videos]]
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        if videos.ndim not in (3, 4, 5):
            raise ValueError(
                f"A video has the shape (frames, height, width, 3) or (frames, 3, height, width), got "
                f"{tuple(videos.shape)}. A single frame may leave out the first dimension."
            )
        return list(videos) if videos.ndim == 5 else [videos] if videos.ndim == 4 else [videos[None]]
    if not isinstance(videos, (list, tuple)):
        raise TypeError(
            "A video is a path, URL, bytes, binary file, an array or tensor of rank 4, or a list of PIL images, "
            f"arrays or image paths, got {type(videos).__name__}."
        )
    if not videos:
        raise ValueError("A video has no frames: got an empty list. Give at least one frame, or leave the video out.")
    if all(_is_frame(item) for item in videos) or all(_is_image_path(item) for item in videos):
        return [[os.fspath(item) if isinstance(item, os.PathLike) else item for item in videos]]
    return [video for item in videos for video in list_videos(item)]


def is_stored(video: Any) -> bool:
    """Return whether an entry of [`list_videos`] has to be read from disk or network."""
    return is_source(video) or (isinstance(video, list) and isinstance(video[0], str))


def frames_to_tensor(video: Any, name: str, input_data_format: str | ChannelDimension | None = None) -> torch.Tensor:
    """Return frames in memory as one tensor, channels first, checked.

    Args:
        video (`Any`):
            List of PIL images or arrays of rank 3, or an array of rank 4.
        name (`str`):
            How errors call this video.
        input_data_format (`str`, *optional*):
            `"channels_first"` or `"channels_last"`; inferred from the shape when absent.

    Returns:
        `torch.Tensor` of shape `(frames, channels, height, width)`: uint8 for integers, float32 for floating point.

    Raises:
        ValueError: for no frames, frames without pixels, frames of different sizes, or a wrong number of channels;
            for NaN or infinite pixels, integers outside 0 to 255, or 16 bit images.
    """
    if isinstance(video, (list, tuple)):
        arrays = [_frame_to_array(frame, f"frame {index} of {name}") for index, frame in enumerate(video)]
        shapes = sorted({tuple(array.shape) for array in arrays})
        if len(shapes) > 1:
            raise ValueError(f"All frames of a video must have one size, got {shapes} in {name}. Resize them first.")
        video = torch.stack([_as_tensor(array) for array in arrays])
    video = _as_tensor(video)
    if video.ndim != 4:
        raise ValueError(f"Expected rank 4 (frames, height, width, 3), got shape {tuple(video.shape)} for {name}.")
    if 0 in video.shape:
        raise ValueError(f"Expected at least one frame of at least one pixel, got {tuple(video.shape)} for {name}.")
    video = _channels_first(video, name, input_data_format)
    return _check_values(video, name)


def read_video(source: Any, sample_indices_fn: FrameSampler) -> tuple[np.ndarray, VideoMetadata]:
    """Read the wanted frames of a stored video.

    Video files are decoded by PyAV, which brings its own ffmpeg: see [`decode_with_pyav`]. Every door gives the same
    upright pixels at the same times. The images of a folder are taken in natural order (2 before 10).

    Args:
        source (`Any`):
            Video file: path, `file:`, `http:` or `https:` URL, bytes, binary file object, or value of
            `datasets.Video`. Or a folder of images, a single image, or a list of image paths.
        sample_indices_fn (`Callable`):
            Gets `metadata` and returns the indices of the wanted frames, in any order; an index may come repeatedly.

    Returns:
        `tuple[np.ndarray, VideoMetadata]`: frames of shape `(frames, height, width, 3)`, uint8 RGB, one for each index
        and in the order of the indices; and metadata with `total_num_frames` of the source, the `frames_indices`
        taken, and for video files the true `timestamps` in seconds.

    Raises:
        FileNotFoundError: when nothing is there.
        ConnectionError: when a download fails.
        ValueError: for a folder without images, a file that is truncated or no video, no index, or indices of frames
            that the video does not have.
        ImportError: when PyAV cannot be imported.
    """
    asked: list[int] = []

    def sample_increasing(metadata: VideoMetadata) -> list[int]:
        # Every decoder reads forwards and each frame once.
        asked[:] = _check_indices(sample_indices_fn(metadata=metadata), metadata.total_num_frames)
        return sorted(set(asked))

    frames, metadata = _read_increasing(source, sample_increasing)
    taken = list(metadata.frames_indices)
    if taken != asked:
        frames = frames[[taken.index(index) for index in asked]]
    metadata.frames_indices = asked
    return frames, metadata


def _check_indices(indices: Any, total: int) -> list[int]:
    indices = [int(index) for index in indices]
    if not indices:
        raise ValueError("Expected the index of at least one frame, got none.")
    if wrong := [index for index in indices if not 0 <= index < total]:
        raise ValueError(f"Expected frame indices from 0 to {total - 1}, the last of the video, got {wrong}.")
    return indices


def _read_increasing(source: Any, sample_indices_fn: FrameSampler) -> tuple[np.ndarray, VideoMetadata]:
    """Read a stored video as [`read_video`] does, at increasing indices."""
    if isinstance(source, (list, tuple)):
        return _read_images(list(source), f"the list of {len(source)} images", sample_indices_fn)
    path = to_local_path(source)
    if path is not None and os.path.isdir(path):
        return _read_images(_list_images(path), f"the folder {path}", sample_indices_fn)
    if path is not None and os.path.isfile(path) and _is_image_path(path):
        return _read_images([path], path, sample_indices_fn)
    with open_source(source) as (file, name):
        return decode_with_pyav(file, name, sample_indices_fn)


def _is_frame(item: Any) -> bool:
    return is_pil_image(item) or (isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim == 3)


def _is_image_path(item: Any) -> bool:
    return isinstance(item, (str, os.PathLike)) and os.fspath(item).lower().endswith(IMAGE_SUFFIXES)


def _list_images(folder: str) -> list[str]:
    names = [name for name in os.listdir(folder) if _is_image_path(name) and not name.startswith(".")]
    if not names:
        raise ValueError(f"No frames: the folder {folder} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    return [os.path.join(folder, name) for name in sort_frames(names)]


def _read_images(paths: list[str], name: str, sample_indices_fn: FrameSampler) -> tuple[np.ndarray, VideoMetadata]:
    metadata = VideoMetadata(total_num_frames=len(paths), video_backend="images")
    metadata.frames_indices = [int(index) for index in sample_indices_fn(metadata=metadata)]
    frames = [_read_image(paths[index]) for index in metadata.frames_indices]
    sizes = sorted({frame.shape[:2] for frame in frames})
    if len(sizes) > 1:
        raise ValueError(f"All frames of a video must have one size, got (height, width) {sizes} in {name}.")
    metadata.height, metadata.width = sizes[0]
    return np.stack(frames), metadata


def _read_image(path: str) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(f"To read {path}, install Pillow (`pip install pillow`).") from error
    if not os.path.isfile(path):
        raise FileNotFoundError(f"No image at {path}. Check the path; the current directory is {os.getcwd()}.")
    try:
        with Image.open(path) as image:
            return _frame_to_array(load_image(image) if not image.mode.startswith(DEPTH_LIKE_MODES) else image, path)
    except (OSError, SyntaxError) as error:  # Pillow reports a broken PNG as SyntaxError
        raise ValueError(f"{path} is no readable image ({error}). Remove it or copy it again.") from error


def _frame_to_array(frame: Any, name: str) -> np.ndarray | torch.Tensor:
    if not is_pil_image(frame):
        return frame
    if frame.mode.startswith(DEPTH_LIKE_MODES):
        raise ValueError(
            f"{name} is an image of mode {frame.mode}, which looks like depth. Frames are 8 bit colour images: keep "
            "depth in another folder, or list the colour images one by one."
        )
    return np.array(frame.convert("RGB"))


def _as_tensor(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return array
    if not array.flags.writeable or min(array.strides, default=0) < 0:  # torch takes neither without a copy
        array = array.copy()
    return torch.from_numpy(array)


def _channels_first(video: torch.Tensor, name: str, input_data_format: str | ChannelDimension | None) -> torch.Tensor:
    if input_data_format is None:
        first = video.shape[1] in COLOUR_CHANNELS
        input_data_format = ChannelDimension.FIRST if first else ChannelDimension.LAST
    if ChannelDimension(input_data_format) == ChannelDimension.LAST:
        video = video.permute(0, 3, 1, 2)
    if video.shape[1] not in COLOUR_CHANNELS:
        raise ValueError(
            f"Expected frames with {COLOUR_CHANNELS} channels, first or last, got {video.shape[1]} channels of "
            f"{video.shape[2]} x {video.shape[3]} pixels in {name}."
        )
    return video


def _check_values(video: torch.Tensor, name: str) -> torch.Tensor:
    if video.is_complex() or video.dtype == torch.bool:
        raise TypeError(f"Frames hold 8 bit integers or floating point numbers, got {video.dtype} in {name}.")
    if video.is_floating_point():
        finite = torch.isfinite(video).flatten(1).all(dim=1)
        if not finite.all():
            bad = torch.nonzero(~finite).flatten().tolist()
            raise ValueError(f"NaN or infinite pixels in frame(s) {bad} of {name}. Repair or leave out these frames.")
        return video.float()
    wide = video if video.dtype in (torch.uint8, torch.int8) else video.long()
    low, high = int(wide.min()), int(wide.max())
    if low < 0 or high > torch.iinfo(torch.uint8).max:
        raise ValueError(f"Integer pixels lie between 0 and 255, got {low} to {high} in {name}. Is it depth?")
    return video.to(torch.uint8)
