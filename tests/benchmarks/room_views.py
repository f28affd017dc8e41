"""Rooms as exact depth from several cameras, with visibility by ray casting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from processing.rooms.generate import make_room
from processing.rooms.render.images import pinhole_view, primitive_table
from processing.rooms.render.raycast import cast_loose, cast_view
from processing.rooms.scene.primitives import PrimitiveTable
from trainer.geometry import FramePairs, project_points, unproject_depth

SIZE, VIEWS = 64, 3
GAP = 5e-3  # metres by which a ray may end before a point that it meets


@dataclass
class RoomViews:
    """Views of one room.

    Shape:
        depth (1, V, H, W), metres; intrinsics (1, V, 3, 3); camera_to_world (1, V, 4, 4).
    """

    table: PrimitiveTable
    depth: Tensor
    intrinsics: Tensor
    camera_to_world: Tensor

    def cast_visibility(self, pairs: FramePairs) -> Tensor:
        """Target pixels (N, H, W) whose point the source camera sees, by a ray at each of them."""
        cameras, poses = self.intrinsics.double(), self.camera_to_world.double()
        points = unproject_depth(self.depth.double(), cameras, poses)
        return torch.stack(
            [
                self._sees(source, points[0, target])
                for source, target in zip(pairs.source.tolist(), pairs.target.tolist(), strict=True)
            ]
        )

    def _sees(self, frame: int, points: Tensor) -> Tensor:
        camera, pose = self.intrinsics[0, frame].double(), self.camera_to_world[0, frame].double()
        pixels, z = project_points(points, camera, pose)
        size = self.depth.shape[-1]
        is_inside = ((pixels >= -0.5) & (pixels <= size - 0.5)).all(-1)
        tangents = torch.stack([(pixels[..., axis] - camera[axis, 2]) / camera[axis, axis] for axis in range(2)])[
            :, is_inside, None
        ].numpy()
        everything = [(row, np.arange(tangents.shape[1])) for row in range(len(self.table))]
        found, _ = cast_loose(pinhole_view(pose.numpy(), camera.numpy(), size), self.table, tangents, everything)
        seen = torch.zeros_like(is_inside)
        seen[is_inside] = torch.from_numpy(found[:, 0]).double() > z[is_inside] - GAP
        return seen


def make_scenes(num_rooms: int, *, zoom: float = 1.0, size: int = SIZE, views: int = VIEWS) -> list[RoomViews]:
    """Test rooms; every other camera has a focal length longer by `zoom`."""
    scenes = []
    for index in range(num_rooms):
        room, row = make_room("test", 0, index, size, views)
        cameras = np.array(row["intrinsics"], np.float64)
        cameras[1::2, [0, 1], [0, 1]] *= zoom
        poses, table = np.array(row["camera_to_world"], np.float64), primitive_table(room)
        depth = [cast_view(pinhole_view(p, c, size), table)[0] for p, c in zip(poses, cameras, strict=True)]
        arrays = (np.stack(depth), cameras, poses)
        scenes.append(RoomViews(table, *(torch.from_numpy(x.astype(np.float32))[None] for x in arrays)))
    return scenes


def plane_depth(intrinsics: Tensor, camera_to_world: Tensor, size: int = SIZE) -> Tensor:
    """Depth (1, V, H, W) of an endless plane that all cameras look at: 4 m before the first one, leaning."""
    pose = camera_to_world[0, 0]
    normal = pose[:3, :3] @ torch.tensor([0.2, -0.1, 1.0])
    height = normal @ (pose[:3, 3] + pose[:3, :3] @ torch.tensor([0.0, 0.0, 4.0]))
    directions = unproject_depth(torch.ones(*intrinsics.shape[:2], size, size), intrinsics)
    directions = torch.einsum("bvij,bvhwj->bvhwi", camera_to_world[..., :3, :3], directions)
    depth = (height - camera_to_world[..., :3, 3] @ normal)[..., None, None] / (directions @ normal)
    return torch.where((depth > 0.1) & (depth < 50), depth, 0.0)
