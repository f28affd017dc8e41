"""The rooms as a benchmark folder: every kind of file, and questions whose answers are true of the room."""

import json
from collections import Counter

import numpy as np
import pytest
from commanding import run_command

from processing.benchmarks import TASKS, load_task
from processing.benchmarks.export.annotations import RoomScene
from processing.benchmarks.export.rooms import export_rooms
from processing.benchmarks.export.vsi import vsi_records
from processing.benchmarks.readers.records import VSI_CHOICES, VSI_NUMBERS
from processing.boxes import box_iou

EVALUATED = {name: task for name, task in TASKS.items() if task.has_prompt}


def test_every_kind_of_file_is_there(rooms):
    kinds = {
        "embodiedscan/embodiedscan_infos_*.pkl": 3,
        "metadata/scannet_*_gt_box.json": 3,
        "metadata/scannet_*_pred_box.json": 3,
        "metadata/scannet_select_frames.json": 1,
        "processed/*_llava_style.json": 11,
        "vsibench/*.parquet": 1,
        "vsibench/scannet/*.mp4": 2,
        "revsi/32_frame/*.parquet": 1,
        "revsi/32_frame/*.mp4": 2,
        "scannet/posed_images/*/00010.jpg": 6,
        "scannet/posed_images/*/00010.png": 6,
        "scannet/posed_images/*/00010.txt": 6,
        "scannet/posed_images/*/intrinsic.txt": 6,
        "scannet/posed_images/*/depth_intrinsic.txt": 6,
        "scannet/posed_images_3d_feature_vggt/*/vggt_sliced.npy": 6,
        "scannet/mask/*.mask.npz": 6,
        "scannet/pcd_with_object_aabbs/*/*.pth": 6,
    }
    assert {kind: len(list(rooms.glob(kind))) for kind in kinds} == kinds


def test_the_same_arguments_give_the_same_samples(rooms, tmp_path):
    again = export_rooms(tmp_path / "again", num_scenes=1, image_size=48, num_frames=4)
    for task, spec in EVALUATED.items():
        first = load_task(task, "train" if "train" in spec.splits else spec.eval_split, again)
        if "train" in spec.splits:
            assert first[:]["question"] == load_task(task, "train", rooms)[:]["question"][: len(first)]


def test_a_folder_is_not_written_into(rooms):
    with pytest.raises(FileExistsError, match="not empty"):
        export_rooms(rooms, num_scenes=1)
    with pytest.raises(ValueError, match="at least 1"):
        export_rooms(rooms.parent / "none", num_scenes=0)


def test_a_run_that_stops_leaves_no_folder(tmp_path, monkeypatch):
    """What was half written would be refused by the next run, and read by everybody else."""

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("processing.benchmarks.export.files.RoomWriter.write_teacher", stop)
    with pytest.raises(KeyboardInterrupt):
        export_rooms(tmp_path / "rooms", num_scenes=1, image_size=32, num_frames=2)
    assert not list(tmp_path.iterdir())


def test_command_writes_a_folder(tmp_path):
    words = ("--num-scenes", 1, "--image-size", 32, "--num-frames", 2)
    told = run_command("rooms", "export", tmp_path / "rooms", *words).stdout
    assert told == f"Wrote {tmp_path / 'rooms'}; next: ide3d doctor {tmp_path / 'rooms'}\n"
    assert len(load_task("scanqa", "val", tmp_path / "rooms")) > 0


def test_types_cover_the_rules_of_the_benchmarks(rooms):
    multi = Counter(load_task("multi3drefer", "val", rooms)["question_type"])
    assert {"zt_wo_d", "zt_w_d", "st_wo_d"} <= set(multi)
    for sample in load_task("multi3drefer", "val", rooms):
        count = {"zt": (0, 0), "st": (1, 1), "mt": (2, 99)}[sample["question_type"][:2]]
        assert count[0] <= len(sample["gt_boxes"]) <= count[1]
    captions = load_task("scan2cap", "val", rooms)
    given = [bool(sample["input_box"]) for sample in captions]
    assert any(given) and not all(given)
    for sample in captions:
        if sample["input_box"]:
            assert box_iou(sample["gt_boxes"], [sample["input_box"]])[0, 0] >= 0.5


def test_overlap_of_boxes():
    box = np.array([0, 0, 0, 2, 2, 2])
    others = [box, box + [1, 0, 0, 0, 0, 0], box + [3, 0, 0, 0, 0, 0]]
    np.testing.assert_allclose(box_iou([box], others), [[1, 1 / 3, 0]])


def thing(number: int, category: str, x: float, y: float, size=(0.2, 0.2, 0.2)) -> dict:
    return {
        "id": number,
        "category": category,
        "center": [x, y, 0.5],
        "size": list(size),
        "place": "floor",
        "support_id": 0,
        "colour": "red",
        "feature": "",
    }


def test_space_questions_are_true():
    """A hand-made room seen from above: bed in the origin, door ahead of it (+y), desk to its left, lamp behind it."""
    things = [thing(1, "bed", 0, 0), thing(2, "door", 0, 2), thing(3, "desk", -2, 0.5), thing(4, "lamp", 1, -2)]
    ids = np.zeros((5, 8, 8), np.uint8)
    for number in range(1, 5):
        ids[number, 0] = number
    scene = RoomScene("scannet/room", {"objects": things, "questions": []}, ids, np.zeros((0, 6)))
    asked = [record for seed in range(60) for record in vsi_records(scene, 12.0, np.random.default_rng(seed))]
    assert {record["question_type"] for record in asked} == (VSI_CHOICES | VSI_NUMBERS) - {
        "object_counting",
        "object_rel_distance",
    }

    def answers(text: str) -> set[str]:
        return {
            next((o[3:] for o in r["options"] or [] if o[0] == r["ground_truth"]), r["ground_truth"])
            for r in asked
            if text in r["question"]
        }

    assert answers("by the bed and face the door, where is the desk: left, right?") == {"left"}
    assert answers("by the bed and face the door, where is the lamp: left, right?") == {"right"}
    assert answers("by the bed and face the door, where is the lamp: left, right, back?") == {"back"}
    assert answers("by the bed and face the door, where is the lamp: front-left") == {"back-right"}
    assert answers("nearest points of the bed and the door") == {"1.8"}
    assert answers("by the door and faces the bed. It wants to reach the desk") == {"Turn Right"}
    assert answers("floor area") == {"12.0"}
    order = next(r for r in asked if r["question_type"] == "obj_appearance_order")
    truth = next(o[3:] for o in order["options"] if o[0] == order["ground_truth"])
    places = ["bed", "door", "desk", "lamp"]
    assert [places.index(word) for word in truth.split(", ")] == sorted(places.index(w) for w in truth.split(", "))


def test_files_hold_what_the_originals_read(rooms):
    """Field names of the public annotation files, which other code bases read by name."""
    fields = {"id", "video", "conversations", "metadata"}
    own = {"scanrefer_vg": {"box"}, "multi3drefer": {"box"}, "scan2cap": {"box_input", "gt_box", "annotations"}}
    for stem in ("scanrefer_vg", "multi3drefer", "scan2cap", "scanqa"):
        records = json.loads((rooms / f"processed/{stem}_val_llava_style.json").read_text())
        assert {key for record in records for key in record} == fields | own.get(stem, set())
        assert [turn["from"] for turn in records[0]["conversations"]] == ["human", "gpt"]
