"""The command `serve`."""

from pathlib import Path
from typing import Annotated

import typer

from ide3d.commands.errors import command
from ide3d.commands.options import GIBIBYTE, Device, NumFrames, speak

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    command(app, "serve", "ide3d serve exports/my-model --port 8000")(serve)


def serve(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Folder of an export, or a name on the Hub. Default: the shipped nano model.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 opens the server to the network.")
    ] = "localhost",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8000,
    num_frames: NumFrames = None,
    max_memory: Annotated[
        float, typer.Option(min=0.001, help="Gigabytes of scenes that are kept for further questions.")
    ] = 4.0,
    max_upload: Annotated[
        float, typer.Option(min=0.001, help="Gigabytes of all pictures and videos of a request.")
    ] = 0.25,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host that URLs may name, wherever it lies; may be given several times. Default: public ones."
        ),
    ] = None,
    allow_folder: Annotated[
        Path | None, typer.Option(help="Folder whose files URLs such as file:///FOLDER/room.mp4 may name.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Answer clients of OpenAI's interface about videos and pictures.

    Needs `pip install ide3d[serve]`. The model answers at http://HOST:PORT/v1/chat/completions. Videos and pictures
    come by URL, as base64 or as `file`. By default no local file and no private address is read.
    """
    speak()
    try:
        import uvicorn

        from ide3d.serving.media import MediaRules
        from ide3d.serving.server import build_server
    except ImportError as error:
        raise ImportError(f"A server needs more packages ({error}). Install them: pip install ide3d[serve]") from error
    from ide3d.nano import nano_model
    from trainer.session import load_inference_model

    name = str(nano_model() if model is None else model)
    rules = MediaRules(frozenset(allow_host or ()), allow_folder, int(max_upload * GIBIBYTE))
    loaded, processor = load_inference_model(name, device=device)
    memory = int(max_memory * GIBIBYTE)
    app = build_server(name, loaded, processor, rules=rules, num_frames=num_frames, max_memory=memory)
    typer.echo(f"Model: {name}", err=True)
    uvicorn.run(app, host=host, port=port, log_level="info")
