"""Edges of boxes whose corners come in any order, and where a camera sees them."""

from itertools import combinations

import numpy as np
from scipy.optimize import linear_sum_assignment

__all__ = ["box_edges", "box_size", "clip_lines", "order_corners", "project_lines"]

_TOLERANCE = 0.02  # Share of the box's diagonal by which a corner may miss its place, and cosine of its edges.
_NEAR = 0.05  # Metres in front of the camera from where on a line is drawn.
# Corners in the order of their bits, x y z, and the pairs of them that differ in one bit.
_BITS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
_EDGES = np.array([(a, b) for a, b in combinations(range(8), 2) if np.abs(_BITS[a] - _BITS[b]).sum() == 1])


def order_corners(corners: np.ndarray) -> np.ndarray:
    """Return the corners of a box in the order of their bits.

    The first corner stays. Corner k is the first one plus the edges whose bits k has, so that corners whose numbers
    differ in one bit share an edge.

    Shape:
        corners: (8, 3), metres, in any order.
        output:  (8, 3), float64, metres.

    Raises:
        ValueError: If the points are not the corners of a box with right angles and at least one edge.

    Example:
        >>> cube = np.array([[x, y, z] for z in (0, 1) for y in (0, 2) for x in (0, 3)])
        >>> order_corners(cube)[[0, 7]].tolist()
        [[0.0, 0.0, 0.0], [3.0, 2.0, 1.0]]
    """
    points = np.asarray(corners, np.float64)
    steps = points - points[0]
    diagonal = np.linalg.norm(steps, axis=1).max()
    fits = []
    for chosen in combinations(range(1, 8), 3) if diagonal > 0 else ():
        edges = steps[list(chosen)]
        ordered = points[0] + _BITS @ edges
        distances = np.linalg.norm(ordered[:, None] - points[None], axis=-1)
        misses = distances[linear_sum_assignment(distances)]  # each given point is one corner, flat boxes too
        lengths = np.linalg.norm(edges, axis=1)
        cosines = np.abs(edges @ edges.T) / np.maximum(np.outer(lengths, lengths), 1e-12)
        fits.append((max(misses.max() / diagonal, cosines[np.triu_indices(3, 1)].max()), len(fits), ordered))
    if fits and (best := min(fits))[0] <= _TOLERANCE:
        return best[2]
    raise ValueError(
        "`corners` must be the eight corners (8, 3) of a box with right angles, in metres and in any order, got "
        f"points from {points.min(0).round(3).tolist()} to {points.max(0).round(3).tolist()} that are none."
    )


def box_edges(corners: np.ndarray) -> np.ndarray:
    """Return the edges of a box as lines.

    Shape:
        corners: (8, 3), metres, in the order of `order_corners`.
        output:  (12, 2, 3), metres.
    """
    return np.asarray(corners)[_EDGES]


def box_size(corners: np.ndarray) -> np.ndarray:
    """Return the lengths (3,) of a box along x, y and z in metres.

    Each edge of a turned box belongs to the axis that is nearest, no two to the same one.

    Shape:
        corners: (8, 3), metres, in the order of `order_corners`.
    """
    edges = np.asarray(corners)[[4, 2, 1]] - np.asarray(corners)[0]
    lengths = np.linalg.norm(edges, axis=1)
    _, order = linear_sum_assignment(-np.abs(edges / np.maximum(lengths, 1e-12)[:, None]).T)
    return lengths[order]


def clip_lines(lines: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Return what of lines lies in front of all planes.

    Shape:
        lines:  (N, 2, 3), metres.
        planes: (P, 4); a point p is in front of (n, d) where n . p + d >= 0.
        output: (M, 2, 3), M <= N.
    """
    starts, ends = np.zeros(len(lines)), np.ones(len(lines))
    for plane in planes:
        first, last = (lines @ plane[:3] + plane[3]).T
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = first / (first - last)
        starts = np.where((first < 0) & (last >= 0), np.maximum(starts, crossing), starts)
        ends = np.where((first >= 0) & (last < 0), np.minimum(ends, crossing), ends)
        ends = np.where((first < 0) & (last < 0), -1.0, ends)
    is_seen = starts < ends
    shares = np.stack([starts, ends], axis=1)[is_seen][..., None]
    lines = lines[is_seen]
    return lines[:, :1] * (1 - shares) + lines[:, 1:] * shares


def project_lines(lines: np.ndarray, intrinsics: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """Return where a camera sees lines, clipped to its frame.

    Args:
        lines: Lines in the camera's frame, OpenCV axes.
        intrinsics: Camera, integer coordinates are pixel centres.
        frame_size: Height and width of the frame in pixels.

    Shape:
        lines:      (N, 2, 3), metres.
        intrinsics: (3, 3), pixels.
        output:     (M, 2, 2) as (u, v) in pixels; M <= N, lines out of sight are left out.
    """
    (fx, _, cx), (_, fy, cy) = np.asarray(intrinsics, np.float64)[:2]
    height, width = frame_size
    rim = 0.02 * max(height, width)  # Lines end beyond the border, not on it.
    planes = np.array(
        [
            [0, 0, 1, -_NEAR],
            [fx, 0, cx + 0.5 + rim, 0],
            [-fx, 0, width - 0.5 + rim - cx, 0],
            [0, fy, cy + 0.5 + rim, 0],
            [0, -fy, height - 0.5 + rim - cy, 0],
        ]
    )
    seen = clip_lines(np.asarray(lines, np.float64), planes)
    return seen[..., :2] / seen[..., 2:] * (fx, fy) + (cx, cy)
