"""Ray casting of unit shapes: first hits of a pinhole view, or of loose rays.

Ray directions have camera z = 1, so the ray parameter of a hit is its z-depth in metres.
"""

from dataclasses import dataclass

import numpy as np

from processing.rooms.scene.primitives import BOX, CYLINDER, PrimitiveTable

__all__ = ["NEAR", "View", "cast_loose", "cast_view", "intersect"]

NEAR = 0.02  # metres; nothing is ever this close to a camera, see camera.py
_TINY = np.float32(1e-12)  # keeps rays along a face from dividing by zero


@dataclass(frozen=True)
class View:
    """A pinhole view whose columns and rows may be spaced unevenly (the shadow map is).

    Shape:
        rotation (3, 3), position (3,): camera to world, OpenCV axes, metres.
        tan_x (w,), tan_y (h,): tangents of the rays through pixel centres, increasing.
    """

    rotation: np.ndarray
    position: np.ndarray
    tan_x: np.ndarray
    tan_y: np.ndarray

    def ray_basis(self, table: PrimitiveTable) -> tuple[np.ndarray, np.ndarray]:
        """Return camera position (n, 3) and axes (n, 3, 3) in the unit frame of every solid.

        The axes are indexed by unit axis, then camera axis.
        """
        origin = np.einsum("nij,nj->ni", table.unit_from_world, self.position - table.center)
        return origin.astype(np.float32), (table.unit_from_world @ self.rotation).astype(np.float32)

    def rectangles(self, table: PrimitiveTable) -> np.ndarray:
        """Return each solid's pixel rectangle (row from, to, column from, to), empty if unseen."""
        local = (table.corners - self.position) @ self.rotation
        z = local[..., 2]
        in_front = z > NEAR
        with np.errstate(divide="ignore", invalid="ignore"):
            x, y = local[..., 0] / z, local[..., 1] / z
        left = np.searchsorted(self.tan_x, x.min(axis=1))
        right = np.searchsorted(self.tan_x, x.max(axis=1), side="right")
        upper = np.searchsorted(self.tan_y, y.min(axis=1))
        lower = np.searchsorted(self.tan_y, y.max(axis=1), side="right")
        result = np.stack([upper, lower, left, right], axis=1)
        result[~in_front.all(axis=1)] = (0, len(self.tan_y), 0, len(self.tan_x))
        result[~in_front.any(axis=1)] = 0
        return result


def _box_entry(origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    inverse = 1.0 / (direction + _TINY)
    middle = origin * inverse
    np.abs(inverse, out=inverse)
    enter = np.maximum.reduce(-middle - inverse, axis=0)
    leave = np.minimum.reduce(inverse - middle, axis=0)
    enter[enter > leave] = np.inf
    return enter


def _ball_entry(origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    x, y, z = direction
    a = x * x + y * y + z * z
    b = (direction * origin).sum(axis=0)
    c = (origin**2).sum() - 1.0
    inside = b * b - a * c
    return np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)


def _cylinder_entry(origin: np.ndarray, direction: np.ndarray, bottom: float, top: float) -> np.ndarray:
    x, y, z = direction
    ox, oy, oz = origin.ravel()
    middle, slope = (bottom + top) / 2, (top - bottom) / 2
    radius = middle + slope * oz
    a = x * x + y * y - (slope * slope) * z * z
    b = ox * x + oy * y - (slope * radius) * z
    c = ox * ox + oy * oy - radius * radius
    inside = b * b - a * c
    root = np.sqrt(np.maximum(inside, 0))
    entry = (-b - root) / a
    at = oz + entry * z
    ok = (inside > 0) & (np.abs(at) <= 1.0) & (entry > 0)
    if slope:  # a cone's other root can be the way in
        other = (root - b) / a
        at = oz + other * z
        other = np.where((inside > 0) & (np.abs(at) <= 1.0) & (other > 0), other, np.inf)
        entry = np.minimum(np.where(ok, entry, np.inf), other)
    else:
        entry = np.where(ok, entry, np.inf)
    if abs(oz) > 1.0:  # only the end that faces the eye can be entered
        end, end_radius = (1.0, top) if oz > 0 else (-1.0, bottom)
        lid = (end - oz) / z
        hit = (lid > 0) & ((ox + lid * x) ** 2 + (oy + lid * y) ** 2 <= end_radius * end_radius)
        entry = np.minimum(entry, np.where(hit, lid, np.inf))
    return entry


def intersect(table: PrimitiveTable, index: int, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return the depth at which rays enter a solid, inf where they miss.

    Shape:
        origin: (3,), direction: (3, ...), both in the unit frame of the solid; output: (...), metres.
    """
    origin = origin.reshape((3,) + (1,) * (direction.ndim - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        if table.kind[index] == BOX:
            entry = _box_entry(origin, direction)
        elif table.kind[index] == CYLINDER:
            entry = _cylinder_entry(origin, direction, table.bottom[index], table.top[index])
        else:
            entry = _ball_entry(origin, direction)
    return entry


def _leave_room(origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return the depth at which rays leave the room (unit cube from inside)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / (direction + _TINY)
        middle = origin.reshape((3,) + (1,) * (direction.ndim - 1)) * inverse
        return np.minimum.reduce(np.abs(inverse) - middle, axis=0)


def cast_view(view: View, table: PrimitiveTable, rows: list[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Cast all pixels: z-depth (h, w) float32 metres and row of the table (h, w) int16.

    With `rows` only those solids exist, the room does not, and rays that meet nothing have depth inf.
    """
    origins, axes = view.ray_basis(table)
    tan_x, tan_y = view.tan_x.astype(np.float32), view.tan_y.astype(np.float32)

    def directions(index: int, up: int, low: int, left: int, right: int) -> np.ndarray:
        axis = axes[index]
        rows = axis[:, 2, None] + axis[:, 1, None] * tan_y[None, up:low]
        return rows[:, :, None] + (axis[:, 0, None] * tan_x[None, left:right])[:, None, :]

    h, w = len(tan_y), len(tan_x)
    if rows is None:
        depth = _leave_room(origins[0], directions(0, 0, h, 0, w)).astype(np.float32)
    else:
        depth = np.full((h, w), np.inf, np.float32)
    winner = np.zeros((h, w), np.int16)
    rectangles = view.rectangles(table).tolist()
    for index in range(1, len(table)) if rows is None else rows:
        up, low, left, right = rectangles[index]
        if up >= low or left >= right:
            continue
        entry = intersect(table, index, origins[index], directions(index, up, low, left, right))
        nearest = depth[up:low, left:right]
        closer = (entry < nearest) & (entry > NEAR)
        np.copyto(nearest, entry, where=closer)
        np.copyto(winner[up:low, left:right], index, where=closer)
    return depth, winner


def cast_loose(
    view: View, table: PrimitiveTable, tan: np.ndarray, groups: list[tuple[int, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Cast loose rays against the solids that each of them may meet.

    Shape:
        tan: (2, n, s), tangents of s rays for each of n pixels; groups: (table row, indices into n) per solid.
        output: depth (n, s) float32, table row (n, s) int16.
    """
    origins, axes = view.ray_basis(table)
    tan = tan.astype(np.float32)
    axis = axes[0][:, :, None, None]
    depth = _leave_room(origins[0], axis[:, 2] + axis[:, 0] * tan[0] + axis[:, 1] * tan[1]).astype(np.float32)
    winner = np.zeros(depth.shape, np.int16)
    for index, pixels in groups:
        if index == 0:
            continue
        axis = axes[index][:, :, None, None]
        tan_x, tan_y = tan[0, pixels], tan[1, pixels]
        entry = intersect(table, index, origins[index], axis[:, 2] + axis[:, 0] * tan_x + axis[:, 1] * tan_y)
        nearest, first = depth[pixels], winner[pixels]
        closer = (entry < nearest) & (entry > NEAR)
        depth[pixels] = np.where(closer, entry, nearest)
        winner[pixels] = np.where(closer, np.int16(index), first)
    return depth, winner
