"""Cases of pseudo geometry: its stores, its sources, and their extraction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import FILES, NUMBERS, PATH_WORDS, PATHS, TEXTS

NAMES, SCENE = ("00000", "00010", "00020"), "scannet/scene0000_00"


@door("pseudo geometry", "trainer.teachers.PseudoGeometry", "trainer.teachers.examine_store", "trainer.teachers.ArraySource",
      "trainer.teachers.ColmapSource", "trainer.teachers.DepthEstimationSource", "trainer.teachers.extract_geometry",
      "trainer.teachers.load_geometry_source")  # fmt: skip
def pseudo_stores(add: Callable[..., None]) -> None:
    _parts(add)
    _files(add)
    _sources(add)


def _arrays() -> dict[str, Any]:
    from training_samples import make_sample

    sample = make_sample(3)
    keys = ("depth", "intrinsics", "camera_to_world")
    return {**{key: sample[key] for key in keys}, "confidence": np.ones_like(sample["depth"])}


def _geometry(**changes: Any) -> Any:
    from trainer.teachers import PseudoGeometry

    return PseudoGeometry(**{**_arrays(), **changes})


def _save(folder: Path, **changes: Any) -> Path:
    from trainer.teachers import FrameSource, StoreIdentity
    from trainer.teachers.store import save_scene

    facts = {"teacher": "x", "version": "1", "licence": "mit", "preprocessing": "none", "protocol": None,
             "image_size": None, "patch_size": None, "pool_stride": None, "alignment": "scale"}  # fmt: skip
    return save_scene(
        folder / "store", StoreIdentity(**facts), FrameSource(SCENE, NAMES), geometry=_geometry(**changes)
    )


def _parts(add: Callable[..., None]) -> None:
    add("right: parts", lambda f: _save(f), expect="taken")
    for what, changes in {
        "depth of NaN": {"depth": np.full((3, 48, 64), np.nan)}, "depth negative": {"depth": np.full((3, 48, 64), -1.0)},
        "depth of one map": {"depth": np.ones((48, 64))}, "depth empty": {"depth": np.ones((3, 0, 64))},
        "depth of texts": {"depth": np.full((3, 48, 64), "a")}, "depth of other frames": {"depth": np.ones((2, 48, 64))},
        "depth None": {"depth": None}, "confidence of another size": {"confidence": np.ones((3, 4, 4))},
        "confidence of NaN": {"confidence": np.full((3, 48, 64), np.nan)}, "confidence a number": {"confidence": 0.5},
        "intrinsics normalised": {"intrinsics": np.tile(np.array([[0.9, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]]), (3, 1, 1))},
        "intrinsics of zeros": {"intrinsics": np.zeros((3, 3, 3))}, "intrinsics None": {"intrinsics": None},
        "camera_to_world of 3 x 4": {"camera_to_world": np.zeros((3, 3, 4))},
        "camera_to_world mirrored": {"camera_to_world": np.tile(np.diag([1.0, -1, 1, 1]), (3, 1, 1))},
        "camera_to_world of NaN": {"camera_to_world": np.full((3, 4, 4), np.nan)},
    }.items():  # fmt: skip
        name = next(iter(changes))
        add(f"part: {what}", lambda f, c=changes: _save(f, **c), name, f"depth_{name}", "frames")


def _files(add: Callable[..., None]) -> None:
    def load(folder: Path, /, change: Callable[[Path], Any]) -> Any:
        from trainer.teachers import TeacherStore

        path = _save(folder)
        change(path)
        return TeacherStore(folder / "store").load_geometry(SCENE, NAMES)

    for what, change in FILES.items():
        add(
            f"file {what}",
            lambda f, c=change: load(f, lambda p: p.write_bytes(c(p.read_bytes()))),
            "scene0000_00.safetensors",
        )
    for what, make in PATHS.items():

        def examine(folder: Path, /, make: Any = make) -> Any:
            from trainer.teachers import examine_store

            return examine_store(make(folder))

        add(f"examine_store: {what}", examine, "folder", "store", "path", *PATH_WORDS)
    for what, names in {"unknown": ("9",), "empty": (), "a string": "00000", "None": None, "numbers": (0, 1)}.items():

        def frames(folder: Path, /, names: Any = names) -> Any:
            from trainer.teachers import TeacherStore

            _save(folder)
            return TeacherStore(folder / "store").load_geometry(SCENE, names)

        add(f"frame_names {what}", frames, "frame_names", "frame", "frames")


def _sources(add: Callable[..., None]) -> None:
    facts = {"name": "x", "version": "1", "licence": "mit", "alignment": "scale"}

    def arrays(folder: Path, /, write: Callable[[Path], Any], **changes: Any) -> Any:
        from trainer.teachers import ArraySource, FrameSource

        path = folder / "arrays" / f"{SCENE}.npz"
        path.parent.mkdir(parents=True)
        write(path)
        source = ArraySource(**{"folder": folder / "arrays", **facts, **changes})
        return source.compute_geometry(None, FrameSource(SCENE, NAMES))

    def good(path: Path, **changes: Any) -> None:
        given = {"frame_names": np.array(NAMES), "depth": _arrays()["depth"], **changes}
        np.savez(path, **{key: value for key, value in given.items() if value is not None})

    add("right: arrays", lambda f: arrays(f, good), expect="taken")
    for what, changes in {
        "of objects": {"depth": np.array([{}] * 3, object)}, "without names": {"frame_names": None}, "of numbers as names": {"frame_names": np.arange(3)},
        "without depth": {"depth": None}, "of other frames": {"depth": np.ones((2, 4, 4))}, "of flat depth": {"depth": np.ones((3, 4))},
        "of names twice too few": {"frame_names": np.array(NAMES[:2])}, "of cameras of other frames": {"intrinsics": np.ones((2, 3, 3))},
        "of text as depth": {"depth": np.array(["a", "b", "c"])},
    }.items():  # fmt: skip
        add(f"arrays {what}", lambda f, c=changes: arrays(f, lambda p: good(p, **c)), "scene0000_00.npz")
    for what, change in FILES.items():
        add(
            f"arrays: file {what}",
            lambda f, c=change: arrays(f, lambda p: (good(p), p.write_bytes(c(p.read_bytes())))),
            "scene0000_00.npz",
            expect="either",
        )
    for name in ("name", "version", "licence", "alignment"):
        for what, value in TEXTS.items():
            add(f"arrays: {name} {what}", lambda f, n=name, v=value: arrays(f, good, **{n: v}), name)
    for what, make in PATHS.items():
        add(
            f"arrays: folder {what}",
            lambda f, m=make: arrays(f, good, folder=m(f)),
            "folder",
            "arrays",
            "path",
            *PATH_WORDS,
        )

        def colmap(folder: Path, /, make: Any = make) -> Any:
            from trainer.teachers import ColmapSource, FrameSource

            return ColmapSource(make(folder)).compute_geometry(None, FrameSource(SCENE, NAMES))

        add(f"colmap: folder {what}", colmap, "folder", "reconstruction", "path", "cameras", *PATH_WORDS)

        def network(folder: Path, /, make: Any = make) -> Any:
            from trainer.teachers import DepthEstimationSource

            return DepthEstimationSource(make(folder), licence="mit")

        add(f"network: path {what}", network, "path", "folder", "depth", "config", *PATH_WORDS)
    for what, fields in {"unknown": {"kind": "nonsense"}, "None": {"kind": None}, "an int": {"kind": 5},
                         "arrays without facts": {"kind": "arrays", "folder": "."}, "colmap with a licence": {"kind": "colmap", "folder": ".", "licence": "mit"},
                         "a network with a folder": {"kind": "a/b", "folder": "."}, "colmap without a folder": {"kind": "colmap"}}.items():  # fmt: skip

        def named(folder: Path, /, fields: dict = fields) -> Any:
            from trainer.teachers import load_geometry_source

            return load_geometry_source(**fields)

        add(f"load_geometry_source: {what}", named, "kind", "source", *fields)
    for what, value in NUMBERS.items():

        def counted(folder: Path, /, value: Any = value) -> Any:
            return _extract(folder, num_frames=value)

        add(f"extract: num_frames {what}", counted, "num_frames", expect="either" if what == "huge" else "refused")
    for what, fields in {"source None": {"source": None}, "source a text": {"source": "vggt"}, "scene_ids empty": {"scene_ids": []},
                         "scene_ids unknown": {"scene_ids": ["scannet/nobody"]}, "scene_ids of ../": {"scene_ids": ["../a"]}, "frames unknown": {"frames": "all"},
                         "data_dir missing": {"data_dir": "./missing"}, "output_dir a number": {"output_dir": 5}}.items():  # fmt: skip
        add(
            f"extract: {what}",
            lambda f, x=fields: _extract(f, **x),
            *fields,
            "scene",
            "scenes",
            "folder",
            "nobody",
            "frames",
            "missing",
        )


class _Source:
    """A source that sees a plane."""

    name, version, licence, preprocessing, alignment = "plane", "1", "mit", "none", "affine"

    def compute_geometry(self, frames: Any, source: Any) -> Any:
        from trainer.teachers import PseudoGeometry

        return PseudoGeometry(np.full((len(frames), 8, 8), 2.0))


def _extract(folder: Path, **changes: Any) -> Any:
    from trainer.teachers import extract_geometry, list_scenes

    data = goods.rooms_folder()
    fields = {"source": _Source(), "data_dir": data, "output_dir": folder / "out", "scene_ids": list_scenes(data)[:1]}
    return extract_geometry(**{**fields, **changes})
