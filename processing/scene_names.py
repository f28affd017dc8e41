"""Rules for names: those of scenes and frames stay inside the folder that they are looked up in; a path is text."""

import os
import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["check_name", "check_names", "path_inside", "path_text"]

MAX_PART = 240  # Bytes of one part of a name. File systems take 255, of which suffixes need some.
MAX_NAME = 1000  # Bytes of the whole name.
_LEAVES = re.compile(r"^$|^/|/$|//|(?:^|/)\.{1,2}(?:/|$)|\\|[\x00-\x1f\x7f]|^[A-Za-z]:")


def check_name(name: Any, what: str = "scene id", where: str = "") -> str:
    """Return the name of a scene, frame or file if it stays inside every folder.

    Args:
        name: Name of one or more parts with slashes between them, such as "scannet/scene0000_00".
        what: Kind of the name, in messages.
        where: File, and sample, that holds the name; empty where it is an argument.

    Raises:
        ValueError: If it is no text, empty, absolute, too long, or holds `.`, `..`, an empty part, a drive letter, a
            backslash or a control character.
    """
    prefix = f"{where}: " if where else ""
    if not isinstance(name, str):
        raise ValueError(f"{prefix}a {what} must be text, got {type(name).__name__}. Write it as text.")
    encoded = name.encode("utf-8", "surrogatepass")
    too_long = len(encoded) > MAX_NAME or max(map(len, encoded.split(b"/"))) > MAX_PART
    if too_long or _LEAVES.search(name):
        shown = repr(name) if len(name) <= 100 else f"{name[:60]!r}... ({len(encoded)} bytes)"
        raise ValueError(
            f"{prefix}a {what} must stay inside its folder, such as scannet/scene0000_00, got {shown}. Rename it: no "
            "`..` or `.`, no beginning or double slash, no drive, backslash or control character, and at most "
            f"{MAX_PART} bytes between slashes."
        )
    return name


def check_names(names: Any, argument: str, what: str = "scene id") -> list[str]:
    """Return several names of scenes or frames as a list.

    Args:
        names: Names, in any collection but a text; each as in `check_name`.
        argument: Name of the argument, in messages.
        what: Kind of the names, in messages.

    Raises:
        TypeError: If it is no collection of names.
        ValueError: As in `check_name`.
    """
    if isinstance(names, (str, bytes, Mapping)) or not isinstance(names, Iterable):
        raise TypeError(
            f"`{argument}` must be a sequence of names, each a {what}, got {type(names).__name__} "
            f"{reprlib.repr(names)}. Write one name as [name]."
        )
    return [check_name(name, what, f"`{argument}`") for name in names]


def path_text(path: Any, argument: str) -> str:
    """Return a path as text, such as a file can have.

    Args:
        path: Text or `os.PathLike`.
        argument: Name of the argument, in messages.

    Raises:
        TypeError: If it is neither.
        ValueError: If it is empty, or no file can be called so.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise TypeError(f"`{argument}` must be a path, got {type(path).__name__} {reprlib.repr(path)}.")
    try:
        is_possible = bool(text) and "\0" not in text and bool(os.fsencode(text))
    except UnicodeEncodeError:  # half a surrogate pair
        is_possible = False
    if not is_possible:
        raise ValueError(f"`{argument}` must be a path, not empty and without NUL, got {reprlib.repr(text)}.")
    return text


def path_inside(folder: str | os.PathLike, name: str, what: str = "scene id") -> Path:
    """Return the path of a file to write, which stays inside the folder.

    Reading follows symlinks: data sets are often linked into a folder.

    Args:
        folder: Output folder; may be a symlink itself, and need not exist.
        name: Name of the file below it.
        what: Kind of the name, in messages.

    Raises:
        ValueError: As in `check_name`, or if a symlink in the folder leads out of it.
    """
    path = Path(folder, check_name(name, what))
    try:
        target, root = path.resolve(), Path(folder).resolve()
    except (OSError, RuntimeError) as error:  # a circle of symlinks
        raise ValueError(f"{path} cannot be followed: {error}. Remove the link.") from error
    if not target.is_relative_to(root):
        raise ValueError(
            f"{path} leads out of {folder}, through a symlink to {target}. Nothing was written: remove the link, or "
            "choose another output folder."
        )
    return path
