"""Pseudo geometry among the targets of another model's videos."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainer.data.geometry_inputs import to_tensor
from trainer.geometry.checks import Protocol
from trainer.supervision.given_targets import PerSample
from trainer.supervision.vision_layouts import VideoPlace
from trainer.teachers.pseudo_rules import ALIGNMENTS, NOMINAL_DEPTH, choose_alignment

__all__ = ["mark_pseudo", "normalise_pseudo"]

Alignments = Sequence[str | None] | None


def normalise_pseudo(
    geometry: Mapping[str, PerSample | None], depth_alignment: Alignments, num_samples: int, protocol: Protocol
) -> dict[str, PerSample | None]:
    """Return the geometry of samples, pseudo depth of unknown scale with a median of 2.

    It is the median of the video for "scale", whose poses get the same factor, and of each frame otherwise.

    Args:
        geometry: Depth, cameras and poses of the samples, see `GeometrySupervision.build_targets`.
        depth_alignment: Alignment of each sample, None where it is measured; None: all are.
        num_samples: Samples of the batch.
        protocol: Protocol of the terms.

    Raises:
        TypeError: If the alignments are no list, or depth or poses hold no numbers.
        ValueError: If one is unknown or contradicts poses, their number is another one, or the protocol is not clean.
    """
    if depth_alignment is None:
        return dict(geometry)
    if not isinstance(depth_alignment, (list, tuple)):
        raise TypeError(f"depth_alignment must be a list of texts or None, got {depth_alignment!r:.100}.")
    if len(depth_alignment) != num_samples:
        raise ValueError(f"depth_alignment must have one entry a sample, {num_samples}, got {len(depth_alignment)}.")
    if protocol != "clean":
        raise ValueError('depth_alignment needs protocol "clean": the original compares depth in metres only.')
    changed = dict(geometry)
    values = {name: geometry[name] for name in ("depth", "camera_to_world") if geometry.get(name) is not None}
    if "depth" not in values or any(len(value) != num_samples for value in values.values()):
        return changed  # the numbers of samples are checked where each target is split
    rows = {name: list(value) for name, value in values.items()}
    for sample, alignment in enumerate(depth_alignment):
        own = {name: row[sample] for name, row in rows.items() if row[sample] is not None}
        if alignment is None or "depth" not in own:
            continue
        try:
            choose_alignment(alignment, has_poses="camera_to_world" in own)
        except ValueError as error:
            raise ValueError(f"Sample {sample}: {error}") from error
        own = {name: to_tensor(value, f"{name} of sample {sample}").float() for name, value in own.items()}
        for name, value in _normalise(own, alignment).items():
            rows[name][sample] = value
    for name, row in rows.items():
        changed[name] = torch.stack(row) if isinstance(values[name], Tensor) else row
    return changed


def mark_pseudo(
    measured: Sequence[dict[str, Tensor] | None], places: Sequence[VideoPlace], depth_alignment: Alignments
) -> list[dict[str, Tensor] | None]:
    """Return the geometry of videos, with the alignment that pseudo geometry needs.

    Args:
        measured: Geometry of each video, see `measure_videos`.
        places: Videos of the batch.
        depth_alignment: Alignments as `normalise_pseudo` has checked them.
    """
    if depth_alignment is None:
        return list(measured)
    marked = []
    for geometry, place in zip(measured, places, strict=True):
        alignment = depth_alignment[place.sample]
        if geometry is not None and alignment is not None:
            geometry = {**geometry, "depth_alignment": torch.tensor(ALIGNMENTS.index(alignment))}
        marked.append(geometry)
    return marked


def _normalise(geometry: dict[str, Tensor], alignment: str) -> dict[str, Tensor]:
    """Return depth and poses, with a median depth of 2 where scale is unknown."""
    depth = geometry["depth"]
    if alignment == "metric" or depth.dim() != 3:
        return geometry
    rows = depth.flatten() if alignment == "scale" else depth.flatten(1)
    ordered = torch.where(rows > 0, rows, torch.inf).sort(-1).values
    count = (rows > 0).sum(-1, keepdim=True)
    middle = ordered.gather(-1, ((count - 1) // 2).clamp(min=0)).squeeze(-1)
    factor = torch.where(torch.isfinite(middle), NOMINAL_DEPTH / middle, 1.0)
    changed = {**geometry, "depth": depth * factor.view(-1, 1, 1)}
    if "camera_to_world" in geometry:
        poses = geometry["camera_to_world"].clone()
        poses[..., :3, 3:] *= factor.to(poses)
        changed["camera_to_world"] = poses
    return changed
