"""Privileged targets in the layout of the predictions: by video instead of by sample, on the validator's pixels."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class GeometryTargets:
    """What a batch's predictions are compared with, as `build_targets` of the training model makes it.

    No mapping on purpose: mixed precision casts the floats of a model's arguments to bfloat16, where a depth of 3 m
    is off by a centimetre and a rotation is none; it does not look into this.

    Shape:
        tensors: any of `region_targets` (B, regions + 1); `depth` (videos, V, h, w), metres on the validator's pixels;
            `pairs`, the frame pairs; `teacher_features` (frames, rows, cols, C).
    """

    tensors: dict[str, Any]


def locate_videos(input_ids: torch.LongTensor, video_token_id: int, lengths: list[int]) -> torch.LongTensor:
    """Sample that each video belongs to.

    Shape:
        input_ids: (B, L), long; `lengths` of the videos in tokens, in the order of their placeholders.
        output:    (videos,), long.

    Raises:
        ValueError: A sample has several videos; targets are given per sample.
    """
    ends = (input_ids == video_token_id).sum(-1).cumsum(0)
    samples = torch.searchsorted(ends, torch.tensor(lengths, device=ends.device).cumsum(0))
    if len(samples.unique()) < len(samples):
        raise ValueError(
            f"Geometry supervision takes one video a sample, got videos of the samples {samples.tolist()}."
        )
    return samples


def check_geometry(
    depth: torch.Tensor,
    intrinsics: torch.Tensor | None,
    camera_to_world: torch.Tensor | None,
    has_geometry: torch.Tensor | None,
    expected: tuple[int, int, int],
) -> None:
    """Raise ValueError unless all tensors fit a batch of `expected` (samples, frames, pixels of a side).

    Shape:
        depth:           (B, V, H, W), metres.
        intrinsics:      (B, V, 3, 3) or None.
        camera_to_world: (B, V, 4, 4) or None.
        has_geometry:    (B,), bool, or None.
    """
    samples, frames, side = expected
    if depth.ndim != 4 or depth.shape[2:] != (side, side):
        raise ValueError(
            f"depth must have shape (B, V, {side}, {side}), the pixels of the vision input, got {tuple(depth.shape)}. "
            "IDE3DDataCollator resizes it."
        )
    if len(depth) != samples:
        raise ValueError(f"depth must have one entry a sample, {samples}, got {len(depth)}.")
    if depth.shape[1] != frames:
        raise ValueError(f"depth must have as many frames as the video, {frames}, got {depth.shape[1]}.")
    if has_geometry is not None and has_geometry.shape != (samples,):
        raise ValueError(f"has_geometry must have shape ({samples},), got {tuple(has_geometry.shape)}.")
    for name, value, size in (("intrinsics", intrinsics, 3), ("camera_to_world", camera_to_world, 4)):
        if value is not None and value.shape != (samples, frames, size, size):
            raise ValueError(
                f"{name} must have shape ({samples}, {frames}, {size}, {size}), as depth has it, got "
                f"{tuple(value.shape)}."
            )


def select_usable_depth(
    depth: torch.Tensor,
    has_geometry: torch.Tensor | None,
    samples: torch.LongTensor,
    frame_mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth of each video, 0 where a frame does not exist or its sample has no geometry, and which frames have it.

    Shape:
        depth:        (B, V, H, W), metres.
        has_geometry: (B,), bool, or None for all.
        samples:      (videos,), long; sample of each video.
        frame_mask:   (videos, V), bool, or None for all.
        output:       (videos, V, H, W) and (videos, V) bool.
    """
    usable = torch.ones(len(samples), depth.shape[1], dtype=torch.bool, device=depth.device)
    if has_geometry is not None:
        usable = usable & has_geometry[samples].bool().unsqueeze(-1)
    if frame_mask is not None:
        usable = usable & frame_mask
    return torch.where(usable[..., None, None], depth[samples], 0.0), usable


def select_teacher_features(
    teacher_features: torch.Tensor,
    expected: tuple[int, int, int, int, int],
    samples: torch.LongTensor,
    frame_mask: torch.Tensor | None,
) -> torch.Tensor:
    """Teacher features of the frames that exist, in the order of the visual tokens.

    Shape:
        teacher_features: (B, V, rows, cols, C), which is `expected`.
        samples:          (videos,), long; sample of each video.
        frame_mask:       (videos, V), bool, or None for all.
        output:           (frames, rows, cols, C).

    Raises:
        ValueError: Another shape than `expected`.
    """
    if tuple(teacher_features.shape[:-1]) != expected[:-1]:
        raise ValueError(
            f"teacher_features must have shape {expected}: batch, frames, rows and columns of the token grid, "
            f"channels; got {tuple(teacher_features.shape)}."
        )
    if teacher_features.shape[-1] != expected[-1]:
        raise ValueError(
            f"teacher_features have {teacher_features.shape[-1]} channels, the teacher projector has {expected[-1]}. "
            "Build the model with the teacher's width as teacher_size."
        )
    teacher = teacher_features[samples]
    return teacher.flatten(0, 1) if frame_mask is None else teacher[frame_mask]


def align_to_prediction(
    depth: torch.Tensor, intrinsics: torch.Tensor | None, covered: tuple[int, int], size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Measured depth and cameras at the predicted pixels: every stride-th pixel of the whole patches of the input.

    Pixel u of the prediction is pixel u * stride + stride // 2 of the vision input.

    Args:
        depth: On the pixels of the vision input.
        intrinsics: Of those pixels.
        covered: Height and width, from the top-left corner, that whole patches cover.
        size: Height and width of the prediction.

    Shape:
        depth:      (..., H, W) -> (..., h, w), metres.
        intrinsics: (..., 3, 3), pixels.
    """
    stride = covered[0] // size[0]
    offset = stride // 2
    depth = depth[..., offset : covered[0] : stride, offset : covered[1] : stride]
    if intrinsics is not None:
        intrinsics = intrinsics.clone()
        intrinsics[..., :2, 2] -= offset
        intrinsics[..., :2, :] /= stride
    return depth, intrinsics


__all__ = [
    "GeometryTargets",
    "align_to_prediction",
    "check_geometry",
    "locate_videos",
    "select_teacher_features",
    "select_usable_depth",
]
