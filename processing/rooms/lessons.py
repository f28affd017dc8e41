"""Samples that are drawn anew at every visit of a room: other first frames, other questions, one visual prefix."""

import re
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

from processing.argument_rules import check_flag
from processing.regions import regions_from_ids
from processing.rooms.box_questions import BoxLesson, best_frames, box_sample, pointed_outlines, show_room
from processing.rooms.places import place_sample
from processing.rooms.questions.asking import SceneFacts, ask_questions
from processing.rooms.questions.wording import find_template, has_colour, plural
from processing.rooms.samples import naming_sample, packed_word_sample, room_samples
from processing.rooms.scene.layout import COUNTABLE
from processing.rooms.scene.palette import COLOURS, pick
from processing.token_grid import TokenGrid

__all__ = [
    "Lesson",
    "LessonSamples",
    "Rewording",
    "find_mentions",
    "mention_masks",
    "retake_room",
    "say_at_times_otherwise",
    "say_otherwise",
]

Lesson = Literal["naming", "place", "region", "word", "view", "box", "outline", "pointed"]
Rewording = Callable[[dict, dict, np.random.Generator], str]  # of a question about a room
_PICTURES = ("frames", "depth", "instance_ids", "intrinsics", "camera_to_world")
_MAX_DRAWS = 1000
_NOT_ASKED = ("description",)  # what pictures of a nano model do not show
_IN_ALL_FRAMES = ("existence", "counting", "grounding", "box")  # the others are about what the first frame shows
_MENTIONED_SHARE = 0.35  # of a cell that shows what a word names


# What people type instead of the templates; `{a}` and `{b}` as there.
_OTHER_WORDS = {
    "distance": ("How far away is {a}?", "What is the distance to {a}?", "How far is {a}?", "Distance to {a}?"),
    "position": ("Where is {a}?", "Where can I find {a}?", "Tell me the position of {a}."),
    "closer": (
        "Which is nearer, {a} or {b}?",
        "Which is closer, {a} or {b}?",
        "Is {a} or {b} closer?",
        "What is nearer to me, {a} or {b}?",
    ),
    "direction": ("Is {a} left or right of {b}?", "Is {a} right or left of {b}?", "Which side of {b} is {a} on?"),
    "size": ("Which is higher, {a} or {b}?", "Is {a} or {b} taller?", "What is taller, {a} or {b}?"),
    "colour": ("What color is {a}?", "What is the color of {a}?", "Tell me the colour of {a}.", "Color of {a}?"),
    "counting": ("How many {a} are there?", "How many {a} do you see?", "Count the {a}.", "Number of {a}?"),
    "existence": ("Is there {a}?", "Do you see {a}?", "Is there {a} here?", "Does this room have {a}?"),
    "one": ("Show me {a}.", "Show {a}.", "Locate {a}.", "Look for {a}."),
    "several": ("Locate all {a}.", "Show me all {a}.", "Look for {a}."),
    "of_colour": ("Locate everything {a}.", "Show me all {a} things.", "Look for {a} things."),
}
_OTHERWISE = 1 / 3  # of the questions in words are asked in other words


def say_otherwise(text: str, rng: np.random.Generator) -> str:
    """Reword a question of the templates; what it names keeps its words."""
    name, named = find_template(text) or ("", {})
    return pick(rng, _OTHER_WORDS[name]).format(**named) if name in _OTHER_WORDS else text


def say_at_times_otherwise(question: dict, row: dict, rng: np.random.Generator) -> str:
    """Reword a third of the questions, see `say_otherwise`."""
    return say_otherwise(question["question"], rng) if rng.random() < _OTHERWISE else question["question"]


def take_views(row: dict, views: Sequence[int]) -> dict:
    """Return a room whose video is these frames in this order, its questions unchanged."""
    return {**row, **{key: [row[key][view] for view in views] for key in _PICTURES}}


def retake_room(row: dict, views: Sequence[int], rng: np.random.Generator) -> dict:
    """Return a room whose video is these frames in this order, with questions about it.

    Distances and sides then refer to the camera of the first of them. How many there are of something is asked for
    the kind that the room was planned for, so that all numbers are answers.

    Args:
        row: Row of `load_rooms`, pictures decoded or not.
        views: Indices of its frames.
        rng: Generator of the draws.

    Returns:
        Row with the same keys.
    """
    pictures = take_views({key: row[key] for key in _PICTURES}, views)
    counted = [q["question"] for q in row["questions"] if q["type"] == "counting"]
    # Longest first: "armchairs" holds "chairs".
    kinds = sorted(COUNTABLE, key=len, reverse=True)
    featured = next((kind for kind in kinds for text in counted if plural(kind) in text), None)
    ids = np.stack([np.asarray(image) for image in pictures["instance_ids"]])
    poses = np.asarray(pictures["camera_to_world"], np.float64)
    facts = SceneFacts(row["objects"], ids, poses, featured or COUNTABLE[0])
    # Asked twice, for some types give a room few questions.
    questions = {(q["reference"], q["question"]): q for _ in range(2) for q in ask_questions(facts, rng)}
    questions = [q for q in questions.values() if featured or q["type"] != "counting"]
    return {**row, **pictures, "questions": questions}


def draw_evenly(questions: list[dict], most: int, rng: np.random.Generator) -> list[dict]:
    """Draw at most `number` questions, evenly over the types, in random order."""
    by_type: dict[str, list[dict]] = {}
    for index in rng.permutation(len(questions)):
        by_type.setdefault(questions[index]["type"], []).append(questions[index])
    rounds = [group[turn] for turn in range(most) for group in by_type.values() if turn < len(group)]
    return [rounds[index] for index in rng.permutation(len(rounds[:most]))]


def find_mentions(text: str, objects: Sequence[dict], kinds: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Find the objects that the words of a question name.

    Args:
        text: Question in words.
        objects: Objects of the room.
        kinds: Kinds of furniture that a question may name, in the room or not.

    Returns:
        In the order of the text, each kind, with the colour in front of it if there is one, and each colour that no
        kind follows: the last word of it, as it is written, and the ids of all objects that it fits.
    """
    singular = {word: kind for kind in kinds for word in (kind, plural(kind))}
    words = re.findall(r"[a-z]+", text.lower())
    mentions = []
    for word, before, after in zip(words, ["", *words], [*words[1:], ""], strict=False):
        if word in singular:
            colours = (before,) if before in COLOURS else (*COLOURS, "")
            fits = [o for o in objects if o["category"] == singular[word] and o["colour"] in colours]
        elif word in COLOURS and after not in singular:
            fits = [o for o in objects if o["colour"] == word and has_colour(o)]
        else:
            continue
        mentions.append((word, [o["id"] for o in fits]))
    return mentions


def mention_masks(row: dict, grid: TokenGrid, kinds: Sequence[str]) -> list[list[tuple[str, np.ndarray]]]:
    """Find the naming words of each question and the cells that they name.

    Cells of the first frame alone, where a question is about what that frame shows. Of objects whose boxes are asked
    for, cells of the frame that shows each best, in whose camera the answer is: the mean over frames would be no place
    in any of them. No cell: there is no such thing.

    Args:
        row: Row of `load_rooms` or `retake_room`, or with questions of `ask_boxes`.
        grid: Token grid of the model.
        kinds: Kinds of furniture, see `find_mentions`.
    """
    objects = [o["id"] for o in row["objects"]]
    ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
    shown = dict(zip(objects, regions_from_ids(ids, objects, grid, min_share=_MENTIONED_SHARE).numpy(), strict=True))
    nothing = np.zeros((len(ids), *grid.shape), bool)
    asked = {n for question in row["questions"] if question["type"] == "box" for n in question["target_objects"]}
    boxed = {n: nothing.copy() for n in asked}
    for thing, frame in best_frames(ids, sorted(asked)).items():
        boxed[thing][frame] = regions_from_ids(ids[[frame]], [thing], grid, min_share=_MENTIONED_SHARE).numpy()[0, 0]
    found = []
    for question in row["questions"]:
        last = len(ids) if question["type"] in _IN_ALL_FRAMES else 1
        is_boxed = question["type"] == "box"
        entries = []
        for word, fits in find_mentions(question["question"], row["objects"], kinds):
            parts = [boxed[n] for n in question["target_objects"]] if is_boxed else [shown[n] for n in fits]
            cells = np.logical_or.reduce([nothing, *parts])
            cells[last:] &= not cells[:last].any()
            entries.append((word, cells))
        found.append(entries)
    return found


class LessonSamples(Sequence):
    """Samples of one kind; each follows from the seed and its index alone.

    - "naming": one property of what each cell of all frames shows, in a word;
    - "place": questions about single cells of one frame;
    - "region": questions that point at objects, about all frames, forwards or backwards;
    - "word": questions that name objects, and requests to find them, about all frames, forwards or backwards;
    - "view": the same about one frame;
    - "box": where in 3D objects are, answered by boxes in words; about one frame, some or all;
    - "outline": the same about where in the picture they are, without depth and metres, see `outline_box`;
    - "pointed": the same with questions that point at objects.

    Samples of "word", "view", "box" and "outline" have `mentions`, see `mention_masks`.

    Args:
        rooms: Rows of `load_rooms`.
        grid: Token grid of the model.
        lesson: Kind of samples.
        num_passes: Samples per room.
        max_questions: Largest number of questions that share a video.
        seed: Seed of all draws.
        boxes: Settings of the lessons "box" and "outline"; default: those of `BoxLesson()`.
        naming_depth: Whether the lesson "naming" names depth too, see `naming_sample`.
        rewording: Given a question in words, its room and a generator, returns the text that "word" and "view" ask;
            default: a third is asked in words that the templates do not have.

    Raises:
        TypeError: If `naming_depth` is no flag.
        ValueError: an unknown kind; when a sample is drawn, rooms that show nothing to ask about.
    """

    def __init__(
        self,
        rooms: Sequence[dict],
        grid: TokenGrid,
        lesson: Lesson,
        *,
        num_passes: int = 1,
        max_questions: int = 16,
        seed: int = 0,
        boxes: BoxLesson | None = None,
        naming_depth: bool = True,
        rewording: Rewording = say_at_times_otherwise,
    ):
        if lesson not in get_args(Lesson):
            raise ValueError(f"lesson must be one of {get_args(Lesson)}, got {lesson!r}")
        self.rooms, self.grid, self.lesson = rooms, grid, lesson
        self.num_passes, self.max_questions, self.seed = num_passes, max_questions, seed
        self.boxes = boxes or BoxLesson()
        self.naming_depth = check_flag(naming_depth, "naming_depth")
        self.rewording = rewording
        self._kinds = sorted({thing["category"] for row in rooms for thing in row["objects"]})

    def __len__(self) -> int:
        return self.num_passes * len(self.rooms)

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"There are {len(self)} samples, got index {index}.")
        row = self.rooms[index % len(self.rooms)]
        rng = np.random.default_rng([self.seed, get_args(Lesson).index(self.lesson), index])
        for _ in range(_MAX_DRAWS):
            sample = self._draw(row, rng)
            if sample is not None:
                return sample
            # A view may show nothing to ask about.
            row = self.rooms[int(rng.integers(len(self.rooms)))]
        raise ValueError(f"No question of the lesson {self.lesson!r} fits any of {len(self.rooms)} rooms.")

    def _draw(self, row: dict, rng: np.random.Generator) -> dict | None:
        num_frames = len(row["frames"])
        if self.lesson == "naming":
            return naming_sample(row, self.grid, rng, depth=self.naming_depth)
        if self.lesson == "place":
            return place_sample(row, self.grid, rng, self.max_questions, view=int(rng.integers(num_frames)))
        has_boxes = self.lesson in ("box", "outline", "pointed")
        if self.lesson == "view" or (has_boxes and rng.integers(2)):
            views = [int(rng.integers(num_frames))]
        else:
            views = list(range(num_frames))[:: 1 if rng.integers(2) else -1]
            if has_boxes and num_frames > 2 and rng.integers(2):
                views = views[: int(rng.integers(2, num_frames))]
        if has_boxes:
            return self._draw_boxes(take_views(row, views), rng)
        retaken = retake_room(row, views, rng)
        reference = "region" if self.lesson == "region" else "word"
        questions = [q for q in retaken["questions"] if q["reference"] == reference and q["type"] not in _NOT_ASKED]
        questions = draw_evenly(questions, self.max_questions, rng)
        if reference == "word":
            questions = [{**q, "question": self.rewording(q, retaken, rng)} for q in questions]
        retaken["questions"] = questions
        if self.lesson == "region":
            samples = room_samples(retaken, self.grid)
            return samples[0] if samples else None
        sample = packed_word_sample(retaken, self.grid)
        return sample and {**sample, "mentions": mention_masks(retaken, self.grid, self._kinds)}

    def _draw_boxes(self, row: dict, rng: np.random.Generator) -> dict | None:
        row = show_room(row, rng, self.boxes)
        if self.lesson == "pointed":
            return pointed_outlines(row, self.grid, rng, self.boxes.numbers, self.max_questions)
        outlines = self.lesson == "outline"
        sample = box_sample(row, rng, self.boxes.numbers, self.max_questions, outlines=outlines)
        asked = {**row, "questions": sample["questions"]} if sample else None
        return sample and {**sample, "mentions": mention_masks(asked, self.grid, self._kinds)}
