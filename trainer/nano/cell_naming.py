"""A first lesson for models that start from nothing: say in one word what each visual token shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.data_collator import IGNORED_LABEL, IDE3DDataCollator


class CellNamingCollator:
    """Collates samples with `cell_words` so that the language model has to name every visual token.

    The label of a visual token is the word of its cell, said as the next token: hundreds of answers a video, where a
    question gives one. The words are those of later answers, so that they need not be learned again.

    Args:
        collator: Makes everything but the labels.

    Shape:
        cell_words: (V, rows, cols), str; "" has no label. Only the first token of a word counts.

    Raises:
        ValueError: A sample has no words, or not one for each cell of its video.
    """

    def __init__(self, collator: IDE3DDataCollator):
        self.collator = collator

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collate."""
        batch = self.collator(samples)
        processor = self.collator.processor
        labels = torch.full_like(batch["labels"], IGNORED_LABEL)
        for index, sample in enumerate(samples):
            words = np.asarray(sample.get("cell_words", ()))
            expected = (len(sample.get("frames", ())), *self.collator.grid.shape)
            if words.shape != expected:
                raise ValueError(f"Sample {index}: cell_words must have shape {expected}, got {words.shape}.")
            places = (batch["input_ids"][index] == processor.video_token_id).nonzero().flatten()
            places = self.collator.grid.split(places)
            ids = {word: processor.tokenizer.encode(word)[0] for word in np.unique(words).tolist() if word}
            for word, token in ids.items():
                # A label belongs to the position before it.
                labels[index, places[torch.from_numpy(words == word)] + 1] = token
        return {**batch, "labels": labels}


__all__ = ["CellNamingCollator"]
