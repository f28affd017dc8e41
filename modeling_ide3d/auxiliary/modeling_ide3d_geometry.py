"""The inference model with its training-only heads in one module, as Trainer, DDP, FSDP and PEFT need it."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from modeling_ide3d.auxiliary.camera_heads import LayerHead, PoseHead, ScaleHead
from modeling_ide3d.auxiliary.chunked_loss import chunk_loss
from modeling_ide3d.auxiliary.geometric_validator import (
    GeometricValidator,
    GeometricValidatorConfig,
    GeometricValidatorOutput,
)
from modeling_ide3d.auxiliary.geometry_heads import GeometryHeads, check_validator_config
from modeling_ide3d.auxiliary.outputs import Criterion, IDE3DGeometryOutputWithPast
from modeling_ide3d.auxiliary.packed_attention import PackedChats, build_packed_attention
from modeling_ide3d.auxiliary.region_queries import score_queries, select_query_references
from modeling_ide3d.auxiliary.state_layers import StateLayers, build_projector
from modeling_ide3d.auxiliary.state_reading import StateReading
from modeling_ide3d.auxiliary.targets import (
    GeometryTargets,
    MeasuredGeometry,
    VideoGrid,
    locate_videos,
    select_answers,
)
from modeling_ide3d.configuration_ide3d import IDE3DConfig
from modeling_ide3d.modeling_ide3d import IDE3DForConditionalGeneration
from modeling_ide3d.shared_prefix import SHARED_PREFIX

GEOMETRY_PREFIXES = ("geometric_validator.", "teacher_projector.", "pose_head.", "scale_head.")
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["ide3d_with_geometry"] = "IDE3DForConditionalGenerationWithGeometry"  # for Trainer


class IDE3DForConditionalGenerationWithGeometry(IDE3DForConditionalGeneration, GeometryHeads, StateReading):
    """[`IDE3DForConditionalGeneration`] plus the geometric validator and the teacher projector, for training only.

    `save_pretrained` leaves the heads out; `geometry_state_dict` gives them. Without a `criterion` the forward pass
    predicts, and returns no loss term but the language loss.

    Args:
        config: Sizes of the inference model.
        validator_config: Sizes of the depth decoder; None trains without it.
        teacher_size: Width of the teacher's features; None trains without a teacher.
        distillation_layers: Hidden states that the teacher is compared with, such as ("vision.18", "language.28"), see
            `StateLayers`; None: the language model's final states.
    """

    _auto_class = None  # the training class must never export itself
    _keys_to_ignore_on_load_missing = [f"^{prefix[:-1]}\\." for prefix in GEOMETRY_PREFIXES]

    def __init__(
        self,
        config: IDE3DConfig,
        validator_config: GeometricValidatorConfig | None = None,
        teacher_size: int | None = None,
        distillation_layers: Sequence[str] | None = None,
    ):
        super().__init__(config)  # initialises the inference model; the heads below initialise themselves
        if distillation_layers is not None and teacher_size is None:
            raise ValueError(f"distillation_layers={distillation_layers!r} need a teacher_size, the teacher's width.")
        self.choose_layers(StateLayers.of(config), distillation_layers, None)
        self.geometric_validator = None
        self.teacher_projector = None
        if validator_config is not None:
            vision = config.vision_config
            check_validator_config(validator_config, vision.hidden_size, vision.patch_size, vision.num_hidden_layers)
            self.geometric_validator = GeometricValidator(validator_config)
        if teacher_size is not None:
            self.teacher_projector = build_projector(self.state_layers, teacher_size, self.distillation_layers)
        self.pose_head: PoseHead | LayerHead | None = None
        self.scale_head: ScaleHead | LayerHead | None = None
        self.criterion: Criterion | None = None
        self.loss_chunk_size = 0  # answer tokens whose logits a training step computes at a time; 0: all at once
        self.is_sharded = False  # whether the tower's weights are spread over processes, which run it equally often
        # Never used: features are read before it. DDP waits for its gradient unless it is frozen.
        self.model.vision_tower.post_layernorm.requires_grad_(False)
        # FSDP wraps each of these and refuses a class that the model does not hold, such as SigLIP's text part.
        held = {type(module).__name__ for module in self.modules()}
        self._no_split_modules = set(self._no_split_modules) & held
        # Trainer reports no missing keys where a checkpoint lacks just these: the heads, and a head that is tied.
        absent = {key for key in self.state_dict() if key.startswith(GEOMETRY_PREFIXES)}
        absent |= set(self.all_tied_weights_keys if absent else ())
        self._keys_to_ignore_on_save = absent | set(self._keys_to_ignore_on_save or ())

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        """Initialise what a checkpoint lacks; layers of the heads by the rule of their head."""
        for prefix in GEOMETRY_PREFIXES:
            head = getattr(self, prefix.rstrip("."), None)
            if head is not None and any(module is layer for layer in head.modules()):
                head.reset_layer(module)
                return
        super()._init_weights(module)

    def geometry_state_dict(self, state_dict: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """Weights of the training-only heads, of this module or picked from a gathered `state_dict`."""
        state_dict = self.state_dict() if state_dict is None else state_dict
        return {key: value for key, value in state_dict.items() if key.startswith(GEOMETRY_PREFIXES)}

    def geometry_parameters(self) -> list[torch.nn.Parameter]:
        """Parameters of the training-only heads."""
        return [value for name, value in self.named_parameters() if name.startswith(GEOMETRY_PREFIXES)]

    def load_geometry_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        """Load what `geometry_state_dict` gave.

        Raises:
            ValueError: A head of this module is missing in it, or has another shape, or it holds keys that this
                module does not have.
        """
        own = self.geometry_state_dict()
        missing, unexpected = sorted(set(own) - set(state_dict)), sorted(set(state_dict) - set(own))
        shapes = {
            key: (tuple(value.shape), tuple(own[key].shape))
            for key, value in state_dict.items()
            if key in own and value.shape != own[key].shape
        }
        if missing or unexpected or shapes:
            raise ValueError(
                f"The geometry weights do not fit this model: missing {missing[:4]}, unexpected {unexpected[:4]}, "
                f"other shapes {dict(list(shapes.items())[:4])}. "
                "Build the model with the same validator_config, teacher_size and layers as in the run they come from."
            )
        self.load_state_dict(state_dict, strict=False)

    def predict_depth(
        self, pixel_values_videos: torch.Tensor, video_frame_mask: torch.Tensor | None = None
    ) -> GeometricValidatorOutput:
        """Depth that the validator reads from the vision tower, to look at; needs no measurement.

        Shape:
            pixel_values_videos: (videos, V, 3, H, W), normalised frames.
            output:              depth and confidence (videos, V, h, w), metres.

        Raises:
            ValueError: The model was built without a validator.
        """
        if self.geometric_validator is None:
            raise ValueError("This model has no geometric validator: build it with a validator_config.")
        indices = self.geometric_validator.config.layer_indices
        encoded = self.encode_video(pixel_values_videos, video_frame_mask, indices)
        levels = self.arrange_levels(encoded, pixel_values_videos, video_frame_mask)
        return self.geometric_validator(levels, self.config.patch_grid)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_frame_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        region_masks: torch.Tensor | None = None,
        region_valid: torch.Tensor | None = None,
        region_references: torch.LongTensor | None = None,
        region_targets: torch.Tensor | None = None,
        segment_ids: torch.LongTensor | None = None,
        depth: torch.Tensor | None = None,
        intrinsics: torch.Tensor | None = None,
        camera_to_world: torch.Tensor | None = None,
        has_geometry: torch.Tensor | None = None,
        has_poses: torch.Tensor | None = None,
        depth_alignment: torch.Tensor | None = None,
        native_depth: torch.Tensor | None = None,
        native_intrinsics: torch.Tensor | None = None,
        teacher_features: torch.Tensor | None = None,
        sample_names: torch.Tensor | None = None,
        targets: GeometryTargets | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        logits_to_keep: int | torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | IDE3DGeometryOutputWithPast:
        """Run the inference model once and compare its features with the privileged targets.

        The first arguments are those of [`IDE3DForConditionalGeneration.forward`]. `logits_to_keep=None` keeps, in
        training mode with labels, the logits in front of a label of any sample: all logits would be most of a step's
        memory. Without labels or training it keeps all. `logits_to_keep=0` always keeps all (B, L, V). With a
        `loss_chunk_size` a training step keeps none, unless `logits_to_keep` is given: see `chunk_loss`.

        Shape:
            region_targets:   (B, regions + 1), bool; true regions, last column = "no such object"; a row without any
                              is no grounding sample. (B, queries, regions + 1) where packed chats ask for several:
                              the k-th row is that of the k-th `<ground>` that refers to no region.
            segment_ids:      (B, L), long; packed questions, see `IDE3DDataCollator`.
            depth, intrinsics, camera_to_world, has_geometry, has_poses, depth_alignment, native_depth,
                              native_intrinsics: see `MeasuredGeometry`.
            teacher_features: (B, V, rows, cols, C); all-zero vectors have no target.
            sample_names:     (B, L), bytes of the names, for the messages of `IDE3DTrainer`.
            targets:          what `build_targets` made of the arguments above, if that was done before.

        Raises:
            ValueError: A sample has more than one video, or a tensor has another shape than its video asks for.
        """
        has_targets = targets is not None
        wanted = self.wanted_layers(has_targets or depth is not None, has_targets or teacher_features is not None)
        zero = 0.0
        if mm_encoder_outputs is None:
            mm_encoder_outputs, zero = self.encode(pixel_values, pixel_values_videos, video_frame_mask, wanted)
        packed = None
        if segment_ids is not None:
            attention = self.config.text_config._attn_implementation
            if attention == SHARED_PREFIX and logits_to_keep is None and PackedChats.can_serve(segment_ids.device):
                packed, attention_mask = PackedChats(segment_ids), None
            else:
                attention_mask, position_ids = build_packed_attention(segment_ids, attention, self.dtype)
        if region_targets is not None and region_masks is None:
            raise ValueError("region_targets need region_masks, which say where the regions are.")
        if region_targets is not None and region_references is None:
            is_ground = input_ids == self.config.ground_token_id
            region_references = select_query_references(is_ground, region_masks, region_valid, region_targets)
        has_labels = labels is not None and bool((labels[..., 1:] != -100).any())
        is_asked = bool(kwargs.get("output_hidden_states"))
        kwargs = self.keep_states(wanted, kwargs)
        if logits_to_keep is not None:
            kwargs["logits_to_keep"] = logits_to_keep
        elif packed is not None:
            read = None
            if self.training and not is_asked and not self.model.language_model.is_activation_checkpointing:
                tokens = [self.config.ground_token_id]
                tokens += [self.config.video_token_id] if self.state_layers.final in wanted else []
                read = torch.isin(input_ids, torch.tensor(tokens, device=input_ids.device))
            kwargs = {**packed.choose_rows(labels if has_labels else None, read), **kwargs}
        elif has_labels and self.training:
            kwargs = {**select_answers(labels), **kwargs}
        with nullcontext() if packed is None else packed.inside(self.model.language_model):
            outputs = super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                labels=labels if has_labels else None,
                region_masks=region_masks,
                region_valid=region_valid,
                region_references=region_references,
                mm_encoder_outputs=mm_encoder_outputs,
                return_dict=True,
                **kwargs,
            )
        outputs = IDE3DGeometryOutputWithPast(**outputs)
        if packed is not None:
            packed.pad_outputs(outputs)
        if labels is not None:  # where a batch has nothing to say, the graph stays whole
            outputs.loss = zero + (outputs.loss if has_labels else outputs.logits.sum() * 0.0)
        if self.criterion is None:
            return outputs
        if targets is None:
            targets = self.build_targets(
                input_ids=input_ids,
                pixel_values_videos=pixel_values_videos,
                video_frame_mask=video_frame_mask,
                region_targets=region_targets,
                depth=depth,
                intrinsics=intrinsics,
                camera_to_world=camera_to_world,
                has_geometry=has_geometry,
                has_poses=has_poses,
                depth_alignment=depth_alignment,
                native_depth=native_depth,
                native_intrinsics=native_intrinsics,
                teacher_features=teacher_features,
            )
        if "region_targets" in targets.tensors:
            regions = (region_masks, region_valid, region_references)
            outputs.region_scores = score_queries(
                self,
                outputs.last_hidden_state,
                targets.tensors["region_targets"],
                input_ids,
                mm_encoder_outputs,
                *regions,
            )
        self._predict(outputs, targets.tensors, mm_encoder_outputs, input_ids, pixel_values_videos, video_frame_mask)
        if not is_asked:
            outputs.hidden_states = None
        terms = {**self.absent_terms(), **self.criterion(outputs, targets.tensors)}
        for name, term in terms.items():
            setattr(outputs, name, term)
        return outputs

    def _score_next(
        self, states: torch.Tensor, labels: torch.LongTensor | None, **kwargs: Any
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Score as the inference model does; in training by chunks of `loss_chunk_size`."""
        if not (self.training and self.loss_chunk_size and labels is not None and "shift_labels" in kwargs):
            return super()._score_next(states, labels, **kwargs)
        return None, chunk_loss(self.lm_head, self.loss_function, states, chunk_size=self.loss_chunk_size, **kwargs)

    @torch.no_grad()
    def build_targets(
        self,
        input_ids: torch.LongTensor,
        pixel_values_videos: torch.Tensor | None = None,
        video_frame_mask: torch.Tensor | None = None,
        region_targets: torch.Tensor | None = None,
        depth: torch.Tensor | None = None,
        intrinsics: torch.Tensor | None = None,
        camera_to_world: torch.Tensor | None = None,
        has_geometry: torch.Tensor | None = None,
        has_poses: torch.Tensor | None = None,
        depth_alignment: torch.Tensor | None = None,
        native_depth: torch.Tensor | None = None,
        native_intrinsics: torch.Tensor | None = None,
        teacher_features: torch.Tensor | None = None,
        **_: Any,
    ) -> GeometryTargets:
        """Build what the predictions of a batch will be compared with.

        It needs no forward pass, so that targets can be counted before one. The arguments are those of `forward`;
        others are ignored.

        Raises:
            ValueError: If a sample has more than one video, or a tensor has another shape than its video asks for.
        """
        targets: dict[str, Any] = {}
        if region_targets is not None and self.wants_head("grounding_head") and region_targets.any():
            targets["region_targets"] = region_targets.flatten(0, -2)
        has_depth = self.wants_depth() and depth is not None
        has_teacher = self.wants_teacher(teacher_features)
        if pixel_values_videos is None or not (has_depth or has_teacher):
            return GeometryTargets(targets)
        videos, num_frames = pixel_values_videos.shape[:2]
        frame_mask = None if video_frame_mask is None else video_frame_mask.bool()
        frames = [num_frames] * videos if frame_mask is None else frame_mask.sum(1).tolist()
        lengths = [count * self.config.tokens_per_frame for count in frames]
        vision = self.config.vision_config
        grid = VideoGrid(
            samples=locate_videos(input_ids, self.config.video_token_id, lengths),
            num_samples=len(input_ids),
            num_frames=num_frames,
            frame_mask=frame_mask,
            image_size=(vision.image_size, vision.image_size),
            patch_size=vision.patch_size,
            patch_grid=self.config.patch_grid,
            token_grid=self.config.token_grid,
        )
        geometry = None
        if has_depth:
            native = native_depth, native_intrinsics
            geometry = MeasuredGeometry(
                depth, intrinsics, camera_to_world, has_geometry, *native, has_poses, depth_alignment
            )
        targets.update(self.build_head_targets(grid, geometry, teacher_features if has_teacher else None))
        return GeometryTargets(targets)

    def _predict(
        self,
        outputs: IDE3DGeometryOutputWithPast,
        targets: dict[str, Any],
        encoded: dict[str, BaseModelOutputWithPooling],
        input_ids: torch.LongTensor,
        pixel_values_videos: torch.Tensor | None,
        video_frame_mask: torch.Tensor | None,
    ) -> None:
        """Fill in the predictions of the geometry heads that have a target."""
        levels = None
        if "depth" in targets:
            levels = self.arrange_levels(encoded["video"], pixel_values_videos, video_frame_mask)
        states = self.arrange_states(self.list_layers(targets), outputs, encoded, input_ids)
        predictions = self.predict_geometry(targets, levels, self.config.patch_grid, states)
        for name, value in vars(predictions).items():
            setattr(outputs, name, value)


__all__ = [
    "Criterion",
    "IDE3DForConditionalGenerationWithGeometry",
    "IDE3DGeometryOutputWithPast",
]
