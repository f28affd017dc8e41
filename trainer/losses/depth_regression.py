"""Loss of the depth of a view against its measurement, with the confidence predicted beside it."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer.geometry.checks import Protocol, check_protocol, check_same_shape, is_measurement
from trainer.losses.blocks import (
    CITATION_3D_IDE,
    PAPER_HARD_MAX,
    filter_upper_tail,
    gradient_difference_multiscale,
    graph_zero,
    replace_non_finite,
)

__all__ = ["MIN_VALID_PIXELS", "DepthLossTerms", "DepthRegressionLoss"]

MIN_VALID_PIXELS = 100  # Official threshold for the whole batch; below it the terms are noise.
PAPER_MIN_CONFIDENCE = 1e-6  # Official clamp before the logarithm; confidences of the head are above 1.

CITATION_CONFIDENCE = """@inproceedings{wang2024dust3r,
  title = {{DUSt3R}: Geometric 3D Vision Made Easy},
  author = {Wang, Shuzhe and Leroy, Vincent and Cabon, Yohann and Chidlovskii, Boris and Revaud, Jerome},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2024}
}"""


class DepthLossTerms(NamedTuple):
    """The three unweighted scalars in metres whose sum is the loss."""

    confidence: Tensor
    regression: Tensor
    gradient: Tensor


class DepthRegressionLoss(nn.Module):
    """Loss of predicted depth: a confidence, a regression and a gradient term.

    The terms over the valid pixels, with r = |predicted_depth - depth| and c = confidence:

    - regression: mean of r;
    - confidence: mean of gamma r c - alpha log c, which lets the network say where it is unsure (r is not detached);
    - gradient: L1 between neighbouring pixels' differences of (predicted_depth - depth), mean over `num_scales` scales
      of every 1st, 2nd, 4th, ... pixel. It keeps edges sharp and surfaces smooth.

    The first two drop their largest 2% (`valid_range`), if more than 1,000 values remain. With fewer than 100 valid
    pixels in the batch all terms are a zero that stays in the graph.

    Source: 3D-IDE (arXiv 2604.03296), L_geometry; official `MultitaskLoss` and `regression_loss`. Constants are
    theirs.

    Differences between the protocols:

    ================================  ===================================  ==================================
    rule                              paper (original)                     clean (default)
    ================================  ===================================  ==================================
    NaN or Inf in the measurement     becomes 0                            ValueError: bad data must be seen
    negative measurement              not valid                            ValueError, as above
    measurement above 100 m           clamped to 100 m                     as it is
    residuals and terms above 100     clamped, so their gradient vanishes  as they are
    NaN or Inf residual               0 in two terms, NaN in the gradient  NaN in all terms
    confidence below 1e-6             its logarithm is that of 1e-6        as it is (0 gives NaN)
    `depth_mask` where depth is 0     counts, as a measurement of 0 m      not valid
    ================================  ===================================  ==================================

    Args:
        gamma: Weight of r c in the confidence term.
        alpha: Weight of the log confidence.
        valid_range: Quantile above which values are dropped; 1 or more, or not positive, drops nothing.
        num_scales: Number of scales of the gradient term.
        protocol: "clean" or "paper".

    Shape:
        predicted_depth: (B, V, H, W), metres.
        confidence:      (B, V, H, W), at least 1 as the validator gives it.
        depth:           (B, V, H, W), metres, z-depth; 0 means no measurement.
        depth_mask:      (B, V, H, W), bool; default: where depth is above 0.
        output:          scalar float32, unweighted.

    Raises:
        ValueError: If the shapes differ, the mask is not bool, or (clean) a measurement is NaN, Inf or negative.

    Example:
        >>> depth = torch.rand(1, 2, 16, 16) + 1
        >>> loss = DepthRegressionLoss()(depth, torch.ones_like(depth), depth)
        >>> loss.item()
        0.0

    Related: `CrossViewDepthLoss` compares depth predicted from another view.
    """

    def __init__(
        self,
        gamma: float = 1.0,
        alpha: float = 0.2,
        valid_range: float = 0.98,
        num_scales: int = 4,
        protocol: Protocol = "clean",
    ) -> None:
        super().__init__()
        check_protocol(protocol)
        if num_scales < 1:
            raise ValueError(f"`num_scales` must be at least 1, got {num_scales}.")
        self.gamma = gamma
        self.alpha = alpha
        self.valid_range = valid_range
        self.num_scales = num_scales
        self.protocol = protocol

    def forward(
        self, predicted_depth: Tensor, confidence: Tensor, depth: Tensor, depth_mask: Tensor | None = None
    ) -> Tensor:
        """Return the sum of the three terms; shapes as in the class."""
        return sum(self.compute_terms(predicted_depth, confidence, depth, depth_mask))

    def compute_terms(
        self, predicted_depth: Tensor, confidence: Tensor, depth: Tensor, depth_mask: Tensor | None = None
    ) -> DepthLossTerms:
        """Return the three terms one by one; shapes as in the class."""
        if predicted_depth.dim() != 4:
            raise ValueError(f"`predicted_depth` must have shape (B, V, H, W), got {tuple(predicted_depth.shape)}.")
        check_same_shape("predicted_depth", predicted_depth, confidence=confidence, depth=depth)
        prediction, confidence, measurement = predicted_depth.float(), confidence.float(), depth.detach().float()
        measurement, mask = self._prepare_measurement(measurement, depth_mask)
        if int(mask.sum()) < MIN_VALID_PIXELS:
            return self._zero_terms(prediction, confidence)
        is_paper = self.protocol == "paper"
        # A norm over one channel, as in the original: same value as abs(), but its gradient at NaN is NaN.
        # One list of pixels for all three maps: each mask as index would be searched anew, and again for the gradient.
        pixels = mask.reshape(-1).nonzero().squeeze(1).int()
        measured, predicted, chosen = (
            each.reshape(-1).index_select(0, pixels) for each in (measurement, prediction, confidence)
        )
        residual = torch.linalg.vector_norm((measured - predicted).unsqueeze(-1), dim=-1)
        log_confidence = chosen.clamp(min=PAPER_MIN_CONFIDENCE).log() if is_paper else chosen.log()
        if is_paper:
            residual = replace_non_finite(residual)
        weighted = self.gamma * residual * chosen - self.alpha * log_confidence
        gradient = gradient_difference_multiscale(
            prediction.flatten(0, 1),
            measurement.flatten(0, 1),
            mask.flatten(0, 1),
            num_scales=self.num_scales,
            hard_max=PAPER_HARD_MAX if is_paper else None,
        )
        return DepthLossTerms(self._robust_mean(weighted), self._robust_mean(residual), gradient)

    def count_valid_pixels(self, depth: Tensor, depth_mask: Tensor | None = None) -> int:
        """Return the number of pixels over which the terms are taken.

        Below 100 the original turns its cross-view terms off too.
        """
        return int(self._prepare_measurement(depth.detach().float(), depth_mask)[1].sum())

    @property
    def citation(self) -> str:
        """BibTeX of 3D-IDE and of the form of the confidence term."""
        return f"{CITATION_3D_IDE}\n\n{CITATION_CONFIDENCE}"

    def _prepare_measurement(self, depth: Tensor, depth_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the measurement and the mask of valid pixels.

        A measurement that is not finite outside the mask becomes 0.
        """
        if depth_mask is not None:
            check_same_shape("depth", depth, depth_mask=depth_mask)
            if depth_mask.dtype != torch.bool:
                raise ValueError(f"`depth_mask` must be bool, got {depth_mask.dtype}.")
        if self.protocol == "paper":
            depth = replace_non_finite(depth)
            return depth, depth > 0 if depth_mask is None else depth_mask
        if depth_mask is None and is_measurement(depth):
            return depth, depth > 0
        inside = torch.ones_like(depth, dtype=torch.bool) if depth_mask is None else depth_mask
        for what, is_bad in (("NaN", depth.isnan()), ("Inf", depth.isinf()), ("negative", depth < 0)):
            count = int((is_bad & inside).sum())
            if count:
                frames = (is_bad & inside).flatten(2).any(-1).nonzero().tolist()[:4] if depth.dim() == 4 else []
                raise ValueError(
                    f"`depth` holds {count} {what} values inside the mask, first (sample, frame): {frames}. "
                    "Write 0 where nothing was measured, or leave the pixels out with `depth_mask`."
                )
        depth = torch.where(inside, depth, 0.0)
        return depth, depth > 0

    def _robust_mean(self, values: Tensor) -> Tensor:
        """Return the mean without the upper tail."""
        if self.protocol == "paper":
            values = replace_non_finite(values)
        kept = filter_upper_tail(values, self.valid_range) if 0 < self.valid_range < 1 else values
        if self.protocol == "paper":
            return replace_non_finite(kept).mean()
        # NaN and Inf lie in the tail that is cut; they must show in the loss all the same.
        extremes = torch.stack(torch.aminmax(values.detach()))  # NaN if any value is NaN.
        return torch.where(torch.isfinite(extremes).all(), kept.mean(), torch.nan)

    def _zero_terms(self, prediction: Tensor, confidence: Tensor) -> DepthLossTerms:
        if self.protocol == "paper":
            prediction, confidence = replace_non_finite(prediction), replace_non_finite(confidence)
        zero = graph_zero(prediction, confidence)
        return DepthLossTerms(zero, zero, zero)
