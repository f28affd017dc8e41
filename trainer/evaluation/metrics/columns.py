"""Rules for predictions and references: each field of each sample is of its kind, before anything is scored."""

import reprlib
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from processing.geometry_rules import check_poses
from processing.oriented_boxes import check_world_boxes

__all__ = [
    "read_box",
    "read_boxes",
    "read_column",
    "read_id",
    "read_overlap",
    "read_poses",
    "read_text",
    "read_texts",
    "read_turned_boxes",
]


def read_column(name: str, rows: Any, rules: Mapping[str, Callable[[Any], Any]]) -> list[dict[str, Any]]:
    """Return the fields of a column of samples as plain values, without other keys.

    Args:
        name: Name of the column, "predictions" or "references".
        rows: Samples, each a mapping.
        rules: Function of each field that returns its plain value, or raises TypeError or ValueError.

    Raises:
        TypeError: If the column is no sequence of mappings, or a field is of another type; the message names both.
        ValueError: If a field is missing, or has a value that cannot be meant.
    """
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise TypeError(f"`{name}` must be a list of dicts, one a sample, got {_shown(rows)}.")
    found = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"`{name}`[{number}] must be a dict with the fields {list(rules)}, got {_shown(row)}.")
        plain = {}
        for field, rule in rules.items():
            if field not in row and rule is not read_overlap:
                raise ValueError(f"`{name}`[{number}] lacks the field {field!r}, it has {list(row)[:10]}.")
            try:
                plain[field] = rule(row.get(field))
            except (TypeError, ValueError) as error:
                raise type(error)(f"`{name}`[{number}]: `{field}` {error}") from None
        found.append(plain)
    return found


def read_text(value: Any) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise TypeError(f"must be text, got {_shown(value)}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"must be text, got half a surrogate pair in {_shown(value)}.") from None
    return str(value)


def read_texts(value: Any) -> list[str]:
    """Return texts of which there must be one at least."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"must be a list of texts, got {_shown(value)}.")
    texts = [read_text(text) for text in value]
    if not texts:
        raise ValueError("must hold at least one text, got none.")
    return texts


def read_id(value: Any) -> str:
    """Return the name of a sample or scene, which may be a whole number."""
    if isinstance(value, Integral) and not isinstance(value, (bool, np.bool_)):
        return str(value)
    if not read_text(value):
        raise ValueError("must be a name, got an empty text.")
    return str(value)


def read_box(value: Any) -> list[float]:
    """Return a box (cx, cy, cz, dx, dy, dz) in metres; empty for none."""
    numbers = _numbers(value, "a list of six numbers (cx, cy, cz, dx, dy, dz)")
    if numbers.shape not in ((0,), (6,)) or not np.isfinite(numbers).all():
        raise ValueError(f"must be a box of six finite numbers (cx, cy, cz, dx, dy, dz), got {_shown(value)}.")
    return numbers.tolist()


def read_boxes(value: Any) -> list[list[float]]:
    """Return boxes (N, 6) in metres."""
    numbers = _numbers(value, "a list of boxes (N, 6)")
    if numbers.size == 0:
        return []
    if numbers.ndim != 2 or numbers.shape[1] != 6 or not np.isfinite(numbers).all():
        raise ValueError(f"must be boxes (N, 6) of finite numbers (cx, cy, cz, dx, dy, dz), got {_shown(value)}.")
    return numbers.tolist()


def read_turned_boxes(value: Any) -> list[list[float]]:
    """Return boxes (N, 7) in metres and radians: (cx, cy, cz, dx, dy, dz, yaw), yaw about the world's z."""
    numbers = _numbers(value, "a list of boxes (N, 7)")
    return check_world_boxes(numbers).tolist() if numbers.size else []


def read_poses(value: Any) -> list[list[list[float]]]:
    """Return poses (V, 4, 4) of the frames that were shown."""
    numbers = _numbers(value, "a list of poses (V, 4, 4)")
    if numbers.ndim != 3 or numbers.shape[1:] != (4, 4) or not len(numbers):
        raise ValueError(f"must be a pose (4, 4) for each frame, got {_shown(value)}.")
    check_poses(numbers, name="camera_to_world")
    return numbers.tolist()


def read_overlap(value: Any) -> float:
    """Return an overlap of boxes in [0, 1]; NaN for none."""
    if value is None:
        return float("nan")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"must be a number from 0 to 1, got {_shown(value)}.")
    if value < 0 or value > 1 + 1e-6:
        raise ValueError(f"must be a number from 0 to 1, got {value}.")
    return float(value)


def _numbers(value: Any, wanted: str) -> np.ndarray:
    """Return an array of float64 of what holds numbers alone."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # ragged lists; a tensor on another device
        array = np.array(None)
    if array.ndim == 0 or (array.size and array.dtype.kind not in "iuf"):
        raise TypeError(f"must be {wanted}, got {_shown(value)}.")
    return array.astype(np.float64)


def _shown(value: Any) -> str:
    return f"{reprlib.repr(value)} ({type(value).__name__})"
