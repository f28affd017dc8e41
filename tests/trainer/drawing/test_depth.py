"""The points of a checkpoint are where its validator sees them; exports have none."""

import json

import numpy as np
import pytest
import torch
from drawn_scenes import write_checkpoint
from exporting import build_processor
from safetensors.torch import load_file, save_file

from trainer.drawing import predict_points
from trainer.drawing.depth import guess_intrinsics
from trainer.loop.checkpoints import GEOMETRY_WEIGHTS, load_depth_model

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "checkpoint-1"


@pytest.fixture(scope="module")
def trained(checkpoint):
    return write_checkpoint(checkpoint)


def test_a_checkpoint_gives_its_model_with_the_validator(trained, checkpoint):
    loaded = load_depth_model(checkpoint)
    assert loaded.geometric_validator.config == trained.geometric_validator.config
    own, other = trained.state_dict(), loaded.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own) and not loaded.training


@torch.no_grad()
def test_points_project_to_their_pixels_at_the_depth_that_is_predicted(trained, checkpoint):
    pixels = build_processor().video_processor([FRAMES], do_sample_frames=False, return_tensors="pt")[
        "pixel_values_videos"
    ]
    depth = trained.predict_depth(pixels).depth[0].numpy()
    camera = guess_intrinsics((48, 64), 60)
    points = predict_points(checkpoint, FRAMES, camera, max_points=10**6)
    assert len(points) == (depth < 10).sum()
    first = points.positions[points.frame_of == 0]
    assert first[:, 2] == pytest.approx(depth[0][depth[0] < 10], rel=1e-4)
    u, v = (first @ camera.T)[:, :2].T / first[:, 2]
    # The picture is squashed to 70 px, of which a predicted pixel covers two.
    assert (u[0], v[0]) == pytest.approx((64 / 70 - 0.5, 48 / 70 - 0.5), abs=1e-3)
    assert u.max() <= 63.5 and (points.colours[0] == FRAMES[0, 0, 0]).all()


def test_points_are_thinned(checkpoint, trained):
    points = predict_points(checkpoint, FRAMES, guess_intrinsics((48, 64), 60), max_points=50)
    assert len(points) == 50 and set(points.frame_of) == {0, 1}


def test_a_guessed_camera_has_its_angle():
    camera = guess_intrinsics((48, 64), 90)
    assert camera[0, 0] == pytest.approx(32) and camera[:2, 2].tolist() == [31.5, 23.5]


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (lambda path: path.unlink(), FileNotFoundError, "exports hold no validator"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), OSError, "is truncated"),
        (lambda path: rewrite(path, {}), ValueError, "does not say the sizes of its validator"),
        (lambda path: rewrite(path, {"geometric_validator": json.dumps({"x": 1})}), ValueError, "does not fit"),
        (lambda path: save_file({"teacher_projector.x": torch.zeros(1)}, path), ValueError, "holds no geometric"),
    ],
)
def test_a_folder_without_a_right_validator_is_told(checkpoint, trained, tmp_path, change, error, told):
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    change(tmp_path / GEOMETRY_WEIGHTS)
    with pytest.raises(error, match=told):
        predict_points(tmp_path, FRAMES, guess_intrinsics((48, 64), 60))


def rewrite(path, metadata):
    save_file(load_file(path), path, metadata={"format": "pt", **metadata})
