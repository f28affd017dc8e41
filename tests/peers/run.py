"""Runs Transformers' own tests on our classes, and prints how many pass: `PYTHONPATH=tests python -m peers.run`."""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

TESTERS = Path(__file__).parent / "testers"
FILES = tuple(sorted(file.stem for file in TESTERS.glob("peer_*.py")))


@dataclass
class Results:
    """Names of the tests of one class, by outcome; those of a failure have its last line."""

    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def run_file(name: str, *options: str) -> dict[str, Results]:
    """Run a file of testers in a process of its own; results by class.

    Raises:
        RuntimeError: The tests could not be run.
    """
    root = TESTERS.parents[2]
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(TESTERS)]
        command += [
            "--confcutdir",
            str(TESTERS),
            "--import-mode=importlib",
            "-p",
            "peers.plugin",
            "-p",
            "no:cacheprovider",
        ]
        command += [f"--junit-xml={report}", *options, str(TESTERS / f"{name}.py")]
        paths = os.pathsep.join((str(root), str(root / "tests")))
        environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "PYTEST_ADDOPTS": ""}
        run = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True)
        if run.returncode not in (0, 1) or not report.is_file():
            raise RuntimeError(f"{name} could not be run:\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
        cases = ElementTree.parse(report).getroot().iter("testcase")
        return sort_cases(cases)


def sort_cases(cases) -> dict[str, Results]:
    """Outcomes by class. A test that runs on every class in turn may skip some of them: it is skipped then."""
    results: dict[str, Results] = {}
    for case in cases:
        found = results.setdefault(case.attrib["classname"].rpartition(".")[2], Results())
        broken = [child for child in case if child.tag in ("failure", "error")]
        if broken:
            message = broken[0].attrib.get("message", "").strip().splitlines()
            found.failed[case.attrib["name"]] = message[0] if message else ""
        elif any(child.tag == "skipped" for child in case):
            found.skipped.append(case.attrib["name"])
        else:
            found.passed.append(case.attrib["name"])
    return results


def main() -> None:
    for name in FILES:
        for tester, results in run_file(name, *sys.argv[1:]).items():
            counts = f"{len(results.passed)} passed, {len(results.failed)} failed, {len(results.skipped)} skipped"
            sys.stdout.write(f"{tester}: {counts}\n")
            for test, message in sorted(results.failed.items()):
                sys.stdout.write(f"  {test}: {message}\n")


if __name__ == "__main__":
    main()
