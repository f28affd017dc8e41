"""Comparison of the depth predictions of paired views, with its gradient in the same pass."""

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.geometry import FramePairs
from trainer.geometry.cameras import invert_pose
from trainer.geometry.warping import (
    Interpolation,
    Landing,
    drop_missing,
    find_inside,
    interpolate_depth,
    land_pixels,
    project_rays,
    split_pairs,
)

__all__ = ["Tolerance", "compare_pairs"]

ROUNDING = 1e-5  # Relative difference that float32 leaves after a warp; below it two depths are the same.


class Tolerance(NamedTuple):
    """Difference up to which two depths are of one surface.

    Args:
        relative: Share of the depth.
        absolute: Metres added to this share.
    """

    relative: float
    absolute: float

    def at(self, depth: Tensor) -> Tensor:
        """Return the tolerance in metres at each depth."""
        return (depth * self.relative).add_(self.absolute)


class _View(NamedTuple):
    """One of both views of some pairs.

    Shape:
        prediction:  (N, H, W), metres; NaN = no prediction.
        measured:    (N, H, W), metres; NaN = no measurement. None: nothing is measured.
        camera:      (N, 3, 3), pixels.
        slope:       (N, H, W), where the gradient of the summed differences is added; None: nowhere.
    """

    prediction: Tensor
    measured: Tensor | None
    camera: Tensor
    slope: Tensor | None


def compare_pairs(
    prediction: Tensor,
    intrinsics: Tensor,
    pairs: FramePairs,
    measured: Tensor | None,
    tolerance: Tolerance,
    min_pixels: int,
    gradient: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return loss and weight of each pair; see `ViewConsistencyLoss` for the rule.

    Memory does not grow with the number of pairs: they are compared a few at a time, and what a gradient needs is used
    at once instead of being kept.

    Args:
        prediction: Predicted depth.
        intrinsics: Cameras of these pixels.
        pairs: Frame pairs, motions in the type of the prediction.
        measured: Measured depth, 0 = no measurement; None: nothing is measured.
        tolerance: Difference up to which two depths are of one surface.
        min_pixels: Least number of compared pixels of a pair; one with fewer weighs 0.
        gradient: Map to which the gradient of the sum of weight times loss is added; None: it is not computed.

    Shape:
        prediction, measured, gradient: (B, V, H, W), metres, float32.
        intrinsics:                     (B, V, 3, 3), pixels.
        output:                         (N,) each, metres and weight.
    """
    size = (prediction.shape[2], prediction.shape[3])
    losses, weights = prediction.new_empty(len(pairs)), prediction.new_empty(len(pairs))
    for part in split_pairs(len(pairs), size, prediction.device):
        some = pairs.select(part)
        source, target = (
            _View(
                drop_missing(gather(prediction)),
                None if measured is None else drop_missing(gather(measured)),
                gather(intrinsics),
                None if gradient is None else prediction.new_zeros(len(some), *size),
            )
            for gather in (some.gather_source, some.gather_target)
        )
        there, there_count = _compare(source, target, some.target_from_source, tolerance)
        back, back_count = _compare(target, source, invert_pose(some.target_from_source), tolerance)
        count = there_count + back_count
        divisor = count.clamp(min=1)
        losses[part] = (there + back) / divisor
        weights[part] = some.weight.to(prediction) * (count >= min_pixels)
        if gradient is not None:
            share = (weights[part] / divisor).view(-1, 1, 1)
            for view, frames in ((source, some.source), (target, some.target)):
                places = some.batch * prediction.shape[1] + frames
                gradient.flatten(0, 1).index_add_(0, places, view.slope.mul_(share))
    return losses, weights


def _compare(own: _View, other: _View, other_from_own: Tensor, tolerance: Tolerance) -> tuple[Tensor, Tensor]:
    """Compare the pixels of `own`, moved into `other`, with what `other` predicts there.

    The derivatives of the summed differences are added to the slopes of both.

    Returns:
        Sum of the differences (N,), metres, and number of compared pixels (N,).
    """
    size = (own.prediction.shape[1], own.prediction.shape[2])
    landing = land_pixels(own.prediction, own.camera, other.camera, other_from_own)
    between = interpolate_depth(other.prediction, landing)
    is_hidden = landing.z > tolerance.at(landing.z).add_(between.depth)
    if own.measured is not None and other.measured is not None:
        measured = land_pixels(own.measured, own.camera, other.camera, other_from_own)
        is_same, is_other = _compare_measured(measured, other.measured, tolerance)
        is_hidden = is_hidden.logical_and_(is_same.logical_not_()).logical_or_(is_other)
    difference = landing.z - between.depth
    distance = difference.abs()
    is_compared = (distance < torch.inf).logical_and_(is_hidden.logical_not_())
    is_compared = is_compared.logical_and_(find_inside(landing, size, margin=0.0))
    count = is_compared.flatten(1).sum(1)
    differs = is_compared.logical_and_(distance > landing.z * ROUNDING)
    difference.nan_to_num_(0.0, 0.0, 0.0)  # None of these is compared.
    sign = difference.sign().mul_(differs)
    total = difference.mul_(sign).flatten(1).sum(1)
    if own.slope is not None and other.slope is not None:
        _add_slopes(sign, landing, between, own, other, other_from_own)
    return total, count


def _compare_measured(landing: Landing, measured: Tensor, tolerance: Tolerance) -> tuple[Tensor, Tensor]:
    """Return where both measurements are of one surface, and where of two.

    Neither holds where one of them is missing; each is (N, H, W), bool.
    """
    gap = interpolate_depth(measured, landing).depth.sub_(landing.z).abs_()
    is_inside = find_inside(landing, (gap.shape[1], gap.shape[2]), margin=0.0)
    limit = tolerance.at(landing.z)
    return (gap <= limit).logical_and_(is_inside), is_inside.logical_and_(gap > limit)


def _add_slopes(
    sign: Tensor, landing: Landing, between: Interpolation, own: _View, other: _View, other_from_own: Tensor
) -> None:
    """Add the derivatives of sum(sign * (z - between.depth)) by both predictions to their slopes.

    The homogeneous pixel (u z, v z, z) is linear in its own depth. The other depth is 1 / i(u, v), where i is bilinear
    in u and v and linear in the inverse depths of four pixels. The maps of `landing` and `between` are overwritten.

    Args:
        sign: Derivative of the sum by each difference (N, H, W): -1, 0 or 1.
        landing: Places of the pixels of `own` in `other`.
        between: Prediction of `other` at these places.
        own: View whose pixels were moved.
        other: View that they were compared with.
        other_from_own: Motion (N, 4, 4), metres.
    """
    # Where nothing is compared the sign is 0 and maps may hold NaN: any finite number will do there.
    for values in (*landing, between.depth, between.upper, between.lower, *between.corners):
        values.nan_to_num_(1.0)
    u, v, z = landing
    depth, right, low = between.depth, between.right, between.low
    size = (sign.shape[1], sign.shape[2])
    u_slope, v_slope, z_slope = project_rays(own.camera, other.camera, other_from_own, size)
    u_slope = u_slope.addcmul_(u, z_slope, value=-1).div_(z)
    v_slope = v_slope.addcmul_(v, z_slope, value=-1).div_(z)
    # Depth times inverse depth of each corner; times depth once more this is - d between / d i.
    ratios = [torch.div(depth, corner, out=corner) for corner in between.corners]
    left, high = 1 - right, 1 - low
    by_u = (ratios[1] - ratios[0]).mul_(high).addcmul_(ratios[3] - ratios[2], low).mul_(depth)
    by_v = between.lower.sub_(between.upper).mul_(depth).mul_(depth)
    own.slope.addcmul_(z_slope.addcmul_(by_u, u_slope).addcmul_(by_v, v_slope), sign)
    against = sign.neg_()
    for share in (high, low):
        share.mul_(against)
    slope = other.slope.view(-1)
    for ratio, cells, row, column in zip(
        ratios, between.cells, (high, high, low, low), (left, right, left, right), strict=True
    ):
        weight = ratio.square_().mul_(row).mul_(column)
        slope.scatter_add_(0, cells.view(-1).long(), weight.view(-1))
