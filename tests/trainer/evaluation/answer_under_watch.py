"""Answer tasks in a process that fails on every attempt to open a file of geometry.

    python answer_under_watch.py RUNS

RUNS is JSON: a list of settings of `EvaluationSettings`. A run that holds "must_fail": true is expected to be refused.
Prints, as JSON, the attempts of each run, and exits with 1 if one was made, or none where one was expected.
"""

import json
import sys
from pathlib import Path

watched: list[Path] = []
attempts: list[str] = []


def is_allowed(path: Path) -> bool:
    """Whether a file of a benchmark folder holds frames or questions."""
    return path.suffix == ".jpg" or (path.parent.name == "processed" and path.suffix == ".json") or path.is_dir()


def watch(event: str, arguments: tuple) -> None:
    """Refuse what is opened in a watched folder and is no frame or question, whether it exists or not."""
    if event != "open" or not watched or not isinstance(arguments[0], (str, bytes)):
        return
    path = Path(arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]).absolute()
    if any(path.is_relative_to(folder) for folder in watched) and not is_allowed(path):
        attempts.append(str(path))
        raise PermissionError(f"{path} is geometry, and may not be opened to answer.")


def main() -> None:
    """Run all, and tell the attempts."""
    sys.addaudithook(watch)
    from trainer.evaluation import EvaluationSettings, run_evaluation

    told, has_failed = [], False
    for row in json.loads(Path(sys.argv[1]).read_text()):
        must_fail = row.pop("must_fail", False)
        watched[:] = [Path(row["data"]).resolve()]
        attempts.clear()
        try:
            run_evaluation(EvaluationSettings(**row))
        except PermissionError:
            if not must_fail:
                raise
        told.append(list(attempts))
        has_failed |= bool(attempts) != must_fail
    sys.stdout.write(json.dumps(told))
    sys.exit(int(has_failed))


if __name__ == "__main__":
    main()
