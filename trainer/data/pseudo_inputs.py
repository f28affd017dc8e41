"""Pseudo geometry of a sample, ready for the rules of measured geometry."""

from collections.abc import Mapping
from typing import Any

from processing.geometry_rules import as_float32, check_depth, check_intrinsics, check_poses, rescaled_intrinsics
from trainer.field_rules import check_choice
from trainer.geometry.checks import Protocol
from trainer.teachers import FrameSource, TeacherStore
from trainer.teachers.pseudo_rules import (
    ConfidenceRule,
    check_confidence,
    choose_alignment,
    mask_disagreements,
    normalise_scale,
)

__all__ = ["KINDS", "PSEUDO_KEYS", "check_kind", "check_store", "mask_pseudo", "read_pseudo"]

KINDS = ("measured", "pseudo")
PSEUDO_KEYS = ("geometry_kind", "depth_alignment", "depth_confidence")


def check_kind(sample: Mapping[str, Any], protocol: Protocol, *, has_depth: bool) -> bool:
    """Return whether the geometry of a sample is pseudo geometry.

    Args:
        sample: Sample, whose `geometry_kind` is "measured" if it is not given.
        protocol: Protocol of the training.
        has_depth: Whether the sample has depth.

    Raises:
        ValueError: If the kind is unknown, it does not go with the protocol, or a key of pseudo geometry stands
            without it.
    """
    kind = sample.get("geometry_kind")
    check_choice("geometry_kind", kind, (*KINDS, None))
    stray = [key for key in PSEUDO_KEYS[1:] if sample.get(key) is not None]
    if kind != "pseudo" and stray:
        raise ValueError(f'{stray} belong to pseudo geometry: set geometry_kind="pseudo", or leave them out.')
    if kind == "pseudo" and not has_depth:
        raise ValueError('geometry_kind "pseudo" needs `depth`. Give it, or leave the kind out.')
    if kind == "pseudo" and protocol == "paper":
        raise ValueError('Pseudo geometry needs protocol "clean": the original compares depth in metres only.')
    return kind == "pseudo"


def mask_pseudo(sample: Mapping[str, Any], rule: ConfidenceRule, frame_size: tuple[int, int]) -> dict[str, Any]:
    """Return a sample with its pseudo geometry ready for `prepare_geometry`.

    Depth is masked by confidence. With poses, pixels at which two views contradict each other are masked too. Depth,
    and poses with it, is brought to a median of 2 where its scale is not known.

    Args:
        sample: Sample with `depth` and the keys of pseudo geometry.
        rule: Rule of the confidences.
        frame_size: Height and width of the frames.

    Shape:
        sample: `depth` and `depth_confidence` (V, h, w), `intrinsics` (V, 3, 3) of the frames' pixels,
                `camera_to_world` (V, 4, 4).

    Raises:
        TypeError: If a part holds no numbers.
        ValueError: If kind or alignment is unknown, an alignment contradicts poses, or shapes or values are broken.
    """
    depth = as_float32(sample["depth"], "depth")
    poses, cameras = sample.get("camera_to_world"), sample.get("intrinsics")
    alignment = choose_alignment(sample.get("depth_alignment"), has_poses=poses is not None)
    confidence = sample.get("depth_confidence")
    if confidence is not None:
        depth = rule.mask(depth, check_confidence(confidence, depth))
    depth, poses = normalise_scale(depth, poses, alignment)
    changed = {**sample, "depth": depth, "depth_alignment": alignment}
    if poses is not None and cameras is not None:
        check_depth(depth)
        check_intrinsics(cameras, len(depth), frame_size)
        check_poses(poses, len(depth))
        changed["camera_to_world"] = poses
        cameras = rescaled_intrinsics(as_float32(cameras), frame_size, depth.shape[1:])
        changed["depth"] = mask_disagreements(depth, cameras, poses)
    return changed


def check_store(store: Any) -> None:
    """Raise an error unless an object is a store that holds pseudo geometry.

    Raises:
        TypeError: If it is no store.
        ValueError: If it holds features alone.
    """
    if not isinstance(store, TeacherStore):
        raise TypeError(f"pseudo_geometry must be a TeacherStore or None, got {store!r:.100}.")
    if store.alignment is None:
        raise ValueError(
            f"pseudo_geometry: {store.folder} holds features alone, no geometry. Make it by `ide3d geometry`, or give "
            "the store as `teacher`."
        )


def read_pseudo(store: TeacherStore, source: FrameSource, frame_size: tuple[int, int]) -> dict[str, Any]:
    """Read the geometry of frames from a store, as keys of a sample.

    Args:
        store: Store that holds the scene.
        source: Scene and frames.
        frame_size: Height and width of the frames, whose pixels the cameras of a sample belong to.

    Raises:
        ValueError: If the store lacks a frame, or a file is broken; the message names it.
    """
    geometry = store.load_geometry(source.scene_id, source.frame_names)
    sample = {
        "geometry_kind": "pseudo",
        "depth_alignment": store.alignment,
        "depth": geometry.depth,
        "depth_confidence": geometry.confidence,
        "camera_to_world": geometry.camera_to_world,
    }
    if geometry.intrinsics is not None:
        sample["intrinsics"] = rescaled_intrinsics(geometry.intrinsics, geometry.depth.shape[1:], frame_size)
    return {key: value for key, value in sample.items() if value is not None}
