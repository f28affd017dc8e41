"""Batches whose loss is NaN or Inf: named, left out as often as the training allows, and then an error."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.loop.start import describe_samples

__all__ = ["NonfiniteBatches"]

logger = logging.getLogger(__name__)


class NonfiniteBatches:
    """Count of the batches of a training that were left out.

    Args:
        limit: Largest number of such batches.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.count = 0

    def skip(
        self, batch: Mapping[str, Any], step: int, terms: Mapping[str, Tensor], weights: Iterable[nn.Parameter]
    ) -> Tensor:
        """Return a zero in place of a loss that is NaN or Inf.

        Args:
            batch: The batch, whose samples are named.
            step: Step of the training.
            terms: Terms of the loss, of which the broken ones are named.
            weights: Weights of the model, which stay in the graph of the zero.

        Raises:
            FloatingPointError: If there were more than `limit` such batches.
        """
        self.count += 1
        named = ", ".join(name for name, term in terms.items() if not torch.isfinite(term)) or "their weighted sum"
        message = f"{named} became NaN or Inf at step {step} for {describe_samples(batch)}"
        if self.count > self.limit:
            raise FloatingPointError(
                f"{message}; max_nonfinite={self.limit} such batches are allowed. Look at these samples, "
                "lower the learning rate or clip gradients (max_grad_norm)."
            )
        logger.warning("%s; the batch is left out (%d so far).", message, self.count)
        # The weights themselves are finite: this zero keeps all of them in the graph, the broken terms do not.
        return sum(weight.sum() for weight in weights if weight.requires_grad) * 0.0
