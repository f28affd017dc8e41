"""Compare finished evaluations of one benchmark: what differs between the runs, and whether their scores do."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from processing.argument_rules import path_text
from processing.limits import load_json
from processing.tables import format_band, format_number, markdown_table
from trainer.evaluation.answer_log import LATER, UNKNOWN, VERSIONS
from trainer.evaluation.metrics.bands import scene_band
from trainer.evaluation.results import SCENE_SCORES
from trainer.field_rules import check_number

__all__ = ["RunComparison", "RunScore", "compare_runs"]

# Facts that say what was asked: answers to other questions are compared only where the caller names these.
ASKED = (
    "split",
    "mode",
    "protocol",
    "variant",
    "frames",
    "num_frames",
    "frame_list_digest",
    "scene_files_digest",
    "samples_digest",
    "prompt_digest",
    "proposals",
    "region_source",
    "skip_invalid_poses",
    "finding",
    "numbers",
    "clicks",
    "max_new_tokens",
    "decoding",
)
OUTCOMES = ("scores", "num_samples", "num_scenes", "main_score", "unparsable")  # of `results.json`, no facts of a run
OF_VERSIONS = (VERSIONS, LATER, "scored_with")
RIGHT = 0.5  # quality of an answer that counts as right, as in reports


@dataclass(frozen=True)
class RunScore:
    """One score of one run beside that of the first run.

    Args:
        score: Name of the score.
        run: Name of the run.
        value: Score of the run, of the unit and range that its metric has; None where nothing was counted.
        band: 95 % band of `value` for other scenes; None for too few.
        difference: `value` minus that of the first run; None for the first run.
        interval: 95 % interval of `difference` for other scenes, paired by scene; None for too few.
        verdict: "same in every scene", "same within" the tolerance, "NAME better", "cannot tell"; empty for the first
            run.
    """

    score: str
    run: str
    value: float | None
    band: tuple[float, float] | None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    verdict: str = ""


@dataclass(frozen=True)
class RunComparison:
    """Runs of one benchmark, side by side.

    Args:
        task: Key of `EVALUATED_TASKS`.
        facts: Split, mode and protocol of the first run.
        runs: Folder of each run by its name.
        num_samples: Number of samples, which are the same in all runs.
        num_scenes: Number of their scenes.
        tolerance: Difference that still counts as the same, in the unit of the scores.
        differences: Values of each run by the name of a fact that is not the same in all.
        scores: Scores in the order of the report, for each of them the runs in their order.
        main_score: Name of the score that papers report first.
        changed: Numbers of answers that are right in a run alone, and in the first run alone, by run.
    """

    task: str
    facts: dict[str, Any]
    runs: dict[str, str]
    num_samples: int
    num_scenes: int
    tolerance: float
    differences: dict[str, list[str]]
    scores: list[RunScore]
    main_score: str
    changed: dict[str, tuple[int, int]]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return asdict(self)

    def as_text(self) -> str:
        """Return tables of what differs and of the scores of the whole split, in Markdown."""
        names = list(self.runs)
        facts = ", ".join(str(value) for value in (self.task, *self.facts.values()))
        parts = [f"{facts}: {self.num_samples} samples in {self.num_scenes} scenes."]
        if self.differences:
            rows = [(key, *values) for key, values in self.differences.items()]
            parts += ["What differs:", markdown_table(("Fact", *names), rows)]
        else:
            parts.append("Nothing that runs record differs.")
        parts.append(
            f"Differences are from {names[0]}, with 95 % intervals over scenes, paired. Tolerance: {self.tolerance:g}."
        )
        head = ("Score", "Run", "Value", "95 % band", "Difference", "95 % interval", "Verdict")
        rows = [_cells(score) for score in self.scores if _is_overall(score.score) or score.score == self.main_score]
        parts.append(markdown_table(head, rows, "llrrrr"))
        lines = [
            f"{name} alone has {ours} answers right, {names[0]} alone {theirs}."
            for name, (ours, theirs) in self.changed.items()
        ]
        return "\n\n".join([*parts, "\n".join(lines)])


@dataclass(frozen=True)
class _Run:
    """Files of a finished run."""

    folder: Path
    results: dict[str, Any]
    samples: dict[str, float]
    protocols: dict[str, Any]


def compare_runs(
    folders: Sequence[str | Path], tolerance: float = 1.0, differing: Sequence[str] = ()
) -> RunComparison:
    """Compare finished evaluations with the first of them, paired by sample and scene.

    Scores are those of the first run's protocol. A difference has an interval for other scenes of the same kind: it is
    that of `scene_band`, made from both runs without the same scene. The verdict on it is

    - "same in every scene" where no scene changes it,
    - "same within" the tolerance where the interval lies between minus and plus the tolerance,
    - "NAME better" where the interval lies on one side of zero; higher scores are better,
    - "cannot tell" otherwise, and for too few scenes.

    Args:
        folders: Output folders of two or more runs.
        tolerance: Difference that still counts as the same, in the unit of the scores: points of percent.
        differing: Names of facts about what was asked that may differ, such as "mode".

    Raises:
        TypeError: If an argument is of another type.
        FileNotFoundError: If a folder holds no scored run, or one of a version that kept no scores by scene.
        ValueError: If the runs are of other tasks or samples, or were asked in other ways that `differing` does not
            name. Also if `tolerance` is negative or not finite, or a file is not what a run writes.
    """
    runs = _read_runs(folders)
    check_number("`tolerance`", tolerance)
    first, *others = runs.values()
    differences = _find_differences(list(runs.values()))
    _check_asked(runs, differences, differing)
    protocol = first.results["protocol"]
    tables = {name: _scores_of(run, protocol) for name, run in runs.items()}
    shared = [score for score in next(iter(tables.values())) if all(score in table for table in tables.values())]
    scores = []
    for score in sorted(shared, key=lambda name: not _is_overall(name)):
        scores += _compare_score(score, {name: table[score] for name, table in tables.items()}, float(tolerance))
    return RunComparison(
        task=first.results["task"],
        facts={key: first.results.get(key) for key in ("split", "mode", "protocol")},
        runs={name: str(run.folder) for name, run in runs.items()},
        num_samples=len(first.samples),
        num_scenes=len(first.protocols[protocol]["scenes"]),
        tolerance=float(tolerance),
        differences=differences,
        scores=scores,
        main_score=first.results["main_score"],
        changed={name: _count_changed(run, first) for name, run in list(runs.items())[1:]},
    )


def _compare_score(score: str, parts: Mapping[str, Mapping[str, Any]], tolerance: float) -> list[RunScore]:
    """Return a score of each run; `parts` are those of `summarise` by run."""
    baseline, ours = next(iter(parts.items()))
    rows = []
    for name, other in parts.items():
        value = other["value"]
        band = None if value is None else scene_band(*_arguments(other))
        if name == baseline or None in (value, ours["value"]):
            rows.append(RunScore(score, name, value, band))
            continue
        difference, without, needs, bounds = _subtract(_arguments(other), _arguments(ours))
        interval = scene_band(difference, without, needs, bounds)
        is_same = other == ours
        verdict = _judge(interval, tolerance, is_same, better=name, worse=baseline)
        rows.append(RunScore(score, name, value, band, difference, interval, verdict))
    return rows


def _subtract(ours: tuple, theirs: tuple) -> tuple:
    """Return the arguments of `scene_band` for the difference of two scores."""
    bounds = None
    if ours[3] and theirs[3]:
        bounds = ours[3][0] - theirs[3][1], ours[3][1] - theirs[3][0]
    return ours[0] - theirs[0], ours[1] - theirs[1], np.hstack([ours[2], theirs[2]]), bounds


def _judge(interval: tuple[float, float] | None, tolerance: float, is_same: bool, *, better: str, worse: str) -> str:
    """Return the verdict on a difference."""
    if is_same:
        return "same in every scene"
    if interval is None:
        return "cannot tell: too few scenes"
    low, high = interval
    if -tolerance <= low and high <= tolerance:
        return f"same within {tolerance:g}"
    if low > 0 or high < 0:
        return f"{better if low > 0 else worse} better"
    return "cannot tell"


def _cells(row: RunScore) -> tuple[str, ...]:
    interval = "" if row.difference is None else format_band(row.interval or (None, None))
    difference = "" if row.difference is None else format_number(row.difference, sign=True)
    band = format_band(row.band or (None, None))
    return (row.score, row.run, format_number(row.value), band, difference, interval, row.verdict)


def _is_overall(score: str) -> bool:
    """Return whether a score is of all samples, not of one type of them."""
    return "/" not in score or score.startswith("leo/")


def _count_changed(run: _Run, first: _Run) -> tuple[int, int]:
    """Return how many answers are right in each of two runs alone."""
    pairs = [(run.samples[name] >= RIGHT, first.samples[name] >= RIGHT) for name in first.samples]
    return sum(ours and not theirs for ours, theirs in pairs), sum(theirs and not ours for ours, theirs in pairs)


def _find_differences(runs: Sequence[_Run]) -> dict[str, list[str]]:
    """Return the facts that are not the same in all runs, with all values."""
    rows = [_list_facts(run.results) for run in runs]
    keys = [key for key in dict.fromkeys(key for row in rows for key in row)]
    missing = object()
    return {
        key: [_tell(row[key]) if key in row else UNKNOWN for row in rows]
        for key in keys
        if any(row.get(key, missing) != rows[0].get(key, missing) for row in rows)
    }


def _list_facts(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a run, libraries one by one."""
    facts = {key: value for key, value in results.items() if key not in (*OUTCOMES, *OF_VERSIONS)}
    for number, versions in enumerate([results.get("versions"), *(results.get("later_versions") or [])]):
        if isinstance(versions, dict):
            later = f", later answers {number}" if number else ""
            facts |= {f"{name}{later}": value for name, value in versions.items()}
    if isinstance(scored := results.get("scored_with"), dict):
        facts |= {f"{name}, scores": value for name, value in scored.items()}
    return facts


def _tell(value: Any) -> str:
    return "none" if value is None else str(value)


def _check_asked(runs: Mapping[str, _Run], differences: Mapping[str, Sequence[str]], differing: Sequence[str]) -> None:
    """Raise ValueError for runs that were asked something else, which `differing` does not name."""
    if isinstance(differing, str) or not isinstance(differing, Sequence):
        raise TypeError(f"`differing` must be a list of names, got {differing!r:.100}.")
    unknown = [name for name in differing if name not in ASKED]
    if unknown:
        raise ValueError(f"`differing` must name facts among {', '.join(ASKED)}, got {unknown[0]!r:.100}.")
    first_name, first = next(iter(runs.items()))
    for name, run in runs.items():
        if run.results["task"] != first.results["task"]:
            raise ValueError(
                f"{first_name} is of {first.results['task']}, {name} of {run.results['task']}: compare runs of one "
                "task."
            )
        if run.samples.keys() != first.samples.keys():
            lost, more = first.samples.keys() - run.samples.keys(), run.samples.keys() - first.samples.keys()
            raise ValueError(
                f"{name} lacks {len(lost)} samples of {first_name}, and has {len(more)} others, such as "
                f"{min(lost or more)!r}: compare runs over the same samples."
            )
    refused = [key for key in ASKED if key in differences and key not in differing]
    if refused:
        told = "; ".join(f"{key}: {', '.join(differences[key])}" for key in refused)
        words = " ".join(f"--differing {key}" for key in refused)
        raise ValueError(
            f"{' and '.join(runs)} were not asked the same ({told}). To compare them nevertheless, name what differs: "
            f"{words}"
        )


def _read_runs(folders: Sequence[str | Path]) -> dict[str, _Run]:
    """Return the runs by the names of their folders, or by paths where two agree."""
    if isinstance(folders, (str, Path)) or not isinstance(folders, Sequence):
        raise TypeError(f"`folders` must be a list of folders, got {folders!r:.100}.")
    paths = [Path(path_text(folder, "folders")) for folder in folders]
    if len(paths) < 2 or len(set(map(os.path.realpath, paths))) < len(paths):
        raise ValueError(
            f"`folders` must name two or more runs, each once, got {[str(path) for path in paths]!r:.200}."
        )
    names = [os.path.basename(os.path.realpath(path)) for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return {name: _read_run(path) for name, path in zip(names, paths, strict=True)}


def _read_run(folder: Path) -> _Run:
    files = [folder / "results.json", folder / SCENE_SCORES]
    for file in files:
        if not file.exists():
            raise FileNotFoundError(
                f"There is no {file.name} in {folder}: give the output folder of `ide3d evaluate`. A run that was "
                "not scored, or scored by version 0.1, is scored by its command, without --answer-only."
            )
    results, by_scene = (load_json(file) for file in files)
    by_scene = by_scene if isinstance(by_scene, dict) else {}
    run = _Run(folder, results, by_scene.get("samples"), by_scene.get("protocols"))
    _check_files(run)
    return run


def _check_files(run: _Run) -> None:
    """Raise ValueError for files that no run writes, or that were not written together."""
    results, where = run.results, run.folder / "results.json"
    texts = ("task", "protocol", "main_score")
    if not isinstance(results, dict) or not all(isinstance(results.get(key), str) for key in texts):
        raise ValueError(f"{where} is not what an evaluation writes: expected an object with {', '.join(texts)}.")
    where = run.folder / SCENE_SCORES
    samples = run.samples
    if not isinstance(samples, dict) or not samples or not all(_is_number(quality) for quality in samples.values()):
        raise ValueError(f"{where} is not what an evaluation writes: `samples` must hold a number for each sample.")


def _scores_of(run: _Run, protocol: str) -> dict[str, Any]:
    """Return the parts of each score in a protocol, checked."""
    where = run.folder / SCENE_SCORES
    try:
        part = run.protocols[protocol]
        scenes, scores = len(part["scenes"]), part["scores"]
        reported = run.results["scores"][protocol]
        for name, entry in scores.items():
            value, without, needs, _ = _arguments(entry)
            if without.shape != (scenes,) or needs.ndim != 2 or len(needs) != scenes or not np.isfinite(needs).all():
                raise ValueError(f"{name} must have numbers for each of {scenes} scenes")
            if reported.get(name) != entry["value"]:
                raise ValueError(f"{name} is {entry['value']!r:.40}, in results.json {reported.get(name)!r:.40}")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where} is not what an evaluation writes, or not of this run ({type(error).__name__}: {error}). Run the "
            "same `ide3d evaluate` command again: it scores the stored answers."
        ) from error
    return scores


def _arguments(entry: Mapping[str, Any]) -> tuple[float, np.ndarray, np.ndarray, tuple[float, float] | None]:
    """Return the arguments of `scene_band` from what a file holds; NaN for null."""
    value = math.nan if entry["value"] is None else float(entry["value"])
    without = np.array(entry["without"], np.float64)  # null becomes NaN
    needs = np.array(entry["needs"], np.float64)
    bounds = entry["bounds"]
    if bounds is not None:
        low, high = (float(end) for end in bounds)
        if not low < high:
            raise ValueError(f"bounds must rise, got {low} and {high}")
        bounds = low, high
    return value, without, needs, bounds


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
