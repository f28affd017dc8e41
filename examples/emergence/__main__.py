"""Does 3D emerge? Trains rows of losses on several seeds and says which answers and which tokens they change.

    python -m examples.emergence examples/recipes/emergence_small.yaml
    python -m examples.emergence examples/recipes/emergence.yaml --split test
    python -m examples.emergence examples/recipes/emergence.yaml --rows exposure all --seeds 9 10

Each run is a process with one thread and a folder of its own; what is done is not done again. The tables, the plots
and one page for a browser lie in the output folder of the recipe, after every run.
"""

import argparse
import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from processing.rooms import load_rooms

from .files import RunFiles, baselines_name, load_json, write_json
from .recipe import SPLITS, Study, read_study
from .report import write_report
from .rooms import store_rooms
from .run import open_split, store_questions, study_grid
from .scores import score_baselines
from .tables import collect_runs, format_tables, summarise_study

__all__ = ["Job", "find_missing", "keep_results", "report", "run_jobs", "run_study"]

logger = logging.getLogger("emergence")

BASELINE_ROOMS = 600  # that the predictors without sight are fitted on: more than any model has questions for
LOG_TAIL = 1500  # characters of a failed run's log that are shown
POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that is still to be done.

    Args:
        row: Name of the row.
        seed: Seed.
        log: Where the run writes what it says.
        command: Words that start it.
        shared: Weights that it makes, or takes if they are there; None: it shares none.
    """

    row: str
    seed: int
    log: Path
    command: tuple[str, ...]
    shared: Path | None = None

    @property
    def name(self) -> str:
        """Row and seed."""
        return f"{self.row}, seed {self.seed}"


def find_missing(study: Study, recipe: str, split: str) -> list[Job]:
    """Runs without a result for a split, those of a seed together.

    Raises:
        ValueError: A finished run has other settings than the study.
    """
    known = {(run["row"], run["seed"]) for run in collect_runs(study, split)}
    jobs = []
    for row, seed in study.runs():
        if (row, seed) in known:
            continue
        files = RunFiles(Path(study.output_dir), row, seed)
        words = (sys.executable, "-m", "examples.emergence.run", str(recipe))
        words += ("--row", row, "--seed", str(seed), "--split", split, "--output-dir", study.output_dir)
        pool = files.pool(study.pool_settings(study.rows[row])) if study.rows[row].pool else None
        jobs.append(Job(row, seed, files.folder / f"{split}.log", words, pool))
    return jobs


def start(job: Job) -> subprocess.Popen:
    """Start a run with one thread; what it says goes to its log."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths)}
    with job.log.open("ab") as log:
        return subprocess.Popen(job.command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def run_jobs(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, bool, float]]:
    """Run jobs side by side; yields each with whether it went well and how many seconds it took, as it ends.

    A job waits while another one makes the weights that both share.

    Runs that go on when the caller stops are ended: what they have kept on disk is whole.
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
    """What all runs share: stored rooms, rooms of the split, the scores without sight, and the first lesson.

    Raises:
        RuntimeError: The lesson failed.
    """
    output = Path(study.output_dir)
    store_rooms(output / "rooms", "train", study.num_rooms, study_grid(study), study.num_frames)
    options = {"image_size": study.image_size, "num_frames": study.num_frames}
    store_questions(study, split)
    path = output / baselines_name(study, split)
    if not path.is_file():
        train = load_rooms("train", study.num_rooms, **options)
        fit = [train[index] for index in range(min(BASELINE_ROOMS, len(train)))]
        write_json(path, score_baselines(fit, open_split(study, split)))
    files = RunFiles(output, "lesson", 0)
    if not files.lesson.is_file():
        logger.info("The lesson that all runs share")
        words = (sys.executable, "-m", "examples.emergence.run", str(recipe))
        job = Job("lesson", 0, output / "lesson.log", (*words, "--output-dir", study.output_dir))
        for _, is_good, _ in run_jobs([job], 1):
            if not is_good:
                raise RuntimeError(describe_failure(job))


def describe_failure(job: Job) -> str:
    """Name and last words of a run that failed."""
    return f"{job.name} failed; the end of {job.log}:\n{job.log.read_text(errors='replace')[-LOG_TAIL:]}"


def run_study(study: Study, recipe: str, split: str, workers: int) -> list[str]:
    """Do what is still to be done, and write the report after every run; returns the names of runs that failed.

    Raises:
        ValueError: A finished run has other settings than the study.
        RuntimeError: The lesson failed.
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


def report(study: Study, split: str) -> dict | None:
    """Write `summary.json`, `tables.md`, plots and `report.html` from the runs that are done; None if there are none.

    Raises:
        ValueError: A finished run has other settings than the study.
    """
    runs = collect_runs(study, split)
    if not runs:
        return None
    output = Path(study.output_dir)
    folders = [output, *filter(None, [study.known_results])]
    paths = (Path(folder, baselines_name(study, split)) for folder in folders)
    baselines = next((path for path in paths if path.is_file()), None)
    summary = summarise_study(study, split, runs, load_json(baselines) if baselines else {})
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "summary.json", summary)
    (output / "tables.md").write_text(format_tables(summary), encoding="utf-8")
    write_report(summary, output)
    return summary


def keep_results(study: Study, split: str, folder: Path) -> int:
    """Copy the results of the runs that are done, without weights, to a folder that `known_results` can name."""
    runs = collect_runs(study, split)
    for run in runs:
        write_json(folder / f"{split}-seed{run['seed']}-{run['row']}.json", run)
    baselines = Path(study.output_dir) / baselines_name(study, split)
    if baselines.is_file():
        write_json(folder / baselines.name, load_json(baselines))
    return len(runs)


def select(study: Study, rows: Sequence[str] | None, seeds: Sequence[int] | None) -> Study:
    """The study with some of its rows and seeds.

    Raises:
        ValueError: It does not have them, a row has none of the seeds, or the control is not among the rows.
    """
    rows, known = list(rows or study.rows), study.all_seeds()
    if unknown := sorted({*rows} - {*study.rows}) + sorted({*(seeds or ())} - {*known}):
        raise ValueError(f"The study has no {unknown}; its rows are {list(study.rows)}, its seeds {known}.")
    if study.control not in rows:
        raise ValueError(f"All rows are compared with {study.control!r}: name it among the rows.")
    chosen = {name: row for name, row in study.rows.items() if name in rows}
    pairs = tuple(pair for pair in study.pairs if set(pair) <= set(chosen))
    if seeds:
        for name, row in chosen.items():
            own = tuple(seed for seed in row.more_seeds if seed in seeds)
            chosen[name] = dataclasses.replace(row, more_seeds=own)
    shared = tuple(seed for seed in study.seeds if not seeds or seed in seeds)
    part = dataclasses.replace(study, rows=chosen, seeds=shared, pairs=pairs)
    if idle := [name for name in chosen if not part.seeds_of(name)]:
        raise ValueError(f"Rows {idle} have none of the seeds {seeds}: leave them out by --rows.")
    return part


def stop(number: int, _: Any) -> None:
    """End as an error does, so that the runs are ended too."""
    sys.exit(128 + number)


def main(words: list[str] | None = None) -> None:
    """Run a study and say what it shows."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="YAML of the study")
    parser.add_argument("--split", choices=SPLITS, default="validation", help="test is opened once, at the end")
    parser.add_argument("--rows", nargs="+", help="some of the rows")
    parser.add_argument("--seeds", nargs="+", type=int, help="some of the seeds")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs side by side")
    parser.add_argument("--output-dir", help="in place of the recipe's")
    parser.add_argument("--report-only", action="store_true", help="train nothing, report what is done")
    parser.add_argument("--keep", metavar="FOLDER", help="copy the results, without weights, to this folder")
    options = parser.parse_args(words)
    signal.signal(signal.SIGTERM, stop)
    changes = {} if options.output_dir is None else {"output_dir": options.output_dir}
    failed: list[str] = []
    try:
        if options.workers < 1:
            raise ValueError(f"workers must be at least 1, got {options.workers}.")
        study = select(read_study(options.recipe, **changes), options.rows, options.seeds)
        if not options.report_only:
            failed = run_study(study, options.recipe, options.split, options.workers)
        summary = report(study, options.split)
        if options.keep is not None:
            logger.info("%d results kept in %s", keep_results(study, options.split, Path(options.keep)), options.keep)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    if summary is None:
        sys.exit(f"error: no run of {options.split} is done in {study.output_dir}.")
    logger.info("%s\nThe report is %s", format_tables(summary), Path(study.output_dir) / "report.html")
    if failed:
        sys.exit(f"error: {len(failed)} runs failed: {'; '.join(failed)}. Their logs lie in their folders.")


if __name__ == "__main__":
    main()
