"""Training samples of a room, in the form that a data collator takes."""

import numpy as np

from processing.argument_rules import check_choice, check_flag, check_keys, check_texts, check_whole
from processing.regions import check_grid, regions_from_ids
from processing.rooms.questions.wording import TYPES, plural
from processing.token_grid import TokenGrid

__all__ = [
    "cell_colours",
    "cell_depth",
    "cell_objects",
    "chat",
    "naming_sample",
    "naming_samples",
    "packed_word_sample",
    "room_samples",
    "video_arrays",
]

_ROOM_KEYS = ("frames", "depth", "intrinsics", "camera_to_world", "instance_ids", "objects", "questions")
_HEIGHTS = (0.3, 0.5, 0.8, 1.1, 1.6)  # metres, between the words of a first lesson
_POINTED_SHARE = 0.5  # a pointed region holds at least half of one of its cells, if the object fills any so far


def chat(question: dict) -> list[dict]:
    """Return a question and its answer as one turn about the video."""
    return [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question["question"]}]},
        {"role": "assistant", "content": [{"type": "text", "text": question["answer"]}]},
    ]


def _pointed_masks(ids: np.ndarray, objects: list[int], token_grid: TokenGrid, first_frame_only: bool) -> np.ndarray:
    if not first_frame_only:
        return regions_from_ids(ids, objects, token_grid, min_share=_POINTED_SHARE).numpy()
    masks = np.zeros((len(objects), len(ids), token_grid.rows, token_grid.cols), bool)
    masks[:, :1] = regions_from_ids(ids[:1], objects, token_grid, min_share=_POINTED_SHARE).numpy()
    return masks


def cell_colours(row: dict, token_grid: TokenGrid) -> np.ndarray:
    """Return the colour (V, rows, cols) of the object that fills most of each cell, else "".

    An object too small for that in every view names the one cell that it fills most, as where it is pointed at.
    """
    return np.array([*(o["colour"] for o in row["objects"]), ""])[cell_objects(row, token_grid)]


def cell_objects(row: dict, token_grid: TokenGrid) -> np.ndarray:
    """Return the index (V, rows, cols) of the object that fills most of each cell, else -1."""
    ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
    masks = regions_from_ids(ids, [o["id"] for o in row["objects"]], token_grid, min_share=_POINTED_SHARE).numpy()
    index = np.full(masks.shape[1:], -1)
    for number, mask in enumerate(masks):
        index[mask] = number
    return index


def cell_depth(depth: np.ndarray, token_grid: TokenGrid) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return the depth at the middle of each cell, and the pixels (v, u) there.

    Shape:
        depth: (V, h, w), metres, of frames before they are resized to the vision input.
        output: (V, rows, cols), metres; ((rows,), (cols,)) whole pixels.
    """
    v, u = (
        ((np.arange(cells) + 0.5) * covered / cells * length / full).astype(int)
        for cells, covered, full, length in zip(
            token_grid.shape, token_grid.covered_size, token_grid.image_size, depth.shape[1:], strict=True
        )
    )
    return depth[:, v[:, None], u[None, :]], (v, u)


def naming_samples(row: dict, token_grid: TokenGrid, *, depth: bool = True) -> list[dict]:
    """Name in one word what each visual token shows: a first lesson for random weights.

    Args:
        row: Row of `load_rooms`.
        token_grid: Token grid of the model that will see the sample.
        depth: Whether one of the samples names depth, which is supervision of geometry in words.

    Returns:
        Four dicts as `room_samples` gives them, without questions, with `cell_words` (V, rows, cols), str, "" = none.
        The first has the colour of the object that fills most of the cell. The second has the whole metres of depth at
        its middle, one digit or "" without a measurement, and is left out without `depth`. The others have its column
        and its row in tenths of the picture, a letter each.
    """
    video = video_arrays(row)
    metres, _ = cell_depth(video["depth"], token_grid)
    # Letters, so that no word means two things: a to j from left to right, k to t from top to bottom.
    row_of, column_of = (np.arange(cells) * 10 // cells for cells in token_grid.shape)
    letters = np.array(list("abcdefghijklmnopqrst"))
    words = (
        cell_colours(row, token_grid),
        *([np.where(metres > 0, np.clip(metres, 0, 9).astype(int).astype(str), "")] if depth else []),
        np.broadcast_to(letters[column_of], metres.shape),
        np.broadcast_to(letters[10 + row_of][:, None], metres.shape),
    )
    return [_naming(video, each) for each in words]


def naming_sample(row: dict, token_grid: TokenGrid, rng: np.random.Generator, *, depth: bool = True) -> dict:
    """Draw one of `naming_samples`, or one in the words of questions.

    The words of questions are a blank, then a colour, a kind or its plural.

    A model whose visual tokens are made of the words of questions can look for what a question names.

    Args:
        row: Row of `load_rooms`.
        token_grid: Token grid of the model that will see the sample.
        rng: Generator of the draw.
        depth: Whether depth is among them, see `naming_samples`.
    """
    turn = int(rng.integers(8))
    if turn < 4:
        flat = naming_samples(row, token_grid, depth=depth)
        return flat[turn % len(flat)]
    things = row["objects"]
    if turn == 4:
        words = [" " + o["colour"] if o["colour"] else "" for o in things]
    elif turn < 7:
        words = [" " + (plural(o["category"]) if turn == 6 else o["category"]) for o in things]
    else:
        # Letters again: u to z from low to tall.
        words = ["uvwxyz"[int(np.digitize(o["size"][2], _HEIGHTS))] for o in things]
    words = np.array([*words, ""])[cell_objects(row, token_grid)]
    return _naming(video_arrays(row), words)


def _naming(video: dict, words: np.ndarray) -> dict:
    return {**video, "messages": [{"role": "user", "content": [{"type": "video"}]}], "cell_words": words}


def video_arrays(row: dict) -> dict:
    """Return name, frames, depth and cameras of a room, by the keys of a sample."""
    return {
        "scene_id": row["scene_id"],
        "frames": np.stack([np.asarray(image) for image in row["frames"]]),
        "depth": np.stack([np.asarray(image, dtype=np.float32) for image in row["depth"]]),
        "intrinsics": np.asarray(row["intrinsics"], np.float32),
        "camera_to_world": np.asarray(row["camera_to_world"], np.float32),
    }


def room_samples(
    row: dict,
    token_grid: TokenGrid,
    *,
    packed: bool = True,
    reference: str | None = None,
    types=None,
    max_questions: int | None = None,
    rng: np.random.Generator | None = None,
    first_frame_only: bool = True,
) -> list[dict]:
    """Build the training samples of one room.

    Args:
        row: Row of `load_rooms`.
        token_grid: Token grid of the model that will see the sample.
        packed: Whether all questions that are not grounding share one sample and one visual prefix.
        reference: Form of the questions that are kept: "region" points, "word" names, None keeps both. Grounding is
            "word".
        types: Question types that are kept; None keeps all.
        max_questions: Largest number of questions that are not grounding, drawn with `rng`, and of grounding
            questions.
        rng: Generator of that draw; without it the first ones are kept.
        first_frame_only: Whether regions that questions point at mark the first frame alone, the frame that
            distances and sides refer to. Grounding candidates always use all frames.

    Returns:
        Dicts with messages, frames (V, h, w, 3) uint8, depth (V, h, w) float32 metres, intrinsics (V, 3, 3) and
        camera_to_world (V, 4, 4). Where needed they have region_masks (N, V, rows, cols) bool, region_references (R,)
        and region_targets (N + 1,) bool with "no such object" last. `questions` lists the question dicts in the order
        of the chats, `object_ids` (N,) the objects behind region_masks.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If `reference` or a type is unknown, the row lacks a part, or `max_questions` is below 1.
    """
    check_keys(row, _ROOM_KEYS, "row")
    check_grid(token_grid, "token_grid")
    packed, first_frame_only = check_flag(packed, "packed"), check_flag(first_frame_only, "first_frame_only")
    if reference is not None:
        check_choice(reference, ("region", "word"), "reference")
    types = None if types is None else check_texts(types, "types", TYPES)
    if max_questions is not None:
        max_questions = check_whole(max_questions, "max_questions", 1)
    if not isinstance(rng, np.random.Generator | None):
        raise TypeError(f"`rng` must be a NumPy generator or None, got {type(rng).__name__}.")
    chosen = [
        q for q in row["questions"] if reference in (None, q["reference"]) and (types is None or q["type"] in types)
    ]
    talk = _draw([q for q in chosen if q["type"] != "grounding"], max_questions, rng)
    ground = _draw([q for q in chosen if q["type"] == "grounding"], max_questions, rng)
    if not talk and not ground:
        return []
    ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
    shared = video_arrays(row)
    samples = []
    for group in [talk] if packed and talk else [[q] for q in talk]:
        samples.append({**shared, **_talk_sample(group, ids, token_grid, first_frame_only, packed)})
    if ground:
        objects = [o["id"] for o in row["objects"]]
        samples += [{**shared, **sample} for sample in _ground_samples(ground, objects, ids, token_grid)]
    return samples


def packed_word_sample(row: dict, token_grid: TokenGrid) -> dict | None:
    """Pack questions that name objects and requests to find some over one video, if any.

    Args:
        row: Row of `load_rooms`.
        token_grid: Token grid of the model that will see the sample.

    Returns:
        Dict as `room_samples` gives it; region_targets (Q, N + 1) has a row for each of the Q requests. The last of
        the N regions is empty and never meant, so that the model learns what a candidate is worth that no frame
        shows; its id is 0.
    """
    questions = [q for q in row["questions"] if q["reference"] == "word"]
    if not questions:
        return None
    sample = {**video_arrays(row), "messages": [chat(q) for q in questions], "questions": questions}
    requests = [q for q in questions if q["type"] == "grounding"]
    if requests:
        ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
        found = _ground_samples(requests, [o["id"] for o in row["objects"]], ids, token_grid, hidden=1)
        sample |= {key: found[0][key] for key in ("region_masks", "object_ids")}
        sample["region_targets"] = np.stack([entry["region_targets"] for entry in found])
    return sample


def _ground_samples(
    group: list[dict], objects: list[int], ids: np.ndarray, token_grid: TokenGrid, hidden: int = 0
) -> list[dict]:
    masks = regions_from_ids(ids, objects, token_grid).numpy()
    seen = masks.any(axis=(1, 2, 3))
    masks, objects = masks[seen], np.pad(np.array(objects)[seen], (0, hidden))
    masks = np.pad(masks, ((0, hidden), (0, 0), (0, 0), (0, 0)))
    samples = []
    for question in group:
        targets = np.isin(objects, question["target_objects"])
        samples.append(
            {
                "messages": chat(question),
                "region_masks": masks,
                "region_targets": np.append(targets, not targets.any()),
                "questions": [question],
                "object_ids": objects,
            }
        )
    return samples


def _draw(questions: list[dict], most: int | None, rng: np.random.Generator | None) -> list[dict]:
    if most is None or len(questions) <= most:
        return questions
    if rng is None:
        return questions[:most]
    return [questions[i] for i in np.sort(rng.permutation(len(questions))[:most])]


def _talk_sample(
    group: list[dict], ids: np.ndarray, token_grid: TokenGrid, first_frame_only: bool, packed: bool
) -> dict:
    references = [n for question in group for n in question["region_objects"]]
    objects = sorted(set(references))
    sample = {"messages": [chat(q) for q in group] if packed else chat(group[0]), "questions": group}
    if objects:
        sample["region_masks"] = _pointed_masks(ids, objects, token_grid, first_frame_only)
        sample["region_references"] = np.array([objects.index(n) for n in references], np.int64)
        sample["object_ids"] = np.array(objects)
    return sample
