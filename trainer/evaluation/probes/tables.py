"""Tables of what frozen tokens know of geometry; `ide3d probe` writes them.

Four probes read every layer, on scenes that nothing was fitted on: a linear depth probe, a linear probe of the place
in the room (language model), cross-view correspondence (nothing is fitted), and geometric information in nats a token.

A depth loss trains depth into the tokens that it reads, so a probe of these finds what was put there. The control are
the layers that no loss reads; the table marks the others. `--random-weights` probes the architecture without any
training.
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
