"""Cases of the store of teacher features, and of its extraction."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import FILES, NUMBERS, PATHS, TEXTS, make_fifo


@door("teacher store", "trainer.teachers.TeacherStore", "trainer.teachers.extract_features", "trainer.teachers.list_scenes",
      "trainer.teachers.load_teacher", "trainer.teachers.StoreIdentity", "trainer.teachers.FrameSource", "trainer.teachers.PointMapTeacher",
      "trainer.teachers.OriginalStoreTeacher", "trainer.teachers.TransformersTeacher", "trainer.teachers.VGGTTeacher",
      "trainer.teachers.DepthAnything3Teacher", "trainer.teachers.ConfidenceRule")  # fmt: skip
def stores(add: Callable[..., None]) -> None:
    import torch

    names, scene = ("00000", "00010", "00030"), "scannet/scene0000_00"

    def identity(**changes: Any) -> Any:
        from trainer.teachers import StoreIdentity

        facts = {"teacher": "eyes", "version": "1", "licence": "mit", "preprocessing": "none", "protocol": "clean",
                 "image_size": (70, 70), "patch_size": 14, "pool_stride": 2}  # fmt: skip
        return StoreIdentity(**{**facts, **changes})

    def save(
        folder: Path, /, features: Any = None, scene_id: str = scene, frame_names: Any = names, **changes: Any
    ) -> Path:
        from trainer.teachers import FrameSource
        from trainer.teachers.store import save_scene

        features = torch.zeros(3, 3, 3, 5) if features is None else features
        return save_scene(folder / "store", identity(**changes), FrameSource(scene_id, frame_names), features)

    def load(folder: Path, /, change: Callable[[Path], Any] = lambda path: None, **fields: Any) -> Any:
        from trainer.teachers import TeacherStore

        path = save(folder)
        change(path)
        given = {"scene_id": scene, "frame_names": names, "grid": goods.processor_grid(), **fields}
        return TeacherStore(folder / "store").load_features(**given)

    add("right: a store", load, expect="taken")
    for what, change in FILES.items():
        add(
            f"file {what}",
            lambda f, c=change: load(f, lambda p: p.write_bytes(c(p.read_bytes()))),
            "scene0000_00.safetensors",
        )
    for what, change in {
        "bytes behind the end": lambda p: p.write_bytes(p.read_bytes() + b"x"), "a pipe": make_fifo, "a folder": lambda p: (p.unlink(), p.mkdir()),
        "a header of 10^15 bytes": lambda p: p.write_bytes((10**15).to_bytes(8, "little") + p.read_bytes()[8:]),
        "without our header": lambda p: _save_tensors(p, None), "with a header of a list": lambda p: _save_tensors(p, "[1]"),
        "with a header of half a JSON": lambda p: _save_tensors(p, "{"), "with a deep header": lambda p: _save_tensors(p, "[" * 100_000),
        "with a header of a number": lambda p: _save_tensors(p, "5"),
    }.items():  # fmt: skip
        add(f"file {what}", lambda f, c=change: load(f, c), "scene0000_00", "store")
    for name, values in {
        "scene_id": {
            "../": "../scene",
            "absolute": "/etc/x",
            "unknown": "scannet/nobody",
            "None": None,
            "an int": 5,
            "empty": "",
            "of a NUL": "a\0b",
        },
        "frame_names": {
            "unknown": ("9",),
            "empty": (),
            "a string": "00000",
            "None": None,
            "numbers": (0, 1),
            "an int": 5,
        },
        "grid": {"None": None, "a string": "x", "a tuple": (3, 3)},
    }.items():
        for what, value in values.items():
            add(f"load: {name} {what}", lambda f, n=name, v=value: load(f, **{n: v}), "scene", "frame", "grid", name)
    for what, value in {"NaN": torch.full((3, 3, 3, 5), torch.nan), "Inf": torch.full((3, 3, 3, 5), torch.inf), "too large": torch.full((3, 3, 3, 5), 1e6),
                        "another shape": torch.zeros(3, 4, 3, 5), "no channel": torch.zeros(3, 3, 3, 0), "other frames": torch.zeros(2, 3, 3, 5),
                        "complex": torch.zeros(3, 3, 3, 5, dtype=torch.complex64), "rank 3": torch.zeros(3, 3, 5), "numpy": np.zeros((3, 3, 3, 5)), "a string": "x",
                        "bool": torch.ones(3, 3, 3, 5, dtype=torch.bool)}.items():  # fmt: skip
        add(
            f"save: features {what}",
            lambda f, v=value: save(f, v),
            "features",
            expect="either" if what in ("bool", "numpy") else "refused",
        )
    for what, value in {"of ../": "../outside", "absolute": "/tmp/absolute-scene", "of ./": "./x", "..": "..", "of a NUL": "a\0b", "empty": "", "None": None,
                        "of 5000 characters": "x" * 5000, "an int": 5}.items():  # fmt: skip
        add(f"save: scene id {what}", lambda f, v=value: save(f, scene_id=v), "scene", "xxx")
    for what, value in {
        "of two equal": ("a", "a", "b"),
        "of numbers": (1, 2, 3),
        "a string": "abc",
        "of ../": ("../a", "b", "c"),
    }.items():
        add(f"save: frame_names {what}", lambda f, v=value: save(f, frame_names=v), "frame")
    for name, values in {
        "image_size": ((0, 0), "x", None, (70,)),
        "patch_size": (0, -1, "x", 1.5),
        "pool_stride": (0, "x"),
        "protocol": ("x", 5),
        "teacher": (None, 5),
    }.items():
        for value in values:
            add(
                f"save: {name} {value}",
                lambda f, n=name, v=value: save(f, **{n: v}),
                name,
                "patch",
                "image",
                "features",
            )
    _extraction(add)


def _save_tensors(path: Path, header: str | None) -> None:
    import torch
    from safetensors.torch import save_file

    from trainer.teachers.store import HEADER

    save_file({"features": torch.zeros(3, 3, 3, 5)}, path, metadata=None if header is None else {HEADER: header})


def _extraction(add: Callable[..., None]) -> None:
    def extract(folder: Path, /, data: Any = None, **fields: Any) -> Any:
        from trainer.teachers import extract_features

        given = {"teacher": _Teacher(), "grid": goods.processor_grid(), "data_dir": data or goods.rooms_folder(), "output_dir": folder / "out",
                 "scene_ids": ["scannet/room0001_00"], "num_frames": 2, **fields}  # fmt: skip
        positional = [given.pop(key) for key in ("teacher", "grid", "data_dir", "output_dir", "scene_ids")]
        return extract_features(*positional, **given)

    add("right: extraction", extract, expect="taken")

    def embodied(folder: Path, /, name: str) -> Any:
        """A file of EmbodiedScan that names a scene outside of the folder."""
        import pickle

        from trainer.teachers import list_scenes

        data = goods.copy_rooms(folder)
        path = data / "embodiedscan" / "embodiedscan_infos_val.pkl"
        content = pickle.loads(path.read_bytes())  # our own; the reader's arrays cannot be written again
        content["data_list"][0]["sample_idx"] = name
        path.write_bytes(pickle.dumps(content))
        (folder / "posed_images").mkdir()
        (data / "scannet" / "posed_images" / "room0001_00").rename(folder / "posed_images" / "out")
        return extract(folder, data, scene_ids=list_scenes(data, split="val"))

    add(
        "scene id ../ of an EmbodiedScan file writes outside the output folder",
        partial(embodied, name="scannet/../../out"),
        "scene",
        "..",
    )
    for name, values in {
        "scene_ids": {"empty": [], "of ../": ["../x"], "absolute": ["/etc/x"], "unknown": ["scannet/nobody"], "a string": "scannet/room0001_00", "None": None,
                      "of None": [None], "twice": ["scannet/room0001_00"] * 2, "numbers": [5]},
        "frames": {"unknown": "x", **TEXTS}, "num_frames": {k: v for k, v in NUMBERS.items() if k != "huge"}, "teacher": {"None": None, "a string": "x"},
        "grid": {"None": None, "a string": "x"},
    }.items():  # fmt: skip
        for what, value in values.items():
            expect = "either" if (name, what) == ("scene_ids", "twice") else "refused"
            add(
                f"extract: {name} {what}",
                lambda f, n=name, v=value: extract(f, **{n: v}),
                name,
                "scene",
                "nobody",
                expect=expect,
            )
    for what, make in PATHS.items():
        words = (
            "data",
            "missing-file",
            "given",
            "pipe",
            "inner",
            "loop",
            "xxx",
            "/dev/full",
            "folder",
            "scene",
            "path",
        )
        add(f"extract: data_dir {what}", lambda f, m=make: extract(f, data_dir=m(f)), *words)
        if what not in ("missing", "a folder"):
            add(f"extract: output_dir {what}", lambda f, m=make: extract(f, output_dir=m(f)), *words, "output")

        def store(folder: Path, /, make: Any = make) -> Any:
            from trainer.teachers import TeacherStore

            return TeacherStore(make(folder))

        add(f"store: folder {what}", store, *words)
    for what, fields in {"unknown": {"kind": "nonsense"}, "None": {"kind": None}, "an int": {"kind": 5}, "transformers without weights": {"kind": "transformers"},
                         "stored without a folder": {"kind": "stored"}, "protocol unknown": {"kind": "point_map", "protocol": "x"},
                         "weights that are not there": {"kind": "transformers", "weights": "./missing-folder"}}.items():  # fmt: skip

        def load(folder: Path, /, fields: dict = fields) -> Any:
            from trainer.teachers import load_teacher

            return load_teacher(**fields)

        add(f"load_teacher: {what}", load, "kind", "teacher", "weights", "data_dir", "protocol", "missing-folder")
    for what, fields in {"wavelengths of strings": {"wavelengths": ("a",)}, "wavelengths of 0": {"wavelengths": (0.0,)}, "wavelengths NaN": {"wavelengths": (np.nan,)},
                         "wavelengths empty": {"wavelengths": ()}, "wavelengths negative": {"wavelengths": (-1.0,)}, "wavelengths a number": {"wavelengths": 4.0},
                         "camera unknown": {"camera": "x"}, "camera a number": {"camera": 5}}.items():  # fmt: skip

        def point_map(folder: Path, /, fields: dict = fields) -> Any:
            from trainer.teachers import PointMapTeacher

            return PointMapTeacher(**fields)

        add(f"PointMapTeacher: {what}", point_map, *fields)
    for name in ("drop_share", "min_confidence"):
        for what, value in NUMBERS.items():

            def rule(folder: Path, /, name: str = name, value: Any = value) -> Any:
                from trainer.teachers import ConfidenceRule

                return ConfidenceRule(**{name: value})

            taken = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1
            taken = taken or (name == "min_confidence" and isinstance(value, (int, float)) and 1 <= value < 1e300)
            add(f"ConfidenceRule: {name} {what}", rule, name, expect="taken" if taken else "refused")


class _Teacher:
    """A teacher that sees nothing."""

    name, version, licence, preprocessing, protocol, feature_size = "none", "1", "mit", "none", "clean", 5

    def compute_features(self, frames: Any, geometry: Any, grid: Any, source: Any = None) -> Any:
        import torch

        return torch.zeros(len(frames), *grid.shape, 5)
