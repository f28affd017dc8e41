"""Loss of the difference between the depth predictions of two views."""

import torch
from torch import Tensor, nn

from trainer.geometry import FramePairs, check_intrinsics, project_points, transform_points, unproject_depth
from trainer.geometry.cameras import invert_pose
from trainer.geometry.covisibility import sample_depth
from trainer.losses.blocks import graph_zero
from trainer.losses.cross_view_depth import MIN_PIXELS_PER_PAIR

__all__ = ["ViewConsistencyLoss"]

ROUNDING = 1e-5  # Relative difference that float32 leaves after a warp; below it two depths are the same.

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
        pair_loss, weight = self._compare(predicted_depth, intrinsics, pairs, depth)
        return zero + (pair_loss * weight).sum() / weight.sum().clamp(min=torch.finfo(torch.float32).tiny)

    def count_pairs(
        self, predicted_depth: Tensor, intrinsics: Tensor, pairs: FramePairs, depth: Tensor | None = None
    ) -> Tensor:
        """Return the weight of the compared pairs, a scalar; shapes as in the class."""
        return self._compare(predicted_depth, intrinsics, pairs, depth)[1].sum()

    def _compare(
        self, predicted_depth: Tensor, intrinsics: Tensor, pairs: FramePairs, depth: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return loss and weight (N,) of each pair; a pair that drops out weighs 0."""
        prediction, cameras = predicted_depth.float(), intrinsics.detach().float()
        # Both directions at once: every pair, and every pair turned around.
        there = pairs.target_from_source.detach().float()
        motion = torch.cat((there, invert_pose(there)))
        batch, source, target = (
            torch.cat(rows)
            for rows in ((pairs.batch,) * 2, (pairs.source, pairs.target), (pairs.target, pairs.source))
        )
        cameras = cameras[batch, source], cameras[batch, target]
        for camera in cameras:
            check_intrinsics(camera)
        warped, sampled = _warp(prediction[batch, source], prediction[batch, target], cameras, motion)
        tolerance = self.absolute_tolerance + self.relative_tolerance * warped.detach()
        is_hidden = warped.detach() > sampled.detach() + tolerance
        if depth is not None:
            measured = depth.detach().float()
            moved, found = _warp(measured[batch, source], measured[batch, target], cameras, motion)
            differs = (moved - found).abs() > self.absolute_tolerance + self.relative_tolerance * moved
            is_hidden = torch.where(torch.isfinite(moved - found), differs, is_hidden)
        is_compared = torch.isfinite(warped) & torch.isfinite(sampled) & ~is_hidden
        difference = (torch.where(is_compared, warped, 0.0) - torch.where(is_compared, sampled, 0.0)).abs()
        difference = torch.where(difference > ROUNDING * warped.detach(), difference, 0.0)
        counts = is_compared.flatten(1).sum(1).view(2, -1).sum(0)
        pair_loss = difference.flatten(1).sum(1).view(2, -1).sum(0) / counts.clamp(min=1)
        return pair_loss, pairs.weight.to(pair_loss) * (counts >= MIN_PIXELS_PER_PAIR)

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
        bad = ~(torch.isfinite(depth) & (depth >= 0))
        if bad.any():
            frames = bad.flatten(2).any(-1).nonzero().tolist()[:4]
            raise ValueError(
                f"`depth` holds {int(bad.sum())} NaN, Inf or negative values, first (sample, frame): {frames}. "
                "Write 0 where nothing was measured."
            )


def _warp(
    source: Tensor, target: Tensor, cameras: tuple[Tensor, Tensor], target_from_source: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the depth of source pixels in the target camera, and the target's depth there.

    Both are NaN where there is none.

    Shape:
        source, target:     (N, H, W), metres.
        cameras:            (N, 3, 3) each, of source and target.
        target_from_source: (N, 4, 4), metres.
        output:             (N, H, W) each, on the source's pixels.
    """
    points = transform_points(target_from_source, unproject_depth(source, cameras[0]))
    pixels, z = project_points(points, cameras[1])
    last = pixels.new_tensor([target.shape[-1] - 1, target.shape[-2] - 1])
    is_inside = ((pixels >= 0) & (pixels <= last)).all(-1)  # Beyond the outer pixel centres nothing lies in between.
    _, between = sample_depth(target, pixels)
    return torch.where(is_inside, z, torch.nan), between
