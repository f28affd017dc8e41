"""Masks and view consistency in one pass are those of the plain reference, and their memory is flat in the pairs."""

from contextlib import contextmanager
from functools import partial

import pytest
import torch
from analytic_scenes import camera_to_world, intrinsics, render
from benchmarks.step_cost import measure_peak
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_geometry import move_pixels, plain_consistency, plain_mask

from trainer.geometry import (
    covisibility_mask,
    project_points,
    select_frame_pairs,
    transform_points,
    unproject_depth,
    warping,
)
from trainer.losses import ViewConsistencyLoss

HEIGHT, WIDTH = 12, 16
KINDS = ("room", "noise", "holes", "empty", "near and far", "behind")
few = settings(max_examples=25, derandomize=True, deadline=None)


@st.composite
def scenes(draw):
    """Depth, a prediction (B, V, H, W), cameras and pairs of random frames, many of them strange."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch, views = draw(st.integers(1, 2)), draw(st.integers(1, 4))
    angle, step = draw(st.sampled_from([0.0, 0.1, 0.6, 3.0])), draw(st.sampled_from([0.0, 0.3, 4.0]))

    def random(*shape, low=-1.0, high=1.0):
        return low + (high - low) * torch.rand(*shape, generator=generator)

    poses = torch.stack([_random_pose(random, angle, step) for _ in range(batch * views)]).view(batch, views, 4, 4)
    cameras = torch.stack(
        [intrinsics(float(random(1, low=8, high=20)), HEIGHT, WIDTH) for _ in range(batch * views)]
    ).view(batch, views, 3, 3)
    depth = torch.stack([_render(c, p) for c, p in zip(cameras.flatten(0, 1), poses.flatten(0, 1), strict=True)])
    depth = depth.view(batch, views, HEIGHT, WIDTH)
    kind = draw(st.sampled_from(KINDS))
    if kind == "noise":
        depth = depth + 0.2 * random(*depth.shape).abs()
    elif kind == "holes":
        depth = torch.where(random(*depth.shape) > 0, depth, 0.0)
    elif kind == "empty":
        depth = depth * (torch.arange(views) > 0)[:, None, None]
    elif kind == "near and far":
        depth = torch.where(random(*depth.shape) > 0, depth * 1e4, depth * 1e-3)
    elif kind == "behind":
        poses[:, ::2, :3, 3] += torch.tensor([0.0, 0.0, 3.5])
    prediction = torch.where(depth > 0, depth, 2.0) * (
        1 + draw(st.sampled_from([0.0, 1e-6, 0.03])) * random(*depth.shape)
    )
    pairs = select_frame_pairs(poses, neighbor_range=2, identity_pairs=draw(st.booleans()))
    if draw(st.booleans()):
        pairs = pairs.select(slice(0, 1))
    pairs.weight.copy_(random(len(pairs), low=0.5, high=2.0))
    return depth, prediction, cameras, pairs


@contextmanager
def _pixels_at_once(pixels):
    """Context in which as many pixels are warped at once."""
    before, warping.CPU_PIXELS = warping.CPU_PIXELS, pixels
    try:
        yield
    finally:
        warping.CPU_PIXELS = before


def _random_pose(random, angle, step):
    yaw, pitch = (float(value) for value in angle * random(2))
    return camera_to_world(yaw, 0.3 * pitch, tuple(float(value) for value in step * random(3)))


def _render(camera, pose):
    return render(camera, pose, height=HEIGHT, width=WIDTH)


@few
@given(scenes(), st.sampled_from([1, 200, 10**6]))
def test_masks_are_those_of_the_reference(scene, pixels):
    depth, _, cameras, pairs = scene
    with _pixels_at_once(pixels):
        for protocol in ("clean", "paper"):
            mask = covisibility_mask(depth, cameras, pairs, protocol=protocol)
            assert torch.equal(mask, plain_mask(depth, cameras, pairs, protocol=protocol)), protocol
        share = torch.full((len(pairs), 1, 1), 0.02)
        share[::2] = 0.1
        options = {"relative_tolerance": share, "absolute_tolerance": 0.0}
        mask = covisibility_mask(depth, cameras, pairs, **options)
    assert torch.equal(mask, plain_mask(depth, cameras, pairs, **options))


@few
@given(scenes(), st.booleans(), st.sampled_from([1, 200, 10**6]), st.sampled_from([torch.float32, torch.bfloat16]))
def test_consistency_and_its_gradient_are_those_of_the_reference(scene, is_measured, pixels, dtype):
    depth, prediction, cameras, pairs = scene
    values = []
    for compare in (ViewConsistencyLoss(), plain_consistency):
        leaf = prediction.to(dtype).requires_grad_()
        with _pixels_at_once(pixels):
            loss = compare(leaf, cameras, pairs, depth if is_measured else None)
        loss.backward()
        values.append((loss.detach(), leaf.grad.float()))
    (loss, gradient), (expected, expected_gradient) = values
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0.0)
    assert gradient.isfinite().all()
    rtol = 1e-6 if dtype == torch.float32 else 1e-2
    assert (gradient - expected_gradient).norm() <= rtol * expected_gradient.norm()


def test_pixels_that_land_on_pixels_beside_missing_ones_have_the_slope_of_the_reference():
    poses = torch.eye(4).repeat(1, 2, 1, 1)
    poses[0, 1, :2, 3] = torch.tensor([0.5, 0.25])  # two columns and a row, at 2 m
    camera = torch.tensor([[8.0, 0.0, 7.0], [0.0, 8.0, 5.0], [0.0, 0.0, 1.0]]).expand(1, 2, 3, 3)
    prediction = torch.full((1, 2, HEIGHT, WIDTH), 2.0)
    prediction[0, 0] += 0.25 * (torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) > 0.5)
    prediction[0, 1, ::3, ::3] = 0.0
    gradients = []
    for compare in (ViewConsistencyLoss(absolute_tolerance=1.0), partial(plain_consistency, absolute=1.0)):
        leaf = prediction.clone().requires_grad_()
        compare(leaf, camera, select_frame_pairs(poses)).backward()
        gradients.append(leaf.grad)
    assert gradients[1].count_nonzero() > HEIGHT * WIDTH / 4
    torch.testing.assert_close(*gradients)


@few
@given(scenes())
def test_rays_lead_where_points_are_projected(scene):
    depth, _, cameras, pairs = scene
    depth, seen_by = pairs.gather_source(depth).double(), (pairs.gather_source(cameras), pairs.gather_target(cameras))
    seen_by = tuple(each.double() for each in seen_by)
    motion = pairs.target_from_source.double()
    pixels, z = move_pixels(depth, seen_by, motion)
    points = transform_points(motion, unproject_depth(depth, seen_by[0]))
    expected, expected_z = project_points(points, seen_by[1])
    expected_z = torch.where(expected[..., 0].isfinite(), expected_z, torch.nan)
    torch.testing.assert_close((pixels, z), (expected, expected_z), equal_nan=True, rtol=1e-9, atol=1e-9)
    rays = warping.project_rays(*seen_by, motion, (HEIGHT, WIDTH))
    landing = warping.land_on_rays(warping.drop_missing(depth), rays, seen_by[1], motion)
    assert torch.equal(landing.z.isnan(), z.isnan())
    torch.testing.assert_close(torch.stack(landing[:2], -1), pixels.nan_to_num(0.0), rtol=1e-9, atol=1e-9)


def test_between_pixels_a_missing_one_counts_by_its_share():
    depth = warping.drop_missing(torch.tensor([[[2.0, 0.0], [4.0, 4.0]]]))
    u, v = torch.tensor([[[0.0, 0.0, 1e-6, 1.0, 1.0, 0.5]]]), torch.tensor([[[0.0, 0.5, 0.0, 0.0, 1.0, 1.0]]])
    between = warping.interpolate_depth(warping.invert_depth(depth), u, v).depth
    expected = torch.tensor([[[2.0, 1 / 0.375, torch.nan, torch.nan, 4.0, 4.0]]])
    torch.testing.assert_close(between, expected, equal_nan=True)


def test_a_scene_of_the_reference_has_pixels_to_compare():
    """What the properties above compare is not nothing."""
    poses = torch.stack([camera_to_world(0.0), camera_to_world(0.1, 0.0, (0.2, 0.0, 0.1))])
    cameras = torch.stack([intrinsics(14.0, HEIGHT, WIDTH)] * 2)
    depth = torch.stack([_render(c, p) for c, p in zip(cameras, poses, strict=True)])[None]
    pairs = select_frame_pairs(poses[None])
    assert 0.3 < plain_mask(depth, cameras[None], pairs).float().mean() < 1
    assert plain_consistency(depth * torch.tensor([1.0, 1.05])[:, None, None], cameras[None], pairs, depth) > 0.01


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_numbers_that_are_none_show_in_the_loss_and_leave_the_masks(bad):
    depth = torch.full((1, 2, HEIGHT, WIDTH), 2.0)
    cameras = intrinsics(14.0, HEIGHT, WIDTH).expand(1, 2, 3, 3)
    pairs = select_frame_pairs(torch.eye(4).expand(1, 2, 4, 4))
    depth[0, 1, 2, 3] = bad
    assert ViewConsistencyLoss()(depth, cameras, pairs).isnan()
    for protocol in ("clean", "paper"):
        mask = covisibility_mask(depth, cameras, pairs, protocol=protocol)
        assert torch.equal(mask, plain_mask(depth, cameras, pairs, protocol=protocol))


def test_float64_is_computed_as_such():
    depth = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    poses = torch.eye(4, dtype=torch.float64).repeat(1, 3, 1, 1)
    poses[0, :, 0, 3] = torch.tensor([0.0, 0.1, 0.2])
    cameras = intrinsics(14.0, HEIGHT, WIDTH).double().expand(1, 3, 3, 3)
    pairs = select_frame_pairs(poses)
    near = {"relative_tolerance": 0.0, "absolute_tolerance": 1e-9}  # Far below the steps of float32.
    still = select_frame_pairs(torch.eye(4, dtype=torch.float64).repeat(1, 3, 1, 1))
    assert covisibility_mask(depth[:, :1].expand_as(depth), cameras, still, **near).all()
    assert not covisibility_mask(depth, cameras, pairs, **near).any()


def test_without_gradient_none_is_computed(monkeypatch):
    depth = torch.full((1, 2, HEIGHT, WIDTH), 2.0).requires_grad_()
    cameras = intrinsics(14.0, HEIGHT, WIDTH).expand(1, 2, 3, 3)
    pairs = select_frame_pairs(torch.eye(4).expand(1, 2, 4, 4))
    monkeypatch.setattr("trainer.losses.view_comparison._add_slopes", lambda *_: pytest.fail("computed a gradient"))
    with torch.no_grad():
        ViewConsistencyLoss()(depth, cameras, pairs)
    ViewConsistencyLoss()(depth.detach(), cameras, pairs)
    ViewConsistencyLoss().count_pairs(depth, cameras, pairs)


@pytest.mark.parametrize("protocol", ["clean", "paper"])
def test_memory_does_not_grow_with_the_pairs(protocol):
    """Beside masks, gradient and single frames: five times the pairs need the same."""
    peaks = []
    for views in (6, 26):
        depth = torch.full((1, views, 96, 128), 2.0)
        cameras = intrinsics(100.0, 96, 128).expand(1, views, 3, 3)
        pairs = select_frame_pairs(torch.eye(4).expand(1, views, 4, 4), neighbor_range=1)
        prediction = depth.clone().requires_grad_()

        def compute(depth=depth, cameras=cameras, pairs=pairs, prediction=prediction):
            covisibility_mask(depth, cameras, pairs, protocol=protocol)
            return ViewConsistencyLoss()(prediction, cameras, pairs, depth)

        with _pixels_at_once(2 * 96 * 128):
            kept = depth.nbytes * 2 + len(pairs) * 96 * 128  # zero of the graph, gradient and masks
            peaks.append(measure_peak(compute) * 2**20 - kept)
    assert peaks[1] < 1.2 * peaks[0], peaks
