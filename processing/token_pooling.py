"""Patch features of a teacher, averaged over the tokens of a model."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from processing.regions import covered_share
from processing.token_grid import TokenGrid

__all__ = ["WHOLE_FRAME", "Window", "pool_teacher_features"]

# Top, left, bottom and right edge of a part of the frame, as shares of the frame's height and width.
Window = tuple[float, float, float, float]
WHOLE_FRAME: Window = (0.0, 0.0, 1.0, 1.0)
MIN_SHARE = 1e-9  # Share of a patch; less is the rounding of edges that touch.


def pool_teacher_features(
    features: Tensor,
    grid: TokenGrid,
    *,
    window: Window = WHOLE_FRAME,
    protocol: Literal["clean", "paper"] = "clean",
) -> Tensor:
    """Average patch features of whole frames over the token grid of a model.

    Args:
        features: Features of the patches that cut `window` into equal cells.
        grid: Token grid; frames are squashed to its `image_size`, and its tokens lie on the `covered_size` of that.
        window: Part of the frame that the patches show. A teacher whose patches leave a border out shows less than
            the whole frame, as the model itself may.
        protocol: "clean" weighs every patch by the area that it shares with the token. "paper" lays the tokens over
            all patches, as adaptive average pooling does, also over those that the model does not see. With 384 px
            and patches of 14 px a token then reads up to 6 px beside its place.

    Shape:
        features: (..., R, S, C), R x S patches.
        output:   (..., rows, cols, C), float32, detached; zero where `window` shows nothing of a token.

    Raises:
        ValueError: Another rank, no patch, a window that is empty or leaves the frame, or an unknown protocol.
    """
    if features.dim() < 3 or 0 in features.shape[-3:]:
        raise ValueError(
            f"`features` must have shape (..., patch rows, patch columns, C), got {tuple(features.shape)}."
        )
    top, left, bottom, right = window
    if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
        raise ValueError(f"`window` must be (top, left, bottom, right) within 0 to 1, got {window}.")
    if protocol not in ("clean", "paper"):
        raise ValueError(f'`protocol` must be "clean" or "paper", got {protocol!r}.')
    features = features.detach().float()
    if protocol == "paper":
        maps = features.reshape(-1, *features.shape[-3:]).permute(0, 3, 1, 2)
        pooled = F.adaptive_avg_pool2d(maps, grid.shape).permute(0, 2, 3, 1)
        return pooled.reshape(*features.shape[:-3], *grid.shape, features.shape[-1])
    of_rows = _patch_weights(0, grid, features.shape[-3], top, bottom).to(features)
    of_columns = _patch_weights(1, grid, features.shape[-2], left, right).to(features)
    return torch.einsum("js,...isc->...ijc", of_columns, torch.einsum("ir,...rsc->...isc", of_rows, features))


def _patch_weights(axis: int, grid: TokenGrid, patches: int, start: float, end: float) -> Tensor:
    """Return the weight (tokens, patches) of each patch along an axis in each token.

    The weights of a token sum to 1, or are all 0 where the patches show nothing of it.
    """
    tokens = grid.shape[axis]
    edges = torch.arange(tokens + 1, dtype=torch.float64) / tokens * grid.covered_size[axis] / grid.image_size[axis]
    shares = covered_share(edges[:-1] - start, edges[1:] - start, patches, end - start)
    shares = torch.where(shares > MIN_SHARE, shares, 0.0)
    return shares / shares.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
