"""Errors of a command: one line, and an exit code."""

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from trainer.processes import count_launched, leave_processes, refuse_several

__all__ = ["FAILED", "INTERRUPTED", "WRONG_USAGE", "OneLineErrors", "UsageError", "command", "show_help"]

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
# Typer carries its own copy of click since 0.25; this is the class of whichever it uses.
UsageError = typer.BadParameter.__base__
TOLD = (OSError, ValueError, ImportError)  # errors whose message is written for the person who typed the command


class OneLineErrors(TyperGroup):
    """Group of commands that tells wrong usage in one line."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **options: Any) -> NoReturn:
        """Run the words and exit."""
        words = list(sys.argv[1:] if args is None else args)
        # Behind the name of a command too, but where recipes have an argument of the same name.
        if "--debug" in words[1:] and words[0] not in ("train", "plan"):
            words.remove("--debug")
            words.insert(0, "--debug")
        options["standalone_mode"] = False
        try:
            code = super().main(words, prog_name or "ide3d", **options)
        except UsageError as error:
            path = error.ctx.command_path if error.ctx is not None else "ide3d"
            _tell(path, f"{error.format_message().rstrip('.')}. See `{path} --help`.")
            sys.exit(WRONG_USAGE)
        except typer.Abort:
            sys.exit(INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


class Command(TyperCommand):
    """Command whose errors are one line, with the words of `python -m`.

    Words of options may be joined by `_` or `-`. Where a command has no arguments, an option that may be given several
    times also takes several values at once: `--scenes a b` is `--scenes a --scenes b`.

    Attributes:
        shares_work: Whether the processes of a launcher share the work; other commands refuse to run in several.
    """

    shares_work = False

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Parse the words of this command."""
        if not ctx.ignore_unknown_options:
            if "" in args:
                before = args[args.index("") - 1] if args[0] else ""
                places = [param.metavar or param.name for param in self.params if param.param_type_name == "argument"]
                place = before if before.startswith("--") else " or ".join(filter(None, places)) or "an option"
                raise UsageError(f"Got an empty word for {place}. Give a value, or leave it out.", ctx)
            has_arguments = any(param.param_type_name == "argument" for param in self.params)
            several = () if has_arguments else [param for param in self.params if getattr(param, "multiple", False)]
            args = _spread(args, {name for param in several for name in param.opts})
        return super().parse_args(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:
        """Run this command."""
        try:
            if not self.shares_work:
                refuse_several(f"`{ctx.command_path}`")
            result = super().invoke(ctx)
            if count_launched() > 1:
                leave_processes()
            return result
        except (typer.Exit, typer.Abort, UsageError):
            raise
        except KeyboardInterrupt:
            _tell(ctx.command_path, "interrupted.")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # such as of `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from None
        except Exception as error:
            if ctx.find_root().params.get("debug"):
                traceback.print_exc()
            message = str(error) if isinstance(error, TOLD) else f"{type(error).__name__}: {error}"
            hint = "" if isinstance(error, TOLD) else " (`ide3d --debug` shows where.)"
            _tell(ctx.command_path, f"{message or type(error).__name__}{hint}")
            raise typer.Exit(FAILED) from None


class SharedCommand(Command):
    """Command whose work the processes of a launcher share."""

    shares_work = True


def command(
    app: typer.Typer,
    name: str,
    example: str,
    *,
    notes: str = "",
    takes_any: bool = False,
    shares_work: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that makes a function a command of `app`, its docstring the help.

    Args:
        app: Application or group of commands.
        name: Name of the command.
        example: One line that works, shown under the help.
        notes: Paragraphs behind the docstring.
        takes_any: Whether unknown options are left in `ctx.args`, for a parser behind this one.
        shares_work: Whether the processes of a launcher share the work; otherwise the command refuses several.
    """
    settings = {"help_option_names": ["-h", "--help"]}
    if takes_any:
        settings |= {"allow_extra_args": True, "ignore_unknown_options": True}

    def register(function: Callable[..., None]) -> Callable[..., None]:
        text = f"{inspect.getdoc(function)}\n\n{notes}"
        kind = SharedCommand if shares_work else Command
        return app.command(name, cls=kind, help=text, epilog=f"Example: {example}", context_settings=settings)(
            function
        )

    return register


def show_help(ctx: typer.Context) -> None:
    """Print the help of a group where no command of it is named."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def _spread(words: Sequence[str], several: set[str]) -> list[str]:
    """Repeat an option of `several` before each value; an empty value where it has none."""
    spread: list[str] = []
    current: str | None = None
    is_empty = False
    for word in words:
        if not word.startswith("--"):
            spread += [word] if current is None else [current, word]
            is_empty = False
            continue
        if is_empty:
            spread += [current or "", ""]
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        current = name if name in several and not equals else None
        is_empty = current is not None
        if current is None:
            spread.append(f"{name}{equals}{value}")
    return [*spread, current or "", ""] if is_empty else spread


def _tell(path: str, message: str) -> None:
    typer.echo(f"{path}: {' '.join(message.split())}", err=True)
