"""Rules for the fields of argument classes: each error names the field, what it may be, and what came."""

import difflib
import enum
import inspect
import math
import os
import reprlib
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

__all__ = [
    "MANY",
    "POSITIVE",
    "check_choice",
    "check_kind",
    "check_number",
    "check_range",
    "check_text",
    "find_choices",
    "find_kinds",
    "find_near",
    "whole_number",
]

POSITIVE = math.ulp(0.0)  # the least value of what must be above 0
MANY = 2**31 - 1  # nothing is counted beyond it; 10**30 steps are a slip


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
    above = " above 0" if least == POSITIVE else f" of at least {least:g}" if math.isfinite(least) else ""
    wanted = f"a {'whole' if is_whole else 'finite'} number{above}"
    if largest < MANY:
        wanted = f"a {'whole ' if is_whole else ''}number from {least:g} to {largest:g}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {wanted}, got {reprlib.repr(value)} ({type(value).__name__}).")
    try:
        is_finite = math.isfinite(value)
    except OverflowError:  # a whole number beyond float64
        is_finite = False
    if not (is_finite and least <= value <= largest) or (is_whole and value != int(value)):
        raise ValueError(f"{name} must be {wanted}, got {reprlib.repr(value)}.")


def check_range(name: str, value: Any) -> None:
    """Check that a field holds a least and a larger largest number, neither negative.

    Raises:
        TypeError: One of them is no number.
        ValueError: There are not two, one is negative or not finite, or the first is not below the second.
    """
    pair = value.tolist() if hasattr(value, "tolist") else value  # arrays and tensors
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise ValueError(f"{name} must be two numbers, (least, largest), got {reprlib.repr(value)}.")
    for number in pair:
        check_number(name, number)
    if not pair[0] < pair[1]:
        raise ValueError(f"{name} must be (least, largest), the first below the second, got {reprlib.repr(value)}.")


def check_kind(name: str, value: Any, kind: Any) -> None:
    """Check that a field holds what its annotation says, where that is of plain types.

    Args:
        name: Name of the field, for the message.
        value: Content of the field. Numbers of NumPy are numbers, and a path is a text.
        kind: Annotation: a union of bool, int, float, str, list[str], dict, None, literals and enumerations. A
            union with anything else is not checked.

    Raises:
        TypeError: It is of another type.
        ValueError: It is a number that is not finite, or no member of its enumeration.
    """
    kinds = get_args(kind) if get_origin(kind) is Union or type(kind) is type(int | str) else (kind,)
    if choices := find_choices(kind):
        check_choice(name, value, choices)
        return
    enums = [member for kind in kinds if _is_enum(kind) for member in kind]
    if enums:
        if value is not None or type(None) not in kinds:
            check_choice(name, getattr(value, "value", value), [member.value for member in enums])
        return
    fits = [_fits(value, kind) for kind in kinds]
    if any(fit is not False for fit in fits):  # None: not known
        return
    numbers = [kind for kind in kinds if kind in (int, float)]
    if isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) and numbers:
        check_number(name, value, -math.inf, is_whole=float not in numbers)
        return
    wanted = " or ".join("None" if kind is type(None) else _WORDS.get(kind, str(kind)) for kind in kinds)
    raise TypeError(f"{name} must be {wanted}, got {reprlib.repr(value)} ({type(value).__name__}).")


_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    dict: "a mapping",
    list[str]: "a list of names",
}


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _fits(value: Any, kind: Any) -> bool | None:
    """Return whether a value is of a kind; None: unknown, False: number."""
    if kind in (int, float):
        return False
    if kind is bool:
        return isinstance(value, (bool, np.bool_))
    if kind is str:
        return isinstance(value, (str, os.PathLike))
    if kind in (None, type(None)):
        return value is None
    if kind is dict or get_origin(kind) is dict:
        return isinstance(value, dict)
    if kind == list[str]:
        return isinstance(value, (list, tuple)) and all(isinstance(entry, str) for entry in value)
    if get_origin(kind) is Literal:
        return any(value is choice or value == choice for choice in get_args(kind))
    return isinstance(value, kind) if isinstance(kind, type) else None


def whole_number(name: str, value: Any, least: float = 1) -> int:
    """Return a field that counts something as an int; see `check_number`."""
    check_number(name, value, least, is_whole=True)
    return int(value)


def check_text(name: str, value: Any) -> None:
    """Raise TypeError unless a field is text, and ValueError if it is empty."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {reprlib.repr(value)} ({type(value).__name__}).")
    if not value.strip():
        raise ValueError(f"{name} must be text that is not empty, got {value!r}.")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise ValueError unless a field holds one of its choices."""
    if not isinstance(value, (str, type(None))) or value not in choices:
        near = find_near(str(value)[:100], filter(None, choices))
        raise ValueError(f"{name} must be one of {list(choices)}, got {reprlib.repr(value)}.{near}")


def find_kinds(fields_of: type) -> dict[str, Any]:
    """Return the annotation of each field of an argument class, those of its bases included.

    Not by `dataclasses.fields`: an `HfArgumentParser` changes the types there.
    """
    kinds: dict[str, Any] = {}
    for base in reversed(fields_of.__mro__):
        kinds |= inspect.get_annotations(base)
    return kinds


def find_choices(kind: Any) -> tuple[str, ...]:
    """Return the choices of a field that is annotated as a `Literal`; none for another."""
    return get_args(kind) if get_origin(kind) is Literal else ()


def find_near(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean ...?` with the nearest known word, or an empty text."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f" Did you mean {near[0]!r}?" if near else ""
