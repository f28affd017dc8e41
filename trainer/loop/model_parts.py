"""The parts of a training model: what each is called, which are frozen, and what each learns at."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

PARTS = {
    "vision": ("model.vision_tower.",),
    "projector": ("model.multi_modal_projector.", "model.image_newline"),
    "language": ("model.language_model.", "lm_head."),
    "grounding": ("grounding_head.",),
    "geometry": ("geometric_validator.", "teacher_projector.", "pose_head.", "scale_head."),
}
# What DDP and PEFT put before the names of the model they wrap.
WRAPPERS = ("module.", "base_model.model.")


def find_part(name: str) -> str:
    """Find the part of a parameter by its name in the model or its wrapper.

    Raises:
        ValueError: If no part has such a parameter.
    """
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    for part, prefixes in PARTS.items():
        if name.startswith(prefixes):
            return part
    raise ValueError(f"Parameter {name!r} belongs to none of the parts {list(PARTS)}.")


def freeze_parts(model: nn.Module, parts: Iterable[str]) -> None:
    """Take the parameters of these parts out of the training.

    Raises:
        ValueError: If a name in `parts` is no part of the model.
    """
    parts = set(parts)
    if parts - set(PARTS):
        raise ValueError(f"frozen_parts must be of {list(PARTS)}, got {sorted(parts - set(PARTS))}.")
    for name, parameter in model.named_parameters():
        if find_part(name) in parts:
            parameter.requires_grad_(False)


def split_groups(
    groups: list[dict[str, Any]], names: Mapping[int, str], rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Split the parameter groups of an optimizer by part, for parts with a learning rate.

    Args:
        groups: Groups as the optimizer has them.
        names: Name of each parameter, by `id`.
        rates: Learning rate by part; the others keep that of their group.
    """
    split = []
    for group in groups:
        by_part: dict[str | None, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            part = find_part(names[id(parameter)])
            by_part.setdefault(part if part in rates else None, []).append(parameter)
        split += [
            {**group, "params": parameters, "lr": rates.get(part, group["lr"])} for part, parameters in by_part.items()
        ]
    return split


@torch.no_grad()
def compute_gradient_norms(model: nn.Module, scaler: torch.amp.GradScaler | None = None) -> dict[str, Tensor]:
    """Compute the L2 norm of each part's gradient; sharded gradients are summed over processes.

    Args:
        model: Training model after its backward pass.
        scaler: Loss scaler of float16 training, by whose scale the gradients are still multiplied; None: no scaler.
    """
    gradients: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradients.setdefault(find_part(name), []).append(parameter.grad)
    scale = 1.0 if scaler is None else scaler.get_scale()
    norms = {part: torch.nn.utils.get_total_norm(grads) / scale for part, grads in gradients.items()}
    return {part: norm.full_tensor() if isinstance(norm, DTensor) else norm for part, norm in norms.items()}


__all__ = ["PARTS", "compute_gradient_norms", "find_part", "freeze_parts", "split_groups"]
