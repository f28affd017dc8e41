"""What all commands share: help with an example, exit codes, errors of one line, options as `python -m` takes them."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer
from commanding import run_command

from ide3d.command import app
from ide3d.commands import options
from ide3d.commands.errors import _spread
from processing.benchmarks import TASKS
from processing.benchmarks.readers.requirements import MODES
from processing.benchmarks.readers.tasks import FRAME_RULES
from processing.boxes_in_words import NumberStyle
from processing.rooms.generate import SPLITS
from processing.rooms.scene.styles import STYLES
from trainer.data.scene_regions import REGION_SOURCES
from trainer.evaluation.probes.tokens import TOKENS_PER_SCENE
from trainer.evaluation.rgb_only import FINDINGS
from trainer.evaluation.tasks import EVALUATED_TASKS
from trainer.session.scene_session import DEFAULT_MAX_MEMORY

REPOSITORY = Path(__file__).parents[2]
ROOMS = ("rooms measure", "rooms export", "rooms share", "rooms evaluate")
COMMANDS = ("ask", "find", "describe", "app", "serve", "train", "plan", "teachers", "geometry", "evaluate", "clicks")
COMMANDS += ("compare", "doctor", "probe", "convert", "export", "push", "env", "captures", *ROOMS)
ALIASES = {
    "trainer.evaluation": "evaluate",
    "trainer.evaluation.probes": "probe",
    "trainer.teachers": "teachers",
    "processing.rooms": "rooms measure",
    "processing.benchmarks.doctor": "doctor",
    "modeling_ide3d.convert_llava_qwen": "convert",
}


def tree(command=None, path=()):
    """Paths of all commands that do something, and the commands."""
    command = command or typer.main.get_command(app)
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from tree(inner, (*path, name))
    else:
        yield " ".join(path), command


def run(*words, **environment):
    """Run a program in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)


class TestHelp:
    def test_these_are_all_commands(self):
        assert sorted(path for path, _ in tree()) == sorted(COMMANDS)

    @pytest.mark.parametrize("path", COMMANDS)
    def test_it_says_what_is_needed_and_gives_an_example_that_parses(self, path):
        told = run_command(*path.split(), "--help").stdout
        assert f"Usage: ide3d {path} " in told and re.search(r"\bNeeds\s", told)
        example = re.search(rf"^ *Example: ide3d {path}( .*(?:\n  .*)*)?$", told, re.MULTILINE)
        assert example, told
        known = {name for parameter in dict(tree())[path].params for name in parameter.opts} | {"--help"}
        flags = set(re.findall(r"--[\w-]+", example[0]))
        assert path in ("train", "plan") or flags <= known

    def test_without_a_command_there_is_help(self):
        for words, named in (((), COMMANDS[0]), (("rooms",), "measure")):
            told = run_command(*words).stdout
            assert named in told and "Example: ide3d" in told

    def test_exit_codes_are_documented(self):
        told = " ".join(run_command("--help").stdout.split())
        assert "Exit codes: 0 for success, 1 if the task failed or its data cannot be used, 2 for wrong usage" in told
        assert "130 if interrupted" in told

    def test_no_line_of_the_overview_is_cut(self):
        assert "..." not in run_command("--help").stdout.split("Commands:")[1].replace("[ARGS]...", "")
        assert "..." not in run_command("rooms", "--help").stdout.split("Commands:")[1]


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("nope",), "ide3d: No such command 'nope'. See `ide3d --help`."),
            (("rooms", "nope"), "ide3d rooms: No such command 'nope'. See `ide3d rooms --help`."),
            (("ask", "room.mp4"), "ide3d ask: Missing argument 'QUESTION'. See `ide3d ask --help`."),
            (("ask", "v", "q", "--depth", "d"), "ide3d ask: No such option: --depth. See `ide3d ask --help`."),
            (("ask", "v", "q", "--num-frames", "0"), "ide3d ask: Invalid value for '--num-frames': "),
            (("describe", "v"), "ide3d describe: Missing option '--regions'. See `ide3d describe --help`."),
            (("evaluate", "--task", "chess"), "ide3d evaluate: Invalid value for '--task': "),
            (("train",), "ide3d train: Missing argument 'RECIPE'. See `ide3d train --help`."),
            (("convert", "a", "b", "--back", "--vision-tower", "c"), "ide3d convert: --vision-tower and "),
            (("find", "v", "d", "--regions", "r.json", "--template", "x"), "ide3d find: --template must hold "),
        ],
    )
    def test_wrong_usage_is_one_line_and_exits_with_2(self, words, told):
        stderr = run_command(*words, code=2).stderr
        assert stderr.startswith(told) and stderr.count("\n") == 1
        assert stderr.endswith("--help`.\n")

    def test_what_failed_is_one_line_and_exits_with_1(self, tmp_path):
        result = run_command("ask", tmp_path / "absent.mp4", "Who is there?", code=1)
        assert result.stderr == f"ide3d ask: There is no video file or folder of images at {tmp_path}/absent.mp4.\n"
        assert result.stdout == ""

    def test_teachers_say_what_to_do_where_an_old_numpy_breaks_other_packages(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "trainer.teachers", None)
        words = ("--teacher", "point_map", "--data-dir", tmp_path, "--output-dir", tmp_path, "--grid", 64, 8, 1)
        told = run_command("teachers", *words, code=1).stderr
        assert "Give extraction an environment of its own, see docs/teachers.md" in told and told.count("\n") == 1

    @pytest.mark.parametrize("place", [0, 1, 3])
    def test_debug_shows_the_stack(self, tmp_path, place):
        words = ["ask", tmp_path / "absent.mp4", "Who is there?"]
        words.insert(place, "--debug")
        stderr = run_command(*words, code=1).stderr
        assert "Traceback" in stderr and "video_scene.py" in stderr
        assert stderr.splitlines()[-1].startswith("ide3d ask: There is no video file")

    def test_what_nobody_expected_is_named_with_its_type(self, monkeypatch):
        def fail():
            raise RuntimeError("the\ndevice is gone")

        monkeypatch.setattr("ide3d.environment.describe_environment", fail)
        stderr = run_command("env", code=1).stderr
        assert stderr == "ide3d env: RuntimeError: the device is gone (`ide3d --debug` shows where.)\n"

    def test_an_interrupt_exits_with_130(self, monkeypatch):
        def interrupt():
            raise KeyboardInterrupt

        monkeypatch.setattr("ide3d.environment.describe_environment", interrupt)
        assert run_command("env", code=130).stderr == "ide3d env: interrupted.\n"


class TestWords:
    @pytest.mark.parametrize(
        ("words", "spread"),
        [
            ("--scenes a b --task t", "--scenes a --scenes b --task t"),
            ("--scenes a --scenes b", "--scenes a --scenes b"),
            ("--scenes=a --data_dir d", "--scenes=a --data-dir d"),
            ("--grid 72 14 2 --scenes a", "--grid 72 14 2 --scenes a"),
            ("--data_dir=my_data --output_dir my_out", "--data-dir=my_data --output-dir my_out"),
        ],
    )
    def test_several_values_and_both_ways_to_join_words(self, words, spread):
        assert _spread(words.split(), {"--scenes"}) == spread.split()

    def test_an_option_alone_has_an_empty_value(self):
        assert _spread(["--layers", "--seed", "1"], {"--layers"}) == ["--layers", "", "--seed", "1"]
        assert _spread(["--seed", "1", "--layers"], {"--layers"}) == ["--seed", "1", "--layers", ""]

    def test_a_command_with_arguments_keeps_them(self, tmp_path):
        """An option that may be given several times does not swallow the folder behind its value."""
        told = run_command("doctor", "--without", "depth", tmp_path / "absent", code=1).stdout
        assert "folder-missing" in told


class TestChoices:
    """Options name what the packages know; only commands that run import the packages."""

    def test_benchmarks(self):
        assert set(get_args(options.Task)) == set(EVALUATED_TASKS)
        assert set(get_args(options.Task)) == {name for name, task in TASKS.items() if task.has_prompt}
        assert set(get_args(options.Frames)) == set(FRAME_RULES)
        assert set(get_args(options.Mode)) == set(MODES)
        assert get_args(options.Numbers) == get_args(NumberStyle)

    @pytest.mark.parametrize(
        ("path", "name", "choices"),
        [
            ("evaluate", "regions", REGION_SOURCES),
            ("evaluate", "finding", FINDINGS),
            ("evaluate", "numbers", get_args(NumberStyle)),
            ("clicks", "regions", REGION_SOURCES),
            ("probe", "split", SPLITS),
            ("rooms measure", "split", SPLITS),
            ("rooms measure", "style", STYLES),
            ("rooms evaluate", "style", STYLES),
        ],
    )
    def test_others(self, path, name, choices):
        help_text = run_command(*path.split(), "--help").stdout
        shown = re.search(rf"--{name} <([\w|]+)>", help_text)[1]
        assert set(shown.split("|")) == set(choices)

    def test_defaults(self):
        assert options.GIBIBYTE * 4 == DEFAULT_MAX_MEMORY
        assert f"[default: {TOKENS_PER_SCENE}" in " ".join(run_command("probe", "--help").stdout.split())


class TestPrograms:
    def test_the_console_script_is_this_command(self):
        setup = configparser.ConfigParser()
        setup.read(REPOSITORY / "setup.cfg")
        assert setup["options.entry_points"]["console_scripts"].strip() == "ide3d = ide3d.command:main"

    @pytest.mark.parametrize("module", ALIASES)
    @pytest.mark.slow
    def test_modules_are_the_same_commands(self, module):
        told = run("-m", module, "--help")
        assert told.returncode == 0 and f"Usage: ide3d {ALIASES[module]} " in told.stdout

    def test_wrong_usage_of_a_module_exits_with_2(self):
        told = run("-m", "trainer.evaluation", "--no-such-option")
        assert told.returncode == 2 and told.stderr.startswith("ide3d evaluate: No such option: --no-such-option")

    def test_launchers_start_it_as_a_module(self):
        told = run("-m", "ide3d", "--version")
        assert told.returncode == 0 and re.fullmatch(r"ide3d \d+\.\d+\.\d+\n", told.stdout)

    def test_the_shell_completes_commands_and_choices(self):
        asked = {"_IDE3D_COMPLETE": "complete_bash", "_TYPER_COMPLETE_ARGS": "ide3d e", "COMP_CWORD": "1"}
        found = run("-m", "ide3d", COMP_WORDS="ide3d e", **asked).stdout.split()
        assert {"evaluate", "export", "env"} == set(found)
        words = "ide3d evaluate --task scan"
        asked = {"_IDE3D_COMPLETE": "complete_bash", "_TYPER_COMPLETE_ARGS": words, "COMP_CWORD": "3"}
        assert set(run("-m", "ide3d", COMP_WORDS=words, **asked).stdout.split()) == {"scanqa", "scanrefer", "scan2cap"}
