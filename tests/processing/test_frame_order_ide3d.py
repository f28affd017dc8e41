"""One order of frame files and one uniform sampler, whoever reads."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.video_utils import VideoMetadata

from processing import IDE3DVideoProcessor, PosedVideo
from processing.benchmarks.doctor.scene_checks import check_scene
from processing.benchmarks.readers.scenes import FrameLists, folder_names, uniform_names
from processing.benchmarks.readers.tasks import Layout
from processing.frame_order_ide3d import check_count, check_indices, find_uniform_indices, sort_frames
from processing.video_reading_ide3d import read_video

SCENE = "scannet/scene0000_00"


@pytest.mark.parametrize(
    "ordered",
    [
        ["0", "1", "2", "9", "10", "11", "100"],
        ["frame2.jpg", "frame10.jpg", "frame10b.jpg", "Frame11.jpg"],
        ["01", "1", "02", "2"],
        ["b/1.png", "a/2.png", "a/10.png"],  # folders do not count
        ["a.png", "\u00b2.png"],  # a raised 2 is a digit to Python, but no number
        ["cam1_2", "cam1_10", "cam2_1"],
    ],
)
def test_numbers_in_names_count_as_numbers(ordered):
    assert sort_frames(reversed(ordered)) == ordered


@pytest.fixture
def layout(tmp_path):
    """A scene of 12 frames named 0 to 11; frame i has the grey value 20 i and its camera stands at x = i / 10."""
    folder = Layout(tmp_path).frames(SCENE)
    folder.mkdir(parents=True)
    for i in range(12):
        Image.new("RGB", (64, 48), (20 * i,) * 3).save(folder / f"{i}.jpg", quality=95)
        Image.fromarray(np.full((48, 64), 1000 + i, np.uint16)).save(folder / f"{i}.png")
        pose = np.eye(4)
        pose[0, 3] = i / 10
        np.savetxt(folder / f"{i}.txt", pose)
    np.savetxt(folder / "intrinsic.txt", np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]))
    return Layout(tmp_path)


def test_names_without_leading_zeros_are_in_order_in_every_reader(layout, tmp_path):
    names = [str(i) for i in range(12)]
    folder = layout.frames(SCENE)
    video = PosedVideo.from_folder(folder)
    assert list(video.frame_names) == names == folder_names(layout, SCENE)
    np.testing.assert_allclose(video.camera_to_world[:, 0, 3], np.arange(12) / 10, rtol=1e-6)
    assert PosedVideo.from_folder(folder, indices=[2, 3]).frame_names == ("2", "3")
    assert FrameLists(layout, num_frames=4).names(SCENE) == ["0", "3", "7", "11"]
    for file in [*folder.glob("*.png"), *folder.glob("*.txt")]:
        file.unlink()  # the video processor takes all pictures of a folder
    frames, _ = read_video(str(folder), lambda metadata: np.arange(metadata.total_num_frames))
    assert [round(frame.mean() / 20) for frame in frames] == list(range(12))


def test_the_doctor_looks_at_the_frames_that_are_shown(layout):
    folder = layout.frames(SCENE)
    for i in range(12, 40):
        for suffix in ("jpg", "png", "txt"):
            (folder / f"{i}.{suffix}").write_bytes((folder / f"0.{suffix}").read_bytes())
    shown = uniform_names([str(i) for i in range(40)], 32)
    hidden = next(str(i) for i in range(40) if str(i) not in shown)
    for name, is_found in ((hidden, False), (shown[20], True)):
        (folder / f"{name}.txt").write_text("nan " * 16)
        kinds = {finding.kind for finding in check_scene(layout, SCENE, None, {"poses", "depth"})}
        assert ("pose-broken" in kinds) == is_found
    info = {"images": [f"{i}.jpg" for i in range(40)], "axis_align_matrix": np.eye(4), "depth_cam2img": np.eye(4)}
    assert "frame-list-differs" not in {finding.kind for finding in check_scene(layout, SCENE, info, set())}


@given(total=st.integers(1, 400), count=st.integers(1, 64))
@settings(max_examples=25, derandomize=True, deadline=None)
def test_uniform_frames_are_spread_from_the_first_to_the_last(total, count):
    indices = find_uniform_indices(total, count)
    assert len(indices) == min(total, count) and indices[0] == 0
    assert (np.diff(indices) > 0).all() and (count == 1 or indices[-1] == total - 1)
    metadata = type("Metadata", (), {"total_num_frames": total, "fps": None})()
    assert IDE3DVideoProcessor(num_frames=count).sample_frames(metadata).tolist() == indices.tolist()
    repeated = find_uniform_indices(total, count, can_repeat=True)
    assert len(repeated) == count and set(repeated) <= set(range(total))
    assert count > total or repeated.tolist() == indices.tolist()


@pytest.mark.parametrize(
    "indices", [[0.7], ["0"], [True], "01", 0.7, [[0], [1, 2]], [None], [float("nan")], [float("inf")]]
)
def test_indices_that_are_no_whole_numbers_are_a_type_error(indices):
    with pytest.raises(TypeError, match="frame indices to be whole numbers of frames"):
        check_indices(indices, 5)


def test_whole_numbers_of_any_kind_are_indices():
    for indices in ([0, 4, 4], (0.0, 4, 4), np.array([0, 4, 4], np.int8), torch.tensor([0, 4, 4]), iter([0, 4, 4])):
        assert check_indices(indices, 5) == [0, 4, 4]
    for indices, said in (([], "at least one frame"), ([5], "0 to 4"), ([-1], "0 to 4")):
        with pytest.raises(ValueError, match=said):
            check_indices(indices, 5)


@pytest.mark.parametrize("count", ["8", 2.5, 8.0, True, [8]])
def test_a_number_of_frames_is_an_integer_of_at_least_1(count):
    with pytest.raises(TypeError, match=r"num_frames must be an integer of at least 1, got .* of type"):
        find_uniform_indices(10, count)
    with pytest.raises(TypeError, match="num_frames must be an integer"):
        IDE3DVideoProcessor(num_frames=count)
    for few in (0, -1):
        with pytest.raises(ValueError, match=f"num_frames must be an integer of at least 1, got {few}"):
            check_count(few)
    assert find_uniform_indices(10, np.int64(2)).tolist() == [0, 9]


@pytest.mark.parametrize("fps", ["2", True, [2]])
def test_a_rate_is_a_number(fps):
    with pytest.raises(TypeError, match="fps must be a number greater than 0"):
        IDE3DVideoProcessor(fps=fps)
    for other in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="fps must be a finite number greater than 0"):
            IDE3DVideoProcessor(fps=other)


@pytest.mark.parametrize("fps, rate", [(23.98, 24000 / 1001), (10.0001, 10.0)])
def test_rates_are_typed_with_few_digits(fps, rate):
    metadata = VideoMetadata(total_num_frames=50, fps=rate)
    assert IDE3DVideoProcessor().sample_frames(metadata, fps=fps).tolist() == list(range(50))
    with pytest.raises(ValueError, match="was asked for"):
        IDE3DVideoProcessor().sample_frames(metadata, fps=1.01 * fps)
