"""Comparison of the training model's predictions with the privileged targets: the unweighted loss terms."""

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modeling_ide3d.auxiliary.alignment import METRIC, align_targets
from trainer.field_rules import POSITIVE, check_choice, check_number, check_range
from trainer.geometry import (
    FramePairs,
    compute_covisible_share,
    compute_voxel_overlap,
    covisibility_mask,
    select_frame_pairs,
    unproject_depth,
)
from trainer.geometry.checks import Protocol
from trainer.geometry.covisibility import RELATIVE_TOLERANCE
from trainer.geometry.frame_pairs import PairMode
from trainer.losses import (
    CrossViewDepthLoss,
    DepthRegressionLoss,
    FeatureDistillationLoss,
    MetricScaleLoss,
    RegionContrastLoss,
    RelativePoseLoss,
    ViewConsistencyLoss,
)
from trainer.losses.blocks import graph_zero
from trainer.losses.depth_regression import MIN_VALID_PIXELS
from trainer.supervision.camera_targets import build_camera_targets

PAPER_MAX_DEPTH = 10.0  # Metres, official: points farther away share no voxels.
EVALUATION_SEED = 0  # Evaluations compare pairs that are drawn at random; each draws the same ones.
PSEUDO_TOLERANCE = 0.1  # Share of the depth by which two pseudo depths of one surface may differ, as in `pose_rules`.
PAPER_VOXEL_SIZE = 0.2  # Metres, for "overlap" pairs; the original crashes in this mode.


def limit_depth(depth: Tensor, depth_range: tuple[float, float] | None) -> Tensor:
    """Set depth outside the range to 0, "no measurement"; NaN, Inf and negative values stay."""
    if depth_range is None:
        return depth
    is_outside = (depth > 0) & torch.isfinite(depth) & ((depth < depth_range[0]) | (depth > depth_range[1]))
    return torch.where(is_outside, 0.0, depth)


def limit_targets(targets: Mapping[str, Any], depth_range: tuple[float, float] | None) -> Tensor:
    """Return the depth of targets within the range; depth of unknown unit stays."""
    depth = limit_depth(targets["depth"], depth_range)
    if "depth_alignment" not in targets:
        return depth
    is_metric = targets["depth_alignment"] == METRIC
    return torch.where(is_metric.view(-1, 1, 1, 1), depth, targets["depth"])


def compared_depth(predicted_depth: Tensor, targets: Mapping[str, Any], depth_range: Any = None) -> Tensor:
    """Return the depth that a prediction is compared with, aligned where it is pseudo."""
    return limit_targets(align_targets(predicted_depth, targets), depth_range)


def find_taught(teacher_features: Tensor) -> Tensor:
    """Find the tokens that a teacher says something about: all-zero vectors stand for missing features.

    Shape:
        teacher_features: (..., C).
        output:           (...), bool.

    Raises:
        ValueError: If features hold NaN or Inf.
    """
    largest = teacher_features.abs().amax(-1)
    is_broken = ~torch.isfinite(largest)
    if is_broken.any():
        places = is_broken.nonzero().tolist()
        raise ValueError(
            f"`teacher_features` hold NaN or Inf at {len(places)} tokens, the first at {places[0]} (frame of the "
            "batch, row, column). Make them again; zeros stand for features that are missing."
        )
    return largest > 0


class GeometryCriterion(nn.Module):
    """Frame pairs and unweighted loss terms of one step.

    Source: 3D-IDE (arXiv 2604.03296), L_geometry, L_cross_view, L_global and the grounding part of L_ce. The term
    between two predictions is ours.

    Args:
        protocol: "clean", or "paper" for the original's rules.
        pair_mode: Choice of frame pairs, "neighbor", "random" or "overlap"; see `select_frame_pairs`.
        neighbor_range: Largest distance of two paired frames, for "neighbor".
        pairs_per_frame: Number of partners of a frame, for "random" and "overlap".
        depth_range: Least and largest depth in metres that counts as a measurement; None for all.
        grounding_temperature: Divisor of the cosine scores.

    Attributes:
        terms: Names of the wanted terms; neither the others nor what only they need is computed.

    Raises:
        TypeError: If a number is none.
        ValueError: If protocol or choice of pairs is unknown, a number is out of its range, or the range is empty.
    """

    def __init__(
        self,
        protocol: Protocol = "clean",
        pair_mode: PairMode = "neighbor",
        neighbor_range: int = 2,
        pairs_per_frame: int = 2,
        depth_range: tuple[float, float] | None = None,
        grounding_temperature: float = 0.07,
    ):
        super().__init__()
        if depth_range is not None:
            check_range("depth_range", depth_range)
        check_choice("protocol", protocol, get_args(Protocol))
        check_choice("pair_mode", pair_mode, get_args(PairMode))
        for name, value in (("neighbor_range", neighbor_range), ("pairs_per_frame", pairs_per_frame)):
            check_number(name, value, 1, is_whole=True)
        check_number("grounding_temperature", grounding_temperature, POSITIVE)
        self.protocol = protocol
        self.pair_mode = pair_mode
        self.neighbor_range = neighbor_range
        self.pairs_per_frame = pairs_per_frame
        self.depth_range = depth_range
        self.depth_loss = DepthRegressionLoss(protocol=protocol)
        self.cross_view_loss = CrossViewDepthLoss(protocol=protocol)
        self.consistency_loss = ViewConsistencyLoss()
        self.distillation_loss = FeatureDistillationLoss()
        self.grounding_loss = RegionContrastLoss(temperature=grounding_temperature)
        self.pose_loss = RelativePoseLoss()
        self.scale_loss = MetricScaleLoss()
        self.terms = frozenset(self.losses())

    @torch.no_grad()
    def select_pairs(
        self,
        depth: Tensor,
        intrinsics: Tensor,
        camera_to_world: Tensor,
        has_geometry: Tensor,
        size: tuple[int, int] | None = None,
        depth_alignment: Tensor | None = None,
    ) -> FramePairs:
        """Choose pairs of frames that see something in common, with their masks.

        Args:
            depth: Depth that the masks are computed from. Official: before any resize.
            intrinsics: Cameras of the pixels of `depth`.
            camera_to_world: Poses of the frames.
            has_geometry: Frames that may be used.
            size: Height and width of the prediction, which the masks are brought to (nearest, as the original);
                default: those of `depth`.
            depth_alignment: Codes of unknown scale and shift, see `align_targets`; None: all depth is measured or
                metric. Depth that is not metric may differ by more between views of one surface.

        Shape:
            depth:           (B, V, H, W), metres, 0 = no measurement.
            intrinsics:      (B, V, 3, 3), of these pixels.
            camera_to_world: (B, V, 4, 4), metres.
            has_geometry:    (B, V), bool.
            depth_alignment: (B,), long.
            output.covisible: (N, *size), bool.
        """
        pseudo = {} if depth_alignment is None else {"depth_alignment": depth_alignment}
        depth = limit_targets({"depth": depth, **pseudo}, self.depth_range)
        overlap = None
        if self.pair_mode == "overlap":
            overlap = self._compute_overlap(depth, intrinsics, camera_to_world, has_geometry)
        pairs = select_frame_pairs(
            camera_to_world,
            mode=self.pair_mode,
            neighbor_range=self.neighbor_range,
            pairs_per_frame=self.pairs_per_frame,
            valid=has_geometry,
            overlap=overlap,
            seed=None if self.training else EVALUATION_SEED,
            protocol=self.protocol,
        )
        if not len(pairs):
            return pairs
        options: dict[str, Any] = {"protocol": self.protocol}
        if depth_alignment is not None:
            is_metric = (depth_alignment == METRIC)[pairs.batch].view(-1, 1, 1)
            options["relative_tolerance"] = torch.where(is_metric, RELATIVE_TOLERANCE, PSEUDO_TOLERANCE)
        covisible = covisibility_mask(depth, intrinsics, pairs, **options)
        if size is not None and covisible.shape[1:] != size:
            bits = covisible.view(torch.uint8).unsqueeze(1)
            covisible = F.interpolate(bits, size, mode="nearest").squeeze(1).view(torch.bool)
        # Official: pairs with an empty mask are dropped before the prediction.
        return pairs.with_covisible(covisible).select(covisible.flatten(1).any(-1))

    def _compute_overlap(
        self, depth: Tensor, intrinsics: Tensor, camera_to_world: Tensor, has_geometry: Tensor
    ) -> Tensor:
        if self.protocol == "clean":
            return compute_covisible_share(depth, intrinsics, camera_to_world, valid=has_geometry)
        points = unproject_depth(depth, intrinsics, camera_to_world, protocol="paper")
        mask = (depth > 0) & (depth < PAPER_MAX_DEPTH) & has_geometry[..., None, None]
        return compute_voxel_overlap(points, mask, PAPER_VOXEL_SIZE)

    @torch.no_grad()
    def build_camera_targets(
        self, depth: Tensor, camera_to_world: Tensor | None, usable: Tensor, posed: Tensor
    ) -> dict[str, Any]:
        """Build the targets of the wanted terms of cameras; see `camera_targets.build_camera_targets`."""
        depth = limit_depth(depth, self.depth_range)
        return build_camera_targets(depth, camera_to_world, usable, posed, self.terms)

    def forward(self, outputs: Any, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Compute the terms that have targets, by their field in `IDE3DGeometryOutputWithPast`."""
        terms = {}
        if "region_targets" in targets:
            terms["loss_grounding"] = self.grounding_loss(outputs.region_scores, targets["region_targets"])
        if "teacher_features" in targets:
            teacher = targets["teacher_features"]
            mask = find_taught(teacher)
            student = outputs.teacher_prediction
            layers = student if student.dim() > teacher.dim() else student.unsqueeze(0)
            distances = [self.distillation_loss(layer, teacher, mask) for layer in layers]
            terms["loss_distillation"] = torch.stack(distances).mean()
        if "pose_pairs" in targets:
            pairs = targets["pose_pairs"]
            terms["loss_pose"] = self.pose_loss(outputs.pose, pairs.target_from_source, targets["pair_depth"])
        if "mean_depth" in targets:
            terms["loss_scale"] = self.scale_loss(outputs.scale, targets["mean_depth"])
        if "depth" in targets:
            targets = align_targets(outputs.depth, targets)
            depth = limit_targets(targets, self.depth_range)
            if "loss_depth" in self.terms:
                terms["loss_depth"] = self._compare_depth(outputs.depth, outputs.depth_confidence, depth)
            # Official: too few measured pixels in the batch turn the terms of the pairs off too.
            enough = self.protocol == "clean" or self.depth_loss.count_valid_pixels(depth) >= MIN_VALID_PIXELS
            if targets.get("pairs") is not None and len(targets["pairs"]) and enough:
                terms.update(self._compare_pairs(outputs, depth, targets))
        return terms

    def _compare_pairs(self, outputs: Any, depth: Tensor, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        pairs, terms = targets["pairs"], {}
        consistency = {}
        if "loss_view_consistency" in self.terms and "intrinsics" in targets:
            # First of all: its maps are gone before the other terms gather theirs, which they keep.
            loss = self.consistency_loss(outputs.depth, targets["intrinsics"], pairs, depth)
            consistency["loss_view_consistency"] = loss
        arguments = (pairs.gather_target(depth), pairs.covisible, pairs.weight)
        if "loss_cross_view_depth" in self.terms:
            terms["loss_cross_view_depth"] = self.cross_view_loss(outputs.cross_view_depth, *arguments)
        if "loss_overlap_l1" in self.terms:
            terms["loss_overlap_l1"] = self.cross_view_loss(pairs.gather_target(outputs.depth), *arguments)
        return {**terms, **consistency}

    def _compare_depth(self, predicted_depth: Tensor, confidence: Tensor, depth: Tensor) -> Tensor:
        """Compute the depth term.

        In "paper" it is that of the whole batch; in "clean" the mean over the videos, weighted by their valid pixels.
        The tail that the loss cuts, and its least number of pixels, are then those of a video: the term does not
        depend on the other videos of a batch.
        """
        if self.protocol == "paper":
            return self.depth_loss(predicted_depth, confidence, depth)
        counts = self._count_depth(depth)
        used = counts.nonzero().flatten().tolist()
        if not used:
            return graph_zero(predicted_depth, confidence)
        videos = list(zip(predicted_depth.split(1), confidence.split(1), depth.split(1), strict=True))
        losses = [self.depth_loss(*videos[i]) for i in used]
        return (torch.stack(losses) * counts[used]).sum() / counts.sum()

    def _count_depth(self, depth: Tensor) -> Tensor:
        """Count valid pixels (videos,), 0 for too few of them; those of the batch, (1,), in "paper"."""
        total = self.depth_loss.count_valid_pixels(depth)  # says which frame is broken
        counts = depth.new_tensor([total]) if self.protocol == "paper" else (depth > 0).flatten(1).sum(1).float()
        return torch.where(counts >= MIN_VALID_PIXELS, counts, 0.0)

    @torch.no_grad()
    def count(self, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the denominator of each term: pixels, pairs by weight, tokens, samples; float32 scalars.

        Weighted by these counts, the terms of two batches give the term of both. This is exact in "clean" only, and
        for `loss_view_consistency` where the predictions leave every pair enough pixels: they decide which it drops.
        `count_compared` knows them.
        """
        counts = {}
        if "region_targets" in targets:
            counts["loss_grounding"] = targets["region_targets"].any(-1).sum()
        if "teacher_features" in targets:
            counts["loss_distillation"] = find_taught(targets["teacher_features"]).sum()
        if "pose_pairs" in targets:
            counts["loss_pose"] = targets["pose_pairs"].weight.sum()
        if "mean_depth" in targets:
            counts["loss_scale"] = (targets["mean_depth"] > 0).sum()
        if "depth" in targets:
            depth, pairs = limit_targets(targets, self.depth_range), targets.get("pairs")
            counts["loss_depth"] = enough = self._count_depth(depth).sum()
            if pairs is not None and len(pairs) and (self.protocol == "clean" or enough):
                used = self.cross_view_loss.count_pairs(pairs.gather_target(depth), pairs.covisible, pairs.weight)
                counts["loss_cross_view_depth"] = counts["loss_overlap_l1"] = used
                if "intrinsics" in targets:
                    counts["loss_view_consistency"] = pairs.weight.sum()
        return {name: count.float() for name, count in counts.items() if name in self.terms}

    @torch.no_grad()
    def count_compared(self, outputs: Any, targets: Mapping[str, Any]) -> Tensor:
        """Return the denominator of `loss_view_consistency` after a forward pass, a float32 scalar."""
        targets = align_targets(outputs.depth, targets)
        depth = limit_targets(targets, self.depth_range)
        return self.consistency_loss.count_pairs(outputs.depth, targets["intrinsics"], targets["pairs"], depth)

    def losses(self) -> dict[str, nn.Module]:
        """Return the losses by the name of their term, as for a card's citations."""
        return {
            "loss_depth": self.depth_loss,
            "loss_cross_view_depth": self.cross_view_loss,
            "loss_overlap_l1": self.cross_view_loss,
            "loss_view_consistency": self.consistency_loss,
            "loss_distillation": self.distillation_loss,
            "loss_grounding": self.grounding_loss,
            "loss_pose": self.pose_loss,
            "loss_scale": self.scale_loss,
        }


__all__ = ["GeometryCriterion"]
