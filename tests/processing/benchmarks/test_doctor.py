"""Folders that are broken on purpose, each in one way: the doctor names it, and says which tasks it stops."""

import json
import os
import pickle
import shutil
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from benchmarks import broken_walks
from commanding import run_command
from PIL import Image

from processing.benchmarks import TASKS, load_scene, load_task
from processing.benchmarks.doctor.examination import examine
from processing.benchmarks.doctor.findings import KINDS
from processing.benchmarks.export.pickle_free import export_pickle_free
from processing.benchmarks.export.rooms import export_rooms

QA = {"scanqa", "sqa3d", "vsibench", "revsi"}
GROUNDING = {"scanrefer", "multi3drefer"}
POSED = GROUNDING | {"scan2cap"}
ALL = POSED | QA
SCENE = "scannet/room0002_00"  # of the val split
FRAMES = f"scannet/posed_images/{SCENE.split('/')[1]}"


def annotations(data: Path, task: str, split: str | None = None) -> Path:
    stem = {"scanrefer": "scanrefer_vg"}.get(task, task)
    return data / "processed" / f"{stem}_{split or TASKS[task].eval_split}_llava_style.json"


def edit_json(path: Path, change) -> None:
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))


def edit_samples(task: str, change, split: str | None = None):
    """A break that changes the list of samples of a task."""
    return lambda data: edit_json(annotations(data, task, split), change)


def edit_boxes(name: str, change):
    return lambda data: edit_json(data / "metadata" / f"scannet_{name}_box.json", change)


def edit_vsi(change):
    def broken(data):
        path = data / "vsibench" / "test-00000-of-00001.parquet"
        table = pyarrow.parquet.read_table(path)
        rows = table.to_pylist()
        change(rows)
        pyarrow.parquet.write_table(table.from_pylist(rows, schema=table.schema), path)

    return broken


def edit_infos(change):
    """A break that changes the dict of the val scene in EmbodiedScan's file."""

    def broken(data):
        path = data / "embodiedscan" / "embodiedscan_infos_val.pkl"
        contents = pickle.loads(path.read_bytes())
        change(next(item for item in contents["data_list"] if item["sample_idx"] == SCENE))
        path.write_bytes(pickle.dumps(contents))

    return broken


def edit_pose(change, name="00010"):
    def broken(data):
        path = data / FRAMES / f"{name}.txt"
        np.savetxt(path, change(np.loadtxt(path)))

    return broken


def edit_poses(change):
    def broken(data):
        for path in (data / FRAMES).glob("0*.txt"):
            np.savetxt(path, change(np.loadtxt(path)))

    return broken


def edit_depth(change, names=("00000", "00010", "00020", "00030")):
    def broken(data):
        for name in names:
            path = data / FRAMES / f"{name}.png"
            with Image.open(path) as image:
                millimetres = np.asarray(image)
            Image.fromarray(change(millimetres)).save(path)

    return broken


def edit_teacher(change):
    def broken(data):
        path = data / "scannet/posed_images_3d_feature_vggt/room0002_00/vggt_sliced.npy"
        np.save(path, change(np.load(path)))

    return broken


def cut(path: str, keep: float = 0.5):
    """A break that cuts a file off, as an interrupted download does."""

    def broken(data):
        contents = (data / path).read_bytes()
        (data / path).write_bytes(contents[: int(len(contents) * keep)])

    return broken


def remove(path: str):
    def broken(data):
        shutil.rmtree(data / path) if (data / path).is_dir() else (data / path).unlink()

    return broken


def scaled(pose: np.ndarray) -> np.ndarray:
    pose[:3, :3] *= 2
    return pose


def nest(data: Path) -> None:
    for folder in list(data.iterdir()):
        shutil.move(folder, data / "inner" / folder.name)


def misspell(data: Path) -> None:
    (data / "processed").rename(data / "prcoessed")
    shutil.rmtree(data / "vsibench")


class Payload:
    """Unpickled by the standard library, it would make a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def poison_infos(data: Path) -> None:
    path = data / "embodiedscan" / "embodiedscan_infos_val.pkl"
    path.write_bytes(pickle.dumps({"data_list": [Payload(data / "it_ran")]}))


def stale(data: Path) -> None:
    export_pickle_free(data)
    copy = data / "embodiedscan" / "embodiedscan_infos_val.json"
    old = copy.stat().st_mtime - 1000
    os.utime(copy, (old, old))


def overlap(data: Path) -> None:
    val = json.loads(annotations(data, "scanqa").read_text())
    edit_json(annotations(data, "scanqa", "train"), lambda samples: samples.append({**val[0], "id": "again"}))


def turn_frame(data: Path) -> None:
    path = data / FRAMES / "00010.jpg"
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 3
        image.save(path, exif=exif)


def resize_frame(data: Path) -> None:
    Image.new("RGB", (60, 48)).save(data / FRAMES / "00010.jpg")


def colour_depth(data: Path) -> None:
    Image.new("RGB", (48, 48)).save(data / FRAMES / "00010.png")


def thin_depth(data: Path) -> None:
    edit_depth(lambda depth: depth[:24])(data)


def shorten_cloud(data: Path) -> None:
    path = data / "scannet/pcd_with_object_aabbs/val/room0002_00.pth"
    cloud = torch.load(path, weights_only=False)
    torch.save({**cloud, "xyz": cloud["xyz"][:-1]}, path)


def poison_cloud(data: Path) -> None:
    torch.save(Payload(data / "it_ran"), data / "scannet/pcd_with_object_aabbs/val/room0002_00.pth")


def edit_camera(change):
    def broken(data):
        path = data / FRAMES / "intrinsic.txt"
        np.savetxt(path, change(np.loadtxt(path)))

    return broken


def normalised(camera: np.ndarray) -> np.ndarray:
    camera[:2] /= 48
    return camera


def lengthen_focal(item: dict) -> None:
    item["depth_cam2img"] = np.array(item["depth_cam2img"]) * (1 + np.diag([1.0, 1, 0, 0]))


def no_camera(data: Path) -> None:
    for path in [*(data / FRAMES).glob("*.png"), data / FRAMES / "intrinsic.txt"]:
        path.unlink()


def remove_videos(data: Path) -> None:
    """Videos and, of one scene, the frames that would do instead."""
    shutil.rmtree(data / "vsibench" / "scannet")
    shutil.rmtree(data / "scannet" / "posed_images" / "room0004_00")


def remove_all_videos(data: Path) -> None:
    shutil.rmtree(data / "vsibench" / "scannet")


def put_folder(path: str):
    """A break that puts a folder into the place of a file."""

    def broken(data):
        (data / path).unlink()
        (data / path).mkdir()

    return broken


def put_pipe(path: str):
    """A break that puts a named pipe into the place of a file: whoever opens it waits for ever."""

    def broken(data):
        (data / path).unlink()
        os.mkfifo(data / path)

    return broken


def write(path: str, content: bytes):
    return lambda data: (data / path).write_bytes(content)


def append(path: str, content: bytes):
    return lambda data: (data / path).write_bytes((data / path).read_bytes() + content)


def flip(path: str):
    """A break that changes the middle of a picture."""

    def broken(data):
        content = bytearray((data / path).read_bytes())
        middle = len(content) * 3 // 4
        content[middle : middle + 40] = b"\xff\xd8\xff\xc4" * 10
        (data / path).write_bytes(bytes(content))

    return broken


def declare_size(path: str, size: int):
    """A break that gives a PNG another width and height in its header, with the right checksum."""

    def broken(data):
        content = bytearray((data / path).read_bytes())
        content[16:24] = size.to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        (data / path).write_bytes(bytes(content))

    return broken


def set_first(key: str, value):
    """A change of a list of samples: one field of the first."""
    return lambda samples: samples[0].update({key: value})


def set_metadata(key: str, value):
    return lambda samples: samples[0]["metadata"].update({key: value})


def say(text: str):
    return lambda samples: samples[0]["conversations"][0].update(value=text)


def first_choice(rows):
    return next(row for row in rows if row["options"])


def first_number(rows):
    return next(row for row in rows if not row["options"])


# Kind, what breaks the folder, tasks whose usual split it stops.
BROKEN = [
    ("folder-nested", nest, ALL),
    ("folder-misspelt", misspell, ALL),
    ("annotations-missing", lambda data: annotations(data, "scanqa").unlink(), {"scanqa"}),
    ("annotations-broken", cut("processed/scanqa_val_llava_style.json"), {"scanqa"}),
    ("annotations-broken", cut("vsibench/test-00000-of-00001.parquet"), {"vsibench"}),
    ("annotations-empty", edit_samples("sqa3d", list.clear), {"sqa3d"}),
    ("field-missing", edit_samples("scanrefer", lambda samples: samples[0].pop("box")), {"scanrefer"}),
    ("field-missing", edit_samples("scanqa", set_first("conversations", None)), {"scanqa"}),
    (
        "prompt-foreign",
        edit_samples("scan2cap", say("<image> Given an object at <coord>, describe it.")),
        {"scan2cap"},
    ),
    ("id-twice", edit_samples("scanqa", lambda samples: samples.append(samples[0])), {"scanqa"}),
    ("train-id-twice", edit_samples("scanqa", lambda samples: samples.append(samples[0]), "train"), set()),
    ("question-empty", edit_samples("scanqa", say("<image>  Answer the question simply.")), {"scanqa"}),
    ("answer-missing", edit_samples("scanqa", set_metadata("answers", [])), {"scanqa"}),
    ("box-null", edit_samples("scanrefer", set_first("box", None)), {"scanrefer"}),
    ("box-null", edit_boxes("val_pred", lambda boxes: boxes[SCENE].append(None)), GROUNDING),
    ("box-bad", edit_samples("scan2cap", set_first("gt_box", [0, 0, 0, 1, 1])), {"scan2cap"}),
    ("box-bad", edit_boxes("val_pred", lambda boxes: boxes[SCENE].append([0, 0, 0, 1, 1, -1])), GROUNDING),
    ("question-type-unknown", edit_samples("multi3drefer", set_metadata("question_type", "zt")), {"multi3drefer"}),
    ("choice-bad", edit_vsi(lambda rows: first_choice(rows).update(ground_truth="E")), {"vsibench"}),
    ("choice-bad", edit_vsi(lambda rows: first_number(rows).update(ground_truth="many")), {"vsibench"}),
    ("truth-zero", edit_vsi(lambda rows: first_number(rows).update(ground_truth="0")), set()),
    ("split-overlap", overlap, set()),
    ("object-id-unknown", edit_samples("scanrefer", set_metadata("object_id", "99"), "train"), set()),
    ("object-box-differs", edit_samples("scanrefer", set_first("box", [0, 0, 0, 1, 1, 1]), "train"), set()),
    (
        "input-boxes-null",
        edit_samples("scan2cap", lambda samples: [sample.update(box_input=None) for sample in samples]),
        set(),
    ),
    ("boxes-missing", remove("metadata/scannet_val_pred_box.json"), GROUNDING),
    ("boxes-broken", cut("metadata/scannet_val_pred_box.json"), GROUNDING),
    ("true-boxes-broken", cut("metadata/scannet_val_gt_box.json"), set()),
    ("boxes-scene-missing", edit_boxes("val_pred", lambda boxes: boxes.pop(SCENE)), GROUNDING),
    ("boxes-none", edit_boxes("val_pred", lambda boxes: boxes.update({SCENE: []})), GROUNDING),
    ("scene-missing", remove(FRAMES), POSED | {"scanqa"}),
    (
        "frames-missing",
        lambda data: [path.unlink() for path in (data / FRAMES).glob("*.jpg")],
        POSED | {"scanqa"},
    ),
    ("frame-broken", cut(f"{FRAMES}/00010.jpg"), POSED | {"scanqa"}),
    ("frame-broken", lambda data: (data / FRAMES / "00010.jpg").write_bytes(b""), POSED | {"scanqa"}),
    ("frame-size-differs", resize_frame, POSED | {"scanqa"}),
    (
        "frame-names-bad",
        lambda data: shutil.copy(data / FRAMES / "00010.jpg", data / FRAMES / "10.jpg"),
        POSED | {"scanqa"},
    ),
    ("frame-turned", turn_frame, POSED),
    ("frame-name-foreign", lambda data: shutil.copy(data / FRAMES / "00010.jpg", data / FRAMES / "f.jpg"), set()),
    ("frames-few", lambda data: None, set()),
    ("video-missing", remove_videos, {"vsibench", "sqa3d"}),
    ("video-broken", cut("vsibench/scannet/room0004_00.mp4", 0.1), {"vsibench"}),
    ("pose-missing", remove(f"{FRAMES}/00010.txt"), POSED),
    ("pose-broken", lambda data: (data / FRAMES / "00010.txt").write_text("1 0 0\n"), POSED),
    ("pose-not-finite", edit_pose(lambda pose: np.full((4, 4), -np.inf)), POSED),
    ("pose-not-rigid", edit_pose(scaled), POSED),
    ("camera-missing", no_camera, POSED),
    ("camera-broken", edit_camera(normalised), POSED),
    ("camera-broken", edit_camera(np.transpose), POSED),
    ("camera-broken", lambda data: (data / FRAMES / "intrinsic.txt").write_text("1 2\n"), POSED),
    ("camera-broken", edit_infos(lambda item: item.update(depth_cam2img=np.eye(4))), POSED),
    ("infos-missing", remove("embodiedscan"), POSED),
    ("infos-broken", cut("embodiedscan/embodiedscan_infos_val.pkl"), POSED),
    ("infos-unsafe", poison_infos, POSED),
    ("infos-scene-missing", edit_infos(lambda item: item.update(sample_idx="scannet/other")), POSED),
    ("alignment-bad", edit_infos(lambda item: item.update(axis_align_matrix=2 * np.eye(4))), POSED),
    ("infos-stale", stale, set()),
    ("frame-list-differs", edit_infos(lambda item: item["images"].pop()), set()),
    ("depth-missing", remove(f"{FRAMES}/00010.png"), POSED),
    ("depth-broken", cut(f"{FRAMES}/00000.png"), POSED),
    ("depth-broken", colour_depth, POSED),
    ("depth-size-wrong", thin_depth, POSED),
    ("depth-size-wrong", edit_depth(lambda depth: depth[:24, :24], names=("00010",)), POSED),
    ("depth-unit-wrong", edit_depth(lambda depth: (depth / 1000).astype(np.uint16)), POSED),
    ("depth-unit-wrong", edit_depth(lambda depth: depth * 4), POSED),
    ("depth-unit-wrong", edit_depth(lambda depth: depth // 10), POSED),
    ("depth-empty", edit_depth(lambda depth: depth * 0, names=("00000",)), set()),
    ("depth-holes", edit_depth(lambda depth: depth * 0), POSED),
    ("poses-wrong", edit_poses(np.linalg.inv), POSED),
    ("poses-wrong", edit_poses(lambda pose: pose @ np.diag([1.0, -1, -1, 1])), POSED),
    ("camera-wrong", edit_infos(lengthen_focal), POSED),
    ("boxes-strange", edit_boxes("val_gt", lambda scenes: scenes.update({SCENE: [[9.0] * 6] * 4})), GROUNDING),
    ("depth-camera-wrong", edit_infos(lambda item: item.update(depth_cam2img=np.diag([500.0, 500, 1, 1]))), POSED),
    ("selection-broken", cut("metadata/scannet_select_frames.json"), set()),
    ("selection-frame-missing", remove(f"{FRAMES}/00000.jpg"), set()),
    ("teacher-broken", edit_teacher(lambda store: store[:, :, :100]), set()),
    ("teacher-broken", edit_teacher(lambda store: store * np.nan), set()),
    ("teacher-broken", cut("scannet/posed_images_3d_feature_vggt/room0002_00/vggt_sliced.npy"), set()),
    ("teacher-frames-differ", edit_teacher(lambda store: store[:, :3]), set()),
    ("mask-broken", cut("scannet/mask/room0002_00.mask.npz"), set()),
    ("mask-size-differs", shorten_cloud, set()),
    ("cloud-broken", poison_cloud, set()),
    ("scene-id-bad", edit_samples("scanqa", set_first("video", "scannet/../../other")), {"scanqa"}),
    ("scene-id-bad", edit_samples("scanqa", set_first("video", "/scannet/room0002_00")), {"scanqa"}),
    ("scene-id-bad", edit_samples("scanqa", set_first("video", "scannet/" + 5000 * "a")), {"scanqa"}),
    ("scene-id-bad", edit_vsi(lambda rows: rows[0].update(scene_name="..")), {"vsibench"}),
    ("field-missing", edit_samples("scanrefer", set_metadata("object_id", "\u00b2")), {"scanrefer"}),
    ("field-missing", edit_samples("scanrefer", set_metadata("object_id", 2**40)), {"scanrefer"}),
    ("box-bad", edit_samples("multi3drefer", set_first("box", 5), "train"), set()),
    ("box-bad", edit_samples("scanrefer", set_first("box", [0, 0, 0, 1, 1, 10**400])), {"scanrefer"}),
    ("choice-bad", edit_vsi(lambda rows: first_number(rows).update(ground_truth="nan")), {"vsibench"}),
    ("annotations-broken", put_folder("processed/scanqa_val_llava_style.json"), {"scanqa"}),
    ("annotations-broken", put_pipe("processed/scanqa_val_llava_style.json"), {"scanqa"}),
    (
        "annotations-broken",
        write("processed/scanqa_val_llava_style.json", b'[{"id": ' + b"[" * 5000 + b"]" * 5000 + b"}]"),
        {"scanqa"},
    ),
    ("annotations-broken", write("processed/scanqa_val_llava_style.json", b'[{"id": "\\ud800"}]'), {"scanqa"}),
    ("annotations-broken", put_pipe("vsibench/test-00000-of-00001.parquet"), {"vsibench"}),
    ("boxes-broken", put_pipe("metadata/scannet_val_pred_box.json"), GROUNDING),
    ("boxes-broken", write("metadata/scannet_val_pred_box.json", b'{"scannet/../x": []}'), GROUNDING),
    ("infos-broken", put_pipe("embodiedscan/embodiedscan_infos_val.pkl"), POSED),
    ("infos-broken", edit_infos(lambda item: item["images"][0].update(img_path="../../x.jpg")), POSED),
    ("camera-broken", edit_infos(lambda item: item.update(depth_cam2img=item["depth_cam2img"] * 10)), POSED),
    ("camera-broken", edit_infos(lambda item: item["depth_cam2img"].__imul__(np.diag([9, 9, 1, 1.0]) + 1)), POSED),
    ("camera-unread", write("scannet/posed_images/room0004_00/intrinsic.txt", b"one two three\n"), set()),
    ("frame-broken", flip(f"{FRAMES}/00010.jpg"), POSED | {"scanqa"}),
    ("frame-missing", remove(f"{FRAMES}/00010.jpg"), set()),
    ("frame-names-bad", put_pipe(f"{FRAMES}/00010.jpg"), POSED | {"scanqa"}),
    ("depth-broken", declare_size(f"{FRAMES}/00010.png", 60000), POSED),
    ("video-replaced", remove_all_videos, set()),
    ("selection-broken", put_folder("metadata/scannet_select_frames.json"), set()),
    ("teacher-broken", append("scannet/posed_images_3d_feature_vggt/room0002_00/vggt_sliced.npy", b"tail"), set()),
    ("teacher-broken", edit_teacher(lambda store: store.astype(str)), set()),
    ("teacher-broken", put_pipe("scannet/posed_images_3d_feature_vggt/room0002_00/vggt_sliced.npy"), set()),
    ("mask-broken", put_folder("scannet/mask/room0002_00.mask.npz"), set()),
    ("cloud-broken", put_folder("scannet/pcd_with_object_aabbs/val/room0002_00.pth"), set()),
    ("cloud-broken", put_pipe("scannet/pcd_with_object_aabbs/val/room0002_00.pth"), set()),
]


def usable(diagnosis) -> set[str]:
    return {task for task in ALL if diagnosis.can_run(task)}


def test_at_least_thirty_kinds_are_tried():
    assert len({kind for kind, _, _ in BROKEN}) >= 30
    assert set(KINDS) - {kind for kind, _, _ in BROKEN} == {
        "folder-missing",
        "path-holds-jpg",
        "unreadable",
    }


@pytest.mark.parametrize(
    ("kind", "broken", "stopped"), BROKEN, ids=[f"{number}-{kind}" for number, (kind, _, _) in enumerate(BROKEN)]
)
def test_broken_folder_is_named(kind, broken, stopped, data):
    broken(data)
    diagnosis = examine(data)
    found = {finding.kind for finding in diagnosis.findings}
    assert kind in found
    assert KINDS[kind].fix in diagnosis.as_text()
    assert usable(diagnosis) == ALL - stopped
    assert not (data / "it_ran").exists()


@pytest.mark.parametrize("step", ["check_samples", "read_infos", "check_scene", "read_selected_frames"])
def test_an_error_that_nobody_foresaw_is_a_finding(step, rooms, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("strange data")

    monkeypatch.setattr(f"processing.benchmarks.doctor.examination.{step}", fail)
    texts = [finding.detail for finding in examine(rooms).findings]
    assert any("ZeroDivisionError: strange data" in text for text in texts)


def test_whole_folder_can_be_used(rooms):
    diagnosis = examine(rooms)
    assert usable(diagnosis) == ALL and diagnosis.can_run()
    assert {finding.kind for finding in diagnosis.findings} == {"frames-few"}


@pytest.mark.parametrize("kind", ["folder-missing", "path-holds-jpg"])
def test_the_place_of_the_folder_is_looked_at(kind, data):
    moved = data.parent / "my_jpg_data"
    if kind == "path-holds-jpg":
        data.rename(moved)
    diagnosis = examine(moved)
    assert kind in {finding.kind for finding in diagnosis.findings}
    assert diagnosis.can_run() == (kind == "path-holds-jpg")


def test_exit_code_is_that_of_the_task(data):
    edit_pose(lambda pose: np.full((4, 4), np.nan))(data)
    run_command("doctor", data, "--task", "scanqa")
    run_command("doctor", data, "--task", "scanrefer", code=1)
    run_command("doctor", data, "--task", "scanrefer", "--split", "train")
    run_command("doctor", data, "--task", "scanrefer", "--without", "poses", "--without", "depth")
    assert "pose-not-finite" in run_command("doctor", data, code=1).stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--split", "val"), "--split needs --task"),
        (("--task", "scanqa", "--split", "test1"), "scanqa has the splits train, val, got 'test1'"),
        (("--without", "smell"), "--without takes frames, boxes, poses, depth, got smell"),
    ],
)
def test_wrong_options_are_told_in_one_line(data, words, told):
    assert run_command("doctor", data, *words, code=2).stderr == f"ide3d doctor: {told}. See `ide3d doctor --help`.\n"


def test_depth_can_be_done_without(data):
    for path in (data / "scannet/posed_images").glob("*/*.png"):
        path.unlink()
    assert not examine(data, tasks=["scanrefer"]).can_run("scanrefer")
    assert examine(data, tasks=["scanrefer"], without=["depth"]).can_run("scanrefer")
    sample = load_task("scanrefer", "val", data)[0]
    video = load_scene(data, sample["scene_id"], frame_names=sample["frame_names"], parts=("frames", "poses"))
    assert video.depth is None and video.intrinsics is not None


def test_json_lists_every_finding(data):
    edit_samples("scanqa", lambda samples: [sample.update(video="scannet/gone") for sample in samples])(data)
    report = json.loads(run_command("doctor", data, "--task", "scanqa", "--json", code=1).stdout)
    assert report["splits"][0]["stopped_by"] == {"scene-missing": 1}
    group = next(group for group in report["kinds"] if group["kind"] == "scene-missing")
    assert group["fix"] and group["findings"][0]["scene_id"] == "scannet/gone"


def vsi_as_lines(data: Path) -> Path:
    """The samples of VSI-Bench as JSON lines, which are read where there is no parquet file."""
    table = data / "vsibench" / "test-00000-of-00001.parquet"
    path = table.with_name("test.jsonl")
    path.write_text("\n".join(json.dumps(row) for row in pyarrow.parquet.read_table(table).to_pylist()))
    table.unlink()
    return path


@pytest.mark.parametrize("task", sorted(ALL - {"revsi"}))  # its parquet file has types of its own
def test_what_the_doctor_passes_can_be_loaded(task, data):
    """One field after the other of a sample takes values of other types; what is refused is refused in words."""
    path = vsi_as_lines(data) if task == "vsibench" else annotations(data, task)
    lines = path.read_text().splitlines() if task == "vsibench" else None
    samples = [json.loads(line) for line in lines] if lines else json.loads(path.read_text())
    places = [(name, None) for name in samples[0]] + [("metadata", name) for name in samples[0].get("metadata", {})]
    for outer, name in places:
        for value in (None, 7, "text", [], [None]):
            changed = json.loads(json.dumps(samples[0]))
            if name is None:
                changed[outer] = value
            else:
                changed[outer][name] = value
            texts = [json.dumps(sample) for sample in [changed, *samples[1:]]]
            path.write_text("\n".join(texts) if lines else f"[{', '.join(texts)}]")
            can_run = examine(data, tasks=[task], splits=[TASKS[task].eval_split]).can_run(task)
            try:
                load_task(task, TASKS[task].eval_split, data)
            except (ValueError, FileNotFoundError) as error:
                assert not can_run, f"{outer} {name} = {value!r}: {error}"
                assert str(data) in str(error)


FILES = [
    "embodiedscan/embodiedscan_infos_val.pkl",
    "metadata/scannet_val_pred_box.json",
    "metadata/scannet_select_frames.json",
    "processed/scanrefer_vg_val_llava_style.json",
    "vsibench/test-00000-of-00001.parquet",
    "vsibench/scannet/room0004_00.mp4",
    f"{FRAMES}/00000.jpg",
    f"{FRAMES}/00000.png",
    f"{FRAMES}/00000.txt",
    "scannet/mask/room0002_00.mask.npz",
    "scannet/pcd_with_object_aabbs/val/room0002_00.pth",
    "scannet/posed_images_3d_feature_vggt/room0002_00/vggt_sliced.npy",
]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("name", FILES)
def test_random_damage_is_survived(name, data):
    """Whatever the bytes of a file, the doctor gives a report."""
    path, random = data / name, np.random.default_rng(0)
    original = path.read_bytes()
    for length in (0, 1, len(original) // 3, len(original) - 1):
        path.write_bytes(original[:length])
        assert examine(data, tasks=["scanrefer", "vsibench"], splits=["val", "test"]).findings
    for reach in (16, 64, 256, len(original)) * 2:
        damaged = bytearray(original)
        for place in random.integers(min(reach, len(original)), size=4):
            damaged[place] = random.integers(256)
        path.write_bytes(bytes(damaged))
        examine(data, tasks=["scanrefer", "vsibench"], splits=["val", "test"])


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """Frames of one room, as a user has them of a scan."""
    data = export_rooms(tmp_path_factory.mktemp("walk") / "rooms", num_scenes=1, image_size=96, num_frames=8)
    return next((data / "scannet" / "posed_images").iterdir())


def test_the_folder_of_one_scene_can_be_examined(walk):
    assert "scene         all           8       1  can be used" in run_command("doctor", walk).stdout
    assert not list(examine(walk).findings)


@pytest.mark.parametrize(
    "form",
    [
        "inverted poses",
        "OpenGL axes",
        "depth in 1/5000 m",
        "camera of half the size",
        "missing pose",
        "holes everywhere",
    ],
)
def test_a_broken_walk_is_stopped_and_its_fault_named(form, walk, tmp_path):
    broken = broken_walks.break_folder(walk, tmp_path / "walk", form)
    said = run_command("doctor", broken, code=1).stdout
    assert "cannot be used" in said and broken_walks.FORMS[form][1] in said
