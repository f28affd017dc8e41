"""Unprojection, frame pairs, reprojection masks and overlap against the original's view functions."""

import re

import pytest
import torch
from torch.nn import functional as F

from trainer.geometry import (
    FramePairs,
    compute_voxel_overlap,
    covisibility_mask,
    select_frame_pairs,
    unproject_depth,
)

pytestmark = pytest.mark.parity

MOTION = {"atol": 1e-5, "rtol": 0.0}


@pytest.fixture
def tensors(golden):
    return golden("views.safetensors")


@pytest.fixture
def records(golden_json):
    return golden_json("views.json")


def frames_of(pairs):
    return list(zip(pairs.source.tolist(), pairs.target.tolist(), strict=True))


def expected_frames(rows):
    return [(row["frame_i"], row["frame_j"]) for row in rows]


def test_unprojection(tensors):
    points = unproject_depth(
        tensors["unproject.in.depth_mm"] / 1000.0,
        tensors["unproject.in.intrinsics"][:, :3, :3],
        tensors["unproject.in.poses"],
        protocol="paper",
    )
    torch.testing.assert_close(points, tensors["unproject.out.world_coords"], atol=2e-6, rtol=1e-5)


def test_neighbor_pairs(tensors, records):
    poses = tensors["pairs.in.poses"].unsqueeze(0)
    seen = 0
    for name, rows in records["pairs"].items():
        match = re.fullmatch(r"neighbor_r(\d+)_(\w+)", name)
        if match is None:
            continue
        pairs = select_frame_pairs(
            poses, neighbor_range=int(match[1]), direction=match[2], protocol="paper", identity_pairs=True
        )
        assert frames_of(pairs) == expected_frames(rows), name
        torch.testing.assert_close(pairs.target_from_source, tensors[f"pairs.{name}.T_relative"], **MOTION)
        seen += 1
    assert seen


def test_single_frame_is_paired_with_itself(tensors, records):
    pairs = select_frame_pairs(tensors["pairs.in.poses"][None, :1], protocol="paper")
    assert frames_of(pairs) == expected_frames(records["pairs"]["neighbor_single_frame"])


def test_reprojection_masks(tensors, records):
    depth, poses = tensors["reproj.in.depth_mm"].unsqueeze(0) / 1000.0, tensors["reproj.in.poses"].unsqueeze(0)
    pairs = select_frame_pairs(poses, neighbor_range=2, direction="forward", protocol="paper")
    assert torch.equal(pairs.source, tensors["reproj.frame_i"])
    assert torch.equal(pairs.target, tensors["reproj.frame_j"])
    torch.testing.assert_close(pairs.target_from_source, tensors["reproj.T_relatives"], **MOTION)
    intrinsics = tensors["reproj.in.intrinsics"][:3, :3].expand(1, depth.shape[1], 3, 3)
    masks = covisibility_mask(depth, intrinsics, pairs, protocol="paper")
    expected, certain = tensors["reproj.out.valid_masks"], tensors["reproj.out.valid_masks_certain"]
    assert torch.equal(masks[certain], expected[certain])
    # Identity pairs hang on the last bit of the projection: half of their points lie on a pixel edge.
    is_neighbor = torch.tensor([kind != "identity" for kind in records["reproj"]["types"]])
    agreement = (masks == expected).float().mean((1, 2))
    assert is_neighbor.any() and (agreement[is_neighbor] >= 0.99).all(), agreement


def test_masks_and_depth_are_resized_by_nearest(tensors):
    size = tensors["reproj.out.depth_m_resized_42x42_nearest"].shape[-2:]
    depth = F.interpolate(tensors["reproj.in.depth_mm"].unsqueeze(0) / 1000.0, size, mode="nearest")[0]
    torch.testing.assert_close(depth, tensors["reproj.out.depth_m_resized_42x42_nearest"])
    masks = F.interpolate(tensors["reproj.out.valid_masks"].unsqueeze(0).float(), size, mode="nearest")[0] > 0.5
    assert torch.equal(masks, tensors["reproj.out.valid_masks_resized_42x42_nearest"])


@pytest.mark.parametrize("case", ["reproj_plane", "reproj_behind"])
def test_hand_made_reprojections(tensors, case):
    motion = tensors[f"{case}.in.T_relatives"]
    zero = torch.zeros(len(motion), dtype=torch.long)
    pairs = FramePairs(zero, zero, zero, motion, torch.ones(len(motion)))
    depth, intrinsics = tensors["reproj_plane.in.depth_m"][:1], tensors["reproj_plane.in.intrinsics"][:1, :3, :3]
    masks = covisibility_mask(depth.unsqueeze(0), intrinsics.unsqueeze(0), pairs, protocol="paper")
    assert torch.equal(masks, tensors[f"{case}.out.valid_masks"])


def test_pair_lists_of_several_samples_are_flattened_sample_by_sample(tensors, records):
    merged = records["merge"]
    poses = tensors["reproj.in.poses"]
    batch = torch.stack((poses, poses, poses))
    valid = torch.zeros(batch.shape[:2], dtype=torch.bool)
    valid[0] = True  # All frames; the second sample has the frames of its three pairs, the third has no geometry.
    second = [
        i
        for b, *pair in zip(merged["batch_indices"], merged["frame_i"], merged["frame_j"], strict=True)
        for i in pair
        if b
    ]
    valid[1, second] = True
    pairs = select_frame_pairs(batch, valid=valid, protocol="paper", identity_pairs=True)
    kept = pairs.select((pairs.batch == 0) | (pairs.source != pairs.target))
    assert kept.batch.tolist() == merged["batch_indices"] and len(kept) == merged["num_pairs"]
    assert kept.source.tolist() == merged["frame_i"] and kept.target.tolist() == merged["frame_j"]
    assert kept.weight.tolist() == merged["weights"]


def test_overlap_pairs(tensors, records):
    """Intended values of a mode that crashes in the original; its points are drawn at random, hence the tolerance."""
    points, mask = tensors["overlap.in.world_coords"][None], tensors["overlap.in.valid_masks"][None]
    poses = tensors["overlap.in.poses"].unsqueeze(0)
    seen = 0
    for name, rows in records.items():
        match = re.fullmatch(r"overlap_top(\d+)_thr([\d.]+)", name)
        if match is None:
            continue
        seen += 1
        overlap = compute_voxel_overlap(points, mask, float(match[2]))[0]
        pairs = select_frame_pairs(
            poses, mode="overlap", overlap=overlap.unsqueeze(0), pairs_per_frame=int(match[1]), protocol="paper"
        )
        found, wanted = set(frames_of(pairs)), {(row["frame_i"], row["frame_j"]): row for row in rows}
        for pair in found ^ set(wanted):  # Only near-ties may differ.
            scores = [row["score"] for row in rows if row["frame_i"] == pair[0] and "score" in row]
            assert scores and abs(_score(overlap, poses[0], pair) - min(scores)) <= 0.02, (name, pair)
        for pair, row in wanted.items():
            if "overlap" in row:
                assert float(overlap[pair]) == pytest.approx(row["overlap"], abs=0.02)
                assert _score(overlap, poses[0], pair) == pytest.approx(row["score"], abs=0.02)
        if found == set(wanted):
            order = [frames_of(pairs).index(pair) for pair in wanted]
            motion = pairs.target_from_source[order]
            torch.testing.assert_close(motion, tensors[f"{name}.T_relative"], **MOTION)
    assert seen


def _score(overlap, poses, pair):
    baseline = (poses[pair[0], :3, 3] - poses[pair[1], :3, 3]).norm()
    return float(overlap[pair] * (1 - (baseline - 0.5).abs() / 2))


def test_overlap_matrix(tensors, records):
    for name, rows in records.items():
        if name.startswith("overlap_matrix_thr"):
            overlap = compute_voxel_overlap(
                tensors["overlap.in.world_coords"][None],
                tensors["overlap.in.valid_masks"][None],
                float(name.split("thr")[1]),
            )
            torch.testing.assert_close(overlap[0], torch.tensor(rows), atol=0.02, rtol=0.0)


def test_frames_with_few_points_share_nothing(tensors, records):
    mask = tensors["overlap.in.valid_masks"].clone()
    mask[0] = False
    mask[0].view(-1)[:99] = True
    overlap = compute_voxel_overlap(tensors["overlap.in.world_coords"][None], mask[None], 0.2)[0]
    assert not overlap[0].any() and records["overlap_lt100_points"] == 0.0
