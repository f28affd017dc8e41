"""Colours with names, and the materials made of them."""

from __future__ import annotations

import colorsys

import numpy as np

from processing.rooms.primitives import Material

__all__ = ["COLOURS", "DARK_METAL", "METAL", "named_colour", "painted", "pick", "plain_wood", "shade", "upholstered"]

# sRGB. The names are what questions ask for, so hues are kept well apart and jitter is small.
COLOURS = {
    "red": (0.73, 0.13, 0.12),
    "orange": (0.94, 0.48, 0.10),
    "yellow": (0.93, 0.80, 0.22),
    "green": (0.20, 0.52, 0.24),
    "blue": (0.13, 0.33, 0.70),
    "purple": (0.45, 0.20, 0.60),
    "white": (0.94, 0.93, 0.91),
    "black": (0.07, 0.07, 0.08),
}

WOODS = ((0.60, 0.42, 0.26), (0.46, 0.30, 0.18), (0.72, 0.55, 0.37), (0.36, 0.23, 0.14), (0.55, 0.36, 0.22))
METAL = Material((0.62, 0.63, 0.65), gloss=0.7)
DARK_METAL = Material((0.16, 0.16, 0.17), gloss=0.5)


def pick(rng: np.random.Generator, options):
    """One of a sequence, evenly."""
    return options[int(rng.integers(len(options)))]


def shade(colour, factor: float) -> tuple[float, float, float]:
    """A darker (factor < 1) or lighter sRGB colour."""
    return tuple(float(min(1.0, c * factor)) for c in colour)


def named_colour(rng: np.random.Generator, name: str) -> tuple[float, float, float]:
    """A shade that a person would call by this name."""
    h, s, v = colorsys.rgb_to_hsv(*COLOURS[name])
    h = (h + rng.uniform(-0.012, 0.012)) % 1.0
    s = min(1.0, s * rng.uniform(0.88, 1.05))
    v = min(0.97, v * rng.uniform(0.9, 1.08))
    return tuple(float(c) for c in colorsys.hsv_to_rgb(h, s, v))


def painted(rng: np.random.Generator, colour, gloss: float = 0.25) -> Material:
    """Painted wood: the colour with a faint grain."""
    second = shade(colour, 0.86)
    return Material(colour, "wood", second, rng.uniform(0.05, 0.09), gloss, seed=rng.uniform(0, 50))


def upholstered(rng: np.random.Generator, colour) -> Material:
    """Cloth in the colour: woven, sometimes striped in two near tones."""
    kind = pick(rng, ("fabric", "fabric", "fabric", "stripes"))
    second = shade(colour, 0.82) if kind == "fabric" else shade(colour, 0.72)
    scale = rng.uniform(0.02, 0.035) if kind == "fabric" else rng.uniform(0.05, 0.1)
    return Material(colour, kind, second, scale, seed=rng.uniform(0, 50))


def plain_wood(rng: np.random.Generator) -> Material:
    """Bare wood for legs and frames; its tone is never the name of an object's colour."""
    tone = pick(rng, WOODS)
    return Material(tone, "wood", shade(tone, 0.72), rng.uniform(0.05, 0.09), 0.15, seed=rng.uniform(0, 50))
