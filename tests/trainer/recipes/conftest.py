"""The command line of a recipe, on rooms that are made once for all tests."""

from collections.abc import Callable

import pytest
from tiny_recipes import rooms_are_kept, rooms_folder, tiny_recipe

from trainer.recipes import run

__all__ = ["rooms_are_kept", "rooms_folder", "tiny_recipe"]  # fixtures


@pytest.fixture
def run_train() -> Callable[..., None]:
    """`run_train(recipe, "--max_steps", 3)` runs the command line of examples/train.py."""

    def call(*words) -> None:
        run.main(list(map(str, words)))

    return call
