"""Rules of the options of a call: numbers that make no pixels are refused, errors of libraries name the options."""

import logging
import math
import reprlib
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np
from huggingface_hub.errors import StrictDataclassError

logger = logging.getLogger(__name__)

MAX_IMAGE_SIZE = 2**14  # pixels of a side; a single frame would take gigabytes
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
    except Exception as error:
        is_known = isinstance(error, (ValueError, *_BARE, *_OF_TYPES)) or type(error) is RuntimeError
        if not is_known or traceback.extract_tb(error.__traceback__)[-1].filename.endswith("_ide3d.py"):
            raise
        text = " ".join(str(error).split())
        fault = f"{type(error).__name__}: {text}" if isinstance(error, _BARE) else text
        given = ", ".join(f"{name}={reprlib.repr(value)}" for name, value in options.items() if value is not None)
        kind = TypeError if isinstance(error, _OF_TYPES) else ValueError
        raise kind(f"{fault.rstrip('.')}. Given: {' '.join(given.split()) or 'nothing'}.") from error


def check_scaling(processor: Any, options: Mapping[str, Any]) -> None:
    """Check the numbers that pixels are scaled with.

    Args:
        processor (`Any`):
            Image or video processor, with `rescale_factor`, `image_mean` and `image_std`.
        options (`Mapping[str, Any]`):
            Arguments of the call, which win over the processor's.

    Raises:
        ValueError: for numbers that are not finite, a factor of 0, deviations that are not positive, and another
            number of them than one or three.
    """
    for name in ("rescale_factor", "image_mean", "image_std"):
        value = getattr(processor, name, None) if options.get(name) is None else options[name]
        if value is None:
            continue
        numbers = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
        are_finite = all(isinstance(number, Real) and math.isfinite(number) for number in numbers)
        counts = (1,) if name == "rescale_factor" else (1, 3)
        is_bad = {"rescale_factor": 0 in numbers, "image_mean": False, "image_std": are_finite and min(numbers) <= 0}
        if not are_finite or len(numbers) not in counts or is_bad[name]:
            sign = {"rescale_factor": " and not 0", "image_mean": "", "image_std": " above 0"}[name]
            raise ValueError(f"{name} must be finite{sign}, {' or '.join(map(str, counts))} of them, got {value!r}.")
        if name == "rescale_factor" and min(numbers) < 0:  # Transformers' own tests give -1
            logger.warning("rescale_factor %s is negative: bright pixels become dark ones.", value)


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


__all__ = ["check_scaling", "check_sizes", "naming_options"]
