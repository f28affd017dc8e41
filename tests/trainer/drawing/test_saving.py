"""The ending of a name chooses the format; a file is written whole or not at all."""

import sys

import numpy as np
import pytest
from drawn_scenes import INTRINSICS
from PIL import Image

from trainer.drawing import Cameras, ObjectMark, save_drawing
from trainer.drawing.spaces import mark_colour


@pytest.fixture
def posed(make, poses):
    return make(cameras=Cameras(INTRINSICS, poses))


def test_pages_and_pictures_are_written(make, tmp_path):
    page = save_drawing(make(), tmp_path / "new" / "page.HTML")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert Image.open(save_drawing(make(), str(tmp_path / "sheet.png"))).format == "PNG"


@pytest.mark.parametrize("name", ["page", "page.htm", "page.jpg", "page.html.gz", ".html"])
def test_an_unknown_ending_is_told_with_those_that_are_known(make, tmp_path, name):
    with pytest.raises(ValueError, match=r"must end with one of \.html .*\.png .*\.ply .*\.glb .*\.rrd"):
        save_drawing(make(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("path", "error"), [("", ValueError), ("a\0.html", ValueError), (5, TypeError)])
def test_what_is_no_path_is_told(make, path, error):
    with pytest.raises(error, match="`path` must be a path"):
        save_drawing(make(), path)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("x.ply", "trimesh", "drawing"), ("x.glb", "trimesh", "drawing"), ("x.rrd", "rerun", "rerun")],
)
def test_a_missing_package_is_told_with_its_extra(posed, tmp_path, monkeypatch, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'pip install "ide3d\[{extra}\]"'):
        save_drawing(posed, tmp_path / name)


def test_an_error_leaves_the_earlier_file(make, tmp_path, monkeypatch):
    path = save_drawing(make(), tmp_path / "page.html")
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no room")

    monkeypatch.setattr("processing.writing.os.replace", fail)
    with pytest.raises(OSError, match="no room"):
        save_drawing(make(title="another"), path)
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


class TestMeshes:
    @pytest.fixture(autouse=True)
    def trimesh(self):
        return pytest.importorskip("trimesh")

    def test_a_ply_holds_the_box_and_the_points_in_metres(self, posed, tmp_path, trimesh):
        mesh = trimesh.load(save_drawing(posed, tmp_path / "x.ply"), process=False)
        assert mesh.vertices[:2] == pytest.approx(np.array([[0, 2, 0], [2.5, 2, 0]]), abs=1e-4)
        assert mesh.visual.vertex_colors[0].tolist() == [255, 0, 0, 255]
        is_box = (mesh.visual.vertex_colors[:, :3] == mark_colour(1)).all(1)
        box = mesh.vertices[is_box]
        assert box.min(0) == pytest.approx((0.5, 2.5, -0.5), abs=0.02)
        assert box.max(0) == pytest.approx((1.5, 3.5, 0.5), abs=0.02)

    def test_a_glb_stands_upright_and_names_its_parts(self, posed, tmp_path, trimesh):
        scene = trimesh.load(save_drawing(posed, tmp_path / "x.glb"))
        assert {"2 the box", "points", "camera 0", "camera path"} <= set(scene.graph.nodes_geometry)
        turn, _ = scene.graph["2 the box"]
        assert turn[:3, :3] @ (0, 0, 1) == pytest.approx((0, 1, 0))

    def test_points_alone_are_a_cloud(self, make, poses, tmp_path, trimesh):
        drawing = make(marks=[])
        with pytest.raises(ValueError, match="have nothing in common"):
            save_drawing(drawing, tmp_path / "x.ply")
        posed = make(marks=[], cameras=Cameras(None, poses))
        assert len(trimesh.load(save_drawing(posed, tmp_path / "x.ply")).vertices) > 2

    def test_nothing_in_3d_is_told(self, make, tmp_path):
        drawing = make(marks=[ObjectMark("x", np.ones((3, 2, 2), bool))], points=None)
        with pytest.raises(ValueError, match=r"this drawing has none. Save its frames as .html or .png"):
            save_drawing(drawing, tmp_path / "x.glb")


def test_a_recording_holds_frames_boxes_cameras_and_points(make, posed, tmp_path):
    chunk = pytest.importorskip("rerun.chunk")

    def entities(drawing):
        reader = chunk.RrdReader(save_drawing(drawing, tmp_path / "x.rrd"))
        return {str(entry.entity_path) for entry in reader.stream()}

    assert entities(posed) >= {"/frames", "/world/boxes/2", "/world/points", "/world/camera_path", "/world/cameras/2"}
    assert entities(make()) >= {"/frames", "/camera_1/boxes/2", "/camera_2/points"}
