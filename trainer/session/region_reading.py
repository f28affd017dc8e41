"""Questions about single regions, answered from the regions alone: many rooms at once, without the video in sight."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from modeling_ide3d.grounding_ide3d import pool_regions
from modeling_ide3d.modeling_ide3d import CACHE_NAME
from processing.token_grid import TokenGrid

__all__ = ["answer_from_regions", "pool_sample_regions"]


@torch.no_grad()
def pool_sample_regions(
    model: nn.Module, processor: Any, samples: Sequence[dict], rooms_at_once: int = 32
) -> list[Tensor]:
    """Features (N, hidden_size) of the regions of each sample; the mean of the video where a region is empty.

    Args:
        model: `IDE3DForConditionalGeneration` or its training class.
        processor: Its processor.
        samples: With `frames` and `region_masks`; videos of `rooms_at_once` samples in a row are equally long.
        rooms_at_once: Videos encoded together.
    """
    grid = TokenGrid.of(model.config)
    features = []
    for start in tqdm(range(0, len(samples), rooms_at_once), desc="Regions", unit="batch", delay=5, disable=None):
        chunk = samples[start : start + rooms_at_once]
        videos = [sample["frames"] for sample in chunk]
        inputs = processor.video_processor(videos, do_sample_frames=False, return_tensors="pt")
        pixels = inputs["pixel_values_videos"].to(model.device, model.dtype)
        tokens = model.get_video_features(pixels, return_dict=True).pooler_output
        for sample, own in zip(chunk, tokens, strict=True):
            frames = grid.split(own)[None]
            masks = torch.as_tensor(sample["region_masks"], device=model.device)[None]
            pooled, empty = pool_regions(frames, masks)
            features.append(torch.where(empty[0, :, None], frames.mean((1, 2, 3)), pooled[0]))
    return features


@torch.no_grad()
def answer_from_regions(
    model: nn.Module,
    processor: Any,
    samples: Sequence[dict],
    *,
    max_new_tokens: int = 24,
    questions_at_once: int = 1024,
    rooms_at_once: int = 32,
) -> list[list[str]]:
    """Greedy answers to the questions of packed samples, none of which sees the video.

    The counterpart of `RegionReadingCollator` in training.

    A question sees its own words and, in place of its `<ground>` tokens, the mean visual tokens of the regions that it
    points at. The video is encoded, because these are pooled from it. Rotary positions tell distances alone, so that
    an answer is the one that a question behind a masked video gets.

    Args:
        model: `IDE3DForConditionalGeneration` or its training class, in evaluation mode.
        processor: Its processor.
        samples: As `room_samples` gives them, with `questions`, `region_masks` and `region_references`. All videos of
            `rooms_at_once` samples in a row have the same number of frames.
        max_new_tokens: Where an answer ends at the latest.
        questions_at_once: Questions decoded together.
        rooms_at_once: Videos encoded together.

    Returns:
        For each sample the answers in the order of its questions.

    Raises:
        ValueError: The model is in training mode, or a question points at nothing.
    """
    if model.training:
        raise ValueError("The model is in training mode: call model.eval() first.")
    regions = pool_sample_regions(model, processor, samples, rooms_at_once)
    ground, embed = model.config.ground_token_id, model.get_input_embeddings()
    entries: dict[int, list[tuple[int, int, Tensor, Tensor]]] = {}
    known: dict[str, Tensor] = {}
    for index, sample in enumerate(samples):
        references = list(sample["region_references"])
        for place, question in enumerate(sample["questions"]):
            text = question["question"]
            if text not in known:
                known[text] = tokenize_question(processor, text)
            tokens = known[text]
            count = int((tokens == ground).sum())
            if not count:
                raise ValueError(f"{text!r} points at no region: nothing but the video would tell the answer.")
            own, references = references[:count], references[count:]
            entries.setdefault(len(tokens), []).append((index, place, tokens, regions[index][own]))
    answers = [[""] * len(sample["questions"]) for sample in samples]
    groups = [
        group[start : start + questions_at_once]
        for _, group in sorted(entries.items())
        for start in range(0, len(group), questions_at_once)
    ]
    for group in tqdm(groups, desc="Answers", unit="batch", delay=5, disable=None):
        tokens = torch.stack([entry[2] for entry in group]).to(model.device)
        embeds = embed(tokens)
        embeds[tokens == ground] = torch.cat([entry[3] for entry in group]).to(embeds)
        texts = decode_greedily(model, processor, embeds, max_new_tokens)
        for (index, place, *_), text in zip(group, texts, strict=True):
            answers[index][place] = text
    return answers


def tokenize_question(processor: Any, question: str) -> Tensor:
    """Tokens of a question behind its video, up to where the answer begins."""
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    tail = text.partition(processor.video_token)[2]
    # The video token is a token of its own, so that what follows it is split as in the whole text.
    return torch.tensor(processor.tokenizer(processor.video_token + tail, add_special_tokens=False)["input_ids"][1:])


@torch.no_grad()
def decode_greedily(model: nn.Module, processor: Any, embeds: Tensor, max_new_tokens: int) -> list[str]:
    """Greedy answers to texts of one length, given by their embeddings (B, L, hidden_size)."""
    end = processor.tokenizer.eos_token_id
    cache, rows = None, []
    is_open = torch.ones(len(embeds), dtype=torch.bool, device=embeds.device)
    for _ in range(max_new_tokens):
        outputs = model.model.language_model(
            inputs_embeds=embeds, use_cache=True, return_dict=True, **{CACHE_NAME: cache}
        )
        cache = outputs[CACHE_NAME]
        chosen = model.lm_head(outputs.last_hidden_state[:, -1]).argmax(-1)
        rows.append(torch.where(is_open, chosen, end))
        is_open &= chosen != end
        if not is_open.any():
            break
        embeds = model.get_input_embeddings()(chosen)[:, None]
    tokens = torch.stack(rows, 1).cpu().numpy()
    texts: dict[bytes, str] = {}
    result = []
    for row in tokens:
        key = row.tobytes()
        if key not in texts:
            ends = np.flatnonzero(row == end)
            texts[key] = processor.decode(row[: ends[0]] if len(ends) else row, skip_special_tokens=True)
        result.append(texts[key])
    return result
