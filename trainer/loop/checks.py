"""Checks before a training starts, and zero gradients of heads that no step used."""

import os
from collections.abc import Callable
from typing import Any

from accelerate.utils import DistributedType
from torch import nn
from transformers import TrainerCallback
from transformers.utils import is_peft_available

from modeling_ide3d import IDE3DConfig
from modeling_ide3d.auxiliary import GeometricValidator, IDE3DForConditionalGenerationWithGeometry
from modeling_ide3d.auxiliary.outputs import CAMERA_TERMS, HEADS
from modeling_ide3d.shared_prefix import SHARED_PREFIX, can_share_prefix, is_split
from trainer.data_collator import IDE3DDataCollator
from trainer.loop.model_parts import freeze_parts
from trainer.supervision.criterion import GeometryCriterion
from trainer.training_arguments import IDE3DTrainingArguments

if is_peft_available():
    import peft


class IdleHeads(TrainerCallback):
    """Takes the zero gradients from heads that were not used in a step.

    The optimizer would let them decay, and count a step without a gradient in its averages.

    Args:
        get_model: Returns the training model of now.
    """

    def __init__(self, get_model: Callable[[], IDE3DForConditionalGenerationWithGeometry]):
        self.get_model = get_model

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """See the class."""
        for head in self.get_model().idle_heads():
            for parameter in head.parameters():
                parameter.grad = None


def find_training_model(model: nn.Module) -> IDE3DForConditionalGenerationWithGeometry:
    """The training model itself, or the one that PEFT wrapped.

    Raises:
        TypeError: It is another model.
    """
    core = model.get_base_model() if is_peft_available() and isinstance(model, peft.PeftModel) else model
    if not isinstance(core, IDE3DForConditionalGenerationWithGeometry):
        raise TypeError(
            f"IDE3DTrainer trains IDE3DForConditionalGenerationWithGeometry, got {type(core).__name__}. For the "
            "inference model alone, use transformers.Trainer."
        )
    return core


def prepare_model(model: nn.Module, args: IDE3DTrainingArguments) -> IDE3DForConditionalGenerationWithGeometry:
    """Give a training model its criterion and choose what is trained.

    Returns:
        The training model, without the wrapper of PEFT.

    Raises:
        TypeError: If the model has no place for a criterion.
        ValueError: If a name in `frozen_parts` is no part of the model, or a layer none of its hidden states.
    """
    core = find_training_model(model)
    core.criterion = GeometryCriterion(
        protocol=args.protocol,
        pair_mode=args.pair_mode,
        neighbor_range=args.neighbor_range,
        pairs_per_frame=args.pairs_per_frame,
        depth_range=args.depth_range,
        grounding_temperature=core.config.grounding_temperature,
    )
    text = core.config.get_text_config()
    if can_share_prefix(text) and not is_split(core) and not getattr(text, "attention_dropout", 0.0):
        text._attn_implementation = SHARED_PREFIX  # packed chats without a mask of pairs; else it is "sdpa"
    core.loss_chunk_size = args.loss_chunk_size
    core.read_layers(args.distillation_layers or None, args.camera_layer)
    for term in sorted(CAMERA_TERMS):
        if args.loss_weights[term]:
            core.add_camera_head(HEADS[term])
    if core is not model:
        # PEFT freezes all but its adapters; heads that no adapter file will hold are trained as they are.
        for parameter in core.geometry_parameters():
            parameter.requires_grad_(True)
    freeze_parts(core, args.frozen_parts)
    return core


def check_processes(args: IDE3DTrainingArguments, distributed_type: DistributedType, is_sharded: bool) -> None:
    """Raise ValueError where the processes cannot train this model as the arguments ask."""
    if args.n_gpu > 1:
        raise ValueError(
            f"One process sees {args.n_gpu} GPUs, and Trainer would copy the model to all of them without "
            "splitting the targets. Start one process a GPU: `accelerate launch` or `torchrun`."
        )
    is_fsdp_wanted = bool(args.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if is_fsdp_wanted and distributed_type != DistributedType.FSDP:
        raise ValueError(
            f"FSDP is asked for, but accelerate trains with {distributed_type.value}, which "
            "shards nothing. FSDP needs several processes, each with its own accelerator, and use_cpu=False."
        )
    if args.world_size > 1 and args.accelerator_config.dispatch_batches:
        raise ValueError(
            "accelerator_config dispatch_batches=True cuts batches by rows, and videos and images have rows of their "
            "own. Leave it out: each process then makes its own batches."
        )
    if is_sharded and args.loss_chunk_size:
        raise ValueError(
            f"loss_chunk_size={args.loss_chunk_size} calls the head once a chunk of a process, and with sharded "
            "weights the others would wait for it for ever. Set loss_chunk_size=0 with FSDP and DeepSpeed."
        )
    if is_sharded and args.max_nonfinite:
        raise ValueError(
            f"max_nonfinite={args.max_nonfinite} leaves batches out in one process, but with sharded weights the "
            "others would wait for its backward pass for ever. Set max_nonfinite=0 with FSDP and DeepSpeed."
        )


def check_protocol(args: IDE3DTrainingArguments, validator: GeometricValidator | None, data_collator: Any) -> None:
    """Set the collator's protocol where it is open; raise ValueError where protocols differ.

    A validator with the original's weights reads poses as the original does, also in a training by clean rules.
    """
    protocol, parts = args.protocol, {}
    if isinstance(data_collator, IDE3DDataCollator):
        if data_collator.protocol is None:
            data_collator.protocol = protocol
        parts["the collator"] = data_collator.protocol
    if validator is not None and protocol == "paper":
        parts["the geometric validator"] = validator.config.protocol
    for name, other in parts.items():
        if other != protocol:
            raise ValueError(
                f"The training arguments have protocol={protocol!r}, {name} has {other!r}. Build both with one "
                "protocol."
            )


def set_max_length(config: IDE3DConfig, data_collator: Any) -> None:
    """Give the collator the number of positions of the model, where it is open."""
    if isinstance(data_collator, IDE3DDataCollator) and data_collator.max_length is None:
        data_collator.max_length = getattr(config.get_text_config(), "max_position_embeddings", None)


__all__ = [
    "IdleHeads",
    "check_processes",
    "check_protocol",
    "find_training_model",
    "prepare_model",
    "set_max_length",
]
