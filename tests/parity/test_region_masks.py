"""3D boxes to token masks: the share rule, inclusive limits, and what the vision tower never sees."""

import pytest
import torch

from processing.regions import regions_from_boxes_3d
from processing.token_grid import TokenGrid

pytestmark = pytest.mark.parity

PATCH_SIZE, POOL_STRIDE = 14, 2  # Of the original's vision tower.


@pytest.fixture
def tensors(golden):
    return golden("grounding.safetensors")


def upsampled_points(tensors):
    name = next(key for key in tensors if key.startswith("mask.in.world_coords"))
    return tensors[name].repeat_interleave(3, 1).repeat_interleave(3, 2)


def test_box_masks(tensors):
    points, boxes = upsampled_points(tensors), tensors["mask.in.boxes"]
    grid = TokenGrid(points.shape[1], PATCH_SIZE, POOL_STRIDE)
    expected = tensors["mask.out.masks"]
    assert grid.shape == tuple(expected.shape[-2:])
    assert torch.equal(regions_from_boxes_3d(boxes, points, grid, protocol="paper"), expected)
    assert torch.equal(regions_from_boxes_3d(boxes[0], points, grid)[0], tensors["mask.out.single_box0"])
    assert torch.equal(regions_from_boxes_3d(boxes.numpy(), points.numpy(), grid), expected)


def test_pixel_counts_decide(tensors):
    points, boxes = upsampled_points(tensors), tensors["mask.in.boxes"]
    grid, counts = TokenGrid(points.shape[1], PATCH_SIZE, POOL_STRIDE), tensors["mask.out.pixel_counts"]
    pixels = (grid.covered_size[0] // grid.rows) * (grid.covered_size[1] // grid.cols)
    for count in (1, 50, 91, 200, pixels):
        masks = regions_from_boxes_3d(boxes, points, grid, min_share=count / pixels)
        assert torch.equal(masks, counts >= count), count


def test_counts_json(tensors, golden_json):
    masks = regions_from_boxes_3d(
        tensors["mask.in.boxes"],
        upsampled_points(tensors),
        TokenGrid(upsampled_points(tensors).shape[1], PATCH_SIZE, POOL_STRIDE),
    )
    assert masks.flatten(1).sum(1).tolist() == golden_json("grounding.json")["mask_patch_counts"]


def test_exact_threshold_by_formula(tensors, golden_json):
    """Boxes that hold 90, 91 and 92 of a token's 729 pixels; rows from 378 on are never seen."""
    v, u = torch.meshgrid(torch.arange(384), torch.arange(384), indexing="ij")
    points = torch.stack(((v % 27) * 27 + u % 27, v // 27, u // 27), dim=-1).float().unsqueeze(0)
    masks = regions_from_boxes_3d(tensors["mask_formula.in.boxes"], points, TokenGrid(384, PATCH_SIZE, POOL_STRIDE))
    assert torch.equal(masks, tensors["mask_formula.out.masks"])
    assert masks.flatten(1).sum(1).tolist() == golden_json("grounding.json")["mask_formula"]["patch_counts"]


def test_object_feature_is_the_mean_over_its_tokens(tensors):
    features = tensors["pool.in.image_features"].flatten(0, 1)
    masks = tensors["mask.out.masks"].flatten(1)
    fall_backs = {
        "object_features": tensors["pool.in.empty_object_embedding"],
        "gt_object_features_with_global_mean_fallback": features.mean(0),
    }
    for name, empty in fall_backs.items():
        means = (masks.float() @ features) / masks.sum(1, keepdim=True).clamp(min=1)
        pooled = torch.where(masks.any(1, keepdim=True), means, empty)
        torch.testing.assert_close(pooled, tensors[f"pool.out.{name}"], atol=2e-5, rtol=1e-4)


def test_visual_token_positions_leave_newlines_out(tensors):
    """Token k of frame f, row r, column c sits at start + f * tokens_per_frame + r * (cols + 1) + c."""
    name = next(key for key in tensors if key.startswith("extract.out.token_indices_start"))
    start = int(name.split("start")[1].split("_")[0])
    expected = tensors[name]
    grid = TokenGrid(384, PATCH_SIZE, POOL_STRIDE)
    frame, row, col = torch.meshgrid(
        torch.arange(len(expected)), torch.arange(grid.rows), torch.arange(grid.cols), indexing="ij"
    )
    positions = start + frame * grid.tokens_per_frame + row * (grid.cols + 1) + col
    assert torch.equal(positions.flatten(1), expected)
