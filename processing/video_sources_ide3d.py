"""Doors of the video reader: paths, URLs, bytes, file objects and values of `datasets` become one file to decode."""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from .downloads_ide3d import check_not_special, copy_stream, download, find_local_path

__all__ = ["is_source", "open_source", "to_local_path"]

MAX_STREAM_BYTES = 2 * 1024**3  # of a download or a one-way file; they lie in a temporary file


def is_source(value: Any) -> bool:
    """Return whether a value is a path, URL, bytes, file object, or `datasets` value."""
    return (
        isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview))
        or callable(getattr(value, "read", None))
        or (isinstance(value, dict) and bool({"path", "bytes"} & value.keys()))
        or hasattr(value, "_hf_encoded")  # the decoder that `datasets.Video()` gives, with what it was made of
    )


def to_local_path(value: Any) -> str | None:
    """Return the path that a path, `file:` URL or `datasets` value names, if any."""
    value = _unwrap(value)
    return find_local_path(os.fspath(value)) if isinstance(value, (str, os.PathLike)) else None


@contextmanager
def open_source(value: Any) -> Iterator[tuple[str | BinaryIO, str]]:
    """Open a stored video for a decoder.

    Args:
        value (`Any`):
            Path, `file:`, `http:` or `https:` URL, bytes, seekable or one-way binary file object, or a value of
            `datasets.Video`.

    Yields:
        `tuple[str | BinaryIO, str]`: a local path or a seekable file, and how errors call the video. Downloads live
        in a temporary file of at most 2 GiB. A file object of the caller stays open; it is read from its beginning.

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if a download fails or is incomplete.
        TimeoutError: if a download takes more than ten minutes.
        TypeError: if a file object gives text.
        ValueError: if there are no bytes, or more than a download may have, or for another kind of URL.
    """
    path, value = to_local_path(value), _unwrap(value)
    if path is not None:
        check_not_special(path)
        if not os.path.isfile(path) and "://" in path:
            raise ValueError(f"A video is a file, or comes by file:, http: or https:, got {path}. Download it first.")
        if not os.path.isfile(path):
            raise FileNotFoundError(f"No video file or folder of images at {path}. Check the path; the current "
                                    f"directory is {os.getcwd()}.")  # fmt: skip
        _check_not_empty(os.path.getsize(path), path)
        yield os.path.abspath(path), path  # FFmpeg takes what stands before a colon for a protocol
    elif isinstance(value, (bytes, bytearray, memoryview)):
        name = f"the video of {len(value)} bytes"
        _check_not_empty(len(value), name)
        yield io.BytesIO(value), name
    elif isinstance(value, str):
        with tempfile.TemporaryFile() as file:
            download(value, file, MAX_STREAM_BYTES)
            _check_not_empty(file.tell(), value)
            yield file, value
    else:
        name = f"the file object {getattr(value, 'name', '') or type(value).__name__}"
        if isinstance(value, io.TextIOBase):
            raise TypeError(f"{name} gives text. Open it with `open(path, 'rb')`.")
        if getattr(value, "seekable", lambda: False)():
            _check_not_empty(value.seek(0, os.SEEK_END), name)
            value.seek(0)
            yield value, name
            return
        with tempfile.TemporaryFile() as file:
            _check_not_empty(copy_stream(value, file, MAX_STREAM_BYTES, name), name)
            yield file, name


def _unwrap(value: Any) -> Any:
    """Return the bytes or the path of a `datasets` value; other values as they are."""
    value = getattr(value, "_hf_encoded", value)
    if not isinstance(value, dict):
        return value
    content = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if content is None:
        raise ValueError("A video of `datasets` has a path or bytes, got neither. Is its row empty?")
    if not is_source(content) or isinstance(content, dict):
        raise TypeError(f"A video of `datasets` has a path or bytes, got {type(content).__name__}.")
    return content


def _check_not_empty(size: int, name: str) -> None:
    if size == 0:
        raise ValueError(f"{name} is an empty file. Copy or download it again.")
