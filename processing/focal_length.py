"""Fields of view: frames squashed to a square vision input as they are, or unified to one focal length before.

A picture alone does not say how far away things are: a lens of twice the focal length shows a chair as large at twice
the distance. The video processor squashes each frame to its square (`squash`). A model then has to guess the lens, or
has to have seen one lens only. `unify` first cuts or pads each frame to a *window*, whose width and height are the
same multiple of the focal length for all lenses. A pixel is then the same angle in every video.

`unify` needs the focal length of the lens, from a picture's metadata or from the field of view on its data sheet. It
needs neither depth nor poses.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from processing.argument_rules import check_number, check_whole
from processing.box_rules import check_frame_size
from processing.geometry_rules import check_intrinsics

__all__ = ["FOCAL_SHARE", "FieldOfView", "FocalWindow", "intrinsics_of_view", "unify_focal_length"]

FieldOfView = Literal["squash", "unify"]
FOCAL_SHARE = 0.74  # focal length by width of a unified picture: 68 degrees, the rooms' lens and about that of phones
_MAX_AREA = 16  # window by frame; a frame that fills less of its window is a few pixels of the vision input
_SAME_LENS = 0.01  # relative difference of focal lengths within a video
_GREY = 127  # of padding; about zero after normalisation


@dataclass(frozen=True)
class FocalWindow:
    """Rectangle of a frame's pixels, which may reach beyond the frame.

    Args:
        top: First row; negative above the frame.
        left: First column; negative left of the frame.
        height: Rows.
        width: Columns.
    """

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def of(cls, intrinsics: Any, frame_size: Any, focal_share: float = FOCAL_SHARE) -> "FocalWindow":
        """Return the window of `1 / focal_share` focal lengths a side around the principal point.

        Args:
            intrinsics: Cameras (V, 3, 3) of a video, pixels of its frames; integer coordinates are pixel centres.
            frame_size: Height and width of the frames in pixels.
            focal_share: Focal length by width of the window, and by its height.

        Raises:
            TypeError: If `focal_share` is no number.
            ValueError: If the cameras are no pinhole cameras of such frames, are of several lenses, or the share is
                not positive; or if the window would be larger than 16 frames, or below a pixel.
        """
        height, width = check_frame_size(frame_size)
        check_intrinsics(intrinsics, frame_size=(height, width))
        cameras = np.asarray(intrinsics, np.float64)
        focal_share = check_number(focal_share, "focal_share", "focal length by width", above=0)
        focal = cameras[:, (0, 1), (0, 1)]
        if (np.ptp(focal, axis=0) > _SAME_LENS * focal[0]).any():
            raise ValueError(
                f"`intrinsics` must be of one lens, got focal lengths from {focal.min(0)} to {focal.max(0)} pixels. "
                "Unify the frames of each lens by themselves."
            )
        center = cameras[0, :2, 2] + 0.5  # of pixel edges
        columns, rows = (round(float(length) / focal_share) for length in focal[0])
        if min(rows, columns) < 1 or rows * columns > _MAX_AREA * height * width:
            raise ValueError(
                f"`intrinsics`, `focal_share`: a window of {rows} x {columns} pixels for frames of {height} x {width} "
                f"is below a pixel or larger than {_MAX_AREA} frames. Is the focal length in pixels of these frames?"
            )
        return cls(round(center[1] - rows / 2), round(center[0] - columns / 2), rows, columns)

    def cut(self, pictures: np.ndarray, fill: float = 0) -> np.ndarray:
        """Return what the window shows of pictures (V, h, w, ...), `fill` beyond them.

        Nothing is resampled, so that depth and instance ids stay what they are.
        """
        pictures = np.asarray(pictures)
        cut = np.full((len(pictures), self.height, self.width, *pictures.shape[3:]), fill, pictures.dtype)
        inside, shown = [], []  # the same pixels in the window and in the pictures
        corner = zip((self.top, self.left), (self.height, self.width), pictures.shape[1:3], strict=True)
        for start, length, side in corner:
            first, last = max(start, 0), max(min(start + length, side), max(start, 0))
            inside.append(slice(first - start, last - start))
            shown.append(slice(first, last))
        cut[:, inside[0], inside[1]] = pictures[:, shown[0], shown[1]]
        return cut

    def move(self, intrinsics: Any) -> np.ndarray:
        """Return the cameras (V, 3, 3) of the window's pixels, float32."""
        moved = np.array(intrinsics, np.float32)
        moved[:, 0, 2] -= self.left
        moved[:, 1, 2] -= self.top
        return moved


def unify_focal_length(
    frames: np.ndarray, intrinsics: Any, focal_share: float = FOCAL_SHARE
) -> tuple[np.ndarray, np.ndarray]:
    """Cut or pad frames so that all lenses show the same angle.

    The result is squashed to the vision input as any other frames; its sides are whole pixels, so that the focal
    length is off by half a pixel at most.

    Args:
        frames: Frames (V, h, w, 3) uint8.
        intrinsics: Cameras (V, 3, 3), pixels of the frames; see `intrinsics_of_view` where only an angle is known.
        focal_share: Focal length by width, and by height, of the result.

    Returns:
        Frames (V, rows, columns, 3), grey beyond the given ones, and their cameras (V, 3, 3) float32.

    Raises:
        TypeError: If `frames` is no array of uint8, or `focal_share` no number.
        ValueError: If `frames` has another shape; see `FocalWindow.of`.
    """
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        raise TypeError(f"`frames` must be an array of uint8, got {getattr(frames, 'dtype', type(frames).__name__)}.")
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"`frames` must have shape (V, h, w, 3), got {frames.shape}.")
    check_intrinsics(intrinsics, num_frames=len(frames))
    window = FocalWindow.of(intrinsics, frames.shape[1:3], focal_share)
    return window.cut(frames, _GREY), window.move(intrinsics)


def intrinsics_of_view(frame_size: Any, degrees: float, num_frames: int = 1) -> np.ndarray:
    """Return cameras (num_frames, 3, 3) of square pixels from a horizontal field of view, float32.

    Args:
        frame_size: Height and width of the upright frames in pixels.
        degrees: Angle between the left and the right border.
        num_frames: Number of frames.

    Raises:
        TypeError: If `degrees` is no number, or `num_frames` no integer.
        ValueError: If the size is none, the angle not between 1 and 179, or there is no frame.

    Example:
        >>> intrinsics_of_view((480, 640), 90)[0, 0].tolist()
        [320.0, 0.0, 319.5]
    """
    height, width = check_frame_size(frame_size)
    num_frames = check_whole(num_frames, "num_frames", 1)
    degrees = check_number(degrees, "degrees", "the horizontal field of view", least=1, largest=179)
    focal = width / 2 / math.tan(math.radians(degrees) / 2)
    camera = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], np.float32)
    return np.repeat(camera[None], num_frames, axis=0)
