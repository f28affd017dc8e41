"""Pictures, cameras and poses turned by quarters about the viewing axis."""

import numpy as np

__all__ = ["find_turns", "turn_camera", "turn_poses"]

# Counter-clockwise by a quarter, as `numpy.rot90`: what was at the right is at the top. New from old camera axes.
_QUARTER = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def find_turns(camera_to_world: np.ndarray, up: np.ndarray) -> int:
    """Return how many counter-clockwise quarters bring up to the top in most frames.

    Args:
        camera_to_world: Poses (V, 4, 4), OpenCV axes; those that are not finite do not count.
        up: Direction (3,) in the world that points up.
    """
    poses = camera_to_world[np.isfinite(camera_to_world).all(axis=(1, 2))]
    x, y = (poses[:, :3, :3].transpose(0, 2, 1) @ up).sum(axis=0)[:2] if len(poses) else (0.0, -1.0)
    if abs(y) >= abs(x):
        return 0 if y <= 0 else 2
    return 1 if x > 0 else 3


def turn_camera(intrinsics: np.ndarray, size: tuple[int, int], turns: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Return cameras (V, 3, 3) and size of pictures after counter-clockwise quarters.

    Args:
        intrinsics: Cameras (V, 3, 3) before, integer coordinates are pixel centres.
        size: Height and width before.
        turns: Number of quarters.
    """
    cameras = np.array(intrinsics, np.float64)
    for _ in range(turns % 4):
        turned = np.tile(np.eye(3), (len(cameras), 1, 1))
        turned[:, 0, 0], turned[:, 1, 1] = cameras[:, 1, 1], cameras[:, 0, 0]
        turned[:, 0, 2], turned[:, 1, 2] = cameras[:, 1, 2], size[1] - 1 - cameras[:, 0, 2]
        cameras, size = turned, (size[1], size[0])
    return cameras, size


def turn_poses(camera_to_world: np.ndarray, turns: int) -> np.ndarray:
    """Return poses (V, 4, 4) of cameras after counter-clockwise quarters."""
    return camera_to_world @ np.linalg.matrix_power(_QUARTER.T, turns % 4)
