"""The packed pieces: true in size, free to use, small, and turned to the front."""

import shutil

import numpy as np
import pytest
import safetensors.numpy

from processing.rooms.furnished import read_catalogue
from processing.rooms.furnished.catalogue import FURNITURE_FILE, read_table
from processing.rooms.scene.palette import COLOURS


@pytest.fixture(scope="module")
def pieces():
    return {piece.name: piece for group in read_catalogue().values() for piece in group}


@pytest.fixture(scope="module")
def origins():
    header, *lines = FURNITURE_FILE.with_suffix(".tsv").read_text().splitlines()
    return {line.split("\t")[0]: dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines}


def test_the_package_holds_forty_to_sixty_pieces_in_six_megabytes(pieces):
    assert 40 <= len(pieces) <= 60 and FURNITURE_FILE.stat().st_size <= 6e6
    assert set(pieces) == {name for name, row in read_table().items() if row["packed"] == "yes"}


def test_every_piece_is_in_the_public_domain(pieces, origins):
    assert set(origins) == set(pieces)
    for name, row in origins.items():
        assert "Zero" in row["licence in its folder"] or row["licence in its folder"] == "the library's", name
        assert row["author"], name


def test_pieces_have_the_sizes_of_the_catalogue_and_stand_on_the_origin(pieces, origins):
    for name, piece in pieces.items():
        told = np.array([float(x) / 100 for x in origins[name]["size in cm"].split(" x ")])
        points = piece.shape.corners.reshape(-1, 3)
        low, high = points.min(axis=0), points.max(axis=0)
        assert np.allclose(high - low, told, atol=1e-3), name
        assert np.allclose([low[2], *(low[:2] + high[:2])], 0, atol=1e-3), name
        assert np.allclose(np.linalg.norm(piece.shape.normals, axis=-1), 1, atol=0.05), name
        assert piece.colour in ("", *COLOURS)


def test_the_front_of_a_seat_or_bed_is_low_and_its_back_is_high(pieces):
    seats = [piece for piece in pieces.values() if piece.category in ("chair", "armchair", "sofa", "bed")]
    seats = [piece for piece in seats if piece.name != "sofa"]  # arms all around
    assert len(seats) > 15
    for piece in seats:
        points, reach = piece.shape.corners.reshape(-1, 3), piece.size[1] / 4
        back, front = (points[side][:, 2].max() for side in (points[:, 1] > reach, points[:, 1] < -reach))
        assert back > front + 0.05, piece.name


def test_flat_tops_are_tops(pieces):
    tops = [piece for piece in pieces.values() if piece.support]
    assert len(tops) >= 5
    for piece in tops:
        x, y, z = piece.support
        assert 0 < x <= piece.size[0] / 2 and 0 < y <= piece.size[1] / 2 and 0.3 < z <= piece.size[2] + 1e-3


def test_what_a_file_of_pieces_must_hold_is_checked(tmp_path):
    arrays = safetensors.numpy.load_file(FURNITURE_FILE)
    with safetensors.safe_open(FURNITURE_FILE, framework="np") as file:
        header = file.metadata()
    path = tmp_path / "pieces.safetensors"

    def write(**changes):
        told = {**header, "pieces": changes.pop("pieces", header["pieces"])}
        path.write_bytes(safetensors.numpy.save({**arrays, **changes}, told))

    huge = arrays["pictures"].copy()  # its first texture says that it has 65,500 x 65,500 pixels
    size = huge.tobytes().index(b"\xff\xc0") + 5
    huge[size : size + 4] = np.frombuffer(b"\xff\xdc\xff\xdc", np.uint8)
    shutil.copy(FURNITURE_FILE, path)
    assert set(read_catalogue(path)) == set(read_catalogue())
    for changes in (
        {"vertices": arrays["vertices"][:-1]},
        {"uv": np.full_like(arrays["uv"], np.nan)},
        {"material": np.full_like(arrays["material"], 200)},
        {"triangles": np.full_like(arrays["triangles"], 65535)},
        {"pictures": arrays["pictures"][:10]},
        {"pictures": huge},
        {"pieces": "[]"},
        {"pieces": header["pieces"].replace('"floor"', '"roof"')},
        {"pieces": header["pieces"].replace('"size": [', '"size": [1e9, ', 1)},
    ):
        write(**changes)
        with pytest.raises(ValueError, match=r"pieces\.safetensors must be a file that .*convert made"):
            read_catalogue(path)
    path.write_bytes(FURNITURE_FILE.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="Make it again"):
        read_catalogue(path)
