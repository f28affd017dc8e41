"""Cases of posed videos and of region masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import FILES, NUMBERS, PATHS, damaged, make_fifo, write_damaged

ROOM = ("frames", "depth", "intrinsics", "camera_to_world", "boxes")
WORDS = {
    "frames": ("frame", "pixel"),
    "depth": ("depth",),
    "intrinsics": ("intrinsics", "camera"),
    "camera_to_world": ("camera_to_world", "pose"),
    "boxes": ("box",),
}
# A column more or less is another size of picture; one camera serves all frames; no box is a right number of boxes.
SIZES = ("last axis one less", "last axis one more")
SKIP = {
    "frames": ("one axis more",),
    "depth": SIZES,
    "intrinsics": ("one axis less",),
    "camera_to_world": (),
    "boxes": (),
}


def _posed(**fields: Any) -> Any:
    from processing import PosedVideo

    return PosedVideo(**goods.posed(**fields))


def _turned(poses: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return poses @ matrix


def _set(array: np.ndarray, place: Any, value: Any) -> np.ndarray:
    copy = np.array(array)
    copy[place] = value
    return copy


def _geometry_cases() -> dict[str, tuple[str, Callable[[np.ndarray], Any]]]:
    """Geometry that is told apart by its numbers, by the name of the field."""
    side = np.diag([1.0, -1, -1, 1])
    mirror = np.diag([-1.0, 1, 1, 1])
    return {
        "intrinsics last row 9 9 9": ("intrinsics", lambda a: _set(a, (slice(None), 2), 9)),
        "intrinsics of normalised coordinates (fx 0.8)": (
            "intrinsics",
            lambda a: a * np.array([1 / 64, 1 / 48, 1]).reshape(1, 3, 1),
        ),
        "intrinsics ten times too large": ("intrinsics", lambda a: a * np.array([10, 10, 1]).reshape(1, 3, 1)),
        "intrinsics of another picture (x 100)": (
            "intrinsics",
            lambda a: a * np.array([100, 100, 1]).reshape(1, 3, 1),
        ),
        "intrinsics transposed": ("intrinsics", lambda a: a.swapaxes(1, 2)),
        "intrinsics negative focal length": ("intrinsics", lambda a: _set(a, (slice(None), 0, 0), -60)),
        "intrinsics focal length 0": ("intrinsics", lambda a: _set(a, (slice(None), 0, 0), 0)),
        "intrinsics fy ten times fx": ("intrinsics", lambda a: a * np.array([1, 10, 1]).reshape(1, 3, 1)),
        "intrinsics fx and fy as a vector": ("intrinsics", lambda a: a[:, [0, 1], [0, 1]]),
        "intrinsics centre outside": ("intrinsics", lambda a: _set(a, (slice(None), 0, 2), 5000)),
        "intrinsics all zeros": ("intrinsics", np.zeros_like),
        "poses in millimetres": ("camera_to_world", lambda a: _set(a, (..., slice(3), 3), a[:, :3, 3] * 1000)),
        "poses inverted": ("camera_to_world", np.linalg.inv),
        "poses OpenGL": ("camera_to_world", lambda a: _turned(a, side)),
        "poses mirrored": ("camera_to_world", lambda a: _turned(a, mirror)),
        "poses transposed": ("camera_to_world", lambda a: a.swapaxes(1, 2)),
        "poses scaled by 2": ("camera_to_world", lambda a: a * 2),
        "poses of zeros": ("camera_to_world", np.zeros_like),
        "poses 3 x 4": ("camera_to_world", lambda a: a[:, :3]),
        "poses last row 9 9 9 9": ("camera_to_world", lambda a: _set(a, (slice(None), 3), 9)),
        "poses sheared": ("camera_to_world", lambda a: _set(a, (slice(None), 0, 1), 0.7)),
        "poses of quaternions": ("camera_to_world", lambda a: np.zeros((len(a), 7))),
        "depth in millimetres": ("depth", lambda a: a * 1000),
        "depth in kilometres": ("depth", lambda a: a / 1000),
        "depth negative": ("depth", lambda a: -a),
        "depth inverse": ("depth", lambda a: 1 / np.maximum(a, 0.1)),
        "depth turned by 90 degrees": ("depth", lambda a: np.rot90(a, axes=(1, 2)).copy()),
        "depth upside down": ("depth", lambda a: a[:, ::-1].copy()),
        "depth with a channel": ("depth", lambda a: a[..., None]),
        "depth of one frame": ("depth", lambda a: a[0]),
        "depth of other frames": ("depth", lambda a: a[:2]),
        "depth 65535 where unknown": ("depth", lambda a: np.where(a > 2.5, 65535, a)),
        "boxes of corners": ("boxes", lambda a: np.zeros((3, 8, 3))),
        "boxes with an angle": ("boxes", lambda a: np.concatenate([a, a[:, :1]], 1)),
        "boxes of negative size": ("boxes", lambda a: a * np.array([1, 1, 1, -1, 1, 1])),
        "boxes of size 0": ("boxes", lambda a: a * np.array([1, 1, 1, 0, 0, 0])),
        "boxes in millimetres": ("boxes", lambda a: a * 1000),
        "frames float 0..255": ("frames", lambda a: a.astype(np.float32)),
        "frames float -1..1": ("frames", lambda a: a / 127.5 - 1),
        "frames int16": ("frames", lambda a: a.astype(np.int16)),
        "frames uint16": ("frames", lambda a: a.astype(np.uint16) * 256),
        "frames bool": ("frames", lambda a: a > 100),
        "frames channels first": ("frames", lambda a: a.transpose(0, 3, 1, 2)),
        "frames grey": ("frames", lambda a: a[..., 0]),
        "frames RGBA": ("frames", lambda a: np.concatenate([a, a[..., :1]], -1)),
        "frames of no height": ("frames", lambda a: a[:, :0]),
    }


@door("PosedVideo", "processing.PosedVideo")
def posed_video(add: Callable[..., None]) -> None:
    fields = ("depth", "intrinsics", "camera_to_world", "boxes", "frames")
    shapes = {"frames": (4, 48, 64, 3), "depth": (4, 48, 64), "intrinsics": (4, 3, 3), "camera_to_world": (4, 4, 4)}
    for name in fields:
        for what in damaged(np.ones(shapes.get(name, (3, 6))), SKIP[name]):

            def run(folder: Path, /, name: str = name, what: str = what) -> Any:
                return _posed(**{name: damaged(np.asarray(goods.posed()[name]))[what]()})

            add(f"{name} {what}", run, *WORDS[name], *(["label"] if name == "boxes" else []))
        for what in damaged(np.ones(shapes.get(name, (3, 6))), SKIP[name]) if name != "frames" else ():

            def alone(folder: Path, /, name: str = name, what: str = what) -> Any:
                others = dict.fromkeys((*ROOM[1:], "labels"), ...)
                return _posed(**{**others, name: damaged(np.asarray(goods.posed()[name]))[what]()})

            if (name, what) not in (("boxes", "one entry less"), ("boxes", "one entry more"), ("boxes", "no entry")):
                add(f"{name} alone: {what}", alone, *WORDS[name])
    for what, (name, change) in _geometry_cases().items():

        def geometry(folder: Path, /, name: str = name, change: Any = change) -> Any:
            return _posed(**{name: change(np.asarray(goods.posed()[name]))})

        expect = "either" if what in ("depth upside down", "depth of other frames") else "refused"
        add(what, geometry, *WORDS[name], "metre", "convention", "intrinsics", "depth", expect=expect)
    for what, value in {
        "labels a string of the same length": "abc",
        "labels numbers": (1, 2, 3),
        "labels with None": ("a", None, "b"),
        "labels too few": ("a",),
        "labels a mapping": {"a": 1, "b": 2, "c": 3},
        "labels a number": 3,
        "labels bytes": (b"a", b"b", b"c"),
        "labels a set": {"a", "b", "c"},
        "labels an array of numbers": np.zeros(3),
        "labels two axes": np.array([["a", "b", "c"]]),
    }.items():
        add(what, lambda folder, value=value: _posed(labels=value), "label")
    for what, value in {
        "frame_names a string of the same length": "abcd",
        "frame_names numbers": (1, 2, 3, 4),
        "frame_names too few": ("a",),
        "frame_names twice": ("a", "a", "b", "c"),
        "frame_names a number": 4,
        "frame_names with None": ("a", None, "b", "c"),
        "frame_names absolute": ("/a", "b", "c", "d"),
        "frame_names of ../": ("../a", "b", "c", "d"),
        "frame_names with a NUL": ("a\0", "b", "c", "d"),
        "frame_names with an empty name": ("", "b", "c", "d"),
        "frame_names with a drive": ("C:/a", "b", "c", "d"),
        "frame_names of ./": ("./a", "b", "c", "d"),
        "frame_names a set": {"a", "b", "c", "d"},
        "frame_names of 5000 characters": ("a" * 5000, "b", "c", "d"),
    }.items():
        add(what, lambda folder, value=value: _posed(frame_names=value), "frame_name", "frame name")
    ids = {"an int": 5, "bytes": b"x", "a list": ["x"], "../": "../x", "absolute": "/x", "empty": "", "a NUL": "a\0b"}
    ids |= {
        "a drive": "C:/x",
        "a backslash": "a\\b",
        "..": "..",
        ".": ".",
        "a slash behind": "a/",
        "5000 characters": "x" * 5000,
    }
    for what, value in ids.items():
        add(f"scene_id {what}", lambda folder, value=value: _posed(scene_id=value), "scene_id", "scene id")
    for what, value in {
        "0.7 is cut to 0": [0.7],
        "a negative index": [-1],
        "an index too large": [4],
        "none": [],
        "a string": "01",
        "NaN": [float("nan")],
        "None": None,
        "words": ["a"],
        "a mapping": {0: 1},
        "bool mask of another length": [True, False, True],
        "huge": [10**30],
        "a float": 1.0e10,
    }.items():
        add(f"select {what}", lambda folder, value=value: _posed().select_frames(value), "indices", "index")
    _right_posed(add)
    _posed_folder(add)


def _right_posed(add: Callable[..., None]) -> None:
    frames = {"frames float 0..1": lambda a: a / 255, "frames float16 0..1": lambda a: (a / 255).astype(np.float16)}
    for what, change in frames.items():
        add(what, lambda folder, change=change: _posed(frames=change(goods.posed()["frames"])), expect="taken")
    for what, fields in {
        "depth with holes": {"depth": lambda p: np.where(p["depth"] > 2.9, 0, p["depth"])},
        "depth all unknown": {"depth": lambda p: p["depth"] * 0},
        "depth of half the size": {"depth": lambda p: p["depth"][:, ::2, ::2]},
        "depth float64": {"depth": lambda p: p["depth"].astype(np.float64)},
        "depth as a list": {"depth": lambda p: p["depth"].tolist()},
        "intrinsics one for all": {"intrinsics": lambda p: p["intrinsics"][0]},
        "intrinsics as a list": {"intrinsics": lambda p: p["intrinsics"].tolist()},
        "no boxes": {"boxes": lambda p: np.zeros((0, 6)), "labels": lambda p: ()},
        "labels a list": {"labels": lambda p: list(p["labels"])},
        "no depth": {"depth": lambda p: None},
        "no poses": {"camera_to_world": lambda p: None},
        "frames alone": {key: (lambda p: None) for key in (*ROOM[1:], "labels", "frame_names", "scene_id")},
        "frame names of a list": {"frame_names": lambda p: list(p["frame_names"])},
        "labels an array": {"labels": lambda p: np.array(p["labels"])},
        "a frame twice": {key: (lambda p, key=key: [p[key][0]] * 2) for key in (*ROOM[:4], "frame_names")},
        "names in folders": {"frame_names": lambda p: [f"left/{name}" for name in p["frame_names"]]},
        "scene id of blanks and letters": {"scene_id": lambda p: "Küche 2 (hell)"},
        "a measured hand": {"depth": lambda p: np.where(np.arange(4)[:, None, None] < 1, p["depth"] / 10, p["depth"])},
        "scene id with a folder": {"scene_id": lambda p: "scannet/scene0000_00"},
        "one frame": {key: (lambda p, key=key: p[key][:1]) for key in (*ROOM[:4], "frame_names")},
    }.items():

        def run(folder: Path, /, fields: dict = fields) -> Any:
            return _posed(**{key: change(goods.posed()) for key, change in fields.items()})

        add(f"right: {what}", run, expect="taken")
    for what, value in {"numpy": np.array([1, 2]), "a tuple": (0, 0), "whole floats": [1.0]}.items():
        add(f"right: select {what}", lambda folder, value=value: _posed().select_frames(value), expect="either")


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def _copy(path: Path, name: str) -> None:
    for suffix in (".jpg", ".png", ".txt"):
        (path / f"{name}{suffix}").write_bytes((path / f"00001{suffix}").read_bytes())


def _one_in_metres(path: Path) -> None:
    goods.write_depth(path / "00001.png", lambda a: np.maximum(a // 1000, 1))


def _from_text(folder: Path) -> Any:
    from processing import PosedVideo

    return PosedVideo.from_folder(str(goods.scene_folder(folder)))


def _from_here(folder: Path) -> Any:
    import os

    from processing import PosedVideo

    os.chdir(goods.scene_folder(folder))
    scene = PosedVideo.from_folder(".")
    if scene.scene_id != "scene":
        raise AssertionError(scene.scene_id)
    return scene


def _posed_room(add: Callable[..., None]) -> None:
    from processing import PosedVideo

    for what, row in {
        "None": None,
        "a list": [1],
        "a string": "x",
        "empty": {},
        "of another data set": {"frames": []},
    }.items():
        add(f"from_room: row {what}", lambda folder, row=row: PosedVideo.from_room(row), "row")


def _from_folder(folder: Path, /, change: Callable[[Path], Any] = lambda path: None, **options: Any) -> Any:
    from processing import PosedVideo

    path = goods.scene_folder(folder)
    change(path)
    return PosedVideo.from_folder(path, **options)


def _write_depth(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    from PIL import Image

    for file in path.glob("*.png"):
        Image.fromarray(change(np.asarray(Image.open(file)))).save(file)


def _posed_folder(plain: Callable[..., None]) -> None:
    def add(name: str, *rest: Any, **options: Any) -> None:
        plain(f"folder: {name}", *rest, **options)

    for kind in ("00001.jpg", "00001.png", "00001.txt", "intrinsic.txt"):
        for what, change in FILES.items():
            add(
                f"{kind} {what}",
                lambda folder, kind=kind, change=change: _from_folder(
                    folder, lambda path: write_damaged(path / kind, change)
                ),
                kind,
            )
        add(f"{kind} a pipe", lambda folder, kind=kind: _from_folder(folder, lambda p: make_fifo(p / kind)), kind)
        if kind != "intrinsic.txt":
            add(
                f"{kind} missing",
                lambda folder, kind=kind: _from_folder(folder, lambda path: (path / kind).unlink()),
                "00001",
                kind,
            )

        def to_folder(path: Path, kind: str = kind) -> None:
            (path / kind).unlink()
            (path / kind).mkdir()

        add(f"{kind} a folder", lambda folder, change=to_folder: _from_folder(folder, change), kind, "00001")
    for what, text in {
        "of words": "a b c\nd e f\ng h i\n",
        "of NaN": "nan nan nan nan\n" * 4,
        "3 x 2": "1 0\n0 1\n0 0\n",
        "ragged": "1 0 0\n0 1\n0 0 1\n",
        "of zeros": "0 0 0 0\n" * 4,
        "with commas": "1,0,0,0\n0,1,0,0\n0,0,1,0\n0,0,0,1\n",
        "a JSON list": "[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]",
    }.items():
        for kind in ("00001.txt", "intrinsic.txt"):
            add(
                f"{kind} {what}",
                lambda folder, kind=kind, text=text: _from_folder(folder, lambda p: (p / kind).write_text(text)),
                kind,
                "camera_to_world" if kind == "00001.txt" else "intrinsics",
            )
    depth = {
        "depth in metres (1, 2, 3)": lambda a: np.maximum(a // 1000, 1),
        "depth in centimetres": lambda a: a // 10,
        "depth turned by 90 degrees": lambda a: np.rot90(a).copy(),
        "depth 8 bit": lambda a: (a // 20).astype(np.uint8),
        "depth of three channels": lambda a: np.stack([(a // 20).astype(np.uint8)] * 3, -1),
        "depth of one pixel": lambda a: a[:1, :1],
        "depth 65535": lambda a: np.full_like(a, 65535),
    }
    for what, change in depth.items():
        add(
            what,
            lambda folder, change=change: _from_folder(folder, lambda path: _write_depth(path, change)),
            "depth",
            ".png",
        )
    for what, value in {
        "of ../": ["../scene/00000"],
        "absolute": ["/etc/passwd"],
        "unknown": ["99999"],
        "numbers": [0, 1],
        "a string": "00000",
        "None in it": [None],
        "none": [],
        "with the ending": ["00000.jpg"],
        "of a NUL": ["0\x000"],
        "of ./": ["./00000"],
        "of a link out of the folder": ["sub/../../scene/00000"],
    }.items():
        add(f"frame_names {what}", lambda folder, value=value: _from_folder(folder, frame_names=value), "frame")
    for name, values in {
        "indices": {"too large": [9], "negative": [-1], "0.7": [0.7], "none": [], "a string": "0", "NaN": [np.nan]},
        "parts": {"unknown": ["colour"], "a string": "depth", "a number": 5, "numbers": [5]},
        "convention": {"unknown": "colmap", "None": None, "a number": 5, "a list": ["opencv"]},
        "depth_unit": {**NUMBERS, "1 (metres)": 1.0, "1000": 1000.0, "bool": True},
        "skip_invalid_poses": {"a string": "no", "None": None},
    }.items():
        for what, value in values.items():
            if (name, what) in (("depth_unit", "1.5"),):
                continue
            add(
                f"{name} {what}",
                lambda folder, name=name, value=value: _from_folder(folder, **{name: value}),
                name,
                *(["depth"] if name == "depth_unit" else []),
            )
    for what, make in PATHS.items():

        def run(folder: Path, /, make: Any = make) -> Any:
            from processing import PosedVideo

            return PosedVideo.from_folder(make(folder))

        words = {"missing": "missing-file", "a pipe": "pipe", "a device": "/dev/full", "a loop of links": "loop"}
        add(f"path {what}", run, words.get(what, "folder"), "path", "frames", "xxx")
    _posed_room(plain)
    add("right: path as text", lambda f: _from_text(f), expect="taken")
    add("right: parts a set", lambda f: _from_folder(f, parts={"depth"}), expect="taken")
    add("right: parts a generator", lambda f: _from_folder(f, parts=(p for p in ("depth",))), expect="taken")
    add("right: indices of NumPy", lambda f: _from_folder(f, indices=np.array([0, 2])), expect="taken")
    add("right: keys of a dict as indices", lambda f: _from_folder(f, indices={2: "", 0: ""}.keys()), expect="taken")
    add("right: depth_unit of NumPy", lambda f: _from_folder(f, depth_unit=np.float32(0.001)), expect="taken")
    add("right: the folder that one is in", _from_here, expect="taken")
    add("convention unknown, without poses", lambda f: _from_folder(f, parts=(), convention="colmap"), "convention")
    for kind in ("00001.txt", "intrinsic.txt"):
        for what, text in {
            "of other digits": "١ 0 0 0\n",
            "with underlines": "1_0 0 0 0\n",
            "huge": "1 " * 200_000,
        }.items():
            add(
                f"{kind} {what}",
                lambda folder, kind=kind, text=text: _from_folder(folder, lambda p: (p / kind).write_text(text * 4)),
                kind,
            )
        add(f"{kind} a link to nothing", lambda f, k=kind: _from_folder(f, lambda p: _link(p / k)), kind, "00001")
    add("depth of one frame in metres", lambda f: _from_folder(f, _one_in_metres), "depth")
    add("a picture of another number's script", lambda f: _from_folder(f, lambda p: _copy(p, "²")), expect="either")
    add("indices and frame_names both", lambda f: _from_folder(f, indices=[0], frame_names=["00000"]), "frame_names")
    add("no frames", lambda f: _from_folder(f, lambda p: [x.unlink() for x in p.glob("*.jpg")]), "scene", "frame")
    add("a frame under two names", lambda f: _from_folder(f, lambda p: (p / "1.jpg").write_bytes(b"")), "1.jpg")
    add("right: as it is", lambda f: _from_folder(f), expect="taken")
    add("right: indices", lambda f: _from_folder(f, indices=[2, 0]), expect="taken")
    add("right: frame_names", lambda f: _from_folder(f, frame_names=["00002"]), expect="taken")
    add("right: frames alone", lambda f: _from_folder(f, parts=()), expect="taken")
    add(
        "right: without poses",
        lambda f: _from_folder(f, lambda p: [x.unlink() for x in p.glob("0*.txt")]),
        expect="taken",
    )
    add(
        "right: other files beside",
        lambda f: _from_folder(f, lambda p: (p / "README.md").write_text("x")),
        expect="taken",
    )
