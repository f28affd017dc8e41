"""Places of vision states and visual tokens in models of Transformers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.vision_utils import get_vision_window_index

from modeling_ide3d.auxiliary.targets import locate_videos
from processing.token_grid import TokenGrid


@dataclass(frozen=True)
class VideoPlace:
    """Sample, time steps and token grid of one video of a batch."""

    sample: int
    steps: int
    grid: TokenGrid

    def check_features(self, features: Tensor | None) -> None:
        """Raise ValueError unless teacher features (V, rows, cols, C), if any, have the grid of the visual tokens."""
        if features is not None and (features.dim() != 4 or tuple(features.shape[1:3]) != self.grid.shape):
            rows, cols = self.grid.shape
            raise ValueError(
                f"teacher_features of sample {self.sample} must have shape (V, {rows}, {cols}, C), the grid of its "
                f"visual tokens, got {tuple(features.shape)}."
            )


@dataclass(frozen=True)
class VisionLayout:
    """Places of a model's vision states and visual tokens.

    The names of modules are paths in the base model, e.g. in `Qwen2_5_VLModel`. Frames must enter the tower whole,
    resized and not cropped. A time step is what the tower sees as one picture: a frame, or `frames_per_step` frames
    that were merged into one.

    Args:
        tower: The vision tower; called once for all videos of a batch, and before that, where the model has
            `pixel_values` beside the videos, once for the images.
        blocks: The tower's list of layers; hidden state 0 is what enters the first one.
        language_model: Its first output are the final states of all tokens.
        video_token_id: Token id that stands for a visual token of a video.
        pixels: Argument of the base model that holds the pixels of the videos.
        patch_size: Side of a patch in pixels.
        pool_stride: Patches per visual token and side; a last token may hold fewer.
        grid_thw: Argument of the base model with (steps, rows, cols) of each video, in patches. None: pixels are
            (..., 3, H, W), all of one size.
        frames_per_step: Frames that the tower merges into one time step.
        prefix_states: States before the patches of every step, such as a class token.
        is_block_ordered: Whether the patches of a token are neighbours in the sequence, rather than of a row.
        window_size: Side in pixels of the windows that the tower sorts its tokens by; None: it does not.
        tokens_after_row: Visual tokens behind every row of a step, such as a newline.
        tokens_after_video: Visual tokens behind the last step of a video.
        language_blocks: The language model's list of layers, read where a term asks for an inner state; None: `layers`
            of the language model.
    """

    tower: str
    blocks: str
    language_model: str
    video_token_id: int
    pixels: str
    patch_size: int
    pool_stride: int
    grid_thw: str | None = None
    frames_per_step: int = 1
    prefix_states: int = 0
    is_block_ordered: bool = False
    window_size: int | None = None
    tokens_after_row: int = 0
    tokens_after_video: int = 0
    language_blocks: str | None = None

    def __post_init__(self):
        if self.language_blocks is None:
            object.__setattr__(self, "language_blocks", f"{self.language_model}.layers")

    def find_module(self, base_model: nn.Module, field: str) -> nn.Module:
        """Module that the path in `field` leads to.

        Raises:
            ValueError: There is none.
        """
        found = base_model
        for name in getattr(self, field).split("."):
            parts = dict(found.named_children())
            if name not in parts:
                raise ValueError(
                    f"The layout has {field}={getattr(self, field)!r}, but {type(found).__name__} has no part "
                    f"{name!r}, only {sorted(parts)[:8]}. Give the layout of this model."
                )
            found = parts[name]
        return found

    def find_videos(self, input_ids: Tensor, arguments: Mapping[str, Any]) -> list[VideoPlace]:
        """Videos of a batch in the order in which the tower sees them.

        Args:
            input_ids: (B, L), long.
            arguments: Arguments of the base model, those that were given.

        Raises:
            ValueError: Visual tokens and pixels do not match, or a sample has several videos.
        """
        counts = (input_ids == self.video_token_id).sum(-1).tolist()
        pixels = arguments.get(self.pixels)
        if pixels is None:
            if any(counts):
                raise ValueError(
                    f"The samples have {counts} visual tokens, but the model was called without {self.pixels}: "
                    "features that were computed before have no states to compare."
                )
            return []
        if self.grid_thw is not None:
            patch = self.patch_size
            sizes = [(steps, rows * patch, cols * patch) for steps, rows, cols in self._read_grids(arguments)]
        elif pixels.dim() == 5:
            sizes = [(pixels.shape[1], *pixels.shape[-2:])] * len(pixels)
        else:
            # Steps of all videos in one row: a sample has as many as its visual tokens say.
            per_step = self._count_tokens(1, self._build_grid(*pixels.shape[-2:]))
            sizes = [(count // per_step, *pixels.shape[-2:]) for count in counts if count]
        grids = [self._build_grid(height, width) for _, height, width in sizes]
        lengths = [
            self._count_tokens(steps, grid) + self.tokens_after_video
            for (steps, _, _), grid in zip(sizes, grids, strict=True)
        ]
        if sum(lengths) != sum(counts):
            raise ValueError(
                f"By this layout videos of {sizes} (steps, height, width) have {lengths} visual tokens, but the "
                f"samples have {counts} of token {self.video_token_id}. Is it the layout of this model?"
            )
        samples = locate_videos(input_ids, self.video_token_id, lengths).tolist()
        return [
            VideoPlace(sample, steps, grid) for sample, (steps, _, _), grid in zip(samples, sizes, grids, strict=True)
        ]

    def arrange_states(self, states: Tensor, places: list[VideoPlace], arguments: Mapping[str, Any]) -> list[Tensor]:
        """Hidden states of the tower by video, patches row by row.

        Shape:
            states: (all patches, C) or (steps, prefix + P, C), as the tower has them.
            output: for each video (steps, P, C), P = rows x cols.

        Raises:
            ValueError: Their number is another one than the videos ask for.
        """
        if states.dim() == 3:
            states = states[:, self.prefix_states :].flatten(0, 1)
        sizes = [place.steps * place.grid.patches[0] * place.grid.patches[1] for place in places]
        if states.dim() != 2 or len(states) != sum(sizes):
            raise ValueError(
                f"The vision tower has states of shape {tuple(states.shape)}; by this layout the videos have "
                f"{sum(sizes)} patches. Is it the layout of this model?"
            )
        stride = self.pool_stride
        if self.window_size is not None:
            order = torch.argsort(self._window_order(arguments)).to(states.device)
            states = states.unflatten(0, (-1, stride**2))[order].flatten(0, 1)
        videos = []
        for place, video in zip(places, states.split(sizes), strict=True):
            rows, cols = place.grid.patches
            if self.is_block_ordered:
                video = video.unflatten(0, (place.steps, rows // stride, cols // stride, stride, stride))
                video = video.transpose(2, 3).flatten(0, 4)
            videos.append(video.unflatten(0, (place.steps, rows * cols)))
        return videos

    def arrange_tokens(self, states: Tensor, places: list[VideoPlace]) -> list[Tensor]:
        """States at the visual tokens (all tokens, C) by video, (steps, rows, cols, C) each."""
        sizes = [self._count_tokens(place.steps, place.grid) + self.tokens_after_video for place in places]
        videos = []
        for place, video in zip(places, states.split(sizes), strict=True):
            video = video[: len(video) - self.tokens_after_video]
            videos.append(place.grid.split(video, tokens_after_row=self.tokens_after_row))
        return videos

    def _count_tokens(self, steps: int, grid: TokenGrid) -> int:
        """Visual tokens of a video without what follows its last step."""
        return steps * grid.rows * (grid.cols + self.tokens_after_row)

    def _build_grid(self, height: int, width: int) -> TokenGrid:
        return TokenGrid((height, width), self.patch_size, self.pool_stride)

    def _read_grids(self, arguments: Mapping[str, Any]) -> list[list[int]]:
        if arguments.get(self.grid_thw) is None:
            raise ValueError(f"The model was called with {self.pixels} and without {self.grid_thw}.")
        return arguments[self.grid_thw].tolist()

    def _window_order(self, arguments: Mapping[str, Any]) -> Tensor:
        order, _ = get_vision_window_index(
            arguments[self.grid_thw],
            spatial_merge_size=self.pool_stride,
            window_size=self.window_size,
            patch_size=self.patch_size,
        )
        return order


def _qwen2_5_vl(config: PreTrainedConfig) -> VisionLayout:
    return VisionLayout(**_qwen_fields(config), window_size=config.vision_config.window_size)


def _qwen3_vl(config: PreTrainedConfig) -> VisionLayout:
    return VisionLayout(**_qwen_fields(config))


def _qwen_fields(config: PreTrainedConfig) -> dict[str, Any]:
    vision = config.vision_config
    return {
        "tower": "visual",
        "blocks": "visual.blocks",
        "language_model": "language_model",
        "video_token_id": config.video_token_id,
        "pixels": "pixel_values_videos",
        "patch_size": vision.patch_size,
        "pool_stride": vision.spatial_merge_size,
        "grid_thw": "video_grid_thw",
        "frames_per_step": vision.temporal_patch_size,
        "is_block_ordered": True,
    }


def _internvl(config: PreTrainedConfig) -> VisionLayout:
    height, width = config.vision_config.patch_size
    if height != width:
        raise ValueError(f"Patches must be square, got {height} x {width} px.")
    return VisionLayout(
        tower="vision_tower",
        blocks="vision_tower.encoder.layer",
        language_model="language_model",
        # A frame is an image to this model.
        video_token_id=config.image_token_id,
        pixels="pixel_values",
        patch_size=height,
        pool_stride=round(1 / config.downsample_ratio),
        prefix_states=1,
    )


def _llava_onevision(config: PreTrainedConfig) -> VisionLayout:
    if config.vision_config.model_type != "siglip_vision_model":
        raise ValueError(
            f"The layout of llava_onevision is for a siglip_vision_model, got {config.vision_config.model_type}. Give "
            "a VisionLayout of your own."
        )
    return VisionLayout(
        tower="vision_tower",
        blocks="vision_tower.encoder.layers",
        language_model="language_model",
        video_token_id=config.video_token_id,
        pixels="pixel_values_videos",
        patch_size=config.vision_config.patch_size,
        pool_stride=2,
        tokens_after_video=1,
    )


LAYOUTS: dict[str, Callable[[PreTrainedConfig], VisionLayout]] = {
    "internvl": _internvl,
    "llava_onevision": _llava_onevision,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
}


def find_layout(config: PreTrainedConfig, name: str | None = None) -> VisionLayout:
    """Layout of a known family.

    Args:
        config: Configuration of the model.
        name: One of `LAYOUTS`; None: `config.model_type`.

    Raises:
        ValueError: No such family, or the configuration is of another one.
    """
    name = config.model_type if name is None else name
    if not isinstance(name, str) or name not in LAYOUTS:
        raise ValueError(f"There are layouts of {sorted(LAYOUTS)}, got {name!r}. Give a VisionLayout of your own.")
    if config.model_type != name:
        raise ValueError(
            f"The layout {name!r} was asked for, but the model is of type {config.model_type!r}. Leave the layout "
            "out, or give a VisionLayout of your own."
        )
    return LAYOUTS[name](config)


__all__ = ["LAYOUTS", "VideoPlace", "VisionLayout", "find_layout"]
