import shutil

import pytest

from processing.benchmarks.export.rooms import export_rooms

NUM_FRAMES = 4


@pytest.fixture(scope="session")
def rooms(tmp_path_factory):
    """Two rooms a split in the public layout. Do not write into it."""
    folder = tmp_path_factory.mktemp("benchmarks") / "rooms"
    return export_rooms(folder, num_scenes=2, image_size=48, num_frames=NUM_FRAMES)


@pytest.fixture
def data(rooms, tmp_path):
    """A copy of the rooms to break."""
    return shutil.copytree(rooms, tmp_path / "data")
