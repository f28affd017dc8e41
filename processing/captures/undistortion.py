"""Pictures of lenses with distortion, as a pinhole camera of the same numbers would have taken them.

A pixel of the pinhole picture has a ray; the lens says where that ray fell, and the stored picture is read there.
Rays and their z-depth stay what they are, so depth is moved alike, by the nearest pixel. Pixels whose ray left the
stored picture are black, and have no depth.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from processing.geometry_rules import rescaled_intrinsics

__all__ = ["Undistorter", "fisheye_lens", "radial_tangential_lens"]

Lens = Callable[[np.ndarray], np.ndarray]  # Points (n, 2) of the plane z = 1, to points of the distorted plane.


def radial_tangential_lens(radial: Sequence[float], tangential: Sequence[float] = (0.0, 0.0)) -> Lens:
    """Return the lens of OpenCV's plain model.

    Source: OpenCV, "Camera Calibration and 3D Reconstruction".

    Args:
        radial: Coefficients of r^2, r^4 and so on.
        tangential: Coefficients p1 and p2.
    """
    p1, p2 = tangential

    def distort(points: np.ndarray) -> np.ndarray:
        x, y = points.T
        squared = x * x + y * y
        factor = np.polynomial.polynomial.polyval(squared, [1.0, *radial])
        return np.stack(
            [
                x * factor + 2 * p1 * x * y + p2 * (squared + 2 * x * x),
                y * factor + 2 * p2 * x * y + p1 * (squared + 2 * y * y),
            ],
            axis=1,
        )

    return distort


def fisheye_lens(coefficients: Sequence[float]) -> Lens:
    """Return the lens of OpenCV's fisheye model, Kannala and Brandt's.

    Args:
        coefficients: Coefficients of the third, fifth and further odd powers of the angle to the axis.
    """

    def distort(points: np.ndarray) -> np.ndarray:
        radius = np.linalg.norm(points, axis=1)
        angle = np.arctan(radius)
        bent = angle * np.polynomial.polynomial.polyval(angle**2, [1.0, *coefficients])
        return points * np.where(radius > 0, bent / np.where(radius > 0, radius, 1), 1.0)[:, None]

    return distort


class Undistorter:
    """Pictures and depth of one lens, moved to a pinhole camera.

    Args:
        lens: Function from points (n, 2) of the plane z = 1 to points of the distorted plane.
        intrinsics: Camera (3, 3), of the stored pictures and of the pinhole pictures alike.
        size: Height and width of the pictures whose pixels `intrinsics` count.
    """

    def __init__(self, lens: Lens, intrinsics: np.ndarray, size: tuple[int, int]):
        self.lens, self.intrinsics, self.size = lens, np.asarray(intrinsics, np.float64), size
        self._map = lru_cache(maxsize=2)(self._build_map)

    def _build_map(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return column and row (h, w) float32 of the stored picture for each pinhole pixel."""
        camera = rescaled_intrinsics(self.intrinsics, self.size, size)
        focal, centre = camera[[0, 1], [0, 1]], camera[:2, 2]
        v, u = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
        fallen = self.lens((np.stack([u.ravel(), v.ravel()], 1) - centre) / focal) * focal + centre
        return tuple(axis.reshape(size).astype(np.float32) for axis in fallen.T)

    def move_picture(self, picture: np.ndarray) -> np.ndarray:
        """Return a picture (h, w, 3) uint8, sampled bilinearly."""
        height, width = picture.shape[:2]
        u, v = self._map((height, width))
        is_inside = (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
        u, v = np.where(is_inside, u, 0).clip(0, width - 1), np.where(is_inside, v, 0).clip(0, height - 1)
        left, top = np.floor(u).astype(np.intp), np.floor(v).astype(np.intp)
        right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
        across, down = (u - left)[..., None], (v - top)[..., None]
        upper = picture[top, left] * (1 - across) + picture[top, right] * across
        lower = picture[bottom, left] * (1 - across) + picture[bottom, right] * across
        return np.where(is_inside[..., None], np.rint(upper * (1 - down) + lower * down), 0).astype(np.uint8)

    def move_depth(self, depth: np.ndarray) -> np.ndarray:
        """Return z-depth (h, w), sampled at the nearest pixel."""
        height, width = depth.shape
        u, v = (np.rint(axis) for axis in self._map((height, width)))
        is_inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        u, v = (np.where(is_inside, axis, 0).astype(np.intp) for axis in (u, v))
        return np.where(is_inside, depth[v, u], 0).astype(np.float32)
