"""Pixels of a room along a camera path: colour, z-depth, instance ids."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from processing.rooms.render.raycast import View, cast_loose
from processing.rooms.render.shading import Shader, to_srgb
from processing.rooms.scene.layout import Room
from processing.rooms.scene.primitives import PrimitiveTable

__all__ = ["RAYS", "Rendering", "neighbours", "pinhole_view", "primitive_table", "render", "render_frame"]

# Rotated grid: every one of four rays has its own row and column inside the pixel.
RAYS = np.array([[-0.125, -0.375], [0.375, -0.125], [-0.375, 0.125], [0.125, 0.375]])
_CONTRAST = 14.0  # sRGB steps between neighbours above which a pixel is worth four rays
CastFine = Callable[[View, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass
class Rendering:
    """Pixels that a camera path sees.

    Shape:
        frames (V, h, w, 3) uint8; depth (V, h, w) float32 metres; instance_ids (V, h, w) uint8, 0 = structure.
    """

    frames: np.ndarray
    depth: np.ndarray
    instance_ids: np.ndarray


def primitive_table(room: Room) -> PrimitiveTable:
    """Collect all solids of a room in one table."""
    shell = room.shell
    solids = [(0, part) for part in (*shell.parts, *room.extras)]
    solids += [(thing.id, part) for thing in room.objects for part in thing.parts]
    return PrimitiveTable((0, 0, shell.height / 2), (shell.width / 2, shell.depth / 2, shell.height / 2), solids)


def pinhole_view(pose: np.ndarray, intrinsics: np.ndarray, size: int) -> View:
    """Build the camera of a square frame from camera_to_world (4, 4) and intrinsics (3, 3)."""
    at = np.arange(size)
    tan_x, tan_y = (at - intrinsics[0, 2]) / intrinsics[0, 0], (at - intrinsics[1, 2]) / intrinsics[1, 1]
    return View(pose[:3, :3], pose[:3, 3], tan_x, tan_y)


def _world(view: View, tan_x, tan_y, depth) -> np.ndarray:
    """Return the world points (3, n) float32 of rays with given tangents and depths (n,)."""
    local = np.stack([tan_x * depth, tan_y * depth, depth]).astype(np.float32)
    return view.rotation.astype(np.float32) @ local + view.position.astype(np.float32)[:, None]


def render(room: Room, table: PrimitiveTable, views: list[View], depth: np.ndarray, winner: np.ndarray) -> Rendering:
    """Shade the first hits of views, with four rays a pixel wherever neighbours differ."""
    size = depth.shape[-1]
    shader = Shader(room, table, shadow_size=int(np.clip(size * 1.8, 96, 256)))

    def cast_fine(view: View, winner: np.ndarray, at: np.ndarray, tan: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return cast_loose(view, table, tan, neighbours(winner, at))

    frames = [render_frame(shader, cast_fine, view, d, w) for view, d, w in zip(views, depth, winner, strict=True)]
    return Rendering(np.stack(frames), depth, table.object_id[winner])


def render_frame(shader: Shader, cast_fine: CastFine, view: View, depth: np.ndarray, winner: np.ndarray) -> np.ndarray:
    """Shade the first hits of a view (h, w), with four rays a pixel wherever neighbours differ.

    Args:
        shader: Shader of the room.
        cast_fine: Function of the view, winners (h, w), flat pixels (n,) and tangents (2, n, 4) that casts these rays
            and returns their depth and winner, (n, 4).
        view: Camera.
        depth: z-depth (h, w), metres.
        winner: Rows of the table that are hit, (h, w).
    """
    h, w = depth.shape
    tan_y, tan_x = np.meshgrid(view.tan_y, view.tan_x, indexing="ij")
    pixel, tall = float(view.tan_x[1] - view.tan_x[0]), float(view.tan_y[1] - view.tan_y[0])
    eye = view.position.astype(np.float32)
    points = _world(view, tan_x.ravel(), tan_y.ravel(), depth.ravel())
    colour, face = shader.shade(winner.ravel(), points, eye, depth.ravel() * pixel)
    srgb = np.ascontiguousarray(to_srgb(colour).T).reshape(h, w, 3)
    rough = _needs_more_rays(srgb, shader.edge_keys(winner.ravel(), face).reshape(h, w))
    at = np.flatnonzero(rough)
    if not len(at):
        return srgb
    tan = np.stack([tan_x.ravel()[at][:, None] + RAYS[:, 0] * pixel, tan_y.ravel()[at][:, None] + RAYS[:, 1] * tall])
    fine_depth, fine_winner = cast_fine(view, winner, at, tan)
    points = _world(view, tan[0].ravel(), tan[1].ravel(), fine_depth.ravel())
    fine, _ = shader.shade(fine_winner.ravel(), points, eye, fine_depth.ravel() * (pixel * 0.5))
    result = srgb.reshape(-1, 3)
    result[at] = ((to_srgb(fine).reshape(3, len(at), 4).astype(np.uint16).sum(axis=2) + 2) // 4).T
    return result.reshape(h, w, 3)


def _needs_more_rays(srgb: np.ndarray, key: np.ndarray) -> np.ndarray:
    grey = srgb @ np.array([0.3, 0.55, 0.15], np.float32)
    rough = np.zeros(key.shape, bool)
    across = (key[:, 1:] != key[:, :-1]) | (np.abs(grey[:, 1:] - grey[:, :-1]) > _CONTRAST)
    down = (key[1:] != key[:-1]) | (np.abs(grey[1:] - grey[:-1]) > _CONTRAST)
    rough[:, 1:] |= across
    rough[:, :-1] |= across
    rough[1:] |= down
    rough[:-1] |= down
    return rough


def neighbours(winner: np.ndarray, at: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Mark, for every solid, the pixels `at` that see it in or next to themselves."""
    padded = np.pad(winner.astype(np.int64), 1, mode="edge")
    h, w = winner.shape
    row, column = at // w + 1, at % w + 1
    own, number = winner.ravel()[at], np.arange(len(at))
    keys = [own.astype(np.int64) * len(at) + number]
    for i, j in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        other = padded[row + i, column + j]
        differs = other != own
        keys.append(other[differs] * len(at) + number[differs])
    keys = np.sort(np.concatenate(keys))
    keys = keys[np.diff(keys, prepend=-1) > 0]
    solid, pixel = keys // len(at), keys % len(at)
    starts = np.flatnonzero(np.diff(solid, prepend=-1))
    return [(int(solid[a]), pixel[a:b]) for a, b in zip(starts, [*starts[1:], len(solid)], strict=True)]
