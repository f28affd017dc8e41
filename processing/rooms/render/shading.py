"""Light: a ceiling lamp with soft shadows, daylight from windows, bounced light, and tone mapping."""

import numpy as np

from processing.rooms.render.raycast import View, cast_view
from processing.rooms.render.textures import TEXTURES, texture_colour
from processing.rooms.scene.layout import Room
from processing.rooms.scene.primitives import BOX, CYLINDER, PrimitiveTable, yaw_matrix
from processing.rooms.scene.shell import WALL_YAWS, wall_point

__all__ = ["Shader", "to_srgb"]

_SHADOW_ANGLE = np.deg2rad(78)
_LOOKING_DOWN = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
_LAMP = np.array([[1.0], [0.93], [0.82]], np.float32)
_DAY = np.array([[0.82], [0.91], [1.0]], np.float32)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the products (n,) of vectors (3, n).

    Components come first here, because sums over the last axis of (n, 3) are slow.
    """
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _of(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return values[..., index] for an index within bounds, faster than brackets do."""
    return values.take(index, axis=-1, mode="clip")


def _linear(colour) -> np.ndarray:
    return np.asarray(colour, np.float32) ** np.float32(2.2)


_GAMMA = (np.linspace(0, 1, 4096) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)


def to_srgb(colour: np.ndarray) -> np.ndarray:
    """Map linear light to uint8 sRGB with a soft shoulder."""
    mapped = colour * (1.0 + colour * 0.16) / (1.0 + colour * 0.62)
    return _of(_GAMMA, np.minimum(mapped * 4095, 4095).astype(np.int16))


class Shader:
    """Shader of one room, with its shadow map and the material arrays of its solids."""

    def __init__(self, room: Room, table: PrimitiveTable, shadow_size: int):
        self.table = table
        materials = [solid.material for solid in table.solids] + room.shell.faces
        names = list(TEXTURES)
        self.texture = np.array([names.index(m.texture) for m in materials], np.int8)
        self.has_grain = np.array([m.texture in ("wood", "planks") for m in materials])
        self.first = np.stack([_linear(m.colour) for m in materials], axis=1)
        self.second = np.stack([_linear(m.second) for m in materials], axis=1)
        self.look = np.array([[m.scale, m.seed, m.gloss, m.emission] for m in materials], np.float32).T
        self.unit_from_world = table.unit_from_world.astype(np.float32).transpose(1, 2, 0)
        self.center = table.center.astype(np.float32).T
        self.half = table.half.astype(np.float32).T
        self.taper = ((table.top - table.bottom) / 2).astype(np.float32)
        self.light = room.shell.light.astype(np.float32)
        self.lighting = room.shell.lighting
        self.lamp = _LAMP * np.array(self.lighting.tint, np.float32)[:, None] * np.float32(self.lighting.lamp)
        self.day = _DAY * np.float32(self.lighting.day)
        self.power = 0.5 * float(room.shell.light[2]) ** 2 + 0.05 * room.shell.width * room.shell.depth
        self.bounce = 0.5 * self.first[:, len(table) + 4] + 0.1
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
        depth = self._depth_of_objects(View(_LOOKING_DOWN, room.shell.light, tan, tan))
        self.shadow = np.pad(depth, 2, mode="edge")
        self.shadow_size = size

    def _depth_of_objects(self, view: View) -> np.ndarray:
        # The room itself casts no shadow: it is convex, and its lamp hangs above the light.
        return cast_view(view, self.table, np.flatnonzero(self.table.object_id).tolist())[0]

    def _lit(self, position: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Return the share of the lamp seen from points (3, n), tent filtered."""
        local = position + np.float32(0.03) * normal - self.light[:, None]
        z = -local[2]
        ok = z > 0.05
        safe = np.where(ok, z, np.float32(1))
        angle = np.arctan2(np.stack([local[0], -local[1]]), safe) / np.float32(_SHADOW_ANGLE)
        at = (angle + 1) * np.float32(self.shadow_size / 2) + np.float32(0.5)  # padded texels, at the window's corner
        base = np.floor(np.clip(at, 0, self.shadow_size))
        part = np.clip(at - base, 0, 1).astype(np.float64)
        flat, width = self.shadow.ravel(), self.shadow.shape[1]
        start, limit = (base[1] * width + base[0]).astype(np.intp), safe * np.float32(0.985) - np.float32(0.01)
        ends, total = (1 - part, part), np.zeros_like(z)
        for row in range(4):
            seen = [_of(flat[row * width + column :], start) > limit for column in range(4)]
            line = np.where(seen[0], ends[0][0], 0.0)
            line += seen[1].view(np.int8) + seen[2].view(np.int8)
            line += np.where(seen[3], ends[1][0], 0.0)
            total += line if row in (1, 2) else line * ends[row // 3][1]
        inside = ok & (np.abs(angle[0]) < 0.99) & (np.abs(angle[1]) < 0.99)
        return np.where(inside, total / 9, np.float32(1))

    def edge_keys(self, winner: np.ndarray, face: np.ndarray) -> np.ndarray:
        """Return a number per surface (n,); an edge between two is worth more rays."""
        return winner.astype(np.int32) * 8 + face

    def _surface(self, winner: np.ndarray, position: np.ndarray, eye: np.ndarray):
        """Return material row, unit normal (3, n), texture coordinates and flat face of points (3, n)."""
        matrix, half = _of(self.unit_from_world, winner), _of(self.half, winner)
        offset = position - _of(self.center, winner)
        unit = np.stack([_dot(row, offset) for row in matrix])
        size = np.abs(unit)
        along_x = (size[0] >= size[1]) & (size[0] >= size[2])
        along_z = ~along_x & (size[2] >= size[1])
        axis = np.where(along_x, 0, np.where(along_z, 2, 1))
        gradient = np.copysign(np.stack([along_x, ~(along_x | along_z), along_z]).astype(np.float32), unit)
        is_high = np.where(along_x, unit[0], np.where(along_z, unit[2], unit[1])) > 0
        local = unit * half
        u, v = np.where(along_x, local[1], local[0]), np.where(along_z, local[1], local[2])
        swap = np.where(along_x, half[1], half[0]) > np.where(along_z, half[1], half[2])
        kind = _of(self.table.kind, winner)
        chosen = np.flatnonzero(kind != BOX)
        if len(chosen):
            side, u[chosen], v[chosen] = self._round_surface(
                _of(unit, chosen), _of(half, chosen), kind[chosen] == CYLINDER, self.taper[winner[chosen]]
            )
            gradient[:, chosen], swap[chosen] = side, False
        normal = np.stack([_dot(matrix[:, j], gradient) for j in range(3)])
        is_shell = winner == 0
        normal *= np.where(is_shell, np.float32(-1), np.float32(1)) / np.sqrt(_dot(normal, normal))
        face = axis * 2 + is_high
        material = np.where(is_shell, len(self.table) + face, winner)
        # Grain and boards run along the longer side; walls and pictures keep v upright.
        turn = swap & _of(self.has_grain, material)
        return material, normal, np.where(turn, v, u), np.where(turn, u, v), np.where(kind == BOX, face, 0)

    @staticmethod
    def _round_surface(unit: np.ndarray, half: np.ndarray, is_tube: np.ndarray, taper: np.ndarray):
        """Return gradient (3, k) and texture coordinates (k,) of round solids at unit points (3, k)."""
        side = unit.copy()
        side[2] = np.where(is_tube, -taper * np.hypot(unit[0], unit[1]), unit[2])
        cap = is_tube & (np.abs(unit[2]) > 0.9995)
        side[:, cap] = 0
        side[2, cap] = np.sign(unit[2, cap])
        wide = np.maximum(half[0], half[1])
        u = np.where(cap, unit[0] * half[0], np.arctan2(unit[1], unit[0]) * wide)
        return side, u, np.where(cap, unit[1] * half[1], unit[2] * half[2])

    def _albedo(self, material, u, v, footprint) -> np.ndarray:
        albedo = np.empty((3, len(material)), np.float32)
        kinds = _of(self.texture, material)
        for index, name in enumerate(TEXTURES):
            chosen = np.flatnonzero(kinds == index)
            if len(chosen):
                m = material[chosen]
                colour = texture_colour(
                    name,
                    u[chosen],
                    v[chosen],
                    *_of(self.look[:2], m),
                    footprint[chosen],
                    _of(self.first, m),
                    _of(self.second, m),
                )
                for channel, values in zip(albedo, colour, strict=True):
                    channel[chosen] = values
        return albedo

    def shade(self, winner, position, eye, footprint) -> tuple[np.ndarray, np.ndarray]:
        """Return the linear colours (3, n) of points and a number per flat face (n,).

        Shape:
            winner (n,): rows of the table; position (3, n), eye (3,): world metres.
            footprint (n,): width of a pixel on the surface, metres.
        """
        winner = winner.astype(np.intp)
        material, normal, u, v, face = self._surface(winner, position, eye)
        albedo = self._albedo(material, u, v, footprint)
        to_light = self.light[:, None] - position
        square = _dot(to_light, to_light)
        to_light /= np.sqrt(square)
        lit = self._lit(position, normal)
        light = np.maximum(_dot(normal, to_light), 0) * lit * (self.power / (square + 0.8)) * self.lamp
        for number, (spot, inward, area) in enumerate(self.windows):
            ray = spot[:, None] - position
            far = _dot(ray, ray) + 0.1
            ray /= np.sqrt(far)
            facing = np.maximum(_dot(normal, ray) * 0.8 + 0.2, 0) * np.maximum(-(inward @ ray), 0)
            share = self._window_lit(number, position, normal, lit)
            light += facing * (1.5 * area / (3.1 * far + area)) * share * self.day
        up = 0.5 + 0.5 * normal[2]
        ambient = self.lighting.bounced * (self.bounce[:, None] * (1 - up) + (0.42 * up + 0.1))
        light += ambient * (0.8 * self._corner_shade(position, normal))
        gloss, emission = _of(self.look[2:], material)
        light += emission * 1.2
        return albedo * light + self._highlight(position, normal, to_light, eye) * gloss * lit, face

    @staticmethod
    def _highlight(position, normal, to_light, eye) -> np.ndarray:
        to_eye = eye[:, None] - position
        middle = to_eye / np.sqrt(_dot(to_eye, to_eye)) + to_light
        shine = np.maximum(_dot(normal, middle), 0) ** 2 / _dot(middle, middle)
        shine = shine**2
        shine *= shine  # cosine to the 8th
        high = shine**2
        return 0.5 * shine * high * high

    def _window_lit(self, number: int, position, normal, lit) -> np.ndarray:
        """Return the share of a window's light at points, guessed by the lamp's shadow."""
        return 0.45 + 0.55 * lit

    def _corner_shade(self, position, normal) -> np.ndarray:
        """Return the share of bounced light, less in corners and just above the floor."""
        gap = self.half[:, :1] + np.float32(0.02) - np.abs(position - self.center[:, :1])
        gap += np.where(np.abs(normal) > 0.7, np.float32(9), np.float32(0))
        near = np.exp(gap * np.float32(-4.5)).sum(axis=0)
        return 1 - 0.42 * np.minimum(near, 1.3)
