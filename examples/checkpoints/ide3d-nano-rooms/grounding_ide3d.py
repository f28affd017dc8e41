"""Regions of a video: their features, the prompt tokens that refer to them, and the head that finds them."""

import torch
from torch import nn
from transformers.utils import torch_compilable_check

from .inputs_ide3d import as_bool


def split_frames(tokens: torch.Tensor, token_grid: tuple[int, int]) -> torch.Tensor:
    """Split the visual tokens of frames into rows and columns, without the newline column.

    Args:
        tokens (`torch.Tensor` of shape `(frames * rows * (cols + 1), hidden_size)`): Tokens of one or more videos.
        token_grid (`tuple[int, int]`): Rows and columns of tokens of a frame, without the newline column.

    Returns:
        `torch.Tensor` of shape `(frames, rows, cols, hidden_size)`.
    """
    rows, cols = token_grid
    return tokens.unflatten(0, (-1, rows, cols + 1))[:, :, :cols]


def gather_frame_features(
    visual_tokens: dict[str, list[torch.Tensor]], token_counts: dict[str, torch.Tensor], token_grid: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring the visual tokens of a batch into the shape of its region masks.

    Args:
        visual_tokens (`dict[str, list[torch.Tensor]]`): Tokens by modality: one tensor for each video or image, in the
            order of the samples, of shape `(frames * rows * (cols + 1), hidden_size)`, newline column included.
        token_counts (`dict[str, torch.Tensor]`): Placeholders of each sample by modality, of shape `(batch_size,)`.
        token_grid (`tuple[int, int]`): Rows and columns of tokens of a frame, without the newline column.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: Features of shape `(batch_size, num_frames, rows, cols, hidden_size)`,
        zero where a sample has fewer frames, and the number of frames of each sample of shape `(batch_size,)`.
        The frames of a sample with several videos follow each other; those of its images come last.
    """
    rows, cols = token_grid
    per_modality, totals = [], []
    for modality, tokens in visual_tokens.items():
        frames = split_frames(torch.cat(list(tokens)), token_grid)
        counts = token_counts[modality] // (rows * (cols + 1))
        per_modality.append(torch.split(frames, counts.tolist()))
        totals.append(counts)
    per_sample = [torch.cat(parts) for parts in zip(*per_modality, strict=True)]
    return nn.utils.rnn.pad_sequence(per_sample, batch_first=True), torch.stack(totals).sum(0)


def pool_regions(frame_features: torch.Tensor, region_masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean visual token of each region.

    Source: 3D-IDE, object features; official `get_object_features` over the 14 x 14 grid of every frame.

    Args:
        frame_features (`torch.Tensor` of shape `(batch_size, num_frames, rows, cols, hidden_size)`): Visual tokens.
        region_masks (`torch.Tensor` of shape `(batch_size, num_regions, num_frames, rows, cols)`, bool): Cells.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: Features of shape `(batch_size, num_regions, hidden_size)`, zero for an
        empty region, and whether a region is empty, of shape `(batch_size, num_regions)`.
    """
    masks = region_masks.flatten(2)
    tokens = masks.sum(-1)
    # Thousands of tokens are added up: half precision would overflow, or lose the last digits of sum and count.
    with torch.autocast(frame_features.device.type, enabled=False):
        features = torch.bmm(masks.float(), frame_features.flatten(1, 3).float())
    return (features / tokens.clamp(min=1).unsqueeze(-1)).to(frame_features.dtype), tokens == 0


def mean_visual_token(frame_features: torch.Tensor, frame_counts: torch.Tensor) -> torch.Tensor:
    """Mean visual token of all frames of each sample.

    Args:
        frame_features (`torch.Tensor` of shape `(batch_size, num_frames, rows, cols, hidden_size)`):
            Visual tokens, zero where a sample has fewer frames.
        frame_counts (`torch.Tensor` of shape `(batch_size,)`): Frames of each sample.

    Returns:
        `torch.Tensor` of shape `(batch_size, hidden_size)`, zero for a sample without frames.
    """
    tokens_per_frame = frame_features.shape[2] * frame_features.shape[3]
    total = frame_features.sum((1, 2, 3), dtype=torch.float32)
    mean = total / (frame_counts * tokens_per_frame).clamp(min=1).unsqueeze(-1).to(total)
    return mean.to(frame_features.dtype)


def encode_regions(
    frame_features: torch.Tensor, frame_counts: torch.Tensor, region_masks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean visual token of each region and each sample; checks the masks against the video.

    Args:
        frame_features (`torch.Tensor` of shape `(batch_size, num_frames, rows, cols, hidden_size)`):
            Visual tokens, zero where a sample has fewer frames.
        frame_counts (`torch.Tensor` of shape `(batch_size,)`): Frames of each sample.
        region_masks (`torch.Tensor` of shape `(batch_size, num_regions, num_frames, rows, cols)`, bool): Cells.

    Returns:
        `tuple[torch.Tensor, ...]`: Features of shape `(batch_size, num_regions, hidden_size)`, whether a region is
        empty of shape `(batch_size, num_regions)`, and mean tokens of shape `(batch_size, hidden_size)`.

    Raises:
        ValueError: If the masks have another grid or number of frames than the video.
    """
    batch_size, num_frames, rows, cols = frame_features.shape[:-1]
    if region_masks.ndim != 5 or (region_masks.shape[0], *region_masks.shape[2:]) != frame_features.shape[:-1]:
        raise ValueError(
            f"region_masks must have shape ({batch_size}, num_regions, {num_frames}, {rows}, {cols}): batch, "
            f"regions, frames, rows and columns of the token grid; got {tuple(region_masks.shape)}."
        )
    exists = torch.arange(num_frames, device=frame_counts.device) < frame_counts.unsqueeze(-1)
    masks = as_bool(region_masks, "region_masks").to(frame_features.device)
    torch_compilable_check(
        ~(masks & ~exists.to(masks.device)[:, None, :, None, None]).any(),
        "region_masks mark cells of frames that their sample does not have.",
    )
    return *pool_regions(frame_features, masks), mean_visual_token(frame_features, frame_counts)


def fill_empty_regions(
    region_features: torch.Tensor, region_empty: torch.Tensor, replacement: torch.Tensor
) -> torch.Tensor:
    """Put a vector in the place of the feature of each empty region.

    Args:
        region_features (`torch.Tensor` of shape `(batch_size, num_regions, hidden_size)`): See `pool_regions`.
        region_empty (`torch.Tensor` of shape `(batch_size, num_regions)`, bool): See `pool_regions`.
        replacement (`torch.Tensor` of shape `(hidden_size,)` or `(batch_size, hidden_size)`): Mean token of each
            sample where a prompt refers to a region, a learned vector where regions are scored.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_regions, hidden_size)`.
    """
    return torch.where(region_empty.unsqueeze(-1), replacement.to(region_features).unsqueeze(-2), region_features)


def complete_region_valid(region_masks: torch.Tensor, region_valid: torch.Tensor | None) -> torch.Tensor:
    """Which regions are no padding, all of them by default, checked against the masks.

    Args:
        region_masks (`torch.Tensor` of shape `(batch_size, num_regions, num_frames, rows, cols)`, bool): Cells.
        region_valid (`torch.Tensor` of shape `(batch_size, num_regions)`, bool, *optional*): Padding is False.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_regions)`, bool, on the device of the masks.

    Raises:
        ValueError: One of the two has another shape.
    """
    if region_masks.ndim != 5:
        raise ValueError(
            "region_masks must have shape (batch_size, num_regions, num_frames, rows, cols), got "
            f"{tuple(region_masks.shape)}."
        )
    expected = region_masks.shape[:2]
    if region_valid is None:
        return torch.ones(expected, dtype=torch.bool, device=region_masks.device)
    if region_valid.shape != expected:
        raise ValueError(
            f"region_valid must have shape {tuple(expected)}, batch and regions of region_masks, got "
            f"{tuple(region_valid.shape)}."
        )
    return as_bool(region_valid, "region_valid").to(region_masks.device)


def select_region_references(
    is_ground: torch.Tensor, region_valid: torch.Tensor, has_query: torch.Tensor | None = None
) -> torch.Tensor:
    """Say which region each `<ground>` token of a sample stands for, in order of appearance.

    The k-th `<ground>` refers to the k-th region that is no padding. Where a sample has a query, its last `<ground>`
    is the query and refers to none.

    Args:
        is_ground (`torch.Tensor` of shape `(batch_size, sequence_length)`, bool): Places of the `<ground>` tokens.
        region_valid (`torch.Tensor` of shape `(batch_size, num_regions)`, bool): Padding of the regions is False.
        has_query (`torch.Tensor` of shape `(batch_size,)`, bool, *optional*):
            Samples whose last `<ground>` is a query.

    Returns:
        `torch.Tensor` of shape `(batch_size, max_references)`, long, -1 where a token refers to no region.
    """
    references = is_ground.sum(-1)
    if has_query is not None:
        references = references - has_query.long()
    references = torch.minimum(references, region_valid.sum(-1)).unsqueeze(-1)
    order = torch.arange(region_valid.shape[1], device=is_ground.device)
    regions = region_valid.long().argsort(dim=-1, descending=True, stable=True)  # padding comes last
    return regions.masked_fill(order >= references, -1)


def locate_references(is_ground: torch.Tensor, region_references: torch.Tensor) -> torch.Tensor:
    """Region index at each position of a sequence, -1 where the token refers to none.

    Args:
        is_ground (`torch.Tensor` of shape `(batch_size, sequence_length)`, bool): Places of the `<ground>` tokens.
        region_references (`torch.Tensor` of shape `(batch_size, num_references)`, long):
            Region of the k-th `<ground>`.

    Returns:
        `torch.Tensor` of shape `(batch_size, sequence_length)`, long.

    Raises:
        ValueError: `region_references` has another shape or type, names what cannot be a region, or has more regions
            than there are tokens.
    """
    if region_references.ndim != 2 or region_references.shape[0] != is_ground.shape[0]:
        raise ValueError(
            f"region_references must have shape ({is_ground.shape[0]}, num_references), one row per sample, got "
            f"{tuple(region_references.shape)}."
        )
    if (
        region_references.is_floating_point()
        or region_references.is_complex()
        or region_references.dtype == torch.bool
    ):
        raise ValueError(f"region_references must be integers, got {region_references.dtype}.")
    _check_references(region_references, is_ground)
    padded = nn.functional.pad(region_references, (0, 1), value=-1)  # every later `<ground>` refers to none
    ordinal = (is_ground.cumsum(-1) - 1).clamp(min=0, max=padded.shape[1] - 1)
    return padded.gather(1, ordinal).masked_fill(~is_ground, -1)


def _check_references(region_references: torch.Tensor, is_ground: torch.Tensor) -> None:
    """Check that each reference has its `<ground>`, and is an index or -1.

    Args:
        region_references (`torch.Tensor` of shape `(batch_size, num_references)`, long):
            Region of the k-th `<ground>`; the padding of a row is -1.
        is_ground (`torch.Tensor` of shape `(batch_size, sequence_length)`, bool): Places of the `<ground>` tokens.

    Raises:
        ValueError: A number is below -1, or a row has more references than `<ground>` tokens.
    """
    num_tokens = is_ground.sum(-1, keepdim=True)
    place = torch.arange(region_references.shape[1], device=region_references.device)
    is_known, has_token = region_references >= -1, (place < num_tokens) | (region_references < 0)

    def explain() -> str:
        if not is_known.all():
            return "region_references must be indices of region_masks, or -1 for no region; got numbers below -1."
        return (
            f"region_references name regions behind the {num_tokens.flatten().tolist()} <ground> tokens of the texts. "
            "Give one for each <ground>, and -1 behind them."
        )

    torch_compilable_check((is_known & has_token).all(), explain)  # one check, since each waits for the device


def find_open_references(
    input_ids: torch.Tensor,
    ground_token_id: int,
    end_token_ids: list[int],
    num_references: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    first_new: int | None = None,
) -> torch.Tensor:
    """Find the samples whose question points at a region that was not given.

    The question is what stands between the last two end tokens of a prompt: the turn before the answer. A prompt
    without any end token is a question as a whole. Earlier turns may hold `<ground>` tokens without a region, such as
    searches that an assistant wrote. So may an answer that the prompt begins.

    Args:
        input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`): Prompts.
        ground_token_id (`int`): Token id of `<ground>`.
        end_token_ids (`list[int]`): Tokens that end a turn of the chat.
        num_references (`torch.Tensor` of shape `(batch_size,)`, long): `<ground>` tokens that are accounted for, from
            the first of each sample on.
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*): Padding is 0.
        first_new (`int`, *optional*): Position of the first token that no cache holds yet; None without a cache. Of
            a prompt that goes on behind a cache, nothing but a question between end tokens is looked at.

    Returns:
        `torch.Tensor` of shape `(batch_size,)`, bool.
    """
    ends = torch.tensor(end_token_ids, dtype=input_ids.dtype, device=input_ids.device)
    is_end, is_ground = torch.isin(input_ids, ends), input_ids == ground_token_id
    if attention_mask is not None:
        is_end = is_end & attention_mask[:, -is_end.shape[1] :].bool()
    ends_to_come = is_end.flip(-1).cumsum(-1).flip(-1)
    in_question = ends_to_come == 1
    if first_new is None:
        in_question = in_question | ~is_end.any(-1, keepdim=True)
    is_beyond = is_ground.cumsum(-1) > num_references.to(input_ids.device).unsqueeze(-1)
    return (is_ground & in_question & is_beyond)[:, first_new:].any(-1)


class GroundingHead(nn.Module):
    """Cosine similarity between what an answer's `<ground>` token asks for and each candidate region.

    Source: 3D-IDE; official `ground_head_query`, `ground_head_obj`, `ground_head_zero_target`.

    Args:
        hidden_size (`int`): Width of the language model, of the query and of the region features.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.query_proj = self._projection(hidden_size)
        self.key_proj = self._projection(hidden_size)
        self.no_object = nn.Parameter(torch.zeros(hidden_size))
        self.empty_region = nn.Parameter(torch.zeros(hidden_size))

    @staticmethod
    def _projection(hidden_size: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, hidden_size),
        )

    def forward(
        self,
        query: torch.Tensor,
        region_features: torch.Tensor,
        region_empty: torch.Tensor | None = None,
        region_valid: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Score the regions.

        Args:
            query (`torch.Tensor` of shape `(batch_size, hidden_size)`): Hidden state at the `<ground>` token.
            region_features (`torch.Tensor` of shape `(batch_size, num_regions, hidden_size)`): Mean tokens.
            region_empty (`torch.Tensor` of shape `(batch_size, num_regions)`, bool, *optional*): These take a learned
                feature instead.
            region_valid (`torch.Tensor` of shape `(batch_size, num_regions)`, bool, *optional*): The rest scores -inf.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_regions + 1)`, float32: cosine similarities in [-1, 1]; the last
            column is "no such object".
        """
        region_features = region_features.to(query)
        if region_empty is not None:
            region_features = fill_empty_regions(region_features, region_empty, self.empty_region)
        no_object = self.no_object.to(region_features).expand(region_features.shape[0], 1, -1)
        keys = self.key_proj(torch.cat([region_features, no_object], dim=1)).float()
        scores = nn.functional.cosine_similarity(self.query_proj(query).float().unsqueeze(1), keys, dim=-1)
        if region_valid is not None:
            scores = scores.masked_fill(~nn.functional.pad(region_valid, (0, 1), value=True), -torch.inf)
        return scores


__all__ = [
    "GroundingHead",
    "complete_region_valid",
    "encode_regions",
    "fill_empty_regions",
    "find_open_references",
    "gather_frame_features",
    "locate_references",
    "mean_visual_token",
    "pool_regions",
    "select_region_references",
    "split_frames",
]
