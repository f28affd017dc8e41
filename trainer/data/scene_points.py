"""Measured points of a scene in the order of its tokens: how many of each token lie in a box."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from processing.regions import MIN_SHARE, box_limits
from processing.token_grid import TokenGrid
from trainer.geometry.checks import Protocol, check_protocol

__all__ = ["ScenePoints"]

_PAIRS = 256  # of box and cell at once: their points fill 5 MB, about a cache
_MARGIN = 1e-5  # of the largest number of a cell: twenty times what float32 rounds


class ScenePoints:
    """Depth of a scene by cells (tokens of frames), with limits of their points.

    Most cells lie outside of a box or, with all their points, within it: points are computed for the rest alone. They
    are those of `trainer.geometry.unproject_depth`, bit for bit.

    Args:
        depth: z-depth, 0 = no measurement.
        intrinsics: Cameras of these pixels.
        camera_to_world: Poses.
        grid: Token grid of the model.
        protocol: "clean", or "paper": pixels without depth are points at the camera, and points that a resize to the
            vision input drops do not count.

    Shape:
        depth:           (V, h, w), metres, finite, not negative.
        intrinsics:      (V, 3, 3), pixels.
        camera_to_world: (V, 4, 4), metres.

    Raises:
        ValueError: An unknown protocol, or depth that is coarser than the grid.
    """

    def __init__(
        self, depth: Tensor, intrinsics: Tensor, camera_to_world: Tensor, grid: TokenGrid, protocol: Protocol
    ):
        check_protocol(protocol)
        self.grid, self.is_measured = grid, torch.gt if protocol == "clean" else torch.ge
        self.num_views, size = len(depth), tuple(depth.shape[1:])
        if protocol == "clean" and (size[0] < grid.rows or size[1] < grid.cols):
            raise ValueError(
                f"`depth` must be of at least a pixel per token, got {size[0]} x {size[1]} px, coarser than the token "
                f"grid {grid.shape}. Give it in the resolution of the pictures."
            )
        of_rows, of_columns, is_pixel, self.v, self.u = _lay_out(grid, size, protocol)
        shape = (grid.rows, grid.cols, of_rows.shape[1], of_columns.shape[1])
        self.depth = torch.stack([
            frame[of_rows.flatten()][:, of_columns.flatten()]
            .view(shape[0], shape[2], shape[1], shape[3]).transpose(1, 2).flatten(2).flatten(0, 1)
            for frame in depth.float()
        ])  # fmt: skip
        self.depth.masked_fill_(~is_pixel, -1.0)
        self.intrinsics, self.camera_to_world = intrinsics.float(), camera_to_world.float()
        self.num_pixels = is_pixel.sum(1)
        is_measured = self.is_measured(self.depth, 0)
        self.num_measured = is_measured.sum(-1)
        self.low, self.high = self._limit(is_measured)

    def _limit(self, is_measured: Tensor) -> tuple[Tensor, Tensor]:
        """Return limits (V * T, 3) of the points of each cell, float64.

        A coordinate is linear in depth, u and v apart, so that it is extreme in a corner of their ranges.
        """
        near = torch.where(is_measured, self.depth, torch.inf).amin(-1).double()
        near = torch.where(near.isinf(), 0.0, near)
        far = self.depth.amax(-1).clamp(min=0).double()
        cameras, poses = self.intrinsics.double(), self.camera_to_world.double()
        fx, fy, cx, cy = (cameras[:, row, column, None] for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)))
        xs = [(side(-1).double() - cx) / fx for side in (self.u.amin, self.u.amax)]
        ys = [(side(-1).double() - cy) / fy for side in (self.v.amin, self.v.amax)]
        corners = torch.stack([
            torch.stack((x * z, y * z, z), -1) for x in xs for y in ys for z in (near, far)
        ])  # fmt: skip
        world = corners @ poses[:, :3, :3].mT + poses[:, None, :3, 3]
        margin = _MARGIN * (corners.abs().amax((0, -1)) + poses[:, :3, 3].abs().amax(-1)[:, None] + 1)[..., None]
        return (world.amin(0) - margin).flatten(0, 1), (world.amax(0) + margin).flatten(0, 1)

    def masks(self, boxes: Tensor, min_share: float = MIN_SHARE) -> Tensor:
        """Return region masks of boxes, those of `processing.regions.regions_from_boxes_3d`.

        Args:
            boxes: (cx, cy, cz, dx, dy, dz), axis aligned, full sizes, metres.
            min_share: Least share of a token's pixels.

        Shape:
            boxes:  (N, 6).
            output: (N, V, rows, cols), bool.

        Raises:
            ValueError: Boxes that are not finite or of negative size.
        """
        low, high = box_limits(boxes)
        least = (self.num_pixels.clamp(min=1).double() * min_share).floor().clamp(min=1).repeat(self.num_views)
        is_enough = self.num_measured.flatten() >= least
        touched = is_enough & _all_axes(torch.le, self.low, high) & _all_axes(torch.ge, self.high, low)
        masks = touched & _all_axes(torch.ge, self.low, low) & _all_axes(torch.le, self.high, high)
        which, cells = torch.nonzero(touched & ~masks, as_tuple=True)
        order = torch.argsort(cells, stable=True)
        for chosen in order.split(_PAIRS) if len(order) else ():
            own, place = torch.unique(cells[chosen], return_inverse=True)
            inside = None
            for axis, values in enumerate(self._points(own)):
                values = values[place]
                is_in = (values >= low[which[chosen], axis, None]) & (values <= high[which[chosen], axis, None])
                inside = is_in if inside is None else inside.logical_and_(is_in)
            masks[which[chosen], cells[chosen]] = inside.sum(-1) >= least[cells[chosen]]
        return masks.view(len(low), self.num_views, self.grid.rows, self.grid.cols)

    def _points(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the coordinates (M, K) of the points of cells, NaN where nothing was measured."""
        views, tokens = cells // len(self.num_pixels), cells % len(self.num_pixels)
        depth, cameras, poses = self.depth[views, tokens], self.intrinsics[views], self.camera_to_world[views]
        z = depth.masked_fill(~self.is_measured(depth, 0), torch.nan)
        x = (self.u[tokens] - cameras[:, 0, 2, None]) * z / cameras[:, 0, 0, None]
        y = (self.v[tokens] - cameras[:, 1, 2, None]) * z / cameras[:, 1, 1, None]
        # In the order of `trainer.geometry.transform_points`, so that every bit is the same.
        return tuple(
            poses[:, axis, 3, None] + x * poses[:, axis, 0, None] + y * poses[:, axis, 1, None]
            + z * poses[:, axis, 2, None]
            for axis in range(3)
        )  # fmt: skip


@lru_cache(maxsize=8)  # the scenes of a data set have one size
def _lay_out(grid: TokenGrid, size: tuple[int, int], protocol: Protocol) -> tuple[Tensor, ...]:
    """Return rows, columns, validity, v and u of the pixels of each cell."""
    rows, columns = torch.arange(size[0]), torch.arange(size[1])
    if protocol == "paper":
        rows, columns = (
            F.interpolate(line[None, None, :].double(), length, mode="nearest")[0, 0].long()
            for line, length in zip((rows, columns), grid.image_size, strict=True)
        )
    index = grid.token_index((len(rows), len(columns)))
    of_rows = _group(torch.where(index[:, 0] >= 0, index[:, 0] // grid.cols, -1), grid.rows)
    of_columns = _group(torch.where(index[0] >= 0, index[0] % grid.cols, -1), grid.cols)
    is_pixel = ((of_rows >= 0)[:, None, :, None] & (of_columns >= 0)[None, :, None, :]).flatten(2).flatten(0, 1)
    of_rows, of_columns = rows[of_rows.clamp(min=0)], columns[of_columns.clamp(min=0)]
    shape = (grid.rows, grid.cols, of_rows.shape[1], of_columns.shape[1])
    v = of_rows[:, None, :, None].expand(shape).flatten(2).flatten(0, 1).float()
    u = of_columns[None, :, None, :].expand(shape).flatten(2).flatten(0, 1).float()
    return of_rows, of_columns, is_pixel, v, u


def _group(groups: Tensor, count: int) -> Tensor:
    """Return the places (count, most) of each group in a line of group numbers, -1 for padding."""
    places = [torch.nonzero(groups == group).flatten() for group in range(count)]
    return torch.nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-1)


def _all_axes(compare: object, cells: Tensor, limits: Tensor) -> Tensor:
    """Return whether limits of cells (C, 3) compare with those of boxes (N, 3) on every axis: (N, C)."""
    return compare(cells[None], limits[:, None].double()).all(-1)
