"""Comparison of the depth predictions of paired views, with its gradient in the same pass."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.geometry import FramePairs
from trainer.geometry.cameras import invert_pose
from trainer.geometry.warping import (
    Interpolation,
    Landing,
    drop_missing,
    find_corners,
    interpolate_depth,
    invert_depth,
    land_on_rays,
    project_rays,
    split_pairs,
)

__all__ = ["Tolerance", "compare_pairs"]

ROUNDING = 1e-5  # Relative difference that float32 leaves after a warp; below it two depths are the same.
OUTWEIGHS = 1e30  # Factor that makes a measurement's verdict larger than any of a prediction.
AGREES = 1e-20  # Metres, added to a verdict: 0 stands for no verdict, but 0 itself agrees.


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


class _Depth(NamedTuple):
    """Depth of one view, as it is warped and as it is looked up.

    Shape:
        depth:   (N, H, W), metres; NaN = none.
        inverse: (N, H + 1, W + 1), 1 / metres, see `invert_depth`.
    """

    depth: Tensor
    inverse: Tensor


class _View(NamedTuple):
    """One of both views of some pairs.

    Shape:
        prediction:    predicted depth.
        measured:      measured depth; None: nothing is measured.
        camera:        (N, 3, 3), pixels.
        slope:         (N, H, W), where the gradient of the summed differences by depth is added; None: nowhere.
        inverse_slope: (N, H + 1, W + 1), where the one by inverse depth is added; None: nowhere.
    """

    prediction: _Depth
    measured: _Depth | None
    camera: Tensor
    slope: Tensor | None
    inverse_slope: Tensor | None

    def total_slope(self) -> Tensor:
        """Return the gradient of the summed differences by depth (N, H, W)."""
        by_depth = self.prediction.depth.reciprocal().square_().nan_to_num_(0.0, 0.0, 0.0)
        return self.slope.addcmul_(self.inverse_slope[:, :-1, :-1], by_depth, value=-1)


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
            _gather_view(gather, prediction, intrinsics, measured, gradient is not None)
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
                gradient.flatten(0, 1).index_add_(0, places, view.total_slope().mul_(share))
    return losses, weights


def _gather_view(
    gather: Callable[[Tensor], Tensor],
    prediction: Tensor,
    intrinsics: Tensor,
    measured: Tensor | None,
    has_slope: bool,
) -> _View:
    """Return the views that `gather` picks for each pair."""
    depths = [None if each is None else drop_missing(gather(each)) for each in (prediction, measured)]
    predicted, seen = (None if each is None else _Depth(each, invert_depth(each)) for each in depths)
    slopes = (torch.zeros_like(predicted.depth), torch.zeros_like(predicted.inverse)) if has_slope else (None, None)
    return _View(predicted, seen, gather(intrinsics), *slopes)


def _compare(own: _View, other: _View, other_from_own: Tensor, tolerance: Tolerance) -> tuple[Tensor, Tensor]:
    """Compare the pixels of `own`, moved into `other`, with what `other` predicts there.

    The derivatives of the summed differences are added to the slopes of both. Masks are floats of 0 and 1: comparing
    floats in place is several times as fast as comparing them into a map of bool.

    Returns:
        Sum of the differences (N,), metres, and number of compared pixels (N,).
    """
    size = (own.prediction.depth.shape[1], own.prediction.depth.shape[2])
    motion = (project_rays(own.camera, other.camera, other_from_own, size), other.camera, other_from_own)
    verdict = None
    if own.measured is not None and other.measured is not None:
        verdict = _compare_measured(land_on_rays(own.measured.depth, *motion), other.measured, tolerance)
    landing, is_compared = _clamp(land_on_rays(own.prediction.depth, *motion))
    between = interpolate_depth(other.prediction.inverse, landing.u, landing.v)
    excess = tolerance.at(landing.z).add_(between.depth).sub_(landing.z)
    if verdict is not None:
        excess.add_(verdict, alpha=OUTWEIGHS)
    is_compared.mul_(excess.ge_(0.0))
    count = is_compared.flatten(1).sum(1)
    difference = landing.z - between.depth
    sign = difference.abs().gt_(landing.z * ROUNDING).mul_(is_compared)
    sign.mul_(difference.nan_to_num_(0.0, 0.0, 0.0).sign())  # Nothing without a number is compared.
    total = difference.mul_(sign).flatten(1).sum(1)
    if own.slope is not None and other.inverse_slope is not None:
        _add_slopes(sign, landing, between, motion[0], own.slope, other.inverse_slope)
    return total, count


def _clamp(landing: Landing) -> tuple[Landing, Tensor]:
    """Move places outside of the picture to its border.

    The maps of `landing` are overwritten.

    Returns:
        The places, and 1 where they were inside, else 0 (N, H, W).
    """
    height, width = landing.z.shape[1:]
    u, v = landing.u.clamp(0, width - 1), landing.v.clamp(0, height - 1)
    return Landing(u, v, landing.z), landing.u.eq_(u).mul_(landing.v.eq_(v))


def _compare_measured(landing: Landing, measured: _Depth, tolerance: Tolerance) -> Tensor:
    """Return by how much two measurements agree or differ, (N, H, W), metres.

    Above 0 they are of one surface, below 0 of two. It is 0 where one of them is missing.
    """
    landing, is_inside = _clamp(landing)
    gap = interpolate_depth(measured.inverse, landing.u, landing.v).depth.sub_(landing.z).abs_()
    return tolerance.at(landing.z).sub_(gap).add_(AGREES).mul_(is_inside).nan_to_num_(0.0)


def _add_slopes(
    sign: Tensor, landing: Landing, between: Interpolation, rays: list[Tensor], slope: Tensor, inverse_slope: Tensor
) -> None:
    """Add the derivatives of sum(sign * (z - between.depth)) by both predictions.

    The homogeneous pixel (u z, v z, z) is linear in its own depth. The other depth is 1 / i(u, v), where i is bilinear
    in u and v and linear in the inverse depths of four pixels. All maps but `sign` are overwritten.

    Args:
        sign: Derivative of the sum by each difference (N, H, W): -1, 0 or 1.
        landing: Places of the pixels of the own view in the other one.
        between: Prediction of the other view at these places.
        rays: Change of homogeneous pixels by the own depth, see `project_rays`.
        slope: Map (N, H, W) to which the derivatives by the own depth are added.
        inverse_slope: Map (N, H + 1, W + 1) to which those by the other inverse depth are added.
    """
    # Where nothing is compared the sign is 0, and maps may hold NaN: any finite number will do there.
    u, v, z = landing.u, landing.v, landing.z.nan_to_num_(1.0)
    by_inverse = between.depth.nan_to_num_(0.0).square_()  # - d between / d i
    corners, right, low = between.corners, between.right, between.low
    upper = by_inverse * sign
    lower = upper * low
    upper -= lower
    lower_right, upper_right = lower * right, upper * right
    weights = (upper.sub_(upper_right), upper_right, lower.sub_(lower_right), lower_right)
    cells = between.cells.view(-1).long()
    for places, weight in zip(find_corners(inverse_slope), weights, strict=True):
        places.scatter_add_(0, cells, weight.view(-1))
    by_u = torch.lerp(corners[1].sub_(corners[0]), corners[3].sub_(corners[2]), low)
    by_v = between.lower.sub_(between.upper)
    # On a row or column of pixels the next one has no share: it may be missing, and must not give a slope.
    by_u.mul_(right.sign_())
    by_v.mul_(low.sign_())
    u_ray, v_ray, z_ray = rays
    by_u.mul_(u_ray.addcmul_(u, z_ray, value=-1)).addcmul_(by_v, v_ray.addcmul_(v, z_ray, value=-1))
    slope.addcmul_(by_u.mul_(by_inverse).div_(z).add_(z_ray), sign)
