"""Fields of the training arguments: each wrong one is named, with what it may be."""

import dataclasses
import math

import numpy as np
import pytest

from trainer import IDE3DTrainingArguments

TERMS = ("depth", "cross_view", "overlap", "consistency", "distillation", "grounding")
PARTS = ("vision", "projector", "language", "grounding", "geometry")
MEASURES = [*(f"{name}_weight" for name in TERMS), *(f"{name}_learning_rate" for name in PARTS), "learning_rate"]
COUNTS = ["pairs_per_frame", "neighbor_range", "gradient_accumulation_steps", "per_device_train_batch_size"]


def make(**fields):
    return IDE3DTrainingArguments("unused", use_cpu=True, report_to="none", **fields)


@pytest.mark.parametrize("name", [*MEASURES, "weight_decay", "num_train_epochs"])
def test_measures_are_finite_and_not_negative(name):
    for value in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"^{name} must be a finite number of at least 0, got {value}"):
            make(**{name: value})
    for value in ("x", True, [1.0]):
        with pytest.raises(TypeError, match=f"^{name} must be a finite number of at least 0, got"):
            make(**{name: value})
    for value in (0, 1, 0.5, np.float64(0.25), np.int64(1)):
        assert getattr(make(**{name: value}), name) == value


@pytest.mark.parametrize("name", [*COUNTS, "geometry_start_step", "max_nonfinite", "max_steps"])
def test_counts_are_whole(name):
    for value in (-2, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"^{name} must be a whole number of at least (0|1|-1), got {value}"):
            make(**{name: value})
    with pytest.raises(TypeError, match=f"^{name} must be a whole number"):
        make(**{name: "2"})
    for value in (1, 3.0, np.int64(2)):
        assert getattr(make(**{name: value}), name) == value


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"pair_mode": "far"}, r"pair_mode must be one of \['neighbor', 'random', 'overlap'\], got 'far'"),
        ({"pair_mode": "neighbour"}, "Did you mean 'neighbor'"),
        ({"mixture_batches": "single"}, "mixture_batches must be one of"),
        ({"protocol": None}, "protocol must be one of"),
        ({"max_steps": 0}, "max_steps must be at least 1, or -1 to train num_train_epochs, got 0"),
        ({"pairs_per_frame": 0}, "pairs_per_frame must be"),
        ({"label_smoothing_factor": 1.5}, "label_smoothing_factor must be a number from 0 to 1, got 1.5"),
        ({"save_strategy": "steps", "save_steps": -1}, "save_steps must be"),
        ({"eval_strategy": "steps", "eval_steps": -1}, "eval_steps must be"),
        ({"depth_range": [1.0]}, "depth_range must be"),
        ({"depth_range": [1.0, math.nan]}, "depth_range must be"),
        ({"depth_range": [2.0, 1.0]}, "depth_range must be"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


def test_one_name_is_no_list_of_parts():
    with pytest.raises(TypeError, match="frozen_parts must be a list of names, got 'vision'"):
        make(frozen_parts="vision")


def test_what_is_right_stays(tmp_path):
    fields = {"max_steps": -1, "label_smoothing_factor": 0.1, "depth_range": [0.1, 8], "logging_steps": 0.5}
    args = make(**fields, save_strategy="no", save_steps=-1, frozen_parts=("vision",), vision_learning_rate=0)
    assert dataclasses.replace(args, max_steps=7).max_steps == 7
    assert args.learning_rates == {"vision": 0}
