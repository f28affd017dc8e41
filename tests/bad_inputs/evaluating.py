"""Cases of the evaluation, its metrics, and the store of teacher features."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.benchmarks import TASKS as STEMS
from bad_inputs.cases import door
from bad_inputs.damage import FILES, JSON_FILES, NUMBERS, PATHS, TEXTS, make_fifo
from bad_inputs.loading import _edit_weights


def evaluate(folder: Path, **fields: Any) -> Any:
    """Run a short evaluation."""
    from trainer.evaluation import EvaluationSettings, run_evaluation

    given = {"model": str(goods.model_folder()), "data": str(goods.rooms_folder()), "output": str(folder / "out"), "task": "scanqa",
             "meteor": False, "max_new_tokens": 1, "num_frames": 2, **fields}  # fmt: skip
    return run_evaluation(EvaluationSettings(**given))


@door("evaluation runner", "trainer.evaluation.run_evaluation", "trainer.evaluation.EvaluationSettings")
def runner(add: Callable[..., None]) -> None:
    add("right: a run", evaluate, expect="taken")
    add("right: a run twice", lambda f: (evaluate(f), evaluate(f)), expect="taken")

    def with_weights(folder: Path, change: Any, task: str) -> Any:
        model = goods.copy_model(folder)
        _edit_weights(model / "model.safetensors", change)
        return evaluate(folder, model=str(model), task=task)

    half = lambda w: dict(list(w.items())[::2])  # noqa: E731
    nan = lambda w: {key: value * float("nan") for key, value in w.items()}  # noqa: E731
    for task in ("scanqa", "scanrefer"):
        title = "model with half of its weights missing" + (", grounding" if task == "scanrefer" else "")
        add(title, partial(with_weights, change=half, task=task), "missing", "weight", "finite")
        title = "model of NaN weights" + (", grounding" if task == "scanrefer" else "")
        add(title, partial(with_weights, change=nan, task=task), "finite", "nan")

    def again(folder: Path, name: str, change: Callable[[Path], Any], **fields: Any) -> Any:
        evaluate(folder)
        change(folder / "out" / name)
        return evaluate(folder, **fields)

    for what, change in JSON_FILES.items():
        add(
            f"run.json {what}",
            partial(again, name="run.json", change=lambda p, c=change: p.write_bytes(c(p.read_bytes()))),
            "run.json",
        )
    for what, change in {
        "missing": lambda p: p.unlink(),
        "a pipe": make_fifo,
        "a folder": lambda p: (p.unlink(), p.mkdir()),
    }.items():
        add(f"run.json {what}", partial(again, name="run.json", change=change), "run.json")
    lines: dict[str, Callable[[list[str]], list[str]]] = {
        "a line is a list": lambda rows: [*rows, "[1]"], "a line is a number": lambda rows: [*rows, "5"],
        "a line is null": lambda rows: [*rows, "null"], "a line is text": lambda rows: [*rows, '"x"'],
        "a line without id": lambda rows: [*rows, '{"text": "x"}'], "a line is no JSON": lambda rows: [*rows, "{x"],
        "id of no sample": lambda rows: [*rows, json.dumps({**json.loads(rows[0]), "id": "nobody"})],
        "id a number": lambda rows: [json.dumps({**json.loads(rows[0]), "id": 5}), *rows[1:]],
        "an id twice": lambda rows: [*rows, rows[0]], "a line without text": lambda rows: [json.dumps({"id": json.loads(rows[0])["id"]}), *rows[1:]],
        "a text of a number": lambda rows: [json.dumps({**json.loads(rows[0]), "text": 5}), *rows[1:]],
        "a deep line": lambda rows: [*rows, "[" * 100_000], "a line of NUL": lambda rows: [*rows, "\0\0"],
    }  # fmt: skip
    for what, change in lines.items():

        def rewrite(path: Path, change: Any = change) -> None:
            path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))

        add(
            f"answers: {what}",
            partial(again, name="answers.00000.jsonl", change=rewrite),
            "answers.00000.jsonl",
            "nobody",
        )
    for what, change in FILES.items():
        expect = "either" if what in ("empty", "one byte", "half") else "refused"
        add(
            f"answers {what}",
            partial(again, name="answers.00000.jsonl", change=lambda p, c=change: p.write_bytes(c(p.read_bytes()))),
            "answers.00000.jsonl",
            expect=expect,
        )
    add("answers a pipe", partial(again, name="answers.00000.jsonl", change=make_fifo), "answers.00000.jsonl")

    def no_candidates(folder: Path) -> Any:
        data = goods.copy_rooms(folder)
        path = data / "metadata" / "scannet_val_pred_box.json"
        path.write_text(json.dumps({key: [] for key in json.loads(path.read_text())}))
        return evaluate(folder, data=str(data), task="scanrefer")

    add("scanrefer: a scene without candidates", no_candidates, "candidate", "box")
    settings: dict[str, dict] = {
        "task": {"unknown": "nonsense", **TEXTS}, "protocol": {"unknown": "x", **TEXTS}, "split": {"unknown": "x", "an int": 5},
        "boxes": {"unknown": "x"}, "regions": {"unknown": "x", **TEXTS}, "frames": {"unknown": "x", **TEXTS},
        "num_frames": {k: v for k, v in NUMBERS.items() if k not in ("None", "huge")}, "batch_size": {k: v for k, v in NUMBERS.items() if k != "huge"},
        "max_new_tokens": {k: v for k, v in NUMBERS.items() if k not in ("None", "huge")}, "max_memory": {k: v for k, v in NUMBERS.items() if k != "huge"},
        "scenes": {"a string": "scannet/room0001_00", "unknown": ("nobody",), "empty": (), "an int": 5},
        "dtype": {"unknown": "x", "an int": 5, "int8": "int8"}, "attention": {"unknown": "nonsense", "an int": 5}, "variant": {"unknown": "x", "an int": 5},
        "model": {"missing": "./missing-folder", "an int": 5, "None": None, "empty": ""}, "data": {"missing": "missing-folder", "an int": 5, "None": None},
        "skip_invalid_poses": {"a string": "no"}, "meteor": {"a string": "no"},
    }  # fmt: skip
    for name, values in settings.items():
        for what, value in values.items():
            task = "scanrefer" if name in ("boxes", "regions") else "scanqa"
            expect = "either" if (name, what) in (("max_memory", "1.5"), ("boxes", "an int")) else "refused"
            add(
                f"settings: {name} {what}",
                lambda f, n=name, v=value, t=task: evaluate(f, **{"task": t, n: v}),
                name,
                "missing-folder",
                "memory",
                "nobody",
                "scene",
                expect=expect,
            )
    for what, make in PATHS.items():
        if what not in ("missing", "a folder"):
            add(
                f"output {what}",
                lambda f, m=make: evaluate(f, output=m(f)),
                "output",
                "pipe",
                "loop",
                "inner",
                "/dev/full",
                "xxx",
                "file",
            )


PAIRS: dict[str, tuple[dict, dict]] = {
    "scanrefer": ({"box": [0.0, 0, 0, 1, 1, 1]}, {"box": [0.0, 0, 0, 1, 1, 1], "question_type": "unique"}),
    "multi3drefer": ({"boxes": [[0.0, 0, 0, 1, 1, 1]]}, {"boxes": [[0.0, 0, 0, 1, 1, 1]], "question_type": "st_w_d"}),
    "scanqa": ({"text": "a"}, {"id": "1", "texts": ["a", "b"]}),
    "sqa3d": ({"text": "a"}, {"text": "a", "question": "What is it?"}),
    "vsibench": ({"text": "A"}, {"text": "A", "question_type": "object_counting"}),
    "scan2cap": ({"text": "a chair"}, {"texts": ["a chair"], "id": "1"}),
}


@door(
    "evaluation metrics",
    "trainer.evaluation.load_metric",
    "trainer.evaluation.score_answers",
    "trainer.evaluation.metrics.Score",
)
def metrics(add: Callable[..., None]) -> None:
    def fields(name: str) -> tuple[dict, dict]:
        """A right pair, made from the fields that the metric declares."""
        from trainer.evaluation.metrics import load_metric

        features = load_metric(name).features
        fill = {
            "question_type": {"vsibench": "object_counting", "multi3drefer": "st_w_d", "scanrefer": "unique"}.get(
                name, "what"
            )
        }

        def make(key: str, kind: Any) -> Any:
            if key in fill:
                return fill[key]
            text = str(kind)
            if "string" in text:
                return ["2"] if text.startswith(("Sequence", "List", "LargeList")) else "2"
            if "bool" in text:
                return True
            depth = text.count("List(") + text.count("Sequence(")
            box = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
            return 1 if depth == 0 else box if depth == 1 else [box]

        return tuple(
            {key: make(key, kind) for key, kind in features[part].items()} for part in ("predictions", "references")
        )

    def compute(
        folder: Path,
        name: str,
        change: Callable[[dict, dict], Any] = lambda p, r: None,
        count: int = 2,
        **options: Any,
    ) -> Any:
        from trainer.evaluation.metrics import load_metric

        pairs = [fields(name) for _ in range(count)]
        for number, (_, reference) in enumerate(pairs):
            reference |= {key: str(number) for key in ("id", "scene_id") if key in reference}
        if pairs:
            change(*pairs[-1])
        if name in ("scanqa", "scan2cap"):
            options.setdefault("meteor", False)
        return load_metric(name).compute(
            predictions=[p for p, _ in pairs], references=[r for _, r in pairs], **options
        )

    reason = "`evaluate` checks its features before our code"
    for name in PAIRS:
        add(f"right: {name}", partial(compute, name=name), expect="either")
        for what, options in {"protocol unknown": {"protocol": "x"}, "protocol None": {"protocol": None}, "an unknown option": {"nonsense": 1},
                              "bands a string": {"bands": "no"}}.items():  # fmt: skip
            expect = "either" if what.startswith("bands") else "refused"
            add(f"{name}: {what}", lambda f, n=name, o=options: compute(f, n, **o), *options, expect=expect)
        add(
            f"{name}: nothing to score",
            partial(compute, name=name, count=0),
            "empty",
            "nothing",
            "predictions",
            reason=reason,
        )
        for part, index in (("predictions", 0), ("references", 1)):
            for what, value in {
                "None": None,
                "a list": [1],
                "a number": 5,
                "a mapping": {"a": 1},
                "NaN": float("nan"),
                "a string": "x",
            }.items():

                def damage(*pair: dict, index: int = index, value: Any = value) -> None:
                    for key in pair[index]:
                        if key not in ("id", "scene_id"):
                            pair[index][key] = value

                expect = "either" if what in ("a string", "a number") else "refused"
                add(
                    f"{name}: {part} {what}",
                    partial(compute, name=name, change=damage),
                    part[:-1],
                    "box",
                    "text",
                    "feature",
                    "question_type",
                    "sample",
                    "column",
                    expect=expect,
                    reason=reason,
                )

            def clear(*pair: dict, index: int = index) -> None:
                pair[index].clear()

            add(
                f"{name}: {part} without fields",
                partial(compute, name=name, change=clear),
                part[:-1],
                "field",
                "feature",
                reason=reason,
            )

        def lengths(folder: Path, name: str = name) -> Any:
            from trainer.evaluation.metrics import load_metric

            prediction, reference = fields(name)
            return load_metric(name).compute(predictions=[prediction, prediction], references=[reference])

        add(f"{name}: lengths that differ", lengths, "predictions", "references", reason=reason)
    add("scanqa: an id twice", lambda f: compute(f, "scanqa", lambda p, r: r.__setitem__("id", "0")), "id")
    add("scanqa: variant unknown", lambda f: compute(f, "scanqa", variant="x"), "variant")
    for what, value in {
        "negative size": [0, 0, 0, -1, 1, 1],
        "NaN": [np.nan] * 6,
        "of four": [1, 2, 3, 4],
        "Inf": [np.inf] * 6,
        "empty": [],
    }.items():
        for part in (0, 1):

            def box(*pair: dict, part: int = part, value: Any = value) -> None:
                for key in pair[part]:
                    if "box" in key:
                        pair[part][key] = [value] if isinstance(pair[part][key][0], list) else value

            for name in ("scanrefer", "multi3drefer"):
                add(f"{name}: box {what} in {('predictions', 'references')[part]}", partial(compute, name=name, change=box), "box",
                    expect="either" if what == "empty" else "refused")  # fmt: skip

    def score(folder: Path, **given: Any) -> Any:
        from trainer.evaluation import score_answers

        return score_answers(**{"task": "scanqa", "samples": [{"id": "1", "scene_id": "s", "answers": ["a"], "question": "?", "question_type": "x"}],
                                "answers": [{"id": "1", "text": "a"}], "protocol": "clean", "meteor": False, **given})  # fmt: skip

    for what, given in {
        "task unknown": {"task": "x"}, "task None": {"task": None}, "protocol unknown": {"protocol": "x"}, "answers too few": {"answers": []},
        "answers without text": {"answers": [{"id": "1"}]}, "answers a list of texts": {"answers": ["a"]}, "answers None": {"answers": None},
        "samples without answers": {"samples": [{"id": "1", "scene_id": "s"}]}, "samples None": {"samples": None}, "text a number": {"answers": [{"id": "1", "text": 5}]},
        "variant unknown": {"variant": "x"}, "answers of another sample": {"answers": [{"id": "2", "text": "a"}]},
        "scores for a text": {"answers": [{"id": "1", "scores": [1.0]}]},
    }.items():  # fmt: skip
        add(
            f"score_answers: {what}",
            lambda f, g=given: score(f, **g),
            "task",
            "protocol",
            "answer",
            "sample",
            "text",
            "variant",
        )
    for what, value in {"unknown": "nonsense", **TEXTS}.items():

        def load(folder: Path, value: Any = value) -> Any:
            from trainer.evaluation import load_metric

            return load_metric(value)

        add(f"load_metric: name {what}", load, "name", "metric")
    for what, statistics in {
        "of strings": np.array([["x"]]),
        "of rank 3": np.zeros((1, 1, 1)),
        "NaN": np.full((2, 2), np.nan),
        "None": None,
    }.items():

        def make_score(folder: Path, statistics: Any = statistics) -> Any:
            from trainer.evaluation.metrics import Score

            return Score(statistics)

        add(f"Score: statistics {what}", make_score, "statistics", expect="either" if what == "NaN" else "refused")
    _ = STEMS


@door("teacher store", "trainer.teachers.TeacherStore", "trainer.teachers.extract_features", "trainer.teachers.list_scenes",
      "trainer.teachers.load_teacher", "trainer.teachers.StoreIdentity", "trainer.teachers.FrameSource", "trainer.teachers.PointMapTeacher",
      "trainer.teachers.OriginalStoreTeacher", "trainer.teachers.TransformersTeacher", "trainer.teachers.VGGTTeacher",
      "trainer.teachers.DepthAnything3Teacher")  # fmt: skip
def stores(add: Callable[..., None]) -> None:
    import torch

    names, scene = ("00000", "00010", "00030"), "scannet/scene0000_00"

    def identity(**changes: Any) -> Any:
        from trainer.teachers import StoreIdentity

        facts = {"teacher": "eyes", "version": "1", "licence": "mit", "preprocessing": "none", "protocol": "clean",
                 "image_size": (70, 70), "patch_size": 14, "pool_stride": 2}  # fmt: skip
        return StoreIdentity(**{**facts, **changes})

    def save(
        folder: Path, features: Any = None, scene_id: str = scene, frame_names: Any = names, **changes: Any
    ) -> Path:
        from trainer.teachers import FrameSource
        from trainer.teachers.store import save_scene

        features = torch.zeros(3, 3, 3, 5) if features is None else features
        return save_scene(folder / "store", identity(**changes), FrameSource(scene_id, frame_names), features)

    def load(folder: Path, change: Callable[[Path], Any] = lambda path: None, **fields: Any) -> Any:
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
    def extract(folder: Path, data: Any = None, **fields: Any) -> Any:
        from trainer.teachers import extract_features

        given = {"teacher": _Teacher(), "grid": goods.processor_grid(), "data_dir": data or goods.rooms_folder(), "output_dir": folder / "out",
                 "scene_ids": ["scannet/room0001_00"], "num_frames": 2, **fields}  # fmt: skip
        positional = [given.pop(key) for key in ("teacher", "grid", "data_dir", "output_dir", "scene_ids")]
        return extract_features(*positional, **given)

    add("right: extraction", extract, expect="taken")

    def embodied(folder: Path, name: str) -> Any:
        """A file of EmbodiedScan that names a scene outside of the folder."""
        import pickle

        from processing.benchmarks.readers.files import load_pickle
        from trainer.teachers import list_scenes

        data = goods.copy_rooms(folder)
        path = data / "embodiedscan" / "embodiedscan_infos_val.pkl"
        content = load_pickle(path)
        content["data_list"][0]["sample_idx"] = name
        path.write_bytes(pickle.dumps(content))
        (data / "posed_images").mkdir()
        (data / "scannet" / "posed_images" / "room0001_00").rename(data / "posed_images" / "out")
        return extract(folder, data, scene_ids=list_scenes(data, split="val"))

    add(
        "scene id ../ of an EmbodiedScan file writes outside the output folder",
        partial(embodied, name="../out"),
        "scene",
        "..",
    )
    add("scene id absolute of an EmbodiedScan file", partial(embodied, name="/out"), "scene", "/out")
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

        def store(folder: Path, make: Any = make) -> Any:
            from trainer.teachers import TeacherStore

            return TeacherStore(make(folder))

        add(f"store: folder {what}", store, *words)
    for what, fields in {"unknown": {"kind": "nonsense"}, "None": {"kind": None}, "an int": {"kind": 5}, "transformers without weights": {"kind": "transformers"},
                         "stored without a folder": {"kind": "stored"}, "protocol unknown": {"kind": "point_map", "protocol": "x"},
                         "weights that are not there": {"kind": "transformers", "weights": "./missing-folder"}}.items():  # fmt: skip

        def load(folder: Path, fields: dict = fields) -> Any:
            from trainer.teachers import load_teacher

            return load_teacher(**fields)

        add(f"load_teacher: {what}", load, "kind", "teacher", "weights", "data_dir", "protocol", "missing-folder")
    for what, fields in {"wavelengths of strings": {"wavelengths": ("a",)}, "wavelengths of 0": {"wavelengths": (0.0,)}, "wavelengths NaN": {"wavelengths": (np.nan,)},
                         "wavelengths empty": {"wavelengths": ()}, "wavelengths negative": {"wavelengths": (-1.0,)}, "wavelengths a number": {"wavelengths": 4.0},
                         "camera unknown": {"camera": "x"}, "camera a number": {"camera": 5}}.items():  # fmt: skip

        def point_map(folder: Path, fields: dict = fields) -> Any:
            from trainer.teachers import PointMapTeacher

            return PointMapTeacher(**fields)

        add(f"PointMapTeacher: {what}", point_map, *fields)


class _Teacher:
    """A teacher that sees nothing."""

    name, version, licence, preprocessing, protocol, feature_size = "none", "1", "mit", "none", "clean", 5

    def compute_features(self, frames: Any, geometry: Any, grid: Any, source: Any = None) -> Any:
        import torch

        return torch.zeros(len(frames), *grid.shape, 5)
