"""Pooling of the patch grid and the order of the newline tokens against the original."""

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from modeling_ide3d import IDE3DConfig, IDE3DModel

pytestmark = pytest.mark.parity


class _Tower(nn.Module):
    """Returns given features as its only hidden state."""

    def __init__(self, features: torch.Tensor):
        super().__init__()
        self.features = features

    def forward(self, frames: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(hidden_states=(self.features,))


def build_model(features: torch.Tensor, newline: torch.Tensor, pooled_tokens: int) -> IDE3DModel:
    side, pooled_side = round(features.shape[1] ** 0.5), round(pooled_tokens**0.5)
    width = newline.shape[0]
    config = IDE3DConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": width,
            "intermediate_size": width,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "image_size": side,
            "patch_size": 1,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": width,
            "intermediate_size": width,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "vocab_size": 8,
        },
        image_token_id=5,
        video_token_id=6,
        ground_token_id=7,
        spatial_pool_stride=-(-side // pooled_side),
    )
    model = IDE3DModel(config).eval()
    model.vision_tower = _Tower(features)
    model.multi_modal_projector = nn.Identity()
    model.image_newline.data.copy_(newline)
    return model


@pytest.fixture
def tensors(golden) -> dict[str, torch.Tensor]:
    return golden("visual_tokens.safetensors")


@pytest.fixture
def tokens(tensors) -> torch.Tensor:
    features, newline = tensors["in.image_features_27x27"], tensors["in.image_newline"]
    model = build_model(features, newline, tensors["out.pooled_14x14"].shape[1])
    size = model.config.vision_config.image_size
    frames = torch.zeros(1, len(features), 3, size, size)
    with torch.no_grad():
        return model.get_video_features(frames, return_dict=True).pooler_output[0]


def test_pooled_features_with_a_newline_after_each_row(tensors, tokens):
    torch.testing.assert_close(tokens, tensors["out.tokens_with_newline"], atol=1e-6, rtol=1e-6)


def test_frame_row_and_column_of_each_token(tensors, tokens):
    pooled, places = tensors["out.pooled_14x14"], tensors["out.token_frame_row_col"].long()
    cols = int(places[:, 2].max()) + 1
    for token, (frame, row, col) in zip(tokens, places.tolist(), strict=True):
        expected = tensors["in.image_newline"] if col < 0 else pooled[frame, row * cols + col]
        torch.testing.assert_close(token, expected, atol=1e-6, rtol=1e-6)


def test_pooling_is_the_separable_matrix_of_the_original(tensors, tokens):
    matrix, features = tensors["out.pool_matrix_14x27"], tensors["in.image_features_27x27"]
    grid = features.unflatten(1, (matrix.shape[1], matrix.shape[1]))
    pooled = torch.einsum("rh,cw,fhwd->frcd", matrix, matrix, grid)
    rows = tokens.unflatten(0, (len(features), matrix.shape[0], matrix.shape[0] + 1))[:, :, :-1]
    torch.testing.assert_close(rows, pooled, atol=1e-5, rtol=1e-5)
