"""Grounding queries of a training batch: `<ground>` tokens that ask for a region instead of referring to one."""

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from modeling_ide3d.grounding_ide3d import locate_references, select_region_references
from modeling_ide3d.modeling_ide3d import IDE3DForConditionalGeneration

__all__ = ["locate_queries", "score_queries", "select_query_references"]


def select_query_references(
    is_ground: torch.Tensor,
    region_masks: torch.Tensor,
    region_valid: torch.Tensor | None,
    region_targets: torch.Tensor,
) -> torch.LongTensor:
    """Say which region each `<ground>` stands for.

    The last one of a sample with a target is its query.

    Shape:
        is_ground:      (B, L), bool.
        region_masks:   (B, regions, V, rows, cols), bool.
        region_valid:   (B, regions), bool, or None for all.
        region_targets: (B, regions + 1), bool.
        output:         (B, references), long, -1 for a query.

    Raises:
        ValueError: If the targets are those of packed queries, whose order nothing tells.
    """
    if region_targets.ndim == 3:
        raise ValueError("region_targets of packed queries need region_references, -1 at every query.")
    if region_valid is None:
        region_valid = torch.ones(region_masks.shape[:2], dtype=torch.bool, device=is_ground.device)
    return select_region_references(is_ground, region_valid, region_targets.any(-1))


def locate_queries(is_ground: torch.Tensor, region_references: torch.LongTensor, per_sample: int) -> torch.LongTensor:
    """Find the queries of each sample, in order.

    Shape:
        is_ground:         (B, L), bool.
        region_references: (B, references), long, -1 for a query.
        output:            (B, per_sample), positions; -1 where a sample has fewer queries.
    """
    is_query = is_ground & (locate_references(is_ground, region_references) < 0)
    wanted = torch.arange(1, per_sample + 1, device=is_ground.device)
    found = (is_query.cumsum(-1) * is_query).unsqueeze(1) == wanted.unsqueeze(-1)
    return found.int().argmax(-1).masked_fill(~found.any(-1), -1)


def score_queries(
    model: IDE3DForConditionalGeneration,
    last_hidden_state: torch.Tensor,
    region_targets: torch.Tensor,
    input_ids: torch.LongTensor,
    mm_encoder_outputs: dict[str, BaseModelOutputWithPooling],
    region_masks: torch.Tensor,
    region_valid: torch.Tensor | None,
    region_references: torch.LongTensor | None,
) -> torch.Tensor:
    """Compare the state at every query of a batch with the regions of its sample.

    Shape:
        region_targets: (B * queries, regions + 1), bool; the others as in `IDE3DForConditionalGeneration.forward`.
        output:         (B * queries, regions + 1), cosine similarities, in the order of the targets.

    Raises:
        ValueError: If a sample with a target has no query.
    """
    per_sample = len(region_targets) // len(input_ids)
    if per_sample == 1:
        position = model.locate_query(input_ids, region_references).unsqueeze(1)
    else:
        position = locate_queries(input_ids == model.config.ground_token_id, region_references, per_sample)
    if (region_targets.any(-1) & (position.flatten() < 0)).any():
        raise ValueError("A sample has region_targets but no <ground> token to answer with.")
    return model.score_regions(last_hidden_state, position, input_ids, mm_encoder_outputs, region_masks, region_valid)
