"""Fields of view: windows by hand, and that a pixel of unified frames is one angle whatever the lens."""

import math

import numpy as np
import pytest

from processing.focal_length import FOCAL_SHARE, FocalWindow, intrinsics_of_view, unify_focal_length
from processing.geometry_rules import rescaled_intrinsics


def frames_of(height, width, count=2):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (count, height, width, 3), np.uint8)


class TestWindow:
    def test_by_hand(self):
        """90 degrees over 640 pixels: fx = 320. At a share of 0.5 the window is 640 wide and high: 80 rows beyond."""
        window = FocalWindow.of(intrinsics_of_view((480, 640), 90), (480, 640), 0.5)
        assert window == FocalWindow(-80, 0, 640, 640)

    def test_a_long_lens_is_padded_and_a_wide_one_is_cut(self):
        long = FocalWindow.of(intrinsics_of_view((100, 100), 40), (100, 100))
        wide = FocalWindow.of(intrinsics_of_view((100, 100), 100), (100, 100))
        assert long.width == round(50 / math.tan(math.radians(20)) / FOCAL_SHARE) > 100 and long.left < 0
        assert wide.width < 100 and wide.left > 0

    def test_what_it_shows_lies_where_it_lay(self):
        depth = np.arange(12, dtype=np.float32).reshape(1, 3, 4) + 1
        cut = FocalWindow(-1, 2, 3, 4).cut(depth)
        np.testing.assert_array_equal(cut[0], [[0, 0, 0, 0], [3, 4, 0, 0], [7, 8, 0, 0]])
        assert cut.dtype == np.float32
        assert not FocalWindow(10, 0, 2, 2).cut(depth).any()  # beyond the frame

    def test_the_camera_moves_along(self):
        """A point keeps its pixel, counted from the window's corner."""
        cameras = intrinsics_of_view((48, 64), 60, 2)
        window = FocalWindow(-8, 5, 40, 30)
        point = np.array([0.3, -0.2, 2.0])
        (u, v, z), (s, t, _) = cameras[1] @ point, window.move(cameras)[1] @ point
        assert (s / z, t / z) == pytest.approx((u / z - 5, v / z + 8), abs=1e-5)
        assert cameras[0, 0, 2] == 31.5  # the input is left alone


class TestUnify:
    @pytest.mark.parametrize("size", [(96, 128), (128, 96), (64, 64), (90, 160)])
    @pytest.mark.parametrize("degrees", [45, 68, 95])
    def test_any_lens_has_the_same_focal_length_in_the_vision_input(self, size, degrees):
        frames = frames_of(*size)
        cameras = intrinsics_of_view(size, degrees, 2)
        unified, moved = unify_focal_length(frames, cameras)
        scaled = rescaled_intrinsics(moved, unified.shape[1:3], (64, 64))[0]
        # The window has whole pixels: half a pixel of its width at most.
        tolerance = 0.5 / min(unified.shape[1:3]) + 1e-6
        assert scaled[0, 0] / 64 == pytest.approx(FOCAL_SHARE, rel=tolerance)
        assert scaled[1, 1] / 64 == pytest.approx(FOCAL_SHARE, rel=tolerance)
        assert scaled[0, 2] == pytest.approx(31.5, abs=64 * 0.51 / unified.shape[2])
        squashed = rescaled_intrinsics(cameras, size, (64, 64))[0]
        if degrees != 68:
            assert abs(squashed[0, 0] / 64 - FOCAL_SHARE) > 0.2

    def test_the_unified_lens_itself_is_left_as_it_is(self):
        degrees = 2 * math.degrees(math.atan(0.5 / FOCAL_SHARE))
        frames, cameras = frames_of(64, 64), intrinsics_of_view((64, 64), degrees, 2)
        unified, moved = unify_focal_length(frames, cameras)
        np.testing.assert_array_equal(unified, frames)
        np.testing.assert_array_equal(moved, cameras)

    def test_padding_is_grey(self):
        unified, _ = unify_focal_length(frames_of(64, 64), intrinsics_of_view((64, 64), 40, 2))
        assert set(unified[:, 0].ravel()) == {127}


class TestRefused:
    def test_frames(self):
        cameras = intrinsics_of_view((48, 64), 60, 2)
        for wrong in (None, frames_of(48, 64).tolist(), frames_of(48, 64) / 255):
            with pytest.raises(TypeError, match="`frames` must be an array of uint8"):
                unify_focal_length(wrong, cameras)
        for wrong in (frames_of(48, 64)[0], frames_of(48, 64)[..., :1], frames_of(48, 64)[:0]):
            with pytest.raises(ValueError, match="`frames` must have shape"):
                unify_focal_length(wrong, cameras)
        with pytest.raises(ValueError, match="intrinsics"):
            unify_focal_length(frames_of(48, 64, 3), cameras)

    def test_lenses(self):
        cameras = intrinsics_of_view((48, 64), 60, 2)
        with pytest.raises(ValueError, match="must be of one lens"):
            FocalWindow.of(np.concatenate([cameras, intrinsics_of_view((48, 64), 62)]), (48, 64))
        with pytest.raises(ValueError, match="intrinsics"):
            FocalWindow.of(cameras / 64, (48, 64))
        with pytest.raises(ValueError, match="larger than 16 frames"):
            FocalWindow.of(intrinsics_of_view((48, 64), 8), (48, 64))
        with pytest.raises(ValueError, match="below a pixel"):
            FocalWindow.of(cameras, (48, 64), 1e6)
        for share, error in ((0, ValueError), (math.nan, ValueError), (True, TypeError), ("1", TypeError)):
            with pytest.raises(error, match="`focal_share` must be"):
                FocalWindow.of(cameras, (48, 64), share)

    def test_angles(self):
        for degrees, error in ((0, ValueError), (180, ValueError), (math.nan, ValueError), ("68", TypeError)):
            with pytest.raises(error, match="`degrees` must be"):
                intrinsics_of_view((48, 64), degrees)
        with pytest.raises(ValueError, match="`frame_size` must be"):
            intrinsics_of_view((48,), 60)
