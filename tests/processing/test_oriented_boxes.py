"""Boxes turned about gravity: overlap by hand-computed values, and camera to world and back."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processing.boxes import box_iou
from processing.oriented_boxes import (
    CameraBox,
    box_in_camera,
    box_in_world,
    camera_corners,
    enclosing_boxes,
    oriented_iou,
)
from processing.rooms.scene.camera import look_at

UNIT = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]
# A camera at (1, 2, 1.5) that looks along the world's y: its right is the world's x, its down the world's -z.
AHEAD = np.array([[1, 0, 0, 1], [0, 0, 1, 2], [0, -1, 0, 1.5], [0, 0, 0, 1]], float)


def turned(yaw, *change):
    return [*(change or UNIT[:6]), yaw]


def pose_at(position, target, roll=0.0):
    return look_at(np.array([position], float), np.array([target], float), np.array([roll]))[0]


class TestOverlap:
    def test_by_hand(self):
        cases = {
            0.0: 1.0,
            math.pi / 2: 1.0,
            math.pi: 1.0,
            # The overlap is an octagon of area 2 (sqrt 2 - 1) = 0.8284; 0.8284 / (2 - 0.8284).
            math.pi / 4: 2 * (math.sqrt(2) - 1) / (2 - 2 * (math.sqrt(2) - 1)),
        }
        for yaw, expected in cases.items():
            assert oriented_iou([UNIT], [turned(yaw)])[0, 0] == pytest.approx(expected, abs=1e-12)

    def test_a_long_box_across_another(self):
        """A 4 x 1 box turned by a quarter: the overlap is the unit square, the union 4 + 4 - 1."""
        long = [0, 0, 0, 4, 1, 2]
        assert oriented_iou([turned(0, *long)], [turned(math.pi / 2, *long)])[0, 0] == pytest.approx(1 / 7)

    def test_heights_count(self):
        assert oriented_iou([UNIT], [[0, 0, 0.5, 1, 1, 1, math.pi / 2]])[0, 0] == pytest.approx(1 / 3)
        assert oriented_iou([UNIT], [[0, 0, 1, 1, 1, 1, 0]])[0, 0] == 0

    def test_one_inside_another(self):
        assert oriented_iou([turned(0.3, 0, 0, 0, 1, 1, 1)], [turned(0, 0, 0, 0, 4, 4, 4)])[0, 0] == pytest.approx(
            1 / 64
        )

    def test_apart_empty_and_flat(self):
        assert oriented_iou([UNIT], [turned(0.5, 3, 0, 0, 1, 1, 1)])[0, 0] == 0
        assert oriented_iou(np.zeros((0, 7)), [UNIT]).shape == (0, 1)
        assert oriented_iou([UNIT], []).shape == (1, 0)
        flat = turned(0, 0, 0, 0, 1, 1, 0)
        assert oriented_iou([flat], [flat])[0, 0] == 0

    def test_far_from_the_origin(self):
        """Nothing is lost where a world has its origin in another town."""
        far = [1e5, -2e5, 10, 0.1, 0.1, 0.1]
        assert oriented_iou([turned(0, *far)], [turned(math.pi / 4, *far)])[0, 0] == pytest.approx(
            math.sqrt(0.5), abs=1e-5
        )

    @settings(max_examples=50, derandomize=True, deadline=None)
    @given(st.data())
    def test_without_a_turn_it_is_the_axis_aligned_overlap(self, data):
        number = st.floats(-2, 2)
        boxes = [
            [*(data.draw(number) for _ in range(3)), *(data.draw(st.floats(0.1, 3)) for _ in range(3))]
            for _ in range(2)
        ]
        plain = box_iou([boxes[0]], [boxes[1]])[0, 0]
        yaw = data.draw(st.sampled_from([0.0, math.pi, -math.pi]))
        assert oriented_iou([[*boxes[0], yaw]], [[*boxes[1], 0]])[0, 0] == pytest.approx(plain, abs=1e-9)

    @settings(max_examples=50, derandomize=True, deadline=None)
    @given(st.lists(st.floats(-1, 1), min_size=8, max_size=8), st.floats(-4, 4), st.floats(-4, 4), st.floats(-9, 9))
    def test_a_turn_of_the_world_changes_nothing(self, numbers, yaw, other, turn):
        a = [*numbers[:3], *(0.6 + 0.5 * n for n in numbers[3:6]), yaw]
        b = [*numbers[5:8], 1.0, 0.7, 0.9, other]
        before = oriented_iou([a], [b])[0, 0]
        assert oriented_iou([b], [a])[0, 0] == pytest.approx(before, abs=1e-9)
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        moved = [[*(rotation @ box[:2]), *box[2:6], box[6] + turn] for box in (a, b)]
        assert oriented_iou([moved[0]], [moved[1]])[0, 0] == pytest.approx(before, abs=1e-9)

    def test_agrees_with_torchvision(self):
        torch = pytest.importorskip("torch")
        from torchvision.ops import box_iou as torchvision_iou

        rng = np.random.default_rng(0)
        flat = rng.uniform([-1, -1, 0.2, 0.2, -180], [1, 1, 2, 2, 180], (40, 5))
        try:
            # Its y points down, so that its angles are of the other sense.
            flipped = torch.from_numpy(flat * [1, -1, 1, 1, 1])
            theirs = torchvision_iou(flipped[:20], flipped[20:], fmt="cxcywhr").numpy()
        except (TypeError, ValueError):
            pytest.skip("this torchvision has no overlap of turned boxes")
        boxes = np.column_stack([flat[:, :2], np.zeros(40), flat[:, 2:4], np.ones(40), np.deg2rad(flat[:, 4])])
        np.testing.assert_allclose(oriented_iou(boxes[:20], boxes[20:]), theirs, atol=1e-5)

    def test_the_enclosing_box(self):
        side = math.sqrt(0.5)
        (box,) = enclosing_boxes([turned(math.pi / 4, 1, 2, 3, 1, 0, 5)])
        np.testing.assert_allclose(box, [1, 2, 3, side, side, 5], atol=1e-12)
        (box,) = enclosing_boxes([turned(math.pi / 2, 1, 2, 3, 4, 1, 5)])
        np.testing.assert_allclose(box, [1, 2, 3, 1, 4, 5], atol=1e-12)


class TestCamera:
    def test_by_hand(self):
        """2 m ahead, half a metre to the right, 0.3 m below the lens; wide across the picture."""
        box = CameraBox(3, (0.5, 0.3, 2.0), (1.2, 0.8, 0.4), 0.0)
        np.testing.assert_allclose(box_in_world(box, AHEAD), [1.5, 4.0, 1.2, 1.2, 0.4, 0.8, 0.0], atol=1e-12)

    def test_yaw_is_clockwise_from_above(self):
        """A box whose right end is nearer to the camera: clockwise, the world's other sense."""
        box = CameraBox(0, (0, 0, 2), (1, 1, 0.2), 0.3)
        assert box_in_world(box, AHEAD)[6] == pytest.approx(-0.3)
        right_end = np.array([math.cos(-0.3), math.sin(-0.3)])
        assert right_end[1] < 0  # towards the camera, which looks along y

    def test_a_quarter_turn_exchanges_width_and_depth(self):
        aside = pose_at([0, 0, 1], [5, 0, 1])  # looks along x
        box = box_in_camera([3, 0, 1, 0.4, 1.2, 0.8], aside, frame=2)
        assert box.frame == 2
        np.testing.assert_allclose(box.center, [0, 0, 3], atol=1e-9)
        np.testing.assert_allclose(box.size, [1.2, 0.8, 0.4], atol=1e-9)
        assert box.yaw == pytest.approx(0, abs=1e-9)

    def test_a_camera_that_looks_straight_down_has_a_heading(self):
        down = np.array([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2], [0, 0, 0, 1]], float)
        box = box_in_camera([0.5, 1, 0.4, 1, 2, 0.8, 0.2], down)
        np.testing.assert_allclose(box.center, [0.5, -1, 1.6], atol=1e-9)
        np.testing.assert_allclose(box.size, [1, 0.8, 2], atol=1e-9)
        assert box.yaw == pytest.approx(-0.2)

    @settings(max_examples=50, derandomize=True, deadline=None)
    @given(
        st.lists(st.floats(-3, 3), min_size=3, max_size=3),
        st.lists(st.floats(0.05, 3), min_size=3, max_size=3),
        st.floats(-7, 7),
        st.lists(st.floats(-3, 3), min_size=3, max_size=3),
        st.floats(-0.5, 0.5),
    )
    def test_there_and_back_is_the_same_box(self, center, size, yaw, position, roll):
        pose = pose_at(position, np.array(position) + [1.0, 0.7, -0.4], roll)
        given_box = np.array([*center, *size, yaw])
        box = box_in_camera(given_box, pose, 1)
        assert -math.pi / 4 - 1e-9 <= box.yaw < math.pi / 4 + 1e-9
        back = box_in_world(box, pose)
        np.testing.assert_allclose(back[[0, 1, 2, 5]], given_box[[0, 1, 2, 5]], atol=1e-9)
        assert oriented_iou([back], [given_box])[0, 0] == pytest.approx(1, abs=1e-6)
        again = box_in_camera(back, pose, 1)
        np.testing.assert_allclose(again.center, box.center, atol=1e-9)


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "error", "words"),
        [
            ((-1, (0, 0, 1), (1, 1, 1), 0), ValueError, "`frame` must be an integer of at least 0"),
            ((0.5, (0, 0, 1), (1, 1, 1), 0), TypeError, "`frame` must be an integer of at least 0"),
            ((True, (0, 0, 1), (1, 1, 1), 0), TypeError, "`frame` must be an integer of at least 0"),
            ((0, (0, 0), (1, 1, 1), 0), TypeError, "`center` must be three numbers"),
            ((0, (0, 0, math.nan), (1, 1, 1), 0), ValueError, "`center.2.` must be a finite number"),
            ((0, (0, 0, "1"), (1, 1, 1), 0), TypeError, "`center.2.` must be a finite number"),
            ((0, (0, 0, 1), (1, 0, 1), 0), ValueError, "`size` must be positive"),
            ((0, (0, 0, 1), (1, 1, 1), math.inf), ValueError, "`yaw` must be a finite number"),
            ((0, (0, 0, 1), (1, 1, 1), None), TypeError, "`yaw` must be a finite number"),
        ],
    )
    def test_boxes_in_frames(self, fields, error, words):
        with pytest.raises(error, match=words):
            CameraBox(*fields)

    def test_boxes_in_the_world(self):
        for wrong in ([UNIT[:6]], [[math.nan, *UNIT[1:]]], [["x"] * 7], [UNIT, [1]]):
            with pytest.raises(ValueError, match=r"`boxes_a` must be finite boxes \(N, 7\)"):
                oriented_iou(wrong, [UNIT])
        with pytest.raises(ValueError, match="negative size"):
            enclosing_boxes([[0, 0, 0, -1, 1, 1, 0]])

    def test_poses(self):
        box = CameraBox(0, (0, 0, 1), (1, 1, 1), 0)
        with pytest.raises(ValueError, match=r"`camera_to_world` must be the pose \(4, 4\)"):
            box_in_world(box, np.eye(3))
        with pytest.raises(ValueError, match="camera_to_world"):
            box_in_world(box, np.diag([2.0, 2, 2, 1]))
        sideways = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
        with pytest.raises(ValueError, match="stands on its side"):
            box_in_camera(UNIT, sideways)


class TestCorners:
    def test_they_are_those_of_the_box_in_the_world(self):
        pose = pose_at([1, 2, 1.7], [3, 5, 0.4], roll=0.1)
        center, size = np.array([3, 5, 0.5]), np.array([1.0, 2.0, 0.6])
        corners = camera_corners(box_in_camera([*center, *size, 0.0], pose), pose) @ pose[:3, :3].T + pose[:3, 3]
        expected = np.array([center + size * (np.array(sides) - 0.5) for sides in np.ndindex(2, 2, 2)])
        order = np.lexsort(corners.round(6).T), np.lexsort(expected.round(6).T)
        np.testing.assert_allclose(corners[order[0]], expected[order[1]], atol=1e-6)

    def test_without_a_pose_the_camera_stands_level(self):
        box = CameraBox(0, (0.3, -0.2, 2.0), (0.4, 0.8, 1.2), 0.5)
        np.testing.assert_allclose(camera_corners(box), camera_corners(box, AHEAD), atol=1e-12)
        assert np.ptp(camera_corners(box)[:, 1]) == pytest.approx(0.8)
