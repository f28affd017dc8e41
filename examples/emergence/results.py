"""Collect results of runs: those of the output folder, and kept ones.

Kept results of a split lie in one file, `SPLIT.json.xz`. All runs of a study have the same rooms and questions, so
that together they take a tenth of what they take one by one.
"""

import json
import logging
import lzma
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from processing.writing import write_bytes

from ..storage import load_json
from .files import ADVICE, RunFiles, baselines_name, check_settings, describe_run
from .recipe import Entries, Study

__all__ = [
    "Archive",
    "Baselines",
    "PhaseCost",
    "Run",
    "SplitScores",
    "Training",
    "collect_runs",
    "find_baselines",
    "is_about",
    "keep_results",
    "read_archive",
    "write_archive",
]

logger = logging.getLogger("emergence")

Baselines = Mapping[str, Mapping[str, float | None]]  # shares of right answers by metric and predictor


class PhaseCost(TypedDict):
    """Steps, seconds and losses of a phase.

    An entry of `history` has `step` and the logged losses.
    """

    steps: int
    seconds: float
    cpu_seconds: float
    history: list[dict[str, float]]


class Training(TypedDict):
    """Content of `training.json` of a run.

    `parameters` has the numbers in `training` and in the `export`.
    """

    row: str
    seed: int
    settings: Entries
    phases: dict[str, PhaseCost]
    parameters: dict[str, int]


class SplitScores(TypedDict):
    """Content of `SPLIT.json` of a run, see `scores.score_split`.

    Results of early runs have no `first_room`.
    """

    row: str
    seed: int
    split: str
    first_room: int
    rooms: int
    hits: dict[str, str]
    counts: dict[str, str]
    accuracy: dict[str, float]
    probes: dict[str, dict]
    seconds: dict[str, float]


class Run(TypedDict):
    """A run that is done: arm and seed, how it was trained, and its scores."""

    row: str
    seed: int
    training: Training
    result: SplitScores


class Archive(TypedDict):
    """Content of `SPLIT.json.xz`: runs, and scores without sight by the name of their file."""

    runs: list[Run]
    baselines: dict[str, Baselines]


def collect_runs(study: Study, split: str) -> list[Run]:
    """Return the runs that are done, in the order of the study.

    Raises:
        ValueError: If a run was done with other settings or asked about other rooms, or a result is damaged.
    """
    known = {} if study.known_results is None else known_runs(Path(study.known_results), split)
    found: list[Run] = []
    for arm, seed in study.runs():
        files, settings = RunFiles(Path(study.output_dir), arm, seed), describe_run(study, study.rows[arm])
        check_settings(files.training, settings)
        if files.training.is_file() and files.result(split).is_file():
            result: SplitScores = load_json(files.result(split), ADVICE)
            if not is_about(study, split, result):
                raise ValueError(
                    f"{files.result(split)} is about other rooms than the {study.num_scored(split)} from "
                    f"{study.first_scored(split)} on. Give the study another `output_dir`, or remove what is there."
                )
            found.append({"row": arm, "seed": seed, "training": load_json(files.training, ADVICE), "result": result})
        elif (arm, seed) in known:
            run = known[arm, seed]
            if run["training"]["settings"] == settings and is_about(study, split, run["result"]):
                found.append(run)
            else:
                logger.warning(
                    "%s, seed %d, of %s is left out: it has other settings, or is about other rooms.",
                    arm,
                    seed,
                    study.known_results,
                )
    return found


def is_about(study: Study, split: str, result: SplitScores) -> bool:
    """Return whether a result is about the rooms of the study.

    Early results are told by the number of rooms alone.
    """
    first = study.first_scored(split)
    return result["rooms"] == study.num_scored(split) and result.get("first_room", first) == first


def archive_path(folder: Path, split: str) -> Path:
    """Return the path of the kept results of a split."""
    return folder / f"{split}.json.xz"


def read_archive(folder: Path, split: str) -> Archive:
    """Return the kept results of a split, none where there is no file.

    Raises:
        ValueError: If the file is damaged.
    """
    path = archive_path(folder, split)
    if not path.is_file():
        return {"runs": [], "baselines": {}}
    try:
        return json.loads(lzma.decompress(path.read_bytes()))
    except (lzma.LZMAError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}. {ADVICE}") from error


def write_archive(folder: Path, split: str, archive: Archive) -> Path:
    """Write the kept results of a split and return the file.

    Equal results give equal bytes.
    """
    runs = sorted(archive["runs"], key=lambda run: (run["seed"], run["row"]))
    content = json.dumps({"runs": runs, "baselines": archive["baselines"]}, separators=(",", ":"))
    path = archive_path(folder, split)
    write_bytes(path, lzma.compress(content.encode(), preset=9 | lzma.PRESET_EXTREME))
    return path


def known_runs(folder: Path, split: str) -> dict[tuple[str, int], Run]:
    """Return the kept runs by arm and seed.

    Earlier versions kept each run in a JSON file; these are taken too.
    """
    runs: list[Run] = [load_json(path, ADVICE) for path in sorted(folder.glob(f"{split}-seed*-*.json"))]
    runs += read_archive(folder, split)["runs"]
    return {(run["row"], run["seed"]): run for run in runs}


def find_baselines(study: Study, split: str) -> Baselines:
    """Return the scores without sight, of the output folder or kept, else none."""
    name = baselines_name(study, split)
    paths = [Path(folder, name) for folder in (study.output_dir, study.known_results) if folder is not None]
    for path in paths:
        if path.is_file():
            return load_json(path, ADVICE)
    return (
        {}
        if study.known_results is None
        else read_archive(Path(study.known_results), split)["baselines"].get(name, {})
    )


def keep_results(study: Study, split: str, folder: Path) -> int:
    """Add the results that are done, without weights, to a folder for `known_results`.

    Returns:
        Number of these runs.
    """
    runs, archive = collect_runs(study, split), read_archive(folder, split)
    kept = {(run["row"], run["seed"]): run for run in [*archive["runs"], *runs]}
    baselines = find_baselines(study, split)
    own = {baselines_name(study, split): baselines} if baselines else {}
    write_archive(folder, split, {"runs": list(kept.values()), "baselines": {**archive["baselines"], **own}})
    return len(runs)
