"""`save_drawing`: one picture, page or 3D file, chosen by the ending of its name."""

import io
import os
import reprlib
from pathlib import Path
from typing import Any

from processing.argument_rules import path_text
from processing.writing import whole_file, write_bytes, write_text
from trainer.drawing.drawing import Drawing

__all__ = ["ENDINGS", "check_target", "save_drawing"]

ENDINGS = {
    ".html": "a page with frames and a 3D view",
    ".png": "frames",
    ".ply": "boxes, cameras and points, by trimesh",
    ".glb": "boxes, cameras and points, by trimesh",
    ".rrd": "a recording for rerun",
}


def check_target(path: str | os.PathLike) -> Path:
    """Return the path of a file that `save_drawing` can write here.

    Raises:
        ImportError: If the package that writes this ending is not installed.
        TypeError: If `path` is no path.
        ValueError: If no file can be called so, or its ending is none of `.html`, `.png`, `.ply`, `.glb` and `.rrd`.
    """
    target = Path(path_text(path, "path"))
    ending = target.suffix.lower()
    if ending not in ENDINGS:
        known = ", ".join(f"{name} ({what})" for name, what in ENDINGS.items())
        raise ValueError(f"The name of a drawing's file must end with one of {known}; got path {str(path)!r}.")
    if ending in (".ply", ".glb"):
        from trainer.drawing.meshes import check_mesh_writer

        check_mesh_writer()
    elif ending == ".rrd":
        from trainer.drawing.recordings import check_recorder

        check_recorder()
    return target


def save_drawing(drawing: Drawing, path: str | os.PathLike) -> Path:
    """Write a drawing in the format of the file's ending, whole or not at all.

    `.html` is one page that needs no network, `.png` a sheet of frames. `.ply` and `.glb` hold boxes, cameras and
    points in metres, and need trimesh (extra `drawing`). `.rrd` is a recording for rerun (extra `rerun`).

    Args:
        drawing: Frames, marks and what is known in 3D.
        path: File to write; an existing one is replaced.

    Returns:
        The path.

    Raises:
        ImportError: If the package that writes this ending is not installed.
        OSError: If the file cannot be written.
        TypeError: If an argument is of another type.
        ValueError: If the ending is unknown, or a 3D file is asked for where nothing has a place in 3D, or frames
            have no common space.
    """
    if not isinstance(drawing, Drawing):
        raise TypeError(f"`drawing` must be a Drawing, got {_name_kind(drawing)}.")
    target = check_target(path)
    ending = target.suffix.lower()
    if ending == ".html":
        from trainer.drawing.pages import render_page

        write_text(target, render_page(drawing))
    elif ending == ".png":
        from trainer.drawing.frames import draw_sheet

        buffer = io.BytesIO()
        draw_sheet(drawing).save(buffer, "PNG", optimize=True)
        write_bytes(target, buffer.getvalue())
    elif ending == ".rrd":
        from trainer.drawing.recordings import record

        with whole_file(target) as unfinished:
            record(drawing, unfinished)
    else:
        from trainer.drawing.meshes import mesh_bytes

        write_bytes(target, mesh_bytes(drawing, ending[1:]))
    return target


def _name_kind(value: Any) -> str:
    return f"{type(value).__name__} {reprlib.repr(value)}"
