"""Rules for the fields of argument classes: each error names the field, what it may be, and what came."""

import difflib
import math
import reprlib
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, Literal, get_args, get_origin

import numpy as np

__all__ = [
    "POSITIVE",
    "as_flag",
    "check_choice",
    "check_number",
    "check_text",
    "find_choices",
    "find_near",
    "whole_number",
]

POSITIVE = math.ulp(0.0)  # the least value of what must be above 0


def check_number(
    name: str, value: Any, least: float = 0, largest: float = math.inf, *, is_whole: bool = False
) -> None:
    """Check that a field is a finite number in its range.

    Args:
        name: Name of the field, for the message.
        value: Content of the field. A bool is no number; a float such as 3.0 is a whole one.
        least: Smallest allowed value.
        largest: Largest allowed value; infinite for none.
        is_whole: Whether it counts something.

    Raises:
        TypeError: It is no number.
        ValueError: It is NaN, infinite, out of its range or, where it counts something, not whole.
    """
    above = "above 0" if least == POSITIVE else f"of at least {least:g}"
    wanted = f"a {'whole' if is_whole else 'finite'} number {above}"
    if math.isfinite(largest):
        wanted = f"a {'whole ' if is_whole else ''}number from {least:g} to {largest:g}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {wanted}, got {reprlib.repr(value)} ({type(value).__name__}).")
    if not (math.isfinite(value) and least <= value <= largest) or (is_whole and value != int(value)):
        raise ValueError(f"{name} must be {wanted}, got {value}.")


def whole_number(name: str, value: Any, least: float = 1, largest: float = math.inf) -> int:
    """Return a field that counts something as an int; see `check_number`."""
    check_number(name, value, least, largest, is_whole=True)
    return int(value)


def as_flag(name: str, value: Any) -> bool:
    """Return a field that is true or false; raise TypeError for anything else."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {reprlib.repr(value)} ({type(value).__name__}).")
    return bool(value)


def check_text(name: str, value: Any) -> None:
    """Raise TypeError unless a field is text, and ValueError if it is empty."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {reprlib.repr(value)} ({type(value).__name__}).")
    if not value.strip():
        raise ValueError(f"{name} must be text that is not empty, got {value!r}.")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise ValueError unless a field holds one of its choices."""
    if not isinstance(value, (str, type(None))) or value not in choices:
        near = find_near(value, filter(None, choices)) if isinstance(value, str) else ""
        raise ValueError(f"{name} must be one of {list(choices)}, got {reprlib.repr(value)}.{near}")


def find_choices(kind: Any) -> tuple[str, ...]:
    """Return the choices of a field that is annotated as a `Literal`; none for another."""
    return get_args(kind) if get_origin(kind) is Literal else ()


def find_near(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean ...?` with the nearest known word, or an empty text."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f" Did you mean {near[0]!r}?" if near else ""
