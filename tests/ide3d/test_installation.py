"""What `make` installs, and what a wheel holds: it is built, installed into an empty folder, and asked."""

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
    for top in {name.split(".")[0] for name in listed_packages()}:
        shutil.copytree(REPOSITORY / top, source / top, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / NANO, source / NANO, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
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
