"""Cases of the geometry supervision of other models."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs.cases import door
from bad_inputs.damage import NUMBERS, damaged, make_fifo


@door("GeometrySupervision", "trainer.GeometrySupervision", "trainer.supervision.SupervisedTrainer", "trainer.supervision.GeometryCriterion",
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

    def compute(folder: Path, /, **targets: Any) -> Any:
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
    _ = (partial, make_fifo)
