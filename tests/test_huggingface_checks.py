"""The table of HUGGINGFACE_CHECKS.md names tests that exist."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TABLE = REPOSITORY / "tests" / "HUGGINGFACE_CHECKS.md"
NUM_CHECKS = 45


def rows() -> dict[int, list[tuple[str, str]]]:
    """By number of the check, pairs of file and test name; a name without a file belongs to the file before it."""
    found: dict[int, list[tuple[str, str]]] = {}
    for number, tests in re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE):
        file, pairs = "", []
        for reference in re.findall(r"`([^`]+)`", tests):
            path, _, name = reference.partition("::")
            file = path or file
            pairs.append((file, name))
        found[int(number)] = pairs
    return found


def test_every_check_has_a_test():
    table = rows()
    assert sorted(table) == list(range(1, NUM_CHECKS + 1))
    assert all(table.values())


def test_every_named_test_exists():
    missing = []
    for number, pairs in rows().items():
        for file, name in pairs:
            path = REPOSITORY / file
            if not path.exists() or (name and f"def {name}(" not in path.read_text(encoding="utf-8")):
                missing.append(f"{number}: {file}::{name}")
    assert missing == []
