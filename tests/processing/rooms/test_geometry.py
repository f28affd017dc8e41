import numpy as np
import pytest

from processing.rooms.generate import room_rng
from processing.rooms.render.images import pinhole_view, primitive_table
from processing.rooms.render.raycast import View, cast_loose, cast_view
from processing.rooms.scene.camera import look_at
from processing.rooms.scene.layout import COUNTABLE, Room, build_room, rectangles_overlap
from processing.rooms.scene.primitives import (
    BOX,
    ELLIPSOID,
    Material,
    PrimitiveTable,
    ball,
    bounds,
    box,
    cylinder,
    moved,
    yaw_matrix,
)
from processing.rooms.scene.styles import STYLES

GREY = Material((0.5, 0.5, 0.5))
CAMERA = np.array([[20.0, 0, 15.5], [0, 20, 15.5], [0, 0, 1]])


def unprojected(depth, intrinsics, pose):
    v, u = np.indices(depth.shape)
    rays = np.stack(
        [(u - intrinsics[0, 2]) / intrinsics[0, 0], (v - intrinsics[1, 2]) / intrinsics[1, 1], np.ones_like(u)]
    )
    return np.einsum("ij,jhw->hwi", pose[:3, :3], rays * depth) + pose[:3, 3]


def seen(solids, position, target, size=32):
    table = PrimitiveTable((0, 0, 1.5), (3, 3, 1.5), [(1, solid) for solid in solids])
    pose = look_at(np.array([position], float), np.array([target], float), np.zeros(1))[0]
    return (*cast_view(pinhole_view(pose, CAMERA, size), table), pose)


def test_a_camera_has_its_axes_right_down_forward():
    pose = look_at(np.array([[0.0, 0, 1]]), np.array([[2.0, 0, 1]]), np.zeros(1))[0]
    np.testing.assert_allclose(pose[:3, 0], [0, -1, 0], atol=1e-12)  # looking along +x, right is -y
    np.testing.assert_allclose(pose[:3, 1], [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(pose[:3, 2], [1, 0, 0], atol=1e-12)


def test_depth_of_a_wall_is_its_distance_at_every_pixel():
    depth, winner, _ = seen([], (-1, 0, 1.5), (3, 0, 1.5))
    middle = depth[10:22, 1:31]  # what sees the wall ahead, not floor, ceiling or side walls
    np.testing.assert_allclose(middle, 4.0, rtol=1e-6)
    assert (winner == 0).all()


def test_depth_of_floor_follows_the_plane():
    depth, _, pose = seen([], (-2.5, 0, 1.5), (0, 0, 0.5))
    points = unprojected(depth, CAMERA, pose)
    on_floor = points[..., 2] < 1e-4
    assert on_floor.sum() > 100
    np.testing.assert_allclose(points[..., 2].clip(None, 0), 0, atol=1e-5)


@pytest.mark.parametrize(
    ("solid", "distance"),
    [
        (box((0, 0, 1.5), (1, 1, 1), GREY), 2.5 - 0.5),
        (box((0, 0, 1.5), (1, 1, 1), GREY, yaw=np.pi / 4), 2.5 - np.sqrt(0.5)),
        (ball((0, 0, 1.5), (0.4, 0.3, 0.5), GREY), 2.5 - 0.4),
        (cylinder((0, 0, 1.5), (0.3, 0.5), 1.0, GREY), 2.5 - 0.3),
        (cylinder((0, 0, 1.5), (0.3, 0.3), 1.0, GREY, axis="x"), 2.5 - 0.5),
        (cylinder((0, 0, 1.5), (0.4, 0.4), 1.0, GREY, top=0.5), 2.5 - 0.3),
        (cylinder((0, 0, 1.5), (0.4, 0.4), 1.0, GREY, bottom=0.0), 2.5 - 0.2),
    ],
)
def test_the_ray_through_the_middle_meets_each_solid_where_it_should(solid, distance):
    table = PrimitiveTable((0, 0, 1.5), (3, 3, 1.5), [(1, solid)])
    pose = look_at(np.array([[-2.5, 0, 1.5]]), np.array([[0.0, 0, 1.5]]), np.zeros(1))[0]
    view = pinhole_view(pose, np.array([[20.0, 0, 16], [0, 20, 16], [0, 0, 1]]), 33)
    depth, winner = cast_view(view, table)
    assert depth[16, 16] == pytest.approx(distance, abs=1e-5) and winner[16, 16] == 1


@pytest.mark.parametrize(
    "solid",
    [
        box((0.2, 0.1, 1.2), (0.8, 0.5, 0.7), GREY, yaw=0.5),
        ball((0, 0.2, 1.3), (0.4, 0.3, 0.5), GREY, yaw=0.7),
        cylinder((0, 0, 1.2), (0.5, 0.3), 0.9, GREY, top=0.4),
        cylinder((0, 0, 1.2), (0.3, 0.3), 0.9, GREY, axis="y"),
    ],
)
@pytest.mark.parametrize("position", [(-2.5, 0.3, 2.6), (-1.5, -2, 0.4)])
def test_hits_lie_on_the_surface_and_inside_the_bounds(solid, position):
    depth, winner, pose = seen([solid], position, solid.center)
    points = unprojected(depth.astype(np.float64), CAMERA, pose)[winner == 1]
    assert len(points) > 20
    low, high = bounds([solid])
    assert (points > low - 1e-4).all() and (points < high + 1e-4).all()
    unit = (points - solid.center) @ solid.rotation / solid.half
    if solid.kind == BOX:
        level = np.abs(unit).max(axis=1)
    elif solid.kind == ELLIPSOID:
        level = np.linalg.norm(unit, axis=1)
    else:
        radius = solid.bottom + (solid.top - solid.bottom) * (unit[:, 2] + 1) / 2
        level = np.maximum(np.hypot(unit[:, 0], unit[:, 1]) / radius, np.abs(unit[:, 2]))
    np.testing.assert_allclose(level, 1, atol=1e-3)


def solids_around(rng):
    """Solids of all kinds and shapes around the origin, none of them within 0.2 m of it."""
    solids = []
    while len(solids) < 60:
        center, size = rng.uniform(-2, 2, 3), np.exp(rng.uniform(-4, 0.5, 3))
        solid = (
            box(center, size, GREY, yaw=rng.uniform(0, 6)),
            ball(center, size / 2, GREY, yaw=rng.uniform(0, 6)),
            cylinder(center, size[:2] / 2, size[2], GREY, axis=("x", "y", "z")[len(solids) % 3], top=0.6),
        )[len(solids) % 3]
        low, high = bounds([solid])
        if (np.maximum(low, -high) > 0.2).any():
            solids.append(solid)
    return solids


@pytest.mark.parametrize("seed", range(8))
def test_solids_beside_the_camera_are_seen_as_if_cast_in_the_whole_frame(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    table = PrimitiveTable((0, 0, 0), (3, 3, 3), list(enumerate(solids_around(rng), 1)))
    pose = look_at(np.zeros((1, 3)), rng.normal(size=(1, 3)), rng.normal(size=1))[0]
    view = pinhole_view(pose, CAMERA, 32)
    depth_of_corners = ((table.corners - view.position) @ view.rotation)[..., 2]
    beside = np.flatnonzero((depth_of_corners > 0).any(axis=1) & (depth_of_corners < 0).any(axis=1))[1:]
    assert len(beside) >= 3
    rectangles = view.rectangles(table)
    assert np.prod(rectangles[beside, 1::2] - rectangles[beside, ::2], axis=1).min() < 32 * 32
    found = cast_view(view, table)
    monkeypatch.setattr(View, "rectangles", lambda self, table: np.tile([0, 32, 0, 32], (len(table), 1)))
    for ours, whole in zip(found, cast_view(view, table), strict=True):
        np.testing.assert_array_equal(ours, whole)


def test_a_solid_that_passes_the_camera_is_cast_in_its_part_of_the_frame():
    bar = box((0.0, -0.5, 1.4), (6.0, 0.04, 0.04), GREY)  # to the right of a camera that looks along it
    table = PrimitiveTable((0, 0, 1.5), (3, 3, 1.5), [(1, bar)])
    pose = look_at(np.array([[-2.0, 0, 1.5]]), np.array([[0.0, 0, 1.5]]), np.zeros(1))[0]
    view = pinhole_view(pose, CAMERA, 32)
    up, low, left, right = view.rectangles(table)[1]
    rows, columns = np.nonzero(cast_view(view, table)[1] == 1)
    assert len(rows) > 5 and (rows.min() >= up) and (rows.max() < low)
    assert left <= columns.min() <= left + 1 and up >= 16  # the part ahead of the lens, below its axis


def test_every_pixel_lies_in_the_box_of_its_object(rooms, arrays):
    for (room, row), (ids, depth, intrinsics, poses) in zip(rooms, arrays, strict=True):
        shell = np.array([room.shell.width / 2, room.shell.depth / 2, room.shell.height])
        for view in range(len(ids)):
            points = unprojected(depth[view], intrinsics, poses[view])
            assert (np.abs(points[..., :2]) < shell[:2] + 1e-3).all()
            assert (points[..., 2] > -1e-3).all() and (points[..., 2] < shell[2] + 1e-3).all()
            for thing in row["objects"]:
                mine = points[ids[view] == thing["id"]]
                center, size = np.array(thing["center"]), np.array(thing["size"])
                assert (np.abs(mine - center) <= size / 2 + 2e-3).all()


def test_a_point_of_one_frame_is_never_hidden_air_in_the_next(rooms, arrays):
    """Points of a frame, seen from the next: a surface at their depth, or something in front of them."""
    for (room, _), (_, depth, intrinsics, poses) in list(zip(rooms, arrays, strict=True))[:20]:
        table = primitive_table(room)
        points = unprojected(depth[0], intrinsics, poses[0]).reshape(-1, 3)
        local = (points - poses[1][:3, 3]) @ poses[1][:3, :3]
        local = local[local[:, 2] > 0.1]
        tan = (local[:, :2] / local[:, 2:]).T
        reach = (depth.shape[-1] / 2) / intrinsics[0, 0]
        inside = (np.abs(tan) < reach).all(axis=0)
        assert inside.mean() > 0.5  # consecutive frames overlap
        local, tan = local[inside], tan[:, inside, None]
        everything = [(index, np.arange(tan.shape[1])) for index in range(len(table))]
        found, _ = cast_loose(pinhole_view(poses[1], intrinsics, depth.shape[-1]), table, tan, everything)
        gap = found[:, 0] - local[:, 2]
        assert (gap > 5e-3).mean() < 2e-3  # rays along an edge may slip past it
        assert (np.abs(gap) < 5e-3).mean() > 0.6


def test_moved_solids_are_turned_then_shifted():
    solids = [box((1, 0, 0.5), (0.4, 0.2, 1), GREY), cylinder((0, 2, 1), (0.3, 0.2), 1.0, GREY, axis="x", top=0.5)]
    one, two = moved(solids, np.pi / 2, np.array([10, 20, 0.25]))
    np.testing.assert_allclose([one.center, two.center], [[10, 21, 0.75], [8, 20, 1.25]], atol=1e-12)
    np.testing.assert_allclose(two.rotation, yaw_matrix(np.pi / 2) @ solids[1].rotation, atol=1e-12)
    assert (one.kind, two.kind, two.top) == (solids[0].kind, solids[1].kind, 0.5)
    np.testing.assert_array_equal(solids[0].center, [1, 0, 0.5])
    for low, high in (bounds([one, two]), bounds([one])):  # with a round solid, and of boxes alone
        np.testing.assert_allclose(high[:2], [10.1, 21.2], atol=1e-12)
        assert low[0] < 10 - 0.099


@pytest.mark.parametrize("margin", [0.0, 0.04])
def test_rectangles_overlap_unless_a_side_of_one_parts_them(margin):
    rng, answers = np.random.default_rng(3), []
    for _ in range(400):
        quads = []
        for _ in range(2):
            x, y = np.exp(rng.uniform(-3, 0.5, 2))
            corners = np.array([[-x, -y, 0], [x, -y, 0], [x, y, 0], [-x, y, 0]])
            quads.append((corners @ yaw_matrix(rng.uniform(0, 6)).T)[:, :2] + rng.uniform(-1.5, 1.5, 2))
        gaps = []
        for quad in quads:
            for side in (quad[1] - quad[0], quad[2] - quad[1]):
                one, two = (q @ side / np.linalg.norm(side) for q in quads)
                gaps.append(max(two.min() - one.max(), one.min() - two.max()))
        answers.append(rectangles_overlap(*quads, margin))
        assert answers[-1] == (max(gaps) < margin)
    assert 60 < sum(answers) < 340


@pytest.mark.parametrize(("shift", "overlap"), [(1.035, True), (1.045, False)])
def test_rectangles_corner_to_corner_overlap_within_the_margin_of_a_side(shift, overlap):
    square = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    assert rectangles_overlap(square, square + shift, 0.04) == overlap


def solid_points(rng, solid, number):
    unit = rng.uniform(-1, 1, (number, 3))
    if solid.kind == ELLIPSOID:
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1)
    elif solid.kind != BOX:
        radius = solid.bottom + (solid.top - solid.bottom) * (unit[:, 2:] + 1) / 2
        unit[:, :2] *= radius / np.maximum(np.linalg.norm(unit[:, :2], axis=1, keepdims=True), 1)
    return unit * solid.half @ solid.rotation.T + solid.center


def depth_inside(solid, points):
    """How far points are inside a solid at least, metres; negative outside."""
    unit = (points - solid.center) @ solid.rotation / solid.half
    if solid.kind == BOX:
        return ((1 - np.abs(unit)) * solid.half).min(axis=-1)
    if solid.kind == ELLIPSOID:
        return (1 - np.linalg.norm(unit, axis=-1)) * solid.half.min()
    radius = solid.bottom + (solid.top - solid.bottom) * (unit[..., 2] + 1) / 2
    side = (radius - np.hypot(unit[..., 0], unit[..., 1])) * solid.half[:2].min()
    return np.minimum(side, (1 - np.abs(unit[..., 2])) * solid.half[2])


def test_no_piece_of_furniture_is_inside_another_or_a_wall(rooms):
    rng = np.random.default_rng(0)
    for room, row in rooms:
        limit = np.array([room.shell.width / 2, room.shell.depth / 2])
        for thing in room.objects:
            assert (np.abs(thing.low[:2]) <= limit + 1e-6).all() and (np.abs(thing.high[:2]) <= limit + 1e-6).all()
            assert thing.low[2] > -1e-6 and thing.high[2] < room.shell.height + 1e-6
        for a in room.objects:
            near = [b for b in room.objects if b.id != a.id and (a.low < b.high).all() and (b.low < a.high).all()]
            if not near:
                continue
            points = np.concatenate([solid_points(rng, part, 60) for part in a.parts])
            for b in near:
                deepest = max(depth_inside(part, points).max() for part in b.parts)
                assert deepest < 5e-3, (
                    f"{row['scene_id']}: {a.category} {a.id} in {b.category} {b.id} by {deepest:.3f} m"
                )


def test_what_stands_on_something_touches_its_top(rooms):
    number = 0
    for room, _ in rooms:
        for thing in room.objects:
            if thing.support_id:
                number += 1
                tops = [bounds([part])[1][2] for part in room.objects[thing.support_id - 1].parts]
                assert min(abs(thing.low[2] - top) for top in tops) < 2e-3
    assert number > 20


def test_the_camera_keeps_clear_of_everything(rooms, arrays):
    for (room, _), (*_, poses) in zip(rooms, arrays, strict=True):
        eyes = poses[:, :3, 3]
        limit = np.array([room.shell.width / 2, room.shell.depth / 2])
        assert (np.abs(eyes[:, :2]) < limit - 0.15).all() and (eyes[:, 2] > 0.5).all()
        for thing in room.objects:
            outside = np.maximum(thing.low - eyes, eyes - thing.high).max(axis=1)
            assert (outside > 0.15).all()


def test_the_walk_is_smooth_and_its_poses_are_rigid(arrays):
    for *_, poses in arrays:
        rotation = poses[:, :3, :3]
        np.testing.assert_allclose(
            rotation.transpose(0, 2, 1) @ rotation, np.tile(np.eye(3), (len(poses), 1, 1)), atol=1e-5
        )
        steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
        turns = np.arccos(np.clip((rotation[1:, :, 2] * rotation[:-1, :, 2]).sum(axis=1), -1, 1))
        assert (steps < 1.3).all() and (turns < np.deg2rad(45)).all()


def test_rooms_hold_many_kinds_of_several_parts(rooms):
    parts = {}
    for room, _ in rooms:
        for thing in room.objects:
            parts.setdefault(thing.category, []).append(len(thing.parts))
    assert len(parts) >= 16
    assert all(max(number) >= 2 for number in parts.values())
    heights = [thing.size[2] for room, _ in rooms for thing in room.objects if thing.category == "table"]
    assert max(heights) > 1.4 * min(heights)


def test_a_room_holds_as_many_featured_pieces_as_asked():
    found = []
    for index in range(20):
        rng = room_rng("train", 5, index)
        room = build_room(rng, COUNTABLE[index % len(COUNTABLE)], index % 5, list(STYLES.values())[index % 2])
        if isinstance(room, Room):
            found.append(index % 5)
            assert len(room.featured_objects) == index % 5
    assert len(found) > 10
