"""Model, processor and teacher of a recipe, from a checkpoint or from random weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from modeling_ide3d import IDE3DConfig, IDE3DForConditionalGeneration
from modeling_ide3d.auxiliary import (
    GeometricValidatorConfig,
    IDE3DForConditionalGenerationWithGeometry,
    load_converted_for_training,
)
from processing import IDE3DProcessor
from processing.token_grid import TokenGrid
from trainer.data.pseudo_inputs import check_store
from trainer.loop.adapters import add_adapters
from trainer.nano.build import build_nano_config, build_nano_model, build_nano_processor
from trainer.recipes.arguments import DataArguments, ModelArguments
from trainer.recipes.box_tokens import add_box_tokens, list_box_tokens, start_number_tokens
from trainer.recipes.language import (
    find_origin,
    join_configs,
    join_models,
    join_processors,
    load_causal_model,
    load_text_config,
    load_tokenizer,
)
from trainer.teachers import PointMapTeacher, Teacher, TeacherStore, load_teacher
from trainer.training_arguments import IDE3DTrainingArguments

__all__ = [
    "adapt",
    "build_pseudo_geometry",
    "build_teacher",
    "build_validator",
    "find_grid",
    "load_model",
    "load_processor",
    "read_config",
    "validator_changes",
]


def build_teacher(arguments: ModelArguments, args: IDE3DTrainingArguments) -> Teacher | None:
    """Build the teacher of the recipe; None for stored features, which come with the samples."""
    if arguments.teacher in ("none", "stored"):
        return None
    if arguments.teacher == "point_map":
        options = {"wavelengths": arguments.teacher_wavelengths} if arguments.teacher_wavelengths else {}
        return PointMapTeacher(camera=arguments.teacher_camera, **options)
    return load_teacher(arguments.teacher, protocol=args.protocol)


def build_pseudo_geometry(data: DataArguments, args: IDE3DTrainingArguments) -> TeacherStore | None:
    """Open the store of pseudo geometry of the recipe; None without one.

    Raises:
        FileNotFoundError: The folder holds no store.
        ValueError: It holds features alone, or the protocol is not clean.
    """
    if data.pseudo_geometry is None:
        return None
    if args.protocol != "clean":
        raise ValueError(
            f"pseudo_geometry needs protocol: clean, got {args.protocol}. The original knows metres only."
        )
    store = TeacherStore(data.pseudo_geometry)
    check_store(store)
    return store


def find_grid(arguments: ModelArguments, data: DataArguments) -> TokenGrid:
    """Return the token grid of the nano model or of the checkpoint."""
    if arguments.model_name_or_path is None:
        return TokenGrid(data.image_size, arguments.patch_size, arguments.spatial_pool_stride)
    return TokenGrid.of(load_processor(arguments.model_name_or_path))


def load_processor(name: str, language_model: str | None = None) -> IDE3DProcessor:
    """Load the processor of a checkpoint.

    Args:
        name: Folder of the checkpoint, or its name on the Hub.
        language_model: Language model whose tokenizer replaces the checkpoint's, see `find_language_model`.

    Raises:
        ValueError: There is no processor that can be read, or no checkpoint.
    """
    try:
        processor = IDE3DProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model_name_or_path={name!r}: its processor cannot be read ({' '.join(str(error).split())}). Expected a "
            "folder of a converted or exported checkpoint, or its name on the Hub."
        ) from error
    return processor if language_model is None else join_processors(processor, load_tokenizer(language_model))


def load_model(
    arguments: ModelArguments, data: DataArguments, texts: list[str], teacher_size: int | None, protocol: str = "clean"
) -> tuple[IDE3DForConditionalGenerationWithGeometry, IDE3DProcessor]:
    """Load training model and processor of a checkpoint, or build them from scratch.

    Args:
        arguments: Model arguments of the recipe.
        data: Data arguments of the recipe; they size a nano model.
        texts: Questions and answers whose words a nano model gets; unused for a checkpoint.
        teacher_size: Width of the teacher's features; None trains without a teacher.
        protocol: "clean" or "paper", for the depth decoder.
    """
    changes = validator_changes(arguments, protocol)
    if arguments.model_name_or_path is None:
        processor = build_nano_processor(
            texts,
            image_size=data.image_size,
            patch_size=arguments.patch_size,
            spatial_pool_stride=arguments.spatial_pool_stride,
            num_frames=data.num_frames,
            words=list_box_tokens() if data.box_numbers == "tokens" else (),
        )
        config = build_nano_config(
            processor,
            hidden_size=arguments.hidden_size,
            text_layers=arguments.text_layers,
            rope_theta=arguments.rope_theta,
            tie_word_embeddings=arguments.tie_word_embeddings,
        )
        validator = None if arguments.validator == "none" else changes
        model = build_nano_model(config, teacher_size=teacher_size, validator=validator)
        if data.box_numbers == "tokens":
            start_number_tokens(model, processor.tokenizer)
        return model, processor
    if arguments.language_model is not None:
        model, processor = _load_joined(arguments, teacher_size, changes)
        return _with_box_tokens(model, processor, data), processor
    processor = load_processor(arguments.model_name_or_path)
    options = {"dtype": getattr(torch, arguments.dtype)}
    if arguments.attention is not None:
        options["attn_implementation"] = arguments.attention
    if arguments.validator == "original":
        model = load_converted_for_training(arguments.model_name_or_path, **options)
        return _with_box_tokens(model, processor, data), processor
    config = IDE3DForConditionalGenerationWithGeometry.config_class.from_pretrained(arguments.model_name_or_path)
    model = IDE3DForConditionalGenerationWithGeometry.from_pretrained(
        arguments.model_name_or_path,
        validator_config=build_validator(arguments.validator, config, changes),
        teacher_size=teacher_size,
        **options,
    )
    return _with_box_tokens(model, processor, data), processor


def _load_joined(
    arguments: ModelArguments, teacher_size: int | None, changes: dict[str, Any]
) -> tuple[IDE3DForConditionalGenerationWithGeometry, IDE3DProcessor]:
    """Load a checkpoint's vision tower with another language model; `changes`: of the depth decoder."""
    source = IDE3DForConditionalGeneration.from_pretrained(arguments.model_name_or_path)
    own = load_processor(arguments.model_name_or_path)
    processor = join_processors(own, load_tokenizer(arguments.language_model))
    validator = build_validator(arguments.validator, source.config, changes)
    language_model = load_causal_model(arguments.language_model)
    origin = find_origin(arguments.language_model)
    model = join_models(source, own.tokenizer, language_model, processor, validator, teacher_size, origin)
    if arguments.attention is not None:
        model.set_attn_implementation(arguments.attention)
    return model.to(getattr(torch, arguments.dtype)), processor


def _with_box_tokens(
    model: IDE3DForConditionalGenerationWithGeometry, processor: IDE3DProcessor, data: DataArguments
) -> IDE3DForConditionalGenerationWithGeometry:
    """Give a loaded model the tokens of boxes if they are said with them."""
    if data.box_numbers == "tokens":
        add_box_tokens(model, processor.tokenizer)
    return model


def validator_changes(arguments: ModelArguments, protocol: str) -> dict[str, Any]:
    """Return what the arguments change of a depth decoder."""
    changes = {"output_stride": arguments.validator_stride, "protocol": protocol}
    if arguments.validator_chunk is not None:
        changes["frames_per_chunk"] = arguments.validator_chunk
    return changes


def build_validator(kind: str, config: IDE3DConfig, changes: dict[str, Any]) -> GeometricValidatorConfig | None:
    """Size the depth decoder for a model; the sizes of the original are the paper's."""
    builders = {"light": GeometricValidatorConfig.light, "none": lambda *_, **__: None}
    return builders.get(kind, GeometricValidatorConfig.from_vision_config)(config.vision_config, **changes)


def adapt(
    model: IDE3DForConditionalGenerationWithGeometry, arguments: ModelArguments, tokens: Sequence[int] = ()
) -> nn.Module:
    """Add adapters to the model if they are asked for.

    Args:
        model: Training model.
        arguments: Model arguments of the recipe.
        tokens: Tokens that adapters are trained beside, see `add_adapters`.

    Raises:
        ValueError: There is no checkpoint to adapt.
    """
    if not arguments.lora_rank:
        return model
    if arguments.model_name_or_path is None:
        raise ValueError("Adapters (lora_rank) need a checkpoint: name one by model_name_or_path.")
    return add_adapters(model, arguments.lora_rank, arguments.lora_alpha, arguments.lora_dropout, tokens)


def read_config(arguments: ModelArguments) -> IDE3DConfig:
    """Read the config of the checkpoint, or the planned one where it is not there.

    With another language model it is the config of both.

    Raises:
        FileNotFoundError: Neither is there.
        ValueError: The planned one is no config.
    """
    config = _read_own_config(arguments)
    if arguments.language_model is None:
        return config
    processor = load_processor(arguments.model_name_or_path, arguments.language_model)
    origin = find_origin(arguments.language_model)
    return join_configs(config, load_text_config(arguments.language_model), processor, origin)


def _read_own_config(arguments: ModelArguments) -> IDE3DConfig:
    folder = Path(arguments.model_name_or_path)
    if (folder / "config.json").is_file():
        return IDE3DConfig.from_pretrained(folder)
    if arguments.planned_config is None or not Path(arguments.planned_config).is_file():
        raise FileNotFoundError(
            f"There is neither {folder / 'config.json'} nor a planned_config ({arguments.planned_config}): name the "
            "config.json of the model that the dry run is about."
        )
    try:
        return IDE3DConfig.from_json_file(arguments.planned_config)
    except (AttributeError, LookupError, RecursionError, StrictDataclassError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"planned_config={arguments.planned_config!r} is no config.json of this model ({reason})."
        ) from error
