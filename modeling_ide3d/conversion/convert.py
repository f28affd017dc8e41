"""Convert original checkpoints (LLaVA-Video-Qwen2, Video-3D-LLM, 3DRS, 3D-IDE) to this model, piece by piece.

Run `python -m modeling_ide3d.convert_llava_qwen SOURCE TARGET`. `modeling_ide3d.restore_llava_qwen` is the way back.
"""

import argparse
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from modeling_ide3d.configuration_ide3d import IDE3DConfig
from modeling_ide3d.conversion.names import (
    EMBEDDINGS,
    EMPTY_REGION,
    ORIGINAL_EMBEDDING,
    ORIGINAL_TOWER,
    TRAINING_ONLY_FILE,
    ConversionReport,
    assign_weights,
    check_position_encoding,
    identify_family,
)
from modeling_ide3d.conversion.settings import (
    SETTINGS_FILES,
    build_config,
    choose_token_ids,
    load_tokenizer,
    read_original_config,
    read_tower_config,
    write_settings,
)
from modeling_ide3d.conversion.weights import (
    DTYPE_NAMES,
    DTYPES,
    PickledFile,
    SafetensorsFile,
    SafetensorsWriter,
    StoredTensor,
    TensorSpec,
    build_header,
    create_file,
    create_sharded_files,
    find_weight_files,
    inspect_folder,
    open_weight_file,
    parse_size,
    staged_folder,
)
from modeling_ide3d.modeling_ide3d import IDE3DForConditionalGeneration

logger = logging.getLogger(__name__)

ORIGINAL_LAYOUT = "original_layout"  # folder for what only the way back needs
LAYOUT_FILE = f"{ORIGINAL_LAYOUT}/layout.json"
UNUSED_FILE = f"{ORIGINAL_LAYOUT}/unused_weights.safetensors"


def convert_checkpoint(
    source_dir: str | Path,
    target_dir: str | Path,
    *,
    max_shard_size: int | str = "5GB",
    vision_tower: str | Path | None = None,
    vision_config: dict[str, Any] | None = None,
    ignore_position_encoding: bool = False,
) -> ConversionReport:
    """Convert an original checkpoint to a folder that `from_pretrained` loads.

    Everything is checked from the headers before the first weight is written; then bytes are copied in small pieces.
    The folder appears under its name only when it is complete. Where tokenizer files lie beside the source, the
    tokenizer gets the placeholder tokens, and chat template and processor are written too.

    Args:
        source_dir: Folder with `config.json` and weights as safetensors or pickled tensors.
        target_dir: Folder to write; it must not exist, or be empty.
        max_shard_size: Bytes of a weight file, as a number or as "5GB".
        vision_tower: Folder with the SigLIP checkpoint whose weights are taken where the source holds none.
        vision_config: Sizes of the original vision tower, all its layers counted; needed where neither the name in
            `mm_vision_tower` nor a `vision_tower` tells them.
        ignore_position_encoding: Convert checkpoints that were trained with an encoding of 3D world positions, which
            this model does not have; their answers change.

    Returns:
        What was converted, kept aside, not used and newly initialised.

    Raises:
        FileExistsError: The target exists and is not empty.
        FileNotFoundError: The source, its config or one of its weight files is missing.
        ValueError: A weight file is damaged or holds more than tensors; weights are unknown, missing or of another
            shape; there is no vision tower; the checkpoint uses settings that this model does not have.
    """
    source, target = Path(source_dir), Path(target_dir)
    shard_bytes = parse_size(max_shard_size)
    with staged_folder(target) as staging:
        original, stored = read_original_config(source), inspect_folder(source)
        report = _start_report(source, target, original, stored, ignore_position_encoding)
        stored |= _find_tower(stored, original, vision_tower, report)
        if vision_config is None and vision_tower is not None:
            vision_config = read_tower_config(Path(vision_tower))

        tokenizer = load_tokenizer(source, staging)
        report.has_tokenizer = tokenizer is not None
        report.token_ids, report.added_embedding_rows = choose_token_ids(original, report.embedding_rows, tokenizer)
        rows = report.embedding_rows + report.added_embedding_rows
        config = build_config(original, report.token_ids, rows, vision_config)
        model = _build_on_meta(config)
        wanted = _list_weights(model)
        assign_weights(stored, wanted, config.vision_config.num_hidden_layers, original, report)
        _write_weights(stored, model, staging, shard_bytes, report)
        _keep_original_layout(source, staging)
        write_settings(source, staging, config, tokenizer)
        report.save(staging)
    for note in report.notes:
        logger.warning(note)
    return report


def _start_report(
    source: Path,
    target: Path,
    original: dict[str, Any],
    stored: dict[str, StoredTensor],
    ignore_position_encoding: bool,
) -> ConversionReport:
    """A report that says whose checkpoint this is; refuses what this model cannot compute."""
    if ORIGINAL_EMBEDDING not in stored:
        raise ValueError(
            f"The weights in {source} lack {ORIGINAL_EMBEDDING}. Expected a whole checkpoint in the layout of "
            "LLaVA-Video-Qwen2; merge a LoRA adapter into its base model first."
        )
    embedding = stored[ORIGINAL_EMBEDDING].spec
    if len(embedding.shape) != 2 or not DTYPES[embedding.dtype].is_floating_point:
        raise ValueError(
            f"{ORIGINAL_EMBEDDING} in {source} must be a floating-point matrix, got {embedding}. Quantised "
            "checkpoints cannot be converted."
        )
    rows = embedding.shape[0]
    report = ConversionReport(target, identify_family(original, stored, rows), rows)
    report.notes += check_position_encoding(original, stored, report.family, ignore_position_encoding)
    if rows != original.get("vocab_size"):
        report.notes.append(
            f"config.json says vocab_size {original.get('vocab_size')}, the embedding has {rows} rows; the rows count."
        )
    return report


def _find_tower(
    stored: dict[str, StoredTensor],
    original: dict[str, Any],
    folder: str | Path | None,
    report: ConversionReport,
) -> dict[str, StoredTensor]:
    """Weights of the vision tower under the names of the checkpoint, none where the checkpoint holds them itself."""
    if any(key.startswith(ORIGINAL_TOWER) for key in stored):
        if folder is not None:
            report.notes.append(f"The checkpoint holds its own vision tower; the weights in {folder} were not used.")
        return {}
    if folder is None:
        raise ValueError(
            f"The checkpoint holds no vision tower, only its name {original.get('mm_vision_tower')!r}. Pass "
            "vision_tower=FOLDER (--vision-tower FOLDER), a folder with that SigLIP checkpoint; it is never replaced "
            "by random weights."
        )
    found = inspect_folder(Path(folder))
    # The whole SigLIP has a text model too; a vision model saved alone may leave the prefix out.
    prefix = "vision_model." if any(key.startswith("vision_model.") for key in found) else ""
    report.vision_tower = str(folder)
    if "mm_vision_tower" in (original.get("mm_tunable_parts") or ""):
        report.notes.append(
            "config.json says that the vision tower was trained (mm_tunable_parts), but its weights come from "
            f"{folder}."
        )
    return {
        f"{ORIGINAL_TOWER}vision_model.{key.removeprefix(prefix)}": tensor
        for key, tensor in found.items()
        if key.startswith(prefix)
    }


def _build_on_meta(config: IDE3DConfig) -> IDE3DForConditionalGeneration:
    config.architectures = [IDE3DForConditionalGeneration.__name__]
    with torch.device("meta"):
        return IDE3DForConditionalGeneration(config)


def _list_weights(model: IDE3DForConditionalGeneration) -> dict[str, TensorSpec]:
    """Type and shape of the weights that a checkpoint of this model holds."""
    wanted = {
        name: TensorSpec(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in model.state_dict().items()
    }
    if model.config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    return wanted


def _write_weights(
    stored: dict[str, StoredTensor],
    model: IDE3DForConditionalGeneration,
    folder: Path,
    max_shard_bytes: int,
    report: ConversionReport,
) -> None:
    """Copy the weights; sets the type of the config to that of the embedding."""
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    embedding = stored[ORIGINAL_EMBEDDING]
    dtype = DTYPES[embedding.spec.dtype]
    names = [*report.converted.items(), *((None, name) for name in report.newly_initialized)]
    outputs = {
        name: TensorSpec((stored[key] if key else embedding).spec.dtype, tuple(wanted[name])) for key, name in names
    }
    writers, report.weight_files = create_sharded_files(folder, outputs, max_shard_bytes)
    places = {key: (writers[name], name) for key, name in report.converted.items()}
    if report.training_only:
        report.training_only_file = TRAINING_ONLY_FILE
        places |= _create_aside(folder / TRAINING_ONLY_FILE, report.training_only, stored)
    # What was left out of a separate tower is not lost: it still lies there.
    unused = [key for key in report.dropped if report.vision_tower is None or not key.startswith(ORIGINAL_TOWER)]
    if unused:
        places |= _create_aside(folder / UNUSED_FILE, unused, stored)
    for file in tqdm(sorted({tensor.file for tensor in stored.values()}), desc="Converting", unit="file", delay=2):
        inside = {key: tensor for key, tensor in stored.items() if tensor.file == file and key in places}
        _copy_file(open_weight_file(file), inside, places, report)
    for name, tensor in _initialize(model, report.newly_initialized).items():
        writers[name].write(name, [tensor.to(dtype).contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()])
    model.config.dtype = str(dtype).removeprefix("torch.")
    others = sorted({stored[key].spec.dtype for key in report.converted} - {embedding.spec.dtype})
    if others:
        report.notes.append(
            f"Some weights are stored as {others}; loading casts them to {dtype} unless told otherwise."
        )


def _copy_file(
    opened: SafetensorsFile | PickledFile,
    tensors: dict[str, StoredTensor],
    places: dict[str, tuple[SafetensorsWriter, str]],
    report: ConversionReport,
) -> None:
    for key, tensor in tensors.items():
        writer, name = places[key]
        added_rows = report.added_embedding_rows if report.converted.get(key) in EMBEDDINGS else 0
        writer.write(name, _read_with_rows(opened, tensor, added_rows))


def _create_aside(
    path: Path, keys: list[str], stored: dict[str, StoredTensor]
) -> dict[str, tuple[SafetensorsWriter, str]]:
    """A file for weights that keep their original names."""
    path.parent.mkdir(exist_ok=True)
    writer = create_file(path, {key: stored[key].spec for key in keys})
    return {key: (writer, key) for key in keys}


def _read_with_rows(opened: SafetensorsFile | PickledFile, tensor: StoredTensor, added_rows: int) -> Iterator[bytes]:
    """Values of a tensor, and behind them rows that are the mean of its own, as the original makes new tokens."""
    if not added_rows:
        yield from opened.read(tensor.name)
        return
    rows, width = tensor.spec.shape
    row_bytes = tensor.spec.nbytes // rows
    total = torch.zeros(width, dtype=torch.float64)
    for chunk in opened.read(tensor.name, chunk_bytes=max(2**17 // row_bytes, 1) * row_bytes):
        part = torch.frombuffer(bytearray(chunk), dtype=DTYPES[tensor.spec.dtype])
        total += part.view(-1, width).sum(0, dtype=torch.float64)
        yield chunk
    mean = (total / rows).to(DTYPES[tensor.spec.dtype])
    yield mean.view(torch.uint8).numpy().tobytes() * added_rows


def _initialize(model: IDE3DForConditionalGeneration, names: list[str]) -> dict[str, torch.Tensor]:
    """Initial values of a grounding head, the same at every conversion."""
    if names == [EMPTY_REGION]:
        return {EMPTY_REGION: torch.zeros(model.grounding_head.empty_region.shape)}
    if not names:
        return {}
    head: nn.Module = model.grounding_head.to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in head.modules():
            model._init_weights(module)
    return {f"grounding_head.{name}": tensor for name, tensor in head.state_dict().items()}


def _keep_original_layout(source: Path, folder: Path) -> None:
    """Keep what the way back needs: names, order and headers of the weight files, and the settings as they were."""
    layout = {"files": [_describe_file(file) for file in find_weight_files(source)]}
    (folder / ORIGINAL_LAYOUT).mkdir(exist_ok=True)
    (folder / LAYOUT_FILE).write_text(json.dumps(layout) + "\n", encoding="utf-8")
    for name in SETTINGS_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / ORIGINAL_LAYOUT / name)


def _describe_file(file: Path) -> dict[str, str]:
    opened = open_weight_file(file)
    header = opened.header if isinstance(opened, SafetensorsFile) else build_header(opened.tensors)
    return {"name": file.name, "header": header}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description="Convert an original LLaVA-Qwen checkpoint to 3D-IDE's format.")
    parser.add_argument("source", type=Path, help="folder with config.json and weights")
    parser.add_argument("target", type=Path, help="folder to write; must not exist")
    parser.add_argument("--max-shard-size", default="5GB", help='size of a weight file, "5GB" by default')
    parser.add_argument("--vision-tower", type=Path, help="SigLIP folder, where the source holds no vision tower")
    parser.add_argument(
        "--ignore-position-encoding",
        action="store_true",
        help="convert a checkpoint that was trained with an encoding of 3D world positions, which this model lacks",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        report = convert_checkpoint(
            options.source,
            options.target,
            max_shard_size=options.max_shard_size,
            vision_tower=options.vision_tower,
            ignore_position_encoding=options.ignore_position_encoding,
        )
    except (OSError, ValueError) as error:
        raise SystemExit(f"Not converted. {error}") from error
    logger.info("%s", report)


__all__ = ["ConversionReport", "convert_checkpoint"]

if __name__ == "__main__":
    main()
