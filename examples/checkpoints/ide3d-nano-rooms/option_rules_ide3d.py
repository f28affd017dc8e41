"""Rules of the options of a call: numbers that make no pixels are refused, errors of libraries name the options."""

import logging
import math
import reprlib
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.image_utils import PILImageResampling, SizeDict

logger = logging.getLogger(__name__)

MAX_IMAGE_SIZE = 2**14  # pixels of a side; a single frame would take gigabytes
MAX_NUMBERS = 16  # in one option
NUMBERS = ("num_frames", "fps", "rescale_factor", "image_mean", "image_std", "size", "max_length", "stride")
FLAGS = (
    "add_generation_prompt", "continue_final_message", "tokenize", "return_dict", "return_assistant_tokens_mask",
    "return_metadata", "disable_grouping",
)  # fmt: skip
GROUPS = ("text_kwargs", "images_kwargs", "videos_kwargs", "audio_kwargs", "common_kwargs", "processor_kwargs")
_BARE = (KeyError, IndexError, AttributeError, ArithmeticError)  # their message alone says little
_OF_TYPES = (TypeError, AttributeError, StrictDataclassError)


@contextmanager
def naming_options(**options: Any) -> Iterator[None]:
    """Let errors that libraries raise about an input name what was given.

    Errors of our own files, of the system and of imports stay as they are.

    Args:
        **options (`Any`):
            Arguments of the call by their names.

    Raises:
        TypeError: for another type.
        ValueError: for another value.
    """
    try:
        yield
    except RecursionError as error:
        raise ValueError(f"Lists are nested too deeply in one of {', '.join(options)}. Give them flat.") from error
    except Exception as error:
        is_known = isinstance(error, (ValueError, *_BARE, *_OF_TYPES)) or type(error) is RuntimeError
        if not is_known or traceback.extract_tb(error.__traceback__)[-1].filename.endswith("_ide3d.py"):
            raise
        text = " ".join(str(error).split())
        fault = f"{type(error).__name__}: {text}" if isinstance(error, _BARE) else text
        given = ", ".join(f"{name}={reprlib.repr(value)}" for name, value in options.items() if value is not None)
        kind = TypeError if isinstance(error, _OF_TYPES) else ValueError
        raise kind(f"{fault.rstrip('.')}. Given: {' '.join(given.split()) or 'nothing'}.") from error


def to_plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with Python's own numbers in place of NumPy's, PyTorch's and fractions.

    Args:
        options (`Mapping[str, Any]`):
            Arguments of a call by their names; groups such as `videos_kwargs` may be among them.
    """
    return {
        name: to_plain(value) if name.endswith("_kwargs") and isinstance(value, Mapping) else _plain(value, name)
        for name, value in options.items()
    }


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (np.generic, np.ndarray, torch.Tensor)) and math.prod(value.shape) <= MAX_NUMBERS:
        is_number = isinstance(value, torch.Tensor) or value.dtype.kind in "biuf"
        return value.tolist() if is_number and name in NUMBERS else value
    if name in NUMBERS and isinstance(value, (list, tuple)) and len(value) <= MAX_NUMBERS:
        return type(value)(_plain(entry, name) for entry in value) if type(value) in (list, tuple) else value
    if name in NUMBERS and isinstance(value, Real) and not isinstance(value, (int, float)):
        return float(value)
    if name == "size" and isinstance(value, dict):
        return {key: _plain(entry, name) for key, entry in value.items()}
    return value


def check_options(options: Mapping[str, Any]) -> None:
    """Check the options whose values Transformers takes unseen.

    Args:
        options (`Mapping[str, Any]`):
            Arguments of a call by their names.

    Raises:
        TypeError: for a device, a filter or a flag of another type, and a group of options that is no mapping.
        ValueError: for a size of more than two numbers.
    """
    for name, value in options.items():
        if value is None:
            continue
        shown = f"got {reprlib.repr(value)} of type {type(value).__name__}"
        if name == "device" and (isinstance(value, bool) or not isinstance(value, (str, int, torch.device))):
            raise TypeError(f'device must be a text such as "cpu" or "cuda:1", or a torch.device, {shown}.')
        if name == "resample" and isinstance(value, bool):
            raise TypeError(f"resample must be a filter of PIL.Image.Resampling, such as 3, {shown}.")
        if name == "size" and isinstance(value, (list, tuple)) and len(value) not in (1, 2):
            raise ValueError(f'size must be {{"height": ..., "width": ...}} in pixels, {shown}.')
        if name in FLAGS and not isinstance(value, (bool, np.bool_)) and not (type(value) is int and value in (0, 1)):
            raise TypeError(f"{name} must be True or False, {shown}.")
        if name in GROUPS:
            if not isinstance(value, Mapping):
                raise TypeError(f"{name} must be a dictionary of arguments, {shown}.")
            check_options(value)


def check_scaling(processor: Any, options: Mapping[str, Any]) -> None:
    """Check the numbers that pixels are scaled with.

    Args:
        processor (`Any`):
            Image or video processor, with `rescale_factor`, `image_mean` and `image_std`.
        options (`Mapping[str, Any]`):
            Arguments of the call, which win over the processor's.

    Raises:
        ValueError: for numbers that are not finite, a factor of 0, deviations that are not positive, and another
            number of them than one or three. Also for numbers that make all pixels equal or infinite.
    """
    found = {}
    for name in ("rescale_factor", "image_mean", "image_std"):
        value = getattr(processor, name, None) if options.get(name) is None else options[name]
        if value is None:
            continue
        is_list = isinstance(value, Iterable) and getattr(value, "ndim", 1) and not isinstance(value, str)
        numbers = list(value) if is_list else [value]
        are_finite = all(isinstance(number, Real) and _is_finite(number) for number in numbers)
        counts = (1,) if name == "rescale_factor" else (1, 3)
        is_bad = not are_finite or len(numbers) not in counts
        is_bad = is_bad or (name == "rescale_factor" and 0 in numbers) or (name == "image_std" and min(numbers) <= 0)
        if is_bad:
            sign = {"rescale_factor": " and not 0", "image_mean": "", "image_std": " above 0"}[name]
            raise ValueError(
                f"{name} must be finite{sign}, {' or '.join(map(str, counts))} of them, got {reprlib.repr(value)}."
            )
        found[name] = numbers
    _check_range(**found)
    if found.get("rescale_factor", [1])[0] < 0:  # Transformers' own tests give -1
        logger.warning("rescale_factor %s is negative: bright pixels become dark ones.", found["rescale_factor"][0])


def _is_finite(number: Real) -> bool:
    try:
        return math.isfinite(float(number))
    except OverflowError:
        return False


def _check_range(
    rescale_factor: Sequence[Real] = (1.0,), image_mean: Sequence[Real] = (0.0,), image_std: Sequence[Real] = (1.0,)
) -> None:
    """Check that black and white are finite and differ as float32 numbers."""
    with np.errstate(all="ignore"):
        factor, mean, std = (np.asarray(entry, np.float32) for entry in (rescale_factor, image_mean, image_std))
        black, white = (np.zeros(1, np.float32) - mean) / std, (255 * factor - mean) / std
    if not (np.isfinite([black, white]).all() and (black != white).all()):
        raise ValueError(
            f"rescale_factor {rescale_factor[0]}, image_mean {list(image_mean)} and image_std {list(image_std)} turn "
            f"pixels of 0 and 255 into {black.tolist()} and {white.tolist()}, which must be finite and differ."
        )


def find_resize(processor: Any, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the options of a resize that treats one frame as it treats a batch.

    Args:
        processor (`Any`):
            Video processor, with `do_resize`, `size` and `resample`.
        options (`Mapping[str, Any]`):
            Arguments of the call, which win over the processor's.

    Returns:
        `dict[str, Any]` or None: `size` and `resample` for `processor.resize`. None where frames keep their size or
        aspect, another device resizes them, or Transformers has to judge the options first.
    """
    found = {
        name: getattr(processor, name) if options.get(name) is None else options[name]
        for name in ("do_resize", "size", "resample")
    }
    size, device = found["size"], options.get("device")
    given = dict(size) if isinstance(size, (dict, SizeDict)) else {}
    given = {key: value for key, value in given.items() if value is not None}
    is_fixed = set(given) == {"height", "width"} and all(type(v) is int and v > 0 for v in given.values())
    is_known = found["resample"] in list(PILImageResampling)
    if found["do_resize"] is not True or not is_fixed or not is_known or device not in (None, "cpu"):
        return None
    return {"size": SizeDict(**given), "resample": found["resample"]}


def check_sizes(**sizes: int) -> None:
    """Check the whole numbers that the token grid is made of.

    Raises:
        TypeError: for another type.
        ValueError: for numbers below 1, an image without a patch, and more than there are.
    """
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
            raise TypeError(f"{name} must be an int, got {size!r}.")
    given = ", ".join(f"{name}={size}" for name, size in sizes.items())
    if min(sizes.values()) < 1 or sizes["image_size"] < sizes["patch_size"]:
        raise ValueError(f"{', '.join(sizes)} must be at least 1 and an image must hold a patch, got {given}.")
    patches = sizes["image_size"] // sizes["patch_size"]
    if sizes["image_size"] > MAX_IMAGE_SIZE or sizes["spatial_pool_stride"] > patches:
        raise ValueError(
            f"image_size must be at most {MAX_IMAGE_SIZE}, and spatial_pool_stride at most the {patches} patches of a "
            f"side, got {given}."
        )


__all__ = ["check_options", "check_scaling", "check_sizes", "find_resize", "naming_options", "to_plain"]
