"""Frames, marked objects, cameras, boxes and points of a drawing, checked against each other at birth."""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from processing.geometry_rules import as_float32, check_intrinsics, check_poses
from processing.token_grid import TokenGrid
from trainer.drawing.boxes import order_corners

__all__ = ["Cameras", "Drawing", "ObjectMark", "PointCloud", "WorldBox", "as_tuple"]


@dataclass(frozen=True, eq=False)
class Cameras:
    """Cameras of the frames.

    Args:
        intrinsics: Cameras (V, 3, 3) in pixels of the frames, integer coordinates are pixel centres; one (3, 3) serves
            all frames. None where unknown: boxes are then not drawn on frames.
        camera_to_world: Poses (V, 4, 4), OpenCV axes, metres; None where unknown, as with RGB alone.

    Raises:
        TypeError: If a part holds no numbers.
        ValueError: If a part is no camera or no pose, or they are of different numbers of frames.
    """

    intrinsics: np.ndarray | None = None
    camera_to_world: np.ndarray | None = None

    def __post_init__(self) -> None:
        poses = self.camera_to_world
        if poses is not None:
            poses = as_float32(poses, "camera_to_world")
            if not len(poses.shape) or not len(poses):
                raise ValueError(f"`camera_to_world` must have shape (V, 4, 4) with V >= 1, got {poses.shape}.")
            check_poses(poses)
        if self.intrinsics is not None:
            intrinsics = as_float32(self.intrinsics, "intrinsics")
            if intrinsics.shape != (3, 3):
                check_intrinsics(intrinsics, None if poses is None else len(poses))
            else:
                check_intrinsics(intrinsics[None])
            object.__setattr__(self, "intrinsics", intrinsics)
        object.__setattr__(self, "camera_to_world", poses)


@dataclass(frozen=True, eq=False)
class ObjectMark:
    """An object that an answer names, with its region, its box or both.

    Args:
        label: Words beside the object.
        masks: Region on the token grid, bool (V, rows, cols); None without a region.
        corners: Corners (8, 3) of the box in any order, metres in the camera of `frame`, OpenCV axes; None without a
            box.
        frame: Number, in [0, V), of the frame in whose camera the corners are.
        score: Score of the answer; None where it has none.

    Raises:
        TypeError: If a part is of another type.
        ValueError: If there is neither region nor box, corners are of no box or without a frame, or the score is not
            finite.
    """

    label: str
    masks: np.ndarray | None = None
    corners: np.ndarray | None = None
    frame: int | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        _check_text(self.label, "label")
        if self.masks is None and self.corners is None:
            raise ValueError(f"{self.label!r} must have `masks`, `corners` or both: it names no place.")
        if self.masks is not None:
            object.__setattr__(self, "masks", _as_masks(self.masks))
        if self.corners is not None:
            object.__setattr__(self, "corners", _as_corners(self.corners))
            if self.frame is None:
                raise ValueError(f"{self.label!r} has `corners`; give the `frame` in whose camera they are.")
        if self.frame is not None and (not isinstance(self.frame, Integral) or isinstance(self.frame, bool)):
            raise TypeError(f"`frame` must be the number of a frame, got {self.frame!r}.")
        if self.score is not None and (not isinstance(self.score, Real) or isinstance(self.score, bool)):
            raise TypeError(f"`score` must be a number or None, got {reprlib.repr(self.score)}.")
        if self.score is not None and not np.isfinite(self.score):
            raise ValueError(f"`score` must be finite, got {self.score!r}.")


@dataclass(frozen=True, eq=False)
class WorldBox:
    """A box in the world of the poses, such as the true one.

    Args:
        label: Words beside the box.
        corners: Corners (8, 3) of the box in any order, metres in the world.

    Raises:
        TypeError: If a part is of another type.
        ValueError: If corners are of no box.
    """

    label: str
    corners: np.ndarray

    def __post_init__(self) -> None:
        _check_text(self.label, "label")
        object.__setattr__(self, "corners", _as_corners(self.corners))


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points that frames see, each in the camera of its frame.

    Args:
        positions: Points (P, 3), metres, OpenCV axes.
        colours: RGB (P, 3), uint8.
        frame_of: Number (P,) of the frame of each point, integers.

    Raises:
        TypeError: If a part holds no numbers of its type.
        ValueError: If a part has another shape, or positions are not finite.
    """

    positions: np.ndarray
    colours: np.ndarray
    frame_of: np.ndarray

    def __post_init__(self) -> None:
        positions = as_float32(self.positions, "positions")
        if positions.ndim != 2 or positions.shape[1] != 3:
            raise ValueError(f"`positions` must have shape (P, 3), metres, got {positions.shape}.")
        if broken := int((~np.isfinite(positions).all(1)).sum()):
            raise ValueError(f"`positions` of {broken} points hold NaN or Inf. Leave these points out.")
        colours, frame_of = _as_array(self.colours, "colours"), _as_array(self.frame_of, "frame_of")
        if colours.dtype != np.uint8:
            raise TypeError(f"`colours` must be uint8, got {colours.dtype}.")
        if colours.shape != positions.shape:
            raise ValueError(f"`colours` must have shape {positions.shape}, one RGB a point, got {colours.shape}.")
        if frame_of.dtype.kind not in "iu":
            raise TypeError(f"`frame_of` must hold numbers of frames, integers, got {frame_of.dtype}.")
        if frame_of.shape != positions.shape[:1]:
            raise ValueError(f"`frame_of` must have shape {positions.shape[:1]}, one a point, got {frame_of.shape}.")
        for name, value in {"positions": positions, "colours": colours, "frame_of": frame_of}.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True, eq=False)
class Drawing:
    """Frames of a video and what is marked in them, in 2D and 3D.

    Args:
        frames: Frames as read, uint8 (V, h, w, 3).
        marks: Objects that the answer names.
        cameras: Cameras of the frames; None where nothing is known of them.
        boxes: Boxes in the world, which need poses.
        points: Points that the frames see, such as the depth that a model predicts.
        title: Title of the picture.
        notes: Sentences below the title, such as what was not found.
        grid: Token grid of the masks; None spreads the masks over whole frames. The grid says which pixels at the
            right and bottom the model never sees.
        frame_names: Names of the V frames; default: their numbers.

    Raises:
        TypeError: If a part is of another type.
        ValueError: If there is no frame, or parts do not belong to the same frames.
    """

    frames: np.ndarray
    marks: Sequence[ObjectMark] = ()
    cameras: Cameras | None = None
    boxes: Sequence[WorldBox] = ()
    points: PointCloud | None = None
    title: str = "Drawing"
    notes: Sequence[str] = ()
    grid: TokenGrid | None = None
    frame_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        frames = _as_array(self.frames, "frames")
        if frames.dtype != np.uint8:
            raise TypeError(f"`frames` must be uint8, got {frames.dtype}.")
        if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise ValueError(f"`frames` must have shape (V, h, w, 3) with V >= 1, got {frames.shape}.")
        names = [str(index) for index in range(len(frames))] if self.frame_names is None else self.frame_names
        put = {"frames": frames, "frame_names": as_tuple(names, str, "frame_names")}
        put |= {"marks": as_tuple(self.marks, ObjectMark, "marks"), "notes": as_tuple(self.notes, str, "notes")}
        put |= {"boxes": as_tuple(self.boxes, WorldBox, "boxes")}
        _check_text(self.title, "title")
        for name, kind in {"cameras": Cameras, "points": PointCloud, "grid": TokenGrid}.items():
            if not isinstance(getattr(self, name), (kind, type(None))):
                raise TypeError(f"`{name}` must be {kind.__name__} or None, got {type(getattr(self, name)).__name__}.")
        for name, value in put.items():
            object.__setattr__(self, name, value)
        self._check_counts()

    def _check_counts(self) -> None:
        count = len(self.frames)
        if len(self.frame_names) != count:
            raise ValueError(f"`frame_names` must be one per frame, {count}, got {len(self.frame_names)}.")
        for mark in self.marks:
            if mark.masks is not None and len(mark.masks) != count:
                raise ValueError(f"`masks` of {mark.label!r} are of {len(mark.masks)} frames, there are {count}.")
            if mark.masks is not None and self.grid is not None and mark.masks.shape[1:] != self.grid.shape:
                raise ValueError(
                    f"`masks` of {mark.label!r} have {mark.masks.shape[1:]} cells, the grid {self.grid.shape}."
                )
            if mark.frame is not None and not 0 <= mark.frame < count:
                raise ValueError(f"`frame` of {mark.label!r} must be from 0 to {count - 1}, got {mark.frame}.")
        for name in ("intrinsics", "camera_to_world"):
            value = None if self.cameras is None else getattr(self.cameras, name)
            if value is not None and value.ndim == 3 and len(value) != count:
                raise ValueError(f"`{name}` is of {len(value)} frames, there are {count}. Select the same frames.")
        if self.intrinsics is not None:
            check_intrinsics(self.intrinsics, count, self.frames.shape[1:3])
        if self.boxes and self.camera_to_world is None:
            raise ValueError("`boxes` are in the world of the poses: give `cameras` with `camera_to_world`.")
        if self.points is not None and len(self.points):
            first, last = int(self.points.frame_of.min()), int(self.points.frame_of.max())
            if first < 0 or last >= count:
                raise ValueError(f"`frame_of` must be from 0 to {count - 1}, got {first} to {last}.")

    @property
    def intrinsics(self) -> np.ndarray | None:
        """Intrinsics (V, 3, 3) of the frames, if known."""
        found = None if self.cameras is None else self.cameras.intrinsics
        return found if found is None or found.ndim == 3 else np.repeat(found[None], len(self.frames), axis=0)

    @property
    def camera_to_world(self) -> np.ndarray | None:
        """Poses (V, 4, 4) of the frames, if known."""
        return None if self.cameras is None else self.cameras.camera_to_world


def _as_array(values: Any, name: str) -> np.ndarray:
    """Return numbers as an array, of their own type."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise TypeError(f"`{name}` must be an array, got lists of different lengths.") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"`{name}` must be an array of numbers, got {type(values).__name__} {reprlib.repr(values)}.")
    return array


def _as_masks(values: Any) -> np.ndarray:
    masks = _as_array(values, "masks")
    if masks.dtype != bool:
        raise TypeError(f"`masks` must be bool (V, rows, cols), got {masks.dtype}. Compare them with a threshold.")
    if masks.ndim != 3 or 0 in masks.shape:
        raise ValueError(f"`masks` must have shape (V, rows, cols), got {masks.shape}.")
    return masks


def _as_corners(values: Any) -> np.ndarray:
    corners = as_float32(values, "corners")
    if corners.shape != (8, 3):
        raise ValueError(f"`corners` must have shape (8, 3), metres, got {corners.shape}.")
    if not np.isfinite(corners).all():
        raise ValueError("`corners` must be finite, got NaN or Inf among them.")
    return order_corners(corners)


def as_tuple(values: Any, kind: type, name: str) -> tuple:
    """Return the entries of a list of one kind; raise TypeError for anything else."""
    if isinstance(values, (str, bytes, dict)) or not isinstance(values, Sequence):
        raise TypeError(f"`{name}` must be a list of {kind.__name__}, got {type(values).__name__}.")
    if wrong := [value for value in values if not isinstance(value, kind)]:
        raise TypeError(f"`{name}` must be a list of {kind.__name__}, got {reprlib.repr(wrong[0])} among them.")
    return tuple(values)


def _check_text(value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be a text, got {reprlib.repr(value)}.")
    if not value.strip():
        raise ValueError(f"`{name}` must say something, got {value!r}.")
