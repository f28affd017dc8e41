"""Video processor of 3D-IDE: frame sampling, resize, normalisation, padding over frame counts."""

import logging
import reprlib
from collections.abc import Mapping
from copy import copy
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import ChannelDimension, PILImageResampling
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .frame_order_ide3d import MAX_COUNT, check_count, check_indices
from .frame_times_ide3d import find_highest_rate, find_indices_at_rate, find_indices_over_time
from .image_reading_ide3d import FrameSampler, frames_to_tensor
from .option_rules_ide3d import check_options, check_scaling, find_resize, naming_options, to_plain
from .pixel_rules_ide3d import check_scale
from .video_reading_ide3d import is_stored, list_videos, read_video

logger = logging.getLogger(__name__)

MAX_RATE = 1e300  # frames per second; a finite number with room to divide by
RATE_TOLERANCE = 1e-3  # Relative: 24000/1001 is typed as 23.98, and times in milliseconds are rounded.
# Keys that Transformers writes beside the settings.
_OF_FILES = ("auto_map", "feature_extractor_type", "image_processor_type", "processor_class", "video_processor_type")


class IDE3DVideoProcessorKwargs(VideosKwargs, total=False):
    """Arguments of [`IDE3DVideoProcessor`]: those of Transformers, and `pad_frames`."""

    pad_frames: bool


class IDE3DVideoProcessor(BaseVideoProcessor):
    """Prepares videos for the SigLIP vision tower of 3D-IDE.

    Every frame is squashed to `size` (aspect ratio is not kept, as in the original), divided by 255 and normalised
    with mean and standard deviation 0.5.

    Sampling. `num_frames` frames are taken uniformly, first and last included: `linspace(0, n - 1, num_frames)`, cut
    to integers, the rule of the original. A video with fewer frames keeps all of them; none is repeated. With `fps`
    set, the frames that are shown at 0, 1 / fps, 2 / fps, ... seconds are taken instead. An `fps` given in a call wins
    over the processor's `num_frames`, and the other way round. Videos with a variable rate are sampled by
    presentation time: `num_frames` times are uniform, and a frame that is shown for longer than `1 / fps` comes again.
    `timestamps` of the metadata are the true times.

    What is sampled. Stored videos (files, folders of images, lists of image paths) and frames that come with
    `video_metadata` are sampled by default. Frames in memory without metadata are the caller's choice and are all
    kept, unless the call names `num_frames`, `fps` or `do_sample_frames=True`. `do_sample_frames=False`, of the call
    or of the processor, keeps every frame of every video, whatever `num_frames` or `fps` say. What a call demands must
    be possible: more frames, or a higher rate, than the video has is an error, while the processor's own `num_frames`
    and `fps` are only upper limits.

    Returns a [`BatchFeature`] with:

    - **pixel_values_videos** of shape `(batch_size, frames, 3, height, width)`, float. `frames` is the largest frame
      count of the batch; shorter videos are padded with zeros at the end.
    - **video_frame_mask** of shape `(batch_size, frames)`, bool, True on real frames.
    - **video_metadata**, a list of [`VideoMetadata`] with the `frames_indices` taken, if `return_metadata=True`.

    Args:
        num_frames (`int`, *optional*, defaults to 32):
            Upper limit of the frames taken from a video.
        fps (`float`, *optional*):
            Frames per second to take instead of a fixed number.
        size (`dict[str, int]`, *optional*, defaults to `{"height": 384, "width": 384}`):
            Size of the vision input in pixels.
        do_sample_frames (`bool`, *optional*, defaults to `True`):
            Whether videos are sampled at all when the call does not say so.
        pad_frames (`bool`, *optional*, defaults to `True`):
            Whether videos of unlike length are padded to one. Otherwise both outputs are then lists with an entry for
            each video, which does not depend on the others: serving engines keep the entries apart.
        **kwargs:
            Other arguments of [`VideosKwargs`].
    """

    resample = PILImageResampling.BICUBIC
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    size = {"height": 384, "width": 384}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = True
    num_frames = 32
    fps = None
    pad_frames = True
    valid_kwargs = IDE3DVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "video_frame_mask"]

    def __init__(self, **kwargs: Unpack[VideosKwargs]) -> None:
        kwargs = to_plain(kwargs)
        check_options(kwargs)
        with naming_options(**kwargs):
            super().__init__(**_one_sampling_rule(kwargs))
        known = {*self.valid_kwargs.__annotations__, *VideosKwargs.__annotations__, *_OF_FILES}
        if unknown := sorted(key for key in kwargs if key not in known and not key.startswith("_")):
            logger.warning("IDE3DVideoProcessor does not know the settings %s; they have no effect.", unknown)

    @classmethod
    def from_dict(cls, video_processor_dict: dict[str, Any], **kwargs: Any):
        """Build from a dictionary; `num_frames` or `fps` in `kwargs` replaces the stored rule."""
        override = {key: value for key, value in _one_sampling_rule(kwargs).items() if key in ("num_frames", "fps")}
        return super().from_dict({**video_processor_dict, **override}, **{**kwargs, **override})

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: int | float | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Return the indices of the frames to take.

        Args:
            metadata (`VideoMetadata`):
                `total_num_frames`, and `fps` where a rate is asked for.
            num_frames (`int`, *optional*):
                Exact number of frames; an error if the video has fewer. Default: at most `self.num_frames`.
            fps (`float`, *optional*):
                Frames per second; an error if the video never has as many. Default: at most `self.fps`.
            **kwargs:
                Ignored.

        Returns:
            `np.ndarray` of shape `(frames,)`, not decreasing.

        Raises:
            ValueError: if both are given, the video cannot fulfil the demand, or its frame rate is unknown.
        """
        demanded = _one_sampling_rule({"num_frames": num_frames, "fps": fps})
        is_demand = num_frames is not None or fps is not None
        num_frames, fps = (demanded["num_frames"], demanded["fps"]) if is_demand else (self.num_frames, self.fps)
        total = metadata.total_num_frames
        if fps is not None:
            return _indices_at_rate(metadata, fps, is_demand)
        if num_frames is not None and num_frames > total and is_demand:
            raise ValueError(
                f"num_frames={num_frames} was asked for, but the video has {total} frame(s). Ask for at most {total}, "
                "or leave num_frames out to keep them all."
            )
        return find_indices_over_time(metadata, total if num_frames is None else num_frames)

    def fetch_videos(self, video_url_or_urls: Any, sample_indices_fn: FrameSampler | None = None) -> Any:
        """Read one stored video, or a list of them, with PyAV (see [`read_video`]).

        Args:
            video_url_or_urls (`Any`):
                Stored video: path or URL of a file, folder of images, bytes, binary file object, value of
                `datasets.Video`; or a list of them.
            sample_indices_fn (`Callable`, *optional*):
                Gets `metadata`, returns frame indices. Default: [`~IDE3DVideoProcessor.sample_frames`].

        Returns:
            `(frames, metadata)`, or `[all_frames, all_metadata]` for a list.

        Raises:
            ValueError: for an empty list.
        """
        if isinstance(video_url_or_urls, (list, tuple)):
            if not video_url_or_urls:
                raise ValueError("Expected the path or URL of at least one video, got an empty list.")
            return list(
                zip(*[self.fetch_videos(video, sample_indices_fn) for video in video_url_or_urls], strict=True)
            )
        return read_video(video_url_or_urls, sample_indices_fn or self.sample_frames)

    def preprocess(self, videos: Any, **kwargs: Unpack[VideosKwargs]) -> BatchFeature:
        """Read, sample, resize, normalise and pad videos.

        Args:
            videos (`Any`):
                One video or a (nested) list of videos. A stored video is a path or URL (video file, folder of images),
                bytes, an open binary file, a value of `datasets.Video`, or a list of image paths. A video in memory is
                a list of frames (PIL or arrays), or an array or tensor of shape `(frames, height, width, 3)` or
                `(frames, 3, height, width)`.
            **kwargs:
                Arguments of [`VideosKwargs`] for this call.

        Returns:
            [`BatchFeature`]: see the class.

        Raises:
            ValueError: for a video without frames or pixels, NaN pixels, wrong rank, a demand that cannot be met, a
                damaged file. Also for pixels of another scale than the processor expects.
            TypeError: for an argument that the processor does not have, and for what is no video.
            FileNotFoundError: for a missing file.
        """
        known = {*self.valid_kwargs.__annotations__, *VideosKwargs.__annotations__}
        if unknown := sorted(set(kwargs) - known):
            raise TypeError(f"The video processor has no arguments {unknown}. Expected some of {sorted(known)}.")
        kwargs = to_plain(kwargs)
        check_options(kwargs)
        check_scaling(self, kwargs)
        with naming_options(videos=videos, size=self.size, **{key: kwargs[key] for key in kwargs if key != "size"}):
            return self._process_named(videos, **kwargs)

    def _process_named(self, videos: Any, **kwargs: Unpack[VideosKwargs]) -> BatchFeature:
        return_tensors = kwargs.pop("return_tensors", None)
        return_metadata = kwargs.pop("return_metadata", None)
        sampling = {key: kwargs.pop(key, None) for key in ("do_sample_frames", "num_frames", "fps")}
        metadata = kwargs.pop("video_metadata", None)
        pad_frames = kwargs.pop("pad_frames", None)
        pad_frames = self.pad_frames if pad_frames is None else pad_frames
        if not isinstance(pad_frames, bool):
            raise TypeError(f"pad_frames must be True or False, got {pad_frames!r}.")
        frames, metadata = self._load_videos(
            list_videos(videos), metadata, kwargs.pop("input_data_format", None), find_resize(self, kwargs), **sampling
        )
        for index, video in enumerate(frames):
            check_scale(video, f"video {index}", self, kwargs)
        processed = super().preprocess(
            frames,
            video_metadata=metadata,
            do_sample_frames=False,
            input_data_format=ChannelDimension.FIRST,
            **kwargs,
        )
        data = _pad_frames(processed["pixel_values_videos"], pad_frames)
        as_lists = [key for key, value in data.items() if isinstance(value, list)]
        if return_metadata or (return_metadata is None and self.return_metadata):
            data["video_metadata"] = metadata
        return BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=["video_metadata", *as_lists])

    def _load_videos(
        self,
        videos: list[Any],
        video_metadata: Any,
        input_data_format: str | ChannelDimension | None,
        resize: dict[str, Any] | None,
        do_sample_frames: bool | None,
        num_frames: int | None,
        fps: float | None,
    ) -> tuple[list[torch.Tensor], list[VideoMetadata]]:
        """Return the sampled frames of every video, channels first, with metadata that names them.

        Frames of a video file are resized one by one as they are decoded, so that few whole ones are in memory.
        """
        transform = None if resize is None else partial(self._resize_picture, **resize)
        _one_sampling_rule({"num_frames": num_frames, "fps": fps})
        sampler = partial(self.sample_frames, num_frames=num_frames, fps=fps)
        if do_sample_frames is None and (num_frames is not None or fps is not None):
            do_sample_frames = self.do_sample_frames
        all_frames, all_metadata = [], []
        for index, (video, given) in enumerate(zip(videos, _list_metadata(video_metadata, len(videos)), strict=True)):
            name = f"video {index}"
            if is_stored(video):
                samples = self.do_sample_frames if do_sample_frames is None else do_sample_frames
                sample = partial(_sample_stored, sampler if samples else _keep_all, given)
                video, metadata = read_video(video, sample, transform=transform)
                frames = frames_to_tensor(video, name, ChannelDimension.LAST)
            else:
                frames = frames_to_tensor(video, name, input_data_format)
                default = self.do_sample_frames and given is not None
                samples = default if do_sample_frames is None else do_sample_frames
                metadata, is_sampled = _complete_metadata(given, frames, name)
                if not is_sampled:
                    metadata.frames_indices = [int(i) for i in (sampler if samples else _keep_all)(metadata=metadata)]
                    frames = frames[metadata.frames_indices]
            all_frames.append(frames)
            all_metadata.append(metadata)
        return all_frames, all_metadata

    def _resize_picture(self, picture: np.ndarray, **resize: Any) -> np.ndarray:
        """Return a picture (height, width, 3), resized as a frame of a batch."""
        frame = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
        return self.resize(frame, **resize)[0].permute(1, 2, 0).numpy()


def _one_sampling_rule(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Check `num_frames` and `fps`; the one that is given clears the other."""
    num_frames, fps = kwargs.get("num_frames"), kwargs.get("fps")
    if num_frames is not None and fps is not None:
        raise ValueError(
            f"num_frames and fps exclude each other, got num_frames={num_frames} and fps={fps}. Give one."
        )
    if num_frames is not None:
        check_count(num_frames)
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, Real)):
        raise TypeError(f"fps must be a number greater than 0, got {fps!r} of type {type(fps).__name__}.")
    if fps is not None and not 0 < fps <= MAX_RATE:
        raise ValueError(f"fps must be a finite number greater than 0, got {fps!r}.")
    if num_frames is not None:
        return {**kwargs, "fps": None}
    if fps is not None:
        return {**kwargs, "num_frames": None}
    return kwargs


def _indices_at_rate(metadata: VideoMetadata, fps: float, is_demand: bool) -> np.ndarray:
    if not metadata.fps:
        raise ValueError(
            f"fps={fps} needs the frame rate of the video, which is unknown for frames without metadata and for "
            'folders of images. Pass video_metadata=[{"total_num_frames": ..., "fps": ...}], or use num_frames.'
        )
    highest = find_highest_rate(metadata)
    if is_demand and fps > highest * (1 + RATE_TOLERANCE):
        raise ValueError(f"fps={fps} was asked for, but the video has only {highest:g} frames per second.")
    return find_indices_at_rate(metadata, min(fps, highest))


def _keep_all(metadata: VideoMetadata) -> np.ndarray:
    return np.arange(metadata.total_num_frames)


def _sample_stored(sampler: FrameSampler, given: VideoMetadata | None, metadata: VideoMetadata) -> np.ndarray:
    """Sample a stored video, by the caller's frame rate if the source has none."""
    if given is not None and metadata.fps is None:
        metadata.fps = given.fps
    return sampler(metadata=metadata)


def _list_metadata(video_metadata: Any, num_videos: int) -> list[VideoMetadata | None]:
    """Return one private copy of the metadata, or None, for each video."""
    if video_metadata is None:
        return [None] * num_videos
    entries = list(video_metadata) if isinstance(video_metadata, (list, tuple)) else [video_metadata]
    if entries and isinstance(entries[0], (list, tuple)):
        entries = [entry for group in entries for entry in group]
    if len(entries) != num_videos:
        raise ValueError(f"Got {len(entries)} video_metadata entries for {num_videos} video(s). Pass one for each.")
    return [_copy_metadata(entry) for entry in entries]


def _copy_metadata(entry: Any) -> VideoMetadata | None:
    if entry is None:
        return None
    if not isinstance(entry, VideoMetadata):  # true times come along
        if not isinstance(entry, Mapping) or any(key not in VideoMetadata.__annotations__ for key in entry):
            known = ", ".join(VideoMetadata.__annotations__)
            raise ValueError(f"video_metadata has the keys {known}, got {reprlib.repr(entry)}.")
        entry = VideoMetadata(**{"total_num_frames": None, **entry})
    _check_metadata(entry)
    return copy(entry)


def _check_metadata(given: VideoMetadata) -> None:
    """Check the numbers of metadata that a caller gave.

    Raises:
        TypeError: for counts and frames that are no whole numbers.
        ValueError: for counts below 1, a rate or duration that is no positive number, and frames beyond the count.
    """
    for name in ("total_num_frames", "width", "height"):
        if getattr(given, name) is not None:
            check_count(getattr(given, name), f"{name} of video_metadata")
    for name in ("fps", "duration"):
        value = getattr(given, name)
        is_number = isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
        # Transformers writes a duration of 0 where it is unknown, and for a single frame.
        is_right = is_number and 0 <= value <= MAX_RATE and (value > 0 or name == "duration")
        if value is not None and not is_right:
            raise ValueError(f"{name} of video_metadata must be a positive number, got {reprlib.repr(value)}.")
    if given.frames_indices is not None:
        if not hasattr(given.frames_indices, "__len__"):
            raise TypeError(
                f"frames_indices of video_metadata must be a list of frames, got {reprlib.repr(given.frames_indices)}."
            )
        total = MAX_COUNT if given.total_num_frames is None else given.total_num_frames
        check_indices(given.frames_indices, total, "frames_indices of video_metadata")


def _complete_metadata(given: VideoMetadata | None, frames: torch.Tensor, name: str) -> tuple[VideoMetadata, bool]:
    """Return metadata of frames in memory, and whether these frames were sampled before."""
    metadata = given or VideoMetadata(total_num_frames=len(frames))
    metadata.total_num_frames = len(frames) if metadata.total_num_frames is None else metadata.total_num_frames
    metadata.height, metadata.width = frames.shape[-2:]
    if metadata.total_num_frames == len(frames):
        return metadata, False
    if metadata.frames_indices is not None and len(metadata.frames_indices) == len(frames):
        return metadata, True
    raise ValueError(
        f"video_metadata announces {metadata.total_num_frames} frames, {name} has {len(frames)}. If these frames were "
        "sampled from a longer video, say which ones in frames_indices."
    )


def _pad_frames(videos: list[torch.Tensor], pads: bool) -> dict[str, torch.Tensor | list[torch.Tensor]]:
    """Stack videos, shorter ones padded with zero frames, or list those of unlike length.

    Shape:
        videos: list of (V_i, 3, H, W).
        pixel_values_videos: (B, V, 3, H, W), V = largest V_i.
        video_frame_mask: (B, V) bool. Always there: whoever joins batches of different length needs it in each.
    """
    sizes = sorted({tuple(video.shape[-2:]) for video in videos})
    if len(sizes) > 1:
        raise ValueError(f"Videos of one batch must have one size, got (height, width) {sizes}. Leave do_resize on.")
    counts = torch.tensor([len(video) for video in videos])
    if not pads and len(counts.unique()) > 1:
        masks = [video.new_ones(len(video), dtype=torch.bool) for video in videos]
        return {"pixel_values_videos": list(videos), "video_frame_mask": masks}
    padded = torch.nn.utils.rnn.pad_sequence(list(videos), batch_first=True)
    mask = torch.arange(padded.shape[1])[None] < counts[:, None]
    return {"pixel_values_videos": padded, "video_frame_mask": mask.to(padded.device)}


__all__ = ["IDE3DVideoProcessor"]
