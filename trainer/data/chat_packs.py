"""Which chats of a scene share one sample, by the tokens that they need."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from processing import IDE3DProcessor

__all__ = ["count_own_tokens", "pack_rows"]


def count_own_tokens(chats: Sequence[Sequence[Mapping[str, Any]]], processor: IDE3DProcessor) -> list[int]:
    """Return the number of tokens behind the video of each chat.

    Args:
        chats: Chats of one form: the video, words of the user, and an answer.
        processor: Processor of the model.
    """
    texts = [[part["text"] for message in chat for part in message["content"] if "text" in part] for chat in chats]
    words = processor.tokenizer([text for parts in texts for text in parts], add_special_tokens=False)["input_ids"]
    lengths = iter(map(len, words))
    counts = [sum(next(lengths) for _ in parts) for parts in texts]
    whole = processor.tokenizer.apply_chat_template(
        chats[0], chat_template=processor.chat_template, tokenize=True, return_dict=True
    )["input_ids"]
    of_template = len(whole) - 1 - whole.index(processor.video_token_id) - counts[0]
    return [count + of_template for count in counts]


def pack_rows(scenes: Sequence[str], tokens: Sequence[int], most: int) -> list[list[int]]:
    """Return the rows of each sample, which are chats of one scene.

    They need at most `most` tokens together; a chat that needs more stands alone. The rows of a scene are dealt out in
    a random order, the same in every call: benchmarks list the descriptions of one object one after the other.

    Args:
        scenes: Scene of each row.
        tokens: Number of tokens that each row needs.
        most: Largest sum of them in a sample.

    Example:
        >>> pack_rows(["a", "b", "a"], [3, 3, 3], most=8)
        [[0, 2], [1]]
    """
    of_scene: dict[str, list[int]] = {}
    for row, scene in enumerate(scenes):
        of_scene.setdefault(scene, []).append(row)
    generator = torch.Generator().manual_seed(0)
    packs = []
    for rows in of_scene.values():
        pack: list[int] = []
        needed = 0
        for place in torch.randperm(len(rows), generator=generator).tolist():
            row = rows[place]
            if pack and needed + tokens[row] > most:
                packs.append(sorted(pack))
                pack, needed = [], 0
            pack.append(row)
            needed += tokens[row]
        packs.append(sorted(pack))
    return packs
