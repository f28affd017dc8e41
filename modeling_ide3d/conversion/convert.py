"""Convert original checkpoints (LLaVA-Video-Qwen2, Video-3D-LLM, 3DRS, 3D-IDE) to this model, shard by shard.

`ide3d convert` does it from a shell. `modeling_ide3d.conversion.restore` is the way back.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from modeling_ide3d.configuration_ide3d import IDE3DConfig
from modeling_ide3d.conversion.names import (
    EMBEDDINGS,
    EMPTY_REGION,
    ORIGINAL_EMBEDDING,
    ORIGINAL_TOWER,
    OUTPUT_EMBEDDING,
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
    StoredTensor,
    append_mean_rows,
    check_finite,
    describe_spec,
    inspect_folder,
    map_tensors,
    read_tensors,
)
from modeling_ide3d.modeling_ide3d import IDE3DForConditionalGeneration
from processing.argument_rules import as_path
from processing.limits import parse_size
from processing.writing import whole_folder

__all__ = ["ConversionReport", "convert_checkpoint"]

logger = logging.getLogger(__name__)

# What only the way back needs. The names are those of earlier conversions, which are still restored.
ORIGINAL_FOLDER = "original_layout"
ORIGINAL_FILES = f"{ORIGINAL_FOLDER}/layout.json"
UNUSED_FILE = f"{ORIGINAL_FOLDER}/unused_weights.safetensors"
MAX_SHARD_BYTES = parse_size("5GB")
METADATA = {"format": "pt"}  # as Transformers writes it


def convert_checkpoint(
    source_dir: str | Path,
    target_dir: str | Path,
    *,
    max_shard_size: int | str | None = None,
    vision_tower: str | Path | None = None,
    vision_config: dict[str, Any] | None = None,
    ignore_position_encoding: bool = False,
) -> ConversionReport:
    """Convert an original checkpoint to a folder that `from_pretrained` loads.

    Names, types and shapes are checked before the first weight is written. Then one weight file is written at a time,
    from mapped sources, so the memory needed is that of one written file. The folder appears under its name once it is
    complete. Where tokenizer files lie beside the source, chat template and processor are written too, and the
    tokenizer gets the placeholder tokens.

    Args:
        source_dir: Folder with `config.json` and weights as safetensors or pickled tensors.
        target_dir: Folder to write; it must not exist, or be empty.
        max_shard_size: Bytes of a weight file, as a number or as text such as "5GB". Default: the size of the largest
            source file, at most 5 GB.
        vision_tower: Folder with the SigLIP checkpoint whose weights are taken where the source holds none.
        vision_config: Sizes of the original vision tower, all its layers counted. Default: those of `vision_tower`,
            or those that the name in `mm_vision_tower` implies.
        ignore_position_encoding: True to convert checkpoints that were trained with an encoding of 3D world positions.
            This model has no such encoding; its answers differ from the original's.

    Returns:
        Report that lists every weight: converted, kept aside, not used, or newly initialised.

    Raises:
        FileExistsError: If the target exists and is not empty.
        OSError: If the target cannot be written, say on a full disk; the message names it.
        FileNotFoundError: If the source, its config or one of its weight files is missing.
        ValueError: If a weight file is damaged or holds more than tensors; if weights are unknown, missing, NaN or of
            another shape; if there is no vision tower; if the checkpoint uses settings that this model lacks.
    """
    source, target = as_path(source_dir, "source_dir"), as_path(target_dir, "target_dir")
    shard_bytes = None if max_shard_size is None else parse_size(max_shard_size)
    with whole_folder(target) as staging:
        original, stored = read_original_config(source), inspect_folder(source)
        original_files = sorted({tensor.file for tensor in stored.values()})
        report = _start_report(source, target, original, stored, ignore_position_encoding)
        stored |= _find_tower(stored, original, vision_tower, report)
        if vision_config is None and vision_tower is not None:
            vision_config = read_tower_config(Path(vision_tower))

        tokenizer = load_tokenizer(source)
        report.has_tokenizer = tokenizer is not None
        report.token_ids, report.added_embedding_rows = choose_token_ids(original, report.embedding_rows, tokenizer)
        rows = report.embedding_rows + report.added_embedding_rows
        config = build_config(original, report.token_ids, rows, vision_config)
        _untie_other_head(config, stored, report)
        model = _build_on_meta(config)
        assign_weights(stored, _list_weights(model), config.vision_config.num_hidden_layers, original, report)
        _write_weights(stored, model, staging, shard_bytes, report)
        _write_aside(stored, staging, report)
        _keep_original(source, original_files, staging)
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
    """Start a report with the family of the checkpoint; refuse what this model cannot compute."""
    if ORIGINAL_EMBEDDING not in stored:
        raise ValueError(
            f"The weights in {source} lack {ORIGINAL_EMBEDDING}. Expected a whole checkpoint with the names of "
            "LLaVA-Video-Qwen2; merge a LoRA adapter into its base model first."
        )
    embedding = stored[ORIGINAL_EMBEDDING].spec
    if embedding.ndim != 2 or not embedding.is_floating_point():
        raise ValueError(
            f"{ORIGINAL_EMBEDDING} in {source} must be a floating-point matrix, got "
            f"{describe_spec(embedding)}. Quantised checkpoints cannot be converted."
        )
    rows = embedding.shape[0]
    report = ConversionReport(target, identify_family(original, stored, rows), rows)
    report.notes += check_position_encoding(original, stored, report.family, ignore_position_encoding)
    if rows != original.get("vocab_size"):
        report.notes.append(
            f"`config.json` says `vocab_size` {original.get('vocab_size')}, the embedding has {rows} rows; the rows "
            "count."
        )
    return report


def _find_tower(
    stored: dict[str, StoredTensor],
    original: dict[str, Any],
    folder: str | Path | None,
    report: ConversionReport,
) -> dict[str, StoredTensor]:
    """Find the weights of a separate vision tower, under the names that the original uses."""
    if any(key.startswith(ORIGINAL_TOWER) for key in stored):
        if folder is not None:
            report.notes.append(f"The checkpoint holds its own vision tower; the weights in {folder} were not used.")
        return {}
    if folder is None:
        raise ValueError(
            f"The checkpoint holds no vision tower, only its name {original.get('mm_vision_tower')!r}. Pass "
            "`vision_tower=FOLDER` (`--vision-tower FOLDER`), a folder with that SigLIP checkpoint; it is never "
            "replaced by random weights."
        )
    found = inspect_folder(Path(folder))
    # A whole SigLIP has a text model too; a vision model saved alone may lack the prefix.
    prefix = "vision_model." if any(key.startswith("vision_model.") for key in found) else ""
    report.vision_tower = str(folder)
    if "mm_vision_tower" in (original.get("mm_tunable_parts") or ""):
        report.notes.append(
            "`config.json` says that the vision tower was trained (`mm_tunable_parts`), but its weights come from "
            f"{folder}."
        )
    return {
        f"{ORIGINAL_TOWER}vision_model.{key.removeprefix(prefix)}": tensor
        for key, tensor in found.items()
        if key.startswith(prefix)
    }


def _untie_other_head(config: IDE3DConfig, stored: dict[str, StoredTensor], report: ConversionReport) -> None:
    """Untie a head that the checkpoint calls tied, but that differs from its embedding."""
    places = {key: stored[key] for key in (ORIGINAL_EMBEDDING, OUTPUT_EMBEDDING) if key in stored}
    if config.tie_word_embeddings and len(places) == 2 and not torch.equal(*read_tensors(places).values()):
        config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
        report.notes.append(
            f"`config.json` says `tie_word_embeddings`, but {OUTPUT_EMBEDDING} differs from {ORIGINAL_EMBEDDING}. The "
            f"converted model has both. If the head was never used, remove {OUTPUT_EMBEDDING} and convert again."
        )


def _build_on_meta(config: IDE3DConfig) -> IDE3DForConditionalGeneration:
    config.architectures = [IDE3DForConditionalGeneration.__name__]
    with torch.device("meta"):
        return IDE3DForConditionalGeneration(config)


def _list_weights(model: IDE3DForConditionalGeneration) -> dict[str, torch.Tensor]:
    """List the weights that a checkpoint of this model holds, on the meta device."""
    wanted = model.state_dict()
    if model.config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    return wanted


def _write_weights(
    stored: dict[str, StoredTensor],
    model: IDE3DForConditionalGeneration,
    folder: Path,
    max_shard_bytes: int | None,
    report: ConversionReport,
) -> None:
    """Write the weights of the model, and set the type in its config."""
    if max_shard_bytes is None:
        largest = max(file.stat().st_size for file in {tensor.file for tensor in stored.values()})
        max_shard_bytes = min(largest, MAX_SHARD_BYTES)
    dtype = stored[ORIGINAL_EMBEDDING].spec.dtype
    places = {name: stored[key] for key, name in report.converted.items()}
    new = {name: tensor.to(dtype) for name, tensor in _initialize(model, report.newly_initialized).items()}
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    specs = {name: place.spec.new_empty(shapes[name]) for name, place in places.items()}
    split = split_torch_state_dict_into_shards(specs | new, max_shard_size=max_shard_bytes)
    for file, names in tqdm(split.filename_to_tensors.items(), desc="Converting", unit="file", delay=2):
        # Not bound to a name: the next file is read after this one has left the memory.
        save_file(_read_shard(names, places, new, report.added_embedding_rows), folder / file, metadata=METADATA)
    report.weight_files = list(split.filename_to_tensors)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    model.config.dtype = str(dtype).removeprefix("torch.")
    others = sorted({DTYPE_NAMES[place.spec.dtype] for place in places.values()} - {DTYPE_NAMES[dtype]})
    if others:
        report.notes.append(
            f"Some weights are stored as {others}; loading casts them to {dtype} unless told otherwise."
        )


def _read_shard(
    names: list[str], places: dict[str, StoredTensor], new: dict[str, torch.Tensor], added_rows: int
) -> dict[str, torch.Tensor]:
    """Read the weights of one file; embeddings get mean rows, as the original adds tokens."""
    grown = {name: append_mean_rows(places[name], added_rows) for name in names if added_rows and name in EMBEDDINGS}
    initial = {name: new[name] for name in names if name in new}
    done = grown | initial
    tensors = done | read_tensors({name: places[name] for name in names if name not in done})
    check_finite(tensors)
    return tensors


def _write_aside(stored: dict[str, StoredTensor], folder: Path, report: ConversionReport) -> None:
    """Write the weights that this model does not use, under their original names."""
    # What was left out of a separate tower still lies in its own folder.
    unused = [key for key in report.dropped if report.vision_tower is None or not key.startswith(ORIGINAL_TOWER)]
    for file, keys in ((TRAINING_ONLY_FILE, report.training_only), (UNUSED_FILE, unused)):
        if keys:
            (folder / file).parent.mkdir(exist_ok=True)
            save_file(read_tensors({key: stored[key] for key in keys}), folder / file, metadata=METADATA)
    if report.training_only:
        report.training_only_file = TRAINING_ONLY_FILE


def _initialize(model: IDE3DForConditionalGeneration, names: list[str]) -> dict[str, torch.Tensor]:
    """Return the initial values of a grounding head, the same at every conversion."""
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


def _keep_original(source: Path, files: list[Path], folder: Path) -> None:
    """Keep the settings, and the names, types and metadata of the weight files."""
    (folder / ORIGINAL_FOLDER).mkdir(exist_ok=True)
    content = {"files": [_describe_file(file) for file in files]}
    (folder / ORIGINAL_FILES).write_text(json.dumps(content) + "\n", encoding="utf-8")
    for name in SETTINGS_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / ORIGINAL_FOLDER / name)


def _describe_file(file: Path) -> dict[str, str]:
    header: dict[str, Any] = {
        name: {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape)}
        for name, tensor in map_tensors(file).items()
    }
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            header["__metadata__"] = opened.metadata()
    return {"name": file.name, "header": json.dumps(header)}
