"""The command `ide3d`; `python -m ide3d` starts it where a launcher wants a module."""

from collections.abc import Sequence
from importlib.metadata import version

import typer

from ide3d.commands import benchmarks, checkpoints, data, environment, page, rooms, scenes, serving, training
from ide3d.commands.errors import OneLineErrors, show_help

__all__ = ["app", "main"]

HELP = """3D-IDE: a model that answers questions about a room from plain video, and how it is trained and measured.

Exit codes: 0 for success, 1 if the task failed or its data cannot be used, 2 for wrong usage, 130 if interrupted.
Errors are one line on stderr; `ide3d --debug COMMAND` shows where they come from.
"""
COMMANDS = (scenes, page, serving, training, benchmarks, checkpoints, data, environment)

app = typer.Typer(
    name="ide3d",
    cls=OneLineErrors,
    help=HELP,
    epilog='Example: ide3d ask room.mp4 "Is there a red chair?"',
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"ide3d {version('ide3d')}")
        raise typer.Exit()


@app.callback()
def options(
    ctx: typer.Context,
    debug: bool = typer.Option(False, "--debug", help="Show the whole stack of an error."),
    show_version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_show_version, help="Show the version."
    ),
) -> None:
    """Take the options that stand before the name of a command."""
    del debug, show_version  # read from the context where an error is told
    show_help(ctx)


for _module in COMMANDS:
    _module.register(app)
rooms.register(app)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code.

    Args:
        words: Command-line words; default: those of the process.
    """
    app(args=None if words is None else list(words), prog_name="ide3d")


if __name__ == "__main__":
    main()
