"""The dry run of a recipe: what a step takes, before anything is rented, downloaded or trained."""

import torch

from modeling_ide3d import IDE3DConfig
from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from trainer.data_collator import IDE3DDataCollator
from trainer.planning.step_estimate import Placement, StepEstimate, estimate_step, make_batch
from trainer.recipes.arguments import DataArguments, ModelArguments, check_source
from trainer.recipes.data import build_samples, list_texts, load_decoded
from trainer.recipes.idle import warn_of_idle
from trainer.recipes.models import (
    adapt,
    build_teacher,
    build_validator,
    find_grid,
    load_model,
    load_processor,
    read_config,
    validator_changes,
)
from trainer.training_arguments import IDE3DTrainingArguments

__all__ = ["dry_run"]

NUM_DRY_ROOMS = 16  # the dry run looks at these
NATIVE_SIZE = (480, 640)  # depth of ScanNet
NUM_REGIONS = 50  # as many proposals as the original takes


def dry_run(model_arguments: ModelArguments, data: DataArguments, args: IDE3DTrainingArguments) -> StepEstimate:
    """Estimate what a step takes, from a model on the meta device.

    Raises:
        ValueError: The data do not go with the model or the teacher, or a file of the checkpoint cannot be read.
        FileNotFoundError: Neither the checkpoint's config nor `planned_config` is there.
    """
    check_source(model_arguments, data)
    warn_of_idle(model_arguments, data)
    if model_arguments.model_name_or_path is not None:
        read_config(model_arguments)  # before anything else of a checkpoint that may not be there
    teacher = build_teacher(model_arguments, args)
    teacher_size = model_arguments.planned_teacher_size if model_arguments.teacher == "stored" else None
    teacher_size = teacher.feature_size if teacher else teacher_size
    samples = _largest_samples(model_arguments, data) if data.source == "rooms" else []
    if model_arguments.model_name_or_path is None:
        with torch.device("meta"):
            model, processor = load_model(model_arguments, data, list_texts(samples), teacher_size, args.protocol)
    else:
        model = _build_on_meta(model_arguments, teacher_size, args.protocol)
        if data.source == "rooms":
            processor = load_processor(model_arguments.model_name_or_path, model_arguments.language_model)
    if data.source == "rooms":
        batch = IDE3DDataCollator(processor, teacher, protocol=args.protocol)(
            samples[: args.per_device_train_batch_size]
        )
    else:
        batch = _plan_batch(model.config, model_arguments, data, args, teacher_size)
    placement = Placement(model_arguments.planned_processes, model_arguments.planned_sharding)
    return estimate_step(adapt(model, model_arguments), batch, args, placement)


def _largest_samples(model_arguments: ModelArguments, data: DataArguments) -> list[dict]:
    """Samples of a few rooms, those that take most first."""
    grid = find_grid(model_arguments, data)
    samples = build_samples(load_decoded("train", NUM_DRY_ROOMS, data), data, grid, training=True)
    return sorted(
        (samples[index] for index in range(min(len(samples), 8 * NUM_DRY_ROOMS))),
        key=lambda sample: (-len(sample["frames"]), -len(str(sample["messages"]))),
    )


def _build_on_meta(
    arguments: ModelArguments, teacher_size: int | None, protocol: str
) -> IDE3DForConditionalGenerationWithGeometry:
    config = read_config(arguments)
    changes = validator_changes(arguments, protocol)
    with torch.device("meta"):
        validator = build_validator(arguments.validator, config, changes)
        model = IDE3DForConditionalGenerationWithGeometry(config, validator, teacher_size)
    model.to(getattr(torch, arguments.dtype))
    if arguments.attention == "eager":  # the others take the same memory
        model.set_attn_implementation("eager")
    return model


def _plan_batch(
    config: IDE3DConfig,
    arguments: ModelArguments,
    data: DataArguments,
    args: IDE3DTrainingArguments,
    teacher_size: int | None,
) -> dict[str, torch.Tensor]:
    """A batch of benchmark samples as the dry run supposes it."""
    return make_batch(
        config,
        batch_size=args.per_device_train_batch_size,
        num_frames=data.num_frames,
        text_tokens=arguments.planned_text_tokens,
        num_regions=NUM_REGIONS,
        teacher_size=teacher_size,
        native_size=NATIVE_SIZE if args.protocol == "paper" else None,
    )
