"""Questions that boxes in words answer: where in 3D an object is that words name; lenses; a baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np

from processing.argument_rules import check_choice
from processing.boxes_in_words import MAX_BOXES, NumberStyle, write_boxes
from processing.focal_length import FieldOfView, FocalWindow
from processing.oriented_boxes import CameraBox, box_in_camera
from processing.rooms.questions.asking import GROUND, SceneFacts
from processing.rooms.questions.wording import has_colour, object_phrase, plural
from processing.rooms.samples import chat, room_samples, video_arrays
from processing.rooms.scene.palette import COLOURS, pick
from processing.token_grid import TokenGrid

__all__ = [
    "BoxLesson",
    "Lenses",
    "MeanBoxes",
    "ask_boxes",
    "box_sample",
    "change_lens",
    "outline_box",
    "pointed_outlines",
    "show_room",
]

Lenses = Literal["one", "several"]
# Without the words "box" and "picture", which are kinds of furniture.
_TEMPLATES = {
    "one": ("Locate {a} in {space}.", "Where in {space} is {a}?", "Give place and size of {a} in {space}."),
    "several": (
        "Locate all {a} in {space}.",
        "Where in {space} are the {a}?",
        "Give place and size of all {a} in {space}.",
    ),
}
_SHARE_OF_NONE = 0.2  # of the questions, at least one, ask for what is not there
_ZOOMS = (0.55, 1.0)  # share of the width that a lens keeps: 41 to 68 degrees of the rooms' own
_ASPECTS = (1.0, 0.75, 4 / 3, 0.5625)  # height by width
_OUTLINE_DISTANCE = 2.5  # metres; such boxes have centres about as far aside and up as boxes in 3D, and no depth


@dataclass(frozen=True)
class BoxLesson:
    """Settings of questions about boxes.

    Args:
        numbers: Way of writing measures, see `write_boxes`.
        lenses: "one" leaves the rooms' own lens, "several" draws one for each video, see `change_lens`.
        field_of_view: "squash" leaves the frames to the video processor, "unify" cuts or pads them to one focal length
            before, see `processing.focal_length`.

    Raises:
        TypeError: If a setting is no text.
        ValueError: If a setting is unknown.
    """

    numbers: NumberStyle = "digits"
    lenses: Lenses = "one"
    field_of_view: FieldOfView = "squash"

    def __post_init__(self):
        for name, choices in (("numbers", NumberStyle), ("lenses", Lenses), ("field_of_view", FieldOfView)):
            check_choice(getattr(self, name), get_args(choices), name)


def _cut(row: dict, window: FocalWindow) -> dict:
    """Return a row whose pictures show what the window shows."""
    cut = {
        key: list(window.cut(np.stack([np.asarray(image) for image in row[key]]), fill))
        for key, fill in (("frames", 127), ("depth", 0), ("instance_ids", 0))
    }
    return {**row, **cut, "intrinsics": window.move(row["intrinsics"])}


def change_lens(row: dict, rng: np.random.Generator) -> dict:
    """Return a room as a longer lens, with frames of another aspect, would show it.

    The middle of each frame is what such a lens shows, but for its resolution.

    Args:
        row: Row of `load_rooms`, pictures decoded or not.
        rng: Generator of the draw.
    """
    height, width = np.asarray(row["frames"][0]).shape[:2]
    aspect = pick(rng, _ASPECTS)
    columns = min(width, height / aspect) * rng.uniform(*_ZOOMS)
    rows, columns = max(round(columns * aspect), 1), max(round(columns), 1)
    return _cut(row, FocalWindow((height - rows) // 2, (width - columns) // 2, rows, columns))


def unify_lens(row: dict) -> dict:
    """Return a room whose frames are cut or padded to one focal length; see `unify_focal_length`."""
    size = np.asarray(row["frames"][0]).shape[:2]
    return _cut(row, FocalWindow.of(row["intrinsics"], size))


def best_frames(ids: np.ndarray, objects: Sequence[int]) -> dict[int, int]:
    """Return the frame that shows most of each object, by its pixels in `ids` (V, h, w)."""
    return {n: int((ids == n).sum(axis=(1, 2)).argmax()) for n in objects}


def outline_box(ids: np.ndarray, thing: int, intrinsics: np.ndarray, frame: int) -> CameraBox:
    """Return an object's outline in a frame as a flat box at a fixed distance.

    It says where in the picture an object is and how large it looks, in the form of a box in words; nothing of it
    needs depth or a pose.

    Args:
        ids: Instance ids (V, h, w); the frame shows the object.
        thing: Id of the object.
        intrinsics: Matrix (3, 3) of the frame.
        frame: Index of the frame.

    Returns:
        Box with its centre 2.5 m ahead, of the width and height that the object has in that plane, 1 cm deep.
    """
    ends = np.stack([[places.min(), places.max() + 1] for places in np.nonzero(ids[frame] == thing)[::-1]])
    focal, principal = np.diag(intrinsics)[:2], intrinsics[:2, 2]
    ends = (ends - principal[:, None]) / focal[:, None] * _OUTLINE_DISTANCE
    center, size = ends.mean(1), ends[:, 1] - ends[:, 0]
    return CameraBox(frame, (*center, _OUTLINE_DISTANCE), (*size, 0.01), 0.0)


def ask_boxes(
    row: dict,
    rng: np.random.Generator,
    numbers: NumberStyle = "digits",
    *,
    outlines: bool = False,
    pointing: bool = False,
) -> list[dict]:
    """Ask where in 3D or 2D objects are; answers are boxes in words.

    Each object is asked for that some frame shows clearly and that colour and kind single out; a kind of which several
    are there, all of them clear; and objects of colours that their kind does not have.

    Args:
        row: Row of `load_rooms`; its frames are the video.
        rng: Generator of the draws.
        numbers: Way of writing measures.
        outlines: Whether the questions are about the picture, see `outline_box`, not about 3D.
        pointing: Whether they point at an object each, with `<ground>` in place of its words.

    Returns:
        Dicts as the questions of a room, of type "box", in random order. `target_objects` are the ids in the order of
        the answer: by frame, then from left to right. `kind` is the kind that the question names, `words` what it
        asks for: "the red chair", "all lamps".
    """
    ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
    poses = np.asarray(row["camera_to_world"], np.float64)
    facts = SceneFacts(row["objects"], ids, poses, "")
    clear = [o for o in facts.objects if facts.is_clear(o)]
    frames = best_frames(ids, [o["id"] for o in clear])
    if outlines:
        boxes = {n: outline_box(ids, n, np.asarray(row["intrinsics"][frame]), frame) for n, frame in frames.items()}
    else:
        boxes = {o["id"]: box_in_camera(o["box"], poses[frames[o["id"]]], frames[o["id"]]) for o in clear}
    say = partial(_question, rng, boxes=boxes, numbers=numbers, space="2D" if outlines else "3D")
    if pointing:
        questions = [say("one", GROUND, o["category"], [o["id"]]) for o in clear]
        questions = [{**q, "reference": "region", "region_objects": q["target_objects"]} for q in questions]
        return [questions[i] for i in rng.permutation(len(questions))]
    questions = []
    for thing in clear:
        if phrase := object_phrase(facts.objects, thing):
            questions.append(say("one", phrase, thing["category"], [thing["id"]]))
    for kind in sorted({o["category"] for o in clear}):
        same = [o["id"] for o in facts.objects if o["category"] == kind]
        if 1 < len(same) <= MAX_BOXES and all(n in boxes for n in same):
            questions.append(say("several", plural(kind), kind, same))
    vague = {o["category"] for o in facts.objects if not has_colour(o)}
    coloured = [o for o in clear if o["category"] not in vague]
    for _ in range(max(round(len(questions) * _SHARE_OF_NONE / (1 - _SHARE_OF_NONE)), 1) if coloured else 0):
        kind = pick(rng, coloured)["category"]
        absent = [c for c in COLOURS if all(o["colour"] != c for o in facts.objects if o["category"] == kind)]
        if absent:
            questions.append(say("one", f"the {pick(rng, absent)} {kind}", kind, []))
    return [questions[i] for i in rng.permutation(len(questions))]


def _question(
    rng: np.random.Generator,
    template: str,
    words: str,
    kind: str,
    objects: list[int],
    *,
    boxes: dict[int, CameraBox],
    numbers: NumberStyle,
    space: str,
) -> dict:
    objects = sorted(objects, key=lambda n: (boxes[n].frame, boxes[n].center[0], n))
    return {
        "type": "box",
        "reference": "word",
        "question": pick(rng, _TEMPLATES[template]).format(a=words, space=space),
        "answer": write_boxes([boxes[n] for n in objects], numbers=numbers),
        "region_objects": [],
        "target_objects": objects,
        "value": [],
        "hint_objects": objects,
        "kind": kind,
        "words": f"all {words}" if template == "several" else words,
    }


def show_room(row: dict, rng: np.random.Generator, lesson: BoxLesson) -> dict:
    """Return a room through the lens, and with the field of view, of a lesson."""
    row = change_lens(row, rng) if lesson.lenses == "several" else row
    return unify_lens(row) if lesson.field_of_view == "unify" else row


def box_sample(
    row: dict,
    rng: np.random.Generator,
    numbers: NumberStyle = "digits",
    max_questions: int | None = None,
    *,
    outlines: bool = False,
) -> dict | None:
    """Pack questions about boxes over the video of a room, if there are any.

    Args:
        row: Row of `load_rooms`, `retake_room` or `show_room`.
        rng: Generator of the draws.
        numbers: Way of writing measures.
        max_questions: Largest number of questions; None keeps all.
        outlines: See `ask_boxes`.

    Returns:
        Dict as `room_samples` gives it, with `questions` as `ask_boxes` gives them.
    """
    questions = ask_boxes(row, rng, numbers, outlines=outlines)[:max_questions]
    if not questions:
        return None
    return {**video_arrays(row), "messages": [chat(q) for q in questions], "questions": questions}


def pointed_outlines(
    row: dict, grid: TokenGrid, rng: np.random.Generator, numbers: NumberStyle = "digits", max_questions: int = 16
) -> dict | None:
    """Pack questions that point at objects and ask for their outlines, if there are any.

    A region holds cells of the frame that the answer is about.

    Args:
        row: Row of `load_rooms`, `retake_room` or `show_room`.
        grid: Token grid of the model.
        rng: Generator of the draws.
        numbers: Way of writing measures.
        max_questions: Largest number of questions.

    Returns:
        Dict as `room_samples` gives it, with regions.
    """
    questions = ask_boxes(row, rng, numbers, outlines=True, pointing=True)[:max_questions]
    ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
    frames = best_frames(ids, [n for q in questions for n in q["region_objects"]])
    for thing, frame in frames.items():
        others = np.arange(len(ids)) != frame
        ids[others] = np.where(ids[others] == thing, 0, ids[others])
    asked = {**row, "questions": questions, "instance_ids": list(ids)}
    return next(iter(room_samples(asked, grid, first_frame_only=False)), None)


class MeanBoxes:
    """Baseline that does not look: the mean box of the kind that a question names.

    The box is said in one frame, the one that shows objects of this kind best most often; centre, size and yaw are the
    means over the objects of the kind, seen from that frame's camera.

    Args:
        rows: Rows of `load_rooms` that it is fitted on.
        numbers: Way of writing measures.

    Raises:
        ValueError: If there is no row, or no object that a frame shows clearly.
    """

    def __init__(self, rows: Sequence[dict], numbers: NumberStyle = "digits"):
        found: dict[str, list[tuple[int, dict, np.ndarray]]] = {}
        for row in rows:
            ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
            poses = np.asarray(row["camera_to_world"], np.float64)
            facts = SceneFacts(row["objects"], ids, poses, "")
            clear = [o for o in facts.objects if facts.is_clear(o)]
            frames = best_frames(ids, [o["id"] for o in clear])
            for thing in clear:
                found.setdefault(thing["category"], []).append((frames[thing["id"]], thing, poses))
        if not found:
            raise ValueError("`rows` must be rooms that show objects clearly; no frame of these does.")
        self.numbers = numbers
        self.boxes = {kind: self._mean(entries) for kind, entries in found.items()}
        self._any = self._mean([entry for entries in found.values() for entry in entries])

    @staticmethod
    def _mean(entries: list[tuple[int, dict, np.ndarray]]) -> CameraBox:
        frame = int(np.bincount([entry[0] for entry in entries]).argmax())
        boxes = [box_in_camera(thing["box"], poses[frame], frame) for _, thing, poses in entries]
        center, size = (tuple(np.mean([getattr(b, name) for b in boxes], axis=0)) for name in ("center", "size"))
        return CameraBox(frame, center, size, float(np.mean([b.yaw for b in boxes])))

    def answer(self, question: dict) -> str:
        """Return the answer to a question of `ask_boxes`.

        A kind never seen gets the mean of all objects.
        """
        return write_boxes([self.boxes.get(question["kind"], self._any)], numbers=self.numbers)
