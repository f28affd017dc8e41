"""From a room to the samples a data collator takes."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["cell_masks", "room_samples"]

_MIN_CELL_SHARE = 0.125  # of a cell's pixels


def _resized(ids: np.ndarray, size: int) -> np.ndarray:
    """Nearest-neighbour ids on a size x size grid."""
    if ids.shape[1:] == (size, size):
        return ids
    return np.stack(
        [np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.NEAREST)) for frame in ids]
    )


def cell_masks(instance_ids: np.ndarray, object_ids: list[int], token_grid) -> np.ndarray:
    """Token cells that show each object.

    A cell counts where at least 12.5 % of its pixels carry the object's id; if no cell of the video reaches that, the
    cell with the most pixels does. Cells share out the pixels that patches cover: the first
    patch_size * (image_size // patch_size) rows and columns of the vision input.

    Shape:
        instance_ids: (V, h, w) uint8.
        output: (N, V, rows, cols) bool; all False for an object that no pixel shows.
    """
    covered = token_grid.image_size // token_grid.patch_size * token_grid.patch_size
    ids = _resized(instance_ids, token_grid.image_size)[:, :covered, :covered]
    rows, cols = token_grid.rows, token_grid.cols
    row_of, column_of = np.arange(covered) * rows // covered, np.arange(covered) * cols // covered
    cell = row_of[:, None] * cols + column_of
    area = np.bincount(cell.ravel(), minlength=rows * cols)
    number = max(object_ids, default=0) + 1
    views = np.arange(len(ids))[:, None, None]
    keys = (views * rows * cols + cell) * 256 + ids
    counts = np.bincount(keys.ravel(), minlength=len(ids) * rows * cols * 256).reshape(len(ids), -1, 256)
    counts = counts[:, :, : max(number, 1)]
    masks = np.zeros((len(object_ids), len(ids), rows * cols), bool)
    for k, n in enumerate(object_ids):
        share = counts[:, :, n] / area
        masks[k] = share >= _MIN_CELL_SHARE
        if not masks[k].any() and share.any():
            masks[k].ravel()[share.argmax()] = True
    return masks.reshape(len(object_ids), len(ids), rows, cols)


def _chat(question: dict) -> list[dict]:
    return [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question["question"]}]},
        {"role": "assistant", "content": [{"type": "text", "text": question["answer"]}]},
    ]


def _pointed_masks(ids: np.ndarray, objects: list[int], token_grid, first_frame_only: bool) -> np.ndarray:
    if not first_frame_only:
        return cell_masks(ids, objects, token_grid)
    masks = np.zeros((len(objects), len(ids), token_grid.rows, token_grid.cols), bool)
    masks[:, :1] = cell_masks(ids[:1], objects, token_grid)
    return masks


def room_samples(
    row: dict,
    token_grid,
    *,
    packed: bool = True,
    reference: str | None = None,
    types=None,
    max_questions: int | None = None,
    rng: np.random.Generator | None = None,
    first_frame_only: bool = True,
) -> list[dict]:
    """Training samples of one room.

    Args:
        row: a row of `load_rooms`.
        token_grid: has `image_size`, `patch_size`, `rows`, `cols`.
        packed: one sample for all questions that are not grounding, over one visual prefix; else one each.
        reference: keep questions that point ("region") or name ("word"); None keeps both. Grounding is "word".
        types: keep these question types; None keeps all.
        max_questions: at most this many questions that are not grounding, drawn with `rng`; also at most as many
            grounding questions.
        rng: source of that draw; without it the first ones are kept.
        first_frame_only: regions that questions point at show the object in the first frame alone, the frame that
            distances and sides refer to. Grounding candidates always use all frames.

    Returns:
        Dicts with messages, frames (V, h, w, 3) uint8, depth (V, h, w) float32 metres, intrinsics (V, 3, 3),
        camera_to_world (V, 4, 4), and where needed region_masks (N, V, rows, cols) bool, region_references (R,),
        region_targets (N + 1,) bool with "no such object" last; `questions` lists the question dicts in the order of
        the chats, `object_ids` (N,) the objects behind region_masks.

    Raises:
        ValueError: an unknown reference.
    """
    if reference not in (None, "region", "word"):
        raise ValueError(f'reference must be "region", "word" or None, got {reference!r}')
    chosen = [
        q for q in row["questions"] if reference in (None, q["reference"]) and (types is None or q["type"] in types)
    ]
    talk = _draw([q for q in chosen if q["type"] != "grounding"], max_questions, rng)
    ground = _draw([q for q in chosen if q["type"] == "grounding"], max_questions, rng)
    if not talk and not ground:
        return []
    ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
    shared = {
        "frames": np.stack([np.asarray(image) for image in row["frames"]]),
        "depth": np.stack([np.asarray(image, dtype=np.float32) for image in row["depth"]]),
        "intrinsics": np.asarray(row["intrinsics"], np.float32),
        "camera_to_world": np.asarray(row["camera_to_world"], np.float32),
    }
    samples = []
    for group in [talk] if packed and talk else [[q] for q in talk]:
        samples.append({**shared, **_talk_sample(group, ids, token_grid, first_frame_only, packed)})
    if ground:
        objects = [o["id"] for o in row["objects"]]
        masks = cell_masks(ids, objects, token_grid)
        seen = masks.any(axis=(1, 2, 3))
        objects = np.array(objects)[seen]
        for question in ground:
            targets = np.isin(objects, question["target_objects"])
            extra = {
                "messages": _chat(question),
                "region_masks": masks[seen],
                "region_targets": np.append(targets, not targets.any()),
                "questions": [question],
                "object_ids": objects,
            }
            samples.append({**shared, **extra})
    return samples


def _draw(questions: list[dict], most: int | None, rng: np.random.Generator | None) -> list[dict]:
    if most is None or len(questions) <= most:
        return questions
    if rng is None:
        return questions[:most]
    return [questions[i] for i in np.sort(rng.permutation(len(questions))[:most])]


def _talk_sample(group: list[dict], ids: np.ndarray, token_grid, first_frame_only: bool, packed: bool) -> dict:
    references = [n for question in group for n in question["region_objects"]]
    objects = sorted(set(references))
    sample = {"messages": [_chat(q) for q in group] if packed else _chat(group[0]), "questions": group}
    if objects:
        sample["region_masks"] = _pointed_masks(ids, objects, token_grid, first_frame_only)
        sample["region_references"] = np.array([objects.index(n) for n in references], np.int64)
        sample["object_ids"] = np.array(objects)
    return sample
