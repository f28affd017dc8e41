"""Loss of the depth of one view, predicted from the features of another."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.geometry.checks import Protocol, check_protocol, check_same_shape, is_measurement
from trainer.losses.blocks import CITATION_3D_IDE, graph_zero, replace_non_finite

__all__ = ["MIN_PIXELS_PER_PAIR", "CrossViewDepthLoss"]

MIN_PIXELS_PER_PAIR = 10  # Official threshold per pair; below it the mean is noise.
PAPER_MIN_DEPTH = 0.01  # Metres, official: smaller measurements count as missing.


class CrossViewDepthLoss(nn.Module):
    """L1 between the depth of a target view, predicted from a source view, and measured.

    The loss of a pair is the mean over its covisible, measured pixels; pairs with fewer than 10 of them drop out. The
    loss is the mean over the other pairs. Without any pair it is a zero that stays in the graph.

    Source: 3D-IDE (arXiv 2604.03296), cross-view term; official `compute_cross_view_prediction_loss`, without its
    factor 0.1. The original's "consistency" term (`cross_view_depth_consistency_loss`) is this same L1 on the target
    frame's *own* prediction and never compares two views. `pairs.gather_target(predicted_depth)` as prediction gives
    it ("overlap L1").

    Differences between the protocols:

    - paper: measurements up to 0.01 m count as missing. If sizes differ, depth is resized bilinearly (zeros mix in)
      and the mask by nearest. One NaN or Inf pixel in a target's measurement makes the pair's loss 0, and the pair
      still counts. The weighted sum is divided by the number of pairs.
    - clean: sizes must agree. A NaN, Inf or negative measurement inside the mask raises an error. NaN in the
      prediction on a used pixel stays NaN. The weighted sum is divided by the sum of the weights.

    Args:
        protocol: "clean" or "paper".

    Shape:
        predicted_depth: (N, H, W), metres. N pairs, flattened over the batch.
        target_depth:    (N, H, W), metres, z-depth; 0 means no measurement.
        covisible:       (N, H, W), bool, in the target view.
        weight:          (N,), default 1.
        output:          scalar float32, metres; unweighted.

    Raises:
        ValueError: If the shapes differ (in "paper" only the number of pairs), the mask is not bool, or (clean) a
            measurement is broken.

    Example:
        >>> depth = torch.ones(3, 8, 8)
        >>> CrossViewDepthLoss()(depth + 0.5, depth, torch.ones_like(depth, dtype=torch.bool)).item()
        0.5

    Related: `DepthRegressionLoss` compares a view's own prediction. `covisibility_mask` makes the mask.
    """

    def __init__(self, protocol: Protocol = "clean") -> None:
        super().__init__()
        check_protocol(protocol)
        self.protocol = protocol

    def forward(
        self, predicted_depth: Tensor, target_depth: Tensor, covisible: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """Return the mean over pairs; shapes as in the class."""
        prediction, measurement, covisible = self._check(predicted_depth, target_depth, covisible)
        weight = self._check_weight(weight, prediction)
        pair_loss, counts = self._pair_losses(prediction, measurement, covisible)
        is_used = counts >= MIN_PIXELS_PER_PAIR
        if not is_used.any():
            return graph_zero(replace_non_finite(prediction) if self.protocol == "paper" else prediction)
        total = (pair_loss * weight)[is_used].sum()
        return total / (is_used.sum() if self.protocol == "paper" else weight[is_used].sum())

    @torch.no_grad()
    def count_pairs(self, target_depth: Tensor, covisible: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the divisor of the mean: the sum of the weights of the used pairs.

        In "paper" it is the number of these pairs.
        """
        nothing = target_depth.new_zeros(()).expand(covisible.shape)
        prediction, measurement, covisible = self._check(nothing, target_depth, covisible)
        is_used = self._find_used(measurement, covisible).flatten(1).sum(1) >= MIN_PIXELS_PER_PAIR
        return is_used.sum() if self.protocol == "paper" else self._check_weight(weight, prediction)[is_used].sum()

    @staticmethod
    def _check_weight(weight: Tensor | None, prediction: Tensor) -> Tensor:
        if weight is None:
            return prediction.new_ones(len(prediction))
        if weight.shape != prediction.shape[:1]:
            raise ValueError(f"`weight` must have shape ({len(prediction)},), got {tuple(weight.shape)}.")
        return weight.to(prediction)

    @property
    def citation(self) -> str:
        """BibTeX of the work this loss comes from."""
        return CITATION_3D_IDE

    def _check(
        self, predicted_depth: Tensor, target_depth: Tensor, covisible: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if predicted_depth.dim() != 3:
            raise ValueError(f"`predicted_depth` must have shape (N, H, W), got {tuple(predicted_depth.shape)}.")
        if covisible.dtype != torch.bool:
            raise ValueError(f"`covisible` must be bool, got {covisible.dtype}.")
        prediction, measurement = predicted_depth.float(), target_depth.detach().float()
        if self.protocol == "paper" and len(measurement) == len(covisible) == len(prediction):
            measurement, covisible = _resize_as_original(measurement, covisible, prediction.shape[-2:])
        check_same_shape("predicted_depth", prediction, target_depth=measurement, covisible=covisible)
        if self.protocol == "clean" and not is_measurement(measurement):
            is_bad = covisible & ~(torch.isfinite(measurement) & (measurement >= 0))
            if is_bad.any():
                pairs = is_bad.flatten(1).any(1).nonzero().flatten().tolist()[:4]
                raise ValueError(
                    f"`target_depth` holds {int(is_bad.sum())} NaN, Inf or negative values inside `covisible`, "
                    f"first pairs: {pairs}. Write 0 where nothing was measured."
                )
        return prediction, measurement, covisible

    def _find_used(self, measurement: Tensor, covisible: Tensor) -> Tensor:
        """Return the pixels (N, H, W) that are covisible and measured."""
        return covisible & (measurement > (PAPER_MIN_DEPTH if self.protocol == "paper" else 0))

    def _pair_losses(self, prediction: Tensor, measurement: Tensor, covisible: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean L1 (N,) of each pair and its number of used pixels (N,)."""
        is_used = self._find_used(measurement, covisible)
        counts = is_used.flatten(1).sum(1)
        if self.protocol == "paper":
            # Multiplied, not selected: that is how one NaN pixel outside the mask empties the pair in the original.
            total = ((prediction - measurement).abs() * is_used).flatten(1).sum(1)
            return replace_non_finite(total / counts.clamp(min=1)), counts
        residual = torch.where(is_used, (prediction - measurement).abs(), 0.0)
        return residual.flatten(1).sum(1) / counts.clamp(min=1), counts


def _resize_as_original(measurement: Tensor, covisible: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    if measurement.shape[-2:] != size:
        measurement = F.interpolate(measurement.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)
    if covisible.shape[-2:] != size:
        covisible = F.interpolate(covisible.unsqueeze(1).float(), size, mode="nearest").squeeze(1) > 0.5
    return measurement, covisible
