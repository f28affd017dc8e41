"""Privileged targets arranged as the predictions: by video instead of by sample, on the validator's pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class GeometryTargets:
    """Targets of a batch's predictions, as `build_targets` of the training model makes them.

    It is no mapping on purpose. Mixed precision casts the floats of a model's arguments to bfloat16, also inside
    mappings: a depth of 3 m would be off by a centimetre, and a rotation would be none.

    Shape:
        tensors: any of `region_targets` (B, regions + 1); `depth` (videos, V, h, w), metres on the validator's pixels;
            `depth_alignment` (videos,), long, where some depth is pseudo, see `align_targets`; `pairs`, the frame
            pairs, and with them `intrinsics` (videos, V, 3, 3), of these pixels; `teacher_features`
            (frames, rows, cols, C).
        counts: denominator of each term, float32 scalars, where a training has counted them; else None.
    """

    tensors: dict[str, Any]
    counts: dict[str, torch.Tensor] | None = None


@dataclass(frozen=True)
class VideoGrid:
    """Places and sizes of the videos of a batch, all of one size in pixels.

    Args:
        samples: Sample of each video.
        num_samples: Samples of the batch, also those without a video (B).
        num_frames: Frames of the longest video (V).
        frame_mask: Frames that exist; None for all.
        image_size: Height and width of the vision input.
        patch_size: Side of a patch in pixels.
        patch_grid: Rows and columns of patches.
        token_grid: Rows and columns of visual tokens, without newlines.

    Shape:
        samples:    (videos,), long.
        frame_mask: (videos, V), bool.
    """

    samples: torch.LongTensor
    num_samples: int
    num_frames: int
    frame_mask: torch.Tensor | None
    image_size: tuple[int, int]
    patch_size: int
    patch_grid: tuple[int, int]
    token_grid: tuple[int, int]

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width, from the top-left corner, that whole patches cover."""
        return self.patch_grid[0] * self.patch_size, self.patch_grid[1] * self.patch_size


def locate_videos(input_ids: torch.LongTensor, video_token_id: int, lengths: list[int]) -> torch.LongTensor:
    """Find the sample that each video belongs to.

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


def select_answers(labels: torch.LongTensor) -> dict[str, torch.Tensor]:
    """Select the positions where the language model's head must run to learn these labels.

    Shape:
        labels: (B, L), long, -100 is ignored.
        output: arguments of head and loss: `logits_to_keep` (answers,), positions in front of a label of any sample;
            `shift_labels` (B, answers), the labels behind them.
    """
    following = labels[:, 1:]
    positions = (following != -100).any(0).nonzero().flatten()
    return {"logits_to_keep": positions, "shift_labels": following[:, positions].contiguous()}


@dataclass
class MeasuredGeometry:
    """Measured or pseudo geometry of a batch's videos, by sample.

    Shape:
        depth:             (B, V, H, W), metres on the pixels of the vision input, 0 = no measurement.
        intrinsics:        (B, V, 3, 3), of these pixels, or None.
        camera_to_world:   (B, V, 4, 4), metres, or None.
        has_geometry:      (B,), bool, samples whose depth counts, or None for all.
        has_poses:         (B,), bool, samples whose frames are paired, or None for all that have geometry.
        native_depth:      (B, V, h, w), metres before any resize, or None; frame pairs get their masks from it.
        native_intrinsics: (B, V, 3, 3), of those pixels, or None.
        depth_alignment:   (B,), long, what is unknown about depth and poses, see `align_targets`; None: nothing.
    """

    depth: torch.Tensor
    intrinsics: torch.Tensor | None = None
    camera_to_world: torch.Tensor | None = None
    has_geometry: torch.Tensor | None = None
    native_depth: torch.Tensor | None = None
    native_intrinsics: torch.Tensor | None = None
    has_poses: torch.Tensor | None = None
    depth_alignment: torch.Tensor | None = None

    def check(self, samples: int, frames: int, image_size: tuple[int, int]) -> None:
        """Raise ValueError unless all tensors fit a batch of these sizes; pixels are (height, width)."""
        depth = self.depth
        if depth.ndim != 4 or tuple(depth.shape[2:]) != image_size:
            raise ValueError(
                f"depth must have shape (B, V, {image_size[0]}, {image_size[1]}), the pixels of the vision input, got "
                f"{tuple(depth.shape)}. IDE3DDataCollator resizes it."
            )
        if len(depth) != samples:
            raise ValueError(f"depth must have one entry a sample, {samples}, got {len(depth)}.")
        if depth.shape[1] != frames:
            raise ValueError(f"depth must have as many frames as the video, {frames}, got {depth.shape[1]}.")
        for name in ("has_geometry", "has_poses", "depth_alignment"):
            value = getattr(self, name)
            if value is not None and value.shape != (samples,):
                raise ValueError(f"{name} must have shape ({samples},), got {tuple(value.shape)}.")
        for name, size in (("intrinsics", 3), ("camera_to_world", 4), ("native_intrinsics", 3)):
            value = getattr(self, name)
            if value is not None and value.shape != (samples, frames, size, size):
                raise ValueError(
                    f"{name} must have shape ({samples}, {frames}, {size}, {size}), as depth has it, got "
                    f"{tuple(value.shape)}."
                )
        native = self.native_depth
        if (native is None) != (self.native_intrinsics is None):
            raise ValueError("native_depth and native_intrinsics need each other, got only one of them.")
        if native is not None and (native.ndim != 4 or native.shape[:2] != (samples, frames)):
            raise ValueError(f"native_depth must have shape ({samples}, {frames}, h, w), got {tuple(native.shape)}.")


def select_usable_depth(
    depth: torch.Tensor,
    has_geometry: torch.Tensor | None,
    samples: torch.LongTensor,
    frame_mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Select the depth of each video, and say which frames have it.

    Depth is 0 where a frame does not exist or its sample has no geometry.

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
    """Select the teacher features of existing frames, in the order of the visual tokens.

    Shape:
        teacher_features: (B, V, rows, cols, C), which is `expected`.
        samples:          (videos,), long; sample of each video.
        frame_mask:       (videos, V), bool, or None for all.
        output:           (frames, rows, cols, C).

    Raises:
        ValueError: If they have another shape than `expected`.
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
    """Take measured depth and cameras at the predicted pixels, every stride-th of the input.

    Pixel u of the prediction is pixel u * stride + stride // 2 of the vision input, within its whole patches.

    Args:
        depth: Depth on the pixels of the vision input.
        intrinsics: Cameras of these pixels.
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


def build_depth_targets(
    geometry: MeasuredGeometry,
    samples: torch.LongTensor,
    frame_mask: torch.Tensor | None,
    covered: tuple[int, int],
    size: tuple[int, int],
    select_pairs: Callable[..., Any] | None,
) -> dict[str, Any]:
    """Put measurements on the validator's pixels, by video, and choose pairs of frames.

    Pairs need cameras.

    Args:
        geometry: Measured geometry by sample.
        samples: Sample of each video, (videos,), long.
        frame_mask: Frames that exist, (videos, V), bool, or None for all.
        covered: Height and width, from the top-left corner, that whole patches cover.
        size: Height and width of the prediction.
        select_pairs: Choice of pairs as in `Criterion`; None where no term needs pairs.

    Shape:
        output: `depth` (videos, V, h, w), metres; `depth_alignment` (videos,), if given; with pairs, `pairs` and
                `intrinsics` (videos, V, 3, 3).
    """
    depth, usable = select_usable_depth(geometry.depth, geometry.has_geometry, samples, frame_mask)
    depth, intrinsics = align_to_prediction(depth, geometry.intrinsics, covered, size)
    targets: dict[str, Any] = {"depth": depth}
    if geometry.depth_alignment is not None:
        targets["depth_alignment"] = geometry.depth_alignment[samples]
    if intrinsics is not None and geometry.camera_to_world is not None and select_pairs is not None:
        targets["intrinsics"] = seen_by = intrinsics[samples]
        if geometry.native_depth is not None:
            depth, _ = select_usable_depth(geometry.native_depth, geometry.has_geometry, samples, frame_mask)
            seen_by = geometry.native_intrinsics[samples]
        if geometry.has_poses is not None:
            usable = usable & geometry.has_poses[samples].bool().unsqueeze(-1)
        options = {} if geometry.depth_alignment is None else {"depth_alignment": targets["depth_alignment"]}
        poses = geometry.camera_to_world[samples]
        targets["pairs"] = select_pairs(depth, seen_by, poses, usable, size, **options)
    return targets


__all__ = [
    "GeometryTargets",
    "MeasuredGeometry",
    "VideoGrid",
    "align_to_prediction",
    "build_depth_targets",
    "locate_videos",
    "select_answers",
    "select_teacher_features",
    "select_usable_depth",
]
