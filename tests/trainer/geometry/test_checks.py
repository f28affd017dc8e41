import pytest
import torch
from analytic_scenes import camera_to_world, intrinsics

from trainer.geometry import check_camera_to_world, check_depth, check_intrinsics


def test_good_cameras_and_depth_pass():
    check_camera_to_world(camera_to_world(0.5, -0.3, (1.0, 2.0, 3.0)).expand(2, 3, 4, 4))
    check_intrinsics(intrinsics().expand(2, 3, 3, 3))
    check_depth(torch.tensor([[0.0, 1.0, 8.0]]))


def changed(row, column, value, count=3):
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[1, row, column] = value
    return poses


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        (changed(0, 3, torch.inf), r"NaN or Inf at index \[\(1,\)\], 1 of 3"),
        (changed(0, 0, torch.nan), "NaN or Inf"),
        (changed(0, 0, 1000.0), "not a rigid motion"),
        (changed(0, 0, -1.0), "smallest det R = -1"),
        (changed(3, 0, 5.0), "last row 0 0 0 1"),
        (torch.eye(3), r"must have shape \(..., 4, 4\), got \(3, 3\)"),
    ],
)
def test_bad_poses_are_named(poses, message):
    with pytest.raises(ValueError, match=message):
        check_camera_to_world(poses)


def test_poses_with_rounding_of_text_files_pass():
    check_camera_to_world((camera_to_world(0.7, 0.2, (3.0, 1.0, 0.0)) * 1e4).round() / 1e4)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.zeros(3, 3), "singular"),
        (torch.eye(4), "4x4"),
        (intrinsics() * torch.inf, "NaN or Inf"),
        (intrinsics().T, "not a pinhole camera"),
        (intrinsics() * -1, "singular"),
    ],
)
def test_bad_intrinsics_are_named(matrix, message):
    with pytest.raises(ValueError, match=message):
        check_intrinsics(matrix)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (torch.tensor([1.0, torch.nan]), "1 values that are NaN or Inf"),
        (torch.tensor([1.0, torch.inf]), "NaN or Inf"),
        (torch.tensor([1.0, -0.5]), "1 negative values, lowest -0.5"),
        (torch.tensor([0.0, 1500.0, 2500.0]), "Millimetres"),
    ],
)
def test_bad_depth_is_named(depth, message):
    with pytest.raises(ValueError, match=message):
        check_depth(depth)


def test_depth_without_measurement_passes():
    check_depth(torch.zeros(3, 3))
