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
from bad_inputs.loading import edit_weights


def evaluate(folder: Path, /, **fields: Any) -> Any:
    """Run a short evaluation."""
    from trainer.evaluation import EvaluationSettings, run_evaluation

    given = {"model": str(goods.model_folder()), "data": str(goods.rooms_folder()), "output": str(folder / "out"), "task": "scanqa",
             "meteor": False, "max_new_tokens": 1, "num_frames": 2, **fields}  # fmt: skip
    return run_evaluation(EvaluationSettings(**given))


@door("evaluation runner", "trainer.evaluation.run_evaluation", "trainer.evaluation.EvaluationSettings")
def runner(add: Callable[..., None]) -> None:
    add("right: a run", evaluate, expect="taken")
    add("right: a run twice", lambda f: (evaluate(f), evaluate(f)), expect="taken")

    def with_weights(folder: Path, /, change: Any, task: str) -> Any:
        model = goods.copy_model(folder)
        edit_weights(model / "model.safetensors", change)
        return evaluate(folder, model=str(model), task=task)

    half = lambda w: dict(list(w.items())[::2])  # noqa: E731
    nan = lambda w: {key: value * float("nan") for key, value in w.items()}  # noqa: E731
    for task in ("scanqa", "scanrefer"):
        title = "model with half of its weights missing" + (", grounding" if task == "scanrefer" else "")
        add(title, partial(with_weights, change=half, task=task), "missing", "weight", "finite")
        title = "model of NaN weights" + (", grounding" if task == "scanrefer" else "")
        add(title, partial(with_weights, change=nan, task=task), "finite", "nan")

    def again(folder: Path, /, name: str, change: Callable[[Path], Any], **fields: Any) -> Any:
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
    _modes(add)
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
            expect = "either" if (name, what) in (("max_memory", "1.5"), ("max_memory", "Inf")) else "refused"
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
            )


def _modes(add: Callable[..., None]) -> None:
    """Add modes that a task does not have, settings of another mode, and broken files of clicks."""

    def clicked(folder: Path, /, change: Callable[[dict], Any] = lambda clicks: None, **fields: Any) -> Any:
        """Describe by clicks, whose file was changed."""
        from trainer.evaluation.clicks import make_clicks

        path = folder / "clicks.json"
        make_clicks(goods.rooms_folder(), path, num_frames=2)
        content = json.loads(path.read_text())
        content = change(content) or content
        path.write_text(json.dumps(content))
        return evaluate(folder, task="scan2cap", mode="rgb_only", clicks=str(path), answer_only=True, **fields)

    def first(**parts: Any) -> Callable[[dict], None]:
        def change(content: dict) -> None:
            name = next(name for name, click in content["clicks"].items() if click)
            content["clicks"][name] |= parts

        return change

    def drop(content: dict) -> None:
        content["clicks"].pop(next(iter(content["clicks"])))

    for what, fields in {
        "found": {"task": "scanrefer", "mode": "rgb_only"}, "in words": {"task": "multi3drefer", "mode": "rgb_only", "finding": "words"},
        "questions": {"mode": "rgb_only"}, "given": {"task": "scanrefer", "mode": "proposals"},
    }.items():  # fmt: skip
        add(f"right: mode, {what}", lambda f, g=fields: evaluate(f, **g), expect="taken")
    add("right: mode, clicks", clicked, expect="taken")
    for what, value in {"unknown": "rgbd", **TEXTS}.items():
        add(
            f"settings: mode {what}",
            lambda f, v=value: evaluate(f, mode=v),
            "mode",
            expect="either" if value is None else "refused",
        )
    refused: dict[str, dict] = {
        "of a task without it": {"task": "scanqa", "mode": "proposals"},
        "with frames that geometry chose": {"task": "scanrefer", "mode": "rgb_only", "frames": "coverage"},
        "with given boxes": {"task": "scanrefer", "mode": "rgb_only", "boxes": "gt"},
        "with regions by poses": {"task": "scanrefer", "mode": "rgb_only", "regions": "poses"},
        "with finding of the other": {"task": "scanrefer", "finding": "words"},
        "with numbers and no words": {"task": "scanrefer", "mode": "rgb_only", "numbers": "bins"},
        "with unknown finding": {"task": "scanrefer", "mode": "rgb_only", "finding": "nose"},
        "without clicks": {"task": "scan2cap", "mode": "rgb_only"},
        "with clicks and no use": {"task": "scanqa", "clicks": "clicks.json"},
        "with clicks that are missing": {"task": "scan2cap", "mode": "rgb_only", "clicks": "missing-file"},
        "whose prompt tells the box": {"task": "scan2cap", "mode": "rgb_only", "clicks": "x", "protocol": "paper"},
    }  # fmt: skip
    for what, fields in refused.items():
        add(
            f"mode {what}",
            lambda f, g=fields: evaluate(f, **g),
            "mode",
            "finding",
            "clicks",
            "missing-file",
            "numbers",
        )
    broken: dict[str, Callable[[dict], Any]] = {
        "a list": lambda c: [c], "without source": lambda c: c.pop("source") and None, "of no sample": lambda c: c.update(clicks={}),
        "that lack a sample": drop, "a number": first(point=5), "of three numbers": first(point=[1, 2, 3]),
        "outside the frame": first(point=[1000.0, 2.0]), "negative": first(point=[-1.0, 2.0]), "NaN": first(point=[float("nan"), 2.0]),
        "of another scene": first(scene_id="scannet/room9999_00"), "of a frame that is not shown": first(frame="99999"),
        "of a frame without name": first(frame=3), "of another frame size": first(frame_size=[480, 640]),
        "of no frame size": first(frame_size=None), "with another field": first(box=[1]),
    }  # fmt: skip
    for what, change in broken.items():
        add(f"clicks {what}", partial(clicked, change=change), "click", "sample", "scene", "frame", "point")
    add("clicks for other frames", partial(clicked, num_frames=1), "click", "frame", expect="either")


PAIRS: dict[str, tuple[dict, dict]] = {
    "scanrefer": ({"box": [0.0, 0, 0, 1, 1, 1]}, {"box": [0.0, 0, 0, 1, 1, 1], "question_type": "unique"}),
    "boxes_in_words": (
        {"text": "[]"},
        {"boxes": [[0.0, 0, 0, 1, 1, 1, 0]], "camera_to_world": [np.eye(4).tolist()], "question_type": "one"},
    ),
    "multi3drefer": ({"boxes": [[0.0, 0, 0, 1, 1, 1]]}, {"boxes": [[0.0, 0, 0, 1, 1, 1]], "question_type": "st_w_d"}),
    "scanqa": ({"text": "a"}, {"id": "1", "texts": ["a", "b"]}),
    "sqa3d": ({"text": "a"}, {"text": "a", "question": "What is it?"}),
    "vsibench": ({"text": "A"}, {"text": "A", "question_type": "object_counting"}),
    "revsi": ({"text": "A"}, {"text": "A", "question_type": "object_counting_single"}),
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
            "question_type": {
                "vsibench": "object_counting",
                "revsi": "object_counting_single",
                "multi3drefer": "st_w_d",
                "scanrefer": "unique",
            }.get(name, "what")
        }

        if name == "boxes_in_words":
            fill |= {"text": "[]", "boxes": [[0.0, 0, 0, 1, 1, 1, 0]], "camera_to_world": [np.eye(4).tolist()]}

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
        /,
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

                expect = (
                    "either" if what in ("a string", "a number", "a mapping") else "refused"
                )  # `evaluate` writes them as text
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

        def lengths(folder: Path, /, name: str = name) -> Any:
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

    _boxes_in_words(add, compute)

    def score(folder: Path, /, **given: Any) -> Any:
        from trainer.evaluation import score_answers

        return score_answers(**{"task": "scanqa", "samples": [{"id": "1", "scene_id": "s", "answers": ["a"], "question": "?", "question_type": "x"}],
                                "answers": [{"id": "1", "text": "a"}], "protocol": "clean", "meteor": False, **given})  # fmt: skip

    for what, given in {
        "task unknown": {"task": "x"}, "task None": {"task": None}, "protocol unknown": {"protocol": "x"}, "answers too few": {"answers": []},
        "answers without text": {"answers": [{"id": "1"}]}, "answers a list of texts": {"answers": ["a"]}, "answers None": {"answers": None},
        "samples without answers": {"samples": [{"id": "1", "scene_id": "s"}]}, "samples None": {"samples": None}, "text a number": {"answers": [{"id": "1", "text": 5}]},
        "variant unknown": {"variant": "x"}, "answers of another sample": {"answers": [{"id": "2", "text": "a"}]},
        "scores for a text": {"answers": [{"id": "1", "scores": [1.0]}]},
        "boxes of texts": {"task": "scanrefer", "answers": [{"id": "1", "boxes": ["x"]}],
                           "samples": [{"id": "1", "scene_id": "s", "question_type": "unique", "candidate_boxes": [], "gt_boxes": [[0, 0, 0, 1, 1, 1]]}]},
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

        def load(folder: Path, /, value: Any = value) -> Any:
            from trainer.evaluation import load_metric

            return load_metric(value)

        add(f"load_metric: name {what}", load, "name", "metric")
    for what, statistics in {
        "of strings": np.array([["x"]]),
        "of rank 3": np.zeros((1, 1, 1)),
        "NaN": np.full((2, 2), np.nan),
        "None": None,
    }.items():

        def make_score(folder: Path, /, statistics: Any = statistics) -> Any:
            from trainer.evaluation.metrics import Score

            return Score(statistics)

        add(f"Score: statistics {what}", make_score, "statistics", expect="either" if what == "NaN" else "refused")
    _ = STEMS


def _boxes_in_words(add: Callable[..., None], compute: Callable[..., Any]) -> None:
    """Add references of boxes in words that are broken, and options."""
    pose = np.eye(4)
    damaged = {
        "boxes": {"without yaw": [[0, 0, 0, 1, 1, 1]], "of NaN": [[np.nan] * 7], "one box": [0, 0, 0, 1, 1, 1, 0],
                  "of negative size": [[0, 0, 0, -1, 1, 1, 0]], "of texts": [["x"] * 7], "ragged": [[0] * 7, [0]]},
        "camera_to_world": {"one pose": pose.tolist(), "of NaN": [(pose * np.nan).tolist()], "scaled": [(2 * pose).tolist()],
                            "of no frame": [], "(3, 4)": [pose[:3].tolist()], "of texts": [[["x"] * 4] * 4]},
    }  # fmt: skip
    for key, values in damaged.items():
        for what, value in values.items():

            def damage(_: dict, reference: dict, key: str = key, value: Any = value) -> None:
                reference[key] = value

            add(f"boxes_in_words: {key} {what}", partial(compute, name="boxes_in_words", change=damage), key)
    for what, value in {"unknown": "roman", "None": None, "a number": 5}.items():
        add(f"boxes_in_words: numbers {what}", lambda f, v=value: compute(f, "boxes_in_words", numbers=v), "numbers")
    add("boxes_in_words: protocol paper", lambda f: compute(f, "boxes_in_words", protocol="paper"), "protocol")
    for what, text in {
        "of prose": "a chair",
        "empty": "",
        "nested": "[" * 9999,
        "with half a surrogate": "\\ud800",
    }.items():

        def say(prediction: dict, _: dict, text: str = text) -> None:
            prediction["text"] = text

        add(f"boxes_in_words: an answer {what}", partial(compute, name="boxes_in_words", change=say), expect="taken")
