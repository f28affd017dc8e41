"""Loss of language-model states at visual tokens against features of a frozen 3D teacher."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.losses.blocks import CITATION_3D_IDE, graph_zero

__all__ = ["FeatureDistillationLoss"]


class FeatureDistillationLoss(nn.Module):
    """Mean over tokens of the squared distance between unit vectors of student and teacher.

    ||s / |s| - t / |t|||^2 summed over channels, 0 for equal directions, 2 for unrelated, 4 for opposite ones. The
    teacher is detached: its features are data.

    Source: 3D-IDE (arXiv 2604.03296), L_global; official `feature_3d_alignment`. One rule, no protocol.

    Shape:
        student: (..., C), states after `TeacherProjector`, newline tokens left out.
        teacher: (..., C), on the same token grid, see `processing.token_pooling`.
        mask:    (...), bool, tokens that count; default all.
        output:  scalar float32, unweighted. A zero that stays in the graph if no token counts.

    Raises:
        ValueError: If the shapes differ, the mask is not bool, or teacher features that count hold NaN or Inf.

    Example:
        >>> FeatureDistillationLoss()(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 2.0]])).item()
        2.0

    Related: the two depth losses supervise the vision tower, this one supervises the language model.
    """

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the mean over the tokens that count; shapes as in the class."""
        if student.shape != teacher.shape:
            raise ValueError(
                f"`student` and `teacher` must have one shape, got {tuple(student.shape)}, {tuple(teacher.shape)}."
            )
        if mask is not None and (mask.dtype != torch.bool or mask.shape != student.shape[:-1]):
            raise ValueError(
                f"`mask` must be bool of shape {tuple(student.shape[:-1])}, got {mask.dtype} {tuple(mask.shape)}."
            )
        chosen, target = student.float(), teacher.detach().float()
        if mask is not None:
            chosen, target = chosen[mask], target[mask]
        if chosen.numel() == 0:
            return graph_zero(student)
        bad = int((~torch.isfinite(target)).any(-1).sum())
        if bad:
            raise ValueError(
                f"`teacher` features of {bad} tokens hold NaN or Inf. "
                "Make them again, or leave these tokens out with `mask`."
            )
        distance = F.normalize(chosen, dim=-1) - F.normalize(target, dim=-1)
        return distance.square().sum(-1).mean()

    @property
    def citation(self) -> str:
        """BibTeX of the work this loss comes from."""
        return CITATION_3D_IDE
