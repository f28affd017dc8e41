"""Scenes in the public layout, frames whose places are known, and a small teacher of Transformers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from processing.benchmarks.export.rooms import export_rooms

NUM_FRAMES = 4


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """Three rooms of 48 x 48 px, one a split, in the public layout. Do not write into it."""
    folder = tmp_path_factory.mktemp("scenes") / "rooms"
    return export_rooms(folder, num_scenes=1, image_size=48, num_frames=NUM_FRAMES)


@pytest.fixture(scope="session")
def save_dinov2(tmp_path_factory):
    """`save_dinov2(seed)` writes a small DINOv2 with its image processor and model card; returns the folder."""

    def save(seed: int = 0, licence: str | None = "apache-2.0") -> Path:
        torch.manual_seed(seed)
        config = Dinov2Config(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14
        )
        folder = tmp_path_factory.mktemp("dinov2") / "tiny"
        Dinov2Model(config).save_pretrained(folder)
        size = {"height": 56, "width": 56}
        BitImageProcessor(size={"shortest_edge": 64}, crop_size=size).save_pretrained(folder)
        if licence:
            (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n# Tiny\n")
        return folder

    return save


@pytest.fixture(scope="session")
def dinov2(save_dinov2) -> Path:
    """A small DINOv2: patches of 14 px on 56 x 56 px."""
    return save_dinov2()


@pytest.fixture
def coloured_frames():
    """`coloured_frames(views, h, w)`: red grows to the right, green downwards, blue is the number of the view."""

    def make(views: int, height: int, width: int) -> np.ndarray:
        frames = np.zeros((views, height, width, 3), np.uint8)
        frames[..., 0] = ((np.arange(width) + 0.5) / width * 255).round()
        frames[..., 1] = ((np.arange(height) + 0.5) / height * 255).round()[:, None]
        frames[..., 2] = np.arange(views)[:, None, None] * 10
        return frames

    return make
