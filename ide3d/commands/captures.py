"""Command about what cameras, apps and data sets write: `captures`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ide3d.commands.errors import FAILED, command
from ide3d.commands.options import AsJson, speak

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    command(app, "captures", "ide3d captures scans/")(captures)


def captures(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Folder or file, or a folder of captures.", show_default=False)
    ],
    num_frames: Annotated[int, typer.Option(min=1, help="Frames of each capture to read and check.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Say which captures lie in a folder.

    Names the format of each, what it holds, and whether frames, depth, cameras and poses belong together. Looks two
    folders deep. The exit code is 1 if there is none, or if one cannot be used.
    """
    speak(is_quiet=True)
    from processing.captures import describe_capture, list_captures

    states = []
    for found in list_captures(path):
        states.append(describe_capture(found, num_frames))
        if not as_json:
            typer.echo(states[-1].as_text())
    if as_json:
        typer.echo(json.dumps([state.as_dict() for state in states], indent=1))
    if not states:
        raise ValueError(f"{path} holds no capture of a known format. Which are known, docs/captures.md says.")
    if any(state.error for state in states):
        raise typer.Exit(FAILED)
