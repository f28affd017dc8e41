"""Trainer that weighs, sums and logs the loss terms, and keeps the training-only heads beside the checkpoints."""

import logging
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry, IDE3DGeometryOutputWithPast
from trainer.data_collator import IDE3DDataCollator, decode_names
from trainer.geometry_criterion import GeometryCriterion
from trainer.training_arguments import IDE3DTrainingArguments

logger = logging.getLogger(__name__)

GEOMETRY_WEIGHTS = "geometry_modules.safetensors"
PARTS = {"vision": ("model.vision_tower.",), "geometry": ("geometric_validator.", "teacher_projector.")}


class _IdleHeads(TrainerCallback):
    """Takes the zero gradients from heads that were not used in a step.

    The optimizer would let them decay, and count a step without a gradient in its averages.
    """

    def __init__(self, model: IDE3DForConditionalGenerationWithGeometry):
        self.model = model

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        for head in self.model.idle_heads():
            for parameter in head.parameters():
                parameter.grad = None


class IDE3DTrainer(Trainer):
    """`Trainer` for [`IDE3DForConditionalGenerationWithGeometry`].

    It hands the model its criterion, adds the weighted terms to the language loss, logs each of them, gives vision
    tower and heads their own learning rates, and saves the heads as `geometry_modules.safetensors` in every
    checkpoint, so that a resumed run continues with them. The inference weights of a checkpoint stay free of them.

    Args:
        model: Training model.
        args: Training arguments.
        **kwargs: The other arguments of `Trainer`.

    Raises:
        TypeError: The model has no place for a criterion.
        ValueError: Arguments, model and collator follow different protocols.
    """

    args: IDE3DTrainingArguments

    def __init__(self, model: nn.Module, args: IDE3DTrainingArguments, **kwargs: Any):
        if not isinstance(model, IDE3DForConditionalGenerationWithGeometry):
            raise TypeError(
                f"IDE3DTrainer trains IDE3DForConditionalGenerationWithGeometry, got {type(model).__name__}. For the "
                "inference model alone, use transformers.Trainer."
            )
        model.criterion = GeometryCriterion(
            protocol=args.protocol,
            pair_mode=args.pair_mode,
            neighbor_range=args.neighbor_range,
            pairs_per_frame=args.pairs_per_frame,
            depth_range=args.depth_range,
            grounding_temperature=model.config.grounding_temperature,
        )
        super().__init__(model=model, args=args, **kwargs)
        self._check_protocol(model)
        self._num_nonfinite = 0
        self.add_callback(_IdleHeads(model))
        # One row a term, (sum, weight): fixed, so that all processes reduce the same shape.
        self._term_names = ("loss_language", *args.loss_weights)
        self._term_sums: dict[str, Tensor] = {}

    def _check_protocol(self, model: IDE3DForConditionalGenerationWithGeometry) -> None:
        """One protocol for all: the collator's is set where it is open; what differs raises ValueError.

        A validator with the original's weights reads poses as the original does, also in a training by clean rules.
        """
        protocol, validator, parts = self.args.protocol, model.geometric_validator, {}
        if isinstance(self.data_collator, IDE3DDataCollator):
            if self.data_collator.protocol is None:
                self.data_collator.protocol = protocol
            parts["the collator"] = self.data_collator.protocol
        if validator is not None and protocol == "paper":
            parts["the geometric validator"] = validator.config.protocol
        for name, other in parts.items():
            if other != protocol:
                raise ValueError(
                    f"The training arguments have protocol={protocol!r}, {name} has {other!r}. Build both with one "
                    "protocol."
                )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Language loss plus weighted terms; see `Trainer.compute_loss` for the contract of `num_items_in_batch`.

        The language loss is a mean over all answer tokens of an optimizer step, however they are spread over
        accumulated batches and processes. Every other term is a mean over its batch, and the step takes the mean over
        its batches: accumulation gives the same gradients where the batches hold equally many targets.
        """
        weights = self._weights(model.training)
        self.accelerator.unwrap_model(model).criterion.terms = frozenset(name for name in weights if weights[name])
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        # Terms of weight 0 are zeros that keep their heads in the graph, for processes that wait for gradients.
        terms = {name: outputs[name] for name in weights if outputs.get(name) is not None}
        auxiliary = sum(weights[name] * term for name, term in terms.items())
        terms = {name: term for name, term in terms.items() if weights[name]}
        # With num_items_in_batch the language loss is a share of the accumulated batch; a mean has to become one too.
        is_share = model.training and num_items_in_batch is not None
        steps = self.current_gradient_accumulation_steps if model.training else 1
        language = outputs.loss * steps if is_share else outputs.loss
        # A batch counts as it does in the loss that is logged: for its part of a step, or for its samples.
        weight = 1 / steps if model.training else len(inputs["input_ids"])
        total = loss + auxiliary / (steps if is_share else 1)
        if model.training and not torch.isfinite(total):
            total = self._skip_batch(model, inputs, {"loss_language": language, **terms})
        else:
            self._record("train" if model.training else "eval", weight, {"loss_language": language, **terms})
        return (total, outputs) if return_outputs else total

    def _weights(self, is_training: bool) -> dict[str, float]:
        """Weight of each term now: in training by the schedule, in evaluation in full, so that losses compare."""
        if not is_training:
            return self.args.loss_weights
        return self.args.loss_weights_at(self.state.global_step, self.state.max_steps)

    def _skip_batch(self, model: nn.Module, inputs: dict[str, Any], terms: dict[str, Tensor]) -> Tensor:
        """A zero for a batch whose loss is NaN or Inf; FloatingPointError after `max_nonfinite` of them."""
        self._num_nonfinite += 1
        broken = [name for name, term in terms.items() if not torch.isfinite(term)]
        names = decode_names(inputs["sample_names"]) if "sample_names" in inputs else "of a batch without scene_id"
        message = f"{', '.join(broken)} became NaN or Inf at step {self.state.global_step} for the samples {names}"
        if self._num_nonfinite > self.args.max_nonfinite:
            raise FloatingPointError(
                f"{message}; max_nonfinite={self.args.max_nonfinite} such batches are allowed. Look at these samples, "
                "lower the learning rate or clip gradients (max_grad_norm)."
            )
        logger.warning("%s; the batch is left out (%d so far).", message, self._num_nonfinite)
        # The weights themselves are finite: this zero keeps all of them in the graph, the broken terms do not.
        return sum(parameter.sum() for parameter in model.parameters() if parameter.requires_grad) * 0.0

    def _record(self, mode: str, weight: float, values: dict[str, Tensor]) -> None:
        # Detached and summed on the device: no step waits for the host.
        rows = torch.zeros(len(self._term_names), 2, device=values["loss_language"].device)
        for row, name in zip(rows, self._term_names, strict=True):
            if name in values:
                row[0], row[1] = values[name].detach().float() * weight, weight
        self._term_sums[mode] = self._term_sums[mode] + rows if mode in self._term_sums else rows

    def _pop_terms(self, mode: str) -> dict[str, float]:
        """Mean of every term since the last call, over all processes; all of them have to call it."""
        empty = torch.zeros(len(self._term_names), 2, device=self.args.device)
        sums = self.accelerator.gather(self._term_sums.pop(mode, empty).unsqueeze(0)).sum(0)
        pairs = zip(self._term_names, sums.tolist(), strict=True)
        return {name: round(total / count, 6) for name, (total, count) in pairs if count}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of every term since the last log, over all processes.

        Raises:
            FloatingPointError: A term became NaN or Inf; the weights are lost, and training on would hide it.
        """
        if "loss" in logs or "train_loss" in logs:  # the second is the end of the training
            terms = self._pop_terms("train")
            broken = [name for name, value in terms.items() if not math.isfinite(value)]
            if broken:
                raise FloatingPointError(
                    f"{', '.join(broken)} became NaN or Inf by step {self.state.global_step}. Lower the learning "
                    "rate, clip gradients (max_grad_norm) or look for the sample; then resume from an old checkpoint."
                )
            if "loss" in logs:
                logs.update(terms)
        super().log(logs, start_time)

    def evaluation_loop(
        self, dataloader: DataLoader, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Evaluate, with every term among the metrics, e.g. `eval_loss_depth` for `metric_for_best_model`."""
        self._term_sums.pop("eval", None)
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        terms = self._pop_terms("eval")
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in terms.items()})
        return output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Hand `compute_metrics` the logits alone by default: other outputs differ in shape from batch to batch."""
        if ignore_keys is None:
            ignore_keys = [item.name for item in fields(IDE3DGeometryOutputWithPast) if item.name != "logits"]
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of Trainer, its parameter groups split by part where a part has its own learning rate."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        rates = {"vision": self.args.vision_learning_rate, "geometry": self.args.geometry_learning_rate}
        rates = {part: rate for part, rate in rates.items() if rate is not None}
        if is_new and rates:
            names = {id(value): name for name, value in (model or self.model).named_parameters()}
            groups = []
            for group in optimizer.param_groups:
                by_part: dict[str | None, list[nn.Parameter]] = {}
                for parameter in group["params"]:
                    name = names[id(parameter)].removeprefix("module.")
                    part = next((part for part in rates if name.startswith(PARTS[part])), None)
                    by_part.setdefault(part, []).append(parameter)
                groups += [
                    {**group, "params": parameters, "lr": rates.get(part, group["lr"])}
                    for part, parameters in by_part.items()
                ]
            optimizer.param_groups[:] = groups
        return optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        model = self.accelerator.unwrap_model(self.model)
        # Taken first: save_pretrained removes these keys from the dictionary it is given.
        heads = model.geometry_state_dict(state_dict)
        super()._save(output_dir, state_dict)
        if heads and self.args.should_save:
            heads = {key: value.detach().cpu().contiguous() for key, value in heads.items()}
            save_file(heads, Path(output_dir or self.args.output_dir) / GEOMETRY_WEIGHTS, metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_heads(resume_from_checkpoint, self.model if model is None else model)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._load_heads(self.state.best_model_checkpoint, self.model)

    def _load_heads(self, checkpoint: str, model: nn.Module) -> None:
        target = self.accelerator.unwrap_model(model)
        if not target.geometry_state_dict():
            return
        path = Path(checkpoint) / GEOMETRY_WEIGHTS
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing: the heads cannot be resumed. Train from the weights in this folder instead, "
                "without resume_from_checkpoint."
            )
        try:
            heads = load_file(path)
        except SafetensorError as error:
            raise OSError(f"{path} is truncated or no safetensors file ({error}). Copy it again.") from error
        target.load_geometry_state_dict(heads)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # The heads are kept beside the inference weights and loaded after them.
        load_result.missing_keys[:] = [
            key for key in load_result.missing_keys if key not in self.model.geometry_state_dict()
        ]
        super()._issue_warnings_after_load(load_result)


__all__ = ["GEOMETRY_WEIGHTS", "IDE3DTrainer"]
