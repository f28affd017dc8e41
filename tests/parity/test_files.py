"""The table of this folder's README: every golden file has a row, and every row has tests that read the file."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

pytestmark = pytest.mark.parity

FOLDER = Path(__file__).parent
DESCRIPTIONS = {"README.md", "MANIFEST.json"}


def rows() -> list[tuple[list[str], list[str]]]:
    """File patterns and test files of each row."""
    table = re.search(r"(?:^\|.*\n)+", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE)[0]
    cells = [line.strip("|\n ").split(" | ") for line in table.splitlines()[2:]]
    return [(re.findall(r"`([^`]+)`", row[0]), re.findall(r"`(test_\w+\.py)`", row[2])) for row in cells]


def test_every_golden_file_has_a_row(golden_path):
    folder = golden_path("MANIFEST.json").parent
    patterns = [pattern for row, _ in rows() for pattern in row]
    files = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    assert [f for f in files if f not in DESCRIPTIONS and not any(fnmatch(f, p) for p in patterns)] == []


def test_every_row_names_tests_that_read_its_files():
    for patterns, tests in rows():
        sources = [(FOLDER / test).read_text(encoding="utf-8") for test in tests]
        for pattern in patterns if tests else []:
            stem = re.split(r"[.*/]", pattern)[0]
            assert any(stem in source for source in sources), (pattern, tests)
    named = {test for _, tests in rows() for test in tests}
    assert {file.name for file in FOLDER.glob("test_*.py")} - {Path(__file__).name} == named
