import math

import pytest
import torch

from trainer.geometry import relative_pose
from trainer.losses import RelativePoseLoss
from trainer.losses.relative_pose import measure_pose_errors, rotation_from_columns

STILL = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def turn(degrees, shift=(0.0, 0.0, 0.0)):
    """Motion about the vertical axis, then a shift in metres."""
    angle = math.radians(degrees)
    motion = torch.eye(4)
    motion[0, 0] = motion[2, 2] = math.cos(angle)
    motion[0, 2], motion[2, 0] = math.sin(angle), -math.sin(angle)
    motion[:3, 3] = torch.tensor(shift)
    return motion


def as_numbers(motion, mean_depth):
    return torch.cat([motion[:3, 3] / mean_depth, motion[:3, 0], motion[:3, 1]])


class TestLoss:
    def test_zero_at_the_answer(self):
        poses = torch.stack([turn(30, (0.4, 0.0, 1.0)), turn(-100, (2.0, -1.0, 0.0))])
        depth = torch.tensor([2.0, 4.0])
        predicted = torch.stack([as_numbers(pose, scale) for pose, scale in zip(poses, depth, strict=True)])
        assert RelativePoseLoss()(predicted, poses, depth).item() == pytest.approx(0.0, abs=1e-7)

    def test_hand_values(self):
        """Residuals 0.05 (below delta) and 1 (above it): 0.05^2 / 2, and 0.1 (1 - 0.05)."""
        near, far = torch.tensor([STILL]), torch.tensor([STILL])
        near[0, 0] += 0.05
        far[0, 2] += 1.0
        pose, depth = turn(0, (0.0, 0.0, 0.0))[None], torch.tensor([3.0])
        assert RelativePoseLoss()(near, pose, depth).item() == pytest.approx(0.00125 / 3)
        assert RelativePoseLoss()(far, pose, depth).item() == pytest.approx(0.095 / 3)
        # A quarter turn: first column (0, 0, -1) for (1, 0, 0), so two of six numbers are off by 1; 1.5 m are half of
        # the mean depth.
        quarter = turn(90, (1.5, 0.0, 0.0))[None]
        expected = (0.1 * (0.5 - 0.05)) / 3 + 2 * 0.095 / 6
        assert RelativePoseLoss()(torch.tensor([STILL]), quarter, depth).item() == pytest.approx(expected)

    def test_pairs_count_by_their_weight(self):
        pose, depth = torch.eye(4).repeat(2, 1, 1), torch.ones(2)
        predicted = torch.tensor([STILL, STILL])
        predicted[0, 1] += 1.0
        loss = RelativePoseLoss()
        assert loss(predicted, pose, depth).item() == pytest.approx(0.095 / 6)
        assert loss(predicted, pose, depth, torch.tensor([3.0, 1.0])).item() == pytest.approx(0.75 * 0.095 / 3)

    def test_the_size_of_a_scene_does_not_matter(self):
        predicted = torch.randn(1, 9, generator=torch.Generator().manual_seed(0))
        small, large = turn(20, (0.3, 0.1, 0.2)), turn(20, (3.0, 1.0, 2.0))
        losses = [
            RelativePoseLoss()(predicted, pose[None], torch.tensor([depth])).item()
            for pose, depth in ((small, 1.0), (large, 10.0))
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    def test_another_world_is_the_same_pose(self):
        """A pose is relative: the world that both cameras are given in does not show."""
        first, second, world = turn(10, (1.0, 0.0, 0.0)), turn(50, (0.0, 0.5, 2.0)), turn(-70, (4.0, 5.0, 6.0))
        poses = torch.stack([relative_pose(second, first), relative_pose(world @ second, world @ first)])
        predicted = torch.stack([as_numbers(pose, 2.0) for pose in poses])
        torch.testing.assert_close(predicted[0], predicted[1], atol=1e-5, rtol=1e-5)

    def test_gradients_and_nothing_to_compare(self):
        predicted = torch.zeros(2, 9, requires_grad=True)
        RelativePoseLoss()(predicted, torch.eye(4).repeat(2, 1, 1), torch.ones(2), torch.tensor([1.0, 0.0])).backward()
        assert predicted.grad[0].any() and not predicted.grad[1].any()
        empty = torch.zeros(0, 9, requires_grad=True)
        loss = RelativePoseLoss()(empty, torch.zeros(0, 4, 4), torch.zeros(0))
        loss.backward()
        assert loss.item() == 0 and empty.grad.shape == (0, 9)

    def test_half_precision_is_computed_in_float32(self):
        predicted = torch.randn(3, 9).bfloat16()
        poses, depth = torch.stack([turn(10), turn(20), turn(30)]), torch.ones(3)
        assert torch.equal(
            RelativePoseLoss()(predicted, poses, depth), RelativePoseLoss()(predicted.float(), poses, depth)
        )

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ((torch.zeros(1, 8), torch.eye(4)[None], torch.ones(1)), r"\(N, 9\)"),
            ((torch.zeros(2, 9), torch.eye(4)[None], torch.ones(2)), r"\(N, 4, 4\)"),
            ((torch.zeros(1, 9), torch.eye(4)[None], torch.zeros(1)), "`mean_depth` must be positive"),
            ((torch.zeros(1, 9), torch.eye(4)[None], torch.ones(2)), "`mean_depth`"),
            ((torch.zeros(1, 9), torch.eye(4)[None], torch.ones(1), torch.ones(2)), "`weight` must have shape"),
        ],
    )
    def test_wrong_shapes(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            RelativePoseLoss()(*arguments)

    def test_settings_and_citation(self):
        with pytest.raises(ValueError, match="`delta`"):
            RelativePoseLoss(delta=0.0)
        assert "2606.05833" in RelativePoseLoss().citation and "zhou2019" in RelativePoseLoss().citation


class TestRotation:
    def test_hand_values(self):
        """(2, 0, 0) and (1, 3, 0) span the axes; what is along the first column is taken away."""
        torch.testing.assert_close(rotation_from_columns(torch.tensor([2.0, 0, 0, 1.0, 3.0, 0])), torch.eye(3))

    def test_it_is_a_rotation_and_keeps_rotations(self):
        numbers = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
        rotations = rotation_from_columns(numbers)
        torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(20, 3, 3), atol=1e-5, rtol=0)
        assert (torch.linalg.det(rotations) > 0.99).all()
        again = rotation_from_columns(rotations[:, :, :2].transpose(1, 2).flatten(1))
        torch.testing.assert_close(again, rotations, atol=1e-5, rtol=0)


class TestErrors:
    @pytest.mark.parametrize("degrees", [0.0, 0.01, 30.0, 90.0, 180.0])
    def test_degrees_and_percent(self, degrees):
        pose, depth = turn(degrees, (1.0, 0.0, 0.0))[None], torch.tensor([4.0])
        angle, percent = measure_pose_errors(torch.tensor([STILL]), pose, depth)
        assert angle.item() == pytest.approx(degrees, rel=1e-2, abs=1e-3)
        assert percent.item() == pytest.approx(25.0)
