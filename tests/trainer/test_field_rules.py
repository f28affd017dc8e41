"""Rules for the fields of argument classes."""

from dataclasses import dataclass, fields

import numpy as np
import pytest
from transformers import HfArgumentParser

from trainer.field_rules import check_choice, check_kind, check_text, find_kinds, whole_number


@pytest.mark.parametrize("value", [3, np.int64(3), 3.0, np.float32(3)])
def test_a_whole_number_of_any_type_is_an_int(value):
    number = whole_number("count", value)
    assert number == 3 and type(number) is int


@pytest.mark.parametrize("value", [True, None, "3", [3], 0, -1, 1.5, float("nan"), float("inf")])
def test_what_counts_nothing_is_told(value):
    with pytest.raises((TypeError, ValueError), match="count must be a whole number"):
        whole_number("count", value)


@pytest.mark.parametrize("value", [None, 5, ["red"], {"red": 1}, np.array(["red", "blue"]), "rad"])
def test_an_unknown_choice_is_told(value):
    with pytest.raises(ValueError, match="colour must be one of"):
        check_choice("colour", value, ("red", "blue"))


def test_none_may_be_a_choice():
    check_choice("colour", None, ("red", None))
    with pytest.raises(ValueError, match="Did you mean 'red'"):
        check_choice("colour", "redd", ("red", None))


@pytest.mark.parametrize("value", [None, 5, b"x", "", " "])
def test_what_is_no_text_is_told(value):
    with pytest.raises((TypeError, ValueError), match="licence must be text"):
        check_text("licence", value)


def test_kinds_are_those_that_were_written_also_behind_a_parser():
    """`findings/hf_argument_parser_changes_fields.sh`: the parser writes other types into the fields."""

    @dataclass
    class Arguments:
        steps: int | None = None

    HfArgumentParser(Arguments)
    assert [field.type for field in fields(Arguments)] == [int]
    assert find_kinds(Arguments) == {"steps": int | None}
    check_kind("steps", None, find_kinds(Arguments)["steps"])
