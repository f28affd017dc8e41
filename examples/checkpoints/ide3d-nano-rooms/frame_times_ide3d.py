"""When the frames of a video are shown, and which of them a rate or a number of frames takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers.video_utils import VideoMetadata

from .frame_order_ide3d import find_uniform_indices

__all__ = [
    "TimedVideoMetadata",
    "describe_times",
    "find_highest_rate",
    "find_indices_at_rate",
    "find_indices_over_time",
    "to_shown_times",
]

TIME_ROUNDING = 1e-3  # seconds: Matroska, WebM and FLV store whole milliseconds
RATE_JITTER = 0.1  # of a frame: a clock that is this true counts as a constant rate
REORDERED_FRAMES = 16  # no decoder reorders over more frames; a longer jump backwards is a new start of the clock


@dataclass
class TimedVideoMetadata(VideoMetadata):
    """Metadata of a video that knows when each of its frames is shown.

    `timestamps` are the true presentation times, where [`VideoMetadata`] divides indices by the mean rate. `fps` is
    the rate of the file, and the mean rate where that is variable. As a mapping it holds the fields of
    [`VideoMetadata`] alone, so whatever takes those takes this too.

    Args:
        frame_times (`list[float]`, *optional*):
            Presentation time of every frame of the source, in seconds from the first shown frame.
        is_constant_rate (`bool`, *optional*, defaults to `True`):
            Whether frame `i` is shown at `i / fps`.
    """

    frame_times: list[float] | None = field(default=None, repr=False)
    is_constant_rate: bool = True

    def __iter__(self):
        return (name for name in super().__iter__() if name not in ("frame_times", "is_constant_rate"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def timestamps(self) -> list[float]:
        """Presentation times of the sampled frames, in seconds from the first shown frame."""
        if self.frame_times is None or self.frames_indices is None:
            return super().timestamps
        return [self.frame_times[index] for index in self.frames_indices]


def to_shown_times(times: Sequence[float | None], durations: Sequence[float]) -> list[float]:
    """Turn the times that a decoder gives into increasing times from the first shown frame.

    A raw stream has no times: the durations are summed. AVI files with reordered frames number them in the order of
    the file: they are sorted. Where a clock starts again (joined recordings), it goes on after the frame before.

    Args:
        times (`Sequence[float]`):
            Time of each frame in the order in which frames are shown, in seconds; None where there is none.
        durations (`Sequence[float]`):
            How long each frame is shown, in seconds; 0 where that is unknown.

    Returns:
        `list[float]`: Non-decreasing times in seconds; the first is 0.
    """
    if not times:
        return []
    if any(time is None for time in times):
        return [0.0, *np.cumsum(durations[:-1], dtype=float).tolist()]
    raw, lengths = np.asarray(times, dtype=float), np.asarray(durations, dtype=float)
    longest_reordering = np.maximum(REORDERED_FRAMES * lengths[1:], 1.0)
    starts = np.flatnonzero(np.diff(raw) < -longest_reordering) + 1
    shown, offset = [], 0.0
    for part, length in zip(np.split(raw, starts), np.split(lengths, starts), strict=True):
        part = np.sort(part)
        shown.append(part - part[0] + offset)
        offset = shown[-1][-1] + length[-1]
    return np.concatenate(shown).tolist()


def describe_times(
    times: Sequence[float], last_duration: float, announced_rate: float | None, backend: str
) -> TimedVideoMetadata:
    """Return metadata of a video whose frames are shown at these times.

    Args:
        times (`Sequence[float]`):
            Presentation times in seconds, from 0, non-decreasing, at least one.
        last_duration (`float`):
            How long the last frame is shown, in seconds; 0 where that is unknown.
        announced_rate (`float`, *optional*):
            Rate that the file announces, in frames per second. It is taken where the times agree with it.
        backend (`str`):
            Name of the decoder.

    Returns:
        [`TimedVideoMetadata`] with `total_num_frames`, `fps`, `duration` in seconds and the times.
    """
    count, last = len(times), times[-1]
    mean_rate = (count - 1) / last if last > 0 else None
    rates = [rate for rate in (announced_rate, mean_rate) if rate]
    constant = next((rate for rate in rates if _is_constant(times, rate)), None)
    if not last_duration:
        last_duration = 1 / (constant or rates[0]) if rates else 0.0
    duration = last + last_duration
    return TimedVideoMetadata(
        total_num_frames=count,
        fps=constant or (count / duration if duration else None),
        duration=(count / constant if constant else duration) or None,
        video_backend=backend,
        frame_times=list(times),
        is_constant_rate=constant is not None,
    )


def _is_constant(times: Sequence[float], rate: float) -> bool:
    tolerance = min(max(RATE_JITTER / rate, TIME_ROUNDING * 1.01), 0.5 / rate)
    return bool(np.all(np.abs(np.asarray(times) - np.arange(len(times)) / rate) <= tolerance))


def find_indices_over_time(metadata: VideoMetadata, count: int) -> np.ndarray:
    """Choose `count` frames uniformly in time, first and last included.

    At a constant rate this is [`find_uniform_indices`]. At a variable rate each of `count` uniform times takes the
    frame that is shown then, and the next one where that is taken already: no frame comes twice.

    Args:
        metadata (`VideoMetadata`):
            `total_num_frames` of the video, and its times if it is a [`TimedVideoMetadata`].
        count (`int`):
            Frames to choose, at least 1. A video with fewer frames gives each once.

    Returns:
        `np.ndarray` of shape `(count,)`, or `(total_num_frames,)` where that is less: increasing indices.
    """
    total, times = metadata.total_num_frames, _find_variable_times(metadata)
    if times is None or count >= total:
        return find_uniform_indices(total, count)
    indices = _find_shown_at(times, np.linspace(0, times[-1], count))
    places = np.arange(count)
    indices = np.maximum.accumulate(indices - places) + places  # each at least one after the frame before
    return np.minimum(indices, total - count + places)


def find_indices_at_rate(metadata: VideoMetadata, fps: float) -> np.ndarray:
    """Choose the frames that are shown at the times `k / fps` of a video.

    Args:
        metadata (`VideoMetadata`):
            `total_num_frames` and `fps` of the video, and its times if it is a [`TimedVideoMetadata`].
        fps (`float`):
            Frames to take per second.

    Returns:
        `np.ndarray` of shape `(frames,)`: indices that do not decrease. A frame that is shown for longer than
        `1 / fps` comes again.
    """
    total, times = metadata.total_num_frames, _find_variable_times(metadata)
    if times is None:
        step = metadata.fps / fps
        count = max(int(np.ceil(total / step - 1e-6)), 1)
        return np.minimum(np.floor(np.arange(count) * step + 1e-6).astype(int), total - 1)
    count = max(int(np.ceil(metadata.duration * fps - 1e-6)), 1)
    return _find_shown_at(times, np.arange(count) / fps)


def find_highest_rate(metadata: VideoMetadata) -> float | None:
    """Return the rate of a video, the highest where it varies, in frames per second."""
    times = _find_variable_times(metadata)
    gaps = np.diff(times) if times is not None else np.empty(0)
    return float(1 / gaps[gaps > 0].min()) if (gaps > 0).any() else metadata.fps


def _find_variable_times(metadata: VideoMetadata) -> np.ndarray | None:
    times = getattr(metadata, "frame_times", None)
    return None if times is None or metadata.is_constant_rate else np.asarray(times)


def _find_shown_at(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.maximum(np.searchsorted(times, wanted + TIME_ROUNDING, side="right") - 1, 0)
