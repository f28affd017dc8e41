"""Drawings of what a session found, described or located in a stored video."""

from collections.abc import Mapping, Sequence
from typing import Any

from processing.oriented_boxes import camera_corners
from processing.region_files import NamedRegions
from trainer.drawing.drawing import Cameras, Drawing, ObjectMark, PointCloud, as_tuple
from trainer.session import FoundRegion, SaidBoxes, VideoScene

__all__ = ["draw_boxes", "draw_described", "draw_found"]


def draw_found(
    scene: VideoScene,
    found: Sequence[FoundRegion],
    regions: NamedRegions | None = None,
    *,
    title: str = "What was found",
    cameras: Cameras | None = None,
    points: PointCloud | None = None,
) -> Drawing:
    """Return a drawing of what `VideoScene.find` gave.

    Args:
        scene: Opened video.
        found: Answers of `scene.find`; those without a region become notes.
        regions: Candidates among which was found; default: those that the session proposes.
        title: Title of the drawing.
        cameras: Cameras of the frames shown, if known.
        points: Points of the frames shown, as `predict_points` gives them.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a found region is not among the candidates, these are proposals of another video, or parts do
            not belong to the same frames.
    """
    if regions is None and isinstance(scene, VideoScene):
        regions = scene.session.propose()
    _check_scene(scene)
    scene.check_regions(regions)
    found = as_tuple(found, FoundRegion, "found")
    masks = dict(zip(regions.names, regions.masks, strict=True))
    named = [(entry, name) for entry in found if entry.name is not None for name in (entry.name, *entry.others)]
    if missing := [name for _, name in named if name not in masks]:
        raise ValueError(f"`found` names the region {missing[0]!r}, which is not among `regions`: {list(masks)[:8]}.")
    marks = [
        ObjectMark(f"{entry.description} ({name})", masks[name], score=entry.scores[name]) for entry, name in named
    ]
    notes = [f"{entry.description}: no such object, score {entry.score:.3f}" for entry in found if entry.name is None]
    return _draw(scene, marks, notes, title, cameras, points)


def draw_described(
    scene: VideoScene,
    described: Mapping[str, str],
    regions: NamedRegions,
    *,
    title: str = "What is described",
    cameras: Cameras | None = None,
    points: PointCloud | None = None,
) -> Drawing:
    """Return a drawing of what `VideoScene.describe` gave.

    Args:
        scene: Opened video.
        described: Descriptions by the name of their region.
        regions: Regions that were described.
        title: Title of the drawing.
        cameras: Cameras of the frames shown, if known.
        points: Points of the frames shown, as `predict_points` gives them.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a name is not among the regions, these are proposals of another video, or parts do not belong
            to the same frames.
    """
    _check_scene(scene)
    scene.check_regions(regions)
    if not isinstance(described, Mapping):
        raise TypeError(f"`described` must map names of regions to texts, got {type(described).__name__}.")
    masks = dict(zip(regions.names, regions.masks, strict=True))
    if missing := [name for name in described if name not in masks]:
        raise ValueError(f"`described` names the region {missing[0]!r}, which is not among `regions`.")
    marks = [ObjectMark(f"{name}: {text}", masks[name]) for name, text in described.items()]
    return _draw(scene, marks, [], title, cameras, points)


def draw_boxes(
    scene: VideoScene,
    said: Sequence[SaidBoxes],
    *,
    title: str = "Boxes in words",
    cameras: Cameras | None = None,
    points: PointCloud | None = None,
) -> Drawing:
    """Return a drawing of what `VideoScene.boxes` gave.

    Where poses are not known, boxes are drawn as if each camera stood level, and a note says so.

    Args:
        scene: Opened video.
        said: Answers of `scene.boxes`; those without a box become notes.
        title: Title of the drawing.
        cameras: Cameras of the frames shown, if known. Frames show boxes where there are intrinsics.
        points: Points of the frames shown, as `predict_points` gives them.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a box is of a frame that was not shown, or parts do not belong to the same frames.
    """
    _check_scene(scene)
    said = as_tuple(said, SaidBoxes, "said")
    poses = cameras.camera_to_world if isinstance(cameras, Cameras) else None
    marks, notes = [], []
    for entry in said:
        for box in entry.boxes or ():
            if box.frame >= len(scene.frames):
                raise ValueError(f"`said` has a box of frame {box.frame}, but {len(scene.frames)} frames were shown.")
            corners = camera_corners(box, None if poses is None else poses[box.frame])
            marks.append(ObjectMark(entry.description, corners=corners, frame=box.frame))
        if not entry.boxes:
            reason = "no such object" if entry.boxes is not None else f"no answer that can be parsed. {entry.problem}"
            notes.append(f"{entry.description}: {reason}")
    if marks and poses is None:
        notes.append("Boxes are drawn as if each camera stood level: where gravity points is not known.")
    return _draw(scene, marks, notes, title, cameras, points)


def _draw(
    scene: VideoScene,
    marks: list[ObjectMark],
    notes: list[str],
    title: str,
    cameras: Cameras | None,
    points: PointCloud | None,
) -> Drawing:
    return Drawing(
        frames=scene.frames,
        marks=marks,
        cameras=cameras,
        points=points,
        title=title,
        notes=notes,
        grid=scene.session.token_grid,
        frame_names=[str(index) for index in scene.frame_indices],
    )


def _check_scene(scene: Any) -> None:
    if not isinstance(scene, VideoScene):
        raise TypeError(f"`scene` must be a VideoScene, as `open_video` gives it, got {type(scene).__name__}.")
    if scene.frames is None:
        raise ValueError("`scene` keeps no frames to draw: open it by `open_video`.")
