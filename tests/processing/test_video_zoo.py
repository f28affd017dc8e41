"""Every file of the video zoo, through every door and backend: the right frames, at the right times, upright."""

from importlib.util import find_spec

import av
import numpy as np
import pytest
import video_table
import video_zoo

from processing import video_reading_ide3d

OTHER_DOORS = [door for door in video_table.DOORS if door != "path"]
SOME = ("h264_b_frames.ts", "h264_variable_rate.mp4", "h264_turned_and_mirrored.mp4", "vp8_alternate_references.webm",
        "h264_cover_first.mp4", "h264_copied_clip.mp4", "gif_variable_rate.gif")  # fmt: skip

needs_torchcodec = pytest.mark.skipif(
    not find_spec("torchcodec") or not list((video_table.Path(av.__file__).parents[1]).glob("av.libs/libavcodec-*")),
    reason="needs torchcodec, and a wheel of PyAV whose FFmpeg libraries it can load",
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return {file.name: file for file in video_zoo.make_zoo(tmp_path_factory.mktemp("zoo"))}


def test_every_file_by_its_path(zoo):
    faults = {name: video_table.find_fault(file, "path", "pyav") for name, file in zoo.items()}
    assert {name: fault for name, fault in faults.items() if fault} == {}
    assert len(zoo) >= 50


@pytest.mark.parametrize("door", OTHER_DOORS)
def test_every_door_gives_the_same_pixels_at_the_same_times(zoo, door):
    with video_table.serve(zoo[SOME[0]].path.parent) as address:
        faults = {name: video_table.find_fault(zoo[name], door, "pyav", address) for name in SOME}
    assert {name: fault for name, fault in faults.items() if fault} == {}


@pytest.mark.slow
def test_every_file_through_every_door(tmp_path):
    assert _faulty(video_table.find_faults(tmp_path, "pyav", list(video_table.DOORS))) == {}


@needs_torchcodec
@pytest.mark.slow
def test_torchcodec_gives_the_frames_of_pyav_through_every_door():
    faults = video_table.find_faults_of_torchcodec(list(video_table.DOORS))
    assert len(faults) >= 50
    assert _faulty(faults) == {}


def test_files_of_the_zoo_are_as_hard_as_their_names_say(zoo):
    def streams(name):
        with av.open(str(zoo[name].path)) as container:
            return [
                (stream.type, stream.frames, float(stream.start_time * stream.time_base))
                for stream in container.streams
            ]

    def packets(name):
        with av.open(str(zoo[name].path)) as container:
            return [packet for packet in container.demux(video=0) if packet.dts is not None]

    assert streams("h264_audio_first.mp4")[0][0] == "audio"
    assert streams("h264_late_start.mkv")[0][2] == 2
    assert streams("h264_copied_clip.mp4")[0][1] > len(zoo["h264_copied_clip.mp4"].numbers)
    assert len(packets("vp8_alternate_references.webm")) > len(zoo["vp8_alternate_references.webm"].numbers)
    assert streams("mpeg4_dropped_frames.avi")[0][1] > len(zoo["mpeg4_dropped_frames.avi"].numbers)
    reordered = [packet.pts for packet in packets("h264_b_frames.mkv")]
    assert reordered != sorted(reordered)
    with av.open(str(zoo["h264_cover_first.mp4"].path)) as container:
        assert container.streams.video[0].codec_context.name == "mjpeg"


def test_files_that_cannot_be_shown_whole_are_errors(tmp_path):
    for path in video_zoo.make_unhealthy(tmp_path):
        with pytest.raises(ValueError, match="damaged|must have one size"):
            video_table.read(path, "path", "pyav")


def test_a_wrong_frame_time_or_orientation_is_a_fault(zoo):
    file = zoo["h264.mp4"]
    frames = np.stack([video_zoo.paint(number) for number in file.numbers])
    assert video_zoo.find_fault(file, frames, file.times) == ""
    assert "frames" in video_zoo.find_fault(file, frames[:, ::-1], file.times)
    assert "frames" in video_zoo.find_fault(file, frames[:, :, ::-1], file.times)
    assert "frames" in video_zoo.find_fault(file, frames[::-1], file.times)
    assert "frames" in video_zoo.find_fault(file, frames[:-1], file.times)
    assert "frames" in video_zoo.find_fault(file, frames[..., ::-1], file.times)
    assert "times" in video_zoo.find_fault(file, frames, [time + 0.01 for time in file.times])


def test_the_backend_comes_from_the_argument_then_the_environment(zoo, monkeypatch):
    calls = []
    decode = video_reading_ide3d.decode_with_pyav
    for name in video_table.BACKENDS:
        monkeypatch.setitem(
            video_reading_ide3d.DECODERS, name, lambda *args, name=name: calls.append(name) or decode(*args)
        )
    path = str(zoo["h264.mp4"].path)
    video_reading_ide3d.read_video(path, lambda metadata: [0])
    monkeypatch.setenv(video_reading_ide3d.BACKEND_VARIABLE, "torchcodec")
    video_reading_ide3d.read_video(path, lambda metadata: [0])
    video_reading_ide3d.read_video(path, lambda metadata: [0], backend="pyav")
    assert calls == ["pyav", "torchcodec", "pyav"]
    with pytest.raises(ValueError, match="Expected one of .*'pyav', 'torchcodec'.* got 'decord'"):
        video_reading_ide3d.read_video(path, lambda metadata: [0], backend="decord")


def test_torchcodec_without_ffmpeg_says_so_and_does_not_blame_the_file(zoo, monkeypatch):
    torchcodec = pytest.importorskip("torchcodec")
    monkeypatch.setattr(torchcodec, "ffmpeg_major_version", None)
    with pytest.raises(ImportError, match="shared libraries of FFmpeg 4 to 9"):
        video_table.read(zoo["h264.mp4"].path, "path", "torchcodec")


def test_without_torchcodec_the_error_says_what_to_install(zoo, monkeypatch):
    monkeypatch.setitem(video_table.sys.modules, "torchcodec", None)
    with pytest.raises(ImportError, match="torchcodec is missing: `pip install"):
        video_table.read(zoo["h264.mp4"].path, "path", "torchcodec")


def _faulty(faults):
    return {(name, door): fault for name, doors in faults.items() for door, fault in doors.items() if fault}
