"""Many questions behind one prefix: its keys and values are computed once and read by all of them."""

import copy
from collections.abc import Sequence

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

__all__ = ["PackedQuestions", "RepeatedPrefix", "SharedPrefixLayer"]

PACKABLE_ATTENTION = ("eager", "sdpa")  # these take a mask for every pair of query and key


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
    """Language model and cache of the prefix, which both ways of asking share."""

    def __init__(self, language_model: nn.Module, prefix: Cache):
        self.language_model, self.prefix = language_model, prefix
        self.prefix_length = prefix.get_seq_length()

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


class PackedQuestions(_Questions):
    """Questions in one sequence, each of which sees the prefix and itself only.

    The prefix is neither copied nor read once for each question. It takes an attention with a mask for every pair of
    query and key, and full attention in every layer.
    """

    def __init__(self, language_model: nn.Module, prefix: Cache):
        super().__init__(language_model, prefix)
        self.owner = torch.zeros(self.prefix_length, dtype=torch.long)
        self.next_position = torch.zeros(0, dtype=torch.long)

    @staticmethod
    def new_cache(config) -> Cache:
        """Return an empty cache for the prefix, given the configuration of the language model."""
        return Cache(layers=[SharedPrefixLayer() for _ in range(config.num_hidden_layers)])

    def start(self, suffixes: Sequence[torch.Tensor], max_new_tokens: int) -> list[torch.Tensor]:
        """Read the questions.

        Args:
            suffixes: Embeddings (L_i, hidden_size) of each question.
            max_new_tokens: Number of tokens to keep room for in each answer.

        Returns:
            States (L_i, hidden_size) of each question.
        """
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
        return list(states.split(lengths.tolist()))

    def step(self, embeds: torch.Tensor, questions: Sequence[int]) -> torch.Tensor:
        """Read one more token of some questions.

        Args:
            embeds: Embeddings (n, hidden_size) of the tokens.
            questions: Index of the question that each token belongs to.

        Returns:
            States (n, hidden_size).
        """
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
    def new_cache(config) -> Cache:
        """Return an empty cache for the prefix, given the configuration of the language model."""
        return DynamicCache(config=config)

    @classmethod
    def without_prefix(cls, model: nn.Module) -> "RepeatedPrefix":
        """Return a reader of questions that stand alone, for an `IDE3DForConditionalGeneration`."""
        return cls(model.model.language_model, cls.new_cache(model.config.get_text_config()))

    def start(self, suffixes: Sequence[torch.Tensor], max_new_tokens: int) -> list[torch.Tensor]:
        """Read the questions; see `PackedQuestions.start`."""
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
        return [row[-length:] for row, length in zip(states, lengths.tolist(), strict=True)]

    def step(self, embeds: torch.Tensor, questions: Sequence[int]) -> torch.Tensor:
        """Read one more token of some questions; see `PackedQuestions.step`. Questions left out are dropped."""
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
