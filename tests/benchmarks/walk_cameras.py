"""Statistics of the cameras of a real walk: pitch, roll, height, field of view, steps, and holes in depth.

    python tests/benchmarks/walk_cameras.py --data path/to/walk

The walk is a capture with depth and poses of any format that `open_capture` reads. Nothing is read from its colours.
Up is where most surfaces within 30 degrees of the cameras' mean upward direction point to. The floor is the lowest
level at which such surfaces are common. `processing.rooms.walks` has ranges that were set by this table.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from processing import PosedVideo  # noqa: E402
from processing.captures import open_capture  # noqa: E402
from processing.tables import format_number, markdown_table  # noqa: E402
from trainer.geometry import unproject_depth  # noqa: E402

POINTS = 80  # across a frame, whose normal is taken
SPREAD, CORE = 30.0, 10.0  # degrees around the first guess of up, and around each better one
LEVEL = 0.05  # metres
COMMON = 0.1  # of the points of the fullest level
QUANTILES = (0, 5, 25, 50, 75, 95, 100)


def _points_and_normals(video: PosedVideo) -> tuple[np.ndarray, np.ndarray]:
    """Return world points and unit normals (n, 3) towards the cameras, by neighbours in depth."""
    ratio = np.array(
        [have / shown for have, shown in zip(video.depth.shape[1:], video.frames.shape[1:3], strict=True)]
    )
    if not (ratio == 1).all():
        raise ValueError(
            f"Depth must have the size of the frames, {video.frames.shape[1:3]}, got {video.depth.shape}."
        )
    tensors = (torch.from_numpy(part) for part in (video.depth, video.intrinsics, video.camera_to_world))
    points = unproject_depth(*tensors).numpy()
    step = max(1, points.shape[2] // POINTS)
    points = points[:, ::step, ::step]
    across, down = points[:, :-1, 1:] - points[:, :-1, :-1], points[:, 1:, :-1] - points[:, :-1, :-1]
    points = points[:, :-1, :-1]
    normals = np.cross(across, down)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    to_camera = video.camera_to_world[:, None, None, :3, 3] - points
    with np.errstate(invalid="ignore", divide="ignore"):
        normals *= np.sign((normals * to_camera).sum(-1, keepdims=True)) / length
        close = np.linalg.norm(across, axis=-1) + np.linalg.norm(down, axis=-1) < 0.1 * np.linalg.norm(
            to_camera, axis=-1
        )
    good = np.isfinite(normals).all(-1) & close
    return points[good], normals[good]


def level(video: PosedVideo) -> PosedVideo:
    """Return the walk in a world whose z axis points up from the floor at z = 0.

    Args:
        video: Walk with geometry, cameras about upright.
    """
    points, normals = _points_and_normals(video)
    up = -video.camera_to_world[:, :3, 1].mean(0)
    for degrees in (SPREAD, CORE, CORE, CORE):
        up /= np.linalg.norm(up)
        up = normals[normals @ up > np.cos(np.deg2rad(degrees))].mean(0)
    up /= np.linalg.norm(up)
    heights = points[normals @ up > np.cos(np.deg2rad(CORE))] @ up
    counts, edges = np.histogram(heights, np.arange(heights.min(), heights.max() + 2 * LEVEL, LEVEL))
    lowest = int(np.flatnonzero(counts >= COMMON * counts.max())[0])
    floor = float(np.median(heights[(heights >= edges[lowest]) & (heights < edges[lowest] + 2 * LEVEL)]))
    ahead = np.cross(np.eye(3)[np.abs(up).argmin()], up)
    ahead /= np.linalg.norm(ahead)
    new_from_world = np.eye(4)
    new_from_world[:3, :3] = ahead, np.cross(up, ahead), up
    new_from_world[2, 3] = -floor
    poses = (new_from_world @ video.camera_to_world.astype(np.float64)).astype(np.float32)
    return PosedVideo(video.frames, video.depth, video.intrinsics, poses, scene_id=video.scene_id)


def describe(video: PosedVideo) -> dict[str, np.ndarray]:
    """Return what is tabulated, an array by name; the walk's z axis points up from the floor."""
    poses, (height, width) = video.camera_to_world, video.frames.shape[1:3]
    right, forward = poses[:, 2, 0], poses[:, 2, 2]
    turns = np.einsum("vji,vjk->vik", poses[:-1, :3, :3], poses[1:, :3, :3])
    cosines = np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)
    depth = video.depth
    return {
        "pitch, degrees, up": np.rad2deg(np.arcsin(np.clip(forward, -1, 1))),
        "roll, degrees": np.rad2deg(np.arctan2(right, -poses[:, 2, 1])),
        "height, metres": poses[:, 2, 3],
        "field of view across, degrees": 2 * np.rad2deg(np.arctan(width / 2 / video.intrinsics[:, 0, 0])),
        "field of view down, degrees": 2 * np.rad2deg(np.arctan(height / 2 / video.intrinsics[:, 1, 1])),
        "step, metres": np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1),
        "turn, degrees a step": np.rad2deg(np.arccos(cosines)),
        "median depth, metres": np.array([np.median(frame[frame > 0]) for frame in depth]),
        "pixels without depth, %": 100 * (depth == 0).mean((1, 2)),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Walk with depth and poses.")
    args = parser.parse_args()
    found = describe(level(open_capture(args.data)))
    rows = [
        [name, *(format_number(float(q), 2) for q in np.percentile(own, QUANTILES))] for name, own in found.items()
    ]
    sys.stdout.write(
        markdown_table(["frames", *(f"{q} %" for q in QUANTILES)], rows, "l" + "r" * len(QUANTILES)) + "\n"
    )


if __name__ == "__main__":
    main()
