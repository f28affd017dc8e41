"""Pickles of arrays and builtins, and files of `torch.save`, read without running code or trusting a size."""

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from processing.limits import check_archive, check_file, find_bound

__all__ = ["load_pickle", "load_torch"]

_ARRAY_KINDS = "biufcSU"  # numbers, bytes, text
_NUMPY_MODULES = (
    "numpy",
    "numpy.core.multiarray",
    "numpy._core.multiarray",
    "numpy.core.numeric",
    "numpy._core.numeric",
)
_STORAGES = {
    "Bool": "?", "Byte": "u1", "Char": "i1", "Short": "i2", "Int": "i4", "Long": "i8", "Half": "f2", "Float": "f4",
    "Double": "f8",
}  # fmt: skip
_OLD_TORCH = 0x1950A86A20F9469CFC6C  # The number that files before PyTorch 1.6 begin with.


class _Named:
    """A function that a pickle may name and call, and not change."""

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it changes what it names")


class _Type:
    """The code and byte order of a NumPy type, as a pickle states them."""

    def __init__(self, code: Any, *_: Any):
        self._code, self._order = code, "="

    def __setstate__(self, state: tuple) -> None:
        _, self._order, *compound = state
        if any(part is not None for part in compound[:3]):
            raise ValueError("it holds arrays of compound types")

    def real(self) -> np.dtype:
        """Return the type, which is of numbers or text."""
        found = np.dtype(self._code) if isinstance(self._code, str) else None
        if found is None or found.kind not in _ARRAY_KINDS or not found.itemsize:
            raise ValueError(f"it holds an array of the type {self._code!r:.40}, which is neither numbers nor text")
        return found.newbyteorder(self._order) if self._order in ("<", ">") else found


class _Array(np.ndarray):
    """An array whose declared size is compared with its bytes before memory is taken."""

    _names: "_Names"

    def __setstate__(self, state: tuple) -> None:
        version, shape, kind, is_fortran, content = state
        real = self._names.check_content(content, kind, shape)
        super().__setstate__((version, shape, real, bool(is_fortran), content))


class _Names:
    """Functions for the names in one pickle, which share a number of bytes."""

    def __init__(self) -> None:
        self._left = find_bound("IDE3D_MAX_UNPACKED_BYTES")
        made = {
            "complex": complex,
            "set": self._make_set,
            "frozenset": self._make_frozenset,
            "bytes": self._make_bytes,
        }
        numpy = {
            "ndarray": self._refuse_size,
            "dtype": _Type,
            "_reconstruct": self._make_array,
            "scalar": self._make_scalar,
            "_frombuffer": self._make_from_buffer,
        }
        self.table = {f"{module}.{name}": made[name] for module in ("builtins", "__builtin__") for name in made}
        self.table |= {f"{module}.{name}": numpy[name] for module in _NUMPY_MODULES for name in numpy}
        self.table["_codecs.encode"] = self._encode

    def _take(self, size: int) -> None:
        # A few letters may ask for the same large text again and again.
        self._left -= size
        if self._left < 0:
            raise ValueError("it unpacks to more bytes than IDE3D_MAX_UNPACKED_BYTES allows")

    def check_content(self, content: Any, kind: _Type, shape: Any) -> np.dtype:
        """Return the type of an array whose bytes are as many as its shape says."""
        if not isinstance(shape, tuple) or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise ValueError("it holds an array whose shape is no tuple of sizes")
        real = kind.real()
        size = real.itemsize
        for side in shape:
            size *= side
        if not isinstance(content, bytes | bytearray) or len(content) != size:
            found = f"{len(content)} bytes" if isinstance(content, bytes | bytearray) else type(content).__name__
            raise ValueError(f"it holds an array that declares {size} bytes and has {found}")
        self._take(size)
        return real

    def _make_array(self, *_: Any) -> np.ndarray:
        array = np.ndarray.__new__(_Array, (0,), "b")
        array._names = self
        return array

    def _make_scalar(self, kind: _Type, content: Any = b"") -> Any:
        return np.frombuffer(content, self.check_content(content, kind, ()))[0]

    def _make_from_buffer(self, content: Any, kind: _Type, shape: Any, order: Any = "C") -> np.ndarray:
        return np.frombuffer(content, self.check_content(content, kind, shape)).reshape(shape, order=order)

    def _encode(self, text: str, encoding: str = "") -> bytes:  # Protocols below 3 write bytes as text.
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"it asks for the encoding {encoding!r:.40}")
        self._take(len(text))
        return text.encode("latin-1")

    def _make_set(self, items: list) -> set:
        self._take(64 * len(items))
        return set(items)

    def _make_frozenset(self, items: list) -> frozenset:
        self._take(64 * len(items))
        return frozenset(items)

    def _make_bytes(self, *arguments: Any) -> bytes:
        if arguments:  # Without any, it is how protocols below 3 write b"".
            self._refuse_size()
        return b""

    def _refuse_size(self, *_: Any) -> None:
        raise ValueError("it makes an array or bytes of a size that it only declares")


class _Unpickler(pickle.Unpickler):
    """Unpickler of numpy arrays, numpy scalars and plain builtins; everything else is refused by name."""

    def __init__(self, content: bytes, start: int, table: dict[str, Callable], storages: Callable | None = None):
        file = io.BytesIO(content)
        file.seek(start)
        super().__init__(file)
        self._table = {name: _Named(function) for name, function in table.items()}
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self._table:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is neither numpy nor a plain builtin")
        return self._table[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Any:
        if self._storages is None:
            raise pickle.UnpicklingError("it refers to something outside of the file")
        return self._storages(pid)


def load_pickle(path: str | Path) -> Any:
    """Read a pickle of numpy arrays and builtins; no other name is ever looked up.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no regular file, too large, no pickle, is cut off, declares more than it holds, or
            names any other class or function.
    """
    check_file(path)
    content = Path(path).read_bytes()
    try:
        _check_opcodes(content)
        return _Unpickler(content, 0, _Names().table).load()
    except Exception as error:  # Bytes that are no pickle raise whatever the opcodes that they resemble raise.
        raise ValueError(
            f"{path} is not a pickle of arrays and builtins alone: {error}. Get it again from its authors."
        ) from error


def load_torch(path: str | Path) -> Any:
    """Read a file of `torch.save` that holds arrays, tensors and builtins.

    Returns:
        Contents with arrays in the place of tensors. Files of PyTorch before 1.6 may not hold tensors.

    Raises:
        FileNotFoundError: No such file.
        ValueError: As in `load_pickle`.
    """
    check_file(path)
    try:
        if not zipfile.is_zipfile(path):
            return _load_old_torch(Path(path).read_bytes())
        check_archive(path, is_npz=False)
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            content, names = archive.read(name), _Names()
            _check_opcodes(content)
            tensors: dict[str, Callable] = {f"torch.{kind}Storage": _refuse_call for kind in _STORAGES}
            tensors |= {"torch._utils._rebuild_tensor_v2": _make_tensor, "collections.OrderedDict": OrderedDict}
            kinds: dict[Any, str] = {}
            read = cache(archive.read)

            def read_storage(pid: tuple) -> np.ndarray:
                _, kind, key, *_ = pid
                return np.frombuffer(read(f"{name.removesuffix('data.pkl')}data/{key}"), kinds[kind])

            unpickler = _Unpickler(content, 0, names.table | tensors, read_storage)
            kinds |= {unpickler.find_class("torch", f"{kind}Storage"): code for kind, code in _STORAGES.items()}
            return unpickler.load()
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} is not a file of plain arrays: {reason}. Copy it again, or make it again."
        ) from error


def _load_old_torch(content: bytes) -> Any:
    """Return the fourth of the pickles in a row that older versions of PyTorch wrote."""
    start = 0
    for place in range(4):
        end = _check_opcodes(content, start)
        value = _Unpickler(content, start, _Names().table).load()
        if place == 0 and value != _OLD_TORCH:
            raise ValueError("it does not begin as a file of PyTorch does")
        start = end
    return value


def _refuse_call(*_: Any) -> None:
    raise ValueError("it makes a storage of a size that it only declares")


def _make_tensor(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_: Any) -> np.ndarray:
    """Return a tensor as an array that lies within its storage."""
    count = int(np.prod(shape, dtype=object))
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or count > len(storage) or (count and last >= len(storage)):
        raise ValueError(f"it holds a tensor of the shape {shape} that is larger than its storage")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


# Bytes that follow an opcode, by its number. -1, -4 and -8: a length of so many bytes, and as many as it says. -100: a
# line, -200: two. None: none of a file's opcodes.
_SIZES: list[int | None] = [None] * 256
_LENGTHS = {
    pickletools.UP_TO_NEWLINE: -100,
    pickletools.TAKEN_FROM_ARGUMENT1: -1,
    pickletools.TAKEN_FROM_ARGUMENT4: -4,
    pickletools.TAKEN_FROM_ARGUMENT4U: -4,
    pickletools.TAKEN_FROM_ARGUMENT8U: -8,
}
for _opcode in pickletools.opcodes:
    _count = 0 if _opcode.arg is None else _opcode.arg.n
    _SIZES[ord(_opcode.code)] = _count if _count >= 0 else _LENGTHS[_count]
    if _opcode.name in ("GLOBAL", "INST"):
        _SIZES[ord(_opcode.code)] = -200
    if _opcode.name in ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "PERSID"):
        _SIZES[ord(_opcode.code)] = None


def _check_opcodes(content: bytes, place: int = 0) -> int:
    """Return where a pickle ends, after checking the sizes that it declares.

    `pickle` takes the memory for them before it reads on.

    Raises:
        ValueError: If one is larger than the file, or an opcode does not belong in a file.
    """
    total, sizes, stop, long_put, put = len(content), _SIZES, ord("."), ord("r"), ord("p")
    while place < total:
        code = content[place]
        size = sizes[code]
        place += 1
        if size is None:
            raise ValueError(f"the byte {code:#x} at {place - 1} is no opcode of such a file")
        if size >= 0:
            if code == stop:
                return place
            if code == long_put and int.from_bytes(content[place : place + 4], "little") > total:
                raise ValueError("it declares more places than it has bytes")
            place += size
        elif size > -100:
            length = int.from_bytes(content[place : place - size], "little")
            place += length - size
            if place > total:
                raise ValueError(f"it declares {length} bytes, more than follow")
        else:
            start = place
            for _ in range(size // -100):
                place = content.find(b"\n", place) + 1 or total
            if code == put and not int(content[start : place - 1] or b"-1") <= total:
                raise ValueError("it declares more places than it has bytes")
    raise ValueError("it is cut off")
