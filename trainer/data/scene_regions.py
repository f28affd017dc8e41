"""Region masks of the 3D boxes of a scene, from its depth or from its poses alone."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from processing import PosedVideo
from processing.geometry_rules import rescaled_intrinsics
from processing.regions import regions_from_boxes_3d, regions_from_boxes_and_poses
from processing.token_grid import TokenGrid
from trainer.geometry import unproject_depth
from trainer.geometry.checks import Protocol

__all__ = ["REGION_SOURCES", "RegionSource", "SceneRegions"]

RegionSource = Literal["depth", "poses"]
REGION_SOURCES = {
    "depth": ("frames", "poses", "depth"),
    "poses": ("frames", "poses"),
}


class SceneRegions:
    """Region masks of boxes in a scene.

    The world point of every pixel is computed once.

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
            return regions_from_boxes_3d(boxes, self._world_points, self.grid, protocol=self.protocol)
        poses = torch.from_numpy(self.scene.camera_to_world)
        return regions_from_boxes_and_poses(boxes, self._cameras(self.grid.image_size), poses, self.grid)

    def _cameras(self, size: tuple[int, int]) -> torch.Tensor:
        """Return the intrinsics (V, 3, 3) of frames of another size."""
        own = self.scene.frames.shape[1:3]
        return torch.from_numpy(np.stack([rescaled_intrinsics(camera, own, size) for camera in self.scene.intrinsics]))

    @cached_property
    def _world_points(self) -> torch.Tensor:
        depth, poses = torch.from_numpy(self.scene.depth), torch.from_numpy(self.scene.camera_to_world)
        cameras = self._cameras(self.scene.depth.shape[1:3])
        return unproject_depth(depth, cameras.float(), poses.float(), protocol=self.protocol)
