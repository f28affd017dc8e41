"""Probes of geometry in frozen tokens: `python -m trainer.evaluation.probes --model M --num-rooms 200`.

Four probes read every layer, on scenes that nothing was fitted on: a linear depth probe, a linear probe of the place
in the room (language model), cross-view correspondence (nothing is fitted), and geometric information in nats a token.

A depth loss trains depth into the tokens that it reads, so a probe of these finds what was put there. The control are
the layers that no loss reads; the table marks the others. `--random-weights` probes the architecture without any
training.
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
from processing.tables import NOTHING, markdown_table
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

MAX_ROOM_SIZE = 126  # pixels; larger frames of rooms take long to draw
WIDE_GAP = 0.1  # nats between the estimate of information and its bound
# Tables that are logged: of each column the heading, the probe, the number, and what the place in the picture gives.
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
    """Return shares of the tokens that have a true match in another view.

    Args:
        matches: Sums of every scene, see `collect_tokens`.
        seed: Seed of the bootstrap.

    Returns:
        `matched`: the nearest token lies within one token of the truth; `same_place`: the token at the same place of
        the picture does; `chance`: a token sampled at random does. `moved_matched` and `moved_chance` are shares of
        the tokens whose match lies elsewhere in the picture. None where no token has a match.
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
    """Return the results of all probes of one layer.

    Args:
        table: Tokens of the layer.
        with_position: Whether to probe the place in the room as well, in the first camera's frame. A tower that sees
            one frame at a time cannot know it.
        seed: Seed of the split by scene, the shuffles and the bootstrap.

    Raises:
        ValueError: If there are too few scenes, or tokens that are not finite.
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
        source: `IDE3DTokens`, `VisionTowerTokens` or the result of `open_token_source`.
        scenes: Six scenes or more, with depth and poses, that the model was not trained on.
        layers: Names of the layers; default: those of the source.
        tokens_per_scene: See `collect_tokens`.
        seed: Seed of all random choices.

    Returns:
        For each layer the results of `probe_table`, and `read_by_losses`: whether a geometry loss of the training
        reads it; None where that is not known.

    Raises:
        ValueError: See `collect_tokens` and `probe_table`.
    """
    tables = collect_tokens(source, scenes, layers, tokens_per_scene=tokens_per_scene, seed=seed)
    results = {}
    for layer in tqdm(list(tables), desc="Probes", unit="layer", delay=2, disable=None):
        is_read = None if source.read_by_losses is None else layer in source.read_by_losses
        found = probe_table(tables.pop(layer), with_position=layer.startswith("language."), seed=seed)
        results[layer] = {"read_by_losses": is_read, **found}
    return results


def _cell(result: Mapping[str, Any], probe: str, name: str | None) -> str:
    entry = result[probe][name] if name and result[probe] else {"value": None}
    if entry["value"] is None:
        return NOTHING
    low, high = entry["interval"]
    return f"{entry['value']:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def format_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the results of `run_probes` as Markdown tables.

    A star marks layers that a geometry loss reads. The last rows tell how far the place in the picture alone gets, on
    each grid.
    """
    grids = dict.fromkeys(tuple(result["grid"]) for result in results.values())
    texts = []
    for columns in TABLES:
        rows = []
        for layer, result in results.items():
            cells = [_cell(result, probe, name) for _, probe, name, _ in columns]
            rows.append([layer + ("*" if result["read_by_losses"] else ""), *cells])
        for grid in grids:
            same = [result for result in results.values() if tuple(result["grid"]) == grid]
            first = {probe: next((r for r in same if r[probe]), same[0]) for _, probe, *_ in columns}
            cells = [_cell(first[probe], probe, constant) for _, probe, _, constant in columns]
            rows.append([f"place {grid[0]}x{grid[1]}", *cells])
        texts.append(markdown_table(["layer", *(heading for heading, *_ in columns)], rows))
    return "\n\n".join(texts)


def _open_scenes(options: argparse.Namespace, source: TokenSource) -> Iterable[PosedVideo]:
    """Yield rooms, or scenes of a folder, one at a time."""
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
    """Return the settings of a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluation.probes",
        description="Measure what the tokens of a model know of geometry.",
    )
    parser.add_argument("--model", required=True, help="folder or Hub name of a model of ours or of a vision tower")
    parser.add_argument("--data", help="folder in the public layout, instead of rooms")
    parser.add_argument("--scenes", nargs="+", help="of the folder, such as scannet/scene0000_00; default: all")
    parser.add_argument("--skip-invalid-poses", action="store_true", help="leave out frames without a finite pose")
    parser.add_argument("--num-rooms", type=int, default=200, help="drawn rooms, where no folder is given")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"), help="of the rooms")
    parser.add_argument("--rooms-seed", type=int, default=0, help="which family of rooms")
    parser.add_argument("--room-size", type=int, help="pixels of a room's frames; default: the input, at most 126")
    parser.add_argument("--num-frames", type=int, default=4, help="frames of a scene, at most")
    parser.add_argument("--layers", nargs="+", help="such as vision.6 language.14; default: a few, evenly spread")
    parser.add_argument("--read-by-losses", nargs="*", help="layers of the model that geometry losses of it read")
    parser.add_argument("--random-weights", action="store_true", help="the same architecture, not trained")
    parser.add_argument("--image-size", type=int, help="input of a vision tower in pixels; default: its own")
    parser.add_argument("--tokens-per-scene", type=int, default=TOKENS_PER_SCENE, help="kept in memory at most")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/probes.json")
    options = parser.parse_args(arguments)
    if options.data is None and (options.scenes or options.skip_invalid_poses):
        parser.error("--scenes and --skip-invalid-poses are of a folder: give it as --data.")
    return options


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Probe, log the table, write the file and return its content."""
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
        check_layers(source, options.layers or ())  # before rooms are drawn
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
        logger.warning("Between nats and their bound lie %.2f: so many may be too much. Take more scenes.", gap)
    return result
