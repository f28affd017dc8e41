"""Tests of the rules for arguments."""

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from processing.argument_rules import (
    as_path,
    check_choice,
    check_flag,
    check_keys,
    check_number,
    check_texts,
    check_whole,
    path_text,
)


def test_paths(tmp_path):
    assert as_path("data", "data_dir") == as_path(Path("data"), "data_dir") == Path("data")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for wrong in (None, 5, b"data", ["data"]):
        with pytest.raises(TypeError, match="`data_dir` must be a path"):
            as_path(wrong, "data_dir")
    for wrong in ("", "a\0b", "x" * 5000, "\ud800", loop):
        with pytest.raises(ValueError, match="`data_dir` must be a path"):
            as_path(wrong, "data_dir")


def test_a_path_to_write_is_judged_where_it_is_opened(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert path_text(tmp_path / "loop", "path") == str(tmp_path / "loop")
    with pytest.raises(ValueError, match="`path` must be a path, not empty and without NUL"):
        path_text("\ud800", "path")


def test_texts_are_listed_whatever_holds_them():
    for right in (["a", "b"], ("a", "b"), np.array(["a", "b"]), (letter for letter in "ab"), {"a": 1, "b": 2}.keys()):
        assert sorted(check_texts(right, "parts", ("a", "b"))) == ["a", "b"]
    for wrong in ("a", b"a", None, 5, {"a": 1}, [None], [1], np.array([["a"]])):
        with pytest.raises(TypeError, match="`parts` must be a list of names among 'a', 'b'"):
            check_texts(wrong, "parts", ("a", "b"))
    with pytest.raises(ValueError, match="it holds 'c'"):
        check_texts(["a", "c"], "parts", ("a", "b"))
    with pytest.raises(TypeError, match="`labels` must be a list of strings"):
        check_texts({"a", "b"}, "labels", is_ordered=True)
    assert check_texts({"b": 1, "a": 2}.keys(), "labels", is_ordered=True) == ("b", "a")  # keys have an order


def test_whole_numbers():
    for right in (3, np.int64(3), np.uint8(3)):
        assert check_whole(right, "num_frames", 1) == 3 and type(check_whole(right, "num_frames")) is int
    assert check_whole(-3, "seed", None) == -3
    for wrong in (True, np.True_, 3.0, "3", None, [3], np.array([1, 2]), float("nan")):
        with pytest.raises(TypeError, match="`num_frames` must be an integer of at least 1, got"):
            check_whole(wrong, "num_frames", 1)
    for wrong in (0, -1, 10**5000):
        with pytest.raises(ValueError, match="`num_frames` must be an integer of at least 1 and at most 9, got"):
            check_whole(wrong, "num_frames", 1, 9)


def test_measures():
    for right in (2, 0.5, np.float32(0.5), Fraction(1, 2)):
        assert check_number(right, "scale", above=0) == right and type(check_number(right, "scale")) is float
    assert check_number(0, "share", least=0, largest=1) == 0 and check_number(1, "share", least=0, largest=1) == 1
    assert check_number(-3e9, "x") == -3e9
    for wrong in (True, np.True_, "3", None, [3], np.array([1.0, 2.0]), 1j):
        with pytest.raises(TypeError, match="`scale` must be a finite number above 0, metres of one step, got"):
            check_number(wrong, "scale", "metres of one step", above=0)
    for wrong in (0, -1, math.nan, math.inf, 10**400, 1.5):
        with pytest.raises(ValueError, match="`share` must be a finite number above 0 and at most 1, got"):
            check_number(wrong, "share", above=0, largest=1)
    with pytest.raises(ValueError, match="`degrees` must be a finite number of at least 1 and at most 179, got 0.5"):
        check_number(0.5, "degrees", least=1, largest=179)


def test_flags_choices_and_keys():
    for right in (True, np.True_):
        assert check_flag(right, "packed") is True
    for wrong in (1, 0, "no", None):
        shown = re.escape(f"`packed` must be True or False, got {wrong!r} ({type(wrong).__name__}).")
        with pytest.raises(TypeError, match=shown):
            check_flag(wrong, "packed")
    check_choice("a", ("a", "b"), "rule")
    for wrong, error in (("c", ValueError), (["a"], TypeError), (None, TypeError)):
        with pytest.raises(error, match="`rule` must be one of 'a', 'b', got"):
            check_choice(wrong, ("a", "b"), "rule")
    with pytest.raises(ValueError, match="`row` must be a mapping with 'a', 'b', it lacks 'b'"):
        check_keys({"a": 1}, ("a", "b"), "row")
    with pytest.raises(TypeError, match="`row` must be a mapping"):
        check_keys([1], ("a",), "row")


def test_rows_of_pandas_are_mappings():
    check_keys(pd.Series({"question": "Where?"}), ("question",), "sample")
    with pytest.raises(ValueError, match="it lacks 'answers'"):
        check_keys(pd.Series({"question": "Where?"}), ("answers",), "sample")
