"""Answers about an open scene: words, a marked object, a found one; no web here."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ide3d.app.scenes import OpenScene, Turn
from ide3d.commands.scenes import NANO_REQUEST
from processing.oriented_boxes import camera_corners
from processing.proposals import Mark
from trainer.drawing import Cameras, Drawing, ObjectMark
from trainer.drawing.depth import guess_intrinsics
from trainer.drawing.frames import describe_frame, draw_frame
from trainer.session import stream_answer
from trainer.session.scene_session import DESCRIBE, GROUND

__all__ = ["DESCRIBE", "HOW_FAR", "GrowingAnswer", "find_object", "list_pictures", "mark_object", "stream_words"]

# Words of the rooms' questions, which the shipped model was taught.
HOW_FAR = "How far is <ground> from the camera?"
WHERE = "What is the position of <ground>?"
PLACE = re.compile(r"x (-?\d+(?:\.\d+)?) y (-?\d+(?:\.\d+)?) z (-?\d+(?:\.\d+)?)")
MAX_PLACES = 4  # found objects that are put into 3D, and boxes that an answer in words may have
PLACE_SIDE = 0.3  # metres of the cube that stands for a place
FIELD_OF_VIEW = 60.0  # degrees; a guess, as no phone says it
GALLERY_WIDTH = 320  # pixels


@dataclass(frozen=True)
class GrowingAnswer:
    """An answer so far.

    Args:
        text: Its words.
        tokens: Number of its tokens.
        first_seconds: Seconds from the question to the first token.
        seconds: Seconds until now.
        is_cut: Whether it ran out of time.
    """

    text: str
    tokens: int
    first_seconds: float
    seconds: float
    is_cut: bool = False


def stream_words(
    opened: OpenScene, question: str, *, keeps_turns: bool, max_tokens: int, max_seconds: float
) -> Iterator[GrowingAnswer]:
    """Yield the answer to a question as it grows.

    It becomes a turn of the scene.

    Args:
        opened: Open scene.
        question: Words; `<ground>` stands for the marked object.
        keeps_turns: Whether the model reads the turns before.
        max_tokens: Length of the answer in tokens, at most.
        max_seconds: Seconds after which the answer is cut.

    Raises:
        ValueError: If the question is empty, points at an object where none is marked, or does not fit.
    """
    start = time.perf_counter()
    count = question.count("<ground>")
    if count and opened.marked is None:
        raise ValueError("The question points at the marked object by <ground>, but none is marked. Click one first.")
    regions = opened.marked[None].expand(count, -1, -1, -1) if count else None
    before = opened.turns if keeps_turns else []
    asked: Any = _as_chat(before, question) if before else question
    given = [turn.regions for turn in before if turn.regions is not None] + ([regions] if count else [])
    answer, first = None, 0.0
    for said in stream_answer(
        opened.scene.session, asked, torch.cat(given) if given else None, max_new_tokens=max_tokens
    ):
        now = time.perf_counter() - start
        first = first or now
        answer = GrowingAnswer(said.text, len(said.tokens), first, now, now > max_seconds)
        yield answer
        if answer.is_cut:
            break
    opened.turns.append(Turn(question, answer.text, regions))


def mark_object(opened: OpenScene, frame: int, point: tuple[float, float]) -> str:
    """Mark what lies at a point of a frame, and say where it is seen.

    Args:
        opened: Open scene; its drawing then shows the object.
        frame: Number of the frame shown, from 0.
        point: Place (x, y) in the frame as shares of its width and height, from 0 to 1.

    Raises:
        ValueError: If the point lies outside, or where the model sees nothing.
    """
    height, width = opened.scene.frames.shape[1:3]
    mark = Mark(frame=frame, frame_size=(height, width), point=(point[0] * width, point[1] * height))
    followed = opened.scene.session.follow(mark)
    opened.marked = followed.mask
    region = ObjectMark("marked object", followed.mask, score=float(followed.score))
    note = _light_up(opened, *_say_places(opened, [region]))
    seen = ", ".join(str(opened.scene.frame_indices[index]) for index in followed.frames)
    kind = "Marked" if followed.is_object else "Marked, though it looks like a wall, a floor or a part"
    return f"{kind}: seen in the frames {seen}, score {followed.score:.2f}. {note}"


def find_object(opened: OpenScene, description: str, *, is_nano: bool) -> str:
    """Find what words describe, light it up, and say what was found.

    The drawing of the scene then has a region for each object, and in 3D what the model says of its place.

    Args:
        opened: Open scene.
        description: Words such as "the red chair".
        is_nano: Whether the model is the shipped one, which knows words of its own.

    Raises:
        ValueError: If the description is empty, or does not fit.
    """
    found = opened.scene.session.find(description, template=NANO_REQUEST if is_nano else GROUND)
    if not len(found):
        opened.drawing = opened.draw([], [f"{description}: no such object"])
        return f"{description}: no such object, score {found.no_object:.2f}."
    opened.marked = found.masks[0]
    regions = [
        ObjectMark(f"{description} ({name})", mask, score=score)
        for name, mask, score in zip(found.names, found.masks, found.scores, strict=True)
    ]
    note = _light_up(opened, *(_say_boxes(opened, description, regions) or _say_places(opened, regions)))
    seen = [opened.scene.frame_indices[index] for index in found.masks[0].flatten(1).any(1).nonzero().flatten()]
    others = f" {len(found) - 1} more fit." if len(found) > 1 else ""
    shown = ", ".join(map(str, seen))
    return f"{description}: {found.names[0]}, score {found.scores[0]:.2f}, seen in the frames {shown}.{others} {note}"


def list_pictures(drawing: Drawing, width: int | None = GALLERY_WIDTH) -> list[tuple[Image.Image, str]]:
    """Return each frame with what lights up in it, and words that say the same."""
    return [
        (draw_frame(drawing, frame, width), describe_frame(drawing, frame)) for frame in range(len(drawing.frames))
    ]


def _say_boxes(opened: OpenScene, description: str, regions: list[ObjectMark]) -> tuple[list[ObjectMark], str] | None:
    """Return regions and the boxes that a model says, and a note; None without boxes."""
    (said,) = opened.scene.session.boxes([description], max_boxes=MAX_PLACES)
    if not said.boxes:
        return None
    boxes = [ObjectMark(description, corners=camera_corners(box), frame=box.frame) for box in said.boxes]
    return regions + boxes, "In 3D: boxes that the model says, drawn as if each camera stood level."


def _say_places(opened: OpenScene, regions: list[ObjectMark]) -> tuple[list[ObjectMark], str]:
    """Return regions with the places in 3D that the model says, and a note."""
    first, rest = regions[:MAX_PLACES], regions[MAX_PLACES:]
    masks = [torch.as_tensor(mark.masks)[None] for mark in first]
    places = [PLACE.search(text) for text in opened.scene.session.ask([WHERE] * len(first), masks, max_new_tokens=32)]
    if not any(places):
        return regions, "The model says no place in 3D."
    placed = [
        mark
        if place is None
        else ObjectMark(mark.label, mark.masks, _cube([float(number) for number in place.groups()]), 0, mark.score)
        for mark, place in zip(first, places, strict=True)
    ]
    return (
        placed + rest,
        f"In 3D: the place that the model says, from the first frame; {PLACE_SIDE} m is no size.",
    )


def _light_up(opened: OpenScene, marks: list[ObjectMark], note: str) -> str:
    """Draw marks in the frames of a scene, and return the note."""
    cameras = Cameras(guess_intrinsics(opened.scene.frames.shape[1:3], FIELD_OF_VIEW))
    opened.drawing = opened.draw(marks, [note], cameras=cameras)
    return note


def _cube(centre: list[float]) -> np.ndarray:
    """Return the corners (8, 3) of a cube around a place, metres."""
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    return np.asarray(centre) + signs * PLACE_SIDE


def _as_chat(turns: list[Turn], question: str) -> list[dict[str, Any]]:
    """Return a chat of earlier turns and a question, with the video in the first."""
    chat: list[dict[str, Any]] = []
    for turn in turns:
        chat.append({"role": "user", "content": [{"type": "text", "text": turn.question}]})
        chat.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    chat.append({"role": "user", "content": [{"type": "text", "text": question}]})
    chat[0]["content"].insert(0, {"type": "video"})
    return chat
