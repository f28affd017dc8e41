"""Surface normals of point maps. The original carries these terms but its recipe leaves them off; so does ours."""

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.losses.blocks import graph_zero

MIN_VALID_NORMALS = 10  # Official: fewer give no loss.
NORMAL_EPSILON = 1e-8  # Official: least length a cross product is divided by.


def compute_normal_maps(points: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Four normals of every pixel, from its neighbours: up x left, left x down, down x right, right x up.

    Points outside the map are zero, as in the official `point_map_to_normal`, and their normals are not valid.

    Shape:
        points: (N, H, W, 3), metres.
        mask:   (N, H, W), bool.
        output: normals (4, N, H, W, 3) of length 1, and whether the pixel and both neighbours are valid, (4, N, H, W).
    """
    padded = F.pad(points, (0, 0, 1, 1, 1, 1))
    inside = F.pad(mask, (1, 1, 1, 1))
    up, left = padded[:, :-2, 1:-1] - points, padded[:, 1:-1, :-2] - points
    down, right = padded[:, 2:, 1:-1] - points, padded[:, 1:-1, 2:] - points
    has_up, has_left = inside[:, :-2, 1:-1], inside[:, 1:-1, :-2]
    has_down, has_right = inside[:, 2:, 1:-1], inside[:, 1:-1, 2:]
    products = [(up, left), (left, down), (down, right), (right, up)]
    valid = [has_up & has_left, has_left & has_down, has_down & has_right, has_right & has_up]
    normals = torch.stack([torch.linalg.cross(a, b, dim=-1) for a, b in products])
    return F.normalize(normals, dim=-1, eps=NORMAL_EPSILON), torch.stack(valid) & mask


def normal_difference(
    prediction: Tensor,
    measurement: Tensor,
    mask: Tensor,
    confidence: Tensor | None = None,
    *,
    gamma: float = 1.0,
    alpha: float = 0.2,
) -> Tensor:
    """Mean of 1 - cos(angle) between predicted and measured normals where both are valid (official `normal_loss`).

    With `confidence` each value x becomes gamma x c - alpha log c. Fewer than 10 valid normals: 0 with a graph.

    Shape:
        prediction, measurement: (N, H, W, 3), metres.
        mask:                    (N, H, W), bool.
        confidence:              (N, H, W).
        output:                  scalar, 0 to 2 without confidence.
    """
    normals, valid = compute_normal_maps(prediction, mask)
    measured, measured_valid = compute_normal_maps(measurement, mask)
    valid = valid & measured_valid
    if valid.sum() < MIN_VALID_NORMALS:
        return graph_zero(prediction)
    cosine = (normals[valid] * measured[valid]).sum(-1).clamp(-1 + NORMAL_EPSILON, 1 - NORMAL_EPSILON)
    loss = 1 - cosine
    if confidence is not None:
        chosen = confidence.expand(valid.shape)[valid].clamp(min=1e-6)
        loss = gamma * loss * chosen - alpha * chosen.log()
    return loss.mean()


def normal_difference_multiscale(
    prediction: Tensor, measurement: Tensor, mask: Tensor, *, num_scales: int = 3
) -> Tensor:
    """Mean of `normal_difference` over every 1st, 2nd, 4th, ... pixel."""
    terms = []
    for scale in range(num_scales):
        step = (slice(None), slice(None, None, 2**scale), slice(None, None, 2**scale))
        terms.append(normal_difference(prediction[step], measurement[step], mask[step]))
    return torch.stack(terms).mean()
