"""The command `app`."""

from pathlib import Path
from typing import Annotated

import typer

from ide3d.commands.errors import UsageError, command
from ide3d.commands.options import GIBIBYTE, Device, MaxMemory, NumFrames, speak

__all__ = ["register"]

LOCAL = ("127.0.0.1", "localhost", "::1")


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    command(app, "app", "ide3d app --port 7860")(show_page)


def show_page(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of an export, or a name on the Hub, that the page offers; may be given several times. "
            "Default: the shipped nano model.",
        ),
    ] = None,
    any_model: Annotated[
        bool | None,
        typer.Option(
            "--any-model/--listed-models",
            help="Whether visitors may type other models. Default: on this machine alone.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 opens the page to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 7860,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in the browser of this machine.")] = False,
    num_frames: NumFrames = None,
    max_memory: MaxMemory = 4.0,
    device: Device = "auto",
    max_upload: Annotated[int, typer.Option(min=1, help="Megabytes of a video, at most.")] = 200,
    max_seconds: Annotated[float, typer.Option(min=1, help="Length of a video in seconds, at most.")] = 300,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length of an answer in tokens, at most.")] = 256,
    answer_seconds: Annotated[float, typer.Option(min=1, help="Seconds after which an answer is cut.")] = 60,
    max_users: Annotated[int, typer.Option(min=1, help="Videos that are kept open at once.")] = 8,
    max_queue: Annotated[int, typer.Option(min=1, help="Requests that wait at once.")] = 20,
    space: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write a Space of the Hub into this folder, and serve nothing."),
    ] = None,
) -> None:
    """Show a page in the browser: upload a video, ask, click, find.

    Needs `pip install ide3d[app]`, and no network.
    """
    speak()
    try:
        import gradio  # noqa: F401 (asked for before a model is loaded)
    except ImportError as error:
        raise ImportError(f"A page needs gradio ({error}). Install it: pip install ide3d[app]") from error
    if space is not None:
        from ide3d.app.space import write_space

        typer.echo(write_space(space, tuple(model or ())))
        return
    from ide3d.app.page import launch_page
    from ide3d.app.settings import PageSettings
    from ide3d.nano import nano_model

    if any(not name.strip() for name in model or ()):
        raise UsageError("--model is empty: give a folder or a name on the Hub.")
    settings = PageSettings(
        models=tuple(model or [str(nano_model())]),
        any_model=host in LOCAL if any_model is None else any_model,
        device=device,
        num_frames=num_frames,
        max_memory=int(max_memory * GIBIBYTE),
        max_upload=max_upload,
        max_seconds=max_seconds,
        max_tokens=max_new_tokens,
        answer_seconds=answer_seconds,
        max_users=max_users,
        max_queue=max_queue,
    )
    typer.echo(f"The page is at http://{host}:{port}; Ctrl-C ends it.", err=True)
    launch_page(settings, host=host, port=port, opens_browser=browser)
