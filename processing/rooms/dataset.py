"""`load_rooms`: procedural rooms as a `datasets.Dataset`."""

import hashlib
import logging
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import datasets
from datasets import Features, Image, List, Value

from processing.argument_rules import as_path, check_choice, check_texts, check_whole
from processing.rooms.furnished.catalogue import FURNITURE_FILE, read_catalogue
from processing.rooms.generate import SPLITS, make_room, recipe_digest
from processing.rooms.scene.styles import FURNISHED, PLAIN, STYLES
from processing.rooms.sizes import MAX_SCENES, check_room_sizes
from processing.rooms.variations import VARIATIONS

__all__ = ["FEATURES", "load_rooms"]

logger = logging.getLogger(__name__)


_NUMBERS = List(Value("float32"))
_IDS = List(Value("int32"))

FEATURES = Features(
    {
        "scene_id": Value("string"),
        "frames": List(Image()),
        "depth": List(Image()),
        "intrinsics": List(List(_NUMBERS)),
        "camera_to_world": List(List(_NUMBERS)),
        "instance_ids": List(Image()),
        "objects": List(
            {
                "id": Value("int32"),
                "category": Value("string"),
                "colour": Value("string"),
                "box": _NUMBERS,
                "center": _NUMBERS,
                "size": _NUMBERS,
                "feature": Value("string"),
                "place": Value("string"),
                "support_id": Value("int32"),
            }
        ),
        "questions": List(
            {
                "type": Value("string"),
                "reference": Value("string"),
                "question": Value("string"),
                "answer": Value("string"),
                "region_objects": _IDS,
                "target_objects": _IDS,
                "value": _NUMBERS,
                "hint_objects": _IDS,
            }
        ),
    }
)


def _rows(
    indices: list[int],
    split: str,
    seed: int,
    image_size: int,
    num_frames: int,
    style: str,
    variations: tuple[str, ...] = (),
    furniture: str | None = None,
) -> Iterator[dict]:
    pieces = Path(furniture) if furniture else FURNITURE_FILE
    for index in indices:
        yield make_room(split, seed, index, image_size, num_frames, style, variations, pieces)[1]


def _check_cache(cache_dir: str | Path) -> Path:
    """Return the folder of the cache, which may not exist yet."""
    folder = as_path(cache_dir, "cache_dir")
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"`cache_dir` must be a folder, got {folder}: {there} is none. Choose another one.")
    return folder


def load_rooms(
    split: str,
    num_scenes: int,
    *,
    start: int = 0,
    style: str = PLAIN.name,
    variations: Collection[str] = (),
    furniture: str | Path | None = None,
    seed: int = 0,
    image_size: int = 126,
    num_frames: int = 8,
    num_proc: int | None = None,
    cache_dir: str | Path | None = None,
) -> datasets.Dataset:
    """Load furnished rooms with posed RGB-D video and questions, from the cache if rendered before.

    Every room follows from (style, seed, split, its index) and the size of the video: more scenes extend a set, no
    room is in two splits.
    World frame: metres, z up, floor at z = 0.

    Args:
        split: Split of the rooms, "train", "validation" or "test".
        num_scenes: Number of rooms.
        start: Index of the first room; the rooms are the rows from `start` on of a longer load.
        style: Look of the rooms, "plain", "loft" or "furnished". Loft rooms have other shades of the same colour
            names, other materials and furniture, and are larger. Furnished rooms have meshes of real furniture, true
            in size; a colour is "" where a piece has none that covers most of it.
        variations: Changes of cameras, pictures and looks, see below; none by default.
        furniture: File of meshes for furnished rooms, made by `processing.rooms.furnished.convert`. Default: the 60
            pieces of the package.
        seed: Seed of the family of rooms.
        image_size: Height and width of frames, depth and ids in pixels.
        num_frames: Frames per room (V).
        num_proc: Processes that render. Default: one per core, at most one per 8 rooms.
        cache_dir: Folder where `datasets` keeps the rooms. Default: its own cache.

    Returns:
        Dataset with one row per room:
            scene_id: str; names split, seed and index, and the style unless it is plain.
            frames: V RGB images. depth: V float32 images (PIL mode "F"), exact z-depth in metres.
            instance_ids: V 8-bit images, 0 = walls, floor and what is fixed to them.
            intrinsics (V, 3, 3); camera_to_world (V, 4, 4), OpenCV axes, metres; lists of floats.
            objects: id, category, colour, box (cx, cy, cz, dx, dy, dz, axis aligned, world), center, size and feature.
                Also place ("floor", "top", "wall", "ceiling") and support_id (the object below, 0 = none).
            questions: type, reference ("region" or "word"), question and answer. region_objects are the ids that the
                `<ground>` tokens of the question stand for, in order. target_objects are the ids that a grounding
                answer must find, value the numbers behind a metric answer. hint_objects are the ids that the question
                is about, the one asked about first.

    Variations make training rooms more like what a hand-held camera sees. The place of a room's furniture stays, but a
    walk that they forbid is drawn again.

    - "pitch", "height", "roll", "field_of_view": cameras of a real walk, which looks down.
    - "blur", "exposure", "noise", "jpeg": faults of its pictures. "holes": pixels without depth, 0.
    - "texture": any surfaces and colours of what has no colour name, any pattern on furniture. "light": brightness and
      colour of lamp, daylight and bounced light.

    Distances are from the first camera to the centre of the object's box. Positions are that centre in the first
    camera's frame: x right, y down, z forward, metres.

    Raises:
        ValueError: If split, style or a variation is unknown, a count is below 1, or `start` is negative.
            If frames are below 24 px, a number is too large, or `cache_dir` cannot be a folder. If `furniture` is no
            file of meshes, or given with another style.
        TypeError: If a number is no integer, or another argument of another kind.
    """
    check_choice(split, SPLITS, "split")
    check_choice(style, STYLES, "style")
    chosen = check_texts(variations, "variations", VARIATIONS)
    num_scenes, seed, image_size, num_frames = check_room_sizes(num_scenes, seed, image_size, num_frames)
    start = check_whole(start, "start", 0, MAX_SCENES)
    if num_proc is None:
        num_proc = min(os.cpu_count() or 1, (num_scenes + 7) // 8)
    num_proc = min(check_whole(num_proc, "num_proc", 1), num_scenes)
    if cache_dir is not None:
        cache_dir = str(_check_cache(cache_dir))
    arguments = {"split": split, "seed": seed, "image_size": image_size, "num_frames": num_frames, "style": style}
    if chosen:  # rooms without any keep the key of their cached files
        arguments["variations"] = tuple(name for name in VARIATIONS if name in chosen)
    told = dict(arguments)
    if furniture is not None:
        if style != FURNISHED.name:
            raise ValueError(f"`furniture` must be None for the style {style!r}. Choose the style {FURNISHED.name!r}.")
        path = as_path(furniture, "furniture").absolute()
        read_catalogue(path)  # what cannot be read is told before processes start
        arguments["furniture"], told["furniture"] = str(path), hashlib.sha256(path.read_bytes()).hexdigest()
    rooms = (start, num_scenes) if start else num_scenes  # rooms from 0 on keep the key of their cached files
    key = hashlib.sha256(repr((recipe_digest(), rooms, sorted(told.items()))).encode()).hexdigest()[:16]
    return datasets.Dataset.from_generator(
        _rows,
        features=FEATURES,
        cache_dir=cache_dir,
        gen_kwargs={"indices": list(range(start, start + num_scenes)), **arguments},
        num_proc=num_proc if num_proc > 1 else None,
        split=datasets.NamedSplit(split),
        fingerprint=f"rooms{key}",
    )
