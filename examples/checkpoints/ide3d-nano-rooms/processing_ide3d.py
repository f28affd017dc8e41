"""Processor of 3D-IDE: chat template, placeholder expansion, images and videos."""

import itertools
import logging
import math
import os
from collections.abc import Mapping
from typing import Any

from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import ChannelDimension, make_flat_list_of_images
from transformers.processing_utils import MultiModalData, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.video_utils import VideoMetadata

from .chat_rules_ide3d import (
    DEFAULT_CHAT_TEMPLATE,
    check_chats,
    check_placeholders,
    find_token,
    list_parts,
    list_prompts,
)
from .image_reading_ide3d import read_pictures
from .option_rules_ide3d import check_options, check_scaling, check_sizes, naming_options, to_plain
from .pixel_rules_ide3d import check_scale
from .processor_files_ide3d import check_place, naming_damaged_files
from .video_reading_ide3d import list_videos

logger = logging.getLogger(__name__)


class IDE3DProcessor(ProcessorMixin):
    """Turns chats with videos and images into the inputs of a 3D-IDE model.

    Each `<video>` in the text is expanded to `frames x rows x (cols + 1)` copies of itself, each `<image>` (a video of
    one frame) to `rows x (cols + 1)`: `rows` and `cols` are the patches of the vision input after pooling, and every
    row ends with a newline token. `<ground>` is a token of its own and is not expanded.

    A call returns a [`BatchFeature`] with `input_ids` and `attention_mask`; `pixel_values_videos` and
    `video_frame_mask` with videos; `pixel_values` with images; `mm_token_type_ids` (0 text, 1 image, 2 video) with
    `return_mm_token_type_ids=True`.

    Args:
        image_processor ([`SiglipImageProcessor`]):
            Its `size` must be `image_size`.
        tokenizer ([`PreTrainedTokenizerBase`]):
            Must know the three special tokens; [`~IDE3DProcessor.add_special_tokens`] adds them.
        video_processor ([`IDE3DVideoProcessor`]):
            Its `size` must be `image_size`.
        chat_template (`str`, *optional*):
            Jinja template; Qwen ChatML with a default system prompt when left out.
        patch_size (`int`, *optional*, defaults to 14):
            Side of a vision patch in pixels.
        image_size (`int`, *optional*, defaults to 384):
            Side of the square vision input in pixels.
        spatial_pool_stride (`int`, *optional*, defaults to 2):
            Patches are pooled by this factor in each direction, rounded up.
        image_token (`str`, *optional*, defaults to `"<image>"`):
            Placeholder of an image.
        video_token (`str`, *optional*, defaults to `"<video>"`):
            Placeholder of a video.
        ground_token (`str`, *optional*, defaults to `"<ground>"`):
            Region the user points at (in a prompt), or the grounding query (in an answer).
    """

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        video_processor=None,
        chat_template=None,
        patch_size: int = 14,
        image_size: int = 384,
        spatial_pool_stride: int = 2,
        image_token: str = "<image>",
        video_token: str = "<video>",
        ground_token: str = "<ground>",
    ):
        check_sizes(patch_size=patch_size, image_size=image_size, spatial_pool_stride=spatial_pool_stride)
        check_placeholders(image_token=image_token, video_token=video_token, ground_token=ground_token)
        if not isinstance(chat_template, (str, Mapping, type(None))):
            raise TypeError(f"chat_template must be a Jinja text, got {chat_template!r}. Leave it out for Qwen's.")
        for name in ("image_mean", "image_std"):
            of_images, of_videos = (getattr(part, name, None) for part in (image_processor, video_processor))
            if None not in (of_images, of_videos) and list(of_images) != list(of_videos):
                raise ValueError(
                    f"Images and videos go through one vision tower, but {name} is {of_images} in the image processor "
                    f"and {of_videos} in the video processor. Give both the numbers of the tower."
                )
        if chat_template is None:
            chat_template = DEFAULT_CHAT_TEMPLATE.replace("<video>", video_token).replace("<image>", image_token)
        parts = {"image_processor": image_processor, "tokenizer": tokenizer, "video_processor": video_processor}
        with naming_options(**parts):
            super().__init__(*parts.values(), chat_template=chat_template)
        self.patch_size = patch_size
        self.image_size = image_size
        self.spatial_pool_stride = spatial_pool_stride
        self.image_token, self.image_token_id = image_token, find_token(tokenizer, image_token, "image_token")
        self.video_token, self.video_token_id = video_token, find_token(tokenizer, video_token, "video_token")
        self.ground_token, self.ground_token_id = ground_token, find_token(tokenizer, ground_token, "ground_token")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args, **kwargs):
        """Load a processor as [`ProcessorMixin.from_pretrained`] does; damaged files are named.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                Folder, or name on the Hub.
            *args:
                Passed on.
            **kwargs:
                Passed on.

        Returns:
            `IDE3DProcessor`: the processor.

        Raises:
            OSError: A file is missing or damaged.
            ValueError: The files contradict each other, or the tokenizer lacks a special token.
        """
        check_place(pretrained_model_name_or_path)
        with naming_damaged_files(os.path.join(pretrained_model_name_or_path, kwargs.get("subfolder") or "")):
            processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        square = {"height": processor.image_size, "width": processor.image_size}
        for name in ("image_processor", "video_processor"):
            size = getattr(getattr(processor, name), "size", None)
            if not kwargs and size is not None and dict(size) != square:
                logger.warning(
                    "processor_config.json of %s contradicts itself: size of its %s is %s, its image_size %d. Give "
                    "both the size of the vision tower.",
                    pretrained_model_name_or_path, name, dict(size), processor.image_size,
                )  # fmt: skip
        return processor

    @staticmethod
    def add_special_tokens(
        tokenizer: PreTrainedTokenizerBase,
        image_token: str = "<image>",
        video_token: str = "<video>",
        ground_token: str = "<ground>",
    ) -> int:
        """Add the placeholder tokens to a tokenizer, in place, behind the special tokens it has.

        Args:
            tokenizer ([`PreTrainedTokenizerBase`]):
                Changed in place.
            image_token (`str`, *optional*, defaults to `"<image>"`):
                Placeholder of an image.
            video_token (`str`, *optional*, defaults to `"<video>"`):
                Placeholder of a video.
            ground_token (`str`, *optional*, defaults to `"<ground>"`):
                Region or grounding query.

        Returns:
            `int`: How many tokens were new. If `len(tokenizer)` now exceeds the rows of the model's embedding, resize
            it with `model.resize_token_embeddings(len(tokenizer))`.
        """
        tokens = {"extra_special_tokens": [image_token, video_token, ground_token]}
        return tokenizer.add_special_tokens(tokens, replace_extra_special_tokens=False)

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of visual tokens in a frame, before the newline column."""
        side = math.ceil((self.image_size // self.patch_size) / self.spatial_pool_stride)
        return side, side

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of one frame in the text, newline column included."""
        rows, cols = self.token_grid
        return rows * (cols + 1)

    @property
    def model_input_names(self) -> list[str]:
        """Keys of a call with text, images and videos."""
        names = [*self.tokenizer.model_input_names, *super().model_input_names]
        return [name for name in dict.fromkeys(names) if name not in self.unused_input_names]

    @property
    def unused_input_names(self) -> list[str]:
        """Keys of a tokenizer that the model does not take."""
        return ["token_type_ids"]

    def __call__(self, images=None, text=None, videos=None, audio=None, **kwargs):
        """Make the inputs of the model; see [`ProcessorMixin`] for the arguments.

        Args:
            images (`ImageInput`, *optional*):
                Images for the `<image>` of the texts.
            text (`str` or `list[str]`, *optional*):
                Prompts with placeholders.
            videos (`Any`, *optional*):
                Videos for the `<video>` of the texts.
            audio (`Any`, *optional*):
                Not supported; raises.
            **kwargs:
                Arguments of tokenizer, image processor and video processor.

        Returns:
            [`BatchFeature`]: see the class.

        Raises:
            ValueError: for inputs that do not fit each other, or values that are not possible.
            TypeError: for inputs of another type, or arguments that nothing takes.
        """
        kwargs = to_plain(kwargs)
        check_options(kwargs)
        with naming_options(text=text, images=images, videos=videos, **kwargs):
            return super().__call__(images=images, text=text, videos=videos, audio=audio, **kwargs)

    @property
    def skip_tensor_conversion(self) -> list[str]:
        """Outputs that stay as they are: videos too where they are not padded."""
        unpadded = [] if self.video_processor.pad_frames else ["pixel_values_videos", "video_frame_mask"]
        return [*ProcessorMixin.skip_tensor_conversion, *unpadded]

    def prepare_inputs_layout(self, images=None, text=None, videos=None, audio=None, **kwargs):
        """Bring inputs into one layout: a list of texts, and a flat list of videos.

        Args:
            images (`ImageInput`, *optional*):
                Images, in any nesting.
            text (`str` or `list[str]`, *optional*):
                Prompts with placeholders.
            videos (`Any`, *optional*):
                Videos, in any nesting (see [`IDE3DVideoProcessor`]).
            audio (`Any`, *optional*):
                Not supported; raises.
            **kwargs:
                Arguments of the call.

        Returns:
            `tuple`: `(images, text, videos, audio)`.

        Raises:
            ValueError: for audio, a video without frames, images without pixels or with NaN.
            TypeError: for texts, images or videos of another type.
        """
        if audio is not None:
            raise ValueError("3D-IDE takes videos, images and text; audio is not supported.")
        if text is not None:
            text = list_prompts(text)
        if images is not None:
            given = {**kwargs, **(kwargs.get("images_kwargs") or {})}
            images = read_pictures(images, given.get("input_data_format"), itertools.count())
        images, text, videos, audio = super().prepare_inputs_layout(
            images=images, text=text, videos=videos, audio=audio, **kwargs
        )
        if videos is not None:
            videos = list_videos(self._drop_samples_without_video(videos, text))
        return images, text, videos, audio

    def _drop_samples_without_video(self, videos: Any, text: list[str] | None) -> Any:
        """Drop the empty lists that stand for the chats without a video in a batch."""
        if text is None or not isinstance(videos, (list, tuple)) or len(videos) != len(text):
            return videos
        without = [self.video_token not in sample for sample in text]
        return [video for video, skip in zip(videos, without, strict=True) if not (skip and _is_empty_list(video))]

    def _merge_kwargs(self, *args, tokenizer_init_kwargs=None, **kwargs):
        """Sort the arguments of a call by processor; refuse those that none of them has."""
        groups = self.valid_processor_kwargs.__annotations__
        texts = set(groups["text_kwargs"].__annotations__)
        known = {*groups, "common_kwargs", *texts}
        for name, part in (("images_kwargs", self.image_processor), ("videos_kwargs", self.video_processor)):
            known |= {*groups[name].__annotations__, *part.valid_kwargs.__annotations__}
        if unknown := sorted((set(kwargs) - known) | (set(kwargs.get("text_kwargs", {})) - texts)):
            raise TypeError(
                f"Neither the processor nor the chat template has the arguments {unknown}. Of a video, `num_frames` "
                "or `fps` can be chosen; leave the others out."
            )
        merged = super()._merge_kwargs(*args, tokenizer_init_kwargs=tokenizer_init_kwargs, **kwargs)
        for layout in (merged[group].get("data_format") for group in ("images_kwargs", "videos_kwargs")):
            if layout not in (None, "channels_first"):
                raise ValueError(f"The model takes pixels channels_first, got data_format={layout!r}. Leave it out.")
        return merged

    def apply_chat_template(self, conversation, *args, **kwargs):
        """Render a chat, or several, and on request make the inputs of the model.

        Args:
            conversation (`list[dict]` or `list[list[dict]]`):
                Chat, or batch of chats: messages with `role` and `content`, a text or a list of parts.
            *args:
                Further arguments of [`ProcessorMixin.apply_chat_template`].
            **kwargs:
                Further arguments of [`ProcessorMixin.apply_chat_template`], such as `tokenize=True`. The sound of a
                video is not read: `load_audio_from_video`, which `transformers serve` sets, changes nothing.

        Returns:
            `str`, `list[str]`, or with `tokenize=True` and `return_dict=True` a [`BatchFeature`].

        Raises:
            ValueError: for what is no chat, and for what the template refuses, such as an unknown role. It names the
                message and the part.
        """
        kwargs = to_plain(kwargs)
        kwargs.pop("load_audio_from_video", None)
        check_options(kwargs)
        check_chats(conversation)
        try:
            with naming_options(conversation=conversation, **kwargs):
                return super().apply_chat_template(conversation, *args, **kwargs)
        except Exception as error:
            # By its name: the files of an export import no jinja2, which Transformers loads on demand.
            if not type(error).__module__.startswith("jinja2."):
                raise
            raise ValueError(f"The chat template refuses the messages: {error}.") from error

    def _multimodal_inputs_from_conversations(self, conversations, *args, **kwargs):
        """Take the sampling from the video parts, as arguments of the call."""
        if any(part["type"] == "audio" for part in list_parts(conversations)):
            raise ValueError("A message part has the type video, image or text, got audio, which is not supported.")
        *inputs, options = super()._multimodal_inputs_from_conversations(conversations, *args, **kwargs)
        rules = [
            {name: part[name] for name in ("num_frames", "fps") if part.get(name) is not None}
            for part in list_parts(conversations)
            if part["type"] == "video"
        ]
        if any(rule != rules[0] for rule in rules):
            raise ValueError(
                f"Expected one num_frames or fps for all videos of a call, got the parts {rules}. Ask about each in a "
                "call of its own, or hand frames that you have sampled."
            )
        return *inputs, {**options, **(rules[0] if rules else {})}

    def validate_inputs(self, images=None, text=None, videos=None, audio=None, **kwargs):
        """Check that placeholders and inputs match in number.

        Args:
            images (`ImageInput`, *optional*):
                Images after [`~IDE3DProcessor.prepare_inputs_layout`].
            text (`list[str]`, *optional*):
                Prompts.
            videos (`list`, *optional*):
                Flat list of videos.
            audio (`Any`, *optional*):
                Always None.
            **kwargs:
                Arguments of the call.

        Raises:
            ValueError: if there is no input, or the numbers differ.
        """
        # The base class counts videos by its own parser, which takes a list of image paths for a batch: hand it one
        # name for each video.
        names = None if videos is None else [f"video {index}" for index in range(len(videos))]
        super().validate_inputs(images=images, text=text, videos=names, audio=audio, **kwargs)

    def _process_images(self, images: Any, **kwargs) -> tuple[BatchFeature, list[str]]:
        check_scaling(self.image_processor, kwargs)
        for index, image in enumerate(make_flat_list_of_images(images)):
            check_scale(image, f"image {index}", self.image_processor, kwargs)
        return super()._process_images(images, **{**kwargs, "input_data_format": ChannelDimension.FIRST})

    def _process_videos(self, videos: list[Any], **kwargs) -> tuple[BatchFeature, list[str]]:
        processed = self.video_processor(videos, **kwargs)
        return processed, [self.replace_video_token(processed, index, **kwargs) for index in range(len(videos))]

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs) -> str:
        """Return the text that stands for one image.

        Args:
            image_inputs (`dict`):
                Output of the image processor.
            image_idx (`int`):
                Index of the image.
            **kwargs:
                Ignored.

        Returns:
            `str`: `rows x (cols + 1)` image tokens.
        """
        self._check_pixels(image_inputs["pixel_values"][image_idx], "image")
        return self.image_token * self.tokens_per_frame

    def replace_video_token(self, video_inputs: dict, video_idx: int, **kwargs) -> str:
        """Return the text that stands for one video.

        Args:
            video_inputs (`dict`):
                Output of the video processor.
            video_idx (`int`):
                Index of the video.
            **kwargs:
                Ignored.

        Returns:
            `str`: `frames x rows x (cols + 1)` video tokens, counting the video's own frames, not the padding.
        """
        frames = video_inputs["pixel_values_videos"][video_idx]
        self._check_pixels(frames, "video")
        mask = video_inputs.get("video_frame_mask")
        num_frames = len(frames) if mask is None else int(mask[video_idx].sum())
        return self.video_token * (num_frames * self.tokens_per_frame)

    def _check_pixels(self, pixels: Any, kind: str) -> None:
        if tuple(pixels.shape[-2:]) != (self.image_size, self.image_size):
            height, width = pixels.shape[-2:]
            wanted = {"height": self.image_size, "width": self.image_size}
            raise ValueError(
                f"The {kind} processor made {height} x {width} pixels, but this processor counts tokens for "
                f"image_size={self.image_size}. Give the {kind} processor size={wanted}, or build the processor with "
                "the image_size of your vision tower."
            )

    def _get_num_multimodal_tokens(self, image_sizes=None, video_sizes=None, **kwargs) -> MultiModalData:
        """Count the placeholder tokens of inputs, from their sizes alone.

        Args:
            image_sizes (`list[tuple[int, int]]`, *optional*):
                `(height, width)` of each image.
            video_sizes (`list[tuple[int, int, int]]`, *optional*):
                Raw `(frames, height, width)` of each video, before sampling. They are sampled where a call samples
                frames in memory: with `num_frames`, `fps`, `video_metadata` or `do_sample_frames=True`, which a call
                does to a stored video without being told.
            **kwargs:
                Arguments of the call, such as `num_frames`, or `video_metadata` where `fps` is used.

        Returns:
            [`MultiModalData`]: with `num_image_tokens`, `num_image_patches` (always 1) and `num_video_tokens`.
        """
        data = {}
        if image_sizes is not None:
            data["num_image_tokens"] = [self.tokens_per_frame] * len(image_sizes)
            data["num_image_patches"] = [1] * len(image_sizes)
        if video_sizes is not None:
            call = self._merge_kwargs(**kwargs)["videos_kwargs"]
            given = call.get("video_metadata") or [None] * len(video_sizes)
            counts = [
                self._num_sampled_frames(size[0], entry, call) for size, entry in zip(video_sizes, given, strict=True)
            ]
            data["num_video_tokens"] = [count * self.tokens_per_frame for count in counts]
        return MultiModalData(**data)

    def _num_sampled_frames(self, total: int, given: dict | None, call: dict) -> int:
        rule = {"num_frames": call.get("num_frames"), "fps": call.get("fps")}
        do_sample = call.get("do_sample_frames")
        if do_sample is None:
            is_asked = given is not None or rule != {"num_frames": None, "fps": None}
            do_sample = is_asked and self.video_processor.do_sample_frames
        if not do_sample:
            return total
        metadata = VideoMetadata(total_num_frames=total, fps=(given or {}).get("fps"))
        return len(self.video_processor.sample_frames(metadata=metadata, **rule))


def _is_empty_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 0


__all__ = ["IDE3DProcessor"]
