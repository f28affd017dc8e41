"""Rooms of the study: what stands in place of depth, and which rooms are scored."""

from pathlib import Path

import numpy as np
import pytest

from examples.emergence import run
from examples.emergence.rooms import RoomArrays, to_grey
from processing.rooms import load_rooms


def test_the_grey_target_is_brightness_with_the_spread_of_depth(prepared):
    _, study = prepared
    place = Path(study.output_dir) / "rooms" / "train"
    depth, grey = RoomArrays(place), RoomArrays(place, "grey")
    both = [np.stack([data[index]["depth"] for index in range(len(data))]) for data in (depth, grey)]
    assert both[1].mean() == pytest.approx(both[0].mean(), rel=0.1)
    assert both[1].std() == pytest.approx(both[0].std(), rel=0.1)
    luma = to_grey(depth[3]["frames"])
    assert np.corrcoef(luma.ravel(), grey[3]["depth"].ravel())[0, 1] > 0.99
    np.testing.assert_array_equal(depth[3]["frames"], grey[3]["frames"])


def test_a_new_protocol_scores_on_rooms_that_no_other_opened(write_study):
    _, study = write_study(test_rooms=2, first_test_room=3)
    rooms = run.open_split(study, "test")
    assert rooms["scene_id"] == load_rooms("test", 5, image_size=32, num_frames=2)["scene_id"][3:]
    assert len(run.open_split(study, "validation")) == 7
