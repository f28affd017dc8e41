"""Trainer that weighs, sums and logs the loss terms, and keeps the training-only heads beside the checkpoints."""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from trainer.geometry_criterion import GeometryCriterion
from trainer.training_arguments import IDE3DTrainingArguments

logger = logging.getLogger(__name__)

GEOMETRY_WEIGHTS = "geometry_modules.safetensors"
PARTS = {"vision": ("model.vision_tower.",), "geometry": ("geometric_validator.", "teacher_projector.")}


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
            grounding_temperature=model.config.grounding_temperature,
        )
        super().__init__(model=model, args=args, **kwargs)
        # One row a term, (sum, count): fixed, so that all processes reduce the same shape.
        self._term_names = ("loss_language", *args.loss_weights)
        self._term_sums: dict[str, Tensor] = {}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Language loss plus weighted terms; see `Trainer.compute_loss` for the contract of `num_items_in_batch`."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        terms = {name: outputs[name] for name in self.args.loss_weights if outputs.get(name) is not None}
        auxiliary = sum(self.args.loss_weights[name] * term for name, term in terms.items())
        # With num_items_in_batch the language loss is a share of the accumulated batch; a mean has to become one too.
        steps = self.current_gradient_accumulation_steps if model.training and num_items_in_batch is not None else 1
        self._record(model.training, outputs.loss.detach() * steps, terms)
        total = loss + auxiliary / steps
        return (total, outputs) if return_outputs else total

    def _record(self, is_training: bool, language: Tensor, terms: dict[str, Tensor]) -> None:
        mode = "train" if is_training else "eval"
        values = {"loss_language": language, **terms}
        row = [
            torch.stack([values[name].detach().float(), torch.ones_like(values[name], dtype=torch.float32)])
            if name in values
            else torch.zeros(2, device=language.device)
            for name in self._term_names
        ]
        sums = torch.stack(row)
        self._term_sums[mode] = self._term_sums[mode] + sums if mode in self._term_sums else sums

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of every term since the last log, over all processes."""
        for key, mode, prefix in (("loss", "train", ""), ("eval_loss", "eval", "eval_")):
            if key in logs and mode in self._term_sums:
                sums = self.accelerator.gather(self._term_sums.pop(mode).unsqueeze(0)).sum(0)
                for name, (total, count) in zip(self._term_names, sums.tolist(), strict=True):
                    if count:
                        logs[f"{prefix}{name}"] = round(total / count, 6)
        super().log(logs, start_time)

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
        target = self.accelerator.unwrap_model(self.model if model is None else model)
        if target.geometry_state_dict():
            path = Path(resume_from_checkpoint) / GEOMETRY_WEIGHTS
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is missing: the heads cannot be resumed. Train from the weights in this folder instead, "
                    "without resume_from_checkpoint."
                )
            target.load_geometry_state_dict(load_file(path))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # The heads are kept beside the inference weights and loaded after them.
        load_result.missing_keys[:] = [
            key for key in load_result.missing_keys if key not in self.model.geometry_state_dict()
        ]
        super()._issue_warnings_after_load(load_result)


__all__ = ["GEOMETRY_WEIGHTS", "IDE3DTrainer"]
