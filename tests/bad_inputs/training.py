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
