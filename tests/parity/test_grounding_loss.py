"""InfoNCE of the grounding head: single, several and no target, with gradients through the original's heads."""

import pytest
import torch
from torch.nn import functional as F

from trainer.losses import RegionContrastLoss

pytestmark = pytest.mark.parity


def apply_head(features, tensors, name):
    weight = lambda layer, kind: tensors[f"{name}.{layer}.{kind}"]  # noqa: E731
    hidden = F.relu(F.linear(features, weight(0, "weight"), weight(0, "bias")))
    hidden = F.layer_norm(hidden, hidden.shape[-1:], weight(2, "weight"), weight(2, "bias"), 1e-5)
    return F.linear(hidden, weight(3, "weight"), weight(3, "bias"))


def test_every_case(golden, golden_json):
    tensors, record = golden("grounding.safetensors"), golden_json("grounding.json")
    cases = [name for name, value in record.items() if isinstance(value, dict) and "box_labels_in" in value]
    assert len(cases) >= 3
    for case in cases:
        hidden = tensors["in.ground_hidden"].clone().requires_grad_()
        objects = tensors["in.object_features"].clone().requires_grad_()
        nothing = tensors["ground_head_zero_target"].clone().requires_grad_()
        keys = apply_head(torch.cat((objects, nothing.unsqueeze(0))), tensors, "ground_head_obj")
        query = apply_head(hidden, tensors, "ground_head_query")
        scores = F.cosine_similarity(query, keys, dim=-1).unsqueeze(0)
        torch.testing.assert_close(scores[0].detach(), tensors[f"out.{case}.scores"], atol=1e-5, rtol=0.0)
        targets = torch.zeros_like(scores, dtype=torch.bool)
        labels = record[case]["box_labels_in"][0]
        targets[0, labels or [-1]] = True  # An empty truth means the last column, "no such object".
        loss = RegionContrastLoss(temperature=record["temperature"])(scores, targets)
        torch.testing.assert_close(loss.detach(), tensors[f"out.{case}.loss"], atol=1e-4, rtol=0.0)
        assert float(loss.detach()) == pytest.approx(record[case]["loss"], abs=1e-4)
        assert int(scores.argmax()) == record[case]["argmax"]
        loss.backward()
        for leaf, name in ((hidden, "ground_hidden"), (objects, "object_features"), (nothing, "zero_target")):
            expected = tensors[f"out.{case}.grad_{name}"]
            torch.testing.assert_close(leaf.grad, expected, atol=1e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
