"""Objects of a scene found without given regions: which proposals a description means, and what a mark marks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from processing.proposals.clusters import TokenClusters
from processing.proposals.marks import Mark
from processing.proposals.protocol import RegionProposals

__all__ = ["FollowedObject", "FoundObjects", "choose_proposals", "follow_mark", "to_pictures"]

# Calibrated for the shipped nano model on validation rooms, by
# `python tests/benchmarks/regions_from_rgb.py --num-rooms 100 --calibrate`.
OBJECTNESS_WEIGHT = 0.25  # of a proposal's score beside its cosine: the cosine alone prefers fragments of objects
NO_OBJECT_MARGIN = 0.15  # added to the cosine of "no such object", which competes with every proposal
SEVERAL_MARGIN = 0.1  # below the best that a further object may lie
MAX_SHARED = 0.3  # of the smaller of two found regions; more of it is the same object
MIN_OBJECT_SCORE = 0.25  # of what a mark marks; below it is a wall, a floor or nothing whole


@dataclass(frozen=True)
class FoundObjects:
    """Proposals that fit a description: one object, several or none.

    Args:
        description: Words that were looked for.
        names: Names of the K regions found, best first; none if "no such object" fits better than every proposal.
        masks: Cells of each, bool (K, V, rows, cols).
        scores: Cosine of each plus the weighted score of the proposal (K,).
        totals: The same of all N proposals.
        no_object: Cosine of "no such object" plus its margin: what a region has to exceed.
        source: Name of the proposer.
        licence: Licence of the weights that proposed them.
    """

    description: str
    names: tuple[str, ...]
    masks: Tensor
    scores: tuple[float, ...]
    totals: tuple[float, ...]
    no_object: float
    source: str
    licence: str

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class FollowedObject:
    """Object that a person marked in one frame, in all frames.

    Args:
        mask: Its cells, bool (V, rows, cols).
        score: Expected IoU of the mask with an object.
        is_object: Whether the score says that this is an object, and no wall or floor.
        frames: Indices of the frames shown that show it.
    """

    mask: Tensor
    score: float
    is_object: bool
    frames: tuple[int, ...]


def choose_proposals(description: str, cosines: Tensor, proposals: RegionProposals) -> FoundObjects:
    """Choose the proposals that a description means.

    The best has to exceed "no such object". Others join it that lie less than `SEVERAL_MARGIN` below it, exceed "no
    such object", and share little with those chosen before.

    Args:
        description: Words that were looked for.
        cosines: Cosine of each proposal and of "no such object", (N + 1,), as `SceneSession.ground` gives them.
        proposals: The N proposals.
    """
    weighted = OBJECTNESS_WEIGHT * np.array(proposals.scores)
    totals = cosines[:-1].cpu().double().numpy() + weighted
    no_object = float(cosines[-1]) + NO_OBJECT_MARGIN
    least = max(no_object, totals.max(initial=-np.inf) - SEVERAL_MARGIN)
    flat = proposals.masks.flatten(1).cpu().numpy()
    sizes = flat.sum(1)
    chosen: list[int] = []
    for index in np.argsort(-totals, kind="stable"):
        if totals[index] < least:
            break
        shared = (flat[chosen] & flat[index]).sum(1)
        if (shared <= MAX_SHARED * np.minimum(sizes[chosen], sizes[index])).all():
            chosen.append(int(index))
    return FoundObjects(
        description=description,
        names=tuple(proposals.names[index] for index in chosen),
        masks=proposals.masks[chosen],
        scores=tuple(totals[chosen].tolist()),
        totals=tuple(totals.tolist()),
        no_object=no_object,
        source=proposals.source,
        licence=proposals.licence,
    )


def follow_mark(mark: Mark, cells: np.ndarray, clusters: TokenClusters) -> FollowedObject:
    """Carry a mark in one frame to all frames, by clusters of the visual tokens.

    Args:
        mark: A click, a box or a mask in one frame.
        cells: Cells of that frame that it marks, bool (rows, cols).
        clusters: Clusters of the tokens of all frames.
    """
    mask, score = clusters.follow(cells, mark.frame)
    if mark.mask is not None:
        mask[mark.frame] = cells  # a person's outline is not corrected
    frames = tuple(mask.any((1, 2)).nonzero()[0].tolist())
    return FollowedObject(torch.from_numpy(mask), score, score >= MIN_OBJECT_SCORE, frames)


def to_pictures(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return pictures, uint8 (V, H, W, 3), of normalised pixels (V, 3, H, W)."""
    scale, shift = (torch.as_tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (std, mean))
    pictures = np.empty((len(pixels), *pixels.shape[2:], 3), np.uint8)
    for picture, own in zip(pictures, pixels, strict=True):  # one at a time: floats of all would be a second video
        levels = ((own.float().cpu() * scale + shift) * 255).round().clamp(0, 255)
        picture[:] = levels.permute(1, 2, 0).numpy()
    return pictures
