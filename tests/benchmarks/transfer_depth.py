"""Depth of cells in real frames, read by ridge regressions that were fitted on rendered rooms."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image

from processing import PosedVideo, TokenGrid
from trainer.data.geometry_inputs import prepare_geometry
from trainer.evaluation.metrics.scores import Score, mean_score, summarise
from trainer.evaluation.probes.linear_probe import LinearProbe, SceneSplit, fit_linear_probe
from trainer.evaluation.probes.token_sources import TokenSource
from trainer.evaluation.probes.tokens import median_pixels

__all__ = [
    "Cells",
    "Predictors",
    "collect_cells",
    "find_best_layer",
    "mean_colours",
    "score_depth",
    "split_scenes",
    "summarise_against",
]

APART = 1.25  # ratio of two depths whose order is asked for
CHOOSE_EVERY = 4  # scenes; each such one chooses the penalty


@dataclass(frozen=True)
class Cells:
    """Cells of frames that cover measured pixels, a row each.

    Shape:
        tokens: (N, C) by layer; colours: (N, 3), mean sRGB in [0, 1]; depth: (N,), metres, of the median pixel.
        places: (N, 2), row and column in shares of the picture; cells: (N,), row * cols + col.
        frames: (N,), number of the frame; scenes: (N,), str.
    """

    tokens: dict[str, np.ndarray]
    colours: np.ndarray
    depth: np.ndarray
    places: np.ndarray
    cells: np.ndarray
    frames: np.ndarray
    scenes: np.ndarray

    def select(self, rows: np.ndarray) -> "Cells":
        """Return the chosen rows, a mask (N,)."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        tokens = {layer: values[rows] for layer, values in parts.pop("tokens").items()}
        return Cells(tokens, **{name: values[rows] for name, values in parts.items()})


def mean_colours(frames: np.ndarray, grid: TokenGrid, side: int = 1) -> np.ndarray:
    """Return pictures (V, rows * cols, side * side * 3) of the cells, in [0, 1]; one mean colour by default."""
    size, rows, cols = frames.shape[1:3], grid.rows, grid.cols
    height, width = (n * cover / full for n, cover, full in zip(size, grid.covered_size, grid.image_size, strict=True))
    small = [
        Image.fromarray(frame).resize((cols * side, rows * side), Image.Resampling.BOX, box=(0, 0, width, height))
        for frame in frames
    ]
    pictures = np.stack([np.asarray(picture, np.float32) for picture in small]) / 255
    pictures = pictures.reshape(len(frames), rows, side, cols, side, 3).transpose(0, 1, 3, 2, 4, 5)
    return pictures.reshape(len(frames), rows * cols, side * side * 3)


def collect_cells(source: TokenSource, videos: Iterable[PosedVideo], layers: Sequence[str]) -> Cells:
    """Run a model over videos and keep what every measured cell shows.

    Args:
        source: Tokens of the model.
        videos: Videos with depth; all need another `scene_id`.
        layers: Names of layers of the source that share one grid.
    """
    grid = source.grid(layers[0])
    rows, cols = np.divmod(np.arange(grid.rows * grid.cols), grid.cols)
    places = np.stack([(rows + 0.5) / grid.rows, (cols + 0.5) / grid.cols], 1)
    parts: dict[str, list[np.ndarray]] = {}
    first = 0
    for video in videos:
        encoded = source.encode(video.frames, layers)
        sample = {"frames": video.frames, "depth": video.depth, "intrinsics": video.intrinsics}
        depth = prepare_geometry(sample, grid, "clean")["depth"]
        pixels = median_pixels(depth, grid)
        frame, cell = (pixels >= 0).nonzero(as_tuple=True)
        found = {layer: tokens.flatten(1, 2)[frame, cell].numpy() for layer, tokens in encoded.items()}
        found["colours"] = mean_colours(video.frames, grid)[frame, cell]
        found["depth"] = depth.flatten(1)[frame, pixels[frame, cell]].numpy()
        found |= {"places": places[cell], "cells": cell.numpy(), "frames": frame.numpy() + first}
        found["scenes"] = np.repeat(video.scene_id, len(cell))
        first += len(video)
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
    stacked = {name: np.concatenate(values) for name, values in parts.items()}
    return Cells({layer: stacked.pop(layer) for layer in layers}, **stacked)


def split_scenes(scenes: np.ndarray) -> SceneSplit:
    """Split rows into fit and choice, whole scenes each; nothing is kept for a test."""
    index = np.unique(scenes, return_inverse=True)[1]
    choose = index % CHOOSE_EVERY == CHOOSE_EVERY - 1
    return SceneSplit(~choose, choose, np.zeros_like(choose))


def find_best_layer(rooms: Cells) -> str:
    """Return the layer that reads the depth of held-out rooms best."""
    split, target = split_scenes(rooms.scenes), np.log(rooms.depth)[:, None]
    errors = {
        layer: ((fit_linear_probe(tokens, target, split)[1] - target[split.choose]) ** 2).mean()
        for layer, tokens in rooms.tokens.items()
    }
    return min(errors, key=errors.get)


class Predictors:
    """Predictors of log depth, all fitted on the same cells.

    Args:
        cells: Cells to fit on.
    """

    def __init__(self, cells: Cells):
        split, target = split_scenes(cells.scenes), np.log(cells.depth)[:, None]
        self.probes: dict[str, LinearProbe] = {
            name: fit_linear_probe(features, target, split)[0] for name, features in self._features(cells).items()
        }
        sums = np.bincount(cells.cells, target[:, 0]), np.bincount(cells.cells)
        self.cell_means = sums[0] / np.maximum(sums[1], 1)
        self.limits = target.min(), target.max()

    def _features(self, cells: Cells) -> dict[str, np.ndarray]:
        return {
            "height": cells.places[:, :1],
            "colour": np.concatenate([cells.colours, cells.places], 1),
            **cells.tokens,
        }

    def predict(self, cells: Cells) -> dict[str, np.ndarray]:
        """Return depths (N,), metres, by predictor: `height`, `cell mean`, `colour`, and each layer."""
        read = {name: self.probes[name].predict(values)[:, 0] for name, values in self._features(cells).items()}
        read["cell mean"] = self.cell_means[cells.cells]
        return {name: np.exp(np.clip(values, *self.limits)) for name, values in read.items()}


def _scale(prediction: np.ndarray, depth: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return predictions with one scale a frame, the median ratio of its cells."""
    result = prediction.copy()
    for frame in np.unique(frames):
        own = frames == frame
        result[own] *= np.median(depth[own] / prediction[own])
    return result


def _order(prediction: np.ndarray, cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Return whether pairs of cells of a frame are in the right order, and their scenes; a tie is half right."""
    hits, scenes = [], []
    for frame in np.unique(cells.frames):
        own = np.flatnonzero(cells.frames == frame)
        one, two = (own[index] for index in np.triu_indices(len(own), 1))
        apart = np.maximum(cells.depth[one] / cells.depth[two], cells.depth[two] / cells.depth[one]) >= APART
        one, two = one[apart], two[apart]
        agree = np.sign(prediction[one] - prediction[two]) * np.sign(cells.depth[one] - cells.depth[two])
        hits.append((agree + 1) / 2)
        scenes.append(cells.scenes[one])
    return np.concatenate(hits), np.concatenate(scenes)


def summarise_against(values: Mapping[str, np.ndarray], scenes: np.ndarray, reference: str) -> dict[str, dict]:
    """Return each predictor's mean with its band, and its paired difference from the reference."""
    scores: dict[str, Score] = {}
    for name, own in values.items():
        scores[name] = mean_score(own, percent=False)
        scores[f"{name} - {reference}"] = mean_score(own - values[reference], percent=False)
    found = summarise(scores, scenes)
    return {
        name: {
            "value": found[name],
            "band": found["bands"][name],
            "is_reference": name == reference,
            "difference": found[f"{name} - {reference}"],
            "difference_band": found["bands"][f"{name} - {reference}"],
        }
        for name in values
    }


def score_depth(
    predictions: Mapping[str, np.ndarray], cells: Cells, reference: str = "colour"
) -> dict[str, dict[str, dict]]:
    """Score depths of real cells.

    Args:
        predictions: Depths (N,) in metres by predictor.
        cells: Cells with their true depth.
        reference: Predictor that differences are taken from.

    Returns:
        By score, then by predictor, value, 95 % band over the scenes, `difference` from the reference and its band.

        - `abs_rel`, `delta1`: after one scale a frame.
        - `closer`: share of pairs of cells of a frame, 25 % apart in depth, whose order is right.
        - `metric_abs_rel`, `metric_delta1`: without a scale.
    """
    errors: dict[str, dict[str, np.ndarray]] = {}
    for name, prediction in predictions.items():
        for prefix, own in (("", _scale(prediction, cells.depth, cells.frames)), ("metric_", prediction)):
            ratio = np.maximum(own / cells.depth, cells.depth / own)
            errors.setdefault(f"{prefix}abs_rel", {})[name] = np.abs(own - cells.depth) / cells.depth
            errors.setdefault(f"{prefix}delta1", {})[name] = (ratio < 1.25).astype(float)
    result = {score: summarise_against(values, cells.scenes, reference) for score, values in errors.items()}
    ordered = {name: _order(prediction, cells) for name, prediction in predictions.items()}
    scenes = next(iter(ordered.values()))[1]
    result["closer"] = summarise_against({name: hits for name, (hits, _) in ordered.items()}, scenes, reference)
    return result
