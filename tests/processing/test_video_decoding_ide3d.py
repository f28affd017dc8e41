"""The one video reader: what is shown, when, upright, in standard range; whole or an error; the same by every door."""

import functools
import http.server
import io
import logging
import struct
import threading
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from processing import IDE3DVideoProcessor, downloads_ide3d
from processing.frame_colours_ide3d import to_standard_range
from processing.frame_times_ide3d import (
    TimedVideoMetadata,
    describe_times,
    find_indices_at_rate,
    find_indices_over_time,
    to_shown_times,
)
from processing.video_reading_ide3d import list_videos, read_video

RATE, WIDTH, HEIGHT, STEP = 30, 64, 48, 6  # frame i is of brightness 6 i

BIT_RATE = 4_000_000  # keeps the noise and the brightness


def write(
    path,
    codec="libx264",
    times=range(20),
    size=(WIDTH, HEIGHT),
    pix_fmt="yuv420p",
    options=None,
    bit_rate=BIT_RATE,
    **container,
):
    """Write grey frames, the i-th of brightness 6 i with a noisy corner, at `times` in frames of 1 / 30 s."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", options=container) as out:
        stream = out.add_stream(codec, rate=RATE, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.bit_rate = BIT_RATE
        stream.codec_context.time_base = stream.time_base = Fraction(1, RATE)
        for index, time in enumerate(times):
            picture = np.full((size[1], size[0], 3), STEP * index, np.uint8)
            picture[:16, :16] = noise.integers(0, 256, (16, 16, 3))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, RATE)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def read(source, indices=None):
    """All frames, or those at `indices`, with their metadata."""
    return read_video(source, lambda metadata: range(metadata.total_num_frames) if indices is None else indices)


def numbers(frames) -> list[int]:
    """Which frames these are, by their brightness."""
    return np.rint(frames[:, -16:, -16:].reshape(len(frames), -1).mean(1) / STEP).astype(int).tolist()


def set_matrix(path, matrix):
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


def cut_without_encoding(source, target, start, seconds):
    """What `ffmpeg -ss start -i source -t seconds -c copy target` does."""
    with av.open(str(source)) as given, av.open(str(target), "w", options={"avoid_negative_ts": "disabled"}) as out:
        stream = given.streams.video[0]
        copy, offset = out.add_stream_from_template(stream), int(start / stream.time_base)
        given.seek(offset, stream=stream, backward=True)
        for packet in given.demux(stream):
            if packet.dts is None or packet.pts * stream.time_base >= start + seconds:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, copy
            out.mux(packet)
    return target


# What is shown


@pytest.mark.parametrize(
    "name, codec, options",
    [
        ("b_frames.mp4", "libx264", {"bf": "3"}),
        ("b_frames.avi", "libx264", {"bf": "3"}),  # numbered in the order of the file
        ("b_frames.mkv", "mpeg4", {"bf": "2"}),
        ("invisible.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "arnr-maxframes": "7"}),
        ("broadcast.ts", "mpeg2video", {"bf": "2"}),
        ("raw.h264", "libx264", {"bf": "3"}),  # has no times at all
    ],
)
def test_every_shown_frame_is_read_once_and_in_its_order(tmp_path, name, codec, options):
    frames, metadata = read(write(tmp_path / name, codec, options=options))
    assert numbers(frames) == list(range(20))
    assert metadata.fps == pytest.approx(RATE) and metadata.duration == pytest.approx(20 / RATE)
    np.testing.assert_allclose(metadata.timestamps, np.arange(20) / RATE, atol=1e-3)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov"])
@pytest.mark.parametrize("options", [{"g": "40", "bf": "2"}, {"g": "8", "x264-params": "open-gop=1:bframes=3"}])
def test_frames_before_a_cut_without_encoding_are_not_shown(tmp_path, name, options):
    source = write(tmp_path / "source.mp4", times=range(30), options=options)
    frames, metadata = read(cut_without_encoding(source, tmp_path / name, Fraction(12, RATE), Fraction(15, RATE)))
    assert numbers(frames) == list(range(12, 27))
    assert (metadata.total_num_frames, metadata.fps, metadata.duration) == (15, RATE, 0.5)


def test_a_recording_that_begins_between_key_frames_begins_at_the_first_whole_one(tmp_path):
    path = write(tmp_path / "whole.ts", times=range(30), options={"g": "10", "bf": "0", "sc_threshold": "0"})
    packets = path.read_bytes()
    (tmp_path / "inside.ts").write_bytes(packets[188 * 15 :])
    frames, metadata = read(tmp_path / "inside.ts")
    first = numbers(frames)[0]
    assert first > 0 and numbers(frames) == list(range(first, 30)) and metadata.timestamps[0] == 0


@pytest.mark.parametrize("name", ["late.mkv", "late.webm", "late.mp4", "late.flv", "late.ts"])
def test_times_count_from_the_first_shown_frame(tmp_path, name):
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    frames, metadata = read(write(tmp_path / name, codec, times=range(300, 310)))
    assert numbers(frames) == list(range(10))
    np.testing.assert_allclose(metadata.timestamps, np.arange(10) / RATE, atol=1.1e-3)


def test_recordings_that_were_joined_go_on_in_time(tmp_path):
    parts = [write(tmp_path / f"{part}.ts", times=range(100, 140)).read_bytes() for part in range(2)]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    frames, metadata = read(tmp_path / "joined.ts")
    assert numbers(frames) == 2 * list(range(40))
    np.testing.assert_allclose(metadata.timestamps, np.arange(80) / RATE, atol=1e-3)


def test_a_cover_picture_is_not_the_video(tmp_path):
    path = write(tmp_path / "plain.mp4")
    cover = io.BytesIO()
    Image.new("RGB", (100, 100), "red").save(cover, "JPEG")

    def atom(kind, data):
        return struct.pack(">I", 8 + len(data)) + kind + data

    art = atom(b"covr", atom(b"data", struct.pack(">II", 13, 0) + cover.getvalue()))
    handler = atom(b"hdlr", b"\0" * 8 + b"mdirappl" + b"\0" * 9)
    tags = atom(b"udta", atom(b"meta", b"\0" * 4 + handler + atom(b"ilst", art)))
    data = path.read_bytes()
    start = data.index(b"moov") - 4  # the last atom: media offsets stay as they are
    children = data[start + 8 :]
    header = struct.unpack(">I", children[:4])[0]
    path.write_bytes(data[:start] + atom(b"moov", children[:header] + tags + children[header:]))
    assert numbers(read(path)[0]) == list(range(20))
    path.write_bytes(data[:start] + atom(b"moov", children[:header] + tags))
    with pytest.raises(ValueError, match="only a cover picture"):
        read(path)


# When it is shown

UNEVEN = [*range(0, 9 * RATE, RATE), *range(9 * RATE, 10 * RATE)]  # a frame a second, then 30 in the last second


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
def test_variable_rate_is_sampled_by_time(tmp_path, name):
    processor = IDE3DVideoProcessor(size={"height": 14, "width": 14})
    path = write(tmp_path / name, times=UNEVEN, options={"bf": "2"})
    for demand, seconds in (
        ({"fps": 1}, np.arange(10)),
        ({"fps": 2}, np.floor(np.arange(20) / 2).clip(max=9) + 0.5 * (np.arange(20) == 19)),
        ({"num_frames": 10}, [*range(9), 9 + 29 / RATE]),
    ):
        metadata = processor(path, return_metadata=True, **demand)["video_metadata"][0]
        np.testing.assert_allclose(metadata.timestamps, seconds, atol=1.1e-3)
        np.testing.assert_allclose(np.array(UNEVEN)[metadata.frames_indices] / RATE, seconds, atol=1e-6)
        assert metadata.duration == pytest.approx(10, abs=0.04)
        assert metadata.fps == pytest.approx(3.9, abs=0.02)
    with pytest.raises(ValueError, match="only 30"):
        processor(path, fps=40)


def test_dropped_frames_of_avi_leave_gaps_and_no_damage(tmp_path):
    times = [time for time in range(24) if time not in (7, 8, 9, 15)]
    frames, metadata = read(write(tmp_path / "dropped.avi", "mpeg4", times=times))
    assert numbers(frames) == list(range(20))
    np.testing.assert_allclose(metadata.timestamps, np.array(times) / RATE)


def test_frames_in_memory_keep_their_true_times(tmp_path):
    frames, metadata = read(write(tmp_path / "uneven.mp4", times=UNEVEN))
    processor = IDE3DVideoProcessor(size={"height": 14, "width": 14})
    sampled = processor(list(frames), video_metadata=[metadata], fps=1, return_metadata=True)["video_metadata"][0]
    assert sampled.timestamps == pytest.approx(range(10))
    assert metadata.frames_indices == list(range(len(UNEVEN)))  # the caller's own is left alone


def test_metadata_is_taken_where_transformers_takes_its_own():
    metadata = describe_times([0, 1, 5], 1.0, None, "pyav")
    metadata.frames_indices = [0, 2]
    assert metadata.timestamps == [0, 5] and metadata.duration == 6
    assert "frame_times" not in dict(metadata) and len(dict(metadata)) == len(metadata)
    assert metadata.sampled_fps == pytest.approx(2 / 6)


@pytest.mark.parametrize("rate", [24, 30000 / 1001, 60, 240])
def test_times_in_whole_milliseconds_are_a_constant_rate(rate):
    metadata = describe_times(np.round(np.arange(500) / rate, 3).tolist(), 0.0, rate, "pyav")
    assert metadata.is_constant_rate and metadata.fps == rate
    uniform = np.linspace(0, 499, 32).astype(int)
    np.testing.assert_array_equal(find_indices_over_time(metadata, 32), uniform)
    np.testing.assert_array_equal(find_indices_at_rate(metadata, rate), np.arange(500))


def test_the_frame_at_a_time_is_the_one_shown_then():
    metadata = TimedVideoMetadata(total_num_frames=31, fps=30.0)
    assert find_indices_at_rate(metadata, 7).tolist() == [int(30 * k / 7) for k in range(8)]


def test_uniform_times_take_no_frame_twice():
    metadata = describe_times([0, 10, *np.linspace(19, 20, 9)], 0.1, None, "pyav")
    indices = find_indices_over_time(metadata, 8)
    assert len(set(indices.tolist())) == 8 and indices[0] == 0 and indices[-1] == 10
    assert find_indices_over_time(metadata, 40).tolist() == list(range(11))


@pytest.mark.parametrize(
    "times, shown",
    [
        ([None, None, None], [0, 1, 2]),
        ([5.0, 8.0, 7.0, 6.0], [0, 1, 2, 3]),
        ([50.0, 51.0, 3.0, 4.0], [0, 1, 2, 3]),
        ([], []),
    ],
)
def test_times_of_decoders_become_increasing(times, shown):
    assert to_shown_times(times, [1.0] * len(times)) == pytest.approx(shown)


# How it is shown

ONE = 1 << 16
MATRICES = {
    "as it is": ((ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), lambda picture: picture),
    "half turn": ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), lambda picture: picture[::-1, ::-1]),
    "quarter turn": ((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), lambda picture: np.rot90(picture, -1)),
    "three quarter turn": ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), np.rot90),
    "left to right": ((-ONE, 0, 0, 0, ONE, 0, WIDTH * ONE, 0, 1 << 30), lambda picture: picture[:, ::-1]),
    "top to bottom": ((ONE, 0, 0, 0, -ONE, 0, 0, HEIGHT * ONE, 1 << 30), lambda picture: picture[::-1]),
    "transposed": ((0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), lambda picture: picture.swapaxes(0, 1)),
    "other diagonal": (
        (0, -ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30),
        lambda picture: picture[::-1, ::-1].swapaxes(0, 1),
    ),
}


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrices_turn_and_mirror(tmp_path, name):
    path = write(tmp_path / "front.mp4", times=range(3))
    stored = read(path)[0]
    matrix, show = MATRICES[name]
    set_matrix(path, matrix)
    frames, metadata = read(path)
    np.testing.assert_array_equal(frames, np.stack([show(picture) for picture in stored]))
    assert (metadata.height, metadata.width) == frames.shape[1:3]


def test_pixels_that_are_not_square_are_named(tmp_path, caplog):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        out.mux(stream.encode(av.VideoFrame(WIDTH, HEIGHT, "yuv420p")))
        out.mux(stream.encode())
    with caplog.at_level(logging.WARNING):
        frames, _ = read(path)
    assert frames.shape == (1, HEIGHT, WIDTH, 3)
    assert "wide.mp4 are not square (4/3" in caplog.text


COLOURS = [(200, 30, 30), (30, 150, 30), (30, 60, 200), (139, 90, 43), (230, 130, 20), (20, 20, 20), (240, 240, 240)]
BT2020_FROM_BT709 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def to_light(rgb):
    signal = np.asarray(rgb) / 255
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def to_hlg(light):
    scene = BT2020_FROM_BT709 @ light * 0.265
    root = np.sqrt(3 * scene)
    return np.where(scene <= 1 / 12, root, 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073)


def to_pq(light):
    power = (BT2020_FROM_BT709 @ light * 203 / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def to_wide_srgb(light):
    wide = BT2020_FROM_BT709 @ light
    return np.where(wide <= 0.0031308, 12.92 * wide, 1.055 * wide ** (1 / 2.4) - 0.055)


def write_colour(path, signal, matrix, transfer, primaries, luma):
    """Three lossless frames of one colour with 10 bits and limited range."""
    red, _, blue = luma
    y = float(np.dot(luma, signal))
    samples = [64 + 876 * y, 512 + 448 * (signal[2] - y) / (1 - blue), 512 + 448 * (signal[0] - y) / (1 - red)]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv444p10le"
        context = stream.codec_context
        context.colorspace, context.color_trc, context.color_primaries = matrix, transfer, primaries
        for _ in range(3):
            frame = av.VideoFrame(16, 16, "yuv444p10le")
            frame.colorspace, frame.color_range = matrix, 1
            for plane, sample in zip(frame.planes, samples, strict=True):
                plane.update(np.full(plane.buffer_size // 2, round(sample), "<u2").tobytes())
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


@pytest.mark.parametrize("rgb", COLOURS)
@pytest.mark.parametrize("encode, transfer", [(to_hlg, 18), (to_pq, 16), (to_wide_srgb, 14)])
def test_hdr_and_wide_colours_are_those_of_standard_video(tmp_path, rgb, encode, transfer):
    luma = (0.2627, 0.6780, 0.0593)
    write_colour(tmp_path / "wide.mkv", encode(to_light(rgb)), 9, transfer, 9, luma)
    np.testing.assert_allclose(read(tmp_path / "wide.mkv")[0][1, 8, 8], rgb, atol=3)


def test_highlights_keep_their_hue_and_their_order():
    light = np.linspace(0.5, 4, 8)[:, None] * [1.0, 0.5, 0.25]
    signal = np.stack([np.rint(65280 * to_pq(row)) for row in light])[None].astype(np.uint16)
    shown = to_standard_range(signal, 16, 9)[0].astype(int)
    assert (np.diff(shown[:, 0]) >= 0).all() and shown[-1, 0] == 255
    assert np.abs(shown[-1, 1:] - [188, 137]).max() <= 2  # half and a quarter of the light of white


def test_the_colour_matrix_of_the_file_counts(tmp_path):
    rgb = (200, 30, 30)
    for matrix, luma in ((1, (0.2126, 0.7152, 0.0722)), (6, (0.299, 0.587, 0.114))):
        write_colour(tmp_path / f"{matrix}.mkv", np.array(rgb) / 255, matrix, 1, 1, luma)
        np.testing.assert_allclose(read(tmp_path / f"{matrix}.mkv")[0][1, 8, 8], rgb, atol=2)


# Whole, or an error


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
@pytest.mark.parametrize(
    "name, codec, container",
    [
        ("cut.mp4", "libx264", {"movflags": "faststart"}),
        ("cut.mov", "mpeg4", {}),
        ("fragments.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("cut.mkv", "libx264", {}),
        ("cut.webm", "libvpx-vp9", {}),
        ("cut.flv", "libx264", {}),
        ("cut.avi", "mjpeg", {}),
    ],
)
def test_what_is_cut_off_is_an_error(tmp_path, share, name, codec, container):
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write(tmp_path / name, codec, times=range(30), pix_fmt=pix_fmt, **container)
    assert len(read(path)[0]) == 30
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=f"{name} cannot be decoded"):
        read(path)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mjpeg"])
def test_damage_that_the_decoder_sees_is_an_error(tmp_path, codec):
    path = write(tmp_path / "damaged.mp4", codec, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p")
    data, noise, found = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(8):
        damaged = bytearray(data)
        at = int(noise.integers(data.index(b"mdat") + 64, len(data) // 2))
        damaged[at : at + 16] = noise.bytes(16)
        try:
            read(bytes(damaged))
        except ValueError as error:
            assert "cannot be decoded" in str(error)
            found += 1
    assert found >= 3  # the rest decodes as if nothing were amiss


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pictures_of_cameras_may_carry_exif(tmp_path, orientation):
    """Motion JPEG of JPEGs with EXIF: PyAV knows no such side data and gives up all of it, the display matrix too."""
    picture = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    picture[: HEIGHT // 2, : WIDTH // 2] = 220
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "JPEG", exif=exif, quality=95)
    with av.open(str(tmp_path / "camera.avi"), "w") as out:
        stream = out.add_stream("mjpeg", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        for index in range(3):
            packet = av.Packet(content.getvalue())
            packet.pts = packet.dts = index
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, RATE), stream, True
            out.mux(packet)
    frames, _ = read(tmp_path / "camera.avi")
    upright = np.asarray(ImageOps.exif_transpose(Image.open(content)))
    assert frames.shape == (3, *upright.shape)
    assert np.abs(frames[0].astype(int) - upright).mean() < 5


def test_a_colon_in_a_name_is_no_protocol(tmp_path, monkeypatch):
    write(tmp_path / "12:30.mp4")
    monkeypatch.chdir(tmp_path)
    assert numbers(read("12:30.mp4", [0, 7])[0]) == [0, 7]


def test_open_pictures_are_the_frames_of_one_video(tmp_path):
    files = [tmp_path / f"{index}.png" for index in range(3)]
    for index, file in enumerate(files):
        Image.new("RGB", (8, 6), (index, 0, 0)).save(file)
    (video,) = list_videos([file.open("rb") for file in files])
    assert read(video)[0][:, 0, 0, 0].tolist() == [0, 1, 2]


def test_addresses_as_browsers_take_them(tmp_path, server):
    address = server(write(tmp_path / "two words ü.mp4"))
    assert numbers(read(address.replace("http", "HTTP"), [3])[0]) == [3]
    with pytest.raises(ConnectionError, match=r"http://\[x/x.mp4 cannot be downloaded"):
        read("http://[x/x.mp4")
    with pytest.raises(ValueError, match=r"http: or https:, got s3://bucket/a.mp4"):
        read("s3://bucket/a.mp4")


def test_an_index_that_is_cut_is_damage(tmp_path):
    data = write(tmp_path / "whole.mp4").read_bytes()
    for place in range(data.index(b"moov") + 20, data.index(b"udta") - 8, 97):
        (tmp_path / "cut.mp4").write_bytes(data[:place])
        with pytest.raises(ValueError, match=r"cut.mp4 .*(damaged|cut off)"):
            read(tmp_path / "cut.mp4")


def test_a_size_that_changes_is_named(tmp_path):
    parts = [write(tmp_path / f"{width}.ts", size=(width, HEIGHT)).read_bytes() for width in (64, 96)]
    (tmp_path / "changes.ts").write_bytes(b"".join(parts))
    with pytest.raises(ValueError, match=r"changes.ts has 64 x 48 pixels from .* s, 96 x 48 from .* s"):
        read(tmp_path / "changes.ts")


def test_a_playlist_reaches_no_network(tmp_path, server):
    address = server(write(tmp_path / "part.ts"))
    path = tmp_path / "list.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
    for source in (path, path.read_bytes()):
        with pytest.raises(ValueError, match="cannot be decoded"):
            read(source)
    assert server.asked == []


# By every door


@pytest.fixture
def server():
    """Serve a file on this machine; `asked` lists the requests."""
    asked, served = [], []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(args)

    def serve(path):
        handler = functools.partial(Handler, directory=str(path.parent))
        served.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=served[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{served[-1].server_port}/{path.name}"

    serve.asked = asked
    yield serve
    for each in served:
        each.shutdown()
        each.server_close()


@pytest.mark.parametrize("name", ["upright.mp4", "recording.webm", "stream.ts"])
def test_every_door_gives_the_same_pixels_at_the_same_times(tmp_path, server, name):
    path = write(tmp_path / name, "libvpx-vp9" if name.endswith("webm") else "libx264")
    if name.endswith("mp4"):
        set_matrix(path, MATRICES["quarter turn"][0])
    data, (expected, times) = path.read_bytes(), read(path)
    used = io.BytesIO(data)
    used.seek(10)
    with path.open("rb") as file:
        doors = {
            "text": str(path),
            "file URL": path.as_uri(),
            "http URL": server(path),
            "bytes": data,
            "bytearray": bytearray(data),
            "memoryview": memoryview(data),
            "file in memory": used,
            "open file": file,
            "one-way file": SimpleNamespace(read=io.BytesIO(data).read),
            "row with a path": {"path": str(path), "bytes": None},
            "row with bytes": {"path": "elsewhere.mp4", "bytes": data},
            "decoder of datasets": SimpleNamespace(_hf_encoded={"path": str(path), "bytes": None}),
        }
        processor = IDE3DVideoProcessor(size={"height": 14, "width": 14}, num_frames=5)
        pixels = processor(path)["pixel_values_videos"]
        for door, source in doors.items():
            frames, metadata = read(source)
            np.testing.assert_array_equal(frames, expected, err_msg=door)
            assert metadata == times, door
            if door != "one-way file":
                np.testing.assert_array_equal(processor([source])["pixel_values_videos"], pixels, err_msg=door)
        assert not file.closed and not used.closed


def test_chats_take_every_door(tmp_path, server, processor):
    path = write(tmp_path / "video.mkv")
    data = path.read_bytes()

    def encode(source, key="video"):
        content = [{"type": "video", key: source}, {"type": "text", "text": "What is there?"}]
        chat = [{"role": "user", "content": content}]
        return processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")

    expected = encode(str(path))["pixel_values_videos"]
    rows = {"path": None, "bytes": data}
    for source in (path, path.as_uri(), server(path), data, io.BytesIO(data), rows):
        np.testing.assert_array_equal(encode(source)["pixel_values_videos"], expected)
    np.testing.assert_array_equal(encode(server(path), key="url")["pixel_values_videos"], expected)


def test_doors_that_are_shut(tmp_path, server, monkeypatch):
    path = write(tmp_path / "video.mkv")
    address = server(path)
    with pytest.raises(ConnectionError, match=r"nothing.mkv cannot be downloaded .*404"):
        read(address.replace("video", "nothing"))
    (tmp_path / "empty.mkv").touch()
    for source in (b"", io.BytesIO(), str(tmp_path / "empty.mkv"), address.replace("video", "empty")):
        with pytest.raises(ValueError, match="is an empty file"):
            read(source)
    with pytest.raises(TypeError, match="gives text"):
        read(io.StringIO("text"))
    with pytest.raises(ValueError, match="path or bytes, got neither"):
        read({"path": None, "bytes": None})
    with pytest.raises(ValueError, match="has more than 10 bytes"):
        downloads_ide3d.download(address, io.BytesIO(), 10)
    monkeypatch.setattr(downloads_ide3d, "MAX_SECONDS", -1)
    with pytest.raises(TimeoutError, match="still coming"):
        read(address)


def test_a_download_that_ends_early_is_an_error(tmp_path):
    class Short(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"too little")

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Short) as short:
        threading.Thread(target=short.handle_request, daemon=True).start()
        with pytest.raises(ConnectionError, match="ended after 10 of 1000 bytes"):
            read(f"http://127.0.0.1:{short.server_port}/video.mp4")


def test_wanted_frames_alone_are_converted(tmp_path, monkeypatch):
    from processing import video_decoding_ide3d as decoding

    converted = []
    to_picture = decoding.to_picture
    monkeypatch.setattr(decoding, "to_picture", lambda frame: converted.append(frame.pts) or to_picture(frame))
    frames, metadata = read(write(Path(tmp_path) / "video.mp4"), [3, 12])
    assert numbers(frames) == [3, 12] and len(converted) == 2
    assert metadata.timestamps == pytest.approx([3 / RATE, 12 / RATE])
