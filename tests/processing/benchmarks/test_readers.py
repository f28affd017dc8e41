"""Files of the public layout: read as they are, refused when they are not, and never run."""

import io
import json
import os
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import sparse

from processing.benchmarks import FEATURES, TASKS, load_scene, load_task
from processing.benchmarks.doctor import examine
from processing.benchmarks.export.pickle_free import export_pickle_free
from processing.benchmarks.readers.files import (
    boxes_from_masks,
    load_pickle,
    read_boxes,
    read_infos,
    read_masks,
    read_point_cloud,
    read_selected_frames,
)
from processing.benchmarks.readers.scenes import uniform_names
from processing.benchmarks.readers.tasks import REVSI_SUBSETS, SPATIAL_TASKS, VSI_SUBSETS
from processing.benchmarks.readers.teacher import load_teacher_features
from processing.token_grid import TokenGrid

WITH_PROMPT = [(name, split) for name, task in TASKS.items() if task.has_prompt for split in task.splits]
NOT_OF_ROOMS = {*VSI_SUBSETS, *REVSI_SUBSETS} - {"32_frame"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_arrays_and_builtins_are_read(protocol, tmp_path):
    contents = {
        "matrix": np.arange(16.0).reshape(4, 4),
        "strided": np.arange(12, dtype=np.int16).reshape(3, 4).T,
        "number": np.float32(1.5),
        "words": np.array(["a", "bc"]),
        "plain": [1, 2.5, "text", b"bytes", None, True, {"a", "b"}, (1, 2), 1j],
    }
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(contents, protocol))
    read = load_pickle(path)
    assert read["plain"] == contents["plain"] and read["number"] == 1.5
    for name in ("matrix", "strided", "words"):
        np.testing.assert_array_equal(read[name], contents[name])
        assert read[name].dtype == contents[name].dtype


def test_names_of_numpy_1_are_read(tmp_path):
    """Files that an older numpy wrote name modules that have moved."""
    written = pickle.dumps({"matrix": np.eye(4)}, 2)
    assert b"numpy._core" in written
    path = tmp_path / "old.pkl"
    path.write_bytes(written.replace(b"numpy._core", b"numpy.core"))
    np.testing.assert_array_equal(load_pickle(path)["matrix"], np.eye(4))


class _Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize(
    "payload",
    [
        lambda target: _Call(os.system, f"touch {target}"),
        lambda target: _Call(eval, f"open({str(target)!r}, 'w')"),
        lambda target: _Call(open, str(target), "w"),
        lambda target: _Call(getattr, "text", "upper"),
        lambda target: np.array([_Call(os.mkdir, str(target))], dtype=object),
        lambda target: _Call(np.save, str(target), np.zeros(1)),
        lambda target: _Call(np.load, str(target)),
        lambda target: torch.zeros(1),
    ],
    ids=["system", "eval", "open", "getattr", "inside an array", "save", "load", "tensor"],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_never_run_anything(payload, protocol, tmp_path):
    target, path = tmp_path / "ran", tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps({"data_list": [payload(target)]}, protocol))
    with pytest.raises(ValueError, match="neither numpy nor a plain builtin"):
        read_infos(path)
    assert [file.name for file in tmp_path.iterdir()] == ["file.pkl"]


def test_a_dotted_name_does_not_lead_out_of_the_allowed_modules(tmp_path):
    """Protocol 4 names attributes of attributes."""
    path = tmp_path / "file.pkl"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.")
    with pytest.raises(ValueError, match="neither numpy"):
        load_pickle(path)


@pytest.mark.parametrize("contents", [b"", b"no pickle", pickle.dumps([1, 2])[:-1]])
def test_files_that_are_no_pickles_are_refused(contents, tmp_path):
    (tmp_path / "file.pkl").write_bytes(contents)
    with pytest.raises(ValueError, match="not a pickle"):
        load_pickle(tmp_path / "file.pkl")


def test_masks_are_those_of_scipy(tmp_path):
    dense = np.random.default_rng(0).random((7, 31)) < 0.3
    for kind in ("csr", "csc", "coo"):
        sparse.save_npz(tmp_path / kind, sparse.coo_array(dense).asformat(kind))
        np.testing.assert_array_equal(read_masks(tmp_path / f"{kind}.npz"), dense)
        np.testing.assert_array_equal(read_masks(tmp_path / f"{kind}.npz", max_masks=3), dense[:3])
    sparse.save_npz(tmp_path / "dia", sparse.dia_array(np.eye(3)))
    with pytest.raises(ValueError, match="dia"):
        read_masks(tmp_path / "dia.npz")


@pytest.mark.parametrize(
    ("kind", "name"), [("csr", "indices"), ("csc", "indices"), ("coo", "row"), ("coo", "col"), ("csr", "indptr")]
)
@pytest.mark.parametrize("shift", [1000, -1000])
def test_masks_with_indices_outside_of_the_matrix_are_refused(kind, name, shift, tmp_path):
    sparse.save_npz(tmp_path / "masks", sparse.coo_array(np.eye(5, dtype=bool)).asformat(kind))
    with np.load(tmp_path / "masks.npz") as file:
        parts = dict(file)
    np.savez(tmp_path / "masks", **{**parts, name: parts[name] + shift})
    with pytest.raises(ValueError, match="not a sparse matrix of SciPy"):
        read_masks(tmp_path / "masks.npz")


def test_boxes_of_masks(rooms):
    """Boxes of the proposals are those of their masks over the cloud."""
    name = "room0002_00"
    cloud = read_point_cloud(rooms / f"scannet/pcd_with_object_aabbs/val/{name}.pth")
    boxes = boxes_from_masks(read_masks(rooms / f"scannet/mask/{name}.mask.npz"), cloud["xyz"])
    stored = read_boxes(rooms / "metadata/scannet_val_pred_box.json")[f"scannet/{name}"]
    np.testing.assert_allclose(boxes, stored, atol=1e-4)
    with pytest.raises(ValueError, match="hold no vertex"):
        boxes_from_masks(np.zeros((1, 5), bool), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="one mesh"):
        boxes_from_masks(np.ones((1, 4), bool), np.zeros((5, 3)))


def test_instances_span_the_annotated_boxes(rooms):
    """Box and instance id of an object belong together, as in ScanNet: index, vertices, corners."""
    boxes = read_boxes(rooms / "metadata/scannet_train_gt_box.json")["scannet/room0000_00"]
    cloud = read_point_cloud(rooms / "scannet/pcd_with_object_aabbs/train/room0000_00.pth")
    assert cloud["aabb_obj_ids"].tolist() == list(range(len(boxes)))
    for number, box in enumerate(boxes):
        points = cloud["xyz"][cloud["instance_ids"] == number]
        span = [*(points.min(0) + points.max(0)) / 2, *(points.max(0) - points.min(0))]
        np.testing.assert_allclose(span, box, atol=2e-3)
        corners = cloud["aabb_corner_xyz"][number]
        np.testing.assert_allclose(corners.max(0) - corners.min(0), box[3:], atol=1e-3)


@pytest.mark.parametrize(("task", "split"), [row for row in WITH_PROMPT if row[1] not in NOT_OF_ROOMS])
def test_samples_are_typed_and_open_no_picture(task, split, rooms, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a picture was opened")

    monkeypatch.setattr("PIL.Image.open", refuse)
    samples = load_task(task, split, rooms, num_frames=3)
    assert samples.features == FEATURES and len(samples) > 0
    kind = TASKS[task].kind
    for sample in samples:
        assert len(sample["frame_names"]) == (0 if task in SPATIAL_TASKS else 3)
        assert bool(sample["candidate_boxes"]) == (kind == "ground")
        assert bool(sample["answers"]) == (kind != "ground")
        assert bool(sample["question"]) == (kind != "describe")
        if kind == "ground" and split == "train":
            found = [sample["candidate_boxes"][number] for number in sample["object_ids"]]
            np.testing.assert_allclose(found, sample["gt_boxes"], atol=1e-6)


def test_question_answering_opens_rgb_alone(data):
    """Everything but frames and samples may be missing."""
    for name in ("embodiedscan", "metadata", "scannet/mask", "scannet/pcd_with_object_aabbs"):
        shutil.rmtree(data / name)
    for path in (data / "scannet/posed_images").glob("*/*"):
        if path.suffix != ".jpg":
            path.unlink()
    for task in ("scanqa", "sqa3d", *SPATIAL_TASKS):
        sample = load_task(task, TASKS[task].eval_split, data)[0]
        video = load_scene(data, sample["scene_id"], frame_names=sample["frame_names"])
        assert len(video) and video.depth is None and video.camera_to_world is None and video.intrinsics is None
    with pytest.raises(FileNotFoundError, match="val_pred_box"):
        load_task("scanrefer", "val", data)
    with pytest.raises(FileNotFoundError, match="pose files"):
        load_scene(data, "scannet/room0002_00", parts=("frames", "poses"))
    with pytest.raises(FileNotFoundError, match="depth files"):
        load_scene(data, "scannet/room0002_00", parts=("depth",))


def test_poses_are_in_the_world_of_the_boxes(rooms):
    """Points of a view that lie inside an object's box show that object: alignment, camera and depth fit together."""
    cloud = read_point_cloud(rooms / "scannet/pcd_with_object_aabbs/val/room0002_00.pth")["xyz"]
    video = load_scene(rooms, "scannet/room0002_00", parts=("frames", "poses", "depth"))
    assert video.has_geometry
    v, u = np.nonzero(video.depth[1] > 0)
    rays = np.linalg.inv(video.intrinsics[1]) @ np.stack([u, v, np.ones_like(u)])
    points = video.camera_to_world[1, :3, :3] @ (rays * video.depth[1, v, u]) + video.camera_to_world[1, :3, 3:]
    nearest = np.linalg.norm(points.T[::50, None] - cloud[None], axis=-1).min(axis=1)
    assert np.median(nearest) < 0.1
    raw = np.loadtxt(rooms / "scannet/posed_images/room0002_00/00010.txt")
    assert np.abs(raw - video.camera_to_world[1]).max() > 0.1


def test_camera_follows_the_size_of_the_frames(data):
    """EmbodiedScan's camera is that of the depth images; the frames may be larger."""
    from PIL import Image

    before = load_scene(data, "scannet/room0002_00", parts=("poses",)).intrinsics[0]
    for path in (data / "scannet/posed_images/room0002_00").glob("*.jpg"):
        with Image.open(path) as image:
            larger = image.resize((96, 96))
        larger.save(path)
    after = load_scene(data, "scannet/room0002_00", parts=("poses",)).intrinsics[0]
    np.testing.assert_allclose(after[[0, 1], [0, 1]], 2 * before[[0, 1], [0, 1]])
    np.testing.assert_allclose(after[:2, 2] + 0.5, 2 * (before[:2, 2] + 0.5))


def test_invalid_poses_raise_or_are_left_out(data):
    np.savetxt(data / "scannet/posed_images/room0002_00/00010.txt", np.full((4, 4), -np.inf))
    with pytest.raises(ValueError, match="not finite"):
        load_scene(data, "scannet/room0002_00", parts=("poses",))
    video = load_scene(data, "scannet/room0002_00", parts=("poses",), skip_invalid_poses=True)
    assert video.frame_names == ("00000", "00020", "00030") and len(video.camera_to_world) == 3
    assert len(load_scene(data, "scannet/room0002_00")) == 4


def test_frame_rules(data):
    path = data / "metadata/scannet_select_frames.json"
    entry = {
        "video_id": "scannet/room0002_00",
        "frame_files": [f"scannet/posed_images/room0002_00/{name}.jpg" for name in ("00030", "00000", "00010")],
        "voxel_nums": [50, 30, 20],
        "num_all_voxels": 100,
    }
    other = {**entry, "video_id": "room0003_00"}
    path.write_text(json.dumps([entry, other]))
    assert set(read_selected_frames(path)) == {"scannet/room0002_00", "scannet/room0003_00"}

    def names(**options):
        return load_task("scanqa", "val", data, scenes=["scannet/room0002_00"], **options)[0]["frame_names"]

    assert names() == ["00000", "00010", "00020", "00030"]
    assert names(num_frames=2) == ["00000", "00030"]
    assert names(frames="coverage") == ["00000", "00010", "00030"]
    assert names(frames="coverage", num_frames=2) == ["00000", "00030"]
    assert names(frames="coverage", coverage=0.5) == ["00030"]
    assert names(frames="coverage", coverage=0.8) == ["00000", "00030"]
    infos = data / "embodiedscan/embodiedscan_infos_val.pkl"
    contents = pickle.loads(infos.read_bytes())
    contents["data_list"][0]["images"] = contents["data_list"][0]["images"][:3]
    infos.write_bytes(pickle.dumps(contents))
    assert names(frames="listed", num_frames=2) == ["00000", "00020"]
    with pytest.raises(ValueError, match="coverage"):
        names(coverage=0.5)
    with pytest.raises(ValueError, match="`frames` must be one of"):
        names(frames="random")


def test_uniform_frames_are_those_of_the_video_processor():
    from processing import IDE3DVideoProcessor

    names = [f"{i:05d}" for i in range(77)]
    metadata = type("Metadata", (), {"total_num_frames": 77, "fps": None})()
    indices = IDE3DVideoProcessor(num_frames=32).sample_frames(metadata)
    assert uniform_names(names, 32) == [names[i] for i in indices]
    assert uniform_names(names[:5], 32) == names[:5]


def test_teacher_features_belong_to_their_frames(rooms):
    store = np.load(rooms / "scannet/posed_images_3d_feature_vggt/room0002_00/vggt_sliced.npy")
    names = ["00030", "00010"]
    features = load_teacher_features(rooms, "scannet/room0002_00", names, TokenGrid(48, 3, 1))
    np.testing.assert_array_equal(features.reshape(2, 256, 4), store[0, [3, 1]])
    pooled = load_teacher_features(rooms, "scannet/room0002_00", names, TokenGrid(48, 3, 8))
    np.testing.assert_allclose(pooled[0, 0, 0], store[0, 3].reshape(16, 16, 4)[:8, :8].mean((0, 1)), rtol=1e-5)


def test_teacher_features_lie_where_the_tokens_lie(rooms):
    """A model that leaves a third of the frame out takes no patch from there, unless it repeats the original."""
    store = np.load(rooms / "scannet/posed_images_3d_feature_vggt/room0002_00/vggt_sliced.npy")[0, 0]
    grid = TokenGrid(48, 30, 1)  # one token on 30 of 48 pixels, which are 10 of 16 patches
    features = load_teacher_features(rooms, "scannet/room0002_00", ["00000"], grid)
    np.testing.assert_allclose(features[0, 0, 0], store.reshape(16, 16, 4)[:10, :10].mean((0, 1)), rtol=1e-5)
    features = load_teacher_features(rooms, "scannet/room0002_00", ["00000"], grid, protocol="paper")
    np.testing.assert_allclose(features[0, 0, 0], store.mean(0), rtol=1e-4)


def test_teacher_of_other_frames_is_refused(data):
    path = data / "scannet/posed_images_3d_feature_vggt/room0002_00/vggt_sliced.npy"
    np.save(path, np.load(path)[:, :2])
    assert load_teacher_features(data, "scannet/room0002_00", ["00000", "00030"], TokenGrid(48, 3, 4)).shape == (
        2,
        4,
        4,
        4,
    )
    with pytest.raises(ValueError, match="00010"):
        load_teacher_features(data, "scannet/room0002_00", ["00000", "00010"], TokenGrid(48, 3, 4))


def test_a_pickle_free_copy_is_whole_or_not_there(data, monkeypatch):
    """Readers prefer a copy to its pickle, so half of one would hide the whole data."""

    def die(file):
        os.ftruncate(file, 20)
        raise KeyboardInterrupt

    before = {path for path in data.rglob("*") if path.is_file()}
    for pickles in ("*.nothing", "embodiedscan_infos_*.pkl"):
        for path in data.rglob(pickles):
            path.unlink()
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, "fsync", die)
            export_pickle_free(data)
        assert {path for path in data.rglob("*") if path.is_file()} <= before


def test_pickle_free_folder_reads_the_same(data):
    def everything():
        video = load_scene(data, "scannet/room0002_00", parts=("poses", "depth"))
        listed = load_task("scanrefer", "val", data, frames="listed")[:]
        return video, listed

    before, samples = everything()
    cloud = read_point_cloud(data / "scannet/pcd_with_object_aabbs/val/room0002_00.pth")
    written = export_pickle_free(data)
    assert {path.suffix for path in written} == {".json", ".safetensors"}
    for path in [*data.rglob("*.pkl"), *data.rglob("*.pth")]:
        path.unlink()
    after, same_samples = everything()
    np.testing.assert_array_equal(after.camera_to_world, before.camera_to_world)
    np.testing.assert_array_equal(after.intrinsics, before.intrinsics)
    assert same_samples == samples
    copied = read_point_cloud(data / "scannet/pcd_with_object_aabbs/val/room0002_00.safetensors")
    assert set(copied) == set(cloud)
    for name in cloud:
        np.testing.assert_array_equal(copied[name], cloud[name])
        assert copied[name].dtype == cloud[name].dtype


def test_point_clouds_of_numpy_1_are_read(tmp_path):
    cloud = {
        "xyz": np.zeros((2, 3), np.float32),
        "instance_ids": np.arange(2),
        "aabb_obj_ids": np.arange(1, dtype=np.int32),
        "aabb_corner_xyz": np.zeros((1, 8, 3)),
    }
    buffer = io.BytesIO()
    torch.save(cloud, buffer, _use_new_zipfile_serialization=False)
    old = buffer.getvalue().replace(b"numpy._core", b"numpy.core")
    (tmp_path / "old.pth").write_bytes(old)
    assert read_point_cloud(tmp_path / "old.pth")["xyz"].shape == (2, 3)
    torch.save({**cloud, "xyz": np.zeros((3, 2))}, tmp_path / "flat.pth")
    with pytest.raises(ValueError, match="`xyz` must have shape"):
        read_point_cloud(tmp_path / "flat.pth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scanrefer", "test"), "splits"),
        (("scan", "val"), "`task` must be one of"),
        (("vsibench", "val"), "splits"),
    ],
)
def test_unknown_names_are_refused(arguments, message, rooms):
    with pytest.raises(ValueError, match=message):
        load_task(*arguments, rooms)


def test_scenes_can_be_chosen(rooms):
    samples = load_task("scanqa", "val", rooms, scenes={"scannet/room0003_00"})
    assert set(samples["scene_id"]) == {"scannet/room0003_00"}
    with pytest.raises(ValueError, match="at least one sample of the scenes"):
        load_task("scanqa", "val", rooms, scenes={"scannet/room0000_00"})


def test_candidates_can_be_annotated_boxes(rooms):
    predicted, annotated = (load_task("scanrefer", "val", rooms, boxes=source)[0] for source in ("pred", "gt"))
    assert annotated["candidate_boxes"][annotated["object_ids"][0]] == annotated["gt_boxes"][0]
    assert predicted["candidate_boxes"] != annotated["candidate_boxes"]
    assert load_task("scanrefer", "val", rooms)[0] == predicted


def test_subsets_of_vsi_bench_are_splits(data):
    """Its folder has a file of each, with the records of the whole that are in it, and a column `pruned`."""
    path = data / "vsibench" / "test-00000-of-00001.parquet"
    records = pq.read_table(path).to_pylist()
    for split, rows in {"debiased": records[::2], "pruned": records[1::2]}.items():
        with pytest.raises(FileNotFoundError, match=f"test_{split}.parquet"):
            load_task("vsibench", split, data)
        table = pa.Table.from_pylist([{**row, "pruned": split == "pruned"} for row in rows])
        pq.write_table(table, data / "vsibench" / f"test_{split}.parquet")
        samples = load_task("vsibench", split, data)
        assert samples["id"] == [str(row["id"]) for row in rows]
    assert len(load_task("vsibench", "test", data)) == len(records)
    states = {(state.task, state.split): state for state in examine(data, tasks=["vsibench"]).splits}
    assert all(states["vsibench", split].can_run for split in ("test", "debiased", "pruned"))


def test_subsets_of_revsi_have_answers_and_videos_of_their_own(data):
    """As the Hub has them: a folder of each number of frames, with its own questions and videos."""
    folder = data / "revsi"
    shutil.copytree(folder / "32_frame", folder / "16_frame")
    table = pq.read_table(folder / "32_frame" / "test-00000-of-00001.parquet")
    rows = [{**row, "ground_truth": "7"} for row in table.to_pylist() if row["options"] is None]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), folder / "16_frame" / "test-00000-of-00001.parquet")
    samples = load_task("revsi", "16_frame", data)
    assert set(sum(samples["answers"], [])) == {"7"} and len(samples) == len(rows)
    assert set(samples["scene_id"]) == {"revsi/16_frame/room0004_00", "revsi/16_frame/room0005_00"}
    (folder / "32_frame" / "room0004_00.mp4").unlink()
    assert len(load_scene(data, "revsi/16_frame/room0004_00", num_frames=3)) == 3
    with pytest.raises(FileNotFoundError, match="32_frame.room0004_00.mp4"):
        load_task("revsi", "32_frame", data)
    states = {state.split: state.can_run for state in examine(data, tasks=["revsi"]).splits}
    assert states == {"16_frame": True, "32_frame": False}


def test_frames_stand_in_for_a_missing_video(data):
    (data / "vsibench/scannet/room0004_00.mp4").unlink()
    samples = load_task("vsibench", "test", data)
    assert set(samples["scene_id"]) == {"scannet/room0004_00", "vsibench/scannet/room0005_00"}
    for sample in samples:
        assert len(load_scene(data, sample["scene_id"], frame_names=sample["frame_names"], num_frames=3)) >= 3
    with pytest.raises(FileNotFoundError, match="without poses"):
        load_scene(data, "vsibench/scannet/room0005_00", parts=("poses",))
