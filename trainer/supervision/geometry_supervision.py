"""Geometry supervision of any video language model: heads beside it, hooks in it, nothing of it changed."""

import logging
import reprlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from modeling_ide3d.auxiliary import (
    GeometricValidator,
    GeometricValidatorConfig,
    TeacherProjector,
    TeacherProjectorConfig,
)
from modeling_ide3d.auxiliary.geometry_heads import GeometryHeads, pad_frames
from modeling_ide3d.auxiliary.targets import MeasuredGeometry, VideoGrid
from processing.token_grid import TokenGrid
from trainer.data.geometry_inputs import pad_geometry, pad_teacher_features, resize_geometry, to_tensor
from trainer.field_rules import check_number
from trainer.processes import count_launched
from trainer.supervision.criterion import GeometryCriterion
from trainer.supervision.given_targets import (
    PerSample,
    build_validator_config,
    check_frame_counts,
    choose_weights,
    read_samples,
)
from trainer.supervision.recorder import ForwardPass, ForwardRecorder
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

    Build it by `attach`.

    Attributes:
        layout: Places of the model's states and visual tokens.
        criterion: Comparison of predictions with targets.
        loss_weights: Weight of each term by name, which may be changed between steps; a term of weight 0 is not
            computed.
    """

    def __init__(
        self,
        recorder: ForwardRecorder,
        validator_config: GeometricValidatorConfig | None,
        projector_config: TeacherProjectorConfig | None,
        criterion: GeometryCriterion,
        loss_weights: Mapping[str, float],
    ):
        super().__init__()
        self.layout = recorder.layout
        self.geometric_validator = None if validator_config is None else GeometricValidator(validator_config)
        self.teacher_projector = None if projector_config is None else TeacherProjector(projector_config)
        self.grounding_head = None  # regions are no part of other models
        self.loss_weights = dict(loss_weights)
        self.criterion = criterion
        self._recorder = recorder

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
                `IDE3DTrainingArguments`.

        Raises:
            TypeError: If it is no model of Transformers, or an argument is of another type.
            ValueError: If the model is supervised already or not built as the layout says, sizes or protocols do not
                fit together, or nothing has a weight.
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
        projector_config = None
        if teacher_size is not None:
            width = model.config.get_text_config().hidden_size
            projector_config = TeacherProjectorConfig(hidden_size=width, teacher_size=int(teacher_size))
        heads = {"geometric_validator": config, "teacher_projector": projector_config}
        weights = choose_weights({head for head in heads if heads[head] is not None}, criterion, loss_weights)
        base_model = getattr(model, model.base_model_prefix, model)
        recorder = ForwardRecorder(base_model, layout, () if config is None else config.layer_indices)
        tower = layout.find_module(base_model, "tower")
        if config is not None and not any(weight.requires_grad for weight in tower.parameters()):
            logger.warning("The vision tower is frozen: the depth terms train the depth decoder alone.")
        return cls(recorder, config, projector_config, criterion, weights).to(model.device)

    def detach(self) -> None:
        """Take the hooks out of the model; the heads stay here."""
        self._recorder.remove()

    def compute_loss(self, **targets: Any) -> Tensor:
        """Compute the weighted sum of the last training pass; arguments as for `compute_terms`."""
        return self.weigh(self.compute_terms(**targets))

    def weigh(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of what `compute_terms` gave, a scalar."""
        return sum(weight * terms[name] for name, weight in self.loss_weights.items() if weight)

    def compute_terms(
        self,
        *,
        depth: PerSample | None = None,
        intrinsics: PerSample | None = None,
        camera_to_world: PerSample | None = None,
        has_geometry: Tensor | None = None,
        teacher_features: PerSample | None = None,
    ) -> dict[str, Tensor]:
        """Compute the unweighted terms of the last training pass.

        A term without targets is a zero that keeps its head in the graph. Targets are given for the frames as they
        went into the model's processor: as one tensor of the batch, padded to the longest video, or as a list with a
        tensor or None for each sample. Depth may have any resolution; it is laid on the pixels that the processor
        resized the whole frame to.

        Args:
            depth: z-depth in metres, 0 = no measurement.
            intrinsics: Cameras of the pixels of `depth`, for the terms of frame pairs; together with
                `camera_to_world`.
            camera_to_world: Poses, OpenCV axes, metres.
            has_geometry: Samples whose depth counts; None for all.
            teacher_features: Features of a frozen teacher on the grid of visual tokens; zero vectors are no target.

        Shape:
            depth:            (B, V, h, w), or a list of (V, h, w).
            intrinsics:       (B, V, 3, 3), or a list of (V, 3, 3).
            camera_to_world:  (B, V, 4, 4), or a list of (V, 4, 4).
            has_geometry:     (B,), bool.
            teacher_features: (B, V, rows, cols, C), or a list of (V, rows, cols, C).
            output:           scalars by name, such as `loss_depth`.

        Raises:
            RuntimeError: If it was detached, there is no training pass to compare with, or several processes run.
            ValueError: If targets lack their head, belong to other samples or frames than the model saw, have wrong
                shapes or are broken. Also if a sample has several videos, or the layout does not explain its tokens.
        """
        given = {
            "depth": depth,
            "intrinsics": intrinsics,
            "camera_to_world": camera_to_world,
            "teacher_features": teacher_features,
        }
        geometry = {name: read_samples(name, values) for name, values in given.items()}
        teacher_features = geometry.pop("teacher_features")
        recorded = self._take_pass()
        self.criterion.terms = frozenset(name for name, weight in self.loss_weights.items() if weight)
        self._check_given(geometry, teacher_features)
        terms = self.absent_terms()
        has_depth = depth is not None and self.wants_head("geometric_validator")
        has_teacher = teacher_features is not None and self.wants_head("teacher_projector")
        if not (has_depth or has_teacher):
            return terms
        input_ids = recorded.arguments.get("input_ids")
        if input_ids is None:
            raise ValueError("Visual tokens are found by input_ids, but the model was called without them.")
        places = self.layout.find_videos(input_ids, recorded.arguments)
        measured: list[dict[str, Tensor] | None] = [None] * len(places)
        features: list[Tensor | None] = [None] * len(places)
        if has_depth:
            measured = self._measure_videos(geometry, has_geometry, input_ids, places)
        if has_teacher:
            features = self._split("teacher_features", teacher_features, input_ids, places)
            for place, value in zip(places, features, strict=True):
                place.check_features(value)
        if all(value is None for value in (*measured, *features)):
            return terms
        return {**terms, **self._compare(recorded, places, measured, features)}

    def _take_pass(self) -> ForwardPass:
        recorded = self._recorder.take()
        if not self._recorder.is_attached:
            raise RuntimeError("This supervision was detached from its model; attach a new one.")
        is_joined = torch.distributed.is_available() and torch.distributed.is_initialized()
        if count_launched() > 1 or (is_joined and torch.distributed.get_world_size() > 1):
            raise RuntimeError("Gradients of the heads are not averaged over processes: train in a single one.")
        if recorded is None:
            raise RuntimeError(
                "There is no training pass to compare with: before each compute_loss, call the model in training mode "
                "and with gradients."
            )
        return recorded

    def _check_given(self, geometry: Mapping[str, PerSample | None], teacher_features: PerSample | None) -> None:
        given = [name for name, value in geometry.items() if value is not None]
        if given not in ([], ["depth"], list(geometry)):
            raise ValueError(f"Give depth alone, or {list(geometry)} together; got {given}.")
        if given and self.geometric_validator is None:
            raise ValueError("depth is given, but this supervision has no depth decoder: attach with a validator.")
        if teacher_features is not None and self.teacher_projector is None:
            raise ValueError("teacher_features are given, but there is no projector: attach with their teacher_size.")

    def _split(
        self,
        name: str,
        values: PerSample | None,
        input_ids: Tensor,
        places: list[VideoPlace],
        usable: Sequence[bool] | None = None,
    ) -> list[Tensor | None]:
        """Take the values of the first frame of each time step, None: not usable."""
        if values is None:
            return [None] * len(places)
        if len(values) != len(input_ids):
            raise ValueError(f"{name} must have one entry a sample, {len(input_ids)}, got {len(values)}.")
        if not isinstance(values, Tensor):
            without = set(range(len(values))) - {place.sample for place in places}
            stray = sorted(sample for sample in without if values[sample] is not None)
            if stray:
                raise ValueError(f"{name} is given for the samples {stray}, which have no video.")
        merged, longest = self.layout.frames_per_step, max((place.steps for place in places), default=0)
        device = next(self.parameters()).device
        videos: list[Tensor | None] = []
        for index, place in enumerate(places):
            value = values[place.sample] if usable is None or usable[index] else None
            if value is not None:
                value = to_tensor(value, f"{name} of sample {place.sample}")
                if value.dtype == torch.bool or value.dim() == 0:
                    found = "True and False" if value.dim() else "a single number"
                    raise TypeError(f"{name} of sample {place.sample} must be numbers of each frame, got {found}.")
                steps = longest if isinstance(values, Tensor) else place.steps
                if -(-len(value) // merged) != steps:
                    raise ValueError(
                        f"{name} of sample {place.sample} has {len(value)} frames, but the model saw {steps} time "
                        f"steps of {merged} frames. Sample the frames before the processor and give the same ones."
                    )
                merged_away = [value[first : merged * place.steps : merged].float() for first in range(1, merged)]
                if value.device.type == "cpu" and not all(torch.isfinite(part).all() for part in merged_away):
                    warnings.warn(
                        f"{name} of sample {place.sample} holds NaN or Inf in frames that the model merges into their "
                        "first one. They are not read; look at how they are measured.",
                        stacklevel=2,
                    )
                value = value[::merged][: place.steps].to(device, torch.float32)  # the losses look at these
            videos.append(value)
        return videos

    def _measure_videos(
        self,
        geometry: Mapping[str, PerSample | None],
        has_geometry: Tensor | None,
        input_ids: Tensor,
        places: list[VideoPlace],
    ) -> list[dict[str, Tensor] | None]:
        """Geometry of each video, None where none counts."""
        if has_geometry is not None:
            has_geometry = to_tensor(has_geometry, "has_geometry")
            if has_geometry.shape != (len(input_ids),):
                raise ValueError(f"has_geometry must have shape ({len(input_ids)},), got {tuple(has_geometry.shape)}.")
            is_flag = has_geometry.dtype == torch.bool  # whose numbers nobody has to look at
            if not is_flag and not ((has_geometry == 0) | (has_geometry == 1)).all():
                raise ValueError(f"has_geometry must be True or False for each sample, got {has_geometry.tolist()}.")
        usable = [has_geometry is None or bool(has_geometry[place.sample]) for place in places]
        check_frame_counts(geometry, [place.sample for place, is_used in zip(places, usable, strict=True) if is_used])
        split = {name: self._split(name, value, input_ids, places, usable) for name, value in geometry.items()}
        return [
            self._measure(place, {name: split[name][index] for name in split}) if usable[index] else None
            for index, place in enumerate(places)
        ]

    def _measure(self, place: VideoPlace, video: dict[str, Tensor | None]) -> dict[str, Tensor] | None:
        """Geometry of one video on the pixels of the vision input, None without depth."""
        depth, intrinsics, camera_to_world = video.values()
        if depth is None:
            return None
        try:
            if depth.dim() != 3:
                raise ValueError(f"depth must have shape (V, h, w), got {tuple(depth.shape)}.")
            for name, value, side in (("intrinsics", intrinsics, 3), ("camera_to_world", camera_to_world, 4)):
                if value is not None and value.shape != (len(depth), side, side):
                    raise ValueError(
                        f"{name} must have shape (V, {side}, {side}), one matrix a frame, got {tuple(value.shape)}."
                    )
            if (intrinsics is None) != (camera_to_world is None):
                raise ValueError("intrinsics and camera_to_world need each other, got only one of them.")
            size = depth.shape[1:]
            return resize_geometry(depth, intrinsics, camera_to_world, size, place.grid, self.criterion.protocol)
        except ValueError as error:
            raise ValueError(f"Sample {place.sample}: {error}") from error

    def _compare(
        self,
        recorded: ForwardPass,
        places: list[VideoPlace],
        measured: list[dict[str, Tensor] | None],
        features: list[Tensor | None],
    ) -> dict[str, Tensor]:
        """Terms of all videos; those of one size are compared together."""
        device = next(self.parameters()).device
        is_visual = (recorded.arguments["input_ids"] == self.layout.video_token_id).to(recorded.final_states.device)
        tokens = self.layout.arrange_tokens(recorded.final_states[is_visual].to(device), places)
        levels: list[list[Tensor]] = []
        if any(geometry is not None for geometry in measured):
            for index in self.geometric_validator.config.layer_indices:
                states = recorded.states[index].to(device)
                levels.append(self.layout.arrange_states(states, places, recorded.arguments))
        by_size: dict[TokenGrid, list[int]] = {}
        for index, place in enumerate(places):
            if measured[index] is not None or features[index] is not None:
                by_size.setdefault(place.grid, []).append(index)
        if len(by_size) > 1 and self.criterion.protocol == "paper":
            raise ValueError(f"Protocol paper takes videos of one size in a batch, got {list(by_size)}.")
        parts = [
            self._compare_size(
                grid, *([values[i] for i in chosen] for values in (measured, features, tokens, *levels))
            )
            for grid, chosen in by_size.items()
        ]
        return _merge_terms(parts)

    def _compare_size(
        self,
        grid: TokenGrid,
        measured: list[dict[str, Tensor] | None],
        features: list[Tensor | None],
        tokens: list[Tensor],
        *levels: list[Tensor],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Terms of videos of one size, and what each term is a mean over."""
        steps = torch.tensor([len(video) for video in tokens], device=tokens[0].device)
        num_steps = int(steps.max())
        frame_mask = torch.arange(num_steps, device=steps.device) < steps.unsqueeze(1)
        videos = VideoGrid(
            samples=torch.arange(len(steps), device=steps.device),
            num_samples=len(steps),
            num_frames=num_steps,
            frame_mask=frame_mask,
            image_size=grid.image_size,
            patch_size=grid.patch_size,
            patch_grid=grid.patches,
            token_grid=grid.shape,
        )
        geometry = {key: value.to(steps.device) for key, value in pad_geometry(measured, num_steps, grid).items()}
        teacher = pad_teacher_features(features, num_steps).get("teacher_features")
        targets = self.build_head_targets(videos, MeasuredGeometry(**geometry) if geometry else None, teacher)
        padded = tuple(pad_frames(torch.cat(level), frame_mask) for level in levels)
        predictions = self.predict_geometry(targets, padded, grid.patches, torch.cat(tokens))
        return self.criterion(predictions, targets), self.criterion.count(targets)


def _merge_terms(parts: list[tuple[dict[str, Tensor], dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Combine the means over each part by their denominators."""
    if len(parts) == 1:
        return parts[0][0]
    merged = {}
    for name in sorted({name for terms, _ in parts for name in terms}):
        counted = [(terms[name], counts[name]) for terms, counts in parts if name in terms]
        total = sum(count for _, count in counted).clamp(min=torch.finfo(torch.float32).tiny)
        merged[name] = sum(term * (count / total) for term, count in counted)
    return merged


__all__ = ["GeometrySupervision"]
