"""Files from elsewhere: bounded in size and time, whole, or an error that says why."""

import time
import urllib.request
from http.client import HTTPException
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

__all__ = ["copy_stream", "download", "find_local_path"]

TIMEOUT_SECONDS = 30  # without any answer
MAX_SECONDS = 600
CHUNK_BYTES = 1024**2
URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=~"


class _TooLargeError(ValueError):
    """More bytes than are accepted."""


def find_local_path(address: str) -> str | None:
    """Return the local path of a path or `file:` URL; None for http and https."""
    scheme, separator, rest = address.partition(":")
    if separator and scheme.lower() == "file":
        return urllib.request.url2pathname(urlsplit(address).path)
    return None if scheme.lower() in ("http", "https") and rest.startswith("//") else address


def download(url: str, file: BinaryIO, limit: int) -> None:
    """Write the content of an http or https URL into a file.

    Args:
        url (`str`):
            Address of the content.
        file (binary file):
            Open for writing; it is left at its end.
        limit (`int`):
            Most bytes that are accepted. The announced size is checked before the content comes.

    Raises:
        ConnectionError: if the server does not answer, has no such file, or ends early.
        TimeoutError: if the content takes more than ten minutes.
        ValueError: for no bytes, or more than `limit`.
    """
    try:
        # As browsers do, which take blanks and letters of all languages.
        request = urllib.request.Request(quote(url, safe=URL_CHARACTERS), headers={"User-Agent": "ide3d"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            length = answer.headers.get("Content-Length") or ""
            announced = int(length) if length.isdecimal() else 0
            _check_size(announced, limit, url)
            received = copy_stream(answer, file, limit, url)
    except (TimeoutError, _TooLargeError):
        raise
    except (OSError, ValueError, HTTPException) as error:  # urllib's errors are among them
        raise ConnectionError(f"{url} cannot be downloaded ({error}). Check the address and the network.") from error
    if received < announced:
        raise ConnectionError(f"{url} ended after {received} of {announced} bytes. Download it again.")


def copy_stream(source: Any, file: BinaryIO, limit: int, name: str) -> int:
    """Copy what a stream gives into a file.

    Args:
        source (`Any`):
            Object with `read(size)`.
        file (binary file):
            Open for writing; it is left at its end.
        limit (`int`):
            Most bytes that are accepted.
        name (`str`):
            How errors call the stream.

    Returns:
        `int`: Number of bytes.

    Raises:
        TimeoutError: if it takes more than ten minutes.
        ValueError: for more than `limit` bytes.
    """
    received, end = 0, time.monotonic() + MAX_SECONDS
    while chunk := source.read(CHUNK_BYTES):
        received += len(chunk)
        _check_size(received, limit, name)
        if time.monotonic() > end:
            raise TimeoutError(f"{name} is still coming after {MAX_SECONDS} s. Download it first, and give the path.")
        file.write(chunk)
    return received


def _check_size(size: int, limit: int, name: str) -> None:
    if size > limit:
        raise _TooLargeError(f"{name} has more than {limit} bytes. Download it, and give the path.")
