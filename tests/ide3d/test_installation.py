"""What `make` and the Dockerfile install, and what a wheel holds: it is built, installed and asked elsewhere."""

import configparser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.export import is_export

REPOSITORY = Path(__file__).parents[2]
NANO = Path("examples", "checkpoints", "ide3d-nano-rooms")


def read_setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    return setup


def listed_packages() -> set[str]:
    return set(read_setup()["options"]["packages"].split())


def test_every_package_is_listed():
    tops = sorted({name.split(".")[0] for name in listed_packages()})
    files = [file for top in tops for file in (REPOSITORY / top).rglob("__init__.py")]
    assert {".".join(file.parent.relative_to(REPOSITORY).parts) for file in files} <= listed_packages()


def test_extras_are_kept():
    assert {"evaluation", "examples", "test"} <= set(read_setup()["options.extras_require"])


@pytest.mark.parametrize(
    ("target", "extras"),
    [
        ("demo", ["examples"]),
        ("nano", ["examples"]),
        ("install", ["examples"]),
        ("test", ["test"]),
        ("lint", ["test"]),
    ],
)
def test_make_installs_test_tools_for_tests_alone(target, extras, tmp_path):
    command = ["make", "--dry-run", target, f"VENV={tmp_path / 'venv'}"]
    told = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert re.findall(r'pip install .*"\.\[(\w+)\]"', told) == extras


def in_image() -> list[str]:
    """What .dockerignore lets through to the build of the image."""
    rules = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "*" in rules, "all else stays out"
    return [rule.removeprefix("!") for rule in rules if rule.startswith("!")]


def read_dockerfile() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their words."""
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    return [tuple(line.split(" ", 1)) for line in lines if line and not line.startswith("#")]


def test_the_image_runs_the_command_as_a_user_without_rights():
    steps = read_dockerfile()
    last = max(place for place, (name, _) in enumerate(steps) if name == "FROM")
    shipped = steps[last:]
    (user,) = (words for name, words in shipped if name == "USER")
    assert all(number.isdigit() and int(number) > 0 for number in user.split(":"))  # names do not tell Kubernetes
    assert ("ENTRYPOINT", '["ide3d"]') in shipped
    stages = [words.partition(" AS ")[2] for name, words in steps[:last] if name == "FROM"]
    copied = [words.split()[0].partition("=")[2] for name, words in shipped if name == "COPY"]
    assert copied == stages, "of the build nothing but the environment is shipped"


def test_the_image_names_extras_and_ports_that_there_are():
    steps = read_dockerfile()
    (extras,) = (words.partition("=")[2] for name, words in steps if words.startswith("EXTRAS="))
    assert set(extras.split(",")) <= set(read_setup()["options.extras_require"])
    (ports,) = (words.split() for name, words in steps if name == "EXPOSE")
    commands = command_tree().commands
    defaults = (
        option.default for name in ("app", "serve") for option in commands[name].params if option.name == "port"
    )
    assert [int(port) for port in ports] == list(defaults)


def command_tree():
    import typer

    from ide3d.command import app

    return typer.main.get_command(app)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    done = subprocess.run(["hadolint", "Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def run(*words, folder: Path, **environment: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="setuptools is not installed")
def test_a_wheel_answers_with_the_nano_model_from_any_folder(room, tmp_path):
    source, site, elsewhere = tmp_path / "source", tmp_path / "site", tmp_path / "elsewhere"
    source.mkdir()
    for name in in_image():
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(REPOSITORY / name, source / name)
    elsewhere.mkdir()
    build = ("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path / "wheel", ".")
    run(*build, folder=source)
    (wheel,) = (tmp_path / "wheel").glob("ide3d-*.whl")
    shutil.rmtree(source)
    run("-m", "pip", "install", "--no-deps", "--no-index", "-q", "--target", site, wheel, folder=elsewhere)
    assert (site / "bin" / "ide3d").is_file()
    found = run("-c", "import ide3d; print(ide3d.nano_model())", folder=elsewhere, PYTHONPATH=str(site)).strip()
    assert Path(found) == site / "ide3d" / "nano_rooms" and is_export(found)
    for file in (REPOSITORY / NANO).iterdir():
        if file.is_file():
            assert (Path(found) / file.name).read_bytes() == file.read_bytes(), file.name
    question = ("ask", room.video, "How many chairs are in the room?")
    answer = run("-m", "ide3d", *question, folder=elsewhere, PYTHONPATH=str(site))
    assert answer.strip().isdigit()
