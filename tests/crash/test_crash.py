"""Work that is killed, or meets a full disk, leaves the old or the new state, and ends well when it starts again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from crash.operations import NAMES, build_operations
from crash.run import KILLS, examine
from crash.tracing import Fault, can_trace, run_traced

TESTS = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(not can_trace(), reason="tracing is written for Linux on x86-64")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Forks of a process with threads cannot use them."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


def strike(tmp_path, names, **options):
    (tmp_path / "made").mkdir()
    rows, problems = [], []
    for operation in build_operations(tmp_path.resolve() / "made", names):
        more, wrong = examine(operation, tmp_path.resolve(), **options)
        rows, problems = rows + more, problems + wrong
    return rows, problems


def test_torn_and_lost_states_are_found(tmp_path):
    """What writes in its place must fail, or the table says nothing."""
    from crash.operations import Operation

    start = tmp_path / "start"
    start.mkdir()
    (start / "file").write_text("old " * 100)

    def rewrite(folder):
        (folder / "file").write_text("new " * 100)

    def fail(folder):
        raise ValueError("no file of mine")

    rows, problems = examine(Operation("in place", start, rewrite), tmp_path.resolve())
    assert [row[-1] for row in rows] == [1, 1, 1, 0] and len(problems) == 3
    assert "neither old nor new" in problems[0] and "within the call" in problems[1]
    assert run_traced(lambda: fail(start), start).error == "ValueError: no file of mine"


def test_calls_of_every_language_count(tmp_path):
    torch, numpy = pytest.importorskip("torch"), pytest.importorskip("safetensors.numpy")
    import numpy as np

    folder = tmp_path.resolve()
    for write in (
        lambda: (folder / "python").write_text("a"),
        lambda: torch.save({"a": torch.ones(2)}, folder / "cpp.bin"),
        lambda: numpy.save_file({"a": np.ones(2)}, folder / "rust.safetensors"),
    ):
        calls = run_traced(write, folder).calls
        assert calls[0] == "openat" and set(calls) & {"write", "writev", "pwrite64"}
        assert run_traced(write, folder, Fault.KILL, 0).is_killed
        assert run_traced(write, folder, Fault.FULL, 0).error


@pytest.mark.parametrize("names", [("export over an old one",), ("convert",), ("export pickle-free",)])
@pytest.mark.slow
def test_killed_operations_leave_old_or_new(tmp_path, names):
    rows, problems = strike(tmp_path, names, points=3, faults=KILLS)
    assert not problems and sum(row[2] for row in rows) == 6


@pytest.mark.parametrize("names", [("restore",), ("export rooms",)])
def test_a_full_or_read_only_disk_is_told_and_changes_nothing(tmp_path, names):
    rows, problems = strike(tmp_path, names, points=2, faults=(Fault.FULL, Fault.READ_ONLY))
    assert not problems and sum(row[2] for row in rows) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_calls_of_every_operation(name):
    """At points that lie evenly; `python -m crash.run` strikes every call, which takes an hour.

    In a process of its own: PyTorch trains in no fork of a process that has trained.
    """
    command = [sys.executable, "-m", "crash.run", name, "--points", "3"]
    paths = os.pathsep.join(map(str, (TESTS.parent, TESTS)))
    environment = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([line for line in done.stdout.splitlines() if line.startswith(f"| {name} ")]) == 4
