"""Checks of the doctor on the files of one scene. Nothing raises; what is wrong becomes a `Finding`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, UnidentifiedImageError

from processing.benchmarks.doctor.findings import Finding
from processing.benchmarks.readers.files import read_masks, read_point_cloud
from processing.benchmarks.readers.scenes import uniform_names
from processing.benchmarks.readers.tasks import Layout
from processing.benchmarks.readers.teacher import open_teacher, stored_names
from processing.geometry_rules import MAX_MEDIAN_DEPTH, RIGID_TOLERANCE

__all__ = ["check_scene", "is_rigid", "tried"]

NUM_FRAMES = 32
_NUM_DECODED = 3  # depth maps a scene that are read whole; headers are read of all
_MIN_MEDIAN_MILLIMETRES = 50  # nearer than any room is seen from: the numbers are metres
_ASPECT_TOLERANCE = 0.02
_CENTRE_TOLERANCE = 0.25  # of the depth image's side, between principal point and middle


def tried(finding: Callable[[str], Finding], findings: list[Finding], read: Callable, *arguments: Any) -> Any:
    """What `read` returns, or None with a finding made of the error's text."""
    try:
        return read(*arguments)
    except (OSError, ValueError) as error:
        findings.append(finding(str(error)))
        return None


def is_rigid(matrix: np.ndarray) -> bool:
    """Whether a (4, 4) matrix is a rotation and a shift."""
    rotation = matrix[:3, :3]
    skew = np.abs(rotation.T @ rotation - np.eye(3)).max()
    return bool(skew <= RIGID_TOLERANCE and np.linalg.det(rotation) > 0 and np.allclose(matrix[3], [0, 0, 0, 1]))


def check_scene(layout: Layout, scene_id: str, info: dict | None, parts: set[str]) -> list[Finding]:
    """All findings on a scene.

    Args:
        layout: paths.
        scene_id: the scene.
        info: its entry in EmbodiedScan's file, if there is one.
        parts: of "poses", "depth" and "boxes", those that are needed beside the frames.
    """
    if scene_id.startswith("vsibench/"):
        return list(_check_video(layout, scene_id))
    folder, findings = layout.frames(scene_id), []
    if not folder.is_dir():
        return [Finding("scene-missing", str(folder), "the folder does not exist", scene_id)]
    pictures = sorted(file.stem for file in folder.glob("*.jpg"))
    names = [name for name in pictures if name.isdigit()]
    foreign = [name for name in pictures if not name.isdigit() or len(name) != 5]
    if foreign:
        detail = f"{len(foreign)} pictures such as {foreign[0]}.jpg"
        findings.append(Finding("frame-name-foreign", str(folder), detail, scene_id))
    if not names:
        return [*findings, Finding("frames-missing", str(folder), "it holds no NNNNN.jpg", scene_id)]
    if len(names) < NUM_FRAMES:
        findings.append(Finding("frames-few", str(folder), f"{len(names)} frames", scene_id))
    shown = uniform_names(names, NUM_FRAMES)
    sizes = list(_check_frames(folder, shown, scene_id, findings))
    if "poses" in parts:
        findings += _check_poses(folder, shown, scene_id)
    if "depth" in parts:
        findings += _check_depth(folder, shown, scene_id, sizes[0] if sizes else None, info)
    if info is not None and sorted(Path(name).stem for name in info["images"]) != names:
        detail = f"{len(info['images'])} listed, {len(names)} in the folder, or other names"
        findings.append(Finding("frame-list-differs", str(folder), detail, scene_id))
    findings += _check_teacher(layout, scene_id, names)
    if "boxes" in parts:
        findings += _check_cloud(layout, scene_id)
    return findings


def _check_video(layout: Layout, scene_id: str) -> Iterator[Finding]:
    path = layout.video(scene_id)
    if not path.is_file():
        yield Finding("video-missing", str(path), "it does not exist", scene_id)
        return
    try:
        with av.open(str(path)) as container:
            next(container.decode(video=0))
    except (av.FFmpegError, OSError, ValueError, IndexError, StopIteration) as error:
        yield Finding("video-broken", str(path), str(error) or "it holds no frame", scene_id)


def _check_frames(folder: Path, names: list[str], scene_id: str, findings: list[Finding]) -> Iterator[tuple[int, int]]:
    """Sizes (height, width) of the pictures that can be opened."""
    seen: dict[tuple[int, int], str] = {}
    for name in names:
        path = folder / f"{name}.jpg"
        try:
            with Image.open(path) as image:
                size = (image.height, image.width)
            with open(path, "rb") as file:
                file.seek(-2, 2)
                if file.read() != b"\xff\xd9":  # the end marker of JPEG; decoding all pictures would take hours
                    raise OSError("it does not end as a JPEG file does")
        except (UnidentifiedImageError, OSError) as error:
            findings.append(Finding("frame-broken", str(path), str(error), scene_id))
            continue
        seen.setdefault(size, name)
        yield size
    if len(seen) > 1:
        detail = ", ".join(f"{w} x {h} in {name}" for (h, w), name in seen.items())
        findings.append(Finding("frame-size-differs", str(folder), detail, scene_id))


def _check_poses(folder: Path, names: list[str], scene_id: str) -> Iterator[Finding]:
    if not (folder / "intrinsic.txt").is_file() and not (folder / f"{names[0]}.png").is_file():
        yield Finding("camera-missing", str(folder), "neither intrinsic.txt nor depth images", scene_id)
    for name in names:
        path = folder / f"{name}.txt"
        if not path.is_file():
            yield Finding("pose-missing", str(path), "it does not exist", scene_id)
            continue
        try:
            rows = [[float(x) for x in line.split()] for line in path.read_text().splitlines() if line.strip()]
            if [len(row) for row in rows] != [4] * 4:
                raise ValueError(f"rows of {[len(row) for row in rows]} numbers")
        except ValueError as error:
            yield Finding("pose-broken", str(path), str(error), scene_id)
            continue
        pose = np.array(rows)
        if not np.isfinite(pose).all():
            yield Finding("pose-not-finite", str(path), "it holds inf or nan", scene_id)
        elif not is_rigid(pose):
            yield Finding("pose-not-rigid", str(path), "no rotation and shift", scene_id)


def _check_depth(
    folder: Path, names: list[str], scene_id: str, frame_size: tuple[int, int] | None, info: dict | None
) -> Iterator[Finding]:
    decoded = set(uniform_names(names, _NUM_DECODED))
    sizes: dict[tuple[int, int], str] = {}
    for name in names:
        path = folder / f"{name}.png"
        if not path.is_file():
            yield Finding("depth-missing", str(path), "it does not exist", scene_id)
            continue
        try:
            with Image.open(path) as image:
                sizes.setdefault((image.height, image.width), name)
                if not image.mode.startswith("I"):
                    yield Finding("depth-broken", str(path), f"its pixels are of the kind {image.mode}", scene_id)
                    continue
                millimetres = np.asarray(image) if name in decoded else None
        except (UnidentifiedImageError, OSError, SyntaxError) as error:  # the last one is how PNG chunks break
            yield Finding("depth-broken", str(path), str(error), scene_id)
            continue
        if millimetres is not None:
            yield from _check_depth_values(path, millimetres, scene_id)
    if len(sizes) > 1:
        yield Finding("depth-size-wrong", str(folder), f"sizes (height, width) {list(sizes)}", scene_id)
    elif sizes:
        size = next(iter(sizes))
        if frame_size and abs(size[1] / size[0] * frame_size[0] / frame_size[1] - 1) > _ASPECT_TOLERANCE:
            detail = f"depth is {size[1]} x {size[0]}, frames are {frame_size[1]} x {frame_size[0]}"
            yield Finding("depth-size-wrong", str(folder), detail, scene_id)
        if info is not None:
            off = np.abs(info["depth_cam2img"][[1, 0], 2] / size - 0.5).max()
            if off > _CENTRE_TOLERANCE:
                detail = f"its centre is {info['depth_cam2img'][:2, 2].tolist()} in images of {size[1]} x {size[0]}"
                yield Finding("depth-camera-wrong", str(folder), detail, scene_id)


def _check_depth_values(path: Path, millimetres: np.ndarray, scene_id: str) -> Iterator[Finding]:
    measured = millimetres[millimetres > 0]
    if not len(measured):
        yield Finding("depth-empty", str(path), "all pixels are 0", scene_id)
        return
    median = float(np.median(measured))
    if not _MIN_MEDIAN_MILLIMETRES <= median <= 1000 * MAX_MEDIAN_DEPTH:
        yield Finding("depth-unit-wrong", str(path), f"the median is {median:.0f}", scene_id)


def _check_teacher(layout: Layout, scene_id: str, names: list[str]) -> Iterator[Finding]:
    path, findings = layout.teacher(scene_id), []
    if not path.is_file():
        return
    store = tried(lambda text: Finding("teacher-broken", str(path), text, scene_id), findings, open_teacher, path)
    yield from findings
    if store is None:
        return
    if not np.isfinite(store[:, ::64]).all():
        yield Finding("teacher-broken", str(path), "it holds inf or nan", scene_id)
    shown = uniform_names(names, NUM_FRAMES)
    if stored_names(names, len(store)) != shown:
        detail = f"{len(store)} frames in the store, {len(shown)} shown of the {len(names)} in the folder"
        yield Finding("teacher-frames-differ", str(path), detail, scene_id)


def _check_cloud(layout: Layout, scene_id: str) -> Iterator[Finding]:
    path, findings, cloud = layout.masks(scene_id), [], None
    masks = None
    if path.is_file():
        masks = tried(lambda text: Finding("mask-broken", str(path), text, scene_id), findings, read_masks, path)
    files = [file for split in ("train", "val", "test") for file in layout.point_clouds(scene_id, split)]
    file = next((file for file in files if file.is_file()), None)
    if file is not None:
        cloud = tried(
            lambda text: Finding("cloud-broken", str(file), text, scene_id), findings, read_point_cloud, file
        )
    yield from findings
    if masks is not None and cloud is not None and masks.shape[1] != len(cloud["xyz"]):
        detail = f"masks of {masks.shape[1]} vertices, {len(cloud['xyz'])} points"
        yield Finding("mask-size-differs", str(path), detail, scene_id)
