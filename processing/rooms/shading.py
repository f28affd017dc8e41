"""Light: a ceiling lamp with soft shadows, daylight from windows, bounced light, and tone mapping."""

from __future__ import annotations

import numpy as np

from processing.rooms.layout import Room
from processing.rooms.primitives import BOX, CYLINDER, PrimitiveTable, yaw_matrix
from processing.rooms.raycast import View, cast_view
from processing.rooms.shell import WALL_YAWS, wall_point
from processing.rooms.textures import TEXTURES, texture_colour

__all__ = ["Shader", "to_srgb"]

_SHADOW_ANGLE = np.deg2rad(78)
_LOOKING_DOWN = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
_LAMP = np.array([1.0, 0.93, 0.82], np.float32)
_DAY = np.array([0.82, 0.91, 1.0], np.float32)


def _linear(colour) -> np.ndarray:
    return np.asarray(colour, np.float32) ** np.float32(2.2)


_GAMMA = (np.linspace(0, 1, 4096) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)


def to_srgb(colour: np.ndarray) -> np.ndarray:
    """Linear light to uint8 sRGB with a soft shoulder."""
    mapped = colour * (1.0 + colour * 0.16) / (1.0 + colour * 0.62)
    return _GAMMA[np.minimum(mapped * 4095, 4095).astype(np.int16)]


class Shader:
    """Colours of surface points of one room. Holds the shadow map and per-solid material arrays."""

    def __init__(self, room: Room, table: PrimitiveTable, shadow_size: int):
        self.table = table
        materials = [solid.material for solid in table.solids] + room.shell.faces
        names = list(TEXTURES)
        self.texture = np.array([names.index(m.texture) for m in materials], np.int8)
        self.has_grain = np.array([m.texture in ("wood", "planks") for m in materials])
        self.first = np.stack([_linear(m.colour) for m in materials])
        self.second = np.stack([_linear(m.second) for m in materials])
        self.look = np.array([[m.scale, m.seed, m.gloss, m.emission] for m in materials], np.float32)
        self.unit_from_world = table.unit_from_world.astype(np.float32)
        self.center = table.center.astype(np.float32)
        self.half = table.half.astype(np.float32)
        self.taper = ((table.top - table.bottom) / 2).astype(np.float32)
        self.light = room.shell.light.astype(np.float32)
        self.power = 0.5 * float(room.shell.light[2]) ** 2 + 0.05 * room.shell.width * room.shell.depth
        self.bounce = 0.5 * self.first[len(table) + 4] + 0.1
        self.windows = self._window_lights(room)
        self._cast_shadows(room, shadow_size)

    def _window_lights(self, room: Room) -> list[tuple[np.ndarray, np.ndarray, float]]:
        lights = []
        for opening in room.shell.openings:
            if not opening.is_door:
                area = (opening.along[1] - opening.along[0]) * (opening.z[1] - opening.z[0])
                spot = wall_point(room.shell, opening.wall, sum(opening.along) / 2, -0.1, sum(opening.z) / 2)
                inward = yaw_matrix(WALL_YAWS[opening.wall]) @ np.array([0.0, -1.0, 0.0])
                lights.append((spot.astype(np.float32), inward.astype(np.float32), float(area)))
        return lights

    def _cast_shadows(self, room: Room, size: int) -> None:
        angles = (np.arange(size) + 0.5) / size * 2 - 1
        tan = np.tan(angles * _SHADOW_ANGLE)
        # The room itself casts no shadow: it is convex, and its lamp hangs above the light.
        casters = np.flatnonzero(self.table.object_id).tolist()
        depth, _ = cast_view(View(_LOOKING_DOWN, room.shell.light, tan, tan), self.table, casters)
        self.shadow = np.pad(depth, 2, mode="edge")
        self.shadow_size = size

    def _lit(self, position: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Share of the lamp seen from points (n, 3): a 3 x 3 tent over the shadow map, smooth between its texels."""
        local = position + 0.03 * normal - self.light
        z = -local[:, 2]
        ok = z > 0.05
        safe = np.where(ok, z, 1.0)
        angle = np.arctan2(np.stack([local[:, 0], -local[:, 1]]), safe) / np.float32(_SHADOW_ANGLE)
        at = (angle + 1) * (self.shadow_size / 2) + 1.5 - 1.0  # in padded texels, minus one for the 4 x 4 window
        base = np.clip(np.floor(at), 0, self.shadow_size).astype(np.int32)
        part = np.clip(at - base, 0, 1)
        flat, width = self.shadow.ravel(), self.shadow.shape[1]
        start, limit = base[1] * width + base[0], safe * 0.985 - 0.01
        total = np.zeros_like(z)
        weights = [(1 - part, 1.0, 1.0, part)[k] if k in (0, 3) else np.float32(1) for k in range(4)]
        for row in range(4):
            line = np.zeros_like(z)
            for column in range(4):
                weight = weights[column] if np.isscalar(weights[column]) else weights[column][0]
                line += (flat[start + (row * width + column)] > limit) * weight
            total += line * (weights[row] if np.isscalar(weights[row]) else weights[row][1])
        inside = ok & (np.abs(angle) < 0.99).all(axis=0)
        return np.where(inside, total / 9.0, 1.0)

    def _surface(self, winner: np.ndarray, position: np.ndarray):
        """Material row, unit normal, and texture coordinates of points."""
        table = self.table
        matrix, half = self.unit_from_world[winner], self.half[winner]
        unit = np.einsum("nij,nj->ni", matrix, position - self.center[winner])
        size = np.abs(unit)
        axis = size.argmax(axis=1)
        rows = np.arange(len(winner))
        sign = np.where(unit[rows, axis] > 0, np.float32(1), np.float32(-1))
        gradient = np.zeros_like(unit)
        gradient[rows, axis] = sign
        kind = table.kind[winner]
        local = unit * half
        u = np.where(axis == 0, local[:, 1], local[:, 0])
        v = np.where(axis == 2, local[:, 1], local[:, 2])
        swap = np.where(axis == 0, half[:, 1], half[:, 0]) > np.where(axis == 2, half[:, 1], half[:, 2])
        round_ones = np.flatnonzero(kind != BOX)
        if len(round_ones):
            point, is_tube = unit[round_ones], kind[round_ones] == CYLINDER
            slope = self.taper[winner[round_ones]]
            side = point.copy()
            radius = np.hypot(point[:, 0], point[:, 1])
            side[is_tube, 2] = (-slope * radius)[is_tube]
            cap = is_tube & (np.abs(point[:, 2]) > 0.9995)
            side[cap] = 0
            side[cap, 2] = np.sign(point[cap, 2])
            gradient[round_ones] = side
            wide = np.maximum(half[round_ones, 0], half[round_ones, 1])
            u[round_ones] = np.where(cap, local[round_ones, 0], np.arctan2(point[:, 1], point[:, 0]) * wide)
            v[round_ones] = np.where(cap, local[round_ones, 1], local[round_ones, 2])
            swap[round_ones] = False
        normal = np.einsum("nij,ni->nj", matrix, gradient)
        normal /= np.sqrt((normal * normal).sum(axis=1, keepdims=True))
        face = axis * 2 + (sign > 0)
        is_shell = winner == 0
        normal[is_shell] *= -1
        material = np.where(is_shell, len(table) + face, winner)
        # Grain and boards run along the longer side; walls and pictures keep v upright.
        turn = swap & self.has_grain[material]
        return material, normal, np.where(turn, v, u), np.where(turn, u, v), np.where(kind == BOX, face, 0)

    def _albedo(self, material, u, v, footprint) -> np.ndarray:
        albedo = np.empty((len(material), 3), np.float32)
        kinds = self.texture[material]
        for index, name in enumerate(TEXTURES):
            chosen = np.flatnonzero(kinds == index)
            if len(chosen):
                m = material[chosen]
                scale, seed = self.look[m, 0], self.look[m, 1]
                albedo[chosen] = texture_colour(
                    name, u[chosen], v[chosen], scale, seed, footprint[chosen], self.first[m], self.second[m]
                )
        return albedo

    def shade(self, winner, position, eye, footprint) -> tuple[np.ndarray, np.ndarray]:
        """Linear colours (n, 3) of points and a number per flat face (n,).

        Shape:
            winner (n,): rows of the table; position, eye (n, 3): world metres; footprint (n,): pixel width, metres.
        """
        winner = winner.astype(np.int32)
        material, normal, u, v, face = self._surface(winner, position)
        albedo = self._albedo(material, u, v, footprint)
        gloss, emission = self.look[material, 2], self.look[material, 3]
        to_light = self.light - position
        square = (to_light * to_light).sum(axis=1)
        to_light /= np.sqrt(square)[:, None]
        cosine = np.maximum((normal * to_light).sum(axis=1), 0)
        lit = self._lit(position, normal)
        lamp = cosine * lit * (self.power / (square + 0.8))
        light = lamp[:, None] * _LAMP
        for spot, inward, area in self.windows:
            ray = spot - position
            far = (ray * ray).sum(axis=1) + 0.1
            ray /= np.sqrt(far)[:, None]
            facing = np.maximum((normal * ray).sum(axis=1) * 0.8 + 0.2, 0) * np.maximum(-(ray @ inward), 0)
            light += (facing * (1.5 * area / (3.1 * far + area)) * (0.45 + 0.55 * lit))[:, None] * _DAY
        up = 0.5 + 0.5 * normal[:, 2:3]
        ambient = (self.bounce * (1 - up) + np.float32(0.42) * up + 0.1) * self._corner_shade(
            winner, position, normal
        )[:, None]
        light += ambient * 0.8
        to_eye = eye - position
        to_eye /= np.sqrt((to_eye * to_eye).sum(axis=1, keepdims=True))
        middle = to_eye + to_light
        middle /= np.sqrt((middle * middle).sum(axis=1, keepdims=True))
        shine = np.maximum((normal * middle).sum(axis=1), 0) ** 40 * gloss * lit * 0.5
        return albedo * (light + emission[:, None] * 1.2) + shine[:, None], face

    def _corner_shade(self, winner, position, normal) -> np.ndarray:
        """Less bounced light in the room's corners and just above the floor."""
        half = self.half[0]
        gap = half - np.abs(position - self.center[0]) + 0.02
        gap = gap + np.where(np.abs(normal) > 0.7, np.float32(9), np.float32(0))
        near = np.exp(gap * -4.5).sum(axis=1)
        return 1.0 - 0.42 * np.minimum(near, 1.3)
