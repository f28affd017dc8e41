"""Ray casting of unit shapes: first hits of a pinhole view, or of loose rays.

Ray directions have camera z = 1, so the ray parameter of a hit is its z-depth in metres.
"""

from dataclasses import dataclass

import numpy as np

from processing.rooms.scene.primitives import BOX, CYLINDER, PrimitiveTable

__all__ = ["NEAR", "View", "cast_loose", "cast_view", "intersect"]

NEAR = 0.02  # metres; nothing is ever this close to a camera, see camera.py
_RAYS = 8192  # met at once: their numbers stay in the cache, and a small room needs few calls
_MARGIN = 2e-3  # tangent; float32 moves the outline of a thin solid by a third of it
# Corners at the ends of a box's edges: their numbers differ in one bit.
_EDGES = np.array([(i, i | bit) for bit in (1, 2, 4) for i in range(8) if not i & bit]).T
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
        # Corners before solids: reductions over a short last axis are slow.
        local = (table.corners - self.position).reshape(-1, 3) @ self.rotation
        local = np.ascontiguousarray(local.reshape(len(table), 8, 3).transpose(2, 1, 0))
        in_front = local[2] > NEAR
        with np.errstate(divide="ignore", invalid="ignore"):
            tan = local[:2] / local[2]
        low, high = tan.min(axis=1), tan.max(axis=1)
        is_seen = in_front.any(axis=0)
        cut = np.flatnonzero(is_seen & ~in_front.all(axis=0))
        if len(cut):
            low[:, cut], high[:, cut] = _cut_bounds(local[..., cut], tan[..., cut], in_front[:, cut])
        left, right = np.searchsorted(self.tan_x, low[0]), np.searchsorted(self.tan_x, high[0], side="right")
        upper, lower = np.searchsorted(self.tan_y, low[1]), np.searchsorted(self.tan_y, high[1], side="right")
        return np.stack([upper, lower, left, right], axis=1) * is_seen[:, None]


def _cut_bounds(local: np.ndarray, tan: np.ndarray, in_front: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture's bounds of boxes cut at the near plane, with a margin.

    Shape:
        local (3, 8, k): corners in the camera's frame, metres; tan (2, 8, k): their tangents; in_front (8, k).
        output: least and largest tangents, two arrays (2, k).
    """
    start, end = local[:, _EDGES[0]], local[:, _EDGES[1]]
    crosses = in_front[_EDGES[0]] != in_front[_EDGES[1]]
    part = (NEAR - start[2]) / np.where(crosses, end[2] - start[2], 1)
    middle = (start + part * (end - start))[:2] / NEAR
    points, is_seen = np.concatenate([tan, middle], axis=1), np.concatenate([in_front, crosses])
    low = points.min(axis=1, where=is_seen, initial=np.inf)
    return low - _MARGIN, points.max(axis=1, where=is_seen, initial=-np.inf) + _MARGIN


def _box_entry(origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    inverse = direction + _TINY
    np.divide(1.0, inverse, out=inverse)
    middle = origin * inverse
    np.abs(inverse, out=inverse)
    leave = inverse - middle
    middle += inverse
    enter = -np.minimum(np.minimum(middle[0], middle[1]), middle[2])
    leave = np.minimum(np.minimum(leave[0], leave[1]), leave[2])
    np.copyto(enter, np.inf, where=enter > leave)
    return enter


def _ball_entry(origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    x, y, z = direction
    a = x * x + y * y + z * z
    b = (direction * origin).sum(axis=0)
    c = (origin**2).sum(axis=0) - 1.0
    inside = b * b - a * c
    return np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)


def _cylinder_entry(origin: np.ndarray, direction: np.ndarray, bottom: np.ndarray, top: np.ndarray) -> np.ndarray:
    x, y, z = direction
    ox, oy, oz = origin
    middle, slope = (bottom + top) / 2, (top - bottom) / 2
    radius = middle + slope * oz
    a = x * x + y * y - (slope * slope) * z * z
    b = ox * x + oy * y - (slope * radius) * z
    c = ox * ox + oy * oy - radius * radius
    inside = b * b - a * c
    root = np.sqrt(np.maximum(inside, 0))
    entry = (-b - root) / a
    at = oz + entry * z
    entry = np.where((inside > 0) & (np.abs(at) <= 1.0) & (entry > 0), entry, np.inf)
    is_cone = np.flatnonzero(slope)
    if len(is_cone):  # a cone's other root can be the way in
        other = (root[is_cone] - b[is_cone]) / a[is_cone]
        at = oz[is_cone] + other * z[is_cone]
        other = np.where((inside[is_cone] > 0) & (np.abs(at) <= 1.0) & (other > 0), other, np.inf)
        entry[is_cone] = np.minimum(entry[is_cone], other)
    is_beyond = np.flatnonzero(np.abs(oz) > 1.0)
    if len(is_beyond):  # only the end that faces the eye can be entered
        x, y, z, ox, oy, oz = (values[is_beyond] for values in (x, y, z, ox, oy, oz))
        end, end_radius = np.copysign(np.float32(1), oz), np.where(oz > 0, top[is_beyond], bottom[is_beyond])
        lid = (end - oz) / z
        hit = (lid > 0) & ((ox + lid * x) ** 2 + (oy + lid * y) ** 2 <= end_radius * end_radius)
        entry[is_beyond] = np.minimum(entry[is_beyond], np.where(hit, lid, np.inf))
    return entry


def intersect(
    table: PrimitiveTable, rows: np.ndarray, counts: np.ndarray, origins: np.ndarray, direction: np.ndarray
) -> np.ndarray:
    """Return the depth at which rays enter solids of one kind, inf where they miss.

    Args:
        table: Solids.
        rows: Rows of the table, all of one kind.
        counts: Number of rays of each.
        origins: Camera position in the unit frame of every solid.
        direction: Rays one solid after the other, each in the unit frame of its solid.

    Shape:
        rows, counts: (k,); origins: (n, 3); direction: (3, r); output: (r,), metres.
    """
    origin = np.repeat(origins[rows].T, counts, axis=1)
    kind = table.kind[rows[0]]
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == BOX:
            return _box_entry(origin, direction)
        if kind == CYLINDER:
            ends = (np.repeat(ends[rows], counts) for ends in (table.bottom, table.top))
            return _cylinder_entry(origin, direction, *ends)
        return _ball_entry(origin, direction)


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
    down = axes[:, :, 2, None] + axes[:, :, 1, None] * view.tan_y.astype(np.float32)
    across = axes[:, :, 0, None] * view.tan_x.astype(np.float32)
    if rows is None:
        depth = _leave_room(origins[0], down[0][:, :, None] + across[0][:, None, :]).astype(np.float32)
    else:
        depth = np.full((len(view.tan_y), len(view.tan_x)), np.inf, np.float32)
    winner = np.zeros(depth.shape, np.int16)
    rectangles = view.rectangles(table)
    chosen = np.arange(1, len(table)) if rows is None else np.asarray(rows, int)
    size = np.clip(rectangles[chosen, 1::2] - rectangles[chosen, ::2], 0, None)
    counts = size[:, 0] * size[:, 1]
    chosen, counts = chosen[counts > 0], counts[counts > 0]
    indices, places = chosen.tolist(), rectangles[chosen].tolist()
    entries = [depth] * len(indices)
    for together in _batches(table.kind[chosen], counts):
        ends = np.cumsum(counts[together]).tolist()
        parts = list(zip(together.tolist(), [0, *ends[:-1]], ends, strict=True))
        direction = np.empty((3, ends[-1]), np.float32)
        for number, start, end in parts:
            index, (up, low, left, right) = indices[number], places[number]
            out = direction[:, start:end].reshape(3, low - up, right - left)
            np.add(down[index, :, up:low, None], across[index, :, None, left:right], out=out)
        entry = intersect(table, chosen[together], counts[together], origins, direction)
        np.copyto(entry, np.inf, where=~(entry > NEAR))
        for number, start, end in parts:
            entries[number] = entry[start:end]
    for index, (up, low, left, right), entry in zip(indices, places, entries, strict=True):
        nearest = depth[up:low, left:right]
        entry = entry.reshape(nearest.shape)
        closer = entry < nearest
        np.minimum(entry, nearest, out=nearest)
        np.copyto(winner[up:low, left:right], index, where=closer)
    return depth, winner


def _batches(kinds: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Return places of solids that are met together: of one kind, with few rays."""
    batches = []
    for kind in set(kinds.tolist()):
        places = np.flatnonzero(kinds == kind)
        number = (np.cumsum(counts[places]) - counts[places]) // _RAYS
        breaks = (np.flatnonzero(np.diff(number)) + 1).tolist()
        batches += [places[start:end] for start, end in zip([0, *breaks], [*breaks, len(places)], strict=True)]
    return batches


def cast_loose(
    view: View, table: PrimitiveTable, tan: np.ndarray, groups: list[tuple[int, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Cast loose rays against the solids that each of them may meet.

    Shape:
        tan: (2, n, s), tangents of s rays for each of n pixels; groups: (table row, indices into n) per solid.
        output: depth (n, s) float32, table row (n, s) int16.
    """
    origins, axes = view.ray_basis(table)
    # Pixels last: operations on a short last axis are slow.
    tan = np.ascontiguousarray(tan.transpose(0, 2, 1), np.float32)
    axis = axes[0][:, :, None, None]
    depth = _leave_room(origins[0], axis[:, 2] + axis[:, 0] * tan[0] + axis[:, 1] * tan[1]).ravel()
    winner, rays = np.zeros(len(depth), np.int16), tan.shape[1]
    groups = [group for group in groups if group[0] != 0]
    entries: dict[int, np.ndarray] = {}
    for kind in np.unique(table.kind[[index for index, _ in groups]]) if groups else ():
        of_kind = [(index, pixels) for index, pixels in groups if table.kind[index] == kind]
        indices, counts = np.array([index for index, _ in of_kind]), np.array([len(pixels) for _, pixels in of_kind])
        tan_x, tan_y = tan.take(np.concatenate([pixels for _, pixels in of_kind]), axis=2, mode="clip")
        axis = np.repeat(axes[indices].transpose(1, 2, 0), counts, axis=2)[:, :, None]
        direction = (axis[:, 2] + axis[:, 0] * tan_x + axis[:, 1] * tan_y).reshape(3, -1)
        entry = intersect(table, np.tile(indices, rays), np.tile(counts, rays), origins, direction)
        np.copyto(entry, np.inf, where=~(entry > NEAR))
        parts = np.split(entry.reshape(rays, -1), np.cumsum(counts)[:-1], axis=1)
        entries.update(zip(indices.tolist(), parts, strict=True))
    firsts = np.arange(rays)[:, None] * tan.shape[2]
    for index, pixels in groups:
        entry, at = entries[index].ravel(), (firsts + pixels).ravel()
        closer = np.flatnonzero(entry < depth[at])
        at = at[closer]
        depth[at], winner[at] = entry[closer], index
    return depth.reshape(rays, -1).T, winner.reshape(rays, -1).T
