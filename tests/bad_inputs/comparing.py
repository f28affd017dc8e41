"""Cases of the comparison of finished evaluations."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs.cases import door
from bad_inputs.commands import run
from bad_inputs.damage import JSON_FILES, PATHS, make_fifo

FILES = ("results.json", "scene_scores.json")
FACTS = {"task": "scanqa", "split": "val", "mode": "rgb_only", "protocol": "clean", "main_score": "em"}


def write_run(folder: Path) -> Path:
    """Write what an evaluation of six scenes writes."""
    from trainer.evaluation.metrics.scores import mean_score, summarise

    folder.mkdir()
    values = np.arange(12) % 2
    scores = {"em": mean_score(values)}
    found = summarise(scores, [f"scene{number // 2}" for number in range(12)], jackknife=True)
    by_scene = {"clean": found.pop("jackknife")}
    samples = {str(number): float(value) for number, value in enumerate(values)}
    (folder / FILES[0]).write_text(json.dumps({**FACTS, "scores": {"clean": found}}))
    (folder / FILES[1]).write_text(json.dumps({"samples": samples, "protocols": by_scene}))
    return folder


def compare(folder: Path, /, change: Callable[[Path], Any] = lambda path: None, **given: Any) -> Any:
    """Compare two runs, the second one changed."""
    from trainer.evaluation import compare_runs

    first, second = write_run(folder / "first"), write_run(folder / "second")
    change(second)
    return compare_runs(**{"folders": [first, second], **given})


def edit(file: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Return a function that changes what a file of a run holds."""

    def work(run_folder: Path) -> None:
        content = json.loads((run_folder / file).read_text())
        change(content)
        (run_folder / file).write_text(json.dumps(content))

    return work


@door("comparison of runs", "trainer.evaluation.compare_runs", "ide3d compare")
def comparison(add: Callable[..., None]) -> None:
    add("right: two runs", compare, expect="taken")
    add("right: the command", lambda f: run("compare", write_run(f / "a"), write_run(f / "b")), expect="taken")
    add("compare: nothing given", lambda f: run("compare"), "folder")
    add("compare: unknown option", lambda f: run("compare", "--nonsense", 1), "nonsense")
    add("compare: negative tolerance", lambda f: run("compare", f, f, "--tolerance", -1), "tolerance")
    for file in FILES:
        changes: dict[str, Callable[[Path], Any]] = {
            what: lambda p, c=change, n=file: (p / n).write_bytes(c((p / n).read_bytes()))
            for what, change in JSON_FILES.items()
        }
        changes |= {"missing": lambda p, n=file: (p / n).unlink(), "a pipe": lambda p, n=file: make_fifo(p / n)}
        for what, change in changes.items():
            add(f"{file} {what}", partial(compare, change=change), file, "second")
    entry = lambda c: c["protocols"]["clean"]["scores"]["em"]  # noqa: E731
    for what, change in {
        "other value": lambda c: entry(c).update(value=7), "too few scenes": lambda c: entry(c)["without"].pop(),
        "a text for a score": lambda c: entry(c)["without"].__setitem__(0, "x"), "needs of one rank": lambda c: entry(c).update(needs=[1] * 6),
        "ragged needs": lambda c: entry(c)["needs"].__setitem__(0, [1, 2]), "bounds that fall": lambda c: entry(c).update(bounds=[100, 0]),
        "bounds of texts": lambda c: entry(c).update(bounds=["a", "b"]), "no protocol": lambda c: c.update(protocols={}),
        "protocols a list": lambda c: c.update(protocols=[1]), "samples a list": lambda c: c.update(samples=[1]),
        "a quality of words": lambda c: c["samples"].update({"0": "x"}), "other samples": lambda c: c["samples"].update(more=1.0),
        "no samples": lambda c: c.update(samples={}), "needs NaN": lambda c: entry(c)["needs"].__setitem__(0, [float("nan")]),
    }.items():  # fmt: skip
        add(f"scene_scores.json: {what}", partial(compare, change=edit(FILES[1], change)), FILES[1], "second")
    for what, change in {
        "another task": lambda c: c.update(task="sqa3d"), "another mode": lambda c: c.update(mode="proposals"),
        "no protocol": lambda c: c.pop("protocol"), "scores a list": lambda c: c.update(scores=[1]),
        "a task of a list": lambda c: c.update(task=[1]),
    }.items():  # fmt: skip
        add(f"results.json: {what}", partial(compare, change=edit(FILES[0], change)), FILES[0], FILES[1], "second")
    for what, folders in {"none": [], "a number": 5, "None": None, "a mapping": {}, "of numbers": [1, 2]}.items():
        add(f"folders {what}", partial(compare, folders=folders), "folders")
    add("folders: one", lambda f: compare(f, folders=[f / "first"]), "folders")
    add("folders: one twice", lambda f: compare(f, folders=[f / "first", f / "first"]), "folders")
    for what, make in PATHS.items():
        add(
            f"folders: second {what}",
            lambda f, m=make: compare(f, folders=[f / "first", m(f)]),
            "folder",
            "results.json",
        )
    for what, value in {
        "negative": -1,
        "NaN": float("nan"),
        "Inf": float("inf"),
        "None": None,
        "text": "x",
        "True": True,
    }.items():
        add(f"tolerance {what}", partial(compare, tolerance=value), "tolerance")
    for what, value in {
        "a text": "mode",
        "unknown": ["nonsense"],
        "of numbers": [5],
        "None": None,
        "a number": 5,
    }.items():
        add(f"differing {what}", partial(compare, differing=value), "differing")
