"""Old import paths give the modules of the new ones, with a warning."""

import importlib
import subprocess
import sys
import warnings

import pytest

from processing.moved import MOVED_MODULES as MOVED_IN_PROCESSING
from trainer.moved import MOVED_MODULES as MOVED_IN_TRAINER

MOVED_MODULES = {**MOVED_IN_PROCESSING, **MOVED_IN_TRAINER}


def forget(name):
    sys.modules.pop(name, None)


@pytest.mark.parametrize("old", sorted(MOVED_MODULES))
def test_old_path_is_the_new_module_and_warns(old):
    new = MOVED_MODULES[old]
    forget(old)
    with pytest.warns(DeprecationWarning, match=f"`{old}` has moved to `{new}`"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(new)
    assert module.__name__ == new


def test_the_warning_names_the_importing_line():
    forget("processing.rooms.wording")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import processing.rooms.wording  # noqa: F401
    assert [str(entry.filename) for entry in caught if entry.category is DeprecationWarning] == [__file__]


@pytest.mark.slow
def test_an_old_program_runs():
    words = [sys.executable, "-W", "always", "-m", "processing.benchmarks.export_rooms", "--help"]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 0 and "--num-scenes" in result.stdout
    assert "has moved to `processing.benchmarks.export.rooms`" in result.stderr


def test_an_unknown_module_is_still_unknown():
    with pytest.raises(ModuleNotFoundError, match="processing.rooms.attic"):
        importlib.import_module("processing.rooms.attic")


@pytest.mark.parametrize("name", ["SceneSession", "SceneAnswer"])
def test_a_name_that_lives_elsewhere_is_given_with_a_warning(name):
    evaluation = importlib.import_module("trainer.evaluation")
    with pytest.warns(DeprecationWarning, match=f"`trainer.evaluation.{name}` has moved to `trainer.session.{name}`"):
        found = getattr(evaluation, name)
    assert found is getattr(importlib.import_module("trainer.session"), name)
