"""Pieces of furniture as meshes, read once from a safetensors file.

Frame of a piece: metres, z up, footprint around the origin, foot at z = 0, front towards -y.
"""

import io
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import safetensors
from PIL import Image
from scipy.spatial import ConvexHull, QhullError

from processing.limits import check_bound, check_file, parse_json
from processing.rooms.scene.meshes import MeshShape

__all__ = [
    "FURNITURE_FILE",
    "PIECES_TABLE",
    "MeshMaterial",
    "MeshPiece",
    "make_shape",
    "pack",
    "read_catalogue",
    "read_table",
]

FURNITURE_FILE = Path(__file__).with_name("furniture.safetensors")
PLACES = ("floor", "top", "wall", "ceiling")
_LARGEST, _LARGEST_TEXTURE = 10.0, 1024  # metres, pixels
_REFUSED = (
    safetensors.SafetensorError,
    Image.DecompressionBombError,
    KeyError,
    TypeError,
    IndexError,
    ValueError,
    OSError,
    QhullError,
)  # errors of a file that is none of furniture
PIECES_TABLE = Path(__file__).with_name("pieces.tsv")


@dataclass(frozen=True)
class MeshMaterial:
    """Look of one material of a piece.

    `colour` is its mean sRGB colour in [0, 1], `gloss` in [0, 1] adds a highlight. `picture` (h, w, 3) uint8 is its
    texture, None for one flat colour. `is_main` tells whether it belongs to what gives the piece its colour.
    """

    colour: tuple[float, float, float]
    gloss: float
    picture: np.ndarray | None
    is_main: bool


@dataclass(frozen=True)
class MeshPiece:
    """Mesh of one piece.

    `support` is the rectangle (x, y half sizes) and height z of its flat top, metres, or None.

    Shape:
        size (3,): width, depth and height, metres.
    """

    name: str
    category: str
    place: str
    colour: str
    size: np.ndarray
    shape: MeshShape
    materials: tuple[MeshMaterial, ...]
    support: tuple[float, float, float] | None


def make_shape(corners: np.ndarray, normals: np.ndarray, uv: np.ndarray, material: np.ndarray) -> MeshShape:
    """Build a shape with its outline of corners, normals (t, 3, 3), uv (t, 3, 2) and material (t,)."""
    points = corners.reshape(-1, 3).astype(np.float64)
    height = np.array([points[:, 2].min(), points[:, 2].max()])
    outline = points[ConvexHull(points[:, :2]).vertices, :2]
    as_float = (values.astype(np.float32) for values in (corners, normals, uv))
    return MeshShape(*as_float, material, outline, height)


def read_table() -> dict[str, dict[str, str]]:
    """Return category, place and whether packed, of each fitting piece of the library, by name."""
    header, *lines = PIECES_TABLE.read_text().splitlines()
    rows = (dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines)
    return {row["id"]: row for row in rows}


def pack(pieces: list[MeshPiece], pictures: list[list[bytes | None]]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the header of a file of pieces.

    Args:
        pieces: Pieces to store.
        pictures: JPEG files of the materials of each piece.
    """
    rows, blobs, vertices, triangles, length = [], [], [], [], 0
    for piece, files in zip(pieces, pictures, strict=True):
        points, index = np.unique(_quantised(piece), axis=0, return_inverse=True)
        vertices.append(points)
        triangles.append(index.reshape(-1, 3).astype(np.uint16))
        materials = []
        for material, file in zip(piece.materials, files, strict=True):
            blobs.append(file or b"")
            materials.append(
                {
                    "colour": [round(c, 4) for c in material.colour],
                    "gloss": round(material.gloss, 3),
                    "picture": [length, length + len(file)] if file else None,
                    "is_main": material.is_main,
                }
            )
            length += len(file or b"")
        row = {name: getattr(piece, name) for name in ("name", "category", "place", "colour", "support")}
        row |= {"size": [round(float(x), 4) for x in piece.size], "materials": materials}
        rows.append(row | {"vertices": len(points), "triangles": len(piece.shape.corners)})
    arrays = {
        "vertices": np.concatenate(vertices),
        "triangles": np.concatenate(triangles),
        "normals": np.concatenate([np.rint(p.shape.normals * 127) for p in pieces]).astype(np.int8),
        "uv": np.concatenate([p.shape.uv for p in pieces]).astype(np.float16),
        "material": np.concatenate([p.shape.material for p in pieces]),
        "pictures": np.frombuffer(b"".join(blobs), np.uint8),
    }
    return arrays, {"pieces": json.dumps(rows)}  # one entry: safetensors writes several in random order


def _quantised(piece: MeshPiece) -> np.ndarray:
    unit = (piece.shape.corners.reshape(-1, 3) + [piece.size[0] / 2, piece.size[1] / 2, 0]) / piece.size
    return np.rint(np.clip(unit, 0, 1) * 65535).astype(np.uint16)


def read_catalogue(path: Path = FURNITURE_FILE) -> dict[str, tuple[MeshPiece, ...]]:
    """Return the pieces of a file by category; read once in a process.

    Args:
        path: Safetensors file of `processing.rooms.furnished.convert`. Default: the pieces of the package.

    Raises:
        ValueError: The file is none of furniture, is too large, or its arrays do not fit its header.
        OSError: The file cannot be read.
    """
    check_file(path)
    state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)
def _read(path: Path, changed: int, length: int) -> dict[str, tuple[MeshPiece, ...]]:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        rows = parse_json(header["pieces"].encode(), str(path))
        pieces = _unpacked(rows, arrays)
    except _REFUSED as error:
        raise ValueError(
            f"{path} must be a file that processing.rooms.furnished.convert made, got {error!r}. Make it again."
        ) from error
    by_category: dict[str, list[MeshPiece]] = {}
    for piece in pieces:
        by_category.setdefault(piece.category, []).append(piece)
    return {category: tuple(group) for category, group in by_category.items()}


def _check_arrays(rows: list[dict], arrays: dict[str, np.ndarray]) -> None:
    vertices, triangles = (sum(row[name] for row in rows) for name in ("vertices", "triangles"))
    kinds = {
        "vertices": ((vertices, 3), np.uint16),
        "triangles": ((triangles, 3), np.uint16),
        "normals": ((triangles, 3, 3), np.int8),
        "uv": ((triangles, 3, 2), np.float16),
        "material": ((triangles,), np.uint8),
    }
    for name, (shape, kind) in kinds.items():
        if arrays[name].shape != shape or arrays[name].dtype != kind:
            found = f"{arrays[name].shape} {arrays[name].dtype}"
            raise ValueError(f"{name!r} must be {shape} {np.dtype(kind)}, got {found}")
    if not np.isfinite(arrays["uv"]).all():
        raise ValueError("'uv' must be finite")


def _check_row(row: dict) -> None:
    """Raise ValueError unless what a header says of a piece makes sense."""
    if min(row["vertices"], row["triangles"]) < 3 or row["place"] not in PLACES:
        raise ValueError(f"piece {row['name']!r} must have vertices, triangles and a place of {PLACES}")
    if not all(isinstance(row[name], str) for name in ("name", "category", "colour")) or not row["category"]:
        raise ValueError("name, category and colour must be text")
    numbers = np.array([*row["size"], *(row["support"] or (1.0, 1.0, 1.0))], float)
    if numbers.shape != (6,) or not ((numbers > 0) & (numbers < _LARGEST)).all():
        raise ValueError(f"piece {row['name']!r} must have sizes between 0 and {_LARGEST} metres")
    for material in row["materials"]:
        look = np.array([*material["colour"], material["gloss"]], float)
        if look.shape != (4,) or not ((look >= 0) & (look <= 1)).all():
            raise ValueError(f"piece {row['name']!r} must have colours and gloss in [0, 1]")


def _unpacked(rows: list[dict], arrays: dict[str, np.ndarray]) -> list[MeshPiece]:
    pieces, vertex, triangle, texels = [], 0, 0, 0
    _check_arrays(rows, arrays)
    for row in rows:
        _check_row(row)
        own = slice(triangle, triangle + row["triangles"])
        size = np.array(row["size"], float)
        points = arrays["vertices"][vertex : vertex + row["vertices"]] / 65535 * size
        points -= [size[0] / 2, size[1] / 2, 0]
        materials = tuple(
            MeshMaterial(tuple(m["colour"]), m["gloss"], _picture(arrays["pictures"], m["picture"]), m["is_main"])
            for m in row["materials"]
        )
        texels += sum(m.picture.nbytes for m in materials if m.picture is not None)
        check_bound(texels, "IDE3D_MAX_UNPACKED_BYTES", "textures of furniture")
        material = arrays["material"][own]
        if material.max(initial=0) >= len(materials):
            raise ValueError(f"piece {row['name']!r} has a triangle of a material that it lacks")
        corners, normals = points[arrays["triangles"][own]], arrays["normals"][own] / 127
        shape = make_shape(corners, normals, arrays["uv"][own], material)
        words = (row[name] for name in ("name", "category", "place", "colour"))
        pieces.append(MeshPiece(*words, size, shape, materials, tuple(row["support"]) if row["support"] else None))
        vertex, triangle = vertex + row["vertices"], triangle + row["triangles"]
    return pieces


def _picture(blob: np.ndarray, span: list[int] | None) -> np.ndarray | None:
    if span is None:
        return None
    with Image.open(io.BytesIO(blob[span[0] : span[1]].tobytes()), formats=("JPEG",)) as image:
        if max(image.size) > _LARGEST_TEXTURE:
            raise ValueError(f"a texture must have at most {_LARGEST_TEXTURE} pixels a side, got {image.size}")
        return np.asarray(image.convert("RGB"))
