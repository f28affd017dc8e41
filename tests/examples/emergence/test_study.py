"""A study from its command to its report: what is missing, processes side by side, failures."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.emergence import __main__ as command
from examples.emergence import run, study
from examples.emergence.files import describe_run
from examples.emergence.study import Job

PHASE = {"rooms": 1, "learning_rate": 1e-3, "vision_learning_rate": 1e-3}
REPOSITORY = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_study_is_run_resumed_and_reported(prepare, monkeypatch, tmp_path, caplog):
    reading = {"steps": 1, **PHASE, "rooms": 0, "views": 2, "max_questions": 3}
    path, tiny = prepare(reading=reading, say_boxes=True, answer_jitter=0.2)
    assert study.report(tiny, "validation") is None
    assert [job.name for job in study.find_missing(tiny, str(path), "validation")] == [
        *("exposure, seed 1", "all, seed 1", "exposure, seed 2", "all, seed 2")
    ]

    def run_here(jobs, workers):
        for job in jobs:
            run.main(list(job.command[3:]))
            yield job, True, 1.0

    monkeypatch.setattr(study, "run_jobs", run_here)
    command.main([str(path), "--workers", "1", "--keep", str(tmp_path / "kept")])
    output = Path(tiny.output_dir)
    summary = json.loads((output / "summary.json").read_text())
    assert summary["runs"] == {"done": 4, "planned": 4} and summary["rooms"] == 7
    assert set(summary["rows"]) == {"exposure", "all"} and summary["rows"]["all"]["seeds"] == [1, 2]
    assert summary["baselines"]["position_50"]["mask"] is not None
    assert [(pair["row"], pair["other"]) for pair in summary["differences"]] == [("all", "exposure")]
    assert summary["rows"]["all"]["cost"]["parameters"] == summary["rows"]["exposure"]["cost"]["parameters"]
    layers = {name: arm["probes"]["vision.4"]["read_by_losses"] for name, arm in summary["rows"].items()}
    assert layers == {"exposure": False, "all": True}
    assert not summary["rows"]["all"]["probes"]["language.1"]["read_by_losses"]
    for name in ("answers.png", "differences.png", "probes.png", "report.html", "tables.md"):
        assert (output / name).stat().st_size > 500
    assert "<script" not in (output / "report.html").read_text()

    assert study.find_missing(tiny, str(path), "validation") == []
    kept = dataclasses.replace(tiny, output_dir=str(tmp_path / "elsewhere"), known_results=str(tmp_path / "kept"))
    assert study.find_missing(kept, str(path), "validation") == []
    longer = dataclasses.replace(tiny.questions, steps=3)
    assert len(study.find_missing(dataclasses.replace(kept, questions=longer), str(path), "validation")) == 4
    assert sum("is left out" in record.getMessage() for record in caplog.records) == 4
    with pytest.raises(ValueError, match="other settings of questions"):
        study.find_missing(dataclasses.replace(tiny, questions=longer), str(path), "validation")


def test_arms_can_have_seeds_of_their_own(write_study):
    path, tiny = write_study(rows={"exposure": {"more_seeds": [3, 4]}, "all": {"depth": 1.0, "more_seeds": [3]}})
    jobs = [(job.arm, job.seed) for job in study.find_missing(tiny, str(path), "validation")]
    shared = [(arm, seed) for seed in (1, 2) for arm in ("exposure", "all")]
    assert jobs == [*shared, ("exposure", 3), ("all", 3), ("exposure", 4)]
    assert study.select(tiny, None, [3]).runs() == [("exposure", 3), ("all", 3)]
    assert study.select(tiny, ["exposure"], [4, 1]).runs() == [("exposure", 1), ("exposure", 4)]
    with pytest.raises(ValueError, match="none of the seeds"):
        study.select(tiny, None, [4])
    with pytest.raises(ValueError, match=r"no \[9\]"):
        study.select(tiny, None, [9])
    fewer = dataclasses.replace(tiny.rows["all"], more_seeds=())
    assert describe_run(tiny, tiny.rows["all"]) == describe_run(tiny, fewer)
    with pytest.raises(ValueError, match="more_seeds must be a list of whole numbers"):
        write_study(rows={"exposure": {"more_seeds": 3}})
    with pytest.raises(ValueError, match=r"row all has seeds \[5\] that the control"):
        write_study(rows={"exposure": None, "all": {"more_seeds": [5]}})


def test_unknown_arms_are_refused(write_study):
    _, tiny = write_study()
    assert list(study.select(tiny, ["exposure"], [2]).rows) == ["exposure"]
    with pytest.raises(ValueError, match="The study has no"):
        study.select(tiny, ["nothing", "exposure"], None)
    with pytest.raises(ValueError, match="compared with 'exposure'"):
        study.select(tiny, ["all"], None)


def test_a_run_waits_for_the_weights_that_another_one_makes(tmp_path):
    made = tmp_path / "pool"
    script = "import sys, time, pathlib; time.sleep(0.5); pathlib.Path(sys.argv[1]).touch()"
    makes = Job("all", 1, tmp_path / "a.log", (sys.executable, "-c", script, str(made)), made)
    check = "import sys, pathlib; sys.exit(not pathlib.Path(sys.argv[1]).is_file())"
    takes = Job("all_2", 1, tmp_path / "b.log", (sys.executable, "-c", check, str(made)), made)
    assert [is_good for _, is_good, _ in study.run_jobs([makes, takes], 2)] == [True, True]


def test_processes_run_side_by_side_and_failures_are_told(tmp_path):
    words = {"good": "import os; print(os.environ['OMP_NUM_THREADS'])", "bad": "raise SystemExit('no such thing')"}
    jobs = [Job(name, 1, tmp_path / f"{name}.log", (sys.executable, "-c", w)) for name, w in words.items()]
    ended = {job.arm: is_good for job, is_good, _ in study.run_jobs(jobs, 2)}
    assert ended == {"good": True, "bad": False}
    assert jobs[0].log.read_text() == "1\n"
    assert "no such thing" in study.describe_failure(jobs[1])


def test_processes_end_with_the_study(monkeypatch, tmp_path):
    wait = (sys.executable, "-c", "import time; time.sleep(60)")
    jobs = [Job("quick", 1, tmp_path / "q.log", (sys.executable, "-c", "")), None]
    jobs[1] = Job("slow", 1, tmp_path / "s.log", wait)
    started, start = [], study.start
    monkeypatch.setattr(study, "start", lambda job: started.append(start(job)) or started[-1])
    running = study.run_jobs(jobs, 2)
    next(running)
    running.close()
    assert all(isinstance(process, subprocess.Popen) and process.poll() is not None for process in started)


@pytest.mark.slow
def test_a_forked_process_ends_at_once_when_it_is_told_to():
    """As a worker of `datasets` that waits for a lock, or deletes an object: a handler in Python may never end it."""
    script = """
import multiprocessing, time
from examples.emergence import __main__ as command

class Deleted:
    def __del__(self):
        ready.set()
        time.sleep(600)

def work():
    thing = Deleted()
    del thing

command.stop_on_sigterm()
context = multiprocessing.get_context("fork")
ready = context.Event()
process = context.Process(target=work)
process.start()
ready.wait()
process.terminate()
process.join(20)
print(process.exitcode)
process.kill()
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert ended.stdout.strip() == str(-signal.SIGTERM), ended.stderr


@pytest.mark.slow
def test_a_study_that_is_told_to_end_ends_its_runs(tmp_path):
    pid = tmp_path / "pid"
    wait = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(60)"
    script = f"""
import pathlib, sys
from examples.emergence import __main__ as command
from examples.emergence import study
command.stop_on_sigterm()
job = study.Job("slow", 1, pathlib.Path({str(tmp_path / "log")!r}), (sys.executable, "-c", {wait!r}))
list(study.run_jobs([job], 1))
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    while not (pid.is_file() and pid.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
