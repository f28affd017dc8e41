"""Dense prediction head of the geometric validator: four levels of tokens in, one map at pixel resolution out."""

import torch
from torch import nn

NUM_LEVELS = 4  # the head has one fusion block for each of the scales x4, x2, x1, /2

POSITION_RATIO = 0.1  # share of the position embedding in the features it is added to
POSITION_OMEGA = 100.0  # ratio between the highest and the lowest frequency


def embed_positions(rows: int, cols: int, channels: int, aspect: float, *, device: torch.device) -> torch.Tensor:
    """Sine and cosine embedding of where a cell lies in the image.

    Cell centres span a rectangle of the image's aspect ratio whose half diagonal is 1. The first half of the channels
    embeds x, the second half y; in each half the sines come first, from the highest frequency to the lowest.

    Args:
        rows: Rows of the map.
        cols: Columns of the map.
        channels: Channels of the map, a multiple of 4.
        aspect: Width / height of the image that the map covers.
        device: Device of the result.

    Shape:
        output: (channels, rows, cols), float32.

    Raises:
        ValueError: `channels` is not a multiple of 4.
    """
    if channels % 4:
        raise ValueError(
            f"A position embedding needs a multiple of 4 channels, got {channels}. Change the head's widths."
        )
    half_diagonal = (1 + aspect**2) ** 0.5

    def embed_axis(length: int, span: float) -> torch.Tensor:
        edge = span * (length - 1) / length
        centres = torch.linspace(-edge, edge, length, dtype=torch.float64, device=device)
        exponents = torch.arange(channels // 4, dtype=torch.float64, device=device) / (channels // 4)
        angles = POSITION_OMEGA ** -exponents[:, None] * centres
        return torch.cat([angles.sin(), angles.cos()]).float()

    horizontal = embed_axis(cols, aspect / half_diagonal)[:, None, :].expand(-1, rows, -1)
    vertical = embed_axis(rows, 1 / half_diagonal)[:, :, None].expand(-1, -1, cols)
    return torch.cat([horizontal, vertical])


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions beside a skip connection.

    Official: the first ReLU works in place, so the skip connection carries relu(x), not x. The golden vectors show a
    difference of 0.2 in depth, so this is part of the architecture.

    Shape:
        x:      (M, C, h, w).
        output: (M, C, h, w).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Refine a map."""
        x = torch.relu(x)
        return x + self.conv2(torch.relu(self.conv1(x)))


class FusionBlock(nn.Module):
    """Add a finer level to the fused map, refine, and enlarge to the next scale.

    Args:
        channels: Width of the maps.
        has_coarser: Whether a coarser map comes in; false for the coarsest block.

    Shape:
        level:   (M, C, h, w), this block's level.
        coarser: (M, C, h, w), output of the coarser block, or None.
        size:    (height, width) of the output.
        output:  (M, C, height, width).
    """

    def __init__(self, channels: int, has_coarser: bool):
        super().__init__()
        self.level_unit = ResidualUnit(channels) if has_coarser else None
        self.fused_unit = ResidualUnit(channels)
        self.out_conv = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, level: torch.Tensor, coarser: torch.Tensor | None, size: tuple[int, int]) -> torch.Tensor:
        """Fuse one level."""
        fused = level if self.level_unit is None else coarser + self.level_unit(level)
        # A 1x1 convolution and bilinear resizing commute; before the enlargement it costs a quarter.
        fused = self.out_conv(self.fused_unit(fused))
        return nn.functional.interpolate(fused, size=size, mode="bilinear", align_corners=True)


class DPTHead(nn.Module):
    """Dense prediction transformer head (Ranftl et al. 2021) with position embeddings, as 3D-IDE trains it.

    Each level is normalised, projected by a 1x1 convolution, given its positions, resized by 4, 2, 1 and 1/2, and
    brought to a common width. Four blocks fuse from coarse to fine. The result is enlarged to pixels.

    Args:
        input_size: Width of the tokens.
        patch_size: Side of a patch in pixels.
        features: Common width, a multiple of 8.
        out_channels: Width of each level, multiples of 4.
        head_features: Width of the last 3x3 convolution.
        output_channels: Channels of the result.
        output_stride: Pixels of the image per pixel of the result.

    Shape:
        tokens:     four tensors (M, P, input_size), finest level first; P = rows * cols.
        patch_grid: (rows, cols).
        output:     (M, output_channels, rows * patch_size / output_stride, cols * patch_size / output_stride).
    """

    def __init__(
        self,
        input_size: int,
        patch_size: int,
        features: int,
        out_channels: tuple[int, ...],
        head_features: int,
        output_channels: int = 2,
        output_stride: int = 1,
    ):
        super().__init__()
        self.patch_size = patch_size
        self.output_stride = output_stride
        self.norm = nn.LayerNorm(input_size)
        self.projections = nn.ModuleList(nn.Conv2d(input_size, width, kernel_size=1) for width in out_channels)
        first, second, _, last = out_channels
        self.resizes = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, kernel_size=4, stride=4),
                nn.ConvTranspose2d(second, second, kernel_size=2, stride=2),
                nn.Identity(),
                nn.Conv2d(last, last, kernel_size=3, stride=2, padding=1),
            ]
        )
        self.level_convs = nn.ModuleList(
            nn.Conv2d(width, features, kernel_size=3, padding=1, bias=False) for width in out_channels
        )
        self.fusions = nn.ModuleList(
            FusionBlock(features, has_coarser=level < NUM_LEVELS - 1) for level in range(NUM_LEVELS)
        )
        self.fused_conv = nn.Conv2d(features, features // 2, kernel_size=3, padding=1)
        self.pixel_conv = nn.Conv2d(features // 2, head_features, kernel_size=3, padding=1)
        self.prediction = nn.Conv2d(head_features, output_channels, kernel_size=1)

    def output_size(self, patch_grid: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the result.

        Raises:
            ValueError: The stride does not divide the pixels of the grid.
        """
        height, width = (patches * self.patch_size for patches in patch_grid)
        if height % self.output_stride or width % self.output_stride:
            raise ValueError(
                f"output_stride must divide the {height} x {width} pixels of a grid of {tuple(patch_grid)} patches, "
                f"got {self.output_stride}. Use a divisor of the patch size ({self.patch_size})."
            )
        return height // self.output_stride, width // self.output_stride

    def forward(self, patch_grid: tuple[int, int], *tokens: torch.Tensor) -> torch.Tensor:
        """Predict the raw channels; what they mean is the caller's business."""
        output_size = self.output_size(patch_grid)
        levels = [self._build_level(index, patch_grid, level) for index, level in enumerate(tokens)]
        # Where the result is coarser than the last enlargement, that one goes to the result's size directly.
        sizes = [tuple(min(2 * s, o) for s, o in zip(levels[0].shape[-2:], output_size, strict=True))]
        sizes += [tuple(level.shape[-2:]) for level in levels[:-1]]
        fused = None
        for fusion, level, size in zip(reversed(self.fusions), reversed(levels), reversed(sizes), strict=True):
            fused = fusion(level, fused, size)
        pixels = nn.functional.interpolate(
            self.fused_conv(fused), size=output_size, mode="bilinear", align_corners=True
        )
        pixels = self._add_positions(pixels, patch_grid)
        return self.prediction(torch.relu(self.pixel_conv(pixels)))

    def _build_level(self, index: int, patch_grid: tuple[int, int], tokens: torch.Tensor) -> torch.Tensor:
        grid = self.norm(tokens).transpose(1, 2).unflatten(2, patch_grid)
        projected = self._add_positions(self.projections[index](grid), patch_grid)
        return self.level_convs[index](self.resizes[index](projected))

    @staticmethod
    def _add_positions(features: torch.Tensor, patch_grid: tuple[int, int]) -> torch.Tensor:
        channels, rows, cols = features.shape[1:]
        aspect = patch_grid[1] / patch_grid[0]
        positions = embed_positions(rows, cols, channels, aspect, device=features.device)
        return features + (POSITION_RATIO * positions).to(features.dtype)


__all__ = ["NUM_LEVELS", "DPTHead", "embed_positions"]
