"""Install every extra alone, and all together, into fresh environments, and do what each is for; prints JSON.

`python tests/benchmarks/fresh_extras.py` needs a package index, a quarter of an hour and 8 GB (torch). The package is
installed without extras first; every set of extras goes into a copy of that environment, whose files are links.
Exits with 1 if an installation or a use of one fails.
"""

import argparse
import configparser
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
NANO = "examples/checkpoints/ide3d-nano-rooms"
BENCHMARKS = "outputs/benchmark_rooms"
DRAW = "from trainer.evaluation.shipping import draw_curves as d; d([{'step': 1, 'loss_language': 1.0}], 'curves.png')"
# What an extra is for, in a clone, each run by the environment's Python; "" is the package without extras.
USES = {
    "": [
        f"-m ide3d rooms export {BENCHMARKS} --num-scenes 2",
        f"-m ide3d ask {BENCHMARKS}/vsibench/scannet/room0004_00.mp4 How_many_chairs_are_there?",
    ],
    "evaluation": [
        f"-m ide3d rooms export {BENCHMARKS} --num-scenes 2",
        f"-m ide3d evaluate --model {NANO} --task scanqa --data {BENCHMARKS}",
    ],
    "examples": [["-c", DRAW]],
    "docs": ["-m mkdocs build --strict --quiet"],
    "test": ["-m pytest -q tests/processing/test_tables.py tests/trainer/evaluation/metrics", "-m ruff check ."],
}


def list_extras() -> list[str]:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    return list(setup["options.extras_require"])


def run(command: list, folder: Path) -> str | None:
    """The end of what a command told if it failed, else None."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stdout + done.stderr)[-1000:]


def clone(folder: Path) -> None:
    """Put the files of the last commit into `folder/source`."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    (folder / "source").mkdir(parents=True)
    subprocess.run(["tar", "x"], cwd=folder / "source", input=archive, check=True)


def try_extras(extras: list[str], folder: Path) -> dict:
    """One row: whether extras install together into an environment, and do what they are for."""
    row = {"extras": extras, "failed": {}}
    start = time.monotonic()
    named = f".[{','.join(extras)}]" if extras else "."
    commands = [["-m", "pip", "install", "--quiet", named], ["-m", "pip", "check"]]
    for extra in extras or [""]:
        commands += [words if isinstance(words, list) else words.split() for words in USES[extra]]
    for words in commands:
        trouble = run([folder / "venv" / "bin" / "python", *words], folder / "source")
        if trouble is not None:
            row["failed"][" ".join(words)] = trouble
    return {**row, "seconds": round(time.monotonic() - start)}


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    extras, rows = list_extras(), []
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base")
        venv.create(base / "venv", with_pip=True)
        for index, names in enumerate([[], *([extra] for extra in extras), extras]):
            own = base
            if names:
                own = Path(folder, str(index))
                shutil.copytree(base / "venv", own / "venv", symlinks=True, copy_function=os.link)
            clone(own)
            rows.append(try_extras(names, own))
            sys.stderr.write(json.dumps(rows[-1]) + "\n")
            if own != base:
                shutil.rmtree(own)
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    return int(any(row["failed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
