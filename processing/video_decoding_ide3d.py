"""The one reader of video files: PyAV's demuxer and decoder say which frames are shown, when, and how."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from .frame_colours_ide3d import needs_conversion, to_standard_range, to_upright
from .frame_times_ide3d import TimedVideoMetadata
from .video_packets_ide3d import (
    ShownFrames,
    damaged,
    duration_of,
    find_stream,
    import_av,
    naming,
    open_container,
    read_packets,
    say_time,
    scan_packets,
    time_of,
    warn_of_losses,
)
from .video_seeking_ide3d import PacketTable, Run, plan_runs

__all__ = ["DecodingOptions", "NotAsPlannedError", "decode_video", "decode_with_pyav", "find_wanted", "to_picture"]

# This decoder marks no frame as corrupt, and goes on where it cannot read a picture. (HEVC's, asked to stop there,
# would refuse healthy clips that were cut without re-encoding.)
UNMARKED_CODEC = "mjpeg"


@dataclass(frozen=True)
class DecodingOptions:
    """Options of decoding a video file.

    Args:
        seeks (`bool`, *optional*, defaults to `True`):
            Whether to decode from the key frame before each wanted frame, where [`PacketTable`] says that the frames
            are the same. Otherwise every frame up to the last wanted one is decoded.
        num_threads (`int`, *optional*, defaults to 0):
            Threads of the decoder; 0 leaves their number to FFmpeg.
        transform (`Callable`, *optional*):
            Function of each wanted picture of shape `(height, width, 3)`, uint8, as soon as it is decoded. It returns
            an array of one shape for all pictures, which is kept instead.
    """

    seeks: bool = True
    num_threads: int = 0
    transform: Callable[[np.ndarray], np.ndarray] | None = None


class NotAsPlannedError(Exception):
    """Seeking gave other frames than the packets announce: all have to be decoded."""


def decode_with_pyav(
    file: str | BinaryIO,
    name: str,
    sample_indices_fn: Callable[..., Iterable[int]],
    options: DecodingOptions = DecodingOptions(),  # noqa: B008 (frozen)
) -> tuple[np.ndarray, TimedVideoMetadata]:
    """Decode the wanted frames of a video file.

    The best video stream is read; cover pictures are none. What is shown, and when, comes from the decoder: hidden
    frames of an edit list, pictures without a key frame and invisible reference frames are not shown. A first pass
    over the packets predicts the times; where the decoder disagrees, frames are sampled again by its times. The
    display matrix (turns and mirroring) and the colour matrix and range of the file are applied; HDR becomes standard
    range (see [`to_standard_range`]); transparency is dropped. Pixels that are not square are not rescaled: a warning
    names them.

    Frames are sought by key frames, bit for bit equal to decoding everything, under the rules of [`PacketTable`]. All
    packets are read and checked in any case. Damage that only the decoder sees is found in what is decoded: from the
    key frame before a wanted frame to that frame. `DecodingOptions(seeks=False)` finds all of it up to the last
    wanted frame.

    Args:
        file (`str` or binary file):
            Local path, or seekable file object.
        name (`str`):
            How errors call this video.
        sample_indices_fn (`Callable`):
            Gets `metadata`, a [`TimedVideoMetadata`], and returns increasing indices of shown frames.
        options ([`DecodingOptions`], *optional*):
            How to decode.

    Returns:
        `tuple[np.ndarray, TimedVideoMetadata]`: frames of shape `(frames, height, width, 3)`, uint8 RGB, and
        metadata with their `frames_indices`.

    Raises:
        ImportError: if PyAV is missing.
        ValueError: if the file is truncated, damaged or no video, or its wanted frames have different
            sizes; without seeking, any frames up to the last wanted one.
    """
    return decode_video(file, name, sample_indices_fn, _decode, _decode_runs, options)


def decode_video(
    file: str | BinaryIO,
    name: str,
    sample_indices_fn: Callable[..., Iterable[int]],
    decode: Callable[[str | BinaryIO, str, TimedVideoMetadata | None, DecodingOptions], ShownFrames],
    decode_runs: Callable[..., ShownFrames],
    options: DecodingOptions,
) -> tuple[np.ndarray, TimedVideoMetadata]:
    """Plan by packets, seek or decode all; plan again by the decoder's times.

    Args:
        file (`str` or binary file):
            Local path, or seekable file object.
        name (`str`):
            How errors call this video.
        sample_indices_fn (`Callable`):
            Gets `metadata`, a [`TimedVideoMetadata`], and returns increasing indices of shown frames.
        decode (`Callable`):
            Gets `file`, `name`, metadata with `frames_indices` and options, and returns the frames up to the last of
            them; with None instead of metadata, the times of all.
        decode_runs (`Callable`):
            Gets `file`, `name`, the packets, what [`plan_runs`] returns, the wanted indices and options, and returns
            the wanted frames. Raises NotAsPlannedError where frames are not those that the packets announce.
        options ([`DecodingOptions`]):
            How to decode.

    Returns:
        `tuple[np.ndarray, TimedVideoMetadata]`: as [`decode_with_pyav`].

    Raises:
        ValueError: as [`decode_with_pyav`].
    """
    with naming(name):
        packets = scan_packets(file, name)
        metadata = packets.describe()
    metadata.frames_indices = list(sample_indices_fn(metadata=metadata))
    stream = _seek(file, name, packets, metadata, decode_runs, options) if options.seeks else None
    if stream is None:
        with naming(name):
            stream = decode(file, name, metadata, options)
            agrees = _agrees(stream.describe(), metadata)
        if not agrees:
            with naming(name):
                whole = decode(file, name, None, options)
            warn_of_losses(packets, whole)
            metadata = whole.describe()
            metadata.frames_indices = list(sample_indices_fn(metadata=metadata))
            with naming(name):
                stream = decode(file, name, metadata, options)
    metadata.height, metadata.width = stream.picture_size
    return stream.take(metadata.frames_indices), metadata


def _seek(
    file: str | BinaryIO,
    name: str,
    packets: ShownFrames,
    metadata: TimedVideoMetadata,
    decode_runs: Callable[..., ShownFrames],
    options: DecodingOptions,
) -> ShownFrames | None:
    """Return the wanted frames by seeking; None where all have to be decoded.

    Decoding all then judges the file.
    """
    wanted = sorted(set(metadata.frames_indices))
    plan = plan_runs(packets.table, wanted)
    if plan is None:
        return None
    try:
        return decode_runs(file, name, packets.table, plan, wanted, options)
    except (NotAsPlannedError, import_av().error.FFmpegError):
        return None


def _agrees(seen: TimedVideoMetadata, predicted: TimedVideoMetadata) -> bool:
    """Return whether the decoded frames are those that were predicted."""
    count = len(seen.frame_times)
    stops_early = max(predicted.frames_indices) == count - 1
    return (stops_early or count == predicted.total_num_frames) and np.allclose(
        seen.frame_times, predicted.frame_times[:count], rtol=0, atol=1e-6
    )


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


def _decode(
    file: str | BinaryIO, name: str, metadata: TimedVideoMetadata | None, options: DecodingOptions
) -> ShownFrames:
    """Decode up to the last wanted frame; without metadata all of it, for the times."""
    wanted, last = find_wanted(metadata)
    with open_container(file) as container:
        stream = _find_decoder(container, name, options)
        shown, starts_inside = ShownFrames.of(stream, name), None
        for packet in read_packets(container, stream):
            starts_inside = not packet.is_keyframe if starts_inside is None else starts_inside
            try:
                frames = packet.decode()
            except import_av().error.InvalidDataError:
                if starts_inside and not shown.times:  # a recording that begins between two key frames
                    continue
                raise
            for frame in frames:
                shown.add(time_of(frame), duration_of(frame))
                _check_whole(frame, shown)
                shown.check_size(frame.width, frame.height)
                if len(shown.times) - 1 in wanted:
                    shown.keep(len(shown.times) - 1, to_picture(frame), len(wanted), options.transform)
                if len(shown.times) - 1 == last:
                    return shown
    return shown


def _find_decoder(container: Any, name: str, options: DecodingOptions) -> Any:
    """Return the video stream of an open file, with its decoder set up."""
    stream = find_stream(container, name)
    # What PyAV logs from a thread that decodes ahead waits for Python, which waits for the thread when it ends.
    stream.thread_type = "AUTO" if import_av().logging.get_level() is None else "SLICE"
    stream.codec_context.thread_count = options.num_threads
    if stream.codec_context.name == UNMARKED_CODEC:
        stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
    return stream


def _decode_runs(
    file: str | BinaryIO,
    name: str,
    table: PacketTable,
    plan: tuple[list[Run], np.ndarray],
    wanted: list[int],
    options: DecodingOptions,
) -> ShownFrames:
    """Decode the runs of a plan; each packet and frame must be the announced one."""
    runs, times = plan
    chosen, look = set(wanted), None
    with open_container(file) as container:
        stream = _find_decoder(container, name, options)
        shown = ShownFrames.of(stream, name)
        for run in runs:
            if run.start:
                stream.codec_context.flush_buffers()
                container.seek(table.read[run.start], stream=stream)
            ends, index = run.last == len(times) - 1, run.first  # then the file must end too
            for frame in _decode_from(container, stream, table, run.start):
                if frame.pts is not None and frame.pts < times[run.first]:  # it leads the key frame
                    continue
                is_it = index < len(times) and frame.pts == times[index] and not frame.is_corrupt
                if is_it and (look is None or index in chosen):
                    seen = _describe_look(frame)
                    look = look or seen
                    is_it = seen == look
                if not is_it:
                    raise NotAsPlannedError(f"{name} gave another frame than frame {index}.")
                if index in chosen:
                    shown.keep(index, to_picture(frame), len(chosen), options.transform)
                index += 1
                if index > run.last and not ends:
                    break
            if index <= run.last:
                raise NotAsPlannedError(f"{name} gave {index} of {run.last + 1} frames.")
    return shown


def _decode_from(container: Any, stream: Any, table: PacketTable, start: int) -> Iterator[Any]:
    """Yield the frames of the packets from a place on, after a seek."""
    place = None
    for packet in read_packets(container, stream):
        is_end = packet.dts is None and not packet.size
        if place is None:
            if is_end or not table.is_packet(start, packet):
                continue
            place = start
        if is_end and place != len(table.sizes) or not is_end and not table.is_packet(place, packet):
            raise NotAsPlannedError(f"Packet {place} is not the one that was read before.")
        place += 1
        yield from packet.decode()


def _describe_look(frame: Any) -> tuple[Any, ...]:
    """Return the facts of a frame that say how its samples become a picture."""
    matrix = _read_matrix(frame)
    colours = (frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries)
    return frame.format.name, frame.width, frame.height, *colours, None if matrix is None else matrix.tobytes()


def _check_whole(frame: Any, shown: ShownFrames) -> None:
    if frame.is_corrupt:
        index, time = len(shown.times) - 1, say_time(shown.times[-1])
        raise damaged(shown.name, f"the decoder marks frame {index} at {time} as corrupt")


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
        # `frame.side_data` refers to its frame and back: each would stay in memory until the collector runs.
        matrix = import_av().sidedata.sidedata.SideDataContainer(frame).get("DISPLAYMATRIX")
    except ValueError:  # PyAV gives up all of them where it does not know one, such as the EXIF of a JPEG
        angle = np.deg2rad(frame.rotation)  # counterclockwise; a mirror is lost
        cos, sin = np.rint([np.cos(angle), np.sin(angle)]).astype(int).tolist()
        return np.array([cos, -sin, 0, sin, cos, 0, 0, 0, 1])
    return None if matrix is None else np.frombuffer(bytes(matrix), dtype=np.int32)
