"""Loss of grounding: contrast between the true regions and all others."""

import torch
from torch import Tensor, nn

from trainer.losses.blocks import CITATION_3D_IDE, graph_zero

__all__ = ["RegionContrastLoss"]

CITATION_INFO_NCE = """@article{oord2018cpc,
  title = {Representation Learning with Contrastive Predictive Coding},
  author = {van den Oord, Aaron and Li, Yazhe and Vinyals, Oriol},
  journal = {arXiv:1807.03748},
  year = {2018}
}"""


class RegionContrastLoss(nn.Module):
    """InfoNCE over the regions of a scene.

    The loss of a row is -log(sum of exp(s / temperature) over the true columns / over all columns). Several true
    regions share one probability mass, so any of them may be found. The last column is "no such object"; it always
    competes and is the truth where nothing is meant. The loss is the mean over the rows with a true column. A row
    without one is no grounding sample and contributes nothing.

    Source: 3D-IDE (arXiv 2604.03296), grounding term of L_ce; official InfoNCE with temperature 0.07.
    Differs: written with logsumexp, so that large scores do not overflow; an empty truth is not changed in place.

    Args:
        temperature: Divisor of the scores.

    Shape:
        scores:         (B, N + 1), cosine similarities, padded regions at -inf.
        region_targets: (B, N + 1), bool; last column = no such object.
        output:         scalar float32, unweighted. A zero that stays in the graph if no row has a truth.

    Raises:
        ValueError: If the shapes differ, targets are not bool or point at padding, or the temperature is not positive.

    Example:
        >>> scores, targets = torch.zeros(1, 4), torch.tensor([[True, True, False, False]])
        >>> RegionContrastLoss()(scores, targets).item()  # log 2
        0.6931471824645996

    Related: used instead of the next-token loss of the `<ground>` token.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"`temperature` must be positive, got {temperature}.")
        self.temperature = temperature

    def forward(self, scores: Tensor, region_targets: Tensor) -> Tensor:
        """Return the mean over the rows with a truth; shapes as in the class."""
        if scores.dim() != 2 or scores.shape != region_targets.shape:
            raise ValueError(
                f"`scores` and `region_targets` must have one shape (B, N + 1), "
                f"got {tuple(scores.shape)} and {tuple(region_targets.shape)}."
            )
        if region_targets.dtype != torch.bool:
            raise ValueError(f"`region_targets` must be bool, got {region_targets.dtype}.")
        is_padding = torch.isneginf(scores.detach())
        if (is_padding & region_targets).any():
            rows = (is_padding & region_targets).any(1).nonzero().flatten().tolist()[:4]
            raise ValueError(f"`region_targets` point at padded regions (score -inf) in rows {rows}.")
        has_truth = region_targets.any(1)
        if not has_truth.any():
            return graph_zero(scores.masked_fill(is_padding, 0.0))
        logits = scores[has_truth].float() / self.temperature
        true_logits = logits.masked_fill(~region_targets[has_truth], -torch.inf)
        return (logits.logsumexp(1) - true_logits.logsumexp(1)).mean()

    @property
    def citation(self) -> str:
        """BibTeX of the works this loss comes from."""
        return f"{CITATION_3D_IDE}\n\n{CITATION_INFO_NCE}"
