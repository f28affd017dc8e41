"""Scenes whose frames are painted with their depth, so that a token of mean colour tells the depth under it."""

import numpy as np

from processing import PosedVideo


def painted_scene(index: int, *, height: int = 48, width: int = 48, views: int = 3, holes: bool = False) -> PosedVideo:
    """Leaning planes of random tilt, red where they are far; cameras do not move.

    With `holes` the right third of every frame is not measured.
    """
    rng = np.random.default_rng(index)
    v, u = np.mgrid[:height, :width] / max(height, width) - 0.5
    log_depth = rng.uniform(0.3, 1.2, (views, 1, 1)) + rng.uniform(-0.9, 0.9, (views, 1, 1)) * u
    log_depth = log_depth + rng.uniform(-0.9, 0.9, (views, 1, 1)) * v
    depth = np.exp(log_depth).astype(np.float32)
    frames = rng.integers(0, 12, (views, height, width, 3)).astype(np.uint8)
    frames[..., 0] = np.clip((log_depth + 1) / 3.5, 0, 1) * 255
    if holes:
        depth[:, :, 2 * width // 3 :] = 0
    intrinsics = np.array([[50.0, 0, (width - 1) / 2], [0, 50, (height - 1) / 2], [0, 0, 1]])
    poses = np.tile(np.eye(4), (views, 1, 1))
    return PosedVideo(frames, depth, intrinsics, poses, scene_id=f"painted{index:03d}")
