"""Cases of the command line and of the rooms behind it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import ToldError, door
from bad_inputs.damage import NUMBERS, PATH_WORDS, PATHS, TEXTS

COMMANDS = ("ask", "find", "describe", "serve", "app", "evaluate", "clicks", "doctor", "probe", "convert", "export", "push", "env", "captures", "train", "plan", "teachers", "geometry",
            "rooms measure", "rooms export", "rooms share", "rooms evaluate")  # fmt: skip


def run(*words: Any) -> None:
    """Run a command; what it tells in one line is told, anything else comes through."""
    from commanding import _own_messages
    from typer.testing import CliRunner

    from ide3d.command import app

    with _own_messages():
        result = CliRunner().invoke(app, [str(word) for word in words], prog_name="ide3d")
    if result.exit_code:
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        lines = [line[line.index("ide3d ") :] for line in result.stderr.strip().splitlines() if "ide3d " in line]
        lines = lines or [result.stdout]  # a report of what is wrong
        raise ToldError(lines[-1])


@door("commands", *(f"ide3d {name}" for name in COMMANDS))
def commands(add: Callable[..., None]) -> None:
    for name in COMMANDS:
        words = name.split()
        add(f"{name}: unknown option", lambda f, w=words: run(*w, "--nonsense", 1), "nonsense", expect="refused")
        if name not in ("env", "rooms measure", "rooms export", "train", "plan", "serve", "app"):
            add(
                f"{name}: nothing given",
                lambda f, w=words: run(*w),
                *words,
                expect="refused" if name not in ("doctor",) else "either",
            )
    paths = {what: make for what, make in PATHS.items() if what not in ("None", "an int", "a list", "NUL in the name")}
    words = (
        *PATH_WORDS,
        "folder",
        "path",
        "video",
        "config",
        "recipe",
        "data",
    )
    for what, make in paths.items():
        takers: dict[str, Callable[[Path, Any], tuple]] = {
            "ask": lambda f, p: ("ask", p, "Where?", "--model", goods.model_folder()),
            "ask --model": lambda f, p: ("ask", goods.video_file(f), "Where?", "--model", p),
            "find --regions": lambda f, p: (
                "find",
                goods.video_file(f),
                "x",
                "--regions",
                p,
                "--model",
                goods.model_folder(),
            ),
            "describe --regions": lambda f, p: (
                "describe",
                goods.video_file(f),
                "--regions",
                p,
                "--model",
                goods.model_folder(),
            ),
            "doctor": lambda f, p: ("doctor", p),
            "captures": lambda f, p: ("captures", p),
            "convert": lambda f, p: ("convert", p, f / "out"),
            "export": lambda f, p: ("export", p, f / "out"),
            "push": lambda f, p: ("push", p, "name/x", "--dry-run", f / "out"),
            "train": lambda f, p: ("train", p),
            "plan": lambda f, p: ("plan", p),
            "rooms evaluate": lambda f, p: ("rooms", "evaluate", p, "--num-rooms", 1),
        }
        for taker, build in takers.items():
            expect = "either" if taker == "doctor" and what == "empty name" else "refused"
            add(
                f"{taker}: path {what}",
                lambda f, b=build, m=make: run(*b(f, m(f))),
                *words,
                taker.split()[0],
                expect=expect,
            )
    for what, values in {
        "ask --num-frames": ("0", "-1", "x", "1.5", "99"), "ask --device": ("nonsense", "cuda:99"), "ask --max-memory": ("0", "-1", "x", "nan"),
    }.items():  # fmt: skip
        for value in values:
            option = what.split()[1]
            add(f"{what} {value}", lambda f, o=option, v=value: run("ask", goods.video_file(f), "Where?", "--model", goods.model_folder(), o, v),
                option, option[2:].replace("-", "_"), "memory", "frame")  # fmt: skip
    add(
        "ask: an empty question",
        lambda f: run("ask", goods.video_file(f), "", "--model", goods.model_folder()),
        "question",
    )
    for option, value in {"--port": 70000, "--max-upload": 0, "--num-frames": 0, "--allow-file": "x"}.items():
        add(f"serve: {option} {value}", lambda f, o=option, v=value: run("serve", o, v), option)
    for option, value in {
        "--port": 70000,
        "--max-upload": 0,
        "--max-seconds": 0,
        "--max-users": 0,
        "--share": "x",
    }.items():
        add(f"app: {option} {value}", lambda f, o=option, v=value: run("app", o, v), option)
    add("right: env", lambda f: run("env"), expect="taken")
    add("right: captures", lambda f: run("captures", goods.scene_folder(f)), expect="taken")
    add(
        "captures: no frames to check",
        lambda f: run("captures", goods.scene_folder(f), "--num-frames", 0),
        "--num-frames",
    )
    add("right: doctor", lambda f: run("doctor", goods.rooms_folder()), expect="taken")
    add(
        "doctor: unknown task", lambda f: run("doctor", goods.rooms_folder(), "--task", "nonsense"), "task", "nonsense"
    )
    for what, options in {"owner": ("--push", "x"), "style": ("--style", "x"), "size": ("--image-size", 2)}.items():
        add(f"rooms share: wrong {what}", lambda f, o=options: run("rooms", "share", f / "out", *o), *options[:1], "REPO_ID", "image_size")  # fmt: skip
    add(
        "evaluate: unknown task",
        lambda f: run(
            "evaluate", "--model", goods.model_folder(), "--task", "nonsense", "--data", goods.rooms_folder()
        ),
        "task",
        "nonsense",
    )
    add(
        "evaluate: no data",
        lambda f: run("evaluate", "--model", goods.model_folder(), "--task", "scanqa", "--data", f / "missing-file"),
        "missing-file",
    )
    add("probe: no model", lambda f: run("probe", "--model", f / "missing-file", "--num-rooms", 1), "missing-file")
    for option, values in {
        "--num-rooms": ("0", "-1", "x"),
        "--num-frames": ("0", "x"),
        "--split": ("nonsense",),
        "--layer": ("nonsense",),
    }.items():
        for value in values:
            add(
                f"probe {option} {value}",
                lambda f, o=option, v=value: run("probe", "--model", goods.model_folder(), "--num-rooms", 1, o, v),
                option[2:],
                option[2:].replace("-", "_"),
            )
    for option, values in {
        "--num-scenes": ("0", "-1", "x"),
        "--image-size": ("0", "-1", "x"),
        "--num-frames": ("0", "-1", "x"),
    }.items():
        for value in values:
            add(
                f"rooms export {option} {value}",
                lambda f, o=option, v=value: run("rooms", "export", f / "out", "--num-scenes", 1, o, v),
                option[2:],
                option[2:].replace("-", "_"),
            )
            if option != "--image-size":
                add(
                    f"rooms measure {option} {value}",
                    lambda f, o=option, v=value: run("rooms", "measure", "--num-scenes", 1, o, v),
                    option[2:],
                    option[2:].replace("-", "_"),
                )
    add("rooms measure --style unknown", lambda f: run("rooms", "measure", "--style", "nonsense"), "style")
    for what, options in {
        "no teacher": (),
        "no model and no grid": ("--teacher", "vggt_sliced"),
        "unknown kind": ("--teacher", "nonsense", "--grid", 70, 14, 2),
        "a grid of words": ("--teacher", "vggt_sliced", "--grid", "x", "y", "z"),
        "a grid of zeros": ("--teacher", "vggt_sliced", "--grid", 0, 0, 0),
    }.items():
        add(
            f"teachers: {what}",
            lambda f, o=options: run("teachers", "--data-dir", goods.rooms_folder(), "--output-dir", f / "out", *o),
            "model",
            "grid",
            "teacher",
            "nonsense",
        )
    for what, options in {
        "no source": (),
        "unknown source": ("--source", "nonsense"),
        "arrays without facts": ("--source", "arrays", "--folder", "."),
        "colmap without a folder": ("--source", "colmap"),
        "unknown alignment": ("--source", "a/b", "--alignment", "log"),
    }.items():
        add(
            f"geometry: {what}",
            lambda f, o=options: run("geometry", "--data-dir", goods.rooms_folder(), "--output-dir", f / "out", *o),
            "source",
            "kind",
            "alignment",
        )
    for what, value in {
        "a name without an owner": "x",
        "a name with blanks": "a b/c d",
        "an empty name": "",
        "three parts": "a/b/c",
    }.items():
        add(
            f"push: {what}",
            lambda f, v=value: run("push", goods.model_folder(), v, "--dry-run", f / "out"),
            "name",
            "repo",
            "export",
            "push",
            value or "name",
        )


@door(
    "rooms",
    "processing.rooms.load_rooms",
    "processing.rooms.furnished.read_catalogue",
    "processing.rooms.room_samples",
    "processing.rooms.score_answer",
    "processing.rooms.export_room_dataset",
    "ide3d.load_rooms",
)
def rooms(add: Callable[..., None]) -> None:
    from processing.rooms.furnished.catalogue import FURNITURE_FILE

    def load(folder: Path, /, **fields: Any) -> Any:
        from processing.rooms import load_rooms

        given = {
            "split": "train",
            "num_scenes": 1,
            "image_size": 24,
            "num_frames": 1,
            "cache_dir": str(folder),
            **fields,
        }
        return load_rooms(given.pop("split"), given.pop("num_scenes"), **given)

    add("right: a room", load, expect="taken")

    def share(folder: Path, /, **fields: Any) -> Any:
        from processing.rooms import export_room_dataset

        given = {
            "num_scenes": 1,
            "image_size": 24,
            "num_frames": 1,
            "cache_dir": str(goods.root() / "cache"),
            **fields,
        }
        return export_room_dataset(given.pop("target", folder / "out"), **given)

    add("right: a data set", share, expect="taken")
    for what, fields in {"a file": {"target": __file__}, "an int": {"target": 5}, "None": {"target": None}}.items():
        add(f"shared target {what}", lambda f, g=fields: share(f, **g), "target", "file", "commands.py")
    for what, fields in {
        "style": {"style": "x"},
        "num_scenes": {"num_scenes": 0},
        "image_size": {"image_size": 2},
    }.items():
        add(f"shared {what}", lambda f, g=fields: share(f, **g), what)
    for name in ("num_scenes", "image_size", "num_frames", "num_proc"):
        for what, value in NUMBERS.items():
            if not (name == "num_proc" and what in ("None", "huge")):
                add(f"{name} {what}", lambda f, n=name, v=value: load(f, **{n: v}), name)
    for what, value in NUMBERS.items():
        if what != "0":
            add(f"start {what}", lambda f, v=value: load(f, start=v), "start")
    for name in ("split", "style"):
        for what, value in {"unknown": "nonsense", "empty": "", **TEXTS}.items():
            add(f"{name} {what}", lambda f, n=name, v=value: load(f, **{n: v}), name)
    for what, value in {"unknown": ["rain"], "one text": "pitch", "a number": 5, "numbers": [5], "None": None}.items():
        add(f"variations {what}", lambda f, v=value: load(f, variations=v), "variations")
    for what, make in PATHS.items():
        if what not in ("missing", "a folder", "None"):
            add(
                f"cache_dir {what}",
                lambda f, m=make: load(f, cache_dir=m(f)),
                "cache_dir",
                "pipe",
                "loop",
                "inner",
                "xxx",
                "/dev/full",
                expect="either" if what == "empty name" else "refused",
            )
    add("furniture with another style", lambda f: load(f, furniture=FURNITURE_FILE), "furniture", "style")
    add(
        "right: furniture of a file",
        lambda f: load(f, style="furnished", furniture=FURNITURE_FILE),
        expect="taken",
    )
    for what, make in PATHS.items():
        if what != "None":
            add(
                f"furniture {what}",
                lambda f, m=make: load(f, style="furnished", furniture=m(f)),
                *("furniture", "pipe", "loop", "inner", "xxx", "missing", "folder", "/dev/full"),
            )
    for what, value in {**NUMBERS, "bool": True, "an array": np.array([1, 2]), "a whole float": 3.0}.items():
        expect = "either" if what in ("0", "-1", "huge") else "refused"
        add(f"seed {what}", lambda f, v=value: load(f, seed=v), "seed", expect=expect)
    for name in ("num_scenes", "image_size", "num_frames", "num_proc", "start"):
        for what, value in {"bool": True, "an array": np.array([32, 32]), "a complex": 32j, "bytes": b"32"}.items():
            add(f"{name} {what}", lambda f, n=name, v=value: load(f, **{n: v}), name)
    whole = {"num_scenes": np.int64(1), "image_size": np.int32(24), "num_frames": np.uint8(1), "seed": np.int64(0)}
    add("right: numbers of NumPy", lambda f: load(f, **whole), expect="taken")
    add("right: cache_dir a Path", lambda f: load(f, cache_dir=f / "new" / "cache"), expect="taken")
    held: dict[str, Any] = {}

    def row(folder: Path) -> dict:
        if "row" not in held:
            held["row"] = load(folder, image_size=32, num_frames=2, cache_dir=str(goods.root() / "cache"))[0]
        return dict(held["row"])

    def samples(folder: Path, /, change: Callable[[dict], Any] = lambda row: None, **fields: Any) -> Any:
        from processing.rooms import room_samples

        made = row(folder)
        change(made)
        given = {"row": made, "token_grid": goods.processor_grid(), **fields}
        return room_samples(given.pop("row"), given.pop("token_grid"), **given)

    add("right: samples", samples, expect="taken")
    add("right: types a set", lambda f: samples(f, types={"colour", "grounding"}), expect="taken")
    add("right: max_questions of NumPy", lambda f: samples(f, max_questions=np.int64(2)), expect="taken")
    for name in ("packed", "first_frame_only"):
        for what, value in {"None": None, "a string": "no", "an int": 1}.items():
            add(f"{name} {what}", lambda f, n=name, v=value: samples(f, **{n: v}), name)
    # Rows come from our renderer: one without a part is of another data set.
    for key in ("frames", "depth", "intrinsics", "camera_to_world", "instance_ids", "objects", "questions"):
        add(f"row without {key}", lambda f, k=key: samples(f, lambda r: r.pop(k)), key, "row")
    for name, values in {
        "row": {"None": None, "a list": [1], "a string": "x", "empty": {}}, "token_grid": {"None": None, "a tuple": (3, 3), "a string": "x"}, "reference": {"unknown": "nonsense", "an int": 5},
        "types": {"unknown": ["nonsense"], "a string": "colour", "an int": 5, "numbers": [5], "bytes": b"colour"}, "max_questions": {k: v for k, v in NUMBERS.items() if k not in ("None", "huge")}, "rng": {"an int": 5, "a string": "x"},
    }.items():  # fmt: skip
        for what, value in values.items():
            fields = {"max_questions": 1} if name == "rng" else {}
            add(
                f"{name} {what}",
                lambda f, n=name, v=value, o=fields: samples(f, **{**o, n: v}),
                name,
                "row",
                "room",
                "grid",
            )

    def score(folder: Path, /, question: Any, text: Any) -> Any:
        from processing.rooms import score_answer

        return score_answer(question, text)

    right = {"type": "counting", "answer": "2", "question": "How many?", "value": [2.0]}
    add("right: score", lambda f: score(f, right, "2"), expect="taken")
    add(
        "right: score without numbers", lambda f: score(f, {"type": "colour", "answer": "red"}, "Red."), expect="taken"
    )
    add("right: score of many blanks", lambda f: score(f, {**right, "type": "size"}, " " * 100_000), expect="taken")
    add("right: score of many digits", lambda f: score(f, {**right, "type": "size"}, "9" * 9000), expect="taken")
    for what, value in {"a word": "two", "of words": ["two"], "NaN": [np.nan], "a number": 2.0}.items():
        add(f"score: value {what}", lambda f, v=value: score(f, {**right, "value": v}, "2"), "value")
    position = {"type": "position", "answer": "1, 2, 3", "value": [1.0, 2.0]}
    add("score: position of two", lambda f: score(f, position, "1, 2, 3"), "value")
    for what, value in {
        "None": None,
        "a list": [1],
        "a string": "x",
        "empty": {},
        "without a type": {"answer": "2"},
        "without an answer": {"type": "counting"},
        "with a number as its answer": {**right, "answer": 2},
        "with a list as its type": {**right, "type": ["counting"]},
        "of an unknown type": {**right, "type": "nonsense"},
    }.items():
        add(f"score: question {what}", lambda f, v=value: score(f, v, "2"), "question", "type", "answer")
    for what, value in TEXTS.items():
        add(f"score: text {what}", lambda f, v=value: score(f, right, v), "text", "answer")
    _ = (json, np)
