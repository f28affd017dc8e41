"""Checks of the doctor on the files of one scene. Nothing raises; what is wrong becomes a `Finding`."""

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from processing.benchmarks.doctor.findings import KINDS, Finding
from processing.benchmarks.doctor.jpeg_ends import holds_jpeg_end
from processing.benchmarks.readers.files import read_masks, read_point_cloud
from processing.benchmarks.readers.scenes import check_same_camera, uniform_names
from processing.benchmarks.readers.tasks import Layout, is_video_file
from processing.benchmarks.readers.teacher import open_teacher, stored_names
from processing.frame_order_ide3d import sort_frames
from processing.geometry_rules import (
    check_depth,
    check_intrinsics,
    check_same_view,
    find_nonfinite,
    is_pose,
    rescaled_intrinsics,
)
from processing.image_opening_ide3d import open_image
from processing.image_reading_ide3d import inspect_image, is_turned
from processing.image_wholeness_ide3d import check_picture
from processing.limits import check_file
from processing.pose_rules import find_disagreement
from processing.sample_rules import find_strange_boxes
from processing.scene_folders import (
    check_steps,
    list_frame_names,
    lost_pictures,
    read_folder_intrinsics,
    read_matrix,
)

__all__ = ["check_folder", "check_scene", "tried"]

NUM_FRAMES = 32
_JPEG = ("JPEG", "MPO")
# Runs of neighbouring frames, and their length, whose depth maps are read whole; of the others the headers are read.
_RUNS, _RUN_LENGTH = 3, 3
_MIN_MEASURED = 0.02  # Share of the pixels of a scene. Sparse depth of lasers measures 5 %.
_CENTRE_TOLERANCE = 0.25  # Distance of principal point and middle, as a share of the depth image's side.


def tried(finding: Callable[[str], Finding], findings: list[Finding], read: Callable, *arguments: Any) -> Any:
    """Return what `read` gives, or None with a finding made of the error's text.

    Args:
        finding: Function that makes a finding of a text.
        findings: List that the finding is added to.
        read: Function that may raise.
        *arguments: Arguments of `read`.
    """
    try:
        return read(*arguments)
    except (OSError, ValueError) as error:
        findings.append(finding(str(error)))
    except Exception as error:  # No file may stop the doctor, also not one that a library fails on in a new way.
        findings.append(finding(f"it cannot be read, {type(error).__name__}: {str(error)[:300]}"))
    return None


def check_scene(
    layout: Layout, scene_id: str, info: dict | None, parts: set[str], boxes: Sequence[Sequence[float]] = ()
) -> list[Finding]:
    """Return all findings on a scene.

    Args:
        layout: Paths of the benchmark folder.
        scene_id: Name such as "scannet/scene0000_00".
        info: Entry of the scene in EmbodiedScan's file, as `read_infos` gives it; None if there is none.
        parts: Parts that are needed beside the frames, of "poses", "depth" and "boxes".
        boxes: True boxes of the scene, (cx, cy, cz, dx, dy, dz), metres; none are compared where there are none.
    """
    if is_video_file(scene_id):
        return list(_check_video(layout, scene_id))
    folder, findings = layout.frames(scene_id), []
    if not folder.is_dir():
        found = "it is not a folder" if os.path.lexists(folder) else "the folder does not exist"
        return [Finding("scene-missing", str(folder), found, scene_id)]
    try:
        names = list_frame_names(folder)
    except (OSError, ValueError) as error:
        return [Finding("frame-names-bad", str(folder), str(error), scene_id)]
    if lost := lost_pictures(folder, names):
        detail = f"{len(lost)} frames such as {lost[0]} have a pose or depth but no picture"
        findings.append(Finding("frame-missing", str(folder / f"{lost[0]}.jpg"), detail, scene_id))
    foreign = sort_frames(file.stem for file in folder.glob("*.jpg") if file.stem not in names or len(file.stem) != 5)
    if foreign:
        detail = f"{len(foreign)} pictures such as {foreign[0]}.jpg"
        findings.append(Finding("frame-name-foreign", str(folder), detail, scene_id))
    if not names:
        return [*findings, Finding("frames-missing", str(folder), "it holds no NNNNN.jpg", scene_id)]
    if len(names) < NUM_FRAMES:
        findings.append(Finding("frames-few", str(folder), f"{len(names)} frames", scene_id))
    shown = uniform_names(names, NUM_FRAMES)
    decoded = shown if len(shown) <= _RUNS * _RUN_LENGTH else _runs(shown)
    findings += check_folder(folder, shown, decoded, scene_id, info, parts, boxes)
    if info is not None and sort_frames(Path(name).stem for name in info["images"]) != names:
        detail = f"{len(info['images'])} listed, {len(names)} in the folder, or other names"
        findings.append(Finding("frame-list-differs", str(folder), detail, scene_id))
    findings += _check_teacher(layout, scene_id, names)
    if "boxes" in parts:
        findings += _check_cloud(layout, scene_id)
    return findings


def check_folder(
    folder: Path,
    shown: list[str],
    decoded: list[str],
    scene_id: str,
    info: dict | None,
    parts: Collection[str],
    boxes: Sequence[Sequence[float]] = (),
) -> list[Finding]:
    """Return findings on frames, poses, cameras and depth of a folder.

    Each part is judged alone, and if all are good, against the others.

    Args:
        folder: Folder of `NNNNN.jpg`, `NNNNN.png`, `NNNNN.txt`.
        shown: Names of the frames that are looked at, at least one.
        decoded: Those whose depth is read whole.
        scene_id: Name of the scene in findings.
        info: Entry of the scene in EmbodiedScan's file; None if there is none.
        parts: Parts that are needed beside the frames, of "poses" and "depth".
        boxes: True boxes of the scene, metres.
    """
    findings: list[Finding] = []
    sizes = list(_check_frames(folder, shown, scene_id, findings))
    size, has_depth = sizes[0] if sizes else None, "depth" in parts
    maps: dict[str, np.ndarray] = {}
    if "poses" in parts or has_depth:
        findings += _check_turned(folder, shown, scene_id, has_depth)
    if "poses" in parts:
        findings += _check_poses(folder, shown, scene_id, info)
        findings += _check_camera(folder, shown[0], scene_id, size, has_depth, info)
    elif size is not None:
        tried(
            lambda text: Finding("camera-unread", str(folder), text, scene_id),
            findings,
            read_folder_intrinsics,
            folder,
            size,
            None,
        )
    if has_depth:
        findings += _check_depth(folder, shown, set(decoded), maps, scene_id, size, info)
    spoilt = any(KINDS[finding.kind].stops for finding in findings)
    if "poses" in parts and has_depth and maps and not spoilt:
        findings += _check_sample(folder, maps, scene_id, size, info, boxes)
    return findings


def _runs(names: list[str]) -> list[str]:
    """Return the names of a few runs of neighbours, spread over all."""
    starts = np.linspace(0, len(names) - _RUN_LENGTH, _RUNS).astype(int)
    return [names[start + step] for start in starts for step in range(_RUN_LENGTH)]


def _check_sample(
    folder: Path,
    maps: dict[str, np.ndarray],
    scene_id: str,
    frame_size: tuple[int, int],
    info: dict | None,
    boxes: Sequence[Sequence[float]],
) -> Iterator[Finding]:
    """Yield findings on depth, cameras, poses and boxes that do not belong together."""
    depth = np.stack(list(maps.values())).astype(np.float32) / 1000
    poses = np.stack([read_matrix(folder / f"{name}.txt", (4,)) for name in maps])
    camera = read_folder_intrinsics(folder, frame_size, depth.shape[1:])
    if info is not None:
        poses = info["axis_align_matrix"] @ poses
        camera = rescaled_intrinsics(info["depth_cam2img"][:3, :3], depth.shape[1:], frame_size)
    if camera is None:
        return
    cameras = np.repeat(camera[None], len(maps), 0)
    found = find_disagreement(depth, cameras, poses, frame_size, is_thorough=True)
    if found is None and len(boxes):
        found = find_strange_boxes(boxes, depth, cameras, poses, frame_size, is_thorough=True)
    if found is not None:
        kinds = {"camera_to_world": "poses-wrong", "depth": "depth-unit-wrong", "intrinsics": "camera-wrong"}
        yield Finding(kinds.get(found.part, "boxes-strange"), str(folder), found.text, scene_id)


def _check_video(layout: Layout, scene_id: str) -> Iterator[Finding]:
    path = layout.video(scene_id)
    if not os.path.lexists(path):
        yield Finding("video-missing", str(path), "it does not exist", scene_id)
        return
    try:
        check_file(path, None)
        with av.open(str(path)) as container:
            next(container.decode(video=0))
    except (av.FFmpegError, OSError, ValueError, IndexError, StopIteration) as error:
        yield Finding("video-broken", str(path), str(error) or "it holds no frame", scene_id)


def _check_frames(folder: Path, names: list[str], scene_id: str, findings: list[Finding]) -> Iterator[tuple[int, int]]:
    """Yield the sizes (height, width) of the pictures that can be opened."""
    seen: dict[tuple[int, int], str] = {}
    for name in names:
        path = folder / f"{name}.jpg"
        try:
            check_file(path)
            facts = inspect_image(path)
            if facts.num_pictures > 1:
                raise OSError(f"it holds {facts.num_pictures} pictures")
            with open_image(path) as image:
                if image.format in _JPEG and not holds_jpeg_end(path.read_bytes()):
                    raise OSError("it is cut off: the end marker of JPEG is missing")
                image.draft("L", (1, 1))  # A decoder that only needs an eighth of the sides halves the time.
                image.load()
        except (OSError, ValueError) as error:
            findings.append(Finding("frame-broken", str(path), str(error), scene_id))
            continue
        size = (facts.height, facts.width)
        seen.setdefault(size, name)
        yield size
    if len(seen) > 1:
        detail = ", ".join(f"{w} x {h} in {name}" for (h, w), name in seen.items())
        findings.append(Finding("frame-size-differs", str(folder), detail, scene_id))


def _check_turned(folder: Path, names: list[str], scene_id: str, has_depth: bool) -> Iterator[Finding]:
    files = [folder / f"{name}{suffix}" for suffix in (".jpg", ".png")[: 1 + has_depth] for name in names]
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            if is_turned(file):
                yield Finding("frame-turned", str(file), "its EXIF orientation turns the picture", scene_id)


def _check_poses(folder: Path, names: list[str], scene_id: str, info: dict | None) -> Iterator[Finding]:
    align = np.eye(4) if info is None else info["axis_align_matrix"]
    for name in names:
        path = folder / f"{name}.txt"
        if not os.path.lexists(path):
            yield Finding("pose-missing", str(path), "it does not exist", scene_id)
            continue
        try:
            pose = read_matrix(path, (4,))
        except (OSError, ValueError) as error:
            yield Finding("pose-broken", str(path), str(error), scene_id)
            continue
        if len(find_nonfinite(pose[None])):
            yield Finding("pose-not-finite", str(path), "it holds inf or nan", scene_id)
        # `load_scene` gives the aligned pose, which is what has to be rigid in the end.
        elif not is_pose(pose) or (is_pose(align) and not is_pose(align @ pose)):
            yield Finding("pose-not-rigid", str(path), "it is no rotation and translation", scene_id)


def _check_camera(
    folder: Path,
    name: str,
    scene_id: str,
    frame_size: tuple[int, int] | None,
    has_depth: bool,
    info: dict | None,
) -> Iterator[Finding]:
    """Yield findings on the cameras that `load_scene` reads: those of the folder, and EmbodiedScan's."""
    depth_file, depth_size = folder / f"{name}.png", None
    if not os.path.lexists(folder / "intrinsic.txt") and not depth_file.is_file():
        yield Finding("camera-missing", str(folder), "neither intrinsic.txt nor depth images", scene_id)
    if frame_size is None:
        return
    if depth_file.is_file():
        with contextlib.suppress(OSError, ValueError), open_image(depth_file) as image:
            depth_size = (image.height, image.width)
    is_good = False
    try:
        camera = read_folder_intrinsics(folder, frame_size, depth_size if has_depth else None)
        if camera is not None:
            check_intrinsics(camera[None], frame_size=frame_size)
            is_good = True
    except (OSError, ValueError) as error:
        yield Finding("camera-broken", str(folder), str(error), scene_id)
    if info is not None and depth_size is not None:
        try:
            listed = rescaled_intrinsics(info["depth_cam2img"][:3, :3], depth_size, frame_size)
            check_intrinsics(listed[None], frame_size=frame_size, name="depth_cam2img")
            if is_good:
                check_same_camera(listed, camera, scene_id)
        except ValueError as error:
            yield Finding("camera-broken", str(folder), str(error), scene_id)


def _check_depth(
    folder: Path,
    names: list[str],
    decoded: set[str],
    maps: dict[str, np.ndarray],
    scene_id: str,
    frame_size: tuple[int, int] | None,
    info: dict | None,
) -> Iterator[Finding]:
    """Yield findings on depth files; the maps of `decoded` frames go into `maps`, millimetres."""
    sizes: dict[tuple[int, int], str] = {}
    for name in names:
        path = folder / f"{name}.png"
        if not os.path.lexists(path):
            yield Finding("depth-missing", str(path), "it does not exist", scene_id)
            continue
        try:
            check_file(path)
            with open_image(path) as image:
                sizes.setdefault((image.height, image.width), name)
                if not image.mode.startswith("I"):
                    yield Finding("depth-broken", str(path), f"its pixels are of the kind {image.mode}", scene_id)
                    continue
                if name in decoded:
                    check_picture(image)
                    maps[name] = np.asarray(image)
        except (OSError, ValueError) as error:
            yield Finding("depth-broken", str(path), str(error), scene_id)
    if len(sizes) > 1:
        yield Finding("depth-size-wrong", str(folder), f"sizes (height, width) {list(sizes)}", scene_id)
    elif sizes:
        yield from _check_maps(folder, maps, next(iter(sizes)), scene_id, frame_size, info)


def _check_maps(
    folder: Path,
    maps: dict[str, np.ndarray],
    size: tuple[int, int],
    scene_id: str,
    frame_size: tuple[int, int] | None,
    info: dict | None,
) -> Iterator[Finding]:
    """Yield findings on depth maps of one size, their unit, holes and camera."""
    shares = {name: float((millimetres > 0).mean()) for name, millimetres in maps.items()}
    if shares and np.mean(list(shares.values())) < _MIN_MEASURED:
        detail = f"{np.mean(list(shares.values())):.1%} of the pixels of {len(maps)} frames are measured"
        yield Finding("depth-holes", str(folder), detail, scene_id)
    else:
        for name in [name for name, share in shares.items() if not share]:
            yield Finding("depth-empty", str(folder / f"{name}.png"), "all pixels are 0", scene_id)
    if maps:
        try:
            check_steps(np.stack(list(maps.values())), folder)
            check_depth(np.stack(list(maps.values())).astype(np.float32) / 1000)
        except ValueError as error:
            yield Finding("depth-unit-wrong", str(folder), str(error), scene_id)
    try:
        if frame_size:  # The colour camera alone knows of squashed frames.
            check_same_view(size, frame_size, read_folder_intrinsics(folder, frame_size, None))
    except (OSError, ValueError) as error:
        yield Finding("depth-size-wrong", str(folder), str(error), scene_id)
    if info is not None:
        off = np.abs(info["depth_cam2img"][[1, 0], 2] / size - 0.5).max()
        if off > _CENTRE_TOLERANCE:
            detail = f"its centre is {info['depth_cam2img'][:2, 2].tolist()} in images of {size[1]} x {size[0]}"
            yield Finding("depth-camera-wrong", str(folder), detail, scene_id)


def _check_teacher(layout: Layout, scene_id: str, names: list[str]) -> Iterator[Finding]:
    path, findings = layout.teacher(scene_id), []
    if not os.path.lexists(path):
        return
    store = tried(lambda text: Finding("teacher-broken", str(path), text, scene_id), findings, open_teacher, path)
    yield from findings
    if store is None:
        return
    if len(find_nonfinite(store[:, ::64])):  # as float32, which is what training reads
        yield Finding("teacher-broken", str(path), "it holds inf or nan", scene_id)
    shown = uniform_names(names, NUM_FRAMES)
    if stored_names(names, len(store)) != shown:
        detail = f"{len(store)} frames in the store, {len(shown)} shown of the {len(names)} in the folder"
        yield Finding("teacher-frames-differ", str(path), detail, scene_id)


def _check_cloud(layout: Layout, scene_id: str) -> Iterator[Finding]:
    path, findings, cloud = layout.masks(scene_id), [], None
    masks = None
    if os.path.lexists(path):
        masks = tried(lambda text: Finding("mask-broken", str(path), text, scene_id), findings, read_masks, path)
    files = [file for split in ("train", "val", "test") for file in layout.point_clouds(scene_id, split)]
    file = next((file for file in files if os.path.lexists(file)), None)
    if file is not None:
        cloud = tried(
            lambda text: Finding("cloud-broken", str(file), text, scene_id), findings, read_point_cloud, file
        )
    yield from findings
    if masks is not None and cloud is not None and masks.shape[1] != len(cloud["xyz"]):
        detail = f"masks of {masks.shape[1]} vertices, {len(cloud['xyz'])} points"
        yield Finding("mask-size-differs", str(path), detail, scene_id)
