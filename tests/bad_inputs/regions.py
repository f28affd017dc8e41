"""Cases of region masks and their files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import FILES, NUMBERS, PATH_WORDS, PATHS, damaged, write_damaged
from bad_inputs.scenes import SIZES


def _grid(**fields: Any) -> Any:
    from processing import TokenGrid

    return TokenGrid(**{"image_size": 70, "patch_size": 14, "pool_stride": 2, **fields})


@door("regions", "processing.TokenGrid")
def regions(add: Callable[..., None]) -> None:
    for name in ("image_size", "patch_size", "pool_stride"):
        for what, value in NUMBERS.items():
            if name == "image_size" and what == "huge":
                continue
            title = "grid: patch 1.5" if (name, what) == ("patch_size", "1.5") else f"grid: {name} {what}"
            add(title, lambda folder, name=name, value=value: _grid(**{name: value}), name, "patch")
    add("grid: image smaller than a patch", lambda f: _grid(image_size=7), "image_size", "patch")
    add("grid: three sides", lambda f: _grid(image_size=(70, 70, 70)), "image_size")
    add("right: grid of two sides", lambda f: _grid(image_size=(70, 84)), expect="taken")
    functions = _region_functions()
    for name, (arguments, run) in functions.items():
        add(f"right: {name}", lambda folder, run=run: run(), expect="taken")
        for argument, (value, skip, words) in arguments.items():
            for what in damaged(np.asarray(value), skip):
                add(
                    f"{name}: {argument} {what}",
                    lambda folder, run=run, argument=argument, value=value, what=what: run(
                        **{argument: damaged(np.asarray(value))[what]()}
                    ),
                    argument,
                    *words,
                )
        for what, value in {"NaN": np.nan, "-1": -1.0, "7": 7.0, "a string": "x", "None": None, "Inf": np.inf}.items():
            add(f"{name}: min_share {what}", lambda folder, run=run, value=value: run(min_share=value), "min_share")
        if name == "boxes 3D":
            add(f"{name}: min_share bool", lambda folder, run=run: run(min_share=False), "min_share")
        for what, value in {"None": None, "a tuple": (3, 3), "a string": "x", "an int": 5}.items():
            add(f"{name}: grid {what}", lambda folder, run=run, value=value: run(grid=value), "grid")
    _right_regions(add, functions)
    ids = functions["ids"][1]
    for what, value in {
        "region id 1.7 is cut to 1": [1.7],
        "region id a string": ["1"],
        "region id twice": [1, 1],
        "region id None": [None],
        "no region id": [],
        "a number": 1,
        "region id bool": [True],
        "region id huge": [1e30],
        "region id NaN": [np.nan],
        "region id beyond int64": np.array([2**64 - 1], np.uint64),
    }.items():
        expect = "either" if what in ("region id twice", "no region id", "a number") else "refused"
        add(
            f"ids: {what}", lambda folder, value=value: ids(region_ids=value), "region_ids", "region id", expect=expect
        )
    boxes2d = functions["boxes 2D"][1]
    for what, value in {
        "frame size swapped sign": (-48, -64),
        "frame size 0": (0, 64),
        "frame size one number": (48,),
        "frame size words": ("a", "b"),
        "frame size NaN": (np.nan, 64),
        "frame size None": None,
        "frame size of three": (3, 48, 64),
        "frame size of parts": (48.5, 64),
        "frame size Inf": (np.inf, 64),
        "frame size bool": (True, True),
        "frame size text": "48",
        "frame size a set": {48, 64},
    }.items():
        add(f"boxes 2D: {what}", lambda folder, value=value: boxes2d(frame_size=value), "frame_size")
    add("boxes 2D: right before left", lambda f: boxes2d(boxes=np.array([[[30, 10, 5, 20.0]] * 4])), expect="either")
    add(
        "boxes 2D: outside of the frame",
        lambda f: boxes2d(boxes=np.array([[[300, 100, 500, 200.0]] * 4])),
        expect="either",
    )
    poses = functions["boxes and poses"][1]
    for what, change in {
        "mirrored pose": lambda a: a @ np.diag([-1.0, 1, 1, 1]),
        "scaled pose": lambda a: a * 2,
        "pose of zeros": np.zeros_like,
        "transposed pose": lambda a: a.swapaxes(1, 2),
    }.items():
        add(
            f"boxes and poses: {what}",
            lambda folder, change=change: poses(camera_to_world=change(goods.posed()["camera_to_world"])),
            "camera_to_world",
            "pose",
        )
    for what, protocol in {"unknown": "x", "None": None, "a number": 5, "a list": ["clean"]}.items():
        for name in ("boxes 3D",):
            add(f"{name}: protocol {what}", lambda f, p=protocol: functions["boxes 3D"][1](protocol=p), "protocol")
    _region_files(add)


def _right_regions(add: Callable[..., None], functions: dict[str, tuple[dict, Callable[..., Any]]]) -> None:
    import torch

    masks, ids, boxes2d, boxes3d, poses = (
        functions[name][1] for name in ("masks", "ids", "boxes 2D", "boxes 3D", "boxes and poses")
    )
    add("masks: no view", lambda f: masks(masks=np.zeros((2, 0, 48, 64), bool)), "masks")
    add("ids: no view", lambda f: ids(ids=np.zeros((0, 48, 64), int)), "ids")
    add("boxes 2D: no view", lambda f: boxes2d(boxes=np.zeros((2, 0, 4))), "boxes")
    add("boxes 3D: no view", lambda f: boxes3d(world_points=np.zeros((0, 48, 64, 3))), "world_points")
    for kind in (np.uint8, np.uint16, np.int32, np.uint64):
        add(
            f"right: ids of {np.dtype(kind)}",
            lambda f, k=kind: ids(ids=np.ones((4, 48, 64), k), region_ids=np.array([1], k)),
            expect="taken",
        )
    add("right: masks of a tensor", lambda f: masks(masks=torch.ones(1, 4, 48, 64, dtype=torch.bool)), expect="taken")
    add("right: frame size of NumPy", lambda f: boxes2d(frame_size=np.array([48, 64])), expect="taken")
    add("right: frame size of a tensor", lambda f: boxes2d(frame_size=torch.tensor([48, 64])), expect="taken")
    add("right: frame size of floats", lambda f: boxes2d(frame_size=[48.0, 64.0]), expect="taken")
    add("right: min_share of NumPy", lambda f: boxes2d(min_share=np.float32(0.5)), expect="taken")
    add("right: min_share 0 of points", lambda f: boxes3d(min_share=0), expect="taken")
    add("right: boxes a list", lambda f: poses(boxes=[[0, 0, 3, 2, 2, 0.5]]), expect="taken")
    add("right: no box", lambda f: boxes3d(boxes=np.zeros((0, 6))), expect="taken")
    for name, change in {"masks": masks, "boxes": boxes2d}.items():
        add(f"{name} flags or numbers mixed up", lambda f, n=name, c=change: c(**{n: np.ones((2, 4, 4), "?" if n == "boxes" else int)}), name)  # fmt: skip


def _region_functions() -> dict[str, tuple[dict, Callable[..., Any]]]:
    """Arguments with their values, damages that are none, words; and the function."""
    masks = np.zeros((2, 4, 48, 64), bool)
    masks[:, :, 10:30, 10:40] = True
    ids = np.ones((4, 48, 64), np.int64)
    boxes2d = np.array([[[5.0, 5, 30, 30]] * 4] * 2)
    boxes3d = np.array([[0.0, 0, 3, 2, 2, 0.5], [0.1, 0, 2, 0.9, 0.9, 0.9]])
    any_count = ("no entry", "one entry less", "one entry more")

    def from_masks(**fields: Any) -> Any:
        from processing.regions import regions_from_masks

        given = {"masks": masks, "grid": _grid(), **fields}
        return regions_from_masks(**given)

    def from_ids(**fields: Any) -> Any:
        from processing.regions import regions_from_ids

        given = {"ids": ids, "region_ids": [1], "grid": _grid(), **fields}
        return regions_from_ids(**given)

    def from_boxes_2d(**fields: Any) -> Any:
        from processing.regions import regions_from_boxes_2d

        given = {"boxes": boxes2d, "frame_size": (48, 64), "grid": _grid(), **fields}
        return regions_from_boxes_2d(**given)

    def from_boxes_3d(**fields: Any) -> Any:
        from processing.regions import regions_from_boxes_3d

        given = {"boxes": boxes3d, "world_points": np.ones((4, 48, 64, 3)), "grid": _grid(), **fields}
        given.setdefault("protocol", "clean")
        return regions_from_boxes_3d(**given)

    def from_poses(**fields: Any) -> Any:
        from processing.regions import regions_from_boxes_and_poses

        found = goods.posed()
        given = {"boxes": boxes3d, "intrinsics": found["intrinsics"], "camera_to_world": found["camera_to_world"]}
        given |= {"grid": _grid(), **fields}
        return regions_from_boxes_and_poses(**given)

    flags = ("one axis less", "a NaN", "an Inf", "a negative Inf", "float64 beyond float32", *SIZES, *any_count)
    return {
        "masks": ({"masks": (masks, flags, ("mask",))}, from_masks),
        "ids": ({"ids": (ids, (*SIZES, *any_count), ("ids",))}, from_ids),
        "boxes 2D": ({"boxes": (boxes2d, (*any_count, "one axis less", "a NaN", "all NaN", "an Inf", "a negative Inf"), ("box",))}, from_boxes_2d),
        "boxes 3D": (
            {
                # One box (6,) is one region.
                "boxes": (boxes3d, (*any_count, "one axis less"), ("box",)),
                # Where depth is unknown, points are NaN; several frames are as right as four.
                "world_points": (np.ones((4, 48, 64, 3)), ("a NaN", "all NaN", "an Inf", "a negative Inf",
                                 "float64 beyond float32", *any_count), ("point",)),
            },
            from_boxes_3d,
        ),
        "boxes and poses": (
            {
                "boxes": (boxes3d, (*any_count, "one axis less"), ("box",)),
                "intrinsics": (np.tile(np.diag([60.0, 60, 1]), (4, 1, 1)), ("one axis less",), ("intrinsics",)),
                "camera_to_world": (np.tile(np.eye(4), (4, 1, 1)), (), ("pose", "camera")),
            },
            from_poses,
        ),
    }  # fmt: skip


def _region_files(add: Callable[..., None]) -> None:
    right = {"frame_size": [48, 64], "boxes": {"ball": [[5, 5, 30, 30]] * 4}}

    def read(folder: Path, /, content: Any, name: str = "regions.json") -> Any:
        from processing.region_files import read_regions

        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            path.write_text(json.dumps(content))
        return read_regions(path, _grid(), [0, 1, 2, 3], 4)

    add("right: file of boxes", lambda folder: read(folder, right), expect="taken")
    for what, change in FILES.items():
        add(
            f"file {what}",
            lambda folder, change=change: read(folder, change(json.dumps(right).encode())),
            "regions.json",
        )
    for what, content in {
        "list": [1],
        "null": None if False else b"null",
        "number": 5,
        "deep": b"[" * 100_000,
        "no boxes": {"frame_size": [48, 64]},
        "boxes a list": {**right, "boxes": [1]},
        "boxes empty": {**right, "boxes": {}},
        "box a number": {**right, "boxes": {"ball": 5}},
        "box of strings": {**right, "boxes": {"ball": [["a", "b", "c", "d"]] * 4}},
        "box of three": {**right, "boxes": {"ball": [[1, 2, 3]] * 4}},
        "box NaN": b'{"frame_size": [48, 64], "boxes": {"ball": [[NaN, 1, 2, 3]]}}',
        "box of another number of frames": {**right, "boxes": {"ball": [[5, 5, 30, 30]] * 9}},
        "box inside out": {**right, "boxes": {"ball": [[30, 30, 5, 5]] * 4}},
        "frame_size one": {**right, "frame_size": [48]},
        "frame_size words": {**right, "frame_size": ["a", "b"]},
        "frame_size negative": {**right, "frame_size": [-48, -64]},
        "frame_size 0": {**right, "frame_size": [0, 0]},
        "frame_size missing": {"boxes": right["boxes"]},
        "another key": {**right, "colour": 1},
        "an empty name": {**right, "boxes": {"": [[5, 5, 30, 30]] * 4}},
        "a name twice": b'{"frame_size": [48, 64], "boxes": {"ball": [[5, 5, 30, 30]], "ball": [[1, 1, 9, 9]]}}',
        "frame_size bool": {**right, "frame_size": [True, True]},
        "frame of no video": {**right, "boxes": {"ball": {"99": [5, 5, 30, 30]}}},
        "frame a word": {**right, "boxes": {"ball": {"x": [5, 5, 30, 30]}}},
    }.items():
        add(f"file: {what}", lambda folder, content=content: read(folder, content), "regions.json")
    for what, make in PATHS.items():

        def run(folder: Path, /, make: Any = make) -> Any:
            from processing.region_files import read_regions

            return read_regions(make(folder), _grid(), [0, 1, 2, 3], 4)

        add(f"file path {what}", run, "path", *PATH_WORDS)
    for name, values in {
        "frame_indices": {
            "None": None,
            "a number": 5.5,
            "negative": [-1],
            "too large": [9],
            "words": ["a"],
            "none": [],
        },
        "total_frames": {"None": None, "0": 0, "a string": "4", "1.5": 1.5, "bool": True, "negative": -4},
        "grid": {"None": None, "a tuple": (3, 3)},
    }.items():
        for what, value in values.items():

            def call(folder: Path, /, name: str = name, value: Any = value) -> Any:
                from processing.region_files import read_regions

                (folder / "regions.json").write_text(json.dumps(right))
                given = {"grid": _grid(), "frame_indices": [0, 1, 2, 3], "total_frames": 4, name: value}
                return read_regions(folder / "regions.json", **given)

            add(f"read: {name} {what}", call, name)
    arrays = {
        "npy": {"strings": np.array(["a"]), "objects": np.array([{}], object), "one number": np.array(5),
                "floats": np.ones((4, 48, 64)), "other frames": np.ones((9, 48, 64), int), "complex": np.ones(3, complex),
                "empty": np.zeros((4, 0, 0), int), "negative": -np.ones((4, 48, 64), int)},
    }  # fmt: skip
    for what, array in arrays["npy"].items():

        def run_array(folder: Path, /, array: np.ndarray = array) -> Any:
            np.save(folder / "regions.npy", array, allow_pickle=True)
            return read(folder, None, "regions.npy")

        add(f"npy {what}", run_array, "regions.npy")
    for what, change in FILES.items():

        def run_bytes(folder: Path, /, change: Any = change) -> Any:
            np.save(folder / "regions.npy", np.ones((4, 48, 64), int))
            write_damaged(folder / "regions.npy", change)
            return read(folder, None, "regions.npy")

        add(f"npy {what} file", run_bytes, "regions.npy")
