"""Rooms seen by any camera, and how well a capture that was read back agrees with the room that was written."""

from functools import cache

import numpy as np

from processing import PosedVideo
from processing.geometry_rules import rescaled_intrinsics
from processing.rooms.generate import make_room
from processing.rooms.render.images import primitive_table, render
from processing.rooms.render.raycast import View, cast_view

# Odd on purpose: sides that differ, fx and fy that differ, a principal point that is in no middle.
SIZE = (72, 100)
CAMERA = np.array([[83.0, 0, 46.5], [0, 79.0, 37.25], [0, 0, 1]])


@cache
def _room():
    room, row = make_room("test", 0, 0, 64, 6)
    return room, primitive_table(room), np.asarray(row["camera_to_world"], np.float64)


def look(
    camera: np.ndarray = CAMERA, size: tuple[int, int] = SIZE, num_frames: int = 4, step: float = 0
) -> PosedVideo:
    """Frames of a room by any pinhole camera; depth is rounded to `step` metres, what a format can hold."""
    room, table, poses = _room()
    x, y = ((np.arange(size[1 - axis]) - camera[axis, 2]) / camera[axis, axis] for axis in (0, 1))
    views = [View(pose[:3, :3], pose[:3, 3], x, y) for pose in poses[:num_frames]]
    depth, winner = (np.stack(parts) for parts in zip(*(cast_view(view, table) for view in views), strict=True))
    seen = render(room, table, views, depth, winner)
    held = np.rint(depth.astype(np.float64) / step) * step if step else depth
    return PosedVideo(seen.frames, held.astype(np.float32), camera, poses[:num_frames])


def _unproject(video: PosedVideo) -> np.ndarray:
    """World points (V, h, w, 3) of a few pixels of the depth maps, float64."""
    height, width = video.depth.shape[1:]
    camera = rescaled_intrinsics(video.intrinsics, video.frames.shape[1:3], (height, width))
    v, u = np.meshgrid(np.arange(0, height, 5), np.arange(0, width, 5), indexing="ij")
    depth = video.depth[:, v, u].astype(np.float64)[..., None]
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(camera).transpose(0, 2, 1)[:, None]
    pose = video.camera_to_world.astype(np.float64)[:, None]
    return (rays * depth) @ pose[..., :3, :3].swapaxes(-1, -2) + pose[..., None, :3, 3]


def _project(video: PosedVideo, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the frames (V, n, 2) that points (n, 3) fall on, and their depth (V, n)."""
    to_camera = np.linalg.inv(video.camera_to_world.astype(np.float64))
    local = points @ to_camera[:, :3, :3].swapaxes(-1, -2) + to_camera[:, None, :3, 3]
    pixels = local @ video.intrinsics.astype(np.float64).swapaxes(-1, -2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return pixels[..., :2] / pixels[..., 2:], local[..., 2]


def reprojection_error(first: PosedVideo, second: PosedVideo) -> float:
    """Largest distance in pixels of where the two see the points that the first one measures."""
    points = _unproject(first)[first.depth[:, ::5, ::5] > 0]
    seen, depth = _project(first, points)
    other, _ = _project(second, points)
    height, width = first.frames.shape[1:3]
    is_inside = (depth > 0.1) & (seen > -1).all(-1) & (seen[..., 0] < width) & (seen[..., 1] < height)
    assert is_inside.sum() > len(points)  # each is seen by its own frame, many by others
    return float(np.linalg.norm(seen - other, axis=-1)[is_inside].max())


def check_same(read: PosedVideo, truth: PosedVideo, *, step: float = 0, colour: float = 0) -> None:
    """Assert that both see the same, in both directions to 1e-3 px; depth to half a step, colours on average."""
    assert read.frames.shape == truth.frames.shape
    assert reprojection_error(truth, read) < 1e-3
    assert np.abs(read.frames.astype(int) - truth.frames).mean() <= colour
    if read.depth is not None:
        assert reprojection_error(read, truth) < 1e-3
        np.testing.assert_allclose(read.depth, truth.depth, rtol=1e-6, atol=step / 2 + 1e-6)
        read.check()
