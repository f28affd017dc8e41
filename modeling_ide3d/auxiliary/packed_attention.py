"""Attention of packed questions: chats that share the tokens of one video and do not see each other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.modeling_outputs import ModelOutput

from modeling_ide3d.shared_prefix import (
    attend,
    attend_backward,
    empty_row,
    empty_sums,
    group_parts,
    merge_parts,
    only_rows,
    stack_heads,
)

__all__ = ["PackedChats", "build_packed_attention", "build_packed_positions"]

IGNORED = -100


def build_packed_positions(segment_ids: torch.LongTensor) -> torch.LongTensor:
    """Build positions under which every question continues where the prefix ends.

    Shape:
        segment_ids: (B, L), long; see `build_packed_attention`.
        output:      (B, L), long.
    """
    index = torch.arange(segment_ids.shape[1], device=segment_ids.device)
    prefix_length = (segment_ids == 0).sum(-1, keepdim=True)
    before = nn.functional.pad(segment_ids, (1, 0), value=-2)[:, :-1]
    starts = torch.where(before != segment_ids, index, torch.zeros_like(index))
    offset = index - starts.cummax(-1).values
    return torch.where(segment_ids > 0, prefix_length + offset, offset)


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
        output:      mask (B, 1, L, L); positions (B, L), long.

    Raises:
        ValueError: If the attention takes no such mask.
    """
    if attention not in ("sdpa", "shared_prefix", "eager"):
        raise ValueError(
            f'Packed questions need attention "shared_prefix", "sdpa" or "eager", got {attention!r}: set '
            "attn_implementation, or collate one question a sample."
        )
    index = torch.arange(segment_ids.shape[1], device=segment_ids.device)
    same = segment_ids.unsqueeze(2) == segment_ids.unsqueeze(1)
    prefix = (segment_ids == 0).unsqueeze(1)
    visible = ((same | prefix) & (index.unsqueeze(1) >= index)).unsqueeze(1)
    position_ids = build_packed_positions(segment_ids)
    if attention == "eager":
        return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min), position_ids
    return visible, position_ids


@dataclass(frozen=True)
class Prefix:
    """A prefix in a row of tokens, and those that see all of it.

    Args:
        keys: First token of the prefix, and the first behind it.
        queries: First token behind the prefix, and the first behind those.
    """

    keys: tuple[int, int]
    queries: tuple[int, int]


class PackedChats:
    """The tokens of a packed batch in one row without padding, and their attention.

    A part of a batch is a prefix or one chat: its tokens see each other in order. Parts of similar length are computed
    together. What the chats of a sample see of their prefix is one product without a mask.

    Args:
        segment_ids: Segments (B, L), long; see `build_packed_attention`.

    Attributes:
        places: Places (T,) of the tokens that are no padding in the flattened batch.
        last_rows: Tokens (n,) of the row that are read behind the last layer; None for all.

    Raises:
        ValueError: If a sample does not begin with its prefix, or a segment has several pieces.
    """

    def __init__(self, segment_ids: torch.LongTensor):
        self.shape = tuple(segment_ids.shape)
        self.places = (segment_ids >= 0).flatten().nonzero().flatten()
        self.segments = segment_ids.flatten()[self.places]
        self.samples = self.places // self.shape[1]
        self.position_ids = build_packed_positions(segment_ids).flatten()[self.places][None]
        self.last_rows: Tensor | None = None
        of_part = self.samples * (self.shape[1] + 1) + self.segments
        names, lengths = (found.tolist() for found in torch.unique_consecutive(of_part, return_counts=True))
        parts = [divmod(name, self.shape[1] + 1) for name in names]
        behind = {after[0] for before, after in pairwise(parts) if before[0] == after[0] and after[1] == 0}
        if len(names) != len(set(names)) or behind:
            raise ValueError(
                "segment_ids must be one piece for each segment of a sample, and 0, the shared prefix, the first one. "
                "The collator writes them so."
            )
        starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
        self.groups = group_parts(starts, lengths, segment_ids.device)
        self.prefixes = _find_prefixes(parts, starts)

    @staticmethod
    def can_serve(device: torch.device) -> bool:
        """Return whether there is an attention for it; a compiled graph takes the mask instead."""
        return device.type in ("cpu", "cuda") and not torch.compiler.is_compiling()

    def pick(self, states: Tensor) -> Tensor:
        """Return the states (1, T, ...) of the tokens of a padded batch (B, L, ...)."""
        return states.flatten(0, 1)[self.places][None]

    def pad(self, states: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return states (1, n, ...) of some rows in the padded batch (B, L, ...), zero elsewhere.

        Args:
            states: States of tokens of the row.
            rows: These tokens (n,); None for all.
        """
        places = self.places if rows is None else self.places[rows]
        padded = states.new_zeros(self.shape[0] * self.shape[1], *states.shape[2:])
        return padded.index_copy(0, places, states[0]).unflatten(0, self.shape)

    def choose_rows(self, labels: torch.LongTensor | None, read: Tensor | None) -> dict[str, Tensor]:
        """Choose the tokens that are read behind the last layer.

        Args:
            labels: Targets (B, L), -100 is ignored; None without any.
            read: Tokens (B, L) whose final states are read beside those in front of a label, bool; None for all.

        Returns:
            Arguments of head and loss. Where `read` is given, logits are those in front of a label.
        """
        if labels is None:
            return {}
        following = self.pick(nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED))
        if read is None:
            return {"shift_labels": following}
        is_labelled = following[0] != IGNORED
        self.last_rows = (is_labelled | self.pick(read)[0]).nonzero().flatten()
        rows = is_labelled.nonzero().flatten()
        return {"logits_to_keep": rows, "shift_labels": following[:, rows]}

    def pad_outputs(self, outputs: ModelOutput) -> None:
        """Put the states of a forward pass `inside` at their places in the batch.

        Logits of all tokens too, those in front of a label stay.
        States that nothing reads are zero.
        """
        last = outputs.last_hidden_state
        last = last if self.last_rows is None else last[:, self.last_rows]
        outputs.last_hidden_state = self.pad(last, self.last_rows)
        if self.last_rows is None and outputs.logits is not None:
            outputs.logits = self.pad(outputs.logits)
        if outputs.hidden_states is not None:
            kept = (None if states is None else self.pad(states) for states in outputs.hidden_states)
            outputs.hidden_states = tuple(kept)

    @contextmanager
    def inside(self, language_model: nn.Module) -> Iterator[None]:
        """Let the language model read the batch as one row inside the context.

        Its outputs are those of the row, see `pad_outputs`.
        """

        def flatten(module: nn.Module, args: tuple, named: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            row = {"inputs_embeds": self.pick(named["inputs_embeds"]), "position_ids": self.position_ids}
            masks = {"attention_mask": {"full_attention": None}, "shared_prefix": self}
            return args, {**named, **row, **masks}

        handle = language_model.register_forward_pre_hook(flatten, with_kwargs=True)
        try:
            with only_rows(language_model.layers[-1], self.last_rows):
                yield
        finally:
            handle.remove()

    @cached_property
    def block_mask(self) -> BlockMask:
        """Mask of the row for flex attention."""
        samples, segments = self.samples, self.segments

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            own = (segments[key] == 0) | (segments[key] == segments[query])
            return (samples[key] == samples[query]) & own & (key <= query)

        return create_block_mask(sees, None, None, len(segments), len(segments), device=segments.device)

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attend as `shared_prefix_attention` asks: by flex attention on a GPU, in parts on a CPU."""
        if query.device.type != "cpu":
            return flex_attention_forward(module, query, key, value, self.block_mask, scale)[0].transpose(1, 2)
        return _PackedAttention.apply(query, key, value, self, scale)


class _PackedAttention(torch.autograd.Function):
    """Attention of `PackedChats` on a CPU, with tensors (1, heads, T, D)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, chats: PackedChats, scale: float) -> Tensor:
        stacked, heads = stack_heads(query, key, value), [states.shape[1] for states in (query, key, value)]
        query, key, value = stacked.split(heads, 1)
        output, sums = empty_row(query), empty_sums(query)
        for group in chats.groups:
            own, own_sums = attend(*group.take(stacked).split(heads, 1), scale, is_causal=True)
            group.put(output, own)
            group.put(sums, own_sums.unsqueeze(-1))
        for prefix in chats.prefixes:
            queries, keys = slice(*prefix.queries), slice(*prefix.keys)
            shared = attend(query[:, :, queries], key[:, :, keys], value[:, :, keys], scale)
            merged = merge_parts((output[:, :, queries], sums[:, :, queries, 0]), shared)
            output[:, :, queries], sums[:, :, queries, 0] = merged
        ctx.save_for_backward(stacked, output, sums)
        ctx.chats, ctx.heads, ctx.scale = chats, heads, scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        stacked, output, sums = ctx.saved_tensors
        query, key, value = stacked.split(ctx.heads, 1)
        gradients = [empty_row(states) for states in (query, key, value)]
        for group in ctx.chats.groups:
            # The repeated last tokens of a shorter part are read by themselves alone: without gradient they give none.
            own = group.take(gradient, padding=0.0)
            states = *group.take(stacked).split(ctx.heads, 1), group.take(output), group.take(sums).squeeze(-1)
            parts = attend_backward(own, *states, ctx.scale, is_causal=True)
            for total, part in zip(gradients, parts, strict=True):
                group.put(total, part)
        for prefix in ctx.chats.prefixes:
            queries, keys = slice(*prefix.queries), slice(*prefix.keys)
            read = query[:, :, queries], key[:, :, keys], value[:, :, keys]
            merged = output[:, :, queries], sums[:, :, queries, 0]
            parts = attend_backward(gradient[:, :, queries], *read, *merged, ctx.scale)
            for total, place, part in zip(gradients, (queries, keys, keys), parts, strict=True):
                total[:, :, place] += part
        return *gradients, None, None


def _find_prefixes(parts: Sequence[tuple[int, int]], starts: Sequence[int]) -> list[Prefix]:
    """Find the prefixes that chats follow; parts are pairs of sample and segment."""
    prefixes = []
    for place, (sample, segment) in enumerate(parts):
        if segment == 0:
            end = place + 1
            while end < len(parts) and parts[end][0] == sample:
                end += 1
            if end > place + 1:
                prefixes.append(Prefix((starts[place], starts[place + 1]), (starts[place + 1], starts[end])))
    return prefixes
