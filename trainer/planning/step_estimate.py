"""Estimate parameters, memory of a process and operations of a training step. Experimental.

The activations are those of a fake step (`trainer.planning.fake_step`), which takes seconds and no weights for any
size of model; weights, gradients and optimizer are counted. How processes share them follows the documentation of DDP,
DeepSpeed and FSDP2 and was not measured on GPUs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from modeling_ide3d import IDE3DConfig
from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from processing.tables import markdown_table
from trainer.ide3d_trainer import prepare_model
from trainer.planning.fake_step import run_fake_step
from trainer.planning.step_recorder import GRADIENTS, STEP_PARTS, count_parameters
from trainer.training_arguments import IDE3DTrainingArguments

Sharding = Literal["none", "zero2", "zero3", "fsdp2"]

FLOAT32_BYTES = 4
ADAM_STATES = 2
ZERO_BUCKET = 500_000_000  # DeepSpeed's reduce_bucket_size; overlapping communication holds two
ZERO_LIVE = 1_000_000_000  # DeepSpeed's stage3_max_live_parameters
GIGABYTE = 1024**3
TERAFLOP = 10**12


@dataclass(frozen=True)
class Placement:
    """Processes of a training and what they split.

    Args:
        processes: Number of GPUs, one process each.
        sharding: Split parts: "none" (a copy of everything in each), "zero2" (gradients and optimizer), "zero3" or
            "fsdp2" (weights too).

    Raises:
        ValueError: If there is no process, or `sharding` is unknown.
    """

    processes: int = 1
    sharding: Sharding = "none"

    def __post_init__(self):
        if self.processes < 1:
            raise ValueError(f"processes must be at least 1, got {self.processes}.")
        if self.sharding not in get_args(Sharding):
            raise ValueError(f"sharding must be one of {get_args(Sharding)}, got {self.sharding!r}.")


@dataclass(frozen=True)
class StepEstimate:
    """Cost of a training step.

    Args:
        parameters: Number of parameters by part of `trainer.loop.model_parts.PARTS`.
        trainable: Number of trained parameters by part.
        memory: Bytes of a process: weights, optimizer, communication, batch, and at the peak gradients and
            activations. Not counted are CUDA, NCCL and unused blocks of the allocator.
        activations: Bytes of activations at the peak, by part of `trainer.planning.step_recorder.STEP_PARTS`.
        operations: Floating-point operations of a process in an optimizer step, by the same parts.
        num_pairs: Frame pairs of a batch.
        placement: Processes and what they split.
    """

    parameters: dict[str, int]
    trainable: dict[str, int]
    memory: dict[str, float]
    activations: dict[str, float]
    operations: dict[str, int]
    num_pairs: int
    placement: Placement

    @property
    def total_memory(self) -> float:
        """Bytes of a process."""
        return sum(self.memory.values())

    def as_text(self) -> str:
        """Return three tables in Markdown: parameters, memory and operations."""
        counts = [(part, count, self.trainable[part]) for part, count in self.parameters.items()]
        counts.append(("sum", sum(self.parameters.values()), sum(self.trainable.values())))
        rows = [(part, f"{count / 1e6:.2f} M", f"{trained / 1e6:.2f} M") for part, count, trained in counts]
        lines = [markdown_table(["parameters", "all", "trained"], rows, "lrr")]
        where = f"{self.placement.processes} process{'es' * (self.placement.processes > 1)}"
        sizes = [*self.memory.items(), ("sum", self.total_memory)]
        rows = [(name, f"{size / GIGABYTE:.3f} GB") for name, size in sizes]
        title = f"memory of a process ({where}, sharding {self.placement.sharding})"
        lines += ["", markdown_table([title, ""], rows, "lr"), ""]
        shares = sorted(self.activations.items(), key=lambda item: -item[1])
        largest = ", ".join(f"{part} {size / GIGABYTE:.2f}" for part, size in shares if size > 0.01 * shares[0][1])
        lines += [f"activations at the peak in GB: {largest}", "beside it: CUDA, NCCL, unused blocks of the allocator"]
        lines.append("")
        total = sum(self.operations.values()) or 1
        sums = [*self.operations.items(), ("sum", total)]
        rows = [(part, f"{count / TERAFLOP:.4f}", f"{100 * count / total:.1f}%") for part, count in sums]
        lines += [f"{self.num_pairs} frame pairs a batch", ""]
        lines.append(markdown_table(["TFLOP a step", "a process", "share"], rows, "lrr"))
        return "\n".join(lines)


def estimate_step(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    args: IDE3DTrainingArguments,
    placement: Placement | None = None,
) -> StepEstimate:
    """Estimate parameters, memory and operations of a training with AdamW.

    Args:
        model: Training model on the meta device, or PEFT's wrapper of one. It is of no other use afterwards.
        batch: Batch of a process, as the collator gives it; see `make_batch`.
        args: Training arguments: terms, precision, checkpointing, accumulation, frozen parts.
        placement: Processes and what they split; default: one process.

    Raises:
        TypeError: If it is no training model.
        ValueError: If it has weights, or the arguments do not fit it.
    """
    placement = placement or Placement()
    core = prepare_model(model, args)
    parameters, trainable = count_parameters(core), count_parameters(core, trainable=True)
    memory = _fixed_memory(core, args, placement)
    share = 1.0
    is_mixed = args.bf16 and placement.sharding == "none"
    if placement.sharding != "none":
        share = 1 / placement.processes
        if args.bf16:
            model.to(torch.bfloat16)  # what is computed with; DeepSpeed and FSDP keep float32 aside
        if placement.sharding == "fsdp2" and args.bf16:
            share *= 2  # gradients of float32 shards
    recorder, num_pairs = run_fake_step(model, batch, args, gradient_share=share, autocast=is_mixed)
    peak = {part: recorder.peak_parts.get(part, 0.0) for part in STEP_PARTS}
    memory |= {
        "batch": float(sum(value.numel() * value.element_size() for value in batch.values())),
        "gradients": recorder.peak_parts.get(GRADIENTS, 0.0),
        "activations": sum(peak.values()),
    }
    steps = args.gradient_accumulation_steps
    operations = {part: steps * recorder.operations[part] for part in STEP_PARTS}
    return StepEstimate(parameters, trainable, memory, peak, operations, num_pairs, placement)


def _fixed_memory(
    model: IDE3DForConditionalGenerationWithGeometry, args: IDE3DTrainingArguments, placement: Placement
) -> dict[str, float]:
    """Bytes of weights, of the optimizer, and of what is held to communicate."""
    values = list(model.parameters())
    trained = [value for value in values if value.requires_grad]
    count, count_trained = (sum(value.numel() for value in group) for group in (values, trained))
    weights, gradients = (sum(value.numel() * value.element_size() for value in g) for g in (values, trained))
    processes = placement.processes
    if placement.sharding == "none":
        buckets = gradients if processes > 1 else 0
        return {"weights": weights, "optimizer": ADAM_STATES * gradients, "communication": buckets}
    half = 2 if args.bf16 else FLOAT32_BYTES
    states = ADAM_STATES * FLOAT32_BYTES * count_trained / processes
    if placement.sharding == "fsdp2":
        gathered = half * _count_gathered(model, count)
        return {"weights": FLOAT32_BYTES * count / processes, "optimizer": states, "communication": gathered}
    states += FLOAT32_BYTES * count_trained / processes if args.bf16 else 0  # the weights that AdamW changes
    if placement.sharding == "zero2":
        bucket = 2 * half * min(ZERO_BUCKET, count_trained)
        return {"weights": half * count, "optimizer": states, "communication": bucket}
    live = half * min(ZERO_LIVE, count)
    return {"weights": half * count / processes, "optimizer": states, "communication": live}


def _count_gathered(model: IDE3DForConditionalGenerationWithGeometry, count: int) -> int:
    """Count the parameters that FSDP2 gathers at once: two layers, and all outside layers."""
    names = set(model._no_split_modules or ())
    layers = [
        sum(value.numel() for value in module.parameters())
        for module in model.modules()
        if type(module).__name__ in names
    ]
    return count - sum(layers) + 2 * max(layers, default=0)


def make_batch(
    config: IDE3DConfig,
    *,
    batch_size: int = 1,
    num_frames: int = 32,
    text_tokens: int = 128,
    num_regions: int = 0,
    teacher_size: int | None = None,
    native_size: tuple[int, int] | None = None,
) -> dict[str, Tensor]:
    """Make a batch of any size with everything that a sample may have.

    The camera looks at a wall and moves sideways, so that all frame pairs see each other.

    Args:
        config: Sizes of the model.
        batch_size: Samples of a process.
        num_frames: Frames of a video.
        text_tokens: Tokens of a sample beside its visual ones; half of them are answer.
        num_regions: Candidates of a grounding sample; 0 makes none.
        teacher_size: Width of the teacher's features; None for no teacher.
        native_size: Height and width of depth before any resize, for the protocol "paper".

    Returns:
        Tensors of `IDE3DDataCollator`; the pixels are on the meta device.

    Raises:
        ValueError: If a size is too small.
    """
    if min(batch_size, num_frames) < 1 or text_tokens < 4:
        raise ValueError(
            f"batch_size and num_frames must be at least 1 and text_tokens at least 4, got {batch_size}, {num_frames} "
            f"and {text_tokens}."
        )
    side, (rows, cols) = config.vision_config.image_size, config.token_grid
    batch = {
        **_make_text(config, batch_size, num_frames * config.tokens_per_frame, text_tokens),
        "pixel_values_videos": torch.empty(batch_size, num_frames, 3, side, side, device="meta"),
        "has_geometry": torch.ones(batch_size, dtype=torch.bool),
        "camera_to_world": torch.eye(4).repeat(batch_size, num_frames, 1, 1),
    }
    batch["camera_to_world"][..., 0, 3] = 0.01 * torch.arange(num_frames)
    batch["depth"], batch["intrinsics"] = _look_at_wall(batch_size, num_frames, side, side)
    if native_size is not None:
        batch["native_depth"], batch["native_intrinsics"] = _look_at_wall(batch_size, num_frames, *native_size)
    if teacher_size is not None:
        batch["teacher_features"] = torch.ones(batch_size, num_frames, rows, cols, teacher_size)
    if num_regions:
        batch["input_ids"][:, -2] = config.ground_token_id
        batch["region_masks"] = torch.ones(batch_size, num_regions, num_frames, rows, cols, dtype=torch.bool)
        batch["region_valid"] = torch.ones(batch_size, num_regions, dtype=torch.bool)
        batch["region_targets"] = torch.zeros(batch_size, num_regions + 1, dtype=torch.bool)
        batch["region_targets"][:, 0] = True
    return batch


def _make_text(config: IDE3DConfig, batch_size: int, visual: int, text_tokens: int) -> dict[str, Tensor]:
    """Make text with `visual` placeholders behind its first quarter; its second half is the answer."""
    before = text_tokens // 4
    word = next(n for n in range(4) if n not in (config.image_token_id, config.video_token_id, config.ground_token_id))
    ids = torch.full((batch_size, visual + text_tokens), word)
    ids[:, before : before + visual] = config.video_token_id
    labels = torch.full_like(ids, -100)
    labels[:, -(text_tokens // 2) :] = word
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


def _look_at_wall(batch_size: int, num_frames: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Depth (B, V, height, width) of a wall 2 m away, and intrinsics (B, V, 3, 3)."""
    camera = torch.tensor([[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1.0]])
    depth = torch.full((batch_size, num_frames, height, width), 2.0)
    return depth, camera.repeat(batch_size, num_frames, 1, 1)


__all__ = ["Placement", "Sharding", "StepEstimate", "estimate_step", "make_batch"]
