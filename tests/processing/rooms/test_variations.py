"""Variations of rooms change what they name and nothing else, and exact geometry stays exact."""

import io

import numpy as np
import pytest
from PIL import Image

from processing.rooms import load_rooms
from processing.rooms.generate import make_room
from processing.rooms.places import place_sample
from processing.rooms.samples import cell_depth, naming_samples
from processing.rooms.variations import HEIGHT, HOLES, PITCH, ROLL, SHAPE, VARIATIONS, WIDE, RoomVariations
from processing.token_grid import TokenGrid

SIZE, VIEWS, ROOMS = 48, 3, 4
CAMERAS = ("pitch", "height", "roll", "field_of_view")


def decode(row, key):
    return np.stack([np.asarray(Image.open(io.BytesIO(entry["bytes"]))) for entry in row[key]])


def make(index, *names):
    return make_room("train", 0, index, SIZE, VIEWS, "plain", names)[1]


@pytest.fixture(scope="module")
def plain():
    return [make(index) for index in range(ROOMS)]


@pytest.mark.parametrize("name", ["blur", "exposure", "noise", "jpeg", "texture", "light"])
def test_looks_change_the_frames_alone(plain, name):
    for index, row in enumerate(plain):
        varied = make(index, name)
        changed = [key for key in row if key != "frames" and str(varied[key]) != str(row[key])]
        assert not changed
        difference = np.abs(decode(varied, "frames").astype(int) - decode(row, "frames"))
        assert 0.2 < difference.mean() < 120


def test_holes_change_depth_alone_and_leave_the_rest_exact(plain):
    shares = []
    for index, row in enumerate(plain):
        varied = make(index, "holes")
        assert [key for key in row if str(varied[key]) != str(row[key])] == ["depth"]
        depth, exact = decode(varied, "depth"), decode(row, "depth")
        holes = depth == 0
        assert (depth[~holes] == exact[~holes]).all()
        shares += holes.mean((1, 2)).tolist()
    assert min(shares) >= HOLES[0] - 0.01 and max(shares) <= HOLES[1] + 0.01
    assert np.ptp(shares) > 0.01


def mean_angles(row):
    poses = np.array(row["camera_to_world"], np.float64)
    pitch = np.rad2deg(np.arcsin(poses[:, 2, 2])).mean()
    roll = np.rad2deg(np.arctan2(poses[:, 2, 0], -poses[:, 2, 1])).mean()
    return pitch, roll, poses[:, 2, 3].mean()


@pytest.mark.parametrize(("name", "part", "limits"), [("pitch", 0, PITCH), ("roll", 1, ROLL), ("height", 2, HEIGHT)])
def test_walks_have_the_angle_or_height_of_the_real_one(name, part, limits):
    found = [mean_angles(make(index, name))[part] for index in range(ROOMS)]
    slack = 2.0 if name == "roll" else 0.02  # the walk's own sway is on top of the roll
    assert all(limits[0] - slack <= value <= limits[1] + slack for value in found)
    assert np.ptp(found) > 0.1 * (limits[1] - limits[0])


def test_a_wide_picture_is_squashed_and_its_rays_hit_the_walls_where_depth_says():
    """The room is a box: unprojected wall and floor points must lie on one of its six planes."""
    for index in range(ROOMS):
        room, row = make_room("train", 0, index, SIZE, VIEWS, "plain", CAMERAS)
        camera, poses = np.array(row["intrinsics"][0], np.float64), np.array(row["camera_to_world"], np.float64)
        across, down = (2 * np.arctan(SIZE / 2 / camera[axis, axis]) for axis in (0, 1))
        assert WIDE[0] <= np.rad2deg(across) <= WIDE[1]
        assert np.tan(down / 2) == pytest.approx(SHAPE * np.tan(across / 2), rel=1e-5)
        v, u = np.mgrid[:SIZE, :SIZE]
        rays = np.linalg.inv(camera) @ np.stack([u, v, np.ones_like(u)]).reshape(3, -1)
        for pose, depth, ids in zip(poses, decode(row, "depth"), decode(row, "instance_ids"), strict=True):
            points = pose[:3, :3] @ (rays * depth.ravel()) + pose[:3, 3:]
            shell = np.array([room.shell.width / 2, room.shell.depth / 2, room.shell.height])
            gaps = np.stack([*(shell[:2, None] - np.abs(points[:2])), points[2], shell[2] - points[2]])
            assert gaps.min() > -1e-3
            near = (gaps.min(0) < 0.35)[ids.ravel() == 0]  # rugs, skirting, doors and windows stand off a little
            assert near.mean() > 0.99


def test_furniture_keeps_its_named_colour(plain):
    room = make_room("train", 0, 1, SIZE, VIEWS, "plain", ("texture",))[0]
    bare = make_room("train", 0, 1, SIZE, VIEWS)[0]
    for varied, thing in zip(room.objects, bare.objects, strict=True):
        assert [part.material.colour for part in varied.parts] == [part.material.colour for part in thing.parts]
        assert all((a.center == b.center).all() for a, b in zip(varied.parts, thing.parts, strict=True))
    faces = zip(room.shell.faces, bare.shell.faces, strict=True)
    assert all(varied.colour != face.colour for varied, face in faces)


def test_one_variation_is_drawn_alike_whatever_the_others_are():
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, :3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    alone, both = (RoomVariations(names, "room").vary_path(poses) for names in (("height",), CAMERAS))
    assert (alone[:, :3, 3] == both[:, :3, 3]).all()
    other = RoomVariations(("height",), "another room").vary_path(poses)
    assert other[0, 2, 3] != alone[0, 2, 3]


def test_a_load_is_kept_apart_from_that_without_variations(tmp_path):
    shape = {"image_size": 24, "num_frames": 2, "num_proc": 1, "cache_dir": tmp_path}
    plain, noisy = load_rooms("train", 1, **shape), load_rooms("train", 1, variations=["noise"], **shape)
    assert np.asarray(plain[0]["frames"][0]).tolist() != np.asarray(noisy[0]["frames"][0]).tolist()
    assert noisy[0]["frames"] == load_rooms("train", 1, variations={"noise"}, **shape)[0]["frames"]


def test_what_is_no_variation_is_refused():
    with pytest.raises(ValueError, match=r"`variations` must be a list of names among .*pitch.*, it holds 'rain'"):
        load_rooms("train", 1, variations=("rain",))
    with pytest.raises(TypeError, match="`variations` must be a list"):
        load_rooms("train", 1, variations=VARIATIONS[0])


def test_cells_in_holes_are_neither_asked_about_nor_named():
    row = make(0, "holes")
    row |= {
        key: [Image.open(io.BytesIO(entry["bytes"])) for entry in row[key]]
        for key in ("frames", "depth", "instance_ids")
    }
    grid = TokenGrid(SIZE, 8, 1)
    metres, _ = cell_depth(decode(make(0, "holes"), "depth"), grid)
    assert (metres == 0).any()
    words = naming_samples(row, grid)[1]["cell_words"]
    assert ((words == "") == (metres == 0)).all()
    sample = place_sample(row, grid, np.random.default_rng(0), 200)
    kinds = np.array([question["type"] for question in sample["questions"]])
    regions, asked = iter(sample["region_masks"]), []
    for kind in kinds:
        masks = [next(regions) for _ in range(2 if kind in ("closer", "direction") else 1)]
        asked += [mask[0] for mask in masks if kind != "colour"]
    assert not (np.any(asked, axis=0) & (metres[0] == 0)).any()


def test_a_narrow_view_that_looks_down_is_not_asked_to_count_what_hangs_high():
    """Room 11 of this split is built around pendants, which no such walk can show."""
    assert make_room("train", 0, 11, 24, 2)[0].featured in ("pendant", "picture")
    room, row = make_room("train", 0, 11, 24, 2, "plain", CAMERAS)
    assert room.featured not in ("pendant", "picture")
    assert {question["type"] for question in row["questions"]} >= {"distance", "counting"}
