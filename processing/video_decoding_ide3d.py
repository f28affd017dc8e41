"""The one reader of video files: PyAV's demuxer and decoder say which frames are shown, when, and how."""

from collections.abc import Callable, Iterable
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

__all__ = ["decode_video", "decode_with_pyav", "find_wanted", "to_picture"]

# This decoder marks no frame as corrupt, and goes on where it cannot read a picture. (HEVC's, asked to stop there,
# would refuse healthy clips that were cut without re-encoding.)
UNMARKED_CODEC = "mjpeg"


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
    with naming(name):
        packets = scan_packets(file, name)
        metadata = packets.describe()
    metadata.frames_indices = list(sample_indices_fn(metadata=metadata))
    with naming(name):
        stream = decode(file, name, metadata)
        agrees = _agrees(stream.describe(), metadata)
    if not agrees:
        with naming(name):
            whole = decode(file, name, None)
        warn_of_losses(packets, whole)
        metadata = whole.describe()
        metadata.frames_indices = list(sample_indices_fn(metadata=metadata))
        with naming(name):
            stream = decode(file, name, metadata)
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
        # What PyAV logs from a thread that decodes ahead waits for Python, which waits for the thread when it ends.
        stream.thread_type = "AUTO" if import_av().logging.get_level() is None else "SLICE"
        if stream.codec_context.name == UNMARKED_CODEC:
            stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
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
                    shown.pictures[len(shown.times) - 1] = to_picture(frame)
                if len(shown.times) - 1 == last:
                    return shown
    return shown


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
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV gives up all of them where it does not know one, such as the EXIF of a JPEG
        angle = np.deg2rad(frame.rotation)  # counterclockwise; a mirror is lost
        cos, sin = np.rint([np.cos(angle), np.sin(angle)]).astype(int).tolist()
        return np.array([cos, -sin, 0, sin, cos, 0, 0, 0, 1])
    return None if matrix is None else np.frombuffer(bytes(matrix), dtype=np.int32)
