"""Run the cases, print the table door x outcome and all that is not as it should be.

`PYTHONPATH=.:tests python -m bad_inputs.run [--doors PosedVideo regions] [--every 5] [--jobs 2] [--output cases.tsv]`

Each door runs in a process of its own with a limit of memory; a case that kills the process, or hangs where no signal
reaches it, counts, and the next case goes on in a new process.
"""

import argparse
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bad_inputs import goods
from bad_inputs.cases import GOOD_OUTCOMES, Case, Door, run_case
from bad_inputs.doors import DOORS

KINDS = ("clear", "warned", "taken", "inherited", "silent", "unclear", "refused", "hang", "crash")
STUCK = 60  # Seconds after which a process that does nothing is ended.
MEMORY = 6 << 30  # Bytes that a case may take beside what is imported.


@dataclass
class Child:
    """A process that runs the cases of a door, from one on.

    Args:
        door: Name of the door.
        pid: Id of the process.
        heard: Time at which it last said something, or used the processor.
        held: Line that is not whole yet.
        used: Ticks of the processor that it had used then.
    """

    door: str
    pid: int
    heard: float
    held: bytes = b""
    used: int = 0

    def is_stuck(self) -> bool:
        """Return whether it waits where no signal reaches it, as in the opening of a pipe by a library in C."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        used = int(fields[11]) + int(fields[12])
        if used > self.used + 100:  # Threads that only wait use a tick now and then.
            self.heard, self.used = time.monotonic(), used
        return time.monotonic() - self.heard > STUCK


def run_doors(names: list[str], jobs: int, show: Callable[[list[dict]], None] = lambda rows: None) -> list[dict]:
    """Run the cases of doors, each door in a process of its own, and return their rows.

    Args:
        names: Names of the doors.
        jobs: Number of processes at a time.
        show: Function that takes the rows of each door that is done.
    """
    rows: dict[str, list[dict]] = {name: [] for name in names}
    waiting, children = list(names), {}
    while waiting or children:
        while waiting and len(children) < jobs:
            name = waiting.pop(0)
            pipe, child = _start(name, len(rows[name]))
            children[pipe] = child
        for pipe in select.select(list(children), [], [], 1.0)[0]:
            child = children[pipe]
            data = os.read(pipe, 1 << 16)
            child.heard = time.monotonic()
            *lines, child.held = (child.held + data).split(b"\n")
            rows[child.door] += map(json.loads, lines)
            if not data:
                del children[pipe]
                _end(pipe, child, rows[child.door], "crash", waiting, show)
        for pipe, child in list(children.items()):
            if child.is_stuck():
                os.kill(child.pid, signal.SIGKILL)
                del children[pipe]
                _end(pipe, child, rows[child.door], "hang", waiting, show)
    return [row for name in names for row in rows[name]]


def run_isolated(cases: list[Case], name: str = "isolated") -> list[dict]:
    """Run cases that belong to no door in a process of their own, as `run_doors` does."""
    DOORS[name] = Door(name, (), lambda add: None, list(cases))
    try:
        return run_doors([name], 1)
    finally:
        del DOORS[name]


def _start(name: str, start: int) -> tuple[int, Child]:
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        code = 1
        try:
            _be_child(name, start, write)
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    return read, Child(name, pid, time.monotonic())


def _end(
    pipe: int, child: Child, rows: list[dict], kind: str, waiting: list[str], show: Callable[[list[dict]], None]
) -> None:
    """Account for the case in which a process ended; the rest of its door waits for another one."""
    os.close(pipe)
    status = os.waitpid(child.pid, 0)[1]
    cases = DOORS[child.door].list_cases()
    if len(rows) < len(cases):
        rows.append(_row(cases[len(rows)], kind, f"exit status {os.waitstatus_to_exitcode(status)}"))
    if len(rows) < len(cases):
        waiting.insert(0, child.door)
    else:
        show(rows)


def _row(case: Case, outcome: str, error: str = "", message: str = "") -> dict:
    message = "".join(letter if letter.isprintable() else "?" for letter in " ".join(message.split()))
    row = {"door": case.door, "input": case.name, "outcome": outcome, "error": error, "message": message[:300]}
    return {**row, "expect": case.expect, "reason": case.reason}


def _be_child(name: str, start: int, descriptor: int) -> None:
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
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
    parser.add_argument("--every", type=int, default=1, help="take each n-th case of a door alone")
    parser.add_argument("--output", type=Path, help="file of all cases, tab-separated")
    options = parser.parse_args()
    names = [name for name in DOORS if any(word == name or word in name for word in options.doors)]
    for name in names:
        DOORS[name].cases = DOORS[name].list_cases()[:: options.every]
    columns = ("door", "input", "outcome", "error", "message", "expect", "reason")
    if options.output:
        options.output.write_text("\t".join(columns) + "\n")

    def show(rows: list[dict]) -> None:
        sys.stderr.write(f"{rows[0]['door']}: {len(rows)}\n")
        if options.output:
            lines = ["\t".join(row[name].replace("\t", " ") for name in columns) + "\n" for row in rows]
            with options.output.open("a") as stream:
                stream.writelines(lines)

    with goods.shared_root():
        goods.warm_up()
        rows = run_doors(names, options.jobs, show)
    _say(table(rows))
    for row in rows:
        if row["outcome"] not in GOOD_OUTCOMES:
            _say("{outcome:8} {door}: {input} | {error} {message} {reason}".format(**row)[:400])
    return int(any(row["outcome"] in ("silent", "hang", "crash", "refused") for row in rows))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
