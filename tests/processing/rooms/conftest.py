import io

import numpy as np
import pytest
from PIL import Image

from processing.rooms.generate import make_room

NUM_ROOMS, SIZE, VIEWS = 60, 48, 3


def decoded(row):
    """The row as `datasets` gives it back: images instead of bytes."""
    images = {
        name: [Image.open(io.BytesIO(entry["bytes"])) for entry in row[name]]
        for name in ("frames", "depth", "instance_ids")
    }
    return {**row, **images}


@pytest.fixture(scope="session")
def rooms():
    """(Room, row) pairs of the training split."""
    made = [make_room("train", 0, index, SIZE, VIEWS) for index in range(NUM_ROOMS)]
    return [(room, decoded(row)) for room, row in made]


@pytest.fixture(scope="session")
def arrays(rooms):
    """Per room: ids (V, h, w), depth (V, h, w), intrinsics (3, 3), camera_to_world (V, 4, 4), all float64 or uint8."""
    return [
        (
            np.stack([np.asarray(i) for i in row["instance_ids"]]),
            np.stack([np.asarray(d) for d in row["depth"]]).astype(np.float64),
            np.asarray(row["intrinsics"], np.float64)[0],
            np.asarray(row["camera_to_world"], np.float64),
        )
        for _, row in rooms
    ]
