"""Layout of furniture: rooms as people furnish them, with nothing inside anything else."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from processing.rooms.scene.furniture import FLOOR_PIECES, Piece, Support
from processing.rooms.scene.loft_furniture import LOFT_PIECES
from processing.rooms.scene.meshes import Mesh
from processing.rooms.scene.palette import COLOURS, pick
from processing.rooms.scene.primitives import Primitive, bounds, moved, yaw_matrix
from processing.rooms.scene.shell import WALL_YAWS, Shell, build_shell, rug, wall_point
from processing.rooms.scene.small_things import CEILING_PIECES, TOP_PIECES, WALL_PIECES
from processing.rooms.scene.styles import LOFT, Style

__all__ = ["COUNTABLE", "DRAWN", "Furnishing", "Room", "RoomObject", "build_room", "rectangles_overlap"]

# Kinds a room is built around. Each room holds, and shows, a planned 0 to 4 of one kind, so counts are spread evenly.
COUNTABLE = ("chair", "stool", "plant", "basket", "picture", "armchair", "pendant", "ball")

_THEMES = {
    "living": (
        "sofa:wall",
        "table:front",
        "cabinet:wall",
        "armchair:free",
        "bookshelf:wall",
        "lamp:wall",
        "plant:wall",
    ),
    "dining": ("table:free", "chair:around", "chair:around", "cabinet:wall", "bench:wall", "plant:wall", "lamp:wall"),
    "bedroom": (
        "bed:wall",
        "wardrobe:wall",
        "cabinet:wall",
        "chair:wall",
        "armchair:free",
        "basket:wall",
        "lamp:wall",
    ),
    "office": (
        "desk:wall",
        "chair:front",
        "bookshelf:wall",
        "cabinet:wall",
        "table:free",
        "stool:free",
        "basket:wall",
    ),
    "studio": ("bed:wall", "sofa:free", "table:free", "stool:free", "bookshelf:wall", "desk:wall", "plant:wall"),
}
_GAP = 0.04  # metres between footprints
_SMALL = ("vase", "box", "vase", "box", "picture", "picture", "clock", "shelf", "pendant", "pendant")
_Makers = Mapping[str, Callable[[np.random.Generator, str, Style], Piece]]


@dataclass(frozen=True)
class Furnishing:
    """Makers of pieces by kind and place, themes of rooms, and small things.

    `floor` makes what stands on the floor, `top`, `wall` and `ceiling` the rest. An entry of a theme is
    "kind:how it is placed". A kind of `small` is placed by where it is made for, tops first.
    """

    floor: _Makers
    top: _Makers
    wall: _Makers
    ceiling: _Makers
    themes: Mapping[str, Sequence[str]]
    small: Sequence[str]


# The lamps of drawn rooms are small ones, on the floor too.
DRAWN = Furnishing({**FLOOR_PIECES, **TOP_PIECES}, TOP_PIECES, WALL_PIECES, CEILING_PIECES, _THEMES, _SMALL)
_LOFT = replace(DRAWN, floor={**DRAWN.floor, **LOFT_PIECES})


@dataclass
class RoomObject:
    """A placed piece; its parts are in the world frame.

    `footprint` (4, 2) is its oriented rectangle on the floor, metres. `place` is "floor", "top", "wall" or "ceiling".
    `support_id` is the object it stands on, 0 for none.
    """

    id: int
    category: str
    colour: str
    feature: str
    parts: list[Primitive]
    footprint: np.ndarray
    place: str
    low: np.ndarray
    high: np.ndarray
    support_id: int = 0
    yaw: float = 0.0
    supports: list[Support] = field(default_factory=list)
    mesh: Mesh | None = None  # in place of parts, in the world frame

    @property
    def center(self) -> np.ndarray:
        """Middle of the axis-aligned box, world metres."""
        return (self.low + self.high) / 2

    @property
    def size(self) -> np.ndarray:
        """Full size of the axis-aligned box, metres."""
        return self.high - self.low


@dataclass
class Room:
    """Shell plus furniture; `featured` is the kind whose number was planned."""

    shell: Shell
    objects: list[RoomObject]
    extras: list[Primitive]
    featured: str

    @property
    def featured_objects(self) -> list[RoomObject]:
        """Pieces of the featured kind."""
        return [thing for thing in self.objects if thing.category == self.featured]

    @cached_property
    def featured_centers(self) -> np.ndarray:
        """Middles (k, 3) of the pieces of the featured kind, world metres."""
        return np.array([thing.center for thing in self.featured_objects]).reshape(-1, 3)

    @cached_property
    def centers(self) -> np.ndarray:
        """Middles (n, 3) of all objects, world metres."""
        return sum(self.boxes) / 2

    @cached_property
    def boxes(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest corners (n, 3) of all objects, world metres."""
        return np.array([thing.low for thing in self.objects]), np.array([thing.high for thing in self.objects])


def rectangles_overlap(a: np.ndarray, b: np.ndarray, margin: float = 0.0) -> bool:
    """Return whether two rectangles, corners (4, 2), come nearer than `margin` (metres)."""
    one, two = a.tolist(), b.tolist()  # plain numbers: of eight corners, an array takes five times as long
    (a_x, a_y), (a_end_x, a_end_y) = one[0], one[2]
    (b_x, b_y), (b_end_x, b_end_y) = two[0], two[2]
    reach = (math.hypot(a_end_x - a_x, a_end_y - a_y) + math.hypot(b_end_x - b_x, b_end_y - b_y)) / 2
    away = math.hypot(a_x + a_end_x - b_x - b_end_x, a_y + a_end_y - b_y - b_end_y) / 2
    if away > 1.415 * (reach + margin):  # along a side of either, middles are at least away / sqrt(2) apart
        return False
    for quad in (one, two):
        for (x, y), (end_x, end_y) in ((quad[0], quad[1]), (quad[1], quad[2])):
            length = max(math.hypot(end_x - x, end_y - y), 1e-9)
            across, up = (y - end_y) / length, (end_x - x) / length
            first = [px * across + py * up for px, py in one]
            second = [px * across + py * up for px, py in two]
            if max(first) + margin <= min(second) or max(second) + margin <= min(first):
                return False
    return True


def _footprint(low: np.ndarray, high: np.ndarray, yaw: float, offset: np.ndarray) -> np.ndarray:
    corners = np.array([[low[0], low[1], 0], [high[0], low[1], 0], [high[0], high[1], 0], [low[0], high[1], 0]])
    return (corners @ yaw_matrix(yaw).T + offset)[:, :2]


class _Builder:
    """Builder of one room, with the pieces placed so far."""

    def __init__(self, rng: np.random.Generator, style: Style, furnishing: Furnishing):
        self.rng, self.style, self.furnishing = rng, style, furnishing
        self.shell = build_shell(rng, style)
        self.objects: list[RoomObject] = []
        self.extras: list[Primitive] = []
        self._colours: dict[str, list[str]] = {}

    def colour(self, category: str) -> str:
        """Return the next colour of a kind: uniform for one piece, rarely equal for two."""
        if not self._colours.get(category):
            self._colours[category] = [str(c) for c in self.rng.permutation(COLOURS)]
        return self._colours[category].pop()

    def add(self, piece: Piece, yaw: float, offset, place: str, support_id: int = 0) -> RoomObject:
        low, high = piece.extent
        parts = moved(piece.parts, yaw, offset)
        mesh = piece.mesh.moved(yaw, offset) if piece.mesh else None
        low_world, high_world = mesh.bounds if mesh else bounds(parts)
        placed = RoomObject(
            id=len(self.objects) + 1,
            category=piece.category,
            colour=piece.colour,
            feature=piece.feature,
            parts=parts,
            footprint=_footprint(low, high, yaw, np.asarray(offset)),
            place=place,
            low=low_world,
            high=high_world,
            support_id=support_id,
            yaw=yaw,
            supports=piece.supports,
            mesh=mesh,
        )
        self.objects.append(placed)
        return placed

    def fits_on_floor(self, piece: Piece, yaw: float, offset: np.ndarray) -> bool:
        low, high = piece.extent
        quad = _footprint(low, high, yaw, offset)
        if (np.abs(quad) > np.array([self.shell.width, self.shell.depth]) / 2 - 0.019).any():
            return False
        for other in self.objects:
            if other.low[2] < high[2] + _GAP and rectangles_overlap(quad, other.footprint, _GAP):
                return False
        return not any(high[2] >= least and rectangles_overlap(quad, zone) for least, zone in self.kept_free)

    @cached_property
    def kept_free(self) -> list[tuple[float, np.ndarray]]:
        """Zones (4, 2) before doors and windows, with the least height (metres) that they keep out."""
        zones = []
        for opening in self.shell.openings:
            reach = 0.75 if opening.is_door else 0.3
            mid = sum(opening.along) / 2
            half = (opening.along[1] - opening.along[0]) / 2
            corners = [(mid - half, 0), (mid + half, 0), (mid + half, reach), (mid - half, reach)]
            zone = np.array([wall_point(self.shell, opening.wall, u, inward, 0)[:2] for u, inward in corners])
            zones.append((-np.inf if opening.is_door else opening.z[0] - 0.1, zone))
        return zones

    def place_on_floor(self, category: str, mode: str) -> RoomObject | None:
        piece = self.furnishing.floor[category](self.rng, self.colour(category), self.style)
        for _ in range(14):
            spot = self.draw_spot(piece, mode)
            if spot is not None and self.fits_on_floor(piece, *spot):
                return self.add(piece, *spot, "floor")
        return None

    def draw_spot(self, piece: Piece, mode: str) -> tuple[float, np.ndarray] | None:
        rng, shell = self.rng, self.shell
        low, high = piece.extent
        if mode == "wall":
            wall = int(rng.integers(4))
            slack = (shell.wall_length(wall) - (high[0] - low[0])) / 2 - 0.05
            if slack <= 0:
                return None
            along = rng.uniform(-slack, slack)
            if rng.random() < 0.25:
                along = slack * pick(rng, (-1, 1))
            return WALL_YAWS[wall], wall_point(shell, wall, along, high[1] + rng.uniform(0.025, 0.06), 0)
        if mode == "around" or mode == "front":
            anchors = [
                o for o in self.objects if o.category in (("table", "desk") if mode == "around" else ("desk", "sofa"))
            ]
            if anchors:
                return self.beside(piece, pick(rng, anchors), mode)
        yaw = pick(rng, WALL_YAWS) + rng.normal(0, 0.25)
        area = np.array([shell.width, shell.depth]) / 2 - 0.7
        return yaw, np.array([*rng.uniform(-area, area), 0.0])

    def beside(self, piece: Piece, anchor: RoomObject, mode: str) -> tuple[float, np.ndarray]:
        """Draw a spot at an open side of an anchor, facing it."""
        rng = self.rng
        low, high = piece.extent
        side = 0.0 if mode == "front" else pick(rng, (0.0, np.pi / 2, np.pi, -np.pi / 2))
        turn = yaw_matrix(anchor.yaw + side)
        frame = (anchor.footprint - anchor.center[:2]) @ turn[:2, :2]
        reach, half = -frame[:, 1].min(), np.abs(frame[:, 0]).max()
        gap = rng.uniform(0.35, 0.6) if piece.category == "table" else rng.uniform(0.05, 0.2)
        sideways = rng.uniform(-1, 1) * max(0.0, half - 0.3) * (0.3 if mode == "front" else 1.0)
        # The piece stands in front of the anchor (its -y side) and looks back at it.
        offset = np.array([*anchor.center[:2], 0.0]) + turn @ np.array([sideways, -reach - gap + low[1], 0.0])
        return anchor.yaw + side + np.pi + rng.normal(0, 0.12), offset

    def place_on_top(self, category: str) -> RoomObject | None:
        rng = self.rng
        hosts = [(o, s) for o in self.objects for s in o.supports]
        if not hosts:
            return self.place_on_floor(category, "free")
        for _ in range(8):
            host, support = pick(rng, hosts)
            piece = self.furnishing.top[category](rng, self.colour(category), self.style)
            low, high = piece.extent
            room_x, room_y = np.subtract(support.x[1], high[0]), np.subtract(support.y[1], high[1])
            if room_x <= 0.02 or room_y <= 0.02 or support.z + high[2] > self.shell.height - 0.2:
                continue
            local = np.array([rng.uniform(-room_x, room_x), rng.uniform(-room_y, room_y), support.z])
            turn = yaw_matrix(host.yaw)
            origin = np.array([*host.footprint.mean(axis=0), 0.0])
            spot = origin + turn @ local
            quad = _footprint(low, high, host.yaw, spot)
            if not self.hits_in_space(quad, support.z + 0.001, support.z + high[2], skip=host.id):
                return self.add(piece, host.yaw, spot, "top", host.id)
        return None

    def hits_in_space(self, quad: np.ndarray, low: float, high: float, skip: int = 0) -> bool:
        return any(
            o.id != skip
            and o.low[2] < high + _GAP
            and o.high[2] > low - _GAP
            and rectangles_overlap(quad, o.footprint, _GAP)
            for o in self.objects
        )

    def place_on_wall(self, category: str) -> RoomObject | None:
        rng, shell = self.rng, self.shell
        piece = self.furnishing.wall[category](rng, self.colour(category), self.style)
        low, high = piece.extent
        for _ in range(14):
            wall = int(rng.integers(4))
            slack = (shell.wall_length(wall) - (high[0] - low[0])) / 2 - 0.15
            z = rng.uniform(1.25, 1.75) if category != "clock" else rng.uniform(1.6, 2.0)
            if slack <= 0 or z + high[2] > shell.height - 0.1:
                continue
            along = rng.uniform(-slack, slack)
            clash = [o for o in shell.openings if o.wall == wall]
            if any(along + high[0] > o.along[0] - 0.3 and along + low[0] < o.along[1] + 0.3 for o in clash):
                continue
            spot = wall_point(shell, wall, along, 0.001, z)
            quad = _footprint(low, high, WALL_YAWS[wall], spot)
            if not self.hits_in_space(quad, z + low[2], z + high[2]):
                return self.add(piece, WALL_YAWS[wall], spot, "wall")
        return None

    def place_on_ceiling(self, category: str) -> RoomObject | None:
        rng, shell = self.rng, self.shell
        piece = self.furnishing.ceiling[category](rng, self.colour(category), self.style)
        low, _ = piece.extent
        area = np.array([shell.width, shell.depth]) / 2 - 0.8
        for _ in range(14):
            spot = np.array([*rng.uniform(-area, area), shell.height - 0.001])
            quad = _footprint(*piece.extent, 0.0, spot)
            far = np.hypot(*(spot[:2] - shell.light[:2])) > 0.6
            if (
                far
                and shell.height + low[2] > 1.5
                and not self.hits_in_space(quad, shell.height + low[2], shell.height)
            ):
                return self.add(piece, 0.0, spot, "ceiling")
        return None

    def place(self, category: str, mode: str = "wall") -> RoomObject | None:
        if category in self.furnishing.wall:
            return self.place_on_wall(category)
        if category in self.furnishing.ceiling:
            return self.place_on_ceiling(category)
        if mode == "top" or category in ("vase", "box"):
            return self.place_on_top(category)
        return self.place_on_floor(category, mode)


def build_room(
    rng: np.random.Generator, featured: str, number: int, style: Style, furnishing: Furnishing | None = None
) -> Room | None:
    """Draw a room with exactly `number` `featured` pieces, or None if they do not fit.

    Args:
        rng: Generator of this room.
        featured: Kind of `COUNTABLE` whose number is planned.
        number: Pieces of that kind.
        style: Look of walls, floor and drawn pieces.
        furnishing: Makers of pieces, and themes. Default: drawn pieces of the style.
    """
    builder = _Builder(rng, style, furnishing or (_LOFT if style is LOFT else DRAWN))
    themes = builder.furnishing.themes
    theme = themes[pick(rng, list(themes))]
    plan = [entry for entry in theme if entry.split(":")[0] != featured]
    first, rest = plan[0], [plan[i] for i in rng.permutation(np.arange(1, len(plan)))[: int(rng.integers(3, 6))]]
    builder.place(*first.split(":"))
    modes = {"chair": "around", "armchair": "free", "stool": "free", "ball": "free"}
    for _ in range(number):
        if builder.place(featured, modes.get(featured, "wall")) is None:
            return None
    twins = ("cabinet", "chair", "stool", "lamp", "table", "armchair", "basket", "ball")
    for entry in [*rest, f"{pick(rng, twins)}:free", f"{pick(rng, rest).split(':')[0]}:wall"]:
        if entry.split(":")[0] != featured:
            builder.place(*entry.split(":"))
    small = builder.furnishing.small
    for index in rng.permutation(len(small))[: int(rng.integers(5, 9))]:
        if small[index] != featured:
            builder.place(small[index], "top" if small[index] in builder.furnishing.top else "wall")
    if rng.random() < 0.6:
        builder.extras.append(rug(rng, rng.uniform(-0.6, 0.6, 2), pick(rng, (0.0, np.pi / 2)) + rng.normal(0, 0.06)))
    return Room(builder.shell, builder.objects, builder.extras, featured)
