"""Weight files of a checkpoint folder, copied in small pieces: a conversion renames tensors, it does not load them.

Headers are read first, so everything is checked before a byte is written, and the place of every tensor in every
output file is known. Then its bytes go from file to file, a few megabytes at a time.
"""

import contextlib
import json
import math
import pickle
import re
import shutil
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

SAFETENSORS_NAME = "model.safetensors"
PICKLE_NAME = "pytorch_model.bin"
CHUNK_BYTES = 2**20
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
DTYPES = {  # as safetensors spells them
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def parse_size(size: int | str) -> int:
    """Bytes of a size such as 5000000, "500KB" or "5GB".

    Raises:
        ValueError: The text is not a positive number with a known unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", str(size).strip().upper())
    if match is None or match.group(2) not in UNITS or float(match.group(1)) <= 0:
        raise ValueError(f'A shard size must be a number of bytes or a text such as "500MB" or "5GB", got {size!r}.')
    return math.ceil(float(match.group(1)) * UNITS[match.group(2)])


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its name when the block ends, and vanishes when the block fails.

    Raises:
        FileExistsError: The target exists and is not an empty folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists already and is never overwritten. Choose another folder or remove it.")
    missing = [folder for folder in target.absolute().parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.incomplete"
    try:
        staging.mkdir()
        yield staging
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in missing:
            with contextlib.suppress(OSError):  # somebody else put something there meanwhile
                folder.rmdir()
        raise


@dataclass(frozen=True)
class TensorSpec:
    """Type and shape of a tensor. `dtype` is spelled as in safetensors files, e.g. "BF16"."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the values."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


class SafetensorsFile:
    """Tensors of a safetensors file, read in pieces.

    Args:
        path: The file.

    Attributes:
        header: Its header as it is written, JSON.
        tensors: Type and shape of each tensor, in the order of their bytes.

    Raises:
        ValueError: The file is truncated or damaged, or holds a type that is not known here.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with safe_open(path, framework="pt"):
                pass  # the library checks the header against the size of the file
        except SafetensorError as error:
            raise ValueError(f"{path} is truncated or no safetensors file ({error}). Download it again.") from error
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            self.header = stream.read(size).decode()
        entries = read_header(self.header)
        self._offsets = {name: 8 + size + entry["data_offsets"][0] for name, entry in entries.items()}
        if unknown := sorted({entry["dtype"] for entry in entries.values()} - DTYPES.keys()):
            raise ValueError(f"{path} holds tensors of type {unknown}; known types are {list(DTYPES)}.")
        self.tensors = {name: TensorSpec(entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}

    def read(self, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Values of a tensor, piece by piece."""
        remaining = self.tensors[name].nbytes
        with self.path.open("rb") as stream:
            stream.seek(self._offsets[name])
            while remaining:
                chunk = stream.read(min(chunk_bytes, remaining))
                if not chunk:
                    raise ValueError(f"{self.path} became shorter while it was read.")
                remaining -= len(chunk)
                yield chunk


def read_header(header: str) -> dict[str, dict]:
    """Entries of a safetensors header, in the order of their bytes, without its metadata."""
    entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
    return dict(sorted(entries.items(), key=lambda item: item[1]["data_offsets"]))


class PickledFile:
    """Tensors of a pickled file, read in pieces. Nothing but tensors is unpickled, and the file is mapped, not read.

    Args:
        path: The file.

    Attributes:
        tensors: Type and shape of each tensor, in the order of the file.

    Raises:
        ValueError: The file is truncated or damaged, or holds anything but a dict of tensors.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            # Files older than torch 1.6 are no archives and cannot be mapped.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{path} was not loaded: it is truncated, or it holds more than tensors, such as code that would run "
                f"({error}). Download it again, or convert it to safetensors where you trust it."
            ) from error
        except (RuntimeError, EOFError) as error:
            raise ValueError(f"{path} is truncated or no weight file ({error}). Download it again.") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} must hold a dict of tensors, got {type(content).__name__}.")
        others = [f"{key!r}: {type(value).__name__}" for key, value in content.items() if not _is_plain(key, value)]
        if others:
            raise ValueError(f"{path} must hold named dense tensors of types {list(DTYPES)} alone, got {others[:8]}.")
        self._content = content
        self.tensors = {name: TensorSpec(DTYPE_NAMES[t.dtype], tuple(t.shape)) for name, t in content.items()}

    def read(self, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Values of a tensor, piece by piece."""
        values = self._content[name].detach().contiguous().reshape(-1).view(torch.uint8)
        for chunk in values.split(chunk_bytes):
            yield chunk.numpy().tobytes()


def _is_plain(key: object, value: object) -> bool:
    is_dense = isinstance(value, torch.Tensor) and value.layout == torch.strided
    return isinstance(key, str) and is_dense and value.dtype in DTYPE_NAMES


def open_weight_file(path: Path) -> SafetensorsFile | PickledFile:
    """Open a weight file by its ending.

    Raises:
        ValueError: The file is truncated or damaged, or holds anything but tensors.
    """
    return SafetensorsFile(path) if path.suffix == ".safetensors" else PickledFile(path)


def find_weight_files(folder: Path) -> list[Path]:
    """Files that hold the weights of a checkpoint folder, in the order of their names.

    Raises:
        FileNotFoundError: There are no weights, or a shard that the index names is missing.
        ValueError: The index cannot be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder. Expected one with weights.")
    for name in (SAFETENSORS_NAME, PICKLE_NAME):
        index = folder / f"{name}.index.json"
        if index.is_file():
            names = set(_read_index(index).values())
            files = [folder / shard for shard in sorted(names)]
            missing = [str(file) for file in files if not file.is_file()]
            if missing:
                raise FileNotFoundError(f"{index.name} names weight files that are missing: {missing}. Download them.")
            return files
        if (folder / name).is_file():
            return [folder / name]
    raise FileNotFoundError(
        f"{folder} holds no weights: expected {SAFETENSORS_NAME}, {SAFETENSORS_NAME}.index.json, {PICKLE_NAME} or "
        f"{PICKLE_NAME}.index.json, got {sorted(path.name for path in folder.iterdir())}."
    )


def _read_index(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if all(Path(shard).name == shard for shard in weight_map.values()):
            return weight_map
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{index} is not a valid weight index ({error!r}). Download it again.") from error
    raise ValueError(f"{index} must name files of its own folder, got {sorted(set(weight_map.values()))[:8]}.")


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: a file and the name it has there."""

    file: Path
    name: str
    spec: TensorSpec


def inspect_weight_files(files: list[Path]) -> dict[str, StoredTensor]:
    """Place, type and shape of every tensor, from the headers alone.

    Raises:
        ValueError: A file is truncated or damaged, or two files hold the same tensor.
    """
    found: dict[str, StoredTensor] = {}
    for file in files:
        for name, spec in open_weight_file(file).tensors.items():
            if name in found:
                raise ValueError(f"{name} is in two weight files, {found[name].file.name} and {file.name}.")
            found[name] = StoredTensor(file, name, spec)
    return found


def inspect_folder(folder: Path) -> dict[str, StoredTensor]:
    """Place, type and shape of every tensor of a checkpoint folder.

    Raises:
        FileNotFoundError: There are no weights, or a shard that the index names is missing.
        ValueError: A file is damaged, or the index names a tensor that its file does not have.
    """
    files = find_weight_files(folder)
    found = inspect_weight_files(files)
    kind = SAFETENSORS_NAME if files[0].suffix == ".safetensors" else PICKLE_NAME
    index = folder / f"{kind}.index.json"
    if index.is_file():
        named = _read_index(index).items()
        absent = sorted(key for key, shard in named if key not in found or found[key].file.name != shard)
        if absent:
            raise ValueError(f"{index} names {len(absent)} weights that its files do not hold: {absent[:8]}.")
    return found


def build_header(tensors: dict[str, TensorSpec]) -> str:
    """Header of a safetensors file with the tensors in the given order."""
    entries: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, spec in tensors.items():
        entries[name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + spec.nbytes],
        }
        offset += spec.nbytes
    header = json.dumps(entries, separators=(",", ":"))
    return header + " " * (-len(header.encode()) % 8)


class SafetensorsWriter:
    """Writes the tensors of a safetensors file to their places, in any order.

    Args:
        path: The file; it must not exist.
        header: What `build_header` gave, or the header of another file.
    """

    def __init__(self, path: Path, header: str):
        self.path = path
        encoded = header.encode()
        self._start = 8 + len(encoded)
        self._places = {name: entry["data_offsets"] for name, entry in read_header(header).items()}
        with path.open("xb") as stream:
            stream.write(len(encoded).to_bytes(8, "little") + encoded)
            stream.truncate(self._start + max((end for _, end in self._places.values()), default=0))

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write the values of a tensor.

        Raises:
            ValueError: There are more or fewer bytes than the header says.
        """
        begin, end = self._places[name]
        written = 0
        with self.path.open("r+b") as stream:
            stream.seek(self._start + begin)
            for chunk in chunks:
                written += len(chunk)
                if written <= end - begin:
                    stream.write(chunk)
        if written != end - begin:
            raise ValueError(f"{name} must have {end - begin} bytes in {self.path.name}, got {written}.")


def create_file(path: Path, tensors: dict[str, TensorSpec]) -> SafetensorsWriter:
    """Lay out a safetensors file; wide types come first, so that every tensor is aligned."""
    ordered = sorted(tensors.items(), key=lambda item: -DTYPES[item[1].dtype].itemsize)
    return SafetensorsWriter(path, build_header(dict(ordered)))


def create_sharded_files(
    folder: Path, tensors: dict[str, TensorSpec], max_shard_bytes: int
) -> tuple[dict[str, SafetensorsWriter], list[str]]:
    """Lay out safetensors files as Transformers names them, with an index where there are several.

    Returns:
        The writer of each tensor, and the names of the files. A single tensor may exceed the size of a file.
    """
    shards: list[dict[str, TensorSpec]] = [{}]
    size = 0
    for name, spec in tensors.items():
        if shards[-1] and size + spec.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = spec
        size += spec.nbytes
    count = len(shards)
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    if count == 1:
        names = [SAFETENSORS_NAME]
    writers: dict[str, SafetensorsWriter] = {}
    for file, shard in zip(names, shards, strict=True):
        writers.update(dict.fromkeys(shard, create_file(folder / file, shard)))
    if count > 1:
        weight_map = {name: writer.path.name for name, writer in sorted(writers.items())}
        index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
        text = json.dumps(index, indent=2) + "\n"
        (folder / f"{SAFETENSORS_NAME}.index.json").write_text(text, encoding="utf-8")
    return writers, names


__all__ = [
    "PickledFile",
    "SafetensorsFile",
    "SafetensorsWriter",
    "StoredTensor",
    "TensorSpec",
    "build_header",
    "create_file",
    "create_sharded_files",
    "find_weight_files",
    "inspect_folder",
    "inspect_weight_files",
    "open_weight_file",
    "parse_size",
    "read_header",
    "staged_folder",
]
