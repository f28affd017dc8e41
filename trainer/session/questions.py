"""Text and tokens of a question about a video, split where the video stands."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["Question", "render_question", "split_at_video", "tokenize_after_video"]

Question = str | list[dict[str, Any]]  # a text, or a chat with one video


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
        ValueError: If the text has no video token, or several.
    """
    head, video, tail = text.partition(processor.video_token)
    if not video or video in tail:
        raise ValueError(f"A question needs exactly one {processor.video_token} in its chat, got {text!r}.")
    return head + video, tail


def tokenize_after_video(processor: Any, tail: str) -> Tensor:
    """Return the token ids (L,) of the text behind a video."""
    # The video token is a token of its own, so that what follows it is split as in the whole text.
    return torch.tensor(processor.tokenizer(processor.video_token + tail, add_special_tokens=False)["input_ids"][1:])
