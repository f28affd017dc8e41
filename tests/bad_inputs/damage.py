"""The same damages for every argument of a kind: arrays, numbers, names of choices, texts, paths, files."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "ARRAYS",
    "FILES",
    "JSON_FILES",
    "NUMBERS",
    "PATHS",
    "PATH_WORDS",
    "TEXTS",
    "damaged",
    "make_fifo",
    "write_damaged",
]


def _put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        copy = np.array(array, np.float64)
        copy.reshape(-1)[copy.size // 2] = value
        return copy

    return change


def _objects(array: np.ndarray) -> np.ndarray:
    copy = np.array(array, object)
    copy.reshape(-1)[0] = {}
    return copy


# Wrong for every array of numbers.
ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "one axis less": lambda a: a[0],
    "one axis more": lambda a: np.asarray(a)[None],
    "last axis one less": lambda a: a[..., :-1],
    "last axis one more": lambda a: np.concatenate([a, a[..., -1:]], -1),
    "last axis empty": lambda a: a[..., :0],
    "no entry": lambda a: a[:0],
    "one entry less": lambda a: a[:-1],
    "one entry more": lambda a: np.concatenate([a, a[-1:]]),
    "a number": lambda a: 5.0,
    "a string": lambda a: "x",
    "strings": lambda a: np.full(np.shape(a), "2.0x"),
    "objects": _objects,
    "a mapping": lambda a: {"a": 1},
    "ragged lists": lambda a: [[1.0, 2.0], [3.0]],
    "bytes": lambda a: b"\x00\x01",
    "complex": lambda a: np.asarray(a, np.complex128) + 1j,
    "times": lambda a: np.zeros(np.shape(a), "datetime64[s]"),
    "a NaN": _put(np.nan),
    "an Inf": _put(np.inf),
    "a negative Inf": _put(-np.inf),
    "float64 beyond float32": _put(1e300),
    "all NaN": lambda a: np.full(np.shape(a), np.nan),
    "a function": lambda a: len,
}


def damaged(array: np.ndarray, skip: Iterable[str] = ()) -> dict[str, Callable[[], Any]]:
    """Return damaged copies of an array by name, made when they are asked for."""
    return {name: (lambda change=change: change(array)) for name, change in ARRAYS.items() if name not in set(skip)}


# Wrong for every count of things.
NUMBERS: dict[str, Any] = {
    "None": None,
    "a string": "3",
    "a word": "many",
    "NaN": float("nan"),
    "Inf": float("inf"),
    "0": 0,
    "-1": -1,
    "1.5": 1.5,
    "a list": [3],
    "a mapping": {},
    "huge": 10**30,
}
# Wrong for every text.
TEXTS: dict[str, Any] = {
    "None": None,
    "an int": 5,
    "a float": 0.5,
    "bytes": b"x",
    "a list": ["x"],
    "a mapping": {"x": 1},
    "a function": len,
}


def make_fifo(path: Path) -> Path:
    """Make a pipe that nobody writes to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        import shutil

        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def _folder(path: Path) -> Path:
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)
    return path


# Wrong for every file that is read.
# Of which an error about one of `PATHS` has one.
PATH_WORDS = ("missing-file", "given", "pipe", "inner", "loop", "/dev/full", "xxx")
PATHS: dict[str, Callable[[Path], Any]] = {
    "missing": lambda folder: folder / "missing-file",
    "a folder": lambda folder: _folder(folder / "given"),
    "empty name": lambda folder: "",
    "NUL in the name": lambda folder: str(folder / "a\x00b"),
    "a name of 5000 characters": lambda folder: str(folder / ("x" * 5000)),
    "under a file": lambda folder: _write(folder / "file", b"x") / "inner",
    "a pipe": lambda folder: make_fifo(folder / "pipe"),
    "a device": lambda folder: Path("/dev/full"),
    "a loop of links": lambda folder: _loop(folder / "loop"),
    "None": lambda folder: None,
    "an int": lambda folder: 987654321,
    "a list": lambda folder: [str(folder)],
}


def _loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _garbage(data: bytes, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(max(len(data), 64))


# Wrong for every file; the functions take what is in the right one.
FILES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "garbage": _garbage,
    "binary": lambda data: b"\xff\xfe" + data[2:],
    "zeros": lambda data: bytes(len(data)),
    "one byte": lambda data: data[:1],
    "a web page": lambda data: b"<!DOCTYPE html><html><body>404 not found</body></html>",
    "a pointer of large-file storage": lambda data: (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"
    ),
}
# More of them for JSON.
JSON_FILES: dict[str, Callable[[bytes], bytes]] = {
    **FILES,
    "list": lambda data: json.dumps(["x", 1]).encode(),
    "number": lambda data: b"5",
    "null": lambda data: b"null",
    "text": lambda data: b'"x"',
    "NaN": lambda data: b"NaN",
    "deep": lambda data: b"[" * 100_000 + b"]" * 100_000,
    "bytes behind the end": lambda data: data + b"}",
}


def write_damaged(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """Damage a file."""
    path.write_bytes(change(path.read_bytes()))
    return path
