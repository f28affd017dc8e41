"""Errors of a place that takes no more: they name the file or folder that was to be written."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["naming_place"]

# Errors of a place that takes no more, which a block may also meet; a source that cannot be read is none of them.
_STORAGE_ERRORS = {errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}
# The writers of zip files in C++, and of arrays in NumPy, keep the reason to themselves.
_SILENT_WRITERS = ("PytorchStreamWriter failed writing", "inline_container.cc", "iostream error", " requested and ")


@contextmanager
def naming_place(path: Path, *, is_own: bool = False) -> Iterator[None]:
    """Name a path in the errors of a block that cannot write it.

    Args:
        path: File or folder that the block writes.
        is_own: Whether the block holds calls of the writer alone. All errors of the system are then about the path;
            else those of a place that takes no more.

    Raises:
        OSError: With the number of the error; the message names path, reason, and what is free there.
    """
    try:
        yield
    except FileExistsError:  # says it already, or names the file that stands in the place of a folder
        raise
    except Exception as error:
        number = getattr(error, "errno", None) if isinstance(error, OSError) else None
        if number is None:  # writers in Rust and C++ leave only words
            said = str(error)
            number = next((code for code in _STORAGE_ERRORS if os.strerror(code) in said), None)
            if any(words in said for words in _SILENT_WRITERS):
                number = errno.EIO if number is None else number
        elif not is_own and number not in _STORAGE_ERRORS:
            number = None
        if number is None or str(error).startswith(f"[Errno {number}] {path} could not be written"):
            raise
        raise OSError(
            number,
            f"{path} could not be written: {os.strerror(number)} ({_free_space(path)}). It was left as it was: make "
            "room, or choose another place.",
        ) from error


def _free_space(path: Path) -> str:
    there = next(parent for parent in path.parents if parent.exists())
    return f"{shutil.disk_usage(there).free / 1e6:,.1f} MB free in {there}"
