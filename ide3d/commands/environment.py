"""Command about the installation: `env`."""

import json

import typer

from ide3d.commands.errors import command
from ide3d.commands.options import AsJson

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    command(app, "env", "ide3d env --json > environment.json")(env)


def env(as_json: AsJson = False) -> None:
    """Say versions and devices, for a report of a fault.

    Also which attention kinds are usable, how many threads compute, and where the nano model lies. Needs nothing.
    """
    from ide3d.environment import describe_environment

    found = describe_environment()
    typer.echo(json.dumps(found.as_dict(), indent=1) if as_json else found.as_text())
