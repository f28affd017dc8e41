"""`Trainer` of Transformers, and others that build on it, with geometry supervision beside their own loss."""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_utils import unwrap_peft_model

from trainer.supervision.geometry_supervision import GeometrySupervision
from trainer.supervision.joined_model import TARGETS
from trainer.supervision.label_smoothing import smoothed_labels

__all__ = ["TARGETS", "SupervisedTrainer", "SupervisedTraining"]


class SupervisedTraining:
    """Geometry supervision for a class that builds on `Trainer`; it stands before that class.

    The trained model holds the heads from here until `supervision.detach()`: its optimizer, its processes and the
    clipping of its gradients have them too, and its checkpoints do not. A batch holds what the model takes and any of
    `TARGETS`, which the model never sees. Every term is a mean over what it is compared on in an optimizer step, over
    all batches and processes. Evaluation has the language loss alone.

    Args:
        *args: Arguments of the trainer; set `remove_unused_columns=False` in its training arguments.
        supervision: Supervision that is attached to the model.
        **kwargs: Arguments of the trainer.

    Raises:
        ValueError: If DeepSpeed is to shard gradients, as ZeRO-2 and ZeRO-3 do.
    """

    def __init__(self, *args: Any, supervision: GeometrySupervision, **kwargs: Any):
        super().__init__(*args, **kwargs)
        plugin = self.accelerator.state.deepspeed_plugin if self.is_deepspeed_enabled else None
        if plugin is not None and plugin.zero_stage > 1:
            raise ValueError(
                f"DeepSpeed ZeRO-{plugin.zero_stage} sums gradients in the order in which each process computes them, "
                "which differs where one has no geometry: the heads would get gradients of others. Set the stage to "
                "0 or 1, or shard by FSDP2."
            )
        self.supervision = supervision
        supervision.join(self.model, adds_loss=False)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | int | None]:
        """Return the batches of an optimizer step with prepared targets; see `Trainer.get_batch_samples`."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        return self.supervision.prepare_step(batches), num_items

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute the loss of the trainer, in training with that of the supervision."""
        result = super().compute_loss(
            model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
        )
        if not model.training:
            return result
        # A loss by the number of tokens is summed over accumulated batches, any other is divided by their number.
        steps = 1 if num_items_in_batch is None else self.current_gradient_accumulation_steps
        auxiliary = self.supervision.take_loss() / steps
        return (result[0] + auxiliary, result[1]) if return_outputs else result + auxiliary


class SupervisedTrainer(SupervisedTraining, Trainer):
    """`Trainer` of any model, with the heads and the loss of a supervision; see `SupervisedTraining`."""

    def __init__(self, *args: Any, supervision: GeometrySupervision, **kwargs: Any):
        super().__init__(*args, supervision=supervision, **kwargs)
        self.label_smoother = None  # `smoothed_labels` compares with the next token, whatever class the model has

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute the loss of the model, in training with that of the supervision."""
        language_model = unwrap_peft_model(self.accelerator.unwrap_model(model, keep_torch_compile=False))
        with smoothed_labels(language_model, self.args.label_smoothing_factor):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
