"""Commands about one video: `ask`, `find`, `describe`."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from ide3d.commands.errors import UsageError, command
from ide3d.commands.options import (
    GIBIBYTE,
    REGION_FORMATS,
    AsJson,
    Device,
    MaxMemory,
    Model,
    NumFrames,
    OptionalRegionFile,
    RegionFile,
    Video,
    speak,
)

if TYPE_CHECKING:
    from trainer.session import VideoScene

__all__ = ["register"]

# The words that the shipped nano model was taught: it finds 81 of 106 objects by them, 74 by those of ScanRefer.
NANO_REQUEST = "Find {description}."


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(app, "ask", 'ide3d ask room.mp4 "Is there a red chair?" "How many chairs are in the room?"')(ask)
    example = 'ide3d find room.mp4 "the chair beside the bed"'
    command(app, "find", example, notes=REGION_FORMATS)(find)
    command(app, "describe", "ide3d describe room.mp4 --regions boxes.json", notes=REGION_FORMATS)(describe)


def _open(video: str, model: str | None, num_frames: int | None, device: str, max_memory: float) -> "VideoScene":
    speak(is_quiet=True)
    from ide3d.nano import nano_model
    from trainer.session import open_video

    settings = {"num_frames": num_frames, "device": device, "max_memory": int(max_memory * GIBIBYTE)}
    return open_video(nano_model() if model is None else model, video, **settings)


def ask(
    video: Video,
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION", help="Question in words.", show_default=False)],
    model: Model = None,
    num_frames: NumFrames = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length of an answer in tokens, at most.")] = 256,
    max_memory: MaxMemory = 4.0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Answer questions about a video.

    Needs plain RGB video, and no GPU, depth or poses. Each answer is a line of stdout, in the order of the questions.
    """
    scene = _open(video, model, num_frames, device, max_memory)
    answers = scene.ask(questions, max_new_tokens=max_new_tokens)
    if as_json:
        rows = [{"question": asked, "answer": text} for asked, text in zip(questions, answers, strict=True)]
        typer.echo(json.dumps(rows, indent=1))
        return
    for text in answers:
        typer.echo(text)


def find(
    video: Video,
    descriptions: Annotated[
        list[str],
        typer.Argument(metavar="DESCRIPTION", help='What to find, such as "the red chair".', show_default=False),
    ],
    regions: OptionalRegionFile = None,
    model: Model = None,
    template: Annotated[
        str | None,
        typer.Option(help="Request with {description} in it. Default: that of ScanRefer; of the nano model its own."),
    ] = None,
    num_frames: NumFrames = None,
    max_memory: MaxMemory = 4.0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Find described objects in a video.

    Needs plain RGB video: the model proposes regions itself, unless a file names the candidates. Each line of stdout
    names a description, the region that fits it best, its score and the frames that show it; then other regions that
    fit. It says "no such object" where that fits better than every region.
    """
    if template is not None and "{description}" not in template:
        raise UsageError(f"--template must hold {{description}}, got {template!r}.")
    scene = _open(video, model, num_frames, device, max_memory)
    if template is None and model is None:
        template = NANO_REQUEST
    words = {} if template is None else {"template": template}
    found = scene.find(descriptions, None if regions is None else scene.read_regions(regions), **words)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(entry) for entry in found], indent=1))
        return
    for entry in found:
        where = "" if entry.name is None else f", frames {', '.join(map(str, entry.frames))}"
        others = f"; also {', '.join(entry.others)}" if entry.others else ""
        typer.echo(f"{entry.description}: {entry.name or 'no such object'}, score {entry.score:.3f}{where}{others}")


def describe(
    video: Video,
    regions: RegionFile,
    model: Model = None,
    num_frames: NumFrames = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length of a description in tokens, at most.")] = 128,
    max_memory: MaxMemory = 4.0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Describe regions of a video in words.

    Needs a file of regions, and a model that was taught descriptions; the shipped nano model was not. Each line of
    stdout names a region and describes it.
    """
    scene = _open(video, model, num_frames, device, max_memory)
    described = scene.describe(scene.read_regions(regions), max_new_tokens=max_new_tokens)
    if as_json:
        typer.echo(json.dumps(described, indent=1))
        return
    for name, text in described.items():
        typer.echo(f"{name}: {text}")
