"""Convert original checkpoints (LLaVA-Video-Qwen2, Video-3D-LLM, 3DRS, 3D-IDE) to this model, shard by shard.

Run `python -m modeling_ide3d.convert_llava_qwen SOURCE TARGET`.
"""

import argparse
import logging
import re
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from modeling_ide3d.configuration_ide3d import IDE3DConfig
from modeling_ide3d.llava_qwen_settings import (
    build_config,
    choose_token_ids,
    load_tokenizer,
    read_original_config,
    write_settings,
)
from modeling_ide3d.modeling_ide3d import IDE3DForConditionalGeneration
from modeling_ide3d.weight_files import (
    ShardWriter,
    StoredTensor,
    find_weight_files,
    inspect_weight_files,
    parse_size,
    read_tensors,
)

logger = logging.getLogger(__name__)

TRAINING_ONLY_FILE = "training_only/original_geometry_modules.safetensors"
EMBEDDINGS = ("model.language_model.embed_tokens.weight", "lm_head.weight")  # they have a row for each token
EMPTY_REGION = "grounding_head.empty_region"
NAMES_IN_ERRORS = 8  # a person reads a few names; a wrong layout has hundreds

_TOWER = r"model\.vision_tower\.vision_tower\.(?:vision_model\.)?"
RENAMES = [
    (_TOWER + r"((?:embeddings|encoder|post_layernorm)\..+)", r"model.vision_tower.\1"),
    (r"model\.mm_projector\.0\.(weight|bias)", r"model.multi_modal_projector.linear_1.\1"),
    (r"model\.mm_projector\.2\.(weight|bias)", r"model.multi_modal_projector.linear_2.\1"),
    (r"model\.((?:embed_tokens|layers|norm)\..+)", r"model.language_model.\1"),
    (r"model\.image_newline", "model.image_newline"),
    (r"lm_head\.weight", "lm_head.weight"),
    (r"ground_head_query\.([023]\.(?:weight|bias))", r"grounding_head.query_proj.\1"),
    (r"ground_head_obj\.([023]\.(?:weight|bias))", r"grounding_head.key_proj.\1"),
    (r"ground_head_zero_target", "grounding_head.no_object"),
    (r"empty_object_embedding", "grounding_head.empty_region"),
]
# Trained beside the model and never used to answer. The last three are those of 3DRS.
TRAINING_ONLY = (
    r"model\.(?:dpt_module\..+|proj_3d\.[02]\.(?:weight|bias)|(?:corres_linear|geometric_linear|linear_dc)\.weight)"
)
DROPPED = {
    _TOWER + r"head\.(?:probe|attention\.in_proj_(?:weight|bias)|(?:attention\.out_proj|layernorm|mlp\.fc[12])"
    r"\.(?:weight|bias))": "pooling head of the vision tower, not used",
    _TOWER + r"embeddings\.position_ids": "buffer that is computed",
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq": "buffer that is computed",
}


@dataclass
class ConversionReport:
    """What became of a checkpoint.

    Args:
        target_dir: Folder that was written.
        converted: Original name -> new name of every weight of the model.
        training_only: Original names of weights that the model does not have; kept in `training_only_file`.
        training_only_file: Path inside the folder, None where there are no such weights.
        dropped: Original name -> reason, of weights that nothing needs.
        newly_initialized: New names of weights that the checkpoint does not have.
        token_ids: `image_token_id`, `video_token_id`, `ground_token_id`.
        added_embedding_rows: Rows added for these tokens; 0 where the embedding had spare ones.
        has_tokenizer: Whether tokenizer and processor were written too.
        weight_files: Names of the weight files.
        notes: What a person should know about this checkpoint.
    """

    target_dir: Path
    converted: dict[str, str] = field(default_factory=dict)
    training_only: list[str] = field(default_factory=list)
    training_only_file: str | None = None
    dropped: dict[str, str] = field(default_factory=dict)
    newly_initialized: list[str] = field(default_factory=list)
    token_ids: dict[str, int] = field(default_factory=dict)
    added_embedding_rows: int = 0
    has_tokenizer: bool = False
    weight_files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{len(self.converted)} weights -> {self.target_dir} ({len(self.weight_files)} files)",
            f"{len(self.training_only)} training-only weights -> {self.training_only_file}",
            f"{len(self.dropped)} weights dropped: {sorted(set(self.dropped.values()))}",
            f"newly initialised: {self.newly_initialized}",
            f"token ids: {self.token_ids}; added embedding rows: {self.added_embedding_rows}; "
            f"tokenizer and processor: {'written' if self.has_tokenizer else 'none beside the source'}",
        ]
        return "\n".join(lines + self.notes)


def convert_checkpoint(
    source_dir: str | Path,
    target_dir: str | Path,
    *,
    max_shard_size: int | str = "5GB",
    vision_config: dict[str, Any] | None = None,
) -> ConversionReport:
    """Convert an original checkpoint to a folder that `from_pretrained` loads.

    Everything is checked from the headers before the first byte is written; at most one shard is in memory. The folder
    appears under its name only when it is complete. Where tokenizer files lie beside the source, the tokenizer gets
    the placeholder tokens and a processor configuration is written too.

    Args:
        source_dir: Folder with `config.json` and weights as safetensors or pickled tensors.
        target_dir: Folder to write; it must not exist, or be empty.
        max_shard_size: Bytes of a weight file, as a number or as "5GB".
        vision_config: Sizes of the original vision tower, all its layers counted; needed where the name in
            `mm_vision_tower` is not a known one.

    Returns:
        What was converted, kept aside, dropped and newly initialised.

    Raises:
        FileExistsError: The target exists and is not empty.
        FileNotFoundError: The source, its config or one of its weight files is missing.
        ValueError: A weight file is damaged; weights are unknown, missing or of another shape; the checkpoint uses
            settings that this model does not have.
    """
    source, target = Path(source_dir), Path(target_dir)
    shard_bytes = parse_size(max_shard_size)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists already and is never overwritten. Choose another folder or remove it.")
    original = read_original_config(source)
    stored = inspect_weight_files(find_weight_files(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.incomplete"
    staging.mkdir()
    try:
        tokenizer = load_tokenizer(source, staging)
        report = ConversionReport(target, has_tokenizer=tokenizer is not None)
        report.token_ids = choose_token_ids(original, tokenizer)
        rows = original["vocab_size"] if tokenizer is None else max(original["vocab_size"], len(tokenizer))
        report.added_embedding_rows = rows - original["vocab_size"]
        config = build_config(original, report.token_ids, rows, vision_config)
        model = _build_on_meta(config)
        _plan(stored, model, original, report)
        _write_weights(stored, model, staging, shard_bytes, report)
        write_settings(source, staging, config, tokenizer)
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    for note in report.notes:
        logger.warning(note)
    return report


def _build_on_meta(config: IDE3DConfig) -> IDE3DForConditionalGeneration:
    config.architectures = [IDE3DForConditionalGeneration.__name__]
    with torch.device("meta"):
        return IDE3DForConditionalGeneration(config)


def _rename(key: str) -> str | None:
    """New name of an original weight, None where it has none."""
    for pattern, target in RENAMES:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(target)
    return None


def _plan(
    stored: dict[str, StoredTensor],
    model: IDE3DForConditionalGeneration,
    original: dict[str, Any],
    report: ConversionReport,
) -> None:
    """Say of every weight of the checkpoint what becomes of it, and check names and shapes."""
    config = model.config
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    unknown, renamed = [], {}
    for key in stored:
        name = _rename(key)
        if name in wanted:
            if name in renamed:
                raise ValueError(f"{renamed[name]} and {key} are the same weight, {name}. Keep one of them.")
            renamed[name] = key
        elif re.fullmatch(TRAINING_ONLY, key):
            report.training_only.append(key)
        elif reason := _reason_to_drop(key, name, config, wanted):
            report.dropped[key] = reason
        else:
            unknown.append(key)
    report.newly_initialized = _find_initializable(wanted, renamed, original, report)
    missing = wanted.keys() - renamed.keys() - set(report.newly_initialized)
    if unknown or missing:
        raise ValueError(
            f"The checkpoint has {len(unknown)} unknown weights {_shorten(unknown)} and lacks {len(missing)} weights "
            f"{_shorten(missing)}. Expected the layout of LLaVA-Video-Qwen2 or 3D-IDE with the sizes of config.json."
        )
    _check_shapes(stored, renamed, wanted, report.added_embedding_rows)
    report.converted = {key: name for name, key in renamed.items()}
    if original.get("world_position_embedding_type") and not original.get("skip_3d_pe_fusion"):
        report.notes.append(
            "This checkpoint was trained with world positions added to its visual tokens. The converted model does "
            "not add them: fine-tune it before use."
        )


def _reason_to_drop(key: str, name: str | None, config: IDE3DConfig, wanted: Iterable[str]) -> str | None:
    """Why nothing needs a weight; None where that is not known of it."""
    if name == "lm_head.weight":
        return "tied to the embedding"
    layers = "model.vision_tower.encoder.layers."
    last = f"{layers}{config.vision_config.num_hidden_layers}."
    if name is not None and name.startswith(last) and f"{layers}0.{name.removeprefix(last)}" in wanted:
        return "last layer of the vision tower, not used"
    return next((reason for pattern, reason in DROPPED.items() if re.fullmatch(pattern, key)), None)


def _find_initializable(
    wanted: Iterable[str], renamed: Iterable[str], original: dict[str, Any], report: ConversionReport
) -> list[str]:
    """New names that a checkpoint of this family may lack."""
    head = {name for name in wanted if name.startswith("grounding_head.")}
    absent = head - set(renamed)
    if absent == head and not original.get("ground_head_type"):
        return sorted(absent)
    if absent == {EMPTY_REGION} and "use_depth_auxiliary_task" not in original:
        # Official: before 3D-IDE the feature of an empty region was zero.
        report.notes.append(
            "This checkpoint has no vector for empty regions; it is zero, as in Video-3D-LLM and 3DRS."
        )
        return sorted(absent)
    return []


def _check_shapes(
    stored: dict[str, StoredTensor],
    renamed: dict[str, str],
    wanted: dict[str, tuple[int, ...]],
    added_embedding_rows: int,
) -> None:
    wrong = []
    for name, key in renamed.items():
        rows, *rest = stored[key].shape
        grown = (rows + added_embedding_rows, *rest) if name in EMBEDDINGS else stored[key].shape
        if grown != wanted[name]:
            wrong.append(f"{key}: expected {wanted[name]}, got {grown}")
    if wrong:
        raise ValueError(f"{len(wrong)} weights do not have the shape that config.json says: {_shorten(wrong)}.")


def _shorten(names: Iterable[str]) -> str:
    names = sorted(names)
    return f"[{', '.join(names[:NAMES_IN_ERRORS])}{', ...' if len(names) > NAMES_IN_ERRORS else ''}]"


def _write_weights(
    stored: dict[str, StoredTensor],
    model: IDE3DForConditionalGeneration,
    folder: Path,
    max_shard_size: int,
    report: ConversionReport,
) -> None:
    """Copy the weights shard by shard; sets the dtype of the config to that of the embedding."""
    writer, training_only = ShardWriter(folder, max_shard_size), {}
    kept_aside = set(report.training_only)
    files = sorted({entry.file for entry in stored.values()})
    for file in tqdm(files, desc="Converting", unit="file", delay=2):
        for key, tensor in read_tensors(file):
            if key in kept_aside:
                training_only[key] = tensor.clone()
            elif key in report.converted:
                name = report.converted[key]
                if name in EMBEDDINGS and report.added_embedding_rows:
                    mean = tensor.float().mean(0, keepdim=True).to(tensor.dtype)
                    tensor = torch.cat([tensor, mean.expand(report.added_embedding_rows, -1)])
                writer.add(name, tensor)
    new_names = {name: key for key, name in report.converted.items()}
    dtype = stored[new_names[EMBEDDINGS[0]]].dtype
    for name, tensor in _initialize(model, report.newly_initialized).items():
        writer.add(name, tensor.to(dtype))
    report.weight_files = writer.finish()
    if training_only:
        report.training_only_file = TRAINING_ONLY_FILE
        (folder / TRAINING_ONLY_FILE).parent.mkdir()
        save_file(training_only, folder / TRAINING_ONLY_FILE, metadata={"format": "pt"})
    model.config.dtype = str(dtype).removeprefix("torch.")
    others = sorted({str(stored[key].dtype) for key in report.converted} - {str(dtype)})
    if others:
        report.notes.append(
            f"Some weights are stored as {others}; loading casts them to {dtype} unless told otherwise."
        )


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


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description="Convert an original LLaVA-Qwen checkpoint to 3D-IDE's format.")
    parser.add_argument("source", type=Path, help="folder with config.json and weights")
    parser.add_argument("target", type=Path, help="folder to write; must not exist")
    parser.add_argument("--max-shard-size", default="5GB", help='size of a weight file, "5GB" by default')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logger.info("%s", convert_checkpoint(options.source, options.target, max_shard_size=options.max_shard_size))


__all__ = ["ConversionReport", "convert_checkpoint"]

if __name__ == "__main__":
    main()
