"""Files and folders that are written whole or not at all."""

import contextlib
import glob
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: nobody can tell whether a writer still runs
    fcntl = None

__all__ = ["whole_file", "whole_folder", "write_bytes", "write_json", "write_text"]

logger = logging.getLogger(__name__)

UNFINISHED, RETIRED = ".unfinished", ".retired"


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Give an empty hidden file that takes the place of `path` when the block ends.

    The folder is made if it does not exist. After an error `path` is what it was, and the hidden file is removed. A
    killed process leaves one; the next writer of the same file removes it and says so in a warning.

    Args:
        path: File to write. The hidden file has another suffix: name the format to a writer that goes by the suffix.

    Yields:
        Path of the hidden file, to be written by the block.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in _siblings(path, UNFINISHED):
        if _is_abandoned(leftover):
            logger.warning("%s was left by a writer of %s that was killed; it is removed.", leftover, path)
            leftover.unlink(missing_ok=True)
    with _hidden_sibling(path, Path.touch) as unfinished:
        try:
            yield unfinished
            _sync(unfinished)
            os.replace(unfinished, path)
            _sync_folder(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file of bytes, whole or not at all."""
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content)


def write_text(path: str | os.PathLike, content: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: str | os.PathLike, content: Any, *, indent: int | None = 1, sort_keys: bool = False) -> None:
    """Write a JSON file that ends with a newline, whole or not at all."""
    write_text(path, json.dumps(content, indent=indent, sort_keys=sort_keys) + "\n")


@contextmanager
def whole_folder(
    folder: str | os.PathLike,
    may_replace: Callable[[Path], bool] | None = None,
    *,
    refusal: str = "is not empty",
) -> Iterator[Path]:
    """Give an empty hidden folder that takes the place of `folder` when the block ends.

    After an error `folder` is what it was, and the hidden folder is removed. A killed process leaves one; the next
    writer of the same folder names it in a warning. Earlier content is moved aside first and removed last.

    Args:
        folder: Folder to write.
        may_replace: Predicate that says whether existing content may be replaced. Default: only an empty folder is.
        refusal: Reason in the error, such as "is not an earlier export".

    Yields:
        Path of the hidden folder.

    Raises:
        FileExistsError: If `folder` exists and may not be replaced. It is left as it is.
    """
    folder = Path(folder).resolve()
    _check_replaceable(folder, may_replace, refusal)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in filter(_is_abandoned, _siblings(folder, UNFINISHED)):
        logger.warning("%s was left by a writer of %s that was killed: remove it.", leftover, folder)
    for retired in _siblings(folder, RETIRED):
        logger.warning("%s stood at %s before a writer was killed: remove it, or move it back.", retired, folder)
    with _hidden_sibling(folder, Path.mkdir) as unfinished:
        try:
            yield unfinished
            _sync_tree(unfinished)
            _check_replaceable(folder, may_replace, refusal)  # another process may have written there meanwhile
            _swap(unfinished, folder)
            _sync_folder(folder.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _swap(unfinished: Path, folder: Path) -> None:
    """Put a folder into the place of another one, which is removed."""
    retired = unfinished.with_suffix(RETIRED)
    if folder.exists():
        folder.rename(retired)
    try:
        unfinished.rename(folder)
    except OSError:
        if retired.exists():
            retired.rename(folder)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _check_replaceable(folder: Path, may_replace: Callable[[Path], bool] | None, refusal: str) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or may_replace is None or not may_replace(folder):
        reason = refusal if folder.is_dir() else "is not a folder"
        raise FileExistsError(
            f"{folder} exists and {reason}. It was left as it is: choose another folder, or move it away."
        )


@contextmanager
def _hidden_sibling(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make a file or folder beside `path`, locked as long as block and process run."""
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
    if fcntl is None:
        make(unfinished)
        yield unfinished
        return
    # Locked before it has the name that other writers look for.
    fresh = unfinished.with_suffix(".new")
    make(fresh)
    descriptor = os.open(fresh, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        fresh.rename(unfinished)
        yield unfinished
    finally:
        os.close(descriptor)


def _is_abandoned(path: Path) -> bool:
    """Return whether an unfinished file or folder surely has no running writer."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # its writer has just finished
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _siblings(path: Path, suffix: str) -> list[Path]:
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.*{suffix}"))


def _sync(path: Path) -> None:
    """Hand the bytes of a file, or the names in a folder, to the disk."""
    is_writable = path.is_file() and os.access(path, os.W_OK)
    descriptor = os.open(path, os.O_RDWR if is_writable else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot, and keep the names anyway
        _sync(folder)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.is_file():
                _sync(path)
        _sync_folder(Path(parent))
