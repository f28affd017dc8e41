"""Map the weight files of a checkpoint."""

import json
import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.utils import SAFE_WEIGHTS_NAME, WEIGHTS_NAME

from modeling_ide3d.loading_ide3d import find_not_finite

__all__ = [
    "DTYPES",
    "DTYPE_NAMES",
    "StoredTensor",
    "append_mean_rows",
    "check_finite",
    "describe_spec",
    "inspect_folder",
    "inspect_weight_files",
    "map_tensors",
    "read_tensors",
]

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
PIECE_BYTES = 2**22


@dataclass(frozen=True)
class StoredTensor:
    """Place of a tensor on disk.

    Args:
        file: Weight file that holds the tensor.
        name: Name of the tensor in that file.
        spec: Tensor on the meta device with the type and the shape.
    """

    file: Path
    name: str
    spec: torch.Tensor


def describe_spec(spec: torch.Tensor) -> str:
    """Return type and shape as text for an error, such as "BF16 (300, 24)"."""
    return f"{DTYPE_NAMES[spec.dtype]} {tuple(spec.shape)}"


def map_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Map the tensors of a weight file, in the order of the file.

    A value takes memory once it is read, and until all tensors of the file are released. No code in a pickled file
    runs. Pickled files older than torch 1.6 cannot be mapped and are read as a whole.

    Raises:
        ValueError: If the file is truncated or damaged, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file ({error}). Download it again.") from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was not loaded: it is truncated, or it holds more than tensors, such as code that would run "
            f"({error}). Download it again, or convert it to safetensors where you trust it."
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is truncated or no weight file ({error}). Download it again.") from error
    if not isinstance(tensors, dict):
        raise ValueError(f"{path} must hold a dict of tensors, got {type(tensors).__name__}.")
    others = [f"{key!r}: {_describe_value(value)}" for key, value in tensors.items() if not _is_plain(key, value)]
    if others:
        raise ValueError(f"{path} must hold named dense tensors of types {list(DTYPES)} alone, got {others[:8]}.")
    return tensors


def _is_plain(key: object, value: object) -> bool:
    is_dense = isinstance(value, torch.Tensor) and value.layout == torch.strided
    return isinstance(key, str) and is_dense and value.dtype in DTYPE_NAMES


def _describe_value(value: object) -> str:
    is_tensor = isinstance(value, torch.Tensor)
    return f"Tensor of {value.dtype}, {value.layout}" if is_tensor else type(value).__name__


def inspect_weight_files(files: list[Path]) -> dict[str, StoredTensor]:
    """Return the place, type and shape of every tensor without reading its values.

    Raises:
        ValueError: If a file is truncated or damaged, or two files hold the same tensor.
    """
    found: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in map_tensors(file).items():
            if name in found:
                raise ValueError(f"{name} is in two weight files, {found[name].file.name} and {file.name}.")
            found[name] = StoredTensor(file, name, torch.empty(tensor.shape, dtype=tensor.dtype, device="meta"))
    return found


def inspect_folder(folder: Path) -> dict[str, StoredTensor]:
    """Return the place, type and shape of every tensor of a checkpoint folder.

    Raises:
        FileNotFoundError: If there are no weights, or a shard that the index names is missing.
        ValueError: If a file is damaged, or the index names a tensor that its file does not hold.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder} is no folder. Expected one with weights.")
    for name in (SAFE_WEIGHTS_NAME, WEIGHTS_NAME):
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _inspect_shards(index)
        if (folder / name).is_file():
            return inspect_weight_files([folder / name])
    raise FileNotFoundError(
        f"{folder} holds no weights: expected {SAFE_WEIGHTS_NAME}, {SAFE_WEIGHTS_NAME}.index.json, {WEIGHTS_NAME} or "
        f"{WEIGHTS_NAME}.index.json, got {sorted(path.name for path in folder.iterdir())}."
    )


def _inspect_shards(index: Path) -> dict[str, StoredTensor]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(weight_map.values()))
        is_local = all(Path(shard).name == shard for shard in shards)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{index} is not a valid weight index ({error!r}). Download it again.") from error
    if not is_local:
        raise ValueError(f"{index} must name files of its own folder, got {shards[:8]}.")
    files = [index.parent / shard for shard in shards]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise FileNotFoundError(f"{index.name} names weight files that are missing: {missing}. Download them.")
    found = inspect_weight_files(files)
    absent = sorted(key for key, shard in weight_map.items() if key not in found or found[key].file.name != shard)
    if absent:
        raise ValueError(f"{index} names {len(absent)} weights that its files do not hold: {absent[:8]}.")
    return found


def read_tensors(places: dict[str, StoredTensor]) -> dict[str, torch.Tensor]:
    """Map tensors of several files under new names, contiguous and apart in memory."""
    files = {file: map_tensors(file) for file in {place.file for place in places.values()}}
    tensors: dict[str, torch.Tensor] = {}
    addresses = set()
    for name, place in places.items():
        tensor = files[place.file][place.name].detach().contiguous()
        # `torch.save` keeps tied weights and views of one tensor in one storage; safetensors refuses that.
        if tensor.data_ptr() in addresses or tensor.nbytes != tensor.untyped_storage().nbytes():
            tensor = tensor.clone()
        addresses.add(tensor.data_ptr())
        tensors[name] = tensor
    return tensors


def check_finite(tensors: dict[str, torch.Tensor]) -> None:
    """Raise ValueError for weights that are NaN or infinite."""
    if broken := find_not_finite(tensors):
        raise ValueError(
            f"{len(broken)} weights are NaN or infinite, such as {broken[:4]}: the training has diverged, or the file "
            "is damaged. Take another checkpoint, or download it again."
        )


def append_mean_rows(place: StoredTensor, count: int) -> torch.Tensor:
    """Read a matrix and append `count` rows that equal the mean of its own."""
    rows, width = place.spec.shape
    grown = torch.empty(rows + count, width, dtype=place.spec.dtype)
    can_map = place.file.suffix == ".safetensors" or zipfile.is_zipfile(place.file)
    step = max(PIECE_BYTES // (width * grown.itemsize), 1) if can_map else rows
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        # Mapped again for each piece: pages that were read take memory beside the copy until they are unmapped.
        grown[start:stop] = map_tensors(place.file)[place.name][start:stop]
    # In small pieces too: a sum in float64 makes a copy in float64.
    grown[rows:] = sum(part.sum(0, dtype=torch.float64) for part in grown[:rows].split(256)) / rows
    return grown
