"""Arguments and targets of a supervision: depth decoder, weights of terms, targets of the samples."""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from modeling_ide3d.auxiliary import GeometricValidatorConfig
from modeling_ide3d.auxiliary.geometry_heads import check_validator_config
from modeling_ide3d.auxiliary.outputs import CAMERA_TERMS, HEADS
from modeling_ide3d.auxiliary.state_layers import StateLayers
from trainer.data.geometry_inputs import to_tensor
from trainer.field_rules import check_number
from trainer.supervision.criterion import GeometryCriterion
from trainer.supervision.vision_layouts import VisionLayout
from trainer.training_arguments import default_loss_weights

__all__ = [
    "PerSample",
    "build_validator_config",
    "check_frame_counts",
    "choose_layers",
    "choose_weights",
    "read_samples",
]

PerSample = Tensor | Sequence[Tensor | None]
VALIDATORS = {"light": GeometricValidatorConfig.light, "paper": GeometricValidatorConfig.from_vision_config}


def build_validator_config(
    model: PreTrainedModel,
    layout: VisionLayout,
    validator: GeometricValidatorConfig | str | None,
    criterion: GeometryCriterion,
) -> GeometricValidatorConfig | None:
    """Return the sizes of the depth decoder for a model.

    Raises:
        TypeError: If `validator` is neither a config nor a name.
        ValueError: If it fits another tower or protocol, or the name is unknown.
    """
    if validator is None:
        return None
    if not isinstance(validator, (str, GeometricValidatorConfig)):
        raise TypeError(
            f"validator must be a GeometricValidatorConfig, None, or of {sorted(VALIDATORS)}, got "
            f"{reprlib.repr(validator)}."
        )
    vision = model.config.vision_config
    if isinstance(validator, str):
        if validator not in VALIDATORS:
            raise ValueError(f"validator must be a config, None, or of {sorted(VALIDATORS)}, got {validator!r}.")
        validator = VALIDATORS[validator](vision, patch_size=layout.patch_size, protocol=criterion.protocol)
    check_validator_config(validator, vision.hidden_size, layout.patch_size, vision.num_hidden_layers)
    if criterion.protocol == "paper" and validator.protocol != "paper":
        raise ValueError('The criterion has protocol "paper", the validator "clean": build both with one protocol.')
    return validator


def read_samples(name: str, values: Any) -> PerSample | None:
    """Return targets as a tensor or a list with an entry for each sample.

    Raises:
        TypeError: If they are neither, nor an array.
        ValueError: If they have no axis for samples.
    """
    if isinstance(values, np.ndarray):
        values = to_tensor(values, name)
    if values is None or (isinstance(values, Tensor) and values.dim()):
        return values
    if not isinstance(values, (list, tuple)):
        raise TypeError(
            f"{name} must be a tensor with an axis for samples, or a list of a tensor or None for each sample, got "
            f"{reprlib.repr(values)}."
        )
    return values


def check_frame_counts(geometry: Mapping[str, PerSample | None], samples: Iterable[int]) -> None:
    """Raise ValueError if the parts of a sample's geometry have other numbers of frames.

    A model that merges frames cannot tell one frame from two. Padded tensors are as long as the batch.

    Args:
        geometry: Depth, cameras and poses of the samples.
        samples: Samples whose geometry counts.
    """
    lists = {name: values for name, values in geometry.items() if isinstance(values, (list, tuple))}
    for sample in samples:
        counts = {}
        for name, values in lists.items():
            value = values[sample] if sample < len(values) else None
            if value is not None and (value := to_tensor(value, f"{name} of sample {sample}")).dim():
                counts[name] = len(value)
        if len(set(counts.values())) > 1:
            raise ValueError(f"Sample {sample}: depth, cameras and poses must have one entry a frame, got {counts}.")


def choose_layers(
    states: StateLayers,
    teacher_size: int | None,
    distillation_layers: Sequence[str] | None,
    camera_layer: str | None,
) -> set[str]:
    """Return the names of the hidden states that are read beside the final ones.

    Raises:
        TypeError: If a name is no text.
        ValueError: If the model has no such state, one is named twice, or layers are named without a teacher.
    """
    read: set[str] = set()
    if camera_layer is not None:
        states.check(camera_layer, "camera_layer")
        read.add(camera_layer)
    if distillation_layers is None:
        return read
    if teacher_size is None:
        raise ValueError(
            f"distillation_layers={reprlib.repr(distillation_layers)} need a teacher_size, the width of its features."
        )
    return {*read, *states.check_list(distillation_layers, "distillation_layers")}


def choose_weights(
    heads: set[str], criterion: GeometryCriterion, changes: Mapping[str, float] | None
) -> dict[str, float]:
    """Return the weight of each term of these heads.

    Raises:
        TypeError: If `changes` is no mapping of numbers.
        ValueError: If there is no head, a term is none of theirs, or nothing has a weight.
    """
    changes = {} if changes is None else changes
    if not isinstance(changes, Mapping):
        raise TypeError(f"loss_weights must be a mapping of terms to their weights, got {reprlib.repr(changes)}.")
    defaults = default_loss_weights(criterion.protocol)
    # Camera terms have their heads where they are weighed.
    heads = heads | {HEADS[name] for name in CAMERA_TERMS if name in changes}
    known = {name: weight for name, weight in defaults.items() if HEADS[name] in heads}
    if not known:
        raise ValueError("There is nothing to supervise: give a validator, a teacher_size, or both.")
    if set(changes) - set(known):
        raise ValueError(f"loss_weights must be of {sorted(known)}, the terms of the heads, got {list(changes)}.")
    weights = {**known, **changes}
    for name, weight in weights.items():
        check_number(f"loss_weights: {name}", weight)
    if not any(weights.values()):
        raise ValueError(f"Not all weights may be 0, got {weights}.")
    return weights
