"""Turn whatever a person calls a picture into pixels: paths, images in memory, arrays, folders and lists of them."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers.image_utils import ChannelDimension, is_pil_image, load_image
from transformers.video_utils import VideoMetadata

from .frame_order_ide3d import sort_frames

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
COLOUR_CHANNELS = (1, 3, 4)  # grey, RGB, RGB with transparency
DEPTH_LIKE_MODES = ("I", "F")  # Pillow's 16 bit, 32 bit and float modes all begin with one of these letters

FrameSampler = Callable[..., np.ndarray]


def is_image_path(item: Any) -> bool:
    """Return whether an item is a path whose ending is that of a picture."""
    return isinstance(item, (str, os.PathLike)) and os.fspath(item).lower().endswith(IMAGE_SUFFIXES)


def list_images(folder: str) -> list[str]:
    """Return the paths of the pictures in a folder, in natural order.

    Hidden files are left out.

    Raises:
        ValueError: for a folder without pictures.
    """
    names = [name for name in os.listdir(folder) if is_image_path(name) and not name.startswith(".")]
    if not names:
        raise ValueError(f"No frames: the folder {folder} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    return [os.path.join(folder, name) for name in sort_frames(names)]


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


def read_images(paths: list[str], name: str, sample_indices_fn: FrameSampler) -> tuple[np.ndarray, VideoMetadata]:
    """Read the wanted pictures of a list as the frames of a video.

    Args:
        paths (`list[str]`):
            Paths of the pictures.
        name (`str`):
            How errors call the list.
        sample_indices_fn (`Callable`):
            Gets `metadata` and returns the indices of the wanted frames.

    Returns:
        `tuple[np.ndarray, VideoMetadata]`: frames of shape `(frames, height, width, 3)`, uint8 RGB, and metadata.

    Raises:
        ValueError: for pictures of different sizes, or one that cannot be read.
    """
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
