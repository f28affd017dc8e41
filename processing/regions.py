"""Region masks over the token grid, from masks, ids, 2D boxes or 3D boxes of objects.

A region mask says which visual tokens show an object: bool (N regions, V views, rows, cols). It can come from instance
or segmentation ids, or from 2D masks or boxes that a user draws. It can also come from 3D boxes, with measured depth
as the benchmarks do it, or with camera poses alone.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from processing.argument_rules import check_choice, check_number
from processing.box_outlines import outline_shares
from processing.box_rules import check_boxes, check_boxes_2d
from processing.geometry_rules import check_intrinsics, check_poses
from processing.token_grid import TokenGrid

__all__ = [
    "TokenGrid",
    "box_limits",
    "check_grid",
    "check_region_masks",
    "covered_share",
    "regions_from_boxes_2d",
    "regions_from_boxes_3d",
    "regions_from_boxes_and_poses",
    "regions_from_ids",
    "regions_from_masks",
]

ArrayLike = Tensor | np.ndarray
MIN_SHARE = 0.125  # Official: a token belongs to an object if at least this share of its pixels does.


def _as_tensor(values: ArrayLike, name: str, *, is_mask: bool = False) -> torch.Tensor:
    """Return numbers as a tensor; TypeError for text, objects, complex and ragged ones, by name.

    Args:
        values: Array, tensor or nested lists.
        name: Name of the argument, in messages.
        is_mask: Whether it holds flags, which are no numbers.
    """
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`{name}` must be an array of numbers, got {str(values)[:60]!r} ({error}).") from error
    if tensor.is_complex():
        raise TypeError(f"`{name}` must be real numbers, got {tensor.dtype}.")
    if not is_mask and tensor.dtype == torch.bool:
        raise TypeError(f"`{name}` must be numbers, got {tensor.dtype}. Flags are masks: `regions_from_masks`.")
    return tensor


def check_grid(grid: TokenGrid, name: str = "grid") -> None:
    """Raise TypeError unless an argument is a token grid."""
    if not isinstance(grid, TokenGrid):
        raise TypeError(f"`{name}` must be a TokenGrid, such as TokenGrid.of(processor), got {type(grid).__name__}.")


def _check_views(num_views: int, name: str) -> None:
    if not num_views:
        raise ValueError(f"`{name}` must show at least one frame, it shows none.")


def _as_ids(values: ArrayLike, name: str) -> torch.Tensor:
    """Return whole numbers as a tensor of int64."""
    numbers = _as_tensor(values, name)
    whole = numbers.long()
    is_changed = numbers.is_floating_point() and (numbers != whole).any()
    if is_changed or (numbers.dtype == torch.uint64 and (whole < 0).any()):
        raise ValueError(
            f"`{name}` must be whole numbers, as those of the pixels, got {numbers.flatten()[:9].tolist()}."
        )
    return whole


def check_min_share(min_share: float) -> None:
    """Raise TypeError or ValueError unless `min_share` is a number in (0, 1]."""
    check_number(min_share, "min_share", "a share of a token's area", above=0, largest=1)


def check_region_masks(region_masks: ArrayLike, grid: TokenGrid, num_views: int) -> None:
    """Raise ValueError unless `region_masks` is bool (N, V, rows, cols) of this grid."""
    check_grid(grid)
    masks = _as_tensor(region_masks, "region_masks", is_mask=True)
    expected = (num_views, grid.rows, grid.cols)
    if masks.dtype != torch.bool or masks.dim() != 4 or tuple(masks.shape[1:]) != expected:
        raise ValueError(
            f"region_masks must be bool of shape (N, {num_views}, {grid.rows}, {grid.cols}) for {grid.image_size} px, "
            f"got {masks.dtype} {tuple(masks.shape)}. Make them with `processing.regions` for this grid."
        )


def regions_from_masks(masks: ArrayLike, grid: TokenGrid, *, min_share: float = MIN_SHARE) -> Tensor:
    """Return region masks from pixel masks of whole frames.

    A token belongs to the region if at least `min_share` of its pixels do. A region too small for that in every view
    keeps the one token that it fills most.

    Args:
        masks: Pixels of each region, at any resolution that is not coarser than the grid.
        grid: Token grid.
        min_share: Least share of a token's pixels.

    Shape:
        masks:  (N, V, h, w) or, for one region, (V, h, w), bool.
        output: (N, V, rows, cols), bool.

    Raises:
        ValueError: Other shapes or types, frames coarser than the grid, or a share outside of (0, 1].
    """
    check_min_share(min_share)
    check_grid(grid)
    masks = _as_tensor(masks, "masks", is_mask=True)
    if masks.dim() == 3:
        masks = masks.unsqueeze(0)
    if masks.dim() != 4 or masks.dtype != torch.bool:
        raise ValueError(f"`masks` must be bool of shape (N, V, h, w), got {masks.dtype} {tuple(masks.shape)}.")
    return _share_masks(masks, grid, min_share, "masks")


def _share_masks(masks: Tensor, grid: TokenGrid, min_share: float, name: str) -> Tensor:
    """Return region masks from pixel masks (N, V, h, w), bool; `name` is the argument that they come from."""
    _check_views(masks.shape[1], name)
    counts, size = _count_pixels(masks, grid, name)
    return _keep_best(counts / size, min_share)


def regions_from_ids(
    ids: ArrayLike, region_ids: ArrayLike | list[int], grid: TokenGrid, *, min_share: float = MIN_SHARE
) -> Tensor:
    """Return region masks of objects in frames of instance or segmentation ids.

    Args:
        ids: Id of every pixel.
        region_ids: Ids of the objects.
        grid: Token grid.
        min_share: Least share of a token's pixels.

    Shape:
        ids:        (V, h, w), integer.
        region_ids: (N,), integer.
        output:     (N, V, rows, cols), bool; an id that no frame shows has an empty mask.

    Raises:
        ValueError: Other shapes, ids that are not integer, or frames coarser than the grid.
    """
    ids, region_ids = _as_tensor(ids, "ids", is_mask=True), _as_ids(region_ids, "region_ids")
    if ids.dim() != 3 or ids.is_floating_point() or ids.dtype == torch.bool or region_ids.dim() != 1:
        raise ValueError(
            f"`ids` must be integer of shape (V, h, w) and `region_ids` of shape (N,), "
            f"got {ids.dtype} {tuple(ids.shape)} and {tuple(region_ids.shape)}."
        )
    check_min_share(min_share)
    check_grid(grid)
    ids = _as_ids(ids, "ids")
    region_ids = region_ids.to(ids.device)
    return _share_masks(ids == region_ids[:, None, None, None], grid, min_share, "ids")


def regions_from_boxes_2d(
    boxes: ArrayLike, frame_size: tuple[int, int], grid: TokenGrid, *, min_share: float = MIN_SHARE
) -> Tensor:
    """Return region masks from boxes drawn in the frames.

    A token belongs to the region if the box covers at least `min_share` of its area. A smaller box keeps the token
    that it covers most.

    Args:
        boxes: (left, top, right, bottom) per view in pixels of the frame, measured between pixel edges: (0, 0, w, h)
            is the whole frame. NaN, or an empty box, means "not in this view".
        frame_size: Height and width of the frames.
        grid: Token grid.
        min_share: Least share of a token's area.

    Shape:
        boxes:  (N, V, 4) or, for one region, (V, 4).
        output: (N, V, rows, cols), bool.

    Raises:
        ValueError: Another shape, a box of negative size, or boxes that are not in pixels of these frames.
    """
    check_min_share(min_share)
    check_grid(grid)
    boxes = _as_tensor(boxes, "boxes").double()
    if boxes.dim() == 2:
        boxes = boxes.unsqueeze(0)
    if boxes.dim() != 3 or boxes.shape[-1] != 4:
        raise ValueError(f"`boxes` must have shape (N, V, 4), got {tuple(boxes.shape)}.")
    check_boxes_2d(boxes, frame_size)
    _check_views(boxes.shape[1], "boxes")
    left, top, right, bottom = boxes.unbind(-1)
    scale_v, scale_u = grid.image_size[0] / frame_size[0], grid.image_size[1] / frame_size[1]
    share_v = covered_share(top * scale_v, bottom * scale_v, grid.rows, grid.covered_size[0])
    share_u = covered_share(left * scale_u, right * scale_u, grid.cols, grid.covered_size[1])
    return _keep_best(share_v[..., :, None] * share_u[..., None, :], min_share)


def regions_from_boxes_3d(
    boxes: ArrayLike,
    world_points: ArrayLike,
    grid: TokenGrid,
    *,
    min_share: float = MIN_SHARE,
    protocol: Literal["clean", "paper"] = "clean",
) -> Tensor:
    """Return region masks from 3D boxes and every pixel's world point, by the original's rule.

    Source: 3D-IDE, object masks. A token belongs to the box if at least int(pixels of the token * min_share) of its
    points lie inside, limits included: 91 of the 27 x 27 px of a token of 384 px pictures. NaN points, which
    `unproject_depth` gives pixels without depth, never count; the original's camera-centre points do. A box may have
    an empty mask.

    Args:
        boxes: (cx, cy, cz, dx, dy, dz), axis aligned, full sizes, metres.
        world_points: World point of every pixel of the whole frame.
        grid: Token grid.
        min_share: Least share of a token's pixels.
        protocol: "clean" counts every point in its token. "paper" first brings the points to the pixels of the
            vision input, nearest by corners. That leaves some out and moves the others by up to a pixel.

    Shape:
        boxes:        (N, 6) or, for one region, (6,).
        world_points: (V, h, w, 3), metres.
        output:       (N, V, rows, cols), bool.

    Raises:
        ValueError: Other shapes, boxes that are not finite or of negative size, frames coarser than the grid.
    """
    check_number(min_share, "min_share", "a share of a token's area", least=0, largest=1)  # at 0 one point counts
    check_choice(protocol, ("clean", "paper"), "protocol")
    check_grid(grid)
    low, high = box_limits(boxes)
    points = _as_tensor(world_points, "world_points").float()
    if points.dim() != 4 or points.shape[-1] != 3:
        raise ValueError(f"`world_points` must have shape (V, h, w, 3), got {tuple(points.shape)}.")
    _check_views(len(points), "world_points")
    if protocol == "paper":
        points = torch.nn.functional.interpolate(points.permute(0, 3, 1, 2), grid.image_size, mode="nearest")
        points = points.permute(0, 2, 3, 1)
    planes, masks = [plane.contiguous() for plane in points.unbind(-1)], []
    for index in range(len(low)):  # One box at a time: N times all pixels would not fit for big scenes.
        inside = torch.ones((), dtype=torch.bool)
        for axis, plane in enumerate(planes):
            inside = inside & (plane >= low[index, axis]) & (plane <= high[index, axis])
        count, size = _count_pixels(inside.unsqueeze(0), grid, "world_points")
        masks.append(count >= (size.double() * min_share).floor().clamp(min=1))
    if not masks:
        return torch.zeros(0, len(points), grid.rows, grid.cols, dtype=torch.bool)
    return torch.cat(masks)


def regions_from_boxes_and_poses(
    boxes: ArrayLike,
    intrinsics: ArrayLike,
    camera_to_world: ArrayLike,
    grid: TokenGrid,
    *,
    min_share: float = MIN_SHARE,
) -> Tensor:
    """Return region masks from 3D boxes and cameras without depth: the boxes' silhouettes.

    Nothing that stands before a box hides it. Rays through every token are cut with the box. So cameras inside a box
    and boxes that reach behind the camera need no special case. A token belongs to the region if at least `min_share`
    of its rays hit the box in front of the camera. A smaller silhouette keeps the token that it fills most, or that
    of the projected centre if no ray hits it.

    Args:
        boxes: (cx, cy, cz, dx, dy, dz), axis aligned, full sizes, metres.
        intrinsics: Cameras of the vision input's pixels; integer coordinates are pixel centres.
        camera_to_world: Poses, OpenCV axes.
        grid: Token grid.
        min_share: Least share of a token's rays.

    Shape:
        boxes:           (N, 6) or (6,).
        intrinsics:      (V, 3, 3), pixels.
        camera_to_world: (V, 4, 4), metres.
        output:          (N, V, rows, cols), bool.

    Raises:
        ValueError: Boxes that `processing.box_rules` refuses, cameras or poses that `processing.geometry_rules` does.
    """
    check_min_share(min_share)
    check_grid(grid)
    low, high = (limit.double() for limit in box_limits(boxes))
    check_poses(camera_to_world)
    check_intrinsics(intrinsics, len(camera_to_world), grid.image_size)
    cameras, poses = (
        _as_tensor(intrinsics, "intrinsics").double(),
        _as_tensor(camera_to_world, "camera_to_world").double(),
    )
    return _keep_best(outline_shares(low, high, cameras, poses, grid), min_share)


def _count_pixels(masks: Tensor, grid: TokenGrid, name: str) -> tuple[Tensor, Tensor]:
    """Count the pixels of each token inside masks (N, V, h, w): (N, V, rows, cols), and all of them (rows, cols)."""
    height, width = masks.shape[-2:]
    if height < grid.rows or width < grid.cols:
        raise ValueError(
            f"`{name}` must be of frames of at least a pixel per token, got {height} x {width} px, coarser than the "
            f"token grid {grid.shape}. Give them in the resolution of the pictures."
        )
    index = grid.token_index((height, width)).flatten().to(masks.device)
    num_tokens = grid.rows * grid.cols
    index = torch.where(index >= 0, index, num_tokens)  # The extra cell takes the pixels that no token covers.
    size = torch.bincount(index, minlength=num_tokens + 1)[:-1].clamp(min=1).view(grid.shape)
    flat = masks.flatten(2).to(torch.int32)
    counts = torch.zeros(*flat.shape[:2], num_tokens + 1, dtype=torch.int32, device=masks.device)
    counts = counts.scatter_add_(2, index.expand(flat.shape), flat)[..., :-1]
    return counts.view(*flat.shape[:2], *grid.shape), size


def _keep_best(shares: Tensor, min_share: float) -> Tensor:
    """Keep the tokens with enough share, or the best one of a smaller region."""
    masks = shares >= min_share
    best = shares.flatten(1).max(1)
    is_small = (best.values > 0) & ~masks.flatten(1).any(1)
    kept = masks.flatten(1)
    kept[is_small, best.indices[is_small]] = True
    return kept.view(masks.shape)


def covered_share(start: Tensor, end: Tensor, cells: int, length: float) -> Tensor:
    """Return the covered share of each of `cells` equal parts of [0, length].

    Ranges [start, end] cover them.

    Args:
        start: Beginnings (...), in the unit of `length`; NaN covers nothing.
        end: Ends (...).
        cells: Number of parts.
        length: Length of all parts together.

    Returns:
        Shares (..., cells) in [0, 1], float64.
    """
    edges = torch.arange(cells + 1, dtype=torch.float64, device=start.device) * length / cells
    covered = torch.minimum(end[..., None], edges[1:]) - torch.maximum(start[..., None], edges[:-1])
    return torch.where(covered > 0, covered, 0.0) / (length / cells)


def box_limits(boxes: ArrayLike) -> tuple[Tensor, Tensor]:
    """Return the lower and upper limits (N, 3) of boxes (N, 6) or (6,), float32; ValueError for broken boxes."""
    boxes = _as_tensor(boxes, "boxes").float()
    if boxes.dim() == 1:
        boxes = boxes.unsqueeze(0)
    check_boxes(boxes, is_metric=False)  # The points may have any unit.
    half = boxes[:, 3:] / 2
    return boxes[:, :3] - half, boxes[:, :3] + half
