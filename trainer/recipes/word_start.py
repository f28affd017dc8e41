"""A start of the projector for a pretrained language model: visual tokens become words of what they show.

A training of the projector by answers has to find this first, at the cost of the language model in every step. Here
the last layer of the projector is the solution of a least squares problem, and the language model is not computed.
"""

from collections.abc import Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from processing import IDE3DProcessor
from processing.rooms.samples import cell_depth, cell_objects, video_arrays
from processing.token_grid import TokenGrid

__all__ = ["CellWords", "start_from_words"]

_RIDGE = 1e-3  # of the mean variance of the hidden units, of which some say nearly the same
_MOST_METRES = 9  # one digit
_SIDES = ("left", "right")


class CellWords:
    """Vectors of cells in the space of a language model's words.

    A cell is the sum of these words, each as its embedding's deviation from the mean: the colour and the kind of the
    object that fills most of the cell, the whole metres of depth at its middle, "left" and "right". Depth between two
    whole metres, and columns between the two sides, are interpolated.

    Args:
        table: Embeddings of the language model.
        tokenizer: Its tokenizer.

    Shape:
        table: (words, C).
    """

    def __init__(self, table: Tensor, tokenizer: PreTrainedTokenizerBase):
        self.table, self.tokenizer, self.mean = table.detach().float(), tokenizer, table.detach().float().mean(0)
        self.known: dict[str, Tensor] = {}
        self.metres = torch.stack([self._read(str(metres)) for metres in range(_MOST_METRES + 1)])
        self.sides = torch.stack([self._read(f" {side}") for side in _SIDES])

    def _read(self, text: str) -> Tensor:
        """Return the mean deviation of the tokens of a text; nothing is 0."""
        if text not in self.known:
            tokens = self.tokenizer.encode(text, add_special_tokens=False) if text.strip() else []
            self.known[text] = (self.table[tokens] - self.mean).mean(0) if tokens else torch.zeros_like(self.mean)
        return self.known[text]

    def read_room(self, row: dict, grid: TokenGrid) -> Tensor:
        """Return the vectors of a room's cells.

        Args:
            row: Row of `load_rooms`.
            grid: Token grid of the model.

        Shape:
            output: (V, rows, cols, C).
        """
        objects = [self._read(f" {thing['colour']}") + self._read(f" {thing['category']}") for thing in row["objects"]]
        objects = torch.stack([*objects, torch.zeros_like(self.mean)])  # the last one: no object
        vectors = self.mean + objects[torch.from_numpy(cell_objects(row, grid))]
        depth = torch.from_numpy(np.asarray(cell_depth(video_arrays(row)["depth"], grid)[0])).float()
        near = depth.clamp(max=_MOST_METRES).floor()
        share = (depth.clamp(max=_MOST_METRES) - near).unsqueeze(-1)
        near = near.long()
        metres = (1 - share) * self.metres[near] + share * self.metres[(near + 1).clamp(max=_MOST_METRES)]
        right = ((torch.arange(grid.cols) + 0.5) / grid.cols).unsqueeze(-1)
        return vectors + metres * (depth > 0).unsqueeze(-1) + (1 - right) * self.sides[0] + right * self.sides[1]


@contextmanager
def _without_last_layer(projector: nn.Module):
    """Let the projector give its hidden units, of which there are as many as outputs."""
    last, projector.linear_2 = projector.linear_2, nn.Identity()
    try:
        yield
    finally:
        projector.linear_2 = last


@torch.no_grad()
def start_from_words(
    model: IDE3DForConditionalGenerationWithGeometry, processor: IDE3DProcessor, rooms: Sequence[dict]
) -> float:
    """Fit the projector's last layer to make each visual token the words of its cell.

    Args:
        model: Training model without adapters; its projector is changed in place.
        processor: Processor of the model.
        rooms: Rows of `load_rooms`.

    Returns:
        Share of the vectors' variance that the fitted tokens explain, of these rooms.

    Raises:
        ValueError: There is no room.
    """
    if not rooms:
        raise ValueError("Expected at least one room to fit the projector by, got none.")
    words = CellWords(model.get_input_embeddings().weight, processor.tokenizer)
    grid, projector = TokenGrid.of(processor), model.model.multi_modal_projector
    width = projector.linear_2.in_features
    # Sums over cells of (1, hidden units, vectors) times its transpose: all that least squares needs.
    moments = torch.zeros(1 + 2 * width, 1 + 2 * width, dtype=torch.float64)
    with _without_last_layer(projector):
        for row in rooms:
            frames = torch.from_numpy(video_arrays(row)["frames"]).permute(0, 3, 1, 2)
            pixels = processor.video_processor(videos=[frames], return_tensors="pt", do_sample_frames=False)
            pixels = pixels["pixel_values_videos"].to(model.device, model.dtype)
            units = grid.split(model.get_video_features(pixels, return_dict=True).pooler_output[0]).flatten(0, 2)
            vectors = words.read_room(row, grid).flatten(0, 2)
            joined = torch.cat([torch.ones(len(units), 1), units.float().cpu(), vectors.cpu()], 1)
            moments += (joined.T @ joined).double()
    mean = moments[0, 1:] / moments[0, 0]
    centred = moments[1:, 1:] / moments[0, 0] - torch.outer(mean, mean)
    gram, cross, variance = centred[:width, :width], centred[:width, width:], centred.diagonal()[width:].sum()
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(width, dtype=gram.dtype)
    weight = torch.linalg.solve(gram + ridge, cross)
    projector.linear_2.weight.copy_(weight.T)
    projector.linear_2.bias.copy_(mean[width:] - mean[:width] @ weight)
    error = variance - 2 * (weight * cross).sum() + (weight * (gram @ weight)).sum()
    return float(1 - error / variance)
