import pytest
import torch
from analytic_scenes import BALL, camera_to_world, intrinsics, is_visible, render
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.geometry import (
    compute_covisible_share,
    compute_voxel_overlap,
    covisibility_mask,
    project_points,
    select_frame_pairs,
    unproject_depth,
)

few = settings(max_examples=25, derandomize=True, deadline=None)


def ball_scene(focals=(60.0, 60.0, 60.0, 60.0)):
    """Four views of a ball before a wall; (1, 4, ...) depth, intrinsics, poses."""
    poses = [
        camera_to_world(-0.1, 0.0, (0.3, 0.0, 0.0)),
        camera_to_world(0.15, 0.05, (-0.4, 0.1, 0.2)),
        camera_to_world(-0.2, -0.1, (0.6, -0.2, -0.3)),
        camera_to_world(0.0, 0.1, (0.0, -0.3, 0.4)),
    ]
    cameras = [intrinsics(focal) for focal in focals]
    depth = torch.stack([render(c, p) for c, p in zip(cameras, poses, strict=True)])
    return depth[None], torch.stack(cameras)[None], torch.stack(poses)[None]


def true_visibility(depth, cameras, poses, pairs):
    rows = []
    for source, target in zip(pairs.source.tolist(), pairs.target.tolist(), strict=True):
        points = unproject_depth(depth[0, target], cameras[0, target], poses[0, target])
        rows.append(is_visible(points, cameras[0, source], poses[0, source]) & (depth[0, target] > 0))
    return torch.stack(rows)


def precision_and_recall(mask, truth):
    both = (mask & truth).sum().item()
    return both / mask.sum().item(), both / truth.sum().item()


@pytest.mark.parametrize("focals", [(60.0, 60.0, 60.0, 60.0), (45.0, 80.0, 60.0, 100.0)])
def test_the_mask_is_what_ray_casting_says(focals):
    depth, cameras, poses = ball_scene(focals)
    pairs = select_frame_pairs(poses, neighbor_range=3, direction="bidirectional")
    truth = true_visibility(depth, cameras, poses, pairs)
    precision, recall = precision_and_recall(covisibility_mask(depth, cameras, pairs), truth)
    assert precision >= 0.99 and recall >= 0.95, (precision, recall)
    paper = precision_and_recall(covisibility_mask(depth, cameras, pairs, protocol="paper"), truth)
    assert paper[0] < precision and paper[1] < recall


def test_the_wall_behind_the_ball_is_not_covisible():
    depth, cameras, poses = ball_scene()
    pairs = select_frame_pairs(poses, neighbor_range=3, direction="bidirectional")
    hidden = (pairs.gather_target(depth) > BALL[2] + 0.5) & ~true_visibility(depth, cameras, poses, pairs)
    inside = covisibility_mask(
        torch.stack([render(intrinsics(), p, with_ball=False) for p in poses[0]])[None], cameras, pairs
    )
    occluded = hidden & inside  # Inside the source image, but the ball stands in between.
    assert occluded.sum() > 200
    wrong = covisibility_mask(depth, cameras, pairs)[occluded].float().mean()
    assert wrong < 0.05  # Half-seen pixels at the ball's edge.


@few
@given(yaw=st.floats(-0.6, 0.6), pitch=st.floats(-0.6, 0.6), focal=st.floats(30.0, 150.0))
def test_an_identity_pair_is_all_covisible(yaw, pitch, focal):
    camera, pose = intrinsics(focal), camera_to_world(yaw, pitch, (0.2, 0.1, 0.0))
    depth = render(camera, pose)[None, None]
    pairs = select_frame_pairs(pose[None, None], identity_pairs=True)
    assert torch.equal(covisibility_mask(depth, camera[None, None], pairs)[0], depth[0, 0] > 0)


def test_pixels_without_depth_are_not_covisible_in_either_view():
    camera, pose = intrinsics(), torch.eye(4)
    depth = render(camera, pose, with_ball=False).expand(1, 2, -1, -1).clone()
    depth[0, 0, :10] = 0.0  # No measurement in the source.
    depth[0, 1, :, :10] = 0.0  # No measurement in the target.
    pairs = select_frame_pairs(pose.expand(1, 2, 4, 4))
    mask = covisibility_mask(depth, camera.expand(1, 2, 3, 3), pairs)[0]
    assert not mask[:10].any() and not mask[:, :10].any() and mask[10:, 10:].all()


def test_views_that_look_away_share_nothing():
    poses = torch.stack((camera_to_world(0.0), camera_to_world(3.14)))[None]
    depth = torch.full((1, 2, 48, 64), 2.0)
    pairs = select_frame_pairs(poses, direction="bidirectional")
    assert not covisibility_mask(depth, intrinsics().expand(1, 2, 3, 3), pairs).any()


def test_no_pairs_give_an_empty_mask():
    pairs = select_frame_pairs(torch.eye(4)[None, None])
    for protocol in ("clean", "paper"):
        mask = covisibility_mask(torch.ones(1, 1, 6, 8), intrinsics()[None, None], pairs, protocol=protocol)
        assert mask.shape == (0, 6, 8) and mask.dtype == torch.bool


def test_cameras_that_are_not_used_are_not_checked():
    depth, cameras, poses = ball_scene()
    cameras = cameras.clone()
    cameras[0, 3] = 0.0
    pairs = select_frame_pairs(poses, valid=torch.tensor([[True, True, True, False]]))
    assert covisibility_mask(depth, cameras, pairs).any()
    with pytest.raises(ValueError, match="singular"):
        covisibility_mask(depth, cameras, select_frame_pairs(poses, direction="backward"))


def test_covisible_share_finds_the_frames_that_look_the_same_way():
    poses = torch.stack([camera_to_world(yaw) for yaw in (0.0, 0.2, 3.0)])[None]
    cameras = intrinsics().expand(1, 3, 3, 3)
    depth = torch.stack([render(intrinsics(), pose, with_ball=False) for pose in poses[0]])[None]
    share = compute_covisible_share(depth, cameras, poses)[0]
    assert share[0, 0] == share[1, 1] == 1.0
    assert 0.6 < share[0, 1] < 0.9 and 0.6 < share[1, 0] < 0.9
    assert not share[2].any() and not share[:, 2].any()
    masked = compute_covisible_share(depth, cameras, poses, valid=torch.tensor([[True, False, True]]))[0]
    assert not masked[1].any() and not masked[:, 1].any()


def test_wrong_shapes_are_named():
    depth, cameras, poses = ball_scene()
    with pytest.raises(ValueError, match="B, V, H, W"):
        covisibility_mask(depth[0], cameras, select_frame_pairs(poses))
    with pytest.raises(ValueError, match="protocol"):
        covisibility_mask(depth, cameras, select_frame_pairs(poses), protocol="new")


def test_scenes_of_a_batch_do_not_meet_in_the_voxel_overlap():
    points = torch.rand(2, 3, 12, 12, 3, generator=torch.Generator().manual_seed(0)) * 2
    mask = torch.ones(points.shape[:-1], dtype=torch.bool)
    mask[1, :, 9:] = False
    together = compute_voxel_overlap(points, mask, 0.4)
    alone = [compute_voxel_overlap(points[k : k + 1], mask[k : k + 1], 0.4)[0] for k in range(2)]
    assert torch.equal(together, torch.stack(alone)) and (together.diagonal(dim1=1, dim2=2) == 1).all()
    assert not compute_voxel_overlap(points, torch.zeros_like(mask), 0.4).any()
    with pytest.raises(ValueError, match="B, V, H, W, 3"):
        compute_voxel_overlap(points[0], mask[0], 0.4)


def test_mixed_precision_changes_nothing():
    depth, cameras, poses = ball_scene()
    poses = poses.clone()
    poses[..., :3, 3] += 5.0  # Far from the origin, where bfloat16 knows centimetres.
    points = unproject_depth(depth, cameras, poses)

    def everything():
        pairs = select_frame_pairs(poses)
        masks = [covisibility_mask(depth, cameras, pairs, protocol=protocol) for protocol in ("clean", "paper")]
        share = compute_covisible_share(depth, cameras, poses)
        overlap = compute_voxel_overlap(points, points.isfinite().all(-1), 0.1)
        world = unproject_depth(depth, cameras, poses).nan_to_num()
        return [pairs.target_from_source, *masks, share, overlap, world, project_points(world, cameras, poses)[1]]

    plain = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = everything()
    assert all(torch.equal(one, other) for one, other in zip(plain, mixed, strict=True))
