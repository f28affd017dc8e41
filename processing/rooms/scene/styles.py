"""Styles of rooms: shades, materials and sizes. The names of colours are the same in all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = ["FURNISHED", "LOFT", "PLAIN", "STYLES", "Style"]

_RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Style:
    """Look of a set of rooms: sRGB colours, ranges of sizes in metres.

    `paint` is the texture of painted wood. The entries of `cloths`, `wall_textures` and `floor_kinds` are sampled
    evenly. `stones` are the tones of tiles, `wools` of carpets. A wall is an accent in `accent_share` of the rooms,
    and that accent is brick in `brick_share` of them.
    """

    name: str
    colours: Mapping[str, _RGB]
    woods: tuple[_RGB, ...]
    paint: str
    cloths: tuple[str, ...]
    walls: tuple[_RGB, ...]
    accents: tuple[_RGB, ...]
    wall_textures: tuple[str, ...]
    accent_share: float
    brick_share: float
    floors: tuple[_RGB, ...]
    floor_kinds: tuple[str, ...]
    stones: tuple[_RGB, ...]
    wools: tuple[_RGB, ...]
    width: tuple[float, float]
    depth: tuple[float, float]
    height: tuple[float, float]


# The names are what questions ask for, so hues are kept well apart and jitter is small.
PLAIN = Style(
    name="plain",
    colours={
        "red": (0.73, 0.13, 0.12),
        "orange": (0.94, 0.48, 0.10),
        "yellow": (0.93, 0.80, 0.22),
        "green": (0.20, 0.52, 0.24),
        "blue": (0.13, 0.33, 0.70),
        "purple": (0.45, 0.20, 0.60),
        "white": (0.94, 0.93, 0.91),
        "black": (0.07, 0.07, 0.08),
    },
    woods=((0.60, 0.42, 0.26), (0.46, 0.30, 0.18), (0.72, 0.55, 0.37), (0.36, 0.23, 0.14), (0.55, 0.36, 0.22)),
    paint="wood",
    cloths=("fabric", "fabric", "fabric", "stripes"),
    walls=(
        (0.93, 0.90, 0.84),
        (0.88, 0.90, 0.90),
        (0.82, 0.87, 0.83),
        (0.93, 0.86, 0.78),
        (0.80, 0.84, 0.90),
        (0.90, 0.87, 0.90),
    ),
    accents=((0.45, 0.55, 0.60), (0.62, 0.55, 0.47), (0.55, 0.62, 0.52), (0.70, 0.52, 0.45)),
    wall_textures=("plaster", "plaster", "plaster", "stripes"),
    accent_share=0.4,
    brick_share=0.4,
    floors=((0.66, 0.49, 0.33), (0.52, 0.37, 0.25), (0.76, 0.62, 0.46), (0.44, 0.32, 0.23)),
    floor_kinds=("planks", "planks", "tiles", "carpet"),
    stones=((0.78, 0.74, 0.68), (0.62, 0.62, 0.62), (0.72, 0.60, 0.50)),
    wools=((0.62, 0.58, 0.53), (0.52, 0.55, 0.58), (0.60, 0.54, 0.46)),
    width=(4.2, 7.0),
    depth=(3.8, 6.2),
    height=(2.45, 3.0),
)

# Concrete, brick and bleached wood in larger, higher rooms; lacquered or woven furniture in faded and dark shades.
LOFT = Style(
    name="loft",
    colours={
        "red": (0.50, 0.07, 0.15),
        "orange": (0.78, 0.35, 0.16),
        "yellow": (0.76, 0.63, 0.06),
        "green": (0.46, 0.72, 0.42),
        "blue": (0.38, 0.64, 0.90),
        "purple": (0.66, 0.48, 0.82),
        "white": (0.84, 0.84, 0.87),
        "black": (0.16, 0.16, 0.18),
    },
    woods=((0.72, 0.68, 0.62), (0.25, 0.21, 0.19), (0.82, 0.74, 0.62)),
    paint="plain",
    cloths=("weave", "stripes", "plain"),
    walls=((0.58, 0.58, 0.57), (0.66, 0.65, 0.62), (0.50, 0.52, 0.54), (0.72, 0.68, 0.64)),
    accents=((0.30, 0.33, 0.36), (0.40, 0.34, 0.32), (0.34, 0.40, 0.38)),
    wall_textures=("plaster", "tiles"),
    accent_share=0.8,
    brick_share=0.7,
    floors=((0.74, 0.70, 0.64), (0.30, 0.26, 0.24), (0.60, 0.57, 0.53)),
    floor_kinds=("planks", "tiles", "tiles"),
    stones=((0.46, 0.46, 0.47), (0.36, 0.35, 0.34), (0.58, 0.56, 0.54)),
    wools=((0.40, 0.40, 0.42),),
    width=(5.0, 7.8),
    depth=(4.4, 7.0),
    height=(2.9, 3.7),
)

# Rooms with meshes: walls and floors of homes, furniture painted in softer shades.
FURNISHED = replace(
    PLAIN,
    name="furnished",
    colours={
        "red": (0.64, 0.16, 0.15),
        "orange": (0.88, 0.50, 0.18),
        "yellow": (0.88, 0.76, 0.28),
        "green": (0.26, 0.48, 0.28),
        "blue": (0.20, 0.36, 0.64),
        "purple": (0.42, 0.24, 0.54),
        "white": (0.92, 0.92, 0.90),
        "black": (0.08, 0.08, 0.09),
    },
    wall_textures=("plaster", "plaster", "plaster", "plaster", "stripes"),
    accent_share=0.3,
    brick_share=0.2,
    width=(3.6, 6.0),
    depth=(3.4, 5.4),
    height=(2.4, 2.8),
)

STYLES = {style.name: style for style in (PLAIN, LOFT, FURNISHED)}
