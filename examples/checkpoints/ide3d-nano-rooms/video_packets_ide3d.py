"""Packets of video files: which stream is read, when its frames are shown, and whether the file is whole."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from .frame_times_ide3d import TimedVideoMetadata, describe_times, to_shown_times
from .video_seeking_ide3d import PacketTable

__all__ = [
    "ShownFrames",
    "damaged",
    "duration_of",
    "find_stream",
    "import_av",
    "naming",
    "open_container",
    "read_packets",
    "say_time",
    "scan_packets",
    "time_of",
    "warn_of_losses",
]

logger = logging.getLogger(__name__)

# Containers whose header says how long the file is.
FORMATS_WITH_DURATION = ("matroska", "flv")
DURATION_TOLERANCE = 0.1  # seconds, and at least two frames: writers round, and audio may end a packet later
PIXEL_ASPECT_TOLERANCE = 0.01
MAX_FRAME_PIXELS = 2**27  # of one picture: 16,384 x 8,192, an 8K panorama twice as wide and high
# A playlist in a file must not reach into the network. PyAV opens its file objects without a protocol.
OPTIONS = {"protocol_whitelist": "file"}
INVISIBLE_CODEC = "vp8"  # its reference frames that are not shown have packets of their own
TRANSPORT_PACKET = 188  # bytes of MPEG-TS
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # RFC 8794 and 9559
Transform = Callable[[np.ndarray], np.ndarray]
UNKNOWN_RIFF_SIZES = (0, 2**32 - 1)  # of a recording whose header was never completed


@dataclass
class ShownFrames:
    """Times and wanted pictures that one pass over a video stream gave."""

    name: str
    rate: float | None
    backend: str = "pyav"
    times: list[float | None] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    size: tuple[int, int, str] | None = None
    kept: list[int] = field(default_factory=list)
    picture_size: tuple[int, int] | None = None
    can_be_invisible: bool = False
    table: PacketTable = field(default_factory=PacketTable)
    _block: np.ndarray | None = None

    @classmethod
    def of(cls, stream: Any, name: str, backend: str = "pyav") -> "ShownFrames":
        """Return no frames yet, of PyAV's stream."""
        rate = stream.guessed_rate or stream.average_rate
        return cls(name, float(rate) if rate else None, backend)

    def add(self, seconds: float | None, duration: float) -> None:
        """Note the time of a frame or packet."""
        self.times.append(seconds)
        self.durations.append(duration)

    def check_size(self, width: int, height: int) -> None:
        """Check that the last frame is as large as the first.

        Raises:
            ValueError: if it is not.
        """
        self.size = self.size or (width, height, say_time(self.times[-1]))
        if (width, height) != self.size[:2]:
            sizes = (
                "{} x {} pixels from {}".format(*self.size) + f", {width} x {height} from {say_time(self.times[-1])}"
            )
            raise ValueError(
                f"All frames of a video must have one size: {self.name} has {sizes}. "
                "Convert it to one size with `ffmpeg -i FILE -vf scale=WIDTH:HEIGHT converted.mp4`."
            )

    def keep(self, index: int, picture: np.ndarray, count: int, transform: Transform | None = None) -> None:
        """Keep the picture of a wanted frame, in memory for all of them.

        Args:
            index (`int`):
                Index of the frame, larger than those before.
            picture (`np.ndarray` of shape `(height, width, 3)`):
                Upright picture, uint8.
            count (`int`):
                Number of wanted frames.
            transform (`Callable`, *optional*):
                Function of the picture whose result is kept instead.
        """
        self.picture_size = picture.shape[:2]
        picture = picture if transform is None else transform(picture)
        if self._block is None:
            self._block = np.empty((count, *picture.shape), picture.dtype)
        self._block[len(self.kept)] = picture
        self.kept.append(index)

    def take(self, indices: Sequence[int]) -> np.ndarray:
        """Return the kept pictures of increasing indices, one for each."""
        if list(indices) == self.kept:
            return self._block
        return self._block[[self.kept.index(index) for index in indices]]

    def describe(self) -> TimedVideoMetadata:
        """Return metadata of the shown frames.

        Raises:
            ValueError: if there are none.
        """
        if not self.times:
            raise damaged(self.name, "no frame of it can be shown")
        lengths = [length or (1 / self.rate if self.rate else 0.0) for length in self.durations]
        shown = to_shown_times(self.times, lengths)
        last = max(range(len(shown)), key=lambda i: -1 if self.times[i] is None else self.times[i])
        return describe_times(shown, self.durations[last], self.rate, backend=self.backend)


def import_av() -> Any:
    """Return PyAV.

    Raises:
        ImportError: without it.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("To read video files, install PyAV (`pip install av`).") from error
    return av


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Raise what FFmpeg says within the block as a ValueError that names the file.

    Args:
        name (`str`):
            How errors call the video.

    Raises:
        ValueError: if the file cannot be decoded.
    """
    try:
        yield
    except (import_av().error.FFmpegError, ArithmeticError, UnicodeDecodeError) as error:  # a rate of 0, say
        raise ValueError(
            f"{name} cannot be decoded as a video ({error}). It is damaged, cut off, or no video file. Copy or "
            "download it again, or convert it with `ffmpeg -i FILE converted.mp4`."
        ) from error


def open_container(file: str | BinaryIO) -> Any:
    """Open a file from its beginning.

    Args:
        file (`str` or binary file):
            Local path, or seekable file object.

    Returns:
        `av.container.InputContainer`: to be closed by the caller.
    """
    if not isinstance(file, str):
        file.seek(0)
    return import_av().open(file, options=OPTIONS, metadata_errors="replace")  # tags are in any encoding


def read_packets(container: Any, *streams: Any) -> Iterator[Any]:
    """Yield the packets of an open file.

    Args:
        container (`av.container.InputContainer`):
            Open file.
        *streams (`av.stream.Stream`):
            Streams to read; all by default.
    """
    with suppress(IndexError):  # Behind all packets, PyAV flushes a stream that the header did not announce.
        yield from container.demux(*streams)


def find_stream(container: Any, name: str) -> Any:
    """Return the video stream to read.

    Args:
        container (`av.container.InputContainer`):
            Open file.
        name (`str`):
            How errors call it.

    Returns:
        `av.video.stream.VideoStream`: the best one that is no cover picture.

    Raises:
        ValueError: if there is none.
    """
    cover = import_av().stream.Disposition.attached_pic
    if not container.streams.video and not container.streams.audio:  # such as an MP4 that ends within its index
        raise damaged(name, "it has neither pictures nor sound: its index is missing or cut")
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        found = "only a cover picture" if container.streams.video else "no video stream"
        raise ValueError(f"{name} has {found}. Give a file with moving pictures.")
    best = container.streams.best("video")
    best = best if best in streams else max(streams, key=_count_pixels)
    if best.codec_context is None:
        raise ValueError(
            f"{name} has a video stream that FFmpeg has no decoder for, or the name of its codec is damaged. Convert "
            "it with `ffmpeg -i FILE converted.mp4`."
        )
    if _count_pixels(best) > MAX_FRAME_PIXELS:
        raise ValueError(
            f"{name} announces pictures of {best.width} x {best.height} pixels, more than MAX_FRAME_PIXELS, "
            f"{MAX_FRAME_PIXELS}. Is it damaged? If not, convert it with `ffmpeg -i FILE -vf scale=1920:-2 small.mp4`."
        )
    best.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}  # its size may change
    return best


def _count_pixels(stream: Any) -> int:
    return 0 if stream.codec_context is None else (stream.width or 0) * (stream.height or 0)


def scan_packets(file: str | BinaryIO, name: str) -> ShownFrames:
    """Return the times of the packets to show; check that all are there.

    Args:
        file (`str` or binary file):
            Local path, or seekable file object.
        name (`str`):
            How errors call the video.

    Raises:
        ValueError: if the file ends before its header, its index or a packet says.
    """
    head = _read_head(file)
    with open_container(file) as container:
        if head[4:8] == b"ftyp" and "mp4" not in container.format.name:  # then FFmpeg guesses from the samples
            raise damaged(name, "it begins as MP4 and has no index")
        stream = find_stream(container, name)
        _warn_of_choice(container, stream, name)
        _warn_of_wide_pixels(stream, name)
        packets, end = ShownFrames.of(stream, name), 0.0
        packets.table = PacketTable.of(stream)
        indexed = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
        indexed = max(indexed, _find_end_of_segment(head))
        if 0 < container.size < indexed:
            raise damaged(name, f"its header or index names {indexed} bytes, and there are {container.size}")
        riff = _find_end_of_riff(head)
        if 0 < container.size < riff:
            logger.warning(
                "%s may be damaged: its header names %d bytes, and there are %d.", name, riff, container.size
            )
        if head[::TRANSPORT_PACKET] == b"GG" and container.size % TRANSPORT_PACKET:
            logger.warning("%s ends within a packet: it was cut off, and its last pictures may be missing.", name)
        bases: dict[int, Any] = {}  # to ask each packet for its fraction costs more than all else of this loop
        for packet in read_packets(container):
            base = bases.get(packet.stream_index)
            if base is None:
                base = bases[packet.stream_index] = packet.time_base
            time, duration = _in_seconds(_ticks_of(packet), base), _in_seconds(packet.duration or 0, base) or 0.0
            end = max(end, (time or 0.0) + duration)
            if packet.stream_index != stream.index:
                continue
            if packet.size or packet.dts is not None:  # not the end of the stream
                packets.table.note(packet)
            if packet.size == 0:
                continue
            if packet.is_corrupt and container.format.name != "mpegts":  # there it marks where recordings were joined
                raise damaged(name, f"the packet at {say_time(time)} is incomplete")
            if not packet.is_discard:
                packets.add(time, duration)
        announced, is_sure = _announced_end(container, stream)
        if end < announced - max(DURATION_TOLERANCE, 2 / (packets.rate or 10)):
            reason = f"it announces {announced:.2f} s, and its packets end at {end:.2f} s"
            if is_sure:
                raise damaged(name, reason)
            logger.warning("%s may be damaged: %s.", name, reason)
    packets.can_be_invisible = stream.codec_context.name == INVISIBLE_CODEC
    return packets


def warn_of_losses(packets: ShownFrames, frames: ShownFrames) -> None:
    """Warn where packets behind the first shown frame gave none.

    Args:
        packets ([`ShownFrames`]):
            All packets to show.
        frames ([`ShownFrames`]):
            All frames that the decoder gave.
    """
    times = [*packets.times, *frames.times]
    if packets.can_be_invisible or not frames.times or any(time is None for time in times):
        return
    first = min(frames.times)
    lost = sum(time >= first - 1e-6 for time in packets.times) - len(frames.times)
    if lost > 0:
        logger.warning(
            "%s: the decoder gave no picture for %d of %d packets, and says nothing of them. The file may be damaged: "
            "if frames are missing, copy it again.", packets.name, lost, len(packets.times),
        )  # fmt: skip


def _read_head(file: str | BinaryIO) -> bytes:
    if isinstance(file, str):
        with open(file, "rb") as opened:
            return _read_head(opened)
    file.seek(0)
    return file.read(TRANSPORT_PACKET + 1)


def _find_end_of_segment(head: bytes) -> int:
    """Return where a Matroska or WebM file ends by its header, or 0 if unknown."""
    place = head.find(_SEGMENT)
    if not head.startswith(_EBML) or not 0 < place < len(head) - 12:
        return 0
    place += len(_SEGMENT)
    length = 9 - head[place].bit_length()  # of the size that follows, in bytes; the leading 1 says it
    size, unknown = int.from_bytes(head[place : place + length], "big"), (1 << 7 * length) - 1
    size &= unknown
    return 0 if size == unknown or length > 8 else place + length + size


def _find_end_of_riff(head: bytes) -> int:
    """Return where an AVI file ends at the earliest, or 0 if unknown."""
    size = int.from_bytes(head[4:8], "little")
    return size + 8 if head.startswith(b"RIFF") and size not in UNKNOWN_RIFF_SIZES else 0


def _warn_of_choice(container: Any, stream: Any, name: str) -> None:
    same = [other for other in container.streams.video if _count_pixels(other) == _count_pixels(stream)]
    if len(same) > 1:
        logger.warning(
            "%s has %d video streams of %s x %s pixels: number %d of the file is read. For another one, take it out "
            "with `ffmpeg -i FILE -map 0:NUMBER -c copy one.mkv`.",
            name, len(same), stream.width, stream.height, stream.index,
        )  # fmt: skip


def _announced_end(container: Any, stream: Any) -> tuple[float, bool]:
    """Return when the header lets the packets end (seconds, or 0), and whether that is sure."""
    if "avi" in container.format.name:  # its duration is measured, its number of frames is written
        return float(stream.frames * stream.time_base), True
    if any(name in container.format.name for name in FORMATS_WITH_DURATION):
        return (container.duration or 0) / import_av().time_base, True  # from time 0, not from the first packet
    if "mp4" in container.format.name:  # beside the header there is an index, of which the header may know less
        return float((stream.duration or 0) * (stream.time_base or 0)), False
    return 0.0, True


def _warn_of_wide_pixels(stream: Any, name: str) -> None:
    ratio = stream.sample_aspect_ratio
    if ratio and abs(float(ratio) - 1) > PIXEL_ASPECT_TOLERANCE:
        logger.warning(
            "The pixels of %s are not square (%s wide to high): a player stretches its pictures, which are read as "
            "they are stored.", name, ratio,
        )  # fmt: skip


def time_of(timed: Any) -> float | None:
    """Return the time of a frame or packet in seconds, if it has one."""
    return _in_seconds(_ticks_of(timed), timed.time_base)


def duration_of(timed: Any) -> float:
    """Return the duration of a frame or packet in seconds, 0 if unknown."""
    return _in_seconds(timed.duration or 0, timed.time_base) or 0.0


def _ticks_of(timed: Any) -> int | None:
    return timed.pts if timed.pts is not None else timed.dts


def _in_seconds(ticks: int | None, base: Any) -> float | None:
    """Return ticks of a time base, a fraction, in seconds; None if either is unknown."""
    return None if ticks is None or not base else ticks * base.numerator / base.denominator


def say_time(time: float | None) -> str:
    """Return how errors call a time."""
    return "an unknown time" if time is None else f"{time:.3f} s"


def damaged(name: str, reason: str) -> ValueError:
    """Return the error of a file that is not whole."""
    return ValueError(
        f"{name} cannot be decoded whole: it is truncated or damaged, as {reason}. Copy or download it again, or "
        "rescue what there is with `ffmpeg -i FILE rescued.mp4`."
    )
