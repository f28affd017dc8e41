"""Cases of training samples."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs.cases import door
from bad_inputs.damage import damaged
from bad_inputs.training import GEOMETRY, make_sample_of, teacher_of


@door("training samples (collator)", "trainer.IDE3DDataCollator", "trainer.data.prepare_geometry", "trainer.nano.MentionCollator",
      "trainer.nano.CellNamingCollator", "trainer.nano.RegionReadingCollator")  # fmt: skip
def samples(add: Callable[..., None]) -> None:
    def collate(
        folder: Path, /, sample: Any = None, *, change: Callable[[dict], Any] | None = None, **fields: Any
    ) -> Any:
        from training_samples import build_collator

        sample = make_sample_of(scene_id="room7", **fields) if sample is None else sample
        if change is not None:
            change(sample)
        return build_collator()([sample])

    def grounding(folder: Path, /, **fields: Any) -> Any:
        from training_samples import build_collator, make_grounding_sample

        made = {**make_grounding_sample(2), "scene_id": "room7", **fields}
        return build_collator()([{key: value for key, value in made.items() if value is not ...}])

    add("right: a sample", collate, expect="taken")
    add("right: grounding", grounding, expect="taken")
    add("right: keys of a data set", lambda f: collate(f, scan_id="x", extrinsics=1, depth_path="y"), expect="taken")
    add("right: depth alone", lambda f: collate(f, intrinsics=..., camera_to_world=...), expect="taken")
    add("right: frames alone", lambda f: collate(f, **dict.fromkeys(GEOMETRY, ...)), expect="taken")
    shapes = {
        "depth": (2, 48, 64),
        "intrinsics": (2, 3, 3),
        "camera_to_world": (2, 4, 4),
        "frames": (2, 48, 64, 3),
        "teacher_features": (2, 3, 3, 6),
    }
    skip = {
        "depth": ("last axis one less", "last axis one more"),
        "intrinsics": ("one axis less",),
        "teacher_features": ("last axis one less", "last axis one more"),
        "frames": ("last axis one more",),  # a fourth channel is transparency, which all doors of frames take
    }
    for name, shape in shapes.items():
        for what in damaged(np.ones(shape), skip.get(name, ())):

            def damage(folder: Path, /, name: str = name, what: str = what) -> Any:
                right = teacher_of() if name == "teacher_features" else make_sample_of()[name]
                return collate(folder, **{name: damaged(np.asarray(right))[what]()})

            title = {("teacher_features", "all NaN"): "teacher features NaN"}.get((name, what), f"{name} {what}")
            add(title, damage, name, "room7", "frame" if name == "frames" else name)
    for name, shape in {"region_masks": (3, 2, 3, 3), "region_targets": (4,)}.items():
        for what in damaged(np.ones(shape), ("a NaN", "an Inf", "a negative Inf", "float64 beyond float32")):
            if name == "region_targets" and what in ("last axis one less", "last axis one more", "last axis empty"):
                continue

            def damage_regions(folder: Path, /, name: str = name, what: str = what) -> Any:
                from training_samples import make_grounding_sample

                return grounding(folder, **{name: damaged(np.asarray(make_grounding_sample(2)[name]))[what]()})

            expect = "either" if (name, what) == ("region_targets", "one axis more") else "refused"
            add(f"{name} {what}", damage_regions, name, "room7", "region", "target", expect=expect)
    user = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Where is the ball?"}]}
    says = {"role": "assistant", "content": [{"type": "text", "text": "It is near."}]}
    from_user = lambda *content: [{"role": "user", "content": list(content)}, says]  # noqa: E731
    for what, messages in {
        "no assistant turn: nothing to learn": [user], "empty answer": [user, {"role": "assistant", "content": [{"type": "text", "text": ""}]}], "no content of the answer": [user, {"role": "assistant", "content": []}],
        "part without text": [user, {"role": "assistant", "content": [{"type": "text"}]}], "text of an int": [user, {"role": "assistant", "content": [{"type": "text", "text": 5}]}],
        "text of None": [user, {"role": "assistant", "content": [{"type": "text", "text": None}]}], "answer None": [user, {"role": "assistant", "content": None}], "answer of a number": [user, {"role": "assistant", "content": 5}],
        "misspelt role": [user, {**says, "role": "asistant"}], "role None": [user, {**says, "role": None}], "misspelt content": [user, {"role": "assistant", "contents": "x"}],
        "no messages": [], "None": None, "a string": "x", "a number": 5, "a list of strings": ["x"], "an empty chat among chats": [[user, says], []],
        "chats that begin otherwise": [[user, says], [{"role": "system", "content": "x"}, user, says]], "no video in the chat": [{"role": "user", "content": "x"}, says],
        "two videos in the chat": from_user({"type": "video"}, {"type": "video"}, {"type": "text", "text": "x"}), "an image in the chat": from_user({"type": "image"}, {"type": "text", "text": "x"}),
        "a part of another kind": from_user({"type": "smell"}), "a part without type": from_user({"text": "x"}), "a question of 200,000 tokens": from_user({"type": "video"}, {"type": "text", "text": "ball " * 200_000}),
        "spaces for an answer": [user, {"role": "assistant", "content": "   "}], "the answer first": [says, user],
        "a question of spaces": from_user({"type": "video"}, {"type": "text", "text": "  "}),
    }.items():  # fmt: skip
        # Such a long question is what someone may mean, if the model reads so far.
        expect = {
            "a question of 200,000 tokens": "warned",
            "a question of spaces": "either",
            "the answer first": "either",
        }.get(what, "refused")
        title = (
            what
            if not isinstance(messages, (str, int, type(None))) and what not in ("no messages", "a list of strings")
            else f"messages: {what}"
        )
        add(
            title,
            lambda f, m=messages: collate(f, messages=copy.deepcopy(m)),
            "room7",
            "messages",
            "assistant",
            expect=expect,
        )
    for what, sample in {"None": None, "a list": [1], "a string": "x", "an int": 5, "empty": {}}.items():

        def raw(folder: Path, /, sample: Any = sample) -> Any:
            from training_samples import build_collator

            return build_collator()([sample])

        add(f"sample {what}", raw, "sample", "messages")
    for what, fields in {
        "frame_names misspelt as framenames": {"framenames": ["a", "b"]}, "an unknown key": {"depht": 1}, "Depth in capitals": {"Depth": 1, "depth": ...}, "teacher_feature": {"teacher_feature": 1},
        "region_mask": {"region_mask": 1}, "camera_to_worlds": {"camera_to_worlds": 1, "camera_to_world": ...}, "message": {"message": 1}, "scene_idd": {"scene_idd": 1}, "sceneid": {"sceneid": 1},
        "intrinsic": {"intrinsic": 1, "intrinsics": ...}, "region_target": {"region_target": 1}, "videos": {"video": 1}, "image": {"image": 1},
    }.items():  # fmt: skip
        # A data set may have columns of its own.
        expect = "either" if what in ("videos", "image") else "refused"
        add(
            what if what in ("frame_names misspelt as framenames", "an unknown key") else f"key {what}",
            lambda f, fields=fields: collate(f, **fields),
            *fields,
            expect=expect,
        )
    frames = _frames_of()
    for what, value in {
        "frames of float 0..1": lambda: frames / 255, "frames of two sizes": lambda: [frames[0], frames[1][:9, :9]], "frames of float 0..255": lambda: frames.astype(np.float32),
        "frames channels first": lambda: frames.transpose(0, 3, 1, 2), "frames of uint16": lambda: frames.astype(np.uint16) * 257, "a path": lambda: "missing-file.mp4", "frames None": lambda: None,
        "frames of an empty list": lambda: [], "frames of one": lambda: frames[:1], "frames of strings": lambda: ["missing-file.png"] * 2,
    }.items():  # fmt: skip
        # Floats up to 255 are the same pixels as integers.
        expect = "either" if what in ("frames channels first", "frames of float 0..255") else "refused"
        add(what, lambda f, v=value: collate(f, frames=v()), "room7", expect=expect)
    for what, fields in {
        "depth of another aspect": {"depth": np.ones((2, 48, 48), np.float32)}, "depth in millimetres": {"depth": _depth() * 1000}, "depth negative": {"depth": -_depth()},
        "depth turned by 90 degrees": {"depth": np.rot90(_depth(), axes=(1, 2)).copy()}, "depth uint16 millimetres": {"depth": (_depth() * 1000).astype(np.uint16)},
        "poses in millimetres": {"camera_to_world": _poses(1000.0)}, "intrinsics normalised": {"intrinsics": np.tile(np.array([[0.9, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1.0]]), (2, 1, 1))},
        "intrinsics last row 9 9 9": {"intrinsics": _row_nine()}, "poses without intrinsics": {"intrinsics": ...}, "intrinsics ten times": {"intrinsics": np.tile(np.array([[600.0, 0, 31], [0, 600, 23], [0, 0, 1]]), (2, 1, 1))},
        "scene_id a number": {"scene_id": 5}, "scene_id None": {"scene_id": None}, "scene_id of ../": {"scene_id": "../x"}, "frame_names too few": {"frame_names": ["a"]}, "frame_names a string": {"frame_names": "ab"},
        "geometry_kind unknown": {"geometry_kind": "guessed"}, "geometry_kind a number": {"geometry_kind": 5}, "confidence without a kind": {"depth_confidence": np.ones_like(_depth())},
        "confidence of another size": {"geometry_kind": "pseudo", "depth_confidence": np.ones((2, 5, 5))}, "confidence negative": {"geometry_kind": "pseudo", "depth_confidence": -np.ones_like(_depth())},
        "confidence a text": {"geometry_kind": "pseudo", "depth_confidence": "high"}, "alignment unknown": {"geometry_kind": "pseudo", "depth_alignment": "log"}, "alignment of a shift beside poses": {"geometry_kind": "pseudo", "depth_alignment": "inverse"},
        "pseudo depth of NaN": {"geometry_kind": "pseudo", "depth": _depth() * np.nan}, "pseudo depth negative": {"geometry_kind": "pseudo", "depth": -_depth()},
        "frame_names numbers": {"frame_names": [1, 2]}, "frame_names of ../": {"frame_names": ["../a", "b"]}, "teacher of other frames": {"teacher_features": teacher_of(3)}, "teacher of another grid": {"teacher_features": np.ones((2, 4, 4, 6))},
    }.items():  # fmt: skip
        expect = "either" if what in ("scene_id None", "scene_id of ../") else "refused"
        add(what, lambda f, fields=fields: collate(f, **fields), "room7", *fields, expect=expect)
    for what, fields in {
        "region targets as probabilities 0.2": {"region_targets": np.full(4, 0.2)}, "region targets of ids": {"region_targets": np.array([2])}, "region targets of 0 to 9": {"region_targets": np.full(4, 9)},
        "region targets all false": {"region_targets": np.zeros(4, bool)}, "region targets none and one": {"region_targets": np.ones(4, bool)}, "region masks as probabilities 0.3": {"region_masks": np.full((3, 2, 3, 3), 0.3)},
        "region masks of 0 to 9": {"region_masks": np.full((3, 2, 3, 3), 9)}, "region masks of another grid": {"region_masks": np.ones((3, 2, 5, 5), bool)}, "region masks of other frames": {"region_masks": np.ones((3, 7, 3, 3), bool)},
        "region masks empty": {"region_masks": np.zeros((3, 2, 3, 3), bool)}, "no region masks": {"region_masks": ...}, "region references too large": {"region_references": [9]}, "region references -5": {"region_references": [-5]},
        "region references 0.5": {"region_references": [0.5]}, "region references strings": {"region_references": ["a"]}, "region references too many": {"region_references": [0, 1, 2, 0]}, "targets without a place": {"messages": [user, says]},
    }.items():  # fmt: skip
        expect = "either" if what == "region masks empty" else "refused"
        add(what, lambda f, fields=fields: grounding(f, **fields), "room7", *fields, expect=expect)
    for what, fields in {"protocol unknown": {"protocol": "x"}, "protocol a number": {"protocol": 5}, "label_grounding a string": {"label_grounding": "no"}, "teacher a string": {"teacher": "x"},
                         "processor None": {"processor": None}, "processor a string": {"processor": "x"}}.items():  # fmt: skip

        def build(folder: Path, /, fields: dict = fields) -> Any:
            from training_samples import build_processor

            from trainer import IDE3DDataCollator

            return IDE3DDataCollator(**{"processor": build_processor(), **fields})([make_sample_of()])

        add(f"collator: {what}", build, *fields)

    def empty(folder: Path) -> Any:
        from training_samples import build_collator

        return build_collator()([])

    add("no sample", empty, "sample")
    _odd_samples(add, collate, grounding, user, says)


def _odd_samples(
    add: Callable[..., None], collate: Callable[..., Any], grounding: Callable[..., Any], user: dict, says: dict
) -> None:
    """Add other types at every key of a sample, and batches whose samples do not go together."""
    import torch

    from bad_inputs.training import ODD

    kinds = {**ODD, "a text": "x", "a number": 5, "True": True, "a scalar tensor": torch.tensor(1.0), "a list of None": [None], "a sparse tensor": torch.eye(3).to_sparse(), "an empty text": ""}  # fmt: skip
    for name in ("messages", "frames", "images", "frame_names", "scene_id", *GEOMETRY, "teacher_features", "region_masks", "region_references", "region_targets"):  # fmt: skip
        for what, value in kinds.items():
            if name == "scene_id" and what in ("a text", "digits of another script"):
                continue
            run = grounding if name.startswith("region") else collate
            # Ids and names are looked at where they are used.
            add(f"{name}: {what}, odd", lambda f, r=run, n=name, v=value: r(f, **{n: v}), name, "room7", "scene")
    for what, content in {
        "NUL in an answer": [user, {"role": "assistant", "content": "a\x00b"}], "half a surrogate": [user, {"role": "assistant", "content": "\ud800"}], "role in capitals": [user, {**says, "role": "Assistant"}],
        "role of spaces": [user, {**says, "role": " assistant"}], "a key of a message misspelt": [user, {**says, "contnt": "x"}], "part type in capitals": [{"role": "user", "content": [{"type": "Video"}]}, says],
        "text under another key": [user, {"role": "assistant", "content": [{"type": "text", "txt": "x"}]}], "a chat in a chat": [[[user, says]]], "a tuple of a chat": ((user, says),), "numbers for roles": [{**user, "role": 0}, says],
        "a generator": (message for message in [user, says]), "only zero-width spaces": [user, {"role": "assistant", "content": "\u200b"}], "only a new line": [user, {"role": "assistant", "content": "\n"}],
        "a placeholder typed": [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "<video>"}]}, says],
    }.items():  # fmt: skip
        expect = "either" if what in ("NUL in an answer", "a tuple of a chat", "only zero-width spaces") else "refused"
        add(f"messages, {what}", lambda f, m=content: collate(f, messages=m), "room7", "messages", expect=expect)
    for what, names in {"absolute": ["/a", "b"], "empty": ["", "b"], "NUL": ["a\x00", "b"], "a drive": ["C:a", "b"], "twice": ["a", "a"], "bytes": [b"a", b"b"], "None": [None, "b"]}.items():  # fmt: skip
        add(f"frame_names {what}", lambda f, n=names: collate(f, frame_names=n), "frame_names", expect="either" if what == "twice" else "refused")  # fmt: skip

    def several(folder: Path, /, *changes: dict) -> Any:
        from training_samples import build_collator

        return build_collator()(
            [make_sample_of(scene_id=f"room{index}", **fields) for index, fields in enumerate(changes)]
        )

    for what, changes in {"teachers of two widths": ({"teacher_features": teacher_of()}, {"teacher_features": np.ones((2, 3, 3, 5), np.float32)}), "the second broken": ({}, {"depth": _depth() * np.nan}),
                          "the second without messages": ({}, {"messages": ...}), "the second of floats": ({}, {"frames": np.full((2, 48, 64, 3), 1e6)})}.items():  # fmt: skip
        add(f"batch: {what}", lambda f, c=changes: several(f, *c), "room1", "sample")
    add("right: depth and none", lambda f: several(f, {}, dict.fromkeys(GEOMETRY, ...)), expect="taken")
    add("right: integers for depth", lambda f: collate(f, depth=np.full((2, 48, 64), 2, np.int64)), expect="either")
    add("right: lists", lambda f: collate(f, camera_to_world=_poses(1.0).tolist()), expect="taken")
    add("right: tensors", lambda f: collate(f, depth=torch.from_numpy(_depth())), expect="either")
    add("right: names as a tuple", lambda f: collate(f, frame_names=("a/1.jpg", "b")), expect="taken")


def _frames_of() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)


def _depth() -> np.ndarray:
    return np.full((2, 48, 64), 2.5, np.float32) + np.linspace(0, 1, 64, dtype=np.float32)


def _poses(scale: float) -> np.ndarray:
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, :3, 3] = np.array([0.1, 0.02, 0.05]) * scale
    return poses


def _row_nine() -> np.ndarray:
    return np.tile(np.array([[60.0, 0, 31.5], [0, 60, 23.5], [9, 9, 9]]), (2, 1, 1))
