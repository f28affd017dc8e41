"""What `train.py` needs beside rooms: benchmark data, large models, adapters, the dry run and the export."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import Subset

from modeling_ide3d import IDE3DConfig, IDE3DForConditionalGeneration
from processing import IDE3DProcessor
from processing.regions import TokenGrid
from trainer import IDE3DTrainer, IDE3DTrainingArguments, export_inference_model
from trainer.loop.adapters import merge_adapters
from trainer.loop.benchmark_mixture import build_benchmark_mixture
from trainer.loop.mixture import MixtureDataset
from trainer.model_card import TeacherFacts, create_model_card, list_loss_terms
from trainer.planning.step_estimate import make_batch
from trainer.teachers import Teacher

logger = logging.getLogger("train")

NATIVE_SIZE = (480, 640)  # depth of ScanNet
STORED_TEACHER = TeacherFacts(name="facebook/VGGT-1B, as vggt_sliced.npy", licence="cc-by-nc-4.0")
SHARDED_WEIGHTS = "weights"  # folder in the output folder that split weights are gathered in before the export


@dataclass
class WeightArguments:
    """How weights are held and trained, and what the dry run supposes."""

    dtype: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "Type that the weights of a checkpoint are loaded in."}
    )
    attention: str | None = field(
        default=None, metadata={"help": "Attention implementation of a checkpoint, such as flash_attention_2."}
    )
    lora_rank: int = field(default=0, metadata={"help": "Rank of low-rank adapters; 0 trains the weights themselves."})
    lora_alpha: float | None = field(default=None, metadata={"help": "Scale of adapters; default: twice the rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the adapters."})
    validator_chunk: int | None = field(
        default=None, metadata={"help": "Frames that the depth decoder takes at a time, for less memory."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Say what a step takes (memory, operations), and train nothing."}
    )
    planned_config: str | None = field(
        default=None, metadata={"help": "config.json that the dry run takes where the checkpoint is not there."}
    )
    planned_processes: int = field(default=1, metadata={"help": "GPUs that the dry run supposes."})
    planned_sharding: Literal["none", "zero2", "zero3", "fsdp2"] = field(
        default="none", metadata={"help": "What they split, as the dry run supposes."}
    )
    planned_teacher_size: int = field(
        default=2048, metadata={"help": "Width of stored teacher features, as the dry run supposes."}
    )
    planned_text_tokens: int = field(
        default=256, metadata={"help": "Tokens beside the visual ones of a sample, as the dry run supposes."}
    )


@dataclass
class BenchmarkArguments:
    """Benchmarks in the public layout as training data."""

    source: Literal["rooms", "benchmarks"] = field(
        default="rooms", metadata={"help": "Procedural rooms, or benchmarks in data_dir."}
    )
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the benchmarks in the public layout."})
    tasks: list[str] = field(
        default_factory=lambda: ["scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d"],
        metadata={"help": "Benchmarks that are trained on."},
    )
    task_weights: list[float] = field(
        default_factory=list, metadata={"help": "Share of each of the tasks; default: every sample once an epoch."}
    )
    frames: Literal["uniform", "listed", "coverage"] = field(
        default="uniform", metadata={"help": "Which frames of a scene are shown; a stored teacher has uniform ones."}
    )
    regions: Literal["depth", "poses"] = field(
        default="depth", metadata={"help": "Whether masks of boxes are made from depth or from poses alone."}
    )
    skip_invalid_poses: bool = field(
        default=False, metadata={"help": "Leave out frames whose pose is not finite, instead of an error."}
    )
    num_validation_samples: int = field(
        default=64, metadata={"help": "Samples of each benchmark's validation split for the evaluation loss; 0: none."}
    )


def check_weights(weights: Any, args: IDE3DTrainingArguments) -> None:
    """Raise ValueError where training the weights in bfloat16 would lose most of what is learned, or not run."""
    if weights.dtype != "bfloat16":
        return
    if weights.lora_rank and not args.bf16:
        raise ValueError("Adapters are float32: set bf16: true beside dtype: bfloat16, or dtype: float32.")
    if not (weights.lora_rank or args.deepspeed_plugin):
        raise ValueError(
            "Weights in bfloat16 would round away small updates. Launch with DeepSpeed, which keeps float32 weights "
            "beside them (accelerate launch --config_file examples/recipes/accelerate/zero2.yaml), train adapters "
            "(lora_rank), or set dtype: float32."
        )


def build_benchmarks(
    data: Any, args: IDE3DTrainingArguments, grid: TokenGrid, has_teacher: bool
) -> tuple[MixtureDataset, MixtureDataset | None]:
    """Training and evaluation data.

    Raises:
        ValueError: No folder is named; see also `build_benchmark_mixture`.
        FileNotFoundError: A file of the folder is missing.
    """
    if data.data_dir is None:
        raise ValueError("source: benchmarks needs data_dir, the folder of the benchmarks in the public layout.")
    weights = args.loss_weights
    options = {
        "protocol": args.protocol,
        "frames": data.frames,
        "num_frames": data.num_frames,
        "has_geometry": any(weights[name] for name in weights if name not in ("loss_distillation", "loss_grounding")),
        "has_teacher": has_teacher,
        "regions": data.regions,
        "skip_invalid_poses": data.skip_invalid_poses,
    }
    train = build_benchmark_mixture(data.tasks, "train", data.data_dir, grid, weights=data.task_weights, **options)
    count = data.num_validation_samples
    if not count:
        return train, None
    whole = build_benchmark_mixture(data.tasks, "val", data.data_dir, grid, **options)
    parts = {
        name: Subset(part, range(0, len(part), -(-len(part) // count))[:count])
        for name, part in whole.datasets.items()
    }
    return train, MixtureDataset(parts)


def plan_batch(
    config: IDE3DConfig, weights: Any, data: Any, args: IDE3DTrainingArguments, teacher_size: int | None
) -> dict[str, torch.Tensor]:
    """A batch of benchmark samples as the dry run supposes it."""
    return make_batch(
        config,
        batch_size=args.per_device_train_batch_size,
        num_frames=data.num_frames,
        text_tokens=weights.planned_text_tokens,
        num_regions=50,  # as many proposals as the original takes
        teacher_size=teacher_size,
        native_size=NATIVE_SIZE if args.protocol == "paper" else None,
    )


def read_config(weights: Any) -> IDE3DConfig:
    """Config of the checkpoint, or the planned one where it is not there.

    Raises:
        FileNotFoundError: Neither is there.
    """
    folder = Path(weights.model_name_or_path)
    if (folder / "config.json").is_file():
        return IDE3DConfig.from_pretrained(folder)
    if weights.planned_config is None or not Path(weights.planned_config).is_file():
        raise FileNotFoundError(
            f"There is neither {folder / 'config.json'} nor a planned_config ({weights.planned_config}): name the "
            "config.json of the model that the dry run is about."
        )
    return IDE3DConfig.from_json_file(weights.planned_config)


def export(trainer: IDE3DTrainer, processor: IDE3DProcessor, teacher: Teacher | TeacherFacts | None) -> None:
    """Write `export` into the output folder; all processes call it, the first one writes.

    Raises:
        ValueError: Adapters of a model whose weights are split.
    """
    output = Path(trainer.args.output_dir)
    is_split = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if is_split and trainer._core is not trainer.model:
        raise ValueError(f"Adapters are not merged where weights are split; those of {output} are in its checkpoints.")
    losses = list_loss_terms(trainer)
    if is_split:
        trainer.save_model(str(output / SHARDED_WEIGHTS))
    if not trainer.is_world_process_zero():
        return
    if is_split:
        model = IDE3DForConditionalGeneration.from_pretrained(output / SHARDED_WEIGHTS, dtype="auto")
    else:
        model = merge_adapters(trainer.model)
    card = create_model_card(model_name=output.name, losses=losses, teacher=teacher, config=model.config)
    dtype = model.lm_head.weight.dtype  # adapters, and what is trained beside them, may have another
    folder = export_inference_model(model, processor, output / "export", card=card, dtype=dtype)
    logger.info("Exported to %s", folder)
