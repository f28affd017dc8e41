"""Cases of training: arguments, checkpoints to resume from, recipes, samples, supervision of other models."""

import copy
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import FILES, NUMBERS, PATHS, damaged, make_fifo

GEOMETRY = ("depth", "intrinsics", "camera_to_world")
QUIET = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1, "max_steps": 1,
         "learning_rate": 1e-3, "lr_scheduler_type": "constant", "per_device_train_batch_size": 1}  # fmt: skip


def _sample(**fields: Any) -> dict[str, Any]:
    from training_samples import make_sample

    made = {**make_sample(2), **fields}
    return {key: value for key, value in made.items() if value is not ...}


def train(
    folder: Path,
    samples: Any = None,
    model: Any = None,
    collator: Any = None,
    resume: Any = None,
    output: str = "run",
    **arguments: Any,
) -> Any:
    """Train a nano model for a step."""
    from training_samples import build_collator, build_model

    from trainer import IDE3DTrainer, IDE3DTrainingArguments

    args = IDE3DTrainingArguments(**{"output_dir": str(folder / output), **QUIET, **arguments})
    trainer = IDE3DTrainer(model=model or build_model(), args=args, train_dataset=samples or [_sample(teacher_features=_teacher())],
                           data_collator=None if collator == "none" else collator or build_collator())  # fmt: skip
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def _teacher(views: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(views, 3, 3, 6)).astype(np.float32)


@door(
    "training arguments", "trainer.IDE3DTrainingArguments", "trainer.IDE3DTrainer", "trainer.loop.get_last_checkpoint"
)
def arguments(add: Callable[..., None]) -> None:
    add("right: a step", train, expect="taken")
    inf, nan = float("inf"), float("nan")
    reals = {
        "float('inf')": inf,
        "float('nan')": nan,
        "-1.0": -1.0,
        "'x'": "x",
        "[1]": [1],
        "None": None,
        "-inf": -inf,
    }
    counts = {"-1": -1, "1.5": 1.5, "'x'": "x", "None": None, "float('nan')": nan, "[1]": [1]}
    optional = ("overlap_weight", "consistency_weight", "vision_learning_rate", "projector_learning_rate", "language_learning_rate",
                "grounding_learning_rate", "geometry_learning_rate")  # fmt: skip
    for name in (
        "depth_weight",
        "cross_view_weight",
        "overlap_weight",
        "consistency_weight",
        "distillation_weight",
        "grounding_weight",
        *optional[2:],
    ):
        for what, value in reals.items():
            if value is not None or name not in optional:
                add(f"{name}={what}", lambda f, n=name, v=value: train(f, **{n: v}), name)
    for name in (
        "geometry_start_step",
        "geometry_warmup_steps",
        "geometry_decay_steps",
        "neighbor_range",
        "pairs_per_frame",
        "max_nonfinite",
    ):
        for what, value in {**counts, **({"0": 0} if name in ("neighbor_range", "pairs_per_frame") else {})}.items():
            mode = {"pair_mode": "random"} if name == "pairs_per_frame" else {}
            add(f"{name}={what}", lambda f, n=name, v=value, m=mode: train(f, **{**m, n: v}), name)
    for name, values in {
        "pair_mode": ("far", None, 5), "protocol": ("nonsense", None, 5), "geometry_decay_type": ("cubic", None, 5), "mixture_batches": ("odd", None),
        "frozen_parts": (["nonsense"], "vision", 5, ["vision", "vision"]), "depth_range": ([1.0], [3.0, 1.0], [nan, 1.0], ["a", "b"], 5, [-1.0, 2.0], [0.0, 0.0]),
        "learning_rate": (1e6, -1.0, nan, "x"), "max_steps": (0, "x", 1.5), "label_smoothing_factor": (0.1, 2.0, -1.0, "x"), "fp16": (True, "x"),
        "max_grad_norm": (-1.0, nan, "x"), "per_device_train_batch_size": (0, -1, "x"), "gradient_accumulation_steps": (0, -1, "x"),
        "num_train_epochs": (-1.0, nan, "x"), "weight_decay": (-1.0, nan, "x"), "warmup_steps": (-1, nan, "x"), "lr_scheduler_type": ("nonsense", 5),
        "optim": ("nonsense", 5), "save_strategy": ("nonsense",), "save_steps": (-1, "x"), "seed": ("x", 1.5), "output_dir": ("", 5),
        "eval_strategy": ("steps", "nonsense"), "logging_steps": (-1, "x"), "adam_beta1": (2.0, -1.0), "report_to": ("nonsense",), "dataloader_num_workers": (-1, "x"),
        "misspelt_argument": (1,), "remove_unused_columns": (True,), "load_best_model_at_end": (True,), "torch_compile": ("x",), "bf16": ("x",),
    }.items():  # fmt: skip
        for value in values:
            title = f"{name}=1e6" if value == 1e6 else f"{name}={value!r}"
            expect = (
                "either"
                if (name, value)
                in (("label_smoothing_factor", 0.1), ("seed", 1.5), ("save_steps", -1), ("logging_steps", -1))
                else "refused"
            )
            expect = "either" if value == ["vision", "vision"] or (name, value) == ("output_dir", "") else expect
            add(title, lambda f, n=name, v=value: train(f, **{n: v}), name, name.replace("_", " "), "eval_dataset", expect=expect,
                reason="an argument of Trainer")  # fmt: skip
    contradictions: dict[str, dict] = {
        "geometry starts behind the end": {"geometry_start_step": 9}, "geometry warms up behind the end": {"geometry_warmup_steps": 9},
        "geometry decays over more steps than there are": {"geometry_decay_steps": 9}, "warmup and decay overlap": {"max_steps": 3, "geometry_warmup_steps": 2, "geometry_decay_steps": 2},
        "all parts frozen": {"frozen_parts": ["vision", "projector", "language", "grounding", "geometry"]},
        "a rate for a frozen part": {"frozen_parts": ["vision"], "vision_learning_rate": 1e-3}, "fp16 and bf16": {"fp16": True, "bf16": True},
    }  # fmt: skip
    for what, fields in contradictions.items():
        add(what, lambda f, fields=fields: train(f, **fields), *fields, "geometry", "step", "frozen")
    add("no collator", lambda f: train(f, collator="none"), "collator")
    add("geometry without a validator", lambda f: train(f, model=_model(validator=False)), "validator", "depth")
    add("a teacher without a projector", lambda f: train(f, model=_model(teacher_size=None)), "teacher", "projector")
    add(
        "NaN teacher features",
        lambda f: train(f, [_sample(teacher_features=_teacher() * np.nan)]),
        "teacher_features",
        "finite",
        "nan",
    )
    add("no samples", lambda f: train(f, samples=_Empty()), "dataset", "sample", "num_samples")
    add("samples of another kind", lambda f: train(f, [5]), "sample", "mapping", "dict")

    def finished(folder: Path) -> None:
        before = train(folder, save_strategy="steps", save_steps=1)
        after = train(folder, save_strategy="steps", save_steps=1, resume=folder / "run" / "checkpoint-1")
        if after.state.global_step != before.state.global_step:
            raise AssertionError("A finished run trained on.")

    add("a finished run is started again", finished, "finished", "max_steps", "checkpoint", expect="either")
    _resume(add)


class _Empty(list):
    def __bool__(self) -> bool:
        return True


def _model(**fields: Any) -> Any:
    from training_samples import build_model

    return build_model(**fields)


def checkpoint() -> Path:
    """A checkpoint of one step of two, in a folder of a run. Do not write into it."""

    def make(path: Path) -> None:
        train(path.parent, output=path.name, max_steps=2, save_strategy="steps", save_steps=1)

    return goods._once("run", make) / "checkpoint-1"


def _resume(add: Callable[..., None]) -> None:
    def resume(folder: Path, change: Callable[[Path], Any] = lambda path: None) -> Any:
        path = folder / "run" / "checkpoint-1"
        shutil.copytree(checkpoint(), path)
        change(path)
        return train(folder, max_steps=2, resume=path)

    add("right: resume", resume, expect="taken")
    files = (
        "model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "config.json",
        "trainer_state.json",
        "training_args.bin",
        "geometry_heads.safetensors",
    )
    for name in files:
        for what, change in FILES.items():

            def damage(path: Path, name: str = name, change: Any = change) -> None:
                _find(path, name).write_bytes(change(_find(path, name).read_bytes()))

            expect = "either" if name in ("training_args.bin",) else "refused"
            add(
                f"resume: {name} {what}",
                lambda f, d=damage: resume(f, d),
                name,
                name.split(".")[0],
                "geometry",
                expect=expect,
            )
        for what, change in {
            "missing": lambda p: p.unlink(),
            "a folder": lambda p: (p.unlink(), p.mkdir()),
            "a pipe": make_fifo,
        }.items():
            if what == "a pipe" and name not in ("model.safetensors", "trainer_state.json"):
                continue
            add(
                f"resume: {name} {what}",
                lambda f, n=name, c=change: resume(f, lambda p: c(_find(p, n))),
                name,
                name.split(".")[0],
                "geometry",
                "checkpoint",
            )
    for what, make in PATHS.items():

        def last(folder: Path, make: Any = make) -> Any:
            return train(folder, resume=make(folder))

        if what not in ("None", "empty name"):
            add(
                f"resume: path {what}",
                last,
                "checkpoint",
                "missing-file",
                "given",
                "pipe",
                "inner",
                "loop",
                "/dev/full",
                "xxx",
                "987654321",
            )


def _find(path: Path, name: str) -> Path:
    if name.startswith("geometry"):
        from trainer.loop.checkpoints import GEOMETRY_WEIGHTS

        return path / GEOMETRY_WEIGHTS
    return path / name


@door("recipes", "trainer.recipes.read_recipe", "trainer.recipes.run_recipe", "trainer.recipes.train", "trainer.recipes.dry_run",
      "trainer.recipes.DataArguments", "trainer.recipes.ModelArguments", "trainer.recipes.build_parser", "trainer.recipes.room_options")  # fmt: skip
def recipes(add: Callable[..., None]) -> None:
    from bad_inputs.goods import root

    def write(folder: Path, text: Any = None, **changes: Any) -> Path:
        from tiny_recipes import TINY_RECIPE

        path = folder / "tiny.yaml"
        content = {
            **TINY_RECIPE,
            "output_dir": str(folder / "out"),
            "num_rooms": 1,
            "max_steps": 1,
            "naming_steps": 0,
            "reading_steps": 0,
            **changes,
        }
        path.write_text(text if text is not None else yaml.safe_dump(content))
        return path

    def read(folder: Path, text: Any = None, words: Any = (), **changes: Any) -> Any:
        from trainer.recipes import read_recipe

        return read_recipe(write(folder, text, **changes), words)

    def run(folder: Path, **changes: Any) -> Any:
        import datasets

        from trainer.recipes import run_recipe

        datasets.config.HF_DATASETS_CACHE = root() / "cache"
        return run_recipe(*read(folder, **changes))

    add("right: read", read, expect="taken")
    for what, text in {
        "broken YAML": "a: [1, 2", "empty": "", "a list": "- max_steps", "a word": "max_steps", "a number": "5", "binary": "\x00\x01", "tabs": "a:\n\t- b",
        "a doubled key": "max_steps: 1\nmax_steps: 2\n", "an object": "a: !!python/object/apply:os.system ['true']\n", "a Python name": "a: !!python/name:os.system\n",
        "an alias bomb": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c]\n",
        "deep": "a: " + "[" * 3000, "two documents": "max_steps: 1\n---\nmax_steps: 2\n", "keys of numbers": "1: 2\n", "a null key": "~: 2\n",
        "JSON": '{"max_steps": 1', "a date": "max_steps: 2020-01-01\n", "an unknown tag": "max_steps: !x 1\n",
    }.items():  # fmt: skip
        add(what, lambda f, t=text: read(f, t), "tiny.yaml", "max_steps", "argument")
    for what, change in FILES.items():

        def damage(folder: Path, change: Any = change) -> Any:
            from trainer.recipes import read_recipe

            path = write(folder)
            path.write_bytes(change(path.read_bytes()))
            return read_recipe(path)

        add(f"file {what}", damage, "tiny.yaml", expect="either" if what == "half" else "refused")
    for what, make in PATHS.items():

        def by_path(folder: Path, make: Any = make) -> Any:
            from trainer.recipes import read_recipe

            return read_recipe(make(folder))

        add(
            f"path {what}",
            by_path,
            "missing-file",
            "given",
            "pipe",
            "inner",
            "loop",
            "/dev/full",
            "xxx",
            "path",
            "recipe",
            "file",
        )
    for what, words in {"abbreviated key (argparse prefix)": ["--max_st", "3"], "unknown": ["--nonsense", "1"], "stray": ["stray"], "without a value": ["--max_steps"],
                        "a word for a number": ["--max_steps", "x"], "numbers": [5], "a string": "--max_steps 5", "None": None, "twice": ["--max_steps", "1", "--max_steps", "2"]}.items():  # fmt: skip
        add(
            what if what.startswith("abb") else f"words {what}",
            lambda f, w=words: read(f, words=w),
            "max_st",
            "nonsense",
            "stray",
            "words",
            expect="either" if what == "twice" else "refused",
        )
    add("abbreviated key of the file", lambda f: read(f, max_st=3), "max_st")
    changed: dict[str, tuple] = {
        "num_rooms": (0, -1, "x", 1.5, None, [1]), "num_validation_rooms": (-1, "x"), "image_size": (0, -8, "x", 7), "num_frames": (0, -1, "x"), "patch_size": (0, "x", 99),
        "hidden_size": (0, -1, "x", 7), "text_layers": (0, -1), "spatial_pool_stride": (0, "x"), "max_questions": (0, -1, "x"), "max_grounding": (-1, "x"),
        "grounding_share": (7, -1, "x", float("nan")), "place_samples": (-1, "x"), "naming_steps": (-1, "x"), "reading_steps": (-1,), "mention_weight": (-1.0, "x"),
        "lessons": (["nonsense=1"], ["view=x"], ["view=-1"], 5, ["view"], ["view=0"]), "room_style": ("nonsense", 5), "reference": ("nonsense",), "source": ("nonsense", 5),
        "teacher": ("nonsense", 5), "validator": ("nonsense", 5), "validator_stride": (0, "x"), "lora_rank": (-1, "x"), "lora_dropout": (2.0, -1.0), "lora_alpha": (-1.0,),
        "dtype": ("float99",), "attention": ("nonsense",), "rope_theta": (0.0, -1.0), "model_name_or_path": ("./missing-folder", 5), "learning_rate": ("x", -1.0),
        "planned_processes": (0, -1), "planned_sharding": ("x",), "planned_teacher_size": (0,), "planned_text_tokens": (-1,), "validator_chunk": (0, -1),
        "lesson_learning_rate": (-1.0, "x"), "data_seed_rooms": ("x", -1), "word_search": ("x",), "dry_run": ("x",), "tie_word_embeddings": ("x",), "output_dir": (5,), "num_romms": (1,),
    }  # fmt: skip
    for name, values in changed.items():
        for value in values:
            title = {("num_rooms", 0): "no rooms", ("grounding_share", 7): "grounding share 7"}.get(
                (name, value) if not isinstance(value, list) else (), f"{name}: {value!r}"
            )
            expect = (
                "either"
                if (name, value) in (("data_seed_rooms", -1), ("output_dir", 5)) or name.startswith("planned")
                else "refused"
            )
            run_it = run if not name.startswith("planned") else read
            add(title, lambda f, r=run_it, n=name, v=value: r(f, **{n: v}), name, "missing-folder", expect=expect)
    benchmarks = {"source": "benchmarks", "data_dir": "DATA", "tasks": ["scanqa"]}
    for what, fields in {
        "weights of other number": {"tasks": ["scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d"], "task_weights": [1.0]}, "negative weights": {"task_weights": [-1.0]},
        "weights 0": {"task_weights": [0.0]}, "weights NaN": {"task_weights": [float("nan")]}, "no task": {"tasks": []}, "an unknown task": {"tasks": ["nonsense"]}, "tasks twice": {"tasks": ["scanqa", "scanqa"]},
        "no data folder": {"data_dir": None}, "a missing data folder": {"data_dir": "./missing-folder"}, "no validation": {"num_validation_samples": -1},
        "a checkpoint that is not there": {"model_name_or_path": "./missing-folder"},
    }.items():  # fmt: skip

        def on_benchmarks(folder: Path, fields: dict = fields) -> Any:
            given = {**benchmarks, "model_name_or_path": str(goods.model_folder()), "teacher": "none", **fields}
            given["data_dir"] = str(goods.rooms_folder()) if given["data_dir"] == "DATA" else given["data_dir"]
            return run(folder, **given)

        add(
            f"benchmarks, {what}",
            on_benchmarks,
            "task_weights",
            "weight",
            "task",
            "data_dir",
            "missing-folder",
            "num_validation_samples",
        )

    def dry(folder: Path, **changes: Any) -> Any:
        from trainer.recipes import dry_run

        return dry_run(*read(folder, dry_run=True, **changes))

    add(
        "dry run with a config that is not there",
        lambda f: dry(f, planned_config="x", model_name_or_path="x"),
        "planned_config",
        "config",
    )
    add(
        "dry run with a broken config",
        lambda f: ((f / "c.json").write_text("{"), dry(f, planned_config=str(f / "c.json"), model_name_or_path="x")),
        "planned_config",
        "c.json",
    )


@door("training samples (collator)", "trainer.IDE3DDataCollator", "trainer.data.prepare_geometry", "trainer.nano.MentionCollator",
      "trainer.nano.CellNamingCollator", "trainer.nano.RegionReadingCollator")  # fmt: skip
def samples(add: Callable[..., None]) -> None:
    def collate(
        folder: Path, sample: Any = None, *, change: Callable[[dict], Any] | None = None, **fields: Any
    ) -> Any:
        from training_samples import build_collator

        sample = _sample(scene_id="room7", **fields) if sample is None else sample
        if change is not None:
            change(sample)
        return build_collator()([sample])

    def grounding(folder: Path, **fields: Any) -> Any:
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
        "frames": (),
    }
    for name, shape in shapes.items():
        for what in damaged(np.ones(shape), skip.get(name, ())):

            def damage(folder: Path, name: str = name, what: str = what) -> Any:
                right = _teacher() if name == "teacher_features" else _sample()[name]
                return collate(folder, **{name: damaged(np.asarray(right))[what]()})

            title = {("teacher_features", "all NaN"): "teacher features NaN"}.get((name, what), f"{name} {what}")
            add(title, damage, name, "room7", "frame" if name == "frames" else name)
    for name, shape in {"region_masks": (3, 2, 3, 3), "region_targets": (4,)}.items():
        for what in damaged(np.ones(shape), ("a NaN", "an Inf", "a negative Inf", "float64 beyond float32")):
            if name == "region_targets" and what in ("last axis one less", "last axis one more", "last axis empty"):
                continue

            def damage_regions(folder: Path, name: str = name, what: str = what) -> Any:
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

        def raw(folder: Path, sample: Any = sample) -> Any:
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
        expect = "either" if what in ("frames channels first",) else "refused"
        add(what, lambda f, v=value: collate(f, frames=v()), "room7", expect=expect)
    for what, fields in {
        "depth of another aspect": {"depth": np.ones((2, 48, 48), np.float32)}, "depth in millimetres": {"depth": _depth() * 1000}, "depth negative": {"depth": -_depth()},
        "depth turned by 90 degrees": {"depth": np.rot90(_depth(), axes=(1, 2)).copy()}, "depth uint16 millimetres": {"depth": (_depth() * 1000).astype(np.uint16)},
        "poses in millimetres": {"camera_to_world": _poses(1000.0)}, "intrinsics normalised": {"intrinsics": np.tile(np.array([[0.9, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1.0]]), (2, 1, 1))},
        "intrinsics last row 9 9 9": {"intrinsics": _row_nine()}, "poses without intrinsics": {"intrinsics": ...}, "intrinsics ten times": {"intrinsics": np.tile(np.array([[600.0, 0, 31], [0, 600, 23], [0, 0, 1]]), (2, 1, 1))},
        "scene_id a number": {"scene_id": 5}, "scene_id None": {"scene_id": None}, "scene_id of ../": {"scene_id": "../x"}, "frame_names too few": {"frame_names": ["a"]}, "frame_names a string": {"frame_names": "ab"},
        "frame_names numbers": {"frame_names": [1, 2]}, "frame_names of ../": {"frame_names": ["../a", "b"]}, "teacher of other frames": {"teacher_features": _teacher(3)}, "teacher of another grid": {"teacher_features": np.ones((2, 4, 4, 6))},
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

        def build(folder: Path, fields: dict = fields) -> Any:
            from training_samples import build_processor

            from trainer import IDE3DDataCollator

            return IDE3DDataCollator(**{"processor": build_processor(), **fields})([_sample()])

        add(f"collator: {what}", build, *fields)

    def empty(folder: Path) -> Any:
        from training_samples import build_collator

        return build_collator()([])

    add("no sample", empty, "sample")


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


@door("GeometrySupervision", "trainer.GeometrySupervision", "trainer.supervision.SupervisedTrainer", "trainer.supervision.GeometryCriterion",
      "trainer.supervision.VisionLayout", "trainer.supervision.find_layout")  # fmt: skip
def supervision(add: Callable[..., None]) -> None:
    made: dict[str, Any] = {}

    def host(name: str = "qwen2_5_vl") -> Any:
        from tiny_hosts import HOSTS

        if name not in made:
            made[name] = HOSTS[name].build_model()
        return copy.deepcopy(made[name])

    def attach(folder: Path, **options: Any) -> Any:
        from trainer import GeometrySupervision

        given = {"model": host(), "validator": "light", "teacher_size": 6, **options}
        return GeometrySupervision.attach(given.pop("model"), **given)

    add("right: attach", attach, expect="taken")
    for name, values in {
        "model": {"None": None, "a string": "x", "a module": "module"}, "layout": {"unknown": "nonsense", "an int": 5, "a list": []}, "validator": {"unknown": "nonsense", "an int": 5, "a mapping": {}},
        "teacher_size": {k: v for k, v in NUMBERS.items() if k not in ("None", "huge")}, "criterion": {"a string": "x", "an int": 5},
        "loss_weights": {"unknown": {"loss_smell": 1.0}, "a string": "x", "an int": 5, "negative": {"loss_depth": -1.0}, "NaN": {"loss_depth": float("nan")}, "Inf": {"loss_depth": float("inf")}, "a text": {"loss_depth": "x"},
                         "None": {"loss_depth": None}, "all 0": dict.fromkeys(("loss_depth", "loss_cross_view_depth", "loss_overlap_l1", "loss_view_consistency", "loss_distillation"), 0.0)},
    }.items():  # fmt: skip
        for what, value in values.items():

            def run(folder: Path, name: str = name, value: Any = value) -> Any:
                import torch

                return attach(folder, **{name: torch.nn.Linear(2, 2) if value == "module" else value})

            add(f"attach: {name} {what}", run, name, "weight", "layout", "PreTrainedModel")
    add(
        "attach: neither validator nor teacher",
        lambda f: attach(f, validator=None, teacher_size=None),
        "validator",
        "weight",
        "teacher",
    )

    def compute(folder: Path, **targets: Any) -> Any:
        from supervised_hosts import frames, geometry
        from tiny_hosts import HOSTS
        from training_samples import make_sample

        sample = make_sample(2)
        supervised = attach(folder, teacher_size=None)
        supervised_model = made["last"]
        inputs = HOSTS["qwen2_5_vl"].build_inputs(frames(sample))
        supervised_model.train()(**inputs)
        given = {**geometry(sample), **targets}
        return supervised.compute_loss(**{key: value for key, value in given.items() if value is not ...})

    right_attach = attach

    def attach(folder: Path, **options: Any) -> Any:  # noqa: F811 - remembers the model
        made["last"] = options.setdefault("model", host())
        return right_attach(folder, **options)

    add("right: a loss", compute, expect="taken")
    import torch

    shapes = {"depth": (2, 48, 64), "intrinsics": (2, 3, 3), "camera_to_world": (2, 4, 4)}
    for name, shape in shapes.items():
        skip = ("last axis one less", "last axis one more", "one axis more") if name == "depth" else ("one axis more",)
        for what in damaged(np.ones(shape), skip):

            def damage(folder: Path, name: str = name, what: str = what) -> Any:
                from training_samples import make_sample

                value = damaged(np.asarray(make_sample(2)[name]))[what]()
                try:
                    value = torch.as_tensor(value)
                    value = (
                        value.float()
                        if what not in ("complex",) and value.is_floating_point() and what != "float64 beyond float32"
                        else value
                    )
                except (TypeError, ValueError, RuntimeError):
                    pass
                return compute(folder, **{name: [value]})

            add(f"{name} {what}", damage, name, "frame", "sample", "pose")
    for what, targets in {
        "depth of two samples": {"depth": [torch.ones(2, 48, 64)] * 2}, "depth None": {"depth": None}, "depth a string": {"depth": "x"}, "poses without intrinsics": {"intrinsics": ...}, "no targets": dict.fromkeys(shapes, ...),
        "has_geometry of floats": {"has_geometry": torch.tensor([0.3])}, "has_geometry of another batch": {"has_geometry": torch.ones(5, dtype=torch.bool)}, "teacher without a projector": {"teacher_features": [torch.ones(2, 3, 3, 6)]},
        "a misspelt target": {"depht": 1}, "depth in millimetres": {"depth": [torch.full((2, 48, 64), 2500.0)]},
    }.items():  # fmt: skip
        expect = "either" if what in ("no targets", "depth None") else "refused"
        add(
            what if what not in shapes else f"targets: {what}",
            lambda f, t=targets: compute(f, **t),
            "depth",
            "intrinsics",
            "has_geometry",
            "teacher",
            "depht",
            "sample",
            expect=expect,
        )
    add("a loss without a pass", lambda f: right_attach(f).compute_loss(depth=[torch.ones(2, 48, 64)]), "pass")
    for name, values in {"protocol": ("x", None, 5), "pair_mode": ("x", None, 5), "neighbor_range": (0, -1, "x", 1.5, None), "pairs_per_frame": (0, -1, "x", 1.5, None),
                         "depth_range": ((1.0,), (3.0, 1.0), "x", (float("nan"), 1.0), 5), "grounding_temperature": (0.0, -1.0, float("nan"), "x", None)}.items():  # fmt: skip
        for value in values:

            def criterion(folder: Path, name: str = name, value: Any = value) -> Any:
                from trainer.supervision import GeometryCriterion

                return GeometryCriterion(**{name: value})

            add(f"criterion: {name}={value!r}", criterion, name, "mode", "protocol", "range")
    for what, value in {"unknown": "nonsense", "an int": 5}.items():

        def layout(folder: Path, value: Any = value) -> Any:
            from trainer.supervision import find_layout

            return find_layout(host().config, value)

        add(f"find_layout: {what}", layout, "layout", "nonsense", "name")
    _ = (partial, make_fifo)
