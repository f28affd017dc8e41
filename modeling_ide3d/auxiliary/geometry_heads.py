"""Targets and predictions of the training-only heads, whatever model they supervise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from modeling_ide3d.auxiliary.alignment import METRIC, align_targets
from modeling_ide3d.auxiliary.camera_heads import LayerHead, PoseHead, ScaleHead
from modeling_ide3d.auxiliary.geometric_validator import GeometricValidator, GeometricValidatorConfig
from modeling_ide3d.auxiliary.outputs import HEADS, PAIR_TERMS, Criterion
from modeling_ide3d.auxiliary.state_layers import LayerProjectors, StateLayers, build_projector
from modeling_ide3d.auxiliary.targets import (
    MeasuredGeometry,
    VideoGrid,
    build_depth_targets,
    select_teacher_features,
    select_usable_depth,
)
from modeling_ide3d.auxiliary.teacher_projector import TeacherProjector

logger = logging.get_logger(__name__)

CAMERA_HEADS = {"pose_head": PoseHead, "scale_head": ScaleHead}


@dataclass
class GeometryPredictions:
    """Predictions of the heads for a batch; names and shapes as in `IDE3DGeometryOutputWithPast`."""

    depth: torch.Tensor | None = None
    depth_confidence: torch.Tensor | None = None
    cross_view_depth: torch.Tensor | None = None
    teacher_prediction: torch.Tensor | None = None
    pose: torch.Tensor | None = None
    scale: torch.Tensor | None = None


class GeometryHeads:
    """Targets, predictions and absent terms of the heads; mixed into the module that holds them.

    Attributes:
        state_layers: Hidden states that the model has.
        distillation_layers: Hidden states that the teacher is compared with.
        camera_layer: Hidden state that the heads of cameras read.
        geometric_validator: Depth decoder, or None.
        teacher_projector: Projector into the teacher's space, or None; with one or several hidden states.
        grounding_head: Scores of regions, or None.
        pose_head: Poses between frames, or None.
        scale_head: Metric scale of a video, or None.
        criterion: Comparison of predictions with targets, or None.
    """

    state_layers: StateLayers
    distillation_layers: tuple[str, ...]
    camera_layer: str
    geometric_validator: GeometricValidator | None
    teacher_projector: TeacherProjector | LayerProjectors | None
    grounding_head: torch.nn.Module | None
    pose_head: PoseHead | LayerHead | None
    scale_head: ScaleHead | LayerHead | None
    criterion: Criterion | None

    def choose_layers(
        self, state_layers: StateLayers, distillation_layers: Sequence[str] | None, camera_layer: str | None
    ) -> None:
        """Set which hidden states the heads read, before they are built.

        Args:
            state_layers: Hidden states that the model has.
            distillation_layers: Names of those that the teacher is compared with; None: the final states alone.
            camera_layer: Name of the one that the heads of cameras read; None: the final states.

        Raises:
            TypeError: If a name is no text.
            ValueError: If the model has no such state, or one is named twice.
        """
        final = state_layers.final
        self.state_layers = state_layers
        chosen = [final] if distillation_layers is None else distillation_layers
        self.distillation_layers = state_layers.check_list(chosen, "distillation_layers")
        self.camera_layer = final if camera_layer is None else camera_layer
        state_layers.check(self.camera_layer, "camera_layer")

    def read_layers(self, distillation_layers: Sequence[str] | None, camera_layer: str | None) -> None:
        """Let heads read other hidden states.

        A head of the same states stays, another one begins anew.

        Args:
            distillation_layers: Names as in `choose_layers`; None leaves them.
            camera_layer: Name as in `choose_layers`; None leaves it.

        Raises:
            TypeError: If a name is no text.
            ValueError: If the model has no such state, one is named twice, or there is no projector.
        """
        before = self.distillation_layers, self.camera_layer
        given = (distillation_layers, camera_layer)
        chosen = (old if new is None else new for new, old in zip(given, before, strict=True))
        self.choose_layers(self.state_layers, *chosen)
        if self.distillation_layers != before[0]:
            if self.teacher_projector is None:
                raise ValueError(
                    f"distillation_layers={list(distillation_layers)}, but there is no teacher projector: build the "
                    "model with teacher_size, or leave them out."
                )
            size, dtype = self.teacher_projector.teacher_size, next(self.teacher_projector.parameters()).dtype
            projector = build_projector(self.state_layers, size, self.distillation_layers)
            self._add_head("teacher_projector", projector.to(dtype))
        if self.camera_layer != before[1]:
            for name in CAMERA_HEADS:
                if getattr(self, name) is not None:
                    self._add_head(name, self._build_camera_head(name))

    def add_camera_head(self, name: str) -> None:
        """Add "pose_head" or "scale_head" if it is not there yet."""
        if getattr(self, name) is None:
            self._add_head(name, self._build_camera_head(name))

    def _build_camera_head(self, name: str) -> torch.nn.Module:
        head = CAMERA_HEADS[name](self.state_layers.width(self.camera_layer))
        return head if self.camera_layer == self.state_layers.final else LayerHead(self.camera_layer, head)

    def _add_head(self, name: str, head: torch.nn.Module) -> None:
        setattr(self, name, head.to(next(self.parameters(), torch.zeros(())).device))
        if isinstance(self, PreTrainedModel):  # whose files have no heads
            keys = {f"{name}.{key}" for key in head.state_dict()}
            self._keys_to_ignore_on_save = keys | set(self._keys_to_ignore_on_save or ())

    def idle_heads(self) -> list[torch.nn.Module]:
        """Return the heads that no wanted term trains."""
        wanted = set() if self.criterion is None else {HEADS[name] for name in self.criterion.terms}
        heads = (getattr(self, name) for name in sorted(set(HEADS.values()) - wanted))
        return [head for head in heads if head is not None]

    def wants_head(self, head: str) -> bool:
        """Say whether this head exists and the criterion wants one of its terms."""
        wanted = self.criterion is not None and any(HEADS[name] == head for name in self.criterion.terms)
        return wanted and getattr(self, head) is not None

    def wants_depth(self) -> bool:
        """Say whether a head exists whose wanted terms need measured depth."""
        return any(self.wants_head(head) for head in ("geometric_validator", "pose_head", "scale_head"))

    def wants_teacher(self, teacher_features: torch.Tensor | None) -> bool:
        """Say whether teacher features are trained on; those that have no projector are told once."""
        if teacher_features is not None and self.teacher_projector is None and not torch.compiler.is_compiling():
            if self.criterion is not None and any(HEADS[name] == "teacher_projector" for name in self.criterion.terms):
                logger.warning_once(
                    "The samples hold teacher_features, but the model has no teacher projector: they are not trained "
                    "on. Build the model with teacher_size, or leave them out."
                )
        return teacher_features is not None and self.wants_head("teacher_projector")

    def absent_terms(self) -> dict[str, torch.Tensor]:
        """Return a zero for each term that keeps its head in the graph.

        Every process then reduces the same gradients.
        """
        zeros = {
            head: sum(parameter.sum() for parameter in getattr(self, head).parameters()) * 0.0
            for head in set(HEADS.values())
            if getattr(self, head) is not None
        }
        return {name: zeros[head] for name, head in HEADS.items() if head in zeros}

    @torch.no_grad()
    def build_head_targets(
        self, grid: VideoGrid, geometry: MeasuredGeometry | None, teacher_features: torch.Tensor | None
    ) -> dict[str, Any]:
        """Build the targets of depth decoder and projector, as `GeometryTargets` lists them.

        Args:
            grid: Places and sizes of the videos.
            geometry: Measured geometry by sample; None without a term that needs it.
            teacher_features: Features (samples, V, rows, cols, C); None without a term of the projector.

        Raises:
            ValueError: If a tensor has another shape than `grid` asks for.
        """
        targets: dict[str, Any] = {}
        if geometry is not None:
            geometry.check(grid.num_samples, grid.num_frames, grid.image_size)
        if geometry is not None and self.wants_head("geometric_validator"):
            size = self.geometric_validator.output_size(grid.patch_grid)
            select_pairs = self.criterion.select_pairs if PAIR_TERMS & self.criterion.terms else None
            targets.update(
                build_depth_targets(geometry, grid.samples, grid.frame_mask, grid.covered, size, select_pairs)
            )
        if geometry is not None and (self.wants_head("pose_head") or self.wants_head("scale_head")):
            depth, usable = select_usable_depth(geometry.depth, geometry.has_geometry, grid.samples, grid.frame_mask)
            if geometry.depth_alignment is not None:  # depth of unknown scale says nothing about cameras in metres
                usable = usable & (geometry.depth_alignment[grid.samples] == METRIC).unsqueeze(-1)
            poses, posed = geometry.camera_to_world, usable
            if geometry.has_poses is not None:
                posed = usable & geometry.has_poses[grid.samples].bool().unsqueeze(-1)
            of_videos = None if poses is None else poses[grid.samples]
            targets.update(self.criterion.build_camera_targets(depth, of_videos, usable, posed))
            is_there = torch.ones_like(usable) if grid.frame_mask is None else grid.frame_mask
            targets["is_there"] = is_there.to(usable.device)
        if teacher_features is not None:
            width = self.teacher_projector.teacher_size
            expected = (grid.num_samples, grid.num_frames, *grid.token_grid, width)
            targets["teacher_features"] = select_teacher_features(
                teacher_features, expected, grid.samples, grid.frame_mask
            )
        return targets

    def wanted_layers(self, has_depth: bool, has_teacher: bool) -> frozenset[str]:
        """Return the hidden states that the heads of wanted terms read.

        Args:
            has_depth: Whether a batch has geometry.
            has_teacher: Whether it has features of a teacher.
        """
        layers: set[str] = set()
        if has_depth and self.wants_head("geometric_validator"):
            layers.update(f"vision.{index}" for index in self.geometric_validator.config.layer_indices)
        if has_depth and (self.wants_head("pose_head") or self.wants_head("scale_head")):
            layers.add(self.camera_layer)
        if has_teacher and self.wants_head("teacher_projector"):
            layers.update(self.distillation_layers)
        return frozenset(layers)

    def list_layers(self, targets: Mapping[str, Any]) -> tuple[str, ...]:
        """List the hidden states, each once, that predictions for these targets read.

        Those of the depth decoder are not among them.
        """
        layers = self.distillation_layers if "teacher_features" in targets else ()
        return tuple(dict.fromkeys((*layers, *([self.camera_layer] if "is_there" in targets else ()))))

    def predict_geometry(
        self,
        targets: dict[str, Any],
        levels: tuple[torch.Tensor, ...] | None,
        patch_grid: tuple[int, int],
        states: Mapping[str, torch.Tensor],
    ) -> GeometryPredictions:
        """Predict what has a target.

        Shape:
            levels: four tensors (videos, V, P, vision_hidden_size), P = rows x cols of `patch_grid`; needed where
                    `targets` hold `depth`.
            states: (frames, rows, cols, width) by name, those that `list_layers` names: of the language model at the
                    visual tokens, of the tower at the patches.
        """
        predictions = GeometryPredictions()
        if "depth" in targets:
            own = self.geometric_validator(levels, patch_grid)
            predictions.depth, predictions.depth_confidence = own.depth, own.confidence
            pairs = align_targets(own.depth, targets).get("pairs")
            if pairs is not None and len(pairs) and "loss_cross_view_depth" in self.criterion.terms:
                cross_view = self.geometric_validator.predict_cross_view(
                    levels, patch_grid, pairs.batch, pairs.source, pairs.target_from_source
                )
                predictions.cross_view_depth = cross_view.depth
        if "teacher_features" in targets:
            predictions.teacher_prediction = self._project(states, targets["teacher_features"].shape[1:3])
        if "is_there" in targets:
            # In float32: the difference of two frames is small beside what they have in common.
            frames = states[self.camera_layer].float().mean((1, 2)).unsqueeze(1)
            of_videos = pad_frames(frames, targets["is_there"]).squeeze(2)
            if "mean_depth" in targets:
                counts = targets["is_there"].sum(1, keepdim=True).clamp(min=1)
                predictions.scale = self.scale_head(of_videos.sum(1) / counts)
            if "pose_pairs" in targets:
                pairs = targets["pose_pairs"]
                sources, ends = of_videos[pairs.batch, pairs.source], of_videos[pairs.batch, pairs.target]
                predictions.pose = self.pose_head(sources, ends)
        return predictions

    def _project(self, states: Mapping[str, torch.Tensor], grid: tuple[int, int]) -> torch.Tensor:
        """Return what the projector makes of the states on a token grid."""
        if isinstance(self.teacher_projector, TeacherProjector):
            return self.teacher_projector(states[self.state_layers.final])
        return self.teacher_projector(states, grid)


def check_validator_config(
    validator_config: GeometricValidatorConfig, hidden_size: int, patch_size: int, num_layers: int
) -> None:
    """Raise ValueError unless the validator fits a vision tower of these sizes."""
    expected = (hidden_size, patch_size)
    given = (validator_config.vision_hidden_size, validator_config.patch_size)
    if given != expected or max(validator_config.layer_indices) > num_layers:
        raise ValueError(
            f"`validator_config` is for a vision tower of (hidden_size, patch_size) {given} with at least "
            f"{max(validator_config.layer_indices)} layers; this one has {expected} and {num_layers} layers. Build it "
            "with GeometricValidatorConfig.from_vision_config."
        )


def pad_frames(states: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
    """Lay the states of existing frames out by video, with zeros for the others.

    Shape:
        states:     (frames, P, C), in the order of the videos.
        frame_mask: (videos, V), bool; frames that exist.
        output:     (videos, V, P, C).
    """
    padded = states.new_zeros(*frame_mask.shape, *states.shape[1:])
    return padded.index_put(frame_mask.nonzero(as_tuple=True), states)


__all__ = ["GeometryHeads", "GeometryPredictions", "check_validator_config", "pad_frames"]
