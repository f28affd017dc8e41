"""Questions about single regions, answered from the regions alone: many rooms at once, without the video in sight."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from modeling_ide3d.grounding_ide3d import encode_regions, fill_empty_regions
from processing.argument_rules import check_whole
from processing.token_grid import TokenGrid
from trainer.session.decoding import GreedyDecoder
from trainer.session.questions import (
    check_model,
    check_processor,
    render_question,
    split_at_video,
    tokenize_after_video,
)
from trainer.session.shared_prefix import RepeatedPrefix

__all__ = ["answer_from_regions", "pool_sample_regions"]


@dataclass(frozen=True)
class PointingQuestion:
    """A question whose `<ground>` tokens stand for regions.

    Args:
        sample: Index of the sample.
        place: Index among the questions of the sample.
        tokens: Token ids (L,), long.
        regions: Features (N, hidden_size) of the regions that the `<ground>` tokens stand for, in order.
    """

    sample: int
    place: int
    tokens: Tensor
    regions: Tensor


@torch.no_grad()
def pool_sample_regions(
    model: nn.Module, processor: Any, samples: Sequence[dict], rooms_at_once: int = 32
) -> list[Tensor]:
    """Return features (N, hidden_size) of the regions of each sample.

    An empty region takes the mean of its video.

    Args:
        model: `IDE3DForConditionalGeneration` or its training class.
        processor: `IDE3DProcessor` of the model.
        samples: Samples with `frames` and `region_masks`. All videos of `rooms_at_once` samples in a row have the same
            number of frames.
        rooms_at_once: Number of videos encoded together.

    Raises:
        TypeError: If model or processor is of another kind, a number no integer, or the samples no list of dicts.
        ValueError: If a sample lacks a part.
    """
    check_model(model)
    check_processor(processor)
    check_whole(rooms_at_once, "rooms_at_once", 1)
    _check_samples(samples, ("frames", "region_masks"))
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
            masks = torch.as_tensor(sample["region_masks"])[None]
            num_frames = torch.tensor([frames.shape[1]], device=own.device)
            features.append(fill_empty_regions(*encode_regions(frames, num_frames, masks))[0])
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
    """Answer the questions of packed samples greedily, none of which sees the video.

    This is the counterpart of `RegionReadingCollator` in training. A question sees its own words and, in place of its
    `<ground>` tokens, the mean visual tokens of the regions that it points at. The video is encoded, because these are
    pooled from it. Rotary positions depend on distances alone: a question behind a masked video has the same answer.

    Args:
        model: `IDE3DForConditionalGeneration` or its training class, in evaluation mode.
        processor: `IDE3DProcessor` of the model.
        samples: Samples as `room_samples` gives them, with `questions`, `region_masks` and `region_references`. All
            videos of `rooms_at_once` samples in a row have the same number of frames.
        max_new_tokens: Largest number of tokens of an answer.
        questions_at_once: Number of questions decoded together.
        rooms_at_once: Number of videos encoded together.

    Returns:
        For each sample the answers in the order of its questions.

    Raises:
        TypeError: If model or processor is of another kind, a number no integer, or the samples no list of dicts.
        ValueError: If the model is in training mode, a sample lacks a part, or a question points at nothing.
    """
    check_model(model)
    check_processor(processor)
    for name, count in {"max_new_tokens": max_new_tokens, "questions_at_once": questions_at_once}.items():
        check_whole(count, name, 1)
    _check_samples(samples, ("frames", "region_masks", "questions", "region_references"))
    if model.training:
        raise ValueError("The model is in training mode: call model.eval() first.")
    regions = pool_sample_regions(model, processor, samples, rooms_at_once)
    ground, embed = model.config.ground_token_id, model.get_input_embeddings()
    decoder, reader = GreedyDecoder(model, processor), RepeatedPrefix.without_prefix(model)
    answers = [[""] * len(sample["questions"]) for sample in samples]
    groups = group_by_length(pointing_questions(processor, samples, regions, ground), questions_at_once)
    for group in tqdm(groups, desc="Answers", unit="batch", delay=5, disable=None):
        tokens = torch.stack([question.tokens for question in group]).to(model.device)
        embeds = embed(tokens)
        embeds[tokens == ground] = torch.cat([question.regions for question in group]).to(embeds)
        for question, answer in zip(group, decoder.decode(reader, list(embeds), max_new_tokens), strict=True):
            answers[question.sample][question.place] = answer.text
    return answers


def _check_samples(samples: Any, keys: Sequence[str]) -> None:
    """Raise TypeError or ValueError unless samples are a list of dicts with these keys."""
    if isinstance(samples, (str, bytes, Mapping)) or not hasattr(samples, "__len__"):
        raise TypeError(f"`samples` must be a list of samples, got {type(samples).__name__} {reprlib.repr(samples)}.")
    for index, sample in enumerate(samples):
        if not isinstance(sample, Mapping):
            raise TypeError(f"Entry {index} of `samples` must be a dict with {', '.join(keys)}, got {sample!r}.")
        if missing := [key for key in keys if sample.get(key) is None]:
            raise ValueError(f"Entry {index} of `samples` lacks {missing}; it has {sorted(map(str, sample))}.")


def pointing_questions(
    processor: Any, samples: Sequence[dict], regions: Sequence[Tensor], ground: int
) -> list[PointingQuestion]:
    """Return the questions of all samples with the features that each points at.

    Raises:
        ValueError: If a question points at nothing, or at a region that there is not.
    """
    known: dict[str, Tensor] = {}
    questions = []
    for index, (sample, features) in enumerate(zip(samples, regions, strict=True)):
        references = list(sample["region_references"])
        for place, question in enumerate(sample["questions"]):
            text = question["question"]
            if text not in known:
                _, tail = split_at_video(processor, render_question(processor, text))
                known[text] = tokenize_after_video(processor, tail)
            count = int((known[text] == ground).sum())
            if not count:
                raise ValueError(f"{text!r} points at no region: nothing but the video would tell the answer.")
            own, references = references[:count], references[count:]
            if len(own) < count or not all(0 <= reference < len(features) for reference in own):
                raise ValueError(
                    f"`region_references` of sample {index} must have the index of one of its {len(features)} regions "
                    f"for each <ground> of {text!r}, got {list(sample['region_references'])}."
                )
            questions.append(PointingQuestion(index, place, known[text], features[own]))
    return questions


def group_by_length(questions: Sequence[PointingQuestion], most: int) -> list[list[PointingQuestion]]:
    """Split questions into groups of one length, at most `most` in each."""
    by_length: dict[int, list[PointingQuestion]] = {}
    for question in questions:
        by_length.setdefault(len(question.tokens), []).append(question)
    return [
        group[start : start + most] for _, group in sorted(by_length.items()) for start in range(0, len(group), most)
    ]
