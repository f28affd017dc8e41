"""Many questions behind one prefix: its keys and values are computed once and read by all of them."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from modeling_ide3d.shared_prefix import (
    SHARED_PREFIX,
    SideBySide,
    attend,
    can_share_prefix,
    empty_row,
    empty_sums,
    has_other_layers,
    is_split,
    merge_parts,
    only_rows,
    sharing_prefix,
)

__all__ = [
    "PackedQuestions",
    "PrefixQuestions",
    "RepeatedPrefix",
    "SharedPrefixLayer",
    "choose_strategy",
]

MASKED_ATTENTION = ("eager", "sdpa", SHARED_PREFIX)  # take a mask for every pair of tokens


class SharedPrefixLayer(DynamicLayer):
    """Keys and values of one layer in one buffer that grows in place.

    A new token moves none of those before it. `rewind` forgets all that follows the prefix; the next questions then
    overwrite it.
    """

    def __init__(self):
        super().__init__()
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Take device and type from the first states."""
        self.device, self.dtype = key_states.device, key_states.dtype
        self.keys, self.values = key_states[..., :0, :], value_states[..., :0, :]
        self.is_initialized = True

    def reserve(self, length: int) -> None:
        """Make room for `length` tokens; stored tokens move at most once."""
        if self.keys.shape[-2] >= length:
            return
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_empty(*old.shape[:-2], length, old.shape[-1])
            new[..., : self.length, :] = old[..., : self.length, :]
            setattr(self, name, new)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new states behind the others and return views of all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        self.reserve(end)
        self.keys[..., self.length : end, :] = key_states
        self.values[..., self.length : end, :] = value_states
        self.length = end
        return self.keys[..., :end, :], self.values[..., :end, :]

    def get_seq_length(self) -> int:
        """Return the number of stored tokens."""
        return self.length

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens; the buffer stays."""
        self.length = length


class _Questions:
    """Language model and cache of the prefix, which all ways of asking share."""

    def __init__(self, language_model: nn.Module, prefix: Cache):
        self.language_model, self.prefix = language_model, prefix
        self.prefix_length = prefix.get_seq_length()

    @staticmethod
    def new_cache(config: PreTrainedConfig) -> Cache:
        """Return an empty cache for the prefix, given the configuration of the language model."""
        return Cache(layers=[SharedPrefixLayer() for _ in range(config.num_hidden_layers)])

    @classmethod
    @contextmanager
    def reading_prefix(cls, language_model: nn.Module) -> Iterator[dict[str, Any]]:
        """Yield arguments of the forward pass that fills the cache with the prefix."""
        yield {}

    def _run(self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        outputs = self.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            return_dict=True,
            cache=cache,
        )
        return outputs.last_hidden_state


class PrefixQuestions(_Questions):
    """Questions behind one prefix, by attention in parts; see `modeling_ide3d.shared_prefix`.

    The prefix is neither copied nor read once for each question, and no mask of pairs is made. In the last layer the
    last token of a question is computed alone, and of the prefix only keys and values.
    """

    def __init__(self, language_model: nn.Module, prefix: Cache):
        super().__init__(language_model, prefix)
        self.rows: list[int] = []
        self.lengths = torch.zeros(0, dtype=torch.long)
        self.own: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # keys and values by layer
        self.capacity = 0
        self.suffixes: SideBySide | None = None  # while questions are read
        self.last_rows: torch.Tensor | None = None

    @classmethod
    @contextmanager
    def reading_prefix(cls, language_model: nn.Module) -> Iterator[dict[str, Any]]:
        """See `_Questions.reading_prefix`; the last layer computes keys and values alone."""
        nothing = torch.zeros(0, dtype=torch.long, device=language_model.device)
        with sharing_prefix(language_model), only_rows(language_model.layers[-1], nothing):
            yield {"shared_prefix": _PrefixReading(len(language_model.layers) - 1)}

    def start(self, suffixes: Sequence[torch.Tensor], max_new_tokens: int) -> torch.Tensor:
        """Read the questions; see `QuestionReader.start`."""
        device = suffixes[0].device
        lengths = [len(suffix) for suffix in suffixes]
        ends = torch.tensor(lengths, device=device).cumsum(0)
        self.rows, self.lengths, self.own = list(range(len(suffixes))), torch.tensor(lengths, device=device), {}
        self.capacity = max(lengths) + max(max_new_tokens - 1, 0)
        starts = [0, *ends.tolist()][:-1]
        self.suffixes, self.last_rows = SideBySide.of(starts, lengths, device), ends - 1
        positions = torch.cat([torch.arange(length, device=device) for length in lengths])
        try:
            states = self._read(torch.cat(list(suffixes)), positions, self.last_rows)
        finally:
            self.suffixes = None
        return states[self.last_rows]

    def step(self, embeds: torch.Tensor, questions: Sequence[int]) -> torch.Tensor:
        """Read one more token of some questions; see `QuestionReader.step`. Questions left out are dropped."""
        if list(questions) != self.rows:
            places = {question: place for place, question in enumerate(self.rows)}
            keep = torch.tensor([places[question] for question in questions], device=embeds.device)
            for layer, (keys, values) in self.own.items():  # one after the other, so that one alone exists twice
                self.own[layer] = keys[keep], values[keep]
                del keys, values
            self.lengths, self.rows = self.lengths[keep], list(questions)
        states = self._read(embeds, self.lengths, None)
        self.lengths = self.lengths + 1
        return states

    def _read(self, embeds: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        with sharing_prefix(self.language_model), only_rows(self.language_model.layers[-1], rows):
            outputs = self.language_model(
                inputs_embeds=embeds[None],
                attention_mask={"full_attention": None},
                position_ids=(positions + self.prefix_length)[None],
                use_cache=False,
                return_dict=True,
                shared_prefix=self,
            )
        return outputs.last_hidden_state[0]

    def attend(
        self, module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Attend to the prefix and to the question's own tokens; see `AttentionPlan`."""
        layer = module.layer_idx
        prefix = self.prefix.layers[layer]
        if self.suffixes is None:
            keys, values = self.own[layer]
            place = torch.arange(len(keys), device=keys.device)
            keys[place, :, self.lengths], values[place, :, self.lengths] = (s[0].transpose(0, 1) for s in (key, value))
            return self._attend_last(query, prefix, layer, scale, self.lengths + 1)
        shape = len(self.rows), key.shape[1], self.capacity, key.shape[3]
        buffers = key.new_zeros(shape), value.new_zeros(shape)
        own = [self.suffixes.take(states) for states in (key, value)]
        for buffer, states in zip(buffers, own, strict=True):
            buffer[:, :, : states.shape[2]] = states
        self.own[layer] = buffers
        if layer == len(self.prefix.layers) - 1:
            last = self._attend_last(query[:, :, self.last_rows], prefix, layer, scale, self.lengths)
            return torch.zeros_like(query).index_copy(2, self.last_rows, last)
        output, sums = empty_row(query), empty_sums(query)
        states, own_sums = attend(self.suffixes.take(query), *own, scale, is_causal=True)
        self.suffixes.put(output, states)
        self.suffixes.put(sums, own_sums.unsqueeze(-1))
        shared = attend(query, prefix.keys, prefix.values, scale)
        return merge_parts((output, sums[..., 0]), shared)[0]

    def _attend_last(
        self, query: torch.Tensor, prefix: "SharedPrefixLayer", layer: int, scale: float, lengths: torch.Tensor
    ) -> torch.Tensor:
        """Attend from one token of each question to prefix and own tokens."""
        keys, values = (states[:, :, : int(lengths.max())] for states in self.own[layer])
        hidden = torch.arange(keys.shape[2], device=keys.device) >= lengths.unsqueeze(1)
        mask = torch.zeros_like(hidden, dtype=query.dtype).masked_fill_(hidden, -torch.inf)[:, None, None]
        own, sums = attend(query[0].transpose(0, 1).unsqueeze(2), keys, values, scale, mask=mask)
        own = own.squeeze(2).transpose(0, 1)[None], sums.squeeze(2).transpose(0, 1)[None]
        return merge_parts(own, attend(query, prefix.keys, prefix.values, scale))[0]


class _PrefixReading:
    """Causal attention of the prefix to itself, of which the last layer needs no output.

    Args:
        last_layer: Index of the last layer.
    """

    def __init__(self, last_layer: int):
        self.last_layer = last_layer

    def attend(
        self, module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """See `AttentionPlan`."""
        if module.layer_idx == self.last_layer:
            return torch.zeros_like(query)
        return nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=True
        )


class PackedQuestions(_Questions):
    """Questions in one sequence, with a mask for every pair of tokens.

    Each sees the prefix and itself only. It takes an attention with such a mask, and full attention in every layer.
    """

    def __init__(self, language_model: nn.Module, prefix: Cache):
        super().__init__(language_model, prefix)
        self.owner = torch.zeros(self.prefix_length, dtype=torch.long)
        self.next_position = torch.zeros(0, dtype=torch.long)

    def start(self, suffixes: Sequence[torch.Tensor], max_new_tokens: int) -> torch.Tensor:
        """Read the questions; see `QuestionReader.start`."""
        lengths = torch.tensor([len(suffix) for suffix in suffixes])
        total = int(lengths.sum())
        for layer in self.prefix.layers:
            layer.rewind(self.prefix_length)
            layer.reserve(self.prefix_length + total + len(suffixes) * max(max_new_tokens - 1, 0))
        self.owner = torch.zeros(self.prefix_length, dtype=torch.long)
        positions = torch.cat([torch.arange(length) for length in lengths.tolist()]) + self.prefix_length
        self.next_position = lengths + self.prefix_length
        owner = torch.arange(1, len(suffixes) + 1).repeat_interleave(lengths)
        states = self._append(torch.cat(list(suffixes)), owner, positions)
        return states[lengths.cumsum(0) - 1]

    def step(self, embeds: torch.Tensor, questions: Sequence[int]) -> torch.Tensor:
        """Read one more token of some questions; see `QuestionReader.step`."""
        index = torch.tensor(questions)
        states = self._append(embeds, index + 1, self.next_position[index])
        self.next_position[index] += 1
        return states

    def _append(self, embeds: torch.Tensor, owner: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        before = len(self.owner)
        self.owner = torch.cat([self.owner, owner])
        device = embeds.device
        keys, queries = self.owner.to(device), owner.to(device)
        order = torch.arange(len(keys), device=device)
        visible = (keys == 0) | (keys == queries.unsqueeze(1))
        visible &= order <= order[before:].unsqueeze(1)
        # A mask that is added to the scores suits every attention, and no layer has to convert it.
        mask = embeds.new_zeros(visible.shape).masked_fill_(~visible, torch.finfo(embeds.dtype).min)
        return self._run(embeds[None], mask[None, None], positions[None].to(device), self.prefix)[0]


class RepeatedPrefix(_Questions):
    """Questions in a batch, padded on the left, behind copies of the prefix.

    It serves attention without a mask of pairs (FlashAttention, FlexAttention), and language models with sliding
    windows or states.
    """

    def __init__(self, language_model: nn.Module, prefix: Cache):
        super().__init__(language_model, prefix)
        self.cache, self.rows = prefix, []
        self.mask = self.next_position = torch.zeros(0, dtype=torch.long)

    @staticmethod
    def new_cache(config: PreTrainedConfig) -> Cache:
        """See `_Questions.new_cache`; layers are those that Transformers gives the language model."""
        return DynamicCache(config=config)

    @classmethod
    def without_prefix(cls, model: nn.Module) -> "RepeatedPrefix":
        """Return a reader of questions that stand alone, for an `IDE3DForConditionalGeneration`."""
        return cls(model.model.language_model, cls.new_cache(model.config.get_text_config()))

    def start(self, suffixes: Sequence[torch.Tensor], max_new_tokens: int) -> torch.Tensor:
        """Read the questions; see `QuestionReader.start`."""
        self.cache = copy.deepcopy(self.prefix)
        self.cache.batch_repeat_interleave(len(suffixes))
        self.rows = list(range(len(suffixes)))
        embeds = nn.utils.rnn.pad_sequence(list(suffixes), batch_first=True, padding_side="left")
        lengths = torch.tensor([len(suffix) for suffix in suffixes], device=embeds.device)
        columns = torch.arange(embeds.shape[1], device=embeds.device)
        exists = columns >= (embeds.shape[1] - lengths).unsqueeze(1)
        self.mask = nn.functional.pad(exists.long(), (self.prefix_length, 0), value=1)
        self.next_position = lengths + self.prefix_length
        positions = (exists.cumsum(-1) - 1).clamp(min=0) + self.prefix_length
        states = self._run(embeds, self.mask, positions, self.cache)
        return states[:, -1]

    def step(self, embeds: torch.Tensor, questions: Sequence[int]) -> torch.Tensor:
        """Read one more token of some questions; see `QuestionReader.step`. Questions left out are dropped."""
        if list(questions) != self.rows:
            places = {question: place for place, question in enumerate(self.rows)}
            keep = torch.tensor([places[question] for question in questions], device=embeds.device)
            self.cache.batch_select_indices(keep)
            self.mask, self.next_position = self.mask[keep], self.next_position[keep]
            self.rows = list(questions)
        self.mask = nn.functional.pad(self.mask, (0, 1), value=1)
        states = self._run(embeds.unsqueeze(1), self.mask, self.next_position.unsqueeze(1), self.cache)
        self.next_position = self.next_position + 1
        return states[:, 0]


def choose_strategy(model: PreTrainedModel) -> type[PrefixQuestions | PackedQuestions | RepeatedPrefix]:
    """Choose how an `IDE3DForConditionalGeneration` reads many questions."""
    config = model.config.get_text_config()
    if can_share_prefix(config) and not is_split(model):
        return PrefixQuestions
    if config._attn_implementation in MASKED_ATTENTION and not has_other_layers(config):
        return PackedQuestions
    return RepeatedPrefix
