"""Boxes in words: what a model says about where in 3D something is, parsed, or why it is no answer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from processing.argument_rules import check_choice, check_whole
from processing.boxes_in_words import MAX_BOXES, NumberStyle, number_tokens, parse_boxes, write_boxes
from processing.oriented_boxes import CameraBox
from trainer.session.questions import list_questions

if TYPE_CHECKING:
    from trainer.session.scene_session import SceneSession

__all__ = ["LOCATE", "SaidBoxes", "choose_numbers", "say_boxes"]

LOCATE = "Locate {description} in 3D."
# Four letters a measure in digits and three in bins, as many as any measure of a room has.
_LONGEST = {"center": (-5.99,) * 3, "size": (9.99,) * 3, "yaw": math.radians(-170)}


@dataclass(frozen=True)
class SaidBoxes:
    """Boxes of a described object, as a model says them.

    Args:
        description: Words that were looked for.
        text: Answer of the model.
        boxes: One box, several or none, each in the camera of its frame, metres. The frame is an index of the frames
            shown. None if the text is no answer that can be parsed.
        problem: Why it is none; None for an answer.
    """

    description: str
    text: str
    boxes: tuple[CameraBox, ...] | None
    problem: str | None = None


def say_boxes(
    session: "SceneSession",
    descriptions: Sequence[str],
    *,
    numbers: NumberStyle | None = None,
    template: str = LOCATE,
    max_boxes: int = 8,
    batch_size: int | None = None,
) -> list[SaidBoxes]:
    """Ask the model of a session in words where in 3D objects are.

    Only a model that was taught boxes in words answers in their form; see `processing.boxes_in_words`. Nothing else
    than the frames is read. Metres are those of the lens that the model was trained with.

    Args:
        session: Session of the scene.
        descriptions: Objects in words, such as "the red chair" or "all chairs".
        numbers: Way of writing measures that the model was trained with. Default: "tokens" where the tokenizer has
            them, else "digits".
        template: Request with `{description}` in it, which each text takes the place of.
        max_boxes: Largest number of boxes of an answer. A longer answer is cut off, and is then none.
        batch_size: Largest number of descriptions at a time; default: as many as `max_memory` holds.

    Returns:
        Boxes of each description, in the order of the descriptions.

    Raises:
        TypeError: If `descriptions` is no list of texts, `template` no text or a number no integer.
        ValueError: If a description is empty, `template` has no `{description}`, or `max_boxes` is not from 1 to 64.
            Also if `numbers` is unknown, or "tokens" where the tokenizer has none.
    """
    tokenizer = session.processor.tokenizer
    numbers = choose_numbers(numbers, tokenizer)
    max_boxes = check_whole(max_boxes, "max_boxes", 1, MAX_BOXES)
    descriptions = list_questions(descriptions, "descriptions")
    if wrong := [text for text in descriptions if not isinstance(text, str)]:
        raise TypeError(f"`descriptions` must be texts such as 'the red chair', got {wrong[0]!r:.100} among them.")
    check_template(template)
    longest = write_boxes([CameraBox(session.num_frames - 1, **_LONGEST)] * max_boxes, numbers=numbers)
    texts = session.ask(
        [template.replace("{description}", text) for text in descriptions],
        max_new_tokens=len(tokenizer(longest, add_special_tokens=False)["input_ids"]) + 1,
        batch_size=batch_size,
        names=[f"Description {index}" for index in range(len(descriptions))],
    )
    return [
        _parse(description, text, numbers, session.num_frames)
        for description, text in zip(descriptions, texts, strict=True)
    ]


def has_number_tokens(tokenizer: Any) -> bool:
    """Return whether a tokenizer has a token for each number of a box."""
    return set(number_tokens()) <= set(tokenizer.get_vocab())


def choose_numbers(numbers: NumberStyle | None, tokenizer: Any) -> NumberStyle:
    """Return how a model writes measures.

    Returns:
        `numbers` if given, else "tokens" where the tokenizer has them, else "digits".

    Raises:
        ValueError: If `numbers` is unknown, or "tokens" where the tokenizer has none.
    """
    if numbers is None:
        return "tokens" if has_number_tokens(tokenizer) else "digits"
    check_choice(numbers, get_args(NumberStyle), "numbers")
    if numbers == "tokens" and not has_number_tokens(tokenizer):
        raise ValueError(
            '`numbers` is "tokens", but the tokenizer has no <bin_0> and its like. Choose "digits" or "bins", the way '
            "that the model was trained with."
        )
    return numbers


def check_template(template: Any) -> None:
    """Raise an error unless a template is a text with a place for a description."""
    if not isinstance(template, str):
        raise TypeError(f"`template` must be a text with {{description}} in it, got {template!r:.100}.")
    if "{description}" not in template:
        raise ValueError(f"`template` must hold {{description}}, where the texts are put, got {template!r:.100}.")


def _parse(description: str, text: str, numbers: NumberStyle, num_frames: int) -> SaidBoxes:
    try:
        return SaidBoxes(description, text, parse_boxes(text, numbers=numbers, num_frames=num_frames))
    except ValueError as error:
        return SaidBoxes(description, text, None, str(error))
