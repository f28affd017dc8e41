"""Geometry supervision of any video language model: heads beside it, hooks in it, nothing of it changed."""

import logging
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from modeling_ide3d.auxiliary import GeometricValidator, GeometricValidatorConfig
from modeling_ide3d.auxiliary.geometry_heads import GeometryHeads, pad_frames
from modeling_ide3d.auxiliary.outputs import CAMERA_TERMS, HEADS
from modeling_ide3d.auxiliary.state_layers import VISION, StateLayers, build_projector, split_layer
from trainer.field_rules import check_number
from trainer.processes import count_launched, count_processes
from trainer.supervision.camera_targets import measure_cameras
from trainer.supervision.criterion import GeometryCriterion
from trainer.supervision.given_targets import PerSample, build_validator_config, choose_layers, choose_weights
from trainer.supervision.joined_model import JoinedModel, prepare_step
from trainer.supervision.laid_targets import lay_targets
from trainer.supervision.recorder import ForwardPass, ForwardRecorder
from trainer.supervision.video_targets import VideoTargets, merge_terms
from trainer.supervision.vision_layouts import VideoPlace, VisionLayout, find_layout

logger = logging.getLogger(__name__)


class GeometrySupervision(nn.Module, GeometryHeads):
    """Depth and teacher terms on a video language model of Transformers, in training only.

    The depth decoder reads the model's vision tower and the projector its language model, both through hooks. The
    model stays what it is: its class, its weights, its `state_dict` and what `save_pretrained` writes. The heads are
    parameters of this module, for the optimizer beside those of the model. Terms, heads and rules are those of
    [`IDE3DForConditionalGenerationWithGeometry`].

    The last pass of the model in training mode and with gradients is kept, and the next `compute_loss` uses it up. In
    evaluation mode and in `generate` nothing is kept.

    A model that merges frames into one time step (Qwen-VL: two) is supervised by the first frame of each step; depth,
    pose and teacher features of the others are ignored.

    Build it by `attach`. With several processes, and for trainers that know one model alone, `join` it to the model:
    the model then holds the heads until `detach`, takes the targets as arguments, and its loss has the terms in it.

    Attributes:
        layout: Places of the model's states and visual tokens.
        criterion: Comparison of predictions with targets.
        loss_weights: Weight of each term by name, which may be changed between steps; a term of weight 0 is not
            computed.
        terms: Unweighted terms of the last pass of a joined model in this process, detached scalars by name.
        errors: Sums and counts of the camera errors of the last pass in this process; see `measure_cameras`.
    """

    def __init__(
        self,
        recorder: ForwardRecorder,
        validator_config: GeometricValidatorConfig | None,
        teacher_size: int | None,
        criterion: GeometryCriterion,
        loss_weights: Mapping[str, float],
        read: tuple[StateLayers, Sequence[str] | None, str | None],
    ):
        super().__init__()
        self.layout = recorder.layout
        self.choose_layers(*read)
        self.geometric_validator = None if validator_config is None else GeometricValidator(validator_config)
        self.teacher_projector = None
        if teacher_size is not None:
            self.teacher_projector = build_projector(self.state_layers, teacher_size, self.distillation_layers)
        self.grounding_head = None  # regions are no part of other models
        self.pose_head = self.scale_head = None
        for term in sorted(CAMERA_TERMS):
            if loss_weights.get(term):
                self.add_camera_head(HEADS[term])
        self.loss_weights = dict(loss_weights)
        self.criterion = criterion
        self.terms: dict[str, Tensor] = {}
        self.errors: dict[str, tuple[Tensor, Tensor]] = {}
        self._recorder = recorder
        self._joined: JoinedModel | None = None

    @classmethod
    def attach(
        cls,
        model: PreTrainedModel,
        layout: VisionLayout | str | None = None,
        *,
        validator: GeometricValidatorConfig | Literal["paper", "light"] | None = "paper",
        teacher_size: int | None = None,
        criterion: GeometryCriterion | None = None,
        loss_weights: Mapping[str, float] | None = None,
        distillation_layers: Sequence[str] | None = None,
        camera_layer: str | None = None,
    ) -> "GeometrySupervision":
        """Build heads for a model, on its device in float32, and hook into it.

        Args:
            model: Qwen2.5-VL, Qwen3-VL, InternVL, LLaVA-OneVision, or another model with a `layout` of its own. Of a
                model that PEFT wrapped: `get_base_model()`.
            layout: Places of the model's states and visual tokens, or the name of a family; default: by its type.
            validator: Depth decoder of the paper's size, a light one, or one of given sizes; None for no depth terms.
            teacher_size: Width of the teacher's features; None for no teacher term.
            criterion: Rules of frame pairs and losses, for this supervision alone; default: those of "clean".
            loss_weights: Weights of terms by name, such as `loss_depth`; the others keep the defaults of
                `IDE3DTrainingArguments`. `loss_pose` and `loss_scale` have their heads where they are weighed here.
            distillation_layers: Names of the hidden states that the teacher is compared with, such as `vision.6` and
                `language.12`, see `StateLayers`; None: the language model's final states.
            camera_layer: Name of the hidden state that poses and mean depth are read from; None: the final states.

        Raises:
            TypeError: If it is no model of Transformers, or an argument is of another type.
            ValueError: If the model is supervised already, is not built as the layout says, or has no such hidden
                state. Also if sizes or protocols do not fit together, or nothing has a weight.
        """
        if not isinstance(model, PreTrainedModel):
            raise TypeError(
                f"attach takes a PreTrainedModel, got {type(model).__name__}. Of a wrapped model give the one inside, "
                "e.g. get_base_model()."
            )
        if not isinstance(layout, VisionLayout):
            layout = find_layout(model.config, layout)
        if criterion is not None and not isinstance(criterion, GeometryCriterion):
            raise TypeError(f"criterion must be a GeometryCriterion or None, got {reprlib.repr(criterion)}.")
        criterion = GeometryCriterion() if criterion is None else criterion
        if teacher_size is not None:
            check_number("teacher_size", teacher_size, 1, is_whole=True)
        config = build_validator_config(model, layout, validator, criterion)
        states = StateLayers.of(model.config)
        read = choose_layers(states, teacher_size, distillation_layers, camera_layer)
        heads = {"geometric_validator": config, "teacher_projector": teacher_size}
        weights = choose_weights({head for head in heads if heads[head] is not None}, criterion, loss_weights)
        base_model = getattr(model, model.base_model_prefix, model)
        levels = () if config is None else (f"vision.{index}" for index in config.layer_indices)
        recorder = ForwardRecorder(base_model, layout, {*levels, *read})
        tower = layout.find_module(base_model, "tower")
        if config is not None and not any(weight.requires_grad for weight in tower.parameters()):
            logger.warning("The vision tower is frozen: the depth terms train the depth decoder alone.")
        size = None if teacher_size is None else int(teacher_size)
        layers = (states, distillation_layers, camera_layer)
        return cls(recorder, config, size, criterion, weights, layers).to(model.device)

    def join(self, model: nn.Module, *, adds_loss: bool = True) -> None:
        """Let a model hold the heads: optimizers, DDP and FSDP2 then see one model.

        In training mode the model then takes targets, as `compute_terms` does, beside its own arguments, or those of
        `prepare_step`. It adds their weighted terms to the loss that it returns, as a part of the mean over all
        processes. Given `num_items_in_batch` it adds a part of the sum over all batches and processes of a step, as
        the losses of Transformers are. Without labels the terms are the loss. In evaluation mode targets are left
        out. What `save_pretrained` writes has no heads in it.

        Join before the model is wrapped and before the optimizer is built.

        Args:
            model: Model that the supervision is attached to, or the one that PEFT put around it.
            adds_loss: Whether the terms are added to the model's loss. False is for trainers that ignore it:
                `take_loss` then has them.

        Raises:
            RuntimeError: If the supervision was detached.
            TypeError: If `model` is no module.
            ValueError: If it is another model, or the heads are in a model already.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"join takes the supervised model, got {reprlib.repr(model)}.")
        if not self._recorder.is_attached:
            raise RuntimeError("This supervision was detached from its model; attach a new one.")
        if self._joined is not None:
            raise ValueError("This supervision is joined to a model already: detach it first.")
        if not any(self._recorder.is_of(part) for part in model.modules()):
            raise ValueError(
                f"This supervision is attached to another model than this {type(model).__name__}. Join it to the "
                "model that `attach` got, or to the one around it."
            )
        self._joined = JoinedModel(self, model, adds_loss)

    def prepare_step(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Prepare the targets in the batches of an optimizer step, for a joined model.

        Every term is then a mean over what it is compared on in the whole step, however that is spread over batches
        and processes. Every process must call it, with its own batches.

        Args:
            batches: Batches of this process for one optimizer step, in the order of the forward passes.

        Raises:
            TypeError: If `batches` is no list of mappings, or a target holds no numbers.
            ValueError: If targets do not fit their batch; see `compute_terms`.
        """
        return prepare_step(self, batches)

    def take_loss(self) -> Tensor:
        """Return the weighted terms of the joined model's last pass, a scalar, once.

        It is a summand of the mean over all processes and batches of an optimizer step.

        Raises:
            RuntimeError: If there is none, or the model adds them to its own loss.
        """
        loss = None if self._joined is None else self._joined.take_loss()
        if loss is None:
            raise RuntimeError(
                "There are no terms to take: join the model with adds_loss=False, and call it in training mode and "
                "with gradients before each take_loss."
            )
        return loss

    def detach(self) -> None:
        """Take hooks and joined heads out of the model; the heads stay here."""
        if self._joined is not None:
            self._joined.remove()
            self._joined = None
        self._recorder.remove()

    def compute_loss(self, **targets: Any) -> Tensor:
        """Compute the weighted sum of the last training pass; arguments as for `compute_terms`."""
        return self.weigh(self.compute_terms(**targets))

    def weigh(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of what `compute_terms` gave, a scalar."""
        return sum(weight * terms[name] for name, weight in self.loss_weights.items() if weight)

    def compute_terms(self, **targets: Any) -> dict[str, Tensor]:
        """Compute the unweighted terms of the last training pass.

        A term without targets is a zero that keeps its head in the graph. Targets are given for the frames as they
        went into the model's processor: as one tensor of the batch, padded to the longest video, or as a list with a
        tensor or None for each sample. Depth may have any resolution; it is laid on the pixels that the processor
        resized the whole frame to.

        Args:
            **targets: Targets as in `build_targets`.

        Shape:
            output: scalars by name, such as `loss_depth`.

        Raises:
            RuntimeError: If it was detached, there is no training pass to compare with, or several processes run.
            TypeError: If a target has an unknown name or holds no numbers.
            ValueError: If targets lack their head, belong to other samples or frames than the model saw, have wrong
                shapes or are broken. Also if a sample has several videos, or the layout does not explain its tokens.
        """
        recorded = self.take_pass()
        if max(count_launched(), count_processes()) > 1:
            raise RuntimeError(
                "Gradients of these heads are not averaged over processes. Let the model hold them, by "
                "`supervision.join(model)` before it is wrapped, or train in a single process."
            )
        return self(recorded, self.build_targets(recorded.arguments, **targets))

    def take_pass(self) -> ForwardPass:
        """Return the record of the last training pass, once.

        Raises:
            RuntimeError: If it was detached, or there is no such pass.
        """
        recorded = self._recorder.take()
        if not self._recorder.is_attached:
            raise RuntimeError("This supervision was detached from its model; attach a new one.")
        if recorded is None:
            raise RuntimeError(
                "There is no training pass to compare with: before each compute_loss, call the model in training mode "
                "and with gradients. The output of a joined model has the loss already."
            )
        return recorded

    def build_targets(
        self,
        arguments: Mapping[str, Any],
        *,
        depth: PerSample | None = None,
        intrinsics: PerSample | None = None,
        camera_to_world: PerSample | None = None,
        has_geometry: Tensor | None = None,
        depth_alignment: Sequence[str | None] | None = None,
        teacher_features: PerSample | None = None,
    ) -> VideoTargets:
        """Lay the targets of a batch on the pixels and tokens of its videos.

        Args:
            arguments: Arguments of the model for this batch.
            depth: z-depth in metres, 0 = no measurement.
            intrinsics: Cameras of the pixels of `depth`, for the terms of frame pairs; together with
                `camera_to_world`.
            camera_to_world: Poses, OpenCV axes, metres.
            has_geometry: Samples whose depth counts; None for all.
            depth_alignment: Alignment of each sample's pseudo geometry, see `IDE3DDataCollator`; None for measured.
            teacher_features: Features of a frozen teacher on the grid of visual tokens; zero vectors are no target.

        Shape:
            depth:            (B, V, h, w), or a list of (V, h, w).
            intrinsics:       (B, V, 3, 3), or a list of (V, 3, 3).
            camera_to_world:  (B, V, 4, 4), or a list of (V, 4, 4).
            has_geometry:     (B,), bool.
            teacher_features: (B, V, rows, cols, C), or a list of (V, rows, cols, C).

        Raises:
            TypeError: If a target holds no numbers.
            ValueError: See `compute_terms`.
        """
        geometry = {"depth": depth, "intrinsics": intrinsics, "camera_to_world": camera_to_world}
        self.criterion.terms = frozenset(name for name, weight in self.loss_weights.items() if weight)
        return lay_targets(self, self.layout, arguments, geometry, has_geometry, depth_alignment, teacher_features)

    def forward(self, recorded: ForwardPass, targets: VideoTargets) -> dict[str, Tensor]:
        """Compute the unweighted terms of a training pass, scalars by name.

        All parameters of the heads are in the graph of the terms, whatever targets there are.

        Args:
            recorded: Record of the pass.
            targets: Targets of the same batch.
        """
        terms, self.errors = self.absent_terms(), {}
        if not targets.groups:
            return terms
        places, arguments = targets.places, recorded.arguments
        device = next(self.parameters()).device
        levels: list[list[Tensor]] = []
        if any("depth" in group.targets for group in targets.groups):
            for index in self.geometric_validator.config.layer_indices:
                states = recorded.states[f"vision.{index}"].to(device)
                levels.append(self.layout.arrange_states(states, places, arguments))
        layers = {layer for group in targets.groups for layer in self.list_layers(group.targets)}
        arranged = {layer: self._arrange(layer, recorded, places, device) for layer in sorted(layers)}
        parts = []
        for group in targets.groups:
            mask, patches = group.grid.frame_mask, group.grid.patch_grid
            padded = tuple(pad_frames(torch.cat([level[i] for i in group.chosen]), mask) for level in levels)
            states = {layer: torch.cat([videos[i] for i in group.chosen]) for layer, videos in arranged.items()}
            predictions = self.predict_geometry(group.targets, padded, patches, states)
            parts.append((self.criterion(predictions, group.targets), group.counts))
            for name, figure in measure_cameras(predictions, group.targets).items():
                self.errors[name] = tuple(map(sum, zip(self.errors.get(name, (0, 0)), figure, strict=True)))
        return {**terms, **merge_terms(parts)}

    def _arrange(
        self, layer: str, recorded: ForwardPass, places: list[VideoPlace], device: torch.device
    ) -> list[Tensor]:
        """Return a hidden state by video, (steps, rows, cols, width), on patches or on visual tokens."""
        if split_layer(layer)[0] == VISION:
            videos = self.layout.arrange_states(recorded.states[layer].to(device), places, recorded.arguments)
            return [video.unflatten(1, place.grid.patches) for video, place in zip(videos, places, strict=True)]
        states = recorded.final_states if layer == self.state_layers.final else recorded.states[layer]
        is_visual = (recorded.arguments["input_ids"] == self.layout.video_token_id).to(states.device)
        return self.layout.arrange_tokens(states[is_visual].to(device), places)


__all__ = ["GeometrySupervision"]
