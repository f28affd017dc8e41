"""Projector from the language model's states at visual tokens into the space of a frozen 3D teacher."""

from dataclasses import dataclass

import torch
from huggingface_hub.dataclasses import strict
from torch import nn


@strict
@dataclass
class TeacherProjectorConfig:
    """Sizes of the projector, used in training only.

    Args:
        hidden_size: Width of the language model.
        teacher_size: Width of the teacher's features; 2048 for the last aggregator layer of VGGT.
        initializer_range: Standard deviation of the first weights.

    Raises:
        StrictDataclassFieldValidationError: If a field has a wrong type.
        StrictDataclassClassValidationError: If a size is not positive.
    """

    hidden_size: int = 3584
    teacher_size: int = 2048
    initializer_range: float = 0.02

    def validate_architecture(self):
        """Check that there is something to project."""
        if self.hidden_size < 1 or self.teacher_size < 1:
            raise ValueError(
                f"`hidden_size` and `teacher_size` must be positive, got {self.hidden_size} and {self.teacher_size}."
            )


class TeacherProjector(nn.Module):
    """Linear - GELU - Linear into the space of the teacher.

    Source: 3D-IDE (arXiv 2604.03296), global distillation; official `proj_3d`.

    Args:
        config: Sizes.

    Shape:
        hidden_states: (..., hidden_size), final hidden states of the language model at visual tokens, newlines left
            out.
        output:        (..., teacher_size).
    """

    def __init__(self, config: TeacherProjectorConfig):
        super().__init__()
        self.config = config
        self.linear_1 = nn.Linear(config.hidden_size, 2 * config.hidden_size)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(2 * config.hidden_size, config.teacher_size)
        self.apply(self.reset_layer)

    @property
    def teacher_size(self) -> int:
        """Width of the teacher's features."""
        return self.config.teacher_size

    def reset_layer(self, layer: nn.Module) -> None:
        """Initialise a layer of this module as language models do: normal weights, biases of zero."""
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=self.config.initializer_range)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Project hidden states; ValueError for another width than `config.hidden_size`."""
        if hidden_states.shape[-1] != self.config.hidden_size:
            raise ValueError(
                f"`hidden_states` must have shape (..., {self.config.hidden_size}), got {tuple(hidden_states.shape)}."
            )
        return self.linear_2(self.act(self.linear_1(hidden_states.to(self.linear_1.weight.dtype))))


def rename_original_key(key: str) -> str:
    """Return the name in `TeacherProjector` of a weight of the original's `proj_3d`.

    Raises:
        ValueError: If the original module has no such weight.
    """
    layer, _, parameter = key.rpartition("proj_3d.")[2].partition(".")
    if layer not in _ORIGINAL_LAYERS or parameter not in ("weight", "bias"):
        raise ValueError(f"{key!r} is not a weight of the original proj_3d; expected 'proj_3d.0.weight' and the like.")
    return f"{_ORIGINAL_LAYERS[layer]}.{parameter}"


_ORIGINAL_LAYERS = {"0": "linear_1", "2": "linear_2"}

__all__ = ["TeacherProjector", "TeacherProjectorConfig", "rename_original_key"]
