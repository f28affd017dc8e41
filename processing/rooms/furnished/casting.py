"""First hits of triangles: by Embree where `embreex` is installed, else by a z-buffer in numpy.

Directions of rays have camera z = 1, as in `render.raycast`, so the distance along a ray is its z-depth in metres.
Triangles have no back: both sides are hit.
"""

from functools import cached_property

import numpy as np

from processing.argument_rules import check_choice
from processing.rooms.render.raycast import NEAR, View

__all__ = ["ENGINES", "TriangleCaster", "default_engine"]

ENGINES = ("embree", "zbuffer")
_BLOCK = 1 << 20  # pairs of pixel and triangle that are tried at once
_EDGE = np.float32(1e-6)  # of a triangle's width: rays along an edge between two triangles hit one of them


def default_engine() -> str:
    """Return "embree" where `embreex` is installed, else "zbuffer"."""
    try:
        import embreex  # noqa: F401
    except ImportError:
        return "zbuffer"
    return "embree"


class TriangleCaster:
    """Caster of rays against triangles.

    Args:
        corners: World corners of t triangles, (t, 3, 3), metres.
        engine: "embree" or "zbuffer". Default: Embree where `embreex` is installed.

    Raises:
        ValueError: The engine is unknown.
        ImportError: Embree is asked for and `embreex` is not installed.
    """

    def __init__(self, corners: np.ndarray, engine: str | None = None):
        self.corners = np.ascontiguousarray(corners, np.float32)
        self.engine = default_engine() if engine is None else engine
        check_choice(self.engine, ENGINES, "engine")

    @cached_property
    def _scene(self):
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ImportError as error:
            raise ImportError("the engine 'embree' needs embreex: pip install 'ide3d[furniture]'.") from error
        scene = EmbreeScene()
        TriangleMesh(scene, self.corners)
        return scene

    def cast(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Cast all pixels: z-depth (h, w) float32, inf where nothing is hit, and triangle (h, w) int32, else -1."""
        depth, triangle = self.cast_shifted(view, np.zeros((1, 2)))
        return depth[0], triangle[0]

    def cast_shifted(
        self, view: View, shifts: np.ndarray, pixels: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cast several rays for each pixel.

        Args:
            view: Camera.
            shifts: Shifts of the rays from the pixel's centre, (s, 2), tangents in x and y.
            pixels: Flat numbers of the pixels wanted, (n,). Default: all, as a picture.

        Returns:
            Depth (s, h, w) or (s, n) float32, and triangle of the same shape, int32.
        """
        h, w = len(view.tan_y), len(view.tan_x)
        if not len(self.corners):
            shape = (len(shifts), h, w) if pixels is None else (len(shifts), len(pixels))
            return np.full(shape, np.inf, np.float32), np.full(shape, -1, np.int32)
        if self.engine == "embree":
            return self._by_embree(view, shifts, pixels)
        depth, triangle = self._by_zbuffer(view, shifts)
        if pixels is None:
            return depth, triangle
        return depth.reshape(len(shifts), -1)[:, pixels], triangle.reshape(len(shifts), -1)[:, pixels]

    def _by_embree(self, view: View, shifts, pixels) -> tuple[np.ndarray, np.ndarray]:
        tan_y, tan_x = np.meshgrid(view.tan_y, view.tan_x, indexing="ij")
        chosen = slice(None) if pixels is None else pixels
        x, y = (
            tan.ravel()[chosen] + shift[:, None]
            for tan, shift in zip((tan_x, tan_y), np.transpose(shifts), strict=True)
        )
        rays = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3) @ view.rotation.T
        origins = view.position + NEAR * rays
        hits = self._scene.run(
            np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(rays, np.float32), output=True
        )
        shape = x.shape if pixels is not None else (len(shifts), *tan_x.shape)
        triangle = hits["primID"].astype(np.int32).reshape(shape)
        return np.where(triangle >= 0, hits["tfar"].reshape(shape) + np.float32(NEAR), np.float32(np.inf)), triangle

    def _by_zbuffer(self, view: View, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        local = (self.corners.reshape(-1, 3) - view.position.astype(np.float32)) @ view.rotation.astype(np.float32)
        local = local.reshape(-1, 3, 3)
        seen = np.flatnonzero((local[..., 2] > NEAR).any(axis=1))
        local = local[seen]
        up, low, left, right = _rectangles(local, view, np.abs(shifts).max(axis=0))
        hit = (low > up) & (right > left)
        seen, local = seen[hit], local[hit].astype(np.float64)
        up, low, left, right = (side[hit] for side in (up, low, left, right))
        # A ray d meets triangle (a, b, c) at det(a, b, c) / sum(w), where w = (b x c, c x a, a x b) d are its shares.
        sides = np.stack([np.cross(local[:, (i + 1) % 3], local[:, (i + 2) % 3]) for i in range(3)], axis=1)
        volume = np.einsum("tk,tk->t", local[:, 0], sides[:, 0])
        sides *= np.sign(volume)[:, None, None]
        sides = sides.astype(np.float32)
        volume = np.abs(volume).astype(np.float32)
        h, w = len(view.tan_y), len(view.tan_x)
        depth = np.full((len(shifts), h * w), np.inf, np.float32)
        triangle = np.full((len(shifts), h * w), -1, np.int32)
        tan_x, tan_y = view.tan_x.astype(np.float32), view.tan_y.astype(np.float32)
        for index, row, column in _pairs(up, low, left, right):
            normal, size = sides[index], volume[index]
            flat = row * w + column
            for number, (dx, dy) in enumerate(shifts.astype(np.float32)):
                x, y = tan_x[column] + dx, tan_y[row] + dy
                shares = normal[..., 0] * x[:, None] + normal[..., 1] * y[:, None] + normal[..., 2]
                total = shares.sum(axis=1)
                inside = (shares.min(axis=1) >= -_EDGE * total) & (total > 0)
                at, z, which = flat[inside], size[inside] / total[inside], seen[index[inside]]
                ok = z > NEAR
                at, z, which = at[ok], z[ok], which[ok]
                np.minimum.at(depth[number], at, z)
                nearest = depth[number, at] == z
                triangle[number, at[nearest]] = which[nearest]
        return depth.reshape(-1, h, w), triangle.reshape(-1, h, w)


def _rectangles(local: np.ndarray, view: View, margin: np.ndarray):
    """Return the pixels (first row, end row, first column, end column) that camera-frame triangles may cover."""
    z = local[..., 2]
    is_front = z > NEAR
    points, valid = [local], [is_front]
    cut = np.flatnonzero(~is_front.all(axis=1))
    if len(cut):  # where an edge passes through the plane in front of the camera
        crossing, crosses = np.zeros_like(local), np.zeros_like(is_front)
        for i, j in ((0, 1), (1, 2), (2, 0)):
            a, b = local[cut, i], local[cut, j]
            apart = is_front[cut, i] != is_front[cut, j]
            part = (NEAR - a[:, 2]) / np.where(apart, b[:, 2] - a[:, 2], 1)
            crossing[cut, i], crosses[cut, i] = a + part[:, None] * (b - a), apart
        points.append(crossing)
        valid.append(crosses)
    points, valid = np.concatenate(points, axis=1), np.concatenate(valid, axis=1)
    depth = np.where(valid, points[..., 2], 1)
    sides = []
    for axis, tan in ((1, view.tan_y), (0, view.tan_x)):
        at = points[..., axis] / depth
        first = np.where(valid, at, np.inf).min(axis=1) - margin[axis]
        last = np.where(valid, at, -np.inf).max(axis=1) + margin[axis]
        sides += [np.searchsorted(tan, first), np.searchsorted(tan, last, side="right")]
    return sides


def _pairs(up, low, left, right):
    """Yield triangle, row and column of all pixels of rectangles, a bounded number at once."""
    width, count = right - left, (low - up) * (right - left)
    ends = np.cumsum(count)
    start = 0
    while start < len(count):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK, side="right")))
        index = np.repeat(np.arange(start, stop), count[start:stop])
        within = np.arange(len(index)) - np.repeat(ends[start:stop] - count[start:stop] - before, count[start:stop])
        yield index, up[index] + within // width[index], left[index] + within % width[index]
        start = stop
