"""Regions of samples: masks, what the prompts point at, and what an answer has to find."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from processing.regions import check_region_masks
from processing.token_grid import TokenGrid
from trainer.data.geometry_inputs import to_tensor

__all__ = ["pad_regions", "prepare_regions"]


def prepare_regions(
    sample: Mapping[str, Any], grid: TokenGrid, num_frames: int, num_ground_tokens: int
) -> dict[str, Any]:
    """Check the regions of a sample.

    Args:
        sample: Sample with its optional `region_masks`, `region_references` and `region_targets`.
        grid: Token grid.
        num_frames: Frames of the sample's video and images together, V.
        num_ground_tokens: Number of `<ground>` in its chats.

    Returns:
        `has_regions`; `masks` (N, V, rows, cols) bool; `references`, list of R region indices; `targets`, (N + 1,) or
        (Q, N + 1) bool, None without any.

    Raises:
        ValueError: If masks have another grid, references or targets name no region, or the chats have another number
            of `<ground>` tokens.
        TypeError: If something holds no numbers.
    """
    masks, targets = sample.get("region_masks"), sample.get("region_targets")
    has_regions = masks is not None
    if has_regions:
        masks = to_tensor(masks, "region_masks")
    else:
        for key in ("region_references", "region_targets"):
            if sample.get(key) is not None:
                raise ValueError(f"{key} need region_masks, which say where the regions are.")
        masks = torch.zeros(0, num_frames, *grid.shape, dtype=torch.bool)
    check_region_masks(masks, grid, num_frames)
    if targets is not None:
        targets = _check_targets(to_tensor(targets, "region_targets"), len(masks))
    references = _list_references(sample, len(masks))
    if num_ground_tokens < len(references):
        raise ValueError(
            f"The chats have {num_ground_tokens} <ground> tokens for {len(references)} references: write one "
            "<ground> per region that a question points at."
        )
    if targets is not None:
        _check_queries(targets, num_ground_tokens - sum(reference >= 0 for reference in references))
    return {"has_regions": has_regions, "masks": masks, "references": references, "targets": targets}


def pad_regions(prepared: Sequence[Mapping[str, Any]], grid: TokenGrid) -> dict[str, Tensor]:
    """Pad the regions of samples, as `prepare_regions` gives them, to one batch.

    Shape:
        region_masks:      (B, N, V, rows, cols) bool.
        region_valid:      (B, N) bool.
        region_references: (B, R), -1 where a sample has fewer.
        region_targets:    (B, N + 1) bool, or (B, Q, N + 1) if a sample packs several queries; only where one has any.
    """
    masks, references, targets = ([s[key] for s in prepared] for key in ("masks", "references", "targets"))
    num_regions, num_frames = max(map(len, masks)), max(mask.shape[1] for mask in masks)
    batch = {
        "region_masks": torch.zeros(len(masks), num_regions, num_frames, *grid.shape, dtype=torch.bool),
        "region_valid": torch.zeros(len(masks), num_regions, dtype=torch.bool),
        "region_references": torch.full((len(masks), max(map(len, references))), -1),
    }
    for index, (mask, reference) in enumerate(zip(masks, references, strict=True)):
        batch["region_masks"][index, : len(mask), : mask.shape[1]] = mask
        batch["region_valid"][index, : len(mask)] = True
        batch["region_references"][index, : len(reference)] = torch.tensor(reference, dtype=torch.long)
    if any(target is not None for target in targets):
        batch["region_targets"] = _pad_targets(targets, num_regions)
    return batch


def _check_targets(targets: Tensor, num_regions: int) -> Tensor:
    """Return targets as bool."""
    if not ((targets == 0) | (targets == 1)).all():
        raise ValueError(
            f"region_targets say of each region whether it is meant, True or False, got {targets.tolist()}. Choose a "
            "threshold for probabilities."
        )
    targets = targets.bool()
    if targets.ndim not in (1, 2) or targets.shape[-1] != num_regions + 1 or not targets.any(-1).all():
        raise ValueError(
            f"region_targets must be bool ({num_regions + 1},), or such a row a query, with a true entry; "
            f"the last means no such object. Got {targets.tolist()}."
        )
    if (targets[..., -1] & targets[..., :-1].any(-1)).any():
        raise ValueError(
            f"region_targets mean a region and, by the last entry, no such object: got {targets.tolist()}. Give one."
        )
    return targets


def _check_queries(targets: Tensor, num_queries: int) -> None:
    if num_queries == 0:
        raise ValueError("region_targets are given, but the chat has no <ground> token to answer with.")
    if targets.ndim == 2 and len(targets) != num_queries:
        raise ValueError(
            f"region_targets have {len(targets)} rows for {num_queries} <ground> tokens that refer to no region: "
            "give one row per query, in the order of the chats."
        )


def _pad_targets(targets: list[Tensor | None], num_regions: int) -> Tensor:
    """Pad targets; rows without a query are False."""
    rows = [target.reshape(-1, target.shape[-1]) if target is not None else None for target in targets]
    num_queries = max(len(target) for target in rows if target is not None)
    batch = torch.zeros(len(rows), num_queries, num_regions + 1, dtype=torch.bool)
    for index, target in enumerate(rows):
        if target is not None:
            batch[index, : len(target), : target.shape[1] - 1] = target[:, :-1]
            batch[index, : len(target), -1] = target[:, -1]
    return batch.squeeze(1) if num_queries == 1 else batch


def _list_references(sample: Mapping[str, Any], num_regions: int) -> list[int]:
    if sample.get("region_references") is None:
        # Of a grounding sample all regions are candidates.
        return [] if sample.get("region_targets") is not None else list(range(num_regions))
    references = to_tensor(sample["region_references"], "region_references")
    is_whole = references.dtype != torch.bool and bool((references == references.round()).all())
    if references.ndim != 1 or not is_whole:
        raise ValueError(
            f"region_references must be a list of the indices of {num_regions} regions, got {references.tolist()}."
        )
    references = [int(reference) for reference in references]
    if any(not -1 <= reference < num_regions for reference in references):
        raise ValueError(f"region_references must name one of {num_regions} regions, got {references}.")
    return references
