"""Run a study: do what is not done, side by side, and report."""

import dataclasses
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from processing.rooms import load_rooms
from processing.writing import write_json, write_text

from .baselines import score_baselines
from .files import RunFiles, baselines_name
from .models import study_grid
from .page import write_report
from .recipe import Study
from .results import collect_runs, find_baselines
from .rooms import store_rooms
from .run import open_split, store_questions
from .summary import Summary, summarise_study
from .tables import format_tables

__all__ = ["Job", "find_missing", "prepare", "report", "run_jobs", "run_study", "select"]

logger = logging.getLogger("emergence")

REPOSITORY = Path(__file__).parents[2]
BASELINE_ROOMS = 600  # rooms that predictors without sight are fitted on: more than any model has questions for
LOG_TAIL = 1500  # characters of a failed run's log that are shown
POLL_SECONDS = 0.2
SINGLE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that is still to be done.

    Args:
        arm: Name of the arm.
        seed: Seed of the run.
        log: File that takes what the run says.
        command: Words that start it.
        shared: File of weights that it makes, or takes if they are there; None: it shares none.
    """

    arm: str
    seed: int
    log: Path
    command: tuple[str, ...]
    shared: Path | None = None

    @property
    def name(self) -> str:
        """Arm and seed."""
        return f"{self.arm}, seed {self.seed}"


def select(study: Study, arms: Sequence[str] | None, seeds: Sequence[int] | None) -> Study:
    """Return the study with some of its arms and seeds.

    Raises:
        ValueError: If it does not have them, an arm has none of the seeds, or the control is left out.
    """
    arms, known = list(arms or study.rows), study.all_seeds()
    if unknown := sorted({*arms} - {*study.rows}) + sorted({*(seeds or ())} - {*known}):
        raise ValueError(f"The study has no {unknown}; its arms are {list(study.rows)}, its seeds {known}.")
    if study.control not in arms:
        raise ValueError(f"All arms are compared with {study.control!r}: name it among the arms.")
    chosen = {name: arm for name, arm in study.rows.items() if name in arms}
    pairs = tuple(pair for pair in study.pairs if set(pair) <= set(chosen))
    if seeds:
        for name, arm in chosen.items():
            own = tuple(seed for seed in arm.more_seeds if seed in seeds)
            chosen[name] = dataclasses.replace(arm, more_seeds=own)
    shared = tuple(seed for seed in study.seeds if not seeds or seed in seeds)
    part = dataclasses.replace(study, rows=chosen, seeds=shared, pairs=pairs)
    if idle := [name for name in chosen if not part.seeds_of(name)]:
        raise ValueError(f"Arms {idle} have none of the seeds {seeds}: leave them out by --arms.")
    return part


def run_command(study: Study, recipe: str, *words: str) -> tuple[str, ...]:
    """Return the words that start a run."""
    return (sys.executable, "-m", "examples.emergence.run", recipe, *words, "--output-dir", study.output_dir)


def find_missing(study: Study, recipe: str, split: str) -> list[Job]:
    """Return the runs without a result for a split, those of a seed together.

    Raises:
        ValueError: If a finished run has other settings than the study.
    """
    known = {(run["row"], run["seed"]) for run in collect_runs(study, split)}
    jobs = []
    for arm, seed in study.runs():
        if (arm, seed) in known:
            continue
        files = RunFiles(Path(study.output_dir), arm, seed)
        command = run_command(study, recipe, "--arm", arm, "--seed", str(seed), "--split", split)
        pool = files.pool(study.pool_settings(study.rows[arm])) if study.rows[arm].pool else None
        jobs.append(Job(arm, seed, files.folder / f"{split}.log", command, pool))
    return jobs


def start(job: Job) -> subprocess.Popen:
    """Start a run with one thread; what it says goes to its log."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **SINGLE_THREAD, "PYTHONPATH": os.pathsep.join(paths)}
    with job.log.open("ab") as log:
        return subprocess.Popen(job.command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def run_jobs(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, bool, float]]:
    """Run jobs side by side; yield each as it ends.

    With it come whether it went well, and its seconds.

    A job waits while another one makes the weights that both share. Runs that go on when the caller stops are ended:
    what they have kept on disk is whole.
    """
    waiting, running = list(jobs), {}
    try:
        while waiting or running:
            for job in list(waiting):
                is_made = job.shared is None or job.shared.is_file()
                if len(running) < workers and (is_made or all(job.shared != other.shared for other in running)):
                    waiting.remove(job)
                    running[job] = start(job), time.monotonic()
            for job, (process, begun) in list(running.items()):
                if process.poll() is not None:
                    del running[job]
                    yield job, process.returncode == 0, time.monotonic() - begun
            time.sleep(POLL_SECONDS)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()


def prepare(study: Study, recipe: str, split: str) -> None:
    """Make what all runs share: rooms, questions, scores without sight, and lessons.

    Raises:
        RuntimeError: If the lessons failed.
    """
    output = Path(study.output_dir)
    store_rooms(output / "rooms", "train", study.num_rooms, study_grid(study), study.num_frames)
    store_questions(study, split)
    path = output / baselines_name(study, split)
    if not path.is_file():
        train = load_rooms("train", study.num_rooms, image_size=study.image_size, num_frames=study.num_frames)
        fit = [train[index] for index in range(min(BASELINE_ROOMS, len(train)))]
        write_json(path, score_baselines(fit, open_split(study, split)))
    if not RunFiles(output, "", 0).lesson.is_file():
        logger.info("The lessons that all runs share")
        job = Job("lesson", 0, output / "lesson.log", run_command(study, recipe))
        for _, is_good, _ in run_jobs([job], 1):
            if not is_good:
                raise RuntimeError(describe_failure(job))


def describe_failure(job: Job) -> str:
    """Return name and last words of a run that failed."""
    return f"{job.name} failed; the end of {job.log}:\n{job.log.read_text(errors='replace')[-LOG_TAIL:]}"


def run_study(study: Study, recipe: str, split: str, workers: int) -> list[str]:
    """Do what is not done, report after every run, and return the failed ones.

    Raises:
        ValueError: If a finished run has other settings than the study.
        RuntimeError: If the lessons failed.
    """
    jobs = find_missing(study, recipe, split)
    if jobs:
        prepare(study, recipe, split)
    failed, spent = [], []
    bar = tqdm(total=len(jobs), desc="Runs", unit="run", disable=None)
    for job, is_good, seconds in run_jobs(jobs, workers):
        bar.update()
        if not is_good:
            failed.append(job.name)
            logger.error("%s", describe_failure(job))
            continue
        spent.append(seconds)
        left = len(jobs) - len(spent) - len(failed)
        minutes = sum(spent) / len(spent) * -(-left // workers) / 60
        logger.info("%s: done in %.0f s; about %.0f minutes left for %d runs", job.name, seconds, minutes, left)
        report(study, split)
    bar.close()
    return failed


def report(study: Study, split: str) -> Summary | None:
    """Write tables, plots and page of the runs that are done.

    Returns the summary, None if there are no runs.

    Raises:
        ValueError: If a finished run has other settings than the study.
    """
    runs = collect_runs(study, split)
    if not runs:
        return None
    output = Path(study.output_dir)
    summary = summarise_study(study, split, runs, find_baselines(study, split))
    write_json(output / "summary.json", summary, indent=None)
    write_text(output / "tables.md", format_tables(summary))
    write_report(summary, output)
    return summary
