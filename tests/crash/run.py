"""Kill every operation that writes before each of its system calls, and in the middle of each write; fill the disk.

    PYTHONPATH=.:tests python -m crash.run                     # the whole table
    PYTHONPATH=.:tests python -m crash.run export --points 9   # one operation, nine points of each fault

After a kill everything that a user sees is the old or the new state, and the operation, started again, ends as one
that nobody disturbed, and removes what was left. On a full or read-only disk the old state stays, nothing is left,
and the error names the place. The exit code is 1 otherwise.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
from crash.operations import NAMES, STEPS, Operation, build_operations, leftovers, read_state
from crash.tracing import Fault, Outcome, run_traced

from processing.tables import markdown_table

__all__ = ["examine", "main"]

KILLS, REFUSALS = (Fault.KILL, Fault.HALF), (Fault.FULL, Fault.READ_ONLY)


class Case:
    """One operation, with its undisturbed run.

    Args:
        operation: Operation.
        place: Folder for the runs.
    """

    def __init__(self, operation: Operation, place: Path):
        self.operation, self.folder = operation, place / "run"
        self.fresh()
        self.old = read_state(self.folder)
        self.calls = self.run(Fault.NONE, 0).calls
        self.new = read_state(self.folder)

    def fresh(self) -> None:
        """Bring the start back."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.operation.start, self.folder)

    def run(self, fault: Fault, at: int) -> Outcome:
        """Run the work in a child that meets a fault."""
        outcome = run_traced(lambda: self.operation.work(self.folder), self.folder, fault, at)
        if fault is Fault.NONE and outcome.error:
            raise RuntimeError(f"{self.operation.name}: {outcome.error}")
        return outcome

    def points(self, fault: Fault, count: int | None) -> list[int]:
        """Return the calls to strike: all, or `count` spread over them."""
        calls = range(len(self.calls))
        if fault is Fault.HALF:
            calls = [number for number in calls if self.calls[number] in ("write", "pwrite64")]
        elif fault is Fault.FULL:
            calls = [number for number in calls if self.calls[number] in ("write", "pwrite64", "mkdir", "openat")]
        elif fault is Fault.READ_ONLY:
            calls = calls[:1]
        if count is None or len(calls) <= count:
            return list(calls)
        return [calls[round(index * (len(calls) - 1) / (count - 1))] for index in range(count)]

    def judge(self, fault: Fault, at: int) -> tuple[str, str | None]:
        """Return the state that a fault leaves in a word, and what is wrong with it."""
        self.fresh()
        outcome = self.run(fault, at)
        state, wrong = read_state(self.folder), None
        if fault in KILLS and not outcome.is_killed:
            return "not reached", "the call was not reached: the work does not repeat itself"
        word = "old" if state == self.old else "new" if state == self.new else "between"
        mixed = [name for name in state if state[name] not in (self.old.get(name), self.new.get(name))]
        lost = [name for name in self.old.keys() & self.new.keys() if name not in state]
        is_rotated = any(name.startswith("checkpoint-") for name in self.new)  # old ones go where new ones are whole
        if word == "between" and (self.operation.is_one or (not is_rotated and (mixed or lost))):
            wrong = f"neither old nor new: {(mixed or lost or sorted(state))[:3]}"
        if fault in REFUSALS and outcome.error is None and word != "new":
            wrong = "no error"
        elif (
            fault in REFUSALS
            and outcome.error
            and (str(self.folder) not in outcome.error or "OSError" not in outcome.error)
        ):
            wrong = f"the error does not name the place: {outcome.error[:300]}"
        elif fault in REFUSALS and fault is not Fault.READ_ONLY and leftovers(self.folder):
            wrong = f"left {leftovers(self.folder)}"
        return word, wrong or self.judge_next_run()

    def judge_next_run(self) -> str | None:
        """Return what is wrong after the work was started again."""
        was_done = read_state(self.folder) == self.new
        outcome = run_traced(lambda: self.operation.work(self.folder), self.folder)
        if outcome.error and not (was_done and outcome.error.startswith("FileExistsError")):  # whole, so it is refused
            return f"started again: {outcome.error[:300]}"
        state = read_state(self.folder)
        if any(name.startswith("checkpoint-") for name in self.new):  # the last counts; others may be pushed out
            state, new = ({k: v for k, v in s.items() if f"-{STEPS}/" in k} for s in (state, self.new))
        else:
            new = self.new
        if state != new:
            return f"started again, other files: {sorted(set(state.items()) ^ set(new.items()))[:3]}"
        return f"left {leftovers(self.folder)}" if leftovers(self.folder) else None


def examine(
    operation: Operation, place: Path, *, points: int | None = None, faults: tuple[Fault, ...] = KILLS + REFUSALS
) -> tuple[list[list], list[str]]:
    """Strike an operation with faults.

    Args:
        operation: Operation.
        place: Folder for the runs, without links in its path.
        points: Number of calls that each fault strikes; None: all.
        faults: Faults.

    Returns:
        Rows of the table, and what was wrong.
    """
    case, rows, problems = Case(operation, place), [], []
    for fault in faults:
        found: Counter[str] = Counter()
        for at in case.points(fault, points):
            word, wrong = case.judge(fault, at)
            found[word] += 1
            if wrong:
                problems.append(f"{operation.name}, {fault.value}, call {at} ({case.calls[at]}): {wrong}")
        words = ("old", "new", "between")
        bad = sum(f"{operation.name}, {fault.value}," in problem for problem in problems)
        rows.append([operation.name, fault.value, found.total(), *(found[word] for word in words), bad])
    return rows, problems


def main(words: list[str] | None = None) -> int:
    """Write the table; 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("operations", nargs="*", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--points", type=int, help="calls that each fault strikes; default: all")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    rows, problems = [], []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        (place / "made").mkdir()
        for operation in build_operations(place / "made", options.operations or NAMES):
            more, wrong = examine(operation, place, points=options.points)
            rows, problems = rows + more, problems + wrong
            sys.stderr.write(f"{operation.name}: {more} {wrong[:3]}\n")
    head = ["operation", "fault", "points", "old", "new", "some files new", "wrong"]
    sys.stdout.write("\n".join([markdown_table(head, rows, "llrrrrr"), *problems]) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
    sys.exit(main())
