"""A server of the nano model, and videos of rooms that it knows how to look at."""

from pathlib import Path

import numpy as np
import pytest
from exporting import write_frames
from serving import connect

from ide3d import nano_model
from processing.rooms import load_rooms
from trainer.session import load_inference_model


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> list[Path]:
    """Two rooms of four frames."""
    folder = tmp_path_factory.mktemp("served")
    paths = []
    for index, row in enumerate(load_rooms("test", 2, image_size=64, num_frames=4, cache_dir=str(folder / "cache"))):
        frames = np.stack([np.asarray(frame) for frame in row["frames"]])
        paths.append(write_frames(folder / f"room{index}.mp4", frames.repeat(4, 1).repeat(4, 2)))
        row["frames"][0].save(folder / f"room{index}.png")
    return paths


@pytest.fixture(scope="session")
def loaded():
    return load_inference_model(nano_model(), device="cpu")


@pytest.fixture(scope="module")
def served(loaded):
    with connect(loaded) as (client, app):
        yield client, app
