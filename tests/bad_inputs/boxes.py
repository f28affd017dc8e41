"""Cases of boxes in words, turned boxes and fields of view."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs.cases import door
from bad_inputs.damage import NUMBERS, TEXTS, damaged

BOX = (0.5, 3.0, 1.0, 1.0, 0.5, 0.8, 0.2)
POSE = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 1], [0, 0, 0, 1]], float)
ROW = '{"frame":0,"center":[0,0,100],"size":[10,10,10],"yaw":0}'


def _read(folder: Path, text: Any = "[]", **fields: Any) -> Any:
    from processing.boxes_in_words import parse_boxes

    return parse_boxes(text, **fields)


def _write(folder: Path, boxes: Any = None, **fields: Any) -> Any:
    from processing.boxes_in_words import write_boxes
    from processing.oriented_boxes import box_in_camera

    return write_boxes([box_in_camera(BOX, POSE)] if boxes is None else boxes, **fields)


@door("boxes in words", "processing.boxes_in_words.parse_boxes", "processing.boxes_in_words.write_boxes")
def words(add: Callable[..., None]) -> None:
    add("right: a list", lambda f: _read(f, f"[{ROW}]", num_frames=1), expect="taken")
    add("right: none", _read, expect="taken")
    for numbers in ("digits", "bins", "tokens"):
        add(f"right: {numbers}", lambda f, n=numbers: _read(f, _write(f, numbers=n), numbers=n), expect="taken")
    answers = {
        "empty": "",
        "prose": "The chair is at 3 m.",
        "fenced": f"```json\n[{ROW}]\n```",
        "prose before": f"Sure: [{ROW}]",
        "cut off": f"[{ROW}"[:-4],
        "one box, no list": ROW,
        "null": "null",
        "a number": "5",
        "a list of lists": "[[0,0,100]]",
        "a missing key": f"[{ROW}]".replace(',"yaw":0', ""),
        "another key": f"[{ROW}]".replace('"yaw"', '"angle"'),
        "a further key": f"[{ROW}]".replace("{", '{"label":"chair",'),
        "a key twice": f"[{ROW}]".replace("{", '{"yaw":0,'),
        "NaN": f"[{ROW}]".replace("100", "NaN"),
        "Infinity": f"[{ROW}]".replace("100", "-Infinity"),
        "a fraction": f"[{ROW}]".replace("100", "1.0"),
        "an exponent": f"[{ROW}]".replace("100", "1e2"),
        "a text": f"[{ROW}]".replace("100", '"100"'),
        "true": f"[{ROW}]".replace("100", "true"),
        "two numbers": f"[{ROW}]".replace("[0,0,100]", "[0,100]"),
        "a size of zero": f"[{ROW}]".replace("[10,10,10]", "[10,0,10]"),
        "a negative size": f"[{ROW}]".replace("[10,10,10]", "[10,-1,10]"),
        "a frame of -1": f"[{ROW}]".replace('"frame":0', '"frame":-1'),
        "a frame that was not shown": f"[{ROW}]".replace('"frame":0', '"frame":1'),
        "a yaw of 400": f"[{ROW}]".replace('"yaw":0', '"yaw":400'),
        "in kilometres": f"[{ROW}]".replace("100", "100000"),
        "of 10000 digits": f"[{ROW}]".replace("100", "9" * 10_000),
        "65 boxes": f"[{','.join([ROW] * 65)}]",
        "nested": "[" * 10_000,
        "of a megabyte": f"[{ROW}{' ' * 1_000_000}]",
        "half a surrogate": '["\ud800"]',
        "single quotes": f"[{ROW}]".replace('"', "'"),
        "tokens": f"[{ROW}]".replace("[0,0,100]", '"<bin_0><bin_0><bin_1>"'),
    }
    for what, text in answers.items():
        add(f"answer {what}", lambda f, t=text: _read(f, t, num_frames=1), "answer")
    for what, value in {"None": None, "bytes": b"[]", "a list": [], "a number": 5}.items():
        add(f"text {what}", lambda f, v=value: _read(f, v), "text")
    for what, value in {"unknown": "roman", **TEXTS}.items():
        add(f"read: numbers {what}", lambda f, v=value: _read(f, numbers=v), "numbers")
        add(f"written: numbers {what}", lambda f, v=value: _write(f, numbers=v), "numbers")
    for what, value in NUMBERS.items():
        if what != "None":
            add(f"num_frames {what}", lambda f, v=value: _read(f, num_frames=v), "num_frames",
                expect="either" if what == "huge" else "refused")  # fmt: skip
    for what, value in {"a dict": {}, "of arrays": [np.zeros(7)], "a text": "[]", "a number": 5}.items():
        add(f"boxes {what}", lambda f, v=value: _write(f, v), "boxes")
    for numbers in ("digits", "bins"):

        def far(folder: Path, numbers: str = numbers) -> Any:
            from processing.oriented_boxes import CameraBox

            return _write(folder, [CameraBox(0, (0, 0, 999), (1, 1, 1), 0)], numbers=numbers)

        add(f"boxes too far for {numbers}", far, "boxes")


@door(
    "turned boxes",
    "processing.oriented_boxes.CameraBox",
    "processing.oriented_boxes.box_in_camera",
    "processing.oriented_boxes.box_in_world",
    "processing.oriented_boxes.camera_corners",
    "processing.oriented_boxes.oriented_iou",
)
def turned(add: Callable[..., None]) -> None:
    def make(folder: Path, /, **fields: Any) -> Any:
        from processing.oriented_boxes import CameraBox

        return CameraBox(**{"frame": 0, "center": (0, 0, 1), "size": (1, 1, 1), "yaw": 0.0, **fields})

    def bring(folder: Path, /, box: Any = BOX, pose: Any = POSE) -> Any:
        from processing.oriented_boxes import box_in_camera, box_in_world

        return box_in_world(box_in_camera(box, pose), pose)

    def overlap(folder: Path, /, boxes: Any) -> Any:
        from processing.oriented_boxes import enclosing_boxes, oriented_iou

        return oriented_iou([BOX], boxes), enclosing_boxes(boxes)

    def corners(folder: Path, /, pose: Any) -> Any:
        from processing.oriented_boxes import camera_corners

        return camera_corners(make(folder), pose)

    add("right: corners of an unknown pose", lambda f: corners(f, None), expect="taken")
    for what, value in {
        "a text": "x",
        "3 x 3": np.eye(3),
        "NaN": np.full((4, 4), np.nan),
        "scaled": 2 * np.eye(4),
    }.items():
        add(f"corners: pose {what}", lambda f, v=value: corners(f, v), "camera_to_world")
    add("right: there and back", bring, expect="taken")
    add("right: axis aligned", lambda f: bring(f, BOX[:6]), expect="taken")
    for what, value in {"-1": -1, "bool": True, "0.5": 0.5, "None": None, "a text": "0"}.items():
        add(f"frame {what}", lambda f, v=value: make(f, frame=v), "frame")
    wrong = {"two": (0, 1), "NaN": (0, np.nan, 1), "Inf": (np.inf, 0, 1), "texts": ("0", "0", "1"), "a number": 1.0,
             "None": None, "bools": (True, True, True)}  # fmt: skip
    for what, value in wrong.items():
        add(f"center {what}", lambda f, v=value: make(f, center=v), "center")
        add(f"size {what}", lambda f, v=value: make(f, size=v), "size")
    add("size negative", lambda f: make(f, size=(1, -1, 1)), "size")
    for what, value in {"NaN": np.nan, "None": None, "a text": "0"}.items():
        add(f"yaw {what}", lambda f, v=value: make(f, yaw=v), "yaw")
    for what in damaged(POSE, ()):
        add(f"pose {what}", lambda f, w=what: bring(f, pose=damaged(POSE, ())[w]()), "camera_to_world",
            expect="either" if what in ("of float16", "float64") else "refused")  # fmt: skip
    sideways = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
    add("pose on its side", lambda f: bring(f, pose=sideways), "side")
    add("pose scaled", lambda f: bring(f, pose=2 * POSE), "camera_to_world")
    for what, value in {"of five": BOX[:5], "of NaN": (np.nan,) * 7, "flat": (0, 0, 0, 1, 1, 0, 0), "None": None,
                        "a text": "box", "negative": (0, 0, 0, -1, 1, 1, 0)}.items():  # fmt: skip
        add(f"box {what}", lambda f, v=value: bring(f, v), "box", "size")
        add(f"boxes {what}", lambda f, v=value: overlap(f, [v]), "boxes",
            expect="taken" if what == "flat" else "refused")  # fmt: skip


@door("fields of view", "processing.focal_length.unify_focal_length", "processing.focal_length.intrinsics_of_view")
def views(add: Callable[..., None]) -> None:
    size = (48, 64)
    frames = np.zeros((2, *size, 3), np.uint8)

    def camera(folder: Path, /, **fields: Any) -> Any:
        from processing.focal_length import intrinsics_of_view

        return intrinsics_of_view(**{"frame_size": size, "degrees": 60, "num_frames": 2, **fields})

    def unify(folder: Path, /, **fields: Any) -> Any:
        from processing.focal_length import unify_focal_length

        return unify_focal_length(**{"frames": frames, "intrinsics": camera(folder), **fields})

    add("right: unified", unify, expect="taken")
    for what, value in {"0": 0, "180": 180, "-60": -60, "NaN": np.nan, "Inf": np.inf, "None": None, "a text": "60",
                        "bool": True}.items():  # fmt: skip
        add(f"degrees {what}", lambda f, v=value: camera(f, degrees=v), "degrees")
        if what not in ("180",):
            add(f"focal_share {what}", lambda f, v=value: unify(f, focal_share=v), "focal_share")
    for what, value in NUMBERS.items():
        if what != "huge":
            add(f"num_frames {what}", lambda f, v=value: camera(f, num_frames=v), "num_frames")
    for what, value in {"one": (48,), "0": (0, 64), "None": None, "texts": ("a", "b"), "parts": (48.5, 64)}.items():
        add(f"frame_size {what}", lambda f, v=value: camera(f, frame_size=v), "frame_size")
    for what, value in {"None": None, "a list": [[0]], "floats": frames / 255, "one frame": frames[0], "grey": frames[..., 0],
                        "none": frames[:0], "channels first": frames.transpose(0, 3, 1, 2)}.items():  # fmt: skip
        add(f"frames {what}", lambda f, v=value: unify(f, frames=v), "frames")
    good = np.array([[55, 0, 31.5], [0, 55, 23.5], [0, 0, 1]])
    for what, value in {"None": None, "of one frame": good[None], "of NaN": np.full((2, 3, 3), np.nan), "a text": "x",
                        "normalised": np.stack([good / 64] * 2), "of two lenses": np.stack([good, good * [[2], [2], [1]]]),
                        "in millimetres": np.stack([good * [[0.001], [0.001], [1]]] * 2)}.items():  # fmt: skip
        add(f"intrinsics {what}", lambda f, v=value: unify(f, intrinsics=v), "intrinsics")
