"""A zoo of small video files whose frames are known without any reader. Its table: `python tests/video_table.py`.

Every frame carries its number in eight black or white bars (lower half) and its orientation: white upper left, reddish
upper right. The encoders are those of PyAV's wheel. `make_zoo` writes all files; `find_fault` says what is wrong with
frames that a reader gave for one.
"""

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

WIDTH, HEIGHT, RATE, FRAMES = 64, 48, 25, 12
TICKS = 1000  # of the presentation times given below, in one second
CORNER = (200, 60, 40)
COLOUR_TOLERANCE = 24  # lossy coding of small pictures, chroma of half size
TIME_TOLERANCE = 0.0015  # seconds: Matroska and FLV count milliseconds
VARIABLE = (0, 40, 80, 400, 440, 1000, 1200, 1240)  # milliseconds
ONE = 1 << 16
MATRICES = {  # display matrices a b c d, and what they do to a stored picture
    "turned_90": ((0, ONE, -ONE, 0), lambda picture: np.rot90(picture, -1)),
    "turned_180": ((-ONE, 0, 0, -ONE), lambda picture: np.rot90(picture, 2)),
    "turned_270": ((0, -ONE, ONE, 0), lambda picture: np.rot90(picture, 1)),
    "mirrored_sideways": ((-ONE, 0, 0, ONE), lambda picture: picture[:, ::-1]),
    "mirrored_upside": ((ONE, 0, 0, -ONE), lambda picture: picture[::-1]),
    "turned_and_mirrored": ((0, ONE, ONE, 0), lambda picture: picture.transpose(1, 0, 2)),
}


@dataclass(frozen=True)
class ZooFile:
    """One file: its numbers and times (seconds from the first shown frame) as a player shows them."""

    path: Path
    numbers: tuple[int, ...] = ()
    times: tuple[float, ...] = ()
    has_colours: bool = True

    @property
    def name(self) -> str:
        return self.path.name


def paint(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return the upright picture of a number below 256, of shape `(height, width, 3)`, uint8."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = 255
    picture[: height // 2, width // 2 :] = CORNER
    for bit in range(8):
        picture[height // 2 :, bit * width // 8 : (bit + 1) * width // 8] = 255 * (number >> bit & 1)
    return picture


def read_number(picture: np.ndarray, has_colours: bool = True) -> int | None:
    """Return the number of an upright picture, or None if it does not stand upright or has other colours."""
    height, width = picture.shape[:2]
    grey = picture.astype(float).mean(axis=2)
    corner = picture[height // 8 : height * 3 // 8, width * 5 // 8 : width * 7 // 8].reshape(-1, 3).mean(axis=0)
    off = np.abs(corner - CORNER).max() if has_colours else 0.0
    white = grey[height // 8 : height * 3 // 8, width // 8 : width * 3 // 8].mean()
    if white < 200 or corner.mean() > 190 or off > COLOUR_TOLERANCE:
        return None
    rows = grey[height * 5 // 8 : height * 7 // 8]
    bars = [rows[:, (2 * bit + 1) * width // 16] for bit in range(8)]
    return sum(int(bar.mean() > 127) << bit for bit, bar in enumerate(bars))


def find_fault(file: ZooFile, frames: np.ndarray, times: Sequence[float]) -> str:
    """Return what differs between the frames and times that a reader gave and the true ones; empty if nothing."""
    numbers = tuple(read_number(frame, file.has_colours) for frame in frames)
    if numbers != file.numbers:
        return f"frames {numbers} instead of {file.numbers}"
    if not np.allclose(times, file.times, rtol=0, atol=TIME_TOLERANCE):
        return f"times {[round(float(t), 3) for t in times]} instead of {[round(t, 3) for t in file.times]}"
    return ""


def write(
    path: Path,
    codec: str,
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    colours: tuple[int, int] | None = None,
    transfer: tuple[int, int] | None = None,
    audio: str | None = None,
    turn_back: Callable[[np.ndarray], np.ndarray] = lambda picture: picture,
    container_options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
) -> ZooFile:
    """Write one file; `times` are milliseconds, `colours` are (matrix, range), `transfer` is (transfer, primaries)."""
    times = [1000 * index // RATE for index in range(FRAMES)] if times is None else list(times)
    matrix, colour_range = colours or (None, None)
    with av.open(str(path), "w", options=container_options or {}) as out:
        sound = out.add_stream(audio, rate=48000) if audio else None
        stream = out.add_stream(codec, rate=RATE, options={"threads": "1", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], pix_fmt
        context = stream.codec_context
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if colours is not None:
            context.colorspace, context.color_range = matrix, colour_range
        if transfer is not None:
            context.color_trc, context.color_primaries = transfer
        base = Fraction(1, RATE) if all(time * RATE % TICKS == 0 for time in times) else Fraction(1, TICKS)
        context.time_base = base
        if sound is not None:
            _write_silence(out, sound)
        for number, time in enumerate(times):
            picture = np.ascontiguousarray(turn_back(paint(number, *size)))
            frame = _to_frame(picture, pix_fmt, matrix, colour_range)
            frame.pts, frame.time_base = round(Fraction(time, TICKS) / base), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    seconds = tuple((time - times[0]) / TICKS for time in times)
    return ZooFile(path, tuple(range(len(times))), seconds, has_colours=transfer is None and "gray" not in pix_fmt)


def _to_frame(picture: np.ndarray, pix_fmt: str, matrix: int | None, colour_range: int | None) -> av.VideoFrame:
    if "a" in pix_fmt.split("p")[0] or pix_fmt == "rgba" or pix_fmt.startswith("yuva"):
        alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
        alpha[picture.shape[0] // 2 :] = 128
        frame = av.VideoFrame.from_ndarray(np.concatenate([picture, alpha], axis=2), format="rgba")
    else:
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    if matrix is None:
        return frame.reformat(format=pix_fmt) if pix_fmt not in ("pal8", "rgb8") else frame.reformat(format="rgb8")
    return frame.reformat(format=pix_fmt, dst_colorspace=matrix, dst_color_range=colour_range)


def _write_silence(out: Any, sound: Any) -> None:
    samples = np.zeros((1, 2 * 1024), np.int16)
    for start in range(0, 24 * 1024, 1024):
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        out.mux(sound.encode(frame))
    out.mux(sound.encode())


def write_turned(path: Path, kind: str) -> ZooFile:
    """Write an MP4 whose display matrix turns or mirrors its stored pictures to upright ones."""
    (a, b, c, d), show = MATRICES[kind]
    stored = paint(0)
    back = next(undo for _, undo in [*MATRICES.values()] if np.array_equal(show(undo(stored)), stored))
    size = (WIDTH, HEIGHT) if back(stored).shape == stored.shape else (HEIGHT, WIDTH)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"qp": "5", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], "yuv420p"
        for number in range(FRAMES):
            picture = np.ascontiguousarray(back(paint(number)))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return ZooFile(path, tuple(range(FRAMES)), tuple(index / RATE for index in range(FRAMES)))


def write_with_cover(path: Path, audio: str | None = None) -> ZooFile:
    """Write an MP4 whose cover picture stands before its track, as taggers do."""

    def atom(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", 8 + len(data)) + kind + data

    file = write(path, "libx264", audio=audio)
    cover = io.BytesIO()
    Image.new("RGB", (100, 100), (255, 0, 0)).save(cover, "JPEG")
    entry = atom(b"covr", atom(b"data", struct.pack(">II", 13, 0) + cover.getvalue()))
    handler = atom(b"hdlr", b"\0" * 8 + b"mdirappl" + b"\0" * 9)
    tags = atom(b"udta", atom(b"meta", b"\0" * 4 + handler + atom(b"ilst", entry)))
    data = path.read_bytes()
    start = data.index(b"moov") - 4
    children = data[start + 8 :]
    header = struct.unpack(">I", children[:4])[0]
    path.write_bytes(data[:start] + atom(b"moov", children[:header] + tags + children[header:]))
    return file


def copy_clip(source: Path, path: Path, start: float, seconds: float) -> ZooFile:
    """Cut a clip without encoding it again, as `ffmpeg -ss START -i SOURCE -t SECONDS -c copy` does."""
    with av.open(str(source)) as inp, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out:
        stream = inp.streams.video[0]
        copy = out.add_stream_from_template(stream)
        offset = round(start / stream.time_base)
        inp.seek(offset, stream=stream, backward=True, any_frame=False)
        for packet in inp.demux(stream):
            if packet.dts is None or packet.pts * stream.time_base >= start + seconds:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, copy
            out.mux(packet)
    numbers = tuple(range(round(start * RATE), round((start + seconds) * RATE)))
    return ZooFile(path, numbers, tuple(index / RATE for index in range(len(numbers))))


def remux(source: ZooFile, path: Path) -> ZooFile:
    """Copy the packets of a file into another container."""
    with av.open(str(source.path)) as inp, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(inp.streams.video[0])
        for packet in inp.demux(inp.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    return ZooFile(path, source.numbers, source.times)


def hide_references(source: ZooFile, path: Path) -> ZooFile:
    """Copy a VP8 file; behind every key frame comes a packet with a reference frame that is not shown."""
    with av.open(str(source.path)) as inp, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(inp.streams.video[0])
        for packet in inp.demux(inp.streams.video[0]):
            if packet.dts is None:
                continue
            packet.stream = copy
            content = bytearray(bytes(packet))
            content[0] &= ~0x10  # show_frame of RFC 6386, section 9.1
            hidden = av.Packet(bytes(content))
            hidden.pts = hidden.dts = packet.pts + round(Fraction(1, 100) / packet.time_base)
            hidden.time_base, hidden.stream, is_key = packet.time_base, copy, packet.is_keyframe
            out.mux(packet)
            if is_key:
                out.mux(hidden)
    return ZooFile(path, source.numbers, source.times)


def make_zoo(folder: Path) -> list[ZooFile]:
    """Write all healthy files into a folder."""
    vpx = {"deadline": "realtime", "cpu-used": "8", "b": "1M"}
    b_frames = {"bf": "3", "g": "50", "x264-params": "b-adapt=0:scenecut=0", "qp": "10"}
    x265 = {"x265-params": "log-level=none:pools=none:frame-threads=1", "preset": "ultrafast", "crf": "10"}
    full, limited = ColorRange.JPEG, ColorRange.MPEG
    rows = [
        ("h264.mp4", "libx264", {}),
        ("h264_b_frames.mp4", "libx264", {"options": b_frames}),
        ("h264_b_frames.mkv", "libx264", {"options": b_frames}),
        ("h264.mov", "libx264", {}),
        ("h264.flv", "libx264", {"options": {"bf": "0"}}),
        ("h264_b_frames.ts", "libx264", {"options": b_frames}),
        ("h264_fragmented.mp4", "libx264", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
        ("h264_variable_rate.mp4", "libx264", {"times": VARIABLE}),
        ("h264_variable_rate_b_frames.mkv", "libx264", {"times": VARIABLE, "options": b_frames}),
        ("h264_late_start.mp4", "libx264", {"times": range(2000, 2480, 40)}),
        ("h264_late_start.mkv", "libx264", {"times": range(2000, 2480, 40)}),
        ("h264_audio_first.mp4", "libx264", {"audio": "aac"}),
        ("h264_audio_first.mkv", "libx264", {"audio": "libopus"}),
        ("h264_full_range.mp4", "libx264", {"colours": (Colorspace.ITU709, full)}),
        ("h264_bt709.mp4", "libx264", {"colours": (Colorspace.ITU709, limited)}),
        ("h264_bt601.mp4", "libx264", {"colours": (Colorspace.ITU601, limited)}),
        ("h264_interlaced.mp4", "libx264", {"options": {"x264-params": "tff=1", "qp": "10"}}),
        ("h264_one_frame.mp4", "libx264", {"times": (0,)}),
        ("h264_odd_444.mp4", "libx264", {"pix_fmt": "yuv444p", "size": (71, 53)}),
        ("h264_ten_bit.mp4", "libx264", {"pix_fmt": "yuv420p10le"}),
        ("h264_wide_pixels.mp4", "libx264", {"aspect": Fraction(4, 3)}),
        ("hevc_ten_bit.mp4", "libx265", {"pix_fmt": "yuv420p10le", "options": x265}),
        ("hevc_hlg.mp4", "libx265", {"pix_fmt": "yuv420p10le", "options": x265, "transfer": (18, 9),
                                     "colours": (Colorspace.BT2020, limited)}),
        ("mpeg4.avi", "mpeg4", {"options": {"q": "2"}}),
        ("mpeg4_dropped_frames.avi", "mpeg4", {"times": (0, 40, 80, 200, 240, 400, 440)}),
        ("mpeg4_b_frames.mp4", "mpeg4", {"options": {"bf": "2"}}),
        ("mpeg2_interlaced.ts", "mpeg2video", {"options": {"flags": "+ildct+ilme"}}),
        ("mjpeg.avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
        ("mjpeg.mov", "mjpeg", {"pix_fmt": "yuvj422p"}),
        ("vp8_alpha.webm", "libvpx", {"pix_fmt": "yuva420p", "options": {**vpx, "auto-alt-ref": "0"}}),
        ("vp9.webm", "libvpx-vp9", {"options": {"lag-in-frames": "8", "deadline": "good", "cpu-used": "5"}}),
        ("vp9_alpha.webm", "libvpx-vp9", {"pix_fmt": "yuva420p", "options": {**vpx, "auto-alt-ref": "0"}}),
        ("vp9_odd.webm", "libvpx-vp9", {"size": (71, 53), "options": vpx}),
        ("vp9_variable_rate.webm", "libvpx-vp9", {"times": VARIABLE, "options": vpx}),
        ("av1.mp4", "libsvtav1", {"options": {"preset": "8", "crf": "20"}}),
        ("av1_ten_bit.mkv", "libsvtav1", {"pix_fmt": "yuv420p10le", "options": {"preset": "8", "crf": "20"}}),
        ("prores.mov", "prores_ks", {"pix_fmt": "yuv422p10le"}),
        ("prores_alpha.mov", "prores_ks", {"pix_fmt": "yuva444p10le", "options": {"profile": "4444"}}),
        ("ffv1_odd.mkv", "ffv1", {"size": (71, 53)}),
        ("ffv1_ten_bit.mkv", "ffv1", {"pix_fmt": "yuv420p10le"}),
        ("png_alpha.mov", "png", {"pix_fmt": "rgba"}),
        ("qtrle_alpha.mov", "qtrle", {"pix_fmt": "argb"}),
        ("gif_variable_rate.gif", "gif", {"pix_fmt": "rgb8", "times": VARIABLE}),
    ]  # fmt: skip
    files = [write(folder / name, codec, **options) for name, codec, options in rows]
    files += [write_turned(folder / f"h264_{kind}.mp4", kind) for kind in MATRICES]
    turned = next(file for file in files if "turned_90" in file.name)
    files.append(remux(turned, folder / "h264_turned_90.mkv"))
    files.append(write_with_cover(folder / "h264_cover_first.mp4"))
    files.append(write_with_cover(folder / "h264_cover_and_audio_first.mp4", "aac"))
    source = folder / "source"
    source.mkdir()
    write(source / "long.mp4", "libx264", times=range(0, 2400, 40), options={**b_frames, "g": "250"})
    files.append(copy_clip(source / "long.mp4", folder / "h264_copied_clip.mp4", 0.6, 0.8))
    vp8 = write(source / "vp8.webm", "libvpx", options={**vpx, "g": "5"})
    files.append(hide_references(vp8, folder / "vp8_alternate_references.webm"))
    write(source / "short.mp4", "mpeg4", times=range(0, 2400, 40), options={"g": "25"})
    files.append(copy_clip(source / "short.mp4", folder / "mpeg4_copied_clip.mov", 1.2, 0.6))
    return files


def make_unhealthy(folder: Path) -> list[Path]:
    """Write files that no reader can show whole: cut off, with flipped bytes, or of two sizes."""
    frames = {"times": range(0, 2400, 40)}
    noisy = {"options": {"g": "60", "bf": "0", "qp": "4"}}
    cut = [
        write(folder / "cut_index_last.mp4", "libx264", **frames),
        write(folder / "cut_index_first.mp4", "libx264", container_options={"movflags": "faststart"}, **frames),
        write(folder / "cut.mkv", "libx264", **frames),
        write(folder / "cut.webm", "libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}, **frames),
        write(folder / "cut.avi", "mpeg4", **frames),
        write(folder / "cut.flv", "libx264", **frames),
    ]
    for file in cut:
        data = file.path.read_bytes()
        file.path.write_bytes(data[: len(data) * 6 // 10])
    flipped = [
        write(folder / "flipped_h264.mp4", "libx264", **frames, **noisy),
        write(folder / "flipped_mpeg4.mp4", "mpeg4", **frames),
        write(folder / "flipped_h264.mkv", "libx264", **frames, **noisy),
    ]
    for file in flipped:
        _flip_bytes(file.path)
    parts = [write(folder / f"{size[0]}.ts", "libx264", size=size, times=range(start, start + 480, 40))
             for start, size in ((0, (64, 48)), (480, (96, 64)))]  # fmt: skip
    two_sizes = folder / "two_sizes.ts"
    two_sizes.write_bytes(b"".join(part.path.read_bytes() for part in parts))
    return [file.path for file in cut + flipped] + [two_sizes]


def _flip_bytes(path: Path) -> None:
    """Flip bytes within the pictures of a file: every packet of them keeps its head."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(container.streams.video[0]) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in places[5::6]:
        for at in range(position + size // 3, position + size - 2, max(1, size // 12)):
            data[at] ^= 0x5A
    path.write_bytes(data)


def damage(path: Path, seed: int) -> bytes:
    """Return the bytes of a file with 20 of them changed, at random places."""
    noise, data = np.random.default_rng(seed), bytearray(path.read_bytes())
    for place in noise.integers(0, len(data), 20):
        data[place] ^= int(noise.integers(1, 256))
    return bytes(data)
