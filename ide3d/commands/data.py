"""Commands that say what data on disk can be used: `doctor`, `captures`."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from ide3d.commands.errors import FAILED, UsageError, command
from ide3d.commands.options import AsJson, Mode, Task, speak

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(app, "doctor", "ide3d doctor data --task scanrefer")(doctor)
    command(app, "captures", "ide3d captures scans/")(captures)


def doctor(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA",
            help="Folder in the public layout, of one scan, or of stored features and geometry; or files of chats.",
            show_default=False,
        ),
    ],
    task: Annotated[Task | None, typer.Option(help="Only this benchmark. Default: all that have files.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the benchmark, with --task. Default: the one that papers report.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Part that you do without, such as depth; may be given several times.")
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="Mode of the evaluation. Default: that of each task, see `ide3d evaluate`.")
    ] = None,
    media: Annotated[
        Path | None,
        typer.Option(help="Folder of the videos and pictures of chats. Default: for each file its own folder."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what of a benchmark, scan, store or chats can be used.

    It also says how to mend the rest. A store is what `teachers` and `geometry` write. Needs the folder or the files
    only; nothing is changed. Exits with 1 if what was asked for cannot be used.
    """
    speak()
    from processing.chats.files import SUFFIXES

    if any(path.suffix.lower() in SUFFIXES and not path.is_dir() for path in data):
        if task or split or without or mode:
            raise UsageError(
                "--task, --split, --without and --mode are of benchmarks; files of chats have none of them."
            )
        _examine_chats(data, media, as_json)
        return
    if len(data) > 1 or media is not None:
        wrong = "--media takes" if len(data) == 1 else "several paths take"
        raise UsageError(f"{wrong} files of chats, which end with {', '.join(SUFFIXES)}; got {data[0]}.")
    from processing.benchmarks import TASKS
    from processing.benchmarks.doctor import examine
    from processing.benchmarks.doctor.examination import PARTS

    if split and not task:
        raise UsageError("--split needs --task.")
    if _is_store(data[0]):
        if task or without or mode:
            raise UsageError(
                f"{data[0]} is a store of features or geometry, which has no --task, no --without and no --mode."
            )
        _examine_store(data[0], as_json)
        return
    if unknown := sorted(set(without or ()) - set(PARTS)):
        raise UsageError(f"--without takes {', '.join(PARTS)}, got {', '.join(unknown)}.")
    tasks, splits = None, None
    if task:
        chosen = split or TASKS[task].eval_split
        if chosen not in TASKS[task].splits:
            raise UsageError(f"{task} has the splits {', '.join(TASKS[task].splits)}, got {chosen!r}.")
        tasks, splits = [task], [chosen]
    diagnosis = examine(data[0], tasks=tasks, splits=splits, without=without or (), mode=mode)
    typer.echo(json.dumps(diagnosis.as_dict(), indent=1) if as_json else diagnosis.as_text())
    if not diagnosis.can_run(task, split):
        raise typer.Exit(FAILED)


def _examine_chats(files: list[Path], media: Path | None, as_json: bool) -> None:
    from processing.chats import examine_chats

    diagnosis = examine_chats([str(file) for file in files], media)
    typer.echo(json.dumps(diagnosis.as_dict(), indent=1) if as_json else diagnosis.as_text())
    if not diagnosis.can_train():
        raise typer.Exit(FAILED)


def _is_store(folder: Path) -> bool:
    """Whether a folder is a store. Benchmarks are told from it without loading what trains."""
    if not os.path.isdir(folder):
        return False
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*/*.safetensors")):
        return False
    from trainer.teachers.inspection import is_store

    return is_store(folder)


def _examine_store(folder: Path, as_json: bool) -> None:
    from trainer.teachers import examine_store

    diagnosis = examine_store(folder)
    typer.echo(json.dumps(diagnosis.as_dict(), indent=1) if as_json else diagnosis.as_text())
    if not diagnosis.can_run():
        raise typer.Exit(FAILED)


def captures(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Folder or file, or a folder of captures.", show_default=False)
    ],
    num_frames: Annotated[int, typer.Option(min=1, help="Frames of each capture to read and check.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Say which captures lie in a folder.

    Names the format of each, what it holds, and whether frames, depth, cameras and poses belong together. Looks two
    folders deep. Needs the path only; nothing is changed. Exits with 1 if there is none, or if one cannot be used.
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
