"""Pieces of furniture with meshes, for rooms of the style "furnished".

A piece keeps the colours of its catalogue, or its main part is painted in the colour asked for. It has a colour's name
only where one colour covers most of it.
"""

from collections.abc import Callable, Mapping

import numpy as np

from processing.rooms.furnished.catalogue import MeshMaterial, MeshPiece
from processing.rooms.scene.furniture import FLOOR_PIECES, Piece, Support
from processing.rooms.scene.layout import DRAWN, Furnishing
from processing.rooms.scene.meshes import Mesh, MeshLook
from processing.rooms.scene.palette import named_colour, pick
from processing.rooms.scene.small_things import CEILING_PIECES, TOP_PIECES, WALL_PIECES
from processing.rooms.scene.styles import Style

__all__ = ["furnish"]

_Maker = Callable[[np.random.Generator, str, Style], Piece]

_PAINTED = 0.6  # share of pieces with a main part that are painted in a named colour
_UNPAINTED = ("plant", "piano", "television", "speaker")
_DRAWN = 0.4  # share of drawn pieces among kinds that have meshes in few builds
_FEW = 3
_KITCHEN = (
    *("table:free", "chair:around", "chair:around", "cabinet:wall", "cabinet:wall", "fridge:wall", "oven:wall"),
    *("stool:free", "basket:wall", "radiator:wall"),
)
# Those of drawn rooms, with what has meshes alone. A theme is drawn by its place: the order counts.
_THEMES = {
    "living": (*DRAWN.themes["living"], "piano:wall", "speaker:wall", "radiator:wall"),
    "dining": (*DRAWN.themes["dining"], "radiator:wall"),
    "bedroom": (*DRAWN.themes["bedroom"], "radiator:wall"),
    "office": (*DRAWN.themes["office"], "plant:wall", "radiator:wall"),
    "kitchen": _KITCHEN,
    "studio": (*DRAWN.themes["studio"], "fridge:wall"),
}
_SMALL = (
    *("vase", "box", "vase", "box", "television", "lamp"),
    *("picture", "picture", "clock", "shelf", "pendant", "pendant"),
)


def furnish(catalogue: Mapping[str, tuple[MeshPiece, ...]]) -> Furnishing:
    """Return the pieces, themes and small things of rooms that are furnished from a catalogue."""
    drawn = {"floor": FLOOR_PIECES, "top": TOP_PIECES, "wall": WALL_PIECES, "ceiling": CEILING_PIECES}
    made: dict[str, dict[str, _Maker]] = {place: {} for place in drawn}
    for category, pieces in catalogue.items():
        for place in drawn:
            group = tuple(piece for piece in pieces if piece.place == place)
            if group:
                made[place][category] = _maker(group, drawn[place].get(category))
    top, wall, ceiling = ({**drawn[place], **made[place]} for place in ("top", "wall", "ceiling"))
    floor = {**top, **FLOOR_PIECES, **made["floor"]}
    themes = {name: tuple(entry for entry in theme if _kind(entry) in floor) for name, theme in _THEMES.items()}
    # What a larger catalogue has beside stands in rooms of its own, and among the small things.
    known = {*FLOOR_PIECES, *_SMALL, "ball", *(_kind(entry) for theme in _THEMES.values() for entry in theme)}
    if others := sorted(set(made["floor"]) - known):
        themes["hall"] = ("table:free", "chair:around", *(f"{kind}:wall" for kind in others))
    small = [kind for kind in _SMALL if kind not in ("television", "lamp") or kind in made["top"]]
    small += sorted({*made["top"], *made["wall"], *made["ceiling"]} - known)
    return Furnishing(floor, top, wall, ceiling, themes, tuple(small))


def _kind(entry: str) -> str:
    return entry.split(":")[0]


def _maker(pieces: tuple[MeshPiece, ...], drawn: _Maker | None) -> _Maker:
    def make(rng: np.random.Generator, colour: str, style: Style) -> Piece:
        if drawn is not None and len(pieces) <= _FEW and rng.random() < _DRAWN:
            return drawn(rng, colour, style)
        return _piece(rng, pick(rng, pieces), colour, style)

    return make


def _piece(rng: np.random.Generator, source: MeshPiece, colour: str, style: Style) -> Piece:
    has_main = any(material.is_main for material in source.materials)
    is_painted = has_main and source.category not in _UNPAINTED and rng.random() < _PAINTED
    paint = np.array(named_colour(rng, colour, style)) if is_painted else None
    mean = _mean_colour([material for material in source.materials if material.is_main]) if is_painted else None
    looks = tuple(
        _painted(material, paint, mean) if is_painted and material.is_main else _natural(material, source.category)
        for material in source.materials
    )
    offset = {"wall": source.size[2] / 2, "ceiling": source.size[2]}.get(source.place, 0.0)
    back = source.size[1] / 2 if source.place == "wall" else 0.0
    mesh = Mesh(source.shape, looks, 0.0, (0.0, -back, -offset))
    supports = []
    if source.support:
        x, y, z = source.support
        supports = [Support(z, (-x, x), (-y, y))]
    return Piece(source.category, colour if is_painted else source.colour, [], "", supports, mesh)


def _mean_colour(materials: list[MeshMaterial]) -> np.ndarray:
    return np.mean([material.colour for material in materials], axis=0)


def _natural(material: MeshMaterial, category: str) -> MeshLook:
    emission = 0.15 if category in ("lamp", "pendant") and min(material.colour) > 0.8 else 0.0
    return MeshLook(material.colour, material.picture, gloss=material.gloss, emission=emission)


def _painted(material: MeshMaterial, paint: np.ndarray, mean: np.ndarray) -> MeshLook:
    """Paint a material; what is darker than the rest stays darker."""
    weights = np.array([0.3, 0.55, 0.15])
    tone = float(np.clip((material.colour @ weights + 0.1) / (mean @ weights + 0.1), 0.75, 1.2))
    colour = tuple(float(c) for c in np.minimum(paint * tone, 1))
    return MeshLook(colour, material.picture, is_painted=True, gloss=material.gloss)
