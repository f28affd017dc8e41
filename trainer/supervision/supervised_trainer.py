"""`Trainer` of Transformers with geometry supervision beside its own loss."""

from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_utils import unwrap_peft_model

from trainer.supervision.geometry_supervision import GeometrySupervision
from trainer.supervision.label_smoothing import smoothed_labels

__all__ = ["TARGETS", "SupervisedTrainer"]

TARGETS = ("depth", "intrinsics", "camera_to_world", "teacher_features")  # keys of a batch that the model never sees


class SupervisedTrainer(Trainer):
    """`Trainer` of any model, with the heads and the loss of a supervision.

    A batch holds what the model takes and any of `TARGETS`, which the model never sees. Evaluation has the language
    loss alone. One process only, as `GeometrySupervision`.

    Args:
        *args: Arguments of `Trainer`; set `remove_unused_columns=False` in its training arguments.
        supervision: Supervision that is attached to the model.
        **kwargs: Arguments of `Trainer`.
    """

    def __init__(self, *args: Any, supervision: GeometrySupervision, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.label_smoother = None  # `smoothed_labels` compares with the next token, whatever class the model has
        self.supervision = supervision

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer of `Trainer`, and a group of the heads, which is not clipped."""
        optimizer = super().create_optimizer(model)
        optimizer.add_param_group({"params": list(self.supervision.parameters())})
        return optimizer

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute the loss of the model, in training with that of the supervision."""
        targets = {key: inputs[key] for key in TARGETS if key in inputs}
        inputs = {key: value for key, value in inputs.items() if key not in targets}
        language_model = unwrap_peft_model(self.accelerator.unwrap_model(model, keep_torch_compile=False))
        with smoothed_labels(language_model, self.args.label_smoothing_factor):
            loss, outputs = super().compute_loss(
                model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
            )
        if model.training:
            auxiliary = self.supervision.compute_loss(**targets)
            # A loss by the number of tokens is summed over accumulated batches, any other is divided by their number.
            steps = 1 if num_items_in_batch is None else self.current_gradient_accumulation_steps
            loss = loss + auxiliary / steps
        return (loss, outputs) if return_outputs else loss
