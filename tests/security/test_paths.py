"""Names of scenes and frames stay inside the folder that is given, at every door that takes one."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch

from processing.benchmarks import load_scene, load_task
from processing.benchmarks.export.pickle_free import export_pickle_free
from processing.benchmarks.export.rooms import export_rooms
from processing.benchmarks.readers.files import read_boxes, read_infos, read_selected_frames
from processing.benchmarks.readers.tasks import Layout
from processing.limits import check_file
from processing.scene_names import check_name, path_inside
from trainer.teachers.identity import StoreIdentity
from trainer.teachers.protocol import FrameSource
from trainer.teachers.store import TeacherStore, save_scene, scene_path

LEAVING = [
    "", ".", "..", "../x", "scannet/../x", "scannet/..", "/x", "scannet//x", "scannet/", "./x", "scannet/./x",
    "scannet\\x", "..\\x", "C:x", "c:/x", "scannet/x\0", "scannet/x\n", "scannet/" + 300 * "x", 600 * "x/" + "x",
    "scannet/\x7f",
]  # fmt: skip
STAYING = [
    "scene0000_00",
    "scannet/scene0000_00",
    "a/b/c",
    "..x",
    "x..",
    ".hidden",
    "sc\u00e8ne 1",
    "00010",
    "room:1",
    "~",
]
IDENTITY = StoreIdentity("somebody/eyes", "1", "mit", "56 x 56 px", "clean", (56, 56), 14, 2)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return export_rooms(tmp_path_factory.mktemp("data") / "rooms", num_scenes=1, image_size=48, num_frames=2)


@pytest.fixture
def outside(tmp_path):
    """A folder beside the output folder, which must stay empty."""
    (tmp_path / "outside").mkdir()
    yield tmp_path / "outside"
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("name", LEAVING)
def test_a_name_that_leaves_is_refused_by_every_path_of_the_layout(name, tmp_path):
    layout = Layout(tmp_path)
    paths = (layout.frames, layout.video, layout.masks, layout.teacher, lambda name: layout.point_clouds(name, "val"))
    for path in (
        check_name,
        *paths,
        lambda name: scene_path(tmp_path, name),
        lambda name: path_inside(tmp_path, name),
    ):
        with pytest.raises(ValueError, match="must stay inside its folder"):
            path(name)
    with pytest.raises(ValueError, match="must stay inside its folder"):
        load_scene(tmp_path, name)


@pytest.mark.parametrize("name", STAYING)
def test_a_name_that_stays_is_taken(name, tmp_path):
    assert check_name(name) == name
    assert Layout(tmp_path).frames(name).is_relative_to(tmp_path)
    assert path_inside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", [None, 5, b"scannet/x", ["scannet/x"]])
def test_a_name_is_text(name, tmp_path):
    with pytest.raises(ValueError, match="must be text"):
        load_scene(tmp_path, name)


def test_frames_of_a_scene_are_named_inside_its_folder(rooms):
    scene = "scannet/room0000_00"
    assert len(load_scene(rooms, scene, frame_names=["00000"]).frames) == 1
    with pytest.raises(ValueError, match=r"name of a frame must stay inside.*\.\./room0001_00/00000"):
        load_scene(rooms, scene, frame_names=["../room0001_00/00000"])


def test_files_that_name_other_places_are_refused(rooms, tmp_path):
    data = shutil.copytree(rooms, tmp_path / "data")
    boxes = data / "metadata" / "scannet_val_pred_box.json"
    boxes.write_text(json.dumps({"scannet/../../etc": []}))
    with pytest.raises(ValueError, match=r"scannet_val_pred_box\.json: a scene id must stay inside"):
        read_boxes(boxes)
    infos = data / "embodiedscan" / "embodiedscan_infos_val.pkl"
    for change in ({"sample_idx": "scannet/../x"}, {"images": [{"img_path": "/etc/x.jpg"}]}):
        contents = pickle.loads((rooms / infos.relative_to(data)).read_bytes())
        contents["data_list"][0].update(change)
        infos.write_bytes(pickle.dumps(contents))
        with pytest.raises(ValueError, match=r"embodiedscan_infos_val\.pkl.* must stay inside"):
            read_infos(infos)
    selection = data / "metadata" / "scannet_select_frames.json"
    items = json.loads(selection.read_text())
    for change in ({"video_id": "scannet/../x"}, {"frame_files": ["../x.jpg"] * len(items[0]["frame_files"])}):
        selection.write_text(json.dumps([{**items[0], **change}]))
        with pytest.raises(ValueError, match=r"scannet_select_frames\.json: .* must stay inside"):
            read_selected_frames(selection)
    samples = data / "processed" / "scanqa_val_llava_style.json"
    records = json.loads(samples.read_text())
    samples.write_text(json.dumps([{**records[0], "video": "scannet/../../x"}]))
    with pytest.raises(
        ValueError, match=r"scanqa_val_llava_style\.json, sample scanqa_val-\S+: a scene id must stay inside"
    ):
        load_task("scanqa", "val", data)


def test_teacher_features_are_written_inside_their_folder_alone(tmp_path, outside):
    store, features = tmp_path / "store", torch.ones(1, 2, 2, 4)
    for scene in ("../outside/x", str(outside / "x")):
        with pytest.raises(ValueError, match="must stay inside its folder"):
            save_scene(store, IDENTITY, FrameSource(scene, ("00000",)), features)
    store.mkdir(exist_ok=True)
    (store / "scannet").symlink_to(outside)
    with pytest.raises(ValueError, match=r"leads out of .*store, through a symlink"):
        save_scene(store, IDENTITY, FrameSource("scannet/x", ("00000",)), features)


@pytest.mark.parametrize(
    "name",
    ["embodiedscan/embodiedscan_infos_val.json", "scannet/pcd_with_object_aabbs/val/room0001_00.safetensors"],
)
def test_pickle_free_copies_are_not_written_through_a_link(name, rooms, tmp_path, outside):
    data = shutil.copytree(rooms, tmp_path / "data")
    (data / name).symlink_to(outside / "theirs")
    with pytest.raises(ValueError, match="through a symlink"):
        export_pickle_free(data)


def test_an_output_folder_may_be_a_link_and_hold_links_to_itself(tmp_path):
    (tmp_path / "disk" / "scannet").mkdir(parents=True)
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "linked").symlink_to(tmp_path / "disk" / "scannet")
    for scene in ("scannet/a", "linked/b"):
        path = save_scene(tmp_path / "store", IDENTITY, FrameSource(scene, ("00000",)), torch.ones(1, 2, 2, 4))
        assert path.is_file()
    assert TeacherStore(tmp_path / "store").load_features("scannet/a", ["00000"], IDENTITY.grid).shape == (1, 2, 2, 4)
    (tmp_path / "disk" / "circle").symlink_to(tmp_path / "disk" / "circle")
    with pytest.raises(ValueError, match=r"circle/x.* Remove the link"):
        path_inside(tmp_path / "disk", "circle/x")


def test_data_folders_may_be_linked_for_reading(rooms, tmp_path):
    (tmp_path / "data").mkdir()
    for folder in rooms.iterdir():
        (tmp_path / "data" / folder.name).symlink_to(folder)
    assert len(load_task("scanrefer", "val", tmp_path / "data"))
    scene = load_scene(tmp_path / "data", "scannet/room0001_00", parts=("frames", "poses", "depth"))
    np.testing.assert_array_equal(scene.frames, load_scene(rooms, "scannet/room0001_00").frames)


def test_special_files_are_named_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    found = {"pipe": "a pipe", "link": "a pipe", ".": "a folder"}
    for name, kind in found.items():
        with pytest.raises(ValueError, match=f"must be a regular file, it is {kind}"):
            check_file(tmp_path / name)
    with pytest.raises(ValueError, match="is a device"):
        check_file("/dev/zero")
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        check_file(tmp_path / "absent")
    for name in (5000 * "x", "a\0b"):
        with pytest.raises(ValueError, match="is no path of a file"):
            check_file(tmp_path / name)
