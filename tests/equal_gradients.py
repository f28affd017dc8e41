"""One optimizer step over the same mixed samples, cut differently: all of them give one gradient.

As a script, `torchrun --nproc_per_node 2 equal_gradients.py OUTPUT [--fsdp] [--layers] [--cuda]` takes the step in two
processes; with 1, or without torchrun, in one. OUTPUT/gradients.pt of the first process has the update of each
parameter, OUTPUT/model the weights.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cpu_fsdp import enable_fsdp_on_cpu
from torch.distributed.tensor import DTensor
from training_samples import build_collator, build_model, chat, make_grounding_sample, make_regions, make_sample

from trainer import IDE3DDataCollator, IDE3DTrainer, IDE3DTrainingArguments
from trainer.processes import leave_processes

WEIGHTS = (
    "depth_weight",
    "cross_view_weight",
    "overlap_weight",
    "consistency_weight",
    "distillation_weight",
    "grounding_weight",
    "pose_weight",
    "scale_weight",
)
CAMERAS = {"pose_weight": 1.0, "scale_weight": 1.0}
LAYERS = {"distillation_layers": ["vision.1", "language.1", "language.2"], "camera_layer": "language.1"}
FSDP = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "state_dict_type": "FULL_STATE_DICT"}


def mixture() -> list[dict[str, Any]]:
    """Four samples that have as little in common as samples can: frames, regions, depth, poses, teacher, tasks."""
    holes = make_sample(3, seed=2, teacher=True)
    holes["depth"] = holes["depth"].copy()
    holes["depth"][0, :40] = 0
    holes["teacher_features"][1] = 0
    packed = [chat("How far is <ground>?", "2 m"), chat("Name it.")]
    return [
        make_grounding_sample(2, regions=4, teacher=True, seed=1),
        {"messages": chat(kind=None, answer="The ball")},
        holes,
        make_sample(1, geometry=False, messages=packed, region_masks=make_regions(1, 1)),
    ]


def take_step(
    output: Path,
    samples: list,
    per_device: int,
    accumulation: int = 1,
    make_trainer: Callable[..., IDE3DTrainer] = IDE3DTrainer,
    collator: IDE3DDataCollator | None = None,
    save: bool = False,
    **arguments: Any,
) -> dict[str, torch.Tensor]:
    """Change of each parameter by one step of plain gradient descent with learning rate 1."""
    model = build_model()
    args = IDE3DTrainingArguments(
        output_dir=str(output),
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        max_steps=1,
        optim="sgd",
        learning_rate=1.0,
        max_grad_norm=0,
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
        **{"use_cpu": True, **arguments},
    )
    torch.manual_seed(0)  # of the heads that the trainer adds
    trainer = make_trainer(model, args, train_dataset=samples, data_collator=collator or build_collator())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer.train()
    after = {name: parameter.detach() for name, parameter in model.named_parameters()}
    after = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in after.items()}
    if save:
        trainer.save_model(str(output / "model"))
    return {name: before[name] - after[name] for name in before}


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Largest difference of two gradients, relative to the largest entry of the first."""
    scale = max(value.abs().max() for value in left.values())
    return max(float((left[name] - right[name]).abs().max() / scale) for name in left)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    options = CAMERAS | (LAYERS if "--layers" in sys.argv else {})
    options |= {"loss_chunk_size": 2} if "--chunks" in sys.argv else {}
    if "--fsdp" in sys.argv:
        enable_fsdp_on_cpu()
        options |= {"fsdp": True, "fsdp_config": FSDP}
    if "--cuda" in sys.argv:
        torch.backends.cudnn.allow_tf32 = False  # ten bits would hide a difference
        options |= {"use_cpu": False, "ddp_backend": "nccl"}
    else:
        options["ddp_backend"] = "gloo"
    per_device = 4 // int(os.environ.get("WORLD_SIZE", "1"))
    update = take_step(folder, mixture(), per_device=per_device, save=True, **options)
    if int(os.environ.get("RANK", "0")) == 0:
        torch.save(update, folder / "gradients.pt")
    leave_processes()
