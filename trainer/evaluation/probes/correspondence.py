"""Cross-view correspondence: whether the most similar token of another view shows the same surface."""

import torch
from torch import Tensor

from processing.token_grid import TokenGrid
from trainer.geometry import (
    FramePairs,
    covisibility_mask,
    project_points,
    transform_points,
    unproject_depth,
)
from trainer.geometry.cameras import invert_pose

__all__ = ["find_true_matches", "score_matches"]

WITHIN = 1.0  # tokens in each direction; `ROUNDING` keeps a match at exactly this distance
ROUNDING = 1e-4
MATCH_SUMS = ("hits", "same_place", "chance", "queries", "moved_hits", "moved_chance", "moved_queries")


def find_true_matches(
    depth: Tensor, intrinsics: Tensor, camera_to_world: Tensor, grid: TokenGrid, pairs: FramePairs
) -> Tensor:
    """Find the true match of each target token in its source view by ray casting.

    The ray through the pixel at the token's centre meets the measured surface. That point is projected into the source
    view, if nothing hides it there (`covisibility_mask`).

    Args:
        depth: z-depth on the pixels of the vision input, metres, 0 = no measurement.
        intrinsics: Cameras of these pixels.
        camera_to_world: Poses, metres.
        grid: Token grid of these pixels.
        pairs: Pairs of frames of one video; each token of `target` is searched in `source`.

    Returns:
        Place (row, column) in tokens, 0 = centre of the first one. It is NaN where the point is not measured, hidden,
        or outside of what the vision tower sees.

    Shape:
        depth: (V, H, W); intrinsics: (V, 3, 3); camera_to_world: (V, 4, 4); output: (pairs, rows, cols, 2).

    Raises:
        ValueError: If the depth has another size than the grid's picture, or the shapes do not agree.
    """
    if depth.dim() != 3 or tuple(depth.shape[1:]) != grid.image_size:
        raise ValueError(
            f"`depth` must have shape (V, {grid.image_size[0]}, {grid.image_size[1]}), got {tuple(depth.shape)}."
        )
    if intrinsics.shape != (len(depth), 3, 3) or camera_to_world.shape != (len(depth), 4, 4):
        raise ValueError(
            f"Expected `intrinsics` ({len(depth)}, 3, 3) and `camera_to_world` ({len(depth)}, 4, 4), "
            f"got {tuple(intrinsics.shape)} and {tuple(camera_to_world.shape)}."
        )
    seen = covisibility_mask(depth[None], intrinsics[None], pairs)
    points = unproject_depth(depth[pairs.target], intrinsics[pairs.target])
    points = transform_points(invert_pose(pairs.target_from_source), points)
    pixels, _ = project_points(points, intrinsics[pairs.source])
    (height, width), (rows, cols) = grid.covered_size, grid.shape
    v, u = ((torch.arange(n) + 0.5) * size / n for n, size in ((rows, height), (cols, width)))
    at = (slice(None), v.long()[:, None], u.long()[None])  # pixel that holds the centre, or lies just behind it
    u, v = pixels[at].unbind(-1)
    row, _ = grid.locate(v, u)
    # The rule of `TokenGrid.locate`, before it is cut to whole tokens.
    places = torch.stack(((v + 0.5) * rows / height - 0.5, (u + 0.5) * cols / width - 0.5), -1)
    return torch.where((seen[at] & (row >= 0))[..., None], places, torch.nan)


def score_matches(features: Tensor, matches: Tensor, pairs: FramePairs) -> dict[str, float]:
    """Compare the most similar source token with the true match of each target token.

    Similarity is the cosine of two tokens.

    Args:
        features: Tokens of one video.
        matches: True matches from `find_true_matches`, on the grid of `features`.
        pairs: Pairs of frames that the matches belong to.

    Returns:
        Sums over the target tokens that have a true match; `queries` is the number of these tokens.

        - `hits`: the most similar token lies within one token (rows and columns) of the match.
        - `same_place`: the token at the same place of the picture does, which needs no content.
        - `chance`: share of the source view's tokens that do.
        - `moved_hits`, `moved_chance`, `moved_queries`: the same sums where `same_place` does not hold. A token that
          knows its place and nothing else fails there.

    Shape:
        features: (V, rows, cols, C); matches: (pairs, rows, cols, 2).

    Raises:
        ValueError: If features and matches have different grids, or the number of pairs differs.
    """
    if features.dim() != 4 or matches.shape != (len(pairs), *features.shape[1:3], 2):
        raise ValueError(
            f"`features` (V, rows, cols, C) and `matches` (pairs, rows, cols, 2) must share the grid and the pairs, "
            f"got {tuple(features.shape)}, {tuple(matches.shape)} and {len(pairs)} pairs."
        )
    rows, cols = features.shape[1:3]
    tokens = torch.nn.functional.normalize(features.float().flatten(1, 2), dim=-1)
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij"), -1).flatten(0, 1)
    sums = dict.fromkeys(MATCH_SUMS, 0.0)
    for pair, (source, target) in enumerate(zip(pairs.source.tolist(), pairs.target.tolist(), strict=True)):
        truth = matches[pair].flatten(0, 1)
        asked = truth.isfinite().all(-1).nonzero().flatten()
        nearest = (tokens[target, asked] @ tokens[source].T).argmax(-1)
        is_near = (truth[asked, None] - places).abs().amax(-1) <= WITHIN + ROUNDING
        index = torch.arange(len(asked))
        is_hit, has_stayed, chance = is_near[index, nearest], is_near[index, asked], is_near.double().mean(-1)
        sums["hits"] += is_hit.sum().item()
        sums["same_place"] += has_stayed.sum().item()
        sums["chance"] += chance.sum().item()
        sums["queries"] += len(asked)
        sums["moved_hits"] += is_hit[~has_stayed].sum().item()
        sums["moved_chance"] += chance[~has_stayed].sum().item()
        sums["moved_queries"] += (~has_stayed).sum().item()
    return sums
