"""Depth of any depth network of Transformers, frame by frame, without poses."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from processing.argument_rules import path_text
from processing.image_reading_ide3d import frames_to_tensor
from trainer.field_rules import check_choice, whole_number
from trainer.teachers.patch_teacher import find_licence, short_name, weights_digest
from trainer.teachers.protocol import FrameSource
from trainer.teachers.pseudo_rules import ALIGNMENTS, Alignment
from trainer.teachers.stored_geometry import PseudoGeometry

__all__ = ["DepthEstimationSource"]

# What a model of this type gives, as its documentation says. Depth Anything says it in its config.
KNOWN: dict[str, Alignment] = {"dpt": "inverse", "depth_pro": "metric", "glpn": "metric", "zoedepth": "metric"}
TYPES: dict[str, Alignment] = {"relative": "inverse", "metric": "metric"}


class DepthEstimationSource:
    """Pseudo geometry of a depth network of Transformers: depth alone, so the depth terms alone.

    Frames go through the model's own image processor, and its answers back to the shape of the frames, at most
    `longer_side` pixels wide or high.

    Run in the tests with small random weights of Depth Anything, DPT and GLPN; no released weights were run.

    Args:
        path: Folder or Hub name of a model of `AutoModelForDepthEstimation`.
        licence: Licence of the weights; None: as the model card states it.
        alignment: "metric", "affine" or "inverse": whether it gives metres, depth of unknown scale and shift, or
            inverse depth of unknown scale and shift. None: as is known for Depth Anything, DPT, DepthPro, GLPN and
            ZoeDepth.
        longer_side: Longer side of the stored depth in pixels, at most.
        batch_size: Number of frames at a time.
        device: Device of the network.
        dtype: Type of weights and activations.

    Raises:
        OSError: If there is no such folder or name, or it holds no depth network.
        TypeError: If a number is none.
        ValueError: If no licence is stated, weights are missing, or the alignment is not known.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        licence: str | None = None,
        alignment: Alignment | None = None,
        longer_side: int = 512,
        batch_size: int = 8,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.batch_size = whole_number("batch_size", batch_size)
        self.longer_side = whole_number("longer_side", longer_side)
        path = path_text(path, "path")
        try:
            options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True}
            network, report = AutoModelForDepthEstimation.from_pretrained(str(path), **options)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise OSError(f"`path` {path} is no folder or Hub name of a depth network that loads: {reason}") from error
        self.licence = find_licence(path, licence, {})
        if report["missing_keys"] or report["mismatched_keys"]:
            missing = sorted(report["missing_keys"]) or report["mismatched_keys"]
            raise ValueError(f"{path} lacks weights of {type(network).__name__}: {missing}.")
        self.alignment = _find_alignment(network.config, alignment)
        self.processor = AutoImageProcessor.from_pretrained(path)
        self.name, self.version = short_name(path), weights_digest(network)
        self.preprocessing = (
            f"{type(self.processor).__name__} of the model, depth of at most {longer_side} px, "
            f"{str(dtype).removeprefix('torch.')}"
        )
        self.device, self.dtype = torch.device(device), dtype
        self.network = network.to(self.device).eval().requires_grad_(False)

    @torch.no_grad()
    def compute_geometry(self, frames: Any, source: FrameSource | None = None) -> PseudoGeometry:
        """Compute the depth of frames; see `GeometrySource`.

        Raises:
            ValueError: If frames are not uint8 RGB, or depth is not finite.
        """
        pixels = frames_to_tensor(frames, "the frames")
        if pixels.dtype != torch.uint8 or pixels.shape[1] != 3:
            raise ValueError(
                f"A depth network needs uint8 RGB frames, got {pixels.dtype} with {pixels.shape[1]} channels."
            )
        height, width = pixels.shape[2:]
        scale = min(1.0, self.longer_side / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        depth = torch.cat([self._compute_batch(batch, size) for batch in pixels.split(self.batch_size)])
        if not torch.isfinite(depth).all():
            raise ValueError(f"{self.name} gives depth that is not finite; try `dtype` float32.")
        return PseudoGeometry(depth.clamp(min=0).numpy())  # inverse depth at or below 0 is too far to tell

    def _compute_batch(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Compute the depth (V, *size) of frames (V, 3, h, w)."""
        inputs = self.processor(images=list(pixels), return_tensors="pt").to(self.device, self.dtype)
        outputs = self.network(**inputs)
        options = {"source_sizes": [pixels.shape[2:]] * len(pixels)} if "zoe" in self.network.config.model_type else {}
        sizes = [size] * len(pixels)
        found = self.processor.post_process_depth_estimation(outputs, target_sizes=sizes, **options)
        return torch.stack([each["predicted_depth"].float().cpu() for each in found])


def _find_alignment(config: Any, alignment: Alignment | None) -> Alignment:
    """Return the alignment that is given, or that is known for a model type."""
    check_choice("alignment", alignment, (*ALIGNMENTS, None))
    known = KNOWN.get(config.model_type)
    if config.model_type in ("depth_anything", "prompt_depth_anything"):
        known = TYPES.get(config.depth_estimation_type)
    if alignment or known:
        return alignment or known
    raise ValueError(
        f"It is not known what {config.model_type} gives. Say it by `alignment`: metric (metres), affine (depth of "
        "unknown scale and shift) or inverse (inverse depth of unknown scale and shift)."
    )
