"""Both casters of triangles agree with plain geometry, and with each other on a furnished room."""

import numpy as np
import pytest

from processing.rooms.furnished import cast_room, room_table
from processing.rooms.furnished.casting import TriangleCaster
from processing.rooms.generate import make_room
from processing.rooms.render.images import RAYS, pinhole_view
from processing.rooms.render.raycast import NEAR, View

SIZE = 33
TAN = (np.arange(SIZE) - 16) / 24
VIEW = View(np.eye(3), np.array([0.1, -0.2, -1.0]), TAN, TAN)


def loose_triangles() -> np.ndarray:
    rng = np.random.default_rng(0)
    small = rng.uniform(-2, 2, (200, 1, 3)) + rng.normal(0, 0.2, (200, 3, 3))
    # Large ones reach behind the camera, where a projection to pixels would turn them inside out.
    return np.concatenate([small, rng.uniform(-3, 3, (30, 3, 3))])


def plain_hit(corners: np.ndarray, ray: np.ndarray) -> tuple[float, int]:
    """The nearest crossing of a ray and the planes of triangles, inside them."""
    a, b, c = np.moveaxis(corners - VIEW.position, 1, 0)
    normal = np.cross(b - a, c - a)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (normal * a).sum(1) / (normal @ ray)
    points = depth[:, None] * ray
    sides = [((np.cross(q - p, points - p)) * normal).sum(1) for p, q in ((a, b), (b, c), (c, a))]
    depth[~((np.min(sides, axis=0) >= 0) & (depth > NEAR))] = np.inf
    return float(depth.min()), int(depth.argmin())


@pytest.mark.parametrize("engine", ["zbuffer", "embree"])
def test_first_hits_are_those_of_plain_geometry(engine):
    if engine == "embree":
        pytest.importorskip("embreex")
    corners = loose_triangles()
    depth, triangle = TriangleCaster(corners, engine).cast(VIEW)
    for y in range(0, SIZE, 4):
        for x in range(0, SIZE, 4):
            expected, which = plain_hit(corners, np.array([TAN[x], TAN[y], 1.0]))
            assert depth[y, x] == pytest.approx(expected, rel=1e-4), (y, x)
            assert triangle[y, x] == (which if np.isfinite(expected) else -1)


def test_shifted_rays_are_those_of_a_shifted_view():
    caster, shift = TriangleCaster(loose_triangles(), "zbuffer"), 0.25 / 24
    depth, triangle = caster.cast_shifted(VIEW, np.array([[0, 0], [shift, -shift]]), np.arange(SIZE * SIZE))
    moved = View(VIEW.rotation, VIEW.position, TAN + shift, TAN - shift)
    for number, view in enumerate((VIEW, moved)):
        alone, which = caster.cast(view)
        assert (triangle[number] == which.ravel()).mean() > 0.999
        assert np.allclose(depth[number], alone.ravel(), atol=1e-4, equal_nan=True) or number


def test_no_triangle_is_hit_where_there_is_none():
    depth, triangle = TriangleCaster(np.zeros((0, 3, 3))).cast(VIEW)
    assert np.isinf(depth).all() and (triangle == -1).all()


def test_the_casters_see_the_same_furnished_room():
    pytest.importorskip("embreex")
    room, row = make_room("train", 0, 2, 48, 2, "furnished")
    views = [
        pinhole_view(np.array(pose, float), np.array(camera, float), 48)
        for pose, camera in zip(row["camera_to_world"], row["intrinsics"], strict=True)
    ]
    tables = [room_table(room, engine) for engine in ("zbuffer", "embree")]
    for view in views:
        (depth, winner), (other, other_winner) = (cast_room(view, table) for table in tables)
        ids, other_ids = tables[0].object_id[winner], tables[1].object_id[other_winner]
        # A ray along an outline may pass on either side of it in single precision.
        assert (ids != other_ids).mean() <= 1e-3
        same = ids == other_ids
        assert np.abs(depth - other)[same].max() < 1e-3
        pixel = np.array([view.tan_x[1] - view.tan_x[0]] * 2)
        fine = [table.caster.cast_shifted(view, RAYS * pixel)[0] for table in tables]
        assert (np.isfinite(fine[0]) == np.isfinite(fine[1])).mean() > 0.999


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="`engine` must be one of 'embree', 'zbuffer', got 'torch'"):
        TriangleCaster(loose_triangles(), "torch")
