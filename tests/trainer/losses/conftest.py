import pytest
import torch


@pytest.fixture
def scene():
    """Depth (2, 3, 24, 32) with holes, a prediction that is off by up to 0.3 m, and confidences above 1."""
    generator = torch.Generator().manual_seed(5)
    depth = 1 + 3 * torch.rand(2, 3, 24, 32, generator=generator)
    depth[:, :, :4, :5] = 0.0
    prediction = (depth + 0.6 * torch.rand(depth.shape, generator=generator) - 0.3).abs()
    confidence = 1 + torch.rand(depth.shape, generator=generator)
    return prediction, confidence, depth
