"""Weight files of a checkpoint folder: look into them without loading, read tensor by tensor, write in shards."""

import json
import logging
import math
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

logger = logging.getLogger(__name__)

SAFETENSORS_NAME = "model.safetensors"
PICKLE_NAME = "pytorch_model.bin"
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(size: int | str) -> int:
    """Bytes of a size such as 5000000, "500KB" or "5GB".

    Raises:
        ValueError: The text is not a positive number with a known unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", str(size).strip().upper())
    if match is None or match.group(2) not in UNITS or float(match.group(1)) <= 0:
        raise ValueError(f'A shard size must be a number of bytes or a text such as "500MB" or "5GB", got {size!r}.')
    return math.ceil(float(match.group(1)) * UNITS[match.group(2)])


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies and what it looks like."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype


def find_weight_files(folder: Path) -> list[Path]:
    """Files that hold the weights of a checkpoint folder, in the order of their names.

    Raises:
        FileNotFoundError: There are no weights, or a shard that the index names is missing.
        ValueError: The index cannot be read.
    """
    for name in (SAFETENSORS_NAME, PICKLE_NAME):
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                names = set(json.loads(index.read_text())["weight_map"].values())
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError) as error:
                raise ValueError(f"{index} is not a valid weight index ({error!r}). Download it again.") from error
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


def inspect_weight_files(files: list[Path]) -> dict[str, StoredTensor]:
    """Shape and type of every tensor, without reading the tensors of safetensors files.

    Raises:
        ValueError: A file is truncated or damaged, or two files hold the same tensor.
    """
    found: dict[str, StoredTensor] = {}
    for file in files:
        for key, tensor in _iterate(file, lazily=True):
            if key in found:
                raise ValueError(f"{key} is in two weight files, {found[key].file.name} and {file.name}.")
            found[key] = StoredTensor(file, tuple(tensor.shape), tensor.dtype)
    return found


def read_tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of a file, one by one, on the CPU.

    Raises:
        ValueError: The file is truncated or damaged.
    """
    yield from _iterate(file, lazily=False)


def _iterate(file: Path, lazily: bool) -> Iterator[tuple[str, torch.Tensor]]:
    try:
        if file.suffix != ".safetensors":
            # Only tensors are unpickled; the file is mapped, not read.
            yield from torch.load(file, map_location="cpu", weights_only=True, mmap=True).items()
            return
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - not a dict
                if lazily:
                    entry = opened.get_slice(key)
                    yield key, torch.empty(entry.get_shape(), dtype=_DTYPES[entry.get_dtype()], device="meta")
                else:
                    yield key, opened.get_tensor(key)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} cannot be read as a weight file; it may be truncated. Download it again. ({error})"
        ) from error


_DTYPES = {
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


class ShardWriter:
    """Collects tensors and writes them to numbered safetensors files of a limited size, with an index.

    Args:
        folder: Where the files go.
        max_shard_size: Bytes; a single tensor may exceed them.
    """

    def __init__(self, folder: Path, max_shard_size: int):
        self.folder = folder
        self.max_shard_size = max_shard_size
        self._pending: dict[str, torch.Tensor] = {}
        self._pending_bytes = 0
        self._shards: list[tuple[Path, list[str]]] = []
        self.total_bytes = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take one tensor; full shards are written at once."""
        size = tensor.numel() * tensor.element_size()
        if self._pending and self._pending_bytes + size > self.max_shard_size:
            self._flush()
        # A copy, because a tensor of a mapped file must not outlive it and a view must not drag its base along.
        self._pending[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
        self._pending_bytes += size
        self.total_bytes += size

    def _flush(self) -> None:
        path = self.folder / f"shard-{len(self._shards)}.safetensors"
        save_file(self._pending, path, metadata={"format": "pt"})
        self._shards.append((path, list(self._pending)))
        self._pending, self._pending_bytes = {}, 0

    def finish(self) -> list[str]:
        """Write what is left, name the files as Transformers expects, and return their names."""
        if self._pending:
            self._flush()
        if len(self._shards) == 1:
            self._shards[0][0].rename(self.folder / SAFETENSORS_NAME)
            return [SAFETENSORS_NAME]
        names, weight_map = [], {}
        for number, (path, keys) in enumerate(self._shards, start=1):
            name = f"model-{number:05d}-of-{len(self._shards):05d}.safetensors"
            path.rename(self.folder / name)
            names.append(name)
            weight_map.update(dict.fromkeys(keys, name))
        index = {"metadata": {"total_size": self.total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        (self.folder / f"{SAFETENSORS_NAME}.index.json").write_text(json.dumps(index, indent=2) + "\n")
        return names


__all__ = ["ShardWriter", "StoredTensor", "find_weight_files", "inspect_weight_files", "parse_size", "read_tensors"]
