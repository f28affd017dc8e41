"""Furniture that stands on the floor, each piece built of several solids.

Local frame of a piece: origin on the floor in the middle of its footprint, front towards -y, back towards +y, z up,
metres.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from processing.rooms.scene.meshes import Mesh
from processing.rooms.scene.palette import (
    DARK_METAL,
    METAL,
    named_colour,
    painted,
    pick,
    plain_wood,
    shade,
    upholstered,
)
from processing.rooms.scene.primitives import Material, Primitive, ball, bounds, box, cylinder
from processing.rooms.scene.styles import Style

__all__ = ["FLOOR_PIECES", "Piece", "Support"]


@dataclass(frozen=True)
class Support:
    """Flat top for small things: height and a rectangle in the local frame, metres."""

    z: float
    x: tuple[float, float]
    y: tuple[float, float]


@dataclass
class Piece:
    """Finished piece of furniture; `feature` completes "a red chair ..." or is empty."""

    category: str
    colour: str
    parts: list[Primitive]
    feature: str = ""
    supports: list[Support] = field(default_factory=list)
    mesh: Mesh | None = None  # in place of parts

    @cached_property
    def extent(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds over all parts in the local frame, two arrays (3,), metres."""
        return self.mesh.bounds if self.mesh else bounds(self.parts)


def _four_legs(
    w: float, d: float, height: float, thick: float, material: Material, round_legs: bool
) -> list[Primitive]:
    x, y = w / 2 - thick / 2 - 0.01, d / 2 - thick / 2 - 0.01
    spots = [(sx * x, sy * y, height / 2) for sx in (-1, 1) for sy in (-1, 1)]
    if round_legs:
        return [cylinder(s, (thick / 2, thick / 2), height, material, bottom=0.7) for s in spots]
    return [box(s, (thick, thick, height), material) for s in spots]


def chair(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Dining or office chair: four legs or one column on a foot."""
    main = named_colour(rng, colour, style)
    w, d, seat, back = (
        rng.uniform(0.40, 0.54),
        rng.uniform(0.40, 0.54),
        rng.uniform(0.40, 0.50),
        rng.uniform(0.34, 0.60),
    )
    cloth = upholstered(rng, main, style) if rng.random() < 0.5 else painted(rng, main, style)
    parts = [box((0, 0, seat - 0.03), (w, d, 0.06), cloth)]
    if rng.random() < 0.3:
        parts += [
            cylinder((0, 0, seat / 2), (0.03, 0.03), seat - 0.06, METAL),
            cylinder((0, 0, 0.025), (0.22, 0.22), 0.05, DARK_METAL, top=0.4),
            box((0, d / 2 - 0.035, seat + back * 0.6), (w * 0.9, 0.06, back * 0.8), cloth),
            box((0, d / 2 - 0.02, seat + back * 0.12), (0.07, 0.03, back * 0.3), DARK_METAL),
        ]
        return Piece("chair", colour, parts, "with one leg")
    legs = painted(rng, main, style) if rng.random() < 0.5 else plain_wood(rng, style)
    parts += _four_legs(w, d, seat - 0.06, 0.045, legs, rng.random() < 0.4)
    posts = [box((s * (w / 2 - 0.025), d / 2 - 0.025, seat + back / 2), (0.045, 0.04, back), legs) for s in (-1, 1)]
    if rng.random() < 0.5:
        slats = int(rng.integers(2, 4))
        heights = np.linspace(0.3, 0.9, slats) * back + seat
        parts += posts + [box((0, d / 2 - 0.03, z), (w - 0.08, 0.03, 0.1), cloth) for z in heights]
        return Piece("chair", colour, parts, f"with {('two', 'three')[slats - 2]} slats")
    parts += posts + [box((0, d / 2 - 0.035, seat + back * 0.58), (w - 0.06, 0.045, back * 0.84), cloth)]
    return Piece("chair", colour, parts, "with four legs")


def armchair(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Upholstered seat for one with two arms."""
    return _padded_seat(rng, colour, style, "armchair", rng.uniform(0.72, 0.95), 1)


def sofa(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Upholstered seat for two or three."""
    cushions = int(rng.integers(2, 4))
    return _padded_seat(rng, colour, style, "sofa", rng.uniform(0.62, 0.76) * cushions + 0.3, cushions)


def _padded_seat(
    rng: np.random.Generator, colour: str, style: Style, category: str, width: float, cushions: int
) -> Piece:
    main = named_colour(rng, colour, style)
    cloth, soft = upholstered(rng, main, style), upholstered(rng, shade(main, 1.12), style)
    d, seat, back, arm = (
        rng.uniform(0.74, 0.92),
        rng.uniform(0.38, 0.46),
        rng.uniform(0.32, 0.48),
        rng.uniform(0.12, 0.2),
    )
    feet = plain_wood(rng, style)
    parts = [
        box((0, 0.02, 0.07 + (seat - 0.2) / 2), (width, d - 0.04, seat - 0.2), cloth),
        box((0, d / 2 - 0.1, (seat + back + 0.07) / 2), (width, 0.2, seat + back - 0.07), cloth),
    ]
    parts += [
        cylinder((sx * (width / 2 - 0.08), sy * (d / 2 - 0.1), 0.035), (0.03, 0.03), 0.07, feet)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    top = seat + rng.uniform(0.1, 0.2)
    for s in (-1, 1):
        parts.append(box((s * (width - arm) / 2, -0.09, 0.07 + (top - 0.07) / 2), (arm, d - 0.2, top - 0.07), cloth))
        if rng.random() < 0.5 or s < 0:
            parts.append(cylinder((s * (width - arm) / 2, -0.09, top), (arm / 2, arm / 2), d - 0.2, cloth, axis="y"))
    inner = (width - 2 * arm) / cushions
    for i in range(cushions):
        x = -width / 2 + arm + inner * (i + 0.5)
        parts.append(box((x, -0.1, seat - 0.07), (inner - 0.015, d - 0.2, 0.14), soft))
        parts.append(box((x, d / 2 - 0.25, seat + back * 0.45), (inner - 0.02, 0.12, back * 0.85), soft))
    if rng.random() < 0.5:
        tone = pick(rng, ((0.80, 0.74, 0.66), (0.58, 0.60, 0.60), (0.68, 0.58, 0.52)))
        x = (width / 2 - arm - 0.17) * pick(rng, (-1, 1)) if cushions > 1 else 0.0
        parts.append(
            box(
                (x, d / 2 - 0.36, seat + 0.15),
                (0.3, 0.1, 0.28),
                upholstered(rng, tone, style),
                yaw=rng.uniform(-0.2, 0.2),
            )
        )
    return Piece(category, colour, parts, f"with {('one seat', 'two seats', 'three seats')[cushions - 1]}")


def stool(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Low or bar stool."""
    main = named_colour(rng, colour, style)
    r, h = rng.uniform(0.16, 0.25), rng.uniform(0.38, 0.78)
    seat = painted(rng, main, style)
    parts = [cylinder((0, 0, h - 0.03), (r, r), 0.06, seat)]
    if rng.random() < 0.4:
        parts += [
            cylinder((0, 0, h / 2), (0.035, 0.035), h - 0.08, METAL),
            cylinder((0, 0, 0.02), (r, r), 0.04, METAL, top=0.5),
        ]
        return Piece("stool", colour, parts, "with one leg")
    legs = painted(rng, main, style) if rng.random() < 0.5 else plain_wood(rng, style)
    for angle in np.arange(3) * 2 * np.pi / 3:
        x, y = 0.75 * r * np.cos(angle), 0.75 * r * np.sin(angle)
        parts.append(cylinder((x, y, (h - 0.06) / 2), (0.022, 0.022), h - 0.06, legs, bottom=0.8))
    parts.append(cylinder((0, 0, h * 0.35), (0.7 * r, 0.7 * r), 0.025, legs))
    return Piece("stool", colour, parts, "with three legs")


def bench(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Long backless seat."""
    main = painted(rng, named_colour(rng, colour, style), style)
    w, d, h = rng.uniform(0.9, 1.5), rng.uniform(0.32, 0.42), rng.uniform(0.40, 0.50)
    parts = [box((0, s * d / 4, h - 0.025), (w, d / 2 - 0.015, 0.05), main) for s in (-1, 1)]
    parts += [box((s * (w / 2 - 0.12), 0, (h - 0.05) / 2), (0.06, d - 0.04, h - 0.05), main) for s in (-1, 1)]
    parts.append(box((0, 0, h * 0.35), (w - 0.3, 0.05, 0.06), main))
    return Piece("bench", colour, parts, "with two legs", [Support(h, (-w / 2, w / 2), (-d / 2, d / 2))])


def table(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Dining or coffee table, square or round."""
    main = named_colour(rng, colour, style)
    top, low = painted(rng, main, style, 0.35), rng.random() < 0.35
    h = rng.uniform(0.36, 0.48) if low else rng.uniform(0.68, 0.80)
    if rng.random() < 0.35:
        r = rng.uniform(0.38, 0.62)
        parts = [
            cylinder((0, 0, h - 0.02), (r, r), 0.04, top),
            cylinder((0, 0, h / 2), (0.05, 0.05), h - 0.04, plain_wood(rng, style)),
            cylinder((0, 0, 0.025), (r * 0.6, r * 0.6), 0.05, top, top=0.6),
        ]
        side = r / np.sqrt(2)
        return Piece("table", colour, parts, "with a round top", [Support(h, (-side, side), (-side, side))])
    w, d = rng.uniform(0.8, 1.5), rng.uniform(0.55, 0.9)
    legs = painted(rng, main, style) if rng.random() < 0.5 else plain_wood(rng, style)
    parts = [
        box((0, 0, h - 0.02), (w, d, 0.04), top),
        *_four_legs(w, d, h - 0.04, rng.uniform(0.05, 0.08), legs, rng.random() < 0.3),
    ]
    parts += [box((0, s * (d / 2 - 0.06), h - 0.08), (w - 0.18, 0.025, 0.08), legs) for s in (-1, 1)]
    parts += [box((s * (w / 2 - 0.06), 0, h - 0.08), (0.025, d - 0.18, 0.08), legs) for s in (-1, 1)]
    return Piece("table", colour, parts, "with four legs", [Support(h, (-w / 2, w / 2), (-d / 2, d / 2))])


def desk(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Desk with drawers on one side."""
    main = named_colour(rng, colour, style)
    wood = painted(rng, main, style)
    w, d, h = rng.uniform(1.0, 1.5), rng.uniform(0.55, 0.75), rng.uniform(0.70, 0.80)
    side = pick(rng, (-1, 1))
    x = side * (w / 2 - 0.21)
    parts = [
        box((0, 0, h - 0.02), (w, d, 0.04), wood),
        box((x, 0.01, (h - 0.04) / 2 + 0.02), (0.38, d - 0.06, h - 0.08), wood),
        box((-side * (w / 2 - 0.03), 0, (h - 0.04) / 2), (0.04, d - 0.04, h - 0.04), wood),
        box((0, d / 2 - 0.04, h - 0.24), (w - 0.1, 0.025, 0.36), wood),
    ]
    drawers = int(rng.integers(2, 4))
    parts += _drawers(x, 0.38, -d / 2 + 0.04, 0.06, h - 0.05, drawers, shade(main, 1.1), rng, style)
    return Piece(
        "desk",
        colour,
        parts,
        f"with {('two', 'three')[drawers - 2]} drawers",
        [Support(h, (-w / 2, w / 2), (-d / 2, d / 2))],
    )


def _drawers(
    x: float, width: float, front: float, low: float, high: float, count: int, colour, rng, style: Style
) -> list[Primitive]:
    """Drawer fronts with knobs on the plane y = front."""
    face, parts = painted(rng, colour, style), []
    step = (high - low) / count
    for i in range(count):
        z = low + step * (i + 0.5)
        parts.append(box((x, front - 0.008, z), (width - 0.03, 0.02, step - 0.025), face))
        parts.append(box((x, front - 0.03, z), (min(0.16, width * 0.35), 0.025, 0.022), METAL))
    return parts


def bed(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Bed with headboard, mattress, blanket and pillows."""
    main = named_colour(rng, colour, style)
    w, d, h = rng.uniform(0.95, 1.7), rng.uniform(1.9, 2.1), rng.uniform(0.42, 0.58)
    frame, linen = painted(rng, main, style), Material((0.93, 0.92, 0.88), "fabric", (0.84, 0.83, 0.8), 0.03)
    board = rng.uniform(0.8, 1.15)
    parts = [
        box((0, 0, h * 0.35), (w, d, h * 0.3), frame),
        *_four_legs(w, d, h * 0.22, 0.08, frame, False),
        box((0, d / 2 - 0.03, board / 2), (w, 0.06, board), frame),
        box((0, -0.02, h * 0.5 + h * 0.22), (w - 0.06, d - 0.12, h * 0.45), linen),
        box((0, -0.3, h * 0.95 - 0.03), (w - 0.02, d * 0.66, 0.09), upholstered(rng, main, style)),
    ]
    pillows = 2 if w > 1.3 else 1
    for i in range(pillows):
        x = (i - (pillows - 1) / 2) * w * 0.46
        parts.append(ball((x, d / 2 - 0.32, h + 0.02), (0.3, 0.19, 0.08), linen))
    return Piece("bed", colour, parts, f"with {('one pillow', 'two pillows')[pillows - 1]}")


def bookshelf(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Open shelf with rows of books."""
    main = named_colour(rng, colour, style)
    wood = painted(rng, main, style)
    w, d, h = rng.uniform(0.6, 1.2), rng.uniform(0.26, 0.36), rng.uniform(1.0, 2.05)
    shelves = max(2, round(h / rng.uniform(0.34, 0.44)))
    step = (h - 0.03) / shelves
    parts = [box((s * (w / 2 - 0.0175), 0, h / 2), (0.035, d, h), wood) for s in (-1, 1)]
    parts.append(box((0, d / 2 - 0.01, h / 2), (w - 0.04, 0.02, h), painted(rng, shade(main, 0.75), style)))
    parts += [box((0, 0, 0.015 + i * step), (w - 0.03, d, 0.03), wood) for i in range(shelves + 1)]
    for i in range(shelves):
        wide = (w - 0.09) * rng.uniform(0.4, 0.98)
        tall = step * rng.uniform(0.55, 0.82)
        x = rng.uniform(-1, 1) * (w - 0.08 - wide) / 2
        books = Material(
            (0.55, 0.30, 0.24), "books", (0.28, 0.34, 0.42), rng.uniform(0.03, 0.05), seed=rng.uniform(0, 50)
        )
        parts.append(box((x, 0.02, 0.03 + i * step + tall / 2), (wide, d * 0.62, tall), books))
    names = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
    supports = [Support(h, (-w / 2, w / 2), (-d / 2, d / 2))] if h < 1.5 else []
    return Piece("bookshelf", colour, parts, f"with {names[shelves]} shelves", supports)


def cabinet(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Sideboard, dresser or night stand."""
    main = named_colour(rng, colour, style)
    w, d, h = rng.uniform(0.42, 1.5), rng.uniform(0.36, 0.5), rng.uniform(0.45, 1.0)
    wood, foot = painted(rng, main, style), rng.uniform(0.04, 0.14)
    parts = [
        box((0, 0.015, foot + (h - foot - 0.03) / 2), (w - 0.02, d - 0.03, h - foot - 0.03), wood),
        box((0, 0, h - 0.015), (w, d, 0.03), painted(rng, shade(main, 0.9), style, 0.35)),
        *_four_legs(w, d, foot, 0.05, plain_wood(rng, style), True),
    ]
    columns, rows = max(1, round(w / 0.5)), int(rng.integers(1, 4))
    for c in range(columns):
        x = -w / 2 + 0.01 + (w - 0.02) * (c + 0.5) / columns
        parts += _drawers(x, (w - 0.02) / columns, -d / 2 + 0.025, foot, h - 0.04, rows, shade(main, 1.08), rng, style)
    number = {1: "one door", 2: "two drawers", 3: "three drawers"}[rows] if columns == 1 else "many drawers"
    return Piece("cabinet", colour, parts, f"with {number}", [Support(h, (-w / 2, w / 2), (-d / 2, d / 2))])


def wardrobe(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Tall closed cupboard."""
    main = named_colour(rng, colour, style)
    doors = int(rng.integers(2, 4))
    w, d, h = rng.uniform(0.42, 0.55) * doors, rng.uniform(0.5, 0.62), rng.uniform(1.75, 2.15)
    wood, face = painted(rng, main, style), painted(rng, shade(main, 1.08), style)
    parts = [box((0, 0.01, h / 2), (w - 0.03, d - 0.04, h), wood), box((0, 0, h - 0.03), (w, d, 0.06), wood)]
    parts.append(box((0, 0, 0.04), (w, d, 0.08), wood))
    for i in range(doors):
        x = -w / 2 + 0.015 + (w - 0.03) * (i + 0.5) / doors
        parts.append(box((x, -d / 2 + 0.025, h / 2), ((w - 0.03) / doors - 0.015, 0.03, h - 0.2), face))
        parts.append(
            box((x + (w / doors / 2 - 0.06) * (1 if i % 2 == 0 else -1), -d / 2, h * 0.5), (0.02, 0.03, 0.2), METAL)
        )
    return Piece("wardrobe", colour, parts, f"with {('two', 'three')[doors - 2]} doors")


def lamp(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Floor lamp with a shade."""
    main = named_colour(rng, colour, style)
    h, r, tall = rng.uniform(1.2, 1.75), rng.uniform(0.16, 0.25), rng.uniform(0.24, 0.36)
    cover = Material(main, "fabric", shade(main, 0.88), 0.02, emission=0.18)
    pole = pick(rng, (METAL, DARK_METAL, plain_wood(rng, style)))
    parts = [
        cylinder((0, 0, 0.02), (0.15, 0.15), 0.04, pole, top=0.8),
        cylinder((0, 0, h / 2 - 0.05), (0.018, 0.018), h - 0.15, pole),
        cylinder((0, 0, h - tall / 2), (r, r), tall, cover, top=rng.uniform(0.55, 0.95)),
    ]
    return Piece("lamp", colour, parts, "with a round foot")


def plant(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Potted plant, green whatever `colour` asks for; its pot has no named colour."""
    tone = pick(rng, ((0.66, 0.46, 0.36), (0.60, 0.58, 0.55), (0.42, 0.40, 0.40), (0.76, 0.70, 0.62)))
    pot = Material(tone, "plain", gloss=0.3)
    r, h, tall = rng.uniform(0.12, 0.2), rng.uniform(0.2, 0.38), rng.uniform(0.4, 1.1)
    leaf = Material((0.16, 0.42, 0.16), "leaves", (0.38, 0.60, 0.24), 0.07, seed=rng.uniform(0, 50))
    stem = Material((0.36, 0.27, 0.16))
    parts = [
        cylinder((0, 0, h / 2), (r, r), h, pot, bottom=0.72),
        cylinder((0, 0, h - 0.01), (r * 0.9, r * 0.9), 0.03, Material((0.2, 0.14, 0.09))),
        cylinder((0, 0, h + tall * 0.3), (0.02, 0.02), tall * 0.6, stem),
    ]
    for angle in np.linspace(0, 2 * np.pi, int(rng.integers(5, 9)), endpoint=False):
        reach, z = r * rng.uniform(0.3, 1.0), h + tall * rng.uniform(0.3, 0.8)
        size = rng.uniform(0.55, 0.9) * r
        spot = (reach * np.cos(angle), reach * np.sin(angle), z)
        parts.append(ball(spot, (size * 1.3, size * 0.7, size * rng.uniform(0.8, 1.5)), leaf, yaw=angle))
    parts.append(ball((0, 0, h + tall * 0.85), (r * 0.8, r * 0.8, tall * 0.15 + 0.06), leaf))
    return Piece("plant", "green", parts, "in a pot")


def basket(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Round basket or bin."""
    main = named_colour(rng, colour, style)
    r, h = rng.uniform(0.14, 0.25), rng.uniform(0.24, 0.5)
    weave = Material(main, "weave", shade(main, 0.68), 0.05, seed=rng.uniform(0, 50))
    parts = [
        cylinder((0, 0, h / 2), (r, r), h, weave, bottom=0.8),
        cylinder((0, 0, h - 0.012), (r * 1.06, r * 1.06), 0.03, weave),
        cylinder((0, 0, h + 0.004), (r * 0.88, r * 0.88), 0.006, Material(shade(main, 0.25))),
    ]
    return Piece("basket", colour, parts, "with a round rim")


FLOOR_PIECES = {
    piece.__name__: piece
    for piece in (
        chair,
        armchair,
        sofa,
        stool,
        bench,
        table,
        desk,
        bed,
        bookshelf,
        cabinet,
        wardrobe,
        lamp,
        plant,
        basket,
    )
}
