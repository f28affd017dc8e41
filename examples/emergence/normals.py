"""Surface normals as a further dense target of the pool phase: targets from depth, a linear head, its term."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from trainer import IDE3DTrainer, IDE3DTrainingArguments
from trainer.geometry import unproject_depth

from .models import HEAD_SEEDS

__all__ = ["NormalsTrainer", "compare_normals", "measure_normals"]

LARGEST_STEP = 0.1  # depths of four neighbouring pixels differ by more, as a share of the least, at an edge
LEAST_SHARE = 0.5  # of the squares of a patch that a normal is a mean of


def measure_normals(depth: Tensor, intrinsics: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Return the mean normal of what each patch shows, and whether it has one.

    Each square of four neighbouring pixels gives a normal: the cross product of its two diagonals, towards the camera.
    A square counts if all four pixels have depth and the largest depth is at most 10 % above the least. The normal of
    a patch is the mean of those of its squares, brought to length 1. A patch has one if half of its squares count.

    Args:
        depth: Measured depth.
        intrinsics: Cameras of these pixels.
        patch_size: Side of a patch in pixels, at least 2.

    Shape:
        depth:      (..., rows * patch_size, cols * patch_size), metres, 0 = no measurement.
        intrinsics: (..., 3, 3), pixels.
        output:     normals (..., rows, cols, 3) in the camera's own axes (x right, y down, z forward), zeros where
                    there is none; valid (..., rows, cols), bool.
    """
    points = unproject_depth(depth, intrinsics)
    points = points.unflatten(-2, (-1, patch_size)).unflatten(-4, (-1, patch_size)).transpose(-4, -3)
    corners = (slice(None, -1), slice(1, None))
    a, b, c, d = (points[..., rows, columns, :] for rows in corners for columns in corners)
    depths = torch.stack([corner[..., 2] for corner in (a, b, c, d)])  # NaN without depth, which no rule lets pass
    counts = depths.amax(0) <= (1 + LARGEST_STEP) * depths.amin(0)
    normals = F.normalize(torch.linalg.cross(c - b, d - a), dim=-1)
    total = torch.where(counts.unsqueeze(-1), normals, 0.0).sum((-3, -2))
    valid = counts.float().mean((-2, -1)) >= LEAST_SHARE
    return torch.where(valid.unsqueeze(-1), F.normalize(total, dim=-1), 0.0), valid


def compare_normals(predicted: Tensor, normals: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of 1 - cosine over the valid patches, 0 without any.

    Shape:
        predicted: (..., 3), of any length.
        normals:   (..., 3), of length 1.
        valid:     (...), bool.
        output:    scalar.
    """
    distances = 1 - F.cosine_similarity(predicted, normals, dim=-1)
    return torch.where(valid, distances, 0.0).sum() / valid.sum().clamp(min=1)


class NormalsTrainer(IDE3DTrainer):
    """Trainer with the term of `compare_normals`, `loss_normals` in the logs.

    A linear layer predicts the normals of patches from the last hidden state that the depth decoder reads. During a
    training it is a part of the decoder, so that rate, decay and clipping are those of the heads. Then it is thrown
    away. It has random numbers of its own.

    Args:
        model: Training model with a depth decoder.
        args: Training arguments with a weight of depth or of cross-view; without these the decoder reads nothing.
        normals_weight: Weight of the term in the total loss.
        **kwargs: Further arguments of `IDE3DTrainer`. All samples of a batch must have equally many frames, and depth.
    """

    extra_figures = ("loss_normals",)

    def __init__(
        self,
        model: IDE3DForConditionalGenerationWithGeometry,
        args: IDE3DTrainingArguments,
        *,
        normals_weight: float,
        **kwargs: Any,
    ):
        super().__init__(model, args, **kwargs)
        self.normals_weight = normals_weight
        self._states: Tensor | None = None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train with the layer of the normals in the depth decoder."""
        decoder = self._core.geometric_validator
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.args.seed + HEAD_SEEDS["normals"])
            decoder.normals = nn.Linear(decoder.config.vision_hidden_size, 3)
        handle = decoder.register_forward_pre_hook(self._keep_states)
        try:
            return super().train(*args, **kwargs)
        finally:
            handle.remove()
            del decoder.normals

    def compute_extra_terms(self, inputs: dict[str, Any], targets: dict[str, Any]) -> tuple[dict, dict]:
        """Compute the term of a batch; the trainer logs it."""
        states, self._states = self._states, None
        patch_size = self._core.geometric_validator.config.patch_size
        normals, valid = measure_normals(inputs["depth"], inputs["intrinsics"], patch_size)
        predicted = self._core.geometric_validator.normals(states)
        return {"loss_normals": compare_normals(predicted, normals.flatten(-3, -2), valid.flatten(-2))}, {}

    def _keep_states(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._states = inputs[0][-1]  # (videos, V, P, C) of the last level

    def _want_terms(self, is_training: bool) -> dict[str, float]:
        weights = super()._want_terms(is_training)
        return {**weights, "loss_normals": self.normals_weight} if is_training else weights
