"""Frames that are sought by key frames are those of decoding everything, bit for bit, or everything is decoded."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
import video_table
import video_zoo
from av.video.reformatter import ColorRange, Colorspace

from processing import IDE3DVideoProcessor, video_decoding_ide3d, video_packets_ide3d, video_seeking_ide3d
from processing.video_reading_ide3d import read_video

FRAMES = 72
TIMES = range(0, 40 * FRAMES, 40)
VARIABLE = [40 * index + 200 * (index // 7) for index in range(FRAMES)]
B_FRAMES = {"bf": "3", "g": "12", "x264-params": "b-adapt=0:scenecut=0", "qp": "10"}
X265 = "log-level=none:pools=none:frame-threads=1:keyint=12:min-keyint=12:scenecut=0:bframes=3"
VPX = {"deadline": "realtime", "cpu-used": "8", "b": "1M", "g": "12"}
HLG = {"pix_fmt": "yuv420p10le", "transfer": (18, 9), "colours": (Colorspace.BT2020, ColorRange.MPEG)}

SOUGHT = {
    "h264.mp4": ("libx264", {"options": {"g": "12", "bf": "0", "x264-params": "scenecut=0"}}),
    "h264.flv": ("libx264", {"options": {"g": "12", "bf": "0", "x264-params": "scenecut=0"}}),
    "h264_b_frames.mp4": ("libx264", {"options": B_FRAMES}),
    "h264_b_frames.mkv": ("libx264", {"options": B_FRAMES}),
    "h264_b_frames.ts": ("libx264", {"options": B_FRAMES}),
    "h264_fragmented.mp4": ("libx264", {"options": B_FRAMES, "container_options": {
        "movflags": "frag_keyframe+empty_moov"}}),
    "h264_with_sound.mp4": ("libx264", {"options": B_FRAMES, "audio": "aac"}),
    "h264_variable_rate.mp4": ("libx264", {"options": B_FRAMES, "times": VARIABLE}),
    "h264_late_start.mkv": ("libx264", {"options": B_FRAMES, "times": range(2000, 2000 + 40 * FRAMES, 40)}),
    "h264_ten_bit_444.mp4": ("libx264", {"options": B_FRAMES, "pix_fmt": "yuv444p10le"}),
    "hevc_closed.mp4": ("libx265", {"options": {"x265-params": f"{X265}:open-gop=0"}}),
    "hevc_open.mp4": ("libx265", {"options": {"x265-params": f"{X265}:open-gop=1"}}),
    "hevc_open.mkv": ("libx265", {"options": {"x265-params": f"{X265}:open-gop=1"}, **HLG}),
    "vp8.webm": ("libvpx", {"options": VPX}),
    "vp9.webm": ("libvpx-vp9", {"options": {**VPX, "deadline": "good", "lag-in-frames": "8", "cpu-used": "5"}}),
    "vp9_444.mp4": ("libvpx-vp9", {"options": VPX, "pix_fmt": "yuv444p"}),
    "av1.mp4": ("libsvtav1", {"options": {"preset": "8", "crf": "20", "g": "12", "svtav1-params": "irefresh-type=2"}}),
    "av1.mkv": ("libsvtav1", {"options": {"preset": "8", "crf": "20", "g": "12", "svtav1-params": "irefresh-type=2"}}),
    "mjpeg.mov": ("mjpeg", {"pix_fmt": "yuvj422p"}),
    "mjpeg.avi": ("mjpeg", {"pix_fmt": "yuvj420p"}),
    "prores.mov": ("prores_ks", {"pix_fmt": "yuv422p10le"}),
}  # fmt: skip
NOT_SOUGHT = {
    "h264_one_key.mp4": ("libx264", {"options": {"g": "250", "x264-params": "scenecut=0"}}),
    "h264_open.mp4": ("libx264", {"options": {"g": "12", "x264-params": "open-gop=1:bframes=3:scenecut=0"}}),
    "h264_refreshed.mp4": ("libx264", {"options": {"g": "12", "x264-params": "intra-refresh=1:scenecut=0"}}),
    "h264_interlaced.mp4": ("libx264", {"options": {"g": "12", "x264-params": "tff=1:scenecut=0"}}),
    "mpeg4.avi": ("mpeg4", {"options": {"q": "2", "g": "12"}}),
    "mpeg4_b_frames.mp4": ("mpeg4", {"options": {"bf": "2", "g": "12"}}),
    "mpeg2.ts": ("mpeg2video", {"options": {"bf": "2", "g": "12"}}),
    "ffv1.mkv": ("ffv1", {"options": {"g": "12"}}),
}  # fmt: skip
WANTED = ([71], [0, 40], [5, 23, 24, 25, 60], [35, 36, 71])


def write_files(folder):
    return {
        name: video_zoo.write(folder / name, codec, **{"times": TIMES, **options})
        for name, (codec, options) in {**SOUGHT, **NOT_SOUGHT}.items()
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("sought"))


@pytest.fixture
def decoded(monkeypatch):
    """Return the list of the decoders' calls: "all", or one entry for each frame that was sought."""
    calls = []
    everything, describe = video_decoding_ide3d._decode, video_decoding_ide3d._describe_look
    monkeypatch.setattr(video_decoding_ide3d, "_decode", lambda *args: calls.append("all") or everything(*args))
    monkeypatch.setattr(
        video_decoding_ide3d, "_describe_look", lambda frame: calls.append(frame.pts) or describe(frame)
    )
    return calls


def read_both(path, wanted, backend="pyav"):
    """Read frames by seeking, and by decoding everything."""
    return [read_video(str(path), lambda metadata: wanted, backend=backend, seeks=seeks) for seeks in (True, False)]


def find_difference(path, wanted, backend="pyav"):
    (frames, metadata), (expected, plain) = read_both(path, wanted, backend)
    if not np.array_equal(frames, expected):
        return f"pixels of {wanted} differ"
    return "" if metadata == plain else f"metadata of {wanted} differ"


@pytest.mark.parametrize("name", [*SOUGHT, *NOT_SOUGHT])
def test_sought_frames_are_those_of_decoding_everything(files, decoded, name):
    for wanted in WANTED:
        decoded.clear()
        frames, metadata = read_video(str(files[name].path), lambda metadata, wanted=wanted: wanted)
        was_sought = "all" not in decoded
        assert was_sought == (name in SOUGHT)
        numbers = [video_zoo.read_number(frame, files[name].has_colours) for frame in frames]
        assert numbers == wanted
        assert find_difference(files[name].path, wanted) == ""


@pytest.mark.skipif(not find_spec("torchcodec"), reason="needs torchcodec")
@pytest.mark.slow
def test_torchcodec_gives_the_sought_frames_of_pyav(tmp_path):
    (tmp_path / "libraries").mkdir()
    (tmp_path / "files").mkdir()
    tests = Path(video_zoo.__file__).parent
    paths = os.pathsep.join([str(Path(__file__).parent), str(tests), str(tests.parent), *sys.path])
    environment = {**os.environ, "LD_LIBRARY_PATH": video_table.link_ffmpeg(tmp_path / "libraries"),
                   "PYTHONPATH": paths, "SVT_LOG": "0"}  # fmt: skip
    command = [sys.executable, "-c", "import test_video_seeking_ide3d as test; test.print_differences_of_torchcodec()"]
    done = subprocess.run([*command, str(tmp_path / "files")], env=environment, capture_output=True, text=True,
                          timeout=600, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    sought, differences = json.loads(done.stdout.splitlines()[-1])
    assert differences == [] and set(sought) == set(SOUGHT)


def print_differences_of_torchcodec():
    """Print the files that torchcodec sought, and where its frames differ from those of decoding all by PyAV."""
    from processing import video_torchcodec_ide3d

    calls, differences, sought, everything = [], [], [], video_torchcodec_ide3d._decode
    video_torchcodec_ide3d._decode = lambda *args: calls.append(args) or everything(*args)
    for name, file in write_files(Path(sys.argv[1])).items():
        calls.clear()
        frames = [read_video(str(file.path), lambda metadata, w=w: w, backend="torchcodec")[0] for w in WANTED]
        sought += [name] * (not calls)
        for wanted, given in zip(WANTED, frames, strict=True):
            expected = read_video(str(file.path), lambda metadata, w=wanted: w, backend="pyav", seeks=False)[0]
            differences += [(name, wanted)] * (not np.array_equal(given, expected))
    sys.stdout.write(f"\n{json.dumps([sought, differences])}\n")


def test_few_frames_are_decoded(files, decoded):
    path = str(files["h264_b_frames.mp4"].path)
    read_video(path, lambda metadata: [0, 38], num_threads=1)
    assert "all" not in decoded
    # Two looks at the first frame of the file; then the key frame 36 and the two behind it.
    assert len(decoded) <= 2 + 3
    decoded.clear()
    read_video(path, lambda metadata: range(metadata.total_num_frames))
    assert decoded == ["all"]


def test_frames_resized_while_decoding_are_those_resized_together(files):
    path, processor = str(files["h264_ten_bit_444.mp4"].path), IDE3DVideoProcessor(num_frames=5)
    frames, metadata = read_video(path, processor.sample_frames, seeks=False)
    for options in ({}, {"size": {"height": 20, "width": 30}}, {"resample": 2}, {"do_resize": False}):
        whole = processor(list(frames), do_sample_frames=False, **options)["pixel_values_videos"]
        stored = processor(path, return_metadata=True, **options)
        assert stored["pixel_values_videos"].equal(whole)
        assert (stored["video_metadata"][0].height, stored["video_metadata"][0].width) == frames.shape[1:3]
        assert stored["video_metadata"][0].timestamps == metadata.timestamps


def test_whole_frames_are_resized_before_the_next_one_is_decoded(files, monkeypatch):
    sizes, keep = [], video_packets_ide3d.ShownFrames.keep

    def spy(self, *args):
        keep(self, *args)
        sizes.append(self.take(self.kept).shape[1:])

    monkeypatch.setattr(video_packets_ide3d.ShownFrames, "keep", spy)
    IDE3DVideoProcessor(num_frames=3, size={"height": 14, "width": 14})(str(files["h264.mp4"].path))
    assert sizes == 3 * [(14, 14, 3)]


def test_the_number_of_threads_changes_no_frame(files):
    for name in ("h264_b_frames.mp4", "hevc_open.mp4", "vp9.webm"):
        path = str(files[name].path)
        one, many = (read_video(path, lambda metadata: [3, 30, 71], num_threads=count)[0] for count in (1, 4))
        np.testing.assert_array_equal(one, many)
    with pytest.raises(ValueError, match="num_threads must be an integer of at least 1"):
        read_video(path, lambda metadata: [0], num_threads=0)


# Files that tell less, or something else, than their pictures


def remux(source, path, change):
    """Copy a file packet by packet; `change` gets the index and the packet, and returns what is written."""
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        stream = given.streams.video[0]
        copy, index = out.add_stream_from_template(stream), 0
        for packet in given.demux(stream):
            if packet.size:
                packet = change(index, packet)
                packet.stream, index = copy, index + 1
                out.mux(packet)
    return path


def mark(is_key):
    def change(index, packet):
        packet.is_keyframe = is_key(index)
        return packet

    return change


@pytest.mark.parametrize("is_key", [lambda index: True, lambda index: index == 0, lambda index: index % 5 == 0])
@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "h264_b_frames.mkv"])
def test_marks_of_the_container_that_lie_change_no_frame(files, decoded, tmp_path, name, is_key):
    path = remux(files[name].path, tmp_path / name, mark(is_key))
    for wanted in WANTED:
        frames, _ = read_video(str(path), lambda metadata, wanted=wanted: wanted)
        assert [video_zoo.read_number(frame) for frame in frames] == wanted
        assert find_difference(path, wanted) == ""
    assert len(decoded) > len(WANTED)


def copy_packet(packet, content):
    other = av.Packet(content)
    other.pts, other.dts, other.time_base, other.duration = packet.pts, packet.dts, packet.time_base, packet.duration
    other.is_keyframe = packet.is_keyframe
    return other


def test_parameter_sets_that_change_on_the_way_are_not_sought_over(tmp_path, decoded):
    parts = [
        video_zoo.write(tmp_path / f"{start}.ts", "libx264", times=range(40 * start, 40 * start + 1440, 40),
                        options={"g": "12", "bf": "0", "x264-params": f"scenecut=0:{others}", "qp": "10"})
        for start, others in ((0, "cabac=1"), (36, "cabac=0:ref=1"))
    ]  # fmt: skip
    path = tmp_path / "changes.ts"
    path.write_bytes(b"".join(part.path.read_bytes() for part in parts))
    frames, metadata = read_video(str(path), lambda metadata: [60])
    assert decoded[0] == "all" and metadata.total_num_frames in (36, 72)
    assert find_difference(path, [60]) == ""


def test_units_that_do_not_fill_their_packet_are_not_sought_over(files, decoded, tmp_path):
    name = "h264.mp4"
    with av.open(str(files[name].path)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][30]
    data = bytearray(files[name].path.read_bytes())
    data[place + 1] ^= 1  # the size of the first unit
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} cannot be decoded"):
        read_video(str(tmp_path / name), lambda metadata: [71])
    assert decoded == ["all"]


def test_damage_in_a_picture_counts_where_it_is_decoded(files, tmp_path):
    """Packets are read and checked everywhere; pictures between the key frames that are needed are not."""
    path, name = files["h264.mp4"].path, "damaged.mp4"
    with av.open(str(path)) as container:
        packet = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][30]
    data = bytearray(path.read_bytes())
    data[packet[0] + 10 : packet[0] + packet[1]] = (packet[1] - 10) * b"\xff"
    (tmp_path / name).write_bytes(data)
    expected = read_video(str(path), lambda metadata: [8, 60])[0]
    np.testing.assert_array_equal(read_video(str(tmp_path / name), lambda metadata: [8, 60])[0], expected)
    for wanted, seeks in (([8, 60], False), ([8, 30], True), ([8, 33], True)):
        with pytest.raises(ValueError, match=f"{name} cannot be decoded whole"):
            read_video(str(tmp_path / name), lambda metadata, wanted=wanted: wanted, seeks=seeks)


def test_where_seeking_fails_everything_is_decoded(files, decoded, monkeypatch):
    path = str(files["h264_b_frames.mp4"].path)
    expected = read_video(path, lambda metadata: [40])[0]
    monkeypatch.setattr(video_seeking_ide3d.PacketTable, "is_packet", lambda *args: False)
    decoded.clear()
    np.testing.assert_array_equal(read_video(path, lambda metadata: [40])[0], expected)
    assert decoded == ["all"]


def test_every_file_of_the_zoo_by_seeking(tmp_path):
    """Most are of one key frame and are decoded as a whole; none may change."""
    differences = {
        (file.name, index): find_difference(file.path, [index])
        for file in video_zoo.make_zoo(tmp_path)
        for index in {0, len(file.numbers) // 2, len(file.numbers) - 1}
    }
    assert {place: difference for place, difference in differences.items() if difference} == {}
    assert len(differences) > 100
