"""Time and modules of imports, each in a process of its own, as JSON on stdout.

    PYTHONPATH=. python tests/benchmarks/import_times.py [--repeats 3]

Each package stands beside the library that a program needs anyway. Time is the least of the repeats, in seconds.
"""

import argparse
import json
import subprocess
import sys

# What is imported: what it is compared with.
PAIRS = {
    "import trainer.losses": "import torch",
    "from trainer.losses import ViewConsistencyLoss": "import torch",
    "import trainer.geometry": "import torch",
    "from trainer.geometry import unproject_depth": "import torch",
    "import ide3d": "import transformers",
}
PROGRAM = """
import sys, time
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
import json
print(json.dumps({{"seconds": seconds, "modules": sorted(sys.modules)}}))
"""


def measure(statement: str) -> tuple[float, set[str]]:
    """Seconds of a statement in a fresh process, and the modules that are loaded after it."""
    program = [sys.executable, "-c", PROGRAM.format(statement=statement)]
    result = json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return result["seconds"], set(result["modules"])


def compare(repeats: int) -> dict[str, dict[str, float | int | str]]:
    """Seconds, modules and their ratios to the yardstick of each statement; the repeats of all take turns."""
    statements = list(dict.fromkeys([*PAIRS, *PAIRS.values()]))
    runs = {statement: [] for statement in statements}
    for _ in range(repeats):
        for statement in statements:
            runs[statement].append(measure(statement))
    seconds = {statement: min(run[0] for run in found) for statement, found in runs.items()}
    modules = {statement: len(found[0][1]) for statement, found in runs.items()}
    return {
        statement: {
            "seconds": round(seconds[statement], 4),
            "modules": modules[statement],
            "compared_with": other,
            "time_ratio": round(seconds[statement] / seconds[other], 4),
            "module_ratio": round(modules[statement] / modules[other], 4),
        }
        for statement, other in PAIRS.items()
    }


def main() -> None:
    """Parse the command line and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each statement; the fastest counts")
    sys.stdout.write(json.dumps(compare(parser.parse_args().repeats), indent=1) + "\n")


if __name__ == "__main__":
    main()
