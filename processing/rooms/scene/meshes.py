"""Meshes that pieces of furniture are made of, beside solids."""

from dataclasses import dataclass, replace

import numpy as np

from processing.rooms.scene.primitives import yaw_matrix

__all__ = ["Mesh", "MeshLook", "MeshShape"]


@dataclass(frozen=True)
class MeshLook:
    """Look of the triangles of one material.

    `colour` is sRGB in [0, 1]. A `picture` (h, w, 3) uint8 stands in its place or, if `is_painted`, gives it light and
    shade. `gloss` in [0, 1] adds a highlight, `emission` light of its own.
    """

    colour: tuple[float, float, float]
    picture: np.ndarray | None = None
    is_painted: bool = False
    gloss: float = 0.0
    emission: float = 0.0


@dataclass(frozen=True)
class MeshShape:
    """Triangles of a piece in its own frame.

    Shape:
        corners (t, 3, 3), metres; normals (t, 3, 3), unit, for each corner; uv (t, 3, 2), of the picture, which
        repeats; material (t,), index into looks. outline (k, 2): convex hull seen from above; height (2,): lowest and
        highest z, metres.
    """

    corners: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    material: np.ndarray
    outline: np.ndarray
    height: np.ndarray


@dataclass(frozen=True)
class Mesh:
    """Shape with looks, turned by `yaw` radians around z, then shifted by `offset` metres."""

    shape: MeshShape
    looks: tuple[MeshLook, ...]
    yaw: float = 0.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def moved(self, yaw: float, offset: np.ndarray) -> "Mesh":
        """Turn the mesh by `yaw` radians around the z axis, then shift it in metres."""
        place = yaw_matrix(yaw) @ self.offset + np.asarray(offset)
        return replace(self, yaw=self.yaw + yaw, offset=tuple(float(x) for x in place))

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Axis-aligned bounds, two arrays (3,), metres."""
        flat = self.shape.outline @ yaw_matrix(self.yaw)[:2, :2].T
        low, high = (
            np.array([*edge, z]) for edge, z in zip((flat.min(0), flat.max(0)), self.shape.height, strict=True)
        )
        return low + self.offset, high + self.offset

    @property
    def world(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners and their normals where the mesh stands, each (t, 3, 3) float32."""
        turn = yaw_matrix(self.yaw).T.astype(np.float32)
        return self.shape.corners @ turn + np.array(self.offset, np.float32), self.shape.normals @ turn
