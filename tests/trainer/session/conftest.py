"""A tiny model, its processor and a short video, for the tests of a session."""

import copy

import numpy as np
import pytest
from scene_models import SCENE_FRAMES, build_scene_model, build_scene_processor


@pytest.fixture(scope="session")
def processor():
    return build_scene_processor()


@pytest.fixture(scope="session")
def _scene_model(processor):
    return build_scene_model(processor)


@pytest.fixture
def scene_model(_scene_model):
    """A copy of the model for each test."""
    return copy.deepcopy(_scene_model)


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (SCENE_FRAMES, 80, 60, 3), dtype=np.uint8)
