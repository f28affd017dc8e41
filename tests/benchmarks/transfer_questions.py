"""Questions about real frames, made from depth and poses in the words and rules of the rooms.

A thing is a connected part of the first frame's depth that no edge crosses, above the floor, of at most 15 % of the
picture. Its place is the middle of the box around what is visible. Heights are asked of those things alone that the
picture's border does not cut.
"""

from itertools import combinations

import numpy as np
import torch
from scipy import ndimage

from processing import PosedVideo
from processing.rooms.questions.asking import GROUND, SceneFacts, ask_questions
from processing.rooms.questions.wording import TEMPLATES
from processing.rooms.scene.palette import pick
from trainer.geometry import unproject_depth

__all__ = ["KINDS", "make_row"]

KINDS = ("direction", "distance", "size")
GAP, PAIRS = 0.3, 4  # metres between two things of which the closer one is asked for; such pairs a frame
EDGE = 0.03  # second difference of inverse depth, beside inverse depth; planes have none
LEAST, MOST = 0.01, 0.15  # of the picture that a thing fills
LOW = 0.06  # metres; what is lower is no thing
NEAR_FLOOR = 0.05  # metres above the floor that is left out
STRIDE = 4  # pixels of the frame between those looked at


def _label(depth: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, int]:
    """Return parts (h, w) of a depth map, 0 = none, and their number."""
    known = (depth > 0) & (height > NEAR_FLOOR)
    inverse = np.divide(1, depth, out=np.zeros_like(depth), where=depth > 0)
    bends = [np.abs(ndimage.correlate1d(inverse, [1, -2, 1], axis, mode="nearest")) for axis in (0, 1)]
    return ndimage.label(known & (np.maximum(*bends) < EDGE * inverse))


def find_things(video: PosedVideo) -> tuple[list[dict], np.ndarray]:
    """Return the things that the first frame shows, and the id of each looked-at pixel (h, w), 0 = none.

    Args:
        video: Video with geometry whose z axis points up from the floor.
    """
    tensors = (torch.from_numpy(part[:1]) for part in (video.depth, video.intrinsics, video.camera_to_world))
    points = unproject_depth(*tensors).numpy()[0, ::STRIDE, ::STRIDE]
    depth = video.depth[0, ::STRIDE, ::STRIDE]
    parts, count = _label(depth, np.nan_to_num(points[..., 2], nan=-1.0))
    ids, things = np.zeros(depth.shape, np.uint8), []
    for part in range(1, count + 1):
        own = parts == part
        is_cut = own[0].any() or own[-1].any() or own[:, 0].any() or own[:, -1].any()
        if not LEAST <= own.mean() <= MOST:
            continue
        low, high = np.percentile(points[own], (1, 99), axis=0)
        stands = low[2] < 3 * NEAR_FLOOR
        low[2] = 0 if stands else low[2]
        if high[2] - low[2] < LOW or len(things) == 255:
            continue
        number = len(things) + 1
        ids[own] = number
        things.append(
            {
                "id": number,
                "category": "thing",
                "colour": "white",
                "feature": "",
                "place": "floor" if stands else "wall",
                "support_id": 0,
                "center": ((low + high) / 2).tolist(),
                "size": (high - low).tolist(),
                "is_cut": bool(is_cut),
            }
        )
    return things, ids


def _ask_closer(facts: SceneFacts, rng: np.random.Generator) -> list[dict]:
    """Ask which of two things is closer.

    Rooms ask about as many pairs whose nearer one is higher in the picture. A real walk has few of these, so all pairs
    count, and the height in the picture is a strong constant.
    """
    pairs = []
    for one, two in combinations(facts.shown, 2):
        near, far = sorted((one, two), key=lambda thing: facts.distance[thing["id"]])
        if facts.distance[far["id"]] - facts.distance[near["id"]] >= GAP:
            pairs.append((near, far))
    questions = []
    for index in rng.permutation(len(pairs))[:PAIRS]:
        is_first = bool(rng.integers(2))
        things = pairs[index] if is_first else pairs[index][::-1]
        text = pick(rng, TEMPLATES["closer"]).format(a=GROUND, b=GROUND)
        numbers = [thing["id"] for thing in things]
        questions.append(
            {
                "type": "closer",
                "reference": "region",
                "question": text,
                "answer": "the first" if is_first else "the second",
                "region_objects": numbers,
                "hint_objects": numbers,
                "target_objects": [],
                "value": [],
            }
        )
    return questions


def make_row(video: PosedVideo, rng: np.random.Generator) -> dict:
    """Return a walk's video as a row of `load_rooms`, with questions that point at things.

    Args:
        video: Video with geometry, depth of the frames' size, whose z axis points up from the floor.
        rng: Generator of the questions' choice and words.
    """
    things, small = find_things(video)
    height, width = video.frames.shape[1:3]
    first = small.repeat(STRIDE, 0).repeat(STRIDE, 1)[:height, :width]
    ids = np.zeros((len(video), height, width), np.uint8)
    ids[0] = first
    facts = SceneFacts(things, ids, video.camera_to_world.astype(float), "thing")
    questions = [q for q in ask_questions(facts, rng) if q["reference"] == "region" and q["type"] in KINDS]
    cut = {thing["id"] for thing in things if thing["is_cut"]}
    questions = [q for q in questions if q["type"] != "size" or not cut.intersection(q["hint_objects"])]
    questions += _ask_closer(facts, rng)
    return {
        "scene_id": video.scene_id,
        "frames": list(video.frames),
        "depth": list(video.depth),
        "intrinsics": video.intrinsics,
        "camera_to_world": video.camera_to_world,
        "instance_ids": list(ids),
        "objects": things,
        "questions": questions,
    }
