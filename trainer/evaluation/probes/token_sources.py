"""Sources of probed tokens: a model of ours, or a vision tower of Transformers with square patches."""

import inspect
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from modeling_ide3d import IDE3DForConditionalGeneration
from processing import IDE3DProcessor, IDE3DVideoProcessor
from processing.token_grid import TokenGrid

__all__ = ["IDE3DTokens", "TokenSource", "VisionTowerTokens", "check_layers", "open_token_source"]

FRAMES_AT_ONCE = 8
MAX_PREFIX = 32  # class and register tokens before the patches


class TokenSource(Protocol):
    """Tokens of a frozen model, layer by layer.

    Attributes:
        layers: Names of all layers.
        default_layers: Names of a few layers, evenly spread.
        read_by_losses: Layers that a geometry loss of the training reads; None where that is not known.
    """

    layers: tuple[str, ...]
    default_layers: tuple[str, ...]
    read_by_losses: frozenset[str] | None

    def grid(self, layer: str) -> TokenGrid:
        """Return the pixels of the vision input that each token of a layer covers."""

    def encode(self, frames: np.ndarray, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return tokens (V, rows, cols, C), float32, of each layer.

        Args:
            frames: Frames (V, h, w, 3), uint8.
            layers: Names of layers.
        """


def _spread(name: str, last: int, parts: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"{name}.{round(part * last / parts)}" for part in range(parts + 1)))


def _check_eval(model: nn.Module) -> None:
    if model.training:
        raise ValueError("The model is in training mode: call model.eval() first.")


class IDE3DTokens:
    """Tokens of a model of ours.

    `vision.k` is the k-th hidden state of the vision tower on the grid of patches, 0 = patch embeddings. `language.k`
    is the k-th hidden state of the language model at the visual tokens, newlines left out. 0 is its input, projected
    and pooled, and the last one stands behind the final norm. Visual tokens do not see the question behind them.

    Args:
        model: `IDE3DForConditionalGeneration`, or its training class, in evaluation mode.
        processor: Processor of the model.
        read_by_losses: Layers that the losses read; None takes those of the heads that the training class has.

    Raises:
        ValueError: If the model is in training mode, or `read_by_losses` names a layer that does not exist.
    """

    def __init__(self, model: nn.Module, processor: IDE3DProcessor, read_by_losses: Collection[str] | None = None):
        _check_eval(model)
        self.model, self.processor = model, processor
        vision = model.config.vision_config.num_hidden_layers
        text = model.config.text_config.num_hidden_layers
        self.layers = tuple(f"vision.{k}" for k in range(vision + 1)) + tuple(f"language.{k}" for k in range(text + 1))
        self.default_layers = _spread("vision", vision, 4) + _spread("language", text, 2)
        if read_by_losses is None:
            validator = getattr(model, "geometric_validator", None)
            read = [] if validator is None else [f"vision.{layer}" for layer in validator.config.layer_indices]
            if getattr(model, "teacher_projector", None) is not None:
                read += model.distillation_layers
            if any(getattr(model, head, None) is not None for head in ("pose_head", "scale_head")):
                read.append(model.camera_layer)
            read_by_losses = read or None
        self.read_by_losses = None if read_by_losses is None else frozenset(read_by_losses)
        check_layers(self, self.read_by_losses or ())

    def grid(self, layer: str) -> TokenGrid:
        """Return the grid of patches for the tower, of pooled tokens for the language model."""
        grid = TokenGrid.of(self.processor)
        return grid if layer.startswith("language.") else replace(grid, pool_stride=1)

    def _head(self) -> str:
        """Return the chat text up to the video."""
        chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "?"}]}]
        text = self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return text[: text.index(self.processor.video_token)] + self.processor.video_token

    @torch.no_grad()
    def encode(self, frames: np.ndarray, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the tokens of each layer; see `TokenSource`."""
        inputs = self.processor(text=[self._head()], videos=[frames], do_sample_frames=False, return_tensors="pt")
        pixels = inputs["pixel_values_videos"].to(self.model.device, self.model.dtype)
        vision = sorted({int(layer.split(".")[1]) for layer in layers if layer.startswith("vision.")})
        found: dict[str, list[Tensor]] = {f"vision.{index}": [] for index in vision}
        tokens = []
        for chunk in pixels.split(FRAMES_AT_ONCE, dim=1):
            encoded = self.model.get_video_features(chunk, output_hidden_states=vision or None, return_dict=True)
            tokens.append(encoded.pooler_output[0])
            for index in vision:
                found[f"vision.{index}"].append(encoded.hidden_states[index].float().cpu())
        result = {layer: torch.cat(parts).unflatten(1, self.model.config.patch_grid) for layer, parts in found.items()}
        language = [layer for layer in layers if layer.startswith("language.")]
        if language:
            encoded.pooler_output = [torch.cat(tokens)]
            input_ids = inputs["input_ids"].to(self.model.device)
            states = self.model.model(
                input_ids=input_ids,
                mm_encoder_outputs={"video": encoded},
                output_hidden_states=True,
                use_cache=False,
                return_dict=True,
            ).hidden_states
            is_visual = input_ids == self.model.config.video_token_id
            for layer in language:
                visual = states[int(layer.split(".")[1])][is_visual].float().cpu()
                result[layer] = self.grid(layer).split(visual)
        return result


class VisionTowerTokens:
    """Patch tokens of a vision tower of Transformers, such as SigLIP, CLIP, DINOv2 or ViT.

    `vision.k` is the k-th hidden state, 0 = patch embeddings, and `vision.last` is `last_hidden_state`, which most
    towers norm once more. Class and register tokens, which stand before the patches, are left out. Frames are squashed
    to the square input, never cropped, so that tokens and depth show the same.

    Args:
        model: Model with square patches, in evaluation mode.
        image_mean: Mean of the normalisation, three numbers of pixels from 0 to 1.
        image_std: Standard deviation of the normalisation, like `image_mean`.
        image_size: Side of the input in pixels; None: that of the model's configuration.

    Raises:
        ValueError: If the model is in training mode, or is no tower with square patches and a square input.
    """

    read_by_losses = None

    def __init__(
        self,
        model: nn.Module,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        image_size: int | None = None,
    ):
        _check_eval(model)
        model = model.vision_model if getattr(model.config, "vision_config", None) is not None else model
        config = model.config
        patch, side = _one_side(config, "patch_size"), _one_side(config, "image_size")
        self.model = model
        self._grid = TokenGrid(image_size or side, patch, 1)
        self._options: dict[str, Any] = {}
        if (
            image_size not in (None, side)
            and "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
        ):
            self._options["interpolate_pos_encoding"] = True
        depth = config.num_hidden_layers
        self.layers = (*(f"vision.{k}" for k in range(depth + 1)), "vision.last")
        self.default_layers = (*_spread("vision", depth, 4)[:-1], "vision.last")
        height, width = self._grid.image_size
        self._preprocess = IDE3DVideoProcessor(
            size={"height": height, "width": width}, image_mean=list(image_mean), image_std=list(image_std)
        )

    def grid(self, layer: str) -> TokenGrid:
        """Return the grid of patches, which all layers share."""
        return self._grid

    @torch.no_grad()
    def encode(self, frames: np.ndarray, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the tokens of each layer; see `TokenSource`."""
        pixels = self._preprocess(frames, do_sample_frames=False, return_tensors="pt")["pixel_values_videos"][0]
        found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        for chunk in pixels.to(self.model.device, self.model.dtype).split(FRAMES_AT_ONCE):
            outputs = self.model(
                pixel_values=chunk,
                output_hidden_states=any(layer != "vision.last" for layer in layers),
                return_dict=True,
                **self._options,
            )
            for layer in layers:
                name = layer.split(".")[1]
                state = outputs.last_hidden_state if name == "last" else outputs.hidden_states[int(name)]
                found[layer].append(self._patches(state, layer).float().cpu())
        return {layer: torch.cat(parts) for layer, parts in found.items()}

    def _patches(self, state: Tensor, layer: str) -> Tensor:
        rows, cols = self._grid.shape
        prefix = state.shape[1] - rows * cols if state.dim() == 3 else -1
        if not 0 <= prefix <= MAX_PREFIX:
            raise ValueError(
                f"{layer} has shape {tuple(state.shape)}, expected (frames, class tokens + {rows} x {cols} patches, "
                "channels). Towers that merge, mask or reorder patches cannot be probed."
            )
        return state[:, prefix:].unflatten(1, (rows, cols))


def _one_side(config: Any, name: str) -> int:
    value = getattr(config, name, None)
    sides = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int):
        raise ValueError(
            f"{config.model_type} is no tower with square patches and input: its `{name}` is {value!r}. Expected a "
            "model such as SigLIP, CLIP, DINOv2 or ViT, or one of ours."
        )
    return side


def check_layers(source: TokenSource, layers: Collection[str]) -> None:
    """Raise ValueError for layers that the source does not have."""
    unknown = sorted(set(layers) - set(source.layers))
    if unknown:
        raise ValueError(f"There are no layers {unknown}; there are {', '.join(source.layers)}.")


def open_token_source(
    name: str,
    *,
    random_weights: bool = False,
    seed: int = 0,
    image_size: int | None = None,
    read_by_losses: Collection[str] | None = None,
    dtype: str = "auto",
    device: torch.device | str = "cpu",
) -> TokenSource:
    """Open a model by its name; no code of its folder is run.

    Args:
        name: Folder or Hub name of an export or checkpoint of ours, or of a vision tower.
        random_weights: Whether to initialise the weights at random: what the pixels and the architecture alone give.
        seed: Seed of these weights.
        image_size: Side of the input of a tower in pixels; a model of ours has its own.
        read_by_losses: Layers that the losses read, see `IDE3DTokens`; no file says it.
        dtype: Type of the weights.
        device: Device of the model.

    Raises:
        ValueError: If the model is no tower with square patches, or an argument does not fit it.
        OSError: If the model or its processor cannot be read.
    """
    config = AutoConfig.from_pretrained(name)
    is_ours = config.model_type == "ide3d"
    if is_ours and image_size is not None:
        raise ValueError("A model of ours has one input size: leave `image_size` out.")
    if not is_ours and read_by_losses:
        raise ValueError("`read_by_losses` is for models of ours: no geometry loss read this tower.")
    model_class = IDE3DForConditionalGeneration if is_ours else AutoModel
    if random_weights:
        torch.manual_seed(seed)
        model = IDE3DForConditionalGeneration(config) if is_ours else AutoModel.from_config(config)
    else:
        model = model_class.from_pretrained(name, dtype=dtype)
    model = model.to(device).eval()
    if is_ours:
        return IDE3DTokens(model, IDE3DProcessor.from_pretrained(name), read_by_losses)
    processor = AutoImageProcessor.from_pretrained(name)
    if not (processor.image_mean and processor.image_std):
        raise ValueError(
            f"The image processor of {name} has no `image_mean` and `image_std`: pixels cannot be normalised."
        )
    return VisionTowerTokens(model, processor.image_mean, processor.image_std, image_size)
