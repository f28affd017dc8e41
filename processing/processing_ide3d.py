"""Processor of 3D-IDE: chat template, placeholder expansion, images and videos."""

import itertools
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import ChannelDimension, make_flat_list_of_images
from transformers.processing_utils import MultiModalData, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.video_utils import VideoMetadata

from .image_reading_ide3d import check_scale, frames_to_tensor, read_image
from .processor_files_ide3d import naming_damaged_files
from .video_reading_ide3d import list_videos

# Qwen ChatML. A line break follows each video or image that is not the last part of its message, as in LLaVA-Video.
# The generation block spans the answer and the token that ends it: these are the tokens a model learns to write.
DEFAULT_CHAT_TEMPLATE = r"""
{%- set parts = {
    'text': ['type', 'text'],
    'video': ['type', 'video', 'url', 'path', 'num_frames', 'fps'],
    'image': ['type', 'image', 'url', 'path', 'base64'],
} -%}
{%- macro render(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- else -%}
        {%- for part in content or [] -%}
            {%- set known = parts[part['type']] or part -%}
            {%- for key in part if key not in known and part[key] is not none -%}
                {{- raise_exception("A " + part['type'] + " part knows " + known | join(', ') + ", got " + key) -}}
            {%- endfor -%}
            {%- if part['type'] == 'text' -%}
                {{- part['text'] -}}
            {%- elif part['type'] in ('video', 'image') -%}
                {{- '<video>' if part['type'] == 'video' else '<image>' -}}
                {{- '' if loop.last else '\n' -}}
            {%- else -%}
                {{- raise_exception("A message part has the type video, image or text, got " + part['type']) -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- if tools or documents -%}
    {{- raise_exception("This template has no place for " + ('tools' if tools else 'documents')
        + ": write them into a message, or give a chat_template that has one") -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message['role'] not in ['system', 'user', 'assistant'] -%}
        {{- raise_exception("A message has the role system, user or assistant, got " + message['role']) -}}
    {%- endif -%}
    {%- for key in message if key not in ['role', 'content'] and message[key] -%}
        {{- raise_exception("A message has a role and content, got " + key) -}}
    {%- endfor -%}
{%- endfor -%}
{%- if not messages or messages[0]['role'] != 'system' -%}
    {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\n' -}}
    {%- if message['role'] == 'assistant' -%}
        {%- generation -%}
            {{- render(message['content']) + '<|im_end|>' -}}
        {%- endgeneration -%}
    {%- else -%}
        {{- render(message['content']) + '<|im_end|>' -}}
    {%- endif -%}
    {{- '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""


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
        if min(patch_size, image_size, spatial_pool_stride) < 1 or image_size < patch_size:
            raise ValueError(
                "patch_size, image_size and spatial_pool_stride must be at least 1 and an image must hold a patch, "
                f"got patch_size={patch_size}, image_size={image_size}, spatial_pool_stride={spatial_pool_stride}."
            )
        for name in ("image_mean", "image_std"):
            of_images, of_videos = (getattr(part, name, None) for part in (image_processor, video_processor))
            if None not in (of_images, of_videos) and list(of_images) != list(of_videos):
                raise ValueError(
                    f"Images and videos go through one vision tower, but {name} is {of_images} in the image processor "
                    f"and {of_videos} in the video processor. Give both the numbers of the tower."
                )
        if chat_template is None:
            chat_template = DEFAULT_CHAT_TEMPLATE.replace("<video>", video_token).replace("<image>", image_token)
        super().__init__(image_processor, tokenizer, video_processor, chat_template=chat_template)
        self.patch_size = patch_size
        self.image_size = image_size
        self.spatial_pool_stride = spatial_pool_stride
        self.image_token, self.image_token_id = image_token, _token_id(tokenizer, image_token)
        self.video_token, self.video_token_id = video_token, _token_id(tokenizer, video_token)
        self.ground_token, self.ground_token_id = ground_token, _token_id(tokenizer, ground_token)

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
        with naming_damaged_files(os.path.join(pretrained_model_name_or_path, kwargs.get("subfolder") or "")):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

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
        """
        if audio is not None:
            raise ValueError("3D-IDE takes videos, images and text; audio is not supported.")
        if images is not None:
            given = {**kwargs, **(kwargs.get("images_kwargs") or {})}
            images = _read_all(images, given.get("input_data_format"), itertools.count())
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

    def _multimodal_inputs_from_conversations(self, conversations, *args, **kwargs):
        """Take the sampling from the video parts, as arguments of the call."""
        *inputs, options = super()._multimodal_inputs_from_conversations(conversations, *args, **kwargs)
        contents = [message.get("content") for conversation in conversations for message in conversation]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        rules = [
            {name: part[name] for name in ("num_frames", "fps") if part.get(name) is not None}
            for part in parts
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
        rescales = kwargs.get("do_rescale")
        if self.image_processor.do_rescale if rescales is None else rescales:
            for index, image in enumerate(make_flat_list_of_images(images)):
                check_scale(image, f"image {index}")
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


def _token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Return the id of a special token that the tokenizer must know whole."""
    token_id = tokenizer.convert_tokens_to_ids(token)
    is_unknown = token_id is None or token_id == tokenizer.unk_token_id
    if is_unknown or list(tokenizer(token, add_special_tokens=False)["input_ids"]) != [token_id]:
        raise ValueError(
            f"The tokenizer has no special token {token!r}. Add the tokens first with "
            "`IDE3DProcessor.add_special_tokens(tokenizer)`, and resize the model's embedding if it has fewer rows "
            "than len(tokenizer)."
        )
    return token_id


def _is_empty_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 0


def _read_all(images: Any, input_data_format: Any, numbers: Iterator[int]) -> Any:
    """Read images in any nesting: each becomes a tensor of shape `(channels, height, width)`, upright."""
    if isinstance(images, (list, tuple)):
        return [_read_all(image, input_data_format, numbers) for image in images]
    name = f"image {next(numbers)}"
    if not isinstance(images, (np.ndarray, torch.Tensor)):
        pixels = read_image(images, None if isinstance(images, (str, os.PathLike)) else name)
        return torch.from_numpy(pixels).permute(2, 0, 1)
    batch = images if images.ndim == 4 else images[None]
    tensors = list(frames_to_tensor(batch, name, input_data_format))
    return tensors if images.ndim == 4 else tensors[0]


__all__ = ["IDE3DProcessor"]
