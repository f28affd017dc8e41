"""Global distillation: teacher pooling, the loss and its gradients, for every teacher grid."""

import math
import re

import pytest
import torch
from torch.nn import functional as F

from processing.token_grid import TokenGrid
from processing.token_pooling import pool_teacher_features
from trainer.losses import FeatureDistillationLoss

pytestmark = pytest.mark.parity

TEACHER_GRIDS = {768: (24, 32), 1036: (28, 37), 256: (16, 16)}


def test_every_teacher_grid(golden, golden_json):
    tensors, record = golden("alignment.safetensors"), golden_json("alignment.json")
    start, length = record["img_pos_list"][0][0], record["img_length_list"][0]
    lengths = [int(m[1]) for key in tensors if (m := re.fullmatch(r"in\.feature_3d_L(\d+)_f16", key))]
    assert lengths
    for grid_length in lengths:
        features = tensors[f"in.feature_3d_L{grid_length}_f16"].unsqueeze(0)
        num_views = features.shape[1]
        side = int(math.sqrt(length // num_views))
        rows, cols = side, length // num_views // side - 1
        patches = features.unflatten(-2, TEACHER_GRIDS[grid_length])
        teacher = pool_teacher_features(patches, TokenGrid((rows, cols), 1, 1), protocol="paper")
        first = tensors[f"out.pooled_teacher_first_frame_L{grid_length}"]
        pooled = F.normalize(teacher[0, 0], dim=-1) if _is_unit(first) else teacher[0, 0]
        torch.testing.assert_close(pooled, first, atol=1e-5, rtol=1e-5)

        hidden = tensors["in.hidden_states"].clone().requires_grad_()
        names = ("0.weight", "0.bias", "2.weight", "2.bias")
        weights = {name: tensors[f"proj_3d.{name}"].clone().requires_grad_() for name in names}
        states = hidden[:, start : start + length].reshape(1, num_views, rows, cols + 1, -1)[..., :-1, :]
        states = F.gelu(F.linear(states, weights["0.weight"], weights["0.bias"]))
        loss = FeatureDistillationLoss()(F.linear(states, weights["2.weight"], weights["2.bias"]), teacher)
        torch.testing.assert_close(loss.detach(), tensors[f"out.loss_L{grid_length}"], atol=1e-5, rtol=0.0)
        assert float(loss.detach()) == pytest.approx(record[f"loss_L{grid_length}"], abs=1e-5)
        loss.backward()
        _check_gradients(tensors, record, grid_length, hidden.grad, weights)


def _is_unit(features):
    return torch.allclose(features.norm(dim=-1), torch.ones(features.shape[:-1]), atol=1e-4)


def _check_gradients(tensors, record, grid_length, gradient, weights):
    tolerance = {"atol": 1e-8, "rtol": 1e-3}
    whole = tensors.get(f"out.grad_hidden_states_L{grid_length}")
    if whole is not None:
        torch.testing.assert_close(gradient, whole, **tolerance)
    begin = tensors.get(f"out.grad_hidden_states_L{grid_length}_first_frame_and_before")
    if begin is not None:
        torch.testing.assert_close(gradient[:, : begin.shape[1]], begin, **tolerance)
        assert float(gradient.norm()) == pytest.approx(record[f"grad_hidden_states_L{grid_length}_norm"], rel=1e-3)
    for name, weight in weights.items():
        expected = tensors.get(f"out.grad_proj_3d.{name}_L{grid_length}")
        if expected is not None:
            torch.testing.assert_close(weight.grad, expected, **tolerance)


def test_an_empty_batch_of_tokens_is_zero(golden_json):
    student = torch.randn(2, 3, 8, requires_grad=True)
    loss = FeatureDistillationLoss()(student, torch.randn(2, 3, 8), torch.zeros(2, 3, dtype=torch.bool))
    assert loss.item() == golden_json("alignment.json")["loss_missing_feature_3d"] and loss.requires_grad
