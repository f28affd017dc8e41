"""Doors of the video reader: paths, URLs, bytes, file objects and values of `datasets` become one file to decode."""

import io
import os
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

__all__ = ["is_source", "open_source", "to_local_path"]

MAX_DOWNLOAD_BYTES = 2 * 1024**3
TIMEOUT_SECONDS = 30  # without any answer
MAX_DOWNLOAD_SECONDS = 600
CHUNK_BYTES = 1024**2


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
    if not isinstance(value, (str, os.PathLike)):
        return None
    path = os.fspath(value)
    if path.startswith("file:"):
        return urllib.request.url2pathname(urllib.parse.urlparse(path).path)
    return None if path.startswith(("http://", "https://")) else path


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
        FileNotFoundError: if there is no such file, or the server has none.
        ConnectionError: if a download fails or is incomplete.
        TimeoutError: if a download takes more than ten minutes.
        TypeError: if a file object gives text.
        ValueError: if there are no bytes, or more than a download may have.
    """
    path, value = to_local_path(value), _unwrap(value)
    if path is not None:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"No video file or folder of images at {path}. Check the path; the current "
                                    f"directory is {os.getcwd()}.")  # fmt: skip
        _check_not_empty(os.path.getsize(path), path)
        yield path, path
    elif isinstance(value, (bytes, bytearray, memoryview)):
        name = f"the video of {len(value)} bytes"
        _check_not_empty(len(value), name)
        yield io.BytesIO(value), name
    elif isinstance(value, str):
        with tempfile.TemporaryFile() as file:
            _download(value, file)
            yield file, value
    else:
        name = f"the file object {getattr(value, 'name', '') or type(value).__name__}"
        if isinstance(value, io.TextIOBase):
            raise TypeError(f"{name} gives text. Open it with `open(path, 'rb')`.")
        if getattr(value, "seekable", lambda: False)():
            _check_not_empty(value.seek(0, os.SEEK_END), name)
            yield value, name
            return
        with tempfile.TemporaryFile() as file:
            _copy(value, file, name)
            yield file, name


def _unwrap(value: Any) -> Any:
    """Return the bytes or the path of a `datasets` value; other values as they are."""
    value = getattr(value, "_hf_encoded", value)
    if not isinstance(value, dict):
        return value
    content = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if content is None:
        raise ValueError("A video of `datasets` has a path or bytes, got neither. Is its row empty?")
    return content


def _download(url: str, file: BinaryIO) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "transformers-ide3d"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            declared = int(answer.headers.get("Content-Length") or 0)
            _check_size(declared, url)
            received = _copy(answer, file, url)
    except urllib.error.HTTPError as error:
        kind = FileNotFoundError if error.code in (404, 410) else ConnectionError
        raise kind(f"{url} cannot be downloaded ({error}). Check the address, or give a local file.") from error
    except urllib.error.URLError as error:
        raise ConnectionError(f"{url} cannot be downloaded ({error.reason}). Check the address.") from error
    if received < declared:
        raise ConnectionError(f"{url} ended after {received} of {declared} bytes. Download it again.")


def _copy(source: Any, file: BinaryIO, name: str) -> int:
    """Copy a stream into a file, and return its size in bytes."""
    received, end = 0, time.monotonic() + MAX_DOWNLOAD_SECONDS
    while chunk := source.read(CHUNK_BYTES):
        received += len(chunk)
        _check_size(received, name)
        if time.monotonic() > end:
            raise TimeoutError(f"{name} is still coming after {MAX_DOWNLOAD_SECONDS} s. Download it first.")
        file.write(chunk)
    _check_not_empty(received, name)
    file.flush()
    return received


def _check_size(size: int, name: str) -> None:
    if size > MAX_DOWNLOAD_BYTES:
        raise ValueError(
            f"{name} has {size} bytes or more, and at most {MAX_DOWNLOAD_BYTES} are taken from a stream. Download it, "
            "and give the path."
        )


def _check_not_empty(size: int, name: str) -> None:
    if size == 0:
        raise ValueError(f"{name} is an empty file. Copy or download it again.")
