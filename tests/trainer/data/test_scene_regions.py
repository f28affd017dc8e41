"""The protocol of a training or evaluation reaches the rule of the points of a box."""

import numpy as np
import torch

from processing import PosedVideo, TokenGrid
from processing.regions import regions_from_boxes_3d
from processing.rooms import load_rooms
from trainer.data.scene_regions import SceneRegions
from trainer.geometry import unproject_depth


def test_masks_of_boxes_follow_the_protocol():
    room = PosedVideo.from_room(load_rooms("test", 1, num_frames=2, image_size=110)[0])
    grid = TokenGrid(70, 14, 1)  # The frames are larger: the paper's resize drops and moves points.
    masks = {name: SceneRegions(room, grid, "depth", name).masks(room.boxes) for name in ("clean", "paper")}
    assert not torch.equal(masks["clean"], masks["paper"])
    for name, found in masks.items():
        parts = (torch.from_numpy(np.asarray(part)) for part in (room.depth, room.intrinsics, room.camera_to_world))
        points = unproject_depth(*parts, protocol=name)
        assert torch.equal(
            found, regions_from_boxes_3d(torch.from_numpy(room.boxes).double(), points, grid, protocol=name)
        )
