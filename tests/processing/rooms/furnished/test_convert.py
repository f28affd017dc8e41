"""Conversion of a furniture library: size, front, textures and licence of a small one."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from processing.rooms.furnished.catalogue import read_catalogue
from processing.rooms.furnished.convert import colour_word, convert_library, main
from processing.rooms.furnished.decimation import areas, decimated, smooth_normals

pytest.importorskip("trimesh")
pytest.importorskip("fast_simplification")

# A cupboard of 2 x 3 x 1 units: x to the right, y up, front at +z, which is red and has a picture.
OBJ = """mtllib a.mtl
v 0 0 0\nv 2 0 0\nv 2 3 0\nv 0 3 0\nv 0 0 1\nv 2 0 1\nv 2 3 1\nv 0 3 1
vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1
usemtl side
f 1 4 3 2\nf 1 5 8 4\nf 2 3 7 6\nf 4 8 7 3\nf 1 2 6 5
usemtl front
f 5/1 6/2 7/3 8/4
"""
MTL = "newmtl side\nKd 0.2 0.3 0.9\nd 1\nnewmtl front\nKd 0.6 0.6 0.6\nd 1\nmap_Kd red.png\n"


def library(path, licence: str = "Released under <a href=x>Creative Commons\n Zero</a> 1.0", state="Public domain"):
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[..., 0] = 230  # red, with a white stripe below
    picture[6:] = 255
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    row = {"id": "A#cupboard", "name": "Cupboard", "model": "/a/cupboard/a.obj", "creator": "Somebody"}
    row |= {"width": "100", "depth": "40", "height": "150"}
    told = [f"license={state}", *(f"{key}#1={value}" for key, value in row.items())]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", "\n".join(told))
        for name, content in {
            "a.obj": OBJ,
            "a.mtl": MTL,
            "red.png": buffer.getvalue(),
            "LICENSE.html": licence,
        }.items():
            archive.writestr(f"a/cupboard/{name}", content)
    return path


@pytest.fixture
def one_piece(monkeypatch):
    table = {"cupboard": {"id": "cupboard", "category": "wardrobe", "place": "floor", "packed": "yes"}}
    monkeypatch.setattr("processing.rooms.furnished.convert.read_table", lambda: table)


def test_a_piece_keeps_size_front_texture_and_origin(tmp_path, one_piece):
    convert_library(library(tmp_path / "a.sh3f"), tmp_path / "out.safetensors")
    (piece,) = read_catalogue(tmp_path / "out.safetensors")["wardrobe"]
    corners, shape = piece.shape.corners, piece.shape
    low, high = corners.reshape(-1, 3).min(0), corners.reshape(-1, 3).max(0)
    assert np.allclose(low, (-0.5, -0.2, 0), atol=1e-3) and np.allclose(high, (0.5, 0.2, 1.5), atol=1e-3)
    textured = [n for n, material in enumerate(piece.materials) if material.picture is not None]
    front = np.isin(shape.material, textured)
    assert np.allclose(corners[front][..., 1], -0.2, atol=1e-3) and np.allclose(
        shape.normals[front], (0, -1, 0), atol=0.02
    )
    # The lower edge of the picture is the lower edge of the front.
    v, z = shape.uv[front][..., 1], corners[front][..., 2]
    off = v - z / 1.5
    whole = np.round(off[:, :1])  # a picture repeats: a face may lie whole pictures further
    assert np.allclose(off, whole, atol=0.01)
    assert piece.colour == "red"  # by the front; the sides are blue
    header, line = (tmp_path / "out.tsv").read_text().splitlines()
    assert line.split("\t")[:6] == [
        "cupboard",
        "Cupboard",
        "wardrobe",
        "Somebody",
        "100 x 40 x 150",
        "Creative Commons Zero",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licence": "Released under Creative Commons Attribution 3.0"}, "in the public domain, got .*Attribution"),
        ({"state": "Creative Commons Attribution 3.0"}, "must be a library in the public domain"),
    ],
)
def test_what_is_not_free_is_refused(tmp_path, one_piece, change, message):
    with pytest.raises(ValueError, match=message):
        convert_library(library(tmp_path / "a.sh3f", **change), tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(("content", "message"), [(None, "No such file"), ("no zip", "File is not a zip file")])
def test_the_command_names_a_library_that_cannot_be_read(tmp_path, capsys, content, message):
    path = tmp_path / "a.sh3f"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit, match="1"):
        main([str(path), str(tmp_path / "out.safetensors")])
    told = capsys.readouterr().err
    assert told.startswith(f"{path} cannot be converted: ") and message in told and told.count("\n") == 1


def test_decimation_keeps_a_surface():
    angle, height = np.meshgrid(np.linspace(0, 2 * np.pi, 81), np.linspace(0, 1, 41))
    points = np.stack([np.cos(angle), np.sin(angle), height], axis=-1)
    a, b, c, d = points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]
    corners = np.concatenate([np.stack(t, axis=-2).reshape(-1, 3, 3) for t in ((a, b, c), (a, c, d))])
    fewer = decimated(corners, 600)
    assert len(fewer) <= 700 and areas(fewer).sum() == pytest.approx(2 * np.pi, rel=0.05)
    normals, outward = smooth_normals(fewer), fewer * (1, 1, 0)
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    assert np.abs((normals * outward).sum(axis=-1)).mean() > 0.99


@pytest.mark.parametrize(
    ("colour", "word"),
    [
        ((0.8, 0.1, 0.1), "red"),
        ((0.1, 0.2, 0.7), "blue"),
        ((0.9, 0.9, 0.88), "white"),
        ((0.05, 0.05, 0.05), "black"),
        ((0.35, 0.19, 0.07), ""),  # brown
        ((0.5, 0.5, 0.5), ""),
        ((0.7, 0.85, 0.3), ""),  # between yellow and green
    ],
)
def test_only_undoubted_colours_have_names(colour, word):
    assert colour_word(np.array(colour)) == word
