"""A hand-held walk: a smooth path around the room, looking at what stands there."""

from __future__ import annotations

import numpy as np

from processing.rooms.layout import Room

__all__ = ["draw_path", "look_at", "path_is_free"]

_CLEARANCE = 0.22  # metres between the lens and any bounding box


def look_at(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """camera_to_world (4, 4), OpenCV axes, of a camera at `position` that looks at `target`; roll in radians."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1] = cos * right + sin * down, cos * down - sin * right
    pose[:3, 2], pose[:3, 3] = forward, position
    return pose


def path_is_free(room: Room, positions: np.ndarray) -> bool:
    """Whether all positions (V, 3) keep clear of walls and of every object's box."""
    area = np.array([room.shell.width, room.shell.depth, room.shell.height]) / 2
    away = area[:2] - np.abs(positions[:, :2])
    if (away < _CLEARANCE).any() or (positions[:, 2] > room.shell.height - 0.3).any():
        return False
    for thing in room.objects:
        inside = (positions > thing.low - _CLEARANCE) & (positions < thing.high + _CLEARANCE)
        if inside.all(axis=1).any():
            return False
    return True


def draw_path(rng: np.random.Generator, room: Room, num_frames: int) -> np.ndarray | None:
    """camera_to_world (V, 4, 4) of a walk, or None if this draw runs into something."""
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
    time = np.linspace(0, 1, num_frames)
    bend = rng.uniform(-0.5, 0.2)
    flat = start + tangent * length * time[:, None] + heading * bend * (time**2)[:, None]
    phase = rng.uniform(0, 2 * np.pi, 3)
    height = rng.uniform(1.05, 1.95) + 0.05 * np.sin(time * 5 + phase[0]) + rng.uniform(-0.2, 0.2) * time
    positions = np.concatenate([flat, height[:, None]], axis=1)
    if not path_is_free(room, positions):
        return None
    focus = np.array([*(rng.uniform(-0.35, 0.35, 2) * half), rng.uniform(0.4, 1.35)])
    drift = rng.uniform(-0.6, 0.6, 3) * np.array([1, 1, 0.3])
    poses = []
    for i in range(num_frames):
        sway = 0.07 * np.sin(time[i] * np.array([6.0, 7.0, 8.0]) + phase)
        poses.append(look_at(positions[i], focus + drift * time[i] + sway, 0.02 * np.sin(time[i] * 6 + phase[1])))
    return np.stack(poses)
