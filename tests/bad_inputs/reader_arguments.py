"""Cases of the arguments of readers, prompts and exports of benchmarks."""

import copy
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.benchmarks import FILE_NAMES, SCENE
from bad_inputs.cases import door
from bad_inputs.damage import FILES, NUMBERS, PATH_WORDS, PATHS, TEXTS, make_fifo


@door("readers: arguments", "processing.benchmarks.export.export_rooms", "processing.benchmarks.export.export_pickle_free",
      "processing.benchmarks.build_chat", "processing.benchmarks.build_prompt", "processing.benchmarks.prompt_digest")  # fmt: skip
def arguments(add: Callable[..., None]) -> None:
    def task(folder: Path, /, **fields: Any) -> Any:
        from processing.benchmarks import load_task

        given = {"task": "scanrefer", "split": "val", "data_dir": goods.rooms_folder(), **fields}
        return load_task(given.pop("task"), given.pop("split"), given.pop("data_dir"), **given)

    def scene(folder: Path, /, **fields: Any) -> Any:
        from processing.benchmarks import load_scene

        given = {"data_dir": goods.rooms_folder(), "scene_id": SCENE, **fields}
        return load_scene(given.pop("data_dir"), given.pop("scene_id"), **given)

    choices = {"unknown": "nonsense", **TEXTS}
    for name in ("task", "split", "boxes", "frames"):
        for what, value in choices.items():
            if name != "boxes" or value is not None:
                add(f"{name} {what}", partial(_call, task, name, value), name, "split", "unhashable")
    for name, run in (("num_frames", task), ("num_frames", scene)):
        for what, value in NUMBERS.items():
            title = "num_frames a string" if (run is task and what == "a string") else f"{run.__name__}: {name} {what}"
            expect = "either" if what == "huge" else "refused"
            add(title, partial(_call, run, name, value), name, expect=expect)
    shares = {"0": 0, "2": 2, "-1": -1, "NaN": np.nan, "a string": "x", "bool": True, "a list": [0.5]}
    for what, value in {**shares, "without its rule": 0.5}.items():
        options = {} if what == "without its rule" else {"frames": "coverage"}
        add(f"coverage {what}", lambda f, v=value, o=options: task(f, coverage=v, **o), "coverage")
    for what, value in {
        "unknown": ["nonsense"],
        "a string": SCENE,
        "a number": 5,
        "empty": [],
        "None in it": [None],
        "bytes": [SCENE.encode()],
        "a mapping": {SCENE: 1},
        "one unknown": [SCENE, "scannet/nonsense"],
        "one twice as text": [f"{SCENE}/"],
    }.items():
        add(f"scenes {what}", partial(_call, task, "scenes", value), "scene")
    right = {
        "scenes a set": {"scenes": {SCENE}},
        "scenes a generator": {"scenes": (name for name in [SCENE])},
        "num_frames of NumPy": {"num_frames": np.int64(2)},
        "data_dir as text": {"data_dir": str(goods.rooms_folder())},
        "coverage of NumPy": {"frames": "coverage", "coverage": np.float32(0.5)},
    }
    for what, fields in right.items():
        add(f"right: task, {what}", lambda f, o=fields: task(f, **o), expect="taken")
    right = {
        "parts a set": {"parts": {"depth", "poses"}},
        "parts a generator": {"parts": (part for part in ("depth",))},
        "no parts": {"parts": ()},
        "frame_names an array": {"frame_names": np.array(["00000", "00010"])},
        "a frame twice": {"frame_names": ["00010", "00010"]},
        "num_frames of NumPy": {"num_frames": np.uint8(2)},
        "data_dir as text": {"data_dir": str(goods.rooms_folder())},
    }
    for what, fields in right.items():
        add(f"right: scene, {what}", lambda f, o=fields: scene(f, **o), expect="taken")
    for what, value in {"None": None, "a string": "no", "an int": 1}.items():
        add(f"skip_invalid_poses {what}", partial(_call, scene, "skip_invalid_poses", value), "skip_invalid_poses")
    for name, run in (("num_frames", task), ("num_frames", scene)):
        for what, value in {"bool": True, "an array": np.array([2, 2]), "a whole float": 2.0, "bytes": b"2"}.items():
            add(f"{run.__name__}: {name} {what}", partial(_call, run, name, value), name)
    _teachers(add)
    ids = {
        "a list": [SCENE],
        "bytes": SCENE.encode(),
        "with a drive": "C:/scannet/room0001_00",
        "of half a surrogate pair": "scannet/\ud800",
        "with a newline": "scannet/room0001_00\n",
        "double slash": "scannet//room0001_00",
        "absolute": "/etc",
        "of ../": "../../etc/x",
        "empty": "",
        "unknown": "scannet/room9999_00",
        "None": None,
        "an int": 5,
        "of a NUL": "scannet/a\0b",
        "of 5000 characters": "x" * 5000,
        "vsibench of ../": "vsibench/../x",
        "of ./": "scannet/./room0001_00",
        "with a backslash": "scannet\\room0001_00",
        "a folder alone": "scannet/",
        "..": "..",
    }
    for what, value in ids.items():
        add(f"scene id {what}", partial(_call, scene, "scene_id", value), "scene", "room9999")
    for what, value in {"unknown": ["colour"], "a string": "depth", "a number": 5, "None": None, "numbers": [5],
                        "a mapping": {"depth": 1}, "bytes": b"depth", "None in it": [None]}.items():  # fmt: skip
        add(f"parts {what}", partial(_call, scene, "parts", value), "parts")
    for what, value in {"unknown": ["9"], "of ../": ["../room0000_00/00000"], "absolute": ["/etc/x"], "a string": "00000",
                        "numbers": [0], "None in it": [None], "a number": 5, "a set": {"00000", "00010"},
                        "of a NUL": ["0\0"], "empty name": [""], "with the ending": ["00000.jpg"]}.items():  # fmt: skip
        add(f"frame_names {what}", partial(_call, scene, "frame_names", value), "frame")
    for what, make in PATHS.items():
        words = ("folder", "data_dir", "missing-file", "pipe", "given", "/dev/full", "loop", "scanrefer")
        add(f"task: data_dir {what}", lambda f, make=make: task(f, data_dir=make(f)), *words)
        add(f"scene: data_dir {what}", lambda f, make=make: scene(f, data_dir=make(f)), *words, "room0001_00")
    _exports(add)
    _prompts(add)


def _teachers(add: Callable[..., None]) -> None:
    def teacher(folder: Path, /, **fields: Any) -> Any:
        from processing.benchmarks.readers import load_teacher_features

        given = {
            "data_dir": goods.rooms_folder(),
            "scene_id": SCENE,
            "frame_names": ["00000", "00010"],
            "grid": goods.processor_grid(),
            **fields,
        }
        return load_teacher_features(**given)

    add("right: teacher features", teacher, expect="taken")
    add(
        "right: teacher features, names an array",
        lambda f: teacher(f, frame_names=np.array(["00000"])),
        expect="taken",
    )
    for name, values in {
        "grid": {"None": None, "a tuple": (3, 3), "a string": "x", "an int": 5},
        "frame_names": {"none": [], "a string": "00000", "numbers": [0], "None": None, "of ../": ["../00000"], "unknown": ["9"]},
        "protocol": {"unknown": "official", "None": None, "a list": ["clean"], "an int": 1},
        "scene_id": {"None": None, "of ../": "../x", "unknown": "scannet/room9999_00", "a list": [SCENE]},
    }.items():  # fmt: skip
        for what, value in values.items():
            words = ("scene id", "room9999") if name == "scene_id" else ()
            words += ("not ['9']",) if what == "unknown" and name == "frame_names" else ()
            words += ("not ['../00000']",) if what == "of ../" and name == "frame_names" else ()
            add(f"teacher: {name} {what}", partial(_call, teacher, name, value), name, *words)


def _call(run: Callable[..., Any], name: str, value: Any, folder: Path) -> Any:
    return run(folder, **{name: value})


def _exports(add: Callable[..., None]) -> None:
    def export(folder: Path, /, **fields: Any) -> Any:
        from processing.benchmarks.export import export_rooms

        given = {"target": folder / "out", "num_scenes": 1, "image_size": 24, "num_frames": 1, **fields}
        return export_rooms(given.pop("target"), **given)

    for name in ("num_scenes", "image_size", "num_frames", "seed"):
        for what, value in NUMBERS.items():
            if name != "seed" or what not in ("0", "huge", "-1"):
                if name != "seed" or what != "huge":
                    add(f"export_rooms: {name} {what}", partial(_call, export, name, value), name)
    for what, make in PATHS.items():
        if what not in ("missing", "a folder", "a device"):
            add(
                f"export_rooms: target {what}",
                lambda f, make=make: export(f, target=make(f)),
                "target",
                "pipe",
                "loop",
                "folder",
                "xxx",
            )
    add("export_rooms on a full disk", lambda f: export(f, target="/dev/full/out"), "/dev/full")

    def pickle_free(folder: Path, /, change: Callable[[Path], Any]) -> Any:
        from processing.benchmarks.export import export_pickle_free

        data = goods.copy_rooms(folder)
        change(data)
        return export_pickle_free(data)

    add("right: pickle-free", lambda f: pickle_free(f, lambda data: None), expect="taken")
    for label in ("infos", "point cloud pth"):
        for what, change in FILES.items():
            name = FILE_NAMES[label]
            add(
                f"pickle-free: {label} {what}",
                lambda f, name=name, change=change: pickle_free(
                    f, lambda data: (data / name).write_bytes(change((data / name).read_bytes()))
                ),
                name.rsplit("/", 1)[-1],
            )
        add(
            f"pickle-free: {label} a pipe",
            lambda f, name=name: pickle_free(f, lambda d: make_fifo(d / name)),
            name.rsplit("/", 1)[-1],
        )
    for what, make in PATHS.items():
        if what != "a folder":

            def at(folder: Path, /, make: Any = make) -> Any:
                from processing.benchmarks.export import export_pickle_free

                return export_pickle_free(make(folder))

            add(f"pickle-free: data_dir {what}", at, "data_dir", *PATH_WORDS)
    add("pickle-free: nothing there", lambda f: pickle_free(f, lambda d: (shutil.rmtree(d), d.mkdir())), "data")


def _prompts(add: Callable[..., None]) -> None:
    right = {"question": "Where?", "options": [], "answers": ["here"], "question_type": "x", "input_box": [],
             "scene_id": SCENE, "id": "1", "source_text": "Where?", "metadata": "{}", "object_ids": [], "gt_boxes": []}  # fmt: skip

    def prompt(
        folder: Path, /, name: str = "build_chat", task: Any = "scanqa", sample: Any = right, **options: Any
    ) -> Any:
        from processing import benchmarks

        if name == "prompt_digest":
            return benchmarks.prompt_digest(task, **options)
        return getattr(benchmarks, name)(task, copy.deepcopy(sample), **options)

    def described(folder: Path, /, **fields: Any) -> Any:
        return prompt(folder, task="scan2cap", sample={**right, "question": "", "input_box": [0.0] * 6, **fields})

    def chosen(folder: Path, /, **fields: Any) -> Any:
        return prompt(folder, task="vsibench", sample={**right, "options": ["A. x", "B. y"], **fields})

    add("right: a description", described, expect="taken")
    add("right: a description, box of NumPy", lambda f: described(f, input_box=np.zeros(6)), expect="taken")
    add("right: a choice", chosen, expect="taken")
    boxes = {"a number": 5, "a string": "box", "of two": [1, 2], "NaN": [np.nan] * 6, "of words": ["a"] * 6}
    for what, value in {**boxes, "none": []}.items():
        add(f"input_box {what}", lambda f, v=value: described(f, input_box=v), "input_box", "box to describe")
    for what, value in {"a string": "A. x", "numbers": [1, 2], "a number": 5, "with None": ["A. x", None]}.items():
        add(f"options {what}", lambda f, v=value: chosen(f, options=v), "options")
    for what, value in {"none": [], "a string": "here", "numbers": [5], "None": None, "blank": [" "]}.items():
        sample = {**right, "answers": value}
        add(f"answers {what}", lambda f, s=sample: prompt(f, sample=s, stage="train"), "answers")
    for name in ("build_chat", "build_prompt", "prompt_digest"):
        add(f"right: {name}", partial(prompt, name=name), expect="taken")
        for argument in ("task", "protocol", "stage"):
            for what, value in {"unknown": "nonsense", **TEXTS}.items():
                add(
                    f"{name}: {argument} {what}",
                    lambda f, name=name, argument=argument, value=value: prompt(f, name, **{argument: value}),
                    argument,
                )
        if name == "prompt_digest":
            continue
        for what, value in {"None": None, "a list": [1], "a string": "x", "empty": {}}.items():
            add(f"{name}: sample {what}", lambda f, n=name, v=value: prompt(f, n, sample=v), "sample", "question")
        for what, value in TEXTS.items():
            add(
                f"{name}: question {what}",
                lambda f, n=name, v=value: prompt(f, n, sample={**right, "question": v}),
                "question",
            )
