"""Relative pose and covisibility of two real frames, read from where the cells of one look alike in the other.

A cell of the target frame is matched with the most similar cell of the source frame. How far each match lies in the
picture, and how alike it is, is all that a ridge regression sees. It is fitted on rendered rooms.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from benchmarks.transfer_depth import mean_colours, split_scenes, summarise_against
from scipy.spatial.transform import Rotation

from processing import PosedVideo, TokenGrid
from trainer.data.geometry_inputs import prepare_geometry
from trainer.evaluation.probes.linear_probe import fit_linear_probe
from trainer.evaluation.probes.token_sources import TokenSource
from trainer.geometry import covisibility_mask, select_frame_pairs

__all__ = ["Pairs", "collect_pairs", "score_covisibility", "score_poses"]

REACH = 2  # frames between the two of a pair, at most
PATCH = 4  # pixels a side, of the picture of a cell
LEAST_SEEN = 0.5  # of a cell's pixels that the other frame sees too


@dataclass(frozen=True)
class Pairs:
    """Pairs of frames, a row each.

    Shape:
        matches: (N, cells, 3) by rule: offset of the match in rows and columns, shares of the picture, and likeness.
        motion: (N, 6), pose of the target camera in the source camera's frame: rotation vector, radians; metres.
        seen: (N, cells), share of each target cell's pixels that the source frame sees too.
        scenes: (N,), str.
    """

    matches: dict[str, np.ndarray]
    motion: np.ndarray
    seen: np.ndarray
    scenes: np.ndarray


def _match(source: np.ndarray, target: np.ndarray, grid: TokenGrid) -> np.ndarray:
    """Return offset and likeness (cells, 3) of each target cell's nearest source cell."""
    similar = target @ source.T
    nearest = similar.argmax(1)
    places = np.stack(np.unravel_index(np.arange(grid.rows * grid.cols), grid.shape), 1) / np.array(grid.shape)
    return np.concatenate([places[nearest] - places, similar.max(1, keepdims=True)], 1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def collect_pairs(source: TokenSource, videos: Iterable[PosedVideo], layer: str) -> Pairs:
    """Match the cells of each frame with those of the next ones, both directions.

    Args:
        source: Tokens of the model.
        videos: Videos with geometry; all need another `scene_id`.
        layer: Layer of the tokens.
    """
    grid = source.grid(layer)
    index = grid.token_index().flatten()
    count = torch.bincount(index[index >= 0], minlength=grid.rows * grid.cols)
    parts: dict[str, list[np.ndarray]] = {}
    for video in videos:
        sample = {key: getattr(video, key) for key in ("frames", "depth", "intrinsics", "camera_to_world")}
        geometry = prepare_geometry(sample, grid, "clean")
        poses = geometry["camera_to_world"]
        pairs = select_frame_pairs(poses[None], mode="neighbor", neighbor_range=REACH, direction="bidirectional")
        masks = covisibility_mask(geometry["depth"][None], geometry["intrinsics"][None], pairs).flatten(1)
        tokens = source.encode(video.frames, (layer,))[layer].flatten(1, 2).numpy()
        pixels = mean_colours(video.frames, grid, PATCH)
        vectors = {"tower": _unit(tokens), "pixels": _unit(pixels - pixels.mean((1, 2), keepdims=True))}
        for number, (first, second) in enumerate(zip(pairs.source.tolist(), pairs.target.tolist(), strict=True)):
            for rule, own in vectors.items():
                parts.setdefault(rule, []).append(_match(own[first], own[second], grid))
            source_from_target = torch.linalg.inv(pairs.target_from_source[number].double()).numpy()
            turn = Rotation.from_matrix(source_from_target[:3, :3]).as_rotvec()
            parts.setdefault("motion", []).append(np.concatenate([turn, source_from_target[:3, 3]]))
            hits = torch.bincount(index[(index >= 0) & masks[number]], minlength=len(count))
            parts.setdefault("seen", []).append((hits / count).numpy())
            parts.setdefault("scenes", []).append(video.scene_id)
    stacked = {name: np.stack(values) for name, values in parts.items()}
    return Pairs({rule: stacked.pop(rule) for rule in ("tower", "pixels")}, **stacked)


def score_poses(rooms: Pairs, real: Pairs) -> dict[str, dict[str, dict]]:
    """Score relative poses of real pairs; regressions and the mean motion are those of rooms.

    Returns:
        `degrees` between true and read rotation and `metres` between translations, by predictor: `still` (no motion),
        `mean` motion of rooms, `pixels`, `tower`. Differences are from `still`.
    """
    split = split_scenes(rooms.scenes)
    read = {"still": np.zeros_like(real.motion), "mean": np.tile(rooms.motion.mean(0), (len(real.motion), 1))}
    for rule in ("pixels", "tower"):
        fitted, _ = fit_linear_probe(rooms.matches[rule].reshape(len(rooms.scenes), -1), rooms.motion, split)
        read[rule] = fitted.predict(real.matches[rule].reshape(len(real.scenes), -1))
    truth = Rotation.from_rotvec(real.motion[:, :3])
    degrees, metres = {}, {}
    for name, motion in read.items():
        degrees[name] = np.rad2deg((truth.inv() * Rotation.from_rotvec(motion[:, :3])).magnitude())
        metres[name] = np.linalg.norm(motion[:, 3:] - real.motion[:, 3:], axis=1)
    return {
        "degrees": summarise_against(degrees, real.scenes, "still"),
        "metres": summarise_against(metres, real.scenes, "still"),
    }


def _cell_features(matches: np.ndarray) -> np.ndarray:
    """Return features (N * cells, 5) of matches: offset, its length, likeness, likeness beside that of the pair."""
    offset, alike = matches[..., :2], matches[..., 2:]
    length = np.linalg.norm(offset, axis=-1, keepdims=True)
    return np.concatenate([offset, length, alike, alike - alike.mean(1, keepdims=True)], -1).reshape(-1, 5)


def score_covisibility(rooms: Pairs, real: Pairs) -> dict[str, dict]:
    """Score which of two target cells of a real pair the source frame sees too; .5 is chance.

    Returns:
        Share of right orders by predictor: `place` (how often rooms see the cell), `pixels`, `tower`; both of these
        know the place too. Differences are from `place`.
    """
    cells = rooms.seen.shape[1]
    scenes = np.repeat(rooms.scenes, cells)
    split, usual = split_scenes(scenes), rooms.seen.mean(0)
    read = {"place": np.broadcast_to(usual, real.seen.shape)}
    for rule in ("pixels", "tower"):
        known, asked = (
            np.column_stack([_cell_features(pairs.matches[rule]), np.tile(usual, len(pairs.scenes))])
            for pairs in (rooms, real)
        )
        probe, _ = fit_linear_probe(known, rooms.seen.reshape(-1, 1), split)
        read[rule] = probe.predict(asked).reshape(real.seen.shape)
    hits: dict[str, list[np.ndarray]] = {name: [] for name in read}
    names = []
    for number, seen in enumerate(real.seen):
        yes, no = np.flatnonzero(seen >= LEAST_SEEN), np.flatnonzero(seen == 0)
        for name, scores in read.items():
            gap = scores[number][yes][:, None] - scores[number][no]
            hits[name].append(((np.sign(gap) + 1) / 2).ravel())
        names += [real.scenes[number]] * (len(yes) * len(no))
    return summarise_against({name: np.concatenate(own) for name, own in hits.items()}, np.array(names), "place")
