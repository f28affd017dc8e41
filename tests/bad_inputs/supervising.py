"""Cases of the geometry supervision of other models."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs.cases import door
from bad_inputs.damage import NUMBERS, damaged, make_fifo
from bad_inputs.training import ODD


@door("GeometrySupervision", "trainer.GeometrySupervision", "trainer.supervision.SupervisedTrainer", "trainer.supervision.SupervisedTraining", "trainer.supervision.GeometryCriterion",
      "trainer.supervision.VisionLayout", "trainer.supervision.find_layout")  # fmt: skip
def supervision(add: Callable[..., None]) -> None:
    made: dict[str, Any] = {}

    def host(name: str = "qwen2_5_vl") -> Any:
        from tiny_hosts import HOSTS

        if name not in made:
            made[name] = HOSTS[name].build_model()
        return copy.deepcopy(made[name])

    def attach(folder: Path, /, **options: Any) -> Any:
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

            def run(folder: Path, /, name: str = name, value: Any = value) -> Any:
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

    def compute(folder: Path, /, *, teacher_size: int | None = None, loss_weights: Any = None, **targets: Any) -> Any:
        from supervised_hosts import frames, geometry
        from tiny_hosts import HOSTS
        from training_samples import make_sample

        sample = make_sample(2)
        supervised = attach(folder, teacher_size=teacher_size, loss_weights=loss_weights)
        supervised_model = made["last"]
        inputs = HOSTS["qwen2_5_vl"].build_inputs(frames(sample))
        supervised_model.train()(**inputs)
        given = {**geometry(sample), **targets}
        return supervised.compute_loss(**{key: value for key, value in given.items() if value is not ...})

    right_attach = attach

    def attach(folder: Path, /, **options: Any) -> Any:  # noqa: F811 - remembers the model
        made["last"] = options.setdefault("model", host())
        return right_attach(folder, **options)

    add("right: a loss", compute, expect="taken")
    import torch

    shapes = {"depth": (2, 48, 64), "intrinsics": (2, 3, 3), "camera_to_world": (2, 4, 4)}
    for name, shape in shapes.items():
        skip = ("last axis one less", "last axis one more", "one axis more") if name == "depth" else ("one axis more",)
        for what in damaged(np.ones(shape), skip):

            def damage(folder: Path, /, name: str = name, what: str = what) -> Any:
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
        "depth of two samples": {"depth": [torch.ones(2, 48, 64)] * 2}, "no depth": {"depth": None}, "poses without intrinsics": {"intrinsics": ...}, "no targets": dict.fromkeys(shapes, ...),
        "has_geometry of floats": {"has_geometry": torch.tensor([0.3])}, "has_geometry of another batch": {"has_geometry": torch.ones(5, dtype=torch.bool)}, "teacher without a projector": {"teacher_features": [torch.ones(2, 3, 3, 6)]},
        "a misspelt target": {"depht": 1}, "depth in millimetres": {"depth": [torch.full((2, 48, 64), 2500.0)]},
    }.items():  # fmt: skip
        expect = "either" if what in ("no targets", "no depth") else "refused"
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

            def criterion(folder: Path, /, name: str = name, value: Any = value) -> Any:
                from trainer.supervision import GeometryCriterion

                return GeometryCriterion(**{name: value})

            add(f"criterion: {name}={value!r}", criterion, name, "mode", "protocol", "range")
    for what, value in {"unknown": "nonsense", "an int": 5}.items():

        def layout(folder: Path, /, value: Any = value) -> Any:
            from trainer.supervision import find_layout

            return find_layout(host().config, value)

        add(f"find_layout: {what}", layout, "layout", "nonsense", "name")
    _odd_arguments(add, attach, compute, host)
    _joined(add, right_attach, host)
    _ = (partial, make_fifo)


def _odd_arguments(
    add: Callable[..., None], attach: Callable[..., Any], compute: Callable[..., Any], host: Callable[..., Any]
) -> None:
    """Add what a stranger may give: other types at every argument, other shapes and types at every target."""
    import torch

    for name in ("model", "layout", "validator", "teacher_size", "criterion", "loss_weights"):
        for what, value in ODD.items():
            if (name, what) == ("loss_weights", "a mapping"):
                value = {5: 1.0}
            add(f"attach: {name} {what}, odd", lambda f, n=name, v=value: attach(f, **{n: v}), name, "PreTrainedModel")
    for what, value in {"a list": [1.0], "a bool": True, "complex": 1j, "bytes": b"1", "a tensor of two": torch.ones(2), "a mapping": {}}.items():  # fmt: skip
        add(f"attach: weight {what}", lambda f, v=value: attach(f, loss_weights={"loss_depth": v}), "loss_depth")
    for what, value in {"a bool": True, "True as text": "True", "a float": 5.5, "a tensor": torch.ones(2), "beyond float64": 10**400}.items():  # fmt: skip
        add(f"attach: teacher_size {what}, odd", lambda f, v=value: attach(f, teacher_size=v), "teacher_size")
    add("attach: the class", lambda f: attach(f, model=type(host())), "PreTrainedModel")
    add("attach: a layout class", lambda f: attach(f, layout=_layout_class()), "layout")
    add("attach: a validator class", lambda f: attach(f, validator=_validator_class()), "validator")
    add("attach: a validator of another tower", lambda f: attach(f, validator=_other_validator()), "validator")
    add("attach: supervised twice", lambda f: _attach_twice(attach, host()), "supervised", "already")
    add("right: teacher_size of NumPy", lambda f: attach(f, teacher_size=np.int64(6)), expect="taken")
    cameras = {"loss_pose": 1.0, "loss_scale": 0.5}
    add("right: camera terms", lambda f: attach(f, validator=None, loss_weights=cameras), expect="taken")
    add("right: a loss of cameras", lambda f: compute(f, loss_weights=cameras), expect="taken")
    for what, weight in {"NaN": float("nan"), "a text": "x", "negative": -1.0}.items():
        add(f"attach: loss_pose {what}", lambda f, w=weight: attach(f, loss_weights={"loss_pose": w}), "loss_pose")
    add("right: weights of NumPy", lambda f: attach(f, loss_weights={"loss_depth": np.float32(1)}), expect="taken")
    layers = ["vision.1", "language.0"]
    add("right: layers", lambda f: attach(f, distillation_layers=layers, camera_layer="vision.2"), expect="taken")
    for what, value in {**ODD, "unknown": ["tower.1"], "beyond the last": ["vision.3"], "negative": ["language.-1"], "twice": ["vision.1"] * 2, "none": [], "a text": "vision.1",
                        "numbers": [6, 12], "a number": 6}.items():  # fmt: skip
        add(f"attach: distillation_layers {what}", lambda f, v=value: attach(f, distillation_layers=v), "distillation_layers")  # fmt: skip
    for what, value in {**ODD, "unknown": "tower.1", "beyond the last": "language.3", "a list": ["vision.1"], "a number": 6, "empty": ""}.items():  # fmt: skip
        add(f"attach: camera_layer {what}", lambda f, v=value: attach(f, camera_layer=v), "camera_layer")
    add("attach: layers without a teacher", lambda f: attach(f, teacher_size=None, distillation_layers=layers), "teacher_size")  # fmt: skip
    for name in ("depth", "intrinsics", "camera_to_world", "has_geometry", "teacher_features"):
        for what, value in {**ODD, "a text": "x", "a number": 5, "True": True, "a scalar tensor": torch.tensor(1.0), "no entry": [], "two entries": [None, None],
                            "a list of a number": [5], "a list of a text": ["x"], "a list of a mapping": [{}], "a list of True": [True], "a list of a scalar": [torch.tensor(1.0)],
                            "a list of booleans": [torch.ones(2, 3, 3, dtype=torch.bool)], "a list of another shape": [torch.ones(2, 7)], "a list of an empty tensor": [torch.ones(0)],
                            "half a number": torch.full((1,), 0.5), "a list of complex": [torch.ones(2, 3, 3, dtype=torch.complex64)], "sparse": [torch.ones(2, 3, 3).to_sparse()]}.items():  # fmt: skip

            def run(folder: Path, /, name: str = name, value: Any = value) -> Any:
                return compute(folder, teacher_size=6 if name == "teacher_features" else None, **{name: value})

            expect = (
                "either" if name == "has_geometry" and what in ("a list of True", "a list of a scalar") else "refused"
            )
            add(f"targets: {name} {what}", run, name, "sample", expect=expect)
    for what, value in {
        "all NaN": lambda: [torch.full((2, 3, 3, 6), torch.nan)], "an Inf": lambda: [torch.full((2, 3, 3, 6), torch.inf)], "of another width": lambda: [torch.ones(2, 3, 3, 5)],
        "of no width": lambda: [torch.ones(2, 3, 3, 0)], "of another grid": lambda: [torch.ones(2, 4, 4, 6)], "of 7 frames": lambda: [torch.ones(7, 3, 3, 6)],
        "beyond float32": lambda: [torch.full((2, 3, 3, 6), 1e300, dtype=torch.float64)],
    }.items():  # fmt: skip
        add(
            f"teacher_features {what}",
            lambda f, v=value: compute(f, teacher_size=6, teacher_features=v()),
            "teacher",
        )
    for name in ("protocol", "pair_mode", "neighbor_range", "pairs_per_frame", "depth_range", "grounding_temperature"):
        for what, value in ODD.items():

            def criterion(folder: Path, /, name: str = name, value: Any = value) -> Any:
                from trainer.supervision import GeometryCriterion

                return GeometryCriterion(**{name: value})

            add(f"criterion: {name} {what}", criterion, name)


def _joined(add: Callable[..., None], attach: Callable[..., Any], host: Callable[..., Any]) -> None:
    """Add what may be joined, and what a joined model may be given."""
    import torch
    from supervised_hosts import frames, geometry
    from tiny_hosts import HOSTS
    from training_samples import make_sample

    def join(folder: Path, /, *others: Any) -> Any:
        model = host()
        supervision = attach(folder, model=model)
        for other in others or (model,):
            supervision.join(model if other is ... else other)
        return model.train(), supervision

    def call(folder: Path, /, *, prepare: bool = False, **targets: Any) -> Any:
        model, supervision = join(folder)
        sample = make_sample(2)
        batch = {**HOSTS["qwen2_5_vl"].build_inputs(frames(sample)), **geometry(sample), **targets}
        return model(**(supervision.prepare_step([batch])[0] if prepare else batch)).loss

    add("right: join", join, expect="taken")
    for what, other in {**ODD, "None": None, "a text": "x", "another model": torch.nn.Linear(2, 2)}.items():
        add(f"join: {what}", lambda f, o=other: join(f, o), "model")
    add("join: twice", lambda f: join(f, ..., ...), "already")
    add("right: a joined loss", call, expect="taken")
    add("right: a prepared loss", lambda f: call(f, prepare=True), expect="taken")
    for what, targets in {
        "depth of two samples": {"depth": [torch.ones(2, 48, 64)] * 2}, "a misspelt target": {"depht": 1}, "depth a text": {"depth": "x"},
        "depth in bfloat16": {"depth": torch.ones(1, 2, 48, 64).bfloat16()}, "poses in float16": {"camera_to_world": torch.eye(4).half().expand(1, 2, 4, 4)},
        "prepared by a text": {"prepared_targets": "x"},
    }.items():  # fmt: skip
        add(f"joined: {what}", lambda f, t=targets: call(f, **t), "depth", "depht", "camera_to_world", "prepared")
        if what in ("depth of two samples", "a misspelt target", "depth a text"):
            add(f"prepared: {what}", lambda f, t=targets: call(f, prepare=True, **t), "depth", "depht")
    for what, batches in {"None": None, "a text": "x", "one batch": {"depth": 1}, "a list of None": [None]}.items():
        add(f"prepare_step: {what}", lambda f, b=batches: join(f)[1].prepare_step(b), "batches")


def _attach_twice(attach: Callable[..., Any], model: Any) -> None:
    attach(Path(), model=model)
    attach(Path(), model=model)


def _layout_class() -> type:
    from trainer.supervision import VisionLayout

    return VisionLayout


def _validator_class() -> type:
    from modeling_ide3d.auxiliary import GeometricValidatorConfig

    return GeometricValidatorConfig


def _other_validator() -> Any:
    from modeling_ide3d.auxiliary import GeometricValidatorConfig

    return GeometricValidatorConfig(vision_hidden_size=1152, patch_size=14)
