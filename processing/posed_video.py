"""`PosedVideo`: the RGB frames of one scene with what is known of its geometry, and readers for it."""

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np

from processing.frame_order_ide3d import check_indices, sort_frames
from processing.geometry_rules import (
    as_float32,
    check_boxes,
    check_depth,
    check_intrinsics,
    check_poses,
    check_same_view,
    find_nonfinite,
    rescaled_intrinsics,
)
from processing.image_opening_ide3d import open_image
from processing.image_reading_ide3d import check_frame_names, is_turned, read_image
from processing.limits import check_file
from processing.pose_rules import convert_poses
from processing.sample_rules import check_sample
from processing.scene_names import check_name

__all__ = ["PosedVideo", "list_frame_names", "read_folder_intrinsics", "read_matrix", "rescaled_intrinsics"]

logger = logging.getLogger(__name__)

_FIELD_OF_VIEW_TOLERANCE = 0.05  # Relative difference of focal lengths of the colour and depth cameras.


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
        frames = _check_frames(self.frames)
        size = frames.shape[1:3]
        put = {"frames": frames}
        for name in ("depth", "intrinsics", "camera_to_world", "boxes"):
            if getattr(self, name) is not None:
                put[name] = as_float32(getattr(self, name), name)
        if self.depth is not None:
            check_depth(put["depth"], len(frames))
        if self.intrinsics is not None:
            if put["intrinsics"].shape == (3, 3):
                put["intrinsics"] = np.repeat(put["intrinsics"][None], len(frames), axis=0)
            check_intrinsics(put["intrinsics"], len(frames), size)
        if self.camera_to_world is not None:
            check_poses(put["camera_to_world"], len(frames))
        if self.boxes is not None:
            check_boxes(put["boxes"])
        if self.depth is not None:
            check_same_view(put["depth"].shape[1:], size, put.get("intrinsics"))
        if self.has_geometry:
            check_sample(put["depth"], put["intrinsics"], put["camera_to_world"], size, put.get("boxes"))
        if self.labels is not None:
            put["labels"] = _check_texts(self.labels, "labels")
            count = 0 if self.boxes is None else len(put["boxes"])
            if len(put["labels"]) != count:
                raise ValueError(f"`labels` must be one per box, got {len(put['labels'])} labels for {count} boxes.")
        if self.frame_names is not None:
            put["frame_names"] = _check_texts(self.frame_names, "frame_names")
            if len(put["frame_names"]) != len(frames):
                raise ValueError(
                    f"Got {len(put['frame_names'])} frame_names for {len(frames)} frames. Give one name a frame."
                )
        if self.scene_id is not None and not isinstance(self.scene_id, str):
            raise TypeError(f"`scene_id` must be a string, got {self.scene_id!r}.")
        for name, value in put.items():
            object.__setattr__(self, name, value)

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
    def from_room(cls, row: dict) -> "PosedVideo":
        """Return the video of a rendered room, with box and category of every object.

        Args:
            row: Row of `processing.rooms.load_rooms`.
        """
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
        if isinstance(parts, str):
            raise TypeError(f'`parts` must be a list such as ["depth"], got {parts!r}.')
        if parts is not None and (unknown := set(parts) - {"depth", "camera_to_world"}):
            raise ValueError(f'`parts` must be of "depth" and "camera_to_world", got {sorted(unknown)}.')
        if isinstance(depth_unit, bool) or not isinstance(depth_unit, Real):
            raise TypeError(f"`depth_unit` must be a number, metres of one step, got {depth_unit!r}.")
        if not (np.isfinite(depth_unit) and depth_unit > 0):
            raise ValueError(f"`depth_unit` must be metres of one step, such as 1 / 5000, got {depth_unit}.")
        if not isinstance(path, (str, Path)):
            raise TypeError(f"`path` must be the folder of one scene, got {path!r}.")
        folder = Path(path)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder. Give the folder of one scene, with NNNNN.jpg files.")
        names = _choose_names(folder, indices, frame_names)
        poses = None
        if _wants(folder, names, parts, "camera_to_world", ".txt"):
            poses = np.stack([read_matrix(folder / f"{name}.txt", (4,)) for name in names])
            if skip_invalid_poses:
                names, poses = _drop_nonfinite(folder, names, poses)
            poses = convert_poses(poses, convention)
        frames = _stack([read_image(folder / f"{name}.jpg") for name in names], names)
        depth = None
        if _wants(folder, names, parts, "depth", ".png"):
            steps = _stack([_read_depth(folder / f"{name}.png") for name in names], names)
            # A division gives the nearest float32 of millimetres.
            depth = (steps / (1 / depth_unit)).astype(np.float32)
        intrinsics = None
        if parts is None or parts:
            depth_size = None if depth is None else depth.shape[1:3]
            intrinsics = read_folder_intrinsics(folder, frames.shape[1:3], depth_size)
        if any(part is not None for part in (depth, intrinsics, poses)):
            _check_not_turned(folder, names, has_depth=depth is not None)
        return cls(frames, depth, intrinsics, poses, frame_names=tuple(names), scene_id=folder.name)


def list_frame_names(folder: Path) -> list[str]:
    """Return the names of a scene's frames, without `.jpg`, in natural order.

    Raises:
        ValueError: Two files are one frame, such as `1.jpg` and `00001.jpg`, or a frame has another ending.
    """
    numbered = [file.name for file in folder.glob("*.*") if file.stem.isdigit() and file.is_file()]
    if foreign := [name for name in numbered if name.lower().endswith((".jpg", ".jpeg")) and name[-4:] != ".jpg"]:
        raise ValueError(f"{folder} holds {sort_frames(foreign)[0]}, where frames end with .jpg. Rename it.")
    files = sort_frames(name for name in numbered if name.endswith(".jpg"))
    check_frame_names(files, folder)
    return [name[: -len(".jpg")] for name in files]


def read_matrix(file: Path, sides: tuple[int, ...]) -> np.ndarray:
    """Read a square matrix of a text file, one row a line, as float64.

    Args:
        file: Path of the file.
        sides: Numbers of rows that the matrix may have.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds anything else, or is no regular file.
    """
    check_file(file)
    try:
        matrix = np.array([[float(x) for x in line.split()] for line in file.read_text().splitlines() if line.strip()])
    except ValueError as error:
        raise ValueError(f"{file} must hold a matrix of numbers, one row a line: {error}.") from error
    if matrix.shape not in [(side, side) for side in sides]:
        wanted = " or ".join(f"{side} x {side}" for side in sides)
        raise ValueError(f"{file} must hold a {wanted} matrix, got shape {matrix.shape}. Write it again.")
    return matrix


def read_folder_intrinsics(
    folder: Path, frame_size: Sequence[int], depth_size: Sequence[int] | None
) -> np.ndarray | None:
    """Read the intrinsics (3, 3) of the frames' pixels, preferably of the colour camera.

    Args:
        folder: Folder of one scene, with `intrinsic.txt` or `depth_intrinsic.txt`.
        frame_size: Height and width of the frames.
        depth_size: Height and width of the depth maps; None does without the depth camera.

    Returns:
        Float64 matrix, not checked; None where there is no file.

    Raises:
        ValueError: A file holds no 3 x 3 or 4 x 4 matrix, or frames have another aspect than the maps whose camera is
            taken.
    """
    colour, scaled = folder / "intrinsic.txt", None
    if depth_size is not None and os.path.lexists(folder / "depth_intrinsic.txt"):
        stored = read_matrix(folder / "depth_intrinsic.txt", (3, 4))[:3, :3]
        scaled = rescaled_intrinsics(stored, depth_size, frame_size)
    if not os.path.lexists(colour):
        if scaled is not None:
            check_same_view(depth_size, frame_size)  # A camera of the maps says nothing of squashed frames.
        return scaled
    intrinsics = read_matrix(colour, (3, 4))[:3, :3]
    if scaled is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = intrinsics[[0, 1], [0, 1]] / scaled[[0, 1], [0, 1]]
        if not np.abs(ratio - 1).max() <= _FIELD_OF_VIEW_TOLERANCE:
            logger.warning("%s: fields of view of colour and depth differ (focal length ratios %s)", folder, ratio)
    return intrinsics


def _check_frames(frames) -> np.ndarray:
    """Return frames (V, h, w, 3) as uint8."""
    frames = np.asarray(frames)
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


def _choose_names(folder: Path, indices: Sequence[int] | None, frame_names: Sequence[str] | None) -> list[str]:
    if indices is not None and frame_names is not None:
        raise ValueError("Expected `indices` or `frame_names`, got both. Give one of them.")
    if frame_names is not None:
        frame_names = _check_texts(frame_names, "frame_names")
        for name in frame_names:
            check_name(name, "name of a frame")
        absent = [name for name in frame_names if not (folder / f"{name}.jpg").is_file()]
        if absent or not len(frame_names):
            raise FileNotFoundError(
                f"{folder} lacks the frames {absent}." if absent else "`frame_names` names no frame."
            )
        return list(frame_names)
    names = list_frame_names(folder)
    if not names:
        raise FileNotFoundError(f"{folder} holds no frames. Expected files such as 00000.jpg.")
    if indices is None:
        return names
    return [names[i] for i in check_indices(indices, len(names), "`indices`")]


def _check_texts(texts: Sequence[str], name: str) -> tuple[str, ...]:
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable) or getattr(texts, "ndim", 1) != 1:
        raise TypeError(f"`{name}` must be a list of strings, got {texts!r}.")
    texts = tuple(texts)
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise TypeError(f"`{name}` must be strings, got {wrong[0]!r}.")
    return texts


def _wants(folder: Path, names: list[str], parts: Collection[str] | None, part: str, suffix: str) -> bool:
    """Return whether to read a part.

    A part that is named must be there for all frames, another one for all or for none.
    """
    if parts is not None and part not in parts:
        return False
    missing = [name for name in names if not (folder / f"{name}{suffix}").is_file()]
    if missing and (parts is not None or len(missing) < len(names)):
        what = {"depth": "depth", "camera_to_world": "pose"}[part]
        raise FileNotFoundError(
            f"{folder} lacks {what} files for frames {missing}. Remove these frames or add their {suffix}."
        )
    numbers = {int(name): name for name in missing if name.isdigit()}
    for file in sorted(folder.glob(f"*{suffix}")) if numbers else ():
        if file.stem.isdigit() and int(file.stem) in numbers:
            raise ValueError(
                f"{file} is of no frame: parts are matched by name. Rename it to {numbers[int(file.stem)]}{suffix}."
            )
    return not missing


def _drop_nonfinite(folder: Path, names: list[str], poses: np.ndarray) -> tuple[list[str], np.ndarray]:
    dropped = find_nonfinite(poses)
    if len(dropped):
        told = [names[index] for index in dropped]
        logger.warning("%s: left out %d frames without a valid pose: %s", folder, len(dropped), told)
    if len(dropped) == len(names):
        raise ValueError(f"{folder}: no frame has a valid pose, all hold inf or nan. Read it without poses.")
    return [name for index, name in enumerate(names) if index not in dropped], np.delete(poses, dropped, axis=0)


def _check_not_turned(folder: Path, names: list[str], *, has_depth: bool) -> None:
    """Check that frames are stored upright: depth, cameras and poses belong to the stored pixels."""
    files = [folder / f"{name}{suffix}" for suffix in (".jpg", ".png")[: 1 + has_depth] for name in names]
    if turned := [file.name for file in files if is_turned(file)]:
        raise ValueError(
            f"{folder}: the EXIF orientation of {turned[0]} ({len(turned)} files) turns the picture, while depth, "
            "intrinsics and poses belong to the stored pixels. If the geometry fits the stored pixels, remove the tag "
            "(`exiftool -Orientation= FILE`); if not, turn the geometry. `parts=()` reads the upright frames alone."
        )


def _read_depth(file: Path) -> np.ndarray:
    with open_image(file) as image:
        steps = np.asarray(image)
    if steps.ndim != 2 or steps.dtype not in (np.uint16, np.int32):
        raise ValueError(f"{file} must be a 16-bit grey PNG, got {steps.dtype} {steps.shape}. Save it as uint16.")
    return steps


def _stack(images: list[np.ndarray], names: list[str]) -> np.ndarray:
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        raise ValueError(
            f"Images of one scene must have one size, got {sorted(sizes)} in frames {names[0]} to {names[-1]}. "
            "Resize them, or leave some out."
        )
    return np.stack(images)
