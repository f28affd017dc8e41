"""Fewer triangles in the same shape, with normals and textures carried over."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

__all__ = ["areas", "carried_uv", "decimated", "smooth_normals", "thinned"]

_CREASE = np.cos(np.deg2rad(42))  # faces that meet at a sharper angle are not shaded as one surface
_LOOSE, _MOST_GROWTH = 20, 2.0  # parts that are many are leaves, and may grow so much
_MOST_SHRINKAGE = 0.15  # of a material's area by decimation


def areas(corners: np.ndarray) -> np.ndarray:
    """Return the areas (t,) of triangles (t, 3, 3), square metres."""
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.linalg.norm(cross, axis=1) / 2


def decimated(corners: np.ndarray, target: int) -> np.ndarray:
    """Return the corners (t, 3, 3) of about `target` triangles in the shape of many."""
    import fast_simplification

    points, index = np.unique((corners.reshape(-1, 3) / 1e-5).round().astype(np.int64), axis=0, return_inverse=True)
    points, faces = points * 1e-5, index.reshape(-1, 3)
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])]
    # A face that lies twice, once from each side, would be collapsed away.
    faces = faces[np.sort(np.unique(np.sort(faces, axis=1), axis=0, return_index=True)[1])]
    area, points, faces = areas(points[faces]).sum(), points.astype(np.float32), faces.astype(np.int32)
    for count in (target, 2 * target, 4 * target):
        if len(faces) <= count:
            break
        fewer = fast_simplification.simplify(points, faces, target_count=count, agg=3)
        corners = _without_slivers(fewer[0][fewer[1]])
        # Thin parts may collapse: then the surface shrinks, and more triangles are needed.
        if abs(areas(corners).sum() / area - 1) < _MOST_SHRINKAGE:
            return corners
    return _without_slivers(points[faces]) if len(faces) <= count else corners


def _without_slivers(corners: np.ndarray) -> np.ndarray:
    corners = corners.astype(np.float64)
    return corners[areas(corners) > 1e-9]


def thinned(corners: np.ndarray, target: int) -> np.ndarray:
    """Return some of many loose parts, such as leaves, grown to cover as much."""
    if len(corners) <= 1.3 * target:
        return corners
    _, index = np.unique((corners.reshape(-1, 3) / 1e-5).round().astype(np.int64), axis=0, return_inverse=True)
    faces = index.reshape(-1, 3)
    graph = coo_matrix((np.ones(2 * len(faces)), (faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel())))
    graph.resize((index.max() + 1,) * 2)
    part = connected_components(graph, directed=False)[1][faces[:, 0]]
    size, area = np.bincount(part), np.bincount(part, areas(corners))
    # The largest parts first; among equals a spread choice.
    order = np.lexsort((np.random.default_rng(0).random(len(size)), -np.round(np.log2(np.maximum(area, 1e-12)))))
    kept = order[: max(1, int(np.searchsorted(np.cumsum(size[order]), target, side="right")))]
    growth = min(_MOST_GROWTH, np.sqrt(area.sum() / area[kept].sum()))
    result = []
    for number in kept:
        own = corners[part == number]
        middle = own.reshape(-1, 3).mean(axis=0)
        result.append(middle + (own - middle) * (growth if len(kept) > _LOOSE else 1.0))
    return np.concatenate(result)


def _face_normals(corners: np.ndarray) -> np.ndarray:
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-20)


def smooth_normals(corners: np.ndarray) -> np.ndarray:
    """Return normals of corners (t, 3, 3), smooth but at sharp edges."""
    _, vertex = np.unique((corners.reshape(-1, 3) / 1e-4).round().astype(np.int64), axis=0, return_inverse=True)
    face = np.repeat(np.arange(len(corners)), 3)
    ones = np.ones(len(face))
    at_vertex = coo_matrix((ones, (vertex.ravel(), face)), (vertex.max() + 1, len(corners))).tocsr()
    of_corner = coo_matrix((ones, (np.arange(len(face)), vertex.ravel())), (len(face), vertex.max() + 1)).tocsr()
    pairs = (of_corner @ at_vertex).tocoo()
    normals, size = _face_normals(corners), areas(corners)
    soft = (normals[face[pairs.row]] * normals[pairs.col]).sum(axis=1) > _CREASE
    total = np.zeros((len(face), 3))
    np.add.at(total, pairs.row[soft], normals[pairs.col[soft]] * size[pairs.col[soft], None])
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 0, total / np.maximum(length, 1e-20), normals[face]).reshape(-1, 3, 3)


def _spread_points(corners: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points (n, 3) spread over triangles, with all middles, and their triangles."""
    size = areas(corners)
    face = np.concatenate([np.arange(len(corners)), rng.choice(len(corners), count, p=size / size.sum())])
    shares = rng.dirichlet((1, 1, 1), len(face))
    shares[: len(corners)] = 1 / 3
    return np.einsum("nk,nkd->nd", shares, corners[face]), face


def carried_uv(
    old_corners: np.ndarray, old_uv: np.ndarray, corners: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return texture coordinates (t, 3, 2) of new triangles: each continues the map of the nearest old face."""
    points, face = _spread_points(old_corners, 20_000, rng)
    normals = _face_normals(old_corners)
    tree = cKDTree(np.concatenate([points, normals[face] * 0.02], axis=1))
    middle = np.concatenate([corners.mean(axis=1), _face_normals(corners) * 0.02], axis=1)
    near = face[tree.query(middle)[1]]
    old, uv = old_corners[near], old_uv[near]
    edges = np.stack([old[:, 1] - old[:, 0], old[:, 2] - old[:, 0]], axis=1)  # (t, 2, 3)
    slopes = np.stack([uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]], axis=1)  # (t, 2, 2)
    along = np.einsum("tcd,tdk->tck", corners - old[:, :1], np.linalg.pinv(edges))
    result = uv[:, :1] + along @ slopes
    return result - np.floor(result.min(axis=1, keepdims=True))
