"""Depth, cameras and poses against each other: what is refused, by which name, and what is left alone."""

import numpy as np
import pytest
import torch
from training_samples import build_collator, make_sample

from processing import PosedVideo
from processing.pose_rules import POSE_CONVENTIONS, convert_poses, find_disagreement
from processing.rooms import load_rooms

OPENGL = np.diag([1.0, -1, -1, 1])


@pytest.fixture(scope="module", params=["plain", "loft"])
def room(request):
    return PosedVideo.from_room(load_rooms("test", 1, style=request.param, num_frames=8, image_size=96)[0])


def parts(video: PosedVideo) -> dict:
    return {name: getattr(video, name) for name in ("depth", "intrinsics", "camera_to_world")}


def found_in(video: PosedVideo, is_thorough: bool = False, **changed):
    return find_disagreement(
        **{**parts(video), **changed}, frame_size=video.frames.shape[1:3], is_thorough=is_thorough
    )


BREAKS = {
    "world_to_camera": np.linalg.inv,
    "opengl": lambda poses: poses @ OPENGL,
    "opengl_world_to_camera": lambda poses: np.linalg.inv(poses @ OPENGL),
    "left_handed": lambda poses: np.diag([1.0, -1, 1, 1]) @ poses @ np.diag([1.0, -1, 1, 1]),
}


@pytest.mark.parametrize("is_thorough", [False, True])
@pytest.mark.parametrize("name", BREAKS)
def test_the_convention_is_named_and_its_conversion_mends_it(room, name, is_thorough):
    poses = BREAKS[name](room.camera_to_world.astype(np.float64))
    found = found_in(room, is_thorough, camera_to_world=poses)
    assert found.part == "camera_to_world" and f'convention="{name}"' in found.text
    np.testing.assert_allclose(convert_poses(poses, name), room.camera_to_world, atol=1e-6)
    assert set(BREAKS) | {"opencv"} == set(POSE_CONVENTIONS)


@pytest.mark.parametrize("is_thorough", [False, True])
@pytest.mark.parametrize(("factor", "unit"), [(4, "1/4000"), (5, "1/5000"), (0.256, "1/256"), (0.1, "0.01")])
def test_the_unit_of_depth_is_named(room, factor, unit, is_thorough):
    found = found_in(room, is_thorough, depth=room.depth * factor)
    assert found is not None
    assert found.part == "depth" and f"depth_unit={unit})" in found.text


def test_other_faults_are_named(room):
    wrong = {
        "the rotations are transposed": {"camera_to_world": room.camera_to_world.copy()},
        "pictures of another size": {"intrinsics": room.intrinsics * np.array([[0.5], [0.5], [1]])},
        "in reverse order": {"camera_to_world": room.camera_to_world[::-1]},
    }
    rotation = wrong["the rotations are transposed"]["camera_to_world"]
    rotation[:, :3, :3] = rotation[:, :3, :3].transpose(0, 2, 1).copy()
    quarter = np.eye(4)
    quarter[:2, :2] = [[0, -1], [1, 0]]
    wrong["turned by a quarter"] = {"camera_to_world": room.camera_to_world @ np.linalg.inv(quarter)}
    for words, changed in wrong.items():
        assert words in found_in(room, True, **changed).text


def test_true_data_pass_however_their_frames_are_chosen(room):
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 5, 8):
        index = rng.permutation(8)[:count]
        some = room.select_frames(index)
        some.check()
        holes = some.depth * (rng.random(some.depth.shape) < 0.3)
        noise = some.depth * rng.normal(1, 0.02, some.depth.shape).astype(np.float32)
        for depth in (holes, noise, some.depth * 0):
            assert found_in(some, True, depth=depth) is None


def test_nothing_is_said_where_nothing_can_be_told(room):
    still = np.repeat(room.camera_to_world[:1], 8, 0)
    assert found_in(room, True, depth=np.repeat(room.depth[:1], 8, 0) * 4, camera_to_world=still) is None
    apart = room.camera_to_world.copy()
    apart[:, :3, 3] += 100 * np.arange(8)[:, None]  # No frame sees what another one saw.
    assert (
        found_in(room, False, camera_to_world=apart[::7], depth=room.depth[::7], intrinsics=room.intrinsics[::7])
        is None
    )


def test_random_depth_is_the_doctors_alone(room):
    """Training data are refused for a reading that fits; what fits in no way is told on request."""
    depth = np.random.default_rng(0).uniform(1, 4, room.depth.shape).astype(np.float32)
    assert found_in(room, False, depth=depth) is None
    assert "contradict" in found_in(room, True, depth=depth).text


def test_poses_in_a_random_order_contradict():
    sample = PosedVideo.from_room(load_rooms("test", 1, style="loft", num_frames=8, image_size=96)[0])
    order = np.random.default_rng(0).permutation(8)
    assert "belong to other frames" in found_in(sample, True, camera_to_world=sample.camera_to_world[order]).text


def test_one_frame_with_the_pose_of_another_is_named():
    sample = make_sample(12)
    poses = sample["camera_to_world"].copy()
    poses[6, :3, 3] += [0, 0, -1]
    found = find_disagreement(sample["depth"], sample["intrinsics"], poses, (48, 64), is_thorough=True)
    assert "frames [6] contradict" in found.text


def test_video_and_collator_refuse_with_one_text(room):
    geometry = {**parts(room), "camera_to_world": np.linalg.inv(room.camera_to_world)}
    with pytest.raises(ValueError, match='do not belong together: .*convention="world_to_camera"') as by_video:
        PosedVideo(room.frames, **geometry)
    sample = make_sample(2, geometry=False, frames=room.frames, **geometry)
    with pytest.raises(ValueError) as by_collator:
        build_collator()([sample])
    assert str(by_video.value) in str(by_collator.value)
    tensors = {name: torch.tensor(np.asarray(value)) for name, value in geometry.items()}
    assert find_disagreement(**tensors, frame_size=(96, 96)).text == str(by_video.value)


def test_an_unknown_convention_is_refused(room):
    with pytest.raises(ValueError, match="`convention` must be one of .*'opencv'.* got 'blender'"):
        convert_poses(room.camera_to_world, "blender")
