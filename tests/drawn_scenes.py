"""Boxes and a camera for drawings, with numbers that one checks by hand, and a checkpoint with a validator."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from exporting import build_model, build_processor

from modeling_ide3d.auxiliary import GeometricValidatorConfig, IDE3DForConditionalGenerationWithGeometry
from trainer.loop.checkpoints import save_heads

__all__ = ["BITS", "INTRINSICS", "cuboid", "write_checkpoint"]

BITS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
INTRINSICS = np.array([[100.0, 0, 79.5], [0, 100, 59.5], [0, 0, 1]], np.float32)


def cuboid(centre: Any, size: Any = (1, 1, 1)) -> np.ndarray:
    """Corners (8, 3) of an axis-aligned box."""
    return np.asarray(centre) + BITS * np.asarray(size)


def write_checkpoint(folder: Path) -> IDE3DForConditionalGenerationWithGeometry:
    """Write a tiny model with a validator as a training does, and return it."""
    torch.manual_seed(0)
    processor = build_processor()
    config = build_model(processor).config
    validator = GeometricValidatorConfig.light(config.vision_config, output_stride=2)
    model = IDE3DForConditionalGenerationWithGeometry(config, validator).eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    save_heads(model.geometry_state_dict(), folder, validator)
    return model
