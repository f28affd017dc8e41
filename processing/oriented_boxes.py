"""Boxes that stand upright and are turned about gravity: overlap, and the way between camera and world."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from processing.argument_rules import check_number, check_whole
from processing.geometry_rules import as_float32, check_poses

__all__ = [
    "CameraBox",
    "box_in_camera",
    "box_in_world",
    "camera_corners",
    "check_world_boxes",
    "enclosing_boxes",
    "oriented_iou",
]

_MIN_LEVEL = 1e-3  # share of the camera's right direction on the ground, below which a picture stands on its side
_LEVEL_POSE = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # of a camera that stands level
_CORNERS = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])  # counter-clockwise


@dataclass(frozen=True)
class CameraBox:
    """A box as one frame shows it.

    The centre is in the camera's frame: OpenCV axes, x right, y down, z forward. The box itself stands upright, so its
    size is along the *levelled* axes: the camera's frame after a turn that makes y point along gravity and x
    horizontal.

    Args:
        frame: Index of the frame.
        center: Centre (x, y, z), metres.
        size: Full width, height and depth (along x, y and z of the levelled axes, turned by the yaw), metres.
        yaw: Turn about gravity, radians, by the right hand about y: clockwise seen from above.

    Raises:
        TypeError: If `frame` is no integer, or a measure is no number.
        ValueError: If `frame` is negative, a measure is not finite, or a size is not positive.
    """

    frame: int
    center: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float

    def __post_init__(self):
        object.__setattr__(self, "frame", check_whole(self.frame, "frame"))
        for name in ("center", "size"):
            object.__setattr__(self, name, _read_vector(getattr(self, name), name))
        object.__setattr__(self, "yaw", check_number(self.yaw, "yaw", "radians"))
        if min(self.size) <= 0:
            raise ValueError(f"`size` must be positive, width, height and depth in metres, got {self.size}.")


def _read_vector(value: Any, name: str) -> tuple[float, float, float]:
    """Return three finite numbers of an argument."""
    if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != 3:
        raise TypeError(f"`{name}` must be three numbers in metres, got {value!r:.100}.")
    return tuple(check_number(entry, f"{name}[{place}]", "metres") for place, entry in enumerate(value))


def check_world_boxes(boxes: Any, name: str = "boxes") -> np.ndarray:
    """Return boxes (N, 7) as float64; N may be 0.

    Raises:
        ValueError: Unless each is (cx, cy, cz, dx, dy, dz, yaw) of finite numbers with sizes of at least 0.
    """
    wanted = f"`{name}` must be finite boxes (N, 7), (cx, cy, cz, dx, dy, dz, yaw) in metres and radians"
    try:
        array = np.asarray(boxes)
        array = array.astype(np.float64) if array.size == 0 or array.dtype.kind in "iuf" else None
    except (TypeError, ValueError, RuntimeError):  # ragged lists; a tensor on another device
        array = None
    if array is None:
        raise ValueError(f"{wanted}, got {boxes!r:.100}.")
    array = array.reshape(-1, 7) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 7 or not np.isfinite(array).all():
        raise ValueError(f"{wanted}, got shape {array.shape} with {int((~np.isfinite(array)).sum())} non-finite.")
    if (array[:, 3:6] < 0).any():
        raise ValueError(f"`{name}`: a box has a negative size. Expected centre and full sizes, not two corners.")
    return array


def _level(camera_to_world: Any) -> tuple[np.ndarray, float]:
    """Return a pose (4, 4) and the heading: the world angle of the camera's right.

    The heading is read off the right direction, not off the viewing direction, so that a camera that looks straight
    down has one too.
    """
    as_float32(camera_to_world, "camera_to_world")  # refuses what is no array of numbers
    pose = np.asarray(camera_to_world)
    if pose.shape != (4, 4):
        raise ValueError(f"`camera_to_world` must be the pose (4, 4) of the box's frame, got shape {pose.shape}.")
    check_poses(pose[None], name="camera_to_world")
    right = pose[:2, 0].astype(np.float64)
    if np.linalg.norm(right) < _MIN_LEVEL:
        raise ValueError(
            "`camera_to_world` is of a picture that stands on its side: its right is along gravity, so that no yaw "
            "can be told. Turn the frame upright."
        )
    return pose.astype(np.float64), math.atan2(right[1], right[0])


def box_in_world(box: CameraBox, camera_to_world: Any) -> np.ndarray:
    """Bring a box from a frame's camera to the world.

    Args:
        box: Box in the camera's frame.
        camera_to_world: Pose of that frame, OpenCV axes, metres, world z up.

    Returns:
        Box (7,): (cx, cy, cz, dx, dy, dz, yaw), world metres; dx along the box's own x axis, yaw counter-clockwise
        about z, radians.

    Raises:
        ValueError: If the pose is no finite rigid motion (4, 4), or of a picture that stands on its side.
    """
    pose, heading = _level(camera_to_world)
    center = pose[:3, :3] @ np.array(box.center) + pose[:3, 3]
    width, height, depth = box.size
    return np.array([*center, width, depth, height, heading - box.yaw])


def box_in_camera(box: Any, camera_to_world: Any, frame: int = 0) -> CameraBox:
    """Bring a box from the world to a frame's camera; the inverse of `box_in_world`.

    A box is the same after half a turn, and after a quarter of one with width and depth exchanged. The yaw that is
    returned is in [-pi / 4, pi / 4): width is roughly across the picture, depth along the view.

    Args:
        box: Box (7,), see `box_in_world`, or (6,) without a yaw: axis aligned.
        camera_to_world: Pose of the frame, OpenCV axes, metres, world z up.
        frame: Index of the frame.

    Raises:
        TypeError: See `CameraBox`.
        ValueError: If the box is none, or the pose; see `box_in_world`.
    """
    values = np.asarray(box)
    values = np.append(values, 0.0) if values.shape == (6,) else values
    (values,) = check_world_boxes(values[None], "box")
    pose, heading = _level(camera_to_world)
    center = pose[:3, :3].T @ (values[:3] - pose[:3, 3])
    yaw, (width, depth, height) = heading - values[6], values[3:6]
    quarters = math.floor(yaw / (math.pi / 2) + 0.5)
    if quarters % 2:
        width, depth = depth, width
    return CameraBox(frame, tuple(center), (width, height, depth), yaw - quarters * math.pi / 2)


def camera_corners(box: CameraBox, camera_to_world: Any = None) -> np.ndarray:
    """Return the corners of a box in its frame's camera.

    Args:
        box: Box in the camera's frame.
        camera_to_world: Pose of that frame, which tells where gravity points. None where it is unknown: the box is
            then drawn as if the camera stood level. Centre and size are right, the tilt is not.

    Returns:
        Corners (8, 3), metres, OpenCV axes.

    Raises:
        ValueError: See `box_in_world`.

    Example:
        >>> camera_corners(CameraBox(0, (0, 0, 2), (1, 1, 1), 0.0)).min(0).tolist()
        [-0.5, -0.5, 1.5]
    """
    pose, _ = _level(_LEVEL_POSE if camera_to_world is None else camera_to_world)
    world = box_in_world(box, pose)
    flat = _footprints(world[None])[0]
    corners = [[*point, world[2] + side * world[5] / 2] for point in flat for side in (-1, 1)]
    return (np.array(corners) - pose[:3, 3]) @ pose[:3, :3]


def _footprints(boxes: np.ndarray) -> np.ndarray:
    """Return the corners (N, 4, 2) of boxes (N, 7) on the ground, counter-clockwise, metres."""
    cos, sin = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    return np.einsum("nij,ncj->nci", turn, _CORNERS * boxes[:, None, 3:5]) + boxes[:, None, :2]


def enclosing_boxes(boxes: Any) -> np.ndarray:
    """Return the smallest axis-aligned boxes around turned ones.

    Shape:
        boxes:  (N, 7), see `check_world_boxes`.
        output: (N, 6), (cx, cy, cz, dx, dy, dz), metres.
    """
    boxes = check_world_boxes(boxes)
    cos, sin = np.abs(np.cos(boxes[:, 6])), np.abs(np.sin(boxes[:, 6]))
    dx, dy = boxes[:, 3], boxes[:, 4]
    return np.column_stack([boxes[:, :3], cos * dx + sin * dy, sin * dx + cos * dy, boxes[:, 5]])


def oriented_iou(boxes_a: Any, boxes_b: Any) -> np.ndarray:
    """Return the intersection over union of upright boxes that are turned about z.

    It is exact: the overlap of two footprints is a convex polygon, times the overlap of their heights.

    Source: Sutherland and Hodgman, Reentrant polygon clipping, 1974.

    Shape:
        boxes_a: (N, 7), (cx, cy, cz, dx, dy, dz, yaw), metres, full sizes, radians about z.
        boxes_b: (M, 7).
        output:  (N, M), in [0, 1]; 0 for boxes without volume.

    Raises:
        ValueError: See `check_world_boxes`.

    Example:
        >>> square = [0, 0, 0, 1, 1, 1, 0.0]
        >>> oriented_iou([square], [[0, 0, 0, 1, 1, 1, np.pi / 4]]).round(4).tolist()  # octagon, sqrt(8) - 2
        [[0.7071]]
    """
    boxes_a, boxes_b = check_world_boxes(boxes_a, "boxes_a"), check_world_boxes(boxes_b, "boxes_b")
    prints_a, prints_b = _footprints(boxes_a), _footprints(boxes_b)
    iou = np.zeros((len(boxes_a), len(boxes_b)))
    for i, a in enumerate(boxes_a):
        for j, b in enumerate(boxes_b):
            top, bottom = min(a[2] + a[5] / 2, b[2] + b[5] / 2), max(a[2] - a[5] / 2, b[2] - b[5] / 2)
            reach = (np.hypot(*a[3:5]) + np.hypot(*b[3:5])) / 2
            if top <= bottom or np.hypot(*(a[:2] - b[:2])) >= reach or 0 in (*a[3:6], *b[3:6]):
                continue
            inter = _area(_clip(prints_a[i], prints_b[j])) * (top - bottom)
            iou[i, j] = inter / (a[3:6].prod() + b[3:6].prod() - inter)
    return iou.clip(0, 1)


def _clip(polygon: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return the part (K, 2) of a convex polygon that lies in a convex window, both counter-clockwise."""
    for start, end in zip(window, np.roll(window, -1, axis=0), strict=True):
        edge = end - start
        side = edge[0] * (polygon[:, 1] - start[1]) - edge[1] * (polygon[:, 0] - start[0])
        kept = []
        for k in range(len(polygon)):
            here, there = side[k], side[(k + 1) % len(polygon)]
            if here >= 0:
                kept.append(polygon[k])
            if (here > 0 > there) or (here < 0 < there):
                kept.append(polygon[k] + (polygon[(k + 1) % len(polygon)] - polygon[k]) * here / (here - there))
        polygon = np.array(kept).reshape(-1, 2)
        if len(polygon) < 3:
            return np.zeros((0, 2))
    return polygon


def _area(polygon: np.ndarray) -> float:
    """Return the area of a counter-clockwise polygon (K, 2)."""
    if not len(polygon):
        return 0.0
    x, y = (polygon - polygon[0]).T  # for precision far from the origin
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
