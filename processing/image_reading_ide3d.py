"""Turn whatever a person calls a picture into upright 8 bit RGB pixels, by one rule for every door.

A picture is what `open_image` takes, or an array. The rules: the EXIF orientation is applied; transparency lies
over white, as in Transformers; 16 bit colours keep their upper 8 bits. Grey pictures of 16 bits, 32 bits or float are
refused, since they are depth. Several pictures in one file are a video, but the preview in a phone's MPO is left out.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.image_utils import ChannelDimension
from transformers.video_utils import VideoMetadata

from .frame_order_ide3d import natural_key, sort_frames
from .frame_times_ide3d import describe_times
from .image_opening_ide3d import (
    IMAGE_SUFFIXES,
    RefusedImageError,
    describe,
    find_stored,
    import_pillow,
    is_image_path,
    list_pages,
    open_image,
    open_page,
)
from .image_wholeness_ide3d import check_picture, warn_of_missing_jpeg
from .pixel_rules_ide3d import channels_first, check_dense, check_values

DEPTH_LIKE_MODES = ("I", "F")  # Pillow's 16 bit, 32 bit and float modes all begin with one of these letters
MAX_FRAME_NUMBERS = 2**29  # of one frame in memory: 16,384 x 8,192 pixels of four channels
LARGEST_FLOAT = 8  # bytes of a number that PyTorch takes
_ORIENTATION = 0x0112  # EXIF

FrameSampler = Callable[..., np.ndarray]


@dataclass(frozen=True)
class ImageFacts:
    """Facts of a picture's header.

    Args:
        height (`int`):
            Rows of the stored pixels.
        width (`int`):
            Columns of the stored pixels.
        num_pictures (`int`):
            Pictures in the file; more than 1 makes it a video.
    """

    height: int
    width: int
    num_pictures: int


def inspect_image(source: Any, name: str | None = None) -> ImageFacts:
    """Read the header of a picture of colours.

    Args:
        source (`Any`):
            Picture as [`open_image`] takes it.
        name (`str`, *optional*):
            How errors call the picture; by default its path.

    Raises:
        FileNotFoundError: when nothing is there.
        ValueError: for what Pillow cannot read, and for pixels that are depth.
    """
    with open_image(source, name) as image:
        _check_mode(image, name or describe(source))
        return ImageFacts(image.height, image.width, len(list_pages(image)))


def is_turned(source: Any) -> bool:
    """Return whether the EXIF orientation of a picture turns or mirrors its stored pixels."""
    with open_image(source) as image:
        return image.getexif().get(_ORIENTATION) in range(2, 9)


def read_image(source: Any, name: str | None = None) -> np.ndarray:
    """Read one picture of colours, upright.

    Args:
        source (`Any`):
            Picture as [`open_image`] takes it.
        name (`str`, *optional*):
            How errors call the picture; by default its path.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`, uint8 RGB.

    Raises:
        FileNotFoundError: when nothing is there.
        ValueError: for what Pillow cannot read, a cut file, pixels that are depth, and several pictures in one file.
        TypeError: for what is no picture at all.
    """
    name = name or describe(source)
    stored = find_stored(source, name)
    with open_image(stored, name) as image:
        pages = list_pages(image)
        if len(pages) > 1:
            raise RefusedImageError(
                f"{name} holds {len(pages)} pictures, where one is expected. Give the file as a video, or take one of "
                "them: `image.seek(0); image.convert('RGB')`."
            )
        check_picture(image)
        pixels = _read_page(image, name, pages[0])
        warn_of_missing_jpeg(image, stored, name)
    return pixels


def read_images(
    sources: Sequence[Any], name: str, sample_indices_fn: FrameSampler
) -> tuple[np.ndarray, VideoMetadata]:
    """Read the wanted pictures of a list as the frames of a video.

    Args:
        sources (`list`):
            Pictures as [`read_image`] takes them.
        name (`str`):
            How errors call the list.
        sample_indices_fn (`Callable`):
            Gets `metadata` and returns the indices of the wanted frames.

    Returns:
        `tuple[np.ndarray, VideoMetadata]`: frames of shape `(frames, height, width, 3)`, uint8 RGB, and metadata.

    Raises:
        ValueError: for pictures of different sizes, or one that cannot be read.
    """
    metadata = VideoMetadata(total_num_frames=len(sources), video_backend="images")
    metadata.frames_indices = [int(index) for index in sample_indices_fn(metadata=metadata)]
    taken = [sources[index] for index in metadata.frames_indices]
    return _stack([read_image(source) for source in taken], name, metadata, taken), metadata


def read_animation(
    source: Any, sample_indices_fn: FrameSampler, name: str | None = None
) -> tuple[np.ndarray, VideoMetadata]:
    """Read the wanted pictures of one file as the frames of a video.

    A still is a video of one frame. Every picture is decoded once, to know how long it is shown; only those that are
    wanted are kept.

    Args:
        source (`Any`):
            GIF, WebP, APNG, AVIF, TIFF or a still, as [`read_image`] takes it.
        sample_indices_fn (`Callable`):
            Gets `metadata` and returns the indices of the wanted frames, increasing.
        name (`str`, *optional*):
            How errors call the file; by default its path.

    Returns:
        `tuple[np.ndarray, VideoMetadata]`: frames of shape `(frames, height, width, 3)`, uint8 RGB, and metadata.
        Its `timestamps` are the true times; `fps` is None where the file does not say how long pictures are shown.

    Raises:
        ValueError: as [`read_image`] does, and for pictures of different sizes.
    """
    name = name or describe(source)
    stored = find_stored(source, name)
    with open_image(stored, name) as image:
        place, pages = image.tell(), list_pages(image)
        check_picture(image)
        seconds = _list_durations(image, pages) if len(pages) > 1 else [0.0]
    metadata = VideoMetadata(total_num_frames=len(pages), video_backend="images")
    if all(seconds):
        times = [0.0, *np.cumsum(seconds[:-1]).tolist()]
        metadata = describe_times(times, seconds[-1], announced_rate=None, backend="images")
    metadata.frames_indices = [int(index) for index in sample_indices_fn(metadata=metadata)]
    with open_image(stored, name) as image:
        frames = [_read_page(image, name, pages[index]) for index in metadata.frames_indices]
        open_page(image, place)  # A PIL image is the caller's.
    return _stack(frames, name, metadata), metadata


def list_images(folder: str) -> list[str]:
    """Return the paths of the pictures in a folder, in natural order.

    Hidden files and other files are left out.

    Raises:
        ValueError: for a folder without pictures, or two pictures of one frame, such as `1.png` and `0001.jpg`. Also
            for a pipe, a device or a link to nothing that has the name of a picture.
    """
    entries = [entry for entry in os.scandir(folder) if is_image_path(entry.name) and not entry.name.startswith(".")]
    if others := sorted(entry.path for entry in entries if not entry.is_file() and not entry.is_dir()):
        raise ValueError(f"{others[0]} is no regular file, as a frame must be. Take it out of the folder.")
    names = sort_frames(entry.name for entry in entries if entry.is_file())
    if not names:
        raise ValueError(f"No frames: the folder {folder} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    check_frame_names(names, folder)
    return [os.path.join(folder, name) for name in names]


def check_frame_names(names: Sequence[str], folder: Any) -> None:
    """Check that no two files of a folder are one frame.

    Leading zeros and endings do not make a difference.

    Raises:
        ValueError: naming two such files.
    """
    seen: dict[tuple, str] = {}
    for name in names:
        other = seen.setdefault(tuple(natural_key(os.path.splitext(name)[0])[0]), name)
        if other != name:
            for file in (other, name):
                inspect_image(os.path.join(folder, file))  # Depth beside the frames has a message of its own.
            raise ValueError(
                f"{folder} holds two pictures of one frame: {other} and {name}. Keep one of them; depth images and "
                "copies belong in another folder."
            )


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
        `torch.Tensor` of shape `(frames, channels, height, width)`, 1 or 3 channels: uint8 for integers, float32 for
        floating point.

    Raises:
        ValueError: for no frames, frames without pixels, frames of different sizes, or a wrong number of channels;
            for NaN or infinite pixels, integers outside 0 to 255, or 16 bit images.
    """
    if isinstance(video, (list, tuple)):
        if not any(isinstance(frame, (np.ndarray, torch.Tensor)) for frame in video):
            input_data_format = ChannelDimension.LAST  # of pictures that are read here
        arrays = [_frame_to_array(frame, f"frame {index} of {name}") for index, frame in enumerate(video)]
        shapes = sorted({tuple(array.shape) for array in arrays})
        if len(shapes) > 1:
            raise ValueError(f"All frames of a video must have one size, got {shapes} in {name}. Resize them first.")
        _check_pixels(shapes[0], name)
        tensors = [_as_tensor(array) for array in arrays]
        if len({tensor.is_floating_point() for tensor in tensors}) > 1:
            raise ValueError(f"All frames of a video must have one type, got integers and floats in {name}.")
        video = torch.stack(tensors)
    _check_pixels(getattr(video, "shape", ())[1:], name)
    video = _as_tensor(video)
    if video.ndim != 4:
        raise ValueError(f"Expected rank 4 (frames, height, width, 3), got shape {tuple(video.shape)} for {name}.")
    if 0 in video.shape:
        raise ValueError(f"Expected at least one frame of at least one pixel, got {tuple(video.shape)} for {name}.")
    video = check_values(channels_first(video, name, input_data_format), name)
    if video.shape[1] < 4:
        return video
    if video.is_floating_point():
        raise ValueError(f"Frames with transparency hold 8 bit integers, got {video.dtype} in {name}. Leave it out.")
    return _over_white(video)


def read_pictures(images: Any, input_data_format: Any, numbers: Iterator[int]) -> Any:
    """Read images in any nesting.

    Args:
        images (`Any`):
            Image as [`read_image`] takes it, an array or tensor of rank 3, a batch of rank 4, or a nested list.
        input_data_format (`str`, *optional*):
            `"channels_first"` or `"channels_last"`; inferred from the shape when absent.
        numbers (`Iterator[int]`):
            Numbers by which errors call the images.

    Returns:
        `torch.Tensor` of shape `(channels, height, width)`, upright, or a list in the nesting of `images`.

    Raises:
        ValueError: as [`read_image`] and [`frames_to_tensor`] do.
    """
    if isinstance(images, (list, tuple)):
        return [read_pictures(image, input_data_format, numbers) for image in images]
    name = f"image {next(numbers)}"
    if not isinstance(images, (np.ndarray, torch.Tensor)):
        pixels = read_image(images, None if isinstance(images, (str, os.PathLike)) else name)
        return torch.from_numpy(pixels).permute(2, 0, 1)
    if images.ndim not in (3, 4):
        raise ValueError(
            f"Expected (height, width, 3), or a batch of such images, got {tuple(images.shape)} for {name}."
        )
    batch = images if images.ndim == 4 else images[None]
    tensors = list(frames_to_tensor(batch, name, input_data_format))
    return tensors if images.ndim == 4 else tensors[0]


def _check_pixels(shape: Sequence[int], name: str) -> None:
    if math.prod(shape) > MAX_FRAME_NUMBERS:
        raise ValueError(
            f"A frame of shape {tuple(shape)} has more than {MAX_FRAME_NUMBERS} numbers in {name}. Resize it first."
        )


def _check_mode(image: Any, name: str) -> None:
    if image.mode.startswith(DEPTH_LIKE_MODES):
        raise RefusedImageError(
            f"{name} is an image of mode {image.mode}, which looks like depth. Frames are 8 bit colour images: keep "
            "depth in another folder, or list the colour images one by one."
        )


def _list_durations(image: Any, pages: Sequence[int]) -> list[float]:
    """Return the seconds that each picture is shown, 0 where they are unknown."""
    seconds = []
    for page in pages:
        open_page(image, page)
        image.load()
        seconds.append(float(image.info.get("duration") or 0) / 1000)
    return seconds


def _read_page(image: Any, name: str, page: int) -> np.ndarray:
    """Read one picture of an open image, upright, as uint8 RGB over white."""
    open_page(image, page)
    _check_mode(image, name)
    if 0 in image.size:
        raise RefusedImageError(f"Expected at least one pixel, got an image of size {image.size} ({name}).")
    image = import_pillow()[1].exif_transpose(image)
    if image.has_transparency_data:
        return _over_white(torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    return np.array(image.convert("RGB"))


def _over_white(pixels: torch.Tensor) -> torch.Tensor:
    """Lay uint8 RGBA pixels over white.

    Shape:
        pixels: (..., 4, H, W).
        output: (..., 3, H, W).
    """
    colour, alpha = pixels[..., :3, :, :].int(), pixels[..., 3:, :, :].int()
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).to(torch.uint8)


def _stack(
    frames: list[np.ndarray], name: str, metadata: VideoMetadata, sources: Sequence[Any] | None = None
) -> np.ndarray:
    """Stack frames, and write their size into the metadata."""
    size = frames[0].shape[:2]
    if other := next((place for place, frame in enumerate(frames) if frame.shape[:2] != size), None):
        first, second = (
            f"frame {metadata.frames_indices[place]}" if sources is None else describe(sources[place])
            for place in (0, other)
        )
        raise ValueError(
            f"All frames of a video must have one size, got (height, width) {size} of {first} and "
            f"{frames[other].shape[:2]} of {second} in {name}. Resize them first."
        )
    metadata.height, metadata.width = size
    return np.stack(frames)


def _frame_to_array(frame: Any, name: str) -> np.ndarray | torch.Tensor:
    return frame if isinstance(frame, (np.ndarray, torch.Tensor)) else read_image(frame, name)


def _as_tensor(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return check_dense(array)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc":
        raise TypeError(f"Frames are arrays of numbers, got {getattr(array, 'dtype', type(array).__name__)}.")
    if array.dtype.kind == "f" and (not array.dtype.isnative or array.dtype.itemsize > LARGEST_FLOAT):
        array = array.astype(f"f{min(array.dtype.itemsize, LARGEST_FLOAT)}")
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.writeable or min(array.strides, default=0) < 0:  # torch takes neither without a copy
        array = array.copy()
    return torch.from_numpy(array)
