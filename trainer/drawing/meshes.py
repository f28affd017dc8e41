"""PLY and GLB files of a drawing's boxes, cameras and points, by trimesh."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from trainer.drawing.drawing import Drawing
from trainer.drawing.spaces import Space, list_spaces, mark_colour

if TYPE_CHECKING:
    import trimesh

__all__ = ["check_mesh_writer", "mesh_bytes", "only_space"]

BEAM, THIN_BEAM = 0.012, 0.004  # metres, radius of a box's edge and of a camera's
CAMERA_COLOUR, PATH_COLOUR = (120, 128, 145), (29, 36, 51)


def check_mesh_writer() -> None:
    """Raise ImportError unless trimesh is installed."""
    try:
        import trimesh  # noqa: F401
    except ImportError as error:
        raise ImportError('.ply and .glb files need trimesh: pip install "ide3d[drawing]".') from error


def only_space(drawing: Drawing, ending: str) -> Space:
    """Return the one space of a drawing.

    Raises:
        ValueError: If nothing of the drawing has a place in 3D, or its frames have no common space.
    """
    spaces = list_spaces(drawing)
    if not spaces:
        raise ValueError(
            f"A {ending} file holds boxes, poses or points, and this drawing has none. Save its frames as .html or "
            ".png."
        )
    if len(spaces) > 1:
        names = ", ".join(drawing.frame_names[space.frame] for space in spaces[:8])
        raise ValueError(
            f"A {ending} file has one frame of coordinates, but without `camera_to_world` those of frames {names} "
            "have nothing in common. Give poses, keep one frame, or save as .html or .rrd."
        )
    return spaces[0]


def mesh_bytes(drawing: Drawing, kind: Literal["ply", "glb"]) -> bytes:
    """Return the bytes of a PLY or GLB file.

    A PLY file has the axes of the drawing: the world's with poses, else those of the one camera (OpenCV). A GLB file
    holds the same numbers below a node that turns "up" to +y, as glTF asks.

    Raises:
        ImportError: If trimesh is not installed.
        ValueError: If nothing has a place in 3D, or frames have no common space.
    """
    check_mesh_writer()
    import trimesh

    space = only_space(drawing, f".{kind}")
    solids = _list_solids(space)
    if kind == "glb":
        scene = trimesh.Scene(base_frame="world")
        turn = _turn_up(space.up)
        for name, solid in solids:
            scene.add_geometry(solid, node_name=name, geom_name=name, transform=turn)
        if len(space.positions):
            cloud = trimesh.PointCloud(space.positions, colors=_with_alpha(space.colours))
            scene.add_geometry(cloud, node_name="points", geom_name="points", transform=turn)
        return scene.export(file_type="glb")
    vertices, colours, faces = [space.positions], [_with_alpha(space.colours)], []
    start = len(space.positions)
    for _, solid in solids:
        vertices.append(solid.vertices)
        colours.append(solid.visual.vertex_colors)
        faces.append(solid.faces + start)
        start += len(solid.vertices)
    if not faces:
        return trimesh.PointCloud(space.positions, colors=_with_alpha(space.colours)).export(file_type="ply")
    mesh = trimesh.Trimesh(np.concatenate(vertices), np.concatenate(faces), process=False)
    mesh.visual.vertex_colors = np.concatenate(colours)
    return mesh.export(file_type="ply")


def _list_solids(space: Space) -> list[tuple[str, "trimesh.Trimesh"]]:
    """Return boxes, cameras and their path as beams, with names that differ."""
    solids = [
        (f"{box.number + 1} {box.label}", _beams(box.edges, BEAM, mark_colour(box.number))) for box in space.boxes
    ]
    solids += [(f"camera {view.frame}", _beams(view.lines, THIN_BEAM, CAMERA_COLOUR)) for view in space.cameras]
    centres = np.array([camera.pose[:3, 3] for camera in space.cameras]).reshape(-1, 3)
    path = np.stack([centres[:-1], centres[1:]], axis=1) if len(centres) > 1 else np.zeros((0, 2, 3))
    path = path[np.linalg.norm(path[:, 1] - path[:, 0], axis=1) > 1e-6]
    return solids + ([("camera path", _beams(path, THIN_BEAM, PATH_COLOUR))] if len(path) else [])


def _beams(lines: np.ndarray, radius: float, colour: tuple[int, int, int]) -> "trimesh.Trimesh":
    """Return a solid along lines (N, 2, 3); every viewer shows it, which is not so for lines."""
    import trimesh

    long = lines[np.linalg.norm(lines[:, 1] - lines[:, 0], axis=1) > 1e-6]
    solid = trimesh.util.concatenate([trimesh.creation.cylinder(radius, segment=line, sections=6) for line in long])
    solid.visual = trimesh.visual.ColorVisuals(solid, vertex_colors=np.tile([*colour, 255], (len(solid.vertices), 1)))
    return solid


def _with_alpha(colours: np.ndarray) -> np.ndarray:
    return np.concatenate([colours, np.full((len(colours), 1), 255, np.uint8)], axis=1)


def _turn_up(up: np.ndarray) -> np.ndarray:
    """Return the rotation (4, 4) that brings `up` to +y."""
    side = np.cross(up, np.eye(3)[int(np.abs(up).argmin())])
    side /= np.linalg.norm(side)
    turn = np.eye(4)
    turn[:3, :3] = np.stack([side, up, np.cross(side, up)])
    return turn
