"""Region masks of the 3D boxes of a scene, from its depth or from its poses alone; and boxes of region masks."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from processing import PosedVideo
from processing.benchmarks.readers.requirements import REGION_SOURCES
from processing.geometry_rules import rescaled_intrinsics
from processing.regions import regions_from_boxes_and_poses
from processing.token_grid import TokenGrid
from trainer.data.scene_points import ScenePoints
from trainer.geometry import unproject_depth
from trainer.geometry.checks import Protocol

__all__ = ["REGION_SOURCES", "RegionSource", "SceneRegions", "measured_points"]

RegionSource = Literal["depth", "poses"]
# Share of a region's points at each end of an axis that are left out: cells at its rim show what stands behind. Best
# of 0 to 0.3 for true regions of training rooms, by `python tests/benchmarks/lifted_regions.py`.
TRIMMED = 0.15


class SceneRegions:
    """Region masks of boxes in a scene.

    Depth is brought into the order of the tokens once.

    Args:
        scene: Scene with poses in the frame of the boxes; for "depth" also with depth.
        grid: Token grid of the model.
        source: Source of the masks. "depth": tokens whose measured points lie in the box, as the original does.
            "poses": the box's outline in each frame, with all that stands before it.
        protocol: "paper" counts pixels without depth as points at the camera, as the original does. Of the points it
            takes those that are left after a resize to the vision input.
    """

    def __init__(self, scene: PosedVideo, grid: TokenGrid, source: RegionSource, protocol: Protocol):
        self.scene, self.grid, self.source, self.protocol = scene, grid, source, protocol
        self._last: tuple[np.ndarray, torch.Tensor] | None = None

    def masks(self, boxes: Sequence[Sequence[float]]) -> torch.Tensor:
        """Return masks (N, V, rows, cols) of boxes (N, 6), metres.

        The last masks are kept, because questions share their candidates.
        """
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 6)
        if self._last is None or not np.array_equal(self._last[0], boxes):
            self._last = (boxes, self._compute(torch.from_numpy(boxes)))
        return self._last[1]

    def _compute(self, boxes: torch.Tensor) -> torch.Tensor:
        if self.source == "depth":
            return self._points.masks(boxes)
        poses = torch.from_numpy(self.scene.camera_to_world)
        return regions_from_boxes_and_poses(boxes, self._cameras(self.grid.image_size), poses, self.grid)

    def enclosing_box(self, mask: torch.Tensor, trimmed: float = TRIMMED) -> list[float] | None:
        """Return the box around the measured points of a region's cells, without the outermost ones.

        Args:
            mask: Cells of one region, bool (V, rows, cols).
            trimmed: Share of the points that is left out at each end of each axis.

        Returns:
            Box (cx, cy, cz, dx, dy, dz), metres, in the frame of the poses; None where nothing was measured.
        """
        index = self.grid.token_index(self._world_points.shape[1:3])
        chosen = mask.flatten(1)[:, index.clamp(min=0).flatten()] & (index >= 0).flatten()
        points = self._world_points.flatten(1, 2)[chosen]
        points = points[points.isfinite().all(-1)].double().numpy()
        if not len(points):
            return None
        low, high = np.quantile(points, (trimmed, 1 - trimmed), axis=0)
        return [*((low + high) / 2).tolist(), *(high - low).tolist()]

    def _cameras(self, size: tuple[int, int]) -> torch.Tensor:
        """Return the intrinsics (V, 3, 3) of frames of another size."""
        return _cameras_of(self.scene, size)

    @cached_property
    def _points(self) -> ScenePoints:
        depth, poses = torch.from_numpy(self.scene.depth), torch.from_numpy(self.scene.camera_to_world)
        return ScenePoints(depth, self._cameras(tuple(depth.shape[1:])), poses, self.grid, self.protocol)

    @cached_property
    def _world_points(self) -> torch.Tensor:
        return measured_points(self.scene, protocol=self.protocol)


def measured_points(scene: PosedVideo, *, protocol: Protocol = "clean") -> torch.Tensor:
    """Return the world point (V, h, w, 3), metres, of every pixel of the depth maps.

    Pixels without depth are NaN; with `protocol="paper"` they are the place of the camera.
    """
    depth, poses = torch.from_numpy(scene.depth), torch.from_numpy(scene.camera_to_world)
    cameras = _cameras_of(scene, scene.depth.shape[1:3])
    return unproject_depth(depth, cameras.float(), poses.float(), protocol=protocol)


def _cameras_of(scene: PosedVideo, size: tuple[int, int]) -> torch.Tensor:
    own = scene.frames.shape[1:3]
    return torch.from_numpy(np.stack([rescaled_intrinsics(camera, own, size) for camera in scene.intrinsics]))
