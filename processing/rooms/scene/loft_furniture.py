"""Loft furniture: the same kinds, built of other solids, in the local frame of `furniture`."""

import numpy as np

from processing.rooms.scene.furniture import Piece, Support
from processing.rooms.scene.palette import named_colour, painted, plain_wood, shade, upholstered
from processing.rooms.scene.primitives import Material, ball, box, cylinder
from processing.rooms.scene.styles import Style

__all__ = ["LOFT_PIECES"]

BRASS = Material((0.70, 0.56, 0.28), gloss=0.7)


def chair(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Bent shell on two runners."""
    shell = painted(rng, named_colour(rng, colour, style), style, 0.5)
    w, d, seat, back = rng.uniform(0.44, 0.6), rng.uniform(0.44, 0.56), rng.uniform(0.38, 0.46), rng.uniform(0.4, 0.75)
    parts = [
        box((0, 0, seat - 0.04), (w, d, 0.08), shell),
        box((0, d / 2 - 0.04, seat + back / 2 - 0.04), (w, 0.08, back + 0.08), shell),
    ]
    for s in (-1, 1):
        parts += [
            box((s * (w / 2 - 0.05), y, seat / 2), (0.03, 0.03, seat), BRASS) for y in (0.15 - d / 2, d / 2 - 0.1)
        ]
        parts.append(box((s * (w / 2 - 0.05), 0, 0.015), (0.03, d, 0.03), BRASS))
    return Piece("chair", colour, parts, "with two runners")


def stool(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Drum without legs."""
    main = named_colour(rng, colour, style)
    r, h = rng.uniform(0.18, 0.28), rng.uniform(0.34, 0.56)
    cloth, band = upholstered(rng, main, style), painted(rng, shade(main, 0.8), style)
    parts = [
        cylinder((0, 0, h / 2), (r, r), h, cloth, bottom=0.85),
        cylinder((0, 0, h - 0.03), (r * 1.05, r * 1.05), 0.06, band),
    ]
    return Piece("stool", colour, parts, "without legs")


def table(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Thick top on two slabs."""
    slab = painted(rng, named_colour(rng, colour, style), style, 0.45)
    w, d = rng.uniform(0.9, 1.7), rng.uniform(0.6, 1.0)
    h = rng.uniform(0.3, 0.42) if rng.random() < 0.4 else rng.uniform(0.7, 0.86)
    legs = slab if rng.random() < 0.5 else plain_wood(rng, style)
    parts = [box((0, 0, h - 0.05), (w, d, 0.1), slab)]
    parts += [box((s * (w / 2 - 0.16), 0, (h - 0.1) / 2), (0.09, d - 0.12, h - 0.1), legs) for s in (-1, 1)]
    return Piece("table", colour, parts, "with two legs", [Support(h, (-w / 2, w / 2), (-d / 2, d / 2))])


def bed(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Low platform with a roll at the head and a blanket."""
    main = named_colour(rng, colour, style)
    w, d, h = rng.uniform(1.2, 1.9), rng.uniform(1.95, 2.2), rng.uniform(0.22, 0.34)
    frame, linen = painted(rng, main, style), Material((0.76, 0.75, 0.74), "fabric", (0.66, 0.65, 0.64), 0.03)
    blanket = upholstered(rng, main, style)
    parts = [
        box((0, 0, h / 2), (w, d, h), frame),
        box((0, -0.02, h + 0.09), (w - 0.16, d - 0.16, 0.18), linen),
        box((0, -0.34, h + 0.1), (w - 0.1, d * 0.6, 0.22), blanket),
        cylinder((0, d / 2 - 0.25, h + 0.27), (0.12, 0.12), w * 0.7, blanket, axis="x"),
    ]
    return Piece("bed", colour, parts, "with a roll")


def bookshelf(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Open frame: boards between four brass posts, few books."""
    board = painted(rng, named_colour(rng, colour, style), style)
    w, d, h = rng.uniform(0.8, 1.5), rng.uniform(0.3, 0.42), rng.uniform(1.2, 2.3)
    shelves = int(rng.integers(3, 5))
    levels = np.linspace(0.12, h - 0.03, shelves + 1)
    parts = [
        box((sx * (w / 2 - 0.02), sy * (d / 2 - 0.02), h / 2), (0.035, 0.035, h), BRASS)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    parts += [box((0, 0, z), (w, d, 0.06), board) for z in levels]
    for z in levels[:-1]:
        wide, tall = w * rng.uniform(0.2, 0.5), (levels[1] - levels[0]) * rng.uniform(0.4, 0.75)
        look = {"scale": rng.uniform(0.03, 0.05), "seed": rng.uniform(0, 50)}
        books = Material((0.55, 0.30, 0.24), "books", (0.28, 0.34, 0.42), **look)
        x = rng.uniform(-1, 1) * (w - 0.1 - wide) / 2
        parts.append(box((x, 0, z + 0.03 + tall / 2), (wide, d * 0.6, tall), books))
    return Piece("bookshelf", colour, parts, f"with {('three', 'four')[shelves - 3]} shelves")


def lamp(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Globe on a pole with a wide foot."""
    main = named_colour(rng, colour, style)
    h, r = rng.uniform(1.0, 1.9), rng.uniform(0.15, 0.24)
    globe = Material(main, "plain", gloss=0.5, emission=0.15)
    parts = [
        cylinder((0, 0, 0.03), (0.2, 0.2), 0.06, BRASS),
        cylinder((0, 0, h / 2 - r / 2), (0.025, 0.025), h - r, BRASS),
        ball((0, 0, h - r), (r, r, r), globe),
    ]
    return Piece("lamp", colour, parts, "with a round shade")


def plant(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Upright leaves in a square pot. It is green whatever `colour` asks for."""
    pot = Material((0.34, 0.33, 0.33), "plaster", (0.42, 0.41, 0.40), 0.2)
    side, h, tall = rng.uniform(0.22, 0.36), rng.uniform(0.22, 0.5), rng.uniform(0.5, 1.1)
    green = shade(style.colours["green"], rng.uniform(0.6, 0.85))
    leaf = Material(green, "leaves", shade(green, 1.3), 0.06, seed=rng.uniform(0, 50))
    parts = [box((0, 0, h / 2), (side, side, h), pot)]
    for angle in np.linspace(0, 2 * np.pi, int(rng.integers(4, 8)), endpoint=False):
        spot = side * 0.3 * np.array([np.cos(angle), np.sin(angle)])
        high = tall * rng.uniform(0.6, 1.0)
        parts.append(cylinder((*spot, h + high / 2), (0.07, 0.025), high, leaf, top=0.15))
    return Piece("plant", "green", parts, "in a square pot")


def basket(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Square crate of slats."""
    main = named_colour(rng, colour, style)
    w, h = rng.uniform(0.28, 0.44), rng.uniform(0.22, 0.42)
    slat, inner = painted(rng, main, style), Material(shade(main, 0.3))
    parts = [box((0, 0, h / 2 - 0.02), (w - 0.04, w - 0.04, h - 0.04), inner)]
    parts += [box((0, 0, h * z), (w, w, h * 0.2), slat) for z in (0.1, 0.4, 0.7)]
    return Piece("basket", colour, parts, "with a square rim")


LOFT_PIECES = {piece.__name__: piece for piece in (chair, stool, table, bed, bookshelf, lamp, plant, basket)}
