"""The depth that a model of a training believes, as points: its validator is in checkpoints, never in exports."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from processing import IDE3DProcessor, TokenGrid
from processing.argument_rules import check_whole
from processing.geometry_rules import as_float32, check_intrinsics
from trainer.drawing.drawing import PointCloud
from trainer.geometry import scale_intrinsics, unproject_depth
from trainer.loop.checkpoints import load_depth_model

__all__ = ["guess_intrinsics", "predict_points"]

FRAMES_AT_ONCE = 8
MAX_DEPTH = 10.0  # metres; measurements beyond it train nothing


def guess_intrinsics(frame_size: tuple[int, int], field_of_view: float) -> np.ndarray:
    """Return a camera (3, 3) of square pixels that has a horizontal field of view.

    Its axis goes through the middle of the frame.

    Args:
        frame_size: Height and width of the frames in pixels.
        field_of_view: Angle between the left and the right border in degrees, from 15 to 150.

    Raises:
        ValueError: If the angle lies outside of that range.
    """
    if not 15 <= field_of_view <= 150:
        raise ValueError(f"`field_of_view` must be from 15 to 150 degrees, got {field_of_view!r}.")
    height, width = frame_size
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], np.float32)


@torch.no_grad()
def predict_points(
    checkpoint: str | Path, frames: np.ndarray, intrinsics: np.ndarray, *, max_points: int = 200_000
) -> PointCloud:
    """Return the points that the geometric validator of a training checkpoint sees in frames.

    The depth is what the weak decoder reads from the vision tower's features. It is a belief, no measurement.

    Args:
        checkpoint: Folder `checkpoint-N` of a training with a validator.
        frames: Frames, uint8 (V, h, w, 3).
        intrinsics: Cameras (V, 3, 3) or one (3, 3), in pixels of the frames. Where they are guessed, the points are
            wider or narrower than the room.
        max_points: Points to keep at most, sampled evenly.

    Raises:
        FileNotFoundError: If the folder holds no validator.
        OSError: If a file of the folder is damaged.
        TypeError: If frames are not uint8, intrinsics no numbers, or `max_points` no integer.
        ValueError: If shapes differ, or `max_points` is below 1.
    """
    max_points = check_whole(max_points, "max_points", 1)
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise TypeError(f"`frames` must be an array of uint8 (V, h, w, 3), got {_name(frames)}.")
    cameras = as_float32(intrinsics, "intrinsics")
    cameras = np.repeat(cameras[None], len(frames), axis=0) if cameras.shape == (3, 3) else cameras
    check_intrinsics(cameras, len(frames), frames.shape[1:3])
    model, processor = load_depth_model(checkpoint), IDE3DProcessor.from_pretrained(checkpoint)
    depth = _predict(model, processor, frames)
    grid, (height, width) = TokenGrid.of(processor), frames.shape[1:3]
    # Predictions cover the whole patches of the picture that the tower sees, frames squashed to its size.
    rows = grid.covered_size[0] / depth.shape[1] * height / grid.image_size[0]
    cols = grid.covered_size[1] / depth.shape[2] * width / grid.image_size[1]
    scaled = scale_intrinsics(torch.from_numpy(cameras), 1 / cols, 1 / rows)
    points = unproject_depth(depth, scaled)
    v = ((np.arange(depth.shape[1]) + 0.5) * rows).astype(int).clip(max=height - 1)
    u = ((np.arange(depth.shape[2]) + 0.5) * cols).astype(int).clip(max=width - 1)
    colours = frames[:, v[:, None], u].reshape(-1, 3)
    frame_of = np.repeat(np.arange(len(frames)), depth[0].numel())
    is_near = ((depth > 0) & (depth < MAX_DEPTH)).flatten().numpy()
    kept = np.flatnonzero(is_near)
    kept = np.sort(np.random.default_rng(0).permutation(kept)[:max_points])
    return PointCloud(points.reshape(-1, 3).numpy()[kept], colours[kept], frame_of[kept])


def _predict(
    model: IDE3DForConditionalGenerationWithGeometry, processor: IDE3DProcessor, frames: np.ndarray
) -> torch.Tensor:
    """Return the depth (V, h, w) that the validator predicts, metres, float32."""
    pixels = processor.video_processor([frames], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
    chunks = pixels.to(model.device, model.dtype).split(FRAMES_AT_ONCE, dim=1)
    return torch.cat([model.predict_depth(chunk).depth[0].float().cpu() for chunk in chunks])


def _name(value: Any) -> str:
    return f"{type(value).__name__} {getattr(value, 'dtype', '')} {getattr(value, 'shape', '')}".strip()
