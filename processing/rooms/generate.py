"""Rows of the rooms dataset, each from (split, seed, index) and nothing else."""

import hashlib
import io
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

from processing.rooms.furnished.catalogue import FURNITURE_FILE, read_catalogue
from processing.rooms.furnished.pieces import furnish
from processing.rooms.furnished.rendering import cast_room, render_room, room_table
from processing.rooms.questions.asking import CLEAR_SHARE, MIN_SHARE, SceneFacts, ask_questions
from processing.rooms.render.images import pinhole_view
from processing.rooms.scene.camera import draw_path, path_is_free, path_shows
from processing.rooms.scene.layout import COUNTABLE, Room, build_room
from processing.rooms.scene.palette import pick
from processing.rooms.scene.primitives import PrimitiveTable
from processing.rooms.scene.styles import FURNISHED, PLAIN, STYLES
from processing.rooms.variations import RoomVariations

__all__ = ["MIN_IMAGE_SIZE", "SPLITS", "make_room", "recipe_digest", "room_rng"]

SPLITS = ("train", "validation", "test")
MIN_IMAGE_SIZE = 24  # pixels; in smaller frames hardly an object fills its least share
_MAX_COVER = 0.5  # of a frame by one object
_MIN_SHOWN = 4  # objects shown well in frame 0
_MIN_OVERLAP = 0.5  # of a frame's points that fall into the next frame
_PATHS_PER_ROOM = 20
# Code that a row depends on.
_MAKERS = (
    "generate.py",
    "variations.py",
    "scene/*.py",
    "render/*.py",
    "furnished/*.py",
    "furnished/*.safetensors",
    "questions/asking.py",
    "questions/wording.py",
)
_MAX_ATTEMPTS = 1000


def recipe_digest() -> str:
    """Return the digest of the code that makes rooms, a part of every cache key."""
    digest = hashlib.sha256()
    for pattern in _MAKERS:
        for file in sorted(Path(__file__).parent.glob(pattern)):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _family(split: str, style: str) -> str:
    return split if style == PLAIN.name else f"{style}_{split}"


def room_rng(split: str, seed: int, index: int, attempt: int = 0, style: str = PLAIN.name) -> np.random.Generator:
    """Return the generator of one room.

    Its seed is a hash, so that no seed of one split or style meets a seed of another.
    """
    digest = hashlib.sha256(f"{_family(split, style)}/{seed}/{index}/{attempt}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def _intrinsics(rng: np.random.Generator, size: int) -> np.ndarray:
    # One kind of camera, as in ScanNet: metres cannot be read from pixels if the focal length is anybody's guess.
    focal = size / 2 / np.tan(np.deg2rad(rng.uniform(67, 69)) / 2)
    return np.array([[focal, 0, (size - 1) / 2], [0, focal, (size - 1) / 2], [0, 0, 1]])


def _next_frame_overlap(depth: np.ndarray, poses: np.ndarray, intrinsics: np.ndarray) -> float:
    """Return the smallest share of a frame's points inside the next frame, occlusion aside."""
    size, worst = depth.shape[-1], 1.0
    at = np.arange(0, size, max(1, size // 16))
    y, x = (g.ravel() for g in np.meshgrid(at, at, indexing="ij"))
    rays = np.linalg.inv(intrinsics) @ np.stack([x, y, np.ones_like(x)])
    for i in range(len(poses) - 1):
        world = poses[i, :3, :3] @ (rays * depth[i, y, x]) + poses[i, :3, 3:]
        local = poses[i + 1, :3, :3].T @ (world - poses[i + 1, :3, 3:])
        u, v, z = intrinsics @ local
        inside = (z > 0) & (np.abs(u / z - size / 2) < size / 2) & (np.abs(v / z - size / 2) < size / 2)
        worst = min(worst, float(inside.mean()))
    return worst


def _cast_good_path(table: PrimitiveTable, poses: np.ndarray, intrinsics: np.ndarray, size: int):
    """Cast a path; None if a frame shows too little or too much."""
    views, depths, winners = [], [], []
    for number, pose in enumerate(poses):
        view = pinhole_view(pose, intrinsics, size)
        depth, winner = cast_room(view, table)
        shares = np.bincount(table.object_id[winner].ravel(), minlength=2)[1:] / winner.size
        if shares.max() > _MAX_COVER or (number == 0 and (shares >= MIN_SHARE).sum() < _MIN_SHOWN):
            return None
        views.append(view)
        depths.append(depth)
        winners.append(winner)
    depth = np.stack(depths)
    if _next_frame_overlap(depth, poses, intrinsics) < _MIN_OVERLAP:
        return None
    return views, depth, np.stack(winners)


def _shows_featured(room: Room, ids: np.ndarray) -> bool:
    """Return whether every piece of the featured kind is clear in some frame."""
    return all((ids == thing.id).mean(axis=(1, 2)).max() >= CLEAR_SHARE for thing in room.featured_objects)


def _object_rows(room: Room) -> list[dict]:
    return [
        {
            "id": thing.id,
            "category": thing.category,
            "colour": thing.colour,
            "box": [float(x) for x in (*thing.center, *thing.size)],
            "center": [float(x) for x in thing.center],
            "size": [float(x) for x in thing.size],
            "feature": thing.feature,
            "place": thing.place,
            "support_id": thing.support_id,
        }
        for thing in room.objects
    ]


def _encode(image: np.ndarray) -> dict:
    """Encode an image: PNG for integers, losslessly compressed TIFF for float32."""
    buffer = io.BytesIO()
    if image.dtype == np.float32:
        # 317 is the TIFF predictor tag, 3 its floating-point variant. LZW takes a third of the time of deflate, for
        # 1.3 times the bytes.
        Image.fromarray(image).save(buffer, "TIFF", compression="tiff_lzw", tiffinfo={317: 3})
    else:
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}


def make_room(
    split: str,
    seed: int,
    index: int,
    image_size: int,
    num_frames: int,
    style: str = PLAIN.name,
    variations: Collection[str] = (),
    furniture: Path = FURNITURE_FILE,
) -> tuple[Room, dict]:
    """Return the room and its dataset row.

    What the room shall be counted for is drawn once; room and walk are drawn again until that many are in view.
    """
    plan, scene_id = room_rng(split, seed, index, style=style), f"{_family(split, style)}_{seed}_{index:06d}"
    varied = RoomVariations(variations, scene_id)
    featured, number = pick(plan, varied.choose_countable(COUNTABLE)), int(plan.integers(5))
    furnishing = furnish(read_catalogue(furniture)) if style == FURNISHED.name else None
    for attempt in range(1, _MAX_ATTEMPTS):
        rng = room_rng(split, seed, index, attempt, style)
        room, intrinsics = build_room(rng, featured, number, STYLES[style], furnishing), _intrinsics(rng, image_size)
        if room is None:
            continue
        room, intrinsics = varied.vary_room(room), varied.vary_intrinsics(intrinsics)
        table = None
        for _ in range(_PATHS_PER_ROOM):
            poses = draw_path(rng, room, num_frames)
            if poses is None:
                continue
            poses = varied.vary_path(poses)
            is_free = "height" not in varied.names or path_is_free(room, poses[:, :3, 3])
            if not is_free or not path_shows(poses, intrinsics, room.featured_centers, image_size):
                continue
            table = table or room_table(room)
            hits = _cast_good_path(table, poses, intrinsics, image_size)
            if hits is not None and _shows_featured(room, table.object_id[hits[2]]):
                break
        else:
            continue
        rendering = render_room(room, table, *hits)
        objects = _object_rows(room)
        questions = ask_questions(SceneFacts(objects, rendering.instance_ids, poses, room.featured), rng)
        row = {
            "scene_id": scene_id,
            "frames": [_encode(frame) for frame in varied.vary_frames(rendering.frames)],
            "depth": [_encode(frame) for frame in varied.vary_depth(rendering.depth)],
            "intrinsics": np.repeat(intrinsics[None], num_frames, axis=0).astype(np.float32),
            "camera_to_world": poses.astype(np.float32),
            "instance_ids": [_encode(frame) for frame in rendering.instance_ids],
            "objects": objects,
            "questions": questions,
        }
        return room, row
    raise RuntimeError(
        f"no walk shows room {index} of split {split!r}, seed {seed}, style {style!r}; this is a bug, please report it"
    )
