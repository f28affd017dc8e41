"""A folder with a tiny model and its processor, as evaluations load it."""

from pathlib import Path

import pytest
from scene_models import build_scene_model, build_scene_processor


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """Shared by all tests: whoever changes a file copies the folder first."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    processor = build_scene_processor()
    build_scene_model(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
