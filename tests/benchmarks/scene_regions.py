"""What the region masks of a scene's boxes cost beside the reading of its files.

    PYTHONPATH=. python tests/benchmarks/scene_regions.py [--boxes 50] [--repeats 5]

A scene of ScanNet's sizes is written (32 pictures of 968 x 1296, depth of 480 x 640 with noise and holes, furniture as
boxes in a room) and read as `BenchmarkDataset` reads it. Processor time, one thread, medians of runs in turn, printed
as JSON: reading, masks of all boxes by cells and by poses, and the plain way, which tests every pixel against every
box. `share_that_differs` compares the masks. `sample_by_reading` is reading and masks against reading. Peaks are of
the tensors of all masks, beside the scene.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from step_cost import measure_peak

from processing import PosedVideo, TokenGrid
from processing.regions import MIN_SHARE, box_limits
from trainer.data.scene_regions import SceneRegions, measured_points

NUM_FRAMES, FRAME_SIZE, DEPTH_SIZE, STEP = 32, (968, 1296), (480, 640), 4
ROOM = np.array([6.0, 5.0, 2.7])
CAMERA = np.array([[577.0, 0, 319.5], [0, 577, 239.5], [0, 0, 1]])
GRID = TokenGrid(384, 14, 2)


def look_around(number: int) -> np.ndarray:
    """Return the pose of a camera on a walk through the room."""
    angle = 2 * np.pi * number / NUM_FRAMES
    forward = np.array([np.cos(angle), np.sin(angle), -0.35])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = 3 + 1.2 * np.cos(3 * angle), 2.5 + np.sin(3 * angle), 1.5
    return pose


def cast_depth(pose: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the depth (h, w) of walls and boxes, every few pixels one ray."""
    v, u = np.mgrid[: DEPTH_SIZE[0] : STEP, : DEPTH_SIZE[1] : STEP].astype(float)
    rays = np.stack([(u - CAMERA[0, 2]) / CAMERA[0, 0], (v - CAMERA[1, 2]) / CAMERA[1, 1], np.ones_like(u)], -1)
    rays, centre = rays @ pose[:3, :3].T, pose[:3, 3]
    with np.errstate(all="ignore"):
        depth = np.maximum(-centre / rays, (ROOM - centre) / rays).min(-1)
        for one, other in zip(low, high, strict=True):
            near, far = (one - centre) / rays, (other - centre) / rays
            enter, leave = np.minimum(near, far).max(-1), np.maximum(near, far).min(-1)
            depth = np.where((leave >= enter) & (enter > 0.1) & (enter < depth), enter, depth)
    return np.kron(depth, np.ones((STEP, STEP)))


def write_scene(folder: Path, boxes: np.ndarray) -> None:
    """Write the files of a scene in the layout of posed_images."""
    noise = np.random.default_rng(0)
    texture = np.kron(noise.integers(0, 256, (FRAME_SIZE[0] // 8, FRAME_SIZE[1] // 8, 3), np.uint8),
                      np.ones((8, 8, 1), np.uint8))  # fmt: skip
    low, high = boxes[:, :3] - boxes[:, 3:] / 2, boxes[:, :3] + boxes[:, 3:] / 2
    for number in range(NUM_FRAMES):
        pose = look_around(number)
        depth = cast_depth(pose, low, high) + noise.normal(0, 0.004, DEPTH_SIZE)
        depth[noise.random(DEPTH_SIZE) < 0.05] = 0
        name = folder / f"{10 * number:05d}"
        Image.fromarray(np.roll(texture, 13 * number, 1)).save(name.with_suffix(".jpg"), quality=90)
        Image.fromarray(np.rint(depth.clip(0) * 1000).astype(np.uint16)).save(name.with_suffix(".png"))
        np.savetxt(name.with_suffix(".txt"), pose)
    camera = np.eye(4)
    camera[:3, :3] = CAMERA
    np.savetxt(folder / "depth_intrinsic.txt", camera)


def plain_masks(boxes: torch.Tensor, scene: PosedVideo) -> torch.Tensor:
    """Return masks by testing every point against every box."""
    points, (low, high) = measured_points(scene), box_limits(boxes)
    index = GRID.token_index(scene.depth.shape[1:])
    index = torch.where(index < 0, GRID.rows * GRID.cols, index).flatten()
    size = torch.bincount(index, minlength=GRID.rows * GRID.cols + 1)
    masks = []
    for one, other in zip(low, high, strict=True):
        inside = ((points >= one) & (points <= other)).all(-1).flatten(1).int()
        counts = torch.zeros(len(points), len(size), dtype=torch.int32)
        counts.scatter_add_(1, index.expand(inside.shape), inside)
        masks.append(counts[:, :-1] >= (size[:-1].double() * MIN_SHARE).floor().clamp(min=1))
    return torch.stack(masks).view(len(boxes), len(points), *GRID.shape)


def time_in_turn(tasks: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the median seconds of each task, and its last result."""
    seconds, results = {name: [] for name in tasks}, {}
    for _ in range(repeats):
        for name, task in tasks.items():
            start = time.process_time()
            results[name] = task()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}, results


def main() -> None:
    """Measure one scene."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    noise = np.random.default_rng(1)
    centres = noise.uniform((0.4, 0.4, 0.2), (5.6, 4.6, 1.2), (given.boxes, 3))
    boxes = np.concatenate([centres, noise.uniform(0.2, 1.1, (given.boxes, 3))], 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "scene0000_00"
        folder.mkdir()
        write_scene(folder, boxes)
        scene = PosedVideo.from_folder(folder)
        kept = SceneRegions(scene, GRID, "depth", "clean")
        kept.masks(boxes[:1])
        around = iter(range(10**6))  # other boxes each time: the last masks are kept

        def kept_masks() -> torch.Tensor:
            kept.masks(boxes[: 1 + next(around) % 2])
            return kept.masks(boxes)

        def cell_masks() -> torch.Tensor:
            return SceneRegions(scene, GRID, "depth", "clean").masks(boxes)

        def box_masks() -> torch.Tensor:
            return plain_masks(torch.from_numpy(boxes), scene)

        seconds, results = time_in_turn(
            {
                "reading": lambda: PosedVideo.from_folder(folder),
                "reading_without_depth": lambda: PosedVideo.from_folder(folder, parts=["camera_to_world"]),
                "masks": cell_masks,
                "masks_of_one_box": lambda: SceneRegions(scene, GRID, "depth", "clean").masks(boxes[:1]),
                "masks_of_a_kept_scene": kept_masks,
                "masks_by_poses": lambda: SceneRegions(scene, GRID, "poses", "clean").masks(boxes),
                "plain_masks": box_masks,
            },
            given.repeats,
        )
        peaks = {"masks": measure_peak(cell_masks), "plain_masks": measure_peak(box_masks)}
    reading = seconds["reading"]
    result = {
        "boxes": given.boxes,
        "cpu_s": {name: round(value, 4) for name, value in seconds.items()},
        "peak_mb": {name: round(value, 1) for name, value in peaks.items()},
        "sample_by_reading": round(1 + seconds["masks"] / reading, 3),
        "sample_by_reading_by_poses": round(1 + seconds["masks_by_poses"] / seconds["reading_without_depth"], 3),
        "plain_sample_by_reading": round(1 + seconds["plain_masks"] / reading, 3),
        "masks_by_plain": round(seconds["masks"] / seconds["plain_masks"], 4),
        "share_that_differs": float((results["masks"] != results["plain_masks"]).float().mean()),
    }
    sys.stdout.write(f"{json.dumps(result, indent=1)}\n")


if __name__ == "__main__":
    main()
