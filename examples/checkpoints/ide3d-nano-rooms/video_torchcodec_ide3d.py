"""Decode pictures of video files with torchcodec, by the same plan, checks and colours as with PyAV."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

from .frame_times_ide3d import TimedVideoMetadata
from .video_decoding_ide3d import DecodingOptions, NotAsPlannedError, decode_video, find_wanted, to_picture
from .video_packets_ide3d import ShownFrames, find_stream, open_container
from .video_seeking_ide3d import PacketTable, Run

__all__ = ["decode_with_torchcodec"]

# The demuxer and decoder of `torchcodec.decoders` that give frames in the order of the decoder are public since 0.17.
INSTALL = "pip install 'torchcodec>=0.17'"
SAME_TIME = 1e-6  # seconds: torchcodec tells times as floats


def decode_with_torchcodec(
    file: str | BinaryIO,
    name: str,
    sample_indices_fn: Callable[..., Iterable[int]],
    options: DecodingOptions = DecodingOptions(),  # noqa: B008 (frozen)
) -> tuple[np.ndarray, TimedVideoMetadata]:
    """Decode the wanted frames of a video file with torchcodec.

    PyAV reads the packets and the first frame, so stream, times, checks, display matrix and colours are those of
    [`decode_with_pyav`]; torchcodec decodes. PyAV converts the samples to RGB too, so the frames are equal.
    torchcodec does not hand on which frames its decoder marks as corrupt: only PyAV finds all damage in a frame.

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
        ImportError: if PyAV, torchcodec or the FFmpeg libraries of torchcodec are missing.
        ValueError: if the file is truncated, damaged or no video, or its frames have different sizes.
    """
    _import_decoders()  # before the file is blamed
    return decode_video(file, name, sample_indices_fn, _decode, _decode_runs, options)


def _import_decoders() -> Any:
    try:
        import torchcodec
        from torchcodec import decoders
    except ImportError as error:
        raise ImportError(f"torchcodec is missing: `{INSTALL}`, or use the backend 'pyav'.") from error
    if not hasattr(decoders, "Demuxer"):
        raise ImportError(f"This torchcodec is too old: `{INSTALL}`, or use the backend 'pyav'.")
    if torchcodec.ffmpeg_major_version is None:
        raise ImportError(
            "torchcodec needs the shared libraries of FFmpeg 4 to 9 (libavcodec and its siblings), and cannot load "
            "them. Install them, for example with `apt install ffmpeg` or `conda install ffmpeg`, or use the backend "
            "'pyav', which brings its own."
        )
    return decoders


def _decode(
    file: str | BinaryIO, name: str, metadata: TimedVideoMetadata | None, options: DecodingOptions
) -> ShownFrames:
    """Decode up to the last wanted frame; without metadata all of it, for the times."""
    wanted, last = find_wanted(metadata)
    shown, canvas, demuxer, decoder = _open(file, name, options)
    try:
        for frame in _raw_frames(demuxer, decoder):
            shown.add(frame.pts_seconds, frame.duration_seconds)
            shown.check_size(frame.width, frame.height)
            if len(shown.times) - 1 in wanted:
                shown.keep(len(shown.times) - 1, _to_picture(frame, canvas), len(wanted), options.transform)
            if len(shown.times) - 1 == last:
                break
    except RuntimeError as error:
        raise _refused(name, error) from error
    return shown


def _decode_runs(
    file: str | BinaryIO,
    name: str,
    table: PacketTable,
    plan: tuple[list[Run], np.ndarray],
    wanted: list[int],
    options: DecodingOptions,
) -> ShownFrames:
    """Decode the runs of a plan; each frame must be the announced one."""
    (runs, ticks), chosen, look = plan, set(wanted), None
    shown, canvas, demuxer, decoder = _open(file, name, options)
    second = float(canvas.time_base)
    times = ticks * second
    try:
        for run in runs:
            first = times[run.first]
            # MP4 is sought by times of showing, transport streams by those of decoding.
            moments = (first, table.read[run.start] * second) if run.start else (None,)
            ends, index = run.last == len(times) - 1, run.first  # then the file must end too
            for frame in _begin(demuxer, decoder, first, moments):
                is_it = index < len(times) and abs(frame.pts_seconds - times[index]) < SAME_TIME
                if is_it and (look is None or index in chosen):
                    seen = _describe_look(frame)
                    look = look or seen
                    is_it = seen == look
                if not is_it:
                    raise NotAsPlannedError(f"{name} gave another frame than frame {index}.")
                if index in chosen:
                    shown.keep(index, _to_picture(frame, canvas), len(chosen), options.transform)
                index += 1
                if index > run.last and not ends:
                    break
            if index <= run.last:
                raise NotAsPlannedError(f"{name} gave {index} of {run.last + 1} frames.")
    except RuntimeError as error:
        raise NotAsPlannedError(f"{name} cannot be sought: {error}") from error
    return shown


def _begin(demuxer: Any, decoder: Any, first: float, moments: Sequence[float | None]) -> Iterable[Any]:
    """Return the frames from one on; seek to one moment or another, all in seconds.

    Raises:
        NotAsPlannedError: if no seek gives that frame.
    """
    for moment in moments:
        if moment is not None:
            demuxer.seek(moment)
            decoder.reset()
        frames = _raw_frames(demuxer, decoder)
        frame = next((frame for frame in frames if frame.pts_seconds >= first - SAME_TIME), None)
        if frame is not None and frame.pts_seconds <= first + SAME_TIME:
            return chain([frame], frames)
    raise NotAsPlannedError(f"No seek gives the frame at {first:.3f} s.")


def _open(file: str | BinaryIO, name: str, options: DecodingOptions) -> tuple[ShownFrames, Any, Any, Any]:
    """Return no frames yet, PyAV's first frame, and torchcodec's demuxer and decoder."""
    with open_container(file) as container:
        stream = find_stream(container, name)
        index, shown = stream.index, ShownFrames.of(stream, name, "torchcodec")
        canvas = next(container.decode(stream), None)
    if not isinstance(file, str):
        file.seek(0)
    try:
        demuxer = _import_decoders().Demuxer(file, streams=index)
        decoder = demuxer.streams[0].make_decoder("cpu", num_ffmpeg_threads=options.num_threads)
    except RuntimeError as error:
        raise _refused(name, error) from error
    return shown, canvas, demuxer, decoder


def _refused(name: str, error: RuntimeError) -> ValueError:
    return ValueError(
        f"{name} cannot be decoded by torchcodec ({str(error).strip().splitlines()[0]}). It is damaged, or its "
        "format is none of torchcodec's: use the backend 'pyav'."
    )


def _describe_look(frame: Any) -> tuple[Any, ...]:
    """Return the facts of a frame that say how its samples become a picture."""
    colours = (frame.color_space, frame.color_range, frame.color_transfer_characteristic, frame.color_primaries)
    return frame.pixel_format, frame.width, frame.height, *colours, frame.rotation


def _raw_frames(demuxer: Any, decoder: Any) -> Iterable[Any]:
    for packet in demuxer:
        yield from decoder.decode(packet)
    yield from decoder.drain()


def _to_picture(frame: Any, canvas: Any) -> np.ndarray:
    """Return an upright picture; a frame of PyAV is the canvas with the colours."""
    form = canvas.format
    planes = [component.plane for component in form.components]
    if form.name != frame.pixel_format or form.has_palette or form.is_bit_stream or len({*planes}) < len(planes):
        # Packed formats. The converter turns pictures and does not mirror them: the turn is taken back.
        stored = _import_decoders().ColorConverter("cpu").convert(frame).data.permute(1, 2, 0).numpy()
        return to_picture(canvas, np.rot90(stored, -round(frame.rotation / 90)))
    for index, samples in zip(planes, frame.planes, strict=True):
        plane = canvas.planes[index]
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)
        values = np.ascontiguousarray(samples.numpy()).view(np.uint8)
        rows[:, : values.shape[1]] = values
    return to_picture(canvas)
