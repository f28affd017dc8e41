"""Commands about procedural rooms: `rooms measure`, `rooms export`, `rooms share`, `rooms evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ide3d.commands.errors import OneLineErrors, command, show_help
from ide3d.commands.options import Device, speak

__all__ = ["register"]

Style = Annotated[Literal["plain", "loft", "furnished"], typer.Option(help="Style of the rooms.")]
Seed = Annotated[int, typer.Option(help="Family of rooms.")]
ImageSize = Annotated[int, typer.Option(min=1, help="Side of a frame in pixels.")]
NumFrames = Annotated[int, typer.Option(min=1, help="Frames of a room.")]
NumProc = Annotated[int | None, typer.Option(min=1, help="Processes that render. Default: one for each core.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands to an application."""
    group = typer.Typer(
        cls=OneLineErrors,
        help="Procedural rooms: measure, export, share, evaluate.",
        epilog="Example: ide3d rooms export outputs/benchmark_rooms",
        callback=show_help,
        invoke_without_command=True,
        rich_markup_mode=None,
    )
    command(group, "measure", "ide3d rooms measure --num-scenes 50 --style loft")(measure)
    command(group, "export", "ide3d rooms export outputs/benchmark_rooms --num-scenes 4")(export)
    command(group, "share", "ide3d rooms share outputs/rooms_for_the_hub --num-scenes 100")(share)
    command(group, "evaluate", "ide3d rooms evaluate path/to/export --num-rooms 100")(evaluate)
    app.add_typer(group, name="rooms")


def measure(
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Split of the scored rooms.")] = "test",
    num_scenes: Annotated[int, typer.Option(min=1, help="Rooms to score; as many are fitted on.")] = 200,
    style: Style = "plain",
    seed: Seed = 0,
    image_size: ImageSize = 126,
    num_frames: NumFrames = 8,
    num_proc: NumProc = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures to this file.")
    ] = None,
) -> None:
    """Measure speed and shortcuts of the rooms.

    Says how many are rendered in a second, and what predictors score that do not look. Needs nothing; rooms are
    rendered anew in a temporary folder.
    """
    speak()
    from processing.rooms.measure import measure_rooms

    shape = {"style": style, "seed": seed, "image_size": image_size, "num_frames": num_frames, "num_proc": num_proc}
    measured = measure_rooms(split, num_scenes, **shape)
    typer.echo(measured.as_text())
    if json_file is not None:
        from processing.writing import write_json

        write_json(json_file, measured.as_dict())


def export(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder to make.", show_default=False)],
    num_scenes: Annotated[int, typer.Option(min=1, help="Rooms of each split.")] = 4,
    seed: Seed = 0,
    image_size: ImageSize = 126,
    num_frames: NumFrames = 8,
) -> None:
    """Write rooms as a benchmark folder.

    It has the public layout and every kind of file that the readers know. Needs a target that is empty or new. Its
    questions are made up, so scores on it say nothing about a benchmark.
    """
    speak()
    from processing.benchmarks.export import export_rooms

    folder = export_rooms(target, num_scenes=num_scenes, seed=seed, image_size=image_size, num_frames=num_frames)
    typer.echo(f"Wrote {folder}; next: ide3d doctor {folder}")


def share(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder to make.", show_default=False)],
    num_scenes: Annotated[int, typer.Option(min=1, help="Rooms of each split.")] = 100,
    style: Style = "plain",
    seed: Seed = 0,
    image_size: ImageSize = 126,
    num_frames: NumFrames = 8,
    num_proc: NumProc = None,
    push: Annotated[
        str | None, typer.Option(metavar="REPO_ID", help="Also push it as a data set, your-name/name on the Hub.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Write rooms as a data set for the Hub.

    Parquet files of rooms and of their questions, with a dataset card; `datasets.load_dataset` reads the folder. An
    existing target is replaced only if it is an earlier one. Needs nothing but, with --push, a login that may write
    (`hf auth login`).
    """
    speak()
    from processing.rooms.sharing import export_room_dataset
    from trainer.push import check_repo_id, push_rooms

    if push is not None:
        check_repo_id(push)
    shape = {"style": style, "seed": seed, "image_size": image_size, "num_frames": num_frames, "num_proc": num_proc}
    folder = export_room_dataset(target, num_scenes=num_scenes, **shape, repo_id=push)
    typer.echo(f"Wrote {folder}")
    if push is not None:
        typer.echo(push_rooms(folder, push, private))


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder of an export, or its name on the Hub.", show_default=False)
    ],
    split: Annotated[Literal["validation", "test"], typer.Option(help="Split of the rooms.")] = "test",
    style: Style = "plain",
    num_rooms: Annotated[int, typer.Option(min=1, help="Rooms that are asked about.")] = 500,
    num_baseline_rooms: Annotated[int, typer.Option(min=1, help="Training rooms behind the baselines.")] = 1000,
    reference: Annotated[
        Literal["word", "region"] | None, typer.Option(help="Only questions that name objects, or that point.")
    ] = None,
    device: Device = "auto",
    output: Annotated[Path | None, typer.Option(help="File for the table and all answers, JSON.")] = None,
) -> None:
    """Ask a model about rooms, and tabulate.

    Beside its answers stand those that words and image height alone would give. Needs a model only; rooms are rendered
    at its image size. Writes a Markdown table to stdout.
    """
    speak()
    from trainer.evaluation.rooms import evaluate_rooms, format_room_table

    settings = {"split": split, "style": style, "num_rooms": num_rooms, "num_baseline_rooms": num_baseline_rooms}
    result = evaluate_rooms(model, **settings, reference=reference, device=device)
    typer.echo(f"{result['num_rooms']} rooms of {split}:\n{format_room_table(result['table'])}")
    if output is not None:
        from processing.writing import write_json

        write_json(output, result)
