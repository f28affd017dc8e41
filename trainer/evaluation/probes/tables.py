"""Tables of what frozen tokens know of geometry; `ide3d probe` writes them.

Four probes of every layer, on scenes that nothing was fitted on:

- a linear probe of depth;
- a linear probe of the place in the room (language model);
- cross-view correspondence, where nothing is fitted;
- geometric information in nats a token.

A depth loss trains depth into the tokens that it reads, and a probe of these tokens finds it there. So the layers that
no loss reads are the control; the table marks the others. `--random-weights` shows what the architecture gives without
any training.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from processing.posed_video import PosedVideo
from processing.tables import NOTHING, markdown_table
from trainer.evaluation.metrics.scores import Score
from trainer.evaluation.probes.information import estimate_information
from trainer.evaluation.probes.linear_probe import (
    Intervals,
    probe_depth,
    probe_position,
    split_by_scene,
    with_intervals,
)
from trainer.evaluation.probes.token_sources import TokenSource
from trainer.evaluation.probes.tokens import TOKENS_PER_SCENE, TokenTable, collect_tokens

__all__ = ["format_table", "probe_table", "run_probes", "score_correspondence"]

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


def score_correspondence(matches: Mapping[str, Mapping[str, float]]) -> Intervals:
    """Score correspondence over scenes by the sums of `score_matches` of every scene.

    Args:
        matches: Sums by scene.

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
            bounds=(0, 1),
            needs=np.array([[sums[whole]] for sums in matches.values()]),
        )
        for name, (part, whole) in shares.items()
    }
    return with_intervals(scores, np.array(list(matches)))


def probe_table(table: TokenTable, *, with_position: bool = False, seed: int = 0) -> dict[str, Any]:
    """Run all probes of one layer.

    Args:
        table: Tokens of the layer.
        with_position: Whether to probe the place in the room, in the first camera's frame. A tower that sees one frame
            at a time cannot know it.
        seed: Seed of the split by scene and of the shuffles.

    Returns:
        Results of each probe by name, with the sizes of the grid, the tokens and the split.

    Raises:
        ValueError: If there are too few scenes, or a token is not finite.
    """
    split = split_by_scene(table.scenes, seed)
    rows = (table.cells, table.scenes, split)
    return {
        "grid": list(table.grid),
        "channels": table.features.shape[1],
        "tokens": {part: int(getattr(split, part).sum()) for part in ("fit", "choose", "test")},
        "scenes": {part: len(np.unique(table.scenes[getattr(split, part)])) for part in ("fit", "choose", "test")},
        "unmeasured_tokens": table.unmeasured,
        "depth": probe_depth(table.features, table.depth, *rows),
        "position": probe_position(table.features, table.points, *rows) if with_position else None,
        "correspondence": score_correspondence(table.matches),
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
