"""Label smoothing inside the loss of a language model, where a token is predicted by the one before it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.loss.loss_utils import LOSS_MAPPING

__all__ = ["smoothed_labels"]

IGNORED = -100


@contextmanager
def smoothed_labels(model: nn.Module, factor: float) -> Iterator[None]:
    """Smooth the labels in the loss of a language model inside the context.

    Trainer's own smoother takes the labels from the model, which then computes all logits. It compares a token's
    logits with the next token for the classes of a table alone.

    Args:
        model: The model itself, without wrappers, whose loss is Transformers' `ForCausalLMLoss`.
        factor: Share of each target that is spread over all words, in [0, 1]; 0 changes nothing.

    Raises:
        ValueError: If the model has another loss.
    """
    if not factor:
        yield
        return
    if getattr(model, "loss_function", None) is not LOSS_MAPPING["ForCausalLM"]:
        raise ValueError(
            f"label_smoothing_factor={factor} smooths the loss of the next token, ForCausalLMLoss, and "
            f"{type(model).__name__} has another loss. Set label_smoothing_factor=0."
        )
    model.loss_function = lambda **kwargs: _smoothed_loss(factor=factor, **kwargs)
    try:
        yield
    finally:
        del model._loss_function


def _smoothed_loss(
    *,
    factor: float,
    logits: Tensor,
    labels: Tensor,
    vocab_size: int,
    num_items_in_batch: Tensor | int | None = None,
    shift_labels: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """Compute `ForCausalLMLoss` with smoothed labels.

    Shape:
        logits:       (..., L, vocab_size).
        labels:       (..., L), long, -100 is ignored; the k-th is the token at k.
        shift_labels: (..., L), the tokens behind the logits, instead of `labels`.
        output:       scalar; the mean over the labels, or their sum divided by `num_items_in_batch`.
    """
    if shift_labels is None:
        shift_labels = functional.pad(labels, (0, 1), value=IGNORED)[..., 1:]
    targets = shift_labels.reshape(-1).to(logits.device)
    total = functional.cross_entropy(
        logits.float().view(-1, vocab_size), targets, ignore_index=IGNORED, label_smoothing=factor, reduction="sum"
    )
    count = (targets != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    return total / torch.as_tensor(count, device=total.device)
