"""Make the questions of a training, and those that a split is asked."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from processing.rooms.lessons import retake_room
from processing.rooms.questions.wording import TEMPLATES, metres, position_words
from processing.rooms.samples import chat, room_samples
from processing.token_grid import TokenGrid
from processing.writing import write_json

from ..storage import load_json
from .files import ADVICE
from .rooms import COLOUR_WORDS, COLUMN_WORDS, KIND_WORDS, ROW_WORDS, decode_room

__all__ = [
    "QUESTION_TYPES",
    "choose_questions",
    "first_view",
    "jitter_answers",
    "read_asked",
    "sample_flat_questions",
    "sample_questions",
    "say_boxes",
    "split_references",
    "store_asked",
    "study_texts",
]

QUESTION_TYPES = ("position", "distance", "closer", "direction", "colour")
FLAT_TYPES = ("direction", "colour")
MIDDLE_QUESTION, EXTENT_QUESTION = "Where in the picture is <ground>?", "How large in the picture is <ground>?"
MAX_QUESTIONS = 20  # of a view; a room has about 18
GROUND = "<ground>"
# How an answer in metres is spelled, by type of question; a distance is at least 0.1 m.
SPELLED: dict[str, Callable[[np.ndarray], str]] = {
    "position": position_words,
    "distance": lambda value: metres(max(0.1, value.item())),
}


def study_texts() -> list[str]:
    """Return words of all questions and answers, for a tokenizer independent of the rooms."""
    rng = np.random.default_rng(0)
    texts = [text.format(a="<ground>", b="<ground>") for kind in QUESTION_TYPES for text in TEMPLATES[kind]]
    answers = [position_words(point) for point in rng.uniform(-4, 8, (300, 3))]
    answers += [metres(length) for length in rng.uniform(0.5, 9, 300)]
    words = ["the first", "the second", "left", "right", *COLOUR_WORDS, *KIND_WORDS]
    return [text[0].upper() + text[1:] for text in texts] * 100 + answers + words * 100


def sample_questions(rooms: Sequence[Mapping], grid: TokenGrid, seed: int) -> list[dict]:
    """Sample packed questions that point at objects.

    They are about every view of some rooms, each view as a video of its own.

    Args:
        rooms: Rooms of `load_rooms`.
        grid: Token grid of the model.
        seed: Seed of the questions.
    """
    samples = []
    for index, room in enumerate(rooms):
        room = decode_room(room)
        for view in range(len(room["frames"])):
            taken = retake_room(room, [view], np.random.default_rng([seed, index, view]))
            found = room_samples(taken, grid, reference="region", types=QUESTION_TYPES, max_questions=MAX_QUESTIONS)
            # Chats are packed where there are several; one alone would see the video.
            samples += [sample for sample in found if len(sample["questions"]) > 1]
    return samples


def sample_flat_questions(rooms: Sequence[Mapping], grid: TokenGrid, seed: int) -> list[dict]:
    """Sample packed questions that pictures without depth answer, for a lesson in reading.

    Colour and left or right are those of `sample_questions`. Two more ask where the middle of a region lies and how
    far it extends. Their answers have the form of a 3D point, in visual tokens from the upper left corner.

    Args:
        rooms: Rooms of `load_rooms`.
        grid: Token grid of the model.
        seed: Seed of the questions.
    """
    samples = []
    for sample in sample_questions(rooms, grid, seed):
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


def split_references(sample: Mapping) -> list[np.ndarray]:
    """Return the regions (objects,) of each question, as indices into the sample's masks."""
    lengths = [len(question["region_objects"]) for question in sample["questions"]]
    return np.split(np.asarray(sample["region_references"], np.int64), np.cumsum(lengths)[:-1])


def say_boxes(sample: Mapping) -> dict:
    """Return a sample whose questions say between which columns and rows regions lie.

    The words are those of the lesson: first and last column, first and last row.

    A region that is empty in the first frame gets no words.

    Args:
        sample: Sample of `room_samples`, with or without `messages`.
    """
    boxes = []
    for mask in np.asarray(sample["region_masks"])[:, 0]:
        (rows, cols), cells = mask.shape, mask.nonzero()
        ends = [
            words[edge * 10 // size]
            for lines, size, words in ((cells[1], cols, COLUMN_WORDS), (cells[0], rows, ROW_WORDS))
            if len(lines)
            for edge in (lines.min(), lines.max())
        ]
        boxes.append("".join(f" {word}" for word in ends))
    questions, chats = [], []
    for question, own in zip(sample["questions"], split_references(sample), strict=True):
        parts = question["question"].split(GROUND)
        text = parts[0] + "".join(GROUND + boxes[at] + part for at, part in zip(own, parts[1:], strict=True))
        questions.append({**question, "question": text})
        chats.append(chat(questions[-1]))
    return {**sample, "questions": questions, **({"messages": chats} if "messages" in sample else {})}


def jitter_answers(sample: Mapping, spread: float, rng: np.random.Generator) -> dict:
    """Return a sample whose answers in metres are off by a normal error.

    Args:
        sample: Sample with `questions`.
        spread: Standard deviation of the error in metres.
        rng: Source of the errors.
    """
    chats = []
    for question in sample["questions"]:
        if question["type"] in SPELLED:
            value = np.asarray(question["value"], float)
            value = value + rng.normal(0, spread, value.shape)
            question = {**question, "answer": SPELLED[question["type"]](value)}
        chats.append(chat(question))
    return {**sample, "messages": chats}


def choose_questions(sample: dict, most: int | None, rng: np.random.Generator) -> dict:
    """Return a sample with at most so many of its questions, in random order."""
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


def first_view(room: Mapping) -> dict:
    """Return a room as a video of its first frame.

    All questions that point at objects are about this frame.
    """
    room = decode_room(room)
    pictures = ("frames", "depth", "instance_ids", "intrinsics", "camera_to_world")
    return {**room, **{key: room[key][:1] for key in pictures}}


def store_asked(folder: Path, rooms: Sequence[Mapping], grid: TokenGrid) -> None:
    """Write what the rooms of a split are asked, for `read_asked`.

    It is written once for all runs, whole or not at all.
    """
    path = folder / "asked.json"
    if path.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    entries, frames, masks = [], [], []
    for room in tqdm(rooms, desc="Questions", unit="room", disable=None):
        room = first_view(room)
        found = room_samples(room, grid, reference="region", types=QUESTION_TYPES) or [{"questions": []}]
        entry = {"scene_id": room["scene_id"], "questions": found[0]["questions"], "regions": 0}
        if found[0]["questions"]:
            masks.append(found[0]["region_masks"])
            entry |= {"regions": len(masks[-1]), "references": found[0]["region_references"].tolist()}
        entries.append(entry)
        frames.append(np.stack(room["frames"]))
    np.savez(folder / "asked.npz", frames=np.stack(frames), masks=np.concatenate(masks))
    write_json(path, entries, indent=None)  # last: it says that the arrays are whole


def read_asked(folder: Path) -> list[dict]:
    """Return samples of the first view of each room; `questions` may be empty."""
    with np.load(folder / "asked.npz") as arrays:
        frames, masks = arrays["frames"], arrays["masks"]
    samples, start = [], 0
    for entry, own in zip(load_json(folder / "asked.json", ADVICE), frames, strict=True):
        end = start + entry["regions"]
        sample = {"scene_id": entry["scene_id"], "frames": own, "questions": entry["questions"]}
        samples.append({**sample, "region_masks": masks[start:end], "region_references": entry.get("references", [])})
        start = end
    return samples
