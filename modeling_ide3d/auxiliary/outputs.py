"""Outputs of the training model, and the interface of the criterion that compares them with targets."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from modeling_ide3d.modeling_ide3d import IDE3DCausalLMOutputWithPast

# Head that receives gradients only from these terms. Three of them look at pairs of frames.
HEADS = {
    "loss_grounding": "grounding_head",
    "loss_depth": "geometric_validator",
    "loss_cross_view_depth": "geometric_validator",
    "loss_overlap_l1": "geometric_validator",
    "loss_view_consistency": "geometric_validator",
    "loss_distillation": "teacher_projector",
    "loss_pose": "pose_head",
    "loss_scale": "scale_head",
}
CAMERA_TERMS = frozenset({"loss_pose", "loss_scale"})
PAIR_TERMS = frozenset({"loss_cross_view_depth", "loss_overlap_l1", "loss_view_consistency"})


@dataclass
class IDE3DGeometryOutputWithPast(IDE3DCausalLMOutputWithPast):
    """Outputs of [`IDE3DForConditionalGenerationWithGeometry`]; every loss term is an unweighted scalar.

    Shape:
        logits:                   (B, L, V); in training mode (B, answers, V), see `logits_to_keep` of the model.
        loss:                     scalar, next-token loss of the answers (`loss_language` in the logs).
        loss_grounding:           scalar, contrast between true regions and all others.
        loss_depth:               scalar, depth of each frame against its measurement.
        loss_cross_view_depth:    scalar, depth of a frame predicted from another frame.
        loss_overlap_l1:          scalar, a frame's own depth where another frame sees it too.
        loss_view_consistency:    scalar, depth predictions of two frames against each other.
        loss_distillation:        scalar, distance to the teacher's features, a mean over layers.
        loss_pose:                scalar, poses between frames against the measured ones.
        loss_scale:               scalar, mean depth of each video against the measured one.
        depth, depth_confidence:  (videos, V, h, w), metres; pixels of the validator.
        cross_view_depth:         (N, h, w), metres; N frame pairs.
        teacher_prediction:       (frames, rows, cols, C); (layers, frames, rows, cols, C) of several layers.
        pose:                     (N, 9), N frame pairs; see `PoseHead`.
        scale:                    (videos,), logarithm of metres.
        region_scores:            (B, regions + 1), cosine similarities.
    """

    loss_grounding: torch.Tensor | None = None
    loss_depth: torch.Tensor | None = None
    loss_cross_view_depth: torch.Tensor | None = None
    loss_overlap_l1: torch.Tensor | None = None
    loss_view_consistency: torch.Tensor | None = None
    loss_distillation: torch.Tensor | None = None
    loss_pose: torch.Tensor | None = None
    loss_scale: torch.Tensor | None = None
    depth: torch.Tensor | None = None
    depth_confidence: torch.Tensor | None = None
    cross_view_depth: torch.Tensor | None = None
    teacher_prediction: torch.Tensor | None = None
    pose: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    region_scores: torch.Tensor | None = None


class Criterion(Protocol):
    """Comparison of predictions with targets; the model itself knows no loss.

    Attributes:
        terms: Names of the wanted terms; a head that none of them needs does not run.
    """

    terms: frozenset[str]

    def select_pairs(
        self,
        depth: torch.Tensor,
        intrinsics: torch.Tensor,
        camera_to_world: torch.Tensor,
        has_geometry: torch.Tensor,
        size: tuple[int, int],
        depth_alignment: torch.Tensor | None = None,
    ) -> Any:
        """Choose frame pairs (`batch`, `source`, `target_from_source`) for a prediction of `size` pixels.

        Where some depth is pseudo, `depth_alignment` (videos,) says what is unknown about it.
        """

    def build_camera_targets(
        self,
        depth: torch.Tensor,
        camera_to_world: torch.Tensor | None,
        usable: torch.Tensor,
        posed: torch.Tensor,
    ) -> dict[str, Any]:
        """Build `mean_depth`, `pose_pairs` and `pair_depth` for the wanted terms of cameras."""

    def __call__(self, outputs: IDE3DGeometryOutputWithPast, targets: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Compute the loss terms that have targets, by the name of their field."""


__all__ = ["CAMERA_TERMS", "HEADS", "PAIR_TERMS", "Criterion", "IDE3DGeometryOutputWithPast"]
