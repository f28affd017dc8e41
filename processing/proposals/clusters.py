"""Regions from a model's own visual tokens: clusters over space and time, ranked by how much each is like an object.

Average linkage by mutual nearest neighbours joins the tokens of all frames, whichever cells they come from. Each of
its 2 n - 1 nodes is a candidate, so candidates nest: a drawer, its chest, the wall behind it. `objectness` ranks them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage

from processing.argument_rules import check_number, check_whole
from processing.proposals.protocol import ProposalVideo, RegionProposals, check_tokens

__all__ = ["OBJECTNESS", "ClusterProposer", "TokenClusters"]

MAX_REGIONS = 64  # forty objects of a kind fit; of 64 px rooms with 10 visible objects each it keeps 9
MAX_OVERLAP = 0.6  # IoU of two proposals; nested ones below it are different readings of a place
MAX_SHARE = 0.25  # of all cells: bigger clusters are walls and floors
# Expected IoU with an object is z @ OBJECTNESS @ z, z = (1, five statistics of `_statistics`): least squares on 200
# training rooms of the nano model, by `python tests/benchmarks/regions_from_rgb.py --fit --num-rooms 200`. They have
# no unit, so that other models can be ranked by them; a fit of their own serves those better.
OBJECTNESS = np.array(
    [
        [0.1075, -0.1627, 0.3356, 0.3941, -1.181, 0.0542],
        [0.0, 0.0008, 0.592, 0.0218, -0.1653, -0.0101],
        [0.0, 0.0, 0.3014, -0.1746, 0.3102, 0.141],
        [0.0, 0.0, 0.0, -0.2483, 0.5907, 0.0696],
        [0.0, 0.0, 0.0, 0.0, 0.2225, -0.3061],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0095],
    ]
)


class TokenClusters:
    """Tree of clusters of the visual tokens of one video.

    Args:
        tokens: Visual tokens, float (V, rows, cols, C).

    Attributes:
        members: Cells of each candidate, bool (M, V, rows, cols).
        scores: Expected IoU of each candidate with an object, float (M,), within [0, 1].

    Raises:
        TypeError: If tokens are no array of floats.
        ValueError: If they have another shape, or are not finite.
    """

    def __init__(self, tokens: np.ndarray):
        check_tokens(tokens)
        shape, flat = tokens.shape[:3], tokens.reshape(-1, tokens.shape[-1]).astype(np.float32)
        unit = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        members, own_height, parent_height = _merge(unit)
        small = members.sum(1) <= max(1, MAX_SHARE * len(unit))
        members, heights = members[small], np.stack([own_height, parent_height])[:, small]
        self.members = members.reshape(-1, *shape)
        self.statistics = _statistics(unit, self.members, *heights)
        # Tokens that are clearer than a nano model's exceed 1: they keep their order, and are scored as 1.
        self._estimates = objectness(self.statistics)
        self.scores = self._estimates.clip(0, 1)

    def choose(self, max_regions: int = MAX_REGIONS, max_overlap: float = MAX_OVERLAP) -> np.ndarray:
        """Return indices (N,) of the best candidates, best first, no two of which overlap by more."""
        flat = self.members.reshape(len(self.members), -1)
        sizes = flat.sum(1)
        chosen: list[int] = []
        for index in np.argsort(-self._estimates, kind="stable"):
            shared = (flat[chosen] & flat[index]).sum(1)
            if (shared < max_overlap * (sizes[chosen] + sizes[index] - shared)).all():
                chosen.append(int(index))
            if len(chosen) == max_regions:
                break
        return np.array(chosen, int)

    def follow(self, cells: np.ndarray, frame: int) -> tuple[np.ndarray, float]:
        """Carry cells marked in one frame to all frames.

        Of the candidates it takes the one with the largest product of score and IoU with the mark, in the marked
        frame. A mark of one cell is a click: each candidate that holds the cell fits it alike.

        Args:
            cells: Marked cells, bool (rows, cols), at least one.
            frame: Index of the frame.

        Returns:
            Mask (V, rows, cols) and the score of the candidate, its expected IoU with an object.
        """
        there = self.members[:, frame].reshape(len(self.members), -1)
        shared = (there & cells.ravel()).sum(1)
        fit = shared > 0 if cells.sum() == 1 else shared / np.maximum((there | cells.ravel()).sum(1), 1)
        best = int((fit * self._estimates.clip(min=1e-6)).argmax())  # a fit counts even where no score does
        return self.members[best].copy(), float(self.scores[best])


class ClusterProposer:
    """Proposer that needs no weights beside the model's own: `TokenClusters` of its visual tokens.

    Args:
        max_regions: Largest number of regions.
        max_overlap: IoU from which the worse of two regions is left out.

    Raises:
        TypeError: If `max_regions` is no integer, or `max_overlap` no number.
        ValueError: If `max_regions` is below 1, or `max_overlap` not in (0, 1].
    """

    source = "own tokens"
    licence = "that of the model"

    def __init__(self, max_regions: int = MAX_REGIONS, max_overlap: float = MAX_OVERLAP):
        self.max_regions = check_whole(max_regions, "max_regions", 1)
        self.max_overlap = check_number(max_overlap, "max_overlap", "an IoU", above=0, largest=1)

    def propose(self, video: ProposalVideo, words: Sequence[str] = ()) -> RegionProposals:
        """Propose regions of a video; `words` are not read."""
        return self.from_clusters(TokenClusters(video.tokens), video.fingerprint)

    def from_clusters(self, clusters: TokenClusters, fingerprint: str) -> RegionProposals:
        """Choose proposals among clusters that were made before.

        Args:
            clusters: Clusters of the video's tokens.
            fingerprint: `ProposalVideo.fingerprint` of the video.
        """
        chosen = clusters.choose(self.max_regions, self.max_overlap)
        return RegionProposals(
            names=tuple(f"region {number}" for number in range(len(chosen))),
            masks=torch.from_numpy(clusters.members[chosen]),
            scores=tuple(clusters.scores[chosen].tolist()),
            source=self.source,
            licence=self.licence,
            fingerprint=fingerprint,
        )


def objectness(statistics: np.ndarray) -> np.ndarray:
    """Estimate the IoU (M,) of clusters with objects by their statistics (M, 5), unbounded."""
    z = np.concatenate([np.ones((len(statistics), 1)), statistics], axis=1)
    return ((z @ OBJECTNESS) * z).sum(1)


def _merge(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return members (M, n), height (M,) and parent's height (M,) of the tree's nodes.

    The tree joins n unit vectors; M is 2 n - 1.
    """
    count = len(unit)
    members = np.zeros((2 * count - 1, count), bool)
    members[:count] = np.eye(count, dtype=bool)
    height, parent = np.zeros(2 * count - 1), np.zeros(2 * count - 1)
    if count == 1:
        return members, height, parent
    distances = 1 - unit @ unit.T
    merges = linkage(np.maximum(distances[np.triu_indices(count, 1)], 0), "average")
    parent[-1] = merges[-1, 2]
    for node, (left, right, distance, _) in enumerate(merges, start=count):
        pair = [int(left), int(right)]
        members[node] = members[pair].any(0)
        height[node] = parent[pair] = distance
    return members, height, parent


def _statistics(unit: np.ndarray, members: np.ndarray, height: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Return statistics (M, 5) of clusters, none of which has a unit.

    The first is the share of frames that show the cluster. The second is its mean similarity inside, less that to its
    neighbours in the pictures. Its own height in the tree and its parent's follow. The last is the logarithm of its
    share of a frame's area.
    Similarities and heights are in units of the mean distance of two tokens of the video: tokens of some models all
    point nearly the same way.
    """
    views, area = members.shape[1], members.shape[2] * members.shape[3]
    flat = members.reshape(len(members), -1)
    size = flat.sum(1)
    sums = flat.astype(np.float32) @ unit
    beside = (_widen(members) & ~members).reshape(len(members), -1)
    beside_sums = beside.astype(np.float32) @ unit
    inside = (sums**2).sum(1) / size**2
    outside = (sums * beside_sums).sum(1) / (size * np.maximum(beside.sum(1), 1))
    seen = members.any((2, 3)).sum(1)
    distance = max(1 - (unit.mean(0) ** 2).sum(), np.finfo(np.float32).eps)
    similar = np.stack([inside - outside, height, parent]) / distance
    return np.stack([seen / views, *similar, np.log(size / (seen * area))], axis=1)


def _widen(masks: np.ndarray) -> np.ndarray:
    """Return masks (..., rows, cols) with the cells beside, above and below theirs."""
    wide = masks.copy()
    wide[..., 1:, :] |= masks[..., :-1, :]
    wide[..., :-1, :] |= masks[..., 1:, :]
    wide[..., 1:] |= masks[..., :-1]
    wide[..., :-1] |= masks[..., 1:]
    return wide
