"""Data of the emergence study: rooms as arrays that all runs map, questions of a few of them, and batches of both."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from processing.regions import TokenGrid
from processing.rooms import load_rooms
from processing.rooms.furniture import FLOOR_PIECES
from processing.rooms.lessons import retake_room
from processing.rooms.palette import COLOURS
from processing.rooms.samples import cell_objects, chat, room_samples
from processing.rooms.small_things import CEILING_PIECES, TOP_PIECES, WALL_PIECES
from processing.rooms.wording import TEMPLATES, metres, position_words
from trainer.nano_lessons import RegionReadingCollator

__all__ = [
    "QUESTION_TYPES",
    "RoomArrays",
    "StudyCollator",
    "StudySteps",
    "decode_room",
    "draw_flat_questions",
    "draw_questions",
    "jitter_answers",
    "say_boxes",
    "split_references",
    "store_rooms",
    "study_texts",
]

QUESTION_TYPES = ("position", "distance", "closer", "direction", "colour")
FLAT_TYPES = ("direction", "colour")
MIDDLE_QUESTION, EXTENT_QUESTION = "Where in the picture is <ground>?", "How large in the picture is <ground>?"
MAX_QUESTIONS = 20  # of a view; a room has about 18
ARRAYS = ("frames", "depth", "intrinsics", "camera_to_world", "colours", "kinds")
# One letter each, so that no word means two things: columns from left to right, rows from top to bottom.
COLUMN_WORDS, ROW_WORDS = "abcdefghij", "klmnopqrst"
COLOUR_WORDS = list(COLOURS)
KIND_WORDS = sorted({*FLOOR_PIECES, *TOP_PIECES, *WALL_PIECES, *CEILING_PIECES})
GROUND = "<ground>"
# How an answer in metres is spelled, by type of question; a distance is at least 0.1 m.
SPELLED: dict[str, Callable[[np.ndarray], str]] = {
    "position": position_words,
    "distance": lambda value: metres(max(0.1, value.item())),
}
VIDEO_CHAT = [{"role": "user", "content": [{"type": "video"}]}]


def store_rooms(folder: Path, split: str, num_rooms: int, grid: TokenGrid, num_frames: int) -> Path:
    """Write the rooms of a split as arrays, complete or not at all; returns where they are.

    Args:
        folder: Of all such arrays; the rooms get a folder of the split's name.
        split: See `load_rooms`.
        num_rooms: See `load_rooms`.
        grid: Frames have the size of its vision input.
        num_frames: Frames a room.

    Raises:
        ValueError: The folder holds other rooms.
    """
    rooms = load_rooms(split, num_rooms, image_size=grid.image_size[0], num_frames=num_frames)
    place, source = folder / split, f"{rooms._fingerprint} {grid}"
    if (place / "names.json").is_file():
        found = json.loads((place / "names.json").read_text(encoding="utf-8"))["source"]
        if found != source:
            raise ValueError(f"{place} holds other rooms than the study asks for: remove it, or change output_dir.")
        return place
    place.mkdir(parents=True, exist_ok=True)
    size, shape = (num_rooms, num_frames), grid.image_size
    layout = {
        "frames": ((*size, *shape, 3), np.uint8),
        "depth": ((*size, *shape), np.float32),
        "intrinsics": ((*size, 3, 3), np.float32),
        "camera_to_world": ((*size, 4, 4), np.float32),
        "colours": ((*size, *grid.shape), np.int8),
        "kinds": ((*size, *grid.shape), np.int8),
    }
    arrays = {
        key: np.lib.format.open_memmap(place / f"{key}.npy", "w+", dtype, full)
        for key, (full, dtype) in layout.items()
    }
    scenes = []
    for index, row in enumerate(tqdm(rooms, desc=f"Rooms of {split}", unit="room")):
        for key in ("frames", "depth"):
            arrays[key][index] = np.stack([np.asarray(image) for image in row[key]])
        for key in ("intrinsics", "camera_to_world"):
            arrays[key][index] = row[key]
        shown = cell_objects(row, grid)
        for key, words, names in (("colours", COLOUR_WORDS, "colour"), ("kinds", KIND_WORDS, "category")):
            arrays[key][index] = np.array([*(words.index(thing[names]) for thing in row["objects"]), -1])[shown]
        scenes.append(row["scene_id"])
    for array in arrays.values():
        array.flush()
    # Written last: it says that the rest is whole.
    unfinished = place / "names.incomplete"
    unfinished.write_text(json.dumps({"source": source, "names": scenes}), encoding="utf-8")
    unfinished.replace(place / "names.json")
    return place


class RoomArrays(Sequence):
    """Rooms that `store_rooms` wrote, as samples without questions; nothing is read before it is asked for.

    Args:
        place: Their folder.
        target: What stands in `depth`: "depth" in metres, or "grey", the brightness of each pixel, brought to mean and
            spread of the depth so that a loss of the same size regresses it.

    Raises:
        ValueError: An unknown target.
    """

    def __init__(self, place: Path, target: str = "depth"):
        if target not in ("depth", "grey"):
            raise ValueError(f"target must be depth or grey, got {target!r}.")
        self.names = json.loads((place / "names.json").read_text(encoding="utf-8"))["names"]
        self.arrays = {key: np.load(place / f"{key}.npy", mmap_mode="r") for key in ARRAYS}
        self.target, self.scale = target, (0.0, 0.0)
        if target == "grey":
            some = slice(0, 64)
            grey, depth = to_grey(self.arrays["frames"][some]), self.arrays["depth"][some]
            slope = float(depth.std() / grey.std())
            self.scale = (slope, float(depth.mean() - slope * grey.mean()))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        room = {key: np.array(self.arrays[key][index]) for key in ARRAYS[:4]}
        if self.target == "grey":
            slope, offset = self.scale
            room["depth"] = np.clip(slope * to_grey(room["frames"]) + offset, 0.05, None).astype(np.float32)
        return {"scene_id": self.names[index], "messages": VIDEO_CHAT, **room}

    def cell_words(self, index: int, what: int) -> np.ndarray:
        """Words (V, rows, cols) of a room's cells, "" = none: colours (0), kinds (1), columns (2), rows (3)."""
        if what < 2:
            words, key = (COLOUR_WORDS, "colours") if what == 0 else (KIND_WORDS, "kinds")
            return np.array([*words, ""])[self.arrays[key][index]]
        shape = self.arrays["colours"].shape[1:]
        rows, cols = shape[1:]
        if what == 2:
            return np.broadcast_to(np.array(list(COLUMN_WORDS))[np.arange(cols) * 10 // cols], shape)
        return np.broadcast_to(np.array(list(ROW_WORDS))[np.arange(rows) * 10 // rows][:, None], shape)


def to_grey(frames: np.ndarray) -> np.ndarray:
    """Luma (...) in [0, 1] of frames (..., 3), uint8, by ITU-R BT.601."""
    return (frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)) / 255


def decode_room(row: Mapping[str, Any]) -> dict:
    """A row of `load_rooms` with its pictures as arrays."""
    pictures = ("frames", "depth", "instance_ids")
    return {**row, **{key: [np.asarray(image) for image in row[key]] for key in pictures}}


def study_texts() -> list[str]:
    """Words of all questions and answers of the study, for a tokenizer that does not depend on the rooms."""
    rng = np.random.default_rng(0)
    texts = [text.format(a="<ground>", b="<ground>") for kind in QUESTION_TYPES for text in TEMPLATES[kind]]
    answers = [position_words(point) for point in rng.uniform(-4, 8, (300, 3))]
    answers += [metres(length) for length in rng.uniform(0.5, 9, 300)]
    words = ["the first", "the second", "left", "right", *COLOUR_WORDS, *KIND_WORDS]
    return [text[0].upper() + text[1:] for text in texts] * 100 + answers + words * 100


def draw_questions(rows: Sequence[Mapping[str, Any]], grid: TokenGrid, seed: int) -> list[dict]:
    """Packed questions that point at objects, of every view of some rooms, each view as a video of its own.

    Args:
        rows: Rows of `load_rooms`.
        grid: Token grid of the model.
        seed: Of the draws.
    """
    samples = []
    for index, row in enumerate(rows):
        row = decode_room(row)
        for view in range(len(row["frames"])):
            taken = retake_room(row, [view], np.random.default_rng([seed, index, view]))
            found = room_samples(taken, grid, reference="region", types=QUESTION_TYPES, max_questions=MAX_QUESTIONS)
            # Chats are packed where there are several; one alone would see the video.
            samples += [sample for sample in found if len(sample["questions"]) > 1]
    return samples


def draw_flat_questions(rows: Sequence[Mapping[str, Any]], grid: TokenGrid, seed: int) -> list[dict]:
    """Packed questions as those of `draw_questions` that pictures without depth answer, for a lesson in reading.

    Colour and left or right as there. Then where the middle of the region lies and how far it extends, in the same
    form as a 3D point, in visual tokens from the upper left corner.

    Args:
        rows: Rows of `load_rooms`.
        grid: Token grid of the model.
        seed: Of the draws.
    """
    samples = []
    for sample in draw_questions(rows, grid, seed):
        kept, references = [], []
        for question, own in zip(sample["questions"], split_references(sample), strict=True):
            if question["type"] in FLAT_TYPES:
                kept.append(question)
                references += own.tolist()
        for number, mask in enumerate(np.asarray(sample["region_masks"])[:, 0]):
            if not mask.any():
                continue
            rows_of, columns_of = mask.nonzero()
            middle = f"x {columns_of.mean() + 0.5:.1f} y {rows_of.mean() + 0.5:.1f}"
            extent = f"x {np.ptp(columns_of) + 1:.1f} y {np.ptp(rows_of) + 1:.1f}"
            for text, answer in ((MIDDLE_QUESTION, middle), (EXTENT_QUESTION, extent)):
                kept.append({"type": "flat", "question": text, "answer": answer, "region_objects": [number]})
                references.append(number)
        if len(kept) > 1:
            questions = {"messages": list(map(chat, kept)), "questions": kept}
            samples.append({**sample, **questions, "region_references": np.array(references)})
    return samples


def split_references(sample: Mapping[str, Any]) -> list[np.ndarray]:
    """Regions (objects,) that each question of a sample points at, as indices into its masks."""
    lengths = [len(question["region_objects"]) for question in sample["questions"]]
    return np.split(np.asarray(sample["region_references"], np.int64), np.cumsum(lengths)[:-1])


def say_boxes(sample: Mapping[str, Any]) -> dict:
    """A sample whose questions say where each region lies: first and last column, first and last row, by their words.

    The words are those of the lesson. A region that is empty in the first frame gets none.

    Args:
        sample: As `room_samples` gives it, with or without `messages`.
    """
    boxes = []
    for mask in np.asarray(sample["region_masks"])[:, 0]:
        (rows, cols), places = mask.shape, mask.nonzero()
        ends = [
            words[edge * 10 // size]
            for place, size, words in ((places[1], cols, COLUMN_WORDS), (places[0], rows, ROW_WORDS))
            if len(place)
            for edge in (place.min(), place.max())
        ]
        boxes.append("".join(f" {word}" for word in ends))
    questions, chats = [], []
    for question, own in zip(sample["questions"], split_references(sample), strict=True):
        parts = question["question"].split(GROUND)
        text = parts[0] + "".join(GROUND + boxes[at] + part for at, part in zip(own, parts[1:], strict=True))
        questions.append({**question, "question": text})
        chats.append(chat(questions[-1]))
    return {**sample, "questions": questions, **({"messages": chats} if "messages" in sample else {})}


def jitter_answers(sample: Mapping[str, Any], spread: float, rng: np.random.Generator) -> dict:
    """A sample whose answers in metres are off by a normal error of so many metres; all other answers are kept."""
    chats = []
    for question in sample["questions"]:
        if question["type"] in SPELLED:
            value = np.asarray(question["value"], float)
            value = value + rng.normal(0, spread, value.shape)
            question = {**question, "answer": SPELLED[question["type"]](value)}
        chats.append(chat(question))
    return {**sample, "messages": chats}


class StudySteps(Dataset):
    """What each step of a training is made of: the same rooms and questions in the same order for all rows of a seed.

    Item k is the list of samples of step k. It follows from the arguments and k alone.

    Args:
        rooms: Rooms without questions.
        questions: Samples of `draw_questions`; empty for a phase without.
        num_steps: Length.
        rooms_per_step: Rooms of a step, 0 for none.
        questions_per_step: Question samples of a step.
        seed: Of the order.
        num_words: Cells of a video that get a word to name; None: all.
        max_questions: Questions of a view in a step, drawn anew at every visit; None: all.
        answer_jitter: See `jitter_answers`.
    """

    def __init__(
        self,
        rooms: RoomArrays,
        questions: Sequence[dict],
        *,
        num_steps: int,
        rooms_per_step: int,
        questions_per_step: int = 0,
        seed: int = 0,
        num_words: int | None = None,
        max_questions: int | None = None,
        answer_jitter: float = 0.0,
    ):
        self.rooms, self.questions, self.seed = rooms, questions, seed
        self.num_words, self.max_questions, self.answer_jitter = num_words, max_questions, answer_jitter
        self.room_order = _endless_order(len(rooms), num_steps * rooms_per_step, [seed, 0])
        self.question_order = _endless_order(len(questions), num_steps * questions_per_step, [seed, 1])
        self.room_order = self.room_order.reshape(num_steps, rooms_per_step)
        self.question_order = self.question_order.reshape(num_steps, questions_per_step)

    def __len__(self) -> int:
        return len(self.room_order)

    def __getitem__(self, step: int) -> list[dict]:
        samples = []
        for place, index in enumerate(self.question_order[step]):
            rng = np.random.default_rng([self.seed, 3, step, place])
            sample = pick_questions(self.questions[index], self.max_questions, rng)
            samples.append(jitter_answers(sample, self.answer_jitter, rng) if self.answer_jitter else sample)
        for place, index in enumerate(self.room_order[step]):
            rng = np.random.default_rng([self.seed, 2, step, place])
            words = self.rooms.cell_words(index, int(rng.integers(4)))
            if self.num_words is not None:
                chosen = np.zeros(words.size, bool)
                chosen[rng.choice(words.size, min(self.num_words, words.size), replace=False)] = True
                words = np.where(chosen.reshape(words.shape), words, "")
            samples.append({**self.rooms[index], "cell_words": words})
        return samples


def pick_questions(sample: dict, most: int | None, rng: np.random.Generator) -> dict:
    """A sample with at most so many of its questions, in random order."""
    count = len(sample["questions"])
    if most is None or count <= most:
        return sample
    chosen = rng.permutation(count)[:most]
    references = split_references(sample)
    return {
        **sample,
        "messages": [sample["messages"][index] for index in chosen],
        "questions": [sample["questions"][index] for index in chosen],
        "region_references": np.concatenate([references[index] for index in chosen]),
    }


def _endless_order(size: int, count: int, seed: list[int]) -> np.ndarray:
    """`count` indices below `size`: one permutation after the other."""
    if count == 0:
        return np.zeros(0, np.int64)
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(size) for _ in range(-(-count // size))])[:count]


class StudyCollator:
    """Collates items of `StudySteps`: questions see the regions they point at alone, visual tokens name their cells.

    Args:
        collator: `IDE3DDataCollator`.
    """

    def __init__(self, collator: Any):
        self.collator = collator
        self.reading = RegionReadingCollator(collator)
        self.protocol, self.teacher = collator.protocol, collator.teacher

    def __call__(self, steps: Sequence[list[dict]]) -> dict[str, Tensor]:
        """Collate the samples of all steps that are given, usually one."""
        samples = [sample for step in steps for sample in step]
        has_questions = any("questions" in sample for sample in samples)
        batch = (self.reading if has_questions else self.collator)(samples)
        processor, (rows, cols) = self.collator.processor, self.collator.grid.shape
        labels = batch["labels"].clone()
        for index, sample in enumerate(samples):
            if "cell_words" not in sample:
                continue
            words = sample["cell_words"]
            places = (batch["input_ids"][index] == processor.video_token_id).nonzero().flatten()
            places = places.unflatten(0, (-1, rows, cols + 1))[:, :, :-1]
            for word in np.unique(words).tolist():
                if word:  # a label belongs to the position before it
                    token = processor.tokenizer.encode(word)[0]
                    labels[index, places[torch.from_numpy(words == word)] + 1] = token
        return {**batch, "labels": labels}
