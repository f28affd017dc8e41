"""Training arguments: those of Trainer, the weight of every loss term, and a learning rate per part."""

import json
import math
import os
import reprlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np
from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from trainer.field_rules import MANY, check_choice, check_kind, check_number, check_range, find_kinds
from trainer.processes import check_connected

DEPTH_WEIGHT, PAIR_WEIGHT = 0.8, 0.08  # Official: the terms of pairs are 0.1 of the depth terms' 0.8.
TEACHER_WEIGHT, GROUNDING_WEIGHT = 1.0, 1.0

# Arguments of Trainer that would have no effect, or a wrong one: what they may be, and why.
FIXED_ARGUMENTS = {
    "remove_unused_columns": ([False], "the collator needs what the model does not know"),
    "use_liger_kernel": ([False], "Liger has no kernels for this model, and would leave it as it is"),
    "liger_kernel_config": ([None], "Liger has no kernels for this model"),
    "label_names": ([None, ["labels"]], "a batch without one of them would be left out of the figures of evaluation"),
    "debug": ([[], ""], "the debugger cannot look at this model's boolean masks"),
    "parallelism_config": ([None], "no tensor, context or sequence parallelism is made for frames and their tokens"),
}
UPDATES_IN_BACKWARD = ("lomo", "adalomo")

# What Transformers takes beside its annotation.
FURTHER_KINDS = {
    "fsdp": bool | str | list[str] | None,
    "resume_from_checkpoint": bool | str | None,
    "max_grad_norm": float | None,
    "local_rank": int | None,
    "accelerator_config": dict | str | AcceleratorConfig | None,
}
# Fields of options by name; a text is JSON. That of the others may be the name of a file too.
OPTIONS = ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs", "lr_scheduler_kwargs")
FILES_OF_OPTIONS = ("accelerator_config", "deepspeed", "fsdp_config")
# Numbers by name, with their range; those that may be None are not looked at then.
MEASURES = {
    **dict.fromkeys(("depth_weight", "cross_view_weight", "overlap_weight", "consistency_weight"), (0, math.inf)),
    **dict.fromkeys(("distillation_weight", "grounding_weight", "learning_rate", "weight_decay"), (0, math.inf)),
    **dict.fromkeys(("pose_weight", "scale_weight"), (0, math.inf)),
    **dict.fromkeys((f"{part}_learning_rate" for part in ("vision", "projector", "language")), (0, math.inf)),
    **dict.fromkeys((f"{part}_learning_rate" for part in ("grounding", "geometry")), (0, math.inf)),
    **dict.fromkeys(("num_train_epochs", "max_grad_norm", "warmup_steps", "eval_delay"), (0, math.inf)),
    **dict.fromkeys(("adam_epsilon", "neftune_noise_alpha"), (0, math.inf)),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), (0, 1)),
}
COUNTS = {
    **dict.fromkeys(("geometry_start_step", "geometry_warmup_steps", "geometry_decay_steps", "max_nonfinite"), 0),
    "loss_chunk_size": 0,
    **dict.fromkeys(("neighbor_range", "pairs_per_frame", "gradient_accumulation_steps"), 1),
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size", "eval_accumulation_steps"), 1),
    **dict.fromkeys(("dataloader_num_workers", "save_total_limit", "seed", "data_seed"), 0),
    **dict.fromkeys(("dataloader_prefetch_factor", "torch_empty_cache_steps", "ddp_timeout", "ddp_bucket_cap_mb"), 1),
    "max_steps": -1,
}
MOST = {"seed": 2**32 - 1, "data_seed": 2**32 - 1}  # of NumPy


def default_loss_weights(protocol: Literal["clean", "paper"]) -> dict[str, float]:
    """Weight of each loss term, by the name of its field in the model's output."""
    return {
        "loss_depth": DEPTH_WEIGHT,
        "loss_cross_view_depth": PAIR_WEIGHT,
        "loss_overlap_l1": PAIR_WEIGHT if protocol == "paper" else 0.0,
        "loss_view_consistency": 0.0 if protocol == "paper" else PAIR_WEIGHT,
        "loss_distillation": TEACHER_WEIGHT,
        "loss_grounding": GROUNDING_WEIGHT,
        "loss_pose": 0.0,
        "loss_scale": 0.0,
    }


@dataclass
class IDE3DTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the weights of the geometric supervision; the defaults are those of the original."""

    depth_weight: float = field(default=DEPTH_WEIGHT, metadata={"help": "Weight of the depth loss of each frame."})
    cross_view_weight: float = field(
        default=PAIR_WEIGHT,
        metadata={"help": "Weight of depth predicted from another frame (0.8 x 0.1 in the original)."},
    )
    overlap_weight: float | None = field(
        default=None,
        metadata={
            "help": "Weight of a frame's own depth where another frame sees it too, which the original calls "
            "consistency; default: 0.08 (0.8 x 0.1) in protocol paper, 0 in clean."
        },
    )
    consistency_weight: float | None = field(
        default=None,
        metadata={
            "help": "Weight of the difference between the depth predictions of two frames; default: 0.08 in protocol "
            "clean, 0 in paper."
        },
    )
    distillation_weight: float = field(
        default=TEACHER_WEIGHT, metadata={"help": "Weight of the distance to the teacher."}
    )
    grounding_weight: float = field(
        default=GROUNDING_WEIGHT, metadata={"help": "Weight of the contrast between regions."}
    )
    pose_weight: float = field(
        default=0.0, metadata={"help": "Weight of the poses between frames, read from camera_layer."}
    )
    scale_weight: float = field(
        default=0.0, metadata={"help": "Weight of the mean depth of a video, read from camera_layer."}
    )
    distillation_layers: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Hidden states that the teacher is compared with, such as vision.18 language.14 language.28; "
            "default: those that the model was built with, the language model's final states if none were named."
        },
    )
    camera_layer: str | None = field(
        default=None,
        metadata={"help": "Hidden state that poses and mean depth are read from; default: the final states."},
    )
    geometry_start_step: int = field(
        default=0, metadata={"help": "Steps of the training before any geometry term is computed."}
    )
    geometry_warmup_steps: int = field(
        default=0, metadata={"help": "Steps over which the weights of the geometry terms then rise to full."}
    )
    geometry_decay_steps: int = field(
        default=0, metadata={"help": "Last steps of the training over which these weights fall again."}
    )
    geometry_decay_type: Literal["linear", "cosine"] = field(
        default="linear", metadata={"help": "How they fall: in a straight line, or as half a cosine."}
    )
    vision_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the vision tower; default: learning_rate."}
    )
    projector_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of projector and newline; default: learning_rate."}
    )
    language_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the language model; default: learning_rate."}
    )
    grounding_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the grounding head; default: learning_rate."}
    )
    geometry_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of validator and teacher projector; default: learning_rate."}
    )
    mixture_batches: Literal["mixed", "grouped"] = field(
        default="mixed",
        metadata={"help": "Whether a batch of a MixtureDataset draws from all its data sets, or from one at a time."},
    )
    frozen_parts: list[str] = field(
        default_factory=list,
        metadata={"help": "Parts that are not trained, of vision, projector, language, grounding, geometry."},
    )
    protocol: Literal["clean", "paper"] = field(
        default="clean",
        metadata={"help": "Rules of pairs, masks and losses: as they should be, or the original's."},
    )
    pair_mode: Literal["neighbor", "random", "overlap"] = field(
        default="neighbor",
        metadata={
            "help": "How frame pairs are chosen: by frame order, at random, or by baseline and covisible share."
        },
    )
    neighbor_range: int = field(default=2, metadata={"help": "Largest distance of two paired frames, for neighbor."})
    pairs_per_frame: int = field(default=2, metadata={"help": "Partners of a frame, for random and overlap."})
    depth_range: list[float] | None = field(
        default=None, metadata={"help": "Least and largest depth in metres that is a measurement; default: all."}
    )
    loss_chunk_size: int = field(
        default=0,
        metadata={
            "help": "Answer tokens whose logits are there at a time; they are computed again in the backward pass. "
            "0: all at once."
        },
    )
    max_nonfinite: int = field(
        default=0, metadata={"help": "Batches with a NaN or Inf loss that are left out, named, before training stops."}
    )
    # Samples are dicts of frames and chats; the collator makes the model's arguments out of them.
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay False."})

    def __post_init__(self):
        self._check_fields()
        metric = (self.metric_for_best_model or "").removeprefix("eval_")
        if self.greater_is_better is None and metric in {"loss_language", *self.loss_weights}:
            self.greater_is_better = False  # Transformers knows a loss by the end of its name
        super().__post_init__()
        if self.distributed_state is not None:  # SageMaker connects its processes itself
            check_connected(self.distributed_state)
        for name, (allowed, reason) in FIXED_ARGUMENTS.items():
            value = getattr(self, name)
            if (list(value) if isinstance(value, tuple) else value) not in allowed:
                raise ValueError(f"{name} must stay {allowed[0]!r}, got {value!r}: {reason}.")
        if self.optim in UPDATES_IN_BACKWARD or self.optim.endswith("_layerwise"):
            raise ValueError(
                f"optim={self.optim!r} updates the weights in the backward pass: before the parts of a step are "
                "weighed, heads without a target are left out and learning rates by part are set. Choose another."
            )

    def _check_fields(self) -> None:
        """Raise TypeError or ValueError for a field of another type, or out of its range."""
        ranges = MEASURES | {name: (least, MOST.get(name, MANY)) for name, least in COUNTS.items()}
        kinds = find_kinds(type(self)) | FURTHER_KINDS
        for item in fields(self):
            value, name = getattr(self, item.name), item.name
            if name in ranges and value is not None:
                check_number(name, value, *ranges[name], is_whole=name in COUNTS)
            else:
                check_kind(name, value, kinds[name])
            if "choices" in item.metadata and value is not None:
                check_choice(name, getattr(value, "value", value), list(item.metadata["choices"]))
            if name in (*OPTIONS, *FILES_OF_OPTIONS) and isinstance(value, str):
                _check_options(name, value)
        if self.output_dir is not None and not os.fspath(self.output_dir).strip():
            raise ValueError(f'output_dir must be a path, such as "outputs", got {self.output_dir!r}.')
        if self.load_best_model_at_end and self.eval_strategy == "no":
            raise ValueError(
                "load_best_model_at_end=True has nothing to choose by: set eval_strategy and save_strategy to "
                '"steps" or "epoch", or leave it out.'
            )
        if self.max_steps == 0:
            raise ValueError("max_steps must be at least 1, or -1 to train num_train_epochs, got 0.")
        for event in ("logging", "save", "eval"):
            steps = getattr(self, f"{event}_steps")
            if getattr(self, f"{event}_strategy") == "steps" and steps is not None:
                check_number(f"{event}_steps", steps)
        tracked = self.include_num_input_tokens_seen
        if not isinstance(tracked, (bool, np.bool_)):
            check_choice("include_num_input_tokens_seen", tracked, ("all", "non_padding", "no"))
        if self.depth_range is not None:
            check_range("depth_range", self.depth_range)
            self.depth_range = [float(depth) for depth in self.depth_range]  # arrays cannot be saved

    @property
    def learning_rates(self) -> dict[str, float]:
        """Learning rate of each part that has its own."""
        rates = {
            "vision": self.vision_learning_rate,
            "projector": self.projector_learning_rate,
            "language": self.language_learning_rate,
            "grounding": self.grounding_learning_rate,
            "geometry": self.geometry_learning_rate,
        }
        return {part: rate for part, rate in rates.items() if rate is not None}

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of each loss term, by the name of its field in the model's output.

        A weight that is None takes the default of `protocol` here. The field stays None: copies of these arguments
        with another protocol take that protocol's default.
        """
        weights = {"loss_overlap_l1": self.overlap_weight, "loss_view_consistency": self.consistency_weight}
        defaults = default_loss_weights(self.protocol)
        return {
            "loss_depth": self.depth_weight,
            "loss_cross_view_depth": self.cross_view_weight,
            **{name: defaults[name] if weight is None else weight for name, weight in weights.items()},
            "loss_distillation": self.distillation_weight,
            "loss_grounding": self.grounding_weight,
            "loss_pose": self.pose_weight,
            "loss_scale": self.scale_weight,
        }

    def geometry_scale(self, step: int, num_steps: int) -> float:
        """Return the share of their weight that the geometry terms have in a step.

        Steps count from 0. The share is 0 before `geometry_start_step`. It rises to 1 over `geometry_warmup_steps`
        and falls in the last `geometry_decay_steps`. The last step has the share 1 / (geometry_decay_steps + 1), or
        half a cosine of it.
        """
        if step < self.geometry_start_step:
            return 0.0
        rise = min(1.0, (step - self.geometry_start_step + 1) / (self.geometry_warmup_steps + 1))
        fall = min(1.0, (num_steps - step) / (self.geometry_decay_steps + 1))
        if self.geometry_decay_type == "cosine":
            fall = (1 - math.cos(math.pi * fall)) / 2
        return rise * fall

    def loss_weights_at(self, step: int, num_steps: int) -> dict[str, float]:
        """Return `loss_weights` with the schedule of the geometry terms; grounding has none."""
        scale = self.geometry_scale(step, num_steps)
        return {
            name: weight if name == "loss_grounding" else scale * weight for name, weight in self.loss_weights.items()
        }


def _check_options(name: str, text: str) -> None:
    """Raise an error unless a text is options, or names their file."""
    is_json = text.lstrip().startswith("{")
    if not is_json and name in FILES_OF_OPTIONS:
        if not Path(text).is_file():
            raise FileNotFoundError(f"{name} is neither JSON nor a file: {text!r}. Give a mapping or a JSON file.")
        return
    try:
        options = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} must be a mapping, or one as JSON text, got {reprlib.repr(text)}.") from error
    if not isinstance(options, dict):
        raise ValueError(f"{name} must be a mapping, or one as JSON text, got {reprlib.repr(text)}.")


__all__ = ["IDE3DTrainingArguments", "default_loss_weights"]
