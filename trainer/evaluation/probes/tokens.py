"""Tokens of many scenes as rows for the probes, each with the depth and the point that it shows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from processing.posed_video import PosedVideo
from processing.token_grid import TokenGrid
from trainer.data.geometry_inputs import prepare_geometry
from trainer.evaluation.probes.correspondence import find_true_matches, score_matches
from trainer.evaluation.probes.token_sources import TokenSource, check_layers
from trainer.geometry import FramePairs, relative_pose, select_frame_pairs, transform_points, unproject_depth

__all__ = ["TokenTable", "collect_tokens", "median_pixels"]

TOKENS_PER_SCENE = 512
PAIRS_PER_FRAME = 2  # other views, sampled at random, in which the tokens of a frame are looked for


@dataclass(frozen=True)
class TokenTable:
    """Tokens of one layer, a row for each, with what they cover.

    Args:
        features: Tokens.
        depth: z-depth in metres of the pixel of median depth among the measured ones that the token covers.
        points: Points on the surface at that pixel, in the frame of the scene's first camera, metres.
        cells: Place of the token in its frame, row * cols + col.
        scenes: Scene of each token.
        grid: Rows and columns of a frame.
        unmeasured: Number of tokens left out because they cover no measured pixel.
        matches: Sums of `score_matches` by scene.

    Shape:
        features: (N, C) float32; depth: (N,); points: (N, 3); cells: (N,) integer; scenes: (N,) str.
    """

    features: np.ndarray
    depth: np.ndarray
    points: np.ndarray
    cells: np.ndarray
    scenes: np.ndarray
    grid: tuple[int, int]
    unmeasured: int
    matches: dict[str, dict[str, float]]


def median_pixels(depth: Tensor, grid: TokenGrid) -> Tensor:
    """Find the pixel of median depth among the measured ones of every token.

    Of two pixels in the middle the nearer one is taken.

    Shape:
        depth: (V, H, W), metres on the pixels of the vision input, 0 = no measurement.
        output: (V, rows * cols), index v * W + u of a pixel, -1 where a token has no measured pixel.

    Raises:
        ValueError: If the depth has another size than the grid's picture.
    """
    if depth.dim() != 3 or tuple(depth.shape[1:]) != grid.image_size:
        raise ValueError(
            f"`depth` must have shape (V, {grid.image_size[0]}, {grid.image_size[1]}), got {tuple(depth.shape)}."
        )
    num_tokens = grid.rows * grid.cols
    values, token = depth.flatten(1).numpy(), grid.token_index().flatten().numpy()
    frame, pixel = np.nonzero((values > 0) & (token >= 0))
    key = frame * num_tokens + token[pixel]
    order = np.lexsort((values[frame, pixel], key))
    counts = np.bincount(key, minlength=len(values) * num_tokens)
    middle = np.cumsum(counts) - counts + (counts - 1) // 2
    result = np.full(len(counts), -1, np.int64)
    result[counts > 0] = pixel[order[middle[counts > 0]]]
    return torch.from_numpy(result).view(len(values), num_tokens)


@dataclass(frozen=True)
class _Measured:
    """Measurements of one scene on one token grid.

    Args:
        chosen: Indices (n,) of chosen tokens among V x rows x cols.
        depth: z-depth (n,) of these tokens, metres.
        points: Points (n, 3) in the frame of the first camera, metres.
        cells: Cells (n,) of these tokens.
        unmeasured: Number of tokens without a measured pixel.
        pairs: Frame pairs of the scene.
        matches: True matches of `find_true_matches`.
    """

    chosen: Tensor
    depth: Tensor
    points: Tensor
    cells: Tensor
    unmeasured: int
    pairs: FramePairs
    matches: Tensor


def _measure(scene: PosedVideo, grid: TokenGrid, tokens_per_scene: int, seed: list[int]) -> _Measured:
    sample = {key: getattr(scene, key) for key in ("frames", "depth", "intrinsics", "camera_to_world")}
    geometry = prepare_geometry(sample, grid, "clean")
    depth, intrinsics, poses = (geometry[key] for key in ("depth", "intrinsics", "camera_to_world"))
    pixels = median_pixels(depth, grid).flatten()
    measured = (pixels >= 0).nonzero().flatten()
    rng = np.random.default_rng(seed)
    count = min(tokens_per_scene, len(measured))
    chosen = measured[np.sort(rng.choice(len(measured), count, replace=False))]
    num_tokens = grid.rows * grid.cols
    frame, pixel = chosen // num_tokens, pixels[chosen]
    points = transform_points(
        relative_pose(poses, poses[:1].expand_as(poses)), unproject_depth(depth, intrinsics)
    ).flatten(1, 2)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    pairs = select_frame_pairs(poses[None], mode="random", pairs_per_frame=PAIRS_PER_FRAME, generator=generator)
    return _Measured(
        chosen=chosen,
        depth=depth.flatten(1)[frame, pixel],
        points=points[frame, pixel],
        cells=chosen % num_tokens,
        unmeasured=len(pixels) - len(measured),
        pairs=pairs,
        matches=find_true_matches(depth, intrinsics, poses, grid, pairs),
    )


def _check_scene(scene: PosedVideo, name: str) -> None:
    if not scene.has_geometry:
        missing = [key for key in ("depth", "intrinsics", "camera_to_world") if getattr(scene, key) is None]
        raise ValueError(f"{name} has no {', '.join(missing)}: probes need frames with depth and poses.")


def collect_tokens(
    source: TokenSource,
    scenes: Iterable[PosedVideo],
    layers: Sequence[str] | None = None,
    *,
    tokens_per_scene: int = TOKENS_PER_SCENE,
    seed: int = 0,
) -> dict[str, TokenTable]:
    """Run a model over scenes and keep the tokens of some layers.

    Args:
        source: Tokens of the model.
        scenes: Scenes with depth, intrinsics and poses; the fields of view of frames and depth are the same.
        layers: Names of layers of the source; None: its own choice.
        tokens_per_scene: Number of tokens of a scene that are kept at most. They are sampled at random, the same of
            all layers that share a grid. Correspondence is scored on all tokens.
        seed: Seed of the random numbers.

    Returns:
        A table for each layer.

    Raises:
        ValueError: If a layer is unknown, or there is no scene. If two scenes have one name, a scene has no geometry,
            or its tokens have another shape than the source's grid.
    """
    layers = tuple(source.default_layers if layers is None else dict.fromkeys(layers))
    check_layers(source, layers)
    if tokens_per_scene < 1 or not layers:
        raise ValueError(f"Expected `tokens_per_scene` >= 1 and a layer, got {tokens_per_scene} and {layers}.")
    parts: dict[str, list[tuple]] = {layer: [] for layer in layers}
    for index, scene in enumerate(tqdm(scenes, desc="Tokens", unit="scene", delay=2, disable=None)):
        name = scene.scene_id or f"scene {index}"
        _check_scene(scene, name)
        encoded = source.encode(scene.frames, layers)
        truths: dict[TokenGrid, _Measured] = {}
        for layer in layers:
            grid, features = source.grid(layer), encoded[layer]
            if features.dim() != 4 or features.shape[:3] != (len(scene), *grid.shape):
                raise ValueError(
                    f"{layer} of {name} must have shape ({len(scene)}, {grid.rows}, {grid.cols}, C), views, rows, "
                    f"columns, channels, got {tuple(features.shape)}."
                )
            if grid not in truths:
                truths[grid] = _measure(scene, grid, tokens_per_scene, [seed, index])
            truth = truths[grid]
            rows = features.flatten(0, 2)[truth.chosen].float()
            parts[layer].append((name, rows, truth, score_matches(features, truth.matches, truth.pairs)))
    names = [part[0] for part in parts[layers[0]]]
    if not names:
        raise ValueError("There are no scenes to take tokens from. Give at least six.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Several scenes are called {twice}: they could end up on both sides of the split.")
    return {layer: _stack(parts.pop(layer), source.grid(layer)) for layer in layers}


def _stack(parts: Sequence[tuple[str, Tensor, _Measured, dict[str, float]]], grid: TokenGrid) -> TokenTable:
    """Stack the scenes of one layer into one table."""
    names, features, truths, matches = zip(*parts, strict=True)
    depth, points, cells = (
        torch.cat([getattr(truth, column) for truth in truths]).numpy() for column in ("depth", "points", "cells")
    )
    return TokenTable(
        features=torch.cat(features).numpy(),
        depth=depth,
        points=points,
        cells=cells,
        scenes=np.repeat(names, [len(rows) for rows in features]),
        grid=grid.shape,
        unmeasured=sum(truth.unmeasured for truth in truths),
        matches=dict(zip(names, matches, strict=True)),
    )
