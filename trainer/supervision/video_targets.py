"""Targets of a batch's videos, laid on the pixels and tokens that a model saw."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modeling_ide3d.auxiliary.targets import VideoGrid
from processing.token_grid import TokenGrid
from trainer.data.geometry_inputs import resize_geometry, to_tensor
from trainer.geometry.checks import Protocol
from trainer.supervision.given_targets import PerSample, check_frame_counts
from trainer.supervision.vision_layouts import VideoPlace, VisionLayout

__all__ = ["VideoGroup", "VideoTargets", "build_grid", "measure_videos", "merge_terms", "split_frames"]


@dataclass(frozen=True)
class VideoGroup:
    """Videos of one size with their targets.

    Args:
        chosen: Index of each video, in the order in which the tower sees them.
        grid: Places and sizes of the videos.
        targets: Targets of the heads, as `GeometryHeads.build_head_targets` makes them.
        counts: Denominator of each term by name; float32 scalars.
    """

    chosen: list[int]
    grid: VideoGrid
    targets: dict[str, Any]
    counts: dict[str, Tensor]


@dataclass(frozen=True)
class VideoTargets:
    """Targets of a batch; without groups there is nothing to compare.

    Args:
        places: Sample, time steps and token grid of each video.
        groups: Videos with targets, by size.
    """

    places: list[VideoPlace] = field(default_factory=list)
    groups: list[VideoGroup] = field(default_factory=list)

    def count(self) -> dict[str, Tensor]:
        """Return the denominator of each term over all groups, float32 scalars by name."""
        counts: dict[str, Tensor] = {}
        for group in self.groups:
            for name, count in group.counts.items():
                counts[name] = counts.get(name, 0.0) + count
        return counts


def build_grid(grid: TokenGrid, steps: Sequence[int], device: torch.device) -> VideoGrid:
    """Return places and sizes of videos of one size, each its own sample.

    Args:
        grid: Vision input and visual tokens of all of them.
        steps: Number of time steps of each video.
        device: Device of the masks.
    """
    lengths = torch.tensor(steps, device=device)
    frame_mask = torch.arange(max(steps), device=device) < lengths.unsqueeze(1)
    return VideoGrid(
        samples=torch.arange(len(steps), device=device),
        num_samples=len(steps),
        num_frames=max(steps),
        frame_mask=frame_mask,
        image_size=grid.image_size,
        patch_size=grid.patch_size,
        patch_grid=grid.patches,
        token_grid=grid.shape,
    )


def split_frames(
    name: str,
    values: PerSample | None,
    layout: VisionLayout,
    num_samples: int,
    places: Sequence[VideoPlace],
    device: torch.device,
    usable: Sequence[bool] | None = None,
) -> list[Tensor | None]:
    """Return, by video, the values of the first frame of each time step.

    A video whose target does not count has None.

    Args:
        name: Name of the target in messages.
        values: Target of the samples.
        layout: Places of the visual tokens.
        num_samples: Samples of the batch.
        places: Videos of the batch.
        device: Device of the result.
        usable: Whether the target of a video counts; None for all.

    Shape:
        output: for each video (steps, ...), float32.

    Raises:
        TypeError: If a sample's target holds no numbers.
        ValueError: If the target belongs to other samples or frames than the model saw.
    """
    if values is None:
        return [None] * len(places)
    if len(values) != num_samples:
        raise ValueError(f"{name} must have one entry a sample, {num_samples}, got {len(values)}.")
    if not isinstance(values, Tensor):
        without = set(range(len(values))) - {place.sample for place in places}
        stray = sorted(sample for sample in without if values[sample] is not None)
        if stray:
            raise ValueError(f"{name} is given for the samples {stray}, which have no video.")
    merged, longest = layout.frames_per_step, max((place.steps for place in places), default=0)
    videos: list[Tensor | None] = []
    for index, place in enumerate(places):
        value = values[place.sample] if usable is None or usable[index] else None
        if value is not None:
            value = to_tensor(value, f"{name} of sample {place.sample}")
            if value.dtype == torch.bool or value.dim() == 0:
                found = "True and False" if value.dim() else "a single number"
                raise TypeError(f"{name} of sample {place.sample} must be numbers of each frame, got {found}.")
            steps = longest if isinstance(values, Tensor) else place.steps
            if -(-len(value) // merged) != steps:
                raise ValueError(
                    f"{name} of sample {place.sample} has {len(value)} frames, but the model saw {steps} time "
                    f"steps of {merged} frames. Sample the frames before the processor and give the same ones."
                )
            merged_away = [value[first : merged * place.steps : merged].float() for first in range(1, merged)]
            if value.device.type == "cpu" and not all(torch.isfinite(part).all() for part in merged_away):
                warnings.warn(
                    f"{name} of sample {place.sample} holds NaN or Inf in frames that the model merges into their "
                    "first one. They are not read; look at how they are measured.",
                    stacklevel=2,
                )
            value = value[::merged][: place.steps].to(device, torch.float32)  # the losses look at these
        videos.append(value)
    return videos


def measure_videos(
    geometry: Mapping[str, PerSample | None],
    has_geometry: Tensor | None,
    layout: VisionLayout,
    num_samples: int,
    places: Sequence[VideoPlace],
    device: torch.device,
    protocol: Protocol,
) -> list[dict[str, Tensor] | None]:
    """Return the geometry of each video on the pixels of the vision input.

    A video whose geometry does not count has None.

    Args:
        geometry: Depth, cameras and poses of the samples; see `GeometrySupervision.compute_terms`.
        has_geometry: Samples whose depth counts; None for all.
        layout: Places of the visual tokens.
        num_samples: Samples of the batch.
        places: Videos of the batch.
        device: Device of the result.
        protocol: Rule by which depth is resized, "clean" or "paper".

    Raises:
        TypeError: If a sample's target holds no numbers.
        ValueError: If a target belongs to other samples or frames than the model saw, has a wrong shape or is broken.
    """
    if has_geometry is not None:
        has_geometry = to_tensor(has_geometry, "has_geometry")
        if has_geometry.shape != (num_samples,):
            raise ValueError(f"has_geometry must have shape ({num_samples},), got {tuple(has_geometry.shape)}.")
        is_flag = has_geometry.dtype == torch.bool  # whose numbers nobody has to look at
        if not is_flag and not ((has_geometry == 0) | (has_geometry == 1)).all():
            raise ValueError(f"has_geometry must be True or False for each sample, got {has_geometry.tolist()}.")
    usable = [has_geometry is None or bool(has_geometry[place.sample]) for place in places]
    check_frame_counts(geometry, [place.sample for place, is_used in zip(places, usable, strict=True) if is_used])
    split = {
        name: split_frames(name, value, layout, num_samples, places, device, usable)
        for name, value in geometry.items()
    }
    return [
        _measure(place, {name: split[name][index] for name in split}, protocol) if usable[index] else None
        for index, place in enumerate(places)
    ]


def _measure(place: VideoPlace, video: Mapping[str, Tensor | None], protocol: Protocol) -> dict[str, Tensor] | None:
    """Return the geometry of one video, None without depth."""
    depth, intrinsics, camera_to_world = video.values()
    if depth is None:
        return None
    try:
        if depth.dim() != 3:
            raise ValueError(f"depth must have shape (V, h, w), got {tuple(depth.shape)}.")
        for name, value, side in (("intrinsics", intrinsics, 3), ("camera_to_world", camera_to_world, 4)):
            if value is not None and value.shape != (len(depth), side, side):
                raise ValueError(
                    f"{name} must have shape (V, {side}, {side}), one matrix a frame, got {tuple(value.shape)}."
                )
        if (intrinsics is None) != (camera_to_world is None):
            raise ValueError("intrinsics and camera_to_world need each other, got only one of them.")
        return resize_geometry(depth, intrinsics, camera_to_world, depth.shape[1:], place.grid, protocol)
    except ValueError as error:
        raise ValueError(f"Sample {place.sample}: {error}") from error


def merge_terms(parts: list[tuple[dict[str, Tensor], dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Combine the means over each part by their denominators."""
    if len(parts) == 1:
        return parts[0][0]
    merged = {}
    for name in sorted({name for terms, _ in parts for name in terms}):
        counted = [(terms[name], counts[name]) for terms, counts in parts if name in terms]
        total = sum(count for _, count in counted).clamp(min=torch.finfo(torch.float32).tiny)
        merged[name] = sum(term * (count / total) for term, count in counted)
    return merged
