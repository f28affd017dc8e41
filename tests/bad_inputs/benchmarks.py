"""Cases of the benchmark readers and of the doctor, on the same damage."""

import json
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import ToldError, door
from bad_inputs.damage import FILES, JSON_FILES, PATHS, make_fifo

SCENE = "scannet/room0001_00"
TASKS = {  # stem of the file: task, split
    "scanrefer_vg_val": ("scanrefer", "val"),
    "multi3drefer_val": ("multi3drefer", "val"),
    "scan2cap_val": ("scan2cap", "val"),
    "scanqa_val": ("scanqa", "val"),
    "sqa3d_test": ("sqa3d", "test"),
    "multi3drefer_train": ("multi3drefer", "train"),
}
GONE = object()
Use = Callable[[Path], Any]


def _set(*path: Any, value: Any) -> Callable[[list], Any]:
    """Set, or take away, a field of the second record."""

    def change(records: list) -> list:
        target = records[1]
        for key in path[:-1]:
            target = target[key]
        if value is GONE:
            del target[path[-1]]
        else:
            target[path[-1]] = value
        return records

    return change


def _record_damages(stem: str) -> Iterator[tuple[str, Callable[[list], Any]]]:
    task = TASKS[stem][0]
    for field in ("id", "video", "conversations", "metadata"):
        yield f"{field} missing", _set(field, value=GONE)
        for what, value in {"null": None, "a number": 5, "a list": [1], "a mapping": {"a": 1}}.items():
            if (field, what) not in (("id", "a number"),):
                yield f"{field} {what}", _set(field, value=value)
    videos = {
        "of ../": "../../etc/room",
        "absolute": "/etc/room",
        "empty": "",
        "of 5000 characters": "x" * 5000,
        "of a NUL": "scannet/a\0b",
        "unknown": "scannet/room9999_00",
        "a part alone": "room0001_00",
        "with ./": "scannet/./room0001_00",
    }
    for what, value in videos.items():
        yield f"video {what}", _set("video", value=value)
    yield "conversations empty", _set("conversations", value=[])
    yield (
        "conversations without an answer",
        lambda records: _set("conversations", value=records[1]["conversations"][:1])(records),
    )
    yield "a turn without from", _set("conversations", 0, "from", value=GONE)
    yield "a turn without value", _set("conversations", 0, "value", value=GONE)
    yield "a turn's value a number", _set("conversations", 0, "value", value=5)
    yield "a turn's value empty", _set("conversations", 0, "value", value="")
    yield "a turn of another role", _set("conversations", 0, "from", value="alien")
    yield "a turn a string", _set("conversations", 0, value="x")
    yield "a record a list", lambda records: [records[0], [1], *records[2:]]
    yield "a record null", lambda records: [records[0], None, *records[2:]]
    yield "an id twice", lambda records: [records[0], {**records[1], "id": records[0]["id"]}, *records[2:]]
    yield "question type missing", _set("metadata", "question_type", value=GONE)
    yield "question type unknown", _set("metadata", "question_type", value="nonsense")
    yield "question type a list", _set("metadata", "question_type", value=[1])
    boxes = {"scanrefer": ["box"], "multi3drefer": ["box"], "scan2cap": ["box_input", "gt_box"]}.get(task, [])
    for name in boxes:
        yield f"{name} missing", _set(name, value=GONE)
        for what, value in {
            "null": None,
            "a number": 5,
            "of strings": ["a"] * 6,
            "short": [1.0, 2.0],
            "NaN": [float("nan")] * 6,
            "negative size": [0, 0, 0, -1, 1, 1],
            "a string": "box",
            "a mapping": {"x": 1},
            "huge": [1e300] * 6,
        }.items():
            several = task == "multi3drefer" and isinstance(value, list)
            yield f"{name} {what}", _set(name, value=[value] if several else value)
    if boxes:
        yield "object id missing", _set("metadata", "object_id", value=GONE)
        for what, value in {
            "a superscript digit": "²",
            "a word": "chair",
            "negative": -1,
            "1.5": 1.5,
            "null": None,
            "huge": 10**30,
            "bool": True,
            "a mapping": {"a": 1},
        }.items():
            yield (
                f"object id {what}",
                _set("metadata", "object_id", value=[value] if task == "multi3drefer" else value),
            )
    if task == "scanqa":
        for what, value in {"numbers": [5], "a string": "one", "null": None, "empty": [], "with null": [None]}.items():
            yield f"answers {what}", _set("metadata", "answers", value=value)


def _renamed(stem: str, what: str) -> str:
    known = {
        ("scanrefer_vg_val", "object id a superscript digit"): "a record whose object id is a superscript digit",
        ("multi3drefer_train", "box a number"): "train multi3drefer: box a number",
        ("scanqa_val", "video of 5000 characters"): "video of 5000 characters",
    }
    return known.get((stem, what), f"{stem}: {what}")


def _damage_annotations(data: Path, stem: str, change: Callable[[list], Any]) -> None:
    path = data / "processed" / f"{stem}_llava_style.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


FILE_NAMES = {  # label: path, use
    "a scene's jpg": f"scannet/posed_images/{SCENE[8:]}/00010.jpg",
    "a scene's png": f"scannet/posed_images/{SCENE[8:]}/00010.png",
    "a scene's txt": f"scannet/posed_images/{SCENE[8:]}/00010.txt",
    "intrinsic.txt": f"scannet/posed_images/{SCENE[8:]}/intrinsic.txt",
    "depth_intrinsic.txt": f"scannet/posed_images/{SCENE[8:]}/depth_intrinsic.txt",
    "infos": "embodiedscan/embodiedscan_infos_val.pkl",
    "gt boxes": "metadata/scannet_val_gt_box.json",
    "pred boxes": "metadata/scannet_val_pred_box.json",
    "selected frames": "metadata/scannet_select_frames.json",
    "vggt_sliced.npy": f"scannet/posed_images_3d_feature_vggt/{SCENE[8:]}/vggt_sliced.npy",
    "mask.npz": f"scannet/mask/{SCENE[8:]}.mask.npz",
    "point cloud pth": f"scannet/pcd_with_object_aabbs/val/{SCENE[8:]}.pth",
    "vsibench mp4": "vsibench/scannet/room0002_00.mp4",
    "vsibench parquet": "vsibench/test-00000-of-00001.parquet",
}


# What a scene does without, or what no reader of one scene can tell.
OPTIONAL = {
    ("depth_intrinsic.txt", "missing"),
    ("intrinsic.txt", "missing"),
    ("mask.npz", "missing"),
    ("point cloud pth", "missing"),
    ("vggt_sliced.npy", "missing"),
    ("a scene's png", "turned"),
    ("infos", "images empty"),
}


def _use(label: str, data: Path) -> Any:
    """Read a file by its public reader."""
    from processing.benchmarks import load_scene, load_task
    from processing.benchmarks.readers import files, load_teacher_features

    path = data / FILE_NAMES[label]
    if label in ("gt boxes", "pred boxes"):
        return load_task("scanrefer", "val", data, boxes=label.split()[0])
    if label == "selected frames":
        return load_task("scanqa", "val", data, frames="coverage")
    if label == "vsibench parquet":
        return load_task("vsibench", "test", data)
    if label == "vsibench mp4":
        return load_scene(data, "vsibench/scannet/room0002_00", num_frames=4)
    if label == "vggt_sliced.npy":
        names = ["00000", "00010", "00020", "00030"]
        return load_teacher_features(data, SCENE, names, goods.processor_grid())
    if label == "mask.npz":
        return files.read_masks(path)
    if label == "point cloud pth":
        return files.read_point_cloud(path)
    parts = ("frames", "depth") if label == "depth_intrinsic.txt" else ("frames", "depth", "poses")
    return load_scene(data, SCENE, parts=parts, num_frames=4)


def _file_damages(label: str) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(path.read_bytes()))

    def to_folder(path: Path) -> None:
        path.unlink()
        path.mkdir()

    for what, change in (JSON_FILES if label.endswith(("boxes", "frames")) else FILES).items():
        yield what, partial(edit, change=change)
    yield "missing", lambda path: path.unlink()
    yield "folder", to_folder
    yield "a pipe", make_fifo
    if label not in ("a scene's png", "vsibench mp4", "mask.npz", "point cloud pth", "infos"):
        yield "tail", partial(edit, change=lambda data: data + b"\x00tail")
    if label.endswith(".txt") or label == "a scene's txt":
        for what, text in {
            "of words": "a b c d\n" * 4,
            "of NaN": "nan nan nan nan\n" * 4,
            "of zeros": "0 0 0 0\n" * 4,
            "3 x 2": "1 0\n0 1\n1 1\n",
            "ten times": "580 0 24 0\n0 580 24 0\n0 0 1 0\n0 0 0 1\n",
        }.items():
            if (label, what) != ("a scene's txt", "ten times") and label != "depth_intrinsic.txt":
                yield what, lambda path, text=text: path.write_text(text)
    if label == "vggt_sliced.npy":
        for what, array in {
            "of strings": np.full((1, 4, 256, 8), "x"),
            "of NaN": np.full((1, 4, 256, 8), np.nan, np.float32),
            "of another shape": np.zeros((4, 8), np.float32),
            "of no channel": np.zeros((1, 4, 256, 0), np.float32),
            "of other patches": np.zeros((1, 4, 255, 8), np.float32),
            "of objects": np.array([{}], object),
            "complex": np.zeros((1, 4, 256, 8), complex),
            "with 1e300": np.full((1, 4, 256, 8), 1e300),
        }.items():
            yield what, lambda path, array=array: np.save(path, array, allow_pickle=True)
    if label == "a scene's jpg":
        yield "flip", lambda path: edit(path, _flip)
        yield "of another size", lambda path: goods.write_picture(path, 20, 30)
        yield "of one pixel", lambda path: goods.write_picture(path, 1, 1)
        yield "a PNG of the name", lambda path: goods.write_picture(path, 20, 30, "PNG")
    if label == "a scene's png":
        yield "8 bit", lambda path: goods.write_picture(path, 48, 48, "PNG")
        yield "all 0", lambda path: goods.write_depth(path, lambda a: a * 0)
        yield "in metres", lambda path: goods.write_depth(path, lambda a: a // 1000)
        yield "turned", lambda path: goods.write_depth(path, lambda a: np.ascontiguousarray(a[::-1]))
    if label == "infos":
        yield from _infos_damages()


def _append(path: Path, tail: bytes) -> None:
    path.write_bytes(path.read_bytes() + tail)


def _flip(data: bytes) -> bytes:
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def _infos_damages() -> Iterator[tuple[str, Callable[[Path], Any]]]:
    def rewrite(path: Path, change: Callable[[dict], Any]) -> None:
        import pickle

        from processing.benchmarks.readers.files import load_pickle

        content = load_pickle(path)
        path.write_bytes(pickle.dumps(change(content)))

    def each(change: Callable[[dict], None]) -> Callable[[dict], dict]:
        def apply(content: dict) -> dict:
            for item in content["data_list"]:
                change(item)
            return content

        return apply

    def put(key: str, value: Any) -> Callable[[dict], dict]:
        return each(lambda item: item.pop(key) if value is GONE else item.__setitem__(key, value))

    for key in ("sample_idx", "axis_align_matrix", "images", "depth_cam2img"):
        for what, value in {"missing": GONE, "None": None, "a number": 5, "a word": "x", "empty": []}.items():
            yield f"{key} {what}", partial(rewrite, change=put(key, value))
    for what, value in {
        "NaN": np.full((4, 4), np.nan),
        "3 x 3": np.eye(3),
        "mirrored": np.diag([-1.0, 1, 1, 1]),
        "of zeros": np.zeros((4, 4)),
        "scaled": np.diag([1000.0, 1000, 1000, 1]),
        "complex": np.eye(4) * 1j,
    }.items():
        yield f"axis_align_matrix {what}", partial(rewrite, change=put("axis_align_matrix", value))
    for what, factor in {
        "cam2img of 10 times the size": 10,
        "cam2img of a tenth": 0.1,
        "cam2img negative": -1,
    }.items():
        matrix = np.diag([factor * 40.0, factor * 40.0, 1, 1])
        matrix[:2, 2] = 23.5
        yield what, partial(rewrite, change=put("depth_cam2img", matrix))
    yield "a list", partial(rewrite, change=lambda content: [content])
    yield "no data_list", partial(rewrite, change=lambda content: {})
    yield "data_list a number", partial(rewrite, change=lambda content: {**content, "data_list": 5})
    yield "sample_idx of ../", partial(rewrite, change=put("sample_idx", "../../room0001_00"))


@cache
def _known_findings() -> frozenset:
    from processing.benchmarks.doctor import examine

    return frozenset((found.kind, found.detail) for found in examine(goods.rooms_folder()).findings)


def examine_as_told(data: Path, **options: Any) -> None:
    """Let the doctor look; what it finds beyond the right folder is told."""
    from processing.benchmarks.doctor import examine

    diagnosis = examine(data, **options)
    diagnosis.as_text()
    json.dumps(diagnosis.as_dict())
    found = [x for x in diagnosis.findings if (x.kind, x.detail) not in _known_findings()]
    if found:
        raise ToldError("; ".join(f"{x.path}: {x.kind} {x.detail} {x.scene_id} {x.task}" for x in found))


def _damaged_data(folder: Path, /, label: str, change: Callable[[Path], Any]) -> Path:
    data = goods.copy_rooms(folder)
    change(data / FILE_NAMES[label])
    return data


def _expected(stem: str, what: str) -> str:
    """What is rightly done with a damaged record."""
    task = TASKS[stem][0]
    # A description may come without a box, and grounding without an answer in words; `./` leads nowhere else.
    if what in ("box_input null", "video with ./"):
        return "either"
    if what == "conversations without an answer" and task in ("scanrefer", "multi3drefer"):
        return "either"
    if what == "question type unknown" and task in ("scan2cap", "scanqa", "sqa3d"):
        return "either"  # nothing is scored by it
    if what == "object id missing" and task == "scan2cap":
        return "either"  # a description is of its box; nothing reads the id
    return "refused"


@door(
    "benchmark readers",
    "processing.benchmarks.load_task",
    "processing.benchmarks.requirements_for",
    "processing.benchmarks.load_scene",
    "processing.benchmarks.readers.load_teacher_features",
)
def readers(add: Callable[..., None]) -> None:
    def require(folder: Path, /, **given: Any) -> Any:
        from processing.benchmarks import requirements_for

        return requirements_for(**{"task": "scanrefer", **given})

    add("right: requirements_for", require, expect="taken")
    for name in ("task", "mode", "split", "frames", "regions", "boxes"):
        for what, value in {"unknown": "nonsense", "a number": 5, "a list": ["rgb_only"]}.items():
            add(f"requirements_for: {name} {what}", partial(require, **{name: value}), name, "splits")
    add("requirements_for: a mode of other tasks", partial(require, task="scanqa", mode="proposals"), "mode")

    def load_mode(folder: Path, /, **given: Any) -> Any:
        from processing.benchmarks import load_task

        return load_task(**{"task": "scanrefer", "split": "val", "data_dir": goods.rooms_folder(), **given})

    add("right: load_task, mode rgb_only", partial(load_mode, mode="rgb_only"), expect="taken")
    for what, value in {"unknown": "nonsense", "a number": 5}.items():
        add(f"load_task: mode {what}", partial(load_mode, mode=value), "mode")
    add("load_task: boxes in the mode rgb_only", partial(load_mode, mode="rgb_only", boxes="gt"), "boxes", "mode")
    for stem, (task, split) in TASKS.items():

        def load(folder: Path, /, stem: str = stem, task: str = task, split: str = split, change: Any = None) -> Any:
            from processing.benchmarks import load_task

            data = goods.copy_rooms(folder)
            if change is not None:
                change(data)
            return load_task(task, split, data)

        add(f"right: {stem}", load, expect="taken")
        for what, change in JSON_FILES.items():

            def damage(data: Path, stem: str = stem, change: Any = change) -> None:
                path = data / "processed" / f"{stem}_llava_style.json"
                path.write_bytes(change(path.read_bytes()))

            add(f"{stem} {what}", partial(load, change=damage), stem)
        for what, change in _record_damages(stem):
            expect = _expected(stem, what)
            damage = partial(_damage_annotations, stem=stem, change=change)
            add(
                f"{stem}: {what}",
                partial(load, change=damage),
                stem,
                "sample",
                "scene",
                "frames",
                "xxx",
                expect=expect,
            )
    for label, name in FILE_NAMES.items():
        add(f"right: {label}", lambda folder, label=label: _use(label, goods.rooms_folder()), expect="taken")
        for what, change in _file_damages(label):
            expect = "taken" if (label, what) in (("a scene's jpg", "tail"), ("a scene's png", "all 0")) else "refused"
            expect = "either" if what == "flip" or (label, what) in OPTIONAL else expect
            title = f"{label}: {what}" if label == "infos" else f"{label} {what}"
            add(
                title,
                lambda folder, label=label, change=change: _use(label, _damaged_data(folder, label, change)),
                name.rsplit("/", 1)[-1],
                "00010",
                "00030",
                *(
                    ["depth", "camera", "intrinsics", "pose", "axis_align_matrix", "EmbodiedScan"]
                    if "posed_images" in name or label == "infos"
                    else []
                ),
                expect=expect,
            )


@door("doctor on the same damage", "processing.benchmarks.doctor.examine")
def doctor(add: Callable[..., None]) -> None:
    for what, options in {
        "a set": {"tasks": {"scanqa"}},
        "a generator": {"tasks": (name for name in ["scanqa"])},
    }.items():
        add(f"right: tasks {what}", lambda f, o=options: examine_as_told(goods.rooms_folder(), **o), expect="taken")
    for what, tail in {"text": b"tail", "a marker": b"\xff\xda\x00\x02", "zeros": bytes(500)}.items():
        add(
            f"right: a JPEG with {what} behind its end",
            lambda f, tail=tail: examine_as_told(_damaged_data(f, "a scene's jpg", lambda p: _append(p, tail))),
            expect="taken",
        )
    for name, text in {"scene_id": "null", "boxes": '{"scannet/a": [], "scannet/a": []}'}.items():
        add(
            f"gt boxes: {name} twice or null",
            lambda f, text=text: examine_as_told(_damaged_data(f, "gt boxes", lambda p: p.write_text(text))),
            "gt_box",
        )
    add("right: the rooms", lambda folder: examine_as_told(goods.copy_rooms(folder)), expect="taken")
    for stem, (task, split) in TASKS.items():
        for what, change in JSON_FILES.items():

            def run(
                folder: Path, /, stem: str = stem, change: Any = change, task: str = task, split: str = split
            ) -> None:
                data = goods.copy_rooms(folder)
                path = data / "processed" / f"{stem}_llava_style.json"
                path.write_bytes(change(path.read_bytes()))
                examine_as_told(data, tasks=[task], splits=[split])

            add(f"{stem} {what}", run, stem)
        for what, change in _record_damages(stem):

            def examine_records(folder: Path, /, stem: str = stem, change: Any = change) -> None:
                data = goods.copy_rooms(folder)
                _damage_annotations(data, stem, change)
                examine_as_told(data, tasks=[TASKS[stem][0]], splits=[TASKS[stem][1]])

            add(_renamed(stem, what), examine_records, stem, "room", "scene", expect=_expected(stem, what))
    for label, name in FILE_NAMES.items():
        for what, change in _file_damages(label):
            # A picture may carry more behind its end.
            # Proposals do without true boxes of val, and frames="uniform" without a list.
            spared = {("a scene's jpg", "tail"), ("gt boxes", "missing"), ("selected frames", "missing")}
            expect = "either" if (label, what) in {*OPTIONAL, *spared} else "refused"
            expect = "either" if what == "flip" else expect  # JPEG has no checksum
            title = f"{label}: {what}" if label == "infos" else f"{label} {what}"

            def examine_file(folder: Path, /, label: str = label, change: Any = change) -> None:
                task = "vsibench" if label.startswith("vsi") else "scanrefer"
                examine_as_told(_damaged_data(folder, label, change), tasks=[task])

            add(title, examine_file, name.rsplit("/", 1)[-1], "room", "embodiedscan", expect=expect)
    for what, make in PATHS.items():

        def run_path(folder: Path, /, make: Any = make) -> None:
            examine_as_told(make(folder))

        words = {"missing": "missing-file", "a folder": "given", "a pipe": "pipe", "a loop of links": "loop"}
        add(f"path {what}", run_path, words.get(what, "folder"), "data_dir", "path", "annotations", "xxx")
    for name in ("tasks", "splits", "without"):
        values = {"unknown": ["nonsense"], "a string": "scanqa", "a number": 5, "numbers": [5], "bytes": [b"scanqa"]}
        values |= {"a mapping": {"scanqa": 1}, "None in it": [None]} | ({} if name == "without" else {"none": []})
        for what, value in values.items():
            add(
                f"{name} {what}",
                lambda folder, name=name, value=value: examine_as_told(goods.rooms_folder(), **{name: value}),
                name.rstrip("s"),
            )
