"""Loss of the difference between the depth predictions of two views."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainer.geometry import FramePairs, check_intrinsics
from trainer.geometry.checks import is_measurement
from trainer.losses.blocks import graph_zero
from trainer.losses.cross_view_depth import MIN_PIXELS_PER_PAIR
from trainer.losses.view_comparison import Tolerance, compare_pairs

__all__ = ["ViewConsistencyLoss"]

CITATION_CONSISTENCY = """@inproceedings{bian2019scsfm,
  title = {Unsupervised Scale-consistent Depth and Ego-motion Learning from Monocular Video},
  author = {Bian, Jiawang and Li, Zhichao and Wang, Naiyan and Zhan, Huangying and Shen, Chunhua and Cheng, Ming-Ming
    and Reid, Ian},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year = {2019}
}"""


class ViewConsistencyLoss(nn.Module):
    """Difference between the depths that two views predict for the same surface.

    Every pixel of one view is moved into the other one by its predicted depth and the known motion. There its z-depth
    is compared with the other view's prediction, sampled bilinearly in inverse depth, which is linear on planes. This
    is done in both directions. The value is 0 where the predictions are consistent (on planes exactly, on curved
    surfaces up to the interpolation), whatever the measurement says. Both views receive gradients.

    Hidden surfaces must not be compared. Where both views are measured, the measurement decides: its own warp has to
    agree within `relative_tolerance` and `absolute_tolerance`. Elsewhere (holes, or no `depth` at all) the prediction
    decides: a point that lies behind the other view's prediction by more than the tolerance is taken as hidden. A
    wrong prediction cannot hide in both directions at once.

    The loss of a pair is the mean over its compared pixels, both directions together; pairs with fewer than 10 of them
    drop out. The loss is the mean over the other pairs by their weights. Without any pair it is a zero that stays in
    the graph.

    Source: ours; the idea is Bian et al. 2019. The term that the original calls "consistency" compares one prediction
    with its measurement, see `CrossViewDepthLoss`; it stays available as `overlap_l1`.

    Args:
        relative_tolerance: Share of the depth by which two depths of one surface may differ.
        absolute_tolerance: Metres added to this share.

    Shape:
        predicted_depth: (B, V, H, W), metres, positive.
        intrinsics:      (B, V, 3, 3), of these pixels; each view has its own.
        pairs:           N frame pairs.
        depth:           (B, V, H, W), measured, metres, 0 = no measurement; None: nothing is measured.
        output:          scalar float32, metres; unweighted.

    Raises:
        ValueError: If the shapes do not agree, intrinsics of a paired frame are singular, or a measurement is broken.

    Example:
        >>> from trainer.geometry import select_frame_pairs
        >>> camera = torch.tensor([[8.0, 0.0, 3.5], [0.0, 8.0, 3.5], [0.0, 0.0, 1.0]]).expand(1, 2, 3, 3)
        >>> poses = torch.eye(4).repeat(1, 2, 1, 1)
        >>> poses[0, 1, 2, 3] = 1.0  # The second camera stands one metre nearer to the wall.
        >>> pairs = select_frame_pairs(poses)
        >>> wall = torch.tensor([3.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
        >>> ViewConsistencyLoss()(wall, camera, pairs).item()
        0.0

    Related: `CrossViewDepthLoss` compares with measurements.
    """

    def __init__(self, relative_tolerance: float = 0.02, absolute_tolerance: float = 0.02) -> None:
        super().__init__()
        self.relative_tolerance = relative_tolerance
        self.absolute_tolerance = absolute_tolerance

    def forward(
        self, predicted_depth: Tensor, intrinsics: Tensor, pairs: FramePairs, depth: Tensor | None = None
    ) -> Tensor:
        """Return the mean over pairs; shapes as in the class."""
        self._check(predicted_depth, intrinsics, depth)
        zero = graph_zero(predicted_depth.float())  # NaN has no pixel to be compared at, but must show.
        if not len(pairs):
            return zero
        arguments = self._prepare(predicted_depth, intrinsics, pairs, depth)
        return zero + _MeanDifference.apply(*arguments, torch.is_grad_enabled())  # Inside, it is always off.

    @torch.no_grad()
    def count_pairs(
        self, predicted_depth: Tensor, intrinsics: Tensor, pairs: FramePairs, depth: Tensor | None = None
    ) -> Tensor:
        """Return the weight of the compared pairs, a scalar; shapes as in the class."""
        return compare_pairs(*self._prepare(predicted_depth, intrinsics, pairs, depth))[1].sum()

    def _prepare(
        self, predicted_depth: Tensor, intrinsics: Tensor, pairs: FramePairs, depth: Tensor | None
    ) -> tuple[Tensor, Tensor, FramePairs, Tensor | None, Tolerance, int]:
        """Return the arguments of `compare_pairs`, in float32."""
        cameras = intrinsics.detach().float()
        for gather in (pairs.gather_source, pairs.gather_target):
            check_intrinsics(gather(cameras))
        pairs = replace(pairs, target_from_source=pairs.target_from_source.detach().float())
        measured = None if depth is None else depth.detach().float()
        tolerance = Tolerance(self.relative_tolerance, self.absolute_tolerance)
        return predicted_depth.float(), cameras, pairs, measured, tolerance, MIN_PIXELS_PER_PAIR

    @property
    def citation(self) -> str:
        """BibTeX of the work whose idea this loss follows."""
        return CITATION_CONSISTENCY

    @staticmethod
    def _check(predicted_depth: Tensor, intrinsics: Tensor, depth: Tensor | None) -> None:
        if predicted_depth.dim() != 4 or intrinsics.shape != (*predicted_depth.shape[:2], 3, 3):
            raise ValueError(
                "`predicted_depth` must have shape (B, V, H, W) and `intrinsics` (B, V, 3, 3), got "
                f"{tuple(predicted_depth.shape)} and {tuple(intrinsics.shape)}."
            )
        if depth is None:
            return
        if depth.shape != predicted_depth.shape:
            raise ValueError(
                f"`depth` must have the shape of `predicted_depth`, {tuple(predicted_depth.shape)}, "
                f"got {tuple(depth.shape)}."
            )
        if not is_measurement(depth):
            bad = ~(torch.isfinite(depth) & (depth >= 0))
            frames = bad.flatten(2).any(-1).nonzero().tolist()[:4]
            raise ValueError(
                f"`depth` holds {int(bad.sum())} NaN, Inf or negative values, first (sample, frame): {frames}. "
                "Write 0 where nothing was measured."
            )


class _MeanDifference(torch.autograd.Function):
    """Mean loss of pairs, with its gradient in the same pass.

    No map of a pair is kept for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, *arguments: Any) -> Tensor:
        *arguments, is_recorded = arguments
        gradient = None
        if is_recorded and ctx.needs_input_grad[0]:
            gradient = torch.zeros(prediction.shape, dtype=prediction.dtype, device=prediction.device)
        pair_loss, weight = compare_pairs(prediction, *arguments, gradient=gradient)
        total = weight.sum().clamp(min=torch.finfo(torch.float32).tiny)
        if gradient is not None:
            ctx.save_for_backward(gradient.div_(total))
        return (pair_loss * weight).sum() / total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, *(None,) * (len(ctx.needs_input_grad) - 1)
