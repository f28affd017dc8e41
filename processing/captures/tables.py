"""Readers of numbers: tables of them, poses in tables, and single ones of JSON."""

import math
from collections.abc import Collection, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from processing.limits import check_file

__all__ = ["finite_number", "make_poses", "number", "read_numbers", "read_rows"]

_UNIT = 0.01  # Distance of a quaternion's length from 1. Texts with three digits are off by 0.002.


def read_rows(
    path: Path, *, columns: Collection[int], delimiter: str | None = None, header: int = 0
) -> list[list[str]]:
    """Read a table of text: a row a line, without empty lines and comments (`#`).

    Args:
        path: File in UTF-8, of at most `IDE3D_MAX_JSON_BYTES`.
        columns: Numbers of columns that a row may have, one or a range.
        delimiter: Sign between columns; None: blanks.
        header: Lines at the beginning that are no rows.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no text, has no rows, or a row has another number of columns.
    """
    check_file(path, "IDE3D_MAX_JSON_BYTES")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a table of text in UTF-8: {error}.") from error
    rows = []
    for place, line in enumerate(lines, 1):
        if place <= header or not line.strip() or line.lstrip().startswith("#"):
            continue
        row = [entry.strip() for entry in line.split(delimiter)]
        if len(row) not in columns:
            wanted = " to ".join(map(str, sorted({min(columns), max(columns)})))
            raise ValueError(f"{path}, line {place}, must have {wanted} columns, it has {len(row)}: {line[:80]!r}.")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} holds no rows. Is the file complete?")
    return rows


def number(text: str, path: Path) -> float:
    """Return the number that a text spells in plain digits, NaN and Inf too.

    Raises:
        ValueError: It spells none.
    """
    try:
        if text.isascii() and "_" not in text:  # `float` reads digits of other scripts, and 1_0 as 10.
            return float(text)
    except ValueError:
        pass
    raise ValueError(f"{path} must hold numbers there, it holds {text[:40]!r}.")


def finite_number(values: Mapping[str, Any], key: str, file: Path, default: float | None = None) -> float:
    """Return the finite number that an object of JSON has under a key.

    Args:
        values: Content of the object.
        key: Key that it must have where there is no default.
        file: File that it stands in, in messages.
        default: Number where the key is missing.

    Raises:
        ValueError: It has none, or what it has is no finite number.
    """
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(
            f"{file}: `{key}` must be a finite number, got {value!r:.60}. Write or export the file again."
        )
    return float(value)


def read_numbers(path: Path, columns: int, *, delimiter: str | None = None, header: int = 0) -> np.ndarray:
    """Read a table of numbers (rows, columns), float64; see `read_rows`."""
    rows = read_rows(path, columns={columns}, delimiter=delimiter, header=header)
    return np.array([[number(entry, path) for entry in row] for row in rows])


def make_poses(positions: np.ndarray, quaternions: np.ndarray, where: Path) -> np.ndarray:
    """Return rigid motions (V, 4, 4) from positions (V, 3) and quaternions (V, 4) in the order x, y, z, w.

    Raises:
        ValueError: A quaternion has not the length 1.
    """
    length = np.linalg.norm(quaternions, axis=1)
    if len(wrong := np.flatnonzero(~(np.abs(length - 1) <= _UNIT))):
        raise ValueError(
            f"{where}: quaternions must have the length 1, row {wrong[0]} has {length[wrong[0]]:.4g}. Are the columns "
            "in another order?"
        )
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, :3, :3] = Rotation.from_quat(quaternions).as_matrix()
    poses[:, :3, 3] = positions
    return poses
