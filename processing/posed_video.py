"""`PosedVideo`: the RGB frames of one scene with what is known of its geometry, and readers for it."""

import copy
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from processing.argument_rules import as_path, check_choice, check_flag, check_keys, check_number, check_texts
from processing.box_rules import check_boxes
from processing.frame_order_ide3d import check_indices
from processing.geometry_rules import (
    as_float32,
    check_depth,
    check_intrinsics,
    check_poses,
    check_same_view,
)
from processing.image_reading_ide3d import read_image
from processing.pose_rules import POSE_CONVENTIONS, convert_poses
from processing.sample_rules import check_sample
from processing.scene_folders import (
    check_not_turned,
    check_steps,
    choose_names,
    drop_nonfinite,
    has_part,
    read_depths,
    read_folder_intrinsics,
    read_matrix,
    stack_images,
)
from processing.scene_names import check_name

__all__ = ["PosedVideo"]

logger = logging.getLogger(__name__)

_MAX_DEPTH_UNIT = 10.0  # Metres. No depth file counts in larger steps.
_ROOM_KEYS = ("frames", "depth", "intrinsics", "camera_to_world", "objects", "scene_id")


@dataclass(frozen=True, eq=False)
class PosedVideo:
    """Frames of one scene, with depth, cameras and object boxes if known, checked at birth.

    Depth shares the field of view of the frames, at its own resolution. `camera_to_world` is in OpenCV axes (x right,
    y down, z forward). Boxes are axis aligned in the same world frame, (cx, cy, cz, dx, dy, dz), full sizes. What
    counts as depth, camera and pose stands in `processing.geometry_rules`. Whether they belong together is judged by a
    few points of a few frames (`processing.sample_rules`); `check` looks at all frames.

    Shape:
        frames: (V, h, w, 3) uint8; floats in [0, 1] are accepted and rounded to 8 bits.
        depth: (V, hd, wd) float32, z-depth in metres, 0 = no measurement; None = unknown.
        intrinsics: (V, 3, 3), of the frames' pixels, integer coordinates are pixel centres; one (3, 3) serves all.
        camera_to_world: (V, 4, 4), metres; None = unknown.
        boxes: (N, 6), metres; labels: N strings; frame_names: V strings.

    Raises:
        TypeError: Frames are neither uint8 nor float, or another part holds no numbers or no strings.
        ValueError: No frames, empty frames, pixels that are not finite, or frame counts that differ. Depth, cameras,
            poses or boxes that `processing.geometry_rules` refuses, or that do not belong together. Any other shape.
    """

    frames: np.ndarray
    depth: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    camera_to_world: np.ndarray | None = None
    boxes: np.ndarray | None = None
    labels: tuple[str, ...] | None = None
    frame_names: tuple[str, ...] | None = None
    scene_id: str | None = None

    def __post_init__(self) -> None:
        self._check_parts({part.name for part in fields(self)})

    def _check_parts(self, changed: Collection[str]) -> None:
        """Check parts, and whether they belong to the others; the others were checked before."""
        changed = {name for name in changed if name == "frames" or getattr(self, name) is not None}
        frames = _check_frames(self.frames) if "frames" in changed else self.frames
        size = frames.shape[1:3]
        put = {"frames": frames}
        for name in ("depth", "intrinsics", "camera_to_world", "boxes"):
            if (value := getattr(self, name)) is not None:
                put[name] = as_float32(value, name) if name in changed else value
        if "depth" in changed:
            check_depth(put["depth"], len(frames))
        if "intrinsics" in changed:
            if put["intrinsics"].shape == (3, 3):
                put["intrinsics"] = np.repeat(put["intrinsics"][None], len(frames), axis=0)
            check_intrinsics(put["intrinsics"], len(frames), size)
        if "camera_to_world" in changed:
            check_poses(put["camera_to_world"], len(frames))
        if "boxes" in changed:
            check_boxes(put["boxes"])
            if points := int((put["boxes"][:, 3:] == 0).all(axis=1).sum()):
                logger.warning("%d of the `boxes` have no size: they are points. Is padding left in?", points)
        if "depth" in put and changed & {"frames", "depth", "intrinsics"}:
            check_same_view(put["depth"].shape[1:], size, put.get("intrinsics"))
        if self.has_geometry and changed & {"frames", "depth", "intrinsics", "camera_to_world", "boxes"}:
            check_sample(put["depth"], put["intrinsics"], put["camera_to_world"], size, put.get("boxes"))
        if self.labels is not None and changed & {"labels", "boxes"}:
            put["labels"] = check_texts(self.labels, "labels", is_ordered=True)
            count = 0 if self.boxes is None else len(put["boxes"])
            if len(put["labels"]) != count:
                raise ValueError(f"`labels` must be one per box, got {len(put['labels'])} labels for {count} boxes.")
        if self.frame_names is not None and changed & {"frames", "frame_names"}:
            put["frame_names"] = _check_frame_names(self.frame_names, frames)
        if "scene_id" in changed:
            if not isinstance(self.scene_id, str):
                raise TypeError(f"`scene_id` must be a string, got {self.scene_id!r}.")
            check_name(self.scene_id, where="`scene_id`")
        for name, value in put.items():
            object.__setattr__(self, name, value)

    def with_cameras(self, camera_to_world: Any, intrinsics: Any) -> "PosedVideo":
        """Return the video with other poses and cameras; frames and depth are not checked again.

        Args:
            camera_to_world: Poses (V, 4, 4), metres.
            intrinsics: Cameras (V, 3, 3) or (3, 3), of the frames' pixels.

        Raises:
            TypeError: One holds no numbers.
            ValueError: One that `processing.geometry_rules` refuses, or that does not belong to the other parts.
        """
        return self._with(camera_to_world=camera_to_world, intrinsics=intrinsics)

    def named(self, scene_id: str) -> "PosedVideo":
        """Return the video under another name; nothing else is checked again.

        Raises:
            TypeError: The name is no string.
            ValueError: A name that cannot be one of a file.
        """
        return self._with(scene_id=scene_id)

    def _with(self, **parts: Any) -> "PosedVideo":
        video = copy.copy(self)
        for name, value in parts.items():
            object.__setattr__(video, name, value)
        video._check_parts(parts)
        return video

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    @property
    def has_geometry(self) -> bool:
        """Whether depth, intrinsics and poses are all known."""
        return self.depth is not None and self.intrinsics is not None and self.camera_to_world is not None

    def check(self) -> None:
        """Raise ValueError where depth, cameras, poses and boxes do not belong together.

        It looks at every frame, at all known units and conventions, and takes up to a second. Where nothing can be
        told, as without depth or poses, it returns.

        Raises:
            ValueError: Parts that contradict each other, with the likely convention and the fix.
        """
        if self.has_geometry:
            size = self.frames.shape[1:3]
            check_sample(self.depth, self.intrinsics, self.camera_to_world, size, self.boxes, is_thorough=True)

    def select_frames(self, indices: Sequence[int]) -> "PosedVideo":
        """Return the video with these frames alone, in this order; boxes and labels stay.

        Args:
            indices: Numbers of frames, in [0, V); a frame may come twice.

        Raises:
            TypeError: Indices that are no whole numbers.
            ValueError: No index, or one outside [0, V).
        """
        index = np.array(check_indices(indices, len(self), "`indices`"))

        def take(values):
            return None if values is None else values[index]

        return PosedVideo(
            frames=self.frames[index],
            depth=take(self.depth),
            intrinsics=take(self.intrinsics),
            camera_to_world=take(self.camera_to_world),
            boxes=self.boxes,
            labels=self.labels,
            frame_names=None if self.frame_names is None else tuple(self.frame_names[i] for i in index),
            scene_id=self.scene_id,
        )

    @classmethod
    def from_room(cls, row: Mapping[str, Any]) -> "PosedVideo":
        """Return the video of a rendered room, with box and category of every object.

        Args:
            row: Row of `processing.rooms.load_rooms`.

        Raises:
            TypeError: It is no mapping.
            ValueError: It lacks a part, or the checks of this class refuse one.
        """
        check_keys(row, _ROOM_KEYS, "row")
        return cls(
            frames=np.stack([read_image(image) for image in row["frames"]]),
            depth=np.stack([np.asarray(image, dtype=np.float32) for image in row["depth"]]),
            intrinsics=np.asarray(row["intrinsics"]),
            camera_to_world=np.asarray(row["camera_to_world"]),
            boxes=np.asarray([thing["box"] for thing in row["objects"]]).reshape(-1, 6),
            labels=tuple(thing["category"] for thing in row["objects"]),
            scene_id=row["scene_id"],
        )

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        indices: Sequence[int] | None = None,
        frame_names: Sequence[str] | None = None,
        parts: Collection[str] | None = None,
        skip_invalid_poses: bool = False,
        convention: str = "opencv",
        depth_unit: float = 0.001,
    ) -> "PosedVideo":
        """Read a scene in the public posed_images layout.

        A frame is `NNNNN.jpg`, and optionally `NNNNN.png` (16-bit depth in millimetres) and `NNNNN.txt`
        (camera_to_world, 4 x 4). The scene has `intrinsic.txt` or `depth_intrinsic.txt` (3 x 3 or 4 x 4), of the
        colour or of the depth pixels. Frames come in natural order, 2 before 10. Parts that no frame has are None; a
        part that only some frames have is an error. Poses and depth of other tools are converted on request only.

        Args:
            path: Folder of one scene.
            indices: Numbers of the frames to read, counted along the sorted names; default is all.
            frame_names: Names of the frames to read, such as "00010"; an alternative to `indices`.
            parts: Parts to open beside the frames, of "depth" and "camera_to_world"; intrinsics come with either. A
                part that is named must be there. None reads what there is, () the frames alone.
            skip_invalid_poses: Whether to leave out, with a warning, frames whose pose holds inf or nan.
            convention: Convention of the pose files, a key of `processing.pose_rules.POSE_CONVENTIONS`: "opencv"
                (camera to world), "world_to_camera", "opengl", "opengl_world_to_camera" or "left_handed".
            depth_unit: Metres of one step of the depth files: 1 / 4000 for Matterport3D, 1 / 5000 for TUM.

        Raises:
            TypeError: An argument of another kind.
            FileNotFoundError: No such folder, no frames, or a part that is missing for some frames.
            ValueError: An unknown part, convention or unit, a file that cannot be read, or contents that the checks of
                this class refuse.
        """
        if parts is not None:
            parts = check_texts(parts, "parts", ("depth", "camera_to_world"))
        check_choice(convention, POSE_CONVENTIONS, "convention")
        skip_invalid_poses = check_flag(skip_invalid_poses, "skip_invalid_poses")
        meaning = "metres of one step such as 1 / 5000"
        depth_unit = check_number(depth_unit, "depth_unit", meaning, above=0, largest=_MAX_DEPTH_UNIT)
        folder = as_path(path, "path")
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder. Give the folder of one scene, with NNNNN.jpg files.")
        names = choose_names(folder, indices, frame_names)
        poses = None
        if has_part(folder, names, parts, "camera_to_world", ".txt"):
            poses = np.stack([read_matrix(folder / f"{name}.txt", (4,)) for name in names])
            if skip_invalid_poses:
                names, poses = drop_nonfinite(folder, names, poses)
            poses = convert_poses(poses, convention)
        frames = stack_images([read_image(folder / f"{name}.jpg") for name in names], names)
        depth, turned = None, []
        if has_part(folder, names, parts, "depth", ".png"):
            steps, turned = read_depths(folder, names)
            check_steps(steps, folder)
            # A division gives the nearest float32 of millimetres.
            depth = (steps / (1 / depth_unit)).astype(np.float32)
        intrinsics = None
        if parts is None or parts:
            depth_size = None if depth is None else depth.shape[1:3]
            intrinsics = read_folder_intrinsics(folder, frames.shape[1:3], depth_size)
        if any(part is not None for part in (depth, intrinsics, poses)):
            check_not_turned(folder, names, turned)
        return cls(frames, depth, intrinsics, poses, frame_names=tuple(names), scene_id=folder.resolve().name or None)


def _check_frames(frames) -> np.ndarray:
    """Return frames (V, h, w, 3) as uint8."""
    if hasattr(frames, "detach"):  # A tensor, wherever it is.
        frames = frames.detach().cpu()
    try:
        frames = np.asarray(frames)
    except (ValueError, TypeError) as error:
        raise TypeError(f"`frames` must be an array (V, h, w, 3), got {type(frames).__name__} ({error}).") from error
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"`frames` must have shape (V, h, w, 3), got {frames.shape}. Stack RGB frames, channels last."
        )
    if not len(frames):
        raise ValueError("`frames` holds no frames. A video needs at least one.")
    if 0 in frames.shape:
        raise ValueError(f"`frames` must have at least one pixel, got {frames.shape[1]} x {frames.shape[2]}.")
    if frames.dtype == np.uint8:
        return frames
    if not np.issubdtype(frames.dtype, np.floating):
        raise TypeError(f"`frames` must be uint8, or float in [0, 1], got {frames.dtype}.")
    if broken := int((~np.isfinite(frames)).sum()):
        raise ValueError(f"`frames` hold {broken} NaN or infinite values. Repair the source.")
    if frames.min() < 0 or frames.max() > 1:
        span = f"[{frames.min():.3g}, {frames.max():.3g}]"
        raise ValueError(f"Float `frames` must lie in [0, 1], got {span}. Divide by 255, or undo the normalization.")
    return (frames * 255).round().astype(np.uint8)


def _check_frame_names(names: Sequence[str], frames: np.ndarray) -> tuple[str, ...]:
    """Return checked names of frames; only equal frames may share one."""
    names = check_texts(names, "frame_names", is_ordered=True)
    if len(names) != len(frames):
        raise ValueError(f"Got {len(names)} frame_names for {len(frames)} frames. Give one name a frame.")
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        check_name(name, "name of a frame", "`frame_names`")
        earlier = first.setdefault(name, place)
        if earlier != place and not np.array_equal(frames[earlier], frames[place]):
            raise ValueError(
                f"`frame_names` must name each frame by a name of its own, but frames {earlier} and {place} differ "
                f"and are both called {name!r}. Rename one."
            )
    return names
