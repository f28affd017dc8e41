"""Frame sampling, reading, preprocessing and padding of videos, and what happens with bad ones."""

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessor

from processing import IDE3DVideoProcessor, video_reading_ide3d

SIZE = {"height": 70, "width": 70}
RIGHT_ANGLE_MATRIX = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4").tobytes()


@pytest.fixture
def video_processor():
    return IDE3DVideoProcessor(size=SIZE, num_frames=8)


def indices_of(output) -> list[list[int]]:
    return [list(metadata.frames_indices) for metadata in output["video_metadata"]]


# Sampling


@pytest.mark.parametrize(("total", "wanted"), [(100, 8), (9, 8), (33, 32), (250, 7)])
def test_uniform_sampling_takes_the_first_and_the_last_frame(write_video, video_processor, total, wanted):
    output = video_processor(write_video(total, step=0), num_frames=wanted, return_metadata=True)
    expected = np.linspace(0, total - 1, wanted).astype(int).tolist()
    assert indices_of(output) == [expected]
    assert output["pixel_values_videos"].shape == (1, wanted, 3, 70, 70)


def test_short_videos_keep_all_their_frames_and_repeat_none(write_video, video_processor):
    output = video_processor(write_video(5), return_metadata=True)
    assert indices_of(output) == [[0, 1, 2, 3, 4]]


def test_default_is_32_frames_of_384_pixels(write_video):
    output = IDE3DVideoProcessor()(write_video(40), return_tensors="pt")
    assert output["pixel_values_videos"].shape == (1, 32, 3, 384, 384)


def test_fps_of_the_call_wins_over_num_frames_of_the_processor(write_video, video_processor):
    path = write_video(50, rate=10)
    assert indices_of(video_processor(path, fps=2, return_metadata=True)) == [list(range(0, 50, 5))]


def test_num_frames_of_the_call_wins_over_fps_of_the_processor(write_video):
    video_processor = IDE3DVideoProcessor(size=SIZE, fps=5)
    path = write_video(40, rate=10)
    assert indices_of(video_processor(path, return_metadata=True)) == [list(range(0, 40, 2))]
    assert len(indices_of(video_processor(path, num_frames=3, return_metadata=True))[0]) == 3


def test_processor_fps_above_the_videos_rate_keeps_every_frame_once(write_video):
    output = IDE3DVideoProcessor(size=SIZE, fps=30)(write_video(12, rate=10), return_metadata=True)
    assert indices_of(output) == [list(range(12))]


def test_frames_in_memory_are_kept_unless_sampling_is_asked_for(frames, video_processor):
    video = frames(20)
    assert video_processor(video)["pixel_values_videos"].shape[1] == 20
    assert video_processor(video, do_sample_frames=True)["pixel_values_videos"].shape[1] == 8
    assert video_processor(video, num_frames=4)["pixel_values_videos"].shape[1] == 4
    assert video_processor(video, num_frames=4, do_sample_frames=False)["pixel_values_videos"].shape[1] == 20


def test_frames_with_metadata_are_sampled_like_a_file(frames, video_processor):
    metadata = [{"total_num_frames": 20, "fps": 10}]
    assert video_processor(frames(20), video_metadata=metadata)["pixel_values_videos"].shape[1] == 8
    output = video_processor(frames(20), video_metadata=metadata, fps=1, return_metadata=True)
    assert indices_of(output) == [[0, 10]]
    assert metadata == [{"total_num_frames": 20, "fps": 10}]


def test_frames_sampled_before_are_not_sampled_again(frames, video_processor):
    metadata = [{"total_num_frames": 300, "fps": 10, "frames_indices": list(range(0, 300, 25))}]
    output = video_processor(frames(12), video_metadata=metadata, return_metadata=True)
    assert indices_of(output) == [list(range(0, 300, 25))]
    with pytest.raises(ValueError, match="announces 300 frames"):
        video_processor(frames(12), video_metadata=[{"total_num_frames": 300}])


def test_do_sample_frames_false_keeps_every_frame_of_a_file(write_video, video_processor):
    assert video_processor(write_video(20), do_sample_frames=False)["pixel_values_videos"].shape[1] == 20


def test_demands_that_cannot_be_met_raise(write_video, frames, video_processor, tmp_path):
    path = write_video(5, rate=10)
    with pytest.raises(ValueError, match="num_frames=6 was asked for, but the video has 5"):
        video_processor(path, num_frames=6)
    with pytest.raises(ValueError, match="only 10 frames per second"):
        video_processor(path, fps=20)
    with pytest.raises(ValueError, match="exclude each other"):
        video_processor(path, num_frames=2, fps=1)
    with pytest.raises(ValueError, match="needs the frame rate"):
        video_processor(frames(5), fps=1)
    with pytest.raises(ValueError, match="at least 1"):
        video_processor(path, num_frames=0)
    with pytest.raises(ValueError, match="exclude each other"):
        IDE3DVideoProcessor(num_frames=4, fps=1)


def test_sampling_rule_survives_saving(tmp_path):
    IDE3DVideoProcessor(size=SIZE, fps=2).save_pretrained(tmp_path)
    loaded = IDE3DVideoProcessor.from_pretrained(tmp_path)
    assert (loaded.fps, loaded.num_frames, dict(loaded.size)) == (2, None, SIZE)
    changed = IDE3DVideoProcessor.from_pretrained(tmp_path, num_frames=3)
    assert (changed.fps, changed.num_frames) == (None, 3)


# Pixels and padding


def test_pixels_equal_those_of_the_image_processor_frame_by_frame(frames, video_processor):
    video = frames(3)
    ours = video_processor(video, return_tensors="pt")["pixel_values_videos"][0]
    images = SiglipImageProcessor(size=SIZE)([Image.fromarray(frame) for frame in video], return_tensors="pt")
    torch.testing.assert_close(ours, images["pixel_values"], atol=0, rtol=0)


def test_no_resize_at_the_right_size_and_exact_normalisation(frames, video_processor):
    video = frames(2, 70, 70)
    pixels = video_processor(video, return_tensors="pt")["pixel_values_videos"][0]
    expected = (torch.from_numpy(video).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    torch.testing.assert_close(pixels, expected, atol=1e-6, rtol=0)


def test_every_form_of_the_same_frames_gives_the_same_pixels(frames, video_processor, tmp_path):
    video = frames(11)
    folder = tmp_path / "room"
    folder.mkdir()
    for index, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f"frame_{index}.png")
    (folder / "notes.txt").write_text("no image")
    paths = [folder / f"frame_{index}.png" for index in range(11)]
    read_only = video.copy()
    read_only.flags.writeable = False
    forms = {
        "ndarray": video,
        "channels first": video.transpose(0, 3, 1, 2),
        "tensor": torch.from_numpy(video),
        "int64 tensor": torch.from_numpy(video).long(),
        "uint16": video.astype(np.uint16),
        "turned around twice": np.ascontiguousarray(video[::-1])[::-1],
        "read-only": read_only,
        "PIL": [Image.fromarray(frame) for frame in video],
        "list of arrays": list(video),
        "list of tensors": list(torch.from_numpy(video).permute(0, 3, 1, 2)),
        "batch of one": video[None],
        "folder": folder,
        "folder as text": str(folder),
        "image paths": paths,
        "image paths as text": [str(path) for path in paths],
        "nested": [[list(video)]],
    }
    expected = video_processor(video, return_tensors="pt")["pixel_values_videos"]
    for name, form in forms.items():
        pixels = video_processor(form, do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
        assert torch.equal(pixels, expected), name


def test_a_folder_is_sampled_in_natural_order(video_processor, tmp_path):
    for index in range(12):
        Image.new("RGB", (8, 6), (index * 20,) * 3).save(tmp_path / f"{index}.png")
    output = video_processor(tmp_path, return_metadata=True, return_tensors="pt")
    expected = np.linspace(0, 11, 8).astype(int)
    assert indices_of(output) == [expected.tolist()]
    brightness = (output["pixel_values_videos"][0].mean(dim=(1, 2, 3)) + 1) * 127.5
    np.testing.assert_allclose(brightness, expected * 20, atol=0.5)
    rated = video_processor(tmp_path, fps=1, video_metadata=[{"fps": 4}], return_metadata=True)
    assert indices_of(rated) == [[0, 4, 8]]


def test_different_frame_counts_are_padded_and_masked(frames, video_processor):
    output = video_processor([frames(2), frames(5, seed=1), frames(3, 40, 20, seed=2)], return_tensors="pt")
    mask = output["video_frame_mask"]
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True, True, False, False, False], [True] * 5, [True, True, True, False, False]]
    assert output["pixel_values_videos"].shape == (3, 5, 3, 70, 70)
    assert not output["pixel_values_videos"][~mask].any()
    alone = video_processor(frames(2), return_tensors="pt")
    assert torch.equal(alone["pixel_values_videos"][0], output["pixel_values_videos"][0, :2])


def test_the_mask_is_always_there(frames, video_processor):
    """Pipelines join batches of one video each, and refuse to if their keys differ."""
    output = video_processor([frames(3), frames(3, 50, 20)], return_tensors="pt")
    assert set(output) == {"pixel_values_videos", "video_frame_mask"}
    assert output["video_frame_mask"].tolist() == [[True] * 3] * 2


def test_a_processor_that_does_not_sample_keeps_all_frames(frames, write_video):
    processor = IDE3DVideoProcessor(size=SIZE, num_frames=8, do_sample_frames=False)
    for video, length in ((frames(6), 6), (str(write_video(20)), 20)):
        for demand in ({}, {"num_frames": 3}, {"do_sample_frames": False, "num_frames": 3}):
            assert processor(video, return_tensors="pt", **demand)["video_frame_mask"].shape == (1, length)
        sampled = processor(video, return_tensors="pt", do_sample_frames=True, num_frames=3)
        assert sampled["video_frame_mask"].shape == (1, 3)


def test_numpy_output(frames, video_processor):
    output = video_processor([frames(2), frames(3)], return_tensors="np", return_metadata=True)
    assert isinstance(output["pixel_values_videos"], np.ndarray)
    assert output["video_frame_mask"].dtype == bool


def test_grey_and_transparent_frames_become_rgb(video_processor):
    grey = np.full((2, 8, 8, 1), 255, np.uint8)
    clear = np.concatenate([np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 1), np.uint8)], axis=-1)
    for video in (grey, clear, [Image.new("L", (8, 8), 255)] * 2):
        pixels = video_processor(video, return_tensors="pt")["pixel_values_videos"]
        torch.testing.assert_close(pixels, torch.ones(1, 2, 3, 70, 70))


def test_floating_point_frames(frames, video_processor):
    video = frames(2, 70, 70)
    expected = video_processor(video, return_tensors="pt")["pixel_values_videos"]
    in_255 = video_processor(video.astype(np.float32), return_tensors="pt")["pixel_values_videos"]
    torch.testing.assert_close(in_255, expected, atol=1e-6, rtol=0)
    for dtype in (torch.float16, torch.float64):
        pixels = video_processor(torch.from_numpy(video).to(dtype), return_tensors="pt")["pixel_values_videos"]
        torch.testing.assert_close(pixels, expected, atol=1e-6, rtol=0)
    in_1 = video_processor(video.astype(np.float32) / 255, do_rescale=False, return_tensors="pt")
    torch.testing.assert_close(in_1["pixel_values_videos"], expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="do_rescale=False"):
        video_processor(video.astype(np.float32) / 255)


# Video files


@pytest.mark.parametrize("name", ["video.mp4", "video.mkv", "video.avi", "video.webm"])
def test_the_right_frames_come_out_of_a_file(write_video, video_processor, name):
    output = video_processor(write_video(25, name, step=10), return_tensors="pt", return_metadata=True)
    expected = np.linspace(0, 24, 8).astype(int)
    assert indices_of(output) == [expected.tolist()]
    brightness = (output["pixel_values_videos"][0].mean(dim=(1, 2, 3)) + 1) * 127.5
    np.testing.assert_allclose(brightness, expected * 10, atol=4.5)  # half a step
    metadata = output["video_metadata"][0]
    assert (metadata.total_num_frames, metadata.fps, metadata.height, metadata.width) == (25, 10, 48, 64)


def test_files_and_frames_mix_in_a_batch(write_video, frames, video_processor):
    output = video_processor([str(write_video(20)), frames(3), [Image.new("RGB", (5, 4))]], return_tensors="pt")
    assert output["video_frame_mask"].sum(dim=1).tolist() == [8, 3, 1]


def test_stored_rotation_is_applied(write_video, video_processor, tmp_path):
    path = tmp_path / "upright.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:, :32] = 255  # the left half of the stored picture is white
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # version and flags, times, ids, duration, layer, volume: 40 bytes, then 9 x 4
    data[matrix : matrix + 36] = RIGHT_ANGLE_MATRIX
    path.write_bytes(data)
    frames, metadata = video_processor.fetch_videos(str(path))
    assert frames.shape == (1, 64, 48, 3)
    assert (metadata.height, metadata.width) == (64, 48)
    top, bottom = frames[0, :30].mean(), frames[0, -30:].mean()
    assert top > 250 and bottom < 5  # a quarter turn clockwise moves left to the top


def test_fetch_videos_reads_lists(write_video, video_processor):
    videos, metadata = video_processor.fetch_videos([str(write_video(9, "a.mp4")), str(write_video(4, "b.mp4"))])
    assert [len(video) for video in videos] == [8, 4]
    assert [entry.total_num_frames for entry in metadata] == [9, 4]


@pytest.fixture(params=["pyav", "torchcodec", "images"])
def stored(request, write_video, tmp_path, monkeypatch):
    """Twelve grey frames, the k-th of brightness 4 k, as each of the decoders reads them."""
    if request.param == "images":
        folder = tmp_path / "images"
        folder.mkdir()
        for index in range(12):
            Image.new("RGB", (64, 48), (4 * index,) * 3).save(folder / f"{index}.png")
        return folder
    if request.param == "torchcodec":
        if pytest.importorskip("torchcodec").ffmpeg_major_version is None:
            pytest.skip("torchcodec finds no FFmpeg")
        monkeypatch.setenv(video_reading_ide3d.BACKEND_VARIABLE, "torchcodec")
    return write_video(12)


@pytest.mark.parametrize("indices", [[0, 0, 5, 5, 11], [11, 5, 0], [3], [4, 2, 4, 0]])
def test_frames_come_as_often_and_in_the_order_in_which_they_are_asked_for(stored, video_processor, indices):
    frames, metadata = video_processor.fetch_videos(str(stored), lambda metadata: np.array(indices))
    np.testing.assert_allclose(frames.reshape(len(indices), -1).mean(1) / 4, indices, atol=0.5)
    assert metadata.frames_indices == indices and metadata.total_num_frames == 12


@pytest.mark.parametrize(
    "indices, message", [([], "at least one frame, got none"), ([3, 12, -1], r"from 0 to 11, .* got \[12, -1\]")]
)
def test_indices_of_frames_that_there_are_not(stored, video_processor, indices, message):
    with pytest.raises(ValueError, match=message) as caught:
        video_processor.fetch_videos(str(stored), lambda metadata: indices)
    assert "cannot be decoded" not in str(caught.value)


# Bad input


def test_no_video_to_fetch(video_processor):
    with pytest.raises(ValueError, match="at least one video, got an empty list"):
        video_processor.fetch_videos([])


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ([], "empty list"),
        ([[np.zeros((4, 4, 3), np.uint8)], []], "empty list"),
        (np.zeros((0, 8, 8, 3), np.uint8), "at least one frame"),
        (np.zeros((2, 0, 8, 3), np.uint8), "at least one frame of at least one pixel"),
        (np.zeros((8, 8), np.uint8), r"got \(8, 8\)"),
        (np.zeros((1, 1, 1, 2, 8, 3), np.uint8), r"got \(1, 1, 1, 2, 8, 3\)"),
        (np.zeros((2, 8, 8, 5), np.uint8), "channels"),
        (np.full((2, 8, 8, 3), 300, np.int32), "between 0 and 255"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)], "one size"),
        ([Image.new("I;16", (8, 8))], "looks like depth"),
    ],
)
def test_impossible_frames_raise(video_processor, video, message):
    with pytest.raises(ValueError, match=message):
        video_processor(video)


def test_nan_pixels_name_the_frames(video_processor):
    video = np.full((4, 8, 8, 3), 100.0, np.float32)
    video[2, 1, 1, 0] = np.nan
    with pytest.raises(ValueError, match=r"frame\(s\) \[2\] of video 1"):
        video_processor([np.full((1, 8, 8, 3), 100.0, np.float32), video])


@pytest.mark.parametrize("video", [None, 3, {"video": 1}, [None]])
def test_things_that_are_no_video_raise(video_processor, video):
    with pytest.raises(TypeError, match="A video is a path"):
        video_processor(video)


def test_missing_empty_and_unreadable_files_are_named(video_processor, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4"):
        video_processor(tmp_path / "nowhere.mp4")
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        video_processor([tmp_path / "gone.png"])
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ValueError, match=r"empty\.mp4 is an empty file"):
        video_processor(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("this is no video " * 50)
    with pytest.raises(ValueError, match=r"text\.mp4 cannot be decoded"):
        video_processor(tmp_path / "text.mp4")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        video_processor(tmp_path / "folder")
    (tmp_path / "folder" / "0.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(ValueError, match=r"0\.png is no readable image"):
        video_processor(tmp_path / "folder")


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_are_named(write_video, video_processor, options, share):
    path = write_video(60, step=3, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"video\.mp4 cannot be decoded"):
        video_processor(path)


def test_a_folder_with_depth_images_is_refused(video_processor, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "0.jpg")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "0.png")
    with pytest.raises(ValueError, match="looks like depth"):
        video_processor(tmp_path)


def test_an_audio_file_has_no_pictures(video_processor, tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="no video stream"):
        video_processor(path)


def test_metadata_must_match_the_number_of_videos(frames, video_processor):
    with pytest.raises(ValueError, match="Got 1 video_metadata entries for 2"):
        video_processor([frames(2), frames(2)], video_metadata=[{"total_num_frames": 2}])


def test_a_duration_of_0_is_none(frames, video_processor):
    """Transformers writes it where no rate is known, and for a single frame."""
    metadata = [{"total_num_frames": 20, "fps": 10, "duration": 0.0}]
    assert video_processor(frames(20), video_metadata=metadata)["pixel_values_videos"].shape[1] == 8
