"""Numbers and embedding of the motion between two views for the geometric validator."""

from typing import Literal

import torch
from torch import nn

POSE_ENTRIES = {"clean": 9, "paper": 16}  # numbers of an encoded relative pose
TRANSLATION_SCALE = 2.0  # metres: the largest baseline of pairs chosen by overlap becomes 1, as a rotation's numbers


def encode_relative_pose(target_from_source: torch.Tensor, protocol: Literal["clean", "paper"]) -> torch.Tensor:
    """Encode relative poses as the numbers that enter the validator.

    "clean": translation / 2 m and the first two columns of rotation - identity. Two columns determine a rotation, and
    no motion is 0 in all numbers. "paper": the matrix, row by row; its numbers have different units, and four of them
    never change.

    Shape:
        target_from_source: (N, 4, 4), metres.
        output:             (N, 9) or (N, 16).
    """
    if protocol == "paper":
        return target_from_source.flatten(1)
    turned = target_from_source[:, :3, :2] - torch.eye(3, 2).to(target_from_source)
    return torch.cat([target_from_source[:, :3, 3] / TRANSLATION_SCALE, turned.mT.flatten(1)], dim=1)


class RelativePoseEmbedding(nn.Linear):
    """Learned map (..., 9 or 16) -> (..., hidden_size) of an encoded pose; training starts at the own view."""

    def __init__(self, hidden_size: int, protocol: Literal["clean", "paper"]):
        super().__init__(POSE_ENTRIES[protocol], hidden_size, bias=False)

    def reset_parameters(self) -> None:
        """Set the weights to zero, at construction and where a checkpoint lacks them."""
        nn.init.zeros_(self.weight)


__all__ = ["POSE_ENTRIES", "TRANSLATION_SCALE", "RelativePoseEmbedding", "encode_relative_pose"]
