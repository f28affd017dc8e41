"""Pseudo geometry, whose scale or shift is unknown, brought to what the depth decoder predicts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

METRIC, SCALE, AFFINE, INVERSE = range(4)
LIMIT = 2.0  # Aligned depth stays within the predicted depths of its frame, widened by this factor.
FLAT = 1e-5  # Spread, as a share of the median, below which a frame is flat: its spread is rounding of float16.


def align_targets(predicted_depth: torch.Tensor, targets: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bring pseudo depth, and the motion between its frames, to the scale of the prediction.

    The entry of `depth_alignment` says what is unknown about the depth of a video, by the constants of this module:

    - METRIC: nothing; depth is in metres, as measured depth is.
    - SCALE: one factor of the whole video, shared by its poses. It becomes the median of predicted over given depth.
    - AFFINE: scale and shift of each frame. The frame gets the median of the prediction and its mean absolute
      deviation from the median.
    - INVERSE: scale and shift of each frame in inverse depth, which is what `depth` then holds. It is aligned there
      as above and turned into depth.

    The prediction is taken as constant. A loss of aligned depth is therefore in metres, and its gradient does not
    depend on what is unknown: for c x depth + d it is that of depth itself, with factor 1. Where the prediction has
    the median (SCALE) or median and deviation (AFFINE) of the truth, it is the gradient of the measured term. The
    deviation of the prediction is kept: a least-squares fit of the depth to it would reward a flat prediction.

    No pixel is gained or lost. Aligned depth of AFFINE and INVERSE frames is held within half the least and twice the
    largest predicted depth of the frame's pixels.

    Source: ours; median and mean absolute deviation as in the scale- and shift-invariant loss of MiDaS (Ranftl et al.,
    arXiv 1907.01341), which normalises both sides instead.

    Args:
        predicted_depth: Depth that the decoder predicts.
        targets: Targets as in `GeometryTargets`; without `depth_alignment` all depth is metric.

    Shape:
        predicted_depth:         (videos, V, h, w), metres.
        targets.depth:           (videos, V, h, w); 0 = no value.
        targets.depth_alignment: (videos,), whole numbers.
        output:                  the same targets with aligned `depth` and, where there are any, `pairs`.
    """
    if "depth_alignment" not in targets:
        return targets
    with torch.no_grad():
        prediction, depth = predicted_depth.detach().float(), targets["depth"].clone()
        factors = torch.ones(len(depth), device=depth.device)
        for video, kind in enumerate(targets["depth_alignment"].tolist()):
            given, predicted = depth[video], prediction[video]
            if kind == SCALE:
                factor = _median((predicted / given).flatten(), (given > 0).flatten())
                factors[video] = torch.where(factor > 0, factor, 1.0)
                depth[video] = given * factors[video]
            elif kind == AFFINE:
                depth[video] = _align_frames(predicted, given)
            elif kind == INVERSE:
                aligned = _align_frames(1 / predicted, given)
                depth[video] = torch.where(given > 0, 1 / aligned, given)
        aligned = {**targets, "depth": depth}
        pairs = targets.get("pairs")
        if pairs is not None and len(pairs):
            motion = pairs.target_from_source.clone()
            motion[:, :3, 3] *= factors.to(motion)[pairs.batch, None]
            aligned["pairs"] = replace(pairs, target_from_source=motion)
    return aligned


def _align_frames(predicted: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Give each frame the median and the mean absolute deviation of its prediction.

    Shape:
        predicted, given: (V, h, w); given 0 = no value.
        output:           (V, h, w), positive where a value is given.
    """
    has_value = given > 0
    mask, values, goal = has_value.flatten(1), given.flatten(1), predicted.flatten(1)
    middle, goal_middle = _median(values, mask), _median(goal, mask)
    count = mask.sum(1).clamp(min=1)

    def spread(numbers: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
        return torch.where(mask, (numbers - around.unsqueeze(1)).abs(), 0.0).sum(1) / count

    width = spread(values, middle)
    factor = torch.where(width > FLAT * middle, spread(goal, goal_middle) / width, 0.0)
    aligned = (values - middle.unsqueeze(1)) * factor.unsqueeze(1) + goal_middle.unsqueeze(1)
    least = torch.where(mask, goal, torch.inf).amin(1, keepdim=True) / LIMIT
    largest = torch.where(mask, goal, -torch.inf).amax(1, keepdim=True) * LIMIT
    aligned = torch.minimum(torch.maximum(aligned, least), largest)
    return torch.where(mask, aligned, values).view_as(given)  # what is broken stays broken


def _median(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the lower median of the values inside the mask over the last axis.

    It is NaN without any value. By sorting: the median of PyTorch has no deterministic kernel on a GPU.
    """
    ordered = torch.where(mask, values, torch.inf).sort(-1).values
    count = mask.sum(-1, keepdim=True)
    middle = ordered.gather(-1, ((count - 1) // 2).clamp(min=0)).squeeze(-1)
    return torch.where(count.squeeze(-1) > 0, middle, torch.nan)


__all__ = ["AFFINE", "INVERSE", "METRIC", "SCALE", "align_targets"]
