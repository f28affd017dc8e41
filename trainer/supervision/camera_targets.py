"""Targets and errors of the terms of cameras: poses between frames, and the mean depth of each video."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trainer.geometry import FramePairs, relative_pose
from trainer.losses.metric_scale import measure_scale_errors
from trainer.losses.relative_pose import measure_pose_errors

__all__ = ["CAMERA_FIGURES", "build_camera_targets", "compute_mean_depth", "measure_cameras", "select_pose_pairs"]

CAMERA_FIGURES = ("pose_degrees", "pose_percent", "scale_percent")


def compute_mean_depth(depth: Tensor) -> Tensor:
    """Return the mean measured depth of each video, 0 without a measurement.

    Shape:
        depth:  (videos, V, H, W), metres, 0 = no measurement.
        output: (videos,), metres, float32.
    """
    is_measured = depth > 0
    total = torch.where(is_measured, depth, 0.0).flatten(1).double().sum(1)
    return (total / is_measured.flatten(1).sum(1).clamp(min=1)).float()


def select_pose_pairs(camera_to_world: Tensor, usable: Tensor) -> FramePairs:
    """Pair the first usable frame of each video with its others, in both directions.

    Either frame of a pair is the reference once: the choice of the first frame gives it no part of its own.

    Shape:
        camera_to_world: (videos, V, 4, 4), metres.
        usable:          (videos, V), bool; frames with a pose that may be used.
        output:          pairs without masks; `target_from_source` in metres.
    """
    reference = usable.int().argmax(1)
    batch, other = usable.nonzero(as_tuple=True)
    is_other = other != reference[batch]
    batch, other = batch[is_other], other[is_other]
    first = reference[batch]
    batch, source, target = torch.cat((batch, batch)), torch.cat((other, first)), torch.cat((first, other))
    motion = relative_pose(camera_to_world[batch, source], camera_to_world[batch, target])
    return FramePairs(source, target, batch, motion, torch.ones(len(batch), device=motion.device))


def build_camera_targets(
    depth: Tensor, camera_to_world: Tensor | None, usable: Tensor, posed: Tensor, terms: frozenset[str]
) -> dict[str, Any]:
    """Build the targets of the wanted terms of cameras.

    Args:
        depth: Measured depth, which gives the scale of a video.
        camera_to_world: Poses; None: not known.
        usable: Frames whose depth counts.
        posed: Frames of these with a pose.
        terms: Names of the wanted terms.

    Shape:
        depth:           (videos, V, H, W), metres, 0 = no measurement.
        camera_to_world: (videos, V, 4, 4), metres.
        usable, posed:   (videos, V), bool.
        output:          `mean_depth` (videos,), metres, 0 = not known, and `pose_pairs` where poses are known.
    """
    mean_depth = compute_mean_depth(torch.where(usable[..., None, None], depth, 0.0))
    targets: dict[str, Any] = {}
    if "loss_scale" in terms:
        targets["mean_depth"] = mean_depth
    if "loss_pose" in terms and camera_to_world is not None:
        pairs = select_pose_pairs(camera_to_world, posed & (mean_depth > 0).unsqueeze(1))
        targets["pose_pairs"], targets["pair_depth"] = pairs, mean_depth[pairs.batch]
    return targets


@torch.no_grad()
def measure_cameras(predictions: Any, targets: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
    """Measure the errors of predicted cameras, as sums and counts by name.

    `pose_degrees` is the angle between predicted and measured rotation. `pose_percent` is the distance between the
    translations, and `scale_percent` the error of the mean depth; both are in percent of the measured mean depth.

    Args:
        predictions: Predictions with `pose` and `scale`, those that have targets.
        targets: Targets as `build_camera_targets` makes them.
    """
    figures = {}
    if "pose_pairs" in targets:
        pairs = targets["pose_pairs"]
        degrees, percent = measure_pose_errors(predictions.pose, pairs.target_from_source, targets["pair_depth"])
        count = pairs.weight.sum()
        figures["pose_degrees"], figures["pose_percent"] = (degrees.sum(), count), (percent.sum(), count)
    if "mean_depth" in targets:
        is_known = targets["mean_depth"] > 0
        errors = measure_scale_errors(predictions.scale[is_known], targets["mean_depth"][is_known])
        figures["scale_percent"] = (errors.sum(), is_known.sum())
    return figures
