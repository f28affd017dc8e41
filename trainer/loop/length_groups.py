"""Batches of samples that are about as long, so that little of a batch is padding."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

from processing.chat_rules_ide3d import list_texts
from trainer.data.sample_chats import list_chats
from trainer.data_collator import IDE3DDataCollator

__all__ = ["LengthSampler", "measure_lengths"]

_BATCHES = 50  # sorted together, as Transformers does: enough to differ in length, few enough to stay a random order


class LengthSampler(Sampler[int]):
    """Indices of an epoch, whose batches hold samples that are about as long.

    Transformers' own sampler draws from the global generator, so that a resumed run sees another order. Here seed and
    epoch alone give it. Batches come in a random order, not from long to short.

    Args:
        lengths: Length of each sample.
        batch: Number of samples in a batch of all processes.
        seed: Seed of the order.

    Example:
        >>> batches = list(LengthSampler([5, 9, 4, 8], batch=2))
        >>> sorted(sorted(batches[at : at + 2]) for at in (0, 2))
        [[0, 2], [1, 3]]
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int = 0):
        self.lengths, self.batch, self.seed, self.epoch = list(lengths), batch, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)) % 2**63)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        whole = len(order) - len(order) % self.batch  # the last batch has the rest
        batches: list[list[int]] = []
        for start in range(0, whole, _BATCHES * self.batch):
            together = sorted(order[start : min(start + _BATCHES * self.batch, whole)], key=self.lengths.__getitem__)
            batches += [together[at : at + self.batch] for at in range(0, len(together), self.batch)]
        for place in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[place]
        yield from order[whole:]


def measure_lengths(samples: Sequence[Mapping[str, Any]], collator: IDE3DDataCollator) -> list[int]:
    """Return the tokens of each sample, of words and pictures, without the template's.

    Args:
        samples: Samples as `IDE3DDataCollator` takes them, in memory.
        collator: Collator of the training.

    Raises:
        ValueError: If `messages` of a sample are no chat or list of chats.
    """
    texts = [" ".join(" ".join(list_texts(m)) for chat in list_chats(sample) for m in chat) for sample in samples]
    words = collator.processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
    keys = ("frames", "images")
    shown = [sum(len(sample[key]) for key in keys if sample.get(key) is not None) for sample in samples]
    return [len(tokens) + count * collator.grid.tokens_per_frame for tokens, count in zip(words, shown, strict=True)]
