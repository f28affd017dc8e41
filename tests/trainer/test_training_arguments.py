"""Fields of the training arguments: each wrong one is named, with what it may be."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import SchedulerType
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.trainer_utils import IntervalStrategy
from transformers.training_args import OptimizerNames

from trainer import IDE3DTrainingArguments

TERMS = ("depth", "cross_view", "overlap", "consistency", "distillation", "grounding")
PARTS = ("vision", "projector", "language", "grounding", "geometry")
MEASURES = [*(f"{name}_weight" for name in TERMS), *(f"{name}_learning_rate" for name in PARTS), "learning_rate"]
COUNTS = ["pairs_per_frame", "neighbor_range", "gradient_accumulation_steps", "per_device_train_batch_size"]


def make(**fields):
    return IDE3DTrainingArguments("unused", **{"use_cpu": True, "report_to": "none", **fields})


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


# As the documentation of Transformers writes its arguments, and as command lines and numbers of NumPy give them.
DOCUMENTED = [
    *({"report_to": value} for value in ("none", "all", [], ["none"], ("none",), None)),
    *({"lr_scheduler_kwargs": value} for value in (None, {}, {"num_cycles": 3}, '{"num_cycles": 3}')),
    *({"fsdp": value} for value in ("", [], False, None)),
    *({"accelerator_config": value} for value in (None, {"split_batches": True}, AcceleratorConfig())),
    {"accelerator_config": '{"split_batches": true}'},
    *({"eval_strategy": value} for value in ("no", "epoch", IntervalStrategy.EPOCH)),
    *({"lr_scheduler_type": value} for value in ("cosine", SchedulerType.COSINE)),
    *({"optim": value} for value in ("adamw_torch", OptimizerNames.ADAMW_TORCH)),
    *({"optim_target_modules": value} for value in (None, "all-linear", ["attn", "mlp"])),
    *({"resume_from_checkpoint": value} for value in (True, False, "checkpoint-5", Path("checkpoint-5"), None)),
    *({"warmup_steps": value} for value in (0, 10, 0.1, np.float32(0.1))),
    {"gradient_checkpointing_kwargs": None},
    *({"include_num_input_tokens_seen": value} for value in (True, False, "all", "no")),
    *({"label_names": value} for value in (None, ["labels"], ("labels",))),
    *({"depth_range": value} for value in (None, (0.1, 10), [0.1, 10.0], np.array([1, 9.5]), torch.tensor([1, 9.5]))),
    {"max_grad_norm": None}, {"max_steps": np.int64(5)}, {"num_train_epochs": 3}, {"save_total_limit": None},
    {"learning_rate": np.float32(1e-4)}, {"seed": np.int64(3)}, {"hub_strategy": "end"}, {"debug": ""},
    {"use_cpu": np.True_}, {"frozen_parts": ("vision",)}, {"deepspeed": None}, {"neftune_noise_alpha": 5},
]  # fmt: skip


@pytest.mark.parametrize("fields", DOCUMENTED, ids=str)
def test_documented_forms_are_taken(fields):
    make(**fields)
