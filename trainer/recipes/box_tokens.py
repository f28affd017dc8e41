"""Tokens of boxes in words for a model that has none: added the standard way, numbers started in their order."""

import math

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from processing.boxes_in_words import NUM_BINS, NumberStyle, key_tokens, number_tokens

__all__ = ["add_box_tokens", "find_box_tokens", "list_box_tokens", "start_number_tokens"]

_MOST_WAVES = 16
_LENGTH = 0.5  # of the deviation of other rows: longer ones are said in the place of words at first
_SHORTEST, _LONGEST = 8.0, 4.0 * NUM_BINS  # bins a wavelength: neighbours are alike, ends are not


def list_box_tokens() -> list[str]:
    """Return `number_tokens` in order, then `key_tokens`."""
    return [*number_tokens(), *key_tokens()]


def add_box_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Add the words of boxes to a tokenizer and to the embeddings of its model.

    They are those of `list_box_tokens`. A word that the tokenizer has stays as it is, and so does the size of
    embeddings that have rows to spare. Numbers start as `start_number_tokens` says, keys as the mean of the pieces
    that they were spelled in.

    Args:
        model: Model with input embeddings, tied to its head or not; changed in place.
        tokenizer: Its tokenizer; changed in place.

    Returns:
        Number of words that were added.
    """
    known = tokenizer.get_vocab()
    missing = [word for word in list_box_tokens() if word not in known]
    if not missing:
        return 0
    pieces = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in key_tokens() if word in missing}
    # Not special tokens: those are left out where answers are decoded.
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in missing])
    if len(tokenizer) > len(model.get_input_embeddings().weight):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if set(number_tokens()) <= set(missing):
        start_number_tokens(model, tokenizer)
    with torch.no_grad():
        for table in _tables(model):
            for word, ids in pieces.items():
                table[tokenizer.convert_tokens_to_ids(word)] = table[ids].mean(0)
    return len(missing)


def find_box_tokens(tokenizer: PreTrainedTokenizerBase, numbers: NumberStyle = "tokens") -> list[int]:
    """Return the ids of the words that `add_box_tokens` adds, numbers first and in order.

    Args:
        tokenizer: Tokenizer with these words.
        numbers: Way of writing measures; none of the words is needed for another than "tokens".
    """
    return tokenizer.convert_tokens_to_ids(list_box_tokens()) if numbers == "tokens" else []


def _tables(model: PreTrainedModel) -> list[Tensor]:
    """Return the weights of embedding and head, one where they are tied."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return list({id(layer.weight): layer.weight for layer in layers}.values())


@torch.no_grad()
def start_number_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Start the embeddings of `number_tokens` as waves of their value.

    Near numbers are alike: what is learned of one is learned of its neighbours too, where random rows learn each
    number alone. The waves lie around the mean of the rows of words. An output head of its own starts likewise.

    Args:
        model: Model whose embeddings have a row for each token; changed in place.
        tokenizer: Tokenizer that has the words.
    """
    ids = find_box_tokens(tokenizer)[:NUM_BINS]
    others = sorted(set(range(len(tokenizer))) - set(find_box_tokens(tokenizer)))
    for table in _tables(model):
        known = table[others].float()
        waves = number_waves(known.shape[1]).to(known.device)
        length = (known - known.mean(0)).norm(dim=1).mean()
        table[ids] = (known.mean(0) + _LENGTH * length * waves).to(table.dtype)


def number_waves(width: int) -> Tensor:
    """Return sines and cosines of the numbers, in random orthogonal directions.

    Args:
        width: Channels of an embedding.

    Shape:
        output: (NUM_BINS, width), rows of length 1.
    """
    count = min(_MOST_WAVES, width // 2)
    wavelengths = torch.logspace(math.log10(_SHORTEST), math.log10(_LONGEST), count)
    angles = 2 * math.pi * torch.arange(NUM_BINS)[:, None] / wavelengths
    waves = torch.cat([angles.sin(), angles.cos()], 1) / math.sqrt(count)
    return waves @ torch.linalg.qr(torch.randn(width, 2 * count))[0].T
