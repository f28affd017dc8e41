"""The one rule for "do the parts of a sample belong together".

`geometry_rules` judges each part alone, `pose_rules` depth against poses. Boxes belong to a scene if measured points
lie in some of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from processing.geometry_rules import as_float32, find_bad_poses, rescaled_intrinsics
from processing.pose_rules import CONVENTION_NAMES, Disagreement, convert_poses, find_disagreement

__all__ = ["check_sample", "find_strange_boxes"]

_SIDE = 32  # Pixels of a frame's side that are looked at.
_MARGIN = 0.1  # Metres around a box; scans and boxes are that far off.
_MIN_BOXES, _MIN_FRAMES = 3, 4
_FITS = 0.5  # Share of the boxes that another reading has to hold points in.


def check_sample(
    depth: Any,
    intrinsics: Any,
    camera_to_world: Any,
    frame_size: Sequence[int],
    boxes: Any = None,
    *,
    is_thorough: bool = False,
) -> None:
    """Raise ValueError where depth, cameras, poses and boxes do not belong together.

    Arguments are those of `pose_rules.find_disagreement` and `find_strange_boxes`; boxes may be None.
    """
    found = find_disagreement(depth, intrinsics, camera_to_world, frame_size, is_thorough=is_thorough)
    if found is None and boxes is not None:
        found = find_strange_boxes(boxes, depth, intrinsics, camera_to_world, frame_size, is_thorough=is_thorough)
    if found is not None:
        raise ValueError(found.text)


def find_strange_boxes(
    boxes: Any,
    depth: Any,
    intrinsics: Any,
    camera_to_world: Any,
    frame_size: Sequence[int],
    *,
    is_thorough: bool = False,
) -> Disagreement | None:
    """Return that no measured point lies in any box; None if some do.

    None comes back too where it cannot be told.

    Every part must have passed its check in `geometry_rules`.

    Args:
        boxes: Axis-aligned boxes (cx, cy, cz, dx, dy, dz), full sizes, metres.
        depth: z-depth in metres, 0 = no measurement.
        intrinsics: Cameras of the frames' pixels.
        camera_to_world: Poses, OpenCV axes, metres.
        frame_size: Height and width of the frames.
        is_thorough: Whether to report boxes that no other reading explains. The frames should then show the whole
            scene: a few frames may well show none of its objects.

    Shape:
        boxes:           (N, 6).
        depth:           (V, h, w).
        intrinsics:      (V, 3, 3), pixels.
        camera_to_world: (V, 4, 4).
    """
    array, maps, poses = as_float32(boxes), as_float32(depth), as_float32(camera_to_world).astype(np.float64)
    if len(array) < _MIN_BOXES or len(find_bad_poses(poses)):
        return None
    points = _points(maps, rescaled_intrinsics(as_float32(intrinsics), frame_size, maps.shape[1:]))
    if not any(len(frame) for frame in points):
        return None
    world = _moved(points, poses)
    if _share_hit(array, world, _MARGIN) > 0:
        return None
    for name, words in CONVENTION_NAMES.items():
        if _share_hit(array, _moved(points, convert_poses(poses, name)), 0.0) >= _FITS:
            fix = f'`PosedVideo.from_folder(..., convention="{name}")`'
            text = f"No measured point lies in any of {len(array)} `boxes`; many do if the poses are {words}: {fix}."
            return Disagreement("camera_to_world", text)
    if not is_thorough or len(maps) < _MIN_FRAMES:
        return None
    return Disagreement(
        "boxes",
        f"No measured point of {len(maps)} frames lies in any of {len(array)} `boxes`. Expected (cx, cy, cz, dx, dy, "
        "dz) in metres in the world frame of `camera_to_world`. Are they of another scene or unit, of the frame "
        "before an alignment, with y up, or rows of corners?",
    )


def _points(maps: np.ndarray, cameras: np.ndarray) -> list[np.ndarray]:
    """Return measured points (n, 3) of each frame in its camera frame, from a grid of pixels."""
    rows, columns = (np.unique(np.linspace(0, size - 1, _SIDE).astype(int)) for size in maps.shape[1:])
    v, u = np.meshgrid(rows, columns, indexing="ij")
    found = []
    for depth, camera in zip(maps[:, rows[:, None], columns], cameras, strict=True):
        x, y = (u - camera[0, 2]) / camera[0, 0] * depth, (v - camera[1, 2]) / camera[1, 1] * depth
        found.append(np.stack([x, y, depth], -1)[depth > 0])
    return found


def _moved(points: list[np.ndarray], poses: np.ndarray) -> np.ndarray:
    return np.concatenate([frame @ pose[:3, :3].T + pose[:3, 3] for frame, pose in zip(points, poses, strict=True)])


def _share_hit(boxes: np.ndarray, points: np.ndarray, margin: float) -> float:
    """Return the share of the boxes that hold a point."""
    hits = [(np.abs(points - box[:3]) <= box[3:] / 2 + margin).all(1).any() for box in boxes]
    return float(np.mean(hits))
