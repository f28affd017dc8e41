"""Rules for names of scenes and frames: they stay inside the folder that they are looked up in."""

import os
import re
from pathlib import Path
from typing import Any

from processing.argument_rules import check_texts

__all__ = ["check_name", "check_names", "path_inside"]

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
    is_possible = not re.search("[\ud800-\udc7f\udd00-\udfff]", name)  # The rest stand for bytes that are no UTF-8.
    too_long = len(encoded) > MAX_NAME or max(map(len, encoded.split(b"/"))) > MAX_PART
    if too_long or not is_possible or _LEAVES.search(name):
        shown = repr(name) if len(name) <= 100 else f"{name[:60]!r}... ({len(encoded)} bytes)"
        raise ValueError(
            f"{prefix}a {what} must stay inside its folder, such as scannet/scene0000_00, got {shown}. Rename it: no "
            "`..` or `.`, no beginning or double slash, no drive, backslash or control character, and at most "
            f"{MAX_PART} bytes between slashes."
        )
    return name


def check_names(names: Any, argument: str, what: str = "scene id", *, is_ordered: bool = False) -> list[str]:
    """Return several names of scenes or frames as a list.

    Args:
        names: Names, in any collection but a text; each as in `check_name`.
        argument: Name of the argument, in messages.
        what: Kind of the names, in messages.
        is_ordered: Whether their order counts, which a set does not have.

    Raises:
        TypeError: If it is no collection of names.
        ValueError: As in `check_name`.
    """
    return [check_name(name, what, f"`{argument}`") for name in check_texts(names, argument, is_ordered=is_ordered)]


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
