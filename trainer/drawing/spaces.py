"""Spaces of a drawing in 3D: one world, or without poses one for each camera."""

from dataclasses import dataclass

import numpy as np

from trainer.drawing.boxes import box_edges
from trainer.drawing.drawing import Drawing

__all__ = ["PALETTE", "Space", "SpaceBox", "SpaceCamera", "list_spaces", "mark_colour", "text_colour"]

# Colours that people with any colour vision tell apart (Okabe and Ito 2008, without black), as 0 to 255.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
DARK, LIGHT = (20, 20, 20), (255, 255, 255)
_CAMERA_DEPTH = 0.2  # Metres from a camera's centre to the frame that is drawn in front of it.
_HALF_FRAME = 0.58  # Half a frame over its distance where intrinsics are unknown: a field of view of 60 degrees.
_SNAP = np.cos(np.radians(25))  # A mean direction of "up" that is nearer to an axis than this is that axis.


@dataclass(frozen=True, eq=False)
class SpaceBox:
    """A box with its number among the drawing's marks and boxes.

    Shape:
        corners: (8, 3), metres, in the order of `order_corners`.
    """

    label: str
    number: int
    corners: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """Edges (12, 2, 3), metres."""
        return box_edges(self.corners)


@dataclass(frozen=True, eq=False)
class SpaceCamera:
    """A camera of a frame.

    Shape:
        pose:    (4, 4), camera to space, metres.
        corners: (4, 3), corners of the frame in front of the camera, metres.
    """

    frame: int
    pose: np.ndarray
    corners: np.ndarray

    @property
    def lines(self) -> np.ndarray:
        """Lines (8, 2, 3) of the pyramid from the centre to the frame, metres."""
        centre, rim = self.pose[:3, 3], self.corners
        return np.concatenate(
            [np.stack([np.repeat(centre[None], 4, 0), rim], 1), np.stack([rim, np.roll(rim, -1, 0)], 1)]
        )


@dataclass(frozen=True, eq=False)
class Space:
    """Boxes, cameras and points that share one frame of coordinates.

    Args:
        name: Name of the space.
        frame: Number of the frame in whose camera everything is; None for the world.
        up: Unit vector (3,) against gravity, as far as cameras tell.
        boxes: Boxes in the space.
        cameras: Cameras in the order of the frames.
        positions: Points (P, 3), metres.
        colours: RGB (P, 3), uint8.
    """

    name: str
    frame: int | None
    up: np.ndarray
    boxes: tuple[SpaceBox, ...]
    cameras: tuple[SpaceCamera, ...]
    positions: np.ndarray
    colours: np.ndarray


def mark_colour(number: int) -> tuple[int, int, int]:
    """Return the colour, 0 to 255, of the mark or box with this number."""
    return PALETTE[number % len(PALETTE)]


def text_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of words on `mark_colour(number)` that are easier to read."""
    red, green, blue = (((value / 255 + 0.055) / 1.055) ** 2.4 for value in mark_colour(number))
    # Where light and dark words have the same contrast (WCAG).
    return LIGHT if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.18 else DARK


def list_spaces(drawing: Drawing) -> list[Space]:
    """Return the spaces of a drawing.

    With poses there is one, the world. Without them frames have nothing in common: each frame with a box or with
    points is a space of its own, in its camera's axes.
    """
    poses = drawing.camera_to_world
    if poses is not None:
        return [_world(drawing, poses.astype(np.float64))]
    shown = {mark.frame for mark in drawing.marks if mark.corners is not None}
    if drawing.points is not None:
        shown |= set(np.unique(drawing.points.frame_of).tolist())
    return [_camera_space(drawing, int(frame)) for frame in sorted(shown)]


def _world(drawing: Drawing, poses: np.ndarray) -> Space:
    boxes = [
        SpaceBox(mark.label, number, _move(poses[mark.frame], mark.corners))
        for number, mark in enumerate(drawing.marks)
        if mark.corners is not None
    ]
    first = len(drawing.marks)
    boxes += [SpaceBox(box.label, first + index, box.corners) for index, box in enumerate(drawing.boxes)]
    cameras = [_camera(drawing, frame, pose) for frame, pose in enumerate(poses)]
    positions, colours = np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    if drawing.points is not None:
        own = poses[drawing.points.frame_of]
        positions = np.einsum("pij,pj->pi", own[:, :3, :3], drawing.points.positions) + own[:, :3, 3]
        colours = drawing.points.colours
    return Space("World", None, _find_up(poses), tuple(boxes), tuple(cameras), positions, colours)


def _camera_space(drawing: Drawing, frame: int) -> Space:
    boxes = tuple(
        SpaceBox(mark.label, number, mark.corners)
        for number, mark in enumerate(drawing.marks)
        if mark.corners is not None and mark.frame == frame
    )
    positions, colours = np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    if drawing.points is not None:
        is_own = drawing.points.frame_of == frame
        positions, colours = drawing.points.positions[is_own].astype(np.float64), drawing.points.colours[is_own]
    name = f"Camera of frame {drawing.frame_names[frame]}"
    camera = _camera(drawing, frame, np.eye(4))
    return Space(name, frame, np.array([0.0, -1.0, 0.0]), boxes, (camera,), positions, colours)


def _camera(drawing: Drawing, frame: int, pose: np.ndarray) -> SpaceCamera:
    height, width = drawing.frames.shape[1:3]
    if drawing.intrinsics is None:
        x, y = _HALF_FRAME, _HALF_FRAME * height / width
        sides = (-x, x, -y, y)
    else:
        (fx, _, cx), (_, fy, cy) = drawing.intrinsics[frame][:2].astype(np.float64)
        sides = ((-0.5 - cx) / fx, (width - 0.5 - cx) / fx, (-0.5 - cy) / fy, (height - 0.5 - cy) / fy)
    left, right, top, bottom = sides
    rim = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]]) * _CAMERA_DEPTH
    return SpaceCamera(frame, pose, _move(pose, rim))


def _move(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.asarray(points, np.float64) @ pose[:3, :3].T + pose[:3, 3]


def _find_up(poses: np.ndarray) -> np.ndarray:
    """Return the mean direction (3,) against the cameras' y axes.

    Where an axis of the world is near, it is that axis.
    """
    mean = -poses[:, :3, 1].mean(0)
    length = np.linalg.norm(mean)
    if length < 1e-6:
        return np.array([0.0, 0.0, 1.0])
    mean /= length
    axis = int(np.abs(mean).argmax())
    return np.sign(mean[axis]) * np.eye(3)[axis] if abs(mean[axis]) >= _SNAP else mean
