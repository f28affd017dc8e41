"""Things that stand on other things, hang on walls or from the ceiling.

Local frames: `TOP_PIECES` stand on z = 0 around the origin; `WALL_PIECES` touch the wall at y = 0 and reach to -y,
with z = 0 at their middle; `CEILING_PIECES` hang down from z = 0.
"""

import numpy as np

from processing.rooms.scene.furniture import Piece
from processing.rooms.scene.palette import DARK_METAL, METAL, named_colour, painted, pick, plain_wood, shade
from processing.rooms.scene.primitives import Material, ball, box, cylinder
from processing.rooms.scene.styles import Style

__all__ = ["CEILING_PIECES", "TOP_PIECES", "WALL_PIECES"]


def vase(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Ceramic vase, sometimes with twigs."""
    main = named_colour(rng, colour, style)
    clay = Material(main, "plain", gloss=0.6)
    r, h = rng.uniform(0.07, 0.13), rng.uniform(0.2, 0.42)
    parts = [
        ball((0, 0, h * 0.42), (r, r, h * 0.42), clay),
        cylinder((0, 0, h * 0.85), (r * 0.5, r * 0.5), h * 0.3, clay, bottom=0.8),
        cylinder((0, 0, 0.02), (r * 0.6, r * 0.6), 0.04, clay),
    ]
    return Piece("vase", colour, parts, "with a narrow neck")


def carton(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Storage box with a lid."""
    main = named_colour(rng, colour, style)
    w, d, h = rng.uniform(0.2, 0.42), rng.uniform(0.2, 0.32), rng.uniform(0.14, 0.34)
    body = Material(main, "plain", seed=1.0)
    parts = [
        box((0, 0, h / 2 - 0.02), (w, d, h - 0.04), body),
        box((0, 0, h - 0.03), (w + 0.02, d + 0.02, 0.06), Material(shade(main, 0.85))),
        box((0, -d / 2 - 0.006, h * 0.5), (w * 0.35, 0.012, 0.05), Material((0.9, 0.88, 0.82))),
    ]
    return Piece("box", colour, parts, "with a lid")


def table_lamp(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Small lamp for a table."""
    main = named_colour(rng, colour, style)
    h, r = rng.uniform(0.36, 0.56), rng.uniform(0.11, 0.17)
    cover = Material(main, "fabric", shade(main, 0.88), 0.02, emission=0.18)
    parts = [
        cylinder((0, 0, 0.015), (0.08, 0.08), 0.03, DARK_METAL),
        ball((0, 0, h * 0.28), (0.07, 0.07, h * 0.25), Material((0.85, 0.83, 0.78), gloss=0.5)),
        cylinder((0, 0, h * 0.6), (0.012, 0.012), h * 0.3, METAL),
        cylinder((0, 0, h * 0.8), (r, r), h * 0.4, cover, top=0.65),
    ]
    return Piece("lamp", colour, parts, "with a small foot")


def ball_toy(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Ball with a stripe, on the floor or on furniture."""
    main = named_colour(rng, colour, style)
    r = rng.uniform(0.1, 0.2)
    parts = [
        ball((0, 0, r), (r, r, r), Material(main, "plain", gloss=0.4)),
        cylinder((0, 0, r), (r * 1.004, r * 1.004), r * 0.16, Material(shade(main, 0.6))),
    ]
    return Piece("ball", colour, parts, "with a stripe")


def picture(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Framed picture painted in one colour."""
    main = named_colour(rng, colour, style)
    w, h = rng.uniform(0.36, 1.0), rng.uniform(0.36, 0.8)
    frame = pick(rng, (plain_wood(rng, style), DARK_METAL, painted(rng, (0.88, 0.86, 0.82), style)))
    art = Material(
        main, "art", shade(main, 0.72 if max(main) > 0.3 else 1.9), rng.uniform(0.1, 0.25), seed=rng.uniform(0, 50)
    )
    edge = 0.035
    parts = [box((0, -0.012, 0), (w - edge, 0.02, h - edge), art)]
    parts += [box((0, -0.02, s * (h - edge) / 2), (w, 0.04, edge), frame) for s in (-1, 1)]
    parts += [box((s * (w - edge) / 2, -0.02, 0), (edge, 0.04, h - 2 * edge), frame) for s in (-1, 1)]
    return Piece("picture", colour, parts, "in a frame")


def clock(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Round wall clock."""
    main = named_colour(rng, colour, style)
    r, hand = rng.uniform(0.15, 0.26), Material((0.95, 0.95, 0.93) if max(main) < 0.75 else (0.1, 0.1, 0.1))
    parts = [
        cylinder((0, -0.025, 0), (r, r), 0.05, Material(shade(main, 0.8), gloss=0.4), axis="y"),
        cylinder((0, -0.03, 0), (r * 0.88, r * 0.88), 0.05, Material(main), axis="y"),
        box((0, -0.058, r * 0.3), (0.02, 0.008, r * 0.62), hand),
        box((r * 0.2, -0.058, 0), (r * 0.44, 0.008, 0.024), hand),
    ]
    return Piece("clock", colour, parts, "with two hands")


def shelf(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Wall shelf with a few books."""
    main = named_colour(rng, colour, style)
    w, d = rng.uniform(0.6, 1.1), rng.uniform(0.18, 0.26)
    books = Material((0.55, 0.30, 0.24), "books", (0.28, 0.34, 0.42), 0.035, seed=rng.uniform(0, 50))
    tall, wide = rng.uniform(0.16, 0.24), w * rng.uniform(0.25, 0.5)
    parts = [
        box((0, -d / 2, 0), (w, d, 0.04), painted(rng, main, style)),
        box((0, -0.015, 0.06), (w, 0.03, 0.1), painted(rng, main, style)),
        box((rng.uniform(-1, 1) * (w - wide - 0.04) / 2, -d * 0.55, 0.02 + tall / 2), (wide, d * 0.7, tall), books),
    ]
    parts += [box((s * w * 0.35, -d * 0.4, -0.07), (0.03, d * 0.6, 0.1), DARK_METAL) for s in (-1, 1)]
    return Piece("shelf", colour, parts, "with books")


def pendant(rng: np.random.Generator, colour: str, style: Style) -> Piece:
    """Lamp that hangs from the ceiling on a cord."""
    main = named_colour(rng, colour, style)
    drop, r, tall = rng.uniform(0.5, 0.9), rng.uniform(0.15, 0.26), rng.uniform(0.16, 0.28)
    cover = Material(main, "plain", gloss=0.4, emission=0.12)
    parts = [
        cylinder((0, 0, -0.015), (0.05, 0.05), 0.03, DARK_METAL),
        cylinder((0, 0, -(drop - tall) / 2), (0.011, 0.011), drop - tall, DARK_METAL),
        cylinder((0, 0, -drop + tall / 2), (r, r), tall, cover, top=0.3),
        ball((0, 0, -drop + 0.02), (r * 0.35, r * 0.35, 0.06), Material((1.0, 0.95, 0.8), emission=1.0)),
    ]
    return Piece("pendant", colour, parts, "on a cord")


TOP_PIECES = {"vase": vase, "box": carton, "lamp": table_lamp, "ball": ball_toy}
WALL_PIECES = {"picture": picture, "clock": clock, "shelf": shelf}
CEILING_PIECES = {"pendant": pendant}
