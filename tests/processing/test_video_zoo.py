"""Every file of the video zoo, through every door and backend: the right frames, at the right times, upright."""

from importlib.util import find_spec

import av
import numpy as np
import pytest
import video_table
import video_zoo

from processing import video_decoding_ide3d, video_reading_ide3d

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


DAMAGED = ("h264.mp4", "h264_b_frames.mkv", "h264.flv", "hevc_ten_bit.mp4", "mpeg2_interlaced.ts", "mjpeg.mov",
           "vp9.webm", "gif_variable_rate.gif")  # fmt: skip


def read_damaged(zoo, folder, names, seeds):
    """Return (file, seed) of the damaged files that were read, with other pictures or not; all others are named."""
    taken = {}
    for name in names:
        frames, _ = video_table.read(zoo[name].path, "path", "pyav")
        for seed in seeds:
            path = folder / f"{seed}_{name}"
            path.write_bytes(video_zoo.damage(zoo[name].path, seed))
            try:
                taken[name, seed] = np.array_equal(video_table.read(path, "path", "pyav")[0], frames)
            except ValueError as error:
                assert path.name in str(error)
    return taken


def test_damage_is_told_with_the_name_of_the_file_or_changes_nothing(zoo, tmp_path):
    """Where a decoder marks frames, or the demuxer packets, no other pictures come back without a word."""
    taken = read_damaged(zoo, tmp_path, DAMAGED, range(4))
    assert [place for place, is_equal in taken.items() if not is_equal] == []


@pytest.mark.parametrize("level", [None, av.logging.ERROR])
def test_no_frame_is_decoded_ahead_where_pyav_logs(zoo, monkeypatch, level):
    """A thread that logs while its decoder is freed waits for ever; it is rare, and needs a damaged file."""
    streams, before = [], av.logging.get_level()
    find = video_decoding_ide3d.find_stream
    monkeypatch.setattr(video_decoding_ide3d, "find_stream", lambda *args: streams.append(find(*args)) or streams[-1])
    try:
        av.logging.set_level(level)
        video_table.read(zoo["h264.mp4"].path, "path", "pyav")
    finally:
        av.logging.set_level(before)
    assert {str(stream.thread_type.name) for stream in streams} == {"AUTO" if level is None else "SLICE"}


@pytest.mark.slow
def test_damage_of_any_file_is_an_error_of_ours(zoo, tmp_path):
    taken = read_damaged(zoo, tmp_path, zoo, range(10))
    assert len(taken) < len(zoo) * 10 / 5  # VP8, VP9, ProRes, MJPEG and HEVC decode some damage as if it were pictures


@pytest.mark.parametrize("name", ["h264_b_frames.mkv", "vp9.webm"])
def test_matroska_that_lacks_its_last_bytes_is_an_error(zoo, tmp_path, name):
    data = zoo[name].path.read_bytes()
    (tmp_path / name).write_bytes(data[:-1])
    with pytest.raises(
        ValueError, match=f"{name} cannot be decoded whole: .*its header or index names {len(data)} by"
    ):
        video_table.read(tmp_path / name, "path", "pyav")


def test_matroska_that_was_streamed_has_no_size_and_is_whole(zoo, tmp_path):
    data = bytearray(zoo["vp9.webm"].path.read_bytes())
    size = data.index(bytes.fromhex("18538067")) + 4
    data[size : size + 8] = b"\x01" + 7 * b"\xff"
    (tmp_path / "streamed.webm").write_bytes(data)
    assert len(video_table.read(tmp_path / "streamed.webm", "path", "pyav")[0]) == len(zoo["vp9.webm"].numbers)


def test_tags_in_any_encoding_are_healthy(zoo, tmp_path):
    data = zoo["h264.mp4"].path.read_bytes()
    assert data.count(b"VideoHandler") == 1
    (tmp_path / "latin.mp4").write_bytes(data.replace(b"VideoHandler", "Vid\xe9oHandler".encode("latin-1")))
    frames, _ = video_table.read(tmp_path / "latin.mp4", "path", "pyav")
    assert len(frames) == len(zoo["h264.mp4"].numbers)


def test_losses_that_no_error_tells_are_warnings(zoo, tmp_path, caplog):
    data = zoo["h264_b_frames.ts"].path.read_bytes()
    (tmp_path / "cut.ts").write_bytes(data[:-100])
    video_table.read(tmp_path / "cut.ts", "path", "pyav")
    assert "cut.ts ends within a packet" in caplog.text
    data = bytearray(zoo["hevc_ten_bit.mp4"].path.read_bytes())
    with av.open(str(zoo["hevc_ten_bit.mp4"].path)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][-1]
    data[place + 4 : place + 6] = b"\x7e\x01"  # a unit of a reserved kind instead of the picture
    (tmp_path / "lost.mp4").write_bytes(data)
    video_table.read(tmp_path / "lost.mp4", "path", "pyav")
    assert "gave no picture for 1 of 12 packets" in caplog.text


def test_healthy_files_are_read_without_a_warning(zoo, caplog):
    for name, file in zoo.items():
        if name != "h264_wide_pixels.mp4":
            video_table.read(file.path, "path", "pyav")
    assert caplog.text == ""


def test_two_streams_of_one_size_are_named(zoo, tmp_path, caplog):
    with av.open(str(tmp_path / "two.mkv"), "w") as out, av.open(str(zoo["h264.mp4"].path)) as given:
        copies = [out.add_stream_from_template(given.streams.video[0]) for _ in range(2)]
        for packet in given.demux(video=0):
            if packet.dts is None:
                continue
            content, times = bytes(packet), (packet.pts, packet.dts, packet.time_base, packet.is_keyframe)
            for copy in copies:
                packet = av.Packet(content)
                packet.pts, packet.dts, packet.time_base, packet.is_keyframe = times
                packet.stream = copy
                out.mux(packet)
    video_table.read(tmp_path / "two.mkv", "path", "pyav")
    assert "two.mkv has 2 video streams of 64 x 48 pixels: number 0 of the file is read" in caplog.text


def test_a_header_of_huge_pictures_is_refused(zoo, tmp_path, monkeypatch):
    from processing import video_packets_ide3d

    monkeypatch.setattr(video_packets_ide3d, "MAX_FRAME_PIXELS", 64 * 48 - 1)
    with pytest.raises(ValueError, match="h264.mp4 announces pictures of 64 x 48 pixels, more than MAX_FRAME_PIXELS"):
        video_table.read(zoo["h264.mp4"].path, "path", "pyav")
