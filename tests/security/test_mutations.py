"""Damaged files of every format that we read: right values, a clear error or a warning, and no flood of memory."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_inputs import goods
from bad_inputs.cases import Case, OtherPixelsError, run_case
from bad_inputs.run import run_isolated

from .mutations import FORMATS, KINDS, SUMMED, mutate, write

FAST_SEEDS = len(KINDS)  # One of each kind.
SLOW_SEEDS = 40 * len(KINDS)


def read_damaged(name: str, seed: int, folder: Path) -> None:
    """Damage the right file of a format, and read it."""
    path = write(name, folder)
    right = FORMATS[name][1](path) if name in SUMMED else None
    path.write_bytes(mutate(path.read_bytes(), seed))
    found = FORMATS[name][1](path)
    if name in SUMMED and not np.array_equal(_dense(found), _dense(right)):
        raise OtherPixelsError(f"{path} was read, and holds something else.")


def _dense(value: Any) -> np.ndarray:
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value)


def case(name: str, seed: int) -> Case:
    """A case that may be taken, where the damage is in what nobody reads, or refused by name."""
    stem = "scene" if name == "safetensors" else Path(_file_name(name)).name
    return Case("mutations", f"{name} {seed}", lambda folder: read_damaged(name, seed, folder), "either", (stem,))


def _file_name(name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return write(name, Path(folder)).name


def test_the_mutator_is_the_same_for_a_seed():
    data = bytes(range(256)) * 4
    assert [mutate(data, seed) for seed in range(20)] == [mutate(data, seed) for seed in range(20)]
    assert all(mutate(data, seed) != data for seed in range(14))


@pytest.mark.parametrize("name", FORMATS)
def test_the_right_file_is_read(name, tmp_path):
    assert FORMATS[name][1](write(name, tmp_path)) is not None


@pytest.mark.parametrize("name", FORMATS)
def test_one_damage_of_each_kind(name, tmp_path):
    for seed in range(FAST_SEEDS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        outcome = run_case(case(name, seed), folder)
        assert outcome.is_good, f"{name}, seed {seed}: {outcome}"


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_damages(name):
    """In a process of its own with a limit of memory: neither a crash nor a hang."""
    os.environ.setdefault(goods.ROOT, str(goods.root()))
    cases = [case(name, seed) for seed in range(SLOW_SEEDS)]
    bad = [row for row in run_isolated(cases) if row["outcome"] not in ("clear", "warned", "taken", "inherited")]
    assert not bad, "\n".join(f"{row['input']}: {row['outcome']} {row['error']} {row['message']}" for row in bad[:20])
