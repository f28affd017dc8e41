"""Rules for arguments of readers: each error names the argument, what it may be, and what came."""

import math
import operator
import os
import reprlib
from collections.abc import Collection, Iterable, KeysView, Mapping, Set
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "as_path",
    "check_choice",
    "check_flag",
    "check_keys",
    "check_number",
    "check_text",
    "check_texts",
    "check_whole",
    "path_text",
]


def path_text(value: Any, name: str) -> str:
    """Return a path as text, such as a file can have.

    Args:
        value: Text or `os.PathLike`.
        name: Name of the argument, in messages.

    Raises:
        TypeError: It is neither.
        ValueError: It is empty, or no file can be called so.
    """
    given = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(given, str):
        raise TypeError(f"`{name}` must be a path, as text or `pathlib.Path`, got {_shown(value)}.")
    try:
        is_possible = bool(given) and "\0" not in given and bool(os.fsencode(given))
    except UnicodeEncodeError:  # Half a surrogate pair.
        is_possible = False
    if not is_possible:
        raise ValueError(f"`{name}` must be a path, not empty and without NUL, got {_shown(given)}.")
    return given


def as_path(value: Any, name: str) -> Path:
    """Return the path that an argument holds; nothing has to be there.

    Raises:
        TypeError: As in `path_text`.
        ValueError: As in `path_text`, or it is too long or a circle of links.
    """
    given = path_text(value, name)
    try:
        os.stat(given)
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        pass
    except OSError as error:
        shown = given if len(given) < 200 else f"{given[:60]}..."
        raise ValueError(f"`{name}` must be a path that can be followed, got {shown}: {error.strerror}.") from error
    return Path(given)


def check_choice(value: Any, choices: Collection[str], name: str) -> None:
    """Check that an argument is one of its choices, by TypeError and ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be one of {_listed(choices)}, got {_shown(value)}.")
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {_listed(choices)}, got {_shown(value)}.")


def check_flag(value: Any, name: str) -> bool:
    """Return a flag as a bool; raise TypeError for anything else."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"`{name}` must be True or False, got {_shown(value)}.")
    return bool(value)


def check_text(value: Any, name: str) -> str:
    """Return an argument that is text; raise TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be text, got {_shown(value)}.")
    return value


def check_keys(value: Any, keys: Iterable[str], name: str) -> None:
    """Raise TypeError unless an argument is a mapping, and ValueError where it lacks a key.

    A row of pandas is a mapping too, though not by its class.
    """
    if not isinstance(value, Mapping) and not (hasattr(value, "keys") and hasattr(value, "get")):
        raise TypeError(f"`{name}` must be a mapping with {_listed(keys)}, got {_shown(value)}.")
    if missing := [key for key in keys if key not in value]:
        raise ValueError(f"`{name}` must be a mapping with {_listed(keys)}, it lacks {_listed(missing)}.")


def check_texts(
    values: Any, name: str, choices: Collection[str] | None = None, *, is_ordered: bool = False
) -> tuple[str, ...]:
    """Return the texts of an argument that holds several.

    Args:
        values: List, tuple, set, array or other iterable of texts; one text alone is none.
        name: Name of the argument, in messages.
        choices: Texts that it may hold; None takes any.
        is_ordered: Whether their order counts, which a set does not have.

    Raises:
        TypeError: It is no iterable of texts.
        ValueError: A text is not among the choices.
    """
    wanted = "strings" if choices is None else f"names among {_listed(choices)}"
    has_no_order = isinstance(values, Set) and not isinstance(values, KeysView)
    is_list = isinstance(values, Iterable) and not isinstance(values, (str, bytes, bytearray, Mapping))
    is_list = is_list and not (is_ordered and has_no_order)
    if not is_list or getattr(values, "ndim", 1) != 1:
        raise TypeError(f"`{name}` must be a list of {wanted}, got {_shown(values)}.")
    texts = tuple(values)
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise TypeError(f"`{name}` must be a list of {wanted}, it holds {_shown(wrong[0])}.")
    if choices is not None and (unknown := [text for text in texts if text not in choices]):
        raise ValueError(f"`{name}` must be a list of {wanted}, it holds {_shown(unknown[0])}.")
    return texts


def check_whole(value: Any, name: str, least: int | None = 0, largest: int | None = None) -> int:
    """Return an argument that counts something as an integer.

    Args:
        value: Integer, also of NumPy; a bool or a float is none.
        name: Name of the argument, in messages.
        least: Smallest allowed value; None for none.
        largest: Largest allowed value; None for none.

    Raises:
        TypeError: It is no integer.
        ValueError: It is out of its range.
    """
    wanted = "an integer" if least is None else f"an integer of at least {least}"
    wanted += "" if largest is None else f" and at most {largest}"
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:  # An array of several numbers has `__index__` too.
        number = None
    if number is None:
        raise TypeError(f"`{name}` must be {wanted}, got {_shown(value)}.")
    if (least is not None and number < least) or (largest is not None and number > largest):
        raise ValueError(f"`{name}` must be {wanted}, got {_shown(number)}.")
    return number


def check_number(
    value: Any,
    name: str,
    meaning: str = "",
    *,
    above: float | None = None,
    least: float | None = None,
    largest: float | None = None,
) -> float:
    """Return an argument that measures something as a float.

    Args:
        value: Finite real number, also of NumPy; a bool is none.
        name: Name of the argument, in messages.
        meaning: Meaning of the number, in messages, such as "metres of one step".
        above: Number that it must exceed; None for none.
        least: Smallest allowed value; None for none.
        largest: Largest allowed value; None for none.

    Raises:
        TypeError: It is no number.
        ValueError: It is NaN, infinite or out of its range.
    """
    bounds = {"above": above, "of at least": least, "at most": largest}
    bounds = " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)
    wanted = " ".join(filter(None, ("a finite number", bounds))) + (f", {meaning}" if meaning else "")
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"`{name}` must be {wanted}, got {_shown(value)}.")
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond float64
        number = math.inf
    is_inside = (above is None or number > above) and (least is None or number >= least)
    if not math.isfinite(number) or not is_inside or (largest is not None and number > largest):
        raise ValueError(f"`{name}` must be {wanted}, got {_shown(value)}.")
    return number


def _listed(choices: Iterable[str]) -> str:
    return ", ".join(repr(choice) for choice in choices)


def _shown(value: Any) -> str:
    try:
        text = reprlib.repr(value)
    except Exception:  # Python spells no number of more than 4300 digits, and objects of others may fail.
        text = "a value that cannot be shown"
    return f"{text} ({type(value).__name__})"
