"""Vision backbones of Transformers as teachers: DINOv3, SigLIP 2, Depth Anything and their like."""

import inspect
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForDepthEstimation, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

from processing.token_pooling import Window
from trainer.geometry.checks import Protocol
from trainer.teachers.patch_teacher import PatchTeacher, find_licence, resize_frames, short_name, weights_digest

__all__ = ["TransformersTeacher"]


class TransformersTeacher(PatchTeacher):
    """Patch features of any vision backbone that Transformers knows, frame by frame.

    Depth Anything gives its backbone's last features, before the neck. A composite such as SigLIP gives those of its
    vision tower, behind its last layer norm. Class and register tokens are left out.

    Frames are squashed to `image_size` as a whole, as the model sees them; an image processor's own crop would hide
    the margins. Size, mean and standard deviation are those of the image processor. Patches that do not fill the
    input leave its right and lower border out, and pooling knows that.

    Run in the tests with small random weights of Dinov2, Dinov2WithRegisters, DINOv3 (ViT and ConvNeXt), SigLIP,
    SigLIP 2, CLIP and Depth Anything; no released weights were run.

    Args:
        path: Folder or Hub name.
        licence: Licence of the weights; None: as the model card states it.
        image_size: Height and width of the input in pixels; None: that of the image processor. More pixels give finer
            patches.
        layer: Hidden state to take of a backbone class of `AutoBackbone`, 0 = behind the embeddings; None: the last.
        batch_size: Number of frames at a time.
        device: Device of the network.
        dtype: Type of weights and activations.
        protocol: Rule that pools patches, see `pool_teacher_features`.

    Raises:
        OSError: If there is no such folder or name.
        ValueError: If no licence is stated, weights are missing, the model is no vision backbone, or the input is
            below one patch.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        licence: str | None = None,
        image_size: tuple[int, int] | None = None,
        layer: int | None = None,
        batch_size: int = 8,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        protocol: Protocol = "clean",
    ):
        licence = find_licence(path, licence, {})
        network, config = _load_backbone(str(path), layer, dtype)
        processor = AutoImageProcessor.from_pretrained(path)
        self.patch_size = _patch_size(config)
        self.image_size = image_size or _input_size(processor, config)
        if min(self.image_size) < self.patch_size:
            raise ValueError(
                f"`image_size` must be at least one patch of {self.patch_size} px, got {self.image_size}."
            )
        does_normalise = processor.do_normalize is not False
        mean = list(processor.image_mean) if does_normalise else [0.0] * 3
        std = list(processor.image_std) if does_normalise else [1.0] * 3
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)
        self.batch_size, self.device, self.dtype = batch_size, torch.device(device), dtype
        version = weights_digest(network) + ("" if layer is None else f", layer {layer}")
        self.network = network.to(self.device).eval().requires_grad_(False)
        self._interpolates = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
        self._num_registers = getattr(config, "num_register_tokens", 0)
        height, width = self.image_size
        super().__init__(
            name=short_name(path),
            version=version,
            licence=licence,
            preprocessing=f"whole frames squashed to {height} x {width} px (bicubic), mean {mean}, std {std}, "
            f"{str(dtype).removeprefix('torch.')}",
            protocol=protocol,
        )

    def compute_patches(self, pixels: Tensor) -> tuple[Tensor, Window]:
        """Compute features of patches; see `PatchTeacher`."""
        patches = torch.cat([self._compute_batch(batch) for batch in pixels.split(self.batch_size)])
        sides = []
        for count, pixels_of_side in zip(patches.shape[1:3], self.image_size, strict=True):
            # Pyramids of convolutions see the whole input, patches of a transformer only what they fill.
            are_patches = count == pixels_of_side // self.patch_size
            sides.append(count * self.patch_size / pixels_of_side if are_patches else 1.0)
        return patches, (0.0, 0.0, *sides)

    def _compute_batch(self, pixels: Tensor) -> Tensor:
        """Compute patch features (V, R, S, C) of frames (V, 3, h, w)."""
        inputs = resize_frames(pixels.to(self.device), self.image_size).float() / 255
        inputs = (inputs - self.mean.to(inputs)[:, None, None]) / self.std.to(inputs)[:, None, None]
        rows, columns = (side // self.patch_size for side in self.image_size)
        if self.network.config.model_type == "siglip2_vision_model":
            outputs = self.network(**_cut_patches(inputs.to(self.dtype), rows, columns, self.patch_size))
        else:
            options = {"interpolate_pos_encoding": True} if self._interpolates else {}
            outputs = self.network(pixel_values=inputs.to(self.dtype), **options)
        maps = getattr(outputs, "feature_maps", None)
        features = outputs.last_hidden_state if maps is None else maps[-1]
        if features.dim() == 4:
            return features.permute(0, 2, 3, 1)
        special = features.shape[1] - rows * columns
        if features.dim() != 3 or special not in {0, 1, 1 + self._num_registers}:
            raise ValueError(
                f"{self.name} gives features {tuple(features.shape)} for {rows} x {columns} patches of "
                f"{self.patch_size} px; expected (V, tokens, C) with class and register tokens in front, or a map."
            )
        return features[:, special:].unflatten(1, (rows, columns))


def _load_backbone(path: str, layer: int | None, dtype: torch.dtype) -> tuple[PreTrainedModel, Any]:
    """Load the network that gives features, and its own config.

    Every weight is from the checkpoint.
    """
    try:
        config = AutoConfig.from_pretrained(path)
    except OSError as error:
        raise OSError(f"{path} is no folder or Hub name of a backbone that can be loaded: {error}") from error
    options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True}
    # `AutoBackbone.from_pretrained` asks the Hub even for a folder; this is the class that it would take.
    is_backbone = type(config) in MODEL_FOR_BACKBONE_MAPPING
    if layer is not None and not is_backbone:
        raise ValueError(f"`layer` needs a backbone class of `AutoBackbone`, which {config.model_type} has not.")
    if config.model_type == "depth_anything":
        model, report = AutoModelForDepthEstimation.from_pretrained(path, **options)
        network = model.backbone
    elif is_backbone:
        stages = {} if layer is None else {"out_indices": [layer]}
        network, report = MODEL_FOR_BACKBONE_MAPPING[type(config)].from_pretrained(path, **stages, **options)
    else:
        model, report = AutoModel.from_pretrained(path, **options)
        network = model.vision_model if hasattr(config, "vision_config") else model
    # Heads that pool one vector out of the features take no part.
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing or report["mismatched_keys"]:
        raise ValueError(f"{path} lacks weights of {type(network).__name__}: {missing or report['mismatched_keys']}.")
    return network, network.config


def _patch_size(config: Any) -> int:
    size = getattr(config, "patch_size", None)
    if isinstance(size, (tuple, list)) and len(set(size)) == 1:
        size = size[0]
    if size is None and getattr(config, "hidden_sizes", None):
        size = 1  # a pyramid of convolutions has no patches
    if not isinstance(size, int):
        raise ValueError(f"{config.model_type} is no vision backbone with square patches: `patch_size` is {size!r}.")
    return size


def _input_size(processor: Any, config: Any) -> tuple[int, int]:
    """Return height and width of the network's input, as its image processor makes it."""
    if getattr(processor, "max_num_patches", None):
        side = math.isqrt(processor.max_num_patches) * _patch_size(config)
        return side, side
    size = processor.crop_size if getattr(processor, "do_center_crop", None) else processor.size
    height, width = (getattr(size, side) or size.shortest_edge for side in ("height", "width"))
    return int(height), int(width)


def _cut_patches(inputs: Tensor, rows: int, columns: int, patch_size: int) -> dict[str, Tensor]:
    """Cut frames into patches with the shape of their grid, as SigLIP 2 takes them."""
    frames, channels = inputs.shape[:2]
    inputs = inputs[..., : rows * patch_size, : columns * patch_size]
    cut = inputs.reshape(frames, channels, rows, patch_size, columns, patch_size).permute(0, 2, 4, 3, 5, 1)
    mask = torch.ones(frames, rows * columns, dtype=torch.int32, device=inputs.device)
    shapes = torch.tensor([[rows, columns]] * frames)
    return {"pixel_values": cut.flatten(3).flatten(1, 2), "pixel_attention_mask": mask, "spatial_shapes": shapes}
