"""Text and tokens of a question about a video, split where the video stands."""

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from processing.argument_rules import check_texts

__all__ = [
    "Question",
    "as_regions",
    "check_context",
    "check_model",
    "check_processor",
    "check_vision_dtype",
    "list_questions",
    "list_regions",
    "name_all",
    "render_question",
    "split_at_video",
    "tokenize_after_video",
]

Question = str | list[dict[str, Any]]  # a text, or a chat with one video


def list_questions(questions: Iterable[Question], name: str = "questions") -> list[Question]:
    """Return questions as a list, each of which says something.

    Args:
        questions: Texts, or chats with one video each.
        name: Name of the argument in messages.

    Raises:
        TypeError: If it is a single text or chat, or an entry is neither of both.
        ValueError: If a text is empty.
    """
    if isinstance(questions, (str, bytes, Mapping)) or not isinstance(questions, Iterable):
        raise TypeError(
            f"`{name}` must be a list of texts or chats, got {type(questions).__name__} {reprlib.repr(questions)}. "
            "Put a single one into a list."
        )
    questions = list(questions)
    for index, question in enumerate(questions):
        if isinstance(question, str) and not question.strip():
            raise ValueError(f"Entry {index} of `{name}` is empty, got {question!r}. Leave it out or write a text.")
        is_chat = isinstance(question, (list, tuple)) and question and all(isinstance(m, Mapping) for m in question)
        if not isinstance(question, str) and not is_chat:
            raise TypeError(
                f"Entry {index} of `{name}` must be a text or a chat, a list of messages, got "
                f"{type(question).__name__} {reprlib.repr(question)}. Put a single chat into a list."
            )
    return questions


def list_regions(regions: Any, count: int) -> list[Tensor | None]:
    """Return the regions of each of `count` questions, None where a question points at nothing.

    Args:
        regions: List with bool masks (N, V, rows, cols) or None for each question; None for no regions at all.
        count: Number of questions.

    Raises:
        TypeError: If it is no list, or an entry no array of numbers.
        ValueError: If it has another number of entries, or an entry other axes.
    """
    if regions is None:
        return [None] * count
    if (
        isinstance(regions, (str, bytes, Mapping))
        or not isinstance(regions, Iterable)
        or getattr(regions, "ndim", 1) == 0
    ):
        raise TypeError(f"`regions` must be a list with masks or None for each question, got {reprlib.repr(regions)}.")
    regions = list(regions)
    if len(regions) != count:
        raise ValueError(f"`regions` must have one entry per question, {count}, got {len(regions)}.")
    return [None if own is None else as_regions(own) for own in regions]


def as_regions(regions: Any) -> Tensor:
    """Return masks of regions as a tensor.

    Raises:
        TypeError: If they are no tensor or array of numbers.
        ValueError: If they do not have the axes (N, V, rows, cols).
    """
    is_array = isinstance(regions, np.ndarray) and regions.dtype.kind in "biuf"
    if not isinstance(regions, Tensor) and not is_array:
        raise TypeError(
            f"Regions must be bool masks (N, V, rows, cols), got {type(regions).__name__} {reprlib.repr(regions)}. "
            "See processing.regions."
        )
    if regions.ndim != 4:
        raise ValueError(f"Regions must be bool masks (N, V, rows, cols), got the shape {tuple(regions.shape)}.")
    return torch.as_tensor(regions)


def name_all(names: Any, what: str, count: int) -> list[str]:
    """Return a name for each of `count` entries, as messages call it.

    Args:
        names: Names that the caller gave, or None.
        what: Word for an entry, such as "question".
        count: Number of entries.

    Raises:
        TypeError: If the names are no list of texts.
        ValueError: If there is another number of them.
    """
    if names is None:
        return [f"{what.capitalize()} {index}" for index in range(count)]
    names = list(check_texts(names, "names", is_ordered=True))
    if len(names) != count:
        raise ValueError(f"`names` must have one entry per {what}, {count}, got {len(names)}.")
    return names


def check_model(model: Any) -> None:
    """Raise TypeError unless it is a 3D-IDE model with both heads."""
    parts = ("config", "lm_head", "grounding_head", "get_video_features", "generation_config")
    base = model.get_base_model() if isinstance(model, nn.Module) and hasattr(model, "get_base_model") else model
    if not isinstance(base, nn.Module) or not all(hasattr(base, part) for part in parts):
        shown = reprlib.repr(model) if not isinstance(model, (nn.Module, type)) else ""
        raise TypeError(
            f"model must be an IDE3DForConditionalGeneration, got {type(model).__name__} {shown}. Load it by "
            "IDE3DForConditionalGeneration.from_pretrained(...)."
        )


def check_processor(processor: Any) -> None:
    """Raise TypeError unless it is the processor of a 3D-IDE model."""
    parts = (
        "apply_chat_template",
        "tokenizer",
        "video_token",
        "ground_token",
        "video_processor",
        "spatial_pool_stride",
    )
    if isinstance(processor, type) or not all(hasattr(processor, part) for part in parts):
        raise TypeError(
            f"processor must be an IDE3DProcessor, got {type(processor).__name__} {reprlib.repr(processor)}. Load it "
            "by IDE3DProcessor.from_pretrained(...)."
        )


def check_vision_dtype(dtype: Any, of_weights: torch.dtype) -> None:
    """Raise TypeError or ValueError unless it is None or 16-bit floats for these weights."""
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"`vision_dtype` must be a type such as torch.bfloat16, or None, got {dtype!r}.")
    if dtype not in (None, torch.bfloat16, torch.float16):
        raise ValueError(
            f"`vision_dtype` must be torch.bfloat16 or torch.float16, got {dtype}. None is the type of the weights."
        )
    if dtype is not None and of_weights not in (torch.float32, dtype):
        raise ValueError(
            f"`vision_dtype` must be None, or the weights in float32: got {dtype} and weights in {of_weights}. Load "
            "the model with dtype=torch.float32, or leave `vision_dtype` out."
        )


def render_question(processor: Any, question: Question, system: str | None = None) -> str:
    """Return the chat text of a question up to where the answer begins.

    Args:
        processor: `IDE3DProcessor`.
        question: Text, or a whole chat with one video.
        system: System prompt in front of a text; default: that of the chat template.
    """
    if isinstance(question, str):
        chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
        if system is not None:
            chat.insert(0, {"role": "system", "content": system})
    else:
        chat = question
    return processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def split_at_video(processor: Any, text: str) -> tuple[str, str]:
    """Return what all questions share, the video token included, and what is the question's own.

    Raises:
        ValueError: If the text has no video token, or several, or one of an image.
    """
    head, video, tail = text.partition(processor.video_token)
    if processor.image_token in text:
        raise ValueError(
            f"A question of a session is about its video alone, but the text holds {processor.image_token}: "
            f"{reprlib.repr(text)}. Ask about images by the model's own `generate`."
        )
    if not video or video in tail:
        raise ValueError(
            f"A question needs exactly one {processor.video_token} in its chat, got {reprlib.repr(text)}."
        )
    return head + video, tail


def check_context(model: nn.Module, length: int) -> None:
    """Raise ValueError if a prompt leaves no token of the context for an answer."""
    context = model.config.text_config.max_position_embeddings
    if length >= context:
        raise ValueError(
            f"The video and the question have {length} tokens, and the context of the model holds {context} with the "
            "answer. Ask in fewer words, or show fewer frames."
        )


def tokenize_after_video(processor: Any, tail: str) -> Tensor:
    """Return the token ids (L,) of the text behind a video."""
    # The video token is a token of its own, so that what follows it is split as in the whole text.
    return torch.tensor(processor.tokenizer(processor.video_token + tail, add_special_tokens=False)["input_ids"][1:])
