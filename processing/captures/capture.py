"""`Capture`: what a folder or file of some format holds, before its pixels are read."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from processing.argument_rules import check_flag, check_number, check_texts
from processing.frame_order_ide3d import check_count, check_indices, find_uniform_indices
from processing.geometry_rules import as_float32, check_same_view, find_nonfinite, rescaled_intrinsics
from processing.limits import check_bound
from processing.posed_video import PosedVideo
from processing.scene_folders import stack_images

__all__ = ["PARTS", "Capture"]

logger = logging.getLogger(__name__)

PARTS = ("depth", "camera_to_world")
_SLOW = 2.0  # Seconds of reading after which progress is shown.


@dataclass(frozen=True, eq=False)
class Capture:
    """Frames of one capture in order, with cameras and poses; pixels are read by `load`.

    Attributes:
        format: Name of the format, a key of `FORMATS`.
        path: Folder or file.
        frame_names: Name of each frame (V), such as its file without ending.
        read_frames: Function of increasing indices that yields these frames, (h, w, 3) uint8 RGB.
        read_depth: Function of an index that returns z-depth (hd, wd) float32 in metres, 0 = no measurement; None =
            the capture has no depth.
        intrinsics: Cameras (V, 3, 3), pixels, integer coordinates are pixel centres; None = unknown.
        camera_size: Height and width of the pictures whose pixels `intrinsics` count; None = the frames.
        camera_to_world: Poses (V, 4, 4), OpenCV axes, metres; NaN or Inf where a frame has none; None = no poses.
        is_metric: Whether lengths are in metres. Reconstructions from pictures alone have a unit of their own.
        notes: Sentences about what was read and what was left out.
    """

    format: str
    path: Path
    frame_names: tuple[str, ...]
    read_frames: Callable[[Sequence[int]], Iterator[np.ndarray]]
    read_depth: Callable[[int], np.ndarray] | None = None
    intrinsics: np.ndarray | None = None
    camera_size: tuple[int, int] | None = None
    camera_to_world: np.ndarray | None = None
    is_metric: bool = True
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frame_names)

    def with_notes(self, *notes: str) -> "Capture":
        """Return the capture with further notes; empty ones do not count."""
        return replace(self, notes=(*self.notes, *filter(None, notes)))

    @property
    def scene_id(self) -> str | None:
        """Name of the scene: that of the folder, or of the file without its ending."""
        path = self.path.resolve()
        return (path.name if path.is_dir() else path.stem) or None

    def load(
        self,
        frames: int | Sequence[int] | None = None,
        *,
        parts: Collection[str] | None = None,
        skip_invalid_poses: bool = False,
        intrinsics: Any = None,
        scale: float | None = None,
    ) -> PosedVideo:
        """Read frames of the capture; the arguments are those of `open_capture`."""
        parts = PARTS if parts is None else check_texts(parts, "parts", PARTS)
        self._check_parts(parts, intrinsics)
        factor = self._check_scale(scale, parts)
        skip = check_flag(skip_invalid_poses, "skip_invalid_poses") and "camera_to_world" in parts
        index = self.choose(frames, skip_invalid_poses=skip)
        names = [self.frame_names[i] for i in index]
        if "camera_to_world" in parts:
            self._check_tracked(index)
        pictures = self._read_pictures(index, names)
        depth = poses = cameras = None
        if "depth" in parts and self.read_depth is not None:
            maps = tqdm(index, desc=f"{self.path.name}: depth", delay=_SLOW, leave=False)
            depth = stack_images([self.read_depth(i) for i in maps], names) * np.float32(factor)
        if "camera_to_world" in parts and self.camera_to_world is not None:
            poses = np.array(self.camera_to_world[index], np.float64)
            poses[:, :3, 3] *= factor
        if parts:
            cameras = self._take_cameras(index, pictures.shape[1:3], intrinsics)
        for note in self.notes:
            logger.info("%s: %s", self.path, note)
        return PosedVideo(pictures, depth, cameras, poses, frame_names=tuple(names), scene_id=self.scene_id)

    def choose(self, frames: int | Sequence[int] | None, *, skip_invalid_poses: bool = False) -> list[int]:
        """Return the indices of the frames that `load` reads."""
        is_valid = np.ones(len(self), bool)
        if skip_invalid_poses and self.camera_to_world is not None:
            is_valid[find_nonfinite(self.camera_to_world)] = False
            if not is_valid.any():
                raise ValueError(f"{self.path}: no frame has a valid pose. Read it without poses, by `parts=()`.")
        there = np.flatnonzero(is_valid)
        if frames is None:
            index = there.tolist()
        elif isinstance(frames, int | np.integer) and not isinstance(frames, bool):
            check_count(frames, "frames")
            index = there[find_uniform_indices(len(there), int(frames))].tolist()
        else:
            index = [i for i in check_indices(frames, len(self), "`frames`") if is_valid[i]]
            if not index:
                raise ValueError(f"{self.path}: none of the chosen `frames` has a valid pose. Choose others.")
        if lost := int((~is_valid).sum()):
            logger.warning("%s: left out %d of %d frames without a valid pose", self.path, lost, len(self))
        return index

    def _check_tracked(self, index: Sequence[int]) -> None:
        """Raise ValueError where a chosen frame has no finite pose, before pixels are read."""
        lost = [] if self.camera_to_world is None else find_nonfinite(self.camera_to_world[index])
        if len(lost):
            names = [self.frame_names[index[place]] for place in lost[:9]]
            raise ValueError(
                f"{self.path}: `camera_to_world` of {len(lost)} frames, such as {names}, is not finite: tracking was "
                "lost. `skip_invalid_poses=True` leaves them out, `parts` reads the capture without poses."
            )

    def _check_parts(self, parts: Collection[str], intrinsics: Any) -> None:
        if intrinsics is not None and not parts:
            raise ValueError("`intrinsics` are of no use to frames alone: leave them or `parts=()` out.")

    def _check_scale(self, scale: float | None, parts: Collection[str]) -> float:
        """Return the factor of lengths; warn where they are not in metres."""
        if scale is None:
            if not self.is_metric and parts and self.camera_to_world is not None:
                logger.warning(
                    "%s: lengths are in a unit of its own, not in metres. Give `scale`, metres of that unit, or train "
                    "terms that know no scale.",
                    self.path,
                )
            return 1.0
        return check_number(scale, "scale", "metres of one unit of the capture", above=0)

    def _read_pictures(self, index: Sequence[int], names: list[str]) -> np.ndarray:
        """Return frames (V, h, w, 3) in the order of `index`."""
        order = sorted(set(index))
        bar = tqdm(self.read_frames(order), desc=self.path.name, total=len(order), delay=_SLOW, leave=False)
        read: dict[int, np.ndarray] = {}
        for place, picture in zip(order, bar, strict=True):
            if not read:
                size = f"{picture.shape[0]} x {picture.shape[1]}"
                what = f"{self.path}: {len(index)} frames of {size} (choose some by `frames`)"
                check_bound(len(index) * picture.nbytes, "IDE3D_MAX_UNPACKED_BYTES", what)
            read[place] = picture
        return stack_images([read[i] for i in index], names)

    def _take_cameras(self, index: Sequence[int], size: tuple[int, int], given: Any) -> np.ndarray | None:
        """Return cameras (V, 3, 3) of the pixels of the frames read, or None."""
        if given is not None:
            cameras = as_float32(given, "intrinsics")
            if cameras.shape not in ((3, 3), (len(self), 3, 3)):
                raise ValueError(
                    f"`intrinsics` must have shape (3, 3), or ({len(self)}, 3, 3) for the frames of the capture, got "
                    f"{cameras.shape}."
                )
            return cameras if cameras.ndim == 2 else cameras[index]
        if self.intrinsics is None:
            return None
        cameras = np.array(self.intrinsics[index], np.float64)
        if self.camera_size is not None and tuple(self.camera_size) != tuple(size):
            check_same_view(self.camera_size, size, name="the camera's pictures")
            cameras = rescaled_intrinsics(cameras, self.camera_size, size)
        return cameras
