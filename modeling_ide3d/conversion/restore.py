"""Write a converted checkpoint as the original's own code reads it.

`ide3d convert --back` does it from a shell. Straight after a conversion, settings files come
back byte for byte. So do weight files that safetensors wrote, if they have at most one entry of metadata: it writes
several in random order. Other weight files get the same tensors and metadata; `.bin` files keep the order of tensors.
"""

import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from modeling_ide3d.conversion.convert import ORIGINAL_FILES, ORIGINAL_FOLDER, UNUSED_FILE
from modeling_ide3d.conversion.names import (
    EMBEDDINGS,
    INPUT_EMBEDDING,
    OUTPUT_EMBEDDING,
    REPORT_FILE,
    TRAINING_ONLY_FILE,
    shorten,
)
from modeling_ide3d.conversion.settings import SETTINGS_FILES
from modeling_ide3d.conversion.weights import (
    DTYPES,
    StoredTensor,
    describe_spec,
    inspect_folder,
    inspect_weight_files,
    read_tensors,
)
from processing.argument_rules import as_path
from processing.writing import whole_folder

__all__ = ["restore_checkpoint"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _OriginalFile:
    """Weight file of the original checkpoint.

    Args:
        name: File name without a folder.
        tensors: Tensors on the meta device by original name, in the order of the file.
        metadata: Metadata of a safetensors file, None where it has none.
    """

    name: str
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str] | None

    @classmethod
    def from_entry(cls, entry: dict[str, str]) -> "_OriginalFile":
        """Read an entry of `layout.json`."""
        header = json.loads(entry["header"])
        metadata = header.pop("__metadata__", None)
        # Conversions of version 0.1 kept the header of the file itself, whose order need not be that of the bytes.
        ordered = sorted(header.items(), key=lambda item: item[1].get("data_offsets", []))
        tensors = {
            name: torch.empty(spec["shape"], dtype=DTYPES[spec["dtype"]], device="meta") for name, spec in ordered
        }
        return cls(entry["name"], tensors, metadata)


def restore_checkpoint(converted_dir: str | Path, target_dir: str | Path) -> list[str]:
    """Write the original checkpoint from a folder that `convert_checkpoint` wrote.

    The weights are the present ones of the folder: after a training, the trained values are written under the
    original names. That needs the same types, and `conversion_report.json`, `original_layout` and `training_only`
    beside the new weights. Rows that the conversion added to the embedding are cut off. A vision tower that came from
    a separate folder is left out. The folder appears under its name once it is complete. One file is written at a
    time, from mapped sources, so the memory needed is that of one written file.

    Args:
        converted_dir: Folder that `convert_checkpoint` wrote.
        target_dir: Folder to write; it must not exist, or be empty.

    Returns:
        New names of weights that the original has no place for, such as a grounding head that was added.

    Raises:
        FileExistsError: If the target exists and is not empty.
        OSError: If the target cannot be written, say on a full disk; the message names it.
        FileNotFoundError: If the converted folder lacks its weights, its report or its `original_layout`.
        ValueError: If a file is damaged; if a weight is missing, or has another type or shape than the original.
    """
    source, target = as_path(converted_dir, "converted_dir"), as_path(target_dir, "target_dir")
    with whole_folder(target) as staging:
        renamed, files = _read_original_files(source)
        stored = inspect_folder(source)
        aside = [source / name for name in (TRAINING_ONLY_FILE, UNUSED_FILE) if (source / name).is_file()]
        available = inspect_weight_files(aside)
        if OUTPUT_EMBEDDING not in renamed:  # it was tied, and what was put aside is the embedding before a training
            renamed[OUTPUT_EMBEDDING] = OUTPUT_EMBEDDING if OUTPUT_EMBEDDING in stored else INPUT_EMBEDDING
        available |= {key: stored[name] for key, name in renamed.items() if name in stored}
        _check_weights(files, available, renamed, source)
        for file in tqdm(files, desc="Restoring", unit="file", delay=2):
            _write_file(staging / file.name, file, available)
        for name in SETTINGS_FILES:
            if (source / ORIGINAL_FOLDER / name).is_file():
                shutil.copyfile(source / ORIGINAL_FOLDER / name, staging / name)
    written = {renamed.get(key) for file in files for key in file.tensors}
    left_out = sorted(set(stored) - written)
    if left_out:
        logger.warning("The original has no place for %d weights: %s", len(left_out), shorten(left_out))
    return left_out


def _read_original_files(source: Path) -> tuple[dict[str, str], list[_OriginalFile]]:
    """Return original name -> new name of the converted weights, and the original weight files."""
    contents = []
    for name in (REPORT_FILE, ORIGINAL_FILES):
        path = source / name
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"{path} does not exist. Expected a folder that `convert_checkpoint` wrote; after a training, copy "
                f"{REPORT_FILE}, {ORIGINAL_FOLDER} and {Path(TRAINING_ONLY_FILE).parent} beside the new weights."
            )
        try:
            contents.append(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not valid JSON ({error}). Convert the checkpoint again.") from error
    try:
        renamed = contents[0]["converted"]
        files = [_OriginalFile.from_entry(entry) for entry in contents[1]["files"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{source / REPORT_FILE} or {source / ORIGINAL_FILES} is not what a conversion writes ({error!r}). "
            "Convert the checkpoint again."
        ) from error
    if any(Path(file.name).name != file.name for file in files):
        raise ValueError(f"{source / ORIGINAL_FILES} must name files without a folder, got {[f.name for f in files]}.")
    return renamed, files


def _check_weights(
    files: list[_OriginalFile], available: dict[str, StoredTensor], renamed: dict[str, str], source: Path
) -> None:
    wanted = {key: spec for file in files for key, spec in file.tensors.items()}
    if missing := wanted.keys() - available.keys():
        raise ValueError(f"{source} lacks {len(missing)} weights of the original: {shorten(missing)}.")
    wrong = []
    for key, spec in wanted.items():
        place = available[key]
        given = place.spec
        has_more_rows = given.shape[1:] == spec.shape[1:] and given.shape[:1] > spec.shape[:1]
        same_shape = given.shape == spec.shape or (renamed.get(key) in EMBEDDINGS and has_more_rows)
        if given.dtype != spec.dtype or not same_shape:
            wrong.append(f"{place.name} in {place.file}: expected {describe_spec(spec)}, got {describe_spec(given)}")
    if wrong:
        raise ValueError(
            f"{len(wrong)} weights have another type or shape than in the original: {shorten(wrong)}. Save the model "
            "in the original's type."
        )


def _write_file(path: Path, file: _OriginalFile, available: dict[str, StoredTensor]) -> None:
    """Write one weight file from mapped tensors, without the rows that the conversion added."""
    tensors = read_tensors({key: available[key] for key in file.tensors})
    for key, spec in file.tensors.items():
        if tensors[key].shape != spec.shape:
            tensors[key] = _cut_rows(tensors[key], len(spec))
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata=file.metadata)
    else:
        torch.save(tensors, path)


def _cut_rows(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the first rows on a storage that ends with them; `torch.save` writes whole storages."""
    return torch.from_numpy(tensor[:rows].view(torch.uint8).numpy()).view(tensor.dtype)
