"""A tiny model, and its weights under the original names."""

import pytest
import torch
from original_checkpoints import build_model, original_weights

from modeling_ide3d import IDE3DForConditionalGeneration


@pytest.fixture(scope="module")
def model() -> IDE3DForConditionalGeneration:
    return build_model()


@pytest.fixture
def weights(model) -> dict[str, torch.Tensor]:
    return original_weights(model)
