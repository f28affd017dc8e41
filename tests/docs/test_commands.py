"""Every command in README and docs exists, and so do its options."""

import configparser
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from doc_pages import PAGES, REPOSITORY, find_blocks, quoted

STARTS = ("ide3d ", "python ", "make ", "accelerate ", "torchrun ", "pip ")


def list_commands() -> list[str]:
    """Lines of the shell blocks and commands in backquotes, comments cut."""
    lines = [line for block in find_blocks("bash") for line in block.code.splitlines()]
    lines += [text for page in PAGES for text in quoted(page) if text.startswith(STARTS)]
    commands = {re.split(r"\s+#|^#", line)[0].strip() for line in lines}
    return sorted(command for command in commands if command and "..." not in command)


def train_flags() -> set[str]:
    """Arguments of a recipe: the fields of its dataclasses."""
    recipes = importlib.import_module("trainer.recipes")
    return {f"--{action.dest}" for action in recipes.build_parser()._actions}


def command_of(words: list[str]):
    """Command of typer's tree that `words` name, without the program, and the words behind it."""
    import typer

    command = typer.main.get_command(importlib.import_module("ide3d.command").app)
    options = {flag for parameter in command.params for flag in parameter.opts}
    while words and words[0] in options:
        words = words[1:]
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    return command, words


def check_ide3d(words: list[str]) -> None:
    command, rest = command_of(words)
    assert not hasattr(command, "commands") or not rest or rest[0].startswith("--"), f"no command {rest[0]}"
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help"}
    if command.name in ("train", "plan"):
        known |= train_flags()
    assert {word for word in rest if word.startswith("--")} <= known


def check_python(words: list[str]) -> None:
    flags = {word for word in words if word.startswith("--")}
    if words[0] == "-m":
        if words[1] == "pip":
            return
        name = words[1].replace(".", "/")
        path = next(p for p in (REPOSITORY / f"{name}.py", REPOSITORY / name / "__main__.py") if p.is_file())
        where = path.parent if path.name == "__main__.py" else path
    else:
        where = path = REPOSITORY / words[0]
    if path.name == "train.py":
        assert (REPOSITORY / words[1]).is_file()
        assert {flag.replace("-", "_").replace("__", "--", 1) for flag in flags} <= train_flags()
        return
    files = [where] if where.is_file() else sorted(where.glob("*.py"))
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert all(f'"{flag}"' in source for flag in flags)


def check_make(words: list[str]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert len(words) == 1 and re.search(rf"^{re.escape(words[0])}:", makefile, re.MULTILINE)


def check_pip(words: list[str]) -> None:
    """Extras that are named exist."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert words[0] == "install"
    for word in words[1:]:
        for extra in re.findall(r"\.\[(.*)\]", word):
            assert set(extra.split(",")) <= set(setup["options.extras_require"])


@pytest.mark.parametrize("command", list_commands())
def test_command_exists(command):
    program, *words = shlex.split(command)
    if program in ("accelerate", "torchrun"):
        if "--config_file" in words:
            assert (REPOSITORY / words[words.index("--config_file") + 1]).is_file()
        start = next((place for place, word in enumerate(words) if word == "-m" or word.endswith(".py")), None)
        if start is None:  # the launcher is named, no command of it
            return
        program, words = "python", words[start:]
    checks = {"ide3d": check_ide3d, "python": check_python, "make": check_make, "pip": check_pip}
    if program in ("ffmpeg", "hf", "pre-commit"):  # not ours
        return
    checks[program](words)


def recipe_files() -> Iterator[Path]:
    for command in list_commands():
        yield from (REPOSITORY / word for word in shlex.split(command) if word.startswith("examples/recipes/"))


def test_recipes_that_commands_name_exist():
    files = set(recipe_files())
    assert files and all(file.is_file() for file in files)


@pytest.mark.parametrize("block", find_blocks("yaml"), ids=lambda block: block.name)
def test_arguments_of_a_recipe_exist(block):
    assert {f"--{key}" for key in yaml.safe_load(block.code)} <= train_flags()


def test_every_subcommand_is_in_the_table():
    page = REPOSITORY / "docs" / "command.md"
    listed = {tuple(text.split()[1:3]) for text in quoted(page) if text.startswith("ide3d ")}
    command, _ = command_of([])
    for name, sub in command.commands.items():
        for words in [(name, inner) for inner in getattr(sub, "commands", {})] or [(name,)]:
            assert any(entry[: len(words)] == words for entry in listed), f"ide3d {' '.join(words)}"


def test_completion_can_be_installed():
    command, _ = command_of([])
    assert "--install-completion" in {flag for parameter in command.params for flag in parameter.opts}
