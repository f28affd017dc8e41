"""The grounding head and the pooling of regions against the original: scores, losses, gradients."""

import pytest
import torch

from modeling_ide3d.grounding_ide3d import GroundingHead, pool_regions
from trainer.losses import RegionContrastLoss

pytestmark = pytest.mark.parity

NAMES = {
    "ground_head_query.": "query_proj.",
    "ground_head_obj.": "key_proj.",
    "ground_head_zero_target": "no_object",
}


@pytest.fixture
def tensors(golden) -> dict[str, torch.Tensor]:
    return golden("grounding.safetensors")


@pytest.fixture
def head(tensors) -> GroundingHead:
    weights = {
        key.replace(original, ours): value
        for key, value in tensors.items()
        for original, ours in NAMES.items()
        if key.startswith(original)
    }
    weights["empty_region"] = tensors["pool.in.empty_object_embedding"]
    head = GroundingHead(weights["no_object"].shape[0])
    head.load_state_dict(weights, strict=True)
    return head


def test_scores_losses_and_gradients(tensors, golden_json, head):
    record = golden_json("grounding.json")
    cases = [name for name, value in record.items() if isinstance(value, dict) and "box_labels_after" in value]
    assert cases
    for case in cases:
        query = tensors["in.ground_hidden"].clone().requires_grad_()
        regions = tensors["in.object_features"].clone().requires_grad_()
        scores = head(query, regions.unsqueeze(0))
        torch.testing.assert_close(scores[0], tensors[f"out.{case}.scores"], atol=1e-5, rtol=0)
        assert scores[0].argmax() == record[case]["argmax"]

        targets = torch.zeros_like(scores, dtype=torch.bool)
        targets[0, record[case]["box_labels_after"][0]] = True
        loss = RegionContrastLoss(temperature=record["temperature"])(scores, targets)
        torch.testing.assert_close(loss, tensors[f"out.{case}.loss"], atol=1e-4, rtol=0)
        head.zero_grad()
        loss.backward()
        for gradient, name in (
            (query.grad, "ground_hidden"),
            (regions.grad, "object_features"),
            (head.no_object.grad, "zero_target"),
        ):
            torch.testing.assert_close(gradient, tensors[f"out.{case}.grad_{name}"], atol=1e-6, rtol=1e-3)


def test_region_features(tensors, head):
    masks, features = tensors["mask.out.masks"], tensors["pool.in.image_features"]
    grid = features.unflatten(1, masks.shape[-2:]).unsqueeze(0)
    pooled, empty = pool_regions(grid, masks.unsqueeze(0))
    with_learned = torch.where(empty.unsqueeze(-1), head.empty_region, pooled)
    torch.testing.assert_close(with_learned[0], tensors["pool.out.object_features"], atol=1e-5, rtol=1e-5)
    with_mean = torch.where(empty.unsqueeze(-1), features.mean((0, 1)), pooled)
    expected = tensors["pool.out.gt_object_features_with_global_mean_fallback"]
    torch.testing.assert_close(with_mean[0], expected, atol=1e-5, rtol=1e-5)


def test_padded_and_empty_regions(tensors, head):
    """Padding changes no score; an empty region scores as its learned feature."""
    query, regions = tensors["in.ground_hidden"], tensors["in.object_features"].unsqueeze(0)
    scores = head(query, regions)
    padded = torch.cat([regions, torch.full_like(regions[:, :2], 7.0)], dim=1)
    valid = torch.arange(padded.shape[1]).unsqueeze(0) < regions.shape[1]
    longer = head(query, padded, region_valid=valid)
    torch.testing.assert_close(longer[:, : regions.shape[1]], scores[:, :-1])
    torch.testing.assert_close(longer[:, -1], scores[:, -1])
    assert longer[0, regions.shape[1] : -1].isneginf().all()

    empty = torch.zeros(regions.shape[:2], dtype=torch.bool)
    empty[0, 0] = True
    learned = regions.clone()
    learned[0, 0] = head.empty_region.detach()
    torch.testing.assert_close(head(query, regions, region_empty=empty), head(query, learned))
