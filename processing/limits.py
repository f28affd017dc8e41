"""Bounds of what is read from files of strangers, and the checks that keep them before memory is taken.

Each bound is an environment variable, so that commands, notebooks and workers of a data loader share it:

    IDE3D_MAX_FILE_BYTES: Size of a file that is read whole, other than JSON: pickles, point clouds, teacher features.
    IDE3D_MAX_JSON_BYTES: Size of a JSON file. Objects in memory take about ten times as much.
    IDE3D_MAX_UNPACKED_BYTES: Size of a file's contents as it declares them: members of archives, arrays, columns.
    IDE3D_MAX_NESTING: Levels of lists and objects in JSON.

Only regular files are opened: a pipe, a device or a socket would block, or never end.
"""

import json
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["check_archive", "check_bound", "check_file", "find_bound", "load_json", "parse_json", "parse_size"]

BOUNDS = {
    "IDE3D_MAX_FILE_BYTES": 2**32,
    "IDE3D_MAX_JSON_BYTES": 2**29,  # The largest annotation file of the benchmarks has some 100 MB.
    "IDE3D_MAX_UNPACKED_BYTES": 2**32,
    "IDE3D_MAX_NESTING": 100,
}
_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
# Beside its own error, zipfile raises those of the parts that it parses: names, numbers, packed bytes.
_BROKEN_ARCHIVE = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, UnicodeError, struct.error, zlib.error,
    OverflowError, KeyError,
)  # fmt: skip
_CHUNK = 2**22  # Bytes of JSON whose nesting is counted at a time.


def find_bound(name: str) -> int:
    """Return a bound: that of the environment, or its default.

    Args:
        name: Key of `BOUNDS`, the name of an environment variable.

    Raises:
        ValueError: If the variable holds no positive number.
    """
    text = os.environ.get(name)
    if text is None:
        return BOUNDS[name]
    try:
        bound = int(text) if text.strip().isdigit() else int(float(text))
    except (ValueError, OverflowError):
        bound = 0
    if bound < 1:
        raise ValueError(f"The environment variable {name} must be a positive number such as 8e9, got {text!r}.")
    return bound


def check_bound(amount: int, name: str, what: str) -> None:
    """Raise ValueError if an amount is above a bound.

    Args:
        amount: Bytes or levels that are there or declared.
        name: Key of `BOUNDS`.
        what: Beginning of the message: the file, and the part of it.
    """
    bound = find_bound(name)
    if amount > bound:
        unit = "levels" if name == "IDE3D_MAX_NESTING" else "bytes"
        raise ValueError(
            f"{what} has {amount} {unit}, more than the {bound} of {name}. If it is right, set {name}={amount} in the "
            "environment; if not, get the file again from its authors."
        )


def check_file(path: str | os.PathLike, bound: str | None = "IDE3D_MAX_FILE_BYTES") -> int:
    """Return the size of a regular file in bytes; symlinks to one are followed.

    Args:
        path: Path of the file.
        bound: Bound of its size, a key of `BOUNDS`; None where the file is not read whole.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is a folder, a pipe, a device or a socket, its name cannot be a path, or it is too large.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist. Check the path.") from error
    except PermissionError:
        raise
    except (OSError, ValueError) as error:  # a name that is too long, a circle of links, NUL
        shown = os.fspath(path)
        shown = shown if len(shown) < 300 else f"{shown[:100]}..."
        raise ValueError(f"{shown!r} is no path of a file: {getattr(error, 'strerror', None) or error}.") from error
    if not stat.S_ISREG(status.st_mode):
        kind = next((words for is_kind, words in _KINDS.items() if is_kind(status.st_mode)), "a special file")
        raise ValueError(f"{path} must be a regular file, it is {kind}. It was not opened: give a file.")
    if bound is not None:
        check_bound(status.st_size, bound, str(path))
    return status.st_size


def load_json(path: str | os.PathLike) -> Any:
    """Read a JSON file of bounded size and nesting.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no JSON in UTF-8, cut off, too large, nested too deeply, or no regular file.
    """
    check_file(path, "IDE3D_MAX_JSON_BYTES")
    return parse_json(Path(path).read_bytes(), str(path))


def parse_json(content: bytes, where: str) -> Any:
    """Return the value of JSON text in UTF-8 of bounded nesting.

    Args:
        content: Text.
        where: File that it stands in, in messages.

    Raises:
        ValueError: If it is no JSON, nested too deeply, names one key of an object twice, or holds half a surrogate
            pair, which is no text.
    """
    check_bound(_nesting(content), "IDE3D_MAX_NESTING", f"{where}, its nesting,")
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_as_dict)
        if b"\\ud" in content or b"\\uD" in content:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not complete JSON in UTF-8, download or make it again: {error}.") from error
    return value


def _as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; raise ValueError where it names a key twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"an object names {twice[:100]!r} twice, leave one of them")
    return value


def _nesting(content: bytes) -> int:
    """Return how many lists and objects are open at once, outside of texts."""
    plain = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    depth = deepest = quotes = 0
    for start in range(0, len(plain), _CHUNK):
        chunk = np.frombuffer(plain, np.uint8, min(_CHUNK, len(plain) - start), start)
        is_text = (np.cumsum(chunk == ord('"'), dtype=np.int64) + quotes) & 1
        folded = chunk | 0x20  # [ and { differ in this bit, as do ] and }
        steps = (folded == ord("{")).astype(np.int8) - (folded == ord("}"))
        depths = depth + np.cumsum(np.where(is_text, 0, steps), dtype=np.int64)
        depth, deepest, quotes = int(depths[-1]), max(deepest, int(depths.max())), int(is_text[-1])
    return deepest


def parse_size(size: int | str) -> int:
    """Return the bytes of a size such as 5000000, "500KB" or "5GB".

    Raises:
        ValueError: If `size` is not a positive number with a known unit.
    """
    if isinstance(size, Real) and not isinstance(size, bool) and 0 < size < math.inf:
        return math.ceil(size)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", size.strip().upper()) if isinstance(size, str) else None
    if match is None or match.group(2) not in _UNITS or float(match.group(1)) <= 0:
        raise ValueError(f'max_shard_size must be a number of bytes or a text such as "500MB" or "5GB", got {size!r}.')
    return math.ceil(float(match.group(1)) * _UNITS[match.group(2)])


def check_archive(path: str | os.PathLike, *, is_npz: bool = True) -> None:
    """Check a zip archive, its declared sizes first, before anything of it is unpacked.

    Args:
        path: Path of the archive.
        is_npz: Whether its members must be `.npy` files of plain arrays, as large as their headers say.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no zip archive, or its contents are too large, or not as declared.
    """
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check_bound(sum(member.file_size for member in members), "IDE3D_MAX_UNPACKED_BYTES", f"{path}, unpacked,")
            for member in members if is_npz else ():
                _check_member(archive, member)
    except _BROKEN_ARCHIVE as error:
        raise ValueError(f"{path} is no whole zip archive, copy it again: {error}.") from error


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise ValueError unless an array in an archive is as large as it declares."""
    what = f"{archive.filename}, {member.filename[:100]!r},"
    with archive.open(member) as file:
        try:
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
            header = file.tell()
        except Exception as error:  # NumPy's parser raises ValueError, SyntaxError, TokenError and more.
            raise ValueError(f"{what} is no plain array: {error}. Save it with `numpy.savez`.") from error
    if dtype.hasobject:
        raise ValueError(f"{what} holds Python objects, which are not read. Save arrays of numbers.")
    size = math.prod(shape) * dtype.itemsize
    check_bound(size, "IDE3D_MAX_UNPACKED_BYTES", what)
    if header + size != member.file_size:
        raise ValueError(f"{what} must have {header + size} bytes for its shape {shape}, it has {member.file_size}.")
