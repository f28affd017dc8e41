"""Measure how well regions of token cells lead back to boxes, by the share of points that lifting leaves out.

    python tests/benchmarks/lifted_regions.py --num-rooms 40

Regions are those of true objects in training rooms, so that what is lost is lost by cells and by lifting alone.
"""

import argparse

import numpy as np
from tqdm import tqdm

from processing import PosedVideo
from processing.boxes import box_iou, reaches
from processing.regions import regions_from_ids
from processing.rooms import load_rooms
from processing.tables import markdown_table
from processing.token_grid import TokenGrid
from trainer.data.scene_regions import SceneRegions

SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
MIN_SHARE = 0.01  # of a frame, that an object takes in one at least


def main() -> None:
    """Print overlap and centre error of lifted true regions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-rooms", type=int, default=40)
    parser.add_argument("--start", type=int, default=3000, help="index of the first training room")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--patch-size", type=int, default=8)
    parser.add_argument("--num-frames", type=int, default=4)
    given = parser.parse_args()
    grid = TokenGrid(given.image_size, given.patch_size, 1)
    options = {"image_size": given.image_size, "num_frames": given.num_frames}
    found: dict[float, list[tuple[float, float]]] = {share: [] for share in SHARES}
    for row in tqdm(load_rooms("train", given.num_rooms, start=given.start, **options), desc="Rooms"):
        frames, depth, ids = (np.stack([np.asarray(p) for p in row[k]]) for k in ("frames", "depth", "instance_ids"))
        cameras, poses = (np.asarray(row[key], np.float64) for key in ("intrinsics", "camera_to_world"))
        regions = SceneRegions(PosedVideo(frames, depth, cameras, poses), grid, "depth", "clean")
        for thing in row["objects"]:
            if (ids == thing["id"]).mean((1, 2)).max() < MIN_SHARE:
                continue
            (mask,) = regions_from_ids(ids, [thing["id"]], grid)
            for share in SHARES:
                box = regions.enclosing_box(mask, share)
                overlap = float(box_iou([box], [thing["box"]])[0, 0])
                found[share].append((overlap, float(np.linalg.norm(np.subtract(box[:3], thing["box"][:3])))))
    rows = []
    for share, pairs in found.items():
        overlaps, errors = np.array(pairs).T
        hits = [f"{100 * np.mean([reaches(o, limit) for o in overlaps]):.1f}" for limit in (0.25, 0.5)]
        rows.append([f"{share:.2f}", *hits, f"{np.median(errors):.2f}"])
    head = ("left out at each end", "IoU 0.25, %", "IoU 0.5, %", "median centre error, m")
    print(f"{len(pairs)} objects\n\n{markdown_table(head, rows, 'rrrr')}")  # noqa: T201


if __name__ == "__main__":
    main()
