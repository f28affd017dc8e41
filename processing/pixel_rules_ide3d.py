"""Rules of pixels: where their channels stand, which numbers they hold and on which scale."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers.image_utils import ChannelDimension

COLOUR_CHANNELS = (1, 3, 4)  # grey, RGB, RGB with transparency
LARGEST_NORMALISED = 16  # no mean and deviation in use make pixels of 0 to 1 as large; metres and bytes are


def infer_layout(shape: Sequence[int], name: str) -> ChannelDimension:
    """Return whether the channels of a frame stand first or last.

    Three channels tell, then one or four.

    Args:
        shape (`Sequence[int]`):
            Shape of a frame, of three numbers.
        name (`str`):
            How errors call the video.

    Raises:
        ValueError: where both sides may be the channels.
    """
    for channels in ((3,), COLOUR_CHANNELS):
        first, last = shape[0] in channels, shape[2] in channels
        if first and last:
            raise ValueError(
                f"Frames of shape {tuple(shape)} may have their channels first or last in {name}. Pass "
                'input_data_format="channels_last" or "channels_first", or give PIL images.'
            )
        if first:
            return ChannelDimension.FIRST
        if last:
            break
    return ChannelDimension.LAST


def check_scale(pixels: torch.Tensor, name: str, processor: Any, options: Mapping[str, Any]) -> None:
    """Check that floating point pixels have the scale that a processor expects.

    Args:
        pixels (`torch.Tensor`):
            Pixels of any shape.
        name (`str`):
            How errors call them.
        processor (`Any`):
            Image or video processor, with `do_rescale` and `do_normalize`.
        options (`Mapping[str, Any]`):
            Arguments of the call, which win over the processor's.

    Raises:
        ValueError: where dividing by 255 is on, for pixels in 0 to 1, which are scaled already, and for pixels outside
            0 to 255. Where it is off, for pixels that are neither in 0 to 1 nor normalised.
    """
    if not pixels.is_floating_point() or not pixels.numel():
        return
    rescales, normalizes = (
        getattr(processor, key) if options.get(key) is None else options[key] for key in ("do_rescale", "do_normalize")
    )
    low, high = float(pixels.min()), float(pixels.max())
    largest = torch.iinfo(torch.uint8).max
    if rescales and 0 < high <= 1:
        raise ValueError(
            f"The floating point pixels of {name} lie in 0 to 1, but dividing by 255 is on. Pass do_rescale=False for "
            "frames that are scaled already, or give pixels from 0 to 255."
        )
    if rescales and (low < 0 or high > largest):
        raise ValueError(
            f"Pixels lie between 0 and 255, got {low:g} to {high:g} in {name}. Is it depth, or a picture of 16 bits? "
            "Pass do_rescale=False and do_normalize=False for frames that are normalised already."
        )
    limit = LARGEST_NORMALISED if normalizes else largest
    if not rescales and max(-low, high) > limit:
        raise ValueError(
            f"Without dividing by 255, pixels lie between 0 and 1, got {low:g} to {high:g} in {name}. Is it depth? "
            "Leave do_rescale out for pixels from 0 to 255."
        )


def channels_first(video: torch.Tensor, name: str, input_data_format: str | ChannelDimension | None) -> torch.Tensor:
    """Return frames with their channels in front of rows and columns.

    Args:
        video (`torch.Tensor`):
            Frames of rank 4.
        name (`str`):
            How errors call the video.
        input_data_format (`str`, *optional*):
            `"channels_first"` or `"channels_last"`; inferred from the shape when absent.

    Raises:
        ValueError: for another number of channels than 1, 3 and 4, or a shape that does not tell where they stand.
    """
    if input_data_format is None:
        input_data_format = infer_layout(video.shape[1:], name)
    if ChannelDimension(input_data_format) == ChannelDimension.LAST:
        video = video.permute(0, 3, 1, 2)
    if video.shape[1] not in COLOUR_CHANNELS:
        raise ValueError(
            f"Expected frames with {COLOUR_CHANNELS} channels, first or last, got {video.shape[1]} channels of "
            f"{video.shape[2]} x {video.shape[3]} pixels in {name}."
        )
    return video


def check_dense(frames: torch.Tensor) -> torch.Tensor:
    """Return a tensor of frames as it is.

    Raises:
        TypeError: for sparse, nested and quantized tensors, and those without numbers, on the device meta.
    """
    kinds = {
        "nested": frames.is_nested,
        "sparse": not frames.is_nested and frames.layout != torch.strided,
        "quantized": frames.is_quantized,
        "empty meta": frames.is_meta,
    }
    if found := [kind for kind, is_it in kinds.items() if is_it]:
        raise TypeError(f"Frames are a dense tensor of numbers, got a {found[0]} one of {frames.dtype}.")
    return frames


def check_values(video: torch.Tensor, name: str) -> torch.Tensor:
    """Return frames as uint8, or as float32 where they hold floating point numbers.

    Args:
        video (`torch.Tensor`):
            Frames of any shape.
        name (`str`):
            How errors call the video.

    Raises:
        ValueError: for integers outside 0 to 255, and for numbers that are NaN or infinite as float32.
        TypeError: for booleans and complex numbers.
    """
    if video.is_complex() or video.dtype == torch.bool:
        raise TypeError(f"Frames hold 8 bit integers or floating point numbers, got {video.dtype} in {name}.")
    if video.is_floating_point():
        video = video.float()  # numbers beyond float32 become infinite
        finite = torch.isfinite(video).flatten(1).all(dim=1)
        if not finite.all():
            bad = torch.nonzero(~finite).flatten().tolist()
            raise ValueError(f"NaN or infinite pixels in frame(s) {bad} of {name}. Repair or leave out these frames.")
        return video
    wide = video if video.dtype in (torch.uint8, torch.int8) else video.long()
    low, high = int(wide.min()), int(wide.max())
    if low < 0 or high > torch.iinfo(torch.uint8).max:
        raise ValueError(f"Integer pixels lie between 0 and 255, got {low} to {high} in {name}. Is it depth?")
    return video.to(torch.uint8)


__all__ = ["channels_first", "check_dense", "check_scale", "check_values", "infer_layout"]
