"""Targets of a batch, as they were given, laid on the pixels and tokens of its videos."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from modeling_ide3d.auxiliary.targets import MeasuredGeometry
from processing.token_grid import TokenGrid
from trainer.data.geometry_inputs import pad_geometry, pad_teacher_features
from trainer.supervision.given_targets import PerSample, read_samples
from trainer.supervision.pseudo_targets import mark_pseudo, normalise_pseudo
from trainer.supervision.video_targets import VideoGroup, VideoTargets, build_grid, measure_videos, split_frames
from trainer.supervision.vision_layouts import VideoPlace, VisionLayout

if TYPE_CHECKING:
    from trainer.supervision.geometry_supervision import GeometrySupervision

__all__ = ["lay_targets"]

Measured = dict[str, Tensor] | None


def lay_targets(
    heads: "GeometrySupervision",
    layout: VisionLayout,
    arguments: Mapping[str, Any],
    geometry: Mapping[str, PerSample | None],
    has_geometry: Tensor | None,
    depth_alignment: Sequence[str | None] | None,
    teacher_features: PerSample | None,
) -> VideoTargets:
    """Lay targets on the videos of a batch, grouped by size; see `GeometrySupervision.build_targets`.

    Args:
        heads: Heads that are supervised, with their criterion.
        layout: Places of the model's visual tokens.
        arguments: Arguments of the model for this batch.
        geometry: Depth, cameras and poses of the samples, None where they are not given.
        has_geometry: Samples whose depth counts; None for all.
        depth_alignment: Alignment of each sample's pseudo geometry; None for measured.
        teacher_features: Features of the teacher.

    Raises:
        TypeError: If a target holds no numbers.
        ValueError: If targets lack their head, belong to other samples or frames than the model sees, or are broken.
    """
    geometry = {name: read_samples(name, values) for name, values in geometry.items()}
    teacher_features = read_samples("teacher_features", teacher_features)
    _check_given(heads, geometry, teacher_features)
    has_depth = geometry["depth"] is not None and heads.wants_depth()
    has_teacher = teacher_features is not None and heads.wants_head("teacher_projector")
    if not (has_depth or has_teacher):
        return VideoTargets()
    input_ids = arguments.get("input_ids")
    if input_ids is None:
        raise ValueError("Visual tokens are found by input_ids, but the model was called without them.")
    places = layout.find_videos(input_ids, arguments)
    device = next(heads.parameters()).device
    measured: list[Measured] = [None] * len(places)
    features: list[Tensor | None] = [None] * len(places)
    of_batch = (layout, len(input_ids), places, device)
    protocol = heads.criterion.protocol
    if has_depth:
        geometry = normalise_pseudo(geometry, depth_alignment, len(input_ids), protocol)
        measured = measure_videos(geometry, has_geometry, *of_batch, protocol)
        measured = mark_pseudo(measured, places, depth_alignment)
    if has_teacher:
        features = split_frames("teacher_features", teacher_features, *of_batch)
        for place, value in zip(places, features, strict=True):
            place.check_features(value)
    return VideoTargets(places, _group(heads, places, measured, features))


def _group(
    heads: "GeometrySupervision",
    places: list[VideoPlace],
    measured: Sequence[Measured],
    features: Sequence[Tensor | None],
) -> list[VideoGroup]:
    """Return the videos with targets, by size."""
    by_size: dict[TokenGrid, list[int]] = {}
    for index, place in enumerate(places):
        if measured[index] is not None or features[index] is not None:
            by_size.setdefault(place.grid, []).append(index)
    if len(by_size) > 1 and heads.criterion.protocol == "paper":
        raise ValueError(f"Protocol paper takes videos of one size in a batch, got {list(by_size)}.")
    device = next(heads.parameters()).device
    groups = []
    for grid, chosen in by_size.items():
        videos = build_grid(grid, [places[index].steps for index in chosen], device)
        of_size = pad_geometry([measured[index] for index in chosen], videos.num_frames, grid)
        of_size = {key: value.to(device) for key, value in of_size.items()}
        teacher = pad_teacher_features([features[index] for index in chosen], videos.num_frames)
        targets = heads.build_head_targets(
            videos, MeasuredGeometry(**of_size) if of_size else None, teacher.get("teacher_features")
        )
        groups.append(VideoGroup(chosen, videos, targets, heads.criterion.count(targets)))
    return groups


def _check_given(
    heads: "GeometrySupervision", geometry: Mapping[str, PerSample | None], teacher_features: PerSample | None
) -> None:
    """Raise ValueError for targets that belong together and came alone, or have no head."""
    given = [name for name, value in geometry.items() if value is not None]
    if given not in ([], ["depth"], list(geometry)):
        raise ValueError(f"Give depth alone, or {list(geometry)} together; got {given}.")
    if given and heads.geometric_validator is heads.pose_head is heads.scale_head is None:
        raise ValueError("depth is given, but this supervision has no depth decoder: attach with a validator.")
    if teacher_features is not None and heads.teacher_projector is None:
        raise ValueError("teacher_features are given, but there is no projector: attach with their teacher_size.")
