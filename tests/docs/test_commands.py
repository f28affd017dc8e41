"""Every command in README and docs exists, and so do its options."""

import configparser
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from doc_pages import PAGES, REPOSITORY, find_blocks, find_table, quoted

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
    if words[0] == "COMMAND":  # stands for any
        return
    command, rest = command_of(words)
    assert not hasattr(command, "commands") or not rest or rest[0].startswith("--"), f"no command {rest[0]}"
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help"}
    if command.name in ("train", "plan"):
        known |= train_flags()
    # Words of options may be joined by `_` too.
    given = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert given <= known | {flag.replace("-", "_").replace("__", "--", 1) for flag in known}


def check_python(words: list[str]) -> None:
    flags = {word for word in words if word.startswith("--")}
    if words[0] == "-m":
        if words[1] in ("pip", "venv"):
            return
        if words[1] == "pytest":
            assert all((REPOSITORY / word).exists() for word in words[2:] if "/" in word)
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
    source = path.read_text(encoding="utf-8")
    if alias := re.search(r"run_command\((.+)\)", source):
        return check_ide3d([*re.findall(r'"(\w+)"', alias[1]), *words[2:]])
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
    program = program.rpartition("/")[2]  # of another environment
    if program == "sbatch":
        start = next(place for place, word in enumerate(words) if word.endswith(".sbatch"))
        assert (REPOSITORY / words[start]).is_file()
        program, words = "accelerate", words[start + 1 :]
    if program in ("accelerate", "torchrun"):
        if "--config_file" in words:
            assert (REPOSITORY / words[words.index("--config_file") + 1]).is_file()
        start = next((place for place, word in enumerate(words) if word == "-m" or word.endswith(".py")), None)
        if start is None:  # the launcher is named, no command of it
            return
        program, words = "python", words[start:]
    checks = {"ide3d": check_ide3d, "python": check_python, "make": check_make, "pip": check_pip}
    if program == "docker":
        program, *words = words[words.index("ide3d") :] if words[0] == "run" else ("hadolint",)
    if program in ("apt-get", "ffmpeg", "hadolint", "hf", "pre-commit", "vllm", "lmms-eval"):  # not ours
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


def subcommands() -> dict[str, object]:
    """Commands of typer's tree by the words that name them."""
    command, _ = command_of([])
    named = {}
    for name, sub in command.commands.items():
        named |= {f"{name} {inner}": leaf for inner, leaf in getattr(sub, "commands", {}).items()} or {name: sub}
    return named


def test_every_subcommand_is_in_the_table():
    page = REPOSITORY / "docs" / "command.md"
    listed = [f"{text} " for text in quoted(page) if text.startswith("ide3d ")]
    missing = [name for name in subcommands() if not any(text.startswith(f"ide3d {name} ") for text in listed)]
    assert missing == []


@pytest.mark.parametrize("name", subcommands())
def test_options_of_a_subcommand_are_those_of_the_page(name):
    """With the defaults that stand there."""
    rows = [row for row in find_table("command.md", "Options") if f"`{name}`" in row[0].split(", ")]
    listed = [text.split() for row in rows for text in re.findall(r"`(--[^`]+)`", row[1])]
    options = [parameter for parameter in subcommands()[name].params if parameter.param_type_name == "option"]
    defaults = {flag: option.default for option in options for flag in (*option.opts, *option.secondary_opts)}
    examples = {"--max_steps"} if name in ("train", "plan") else set()
    assert {words[0] for words in listed} - examples == set(defaults)
    for flag, *value in listed:
        if flag not in examples and not isinstance(defaults[flag], bool | None):
            assert value == [str(defaults[flag])]


@pytest.mark.parametrize("name", subcommands())
def test_help_of_a_subcommand_names_an_example_that_is_one(name):
    from typer.testing import CliRunner

    shown = CliRunner().invoke(importlib.import_module("ide3d.command").app, [*name.split(), "--help"])
    assert shown.exit_code == 0
    example = re.search(r"Example: (ide3d .*)\Z", shown.output.strip(), re.DOTALL)[1]
    check_ide3d(shlex.split(" ".join(example.split()).partition(" > ")[0])[1:])


def test_exit_codes_are_those_of_the_page():
    errors = importlib.import_module("ide3d.commands.errors")
    codes = {int(row[0]) for row in find_table("command.md", "Errors and exit codes")}
    assert codes == {0, errors.FAILED, errors.WRONG_USAGE, errors.INTERRUPTED}


def test_completion_can_be_installed():
    command, _ = command_of([])
    assert "--install-completion" in {flag for parameter in command.params for flag in parameter.opts}
