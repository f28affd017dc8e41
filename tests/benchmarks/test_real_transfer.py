"""What the real test calls right: depth up to a scale, order, poses, and answers that follow from both."""

import dataclasses
import io
import sys

import numpy as np
import pytest
from benchmarks import real_transfer
from benchmarks.real_transfer import cut_blocks, format_results
from benchmarks.transfer_depth import Cells, Predictors, collect_cells, find_best_layer, score_depth
from benchmarks.transfer_pairs import Pairs, collect_pairs, score_covisibility, score_poses
from benchmarks.transfer_questions import find_things, make_row
from benchmarks.walk_cameras import describe, level
from PIL import Image
from scipy.spatial.transform import Rotation

from processing import PosedVideo, TokenGrid
from processing.rooms.generate import make_room

GRID = TokenGrid(64, 8, 1)


class Pixels:
    """A tower whose tokens are the pixels of their cells."""

    layers = ("vision.0",)

    def grid(self, layer):
        return GRID

    def encode(self, frames, layers):
        import torch

        small = np.stack([np.asarray(Image.fromarray(frame).resize((64, 64))) for frame in frames]) / 255
        cells = small.reshape(len(frames), 8, 8, 8, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(len(frames), 8, 8, -1)
        return {layer: torch.from_numpy(cells).float() for layer in layers}


def make_cells(scenes=8, frames=2, seed=0):
    """Cells whose depth is 4 m at the top of the picture and 1 m at its bottom."""
    rng, count = np.random.default_rng(seed), scenes * frames * 64
    cells = np.tile(np.arange(64), scenes * frames)
    places = np.stack([(cells // 8 + 0.5) / 8, (cells % 8 + 0.5) / 8], 1)
    depth = np.exp(np.log(4) * (1 - places[:, 0]))
    return Cells(
        {"good": np.log(depth)[:, None] * [1.0, -2.0], "noise": rng.normal(size=(count, 2))},
        rng.random((count, 3)),
        depth,
        places,
        cells,
        np.repeat(np.arange(scenes * frames), 64),
        np.repeat([f"scene {index}" for index in range(scenes)], frames * 64),
    )


def test_a_scale_a_frame_is_free_and_the_order_does_not_need_it():
    cells = make_cells()
    scale = np.random.default_rng(1).uniform(0.5, 3, 16)[cells.frames]
    scores = score_depth({"colour": cells.depth, "scaled": scale * cells.depth, "turned": 1 / cells.depth}, cells)
    assert scores["abs_rel"]["scaled"]["value"] == pytest.approx(0, abs=1e-12)
    assert scores["delta1"]["scaled"]["value"] == scores["closer"]["scaled"]["value"] == 1
    assert scores["metric_abs_rel"]["scaled"]["value"] == pytest.approx(np.abs(scale - 1).mean())
    assert scores["closer"]["turned"]["value"] == 0
    assert scores["abs_rel"]["turned"]["difference"] == scores["abs_rel"]["turned"]["value"] > 0.5


def test_what_is_alike_everywhere_orders_no_better_than_chance():
    cells = make_cells()
    scores = score_depth({"colour": np.ones(len(cells.depth))}, cells)
    assert scores["closer"]["colour"]["value"] == 0.5


def test_regressions_read_what_their_features_hold():
    known, asked = make_cells(seed=0), make_cells(seed=1)
    assert find_best_layer(known) == "good"
    read = Predictors(known).predict(asked)
    for name in ("height", "cell mean", "colour", "good"):
        assert read[name] == pytest.approx(asked.depth, rel=2e-3), name
    assert np.abs(read["noise"] / asked.depth - 1).mean() > 0.3


@pytest.fixture(scope="module")
def videos():
    rows = [make_room("train", 0, index, 64, 4)[1] for index in range(6)]
    for row in rows:
        for key in ("frames", "depth", "instance_ids"):
            row[key] = [Image.open(io.BytesIO(entry["bytes"])) for entry in row[key]]
    return [PosedVideo.from_room(row) for row in rows]


def test_cells_carry_the_depth_and_the_colour_of_their_pixels(videos):
    holey = videos[0].depth.copy()
    holey[0, :8, :8] = 0
    cells = collect_cells(Pixels(), [dataclasses.replace(videos[0], depth=holey), videos[1]], ("vision.0",))
    assert len(cells.depth) == 2 * 4 * 64 - 1 and set(cells.frames) == set(range(8))
    assert list(cells.cells[:3]) == [1, 2, 3]
    for row in (0, 100, 300):
        video, frame = videos[cells.frames[row] // 4], cells.frames[row] % 4
        v, u = (8 * part for part in divmod(cells.cells[row], 8))
        assert cells.depth[row] == np.sort(video.depth[frame, v : v + 8, u : u + 8].ravel())[31]
        pixels = video.frames[frame, v : v + 8, u : u + 8].reshape(-1, 3)
        assert cells.colours[row] == pytest.approx(pixels.mean(0) / 255, abs=3e-3)
        assert cells.tokens["vision.0"][row] == pytest.approx(pixels.ravel() / 255, abs=1e-6)


def test_pairs_hold_the_true_motion_and_what_both_frames_see(videos):
    pairs = collect_pairs(Pixels(), videos[:1], "vision.0")
    assert len(pairs.motion) == 10  # neighbours at one and two frames, both ways
    motion = np.linalg.inv(videos[0].camera_to_world[0].astype(float)) @ videos[0].camera_to_world[1]
    assert pairs.motion[0, 3:] == pytest.approx(motion[:3, 3], abs=1e-5)
    assert Rotation.from_rotvec(pairs.motion[0, :3]).as_matrix() == pytest.approx(motion[:3, :3], abs=1e-5)
    assert 0.3 < pairs.seen.mean() < 1


def test_a_motion_that_matches_tell_is_read_and_one_that_they_do_not_is_not():
    rng = np.random.default_rng(0)

    def make(count):
        motion = rng.normal(0, 0.1, (count, 6))
        told = np.concatenate([motion[:, :3], motion[:, 3:]], 1)[:, None].repeat(2, 1).reshape(count, 4, 3)
        seen = (rng.random((count, 4)) < 0.5).astype(float)
        told[..., 2] += 3 * seen
        return Pairs({"tower": told, "pixels": rng.normal(size=(count, 4, 3))}, motion, seen, np.arange(count) // 8)

    rooms, real = make(400), make(80)
    poses = score_poses(rooms, real)
    true = np.linalg.norm(real.motion[:, 3:], axis=1).mean()
    assert poses["metres"]["still"]["value"] == pytest.approx(true)
    assert poses["metres"]["tower"]["value"] < 0.7 * true < poses["metres"]["pixels"]["value"]
    assert poses["degrees"]["still"]["value"] == pytest.approx(
        np.rad2deg(np.linalg.norm(real.motion[:, :3], axis=1)).mean()
    )
    seen = score_covisibility(rooms, real)
    assert seen["tower"]["value"] > 0.95 and abs(seen["pixels"]["value"] - 0.5) < 0.15


def test_a_walk_is_put_on_its_floor_whatever_its_world_is(videos):
    video = videos[2]
    turned = np.eye(4)
    turned[:3, :3], turned[:3, 3] = Rotation.from_euler("xyz", (200, 30, 70), degrees=True).as_matrix(), (3, -5, 2)
    walk = dataclasses.replace(video, camera_to_world=turned @ video.camera_to_world, boxes=None, labels=None)
    found, true = describe(level(walk)), describe(video)
    for name in ("pitch, degrees, up", "roll, degrees"):
        assert found[name] == pytest.approx(true[name], abs=1.5), name
    assert found["height, metres"] == pytest.approx(true["height, metres"], abs=0.06)
    assert found["step, metres"] == pytest.approx(true["step, metres"], abs=1e-4)


@pytest.fixture
def two_boxes():
    """A near low box on the left and a far tall one on the right, on a floor before a wall; z is up."""
    size, focal = 256, 220.0
    v, u = np.mgrid[:size, :size]
    x, y = (u - 127.5) / focal, (v - 127.5) / focal
    depth = np.minimum(5.0, np.where(y > 0, 1.2 / np.maximum(y, 1e-9), np.inf))
    for left, right, near, height in ((-0.9, -0.2, 2.6, 0.5), (0.3, 1.1, 3.6, 1.0)):
        inside = (x * near > left) & (x * near < right) & (y * near < 1.2) & (y * near > 1.2 - height)
        top = 1.2 - height
        on_top = (y > 0) & (top / np.maximum(y, 1e-9) >= near) & (top / np.maximum(y, 1e-9) <= near + 0.4)
        lid = np.where(on_top, top / np.maximum(y, 1e-9), np.inf)
        lid = np.where((x * lid > left) & (x * lid < right), lid, np.inf)
        depth = np.minimum(depth, np.where(inside, near, lid))
    pose = np.eye(4)
    pose[:3, :3], pose[2, 3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]], 1.2
    frames = np.zeros((2, size, size, 3), np.uint8)
    camera = [[focal, 0, 127.5], [0, focal, 127.5], [0, 0, 1]]
    return PosedVideo(frames, np.stack([depth] * 2), camera, np.stack([pose] * 2), scene_id="boxes")


def test_things_are_what_stands_before_floor_and_wall(two_boxes):
    things, ids = find_things(two_boxes)
    assert len(things) == 2 and ids.max() == 2
    near, far = sorted(things, key=lambda thing: thing["center"][1])
    assert near["size"][2] == pytest.approx(0.5, abs=0.13) and far["size"][2] == pytest.approx(1.0, abs=0.16)
    assert near["center"][0] < 0 < far["center"][0]


def test_questions_have_the_answers_of_depth_and_poses(two_boxes):
    row = make_row(two_boxes, np.random.default_rng(0))
    near, _ = sorted(row["objects"], key=lambda thing: thing["center"][1])
    kinds = {question["type"] for question in row["questions"]}
    assert kinds == {"closer", "direction", "distance", "size"}
    for question in row["questions"]:
        first = question["hint_objects"][0] == near["id"]
        if question["type"] == "direction":
            assert question["answer"] == ("left" if first else "right")
        elif question["type"] == "distance":
            assert question["value"][0] == pytest.approx(2.8 if first else 3.7, abs=0.2)
        elif question["type"] == "closer":
            assert question["answer"] == ("the first" if first else "the second")
        elif question["type"] == "size" and question["value"]:
            assert question["value"][0] == pytest.approx(0.5 if first else 1.0, abs=0.16)
        elif question["type"] == "size":
            assert question["answer"] == ("the second" if first else "the first")


def test_blocks_are_successive_frames_and_hold_them_all(videos):
    walk = videos[0].select_frames([0, 1, 2, 3, 2, 1, 0])
    blocks = cut_blocks(walk, 3)
    assert [len(block) for block in blocks] == [2, 2, 3]
    assert (np.concatenate([block.frames for block in blocks]) == walk.frames).all()
    with pytest.raises(ValueError, match="4 blocks need at least 8 frames, got 7"):
        cut_blocks(walk, 4)


def test_tables_have_every_predictor_and_no_difference_of_the_reference():
    cells = make_cells()
    scores = score_depth({"colour": cells.depth, "height": 2 * cells.depth}, cells)
    depth = {"cells": 5, "best_layer_on_rooms": "vision.2", "all": scores, "second_half": scores}
    depth["second_half"] = score_depth({"rooms, colour": cells.depth}, cells, "rooms, colour")
    text = format_results({"depth": depth})
    line = next(line for line in text.splitlines() if line.startswith("| colour"))
    assert line.split("|")[-3:-1] == [" " * len(part) for part in line.split("|")[-3:-1]]
    assert "| height" in text and "vision.2" in text


def test_without_a_walk_it_says_why_it_is_skipped(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["real_transfer.py", "--data", str(tmp_path / "nowhere")])
    real_transfer.main()
    told = f"Skipped: there is no real walk at {tmp_path / 'nowhere'}. "
    assert capsys.readouterr().out == f"{told}Give --data FOLDER, a capture with depth and poses.\n"
