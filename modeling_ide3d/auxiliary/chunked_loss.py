"""The language loss of a training without the logits of all answers at once."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from modeling_ide3d.auxiliary.packed_attention import IGNORED
from modeling_ide3d.inputs_ide3d import check_labels


def chunk_loss(
    head: nn.Module,
    loss_function: Callable[..., torch.Tensor],
    states: torch.Tensor,
    shift_labels: torch.LongTensor,
    chunk_size: int,
    num_items_in_batch: torch.Tensor | int | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Compute the loss of the next token a few tokens at a time.

    The logits of a chunk live while its loss is computed, and are computed again in the backward pass. Loss and
    gradients are those of all tokens at once, but for the order in which chunks are added. Losses are added in
    float32, gradients of the head in the type of its weights: those of 16 bits round each sum.

    Args:
        head: Language model head.
        loss_function: `ForCausalLMLoss` of Transformers, or one with its arguments.
        states: States (B, L, hidden_size) that the head reads.
        shift_labels: Tokens (B, L) behind them, -100 is ignored.
        chunk_size: Tokens of a chunk.
        num_items_in_batch: Number that the sum is divided by; default: the labels of these states.
        **kwargs: Further arguments of the loss.

    Raises:
        ValueError: If labels lie outside of the vocabulary.
    """
    if num_items_in_batch is None:
        num_items_in_batch = (shift_labels != IGNORED).sum()

    def score(states: torch.Tensor, shift_labels: torch.LongTensor) -> torch.Tensor:
        logits = head(states)
        check_labels(shift_labels, logits)
        return loss_function(
            logits=logits,
            labels=None,
            vocab_size=logits.shape[-1],
            num_items_in_batch=num_items_in_batch,
            shift_labels=shift_labels.contiguous(),
            **kwargs,
        )

    width = max(1, chunk_size // len(states))
    chunks = zip(states.split(width, dim=1), shift_labels.split(width, dim=1), strict=True)
    with _without_autocast_cache(states.device.type):
        return torch.stack([checkpoint(score, *chunk, use_reentrant=False) for chunk in chunks]).sum()


def _without_autocast_cache(device_type: str) -> AbstractContextManager[Any]:
    """Return a context in which autocast, if on, converts weights for each chunk.

    All chunks would share one copy of the head in 16 bits, and add its gradient there: 5 % off after 256 chunks.
    """
    if not torch.amp.is_autocast_available(device_type) or not torch.is_autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type, torch.get_autocast_dtype(device_type), cache_enabled=False)


__all__ = ["chunk_loss"]
