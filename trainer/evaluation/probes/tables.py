"""Probes of what frozen tokens know of geometry: `python -m trainer.evaluation.probes --model M --num-rooms 200`.

Four probes of every layer, on scenes that nothing was fitted on:

- a linear probe of depth;
- a linear probe of the place in the room (language model);
- cross-view correspondence, where nothing is fitted;
- geometric information in nats a token.

A depth loss trains depth into the tokens that it reads, and a probe of these tokens finds it there. So the layers that
no loss reads are the control; the table marks the others. `--random-weights` shows what the architecture gives without
any training.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from processing.benchmarks import load_scene
from processing.posed_video import PosedVideo
from processing.rooms import load_rooms
from processing.writing import write_json
from trainer.evaluation.metrics.scores import Score
from trainer.evaluation.probes.information import estimate_information
from trainer.evaluation.probes.linear_probe import (
    Intervals,
    probe_depth,
    probe_position,
    split_by_scene,
    with_intervals,
)
from trainer.evaluation.probes.token_sources import TokenSource, check_layers, open_token_source
from trainer.evaluation.probes.tokens import TOKENS_PER_SCENE, TokenTable, collect_tokens

__all__ = ["format_table", "probe_table", "run_probes", "score_correspondence"]

logger = logging.getLogger("trainer.evaluation.probes.tables")

MAX_ROOM_SIZE = 126  # pixels; larger frames of rooms take long to render
WIDE_GAP = 0.1  # nats between the estimate of information and its bound
# Logged tables: heading, probe, number, and number of the place in the picture of each column.
TABLES = (
    (
        ("AbsRel", "depth", "abs_rel", "position_abs_rel"),
        ("delta1", "depth", "delta1", "position_delta1"),
        ("delta1 gain", "depth", "delta1_gain", None),
        ("within 0.5 m", "position", "within_half_metre", "position_within_half_metre"),
    ),
    (
        ("matched", "correspondence", "matched", "same_place"),
        ("matched, moved", "correspondence", "moved_matched", None),
        ("chance, moved", "correspondence", "moved_chance", None),
    ),
    (
        ("nats", "information", "information", "position_information"),
        ("bound", "information", "information_bound", None),
        ("beyond place", "information", "beyond_position", None),
        ("bound", "information", "beyond_position_bound", None),
        ("shuffled", "information", "shuffled", None),
    ),
)


def score_correspondence(matches: Mapping[str, Mapping[str, float]], seed: int = 0) -> Intervals:
    """Score correspondence over scenes by the sums of `score_matches` of every scene.

    Args:
        matches: Sums by scene.
        seed: Seed of the bootstrap.

    Returns:
        Shares of the tokens that have a true match in another view, each with its interval; None where no token has
        one.

        - `matched`: the most similar token lies within one token of the truth.
        - `same_place`: the token at the same place of the picture does.
        - `chance`: a token sampled at random does.
        - `moved_matched`, `moved_chance`: of the tokens whose match lies elsewhere in the picture.
    """
    shares = {
        "matched": ("hits", "queries"),
        "same_place": ("same_place", "queries"),
        "chance": ("chance", "queries"),
        "moved_matched": ("moved_hits", "moved_queries"),
        "moved_chance": ("moved_chance", "moved_queries"),
    }
    scores = {
        name: Score(
            np.array([[sums[part], sums[whole]] for sums in matches.values()]),
            lambda totals, counts: totals[:, 0] / totals[:, 1],
        )
        for name, (part, whole) in shares.items()
    }
    return with_intervals(scores, np.array(list(matches)), seed)


def probe_table(table: TokenTable, *, with_position: bool = False, seed: int = 0) -> dict[str, Any]:
    """Run all probes of one layer.

    Args:
        table: Tokens of the layer.
        with_position: Whether to probe the place in the room, in the first camera's frame. A tower that sees one frame
            at a time cannot know it.
        seed: Seed of the split by scene, the shuffles and the bootstrap.

    Returns:
        Results of each probe by name, with the sizes of the grid, the tokens and the split.

    Raises:
        ValueError: If there are too few scenes, or a token is not finite.
        ImportError: If scipy is not installed.
    """
    split = split_by_scene(table.scenes, seed)
    rows = (table.cells, table.scenes, split)
    return {
        "grid": list(table.grid),
        "channels": table.features.shape[1],
        "tokens": {part: int(getattr(split, part).sum()) for part in ("fit", "choose", "test")},
        "scenes": {part: len(np.unique(table.scenes[getattr(split, part)])) for part in ("fit", "choose", "test")},
        "unmeasured_tokens": table.unmeasured,
        "depth": probe_depth(table.features, table.depth, *rows, seed=seed),
        "position": probe_position(table.features, table.points, *rows, seed=seed) if with_position else None,
        "correspondence": score_correspondence(table.matches, seed),
        "information": estimate_information(table.features, table.depth, *rows, seed=seed),
    }


def run_probes(
    source: TokenSource,
    scenes: Iterable[PosedVideo],
    layers: Sequence[str] | None = None,
    *,
    tokens_per_scene: int = TOKENS_PER_SCENE,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Probe layers of a model.

    Args:
        source: Tokens of the model: `IDE3DTokens`, `VisionTowerTokens` or what `open_token_source` returns.
        scenes: Six or more scenes with depth and poses that the model was not trained on.
        layers: Names of the layers; None: `default_layers` of the source.
        tokens_per_scene: Number of tokens of a scene at most; see `collect_tokens`.
        seed: Seed of all random numbers.

    Returns:
        For each layer the results of `probe_table` and the flag `read_by_losses`. It says whether a geometry loss of
        the training reads the layer, and is None where that is not known.

    Raises:
        ValueError: If `collect_tokens` or `probe_table` refuse the tokens.
        ImportError: If scipy is not installed.
    """
    tables = collect_tokens(source, scenes, layers, tokens_per_scene=tokens_per_scene, seed=seed)
    results = {}
    for layer in tqdm(list(tables), desc="Probes", unit="layer", delay=2, disable=None):
        is_read = None if source.read_by_losses is None else layer in source.read_by_losses
        found = probe_table(tables.pop(layer), with_position=layer.startswith("language."), seed=seed)
        results[layer] = {"read_by_losses": is_read, **found}
    return results


def _cell(result: Mapping[str, Any], probe: str, name: str | None) -> str:
    """Return a number and its interval as text, "-" where there is none."""
    entry = result[probe][name] if name and result[probe] else {"value": None}
    if entry["value"] is None:
        return "-"
    low, high = entry["interval"]
    return f"{entry['value']:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def format_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the results of `run_probes` as text.

    A star marks layers that a geometry loss reads. The last lines are what the place in the picture gives on each
    grid.
    """
    grids = dict.fromkeys(tuple(result["grid"]) for result in results.values())
    texts = []
    for columns in TABLES:
        rows = [["layer", *(heading for heading, *_ in columns)]]
        for layer, result in results.items():
            cells = [_cell(result, probe, name) for _, probe, name, _ in columns]
            rows.append([layer + ("*" if result["read_by_losses"] else ""), *cells])
        for grid in grids:
            same = [result for result in results.values() if tuple(result["grid"]) == grid]
            first = {probe: next((r for r in same if r[probe]), same[0]) for _, probe, *_ in columns}
            cells = [_cell(first[probe], probe, constant) for _, probe, _, constant in columns]
            rows.append([f"place {grid[0]}x{grid[1]}", *cells])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        texts.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join(texts)


def _open_scenes(options: argparse.Namespace, source: TokenSource) -> Iterable[PosedVideo]:
    """Open rooms, or the scenes of a folder, one at a time."""
    if options.data is None:
        input_size = source.grid(source.layers[0]).image_size[0]
        size = options.room_size or min(input_size, MAX_ROOM_SIZE)
        rooms = load_rooms(
            options.split, options.num_rooms, seed=options.rooms_seed, image_size=size, num_frames=options.num_frames
        )
        return map(PosedVideo.from_room, rooms)
    folder = Path(options.data, "scannet", "posed_images")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    scenes = options.scenes or [f"scannet/{name}" for name in names]
    if not scenes:
        raise FileNotFoundError(f"There is no scene in {folder}.")
    settings = {"num_frames": options.num_frames, "skip_invalid_poses": options.skip_invalid_poses}
    return (load_scene(options.data, scene, parts=("frames", "poses", "depth"), **settings) for scene in scenes)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the settings from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluation.probes",
        description="Measure what the tokens of a model know of geometry.",
    )
    parser.add_argument("--model", required=True, help="folder or Hub name of a model of ours or of a vision tower")
    parser.add_argument("--data", help="folder in the public layout, instead of rooms")
    parser.add_argument("--scenes", nargs="+", help="scenes of the folder, such as scannet/scene0000_00; default: all")
    parser.add_argument("--skip-invalid-poses", action="store_true", help="leave out frames without a finite pose")
    parser.add_argument("--num-rooms", type=int, default=200, help="number of rooms, where no folder is given")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"), help="split of the rooms")
    parser.add_argument("--rooms-seed", type=int, default=0, help="seed of the rooms")
    parser.add_argument(
        "--room-size", type=int, help="side of a room's frames in pixels; default: that of the input, at most 126"
    )
    parser.add_argument("--num-frames", type=int, default=4, help="number of frames of a scene at most")
    parser.add_argument(
        "--layers", nargs="+", help="layers such as vision.6 language.14; default: a few, evenly spread"
    )
    parser.add_argument("--read-by-losses", nargs="*", help="layers of the model that geometry losses of it read")
    parser.add_argument("--random-weights", action="store_true", help="initialise the weights at random")
    parser.add_argument("--image-size", type=int, help="input of a vision tower in pixels; default: its own")
    parser.add_argument(
        "--tokens-per-scene",
        type=int,
        default=TOKENS_PER_SCENE,
        help="number of tokens of a scene that are kept at most",
    )
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/probes.json")
    options = parser.parse_args(arguments)
    if options.data is None and (options.scenes or options.skip_invalid_poses):
        parser.error("--scenes and --skip-invalid-poses belong to a folder: give it as --data.")
    return options


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Probe, log the table and write the file.

    Returns:
        Contents of the file.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("trainer.evaluation").setLevel(logging.INFO)
    options = parse_arguments(arguments)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    try:
        source = open_token_source(
            options.model,
            random_weights=options.random_weights,
            seed=options.seed,
            image_size=options.image_size,
            read_by_losses=options.read_by_losses,
            dtype=options.dtype,
            device=device,
        )
        check_layers(source, options.layers or ())  # before rooms are rendered
        scenes = _open_scenes(options, source)
        layers = run_probes(
            source, scenes, options.layers, tokens_per_scene=options.tokens_per_scene, seed=options.seed
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    is_known = source.read_by_losses is not None
    held_out = [layer for layer in layers if layer not in source.read_by_losses] if is_known else None
    result = {"settings": vars(options), "held_out_layers": held_out, "layers": layers}
    output = Path(options.output)
    write_json(output, result)
    first = next(iter(layers.values()))
    logger.info("%s", format_table(layers))
    logger.info(
        "95 %% intervals over %d held-out scenes of %d. place: what the position in the picture alone gives. "
        "*: read by a geometry loss in training%s. Wrote %s.",
        first["scenes"]["test"],
        sum(first["scenes"].values()),
        "" if is_known else " (not known here: --read-by-losses)",
        output,
    )
    found = [result["information"] for result in layers.values()]
    gap = max(entry["information"]["value"] - entry["information_bound"]["value"] for entry in found)
    if gap > WIDE_GAP:
        logger.warning("Nats may be too high by %.2f, the distance from their bound. Take more scenes.", gap)
    return result
