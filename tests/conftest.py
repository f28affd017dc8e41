"""A tiny model and small batches for it, shared by the tests of every room."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from modeling_ide3d import IDE3DConfig, IDE3DForConditionalGeneration

TINY_VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 70,
    "patch_size": 14,
    "vision_use_head": False,
}
TINY_TEXT = {
    "model_type": "qwen2",
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 120,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    # Ten times the usual width, so that a wrong token, mask or position moves the logits visibly.
    "initializer_range": 0.2,
}
TINY_TOKEN_IDS = {"image_token_id": 100, "video_token_id": 101, "ground_token_id": 102}
FIRST_TEXT_ID, LAST_TEXT_ID = 3, 99


def build_tiny_config(vision: dict | None = None, text: dict | None = None, **overrides: Any) -> IDE3DConfig:
    """A config of 5 x 5 patches and 3 x 3 (+ newline) tokens a frame; `vision` and `text` change its parts."""
    fields = {**TINY_TOKEN_IDS, **overrides}
    return IDE3DConfig(
        vision_config={**TINY_VISION, **(vision or {})}, text_config={**TINY_TEXT, **(text or {})}, **fields
    )


def build_tiny_model(config: IDE3DConfig | None = None, seed: int = 0) -> IDE3DForConditionalGeneration:
    """A model with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    return IDE3DForConditionalGeneration(config if config is not None else build_tiny_config()).eval()


def _random_regions(frame_counts: list[int], grid: tuple[int, int], region_counts: list[int], generator):
    """Region masks that mark at least one cell of a frame that exists, and which of them are padding."""
    masks = torch.zeros(len(frame_counts), max(region_counts), max(frame_counts), *grid, dtype=torch.bool)
    valid = torch.zeros(masks.shape[:2], dtype=torch.bool)
    for sample, (frames, regions) in enumerate(zip(frame_counts, region_counts, strict=True)):
        cells = torch.rand(regions, frames, *grid, generator=generator) < 0.4
        cells[:, :1, 0, 0] |= ~cells.flatten(1).any(-1, keepdim=True)
        masks[sample, :regions, :frames] = cells
        valid[sample, :regions] = True
    return masks, valid


def build_tiny_inputs(
    config: IDE3DConfig,
    *samples: list[int | str],
    seed: int = 0,
    regions: int | list[int] | None = None,
    padding_side: str = "left",
) -> dict[str, torch.Tensor]:
    """A batch as the processor would write it.

    Args:
        config: Sizes and token ids.
        *samples: The parts of each sample in order: a number is a video of so many frames, "image" an image,
            "ground" a `<ground>` token, "text" four words.
        seed: Of pixels, words and regions.
        regions: Regions of each sample; adds `region_masks` and `region_valid`.
        padding_side: Where the shorter texts are padded.
    """
    generator = torch.Generator().manual_seed(seed)
    size, channels = config.vision_config.image_size, config.vision_config.num_channels
    texts, frame_counts, videos, images = [], [], [], []
    for sample in samples:
        ids, frames = [], 0
        for part in sample:
            if part == "text":
                ids += torch.randint(FIRST_TEXT_ID, LAST_TEXT_ID, (4,), generator=generator).tolist()
            elif part == "ground":
                ids.append(config.ground_token_id)
            elif part == "image":
                ids += [config.image_token_id] * config.tokens_per_frame
                images.append(torch.randn(channels, size, size, generator=generator))
                frames += 1
            else:
                ids += [config.video_token_id] * config.tokens_per_frame * part
                videos.append(torch.randn(part, channels, size, size, generator=generator))
                frames += part
        texts.append(torch.tensor(ids))
        frame_counts.append(frames)

    def pad(rows: list[torch.Tensor], value: int) -> torch.Tensor:
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value, padding_side=padding_side)

    inputs = {
        "input_ids": pad(texts, config.get_text_config().pad_token_id or 0),
        "attention_mask": pad([torch.ones_like(text) for text in texts], 0),
    }
    if videos:
        inputs["pixel_values_videos"] = nn.utils.rnn.pad_sequence(videos, batch_first=True)
        longest = inputs["pixel_values_videos"].shape[1]
        inputs["video_frame_mask"] = torch.arange(longest) < torch.tensor([[len(video)] for video in videos])
    if images:
        inputs["pixel_values"] = torch.stack(images)
    if regions is not None:
        region_counts = [regions] * len(samples) if isinstance(regions, int) else regions
        masks, valid = _random_regions(frame_counts, config.token_grid, region_counts, generator)
        inputs["region_masks"], inputs["region_valid"] = masks, valid
    return inputs


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked gpu where no GPU is; elsewhere they convolve in float32, as they multiply matrices."""
    if item.get_closest_marker("gpu") is not None:
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
        torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., IDE3DConfig]:
    """`tiny_config(vision={...}, text={...}, **fields)` builds a new tiny config."""
    return build_tiny_config


@pytest.fixture(scope="session")
def make_tiny_model() -> Callable[..., IDE3DForConditionalGeneration]:
    """`make_tiny_model(config, seed=0)` builds a tiny model with random weights."""
    return build_tiny_model


@pytest.fixture(scope="session")
def _tiny_model_of_session() -> IDE3DForConditionalGeneration:
    return build_tiny_model()


@pytest.fixture
def tiny_model(_tiny_model_of_session) -> IDE3DForConditionalGeneration:
    """The tiny model, a copy for each test."""
    return copy.deepcopy(_tiny_model_of_session)


@pytest.fixture(scope="session")
def tiny_inputs() -> Callable[..., dict[str, torch.Tensor]]:
    """`tiny_inputs([2, "text", "ground"], ["text"], regions=[1, 0])` builds a batch; see `build_tiny_inputs`.

    `config=...` sizes it for another model than `tiny_model`.
    """
    default = build_tiny_config()

    def build(*samples: list[int | str], config: IDE3DConfig | None = None, **kwargs: Any) -> dict[str, torch.Tensor]:
        return build_tiny_inputs(config if config is not None else default, *samples, **kwargs)

    return build
