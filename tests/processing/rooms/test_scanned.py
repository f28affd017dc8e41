"""Scanned layouts keep the sizes of the scan, and are furnished as rooms that the generator's parts take."""

import json
from pathlib import Path

import numpy as np
import pytest
from scanned_rooms.from_captures import convert

from processing.rooms.render.images import pinhole_view, primitive_table
from processing.rooms.render.raycast import cast_view
from processing.rooms.scene import scanned
from processing.rooms.scene.camera import look_at
from processing.rooms.scene.scanned import build_scanned_room, scanned_rooms
from processing.rooms.scene.styles import LOFT, PLAIN

NAMES = ["living_room", "meeting_room", "music_room", "office_large", "office_small"]


@pytest.fixture(scope="module", params=NAMES)
def layout(request):
    return next(room for room in scanned_rooms() if room.name == request.param)


def test_all_five_are_there_with_their_licence():
    assert [room.name for room in scanned_rooms()] == NAMES
    contents = json.loads(Path(scanned.__file__).with_name("scanned_rooms.json").read_text())
    assert contents["licence"].startswith("MIT License") and "Permission is hereby granted" in contents["licence"]


def test_furniture_has_the_size_and_the_place_of_the_scan(layout):
    room = build_scanned_room(np.random.default_rng(0), layout, PLAIN)
    boxes = {tuple(box.center[:2].round(3)): box for box in layout.boxes}
    floor = [thing for thing in room.objects if thing.place == "floor"]
    assert floor
    for thing in floor:
        box = boxes[tuple(thing.footprint.mean(0).round(3))]
        assert thing.category == box.kind
        sides = np.linalg.norm(np.diff(thing.footprint[:3], axis=0), axis=1)
        assert sorted(sides) == pytest.approx(sorted(box.size[:2]), rel=0.05)
        assert thing.low[2] == pytest.approx(0, abs=0.01)
        assert thing.high[2] == pytest.approx(box.center[2] + box.size[2] / 2, rel=0.05)
    for thing in room.objects:
        if thing.support_id:
            host = next(other for other in room.objects if other.id == thing.support_id)
            assert thing.low[2] == pytest.approx(host.high[2], abs=0.02)


def test_backs_are_to_the_walls_and_pictures_on_them(layout):
    room = build_scanned_room(np.random.default_rng(1), layout, LOFT)
    half = np.array([room.shell.width, room.shell.depth]) / 2
    for thing in room.objects:
        if thing.place == "wall":
            assert min(half - np.abs(thing.center[:2])) < 0.05
        if thing.category == "sofa":
            back = np.array([-np.sin(thing.yaw), np.cos(thing.yaw)])
            assert back @ thing.center[:2] > 0  # away from the middle of the room
            assert np.ptp(thing.footprint @ [np.cos(thing.yaw), np.sin(thing.yaw)]) > 1.3


def test_a_ray_to_the_top_of_a_piece_meets_it(layout):
    room = build_scanned_room(np.random.default_rng(2), layout, PLAIN)
    table = primitive_table(room)
    thing = max(room.objects, key=lambda thing: np.prod(thing.size[:2]))
    camera = np.array([[20.0, 0, 16], [0, 20, 16], [0, 0, 1]])
    above = thing.center + [0.01, 0.01, 0]
    above[2] = room.shell.height - 0.3
    depth, winner = cast_view(
        pinhole_view(look_at(above[None], thing.center[None], np.zeros(1))[0], camera, 33), table
    )
    assert (table.object_id[winner] == thing.id).any()
    assert depth.min() > 0 and depth.max() < np.linalg.norm(layout.size)


def test_doors_and_windows_are_those_of_the_scan(layout):
    room = build_scanned_room(np.random.default_rng(3), layout, PLAIN)
    found = [(opening.wall, opening.is_door) for opening in room.shell.openings]
    assert found == [(wall, is_door) for wall, *_, is_door in layout.plans]
    for opening in room.shell.openings:
        assert 0.2 < opening.along[1] - opening.along[0] - 0.2 < 3
        assert 0 <= opening.z[0] < opening.z[1] < room.shell.height


def test_other_pieces_may_be_given(layout):
    seen = []

    def build(kind):
        def make(rng, colour, style):
            seen.append(kind)
            return scanned.FLOOR_PIECES[kind](rng, colour, style)

        return make

    build_scanned_room(np.random.default_rng(4), layout, PLAIN, {kind: build(kind) for kind in scanned.FLOOR_PIECES})
    assert seen and set(seen) <= {box.kind for box in layout.boxes}


def test_a_capture_is_turned_to_its_walls_and_put_on_its_floor():
    """A room of 4 x 3 m and 2.5 m, turned by 20 degrees, with one box of 1 x 0.5 x 0.8 m in a corner."""
    turn = np.deg2rad(20)

    def entity(label, x, y, z, yaw, size, is_box=False):
        """Place a thing in the capture's own axes, y up; planes of walls stand on their local z."""
        half = (turn + yaw) / 2
        about_up = np.array([0, np.sin(half), 0, np.cos(half)])  # y axis
        stand = np.array([-np.sin(np.pi / 4), 0, 0, np.cos(np.pi / 4)])  # local z becomes up
        a, b = about_up, stand
        product = [
            a[3] * b[0] + a[0] * b[3] + a[1] * b[2] - a[2] * b[1],
            a[3] * b[1] - a[0] * b[2] + a[1] * b[3] + a[2] * b[0],
            a[3] * b[2] + a[0] * b[1] - a[1] * b[0] + a[2] * b[3],
            a[3] * b[3] - a[0] * b[0] - a[1] * b[1] - a[2] * b[2],
        ]
        cos, sin = np.cos(turn), np.sin(turn)
        place = (cos * x - sin * y + 7, z + 1, -(sin * x + cos * y))
        result = {
            "semanticLabel_META": label,
            "locatable_META": {
                "orientation": dict(zip("xyzw", product, strict=True)),
                "position": dict(zip("xyz", place, strict=True)),
            },
        }
        if is_box:
            extent = dict(zip(("width", "height", "depth"), size, strict=True))
            offset = {axis: -side / 2 for axis, side in zip("xyz", size, strict=True)}
            return result | {"bounded3D_META": {"offset": offset, "extent": extent}}
        return result | {"bounded2D_META": {"extent": dict(zip(("width", "height"), size, strict=True))}}

    walls = [
        entity("WALL_FACE", 0, 1.5, 1.25, 0, (4, 2.5)),
        entity("WALL_FACE", 0, -1.5, 1.25, 0, (4, 2.5)),
        entity("WALL_FACE", 2, 0, 1.25, np.pi / 2, (3, 2.5)),
        entity("WALL_FACE", -2, 0, 1.25, np.pi / 2, (3, 2.5)),
    ]
    things = [
        entity("FLOOR", 0, 0, 0, 0, (4, 3)),
        entity("DOOR_FRAME", 1, 1.5, 1, 0, (0.9, 2)),
        entity("TABLE", 1.4, -1.1, 0.4, 0, (1, 0.5, 0.8), is_box=True),
    ]
    room = convert({"spatialEntities": walls + things}, "room")
    assert room["size"] == pytest.approx([4, 3, 2.5], abs=2e-3)
    assert room["doors"][0] == pytest.approx([1, 1.5, 1, 0.9, 2], abs=2e-3)
    (box,) = room["boxes"]
    assert box["center"] == pytest.approx([1.4, -1.1, 0.4], abs=2e-3)
    assert box["size"] == [1, 0.5, 0.8] and box["yaw"] == pytest.approx(0, abs=1e-3)
