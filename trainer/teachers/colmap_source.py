"""Pseudo geometry of COLMAP and GLOMAP: poses, cameras, and depth of sparse points or of dense maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from processing.argument_rules import path_text
from processing.captures.colmap_model import (
    PLACES,
    ColmapCamera,
    ColmapImage,
    ColmapPoints,
    find_model,
    read_depth_map,
    read_model,
    read_points,
)
from processing.geometry_rules import rescaled_intrinsics
from processing.scene_names import check_name
from trainer.teachers.protocol import FrameSource
from trainer.teachers.stored_geometry import PseudoGeometry

__all__ = ["ColmapSource"]

SPARSE_SIDE = 192  # Pixels of the longer side of sparse depth: a point must survive the resize to the vision input.
DENSE_SIDE = 512
MIN_VIEWS = 3  # Views of a point; two rays that nearly agree by chance make most wrong points.


class ColmapSource:
    """Pseudo geometry of reconstructions that COLMAP or GLOMAP wrote, one folder a scene.

    `FOLDER/<scene_id>` holds the model (`cameras`, `images`, `points3D`), itself or below `sparse` or `sparse/0`. The
    names of its images without their ending are names of frames, and its pictures are the frames: undistort first.
    Poses and depth have the scale of the reconstruction. Where COLMAP's dense maps (`stereo/depth_maps`) are there for
    all frames, depth is theirs. Elsewhere it is that of the points, at the pixels that they project to; confidence is
    then 1 / (1 + reprojection error in pixels).

    Args:
        folder: Folder of the reconstructions.

    Raises:
        FileNotFoundError: If there is no such folder.
        TypeError: If `folder` is no path.
    """

    name = "COLMAP"
    version = "1"  # of what is taken from a model, below
    licence = "none"  # a reconstruction has no weights
    alignment = "scale"
    preprocessing = f"dense maps of at most {DENSE_SIDE} px, or points of {MIN_VIEWS} views on {SPARSE_SIDE} px"

    def __init__(self, folder: str | Path):
        self.folder = Path(path_text(folder, "folder"))
        if not self.folder.is_dir():
            raise FileNotFoundError(f"There is no folder of reconstructions {folder}.")

    def compute_geometry(self, frames: Any, source: FrameSource) -> PseudoGeometry:
        """Read the geometry of the named frames; see `GeometrySource`.

        Raises:
            FileNotFoundError: If there is no model of the scene.
            ValueError: If it cannot be read, does not hold a frame, or has a camera with distortion.
        """
        folder = self.folder / check_name(source.scene_id)
        found = find_model(folder, (*PLACES, "0"))
        if found is None:
            raise FileNotFoundError(
                f"There is no reconstruction of the scene {source.scene_id}: expected cameras, images and points3D in "
                f"{folder}, or in sparse or sparse/0 below it."
            )
        model, ending = found
        cameras, posed = read_model(model, ending, has_points=True)
        images = {Path(image.name).stem: image for image in posed}
        if len(images) < len(posed):
            raise ValueError(f"{model} has images whose names differ in folder or ending alone. Name each frame once.")
        absent = [name for name in source.frame_names if name not in images]
        if absent:
            raise ValueError(
                f"{model} has no pose of the frames {absent[:4]} ({len(absent)} in all). Take their pictures out of "
                "the scene's folder, so that other frames are chosen, or reconstruct again."
            )
        chosen = [images[name] for name in source.frame_names]
        size = _common_size([cameras[image.camera] for image in chosen], model)
        intrinsics = np.stack([_read_camera(image.camera, cameras[image.camera], model) for image in chosen])
        poses = np.linalg.inv(np.stack([image.world_to_camera for image in chosen]))
        depth, confidence = _read_dense(folder, model, chosen), None
        if depth is None:
            depth, confidence = _project_points(read_points(model, ending), chosen, intrinsics, size, model)
        intrinsics = rescaled_intrinsics(intrinsics, size, depth.shape[1:])
        return PseudoGeometry(depth, confidence, intrinsics, poses)


def _read_dense(folder: Path, model: Path, images: Sequence[ColmapImage]) -> np.ndarray | None:
    """Return dense depth (V, h, w) of the images; None unless all of them have it."""
    for parent in (folder, model.parent, model):
        for kind in ("geometric", "photometric"):
            paths = [parent / "stereo" / "depth_maps" / f"{image.name}.{kind}.bin" for image in images]
            if not all(path.is_file() for path in paths):
                continue
            maps = [_shrink(read_depth_map(path)) for path in paths]
            if len({depth.shape for depth in maps}) > 1:
                raise ValueError(f"{parent} has depth maps of several sizes; those of a scene have one.")
            return np.stack(maps)
    return None


def _shrink(values: np.ndarray) -> np.ndarray:
    """Return a map of at most 512 px a side, nearest by pixel centres.

    Pixels without depth are 0.
    """
    scale = min(1.0, DENSE_SIDE / max(values.shape))
    rows, columns = (
        np.floor((np.arange(max(1, round(side * scale))) + 0.5) * side / max(1, round(side * scale))).astype(int)
        for side in values.shape
    )
    small = values[rows[:, None], columns]
    return np.where(np.isfinite(small) & (small > 0), small, 0.0)


def _read_camera(number: int, camera: ColmapCamera, model: Path) -> np.ndarray:
    """Return the intrinsics (3, 3) of a camera without distortion."""
    if not camera.is_straight:
        raise ValueError(
            f"{model}: the camera {number} ({camera.model}) has distortion. Undistort the pictures by "
            "`colmap image_undistorter`, and give its model and pictures."
        )
    return camera.intrinsics


def _common_size(cameras: Sequence[ColmapCamera], model: Path) -> tuple[int, int]:
    """Return height and width of the pictures."""
    sizes = sorted({camera.size for camera in cameras})
    if len(sizes) > 1:
        raise ValueError(f"{model} has pictures of the sizes (height, width) {sizes[:4]}; a scene has one.")
    return sizes[0]


def _project_points(
    points: ColmapPoints, images: Sequence[ColmapImage], cameras: np.ndarray, size: tuple[int, int], model: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Return depth (V, h, w) of the points that each image shows, and its confidence.

    Of several points on a pixel the nearest counts.
    """
    scale = min(1.0, SPARSE_SIDE / max(size))
    height, width = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    small = rescaled_intrinsics(cameras, size, (height, width))
    depth = np.full((len(images), height, width), np.inf, np.float32)
    confidence = np.zeros(depth.shape, np.float32)
    for view, (image, camera) in enumerate(zip(images, small, strict=True)):
        seen = points.find_rows(image.points, model)
        seen = seen[points.num_views[seen] >= MIN_VIEWS]
        motion = image.world_to_camera
        places = points.positions[seen] @ motion[:3, :3].T + motion[:3, 3]
        errors = np.maximum(points.errors[seen], 0.0)
        in_front = places[:, 2] > 0
        places, errors = places[in_front], errors[in_front]
        columns, rows = np.floor(
            places[:, :2] / places[:, 2:] * camera[[0, 1], [0, 1]] + camera[:2, 2] + 0.5
        ).T.astype(int)
        is_inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        order = np.flatnonzero(is_inside)[np.argsort(-places[is_inside, 2], kind="stable")]  # the nearest comes last
        depth[view, rows[order], columns[order]] = places[order, 2]
        confidence[view, rows[order], columns[order]] = 1 / (1 + errors[order])
    return np.where(np.isfinite(depth), depth, 0.0), confidence
