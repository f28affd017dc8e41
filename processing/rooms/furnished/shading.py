"""Light in rooms with meshes: shadow maps of one set of lights, the same for all pixels, so without grain."""

import numpy as np

from processing.rooms.furnished.casting import TriangleCaster
from processing.rooms.render.raycast import View, cast_view
from processing.rooms.render.shading import Shader
from processing.rooms.render.textures import TEXTURES
from processing.rooms.scene.layout import Room
from processing.rooms.scene.meshes import Mesh, MeshLook
from processing.rooms.scene.primitives import PrimitiveTable

__all__ = ["FurnishedShader", "FurnishedTable"]

_DOWN = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
_WINDOW_ANGLE, _CEILING_ANGLE = np.deg2rad(75), np.deg2rad(72)
_WINDOW_SIZE, _CEILING_SIZE = 64, 48  # texels
_HIDDEN = np.float32(0.45)  # of bounced light, where no light of the ceiling reaches


class FurnishedTable(PrimitiveTable):
    """Solids of a room, and after them, as further rows, the triangles of its meshes.

    `object_id` has an entry for each row. `len` counts the solids alone.

    Args:
        room_center: Middle of the room, metres.
        room_half: Half of its size, metres.
        solids: Solids with the ids of their objects.
        meshes: Meshes with the ids of their objects.
        engine: Caster of triangles, "embree" or "zbuffer". Default: Embree where `embreex` is installed.
    """

    def __init__(self, room_center, room_half, solids, meshes: list[tuple[int, Mesh]], engine: str | None = None):
        super().__init__(room_center, room_half, solids)
        counts = [len(mesh.shape.corners) for _, mesh in meshes]
        corners, normals = (np.concatenate(parts) for parts in zip(*(mesh.world for _, mesh in meshes), strict=True))
        self.caster, self.normals = TriangleCaster(corners, engine), normals
        self.uv = np.concatenate([mesh.shape.uv for _, mesh in meshes])
        firsts = np.cumsum([0] + [len(mesh.looks) for _, mesh in meshes])
        self.looks = [look for _, mesh in meshes for look in mesh.looks]
        self.look_index = np.concatenate(
            [mesh.shape.material.astype(np.int32) + first for (_, mesh), first in zip(meshes, firsts, strict=False)]
        )
        ids = np.repeat(np.array([number for number, _ in meshes], np.uint8), counts)
        self.object_id = np.concatenate([self.object_id, ids])

    def cast(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Cast all pixels: z-depth (h, w) float32, metres, and row (h, w) int32."""
        return self.nearer(*cast_view(view, self), *self.caster.cast(view))

    def cast_objects(self, view: View) -> np.ndarray:
        """Return the z-depth (h, w) of furniture alone, inf where there is none."""
        solids = np.flatnonzero(self.object_id[: len(self)]).tolist()
        return np.minimum(cast_view(view, self, solids)[0], self.caster.cast(view)[0])

    def nearer(self, depth, winner, other, triangle) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearer of hits of solids (depth and row) and of triangles (depth and number), and its row."""
        is_mesh = other < depth
        return np.where(is_mesh, other, depth), np.where(is_mesh, triangle + len(self), winner.astype(np.int32))


class _ShadowMap:
    """Depths seen from a light, in equal steps of angle."""

    def __init__(self, table: FurnishedTable, rotation: np.ndarray, position: np.ndarray, angle: float, size: int):
        tan = np.tan(((np.arange(size) + 0.5) / size * 2 - 1) * angle)
        self.rotation, self.position = rotation.astype(np.float32), position.astype(np.float32)
        self.angle, self.size = np.float32(angle), size
        self.depth = np.pad(table.cast_objects(View(rotation, position, tan, tan)), 1, mode="edge")

    def share(self, position: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Return how much of the light points (3, n) see, mixed from the four nearest texels."""
        local = self.rotation.T @ (position + np.float32(0.03) * normal - self.position[:, None])
        z = local[2]
        safe = np.where(z > 0.05, z, np.float32(1))
        angle = np.arctan2(local[:2], safe) / self.angle
        at = np.clip((angle + 1) * np.float32(self.size / 2) + np.float32(0.5), 0, self.size + np.float32(0.999))
        base = at.astype(np.int32)
        part = at - base
        limit = safe * np.float32(0.985) - np.float32(0.02)
        low, high = np.minimum(base, self.size + 1), np.minimum(base + 1, self.size + 1)
        rows = []
        for row in (low[1], high[1]):
            left, right = self.depth[row, low[0]] > limit, self.depth[row, high[0]] > limit
            rows.append(left * (1 - part[0]) + right * part[0])
        inside = (z > 0.05) & (np.abs(angle) < 1).all(axis=0)
        return np.where(inside, rows[0] * (1 - part[1]) + rows[1] * part[1], np.float32(1))


class FurnishedShader(Shader):
    """Shader of rooms with meshes: lamp, windows and places of the ceiling cast shadows."""

    def __init__(self, room: Room, table: FurnishedTable, shadow_size: int):
        super().__init__(room, table, shadow_size)
        self.first_look = self.first.shape[1]  # materials of meshes follow those of solids and walls
        linear = np.array([look.colour for look in table.looks], np.float32).T ** np.float32(2.2)
        gloss = [(0, 0, look.gloss, look.emission) for look in table.looks]
        self.first = np.concatenate([self.first, linear], axis=1)
        self.look = np.concatenate([self.look, np.array(gloss, np.float32).T], axis=1)
        self.texture = np.concatenate([self.texture, np.full(len(table.looks), len(TEXTURES), np.int8)])
        self.pictures = [_levels(look) for look in table.looks]
        self.window_maps = [
            _ShadowMap(table, _facing(inward), spot + 0.15 * inward, _WINDOW_ANGLE, _WINDOW_SIZE)
            for spot, inward, _ in self.windows
        ]
        shell = room.shell
        self.ceiling_maps = [
            _ShadowMap(
                table,
                _DOWN,
                np.array([x * shell.width / 4, y * shell.depth / 4, shell.height - 0.05]),
                _CEILING_ANGLE,
                _CEILING_SIZE,
            )
            for x in (-1, 1)
            for y in (-1, 1)
        ]

    def _depth_of_objects(self, view: View) -> np.ndarray:
        return self.table.cast_objects(view)

    def edge_keys(self, winner: np.ndarray, face: np.ndarray) -> np.ndarray:
        """Return a number per smooth surface (n,); triangles of one material and object are one."""
        solids = len(self.table)
        keys = super().edge_keys(winner, face)
        chosen = np.flatnonzero(winner >= solids)
        keys[chosen] = (solids + self.table.look_index[winner[chosen] - solids]) * 8
        return keys

    def _surface(self, winner: np.ndarray, position: np.ndarray, eye: np.ndarray):
        solids = len(self.table)
        chosen = np.flatnonzero(winner >= solids)
        material, normal, u, v, face = super()._surface(np.where(winner < solids, winner, 0), position, eye)
        if len(chosen):
            row = winner[chosen] - solids
            shares = _barycentric(self.table.caster.corners[row], position[:, chosen].T)
            smooth = np.einsum("nk,nkd->dn", shares, self.table.normals[row])
            smooth /= np.maximum(np.sqrt((smooth * smooth).sum(axis=0)), np.float32(1e-9))
            away = ((eye[:, None] - position[:, chosen]) * smooth).sum(axis=0)
            normal[:, chosen] = smooth * np.where(away < 0, np.float32(-1), np.float32(1))
            uv = np.einsum("nk,nkd->dn", shares, self.table.uv[row])
            material[chosen], face[chosen] = self.first_look + self.table.look_index[row], 0
            u[chosen], v[chosen] = uv
        return material, normal, u, v, face

    def _albedo(self, material, u, v, footprint) -> np.ndarray:
        is_mesh = material >= self.first_look
        albedo = np.empty((3, len(material)), np.float32)
        solid = np.flatnonzero(~is_mesh)
        albedo[:, solid] = super()._albedo(material[solid], u[solid], v[solid], footprint[solid])
        mesh = np.flatnonzero(is_mesh)
        albedo[:, mesh] = self.first[:, material[mesh]]
        for number in np.unique(material[mesh]) - self.first_look:
            levels = self.pictures[number]
            if levels is not None:
                chosen = np.flatnonzero(material == self.first_look + number)
                albedo[:, chosen] = _sampled(levels, u[chosen], v[chosen], footprint[chosen])
        return albedo

    def _window_lit(self, number: int, position, normal, lit) -> np.ndarray:
        return np.float32(0.2) + np.float32(0.8) * self.window_maps[number].share(position, normal)

    def _corner_shade(self, position, normal) -> np.ndarray:
        open_share = sum(light.share(position, normal) for light in self.ceiling_maps) / len(self.ceiling_maps)
        return super()._corner_shade(position, normal) * (_HIDDEN + (1 - _HIDDEN) * open_share)


def _facing(inward: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) of a camera that looks along a horizontal direction (3,)."""
    down = np.array([0.0, 0.0, -1.0])
    return np.stack([np.cross(down, inward), down, inward], axis=1)


def _barycentric(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the shares (n, 3) of triangles' corners (n, 3, 3) in points (n, 3) on them."""
    one, two, offset = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points - corners[:, 0]
    normal = np.cross(one, two)
    square = np.maximum((normal * normal).sum(axis=1), np.float32(1e-20))
    second = (np.cross(offset, two) * normal).sum(axis=1) / square
    third = (np.cross(one, offset) * normal).sum(axis=1) / square
    return np.clip(np.stack([1 - second - third, second, third], axis=1), 0, 1)


def _levels(look: MeshLook) -> list[np.ndarray] | None:
    """Return a look's picture in linear light at halving sizes, None without one."""
    if look.picture is None:
        return None
    picture = look.picture.astype(np.float32) / 255
    if look.is_painted:  # light and shade of the picture, in the colour of the paint
        grey = picture @ np.array([0.3, 0.55, 0.15], np.float32) + np.float32(0.1)
        shades = np.clip(grey / grey.mean(), 0.5, 1.4)[..., None]
        picture = np.minimum(shades * np.array(look.colour, np.float32), 1)
    levels = [picture ** np.float32(2.2)]
    while min(levels[-1].shape[:2]) >= 4:
        last = levels[-1]
        h, w = last.shape[0] // 2 * 2, last.shape[1] // 2 * 2
        levels.append(last[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).mean(axis=(1, 3)))
    return levels


def _sampled(levels: list[np.ndarray], u: np.ndarray, v: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Return linear colours (3, n) of a repeating picture, at the pixels' own width."""
    # A picture covers about a metre of its surface: closer than a factor of two is not needed.
    level = np.clip(np.log2(np.maximum(footprint * levels[0].shape[1], 1)) + 0.5, 0, len(levels) - 1).astype(np.int32)
    result = np.empty((3, len(u)), np.float32)
    for number in np.unique(level):
        chosen = np.flatnonzero(level == number)
        picture = levels[number]
        h, w = picture.shape[:2]
        row, column = np.floor((1 - v[chosen]) * h).astype(np.int32) % h, np.floor(u[chosen] * w).astype(np.int32) % w
        result[:, chosen] = picture[row, column].T
    return result
