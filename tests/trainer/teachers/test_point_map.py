"""The analytic teacher: one place has one feature, whichever camera sees it, or what its own frame can know."""

import math

import pytest
import torch
from analytic_scenes import camera_to_world, intrinsics, render

from processing.token_grid import TokenGrid
from trainer.geometry import scale_intrinsics
from trainer.losses import FeatureDistillationLoss
from trainer.teachers import PointMapTeacher

GRID = TokenGrid(72, 14, 2)  # 3 x 3 tokens on the first 70 pixels


def scene(*poses, with_ball=False):
    camera = intrinsics(height=72, width=72)
    depth = torch.stack([render(camera, pose, height=72, width=72, with_ball=with_ball) for pose in poses])
    return {
        "depth": depth,
        "intrinsics": camera.expand(len(poses), 3, 3),
        "camera_to_world": torch.stack(poses),
    }


def compute(geometry, **kwargs):
    return PointMapTeacher(**kwargs).compute_features(None, geometry, GRID)


def test_shape_and_range():
    features = compute(scene(camera_to_world(), camera_to_world(yaw=0.1), camera_to_world(yaw=0.2)))
    assert features.shape == (3, 3, 3, PointMapTeacher().feature_size) and features.dtype == torch.float32
    assert features.abs().max() <= 1 and not features.requires_grad


def test_a_wall_has_the_waves_of_its_distance():
    """The wall stands 3 m ahead everywhere: its z wave is sin and cos of 2 pi 3 m / wavelength."""
    features = compute(scene(camera_to_world()), wavelengths=(8.0,))[0]
    angle = 2 * math.pi * 3.0 / 8.0
    sin_z, cos_z = features[..., 4], features[..., 5]  # sine and cosine of x, y, z in turn
    torch.testing.assert_close(sin_z, torch.full((3, 3), math.sin(angle)))
    torch.testing.assert_close(cos_z, torch.full((3, 3), math.cos(angle)))
    assert (features[:, 0, 0] < features[:, 1, 0]).all() and (features[:, 1, 0] < features[:, 2, 0]).all()


def test_a_surface_looks_alike_from_elsewhere():
    """Two cameras 0.9 m apart: the part of the wall in their common token has nearly one feature."""
    token = 70 / 3 / 60 * 3.0  # metres of the wall that a token shows at 3 m and a focal length of 60 px
    features = compute(scene(camera_to_world(), camera_to_world(position=(token, 0.0, 0.0))))
    torch.testing.assert_close(features[0, :, 1:], features[1, :, :2], atol=0.05, rtol=0)
    loss = FeatureDistillationLoss()
    same, other = loss(features[0, :, 1:], features[1, :, :2]), loss(features[0], features[1])
    assert same < 0.05 * other


def test_the_world_frame_does_not_matter():
    """Features are told in the frame of the first camera."""
    poses = [camera_to_world(), camera_to_world(yaw=0.2, position=(0.2, 0.1, 0.0))]
    geometry = scene(*poses, with_ball=True)
    motion = camera_to_world(yaw=1.0, pitch=0.4, position=(3.0, -2.0, 1.0))
    moved = {**geometry, "camera_to_world": motion @ geometry["camera_to_world"]}
    torch.testing.assert_close(compute(geometry), compute(moved), atol=1e-4, rtol=0)


def test_in_its_own_camera_a_frame_does_not_tell_where_the_first_one_was():
    """What a student that sees one frame at a time can know: each frame has what it has as a video of its own."""
    poses = [camera_to_world(), camera_to_world(yaw=0.2, position=(0.2, 0.1, 0.0))]
    geometry = scene(*poses, with_ball=True)
    together = compute({key: geometry[key] for key in ("depth", "intrinsics")}, camera="own")  # poses are not needed
    for view, pose in enumerate(poses):
        torch.testing.assert_close(together[view : view + 1], compute(scene(pose, with_ball=True)), atol=1e-5, rtol=0)
    assert not torch.allclose(together[1], compute(geometry)[1], atol=0.05)


def test_features_do_not_depend_on_the_resolution_of_the_depth():
    fine = intrinsics(focal=120.0, height=144, width=144)
    pose = camera_to_world(yaw=0.1)
    depth = render(fine, pose, height=144, width=144)[None, 1::2, 1::2]
    coarse = scale_intrinsics(fine, 0.5)
    features = compute({"depth": depth, "intrinsics": coarse[None], "camera_to_world": pose[None]})
    camera = {"depth": render(coarse, pose, height=72, width=72)[None], "intrinsics": coarse[None]}
    torch.testing.assert_close(features, compute({**camera, "camera_to_world": pose[None]}), atol=0.05, rtol=0)


def test_tokens_without_a_measurement_are_zero_and_holes_do_not_dim_the_rest():
    geometry = scene(camera_to_world())
    whole = compute(geometry)
    depth = geometry["depth"].clone()
    depth[:, :24, :24] = 0  # the whole first token
    depth[:, 48:, ::2] = 0  # half of the last row of tokens
    features = compute({**geometry, "depth": depth})
    assert not features[0, 0, 0].any()
    # Neighbouring tokens share the one pixel that their border cuts.
    torch.testing.assert_close(features[0, 1, 1], whole[0, 1, 1], atol=0.005, rtol=0)
    torch.testing.assert_close(features[0, 2], whole[0, 2], atol=0.1, rtol=0)


def test_a_token_averages_only_what_the_tower_sees():
    """The last two of 72 pixels belong to no patch."""
    geometry = scene(camera_to_world())
    depth = geometry["depth"].clone()
    depth[:, 70:], depth[:, :, 70:] = 50.0, 50.0
    assert torch.equal(compute({**geometry, "depth": depth}), compute(geometry))


def test_without_geometry_there_is_nothing_to_teach():
    assert compute(None) is None


def test_a_model_card_can_name_it():
    teacher = PointMapTeacher(wavelengths=(4.0, 2.0))
    assert teacher.name and teacher.licence == "Apache-2.0" and teacher.feature_size == 12
    assert teacher.version != PointMapTeacher(wavelengths=(4.0, 2.0), camera="own").version


@pytest.mark.parametrize("wavelengths", [(), (0.0,), (-1.0, 2.0)])
def test_wavelengths_are_lengths(wavelengths):
    with pytest.raises(ValueError, match="wavelengths"):
        PointMapTeacher(wavelengths=wavelengths)


def test_cameras_are_known():
    with pytest.raises(ValueError, match="'first', 'own'.*'last'"):
        PointMapTeacher(camera="last")
