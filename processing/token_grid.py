"""`TokenGrid`: the one rule that says which pixel belongs to which visual token, and where a token stands."""

from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

__all__ = ["TokenGrid"]

_MAX_SIDE = 2**20  # Pixels; no picture is that wide, and the tokens of a larger one would fill the memory.


@dataclass(frozen=True)
class TokenGrid:
    """Token grid of one frame, before the newline column, and its place in the picture.

    The vision tower cuts the picture into whole patches from the top-left corner. It never sees the pixels that are
    left over at the right and at the bottom. Pooling then spreads rows x cols tokens evenly over what it sees.

    A picture of 384 px with patches of 14 px gives 27 x 27 patches on 378 px. With stride 2 these are 14 x 14 tokens
    of 27 x 27 px.

    Args:
        image_size: Side, or (height, width), of the vision input in pixels.
        patch_size: Side of a patch in pixels.
        pool_stride: Patches per token and side; the last token may hold fewer.

    Raises:
        ValueError: Numbers below 1 or not whole, or a picture smaller than a patch.

    Example:
        >>> grid = TokenGrid(384, 14, 2)
        >>> grid.patches, grid.covered_size, grid.shape, grid.tokens_per_frame
        ((27, 27), (378, 378), (14, 14), 210)
    """

    image_size: int | tuple[int, int]
    patch_size: int
    pool_stride: int = 2

    def __post_init__(self) -> None:
        size = self.image_size if isinstance(self.image_size, (tuple, list)) else (self.image_size, self.image_size)
        if len(size) != 2:
            raise ValueError(f"`image_size` must be a number or (height, width), got {self.image_size!r}.")
        for value in (*size, self.patch_size, self.pool_stride):
            if not isinstance(value, Real) or isinstance(value, bool) or value != value // 1 or value > _MAX_SIDE:
                raise ValueError(
                    "`image_size`, `patch_size` and `pool_stride` must be whole numbers of pixels and patches, at "
                    f"most {_MAX_SIDE}, got "
                    f"{self.image_size!r}, {self.patch_size!r} and {self.pool_stride!r}."
                )
        for name in ("patch_size", "pool_stride"):
            object.__setattr__(self, name, int(getattr(self, name)))
        object.__setattr__(self, "image_size", (int(size[0]), int(size[1])))
        if self.patch_size < 1 or self.pool_stride < 1 or min(self.image_size) < self.patch_size:
            raise ValueError(
                f"Expected patch_size >= 1, pool_stride >= 1 and a picture of at least one patch, got "
                f"image_size={self.image_size}, patch_size={self.patch_size}, pool_stride={self.pool_stride}."
            )

    @classmethod
    def of(cls, processor_or_config: Any) -> "TokenGrid":
        """Return the grid of a processor or of a model's config.

        Args:
            processor_or_config: `IDE3DProcessor`, `IDE3DConfig`, or any object with `image_size`, `patch_size` and
                `spatial_pool_stride`. A `vision_config` may hold the first two.

        Raises:
            TypeError: One of the three numbers is missing.
            ValueError: The numbers make no grid.

        Example:
            >>> from types import SimpleNamespace
            >>> TokenGrid.of(SimpleNamespace(image_size=384, patch_size=14, spatial_pool_stride=2)).shape
            (14, 14)
        """
        vision = getattr(processor_or_config, "vision_config", processor_or_config)
        owners = {"image_size": vision, "patch_size": vision, "spatial_pool_stride": processor_or_config}
        values = {name: getattr(owner, name, None) for name, owner in owners.items()}
        missing = [f"`{name}`" for name, value in values.items() if value is None]
        if missing:
            raise TypeError(
                "Expected an IDE3DProcessor, an IDE3DConfig, or an object with `image_size`, `patch_size` (its own or "
                f"in `vision_config`) and `spatial_pool_stride`, got {type(processor_or_config).__name__} without "
                f"{', '.join(missing)}. Build TokenGrid(image_size, patch_size, pool_stride) from its numbers."
            )
        return cls(*values.values())

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of patches, before pooling."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def covered_size(self) -> tuple[int, int]:
        """Height and width in pixels, from the top-left corner, that the vision tower sees."""
        return self.patches[0] * self.patch_size, self.patches[1] * self.patch_size

    @property
    def rows(self) -> int:
        """Rows of tokens."""
        return -(-self.patches[0] // self.pool_stride)

    @property
    def cols(self) -> int:
        """Columns of tokens, without the newline."""
        return -(-self.patches[1] // self.pool_stride)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.rows, self.cols

    @property
    def tokens_per_frame(self) -> int:
        """Tokens a frame takes in the language model: one newline behind every row."""
        return self.rows * (self.cols + 1)

    def split(self, tokens: Tensor, *, tokens_after_row: int = 1) -> Tensor:
        """Split the tokens of a video into frames, rows and columns, without the newline column.

        Args:
            tokens: Tokens of the frames one after another, or one number a token, such as its position.
            tokens_after_row: Tokens behind every row, 1 newline by default; models of others may have none.

        Shape:
            tokens: (V * rows * (cols + 1),), (V * rows * (cols + 1), C) or (B, V * rows * (cols + 1), C).
            output: (V, rows, cols), (V, rows, cols, C) or (B, V, rows, cols, C).

        Raises:
            ValueError: The tokens are no whole number of frames.

        Example:
            >>> TokenGrid(4, 2, 1).split(torch.arange(12)).tolist()  # 2 frames of 2 x 2 tokens and 2 newlines
            [[[0, 1], [3, 4]], [[6, 7], [9, 10]]]
        """
        axis = tokens.dim() - 2 if tokens.dim() > 1 else 0
        per_frame = self.rows * (self.cols + tokens_after_row)
        if tokens.dim() == 0 or tokens.shape[axis] % per_frame:
            count = tokens.shape[axis] if tokens.dim() else "a single value"
            raise ValueError(
                f"Expected a multiple of {per_frame} tokens, frames of {self.rows} rows of {self.cols} and "
                f"{tokens_after_row} behind each row, got {count}. Give all visual tokens of whole frames."
            )
        frames = tokens.unflatten(axis, (tokens.shape[axis] // per_frame, self.rows, self.cols + tokens_after_row))
        return frames.narrow(axis + 2, 0, self.cols)

    def locate(self, v: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return token row and column at pixels of the vision input, -1 if unseen.

        This is the pixel -> token rule of every tensor. Integer coordinates are pixel centres, so the picture's left
        edge is -0.5.

        Args:
            v: Vertical coordinates in pixels, down.
            u: Horizontal coordinates in pixels, right, of the shape of `v`.
        """
        height, width = self.covered_size
        # Multiplied before it is divided: exact on the edges between tokens.
        row = torch.floor((v + 0.5) * self.rows / height).long()
        column = torch.floor((u + 0.5) * self.cols / width).long()
        is_seen = (row >= 0) & (row < self.rows) & (column >= 0) & (column < self.cols)
        return torch.where(is_seen, row, -1), torch.where(is_seen, column, -1)

    def token_index(self, frame_size: tuple[int, int] | None = None) -> Tensor:
        """Return the token (row * cols + col) of every pixel of a resized frame, -1 = unseen.

        Args:
            frame_size: Height and width of the frame before it is resized to the vision input; None = the vision
                input itself.

        Returns:
            Long tensor (h, w).
        """
        height, width = self.image_size if frame_size is None else frame_size
        v = (torch.arange(height, dtype=torch.float64) + 0.5) * self.image_size[0] / height - 0.5
        u = (torch.arange(width, dtype=torch.float64) + 0.5) * self.image_size[1] / width - 0.5
        row, column = self.locate(v[:, None].expand(height, width), u[None, :].expand(height, width))
        return torch.where(row >= 0, row * self.cols + column, -1)

    def crop(self, pixels: Tensor) -> Tensor:
        """Return the part (..., h, w) of per-pixel values (..., H, W) that the vision tower sees."""
        if tuple(pixels.shape[-2:]) != self.image_size:
            raise ValueError(
                f"Expected (..., {self.image_size[0]}, {self.image_size[1]}), the pixels of the vision input, got "
                f"{tuple(pixels.shape)}. Resize the frames first."
            )
        return pixels[..., : self.covered_size[0], : self.covered_size[1]]
