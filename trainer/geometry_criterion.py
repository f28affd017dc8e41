"""What compares the training model's predictions with the privileged targets: the loss terms, unweighted."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainer.geometry import FramePairs, covisibility_mask, select_frame_pairs
from trainer.losses import CrossViewDepthLoss, DepthRegressionLoss, FeatureDistillationLoss, RegionContrastLoss
from trainer.losses.blocks import graph_zero
from trainer.losses.depth_regression import MIN_VALID_PIXELS


class GeometryCriterion(nn.Module):
    """Frame pairs and the loss terms of one step; weights of the terms belong to the training arguments.

    Source: 3D-IDE (arXiv 2604.03296), L_geometry, L_cross_view, L_global and the grounding part of L_ce.

    Args:
        protocol: "clean", or "paper" for the original's rules.
        pair_mode: How frame pairs are chosen, "neighbor" or "random"; see `select_frame_pairs`.
        neighbor_range: Largest distance of two paired frames, for "neighbor".
        pairs_per_frame: Number of partners of a frame, for "random".
        grounding_temperature: Divides the cosine scores.

    Attributes:
        terms: Names of the terms that are wanted; neither the others nor what only they need is computed.
    """

    def __init__(
        self,
        protocol: Literal["clean", "paper"] = "clean",
        pair_mode: Literal["neighbor", "random"] = "neighbor",
        neighbor_range: int = 2,
        pairs_per_frame: int = 2,
        grounding_temperature: float = 0.07,
    ):
        super().__init__()
        self.protocol = protocol
        self.pair_mode = pair_mode
        self.neighbor_range = neighbor_range
        self.pairs_per_frame = pairs_per_frame
        self.depth_loss = DepthRegressionLoss(protocol=protocol)
        self.cross_view_loss = CrossViewDepthLoss(protocol=protocol)
        self.distillation_loss = FeatureDistillationLoss()
        self.grounding_loss = RegionContrastLoss(temperature=grounding_temperature)
        self.terms = frozenset(self.losses())

    @torch.no_grad()
    def select_pairs(
        self, depth: Tensor, intrinsics: Tensor, camera_to_world: Tensor, has_geometry: Tensor
    ) -> FramePairs:
        """Pairs of frames that see something in common, with their masks.

        Shape:
            depth:           (B, V, H, W), metres, 0 = no measurement.
            intrinsics:      (B, V, 3, 3), of these pixels.
            camera_to_world: (B, V, 4, 4), metres.
            has_geometry:    (B, V), bool.
        """
        pairs = select_frame_pairs(
            camera_to_world,
            mode=self.pair_mode,
            neighbor_range=self.neighbor_range,
            pairs_per_frame=self.pairs_per_frame,
            valid=has_geometry,
            protocol=self.protocol,
        )
        if not len(pairs):
            return pairs
        covisible = covisibility_mask(depth, intrinsics, pairs, protocol=self.protocol)
        # Official: pairs with an empty mask are dropped before the prediction.
        return pairs.with_covisible(covisible).select(covisible.flatten(1).any(-1))

    def forward(self, outputs: Any, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Loss terms by the name of their field in `IDE3DGeometryOutputWithPast`; without targets there is no term."""
        terms = {}
        if "region_targets" in targets:
            terms["loss_grounding"] = self.grounding_loss(outputs.region_scores, targets["region_targets"])
        if "teacher_features" in targets:
            teacher = targets["teacher_features"]
            # All-zero vectors stand for missing features; a direction they do not have.
            mask = teacher.abs().amax(-1) > 0
            terms["loss_distillation"] = self.distillation_loss(outputs.teacher_prediction, teacher, mask)
        if "depth" in targets:
            depth, pairs = targets["depth"], targets.get("pairs")
            if "loss_depth" in self.terms:
                terms["loss_depth"] = self._compare_depth(outputs.depth, outputs.depth_confidence, depth)
            # Official: too few measured pixels in the batch turn the terms of the pairs off too.
            enough = self.protocol == "clean" or self.depth_loss.count_valid_pixels(depth) >= MIN_VALID_PIXELS
            if pairs is not None and len(pairs) and enough:
                target_depth = pairs.gather_target(depth)
                arguments = (target_depth, pairs.covisible, pairs.weight)
                if "loss_cross_view_depth" in self.terms:
                    terms["loss_cross_view_depth"] = self.cross_view_loss(outputs.cross_view_depth, *arguments)
                if "loss_overlap_depth" in self.terms:
                    terms["loss_overlap_depth"] = self.cross_view_loss(pairs.gather_target(outputs.depth), *arguments)
        return terms

    def _compare_depth(self, predicted_depth: Tensor, confidence: Tensor, depth: Tensor) -> Tensor:
        """Depth term: of the batch as a whole in "paper"; in "clean" of each video, weighted by its valid pixels.

        The tail that the loss cuts and its least number of pixels are then those of a video, so that the term does
        not depend on which videos share a batch.
        """
        if self.protocol == "paper":
            return self.depth_loss(predicted_depth, confidence, depth)
        counts = self._count_depth(depth)
        used = counts.nonzero().flatten().tolist()
        if not used:
            return graph_zero(predicted_depth, confidence)
        losses = [self.depth_loss(predicted_depth[[i]], confidence[[i]], depth[[i]]) for i in used]
        return (torch.stack(losses) * counts[used]).sum() / counts.sum()

    def _count_depth(self, depth: Tensor) -> Tensor:
        """Valid pixels (videos,), 0 where a video has too few of them; those of the batch, (1,), in "paper"."""
        total = self.depth_loss.count_valid_pixels(depth)  # says which frame is broken
        counts = depth.new_tensor([total]) if self.protocol == "paper" else (depth > 0).flatten(1).sum(1).float()
        return torch.where(counts >= MIN_VALID_PIXELS, counts, 0.0)

    @torch.no_grad()
    def count(self, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """What each term is a mean over: pixels, pairs by weight, tokens, samples; scalars, float32.

        The mean of two batches is the mean of their terms, weighted by these; only in "clean" exactly so.
        """
        counts = {}
        if "region_targets" in targets:
            counts["loss_grounding"] = targets["region_targets"].any(-1).sum()
        if "teacher_features" in targets:
            counts["loss_distillation"] = (targets["teacher_features"].abs().amax(-1) > 0).sum()
        if "depth" in targets:
            depth, pairs = targets["depth"], targets.get("pairs")
            counts["loss_depth"] = enough = self._count_depth(depth).sum()
            if pairs is not None and len(pairs) and (self.protocol == "clean" or enough):
                used = self.cross_view_loss.count_pairs(pairs.gather_target(depth), pairs.covisible, pairs.weight)
                counts["loss_cross_view_depth"] = counts["loss_overlap_depth"] = used
        return {name: count.float() for name, count in counts.items() if name in self.terms}

    def losses(self) -> dict[str, nn.Module]:
        """The losses by the name of their term, e.g. for the citations of a model card."""
        return {
            "loss_depth": self.depth_loss,
            "loss_cross_view_depth": self.cross_view_loss,
            "loss_overlap_depth": self.cross_view_loss,
            "loss_distillation": self.distillation_loss,
            "loss_grounding": self.grounding_loss,
        }


__all__ = ["GeometryCriterion"]
