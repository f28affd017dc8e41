"""The start of a training: a run that is finished stays as it is, and what cannot be meant is said once."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from modeling_ide3d.auxiliary.outputs import HEADS
from trainer.data_collator import decode_names
from trainer.loop.checkpoints import list_checkpoints
from trainer.training_arguments import IDE3DTrainingArguments

__all__ = [
    "BeginningOfTraining",
    "ExplainedCollator",
    "check_supervision",
    "check_train_samples",
    "describe_samples",
    "samples_named",
    "warn_of_earlier_run",
]

logger = logging.getLogger(__name__)

GEOMETRY_STEPS = ("geometry_start_step", "geometry_warmup_steps", "geometry_decay_steps")
HIGH_RATE = 1.0  # above it weights are replaced rather than trained; optimizers without a rate take 1


class BeginningOfTraining(TrainerCallback):
    """Says, before the first step, what the number of steps makes of the arguments."""

    def on_train_begin(
        self, args: IDE3DTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See the class."""
        if state.max_steps <= 0:
            logger.warning("Nothing is trained: num_train_epochs=%s are no step.", args.num_train_epochs)
        elif state.global_step >= state.max_steps:
            logger.warning(
                "This run is finished: its checkpoint is of step %d, and %d are asked for. Nothing is trained and no "
                "checkpoint is written. Set a larger max_steps or num_train_epochs to go on, or another output_dir to "
                "begin anew.",
                state.global_step,
                state.max_steps,
            )
        _warn_of_geometry_steps(args, max(state.max_steps, 1))


def _warn_of_geometry_steps(args: IDE3DTrainingArguments, num_steps: int) -> None:
    """Say where no step has the geometry terms, or their full weight."""
    steps = {name: getattr(args, name) for name in GEOMETRY_STEPS}
    if steps["geometry_start_step"] >= num_steps:
        effect = "no geometry term is trained"
    elif any(steps.values()) and sum(steps.values()) >= num_steps:
        effect = "no geometry term has its full weight in any of them"
    else:
        return
    given = ", ".join(f"{name}={number}" for name, number in steps.items() if number)
    logger.warning("%s of %d steps: %s.", given, num_steps, effect)


def check_train_samples(dataset: Any) -> None:
    """Raise ValueError for a training without a sample."""
    if isinstance(dataset, Sized) and not len(dataset):
        raise ValueError("train_dataset must hold at least one sample, got 0. Is its folder empty, or a filter wrong?")


def check_supervision(
    args: IDE3DTrainingArguments, core: IDE3DForConditionalGenerationWithGeometry, data_collator: Any
) -> None:
    """Say which arguments have nothing that they act on.

    Args:
        args: Training arguments.
        core: Training model.
        data_collator: Collator of the training, whose `teacher` is looked at if it has one.

    Raises:
        ValueError: If nothing is left to train, mixed precision has no effect, or a teacher has no projector.
    """
    if not any(parameter.requires_grad for parameter in core.parameters()):
        raise ValueError(f"frozen_parts={list(args.frozen_parts)} leave no weight to train. Take one of them out.")
    if args.mixed_precision == "fp16" and args.device.type == "cpu":
        raise ValueError(
            "fp16=True has no effect on the CPU, which would train in float32. Leave it out, or set bf16=True."
        )
    weights = args.loss_weights
    if getattr(data_collator, "teacher", None) is not None and core.teacher_projector is None:
        if weights["loss_distillation"]:
            raise ValueError(
                f"The collator has a teacher ({data_collator.teacher.name}), but the model has no teacher projector: "
                "its features would be computed for nothing. Build the model with teacher_size="
                f"{data_collator.teacher.feature_size}, or the collator with teacher=None."
            )
    idle = [name for name in weights if weights[name] and HEADS[name] == "geometric_validator"]
    if idle and core.geometric_validator is None:
        logger.warning(
            "The model has no geometric validator: %s are not trained. Build it with a validator_config, or set their "
            "weights to 0.",
            ", ".join(idle),
        )
    rates = {"learning_rate": args.learning_rate}
    rates |= {f"{part}_learning_rate": rate for part, rate in args.learning_rates.items()}
    for name, rate in rates.items():
        if rate > HIGH_RATE:
            logger.warning("%s=%g is above %g: a step replaces the weights. Is 1e-5 meant?", name, rate, HIGH_RATE)
    for part in sorted(set(args.frozen_parts) & set(args.learning_rates)):
        logger.warning("%s_learning_rate has no effect: frozen_parts hold %r.", part, part)


def warn_of_earlier_run(args: IDE3DTrainingArguments) -> None:
    """Say that a training which is not resumed writes into the folder of another."""
    earlier = list_checkpoints(args.output_dir)
    if earlier and args.save_strategy != "no" and args.should_save:
        rotated = f", and save_total_limit={args.save_total_limit} deletes them" if args.save_total_limit else ""
        logger.warning(
            "%s holds %d checkpoints of an earlier run, which this one does not go on from%s. Train with "
            "resume_from_checkpoint=True, or into another output_dir.",
            args.output_dir,
            len(earlier),
            rotated,
        )


class ExplainedCollator:
    """Collator of Trainer's choice, for samples that are tensors already; its errors name `data_collator`.

    Args:
        collate: The collator.
    """

    def __init__(self, collate: Callable[[Sequence[Any]], Mapping[str, Any]]):
        self.collate = collate

    def __call__(self, samples: Sequence[Any]) -> Mapping[str, Any]:
        """Collate."""
        try:
            return self.collate(samples)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            keys = sorted(samples[0]) if isinstance(samples[0], Mapping) else type(samples[0]).__name__
            raise ValueError(
                f"No data_collator was given, and the samples are no tensors of a text: {keys} ({error}). Give "
                "IDE3DTrainer data_collator=IDE3DDataCollator(processor)."
            ) from error


def describe_samples(batch: Mapping[str, Any]) -> str:
    """Name the samples of a batch for a message."""
    if "sample_names" in batch:
        return f"the samples {decode_names(batch['sample_names'])}"
    return "the samples of a batch without scene_id"


@contextmanager
def samples_named(batch: Mapping[str, Any]) -> Iterator[None]:
    """Put the names of a batch's samples before a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Of {describe_samples(batch)}: {error}") from error
