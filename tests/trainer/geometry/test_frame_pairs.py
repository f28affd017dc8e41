import pytest
import torch
from analytic_scenes import camera_to_world

from trainer.geometry import FramePairs, relative_pose, select_frame_pairs


@pytest.fixture
def poses():
    """Two samples of five frames that walk sideways, 0.3 m a step."""
    walk = torch.stack([camera_to_world(0.05 * i, 0.0, (0.3 * i, 0.0, 0.0)) for i in range(5)])
    return torch.stack((walk, walk.flip(0)))


def rows(pairs):
    return list(zip(pairs.batch.tolist(), pairs.source.tolist(), pairs.target.tolist(), strict=True))


def test_neighbors_ahead_in_both_samples(poses):
    pairs = select_frame_pairs(poses, neighbor_range=2)
    one = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4)]
    assert rows(pairs) == [(b, i, j) for b in (0, 1) for i, j in one]
    assert torch.equal(pairs.weight, torch.ones(14)) and len(pairs) == 14
    expected = relative_pose(poses[pairs.batch, pairs.source], poses[pairs.batch, pairs.target])
    torch.testing.assert_close(pairs.target_from_source, expected)


def test_backward_is_forward_reversed(poses):
    forward = select_frame_pairs(poses, direction="forward")
    backward = select_frame_pairs(poses, direction="backward")
    assert {(b, j, i) for b, i, j in rows(forward)} == set(rows(backward))
    both = select_frame_pairs(poses, direction="bidirectional")
    assert set(rows(both)) == set(rows(forward)) | set(rows(backward))


def test_identity_pairs_belong_to_the_protocol_and_can_be_chosen(poses):
    lonely = (0, 4, 4)
    assert lonely not in rows(select_frame_pairs(poses))
    assert lonely in rows(select_frame_pairs(poses, protocol="paper"))
    assert lonely in rows(select_frame_pairs(poses, identity_pairs=True))
    assert lonely not in rows(select_frame_pairs(poses, protocol="paper", identity_pairs=False))


def test_masked_frames_and_samples_give_no_pairs(poses):
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[0, 2] = False
    poses[0, 2] = torch.nan  # A frame without a pose is no error if it is not used.
    used = {i for b, i, j in rows(select_frame_pairs(poses, valid=valid)) if b == 0 for i in (i, j)}
    assert used == {0, 1, 3, 4}
    only_second = select_frame_pairs(poses, valid=torch.tensor([False, True]))
    assert set(only_second.batch.tolist()) == {1}
    nothing = select_frame_pairs(poses, valid=torch.zeros(2, dtype=torch.bool))
    assert len(nothing) == 0 and nothing.target_from_source.shape == (0, 4, 4)


def test_one_frame_has_no_neighbor():
    pose = torch.eye(4)[None, None]
    assert len(select_frame_pairs(pose)) == 0
    assert rows(select_frame_pairs(pose, protocol="paper")) == [(0, 0, 0)]


def test_overlap_pairs_do_not_depend_on_the_frame_order(poses):
    overlap = torch.rand(1, 5, 5, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.2
    order = torch.tensor([3, 0, 4, 1, 2])
    plain = select_frame_pairs(poses[:1], mode="overlap", overlap=overlap)
    shuffled = select_frame_pairs(poses[:1, order], mode="overlap", overlap=overlap[:, order][:, :, order])
    assert {(int(order[i]), int(order[j])) for _, i, j in rows(shuffled)} == {(i, j) for _, i, j in rows(plain)}
    assert all(i != j for _, i, j in rows(plain))


def test_overlap_pairs_keep_to_overlap_and_baseline(poses):
    poses[0, 4, :3, 3] = torch.tensor([50.0, 0.0, 0.0])  # Too far away from everything.
    overlap = torch.full((1, 5, 5), 0.9)
    overlap[0, 0, 1] = 0.05  # Shares too little.
    pairs = rows(select_frame_pairs(poses[:1], mode="overlap", overlap=overlap, pairs_per_frame=4))
    assert (0, 0, 1) not in pairs and (0, 1, 0) in pairs
    assert not any(4 in (i, j) for _, i, j in pairs)
    best = select_frame_pairs(poses[:1], mode="overlap", overlap=overlap, pairs_per_frame=1)
    assert (0, 0, 2) in rows(best)  # 0.6 m away: nearest to half a metre.


def test_random_pairs_are_repeatable_and_never_identical(poses):
    draw = lambda: select_frame_pairs(  # noqa: E731
        poses, mode="random", pairs_per_frame=2, generator=torch.Generator().manual_seed(3)
    )
    assert rows(draw()) == rows(draw())
    assert len(draw()) == 2 * 5 * 2 and all(i != j for _, i, j in rows(draw()))


def test_seeded_pairs_do_not_depend_on_batch_and_padding(poses):
    """Sample 1 alone, second in a batch, and padded by two frames that do not exist."""
    options = {"mode": "random", "pairs_per_frame": 2, "seed": 0}
    usable = torch.tensor([[True] * 5, [True, True, False, True, True]])
    own = [(i, j) for _, i, j in rows(select_frame_pairs(poses[1:], valid=usable[1:], **options))]
    together = select_frame_pairs(poses, valid=usable, **options)
    assert [(i, j) for b, i, j in rows(together) if b == 1] == own and len(own) == 4 * 2
    padded = torch.cat((poses, poses[:, :2]), 1)
    valid = torch.cat((usable, torch.zeros(2, 2, dtype=torch.bool)), 1)
    assert rows(select_frame_pairs(padded, valid=valid, **options)) == rows(together)
    assert own != [
        (i, j) for _, i, j in rows(select_frame_pairs(poses[1:], valid=usable[1:], **options | {"seed": 1}))
    ]


def test_gather_takes_the_frames_of_the_pairs(poses):
    pairs = select_frame_pairs(poses)
    number = torch.arange(10).view(2, 5)
    assert torch.equal(pairs.gather_target(number), pairs.batch * 5 + pairs.target)
    assert torch.equal(pairs.gather_source(number), pairs.batch * 5 + pairs.source)
    kept = pairs.with_covisible(torch.ones(14, 4, 4, dtype=torch.bool)).select(pairs.batch == 1)
    assert len(kept) == 7 and kept.covisible.shape == (7, 4, 4)
    assert kept.to("cpu").source.device.type == "cpu"


def test_relative_poses_carry_gradients(poses):
    poses.requires_grad_()
    select_frame_pairs(poses).target_from_source.sum().backward()
    assert poses.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "nearest"}, "mode"),
        ({"direction": "sideways"}, "direction"),
        ({"neighbor_range": 0}, "neighbor_range"),
        ({"mode": "random", "pairs_per_frame": 0}, "pairs_per_frame"),
        ({"mode": "overlap"}, "needs `overlap`"),
        ({"valid": torch.ones(3, dtype=torch.bool)}, "valid"),
        ({"protocol": "dirty"}, "protocol"),
    ],
)
def test_wrong_options_are_named(poses, change, message):
    with pytest.raises(ValueError, match=message):
        select_frame_pairs(poses, **change)


def test_bad_poses_raise(poses):
    with pytest.raises(ValueError, match=r"\(B, V, 4, 4\)"):
        select_frame_pairs(poses[0])
    poses[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or Inf"):
        select_frame_pairs(poses, protocol="paper")
    with pytest.raises(ValueError, match="rigid"):
        select_frame_pairs(torch.eye(4).mul(2).expand(1, 3, 4, 4))


def test_pairs_of_wrong_shapes_raise():
    zero = torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="target_from_source"):
        FramePairs(zero, zero, zero, torch.eye(4), torch.ones(2))
    with pytest.raises(ValueError, match="weight"):
        FramePairs(zero, zero, zero, torch.eye(4).expand(2, 4, 4), torch.ones(3))
