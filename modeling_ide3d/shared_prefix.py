"""Attention behind a prefix that many texts share: its part and their own parts apart, merged exactly.

A text sees the whole prefix and, in order, itself. Attention to the prefix needs no mask, and reads the prefix once
for all texts. Both parts are merged by the logarithms of their sums of exponentials, which gives the softmax over all.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = [
    "SHARED_PREFIX",
    "AttentionPlan",
    "SideBySide",
    "attend",
    "attend_backward",
    "can_share_prefix",
    "empty_row",
    "empty_sums",
    "group_parts",
    "has_other_layers",
    "is_split",
    "merge_parts",
    "only_rows",
    "sharing_prefix",
    "stack_heads",
]

SHARED_PREFIX = "shared_prefix"  # name of the attention implementation
CHUNK_BYTES = 32 * 1024**2  # scores of one chunk, where no fused kernel tells the sums of exponentials
LAST_LAYER_PARTS = ("self_attn.q_proj", "self_attn.o_proj", "mlp")  # what a row of a layer alone pays for itself
# Kernel behind `scaled_dot_product_attention` on a CPU, which tells the sums; private in torch, so it may go.
CPU_KERNEL = "_scaled_dot_product_flash_attention_for_cpu"
_SWITCHING = threading.Lock()
_SHARING: dict[int, list[Any]] = {}  # by configuration: contexts that it is in, and its attention before


class AttentionPlan(Protocol):
    """Which tokens see which, for one forward pass."""

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return the output (1, heads, T, D) of attention from all tokens of one row.

        Args:
            module: Attention of a layer, with its `layer_idx`.
            query: (1, heads, T, D).
            key: (1, key heads, T, D), new keys of these tokens.
            value: (1, key heads, T, D).
            scale: Factor of the scores.
        """


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    shared_prefix: AttentionPlan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of Transformers' interface: by the plan `shared_prefix`, without one as "sdpa"."""
    if shared_prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast rotary positions make them float32
    return shared_prefix.attend(module, query, key, value, scale).transpose(1, 2).contiguous(), None


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
AttentionMaskInterface.register(SHARED_PREFIX, sdpa_mask)


def can_share_prefix(config: PreTrainedConfig) -> bool:
    """Return whether plans can take over the attention of a language model.

    They need kernels that are private in torch; without them attention stays what it is.
    """
    kernels = (CPU_KERNEL, f"{CPU_KERNEL}_backward")
    has_kernels = all(hasattr(torch.ops.aten, name) for name in kernels)
    return config._attn_implementation in ("sdpa", SHARED_PREFIX) and has_kernels and not has_other_layers(config)


def has_other_layers(config: PreTrainedConfig) -> bool:
    """Return whether a language model has layers without full attention."""
    return set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}


def is_split(model: nn.Module) -> bool:
    """Return whether `device_map` put parts of a model on several devices.

    The tensors of a plan lie on one.
    """
    return len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1


@contextmanager
def sharing_prefix(language_model: nn.Module) -> Iterator[None]:
    """Let a language model attend by plans inside the context.

    Other threads may use the model meanwhile: without a plan this attention is "sdpa".
    """
    config = language_model.config
    with _SWITCHING:
        users = _SHARING.setdefault(id(config), [0, config._attn_implementation])
        users[0] += 1
        config._attn_implementation = SHARED_PREFIX
    try:
        yield
    finally:
        with _SWITCHING:
            users[0] -= 1
            if not users[0]:
                config._attn_implementation = _SHARING.pop(id(config))[1]


@contextmanager
def only_rows(layer: nn.Module, rows: Tensor | None) -> Iterator[None]:
    """Let a decoder layer compute some rows alone, where nothing behind it reads the others.

    Keys and values are those of all rows. The outputs of other rows are finite and mean nothing. Forward passes of
    other threads are not concerned.

    Args:
        layer: Decoder layer.
        rows: Indices (n,) of the rows; None for all.
    """
    if rows is None:
        yield
        return
    owner, handles, count = threading.get_ident(), [], 0

    def select(module: nn.Module, args: tuple[Tensor, ...]) -> Any:
        nonlocal count
        if threading.get_ident() != owner:
            return None
        count = args[0].shape[1]
        return (args[0].index_select(1, rows),)

    def spread(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Any:
        if threading.get_ident() != owner:
            return None
        return output.new_zeros(output.shape[0], count, output.shape[2]).index_copy(1, rows, output)

    for name, part in layer.named_modules():
        if name in LAST_LAYER_PARTS:
            handles += [part.register_forward_pre_hook(select), part.register_forward_hook(spread)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float, *, is_causal: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention with the logarithm of its sums of exponentials.

    Args:
        query: Queries.
        key: Keys; each serves as many heads in a row as there are more heads than keys.
        value: Values.
        scale: Factor of the scores.
        is_causal: Whether the t-th query sees the first t + 1 keys alone.
        mask: (N, 1, 1, S), added to the scores; -inf hides a key.

    Shape:
        query:      (N, heads, T, D).
        key, value: (N, key heads, S, D).
        output:     (N, heads, T, D), and (N, heads, T) in float32 at least.
    """
    shape = query.shape
    if shape[1] != key.shape[1]:  # heads of one key are further queries of it
        if is_causal:
            key, value = (states.repeat_interleave(shape[1] // key.shape[1], 1) for states in (key, value))
        else:
            query = query.reshape(shape[0], key.shape[1], -1, shape[3])
    kernel = _fused if query.device.type == "cpu" else _plain
    output, sums = kernel(query, key, value, scale, is_causal, mask)
    return output.reshape(shape), sums.reshape(shape[:-1])


def _fused(
    query: Tensor, key: Tensor, value: Tensor, scale: float, is_causal: bool, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    kernel = getattr(torch.ops.aten, CPU_KERNEL)
    return kernel(query, key, value, is_causal=is_causal, attn_mask=mask, scale=scale)


def _plain(
    query: Tensor, key: Tensor, value: Tensor, scale: float, is_causal: bool, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    outputs, sums = [], []
    size = max(CHUNK_BYTES // (4 * query.shape[0] * query.shape[1] * max(key.shape[2], 1)), 1)
    for start in range(0, query.shape[2], size):
        part = query[:, :, start : start + size]
        scores = (part @ key.transpose(2, 3)).to(torch.promote_types(query.dtype, torch.float32)) * scale
        if mask is not None:
            scores = scores + mask
        if is_causal:
            order = torch.arange(key.shape[2], device=key.device)
            scores = scores.masked_fill(order > order[start : start + part.shape[2], None], -torch.inf)
        sums.append(scores.logsumexp(-1))
        outputs.append((scores - sums[-1].unsqueeze(-1)).exp_().to(value.dtype) @ value)
    return torch.cat(outputs, 2), torch.cat(sums, 2)


def merge_parts(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Merge the attention to two sets of keys, as `attend` gives each."""
    (output, sums), (other, other_sums) = first, second
    weight = (other_sums - sums).sigmoid_().unsqueeze(-1)
    merged = torch.lerp(output, other, weight) if output.dtype == weight.dtype else output + weight * (other - output)
    return merged.to(output.dtype), torch.logaddexp(sums, other_sums)


def attend_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    sums: Tensor,
    scale: float,
    *,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value from one part of attention, on a CPU.

    `output` and `sums` are those of all parts together: then the gradients of the parts add up to the whole.

    Args:
        gradient: Gradient of the merged output.
        query: Queries.
        key: Keys of this part.
        value: Values of this part.
        output: Merged output.
        sums: Merged logarithms of sums.
        scale: Factor of the scores.
        is_causal: Whether the t-th query sees the first t + 1 keys alone.

    Shape:
        key, value:    (N, key heads, S, D).
        query, output: (N, heads, T, D), the gradient too; sums (N, heads, T).
        output:        as query, key and value.
    """
    shape, groups = query.shape, query.shape[1] // key.shape[1]
    kept = key, value
    if groups > 1 and is_causal:
        key, value = (states.repeat_interleave(groups, 1) for states in kept)
    elif groups > 1:
        folded = (shape[0], key.shape[1], -1, shape[3])
        gradient, query, output = (states.reshape(folded) for states in (gradient, query, output))
        sums = sums.reshape(folded[:3])
    kernel = getattr(torch.ops.aten, f"{CPU_KERNEL}_backward")
    of_query, of_key, of_value = kernel(gradient, query, key, value, output, sums, 0.0, is_causal, scale=scale)
    if groups > 1 and is_causal:
        of_key, of_value = (states.unflatten(1, (-1, groups)).sum(2) for states in (of_key, of_value))
    return of_query.reshape(shape), of_key, of_value


class SideBySide:
    """Parts of similar length, side by side.

    Args:
        index: Tokens (n, l) of the row that each part holds; a shorter part repeats its last token.
        exists: Whether a place (n, l) is a token of its own, bool.
    """

    def __init__(self, index: Tensor, exists: Tensor):
        self.shape, self.index = index.shape, index.flatten()
        self.exists = exists.flatten().unsqueeze(1)
        self.kept = None if exists.all() else exists.flatten().nonzero().flatten()
        self.tokens = self.index if self.kept is None else self.index[self.kept]

    @classmethod
    def of(cls, starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> "SideBySide":
        """Put parts together, given the first token and the number of tokens of each."""
        first, own = (torch.tensor(numbers, device=device).unsqueeze(1) for numbers in (starts, lengths))
        order = torch.arange(max(lengths), device=device)
        return cls(first + order.minimum(own - 1), order < own)

    def take(self, states: Tensor, padding: float | None = None) -> Tensor:
        """Return states (1, heads, T, D) of the row as (n, heads, l, D)."""
        taken = _by_token(states).index_select(0, self.index)
        if padding is not None and self.kept is not None:
            taken = taken.masked_fill_(~self.exists, padding)
        return taken.view(*self.shape, states.shape[1], states.shape[3]).transpose(1, 2)

    def put(self, states: Tensor, own: Tensor) -> None:
        """Write states (n, heads, l, D) into those of `empty_row`."""
        flat = own.transpose(1, 2).flatten(2).flatten(0, 1)
        _by_token(states).index_copy_(0, self.tokens, flat if self.kept is None else flat[self.kept])


def empty_row(like: Tensor) -> Tensor:
    """Return empty states (1, heads, T, D), those of a token side by side in memory."""
    return like.new_empty(1, like.shape[2], like.shape[1], like.shape[3]).transpose(1, 2)


def empty_sums(like: Tensor) -> Tensor:
    """Return empty states (1, heads, T, 1) for the sums of queries (1, heads, T, D)."""
    return empty_row(like[..., :1].to(torch.promote_types(like.dtype, torch.float32)))


def stack_heads(*states: Tensor) -> Tensor:
    """Put states (1, heads, T, D) of the same tokens together along their heads.

    Those of a token lie side by side in memory.
    """
    return torch.cat([of_heads.transpose(1, 2) for of_heads in states], 2).transpose(1, 2)


def _by_token(states: Tensor) -> Tensor:
    """Return states (1, heads, T, D) as (T, heads * D); a view of those of `empty_row`."""
    return states[0].transpose(0, 1).flatten(1)


def group_parts(starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> list[SideBySide]:
    """Put parts of a row together whose lengths have the same power of two."""
    powers: dict[int, list[int]] = {}
    for part, length in enumerate(lengths):
        powers.setdefault((length - 1).bit_length(), []).append(part)
    return [
        SideBySide.of([starts[part] for part in parts], [lengths[part] for part in parts], device)
        for parts in powers.values()
    ]
