"""A hand-held walk: a smooth path around the room, looking at what stands there."""

from functools import lru_cache

import numpy as np

from processing.rooms.scene.layout import Room

__all__ = ["draw_path", "look_at", "path_is_free", "path_shows"]

_CLEARANCE = 0.22  # metres between the lens and any bounding box


def look_at(positions: np.ndarray, targets: np.ndarray, rolls: np.ndarray) -> np.ndarray:
    """Aim cameras at positions (V, 3) at targets (V, 3), with rolls (V,) in radians.

    Returns:
        camera_to_world (V, 4, 4), OpenCV axes.
    """
    forward = (targets - positions).T
    forward = forward / np.sqrt((forward * forward).sum(axis=0))
    x, y, z = forward
    right, down = np.zeros_like(forward), np.empty_like(forward)
    right[0], right[1] = y, -x  # forward x up
    right /= np.sqrt((right * right).sum(axis=0))
    # forward x right; `right` is level.
    down[0], down[1], down[2] = -z * right[1], z * right[0], x * right[1] - y * right[0]
    cos, sin = np.cos(rolls), np.sin(rolls)
    poses = np.zeros((len(positions), 4, 4))
    poses[:, :3, 0], poses[:, :3, 1] = (cos * right + sin * down).T, (cos * down - sin * right).T
    poses[:, :3, 2], poses[:, :3, 3], poses[:, 3, 3] = forward.T, positions, 1
    return poses


def path_is_free(room: Room, positions: np.ndarray) -> bool:
    """Return whether all positions (V, 3) keep clear of walls and of every object's box."""
    area = np.array([room.shell.width, room.shell.depth, room.shell.height]) / 2
    away = area[:2] - np.abs(positions[:, :2])
    if (away < _CLEARANCE).any() or (positions[:, 2] > room.shell.height - 0.3).any():
        return False
    low, high = room.boxes
    inside = (positions[:, None] > low - _CLEARANCE) & (positions[:, None] < high + _CLEARANCE)
    return not inside.all(axis=2).any()


def path_shows(poses: np.ndarray, intrinsics: np.ndarray, points: np.ndarray, size: int) -> bool:
    """Return whether every point (k, 3) falls into some frame of a path, occlusion aside."""
    if not len(points):
        return True
    offsets = points[None] - poses[:, None, :3, 3]
    u, v, z = (offsets @ poses[:, :3, :3] @ intrinsics.T).transpose(2, 0, 1)
    half = z * size / 2
    inside = (z > 0) & (np.abs(u - half) < half) & (np.abs(v - half) < half)
    return bool(inside.any(axis=0).all())


@lru_cache(maxsize=8)
def _times(num_frames: int) -> np.ndarray:
    """Return the times (V,) of frames, from 0 to 1, not to be written to."""
    times = np.linspace(0, 1, num_frames)
    times.setflags(write=False)
    return times


def draw_path(rng: np.random.Generator, room: Room, num_frames: int) -> np.ndarray | None:
    """Draw the camera_to_world (V, 4, 4) of a walk, or None if it runs into something."""
    shell = room.shell
    half = np.array([shell.width, shell.depth]) / 2
    angle = rng.uniform(0, 2 * np.pi)
    # On a ring near the walls of a rectangle, so that most of the room lies in view.
    heading = np.array([np.cos(angle), np.sin(angle)])
    reach = (half - 0.3) / np.maximum(np.abs(heading), 1e-6)
    start = heading * reach.min() * rng.uniform(0.78, 1.0)
    tangent = np.array([-heading[1], heading[0]]) * (1 if rng.random() < 0.5 else -1)
    length = rng.uniform(0.2, 0.42) * (num_frames - 1)
    length = min(length, 2.2)
    time = _times(num_frames)
    bend = rng.uniform(-0.5, 0.2)
    flat = start + tangent * length * time[:, None] + heading * bend * (time**2)[:, None]
    phase = rng.uniform(0, 2 * np.pi, 3)
    height = rng.uniform(0.95, 1.75) + 0.05 * np.sin(time * 5 + phase[0]) + rng.uniform(-0.2, 0.2) * time
    positions = np.concatenate([flat, height[:, None]], axis=1)
    if not path_is_free(room, positions):
        return None
    ahead = room.centers[(room.centers[:, :2] - start) @ heading < -0.8]
    if len(ahead) < 3:
        return None
    chosen = np.concatenate([ahead[rng.permutation(len(ahead))[:3]], room.featured_centers])
    focus = chosen.mean(axis=0) + rng.normal(0, 0.15, 3)
    focus[2] = 0.4 * focus[2] + 0.6 * rng.uniform(0.2, 1.9)
    drift = rng.uniform(-0.6, 0.6, 3) * np.array([1, 1, 0.3])
    sway = 0.07 * np.sin(time[:, None] * np.array([6.0, 7.0, 8.0]) + phase)
    return look_at(positions, focus + drift * time[:, None] + sway, 0.02 * np.sin(time * 6 + phase[1]))
