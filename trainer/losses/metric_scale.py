"""Loss of a scene's metric scale: how far away, in metres, what a video shows is on average."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.losses.blocks import graph_zero
from trainer.losses.relative_pose import CITATION_GEOVR

__all__ = ["MetricScaleLoss", "measure_scale_errors"]


@torch.no_grad()
def measure_scale_errors(predicted: Tensor, mean_depth: Tensor) -> Tensor:
    """Return the errors of predicted scales in percent of the truth.

    Shape:
        predicted:  (N,), logarithm of metres.
        mean_depth: (N,), metres, positive.
        output:     (N,), percent.
    """
    return 100 * (predicted.float().exp() / mean_depth.float() - 1).abs()


class MetricScaleLoss(nn.Module):
    """Huber loss between the logarithms of predicted and measured mean depth of a video.

    The scale of a video is the mean of its measured depth. Its logarithm makes errors relative: a room twice as large
    may be missed by twice as much. Videos whose depth has no unit are left out by a mean depth of 0.

    Source: GeoVR (arXiv 2606.05833) predicts a metric scale factor. Differs: the mean depth as scale and the
    logarithm are ours.

    Args:
        delta: Residual of the logarithms above which the loss grows linearly; 0.1 is about 10 %.

    Shape:
        predicted:  (N,), logarithm of metres.
        mean_depth: (N,), metres; 0 = not known.
        output:     scalar float32, without unit; unweighted. A zero that stays in the graph if no scale is known.

    Raises:
        ValueError: If the shapes differ, a mean depth is negative or not finite, or `delta` is not positive.

    Example:
        >>> loss = MetricScaleLoss(delta=1.0)(torch.zeros(2), torch.tensor([2.0, 0.0]))
        >>> round(loss.item(), 6)  # (ln 2)^2 / 2
        0.240227

    Related: `DepthRegressionLoss` compares every pixel, this loss one number of a video.
    """

    def __init__(self, delta: float = 0.1) -> None:
        super().__init__()
        if not delta > 0:
            raise ValueError(f"`delta` must be positive, got {delta}.")
        self.delta = delta

    def forward(self, predicted: Tensor, mean_depth: Tensor) -> Tensor:
        """Return the mean over the videos with a known scale; shapes as in the class."""
        if predicted.dim() != 1 or predicted.shape != mean_depth.shape:
            raise ValueError(
                f"`predicted` and `mean_depth` must have one shape (N,), got {tuple(predicted.shape)} and "
                f"{tuple(mean_depth.shape)}."
            )
        if not (torch.isfinite(mean_depth) & (mean_depth >= 0)).all():
            raise ValueError(
                f"`mean_depth` must be at least 0 and finite, in metres, got {mean_depth.tolist()}. 0 stands for a "
                "scale that is not known."
            )
        is_known = mean_depth > 0
        if not is_known.any():
            return graph_zero(predicted)
        target = mean_depth[is_known].float().log()
        return F.huber_loss(predicted[is_known].float(), target, delta=self.delta)

    @property
    def citation(self) -> str:
        """BibTeX of the work this loss comes from."""
        return CITATION_GEOVR
