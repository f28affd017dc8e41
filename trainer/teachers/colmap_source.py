"""Pseudo geometry of COLMAP and GLOMAP: poses, cameras, and depth of sparse points or of dense maps."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from processing.argument_rules import path_text
from processing.captures.colmap import check_model
from processing.geometry_rules import rescaled_intrinsics
from processing.scene_names import check_name
from trainer.teachers.protocol import FrameSource
from trainer.teachers.stored_geometry import PseudoGeometry

__all__ = ["ColmapSource"]

MODELS = ("", "sparse", "sparse/0", "0")  # Folders below that of a scene that may hold the model.
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
        ImportError: If `pycolmap` is not installed.
        TypeError: If `folder` is no path.
    """

    name = "COLMAP"
    licence = "none"  # a reconstruction has no weights
    alignment = "scale"
    preprocessing = f"dense maps of at most {DENSE_SIDE} px, or points of {MIN_VIEWS} views on {SPARSE_SIDE} px"

    def __init__(self, folder: str | Path):
        self.folder = Path(path_text(folder, "folder"))
        if not self.folder.is_dir():
            raise FileNotFoundError(f"There is no folder of reconstructions {folder}.")
        try:
            import pycolmap
        except ImportError as error:
            raise ImportError(
                f"Reconstructions are read by pycolmap, which is not installed ({error}): "
                '`pip install "ide3d[captures]"`.'
            ) from error
        self._pycolmap = pycolmap
        self.version = f"pycolmap {pycolmap.__version__}"

    def compute_geometry(self, frames: Any, source: FrameSource) -> PseudoGeometry:
        """Read the geometry of the named frames; see `GeometrySource`.

        Raises:
            FileNotFoundError: If there is no model of the scene.
            ValueError: If it cannot be read, does not hold a frame, or has a camera with distortion.
        """
        folder = self.folder / check_name(source.scene_id)
        model = next((folder / part for part in MODELS if _is_model(folder / part)), None)
        if model is None:
            raise FileNotFoundError(
                f"There is no reconstruction of the scene {source.scene_id}: expected cameras, images and points3D in "
                f"{folder}, or in sparse or sparse/0 below it."
            )
        check_model(model)
        try:
            reconstruction = self._pycolmap.Reconstruction(str(model))
        except Exception as error:  # pycolmap raises classes of its own
            raise ValueError(f"{model} cannot be read as a COLMAP model: {error}") from error
        posed = [image for image in reconstruction.images.values() if image.has_pose]
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
        cameras = np.stack([_read_camera(image.camera, model) for image in chosen])
        poses = np.tile(np.eye(4), (len(chosen), 1, 1))
        for pose, image in zip(poses, chosen, strict=True):
            pose[:3] = image.cam_from_world().inverse().matrix()
        size = _common_size(chosen, model)
        maps = self._read_dense(folder, model, chosen)
        confidence = None
        if maps is None:
            maps, confidence = _project_points(reconstruction, chosen, cameras, size)
        cameras = rescaled_intrinsics(cameras, size, maps.shape[1:])
        return PseudoGeometry(maps, confidence, cameras, poses)

    def _read_dense(self, folder: Path, model: Path, images: list[Any]) -> np.ndarray | None:
        """Return dense depth (V, h, w) of the images; None unless all of them have it."""
        for parent in (folder, model.parent, model):
            for kind in ("geometric", "photometric"):
                paths = [parent / "stereo" / "depth_maps" / f"{image.name}.{kind}.bin" for image in images]
                if not all(path.is_file() for path in paths):
                    continue
                maps = []
                for path in paths:
                    depth = self._pycolmap.DepthMap()
                    try:
                        _check_declared(path)
                        depth.read(str(path))
                        values = np.asarray(depth.to_array(), np.float32)
                    except Exception as error:
                        raise ValueError(f"{path} cannot be read as a depth map of COLMAP: {error}") from error
                    maps.append(_shrink(np.where(np.isfinite(values) & (values > 0), values, 0.0)))
                if len({depth.shape for depth in maps}) > 1:
                    raise ValueError(f"{parent} has depth maps of several sizes; those of a scene have one.")
                return np.stack(maps)
        return None


def _shrink(values: np.ndarray) -> np.ndarray:
    """Return a map of at most 512 px a side, nearest by pixel centres."""
    scale = min(1.0, DENSE_SIDE / max(values.shape))
    rows, columns = (
        np.floor((np.arange(max(1, round(side * scale))) + 0.5) * side / max(1, round(side * scale))).astype(int)
        for side in values.shape
    )
    return values[rows[:, None], columns]


def _check_declared(path: Path) -> None:
    """Raise ValueError unless a dense map is as long as it says.

    pycolmap would allocate what it says.
    """
    with path.open("rb") as file:
        header = re.match(rb"(\d{1,6})&(\d{1,6})&1&", file.read(32))
    if header is None:
        raise ValueError("it does not begin with WIDTH&HEIGHT&1&")
    expected = header.end() + 4 * int(header[1]) * int(header[2])
    if path.stat().st_size != expected:
        raise ValueError(
            f"expected {expected} bytes for {int(header[1])} x {int(header[2])} px, got {path.stat().st_size}"
        )


def _is_model(folder: Path) -> bool:
    return any((folder / f"images.{ending}").is_file() for ending in ("bin", "txt"))


def _read_camera(camera: Any, model: Path) -> np.ndarray:
    """Return the intrinsics (3, 3) of a camera without distortion; COLMAP's first pixel centre is (0.5, 0.5)."""
    if not camera.is_undistorted():
        raise ValueError(
            f"{model}: the camera {camera.camera_id} ({camera.model_name}) has distortion. Undistort the pictures by "
            "`colmap image_undistorter`, and give its model and pictures."
        )
    matrix = np.array(camera.calibration_matrix(), np.float64)
    matrix[:2, 2] -= 0.5
    return matrix


def _common_size(images: list[Any], model: Path) -> tuple[int, int]:
    """Return height and width of the images."""
    sizes = sorted({(int(image.camera.height), int(image.camera.width)) for image in images})
    if len(sizes) > 1:
        raise ValueError(f"{model} has pictures of the sizes (height, width) {sizes[:4]}; a scene has one.")
    return sizes[0]


def _project_points(
    reconstruction: Any, images: list[Any], cameras: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return depth (V, h, w) of the points that each image observes, and its confidence.

    Of several points on a pixel the nearest counts.
    """
    scale = min(1.0, SPARSE_SIDE / max(size))
    height, width = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    small = rescaled_intrinsics(cameras, size, (height, width))
    depth = np.full((len(images), height, width), np.inf, np.float32)
    confidence = np.zeros(depth.shape, np.float32)
    for place, (image, camera) in enumerate(zip(images, small, strict=True)):
        seen = [reconstruction.points3D[point.point3D_id] for point in image.points2D if point.has_point3D()]
        seen = [point for point in seen if point.track.length() >= MIN_VIEWS]
        if not seen:
            continue
        motion = image.cam_from_world().matrix()
        points = np.array([point.xyz for point in seen]) @ motion[:, :3].T + motion[:, 3]
        errors = np.array([max(point.error, 0.0) for point in seen])
        in_front = points[:, 2] > 0
        points, errors = points[in_front], errors[in_front]
        columns, rows = np.floor(
            points[:, :2] / points[:, 2:] * camera[[0, 1], [0, 1]] + camera[:2, 2] + 0.5
        ).T.astype(int)
        is_inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        order = np.flatnonzero(is_inside)[np.argsort(-points[is_inside, 2], kind="stable")]  # the nearest comes last
        depth[place, rows[order], columns[order]] = points[order, 2]
        confidence[place, rows[order], columns[order]] = 1 / (1 + errors[order])
    return np.where(np.isfinite(depth), depth, 0.0), confidence
