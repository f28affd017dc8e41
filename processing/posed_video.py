"""`PosedVideo`: the RGB frames of one scene with what is known of its geometry, and readers for it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ["PosedVideo", "rescaled_intrinsics"]

logger = logging.getLogger(__name__)

MAX_MEDIAN_DEPTH = 100.0  # metres; no room is that deep, millimetres always are
RIGID_TOLERANCE = 1e-3  # of rotation columns from orthonormal; poses on disk have few digits
_FIELD_OF_VIEW_TOLERANCE = 0.05  # relative difference of focal lengths of the colour and depth cameras


@dataclass(frozen=True, eq=False)
class PosedVideo:
    """Frames of one scene, with depth, cameras and object boxes where known. Everything is checked at birth.

    Depth shares the field of view of the frames, at its own resolution. `camera_to_world` is in OpenCV axes (x right,
    y down, z forward); boxes are axis aligned in the same world frame, (cx, cy, cz, dx, dy, dz), full sizes.

    Shape:
        frames: (V, h, w, 3) uint8; floats in [0, 1] are accepted and rounded to 8 bits.
        depth: (V, hd, wd) float32, z-depth in metres, 0 = no measurement; None = unknown.
        intrinsics: (V, 3, 3), of the frames' pixels, integer coordinates are pixel centres; one (3, 3) serves all.
        camera_to_world: (V, 4, 4), metres; None = unknown.
        boxes: (N, 6), metres; labels: N strings; frame_names: V strings.

    Raises:
        TypeError: frames are neither uint8 nor float.
        ValueError: no frames, empty frames, non-finite pixels, frame counts that differ, depth in another unit,
            negative or non-finite depth, poses that are not rigid motions, singular intrinsics, any other shape.
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
        frames = _checked_frames(self.frames)
        put = {"frames": frames}
        if self.depth is not None:
            put["depth"] = _checked_depth(self.depth, len(frames))
        if self.intrinsics is not None:
            put["intrinsics"] = _checked_intrinsics(self.intrinsics, len(frames))
        if self.camera_to_world is not None:
            put["camera_to_world"] = _checked_poses(self.camera_to_world, len(frames))
        if self.boxes is not None:
            put["boxes"] = _checked_boxes(self.boxes)
        if self.labels is not None:
            put["labels"] = tuple(self.labels)
            if self.boxes is None or len(put["labels"]) != len(put["boxes"]):
                count = None if self.boxes is None else len(put["boxes"])
                raise ValueError(f"labels must be one per box, got {len(put['labels'])} labels for {count} boxes")
        if self.frame_names is not None:
            put["frame_names"] = tuple(self.frame_names)
            if len(put["frame_names"]) != len(frames):
                raise ValueError(f"got {len(put['frame_names'])} frame_names for {len(frames)} frames; give one each")
        for name, value in put.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)

    @property
    def has_geometry(self) -> bool:
        """Whether depth, intrinsics and poses are all known."""
        return self.depth is not None and self.intrinsics is not None and self.camera_to_world is not None

    def select_frames(self, indices: Sequence[int]) -> PosedVideo:
        """The video with only these frames, in this order; boxes and labels stay.

        Raises:
            ValueError: no index, or one outside [0, V).
        """
        index = np.asarray(indices, dtype=np.int64).reshape(-1)
        if not len(index):
            raise ValueError("indices must name at least one frame, got none")
        if index.min() < 0 or index.max() >= len(self):
            raise ValueError(f"indices must lie in [0, {len(self)}), got {index.min()} to {index.max()}")

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
    def from_room(cls, row: dict) -> PosedVideo:
        """The video of one row of `processing.rooms.load_rooms`, with a box and a category for every object."""
        return cls(
            frames=np.stack([np.asarray(image) for image in row["frames"]]),
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
    ) -> PosedVideo:
        """Read a scene in the public posed_images layout.

        For every frame `NNNNN.jpg`, and optionally `NNNNN.png` (16-bit depth in millimetres) and `NNNNN.txt`
        (camera_to_world, 4 x 4); for the scene `intrinsic.txt` or `depth_intrinsic.txt` (3 x 3 or 4 x 4, of the colour
        or of the depth pixels). Parts that no frame has are None; a part that only some frames have is an error.

        Args:
            path: folder of one scene.
            indices: which frames to read, counted along the sorted names; default is all.
            frame_names: which frames to read, by name such as "00010"; an alternative to `indices`.
            parts: what to open beside the frames, of "depth" and "camera_to_world" (intrinsics come with either); a
                part that is named must be there. None reads what there is, () the frames alone.
            skip_invalid_poses: leave frames out whose pose holds inf or nan, as in some scans, with a warning.

        Raises:
            FileNotFoundError: no such folder, no frames, or a part that is missing for some frames.
            ValueError: an unknown part, a file that cannot be read, or contents that the checks of this class refuse.
        """
        if parts is not None and (unknown := set(parts) - {"depth", "camera_to_world"}):
            raise ValueError(f'parts are "depth" and "camera_to_world", got {sorted(unknown)}')
        folder = Path(path)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder; give the folder of one scene, with NNNNN.jpg files")
        names = _chosen_names(folder, indices, frame_names)
        poses = None
        if _wants(folder, names, parts, "camera_to_world", ".txt"):
            poses = np.stack([_read_matrix(folder / f"{name}.txt", (4,)) for name in names])
            if skip_invalid_poses:
                valid = np.isfinite(poses).all(axis=(1, 2))
                if not valid.all():
                    dropped = [name for name, ok in zip(names, valid, strict=True) if not ok]
                    logger.warning("%s: left out %d frames without a valid pose: %s", folder, len(dropped), dropped)
                if not valid.any():
                    raise ValueError(f"{folder}: no frame has a valid pose")
                names, poses = [name for name, ok in zip(names, valid, strict=True) if ok], poses[valid]
        frames = _stacked([_read_image(folder / f"{name}.jpg", "RGB") for name in names], names)
        depth = None
        if _wants(folder, names, parts, "depth", ".png"):
            depth_millimetres = _stacked([_read_depth(folder / f"{name}.png") for name in names], names)
            depth = depth_millimetres.astype(np.float32) / 1000
        intrinsics = None
        if parts is None or parts:
            intrinsics = _folder_intrinsics(folder, frames.shape[1:3], None if depth is None else depth.shape[1:3])
        return cls(frames, depth, intrinsics, poses, frame_names=tuple(names), scene_id=folder.name)


def _checked_frames(frames) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must have shape (V, h, w, 3), got {frames.shape}; stack RGB frames, channels last")
    if not len(frames):
        raise ValueError("frames holds no frames; a video needs at least one")
    if 0 in frames.shape:
        raise ValueError(f"frames must have at least one pixel, got frames of {frames.shape[1]} x {frames.shape[2]}")
    if frames.dtype == np.uint8:
        return frames
    if not np.issubdtype(frames.dtype, np.floating):
        raise TypeError(f"frames must be uint8, or float in [0, 1], got {frames.dtype}")
    if not np.isfinite(frames).all():
        raise ValueError(f"frames hold {int((~np.isfinite(frames)).sum())} NaN or infinite values; repair the source")
    if frames.min() < 0 or frames.max() > 1:
        span = f"[{frames.min():.3g}, {frames.max():.3g}]"
        raise ValueError(f"float frames must lie in [0, 1], got {span}; divide by 255, or undo the normalization")
    return (frames * 255).round().astype(np.uint8)


def _checked_depth(depth, views: int) -> np.ndarray:
    depth = np.asarray(depth, dtype=np.float32)
    if depth.ndim != 3 or 0 in depth.shape[1:]:
        raise ValueError(f"depth must have shape (V, hd, wd), got {depth.shape}")
    if len(depth) != views:
        raise ValueError(f"got {views} frames but {len(depth)} depth maps; select the same frames of both")
    if not np.isfinite(depth).all():
        raise ValueError(f"depth holds {int((~np.isfinite(depth)).sum())} NaN or infinite values; mark them as 0")
    if (depth < 0).any():
        raise ValueError(f"depth holds negative values (least {depth.min():.3g}); no measurement is marked as 0")
    measured = depth[depth > 0]
    if len(measured) and np.median(measured) > MAX_MEDIAN_DEPTH:
        median = f"{np.median(measured):.0f}"
        raise ValueError(
            f"depth must be in metres, but its median is {median}: looks like millimetres, divide by 1000"
        )
    return depth


def _checked_intrinsics(intrinsics, views: int) -> np.ndarray:
    intrinsics = np.asarray(intrinsics, dtype=np.float32)
    if intrinsics.shape == (3, 3):
        intrinsics = np.repeat(intrinsics[None], views, axis=0)
    if intrinsics.shape != (views, 3, 3):
        raise ValueError(f"intrinsics must have shape ({views}, 3, 3) or (3, 3), got {intrinsics.shape}")
    if not np.isfinite(intrinsics).all() or not (intrinsics[:, [0, 1], [0, 1]] > 0).all():
        raise ValueError("intrinsics must be finite with positive focal lengths fx and fy")
    return intrinsics


def _checked_poses(poses, views: int) -> np.ndarray:
    poses = np.asarray(poses, dtype=np.float32)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise ValueError(f"camera_to_world must have shape (V, 4, 4), got {poses.shape}")
    if len(poses) != views:
        raise ValueError(f"got {views} frames but {len(poses)} poses; select the same frames of both")
    broken = np.flatnonzero(~np.isfinite(poses).all(axis=(1, 2)))
    if len(broken):
        raise ValueError(f"camera_to_world of frames {broken.tolist()} is not finite; leave these frames out")
    rotation = poses[:, :3, :3].astype(np.float64)
    skew = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max(axis=(1, 2))
    flat_row = np.abs(poses[:, 3] - np.array([0, 0, 0, 1])).max(axis=1)
    bad = np.flatnonzero((skew > RIGID_TOLERANCE) | (np.linalg.det(rotation) < 0) | (flat_row > 1e-6))
    if len(bad):
        raise ValueError(
            f"camera_to_world of frames {bad.tolist()} is not a rigid motion: the upper left 3 x 3 part must be a "
            f"rotation (off by {skew[bad].max():.2g}), the last row 0 0 0 1; remove scaling and mirroring"
        )
    return poses


def _checked_boxes(boxes) -> np.ndarray:
    boxes = np.asarray(boxes, dtype=np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 6:
        raise ValueError(f"boxes must have shape (N, 6): cx, cy, cz, dx, dy, dz, got {boxes.shape}")
    if not np.isfinite(boxes).all() or (boxes[:, 3:] < 0).any():
        raise ValueError("boxes must be finite, with sizes that are not negative")
    return boxes


def _chosen_names(folder: Path, indices: Sequence[int] | None, frame_names: Sequence[str] | None) -> list[str]:
    if indices is not None and frame_names is not None:
        raise ValueError("give indices or frame_names, not both")
    if frame_names is not None:
        absent = [name for name in frame_names if not (folder / f"{name}.jpg").is_file()]
        if absent or not len(frame_names):
            raise FileNotFoundError(f"{folder} lacks the frames {absent}" if absent else "frame_names names no frame")
        return list(frame_names)
    names = sorted(file.stem for file in folder.glob("*.jpg") if file.stem.isdigit())
    if not names:
        raise FileNotFoundError(f"{folder} holds no frames; expected files such as 00000.jpg")
    if indices is None:
        return names
    if any(not 0 <= i < len(names) for i in indices):
        raise ValueError(f"indices must lie in [0, {len(names)}), got {list(indices)}")
    return [names[i] for i in indices]


def _wants(folder: Path, names: list[str], parts: Collection[str] | None, part: str, suffix: str) -> bool:
    """Whether to read this part: what is named must be there for all frames, what is not named for all or for none."""
    if parts is not None and part not in parts:
        return False
    missing = [name for name in names if not (folder / f"{name}{suffix}").is_file()]
    if missing and (parts is not None or len(missing) < len(names)):
        what = {"depth": "depth", "camera_to_world": "pose"}[part]
        raise FileNotFoundError(
            f"{folder} lacks {what} files for frames {missing}; remove these frames or add {suffix}"
        )
    return not missing


def _read_image(file: Path, mode: str | None) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return np.asarray(image if mode is None else image.convert(mode))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # the last one is how PNG chunks break
        raise ValueError(f"{file} cannot be read as an image ({error}); is it complete?") from error


def _read_depth(file: Path) -> np.ndarray:
    depth_millimetres = _read_image(file, None)
    if depth_millimetres.ndim != 2 or depth_millimetres.dtype not in (np.uint16, np.int32):
        kind = f"{depth_millimetres.dtype} {depth_millimetres.shape}"
        raise ValueError(f"{file} must be a 16-bit grey PNG of millimetres, got {kind}")
    return depth_millimetres


def _read_matrix(file: Path, sides: tuple[int, ...]) -> np.ndarray:
    try:
        matrix = np.array([[float(x) for x in line.split()] for line in file.read_text().splitlines() if line.strip()])
    except ValueError as error:
        raise ValueError(f"{file} must hold a matrix of numbers, one row a line: {error}") from error
    if matrix.shape not in [(side, side) for side in sides]:
        wanted = " or ".join(f"{side} x {side}" for side in sides)
        raise ValueError(f"{file} must hold a {wanted} matrix, got shape {matrix.shape}")
    return matrix


def _stacked(images: list[np.ndarray], names: list[str]) -> np.ndarray:
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        raise ValueError(
            f"images of one scene must have one size, got {sorted(sizes)} in frames {names[0]}..{names[-1]}"
        )
    return np.stack(images)


def rescaled_intrinsics(intrinsics: np.ndarray, size: Sequence[int], new_size: Sequence[int]) -> np.ndarray:
    """Intrinsics (3, 3) of an image of `size` (height, width) after it is resized to `new_size`."""
    scaled = np.array(intrinsics, np.float64)
    for axis, factor in enumerate((new_size[1] / size[1], new_size[0] / size[0])):
        scaled[axis, axis] *= factor
        scaled[axis, 2] = (scaled[axis, 2] + 0.5) * factor - 0.5
    return scaled


def _folder_intrinsics(folder: Path, frame_size, depth_size) -> np.ndarray | None:
    """Intrinsics (3, 3) of the frames' pixels, from the colour camera or else from the depth camera."""
    colour, scaled = folder / "intrinsic.txt", None
    if depth_size is not None and (folder / "depth_intrinsic.txt").is_file():
        stored = _read_matrix(folder / "depth_intrinsic.txt", (3, 4))[:3, :3]
        scaled = rescaled_intrinsics(stored, depth_size, frame_size)
    if not colour.is_file():
        return scaled
    intrinsics = _read_matrix(colour, (3, 4))[:3, :3]
    if scaled is not None:
        ratio = intrinsics[[0, 1], [0, 1]] / scaled[[0, 1], [0, 1]]
        if np.abs(ratio - 1).max() > _FIELD_OF_VIEW_TOLERANCE:
            logger.warning("%s: fields of view of colour and depth differ (focal length ratios %s)", folder, ratio)
    return intrinsics
