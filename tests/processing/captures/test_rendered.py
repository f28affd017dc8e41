"""Replica as NICE-SLAM rendered it, and Hypersim."""

import json

import numpy as np
import pytest
from capture_rooms import check_same, look
from capture_writers_rendered import write_array, write_hypersim, write_replica

from processing import PosedVideo
from processing.captures import find_capture, open_capture


@pytest.fixture(scope="module")
def room():
    return look(step=1 / 6553.5)


@pytest.mark.parametrize("is_above", [True, False])
def test_a_room_of_replica_is_read_as_it_was(room, tmp_path, is_above):
    check_same(
        open_capture(write_replica(tmp_path / "room0", room, is_above=is_above)), room, step=1 / 6553.5, colour=3
    )


def test_the_likely_mistakes_of_replica_are_told(room, tmp_path):
    folder = write_replica(tmp_path / "room0", room)
    text = (folder / "traj.txt").read_text()
    (folder / "traj.txt").write_text("\n".join(text.splitlines()[:-1]))
    with pytest.raises(ValueError, match="4 pictures and traj.txt 3 poses"):
        open_capture(folder)
    (folder / "traj.txt").write_text(text)
    file = tmp_path / "cam_params.json"
    content = json.loads(file.read_text())
    for key in ("scale", "fx"):
        file.write_text(json.dumps({"camera": {**content["camera"], key: None}}))
        with pytest.raises(ValueError, match=f"cam_params.json: `{key}` must be a finite number, got None"):
            open_capture(folder)
    file.write_text(json.dumps({"camera": {**content["camera"], "scale": 0}}))
    with pytest.raises(ValueError, match="cam_params.json: `scale` must be above 0, got 0"):
        open_capture(folder)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="no cam_params.json"):
        open_capture(folder)
    (folder / "results" / "depth000001.png").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 depth maps, such as depth000001.png"):
        open_capture(folder)


def test_a_room_of_hypersim_is_read_as_it_was(room, tmp_path):
    pytest.importorskip("h5py")
    folder = write_hypersim(tmp_path / "ai_001_001", room)
    check_same(open_capture(folder), room, step=1e-5, colour=3)
    assert open_capture(folder).frame_names == ("0000", "0003", "0006", "0009")


def test_the_lens_of_hypersim_is_sixty_degrees_unless_a_table_says_otherwise(tmp_path):
    pytest.importorskip("h5py")
    focal = 50 / np.tan(np.pi / 6)
    room = look(np.array([[focal, 0, 49.5], [0, focal, 35.5], [0, 0, 1]]))
    folder = write_hypersim(tmp_path / "ai_001_001", room, has_lens=False)
    check_same(open_capture(folder), room, step=1e-5, colour=3)
    assert "60 degrees" in find_capture(folder).notes[0]


def test_pixels_without_a_surface_have_no_depth(room, tmp_path):
    pytest.importorskip("h5py")
    near = PosedVideo(room.frames, room.depth * (room.depth < 3), room.intrinsics, room.camera_to_world)
    video = open_capture(write_hypersim(tmp_path / "ai_001_001", near))
    np.testing.assert_allclose(video.depth, near.depth, rtol=1e-6)


def test_one_camera_of_several_is_to_be_named(room, tmp_path):
    pytest.importorskip("h5py")
    folder = write_hypersim(tmp_path / "ai_001_001", room)
    write_hypersim(folder, room, camera_name="cam_01")
    with pytest.raises(ValueError, match="has the cameras cam_00, cam_01. Give the folder of one"):
        open_capture(folder)
    check_same(open_capture(folder / "_detail" / "cam_01"), room, step=1e-5, colour=3)


def test_the_likely_mistakes_of_hypersim_are_told(room, tmp_path):
    pytest.importorskip("h5py")
    folder = write_hypersim(tmp_path / "ai_001_001", room)
    detail = folder / "_detail" / "cam_00"
    table = folder / "_detail" / "metadata_scene.csv"
    table.write_text("parameter_name,parameter_value\nmeters_per_asset_unit,0\n")
    with pytest.raises(ValueError, match="positive `meters_per_asset_unit`"):
        open_capture(folder)
    table.write_text("parameter_name,parameter_value\nmeters_per_asset_unit,1\n")
    with pytest.raises(ValueError, match="do not belong together"):  # positions in inches
        open_capture(folder)
    lens = tmp_path / "metadata_camera_parameters.csv"
    text = lens.read_text()
    lens.write_text(text.replace("ai_001_001", "ai_001_002"))
    with pytest.raises(ValueError, match="has no row of the scene ai_001_001"):
        open_capture(folder)
    lens.write_text(text.replace("ai_001_001,", "ai_001_001,0.6,0.1,"))
    with pytest.raises(ValueError, match="is tilted"):
        open_capture(folder)
    lens.write_text(text)
    write_array(detail / "camera_keyframe_frame_indices.hdf5", np.arange(12) + 50)
    with pytest.raises(ValueError, match="has no pose of the frames"):
        open_capture(folder)


def test_arrays_that_declare_too_much_or_lie_elsewhere_are_not_read(room, tmp_path):
    h5py = pytest.importorskip("h5py")
    folder = write_hypersim(tmp_path / "ai_001_001", room)
    file = folder / "images" / "scene_cam_00_geometry_hdf5" / "frame.0000.depth_meters.hdf5"
    with h5py.File(file, "w") as content:
        content.create_dataset("dataset", (2**16, 2**16), "f4", chunks=(64, 64), compression="gzip")
    with pytest.raises(ValueError, match="IDE3D_MAX_UNPACKED_BYTES"):
        open_capture(folder)
    other = write_array(tmp_path / "other.hdf5", np.ones((72, 100)))
    with h5py.File(file, "w") as content:
        content["dataset"] = h5py.ExternalLink(str(other), "dataset")
    with pytest.raises(ValueError, match="no plain array `dataset`"):
        open_capture(folder)
