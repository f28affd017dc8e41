"""Following a click through frames with depth and poses: how many of the followed cells show the place clicked on.

    python tests/benchmarks/follow_clicks.py path/to/posed_images_folder
    python tests/benchmarks/follow_clicks.py --num-rooms 100

It prints one JSON object, in percent with 95 % bands. The folder is one scene in the posed_images layout, cut into
short videos of as many frames as the model takes, `--gap` frames apart; each frame is in one video. A click is the
middle of a cell of one frame, where depth was measured; `SceneSession.follow` carries it to the other frames. The
model sees pictures alone.

Truth comes from depth and poses. A cell of another frame is at the truth if at least half of its measured pixels lie
within `--radius` metres of the point clicked on, in the world. What hides that point is seen in its place and lies
elsewhere, so nothing hidden counts. Cells of which less than a quarter is measured are left out, and so are clicks on
places that no other frame shows. A click on a long thing is followed rightly beyond the radius, and counts there as
wrong: `at_best` says what as many cells could reach.

Beside `followed` stand as many cells by other rules: `random`, `same_place` in the picture (of the nearest frames
first), `colour` (nearest mean colour), `pixels` (nearest picture of 4 x 4 pixels), `tokens` (most similar token, not
clustered). The bands are over videos: of one folder they say nothing about other places.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ide3d.nano import nano_model
from processing import PosedVideo, TokenGrid
from processing.proposals import Mark
from processing.rooms import load_rooms
from trainer.evaluation.metrics.scores import mean_score, summarise
from trainer.geometry import unproject_depth
from trainer.session import SceneSession, load_inference_model

LEAST_NEAR = 0.5  # of a cell's measured pixels
LEAST_MEASURED = 0.25  # of a cell's pixels
MAX_SIDE = 160  # pixels of a frame in which distances are measured
PATCH = 4  # pixels a side, of the picture of a cell
RULES = ("followed", "at_best", "tokens", "pixels", "colour", "same_place", "random")


@dataclass
class Surfaces:
    """Places in the world that the cells of a video show.

    Shape:
        points (V, P, 3), metres, NaN = not measured; cells (P,), cell of each of these pixels, -1 = unseen.
        middles (V, rows * cols, 3), metres, the place in the middle of each cell; pixels (rows * cols, 2), (v, u).
    """

    points: np.ndarray
    cells: np.ndarray
    middles: np.ndarray
    pixels: np.ndarray
    grid: TokenGrid

    @classmethod
    def of(cls, video: PosedVideo, grid: TokenGrid) -> "Surfaces":
        """Return the surfaces of a video whose depth has the size of its frames."""
        height, width = video.frames.shape[1:3]
        if video.depth.shape[1:] != (height, width):
            raise ValueError(f"Depth must have the size of the frames, {height} x {width}, got {video.depth.shape}.")
        tensors = (torch.from_numpy(part) for part in (video.depth, video.intrinsics, video.camera_to_world))
        points = unproject_depth(*tensors).numpy()
        index = grid.token_index((height, width)).numpy()
        rows, cols = np.divmod(np.arange(grid.rows * grid.cols), grid.cols)
        shares = [side / full for side, full in zip(grid.covered_size, grid.image_size, strict=True)]
        v = ((rows + 0.5) / grid.rows * shares[0] * height).astype(int)
        u = ((cols + 0.5) / grid.cols * shares[1] * width).astype(int)
        step = -(-max(height, width) // MAX_SIDE)
        thin = points[:, ::step, ::step].reshape(len(points), -1, 3)
        return cls(thin, index[::step, ::step].ravel(), points[:, v, u], np.stack([v, u], 1), grid)

    def count(self, flags: np.ndarray) -> np.ndarray:
        """Return how many pixels of each cell (V, rows * cols) have a flag (V, P)."""
        seen, number = self.cells >= 0, self.grid.rows * self.grid.cols
        counts = [np.bincount(self.cells[seen], own[seen], minlength=number) for own in flags.astype(float)]
        return np.stack(counts)

    def measured(self) -> np.ndarray:
        """Return which cells (V, rows * cols) have enough depth to know where they are."""
        has_depth = np.isfinite(self.points).all(-1)
        return self.count(has_depth) >= LEAST_MEASURED * self.count(np.ones_like(has_depth))

    def show(self, place: np.ndarray, radius: float) -> np.ndarray:
        """Return which cells (V, rows * cols) show what lies around a place (3,)."""
        with np.errstate(invalid="ignore"):
            near = ((self.points - place) ** 2).sum(-1) <= radius**2
        measured = self.count(np.isfinite(self.points).all(-1))
        return (self.count(near) >= LEAST_NEAR * measured) & (measured > 0)


def cut(video: PosedVideo, num_frames: int, gap: int) -> Iterator[PosedVideo]:
    """Yield videos of `num_frames` frames that are `gap` apart, none of which shares a frame with another."""
    span = num_frames * gap
    for start in range(0, len(video) - span + 1, span):
        for offset in range(gap):
            yield video.select_frames(range(start + offset, start + span, gap))


def similarities(session: SceneSession) -> dict[str, np.ndarray]:
    """Return vectors (V, rows * cols, C) of the cells by rule; near ones are alike."""
    grid, frames = session.token_grid, session.video.frames
    (height, width), size = grid.covered_size, (grid.cols * PATCH, grid.rows * PATCH)
    small = [Image.fromarray(f).resize(size, Image.Resampling.BOX, box=(0, 0, width, height)) for f in frames]
    pictures = np.stack([np.asarray(picture, np.float32) for picture in small])
    pictures = pictures.reshape(len(frames), grid.rows, PATCH, grid.cols, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
    pixels = pictures.reshape(len(frames), grid.rows * grid.cols, PATCH * PATCH, 3)
    tokens = session.video.tokens.reshape(len(frames), grid.rows * grid.cols, -1)
    return {
        "tokens": tokens / np.linalg.norm(tokens, axis=-1, keepdims=True),
        "pixels": pixels.reshape(*pixels.shape[:2], -1),
        "colour": pixels.mean(2),
    }


def judge(session: SceneSession, video: PosedVideo, radius: float) -> Iterator[dict[str, float | None]]:
    """Click on the middle of every measured cell of every frame, and follow."""
    grid, size = session.token_grid, video.frames.shape[1:3]
    surfaces = Surfaces.of(video, grid)
    known, vectors = surfaces.measured(), similarities(session)
    places = np.stack(np.unravel_index(np.arange(grid.rows * grid.cols), grid.shape), 1)
    for frame, cell in zip(*np.isfinite(surfaces.middles).all(-1).nonzero(), strict=True):
        others = known & (np.arange(len(known)) != frame)[:, None]
        true = surfaces.show(surfaces.middles[frame, cell], radius) & others
        if not true.any():
            continue
        v, u = (int(value) for value in surfaces.pixels[cell])
        followed = session.follow(Mark(int(frame), size, point=(u + 0.5, v + 0.5)))
        there = followed.mask.flatten(1).numpy() & others
        count = int(there.sum())
        entry = {"covered": (there & true).sum() / true.sum(), "is_object": followed.is_object, "cells": count}
        if count:
            away = np.abs(np.arange(len(known)) - frame)[:, None] / len(known)  # decides between equal places
            far = {name: np.linalg.norm(own - own[frame, cell], axis=-1) for name, own in vectors.items()}
            far["same_place"] = np.linalg.norm(places - places[cell], axis=-1)[None] + 1e-3 * away
            for name, distance in far.items():
                nearest = np.argsort(np.where(others, distance, np.inf), axis=None, kind="stable")[:count]
                entry[name] = true.ravel()[nearest].mean()
            entry["followed"] = (there & true).sum() / count
            entry["at_best"] = min(count, true.sum()) / count
            entry["random"] = true.sum() / others.sum()
        yield entry


def tabulate(clicks: list[dict], scenes: list[str]) -> dict:
    """Return shares in percent with bands over scenes, and the lead of what is followed over each rule."""
    carried = [index for index, entry in enumerate(clicks) if entry["cells"]]
    values = {name: np.array([clicks[index][name] for index in carried]) for name in RULES}
    leads = {f"lead over {name}": values["followed"] - values[name] for name in RULES[2:]}
    at_truth = summarise(
        {name: mean_score(own) for name, own in {**values, **leads}.items()}, [scenes[index] for index in carried]
    )
    covered = summarise({"covered": mean_score([entry["covered"] for entry in clicks])}, scenes)

    def tell(summary: dict, name: str) -> dict:
        ends = [None if end is None else round(end, 1) for end in summary["bands"][name]]
        return {"percent": round(summary[name], 1), "band": ends}

    return {
        "videos": len(set(scenes)),
        "clicks": len(clicks),
        "carried_to_other_frames": round(100 * len(carried) / len(clicks), 1),
        "called_object": round(100 * float(np.mean([entry["is_object"] for entry in clicks])), 1),
        "mean_cells": round(float(np.mean([clicks[index]["cells"] for index in carried])), 1),
        "cells_at_truth": {name: tell(at_truth, name) for name in (*values, *leads)},
        "truth_covered": tell(covered, "covered"),
    }


def list_videos(args: argparse.Namespace, image_size: int, num_frames: int) -> Iterable[PosedVideo]:
    """Return the videos of a folder, or those of rendered rooms."""
    if args.folder is None:
        rooms = load_rooms(args.split, args.num_rooms, image_size=image_size, num_frames=num_frames)
        return (PosedVideo.from_room(row) for row in rooms)
    video = PosedVideo.from_folder(args.folder, parts=("depth", "camera_to_world"))
    if len(video) < num_frames * args.gap:
        raise ValueError(f"{args.folder} has {len(video)} frames, less than {num_frames} that are {args.gap} apart.")
    return cut(video, num_frames, args.gap)


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="Scene in the posed_images layout. Default: rooms.")
    parser.add_argument("--model", default=str(nano_model()), help="Folder of an export. Default: the nano model.")
    parser.add_argument("--gap", type=int, default=3, help="Steps of the folder between frames of a video.")
    parser.add_argument("--radius", type=float, default=0.3, help="Metres around the point clicked on.")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--num-rooms", type=int, default=100)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    model, processor = load_inference_model(args.model, device="cpu", dtype=torch.float32)
    clicks, scenes = [], []
    videos = list_videos(args, processor.image_size, processor.video_processor.num_frames)
    for number, video in enumerate(tqdm(videos, desc="Videos", unit="video", delay=2, disable=None)):
        session = SceneSession(model, processor, video.frames, do_sample_frames=False)
        own = list(judge(session, video, args.radius))
        clicks += own
        scenes += [str(number)] * len(own)
    if not clicks:
        raise ValueError("No click can be judged: no place is measured in two frames of one video. Lower `--gap`.")
    sys.stdout.write(json.dumps(tabulate(clicks, scenes), indent=1) + "\n")


if __name__ == "__main__":
    main()
