"""Where a pixel lands: a ramp, whose value is the place of each pixel, through the image, depth and region path."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor, nn

from modeling_ide3d import IDE3DConfig, IDE3DModel
from modeling_ide3d.auxiliary.targets import align_to_prediction
from processing.regions import regions_from_masks
from processing.token_grid import TokenGrid
from trainer import IDE3DDataCollator
from trainer.nano.build import build_nano_processor

POOL_STRIDE, WIDTH = 2, 8


def measure_shifts(image_size: int, patch_size: int, protocol: str) -> dict[str, tuple[float, float]]:
    """Mean and largest distance in pixels, by path.

    The image path (video processor, SigLIP patches, pooling) says which place each token shows; what the region path
    and the depth path attach to the same token, or to a predicted pixel under it, should have the same place.
    """
    grid = TokenGrid(image_size, patch_size, POOL_STRIDE)
    processor = build_nano_processor(
        ["ramp"], image_size=image_size, patch_size=patch_size, spatial_pool_stride=POOL_STRIDE, num_frames=1
    )
    column = np.arange(image_size)
    # Two pixels share a byte; a patch of an even side averages to its exact middle.
    ramp = np.broadcast_to((column // 2).astype(np.uint8)[None, :, None], (image_size, image_size, 3))
    collator = IDE3DDataCollator(processor, protocol=protocol)
    sample = {
        "messages": [{"role": "user", "content": [{"type": "video"}]}],
        "frames": np.stack([ramp, ramp.transpose(1, 0, 2)]),  # to the right, and down
        "depth": np.stack([np.broadcast_to(column + 1.0, ramp.shape[:2])] * 2).astype(np.float32) / 10,
        "intrinsics": np.tile(np.diag([300.0, 300.0, 1.0]).astype(np.float32), (2, 1, 1)),
        "camera_to_world": np.tile(np.eye(4, dtype=np.float32), (2, 1, 1)),
    }
    sample["depth"][1] = sample["depth"][1].T
    batch = collator([sample])
    shown = _image_path(batch["pixel_values_videos"], grid)
    depth, _ = align_to_prediction(batch["depth"][0] * 10 - 1, None, grid.covered_size, grid.covered_size)
    own = torch.arange(grid.covered_size[1]).float()
    beside = {
        "depth": torch.stack([depth[0] - own, depth[1] - own[:, None]]),
        "region": torch.stack([shown[0] - _region_path(grid), shown[1] - _region_path(grid)[:, None]]),
        "image": torch.stack([shown[0] - _token_centres(grid), shown[1] - _token_centres(grid)[:, None]]),
    }
    return {name: (shift.abs().mean().item(), shift.abs().max().item()) for name, shift in beside.items()}


def _token_centres(grid: TokenGrid) -> Tensor:
    return (torch.arange(grid.cols) + 0.5) * grid.covered_size[1] / grid.cols - 0.5


def _image_path(pixels: Tensor, grid: TokenGrid) -> Tensor:
    """Place (V, rows, cols) that every visual token shows; a SigLIP's tokens are made their patch's mean."""
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "image_size": grid.image_size[0],
        "patch_size": grid.patch_size,
        "vision_use_head": False,
    }
    text = {
        "model_type": "qwen2",
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "vocab_size": 8,
    }
    ids = {"image_token_id": 5, "video_token_id": 6, "ground_token_id": 7}
    config = IDE3DConfig(vision_config=vision, text_config=text, spatial_pool_stride=grid.pool_stride, **ids)
    model = IDE3DModel(config).eval()
    model.multi_modal_projector = nn.Identity()
    with torch.no_grad():
        for name, weight in model.vision_tower.named_parameters():
            weight.fill_(1 / (3 * grid.patch_size**2) if "patch_embedding.weight" in name else 0.0)
        tokens = model.get_video_features(pixels, return_dict=True).pooler_output[0]
    tokens = tokens.view(-1, grid.rows, grid.cols + 1, WIDTH)[:, :, : grid.cols, 0]
    return (tokens * 0.5 + 0.5) * 255 * 2 + 0.5


@functools.cache
def _region_path(grid: TokenGrid) -> Tensor:
    """Mean place (cols,) of the pixel columns that belong to each column of tokens, by a region for each of them."""
    height, width = grid.image_size
    columns, belongs = torch.arange(width), []
    for chunk in columns.split(64):
        masks = (columns == chunk[:, None])[:, None, None, :].expand(-1, 1, height, -1)
        belongs.append(regions_from_masks(masks, grid, min_share=1e-9)[:, 0].any(1))
    belongs = torch.cat(belongs).float()
    return (belongs * columns[:, None]).sum(0) / belongs.sum(0)
