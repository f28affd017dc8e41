"""Commands about one video: `ask`, `find`, `describe`."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ide3d.commands.errors import UsageError, command
from ide3d.commands.options import (
    GIBIBYTE,
    REGION_FORMATS,
    AsJson,
    DepthFrom,
    Device,
    FieldOfView,
    MaxMemory,
    Model,
    Numbers,
    NumFrames,
    OptionalRegionFile,
    RegionFile,
    Save,
    Video,
    speak,
)

if TYPE_CHECKING:
    from trainer.session import SaidBoxes, VideoScene

__all__ = ["register"]

# The words that the shipped nano model was taught: it finds 81 of 106 objects by them, 74 by those of ScanRefer.
NANO_REQUEST = "Find {description}."
NO_ANSWER = "no answer that can be parsed; was this model taught boxes in words?"


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
    boxes: Annotated[
        bool, typer.Option("--boxes", help="Ask for 3D boxes in words, of a model that was taught them.")
    ] = False,
    numbers: Annotated[
        Numbers | None,
        typer.Option(
            help="How that model writes the measures of boxes. Default: tokens where it has them, else digits."
        ),
    ] = None,
    model: Model = None,
    template: Annotated[
        str | None,
        typer.Option(help="Request with {description} in it. Default: that of ScanRefer; of the nano model its own."),
    ] = None,
    num_frames: NumFrames = None,
    max_memory: MaxMemory = 4.0,
    device: Device = "auto",
    save: Save = None,
    depth_from: DepthFrom = None,
    field_of_view: FieldOfView = 60.0,
    as_json: AsJson = False,
) -> None:
    """Find described objects in a video.

    Needs plain RGB video: the model proposes regions itself, unless a file names the candidates. Each line of stdout
    names a description, the region that fits it best, its score and the frames that show it; then other regions that
    fit. It says "no such object" where that fits better than every region.
    With --boxes each line is a 3D box instead: the frame that shows the object, and centre and size in metres.
    With --save the regions or boxes found are drawn.
    """
    if boxes and regions is not None:
        raise UsageError("--boxes are said in words, without regions: leave out --regions.")
    _check_drawing(save, depth_from)
    if template is not None and "{description}" not in template:
        raise UsageError(f"--template must hold {{description}}, got {template!r}.")
    scene = _open(video, model, num_frames, device, max_memory)
    if boxes:
        words = {} if template is None else {"template": template}
        said = scene.boxes(descriptions, numbers=numbers, **words)
        _tell_boxes(scene, said, as_json)
        if save is not None:
            from trainer.drawing import draw_boxes, save_drawing

            known = _see_cameras(scene, depth_from, field_of_view)
            save_drawing(draw_boxes(scene, said, title=f"Located in {video}", **known), save)
        return
    if template is None and model is None:
        template = NANO_REQUEST
    words = {} if template is None else {"template": template}
    candidates = None if regions is None else scene.read_regions(regions)
    found = scene.find(descriptions, candidates, **words)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(entry) for entry in found], indent=1))
    else:
        for entry in found:
            where = "" if entry.name is None else f", frames {', '.join(map(str, entry.frames))}"
            others = f"; also {', '.join(entry.others)}" if entry.others else ""
            typer.echo(
                f"{entry.description}: {entry.name or 'no such object'}, score {entry.score:.3f}{where}{others}"
            )
    if save is not None:
        from trainer.drawing import draw_found, save_drawing

        known = _see_depth(scene, depth_from, field_of_view)
        save_drawing(draw_found(scene, found, candidates, title=f"Found in {video}", **known), save)


def _tell_boxes(scene: "VideoScene", said: Sequence["SaidBoxes"], as_json: bool) -> None:
    """Write boxes in words to stdout, their frames counted in the video."""
    if as_json:
        rows = [dataclasses.asdict(entry) for entry in said]
        for box in (box for row in rows for box in row["boxes"] or ()):
            box["frame"] = scene.frame_indices[box["frame"]]
        typer.echo(json.dumps(rows, indent=1))
        return
    for entry in said:
        if not entry.boxes:
            typer.echo(f"{entry.description}: {'no such object' if entry.problem is None else NO_ANSWER}")
        for box in entry.boxes or ():
            center, size = (" ".join(f"{number:.2f}" for number in part) for part in (box.center, box.size))
            typer.echo(
                f"{entry.description}: frame {scene.frame_indices[box.frame]}, centre {center} m, size {size} m, "
                f"yaw {math.degrees(box.yaw):.0f} degrees"
            )


def describe(
    video: Video,
    regions: RegionFile,
    model: Model = None,
    num_frames: NumFrames = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length of a description in tokens, at most.")] = 128,
    max_memory: MaxMemory = 4.0,
    device: Device = "auto",
    save: Save = None,
    depth_from: DepthFrom = None,
    field_of_view: FieldOfView = 60.0,
    as_json: AsJson = False,
) -> None:
    """Describe regions of a video in words.

    Needs a file of regions, and a model that was taught descriptions; the shipped nano model was not. Each line of
    stdout names a region and describes it. With --save the regions are drawn.
    """
    _check_drawing(save, depth_from)
    scene = _open(video, model, num_frames, device, max_memory)
    marked = scene.read_regions(regions)
    described = scene.describe(marked, max_new_tokens=max_new_tokens)
    if as_json:
        typer.echo(json.dumps(described, indent=1))
    else:
        for name, text in described.items():
            typer.echo(f"{name}: {text}")
    if save is not None:
        from trainer.drawing import draw_described, save_drawing

        known = _see_depth(scene, depth_from, field_of_view)
        save_drawing(draw_described(scene, described, marked, title=f"Described in {video}", **known), save)


def _check_drawing(save: Path | None, depth_from: Path | None) -> None:
    """Refuse what cannot be drawn before a model is loaded."""
    if save is None:
        if depth_from is not None:
            raise UsageError("--depth-from draws points: name the file by --save.")
        return
    if depth_from is None and save.suffix.lower() in (".ply", ".glb"):
        raise UsageError(
            f"--save {save} asks for 3D, and regions have no place in it. Name a checkpoint by --depth-from, or save "
            "as .html or .png."
        )
    from trainer.drawing.saving import check_target

    check_target(save)


def _see_depth(scene: "VideoScene", depth_from: Path | None, field_of_view: float) -> dict[str, Any]:
    """Return cameras and points for a drawing, where a checkpoint with a validator is named."""
    return {} if depth_from is None else _see_cameras(scene, depth_from, field_of_view)


def _see_cameras(scene: "VideoScene", depth_from: Path | None, field_of_view: float) -> dict[str, Any]:
    """Return guessed cameras for a drawing, and points where a checkpoint is named."""
    from trainer.drawing import Cameras, predict_points
    from trainer.drawing.depth import guess_intrinsics

    intrinsics = guess_intrinsics(scene.frames.shape[1:3], field_of_view)
    points = None if depth_from is None else predict_points(depth_from, scene.frames, intrinsics)
    return {"cameras": Cameras(intrinsics), "points": points}
