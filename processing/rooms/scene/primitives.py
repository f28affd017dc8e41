"""Solids that furniture is built of, and the arrays a renderer wants them in.

World frame of all rooms: metres, z up, floor at z = 0. A solid is a unit shape scaled by its half sizes, rotated and
moved: a cube of side 2, a cylinder of radius 1 and height 2, a sphere of radius 1.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = [
    "BOX",
    "CYLINDER",
    "ELLIPSOID",
    "Material",
    "Primitive",
    "PrimitiveTable",
    "ball",
    "bounds",
    "box",
    "cylinder",
    "moved",
    "yaw_matrix",
]

BOX, CYLINDER, ELLIPSOID = 0, 1, 2

# Which unit axes become world x, y, z for a solid whose axis of symmetry points along the named one.
_AXIS_ROTATIONS = {
    "z": np.eye(3),
    "x": np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "y": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
}


@dataclass(frozen=True)
class Material:
    """Look of a surface: two sRGB colours in [0, 1] mixed by a named texture.

    `scale` is the size of the texture's repeat in metres; `gloss` in [0, 1] adds a highlight; `emission` adds light of
    its own; `seed` shifts the pattern so that two equal textures differ.
    """

    colour: tuple[float, float, float]
    texture: str = "plain"
    second: tuple[float, float, float] = (0.5, 0.5, 0.5)
    scale: float = 0.2
    gloss: float = 0.0
    emission: float = 0.0
    seed: float = 0.0


@dataclass(frozen=True)
class Primitive:
    """One solid; `bottom` and `top` scale a cylinder's radius at its ends (cone frustum)."""

    kind: int
    center: np.ndarray
    half: np.ndarray
    rotation: np.ndarray
    material: Material
    bottom: float = 1.0
    top: float = 1.0


def moved(solids: list[Primitive], yaw: float, offset: np.ndarray) -> list[Primitive]:
    """Turn solids by `yaw` radians around the z axis, then shift them in metres."""
    if not solids:
        return []
    turn = yaw_matrix(yaw)
    centers = (turn @ np.array([s.center for s in solids])[:, :, None])[:, :, 0] + offset
    rotations = turn @ np.array([s.rotation for s in solids])
    return [
        Primitive(s.kind, center, s.half, rotation, s.material, s.bottom, s.top)
        for s, center, rotation in zip(solids, centers, rotations, strict=True)
    ]


def bounds(solids: list[Primitive]) -> tuple[np.ndarray, np.ndarray]:
    """Return the axis-aligned bounds of some solids, two arrays of shape (3,), metres."""
    center = np.array([s.center for s in solids])
    scaled = np.array([s.rotation for s in solids]) * np.array([s.half for s in solids])[:, None, :]
    cubic = np.abs(scaled).sum(axis=2)
    kind = np.array([s.kind for s in solids])[:, None]
    if (kind == BOX).all():
        return (center - cubic).min(axis=0), (center + cubic).max(axis=0)
    ends, square = np.array([(s.bottom, s.top) for s in solids]), scaled * scaled
    radial, axis = np.sqrt(square[..., 0] + square[..., 1]), scaled[..., 2]
    bottom, top = radial * ends[:, :1], radial * ends[:, 1:]
    whole = np.sqrt(square.sum(axis=2))
    tube_high = np.maximum(axis + top, bottom - axis)
    tube_low = np.minimum(axis - top, -axis - bottom)
    high = np.where(kind == BOX, cubic, np.where(kind == CYLINDER, tube_high, whole))
    low = np.where(kind == BOX, -cubic, np.where(kind == CYLINDER, tube_low, -whole))
    return (center + low).min(axis=0), (center + high).max(axis=0)


@lru_cache(maxsize=256)  # all parts of a piece, and most pieces, turn alike
def yaw_matrix(yaw: float) -> np.ndarray:
    """Return the rotation (3, 3) by `yaw` radians around z, not to be written to."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    matrix = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    matrix.setflags(write=False)
    return matrix


def box(center, size, material: Material, yaw: float = 0.0) -> Primitive:
    """Build a box of full `size` (dx, dy, dz) around `center`, metres."""
    return Primitive(BOX, np.array(center, float), np.array(size, float) / 2, yaw_matrix(yaw), material)


def cylinder(
    center, radii, height: float, material: Material, *, bottom: float = 1.0, top: float = 1.0, axis: str = "z"
) -> Primitive:
    """Build an elliptic cylinder or cone frustum around `center`; `radii` are half axes, metres."""
    half = np.array([radii[0], radii[1], height / 2], float)
    return Primitive(CYLINDER, np.array(center, float), half, _AXIS_ROTATIONS[axis], material, bottom, top)


def ball(center, radii, material: Material, yaw: float = 0.0) -> Primitive:
    """Build an ellipsoid with the three half axes `radii`, metres."""
    return Primitive(ELLIPSOID, np.array(center, float), np.array(radii, float), yaw_matrix(yaw), material)


class PrimitiveTable:
    """Solids as arrays. Row 0 is the room itself, seen from inside.

    Shape:
        center (n, 3), half (n, 3), rotation (n, 3, 3), kind (n,), object_id (n,) uint8.
        unit_from_world (n, 3, 3): linear part of the map that turns a solid into its unit shape.
        corners (n, 8, 3): corners of the oriented bounding box, world metres.
    """

    def __init__(self, room_center, room_half, solids: list[tuple[int, Primitive]]):
        shell = Primitive(
            BOX, np.asarray(room_center, float), np.asarray(room_half, float), np.eye(3), Material((0, 0, 0))
        )
        self.solids = [shell] + [solid for _, solid in solids]
        self.object_id = np.array([0] + [number for number, _ in solids], np.uint8)
        self.kind = np.array([s.kind for s in self.solids], np.int8)
        self.center = np.stack([s.center for s in self.solids])
        self.half = np.stack([s.half for s in self.solids])
        self.rotation = np.stack([s.rotation for s in self.solids])
        self.bottom = np.array([s.bottom for s in self.solids])
        self.top = np.array([s.top for s in self.solids])
        self.unit_from_world = self.rotation.transpose(0, 2, 1) / self.half[:, :, None]
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
        self.corners = self.center[:, None] + np.einsum("nij,nkj->nki", self.rotation, signs * self.half[:, None])

    def __len__(self) -> int:
        return len(self.solids)
