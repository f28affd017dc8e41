"""Weak depth decoder on the vision tower, in training only: do the features hold geometry?"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput

from modeling_ide3d.auxiliary.dpt_head import NUM_LEVELS, DPTHead
from modeling_ide3d.auxiliary.relative_pose import POSE_ENTRIES, RelativePoseEmbedding, encode_relative_pose

OFFICIAL_LAYERS = 26  # layers of the vision tower that the official indices 6, 12, 18, 26 refer to


@strict
@dataclass
class GeometricValidatorConfig:
    """Sizes of the depth head, by default those of 3D-IDE (arXiv 2604.03296).

    The head is used in training only. It starts from random weights, which the paper finds best ("scratch").

    Args:
        vision_hidden_size: Width of the vision tower.
        patch_size: Side of a patch in pixels.
        layer_indices: Hidden states of the vision tower that are read, 0 = patch embeddings, one for each level.
        projection_hidden_size: Inner width of the shared projection; twice the vision width by default.
        projection_size: Width of the projected tokens.
        features: Width of the fusion blocks, a multiple of 8.
        out_channels: Width of each level, multiples of 4.
        head_features: Width of the last 3x3 convolution.
        output_stride: Pixels of the vision input per predicted pixel and side; a divisor of the pixels of a frame.
        frames_per_chunk: Frames decoded at a time; None takes all at once. Bounds the memory, not the result.
        protocol: Numbers of the relative pose that enter for another view. "clean": scaled translation and six
            numbers of the rotation, see `encode_relative_pose`. "paper": the flattened 4x4 matrix.

    Raises:
        StrictDataclassFieldValidationError: If a field has a wrong type.
        StrictDataclassClassValidationError: If sizes contradict each other.
    """

    vision_hidden_size: int = 1152
    patch_size: int = 14
    layer_indices: tuple[int, ...] | list[int] = (6, 12, 18, 26)  # Official: [6, 12, 18, -1] of a 26-layer tower.
    projection_hidden_size: int | None = None
    projection_size: int = 2048
    features: int = 256
    out_channels: tuple[int, ...] | list[int] = (256, 512, 1024, 1024)
    head_features: int = 32
    output_stride: int = 1
    frames_per_chunk: int | None = 8
    protocol: Literal["clean", "paper"] = "clean"

    def __post_init__(self):
        self.layer_indices = tuple(self.layer_indices)
        self.out_channels = tuple(self.out_channels)
        if self.projection_hidden_size is None:
            self.projection_hidden_size = 2 * self.vision_hidden_size

    @classmethod
    def from_vision_config(cls, vision_config: PreTrainedConfig, **overrides) -> "GeometricValidatorConfig":
        """Fit the paper's head to a vision tower; layers keep their relative depth."""
        layers = vision_config.num_hidden_layers
        defaults = {
            "vision_hidden_size": vision_config.hidden_size,
            "patch_size": vision_config.patch_size,
            "layer_indices": tuple(round(index * layers / OFFICIAL_LAYERS) for index in (6, 12, 18, 26)),
        }
        return cls(**{**defaults, **overrides})

    @classmethod
    def light(cls, vision_config: PreTrainedConfig, **overrides) -> "GeometricValidatorConfig":
        """Fit a narrow head to a small vision tower; by default it predicts every pixel."""
        defaults = {
            "projection_size": 64,
            "features": 16,
            "out_channels": (16, 16, 32, 32),
            "head_features": 16,
            "frames_per_chunk": None,
        }
        return cls.from_vision_config(vision_config, **{**defaults, **overrides})

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, torch.Tensor], **overrides) -> "GeometricValidatorConfig":
        """Read the widths from whole weights; sizes that no shape tells come from the arguments.

        Raises:
            ValueError: If a weight is missing, or the pose embedding has a width of neither protocol.
        """
        weights = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
        try:
            hidden, vision = weights["decoder.projection.0.weight"]
            widths = {
                "vision_hidden_size": vision,
                "projection_hidden_size": hidden,
                "projection_size": weights["decoder.projection.2.weight"][0],
                "features": weights["decoder.head.level_convs.0.weight"][0],
                "out_channels": tuple(weights[f"decoder.head.projections.{i}.weight"][0] for i in range(NUM_LEVELS)),
                "head_features": weights["decoder.head.pixel_conv.weight"][0],
            }
            pose_entries = weights["relative_pose_embedding.0.weight"][1]
        except KeyError as error:
            raise ValueError(
                f"The weights lack {error}, which tells a width of the decoder. Pass a whole state dict."
            ) from error
        protocols = [protocol for protocol, entries in POSE_ENTRIES.items() if entries == pose_entries]
        if not protocols:
            raise ValueError(
                f"`relative_pose_embedding.0.weight` takes {pose_entries} numbers of a pose, expected {POSE_ENTRIES}."
            )
        return cls(**{**widths, "protocol": protocols[0], **overrides})

    def validate_architecture(self):
        """Check the number of levels, widths and strides, which no type tells."""
        for name in ("layer_indices", "out_channels"):
            if len(getattr(self, name)) != NUM_LEVELS:
                raise ValueError(
                    f"`{name}` must have {NUM_LEVELS} entries, one for each level, got {getattr(self, name)}."
                )
        if list(self.layer_indices) != sorted(self.layer_indices) or self.layer_indices[0] < 0:
            raise ValueError(
                f"`layer_indices` must be non-negative and ascending, 0 = patch embeddings, got {self.layer_indices}. "
                "Write the last state as the number of layers, not as -1."
            )
        if self.features % 8 or self.features < 8:
            raise ValueError(f"`features` must be a positive multiple of 8, got {self.features}.")
        if any(width % 4 or width < 4 for width in self.out_channels):
            raise ValueError(f"`out_channels` must be positive multiples of 4, got {self.out_channels}.")
        for name in ("output_stride", "frames_per_chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")


@dataclass
class GeometricValidatorOutput(ModelOutput):
    """Depth and confidence that the validator reads from vision features.

    Args:
        depth: Z-depth in metres, positive, float32; (B, V, H, W), or (N, H, W) for pairs of frames.
        confidence: Confidence of each pixel, at least 1, float32; same shape.
    """

    depth: torch.Tensor | None = None
    confidence: torch.Tensor | None = None


class DepthDecoder(GradientCheckpointingLayer):
    """Shared projection of the levels and the dense head, recomputed together by activation checkpointing.

    Shape:
        features:   four tensors (M, P, vision_hidden_size); P = rows * cols.
        patch_grid: (rows, cols), before pooling.
        output:     (M, 2, H, W): log depth and log (confidence - 1).
    """

    def __init__(self, config: GeometricValidatorConfig):
        super().__init__()
        self.projection = nn.Sequential(
            nn.Linear(config.vision_hidden_size, config.projection_hidden_size),
            nn.GELU(),
            nn.Linear(config.projection_hidden_size, config.projection_size),
            nn.LayerNorm(config.projection_size),
        )
        self.head = DPTHead(
            input_size=config.projection_size,
            patch_size=config.patch_size,
            features=config.features,
            out_channels=config.out_channels,
            head_features=config.head_features,
            output_stride=config.output_stride,
        )

    def forward(self, patch_grid: tuple[int, int], *features: torch.Tensor) -> torch.Tensor:
        """Decode a chunk of frames."""
        return self.head(patch_grid, *(self.projection(level) for level in features))


class GeometricValidator(nn.Module):
    """Depth of the own view or of another one, from features of the vision tower.

    Source: 3D-IDE (arXiv 2604.03296), geometric validator and cross-view prediction; official `VGGTModule`,
    `forward_cross_view_depth`. It trains the tower and never leaves the training: nothing of it is exported.

    Args:
        config: Sizes; `GeometricValidatorConfig.from_vision_config(vision_config)` reads them from a vision tower.
    """

    def __init__(self, config: GeometricValidatorConfig):
        super().__init__()
        self.config = config
        self.decoder = DepthDecoder(config)
        self.relative_pose_embedding = nn.ModuleList(
            RelativePoseEmbedding(config.vision_hidden_size, config.protocol) for _ in config.layer_indices
        )
        self.apply(self.reset_layer)

    def reset_layer(self, layer: nn.Module) -> None:
        """Initialise a layer of this module by torch's scheme, for the scale of narrow heads."""
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.LayerNorm)):
            layer.reset_parameters()

    def activation_checkpointing_enable(self) -> None:
        """Compute the decoder again in the backward pass instead of keeping its activations.

        A training model does this with all of its layers; this is for a validator beside another model.
        """
        self.decoder.gradient_checkpointing = True
        self.decoder._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    def output_size(self, patch_grid: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the prediction for a grid of (rows, cols) patches."""
        return self.decoder.head.output_size(patch_grid)

    def forward(
        self, multilevel_features: tuple[torch.Tensor, ...], patch_grid: tuple[int, int]
    ) -> GeometricValidatorOutput:
        """Predict the depth of every frame from its own features.

        Shape:
            multilevel_features: four tensors (B, V, P, vision_hidden_size), hidden states `config.layer_indices` of
                the vision tower before its final layer norm; P = rows * cols.
            patch_grid:          (rows, cols), before pooling.
            output.depth:        (B, V, H, W) float32, metres, z-depth.
            output.confidence:   (B, V, H, W) float32, at least 1.

        Raises:
            ValueError: If number of levels, widths or tokens differ from the configuration or the grid.
        """
        self._check_features(multilevel_features, patch_grid)
        batch_size, views = multilevel_features[0].shape[:2]
        frames = torch.arange(batch_size * views, device=multilevel_features[0].device)
        output = self._decode(multilevel_features, patch_grid, frames // max(views, 1), frames % max(views, 1))
        return GeometricValidatorOutput(
            depth=output.depth.unflatten(0, (batch_size, views)),
            confidence=output.confidence.unflatten(0, (batch_size, views)),
        )

    def predict_cross_view(
        self,
        multilevel_features: tuple[torch.Tensor, ...],
        patch_grid: tuple[int, int],
        batch: torch.Tensor,
        source: torch.Tensor,
        target_from_source: torch.Tensor,
    ) -> GeometricValidatorOutput:
        """Predict the depth of a target view from a source view and their relative pose.

        A learned map of the pose is added to every token of the source view, at each level. Pairs that no loss looks
        at (empty masks) should be left out by the caller.

        Shape:
            multilevel_features: four tensors (B, V, P, vision_hidden_size).
            patch_grid:          (rows, cols), before pooling.
            batch:               (N,) long, sample of each pair.
            source:              (N,) long, frame that gives the features.
            target_from_source:  (N, 4, 4), inverse(camera_to_world[target]) @ camera_to_world[source], metres.
            output.depth:        (N, H, W) float32, metres, z-depth in the target's camera.
            output.confidence:   (N, H, W) float32, at least 1.

        Raises:
            ValueError: If shapes differ from the configuration, the grid or each other.
        """
        self._check_features(multilevel_features, patch_grid)
        if batch.ndim != 1 or source.shape != batch.shape or target_from_source.shape != (*batch.shape, 4, 4):
            raise ValueError(
                "batch and source must have shape (N,) and target_from_source (N, 4, 4), got "
                f"{tuple(batch.shape)}, {tuple(source.shape)} and {tuple(target_from_source.shape)}."
            )
        return self._decode(multilevel_features, patch_grid, batch, source, target_from_source)

    def _decode(
        self,
        features: tuple[torch.Tensor, ...],
        patch_grid: tuple[int, int],
        batch: torch.Tensor,
        frame: torch.Tensor,
        target_from_source: torch.Tensor | None = None,
    ) -> GeometricValidatorOutput:
        """Decode the frames (batch[i], frame[i]) in chunks."""
        count = batch.shape[0]
        if count == 0:
            empty = features[0].new_zeros((0, *self.output_size(patch_grid)), dtype=torch.float32)
            return GeometricValidatorOutput(depth=empty, confidence=empty.clone())
        dtype = next(self.parameters()).dtype
        raw = []
        for rows in torch.arange(count, device=batch.device).split(self.config.frames_per_chunk or count):
            levels = [level[batch[rows], frame[rows]].to(dtype) for level in features]
            if target_from_source is not None:
                pose = encode_relative_pose(target_from_source[rows], self.config.protocol).to(dtype)
                levels = [
                    level + embedding(pose).unsqueeze(1)
                    for level, embedding in zip(levels, self.relative_pose_embedding, strict=True)
                ]
            raw.append(self.decoder(patch_grid, *levels))
        log_depth, log_confidence = torch.cat(raw).float().unbind(1)
        return GeometricValidatorOutput(depth=log_depth.exp(), confidence=1 + log_confidence.exp())

    def _check_features(self, features: tuple[torch.Tensor, ...], patch_grid: tuple[int, int]):
        if len(features) != NUM_LEVELS:
            raise ValueError(
                f"multilevel_features must hold {NUM_LEVELS} levels, the hidden states {self.config.layer_indices} of "
                f"the vision tower, got {len(features)}."
            )
        expected = (patch_grid[0] * patch_grid[1], self.config.vision_hidden_size)
        for level in features:
            if level.ndim != 4 or tuple(level.shape[2:]) != expected or level.shape != features[0].shape:
                raise ValueError(
                    f"multilevel_features must all have shape (B, V, {expected[0]}, {expected[1]}) for a grid of "
                    f"{tuple(patch_grid)} patches, got {[tuple(f.shape) for f in features]}."
                )


# Original name -> ours; the first pattern that matches decides.
_ORIGINAL_NAMES = [
    (r"feature_projector\.(\d)\.(weight|bias)", r"decoder.projection.\1.\2"),
    (r"camera_pose_embedding\.(\d)", r"relative_pose_embedding.\1.weight"),
    (r"depth_head\.norm\.(weight|bias)", r"decoder.head.norm.\1"),
    (r"depth_head\.projects\.(\d)\.(weight|bias)", r"decoder.head.projections.\1.\2"),
    (r"depth_head\.resize_layers\.(\d)\.(weight|bias)", r"decoder.head.resizes.\1.\2"),
    (r"depth_head\.scratch\.layer(\d)_rn\.weight", r"decoder.head.level_convs.{level}.weight"),
    (r"depth_head\.scratch\.refinenet(\d)\.out_conv\.(weight|bias)", r"decoder.head.fusions.{level}.out_conv.\2"),
    (
        r"depth_head\.scratch\.refinenet(\d)\.resConfUnit1\.(conv\d\.(?:weight|bias))",
        r"decoder.head.fusions.{level}.level_unit.\2",
    ),
    (
        r"depth_head\.scratch\.refinenet(\d)\.resConfUnit2\.(conv\d\.(?:weight|bias))",
        r"decoder.head.fusions.{level}.fused_unit.\2",
    ),
    (r"depth_head\.scratch\.output_conv1\.(weight|bias)", r"decoder.head.fused_conv.\1"),
    (r"depth_head\.scratch\.output_conv2\.0\.(weight|bias)", r"decoder.head.pixel_conv.\1"),
    (r"depth_head\.scratch\.output_conv2\.2\.(weight|bias)", r"decoder.head.prediction.\1"),
]


def rename_original_key(key: str) -> str:
    """Return the name in `GeometricValidator` of a weight of the original's `dpt_module`.

    Args:
        key: Original name, without or with everything up to `dpt_module.`.

    Raises:
        ValueError: If the original module has no such weight.
    """
    name = key.rpartition("dpt_module.")[2]
    for pattern, target in _ORIGINAL_NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            # Levels count from 1 in the original, from 0 here.
            level = int(match.group(1)) - 1 if "{level}" in target else None
            return match.expand(target.replace("{level}", str(level)))
    raise ValueError(
        f"{key!r} is not a weight of the original dpt_module; expected names such as 'depth_head.norm.weight'."
    )


def convert_original_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert the weights of the original's `dpt_module` to a state dict of `GeometricValidator`.

    Names change, and the pose embeddings, stored (16, width) in the original, become linear layers.

    Raises:
        ValueError: If the original module has no such weight.
    """
    converted = {}
    for key, tensor in state_dict.items():
        name = rename_original_key(key)
        converted[name] = tensor.T.contiguous() if name.startswith("relative_pose_embedding") else tensor
    return converted


__all__ = [
    "GeometricValidator",
    "GeometricValidatorConfig",
    "GeometricValidatorOutput",
    "convert_original_state_dict",
    "rename_original_key",
]
