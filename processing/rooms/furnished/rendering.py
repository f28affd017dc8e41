"""Tables, casts and pictures of rooms, with meshes or without."""

import numpy as np

from processing.rooms.furnished.shading import FurnishedShader, FurnishedTable
from processing.rooms.render.images import RAYS, Rendering, neighbours, primitive_table, render, render_frame
from processing.rooms.render.raycast import View, cast_loose, cast_view
from processing.rooms.scene.layout import Room
from processing.rooms.scene.primitives import PrimitiveTable

__all__ = ["cast_room", "render_room", "room_table"]


def room_table(room: Room, engine: str | None = None) -> PrimitiveTable:
    """Collect all solids and meshes of a room in one table.

    Args:
        room: Room.
        engine: Caster of triangles, "embree" or "zbuffer". Default: Embree where `embreex` is installed.
    """
    meshes = [(thing.id, thing.mesh) for thing in room.objects if thing.mesh]
    if not meshes:
        return primitive_table(room)
    solids = [(0, part) for part in (*room.shell.parts, *room.extras)]
    solids += [(thing.id, part) for thing in room.objects for part in thing.parts]
    shell = room.shell
    half = (shell.width / 2, shell.depth / 2, shell.height / 2)
    return FurnishedTable((0, 0, shell.height / 2), half, solids, meshes, engine)


def cast_room(view: View, table: PrimitiveTable) -> tuple[np.ndarray, np.ndarray]:
    """Cast all pixels: z-depth (h, w) float32, metres, and row of the table (h, w)."""
    return table.cast(view) if isinstance(table, FurnishedTable) else cast_view(view, table)


def render_room(
    room: Room, table: PrimitiveTable, views: list[View], depth: np.ndarray, winner: np.ndarray
) -> Rendering:
    """Shade the first hits of views, with four rays a pixel wherever neighbours differ."""
    if not isinstance(table, FurnishedTable):
        return render(room, table, views, depth, winner)
    shader = FurnishedShader(room, table, shadow_size=int(np.clip(depth.shape[-1] * 1.8, 96, 256)))

    def cast_fine(view: View, winner: np.ndarray, at: np.ndarray, tan: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        solid = [(row, pixels) for row, pixels in neighbours(winner, at) if row < len(table)]
        near, first = cast_loose(view, table, tan, solid)
        pixel = np.array([view.tan_x[1] - view.tan_x[0], view.tan_y[1] - view.tan_y[0]])
        other, triangle = table.caster.cast_shifted(view, RAYS * pixel, at)
        return table.nearer(near, first, other.T, triangle.T)

    frames = [render_frame(shader, cast_fine, view, d, w) for view, d, w in zip(views, depth, winner, strict=True)]
    return Rendering(np.stack(frames), depth, table.object_id[winner])
