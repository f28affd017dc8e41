"""Run the cases, print the table door x outcome and all that is not as it should be.

`PYTHONPATH=.:tests python -m bad_inputs.run [--doors PosedVideo regions] [--jobs 2] [--output cases.tsv]`

Each door runs in a process of its own with a limit of memory; a case that kills the process, or hangs where no signal
reaches it, counts, and the next case goes on in a new process.
"""

import argparse
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bad_inputs.cases import GOOD_OUTCOMES, SECONDS, Case, run_case
from bad_inputs.doors import DOORS

KINDS = ("clear", "warned", "taken", "inherited", "silent", "unclear", "refused", "hang", "crash")
MEMORY = 6 << 30  # Bytes that a case may take beside what is imported.
GRACE = 3 * SECONDS  # Seconds without a word after which a process is ended.


def run_door(name: str) -> list[dict]:
    """Run the cases of a door in child processes and return their rows."""
    cases = DOORS[name].list_cases()
    rows: list[dict] = []
    while len(rows) < len(cases):
        read, write = os.pipe()
        words = [sys.executable, "-m", "bad_inputs.run", "--child", name, str(len(rows)), str(write)]
        child = subprocess.Popen(words, pass_fds=(write,), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        os.close(write)
        done, is_late, tail = _listen(read, child)
        rows += done
        child.wait()
        os.close(read)
        if len(rows) < len(cases) and (is_late or child.returncode or not done):
            case = cases[len(rows)]
            rows.append(_row(case, "hang" if is_late else "crash", f"exit code {child.returncode}", tail[-300:]))
    return rows


def _listen(read: int, child: subprocess.Popen) -> tuple[list[dict], bool, str]:
    """Collect the rows that a child writes; says whether it had to be ended, and what it wrote last."""
    rows, held, errors = [], b"", b""
    pipes = [read, child.stderr.fileno()]
    while pipes:
        ready = select.select(pipes, [], [], GRACE + (60 if not rows else 0))[0]
        if not ready:
            child.kill()
            return rows, True, errors.decode(errors="replace")
        for pipe in ready:
            data = os.read(pipe, 1 << 16)
            if not data:
                pipes.remove(pipe)
            elif pipe == read:
                *lines, held = (held + data).split(b"\n")
                rows += map(json.loads, lines)
            else:
                errors = (errors + data)[-4000:]
    return rows, False, errors.decode(errors="replace")


def _row(case: Case, outcome: str, error: str = "", message: str = "") -> dict:
    message = " ".join(message.split())
    row = {"door": case.door, "input": case.name, "outcome": outcome, "error": error, "message": message[:300]}
    return {**row, "expect": case.expect, "reason": case.reason}


def _be_child(name: str, start: int, descriptor: int) -> None:
    import torch

    torch.set_num_threads(1)
    from bad_inputs import goods

    goods.warm_up()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(descriptor, "w") as stream:
        for case in DOORS[name].list_cases()[start:]:
            folder = Path(tempfile.mkdtemp(prefix="bad-", dir=goods.root()))
            os.chdir(folder)
            try:
                outcome = run_case(case, folder)
            finally:
                os.chdir(goods.root())
                shutil.rmtree(folder, ignore_errors=True)
            stream.write(json.dumps(_row(case, outcome.kind, outcome.error, outcome.message)) + "\n")
            stream.flush()


def table(rows: list[dict]) -> str:
    """Return the table door x outcome."""
    lines = [f"{'door':36}" + "".join(f"{kind:>10}" for kind in ("inputs", *KINDS))]
    by_door: dict[str, Counter] = {}
    for row in rows:
        by_door.setdefault(row["door"], Counter())[row["outcome"]] += 1
    total = sum(by_door.values(), Counter())
    for name, counts in [*by_door.items(), ("all", total)]:
        lines.append(f"{name:36}" + "".join(f"{n:10}" for n in (counts.total(), *(counts[k] for k in KINDS))))
    return "\n".join(lines)


def main() -> int:
    """Run the doors and print; the exit code is 1 where something is silent, hangs or crashes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--doors", nargs="*", default=list(DOORS), help="names of doors, or parts of them")
    parser.add_argument("--jobs", type=int, default=1, help="doors at a time")
    parser.add_argument("--output", type=Path, help="file of all cases, tab-separated")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _be_child(options.child[0], int(options.child[1]), int(options.child[2]))
        return 0
    names = [name for name in DOORS if any(word == name or word in name for word in options.doors)]
    from bad_inputs import goods

    with goods.shared_root(), ThreadPoolExecutor(options.jobs) as pool:
        rows = [row for found in pool.map(run_door, names) for row in found]
    if options.output:
        columns = ("door", "input", "outcome", "error", "message", "expect", "reason")
        lines = ["\t".join(row[name].replace("\t", " ") for name in columns) for row in rows]
        options.output.write_text("\n".join(["\t".join(columns), *lines]) + "\n")
    _say(table(rows))
    for row in rows:
        if row["outcome"] not in GOOD_OUTCOMES:
            _say("{outcome:8} {door}: {input} | {error} {message} {reason}".format(**row)[:400])
    return int(any(row["outcome"] in ("silent", "hang", "crash", "refused") for row in rows))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
