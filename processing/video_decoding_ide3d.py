"""The one reader of video files: PyAV's demuxer and decoder say which frames are shown, when, and how."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from .frame_colours_ide3d import needs_conversion, to_standard_range, to_upright
from .frame_times_ide3d import TimedVideoMetadata, describe_times, to_shown_times

__all__ = [
    "ShownFrames",
    "decode_video",
    "decode_with_pyav",
    "find_stream",
    "find_wanted",
    "open_container",
    "to_picture",
]

logger = logging.getLogger(__name__)

# Containers whose header says how long the file is. (MP4 has an index; others measure what there is.)
FORMATS_WITH_DURATION = ("matroska", "flv")
DURATION_TOLERANCE = 0.1  # seconds, and at least two frames: writers round, and audio may end a packet later
# This decoder marks no frame as corrupt, and goes on where it cannot read a picture. (HEVC's, asked to stop there,
# would refuse healthy clips that were cut without re-encoding.)
UNMARKED_CODEC = "mjpeg"
PIXEL_ASPECT_TOLERANCE = 0.01
# A playlist in a file must not reach into the network. PyAV opens its file objects without a protocol.
OPTIONS = {"protocol_whitelist": "file"}


@dataclass
class ShownFrames:
    """Times and wanted pictures that one pass over a video stream gave."""

    name: str
    rate: float | None
    backend: str = "pyav"
    times: list[float | None] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    pictures: dict[int, np.ndarray] = field(default_factory=dict)
    size: tuple[int, int, str] | None = None

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
        self.size = self.size or (width, height, _say(self.times[-1]))
        if (width, height) != self.size[:2]:
            sizes = "{} x {} pixels from {}".format(*self.size) + f", {width} x {height} from {_say(self.times[-1])}"
            raise ValueError(
                f"All frames of a video must have one size: {self.name} has {sizes}. "
                "Convert it to one size with `ffmpeg -i FILE -vf scale=WIDTH:HEIGHT converted.mp4`."
            )

    def describe(self) -> TimedVideoMetadata:
        """Return metadata of the shown frames.

        Raises:
            ValueError: if there are none.
        """
        if not self.times:
            raise _damaged(self.name, "no frame of it can be shown")
        lengths = [length or (1 / self.rate if self.rate else 0.0) for length in self.durations]
        shown = to_shown_times(self.times, lengths)
        last = max(range(len(shown)), key=lambda i: -1 if self.times[i] is None else self.times[i])
        return describe_times(shown, self.durations[last], self.rate, backend=self.backend)


def decode_with_pyav(
    file: str | BinaryIO, name: str, sample_indices_fn: Callable[..., Iterable[int]]
) -> tuple[np.ndarray, TimedVideoMetadata]:
    """Decode the wanted frames of a video file.

    The best video stream is read; cover pictures are none. What is shown, and when, comes from the decoder: hidden
    frames of an edit list, pictures without a key frame and invisible reference frames are not shown. A first pass
    over the packets predicts the times; where the decoder disagrees, frames are sampled again by its times. The
    display matrix (turns and mirroring) and the colour matrix and range of the file are applied; HDR becomes standard
    range (see [`to_standard_range`]); transparency is dropped. Pixels that are not square are not rescaled: a warning
    names them.

    Args:
        file (`str` or binary file):
            Local path, or seekable file object.
        name (`str`):
            How errors call this video.
        sample_indices_fn (`Callable`):
            Gets `metadata`, a [`TimedVideoMetadata`], and returns increasing indices of shown frames.

    Returns:
        `tuple[np.ndarray, TimedVideoMetadata]`: frames of shape `(frames, height, width, 3)`, uint8 RGB, and
        metadata with their `frames_indices`.

    Raises:
        ImportError: if PyAV is missing.
        ValueError: if the file is truncated, damaged or no video, or its frames have different sizes.
    """
    return decode_video(file, name, sample_indices_fn, _decode)


def decode_video(
    file: str | BinaryIO,
    name: str,
    sample_indices_fn: Callable[..., Iterable[int]],
    decode: Callable[[str | BinaryIO, str, TimedVideoMetadata | None], ShownFrames],
) -> tuple[np.ndarray, TimedVideoMetadata]:
    """Plan by packets, decode, and plan again where the decoder has other times.

    Args:
        file (`str` or binary file):
            Local path, or seekable file object.
        name (`str`):
            How errors call this video.
        sample_indices_fn (`Callable`):
            Gets `metadata`, a [`TimedVideoMetadata`], and returns increasing indices of shown frames.
        decode (`Callable`):
            Gets `file`, `name` and metadata with `frames_indices`, and returns the frames up to the last of them; with
            None instead of metadata, the times of all.

    Returns:
        `tuple[np.ndarray, TimedVideoMetadata]`: as [`decode_with_pyav`].

    Raises:
        ValueError: as [`decode_with_pyav`].
    """
    av = _import_av()
    try:
        metadata = _scan_packets(file, name).describe()
        metadata.frames_indices = list(sample_indices_fn(metadata=metadata))
        stream = decode(file, name, metadata)
        if not _agrees(stream.describe(), metadata):
            metadata = decode(file, name, None).describe()
            metadata.frames_indices = list(sample_indices_fn(metadata=metadata))
            stream = decode(file, name, metadata)
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{name} cannot be decoded as a video ({error}). It is damaged, cut off, or no video file. Copy or "
            "download it again, or convert it with `ffmpeg -i FILE converted.mp4`."
        ) from error
    frames = np.stack([stream.pictures[index] for index in metadata.frames_indices])
    metadata.height, metadata.width = frames.shape[1:3]
    return frames, metadata


def _agrees(seen: TimedVideoMetadata, predicted: TimedVideoMetadata) -> bool:
    """Return whether the decoded frames are those that were predicted."""
    count = len(seen.frame_times)
    stops_early = max(predicted.frames_indices) == count - 1
    return (stops_early or count == predicted.total_num_frames) and np.allclose(
        seen.frame_times, predicted.frame_times[:count], rtol=0, atol=1e-6
    )


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError("To read video files, install PyAV (`pip install av`).") from error
    return av


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
    return _import_av().open(file, options=OPTIONS)


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
    cover = _import_av().stream.Disposition.attached_pic
    if not container.streams.video and not container.streams.audio:  # such as an MP4 that ends within its index
        raise _damaged(name, "it has neither pictures nor sound: its index is missing or cut")
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        found = "only a cover picture" if container.streams.video else "no video stream"
        raise ValueError(f"{name} has {found}. Give a file with moving pictures.")
    best = container.streams.best("video")
    return best if best in streams else max(streams, key=lambda stream: (stream.width or 0) * (stream.height or 0))


def _scan_packets(file: str | BinaryIO, name: str) -> ShownFrames:
    """Return the times of the packets to show; check that all are there."""
    is_mp4 = _begins_as_mp4(file)
    with open_container(file) as container:
        if is_mp4 and "mp4" not in container.format.name:  # then FFmpeg guesses from the samples
            raise _damaged(name, "it begins as MP4 and has no index")
        stream = find_stream(container, name)
        _warn_of_wide_pixels(stream, name)
        packets, end = ShownFrames.of(stream, name), 0.0
        indexed = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
        if 0 < container.size < indexed:
            raise _damaged(name, f"its index names {indexed} bytes, and there are {container.size}")
        for packet in container.demux():
            end = max(end, (_seconds(packet) or 0.0) + _duration(packet))
            if packet.stream_index != stream.index or packet.size == 0:
                continue
            if packet.is_corrupt and container.format.name != "mpegts":  # there it marks where recordings were joined
                raise _damaged(name, f"the packet at {_say(_seconds(packet))} is incomplete")
            if not packet.is_discard:
                packets.add(_seconds(packet), _duration(packet))
        announced = _announced_end(container, stream)
        if end < announced - max(DURATION_TOLERANCE, 2 / (packets.rate or 10)):
            raise _damaged(name, f"it announces {announced:.2f} s, and its packets end at {end:.2f} s")
    return packets


def _begins_as_mp4(file: str | BinaryIO) -> bool:
    if isinstance(file, str):
        with open(file, "rb") as opened:
            return _begins_as_mp4(opened)
    file.seek(0)
    return file.read(8)[4:] == b"ftyp"


def _announced_end(container: Any, stream: Any) -> float:
    """Return when the last packet ends by the header, in seconds, or 0."""
    if "avi" in container.format.name:  # its duration is measured, its number of frames is written
        return float(stream.frames * stream.time_base)
    if any(name in container.format.name for name in FORMATS_WITH_DURATION):
        return (container.duration or 0) / _import_av().time_base  # counted from time 0, not from the first packet
    return 0.0


def find_wanted(metadata: TimedVideoMetadata | None) -> tuple[set[int], int | None]:
    """Return the wanted frames and the last to decode.

    Args:
        metadata ([`TimedVideoMetadata`], *optional*):
            Metadata with `frames_indices`; None where only the times are wanted.

    Returns:
        `tuple[set[int], int | None]`: indices, and the greatest of them; None where the whole file is decoded.
    """
    if metadata is None:
        return set(), None
    last = max(metadata.frames_indices)
    ends = last == metadata.total_num_frames - 1  # then the file must end too
    return set(metadata.frames_indices), None if ends else last


def _decode(file: str | BinaryIO, name: str, metadata: TimedVideoMetadata | None) -> ShownFrames:
    """Decode up to the last wanted frame; without metadata all of it, for the times."""
    wanted, last = find_wanted(metadata)
    with open_container(file) as container:
        stream = find_stream(container, name)
        stream.thread_type = "AUTO"
        if stream.codec_context.name == UNMARKED_CODEC:
            stream.codec_context.options = {"err_detect": "explode"}
        shown, starts_inside = ShownFrames.of(stream, name), None
        for packet in container.demux(stream):
            starts_inside = not packet.is_keyframe if starts_inside is None else starts_inside
            try:
                frames = packet.decode()
            except _import_av().error.InvalidDataError:
                if starts_inside and not shown.times:  # a recording that begins between two key frames
                    continue
                raise
            for frame in frames:
                shown.add(_seconds(frame), _duration(frame))
                _check_whole(frame, shown)
                shown.check_size(frame.width, frame.height)
                if len(shown.times) - 1 in wanted:
                    shown.pictures[len(shown.times) - 1] = to_picture(frame)
                if len(shown.times) - 1 == last:
                    return shown
    return shown


def _check_whole(frame: Any, shown: ShownFrames) -> None:
    if frame.is_corrupt:
        index, time = len(shown.times) - 1, _say(shown.times[-1])
        raise _damaged(shown.name, f"the decoder marks frame {index} at {time} as corrupt")


def to_picture(frame: Any, stored: np.ndarray | None = None) -> np.ndarray:
    """Return the upright picture in standard range.

    Args:
        frame (`av.VideoFrame`):
            Frame of the video, with its colours and display matrix.
        stored (`np.ndarray` of shape `(height, width, 3)`, *optional*):
            The stored picture as uint8 RGB, where it is not that of the frame.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`, or width and height exchanged, uint8 RGB.
    """
    matrix = _read_matrix(frame)
    if needs_conversion(frame.color_trc, frame.color_primaries):
        signal = frame.to_ndarray(format="rgb48le") if stored is None else stored.astype(np.uint16) * 256
        picture = to_standard_range(signal, frame.color_trc, frame.color_primaries)
    else:
        picture = frame.to_ndarray(format="rgb24") if stored is None else stored
    return to_upright(picture, matrix)


def _read_matrix(frame: Any) -> np.ndarray | None:
    """Return the display matrix of a frame, of shape (9,), if it has one."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV gives up all of them where it does not know one, such as the EXIF of a JPEG
        angle = np.deg2rad(frame.rotation)  # counterclockwise; a mirror is lost
        cos, sin = np.rint([np.cos(angle), np.sin(angle)]).astype(int).tolist()
        return np.array([cos, -sin, 0, sin, cos, 0, 0, 0, 1])
    return None if matrix is None else np.frombuffer(bytes(matrix), dtype=np.int32)


def _warn_of_wide_pixels(stream: Any, name: str) -> None:
    ratio = stream.sample_aspect_ratio
    if ratio and abs(float(ratio) - 1) > PIXEL_ASPECT_TOLERANCE:
        logger.warning(
            "The pixels of %s are not square (%s wide to high): a player stretches its pictures, which are read as "
            "they are stored.", name, ratio,
        )  # fmt: skip


def _seconds(timed: Any) -> float | None:
    """Return the time of a frame or packet in seconds, if it has one."""
    ticks = timed.pts if timed.pts is not None else timed.dts
    return None if ticks is None or timed.time_base is None else float(ticks * timed.time_base)


def _duration(timed: Any) -> float:
    return float((timed.duration or 0) * timed.time_base) if timed.time_base else 0.0


def _say(time: float | None) -> str:
    return "an unknown time" if time is None else f"{time:.3f} s"


def _damaged(name: str, reason: str) -> ValueError:
    return ValueError(
        f"{name} cannot be decoded whole: it is truncated or damaged, as {reason}. Copy or download it again, or "
        "rescue what there is with `ffmpeg -i FILE rescued.mp4`."
    )
