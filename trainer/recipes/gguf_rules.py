"""A check of GGUF files before they are read: no count in them may go beyond the file."""

import struct
from pathlib import Path
from typing import BinaryIO

__all__ = ["check_gguf"]

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value by its type
_TEXT, _LIST = 8, 9


def check_gguf(path: Path) -> dict[str, str]:
    """Check that the header of a GGUF file lies within it, and return its texts.

    The package gguf takes what the header counts as it is: it would go on reading behind the end for years. It checks
    the sizes of tensors against the file itself.

    Args:
        path: The file.

    Returns:
        Texts of the header by their keys, such as "general.name" and "general.license".

    Raises:
        ValueError: It is no GGUF file of version 2 or 3, or is damaged.
    """
    try:
        with path.open("rb") as file:
            magic, version, tensors, pairs = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version not in (2, 3):
                raise ValueError("no GGUF of version 2 or 3")
            size, texts = path.stat().st_size, {}
            for _ in range(pairs):
                key, kind = _read_text(file, size), _whole(file, 4)
                if kind == _TEXT:
                    texts[key] = _read_text(file, size)
                else:
                    _skip(file, size, kind)
            for _ in range(tensors):
                _skip_text(file, size)
                _advance(file, size, 8 * _whole(file, 4) + 12)
            return texts
    except (struct.error, ValueError) as error:
        raise ValueError(f"{path} cannot be read as GGUF ({error}). Copy or download it again.") from error


def _whole(file: BinaryIO, size: int) -> int:
    """Read a whole number of 4 or 8 bytes."""
    return struct.unpack("<I" if size == 4 else "<Q", file.read(size))[0]


def _advance(file: BinaryIO, size: int, count: int) -> None:
    if file.tell() + count > size:
        raise ValueError(f"{count} bytes at byte {file.tell()} of {size}")
    file.seek(count, 1)


def _skip_text(file: BinaryIO, size: int) -> None:
    _advance(file, size, _whole(file, 8))


def _read_text(file: BinaryIO, size: int) -> str:
    start = file.tell()
    _skip_text(file, size)
    end = file.tell()
    file.seek(start + 8)
    return file.read(end - start - 8).decode("utf-8", "replace")


def _skip(file: BinaryIO, size: int, kind: int) -> None:
    """Pass over a value that is no text.

    A list of lists has no use in a language model.
    """
    if kind == _LIST:
        inner, count = _whole(file, 4), _whole(file, 8)
        if inner == _TEXT:
            for _ in range(count):
                _skip_text(file, size)
        elif inner in _SIZES:
            _advance(file, size, count * _SIZES[inner])
        else:
            raise ValueError(f"a list of type {inner}")
    elif kind in _SIZES:
        _advance(file, size, _SIZES[kind])
    else:
        raise ValueError(f"a value of type {kind}")
