"""The examples in the docstrings are run: an example that nobody runs is a rumour."""

import doctest
import importlib

import pytest

MODULES = [
    "processing.benchmarks",
    "processing.boxes_in_words",
    "processing.chats",
    "processing.focal_length",
    "processing.oriented_boxes",
    "processing.token_grid",
    "trainer.geometry.cameras",
    "trainer.losses.cross_view_depth",
    "trainer.losses.depth_regression",
    "trainer.losses.feature_distillation",
    "trainer.losses.region_contrast",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0
