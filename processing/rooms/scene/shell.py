"""The room itself: walls, floor, ceiling, one door, windows, skirting boards, rug."""

from dataclasses import dataclass

import numpy as np

from processing.rooms.scene.palette import METAL, pick, shade
from processing.rooms.scene.primitives import Material, Primitive, box, moved, yaw_matrix
from processing.rooms.scene.styles import Style

__all__ = ["WALL_YAWS", "Lighting", "Opening", "Shell", "build_planned_shell", "build_shell", "rug", "wall_point"]

# Yaw that turns a piece's back (+y) towards the wall: walls at +y, -x, -y, +x.
WALL_YAWS = (0.0, np.pi / 2, np.pi, -np.pi / 2)

_WHITE = (0.93, 0.92, 0.89)


@dataclass(frozen=True)
class Opening:
    """Door or window: wall number, interval along the wall and height interval, metres."""

    wall: int
    along: tuple[float, float]
    z: tuple[float, float]
    is_door: bool


@dataclass(frozen=True)
class Lighting:
    """Gains of lamp, daylight and bounced light, and the tint of the lamp."""

    lamp: float = 1.0
    day: float = 1.0
    bounced: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Shell:
    """Empty room centred on the origin, floor at z = 0.

    `faces` are the materials of -x, +x, -y, +y, floor, ceiling; `light` is the place of the lamp.
    """

    width: float
    depth: float
    height: float
    openings: list[Opening]
    parts: list[Primitive]
    faces: list[Material]
    light: np.ndarray
    lighting: Lighting = Lighting()

    def wall_length(self, wall: int) -> float:
        """Length of a wall in metres."""
        return self.width if wall % 2 == 0 else self.depth

    def wall_distance(self, wall: int) -> float:
        """Distance of a wall from the origin in metres."""
        return self.depth / 2 if wall % 2 == 0 else self.width / 2


def wall_point(shell: Shell, wall: int, along: float, inward: float, z: float) -> np.ndarray:
    """Return the world point (3,) `along` metres from a wall's middle, `inward` metres off it."""
    turn = yaw_matrix(WALL_YAWS[wall])
    return turn @ np.array([along, shell.wall_distance(wall) - inward, z])


def _wall_material(rng: np.random.Generator, colour, style: Style) -> Material:
    texture = pick(rng, style.wall_textures)
    second = shade(colour, 0.97 if texture == "plaster" else 0.93)
    return Material(colour, texture, second, rng.uniform(0.15, 0.35), seed=rng.uniform(0, 50))


def _faces(rng: np.random.Generator, style: Style) -> list[Material]:
    base = _wall_material(rng, pick(rng, style.walls), style)
    faces = [base] * 4
    if rng.random() < style.accent_share:
        accent = int(rng.integers(4))
        if rng.random() < style.brick_share:
            faces[accent] = Material((0.66, 0.42, 0.33), "brick", (0.80, 0.76, 0.70), 0.24, seed=rng.uniform(0, 50))
        else:
            faces[accent] = _wall_material(rng, pick(rng, style.accents), style)
    tone = pick(rng, style.floors)
    kind = pick(rng, style.floor_kinds)
    if kind == "planks":
        floor = Material(tone, "planks", shade(tone, 0.7), rng.uniform(0.12, 0.2), 0.25, seed=rng.uniform(0, 50))
    elif kind == "tiles":
        stone = pick(rng, style.stones)
        floor = Material(stone, "tiles", shade(stone, 0.75), rng.uniform(0.3, 0.5), 0.35, seed=rng.uniform(0, 50))
    else:
        wool = pick(rng, style.wools)
        floor = Material(wool, "fabric", shade(wool, 0.82), 0.03, seed=rng.uniform(0, 50))
    return [*faces, floor, Material((0.95, 0.95, 0.93), "plaster", (0.92, 0.92, 0.9), 0.5)]


def _turned(parts: list[Primitive], shell: Shell, wall: int, along: float) -> list[Primitive]:
    turn = yaw_matrix(WALL_YAWS[wall])
    offset = turn @ np.array([along, shell.wall_distance(wall), 0.0])
    return moved(parts, WALL_YAWS[wall], offset)


def _door_parts(rng: np.random.Generator, width: float, height: float) -> list[Primitive]:
    tone = pick(rng, (_WHITE, (0.72, 0.56, 0.40), (0.50, 0.36, 0.24), (0.70, 0.74, 0.74)))
    leaf, inset, frame = (
        Material(tone, "wood", shade(tone, 0.9), 0.08, 0.2),
        Material(shade(tone, 0.9)),
        Material(_WHITE),
    )
    parts = [box((0, -0.015, height / 2), (width, 0.03, height), leaf)]
    for x in (-width / 4, width / 4):
        for low, high in ((0.12, 0.45), (0.52, 0.93)):
            parts.append(
                box((x, -0.03, height * (low + high) / 2), (width * 0.34, 0.012, height * (high - low)), inset)
            )
    parts += [box((s * (width / 2 + 0.04), -0.03, height / 2), (0.08, 0.06, height), frame) for s in (-1, 1)]
    parts.append(box((0, -0.03, height + 0.04), (width + 0.16, 0.06, 0.08), frame))
    parts.append(box((width * 0.4, -0.06, height * 0.48), (0.12, 0.04, 0.03), METAL))
    return parts


def _window_parts(rng: np.random.Generator, width: float, low: float, high: float) -> list[Primitive]:
    frame, middle = Material(_WHITE, gloss=0.2), (low + high) / 2
    sky = Material((0.55, 0.75, 0.95), "sky", (0.97, 0.98, 1.0), high - low, emission=0.75, seed=rng.uniform(0, 50))
    parts = [box((0, -0.006, middle), (width, 0.012, high - low), sky)]
    parts += [box((s * width / 2, -0.025, middle), (0.07, 0.05, high - low + 0.07), frame) for s in (-1, 1)]
    parts += [box((0, -0.025, z), (width + 0.07, 0.05, 0.07), frame) for z in (low, high)]
    parts.append(box((0, -0.02, middle), (0.04, 0.04, high - low), frame))
    if rng.random() < 0.5:
        parts.append(box((0, -0.02, low + (high - low) * 0.62), (width, 0.04, 0.035), frame))
    parts.append(box((0, -0.08, low - 0.05), (width + 0.2, 0.16, 0.035), frame))
    if rng.random() < 0.5:
        tone = pick(rng, ((0.86, 0.82, 0.74), (0.62, 0.66, 0.70), (0.75, 0.63, 0.55)))
        cloth = Material(tone, "stripes", shade(tone, 0.86), 0.07)
        parts += [
            box((s * (width / 2 + 0.1), -0.07, middle - 0.05), (0.26, 0.07, high - low + 0.5), cloth) for s in (-1, 1)
        ]
        parts.append(box((0, -0.07, high + 0.21), (width + 0.55, 0.03, 0.03), METAL))
    return parts


def _free_interval(
    rng: np.random.Generator, length: float, width: float, taken: list[tuple[float, float]]
) -> float | None:
    for _ in range(8):
        if length / 2 - width / 2 - 0.3 <= 0:
            return None
        at = rng.uniform(-1, 1) * (length / 2 - width / 2 - 0.3)
        if all(at + width / 2 + 0.3 < a or at - width / 2 - 0.3 > b for a, b in taken):
            return float(at)
    return None


def build_shell(rng: np.random.Generator, style: Style) -> Shell:
    """Draw an empty room with its door and windows."""
    width, depth, height = (rng.uniform(*side) for side in (style.width, style.depth, style.height))
    light = np.array([rng.uniform(-0.15, 0.15) * width, rng.uniform(-0.15, 0.15) * depth, height - 0.12])
    shell = Shell(width, depth, height, [], [], _faces(rng, style), light)
    shell.parts.append(_ceiling_lamp(light))
    walls = [int(w) for w in rng.permutation(4)]
    door_width, door_height = rng.uniform(0.8, 0.95), rng.uniform(1.98, 2.1)
    plans = [(walls[0], door_width, (0.0, door_height), True)]
    for wall in [walls[1]] + ([walls[2]] if rng.random() < 0.6 else []):
        low = rng.uniform(0.8, 1.05)
        plans.append((wall, rng.uniform(0.9, 1.9), (low, min(height - 0.3, low + rng.uniform(1.0, 1.3))), False))
    for wall, size, z, is_door in plans:
        taken = [o.along for o in shell.openings if o.wall == wall]
        at = _free_interval(rng, shell.wall_length(wall), size, taken)
        if at is None:
            continue
        _open(rng, shell, wall, at, size, z, is_door)
    shell.parts.extend(_skirting(shell))
    return shell


def build_planned_shell(
    rng: np.random.Generator,
    style: Style,
    size: tuple[float, float, float],
    plans: list[tuple[int, float, float, tuple[float, float], bool]],
) -> Shell:
    """Draw the looks of an empty room whose sizes and openings are known.

    Args:
        rng: Generator of the looks and of the lamp's place.
        style: Style of the room.
        size: Width, depth and height, metres.
        plans: Wall, place along it, width, height interval and whether it is a door, of each opening; metres.
    """
    width, depth, height = size
    light = np.array([rng.uniform(-0.15, 0.15) * width, rng.uniform(-0.15, 0.15) * depth, height - 0.12])
    shell = Shell(width, depth, height, [], [], _faces(rng, style), light)
    shell.parts.append(_ceiling_lamp(light))
    for plan in plans:
        _open(rng, shell, *plan)
    shell.parts.extend(_skirting(shell))
    return shell


def _open(
    rng: np.random.Generator,
    shell: Shell,
    wall: int,
    at: float,
    size: float,
    z: tuple[float, float],
    is_door: bool,
) -> None:
    """Put a door or window into a wall."""
    shell.openings.append(Opening(wall, (at - size / 2 - 0.1, at + size / 2 + 0.1), z, is_door))
    parts = _door_parts(rng, size, z[1]) if is_door else _window_parts(rng, size, *z)
    shell.parts.extend(_turned(parts, shell, wall, at))


def _ceiling_lamp(light: np.ndarray) -> Primitive:
    glow = Material((1.0, 0.97, 0.9), emission=1.0)
    return box((light[0], light[1], light[2] + 0.1), (0.34, 0.34, 0.04), glow)


def _skirting(shell: Shell) -> list[Primitive]:
    parts, board = [], Material(_WHITE)
    for wall in range(4):
        ends = [-shell.wall_length(wall) / 2, shell.wall_length(wall) / 2]
        doors = [o.along for o in shell.openings if o.wall == wall and o.is_door]
        cuts = sorted([ends[0], *(x for d in doors for x in d), ends[1]])
        for start, end in zip(cuts[::2], cuts[1::2], strict=True):
            bar = box(((start + end) / 2, -0.0075, 0.045), (end - start, 0.015, 0.09), board)
            parts.extend(_turned([bar], shell, wall, 0.0))
    return parts


def rug(rng: np.random.Generator, center: np.ndarray, yaw: float) -> Primitive:
    """Build a rug on the floor, part of the room rather than furniture."""
    tone = pick(
        rng, ((0.60, 0.32, 0.28), (0.35, 0.42, 0.52), (0.78, 0.72, 0.62), (0.42, 0.48, 0.40), (0.55, 0.50, 0.55))
    )
    material = Material(tone, "rug", pick(rng, ((0.88, 0.84, 0.76), shade(tone, 0.6), shade(tone, 1.4))), 0.25)
    size = (rng.uniform(1.4, 2.4), rng.uniform(1.0, 1.7), 0.012)
    return box((center[0], center[1], 0.006), size, material, yaw)
