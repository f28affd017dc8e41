"""Export: a folder with the inference model alone, which loads where nobody has this repository."""

import dataclasses
import inspect
import json
import logging
import os
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import ModelCard
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.modeling_utils import unwrap_model

from modeling_ide3d import IDE3DConfig, IDE3DForConditionalGeneration, IDE3DModel
from modeling_ide3d.loading_ide3d import find_not_finite, read_json_object
from processing import IDE3DProcessor, IDE3DVideoProcessor
from processing.argument_rules import path_text
from processing.limits import parse_size
from processing.writing import whole_folder
from trainer.loop.adapters import load_and_merge_adapters
from trainer.loop.checkpoints import get_last_checkpoint
from trainer.model_card import EVAL_RESULTS, create_model_card

logger = logging.getLogger(__name__)

END_OF_TURN = "<|im_end|>"  # ends an answer in the chat template
MAX_NEW_TOKENS = 256  # without a limit of its own a model stops after 20 tokens
CARD_FILE = "README.md"
WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TOKENIZER_FILES = {"tokenizer.json", "tokenizer_config.json"}
OF_LOADING = ("is_local", "local_files_only")  # how a tokenizer was loaded: Transformers writes it into its config
ALWAYS_PRESENT = {"config.json", "generation_config.json", "processor_config.json", CARD_FILE}
# What a tokenizer, a chat template, git or the record of a shipped model may add; nothing else belongs to an export.
SOMETIMES_PRESENT = TOKENIZER_FILES | {
    "training.json",
    "training.png",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "model.safetensors",
    "model.safetensors.index.json",
    ".gitattributes",
    EVAL_RESULTS,
}
# pip compiles the code files of an export that an installed package carries.
BYTE_CODE = "__pycache__"
SHARD_NAME = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def export_inference_model(
    model: IDE3DForConditionalGeneration,
    processor: IDE3DProcessor,
    folder: str | os.PathLike,
    *,
    auto_model: Literal["generate", "base"] = "generate",
    card: ModelCard | None = None,
    max_shard_size: int | str = "5GB",
    dtype: str | torch.dtype | None = None,
) -> Path:
    """Write inference model, processor and code into a folder that needs nothing else of ours.

    Training-only weights, config keys and files stay out. The folder is written beside its place under a hidden name
    and renamed when it is complete, so `folder` never holds half an export. Call it on one process only.

    An existing `folder` is replaced only if it is an earlier export (see `is_export`) or empty.

    Args:
        model: The inference model, or the training subclass; adapters must be merged, weights must be in memory.
        processor: Processor whose numbers agree with the model's config.
        folder: Folder of the export.
        auto_model: Class that `AutoModel` gives: "generate" the generating class, "base" the bare [`IDE3DModel`] for
            serving engines that build on the backbone. The other Auto classes always give the generating class.
        card: Model card. Default: one with the facts that config and processor hold.
        max_shard_size: Largest weight file.
        dtype: Type of the saved weights, such as "bfloat16" or `torch.bfloat16`. Default: that of the model.

    Returns:
        The folder, as an absolute path.

    Raises:
        TypeError: If `model`, `processor` or `card` is of another class.
        ValueError: If processor and model disagree, or weights are missing, foreign, not finite, not in memory or of
            mixed types. Also if weights do not fit into `dtype`, `max_shard_size` is no size, or `folder` no name.
        FileExistsError: If `folder` exists and is not an earlier export.
    """
    if auto_model not in ("generate", "base"):
        raise ValueError(f'auto_model must be "generate" or "base", got {auto_model!r}.')
    path_text(folder, "folder")
    dtype, max_shard_size = _to_dtype(dtype), parse_size(max_shard_size)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an IDE3DForConditionalGeneration, got {type(model).__name__} {model!r:.100}.")
    if not isinstance(card, (ModelCard, type(None))):
        raise TypeError(f"card must be a huggingface_hub.ModelCard or None, got {type(card).__name__} {card!r:.100}.")
    model = unwrap_model(model)
    _check_types(model, processor)
    check_agreement(model.config, processor)
    model.settle_tied_weights()
    config = _inference_config(model.config, auto_model)
    inference = _inference_model(model, config, dtype)
    inference.generation_config = _generation_config(processor.tokenizer)
    card = _plain_card(Path(folder), inference, processor, auto_model) if card is None else card
    with replace_folder(folder) as unfinished:
        inference.save_pretrained(unfinished, max_shard_size=max_shard_size)
        _save_processor(processor, unfinished, auto_model)
        for path in code_files():
            shutil.copyfile(path, unfinished / path.name)
        card.save(unfinished / CARD_FILE)
    folder = Path(folder).resolve()
    logger.info("Exported %s parameters to %s.", f"{inference.num_parameters():,}", folder)
    return folder


def export_checkpoint(
    checkpoint: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    processor: str | os.PathLike | None = None,
    auto_model: Literal["generate", "base"] = "generate",
    dtype: str | torch.dtype | None = None,
    max_shard_size: int | str = "5GB",
) -> Path:
    """Export the inference model of a trainer checkpoint; its heads are dropped, its adapters merged.

    Args:
        checkpoint: Folder `checkpoint-N`, or the output folder of a run, whose last checkpoint is taken.
        folder: Folder of the export.
        processor: Folder or Hub name of the processor. Default: the checkpoint, the folder around it, or the model
            that its adapters are for, whichever has one first.
        auto_model: See `export_inference_model`.
        dtype: Type of the saved weights. Default: that of the checkpoint.
        max_shard_size: Largest weight file.

    Returns:
        The folder, as an absolute path.

    Raises:
        FileNotFoundError: The checkpoint, its weights or its processor are missing.
        ImportError: The checkpoint holds adapters, and PEFT is not installed.
        ValueError, FileExistsError: See `export_inference_model`.
    """
    path_text(folder, "folder")
    dtype, max_shard_size = _to_dtype(dtype), parse_size(max_shard_size)
    checkpoint = Path(path_text(checkpoint, "checkpoint"))
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"There is no folder {checkpoint}: name a checkpoint-N of a training.")
    checkpoint = Path(get_last_checkpoint(checkpoint) or checkpoint)
    adapter = checkpoint / "adapter_config.json"
    base = read_json_object(adapter).get("base_model_name_or_path") if adapter.is_file() else None
    if adapter.is_file() and not (isinstance(base, str) and base):
        raise ValueError(f"{adapter} must name the model that its adapters are for, in base_model_name_or_path.")
    if base is None and not any(checkpoint.glob("*.safetensors*")):
        raise FileNotFoundError(
            f"{checkpoint} holds no .safetensors file. Of a training with split weights (FSDP, DeepSpeed) export the "
            "folder `weights` of its output folder."
        )
    if processor is None:
        places = [place for place in (checkpoint, checkpoint.parent) if (place / "processor_config.json").is_file()]
        processor = places[0] if places else base
    if processor is None:
        raise FileNotFoundError(
            f"Neither {checkpoint} nor {checkpoint.parent} has a processor_config.json: name the processor's folder."
        )
    model = IDE3DForConditionalGeneration.from_pretrained(base or checkpoint, dtype="auto")
    if base is not None:
        model = load_and_merge_adapters(model, checkpoint)
        dtype = dtype or model.lm_head.weight.dtype  # adapters may have another
    return export_inference_model(
        model,
        IDE3DProcessor.from_pretrained(processor),
        folder,
        auto_model=auto_model,
        dtype=dtype,
        max_shard_size=max_shard_size,
    )


def _plain_card(
    folder: Path, model: IDE3DForConditionalGeneration, processor: IDE3DProcessor, auto_model: str
) -> ModelCard:
    """A card with the facts that model and processor hold."""
    return create_model_card(
        model_name=Path(os.path.abspath(folder)).name,
        config=model.config,
        num_parameters=model.num_parameters(),
        num_frames=processor.video_processor.num_frames,
        auto_class="AutoModel" if auto_model == "generate" else "AutoModelForImageTextToText",
    )


def code_files() -> list[Path]:
    """List the Python files of an export: those of the exported classes, and their siblings."""
    files = {}
    for cls in (IDE3DConfig, IDE3DForConditionalGeneration, IDE3DProcessor, IDE3DVideoProcessor):
        entry = inspect.getfile(cls)
        files.update({Path(path).name: Path(path) for path in (entry, *get_relative_import_files(entry))})
    return [files[name] for name in sorted(files)]


def is_export(folder: str | os.PathLike) -> bool:
    """Say whether a folder is an earlier export of ours, and nothing else.

    Its config.json has `model_type` "ide3d" and an `auto_map`; it has the model card and the other files of every
    export, and no foreign file or folder. A folder that `save_pretrained` wrote is none: it has no model card.
    Compiled code (`__pycache__`) does not count.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        return False
    names = {path.name for path in folder.iterdir()} - {BYTE_CODE}
    code = {path.name for path in code_files()}
    known = ALWAYS_PRESENT | SOMETIMES_PRESENT | code
    if not names >= ALWAYS_PRESENT or any(name not in known and not SHARD_NAME.fullmatch(name) for name in names):
        return False
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(config, dict) and config.get("model_type") == IDE3DConfig.model_type and "auto_map" in config


def check_agreement(config: IDE3DConfig, processor: IDE3DProcessor) -> None:
    """Check that the processor writes the tokens that the model expects.

    Raises:
        ValueError: A size of the token grid or a token id differs; the message names both sides.
    """
    size = config.vision_config.image_size
    square = {"height": size, "width": size}
    pairs = [
        ("patch_size", processor.patch_size, "vision_config.patch_size", config.vision_config.patch_size),
        ("image_size", processor.image_size, "vision_config.image_size", size),
        ("spatial_pool_stride", processor.spatial_pool_stride, "spatial_pool_stride", config.spatial_pool_stride),
        ("video_processor.size", dict(processor.video_processor.size), "vision_config.image_size", square),
        ("image_processor.size", dict(processor.image_processor.size), "vision_config.image_size", square),
        ("image_token_id", processor.image_token_id, "image_token_id", config.image_token_id),
        ("video_token_id", processor.video_token_id, "video_token_id", config.video_token_id),
        ("ground_token_id", processor.ground_token_id, "ground_token_id", config.ground_token_id),
    ]
    differing = [
        f"processor.{ours} is {value}, model.config.{theirs} is {expected}"
        for ours, value, theirs, expected in pairs
        if value != expected
    ]
    if differing:
        raise ValueError(
            f"Processor and model disagree: {'; '.join(differing)}. Build the processor with the numbers of the "
            "model's config, or set the config's token ids to those of the tokenizer."
        )
    rows = config.text_config.vocab_size
    if len(processor.tokenizer) > rows:
        raise ValueError(
            f"The tokenizer has {len(processor.tokenizer)} tokens, the model's embedding has {rows} rows. Call "
            "model.resize_token_embeddings(len(processor.tokenizer)) before training."
        )


def replace_folder(folder: str | os.PathLike) -> AbstractContextManager[Path]:
    """Give an empty hidden folder that takes the place of an export; see `whole_folder`.

    Raises:
        FileExistsError: If `folder` exists and is neither empty nor an earlier export. It is left as it is.
    """
    return whole_folder(folder, is_export, refusal="is not an earlier export, or holds other files too")


def _check_types(model: nn.Module, processor: IDE3DProcessor) -> None:
    if not isinstance(model, IDE3DForConditionalGeneration) or getattr(model, "_hf_peft_config_loaded", False):
        raise TypeError(
            f"model must be an IDE3DForConditionalGeneration or its training subclass, without adapters, got "
            f"{type(model).__name__}. A PEFT model gives it by trainer.loop.adapters.merge_adapters."
        )
    if type(processor) is not IDE3DProcessor:
        raise TypeError(
            f"processor must be an IDE3DProcessor, got {type(processor).__name__}. The code of another class, even of "
            "a subclass, would not be in the export."
        )


def _inference_config(trained: IDE3DConfig, auto_model: str) -> IDE3DConfig:
    """Copy the declared fields of a config only.

    A Trainer leaves `use_cache: false` behind, and a training may leave more.
    """
    declared = {field.name for field in dataclasses.fields(IDE3DConfig)}
    content = trained.to_dict()
    config = IDE3DConfig.from_dict({key: value for key, value in content.items() if key in declared})
    if hasattr(config.text_config, "use_cache"):
        config.text_config.use_cache = True
    config.auto_map = {
        "AutoConfig": _reference(IDE3DConfig),
        "AutoModel": _reference(IDE3DForConditionalGeneration if auto_model == "generate" else IDE3DModel),
        "AutoModelForImageTextToText": _reference(IDE3DForConditionalGeneration),
        "AutoModelForMultimodalLM": _reference(IDE3DForConditionalGeneration),
    }
    return config


def _reference(cls: type) -> str:
    """Return the name of a class in an `auto_map`: `module.Class`, without the package."""
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def _inference_model(
    model: IDE3DForConditionalGeneration, config: IDE3DConfig, dtype: torch.dtype | None
) -> IDE3DForConditionalGeneration:
    """Build the plain inference class on the weights of `model`, shared unless `dtype` changes them."""
    with torch.device("meta"):
        inference = IDE3DForConditionalGeneration(config)
    wanted = inference.state_dict()
    trained = model.state_dict()
    parts = {name for name, _ in inference.named_children()}
    missing = sorted(set(wanted) - set(trained))
    foreign = sorted(key for key in set(trained) - set(wanted) if key.partition(".")[0] in parts)
    if missing or foreign:
        raise ValueError(
            f"The weights are not those of the inference model: missing {missing[:4]}, foreign {foreign[:4]}. Merge "
            "adapters and load the whole model first."
        )
    weights = {key: trained[key] for key in wanted}
    _check_weights(weights, dtype)
    if dtype is not None:
        weights = {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}
        if beyond := find_not_finite(weights):
            largest = max(float(trained[key].abs().max()) for key in beyond)
            raise ValueError(
                f"{len(beyond)} weights do not fit into {dtype}, up to {largest:.3g}: {beyond[:4]}. Choose "
                "dtype=torch.bfloat16, which has the range of float32, or leave dtype out."
            )
    inference.load_state_dict(weights, strict=True, assign=True)
    inference.tie_weights()
    for part in (config, config.vision_config, config.text_config):
        part.dtype = inference.dtype
    return inference.eval()


def _to_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Return a type of weights by its name, as Transformers does."""
    by_name = {str(one).removeprefix("torch."): one for one in WEIGHT_DTYPES}
    found = by_name.get(dtype.removeprefix("torch."), dtype) if isinstance(dtype, str) else dtype
    if found is None or found in WEIGHT_DTYPES:
        return found
    raise ValueError(f"dtype must be one of {[str(one) for one in WEIGHT_DTYPES]} or None, got {dtype!r}.")


def _check_weights(weights: dict[str, torch.Tensor], dtype: torch.dtype | None) -> None:
    absent = [key for key, value in weights.items() if value.is_meta]
    if absent:
        raise ValueError(f"Weights are not in memory: {absent[:4]}. Load the model without offloading them.")
    if broken := find_not_finite(weights):
        raise ValueError(f"NaN or infinite weights in {broken[:4]}: the training has diverged.")
    dtypes = sorted({str(value.dtype) for value in weights.values() if value.is_floating_point()})
    if dtype is None and len(dtypes) > 1:
        raise ValueError(f"The weights have several types, {dtypes}, and would load as one. Choose it by dtype=.")


def _generation_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Greedy decoding that stops where an answer ends."""
    ends = {tokenizer.eos_token_id, tokenizer.get_vocab().get(END_OF_TURN)} - {None}
    if not ends:
        raise ValueError(f"The tokenizer has neither an eos_token nor {END_OF_TURN}: an answer would never end.")
    ends = sorted(ends)
    pad = ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return GenerationConfig(
        do_sample=False, max_new_tokens=MAX_NEW_TOKENS, eos_token_id=ends, pad_token_id=pad, use_cache=True
    )


def _save_processor(processor: IDE3DProcessor, folder: Path, auto_model: str) -> None:
    """Processor and tokenizer files, with the classes of the code files in the `auto_map`."""
    processor.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: value for name, value in content.items() if name not in OF_LOADING}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    path = folder / "processor_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["auto_map"] = {"AutoProcessor": _reference(IDE3DProcessor)}
    content["video_processor"]["auto_map"] = {"AutoVideoProcessor": _reference(IDE3DVideoProcessor)}
    if auto_model == "base":  # engines keep the frames of a video, and put them beside those of others later
        content["video_processor"]["pad_frames"] = False
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


__all__ = [
    "check_agreement",
    "code_files",
    "export_checkpoint",
    "export_inference_model",
    "is_export",
    "replace_folder",
]
