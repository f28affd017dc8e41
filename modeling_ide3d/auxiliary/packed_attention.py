"""Attention of packed questions: chats that share the tokens of one video and do not see each other."""

import torch
from torch import nn


def build_packed_attention(
    segment_ids: torch.LongTensor, attention: str, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.LongTensor]:
    """Build mask and positions under which packed questions see only the prefix and themselves.

    Args:
        segment_ids: 0 in the shared prefix, k in the k-th question, -1 in the padding.
        attention: Attention of the language model; "sdpa" takes a bool mask, "eager" one to be added.
        dtype: Number type of the mask for "eager".

    Shape:
        segment_ids: (B, L), long.
        output:      mask (B, 1, L, L); positions (B, L), long: every question continues where the prefix ends.

    Raises:
        ValueError: If the attention takes no such mask.
    """
    if attention not in ("sdpa", "eager"):
        raise ValueError(
            f'Packed questions need attention "sdpa" or "eager", got {attention!r}: set attn_implementation, or '
            "collate one question a sample."
        )
    index = torch.arange(segment_ids.shape[1], device=segment_ids.device)
    same = segment_ids.unsqueeze(2) == segment_ids.unsqueeze(1)
    prefix = (segment_ids == 0).unsqueeze(1)
    visible = (same | prefix) & (index.unsqueeze(1) >= index)
    # A question continues where the prefix ends, so that it looks as if it were asked alone.
    prefix_length = (segment_ids == 0).sum(-1, keepdim=True)
    before = nn.functional.pad(segment_ids, (1, 0), value=-2)[:, :-1]
    starts = torch.where(before != segment_ids, index, torch.zeros_like(index))
    offset = index - starts.cummax(-1).values
    position_ids = torch.where(segment_ids > 0, prefix_length + offset, offset)
    visible = visible.unsqueeze(1)
    if attention == "eager":
        return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min), position_ids
    return visible, position_ids


__all__ = ["build_packed_attention"]
