import pytest
import torch
from analytic_scenes import camera_to_world, intrinsics, render

from trainer.geometry import select_frame_pairs
from trainer.losses import ViewConsistencyLoss

POSES = torch.stack(
    [
        camera_to_world(-0.1, 0.0, (0.3, 0.0, 0.0)),
        camera_to_world(0.15, 0.05, (-0.4, 0.1, 0.2)),
        camera_to_world(-0.2, -0.1, (0.6, -0.2, -0.3)),
    ]
)
CAMERAS = torch.stack([intrinsics(60.0), intrinsics(75.0), intrinsics(50.0)])


def scene(*, with_ball):
    """Exact depth (1, 3, H, W) of a wall seen by three cameras of their own focal lengths, with pairs."""
    depth = torch.stack([render(c, p, with_ball=with_ball) for c, p in zip(CAMERAS, POSES, strict=True)])
    return depth[None], CAMERAS[None], select_frame_pairs(POSES[None])


@pytest.mark.parametrize("is_measured", [False, True])
def test_consistent_predictions_of_a_plane_are_exactly_zero(is_measured):
    depth, cameras, pairs = scene(with_ball=False)
    prediction = depth.clone().requires_grad_()
    loss = ViewConsistencyLoss()(prediction, cameras, pairs, depth if is_measured else None)
    loss.backward()
    assert loss.item() == 0.0 and not prediction.grad.any()


def test_consistency_does_not_ask_whether_the_prediction_is_right():
    """A plane predicted 10% too near in a world 10% too small is consistent: no term with a measurement says so."""
    depth, cameras, _ = scene(with_ball=False)
    poses = POSES.clone()
    poses[:, :3, 3] *= 0.9
    assert ViewConsistencyLoss()(0.9 * depth, cameras, select_frame_pairs(poses[None])).item() == 0.0


@pytest.mark.parametrize("frame", [0, 1, 2])
@pytest.mark.parametrize("error", [-0.2, 0.2])
@pytest.mark.parametrize("is_measured", [False, True])
def test_one_view_that_disagrees_costs_and_both_views_learn(frame, error, is_measured):
    depth, cameras, pairs = scene(with_ball=False)
    prediction = depth.clone()
    prediction[0, frame] += error
    prediction.requires_grad_()
    loss = ViewConsistencyLoss()(prediction, cameras, pairs, depth if is_measured else None)
    loss.backward()
    assert 0.02 < loss.item() < 0.4
    assert prediction.grad[0].flatten(1).abs().sum(1).gt(0).all()
    assert (prediction.grad[0, frame].sum() > 0) == (error > 0)  # Descent moves the view that is off back.


def test_counted_pairs_are_those_of_the_mean():
    """Two batches, weighted by their counts, give the loss of both, though a prediction leaves no pixel to compare."""
    depth, cameras, pairs = scene(with_ball=False)
    prediction = depth.clone()
    prediction[0, 2] = 0.2  # what the other views see lies far behind it
    loss = ViewConsistencyLoss()
    parts = [pairs.select(pairs.target == 1), pairs.select(pairs.target == 2)]
    counts = [loss.count_pairs(prediction, cameras, part) for part in parts]
    assert [count.item() for count in counts] != [len(part) for part in parts]
    losses = [loss(prediction, cameras, part) for part in parts]
    merged = sum(value * count for value, count in zip(losses, counts, strict=True)) / sum(counts)
    torch.testing.assert_close(merged, loss(prediction, cameras, pairs))


def test_turning_the_pairs_around_changes_nothing():
    depth, cameras, pairs = scene(with_ball=True)
    prediction = depth + 0.1 * torch.rand(depth.shape, generator=torch.Generator().manual_seed(0))
    backward = select_frame_pairs(POSES[None], direction="backward")
    loss = ViewConsistencyLoss()
    torch.testing.assert_close(loss(prediction, cameras, pairs, depth), loss(prediction, cameras, backward, depth))


def test_what_the_other_view_cannot_see_is_not_compared():
    depth, cameras, pairs = scene(with_ball=True)
    hidden_matters = ViewConsistencyLoss(absolute_tolerance=100.0)(depth, cameras, pairs, depth)
    assert hidden_matters > 0.03  # Without the occlusion test the wall behind the ball counts.
    assert ViewConsistencyLoss()(depth, cameras, pairs, depth) < 1e-3  # What is left: the ball is round.
    assert ViewConsistencyLoss()(depth, cameras, pairs) < 0.02  # Not measured: its edges are taken for errors.


def test_holes_in_the_measurement_are_compared_by_the_predictions():
    depth, cameras, pairs = scene(with_ball=False)
    prediction, holes = depth.clone(), torch.zeros_like(depth)
    prediction[0, 0] += 0.3
    loss = ViewConsistencyLoss()
    assert torch.equal(loss(prediction, cameras, pairs, holes), loss(prediction, cameras, pairs))
    assert loss(prediction, cameras, pairs, holes) > 0.02


def test_a_pixel_without_prediction_leaves_gradients_finite():
    depth, cameras, pairs = scene(with_ball=True)
    prediction = depth.clone() + 0.05
    prediction[0, :, 10:14, 20:30] = 0.0
    prediction.requires_grad_()
    ViewConsistencyLoss()(prediction, cameras, pairs, depth).backward()
    assert prediction.grad.isfinite().all() and prediction.grad.any()


def test_gradients_are_those_of_differences():
    poses = POSES[:2].double()
    cameras = torch.stack([intrinsics(9.0, 6, 8), intrinsics(10.0, 6, 8)])[None]
    depth = torch.stack([render(cameras[0, k], POSES[k], with_ball=False, height=6, width=8) for k in range(2)])
    prediction = (depth[None] * torch.tensor([1.05, 1.0])[None, :, None, None]).requires_grad_()
    pairs = select_frame_pairs(poses[None])
    ViewConsistencyLoss()(prediction, cameras, pairs).backward()
    direction = prediction.grad.sign() * (prediction.grad.abs() > 1e-4)
    step = 1e-3
    with torch.no_grad():
        higher, lower = (
            ViewConsistencyLoss()(prediction + sign * step * direction, cameras, pairs) for sign in (1, -1)
        )
    assert (higher - lower).item() / (2 * step) == pytest.approx((prediction.grad * direction).sum().item(), rel=0.05)


def test_nan_shows_and_zero_keeps_the_graph():
    depth, cameras, pairs = scene(with_ball=False)
    prediction = depth.clone()
    prediction[0, 1, 3, 3] = torch.nan
    assert ViewConsistencyLoss()(prediction, cameras, pairs, depth).isnan()
    for few in (pairs.select(torch.tensor([], dtype=torch.long)), pairs):
        prediction = torch.full_like(depth, 1e-3).requires_grad_()  # All points miss the other image.
        loss = ViewConsistencyLoss()(prediction, cameras, few)
        loss.backward()
        assert loss.item() >= 0.0 and prediction.grad is not None


def test_half_precision_and_mixed_precision_are_computed_in_float32():
    depth, cameras, pairs = scene(with_ball=True)
    prediction = (depth + 0.1).bfloat16()
    loss = ViewConsistencyLoss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = loss(prediction, cameras, pairs, depth)
    assert mixed.dtype == torch.float32 and torch.equal(mixed, loss(prediction.float(), cameras, pairs, depth))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -1.0])
def test_broken_measurements_raise(bad):
    depth, cameras, pairs = scene(with_ball=False)
    broken = depth.clone()
    broken[0, 2, 1, 1] = bad
    with pytest.raises(ValueError, match=r"first \(sample, frame\): \[\[0, 2\]\]"):
        ViewConsistencyLoss()(depth, cameras, pairs, broken)


def test_wrong_shapes_are_named():
    depth, cameras, pairs = scene(with_ball=False)
    with pytest.raises(ValueError, match="predicted_depth"):
        ViewConsistencyLoss()(depth[0], cameras, pairs)
    with pytest.raises(ValueError, match="shape of `predicted_depth`"):
        ViewConsistencyLoss()(depth, cameras, pairs, depth[..., ::2])
    with pytest.raises(ValueError, match="singular"):
        ViewConsistencyLoss()(depth, torch.zeros_like(cameras), pairs)


def test_citation_names_where_the_idea_comes_from():
    assert "bian2019" in ViewConsistencyLoss().citation
