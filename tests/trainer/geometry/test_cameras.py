import math

import pytest
import torch
from analytic_scenes import BALL, RADIUS, WALL, camera_to_world, intrinsics, rays, render
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.geometry import project_points, relative_pose, scale_intrinsics, transform_points, unproject_depth

angles = st.floats(-1.0, 1.0)
metres = st.floats(-3.0, 3.0)
positions = st.tuples(metres, metres, metres)
few = settings(max_examples=25, derandomize=True, deadline=None)


def pixel_centres(height, width):
    v, u = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    return torch.stack((u, v), -1)


@few
@given(yaw=angles, pitch=angles, position=positions, focal=st.floats(20.0, 200.0), seed=st.integers(0, 1000))
def test_projecting_unprojected_pixels_is_the_identity(yaw, pitch, position, focal, seed):
    depth = 0.5 + 4 * torch.rand(2, 12, 16, generator=torch.Generator().manual_seed(seed))
    cameras = torch.stack((intrinsics(focal, 12, 16), intrinsics(focal * 1.5, 12, 16)))
    poses = torch.stack((camera_to_world(yaw, pitch, position), camera_to_world(pitch, yaw)))
    pixels, z = project_points(unproject_depth(depth, cameras, poses), cameras, poses)
    torch.testing.assert_close(pixels, pixel_centres(12, 16).expand_as(pixels), atol=2e-3, rtol=0)
    torch.testing.assert_close(z, depth, atol=1e-5, rtol=1e-5)


@few
@given(yaw=angles, pitch=angles, position=positions, move=positions, turn=angles)
def test_moving_the_world_leaves_the_relative_pose(yaw, pitch, position, move, turn):
    source, target = camera_to_world(yaw, pitch, position), camera_to_world(pitch, yaw, (0.3, -0.2, 0.1))
    motion = camera_to_world(turn, -turn, move)
    moved = relative_pose(motion @ source, motion @ target)
    torch.testing.assert_close(moved, relative_pose(source, target), atol=1e-5, rtol=1e-5)


@few
@given(scale_x=st.floats(0.1, 4.0), scale_y=st.floats(0.1, 4.0), seed=st.integers(0, 1000))
def test_scaling_the_intrinsics_scales_the_projected_pixels(scale_x, scale_y, seed):
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(seed)) + torch.tensor([-0.5, -0.5, 1.0])
    before, _ = project_points(points, intrinsics())
    after, _ = project_points(points, scale_intrinsics(intrinsics(), scale_x, scale_y))
    scale = torch.tensor([scale_x, scale_y])
    torch.testing.assert_close(after, (before + 0.5) * scale - 0.5, atol=1e-3, rtol=1e-5)


def test_relative_pose_moves_points_from_the_source_to_the_target_camera():
    source, target = camera_to_world(0.3, 0.1, (1.0, 0.2, 0.0)), camera_to_world(-0.2, 0.0, (0.0, 0.0, -0.5))
    points = torch.randn(7, 3)
    world = transform_points(source, points)
    torch.testing.assert_close(
        transform_points(target, transform_points(relative_pose(source, target), points)), world, atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(relative_pose(source, source), torch.eye(4), atol=1e-6, rtol=0)


def test_pixels_of_a_plane_unproject_onto_it():
    camera, pose = intrinsics(), camera_to_world(0.4, -0.2, (0.5, 0.1, 0.3))
    points = unproject_depth(render(camera, pose, with_ball=False), camera, pose)
    torch.testing.assert_close(points[..., 2], torch.full((48, 64), WALL), atol=1e-4, rtol=0)


def test_pixels_of_a_ball_unproject_onto_it():
    camera, pose = intrinsics(), camera_to_world(-0.1, 0.1, (0.2, 0.0, 0.1))
    depth = render(camera, pose)
    on_ball = depth < render(camera, pose, with_ball=False) - 1e-3
    assert on_ball.sum() > 100
    distance = (unproject_depth(depth, camera, pose)[on_ball] - torch.tensor(BALL)).norm(dim=-1)
    torch.testing.assert_close(distance, torch.full_like(distance, RADIUS), atol=1e-4, rtol=0)


def test_the_centre_pixel_looks_straight_ahead_and_z_is_not_the_ray_length():
    camera = intrinsics(focal=10.0, height=5, width=5)
    points = unproject_depth(torch.full((5, 5), 2.0), camera)
    assert points[2, 2].tolist() == [0.0, 0.0, 2.0]
    torch.testing.assert_close(points[2, 4], torch.tensor([0.4, 0.0, 2.0]))
    torch.testing.assert_close(rays(camera, torch.eye(4), 5, 5) * 2.0, points)


def test_pixels_without_depth_never_become_points():
    depth = torch.tensor([[0.0, 1.0]], requires_grad=True)
    points = unproject_depth(depth, intrinsics(), camera_to_world(position=(5.0, 0.0, 0.0)))
    assert points[0, 0].isnan().all() and points[0, 1].isfinite().all()
    points[0, 1].sum().backward()
    assert depth.grad.isfinite().all()
    paper = unproject_depth(depth, intrinsics(), camera_to_world(position=(5.0, 0.0, 0.0)), protocol="paper")
    assert paper[0, 0].tolist() == [5.0, 0.0, 0.0]  # The camera centre.


def test_points_behind_the_camera_have_no_pixel():
    points = torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], requires_grad=True)
    pixels, z = project_points(points, intrinsics())
    assert pixels[:2].isnan().all() and z.tolist() == [-1.0, 0.0, 1.0]
    pixels[2].sum().backward()
    assert points.grad.isfinite().all()


def test_gradients_of_the_way_there_and_back():
    camera = intrinsics(height=3, width=4).double()
    pose = camera_to_world(0.2, 0.1, (0.1, 0.2, 0.3)).double()
    depth = (1 + torch.rand(3, 4, dtype=torch.float64)).requires_grad_()
    other = camera_to_world(-0.1, 0.0, (0.0, 0.1, -0.5)).double()

    def there_and_back(d, p):
        return project_points(unproject_depth(d, camera, p), camera, other)

    assert torch.autograd.gradcheck(there_and_back, (depth, pose.requires_grad_()))


def test_results_are_float32_for_half_precision():
    points = unproject_depth(torch.ones(4, 4, dtype=torch.bfloat16), intrinsics())
    assert points.dtype == torch.float32


def test_a_resize_keeps_the_middle_of_the_image():
    camera = scale_intrinsics(intrinsics(height=48, width=64), 378 / 64, 378 / 48)
    torch.testing.assert_close(camera[:2, 2], torch.tensor([377 / 2, 377 / 2]))
    assert math.isclose(camera[1, 1].item(), 60 * 378 / 48, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: unproject_depth(torch.ones(2, 4, 4), intrinsics()), "share the leading axes"),
        (lambda: unproject_depth(torch.ones(4, 4), torch.eye(4)), "4x4"),
        (lambda: unproject_depth(torch.ones(4, 4), torch.zeros(3, 3)), "singular"),
        (lambda: unproject_depth(torch.ones(4, 4), intrinsics() * torch.nan), "NaN or Inf"),
        (lambda: unproject_depth(torch.ones(4, 4), intrinsics(), protocol="papers"), "protocol"),
        (lambda: project_points(torch.ones(2, 5, 3), intrinsics().expand(3, 3, 3)), "share the leading axes"),
        (lambda: project_points(torch.ones(5, 2), intrinsics()), "points"),
        (lambda: relative_pose(torch.eye(4)[:3], torch.eye(4)[:3]), "0 0 0 1"),
        (lambda: relative_pose(torch.eye(4), torch.eye(4).expand(2, 4, 4)), "same shape"),
        (lambda: scale_intrinsics(intrinsics(), 0.0), "positive"),
        (lambda: transform_points(torch.eye(3), torch.ones(3)), "4, 4"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
