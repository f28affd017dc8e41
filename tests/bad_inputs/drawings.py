"""Cases of drawings and of the files that they are saved to."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.commands import run
from bad_inputs.damage import ARRAYS, PATHS, TEXTS, damaged

# Boxes, cameras and points of two frames of 24 x 32 pixels.
FRAMES = goods.pixels(2)
CAMERA = np.array([[30.0, 0, 15.5], [0, 30, 11.5], [0, 0, 1]])
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (2, 3)], np.float64)
MASKS = np.ones((2, 3, 3), bool)
PATH_NAMES = ("path", "given", "missing-file", "pipe", "inner", "loop", "/dev/full", "xxx", "name")


def _make(folder: Path, /, **fields: Any) -> Any:
    """Make a drawing; `fields` replace those of the part that has them."""
    from trainer.drawing import Cameras, Drawing, ObjectMark, PointCloud, WorldBox

    def take(kind: type, prefix: str, **given: Any) -> Any:
        own = {name: fields.pop(f"{prefix}_{name}") for name in given if f"{prefix}_{name}" in fields}
        return kind(**{**given, **own})

    parts = {
        "marks": [take(ObjectMark, "mark", label="chair", masks=MASKS, corners=CORNERS, frame=0, score=0.5)],
        "cameras": take(Cameras, "cameras", intrinsics=CAMERA, camera_to_world=np.tile(np.eye(4), (2, 1, 1))),
        "boxes": [take(WorldBox, "box", label="true", corners=CORNERS)],
        "points": take(PointCloud, "points", positions=CORNERS, colours=np.zeros((8, 3), np.uint8), frame_of=np.zeros(8, int)),
    }  # fmt: skip
    return Drawing(**{"frames": FRAMES, "title": "Two frames", **parts, **fields})


@door("drawings", "trainer.drawing.Cameras", "trainer.drawing.Drawing", "trainer.drawing.ObjectMark",
      "trainer.drawing.PointCloud", "trainer.drawing.WorldBox", "trainer.drawing.save_drawing",
      "trainer.drawing.draw_found", "trainer.drawing.draw_described", "trainer.drawing.draw_boxes", "trainer.drawing.predict_points")  # fmt: skip
def drawings(add: Callable[..., None]) -> None:
    add("right: a drawing", _make, expect="taken")
    _parts(add)
    _files(add)
    _answers(add)
    _depth(add)


def _parts(add: Callable[..., None]) -> None:
    poses = np.tile(np.eye(4), (2, 1, 1))
    arrays = {"mark_corners": CORNERS, "cameras_intrinsics": CAMERA, "cameras_camera_to_world": poses, "points_positions": CORNERS}  # fmt: skip
    chosen = ("one axis less", "one entry less", "no entry", "a string", "objects", "ragged lists", "a NaN", "an Inf", "float64 beyond float32")  # fmt: skip
    for name, value in arrays.items():
        word = name.partition("_")[2]
        for what in chosen:
            damage = damaged(value)[what]
            words = ("positions", "colours") if word == "positions" else (word,)
            add(f"{name} {what}", lambda f, n=name, d=damage: _make(f, **{n: d()}), *words)
    for what, value in {
        "floats": FRAMES / 255.0, "one frame alone": FRAMES[0], "none": FRAMES[:0], "grey": FRAMES[..., 0], "None": None, "a path": "room.mp4",
        "RGBA": np.concatenate([FRAMES, FRAMES[..., :1]], -1), "one more": goods.pixels(3),
    }.items():  # fmt: skip
        add(f"frames {what}", partial(_make, frames=value), "frames")
    for what, value in {
        "floats": MASKS * 0.5, "ids": MASKS.astype(int), "of one frame": MASKS[:1], "of rank 2": MASKS[0], "of rank 4": MASKS[None], "a string": "x",
        "no cells": MASKS[:, :0],
    }.items():  # fmt: skip
        add(f"masks {what}", partial(_make, mark_masks=value), "masks")
    for what, value in {
        "of a skewed box": CORNERS @ [[1, 0.5, 0], [0, 1, 0], [0, 0, 1]], "all equal": np.ones((8, 3)), "one twice": CORNERS[[0, 1, 2, 3, 4, 5, 6, 0]],
        "random": np.random.default_rng(0).normal(size=(8, 3)), "as a box of six numbers": [0, 0, 2, 1, 1, 1],
    }.items():  # fmt: skip
        add(f"corners {what}", partial(_make, mark_corners=value), "corners")
        add(f"corners of the world {what}", partial(_make, box_corners=value), "corners")
    for what, value in {"None": None, "2": 2, "-1": -1, "1.5": 1.5, "a string": "0", "True": True}.items():
        add(f"frame {what}", partial(_make, mark_frame=value), "frame")
    for what, value in {"NaN": np.nan, "Inf": np.inf, "a string": "0.5", "True": True, "a list": [1]}.items():
        add(f"score {what}", partial(_make, mark_score=value), "score")
    add("a mark without a place", partial(_make, mark_masks=None, mark_corners=None), "masks", "corners")
    for name in ("mark_label", "box_label", "title"):
        for what, value in {**TEXTS, "empty": "", "spaces": "  "}.items():
            add(f"{name} {what}", partial(_make, **{name: value}), name.rpartition("_")[2])
    for what, value in {
        "floats": np.zeros((8, 3)),
        "of other points": np.zeros((7, 3), np.uint8),
        "None": None,
    }.items():
        add(f"colours {what}", partial(_make, points_colours=value), "colours")
    for what, value in {"beyond": np.full(8, 2), "negative": np.full(8, -1), "floats": np.zeros(8), "one": np.zeros(1, int)}.items():  # fmt: skip
        add(f"frame_of {what}", partial(_make, points_frame_of=value), "frame_of")
    add("a mirrored pose", partial(_make, cameras_camera_to_world=poses * [-1, 1, 1, 1]), "camera_to_world")
    add("shares as a camera", partial(_make, cameras_intrinsics=CAMERA / 32), "intrinsics")
    add("boxes without poses", partial(_make, cameras_camera_to_world=None), "boxes")
    for name in ("marks", "boxes", "notes", "frame_names"):
        for what, value in {"a string": "x", "a number": 5, "a list of numbers": [5], "a mapping": {"x": 1}}.items():
            add(f"{name} {what}", partial(_make, **{name: value}), name)
    add("frame_names of one frame", partial(_make, frame_names=["0"]), "frame_names")
    for name in ("cameras", "points", "grid"):
        add(f"{name} a mapping", partial(_make, **{name: {}}), name)
    from processing import TokenGrid

    add("masks of another grid", partial(_make, grid=TokenGrid(140, 14, 2)), "grid", "masks")
    add("right: unusual words", partial(_make, title="</script>\x00\u2028<b>", mark_label="стул \ud83d\ude00" * 200), expect="either")  # fmt: skip


def _files(add: Callable[..., None]) -> None:
    def save(folder: Path, name: Any, drawing: Any = None) -> Any:
        from trainer.drawing import save_drawing

        return save_drawing(_make(folder) if drawing is None else drawing, name)

    add("right: a page", lambda f: save(f, f / "page.html"), expect="taken")
    add("right: a sheet", lambda f: save(f, f / "deep" / "sheet.png"), expect="taken")
    for what, make in PATHS.items():
        add(f"path {what}", lambda f, m=make: save(f, m(f)), *PATH_NAMES)
    for name in ("page", "page.", "page.htm", "page.jpg", "page.HTML.gz", ".png", "page.html/", "page.html\x00"):
        expect = "either" if name == "page.html/" else "refused"
        add(f"ending {name!r}", lambda f, n=name: save(f, f"{f}/{n}"), "ending", "end with", "path", expect=expect)
    add("a folder of the name", lambda f: save(f, _folder(f / "page.html")), "page.html")
    add("under a file", lambda f: save(f, _file(f / "file") / "page.html"), "file")
    for what, value in {"None": None, "a list": [1], "a mapping": {}, "frames": FRAMES}.items():
        add(f"save: drawing {what}", lambda f, v=value: _save(v, f / "page.html"), "drawing")
    for ending in ("ply", "glb", "rrd"):
        words = ("pip install", "3D", "holds boxes")
        marks = partial(_make, mark_corners=None, mark_frame=None, boxes=[], points=None, cameras=None)
        expect = "either" if ending == "rrd" else "refused"
        add(f"{ending} of regions alone", lambda f, e=ending, m=marks: save(f, f / f"x.{e}", m(f)), *words, expect=expect)  # fmt: skip


def _answers(add: Callable[..., None]) -> None:
    @cache
    def scene() -> Any:
        from trainer.session import SceneSession, VideoScene

        session = SceneSession(goods.model(), goods.processor(), goods.pixels(), do_sample_frames=False)
        return VideoScene(session, (0, 1, 2), 3, goods.pixels())

    def regions() -> Any:
        import torch

        from processing.region_files import NamedRegions

        return NamedRegions(("a",), torch.ones(1, 3, 3, 3, dtype=torch.bool))

    def others() -> Any:
        from processing.proposals import RegionProposals

        return RegionProposals(("a",), regions().masks, (0.5,), "other tokens", "none", "of another video")

    def draw(folder: Path, call: str, **fields: Any) -> Any:
        import trainer.drawing
        from trainer.session import FoundRegion

        found = [FoundRegion("x", "a", 0.5, (0,), {"a": 0.5}, 0.1)]
        given = {"scene": scene(), "answer": found if call == "draw_found" else {"a": "x"}, "regions": regions()}
        own = {name: fields.pop(name) for name in tuple(fields) if name in given}
        return getattr(trainer.drawing, call)(*{**given, **own}.values(), **fields)

    for call, word in (("draw_found", "found"), ("draw_described", "described")):
        add(f"right: {call}", partial(draw, call=call), expect="taken")
        for name in ("scene", "regions", "answer"):
            for what in ("None", "a list", "a float"):
                value = TEXTS[what]
                add(f"{call}: {name} {what}", partial(draw, call=call, **{name: value}), word, name)
        add(f"{call}: proposals of another video", lambda f, c=call: draw(f, c, regions=others()), "another video")
        add(f"{call}: a title of bytes", partial(draw, call=call, title=b"x"), "title")
        add(f"{call}: cameras an array", partial(draw, call=call, cameras=CAMERA), "cameras")
    add("draw_described: another name", partial(draw, call="draw_described", answer={"z": "x"}), "described")

    def draw_boxes(folder: Path, **fields: Any) -> Any:
        import trainer.drawing
        from processing.oriented_boxes import CameraBox
        from trainer.session import SaidBoxes

        said = [SaidBoxes("x", "", (CameraBox(fields.pop("frame", 0), (0, 0, 2), (1, 1, 1), 0.0),))]
        given = {"scene": scene(), "said": said, **fields}
        return trainer.drawing.draw_boxes(given.pop("scene"), given.pop("said"), **given)

    add("right: draw_boxes", draw_boxes, expect="taken")
    for name, values in {"scene": TEXTS, "said": {**TEXTS, "a list of texts": ["x"]}, "frame": {"beyond": 99},
                         "title": {"bytes": b"x"}, "cameras": {"an array": CAMERA}}.items():  # fmt: skip
        for what, value in values.items():
            add(f"draw_boxes: {name} {what}", partial(draw_boxes, **{name: value}), name)
    for value in ("x.pdf", "x", "", "x.html\x00"):
        add(f"find --save {value!r}", lambda f, v=value: run("find", goods.video_file(f), "x", "--regions", "x", "--save", v),
            "must end with", "save", "path", "null")  # fmt: skip
    for ending in ("ply", "GLB"):
        add(
            f"find --save x.{ending} of regions", lambda f, e=ending: run("find", "v", "x", "--save", f"x.{e}"), "save"
        )
    add("scene: describe proposals of another video", lambda f: scene().describe(others()), "another video")
    add("find --depth-from alone", lambda f: run("find", "v", "x", "--regions", "x", "--depth-from", f), "save")


def _depth(add: Callable[..., None]) -> None:
    def predict(folder: Path, **fields: Any) -> Any:
        from trainer.drawing import predict_points

        given = {"checkpoint": goods.model_folder(), "frames": FRAMES, "intrinsics": CAMERA, **fields}
        return predict_points(**given)

    add("predict_points: an export", predict, "checkpoint")
    for what, make in PATHS.items():
        add(f"predict_points: checkpoint {what}", lambda f, m=make: predict(f, checkpoint=m(f)), "checkpoint")
    for what in ("one axis less", "a string", "a NaN", "a mapping"):
        add(f"predict_points: frames {what}", lambda f, w=what: predict(f, frames=ARRAYS[w](FRAMES)), "frames")
        add(
            f"predict_points: intrinsics {what}",
            lambda f, w=what: predict(f, intrinsics=ARRAYS[w](CAMERA)),
            "intrinsics",
        )
    for what, value in {"0": 0, "-1": -1, "1.5": 1.5, "None": None, "a string": "9"}.items():
        add(f"predict_points: max_points {what}", lambda f, v=value: predict(f, max_points=v), "max_points")


def _save(drawing: Any, path: Path) -> Any:
    from trainer.drawing import save_drawing

    return save_drawing(drawing, path)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _file(path: Path) -> Path:
    path.write_bytes(b"x")
    return path
