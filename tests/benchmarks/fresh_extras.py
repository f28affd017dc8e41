"""Install every extra alone, and all together, into fresh environments, and do what each is for; prints JSON.

`python tests/benchmarks/fresh_extras.py` needs a package index, a few minutes and 6 GB (torch) at a time. Each
environment is removed before the next one is made. Exits with 1 if an installation or a use of one fails.
"""

import argparse
import configparser
import json
import os
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


def try_extras(extras: list[str]) -> dict:
    """One row: whether extras install together into a fresh environment, and do what they are for."""
    row = {"extras": extras, "failed": {}}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        source, python = Path(folder, "source"), Path(folder, "venv", "bin", "python")
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=REPOSITORY, capture_output=True, check=True).stdout
        source.mkdir()
        subprocess.run(["tar", "x"], cwd=source, input=archive, check=True)
        venv.create(Path(folder, "venv"), with_pip=True)
        named = f".[{','.join(extras)}]" if extras else "."
        commands = [["-m", "pip", "install", "--quiet", named], ["-m", "pip", "check"]]
        for extra in extras or [""]:
            commands += [words if isinstance(words, list) else words.split() for words in USES[extra]]
        for words in commands:
            trouble = run([python, *words], source)
            if trouble is not None:
                row["failed"][" ".join(words)] = trouble
    return {**row, "seconds": round(time.monotonic() - start)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", nargs="*", help="only these, together; none: the package alone")
    chosen = parser.parse_args().extras
    extras = list_extras()
    sets = [[], *([extra] for extra in extras), extras] if chosen is None else [chosen]
    rows = []
    for names in sets:
        rows.append(try_extras(names))
        sys.stderr.write(json.dumps(rows[-1]) + "\n")
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    return int(any(row["failed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
