"""Conversion of a Sweet Home 3D furniture library into the meshes of `furniture.safetensors`.

A piece is scaled to the size of its catalogue and cut down to fewer triangles. It keeps the flat colours and pictures
of its materials. Needs the extra `furniture` (trimesh, fast-simplification).

    apt-get download sweethome3d-furniture && dpkg -x sweethome3d-furniture_*.deb unpacked
    cp unpacked/usr/share/sweethome3d/furniture/BlendSwap-CC-0.sh3f .
    python -m processing.rooms.furnished.convert BlendSwap-CC-0.sh3f processing/rooms/furnished/furniture.safetensors

Beside the file it writes a table of where each piece comes from, `.tsv`.
"""

import argparse
import colorsys
import io
import logging
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np
import safetensors.numpy
from PIL import Image

from processing.rooms.furnished.casting import TriangleCaster
from processing.rooms.furnished.catalogue import MeshMaterial, MeshPiece, make_shape, pack, read_table
from processing.rooms.furnished.decimation import areas, carried_uv, decimated, smooth_normals, thinned
from processing.rooms.render.raycast import View
from processing.writing import write_bytes, write_text

__all__ = ["convert_library", "library_rows"]

logger = logging.getLogger(__name__)

_ORIGIN = ("id", "name", "category", "author", "size in cm", "licence in its folder", "triangles", "colour")
TRIANGLES = 1500  # per piece
TEXTURE_SIZE = 128  # pixels
_CLEAR = 0.3  # surfaces that let more than 70 % of the light through are left out
_MAX_FILE = 64 * 2**20  # bytes of one member; the largest of Debian's library has 3 MiB
_ALIKE = 0.12  # sRGB, of two materials of one colour
_MAIN_SHARE = 0.45  # of what is seen, for a piece to have a colour
# Degrees of hue that have one name, and the least value; between them, or darker, people disagree.
_HUES = {
    "red": (-12, 9, 0.35),
    "orange": (18, 36, 0.75),
    "yellow": (46, 64, 0.65),
    "green": (85, 160, 0.25),
    "blue": (205, 248, 0.3),
    "purple": (262, 305, 0.3),
}
_WITH_TOPS = ("table", "desk", "cabinet", "bench", "bookshelf", "oven")
_LICENCE = re.compile(r"Creative\s+Commons\s+(?!License)\w+")
# Sweet Home 3D: x to the right, y up, front towards +z. Rooms: z up, front towards -y.
_FROM_LIBRARY = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


@dataclass
class _Surface:
    """Triangles of one material: corners (t, 3, 3) metres, uv (t, 3, 2) or None, sRGB colour, picture or None."""

    corners: np.ndarray
    uv: np.ndarray | None
    colour: tuple[int, int, int]
    gloss: float
    picture: Image.Image | None


def library_rows(archive: zipfile.ZipFile) -> dict[str, dict[str, str]]:
    """Return the entries of a library's catalogue by the names of pieces."""
    rows: dict[str, dict[str, str]] = {}
    for line in _member(archive, "PluginFurnitureCatalog.properties").decode("latin-1").splitlines():
        match = re.match(r"(\w+)#(\d+)=(.*)", line.strip())
        if match:
            rows.setdefault(match[2], {})[match[1]] = match[3]
    return {row["id"].split("#")[-1]: row for row in rows.values()}


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    size = archive.getinfo(name).file_size
    if size > _MAX_FILE:
        raise ValueError(f"a file of a library must have at most {_MAX_FILE} bytes, got {size} in {name}.")
    return archive.read(name)


def _licence(archive: zipfile.ZipFile, folder: str) -> str:
    """Return the licence that a piece's folder states, "" for that of the library."""
    for name in archive.namelist():
        if name.startswith(folder) and "licen" in name.lower():
            text = re.sub(r"<[^>]*>", " ", _member(archive, name).decode("utf-8", "replace"))
            if found := _LICENCE.search(text):
                return " ".join(found[0].split())
    return ""


def _surfaces(archive: zipfile.ZipFile, row: dict[str, str]) -> list[_Surface]:
    import trimesh

    model = PurePosixPath(row["model"].lstrip("/"))
    with TemporaryDirectory() as folder:
        for name in archive.namelist():
            if PurePosixPath(name).parent == model.parent and not name.endswith("/"):
                (Path(folder) / PurePosixPath(name).name).write_bytes(_member(archive, name))
        scene = trimesh.load_scene(Path(folder) / model.name, process=False, split_object=False, group_material=True)
        turn = np.array([float(x) for x in row.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()]).reshape(3, 3)
        return [found for mesh in scene.geometry.values() if (found := _surface(mesh, _FROM_LIBRARY @ turn))]


def _surface(mesh, turn: np.ndarray) -> _Surface | None:
    material = getattr(mesh.visual, "material", None)
    options = getattr(material, "kwargs", None) or {}
    if float((options.get("d") or ["1"])[0] or 1) < _CLEAR or not len(mesh.faces):
        return None
    uv = getattr(mesh.visual, "uv", None)
    picture = getattr(material, "image", None)
    has_uv = picture is not None and uv is not None and np.isfinite(uv).all()
    colour = tuple(int(c) for c in material.diffuse[:3]) if material is not None else (163, 163, 163)
    specular = float(np.mean(getattr(material, "specular", [0, 0, 0])[:3])) / 255
    return _Surface(
        (np.asarray(mesh.vertices) @ turn.T)[mesh.faces],
        np.asarray(uv)[mesh.faces] if has_uv else None,
        colour,
        min(0.6, specular * min(1.0, float(getattr(material, "glossiness", 0) or 0) / 200)),
        picture.convert("RGB") if has_uv else None,
    )


def _fitted(surfaces: list[_Surface], row: dict[str, str]) -> list[_Surface]:
    """Scale a piece to its catalogue's size, standing on the origin."""
    whole = np.concatenate([s.corners for s in surfaces])
    for surface in surfaces:
        surface.corners = _on_origin(surface.corners, whole, _size(row))
        kept = areas(surface.corners) > 1e-10
        surface.corners = surface.corners[kept]
        surface.uv = None if surface.uv is None else surface.uv[kept]
    return [s for s in surfaces if len(s.corners)]


def _on_origin(corners: np.ndarray, whole: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Move and stretch corners so that the whole (t, 3, 3) has its size, on the origin."""
    low, high = whole.min(axis=(0, 1)), whole.max(axis=(0, 1))
    return (corners - [*(low + high)[:2] / 2, low[2]]) * (size / np.maximum(high - low, 1e-9))


def _size(row: dict[str, str]) -> np.ndarray:
    return np.array([float(row[name]) / 100 for name in ("width", "depth", "height")])


def _budgets(surfaces: list[_Surface], triangles: int) -> list[int]:
    """Share triangles among materials: more for large ones and finely made ones."""
    weights = np.array([np.sqrt(len(s.corners) * areas(s.corners).sum()) for s in surfaces])
    given = np.array([len(s.corners) for s in surfaces])
    budget = np.minimum(given, np.maximum(12, triangles * weights / weights.sum()))
    for _ in range(4):  # what small surfaces leave goes to the others
        hungry = budget < given
        left = triangles - budget.sum()
        if left <= 0 or not hungry.any():
            break
        budget += np.where(hungry, left * weights / weights[hungry].sum(), 0)
        budget = np.minimum(budget, given)
    return [int(b) for b in budget]


def _picture(image: Image.Image) -> tuple[bytes, np.ndarray]:
    image = image.copy()
    image.thumbnail((TEXTURE_SIZE, TEXTURE_SIZE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue(), np.asarray(Image.open(buffer).convert("RGB"))


def _seen_shares(corners: np.ndarray, material: np.ndarray, count: int, size: np.ndarray) -> np.ndarray:
    """Return the share (count,) of each material in views of a piece's front."""
    caster, total, away = TriangleCaster(corners, "zbuffer"), np.zeros(count), 2.5 * float(np.linalg.norm(size))
    tan = (np.arange(48) - 23.5) / 48 * 0.5
    for angle in np.deg2rad([-60, -30, 0, 30, 60]):
        out = np.array([np.sin(angle), -np.cos(angle), 0.45])
        forward = -out / np.linalg.norm(out)
        right = np.array([-forward[1], forward[0], 0]) / np.hypot(*forward[:2])
        rotation = np.stack([-right, np.cross(forward, -right), forward], axis=1)
        _, hit = caster.cast(View(rotation, np.array([0, 0, size[2] / 2]) - forward * away, tan, tan))
        total += np.bincount(material[hit[hit >= 0]], minlength=count)
    return total / max(total.sum(), 1)


def _main_materials(colours: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return whether materials (n,) give a piece its colour: like the one seen most."""
    like = np.abs(colours - colours[shares.argmax()]).max(axis=1) < _ALIKE
    return like & (shares[like].sum() >= _MAIN_SHARE)


def colour_word(colour: np.ndarray) -> str:
    """Return the undoubted name, else "", of an sRGB colour (3,) in [0, 1]."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(float(c) for c in colour))
    if value < 0.2:
        return "black"
    if saturation < 0.1:
        return "white" if value > 0.8 else ""
    degrees = (hue * 360 + 15) % 360 - 15
    fits = (name for name, (low, high, least) in _HUES.items() if low <= degrees <= high and value >= least)
    return next(fits, "") if saturation >= 0.45 else ""


def _support(corners: np.ndarray, size: np.ndarray, category: str) -> tuple[float, float, float] | None:
    """Return half width, half depth and height of a flat top, None without one."""
    if category not in _WITH_TOPS or size[2] > 1.4:
        return None
    grid = np.linspace(-0.45, 0.45, 19)
    tan_x, tan_y = grid * size[0] / 100, grid * size[1] / 100  # seen from 100 m above, rays are parallel
    view = View(np.diag([1.0, -1.0, -1.0]), np.array([0, 0, 100.0 + size[2]]), tan_x, tan_y)
    depth, _ = TriangleCaster(corners, "zbuffer").cast(view)
    tops = size[2] - (depth - 100.0)
    level = float(np.median(tops[np.isfinite(tops)])) if np.isfinite(tops).any() else 0.0
    flat = np.isfinite(tops) & (np.abs(tops - level) < 0.012)
    for share in (0.9, 0.8, 0.7, 0.6, 0.5):
        inner = np.abs(grid) <= share / 2 + 1e-6
        if flat[np.ix_(inner, inner)].all() and level > 0.3:
            return (round(share * float(size[0]) / 2, 3), round(share * float(size[1]) / 2, 3), round(level, 4))
    return None


def convert_piece(archive: zipfile.ZipFile, row: dict[str, str], name: str, category: str, place: str):
    """Return the mesh of one piece and the JPEG files of its materials.

    Args:
        archive: Library, an open `.sh3f` file.
        row: Entry of its catalogue.
        name: Name of the piece in the library.
        category: Kind of furniture in rooms.
        place: "floor", "top", "wall" or "ceiling".
    """
    rng = np.random.default_rng(0)
    surfaces = _fitted(_surfaces(archive, row), row)
    size, corners, normals, uv, material, looks, files = _size(row), [], [], [], [], [], []
    for number, (surface, budget) in enumerate(zip(surfaces, _budgets(surfaces, TRIANGLES), strict=True)):
        kept = decimated(surface.corners, budget)
        if category == "plant":
            kept = thinned(kept, budget)
        corners.append(kept)
        normals.append(smooth_normals(kept) if len(kept) else kept)
        uv.append(
            np.zeros((len(kept), 3, 2)) if surface.uv is None else carried_uv(surface.corners, surface.uv, kept, rng)
        )
        material.append(np.full(len(kept), number, np.uint8))
        file, pixels = _picture(surface.picture) if surface.picture else (None, None)
        colour = np.array(surface.colour) / 255 if pixels is None else pixels.reshape(-1, 3).mean(axis=0) / 255
        looks.append((colour, surface.gloss, pixels))
        files.append(file)
    corners, material = np.concatenate(corners), np.concatenate(material)
    corners = _on_origin(corners, corners, size)  # decimation may cut tips
    shares = _seen_shares(corners, material, len(looks), size)
    main = _main_materials(np.array([colour for colour, _, _ in looks]), shares)
    colour = sum(look[0] * share for look, share, m in zip(looks, shares, main, strict=True) if m)
    word = colour_word(colour / shares[main].sum()) if main.any() else ""
    word = "green" if category == "plant" else word
    shape = make_shape(corners, np.concatenate(normals), np.concatenate(uv), material)
    materials = (MeshMaterial(tuple(map(float, c)), g, p, bool(m)) for (c, g, p), m in zip(looks, main, strict=True))
    support = _support(corners, size, category)
    piece = MeshPiece(name, category, place, word, size, shape, tuple(materials), support)
    return piece, files


def convert_library(library: Path, output: Path, every: bool = False) -> None:
    """Write the pieces of a library that fit rooms, and log what became of each.

    Args:
        library: Sweet Home 3D furniture library whose pieces are in the public domain, a `.sh3f` file.
        output: Safetensors file to write.
        every: Whether to take all fitting pieces rather than those of the package.

    Raises:
        ValueError: The library is not in the public domain, or lacks a piece.
    """
    pieces, pictures, origins = [], [], ["\t".join(_ORIGIN)]
    with zipfile.ZipFile(library) as archive:
        catalogue = _member(archive, "PluginFurnitureCatalog.properties").decode("latin-1")
        if "license=Public domain" not in catalogue:
            raise ValueError(f"{library} must be a library in the public domain. Take BlendSwap-CC-0.sh3f.")
        rows = library_rows(archive)
        for name, entry in read_table().items():
            if entry["packed"] != "yes" and not every:
                continue
            if name not in rows:
                raise ValueError(f"{library} must hold the piece {name!r}. Take version 1.8 of BlendSwap-CC-0.sh3f.")
            licence = _licence(archive, str(PurePosixPath(rows[name]["model"].lstrip("/")).parent) + "/")
            if licence and "Zero" not in licence:
                raise ValueError(f"the piece {name!r} must be in the public domain, got {licence!r}. Leave it out.")
            piece, files = convert_piece(archive, rows[name], name, entry["category"], entry["place"])
            logger.info(
                "%s: %d triangles, colour %r, top %s", name, len(piece.shape.corners), piece.colour, piece.support
            )
            pieces.append(piece)
            pictures.append(files)
            row = rows[name]
            size = " x ".join(row[side] for side in ("width", "depth", "height"))
            stated = licence or "the library's"
            count = len(piece.shape.corners)
            told = (name, row["name"], entry["category"], row["creator"], size, stated, count, piece.colour)
            origins.append("\t".join(map(str, told)))
    arrays, header = pack(pieces, pictures)
    write_bytes(output, safetensors.numpy.save(arrays, header))
    write_text(output.with_suffix(".tsv"), "\n".join(origins) + "\n")


def main(words: list[str] | None = None) -> None:
    """Convert a library named on the command line."""
    parser = argparse.ArgumentParser(description="Convert a furniture library of Sweet Home 3D for rooms.")
    parser.add_argument("library", type=Path, help="such as BlendSwap-CC-0.sh3f of Debian's sweethome3d-furniture")
    parser.add_argument("output", type=Path, help="safetensors file to write")
    parser.add_argument("--every", action="store_true", help="all fitting pieces, not only those of the package")
    arguments = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        convert_library(arguments.library, arguments.output, arguments.every)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        parser.exit(1, f"{arguments.library} cannot be converted: {error}\n")


if __name__ == "__main__":
    main()
