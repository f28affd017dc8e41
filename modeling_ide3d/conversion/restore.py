"""Write a converted checkpoint in its original layout again, for the original's own code.

Run `python -m modeling_ide3d.restore_llava_qwen CONVERTED TARGET`. Straight after a conversion every safetensors file
and every settings file is the original one, byte for byte. Pickled files get the same names and the same tensors in
the same order; the archive around them is that of the torch version that writes it.
"""

import argparse
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from modeling_ide3d.conversion.convert import LAYOUT_FILE, ORIGINAL_LAYOUT, UNUSED_FILE
from modeling_ide3d.conversion.names import EMBEDDINGS, REPORT_FILE, TRAINING_ONLY_FILE, shorten
from modeling_ide3d.conversion.settings import SETTINGS_FILES
from modeling_ide3d.conversion.weights import (
    DTYPES,
    SafetensorsFile,
    SafetensorsWriter,
    StoredTensor,
    TensorSpec,
    inspect_folder,
    inspect_weight_files,
    read_header,
    staged_folder,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _OriginalFile:
    """A weight file of the original checkpoint: its name, its header, and its tensors in the order of their bytes."""

    name: str
    header: str

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        entries = read_header(self.header)
        return {name: TensorSpec(entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}


def restore_checkpoint(converted_dir: str | Path, target_dir: str | Path) -> list[str]:
    """Write the original layout from a folder that `convert_checkpoint` wrote.

    The weights are those of the folder now: after a training in this format (same types, `conversion_report.json` and
    `original_layout` kept beside the weights), what it learned is written under the original names. Rows that the
    conversion added to the embedding are cut off. A vision tower that came from a separate folder is left out, as it
    was. The folder appears under its name only when it is complete.

    Args:
        converted_dir: Folder of a conversion.
        target_dir: Folder to write; it must not exist, or be empty.

    Returns:
        New names of weights that the original layout has no place for, such as a grounding head that was added.

    Raises:
        FileExistsError: The target exists and is not empty.
        FileNotFoundError: The converted folder has no weights, no report or no original layout.
        ValueError: A file is damaged; a weight is missing, or has another type or shape than the original.
    """
    source, target = Path(converted_dir), Path(target_dir)
    with staged_folder(target) as staging:
        renamed, files = _read_layout(source)
        stored = inspect_folder(source)
        aside = [source / name for name in (TRAINING_ONLY_FILE, UNUSED_FILE) if (source / name).is_file()]
        kept = {key: tensor for file in aside for key, tensor in inspect_weight_files([file]).items()}
        available = {key: stored[name] for key, name in renamed.items() if name in stored} | kept
        _check_weights(files, available, renamed, source)
        for file in tqdm(files, desc="Restoring", unit="file", delay=2):
            _write_file(staging / file.name, file, available)
        for name in SETTINGS_FILES:
            if (source / ORIGINAL_LAYOUT / name).is_file():
                shutil.copyfile(source / ORIGINAL_LAYOUT / name, staging / name)
    written = {renamed.get(key) for file in files for key in file.tensors}
    left_out = sorted(set(stored) - written)
    if left_out:
        logger.warning("The original layout has no place for %d weights: %s", len(left_out), shorten(left_out))
    return left_out


def _read_layout(source: Path) -> tuple[dict[str, str], list[_OriginalFile]]:
    """Original name -> new name of the converted weights, and the original weight files."""
    contents = []
    for name in (REPORT_FILE, LAYOUT_FILE):
        path = source / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist. Expected a folder that convert_llava_qwen wrote; after a training, copy "
                f"{REPORT_FILE}, {ORIGINAL_LAYOUT} and {Path(TRAINING_ONLY_FILE).parent} beside the new weights."
            )
        try:
            contents.append(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON ({error}). Convert the checkpoint again.") from error
    try:
        renamed, files = contents[0]["converted"], [_OriginalFile(**entry) for entry in contents[1]["files"]]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{source / REPORT_FILE} or {source / LAYOUT_FILE} is not what a conversion writes ({error!r}). Convert "
            "the checkpoint again."
        ) from error
    if any(Path(file.name).name != file.name for file in files):
        raise ValueError(f"{source / LAYOUT_FILE} must name files without a folder, got {[f.name for f in files]}.")
    return renamed, files


def _check_weights(
    files: list[_OriginalFile], available: dict[str, StoredTensor], renamed: dict[str, str], source: Path
) -> None:
    wanted = {key: spec for file in files for key, spec in file.tensors.items()}
    if missing := wanted.keys() - available.keys():
        raise ValueError(f"{source} lacks {len(missing)} weights of the original: {shorten(missing)}.")
    wrong = []
    for key, spec in wanted.items():
        tensor = available[key]
        given = tensor.spec
        if renamed.get(key) in EMBEDDINGS and given.shape[1:] == spec.shape[1:] and given.shape[0] > spec.shape[0]:
            given = TensorSpec(given.dtype, spec.shape)
        if given != spec:
            wrong.append(f"{tensor.name} in {tensor.file}: expected {spec.dtype} {spec.shape}, got {given}")
    if wrong:
        raise ValueError(
            f"{len(wrong)} weights have another type or shape than in the original: {shorten(wrong)}. Save the model "
            "in the original's type."
        )


def _write_file(path: Path, file: _OriginalFile, available: dict[str, StoredTensor]) -> None:
    """Write one weight file; a pickled one is collected in memory first, as `torch.save` asks for."""
    if path.suffix == ".safetensors":
        writer = SafetensorsWriter(path, file.header)
        for key, spec in file.tensors.items():
            writer.write(key, _read_first(available[key], spec.nbytes))
        return
    tensors = {}
    for key, spec in file.tensors.items():
        tensor = torch.empty(spec.shape, dtype=DTYPES[spec.dtype])
        values, position = tensor.reshape(-1).view(torch.uint8), 0
        for chunk in _read_first(available[key], spec.nbytes):
            values[position : position + len(chunk)] = torch.frombuffer(bytearray(chunk), dtype=torch.uint8)
            position += len(chunk)
        tensors[key] = tensor
    torch.save(tensors, path)


def _read_first(tensor: StoredTensor, nbytes: int):
    """The first bytes of a tensor; rows that were added to an embedding lie behind them."""
    for chunk in SafetensorsFile(tensor.file).read(tensor.name):
        yield chunk[:nbytes]
        nbytes -= min(len(chunk), nbytes)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description="Write a converted checkpoint in its original layout again.")
    parser.add_argument("converted", type=Path, help="folder that convert_llava_qwen wrote")
    parser.add_argument("target", type=Path, help="folder to write; must not exist")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        restore_checkpoint(options.converted, options.target)
    except (OSError, ValueError) as error:
        raise SystemExit(f"Not restored. {error}") from error
    logger.info("The original layout is in %s", options.target)


__all__ = ["restore_checkpoint"]

if __name__ == "__main__":
    main()
