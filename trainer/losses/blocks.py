"""Building blocks that several losses share."""

import math

import torch
from torch import Tensor

__all__ = [
    "CITATION_3D_IDE",
    "PAPER_HARD_MAX",
    "filter_upper_tail",
    "find_threshold",
    "gradient_difference",
    "gradient_difference_multiscale",
    "graph_zero",
    "replace_non_finite",
]

PAPER_HARD_MAX = 100.0  # Official: residuals, terms and measurements are clamped there.
MIN_KEPT_ELEMENTS = 1000  # Official: the quantile cuts only if more than this many values remain.
MAX_QUANTILE_ELEMENTS = 1_000_000  # Official: above it the threshold is taken from every k-th value.

CITATION_3D_IDE = """@inproceedings{3dide2026,
  title = {3D-IDE: 3D Implicit Depth Emergence},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2026},
  eprint = {2604.03296},
  archivePrefix = {arXiv}
}"""


def graph_zero(*tensors: Tensor) -> Tensor:
    """Return a float32 zero that stays in the graph of `tensors`.

    No parameter is left without a gradient then. NaN stays NaN.
    """
    return sum(((tensor.float() * 0).sum() for tensor in tensors), start=torch.zeros((), device=tensors[0].device))


def replace_non_finite(values: Tensor, hard_max: float | None = PAPER_HARD_MAX) -> Tensor:
    """Replace NaN and Inf by 0 and clamp the rest to +-`hard_max`.

    Official `check_and_fix_inf_nan`; "paper" only.
    """
    values = torch.where(torch.isfinite(values), values, 0.0)
    return values if hard_max is None else values.clamp(-hard_max, hard_max)


def find_threshold(values: Tensor, valid_range: float) -> Tensor:
    """Return the k-th smallest of values (n,), k = round(valid_range (n - 1)) + 1.

    Halves are rounded to even. Of more than a million values every ceil(n / 1e6)-th is taken. Official
    `torch_quantile`.
    """
    if values.numel() > MAX_QUANTILE_ELEMENTS:
        values = values[:: math.ceil(values.numel() / MAX_QUANTILE_ELEMENTS)]
    return values.kthvalue(round(valid_range * (values.numel() - 1)) + 1).values


def filter_upper_tail(values: Tensor, valid_range: float) -> Tensor:
    """Cut the largest values, so that the mean becomes the mean of the others.

    The length stays. Values at or above the `valid_range` quantile become 0, and the kept ones are multiplied by n /
    kept. Nothing happens unless more than 1,000 would be kept. Official quantile filter, without its clamp.

    Shape:
        values: (n,).
        output: (n,).
    """
    if values.numel() <= MIN_KEPT_ELEMENTS:
        return values
    is_kept = values.detach() < find_threshold(values.detach(), valid_range)
    num_kept = int(is_kept.sum())
    if num_kept <= MIN_KEPT_ELEMENTS:
        return values
    return torch.where(is_kept, values, 0.0) * (values.numel() / num_kept)


def gradient_difference(
    prediction: Tensor,
    measurement: Tensor,
    mask: Tensor,
    confidence: Tensor | None = None,
    *,
    gamma: float = 1.0,
    alpha: float = 0.2,
    hard_max: float | None = None,
) -> Tensor:
    """Return the L1 of the differences between neighbours of (prediction - measurement).

    Neighbours are horizontal and vertical, and both must be valid. The sum over all frames is divided by the number of
    valid *pixels* (official `gradient_loss`). With `confidence` each difference x becomes gamma x c - alpha log c,
    where c is taken at the right or lower pixel. The logarithm counts at masked pixels too, as in the original.

    Args:
        prediction: Predicted values.
        measurement: Measured values.
        mask: Valid pixels.
        confidence: Confidence of each pixel; None: no weights.
        gamma: Weight of x c.
        alpha: Weight of the log confidence.
        hard_max: Clamp of each difference; None: no clamp.

    Shape:
        prediction, measurement: (N, H, W) or (N, H, W, C).
        mask:                    (N, H, W), bool.
        confidence:              (N, H, W).
        output:                  scalar; 0 with a graph if nothing is valid.
    """
    if prediction.dim() == 3:
        prediction, measurement = prediction.unsqueeze(-1), measurement.unsqueeze(-1)
    weight = mask.to(prediction.dtype).unsqueeze(-1)
    residual = weight * (prediction - measurement)
    horizontal = (residual[:, :, 1:] - residual[:, :, :-1]).abs() * weight[:, :, 1:] * weight[:, :, :-1]
    vertical = (residual[:, 1:] - residual[:, :-1]).abs() * weight[:, 1:] * weight[:, :-1]
    if hard_max is not None:
        horizontal, vertical = horizontal.clamp(max=hard_max), vertical.clamp(max=hard_max)
    if confidence is not None:
        confidence = confidence.unsqueeze(-1).clamp(min=1e-6)
        right, lower = confidence[:, :, 1:], confidence[:, 1:]
        horizontal = gamma * horizontal * right - alpha * right.log()
        vertical = gamma * vertical * lower - alpha * lower.log()
    total = horizontal.sum() + vertical.sum()
    count = mask.sum()
    return total / count if count else graph_zero(residual)


def gradient_difference_multiscale(
    prediction: Tensor,
    measurement: Tensor,
    mask: Tensor,
    confidence: Tensor | None = None,
    *,
    num_scales: int = 4,
    gamma: float = 1.0,
    alpha: float = 0.2,
    hard_max: float | None = None,
) -> Tensor:
    """Return the mean of `gradient_difference` over every 1st, 2nd, 4th, ... pixel."""
    terms = []
    for scale in range(num_scales):
        step = (slice(None), slice(None, None, 2**scale), slice(None, None, 2**scale))
        term = gradient_difference(
            prediction[step],
            measurement[step],
            mask[step],
            None if confidence is None else confidence[step],
            gamma=gamma,
            alpha=alpha,
            hard_max=hard_max,
        )
        terms.append(term)
    return torch.stack(terms).mean()
