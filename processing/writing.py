"""Files and folders that are written whole or not at all."""

import contextlib
import ctypes
import glob
import json
import logging
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from processing.argument_rules import path_text
from processing.storage_errors import naming_place

try:
    import fcntl
except ImportError:  # Windows: nobody can tell whether a writer still runs
    fcntl = None

__all__ = [
    "append_text",
    "hold_file",
    "sync_folder",
    "whole_file",
    "whole_folder",
    "write_bytes",
    "write_json",
    "write_text",
]

logger = logging.getLogger(__name__)

UNFINISHED, RETIRED = ".unfinished", ".retired"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Give an empty hidden file that takes the place of `path` when the block ends.

    The folder is made if it does not exist. After an error `path` is what it was, and the hidden file is removed. A
    killed process leaves one; the next writer of the same file removes it and says so in a warning.

    Args:
        path: File to write. The hidden file has another suffix: name the format to a writer that goes by the suffix.

    Yields:
        Path of the hidden file, to be written by the block.

    Raises:
        OSError: If the file cannot be written, say on a full or read-only disk; the message names `path`. Also if
            `path` is a folder, or a link to a file of another folder, which is not followed.
    """
    path = _real_file(path)
    with naming_place(path, is_own=True):
        _make_folder(path.parent)
        _remove_leftovers(path)
    with _hidden_sibling(path, Path.touch) as unfinished:
        try:
            with naming_place(path):
                yield unfinished
            with naming_place(path, is_own=True):
                _sync(unfinished)
                os.replace(unfinished, path)
                _sync_folder(path.parent)
        finally:
            _remove(unfinished)


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


def append_text(path: str | os.PathLike, content: str) -> None:
    """Add text in UTF-8 to a file, whole or not at all.

    The file is handed to the disk.

    Raises:
        OSError: If it cannot be written; the file is cut back to its old end, and the message names it.
    """
    path = _real_file(path)
    with naming_place(path, is_own=True), path.open("ab", buffering=0) as stream:
        end, left = stream.tell(), memoryview(content.encode("utf-8"))
        try:
            while left:
                left = left[stream.write(left) :]
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(end)
            raise


@contextmanager
def hold_file(path: str | os.PathLike) -> Iterator[bool]:
    """Hold a file against other processes as long as the block runs.

    It is made if it does not exist. A killed process holds nothing. Where the file system has no locks, everybody
    holds the file.

    Yields:
        Whether it is held; False if another process holds it.
    """
    path = _real_file(path)
    with naming_place(path, is_own=True):
        _make_folder(path.parent)
        stream = path.open("ab")
    with stream:
        yield _lock(stream.fileno())


@contextmanager
def whole_folder(
    folder: str | os.PathLike,
    may_replace: Callable[[Path], bool] | None = None,
    *,
    refusal: str = "is not empty",
) -> Iterator[Path]:
    """Give an empty hidden folder that takes the place of `folder` when the block ends.

    Linux exchanges the two in one step. On file systems that cannot, the earlier content is moved aside first, and a
    process killed in that moment leaves no `folder`: the next writer moves the earlier content back before it begins.
    After an error `folder` is what it was, and the hidden folder is removed, as are parents that were made. What a
    killed process left is removed by the next writer of the same folder, which names it in a warning.

    Args:
        folder: Folder to write.
        may_replace: Predicate that says whether existing content may be replaced. Default: only an empty folder is.
        refusal: Reason in the error, such as "is not an earlier export".

    Yields:
        Path of the hidden folder.

    Raises:
        FileExistsError: If `folder` exists and may not be replaced. It is left as it is.
        OSError: If the folder cannot be written, say on a full or read-only disk; the message names it.
        ValueError: If it is a circle of links, or no name of a folder.
    """
    folder = _resolved(folder)
    if blocking := next((parent for parent in folder.parents if parent.exists() and not parent.is_dir()), None):
        raise NotADirectoryError(f"{folder} cannot be made: {blocking} is a file, not a folder. Choose another place.")
    with naming_place(folder, is_own=True):
        _restore_retired(folder)
        _remove_leftovers(folder)
    _check_replaceable(folder, may_replace, refusal)
    missing = [parent for parent in folder.parents if not parent.exists()]
    is_done = False
    try:
        with naming_place(folder, is_own=True):
            _make_folder(folder.parent)
        with _hidden_sibling(folder, Path.mkdir) as unfinished:
            try:
                with naming_place(folder):
                    yield unfinished
                with naming_place(folder, is_own=True):
                    sync_folder(unfinished)
                    _check_replaceable(folder, may_replace, refusal)  # another process may have written meanwhile
                    _swap(unfinished, folder)
                    is_done = True
                    _sync_folder(folder.parent)
            finally:
                _remove(unfinished)
    finally:
        for parent in missing if not is_done else ():
            with contextlib.suppress(OSError):  # another process may have put a file there
                parent.rmdir()


def sync_folder(folder: Path) -> None:
    """Hand all files of a folder, and their names, to the disk."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.is_file():
                _sync(path)
        _sync_folder(Path(parent))


def _swap(unfinished: Path, folder: Path) -> None:
    """Put a folder into the place of another one, which is removed."""
    if not folder.exists():
        unfinished.rename(folder)
        return
    if _exchange(unfinished, folder):
        return  # `unfinished` is the earlier content now, which the caller removes
    with _locked(folder):  # a writer that comes between the two steps sees that this one still runs
        retired = unfinished.with_suffix(RETIRED)
        folder.rename(retired)
        try:
            unfinished.rename(folder)
        except OSError:
            retired.rename(folder)
            raise
        _remove(retired)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where system or file system cannot."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # an old C library
        return False
    names = (os.fsencode(one), os.fsencode(other))
    return rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0


def _check_replaceable(folder: Path, may_replace: Callable[[Path], bool] | None, refusal: str) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or may_replace is None or not may_replace(folder):
        reason = refusal if folder.is_dir() else "is not a folder but a file"
        raise FileExistsError(
            f"{folder} exists and {reason}. It was left as it is: choose another folder, or move it away."
        )


def _real_file(path: str | os.PathLike) -> Path:
    """Return the absolute path of a file to write.

    Links of folders, and links inside the file's folder, are followed.
    """
    path = Path(path_text(path, "path"))
    place = _resolved(path.parent) / path.name
    if place.is_symlink() and place.resolve().parent != place.parent:
        raise FileExistsError(
            f"{place} is a link to {place.resolve()}, outside of its folder, and is not followed. Name that file "
            "itself, or remove the link."
        )
    place = _resolved(place)
    if place.is_dir():
        raise IsADirectoryError(f"{place} is a folder, where a file is to be written. Choose another name.")
    if place.exists() and not place.is_file():
        raise FileExistsError(
            f"{place} is a pipe, a device or a socket, where a file is to be written. It was not opened. Choose "
            "another name."
        )
    return place


def _resolved(path: str | os.PathLike) -> Path:
    """Return an absolute path; raise TypeError or ValueError for what cannot be one."""
    path_text(path, "path")
    try:
        place = Path(path).resolve()
        place.exists()  # raises for a name that is too long
        return place
    except PermissionError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        shown = os.fsdecode(path)
        shown = shown if len(shown) < 300 else f"{shown[:100]}..."
        raise ValueError(
            f"{shown!r} is no path that can be written ({_reason(error)}). Choose another one."
        ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)[:300]


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _hidden_sibling(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make a file or folder beside `path`, locked as long as block and process run."""
    is_mine = False
    while not is_mine:  # another writer may take it for a left-over before it is locked
        unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
        with naming_place(path, is_own=True):
            make(unfinished)
        with _locked(unfinished) as is_mine:
            if is_mine:
                yield unfinished


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold a file or folder, under whatever name it gets.

    It gives False if another one holds it, or it is gone.
    """
    if fcntl is None:
        yield True
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _lock(descriptor) and path.exists()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open file until it is closed; False if another one has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _siblings(path: Path, suffix: str) -> list[Path]:
    """List the hidden names that writers of `path` give."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}{re.escape(suffix)}")
    found = path.parent.glob(f".{glob.escape(path.name)}.*{suffix}")
    return sorted(place for place in found if pattern.fullmatch(place.name))


def _remove_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left, and say so."""
    for leftover in [place for suffix in (UNFINISHED, RETIRED) for place in _siblings(path, suffix)]:
        with _locked(leftover) as is_abandoned:
            if is_abandoned and fcntl is not None:
                logger.warning("%s was left by a writer of %s that was killed; it is removed.", leftover, path)
                _remove(leftover)


def _restore_retired(folder: Path) -> None:
    """Move the earlier content back that a killed writer had moved aside."""
    for retired in _siblings(folder, RETIRED):
        with _locked(retired) as is_abandoned:
            if is_abandoned and not folder.exists():
                logger.warning("%s stood at %s before a writer was killed; it is moved back.", retired, folder)
                retired.rename(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


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
