"""Does 3D emerge? Train arms of losses on several seeds and compare answers and tokens.

    python -m examples.emergence examples/recipes/emergence_small.yaml
    python -m examples.emergence examples/recipes/emergence.yaml --split test
    python -m examples.emergence examples/recipes/emergence.yaml --arms exposure all --seeds 9 10

Each run is a process with one thread and a folder of its own; what is done is not done again. Tables, plots and one
page for a browser lie in the output folder of the recipe, after every run.
"""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from .recipe import SPLITS, read_study
from .results import keep_results
from .study import report, run_study, select
from .tables import format_tables

__all__ = ["main", "stop_on_sigterm"]

logger = logging.getLogger("emergence")


def stop(number: int, _: FrameType | None) -> None:
    """End as an error does, so that the runs are ended too."""
    sys.exit(128 + number)


def stop_on_sigterm() -> None:
    """Let SIGTERM end this process by `stop`, and processes forked from it at once.

    A worker that renders may wait in C when it is told to end, and a handler in Python would never run.
    """
    signal.signal(signal.SIGTERM, stop)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def parse(words: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.emergence", description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="YAML of the study")
    parser.add_argument("--split", choices=SPLITS, default="validation", help="test is opened once, at the end")
    parser.add_argument("--arms", "--rows", nargs="+", help="some of the arms, by their names among the rows")
    parser.add_argument("--seeds", nargs="+", type=int, help="some of the seeds")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs side by side")
    parser.add_argument("--output-dir", help="in place of the recipe's")
    parser.add_argument("--report-only", action="store_true", help="train nothing, report what is done")
    parser.add_argument("--keep", metavar="FOLDER", help="add the results, without weights, to this folder")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Run a study and say what it shows."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse(words)
    stop_on_sigterm()
    changes = {} if options.output_dir is None else {"output_dir": options.output_dir}
    failed: list[str] = []
    try:
        if options.workers < 1:
            raise ValueError(f"`--workers` must be at least 1, got {options.workers}.")
        study = select(read_study(options.recipe, **changes), options.arms, options.seeds)
        if not options.report_only:
            failed = run_study(study, options.recipe, options.split, options.workers)
        summary = report(study, options.split)
        if options.keep is not None:
            count = keep_results(study, options.split, Path(options.keep))
            logger.info("%d results kept in %s", count, options.keep)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    if summary is None:
        sys.exit(f"error: no run of {options.split} is done in {study.output_dir}.")
    logger.info("%s\nThe report is %s", format_tables(summary), Path(study.output_dir) / "report.html")
    if failed:
        sys.exit(f"error: {len(failed)} runs failed: {'; '.join(failed)}. Their logs lie in their folders.")


if __name__ == "__main__":
    main()
