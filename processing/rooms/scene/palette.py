"""Colours with names, and the materials made of them."""

import colorsys

import numpy as np

from processing.rooms.scene.primitives import Material
from processing.rooms.scene.styles import PLAIN, Style

__all__ = ["COLOURS", "DARK_METAL", "METAL", "named_colour", "painted", "pick", "plain_wood", "shade", "upholstered"]

COLOURS = tuple(PLAIN.colours)  # by name; their shades are a matter of style
METAL = Material((0.62, 0.63, 0.65), gloss=0.7)
DARK_METAL = Material((0.16, 0.16, 0.17), gloss=0.5)


def pick(rng: np.random.Generator, options):
    """Draw one entry of a sequence, evenly."""
    return options[int(rng.integers(len(options)))]


def shade(colour, factor: float) -> tuple[float, float, float]:
    """Return a darker (factor < 1) or lighter sRGB colour."""
    return tuple(float(min(1.0, c * factor)) for c in colour)


def named_colour(rng: np.random.Generator, name: str, style: Style) -> tuple[float, float, float]:
    """Draw a shade that a person would call by this name."""
    h, s, v = colorsys.rgb_to_hsv(*style.colours[name])
    h = (h + rng.uniform(-0.012, 0.012)) % 1.0
    s = min(1.0, s * rng.uniform(0.88, 1.05))
    v = min(0.97, v * rng.uniform(0.9, 1.08))
    return tuple(float(c) for c in colorsys.hsv_to_rgb(h, s, v))


def painted(rng: np.random.Generator, colour, style: Style, gloss: float = 0.25) -> Material:
    """Painted wood: the colour, with a faint grain if the style shows it."""
    second = shade(colour, 0.86)
    return Material(colour, style.paint, second, rng.uniform(0.05, 0.09), gloss, seed=rng.uniform(0, 50))


def upholstered(rng: np.random.Generator, colour, style: Style) -> Material:
    """Cloth in the colour: woven, sometimes striped in two near tones."""
    kind = pick(rng, style.cloths)
    second = shade(colour, 0.72) if kind == "stripes" else shade(colour, 0.82)
    scale = rng.uniform(0.05, 0.1) if kind == "stripes" else rng.uniform(0.02, 0.035)
    return Material(colour, kind, second, scale, seed=rng.uniform(0, 50))


def plain_wood(rng: np.random.Generator, style: Style) -> Material:
    """Bare wood for legs and frames; its tone has no colour name."""
    tone = pick(rng, style.woods)
    return Material(tone, "wood", shade(tone, 0.72), rng.uniform(0.05, 0.09), 0.15, seed=rng.uniform(0, 50))
