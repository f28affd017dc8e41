"""A teacher without a network: the point on the surface that each token shows."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from processing.token_grid import TokenGrid
from trainer.field_rules import POSITIVE, check_choice, check_number
from trainer.geometry import relative_pose, transform_points, unproject_depth
from trainer.teachers.protocol import FrameSource

__all__ = ["CAMERAS", "PointMapTeacher"]

CAMERAS = ("first", "own")


class PointMapTeacher:
    """A teacher without a network: points on the surface as waves of their coordinates.

    The points of a token are given in the frame of a camera, in metres. Every coordinate becomes sine and cosine at
    each wavelength, averaged over the token's measured pixels. Training needs depth, for the first camera poses too,
    and no weights.

    Args:
        wavelengths: Wavelengths in metres.
        camera: Camera of the frame. "first", that of the first frame: as in features of a point-map network, two views
            of one surface agree. A student that sees one frame at a time cannot know the first camera. "own", that of
            the token's frame: such a student can know it.

    Raises:
        TypeError: If a wavelength is no number.
        ValueError: If there is no wavelength, one is not positive and finite, or the camera is unknown.
    """

    name = "point map (analytic)"
    licence = "Apache-2.0"
    preprocessing = "depth and poses on the pixels of the vision input"
    protocol = None

    def __init__(self, wavelengths: tuple[float, ...] = (16.0, 8.0, 4.0, 2.0), camera: str = "first"):
        if isinstance(wavelengths, np.ndarray):
            wavelengths = wavelengths.tolist()
        if not isinstance(wavelengths, (tuple, list)) or not wavelengths:
            raise ValueError(f"`wavelengths` must be positive lengths in metres, such as (4.0,), got {wavelengths!r}.")
        for length in wavelengths:
            check_number("each of `wavelengths`, in metres,", length, POSITIVE)
        check_choice("`camera`", camera, CAMERAS)
        wavelengths = tuple(map(float, wavelengths))
        self.wavelengths, self.camera = torch.tensor(wavelengths), camera
        self.feature_size = 6 * len(wavelengths)
        self.version = f"1, wavelengths of {', '.join(f'{length:g}' for length in wavelengths)} m"
        if camera != "first":
            self.version += f", {camera} camera"

    @torch.no_grad()
    def compute_features(
        self,
        frames: Any,
        geometry: dict[str, Tensor] | None,
        grid: TokenGrid,
        source: FrameSource | None = None,
    ) -> Tensor | None:
        """Compute the features of one video from its geometry.

        Args:
            frames: Not used; the points suffice.
            geometry: `depth` (V, H, W), `intrinsics` (V, 3, 3), and for the first camera `camera_to_world`
                (V, 4, 4), on the pixels of the vision input; without one of them, or with pseudo depth that
                is not metric (`depth_alignment` above 0), there are no features.
            grid: Token grid.
            source: Not used.

        Returns:
            Tensor (V, rows, cols, feature_size), float32; zero where a token has no measured pixel.
        """
        needed = {"depth", "intrinsics", *(("camera_to_world",) if self.camera == "first" else ())}
        if geometry is None or not needed <= geometry.keys() or geometry.get("depth_alignment", 0):
            return None
        points = unproject_depth(geometry["depth"], geometry["intrinsics"])
        if self.camera == "first":
            poses = geometry["camera_to_world"]
            points = transform_points(relative_pose(poses, poses[:1].expand_as(poses)), points)
        is_measured = points.isfinite().all(-1)
        angles = torch.where(is_measured[..., None], points, 0.0)[..., None] * (2 * torch.pi / self.wavelengths)
        waves = torch.cat([angles.sin(), angles.cos()], -1).flatten(-2) * is_measured[..., None]
        waves = F.adaptive_avg_pool2d(grid.crop(waves.permute(0, 3, 1, 2)), grid.shape)
        share = F.adaptive_avg_pool2d(grid.crop(is_measured[:, None].float()), grid.shape)
        return torch.where(share > 0, waves / share.clamp(min=1e-6), 0.0).permute(0, 2, 3, 1)
