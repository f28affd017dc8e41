"""Every public name is covered by a door, and bad inputs lead to clear errors at every door."""

import importlib
import tempfile
from pathlib import Path

import pytest
from bad_inputs.cases import GOOD_OUTCOMES, Case, OtherPixelsError, ToldError, judge, run_case
from bad_inputs.doors import DOORS, NO_DOOR, list_commands, list_public_names, uncovered_names

FAST = 2  # Cases of each door that every run of the tests takes.
# Doors whose every case trains, evaluates or converts: seconds each.
SLOW_DOORS = {
    "training arguments",
    "evaluation runner",
    "conversion",
    "recipes",
    "commands",
    "rooms",
    "from_pretrained, damaged folder",
}


def sampled(cases: list[Case], count: int) -> list[Case]:
    """Cases that lie evenly over a door."""
    return cases[:: max(1, len(cases) // count)][:count]


FAST_CASES = [
    case for name, opened in DOORS.items() if name not in SLOW_DOORS for case in sampled(opened.list_cases(), FAST)
]
ALL_CASES = [case for opened in DOORS.values() for case in opened.list_cases()]


class TestDoors:
    def test_every_public_name_has_a_door_or_a_reason(self):
        assert uncovered_names() == []

    def test_every_public_name_exists(self):
        places = [name.rpartition(".") for name in list_public_names()]
        assert [
            f"{place}.{name}" for place, _, name in places if not hasattr(importlib.import_module(place), name)
        ] == []

    def test_every_reason_is_about_a_public_name(self):
        assert sorted(set(NO_DOOR) - set(list_public_names())) == []

    def test_every_command_has_a_door(self):
        covered = {name for opened in DOORS.values() for name in opened.covers}
        assert [name for name in list_commands() if f"ide3d {name}" not in covered] == []

    def test_there_are_enough(self):
        assert len(ALL_CASES) >= 1600 and len(DOORS) >= 23

    def test_names_are_unique(self):
        assert len({(case.door, case.name) for case in ALL_CASES}) == len(ALL_CASES)


class TestJudge:
    """The outcome follows from what was raised, where, and what it says."""

    case = Case("door", "name", lambda folder: None, "refused", ("depth",))

    def raised_by_us(self, text: str) -> Exception:
        from processing.geometry_rules import check_depth

        try:
            check_depth(__import__("numpy").ones((1, 2)), 1)
        except ValueError as error:
            return error.with_traceback(error.__traceback__) if not text else _with_text(error, text)
        raise AssertionError

    def test_our_own_error_that_names_the_argument_is_clear(self):
        assert judge(self.case, self.raised_by_us(""), []).kind == "clear"

    def test_one_that_names_nothing_is_not(self):
        assert judge(self.case, self.raised_by_us("out of range"), []).kind == "unclear"

    def test_a_library_s_error_behind_our_code_is_not(self):
        from processing.token_grid import TokenGrid

        case = Case("door", "name", lambda folder: TokenGrid(object(), 14), "refused", ("int",))
        try:
            import json

            json.loads("depth")
        except ValueError as error:
            assert judge(self.case, error, []).kind == "unclear"  # no built-in type, and another's
        assert case.words == ("int",)

    def test_nothing_said_is_silent(self):
        assert judge(self.case, None, []).kind == "silent"
        assert judge(self.case, None, ["something else"]).kind == "silent"
        assert judge(self.case, None, ["the depth is odd"]).kind == "warned"

    def test_other_pixels_than_were_written_have_to_be_told(self):
        either = Case("door", "name", lambda folder: None, "either", ("depth",))
        assert judge(either, OtherPixelsError("they differ"), []).kind == "silent"
        assert judge(either, OtherPixelsError("they differ"), ["the depth is odd"]).kind == "warned"

    def test_a_right_input_that_is_refused_is_a_fault(self):
        right = Case("door", "name", lambda folder: None, "taken")
        assert judge(right, None, []).kind == "taken"
        assert judge(right, ValueError("x"), []).kind == "refused"

    def test_what_is_told_counts_as_ours(self):
        assert judge(self.case, ToldError("depth-missing"), []).kind == "clear"


def _with_text(error: Exception, text: str) -> Exception:
    return type(error)(text).with_traceback(error.__traceback__)


def run(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_case(case, Path(folder))
    assert outcome.is_good or case.reason, (
        f"{case.door}: {case.name} is {outcome.kind}: {outcome.error} {outcome.message}"
    )


@pytest.mark.parametrize("case", FAST_CASES, ids=lambda case: f"{case.door}: {case.name}")
def test_a_few_of_each_door(case):
    run(case)


def read_open() -> set[tuple[str, str]]:
    """Door and name of the cases whose outcome is not clear yet."""
    lines = (Path(__file__).parent / "bad_inputs" / "open.tsv").read_text("utf-8").splitlines()
    return {tuple(line.split("\t")[:2]) for line in lines[1:]}


def test_open_cases_are_cases():
    assert read_open() <= {(case.door, case.name) for case in ALL_CASES}


@pytest.mark.slow
def test_each_ninth_of_them(tmp_path):
    """In processes of their own, as the command does: what hangs or crashes takes nothing else with it."""
    import os
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{root}:{root / 'tests'}",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    table = tmp_path / "cases.tsv"
    words = [sys.executable, "-m", "bad_inputs.run", "--jobs", "2", "--every", "9", "--output", str(table)]
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True)
    rows = [line.split("\t") for line in table.read_text().splitlines()[1:]]
    assert len(rows) == sum(len(opened.list_cases()[::9]) for opened in DOORS.values()), done.stderr[-2000:]
    bad = {(row[0], row[1]): row[2:5] for row in rows if row[2] not in GOOD_OUTCOMES and not row[6]}
    assert not {name: what for name, what in bad.items() if name not in read_open()}
