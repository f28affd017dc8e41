"""Cases of training: arguments, checkpoints to resume from, recipes, samples, supervision of other models."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import FILES, PATH_WORDS, PATHS, make_fifo

GEOMETRY = ("depth", "intrinsics", "camera_to_world")
# Wrong for every argument that is a number, a choice, a name, a flag or a list of names.
ODD: dict[str, Any] = {
    "bytes": b"x", "a function": len, "a type": int, "an object": object(), "a set": {1}, "a mapping": {"a": 1}, "a generator": (n for n in (1, 2)),
    "nested lists": [[[1]]], "an array": np.ones(3), "a time": np.datetime64("2020-01-01"), "complex": 1j, "digits of another script": "\u0663", "a long text": "x" * 10_000,
}  # fmt: skip
QUIET = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1, "max_steps": 1,
         "learning_rate": 1e-3, "lr_scheduler_type": "constant", "per_device_train_batch_size": 1}  # fmt: skip


def make_sample_of(**fields: Any) -> dict[str, Any]:
    from training_samples import make_sample

    made = {**make_sample(2), **fields}
    return {key: value for key, value in made.items() if value is not ...}


def train(
    folder: Path,
    /,
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
    trainer = IDE3DTrainer(model=model or build_model(), args=args, train_dataset=samples or [make_sample_of(teacher_features=teacher_of())],
                           data_collator=None if collator == "none" else collator or build_collator())  # fmt: skip
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def teacher_of(views: int = 2) -> np.ndarray:
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
        "pose_weight",
        "scale_weight",
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
        "loss_chunk_size",
    ):
        for what, value in {**counts, **({"0": 0} if name in ("neighbor_range", "pairs_per_frame") else {})}.items():
            mode = {"pair_mode": "random"} if name == "pairs_per_frame" else {}
            add(f"{name}={what}", lambda f, n=name, v=value, m=mode: train(f, **{**m, n: v}), name)
    for name, values in {
        "pair_mode": ("far", None, 5), "protocol": ("nonsense", None, 5), "geometry_decay_type": ("cubic", None, 5), "mixture_batches": ("odd", None),
        "distillation_layers": (["tower.1"], ["vision.99"], ["vision.1", "vision.1"], "vision.1", 5, [6]), "camera_layer": ("tower.1", "vision.99", "", 5, ["vision.1"]),
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
                in (
                    ("num_train_epochs", -1.0),
                    ("max_grad_norm", -1.0),
                    ("bf16", "x"),
                    ("label_smoothing_factor", 0.1),
                    ("seed", 1.5),
                    ("save_steps", -1),
                    ("logging_steps", -1),
                )
                else "refused"
            )
            expect = "either" if value == ["vision", "vision"] or (name, value) == ("output_dir", "") else expect
            add(title, lambda f, n=name, v=value: train(f, **{n: v}), name, name.replace("_", " "), "eval_dataset", "is not supported, only", expect=expect,
                reason="an argument of Trainer")  # fmt: skip
    contradictions: dict[str, dict] = {
        "geometry starts behind the end": {"geometry_start_step": 9}, "geometry warms up behind the end": {"geometry_warmup_steps": 9},
        "geometry decays over more steps than there are": {"geometry_decay_steps": 9}, "warmup and decay overlap": {"max_steps": 3, "geometry_warmup_steps": 2, "geometry_decay_steps": 2},
        "all parts frozen": {"frozen_parts": ["vision", "projector", "language", "grounding", "geometry"]},
        "a rate for a frozen part": {"frozen_parts": ["vision"], "vision_learning_rate": 1e-3}, "fp16 and bf16": {"fp16": True, "bf16": True},
    }  # fmt: skip
    for what, fields in contradictions.items():
        reason = "Trainer's own rule names both" if what == "fp16 and bf16" else ""
        add(what, lambda f, fields=fields: train(f, **fields), *fields, "geometry", "step", "frozen", reason=reason)
    add("no collator", lambda f: train(f, collator="none"), "collator")
    add("geometry without a validator", lambda f: train(f, model=_model(validator=False)), "validator", "depth")
    add("a teacher without a projector", lambda f: train(f, model=_model(teacher_size=None)), "teacher", "projector")
    add(
        "NaN teacher features",
        lambda f: train(f, [make_sample_of(teacher_features=teacher_of() * np.nan)]),
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

    _odd_arguments(add)
    add("a finished run is started again", finished, "finished", "max_steps", "checkpoint", expect="either")
    _resume(add)


def _odd_arguments(add: Callable[..., None]) -> None:
    """Add other types at every argument, Trainer's own among them; nothing is trained."""
    from trainer import IDE3DTrainingArguments
    from trainer.field_rules import find_kinds

    def build(folder: Path, /, **fields: Any) -> Any:
        return IDE3DTrainingArguments(**{"output_dir": str(folder / "run"), **QUIET, **fields})

    nan = float("nan")
    for name, kind in find_kinds(IDE3DTrainingArguments).items():
        if name.startswith("_") or name in ("framework", "parallelism_config", "debug"):
            continue
        kinds = (kind, *getattr(kind, "__args__", ()))
        wrong = {"an object": object(), "a function": len, "bytes": b"x", "a set": {1}, "complex": 1j}
        if str not in kinds and list[str] not in kinds:
            wrong |= {"a text": "x", "digits of another script": "\u0663"}
        if float in kinds or int in kinds:
            wrong |= {"true": True, "NaN, odd": nan, "-Inf": -float("inf"), "beyond float64": 10**400}
        if bool in kinds and name not in ("fsdp",):
            wrong |= {"a number": 5, "0.5": 0.5}
        for what, value in wrong.items():
            add(f"argument {name}: {what}", lambda f, n=name, v=value: build(f, **{n: v}), name)
    for name, values in {
        "adam_beta1": (1.5, nan), "adam_beta2": (-0.1,), "adam_epsilon": (-1e-8,), "max_grad_norm": (-2.0,), "warmup_steps": (-0.5,), "eval_delay": (-1,), "neftune_noise_alpha": (-1.0,), "seed": (-1, 2**32),
        "data_seed": (-1,), "dataloader_num_workers": (-3, 10**12), "dataloader_prefetch_factor": (0,), "save_total_limit": (-1,), "eval_accumulation_steps": (0, 1.5), "per_device_eval_batch_size": (0, 10**30),
        "log_level": ("loud",), "train_sampling_strategy": ("odd",), "include_num_input_tokens_seen": ("some",), "lr_scheduler_kwargs": ("x", "[1]", "{"), "gradient_checkpointing_kwargs": ("x",), "accelerator_config": ("missing-file", 5),
        "fsdp_config": ("missing-file",), "deepspeed": ("missing-file",), "label_names": ("labels",), "include_for_metrics": ("x", [5]), "hub_strategy": ("odd",), "logging_strategy": ("odd", None), "eval_strategy": (5,),
        "depth_range": ((1, 2, 3), "ab", {}, (True, 2.0), ("0", "1"), (0.1, float("inf")), np.array([2.0, 1.0]), [[0, 1]]), "frozen_parts": ([5], {"vision"}, [None], [b"vision"]), "max_steps": (10**30, -2), "geometry_start_step": (10**30,),
    }.items():  # fmt: skip
        for value in values:
            add(f"argument {name}: {value!r}", lambda f, n=name, v=value: build(f, **{n: v}), name)
    for what, fields in {
        "a path": {"output_dir": Path("run")}, "numbers of NumPy": {"max_steps": np.int64(3), "learning_rate": np.float32(1e-3), "bf16": np.bool_(False)}, "a whole float": {"max_steps": 3.0}, "an int for a float": {"learning_rate": 1},
        "a tuple for a list": {"frozen_parts": ("vision",)}, "a range of NumPy": {"depth_range": np.array([0.1, 8.0])}, "a tuple for a range": {"depth_range": (0, 8)}, "options as a mapping": {"lr_scheduler_kwargs": {"num_cycles": 2}},
        "options as JSON": {"lr_scheduler_kwargs": '{"num_cycles": 2}'}, "no clipping": {"max_grad_norm": 0}, "a share of the steps": {"warmup_steps": 0.1, "logging_steps": 0.5}, "no limit": {"save_total_limit": None},
    }.items():  # fmt: skip
        add(f"right: {what}", lambda f, o=fields: build(f, **o), expect="taken")


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
    def resume(folder: Path, /, change: Callable[[Path], Any] = lambda path: None) -> Any:
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
                expect="either" if name == "training_args.bin" else "refused",  # Nothing reads it.
            )
    for what, make in PATHS.items():

        def last(folder: Path, /, make: Any = make) -> Any:
            return train(folder, resume=make(folder))

        if what not in ("None", "empty name"):
            add(
                f"resume: path {what}",
                last,
                "checkpoint",
                *PATH_WORDS,
                "987654321",
            )


def _find(path: Path, name: str) -> Path:
    if name.startswith("geometry"):
        from trainer.loop.checkpoints import GEOMETRY_WEIGHTS

        return path / GEOMETRY_WEIGHTS
    return path / name
