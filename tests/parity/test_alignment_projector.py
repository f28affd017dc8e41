"""The teacher projector and the pooling of teacher features against the original alignment."""

import pytest
import torch

from modeling_ide3d.auxiliary.teacher_projector import (
    TeacherProjector,
    TeacherProjectorConfig,
    rename_original_key,
)
from processing.token_grid import TokenGrid
from processing.token_pooling import pool_teacher_features

pytestmark = pytest.mark.parity

TEACHER_GRIDS = {"L768": (24, 32), "L1036": (28, 37), "L256": (16, 16)}


@pytest.fixture
def tensors(golden) -> dict[str, torch.Tensor]:
    return golden("alignment.safetensors")


@pytest.fixture
def projector(tensors) -> TeacherProjector:
    weights = {key: value for key, value in tensors.items() if key.startswith("proj_3d.")}
    config = TeacherProjectorConfig(
        hidden_size=weights["proj_3d.0.weight"].shape[1], teacher_size=weights["proj_3d.2.weight"].shape[0]
    )
    projector = TeacherProjector(config)
    projector.load_state_dict({rename_original_key(key): value for key, value in weights.items()}, strict=True)
    return projector


def pool(features, name, tokens):
    patches = features.unflatten(-2, TEACHER_GRIDS[name])
    return pool_teacher_features(patches, TokenGrid(tuple(tokens), 1, 1), protocol="paper")


@pytest.mark.parametrize("name", TEACHER_GRIDS)
def test_pooled_teacher(tensors, name):
    expected = tensors[f"out.pooled_teacher_first_frame_{name}"]
    pooled = pool(tensors[f"in.feature_3d_{name}_f16"], name, expected.shape[:2])
    torch.testing.assert_close(pooled[0], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", TEACHER_GRIDS)
def test_loss_and_gradients(tensors, golden_json, projector, name):
    teacher = tensors[f"in.feature_3d_{name}_f16"]
    rows, cols = tensors[f"out.pooled_teacher_first_frame_{name}"].shape[:2]
    pooled = pool(teacher, name, (rows, cols))
    hidden_states = tensors["in.hidden_states"].requires_grad_()
    start = golden_json("alignment.json")["img_pos_list"][0][0]
    visual = hidden_states[0, start : start + len(teacher) * rows * (cols + 1)]
    visual = visual.unflatten(0, (len(teacher), rows, cols + 1))[:, :, :cols]

    student = torch.nn.functional.normalize(projector(visual), dim=-1)
    loss = (student - torch.nn.functional.normalize(pooled, dim=-1)).square().sum(-1).mean()
    torch.testing.assert_close(loss, tensors[f"out.loss_{name}"], atol=1e-5, rtol=1e-5)

    loss.backward()
    gradients = {
        f"out.grad_hidden_states_{name}": hidden_states.grad,
        f"out.grad_hidden_states_{name}_first_frame_and_before": hidden_states.grad[:, : start + rows * (cols + 1)],
        f"out.grad_proj_3d.0.weight_{name}": projector.linear_1.weight.grad,
        f"out.grad_proj_3d.2.bias_{name}": projector.linear_2.bias.grad,
    }
    compared = [key for key in gradients if key in tensors]
    assert compared
    for key in compared:
        torch.testing.assert_close(gradients[key], tensors[key], atol=1e-8, rtol=1e-3)
