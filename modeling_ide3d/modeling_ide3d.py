"""3D-IDE: a video language model that answers about an indoor scene, and finds objects in it, from RGB alone."""

import math
from typing import Any

import torch
from torch import nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel, slice_logits_to_keep
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, torch_compilable_check
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.generic import can_return_tuple

from .configuration_ide3d import IDE3DConfig
from .generation_ide3d import IDE3DGenerationMixin
from .grounding_ide3d import (
    GroundingHead,
    complete_region_valid,
    encode_regions,
    fill_empty_regions,
    gather_frame_features,
    locate_references,
    select_region_references,
)
from .inputs_ide3d import (
    as_frame_mask,
    check_attention_mask,
    check_cache,
    check_embeddings,
    check_encoded,
    check_kept_logits,
    check_labels,
    check_pixels,
    check_positions,
    check_scores,
    check_tensors,
    check_tokens,
    known_keywords,
    warn_of_broken_pixels,
)
from .loading_ide3d import IDE3DLoadingMixin
from .outputs_ide3d import IDE3DCausalLMOutputWithPast, IDE3DModelOutputWithPast


class IDE3DPreTrainedModel(IDE3DLoadingMixin, PreTrainedModel):
    """Loading, saving and initialisation of the 3D-IDE models."""

    config: IDE3DConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["cache"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        std = 1 / math.sqrt(self.config.text_config.hidden_size)
        if isinstance(module, IDE3DModel):
            init.normal_(module.image_newline, mean=0.0, std=std)
        elif isinstance(module, GroundingHead):
            init.normal_(module.no_object, mean=0.0, std=std)
            init.normal_(module.empty_region, mean=0.0, std=std)


class IDE3DMultiModalProjector(nn.Module):
    """Linear - activation - Linear from the vision tower's width to the language model's."""

    def __init__(self, config: IDE3DConfig):
        super().__init__()
        hidden_size = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, hidden_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Project `(..., vision_hidden_size)` to `(..., hidden_size)`."""
        return self.linear_2(self.act(self.linear_1(features)))


class IDE3DModel(IDE3DPreTrainedModel):
    """Vision tower, projector, token grid with newlines, and language model, without a language model head."""

    # Checkpoints of the generating class load here without complaint.
    _keys_to_ignore_on_load_unexpected = [r"^grounding_head\.", r"^lm_head\."]

    def __init__(self, config: IDE3DConfig):
        super().__init__(config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.multi_modal_projector = IDE3DMultiModalProjector(config)
        self.image_newline = nn.Parameter(torch.zeros(config.text_config.hidden_size))
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def _encode_frames(
        self,
        frames: torch.Tensor,
        frame_counts: list[int],
        output_hidden_states: bool | list[int] | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """Frames of shape `(F, 3, H, W)` to one token sequence per group of `frame_counts` frames."""
        size = self.config.vision_config.image_size
        if frames.shape[-3:] != (self.config.vision_config.num_channels, size, size):
            raise ValueError(
                f"Frames must have shape (..., {self.config.vision_config.num_channels}, {size}, {size}), the input "
                f"of the vision tower, got {tuple(frames.shape)}. Let the processor resize them."
            )
        warn_of_broken_pixels(frames)
        layer = self.config.vision_feature_layer
        if not output_hidden_states:
            output_hidden_states = [layer]  # the other states are not kept
        elif output_hidden_states is not True:
            output_hidden_states = [*output_hidden_states, layer]
        outputs = self.vision_tower(frames, output_hidden_states=output_hidden_states, return_dict=True, **kwargs)
        features = self.multi_modal_projector(outputs.hidden_states[layer])
        features = features.unflatten(1, self.config.patch_grid).permute(0, 3, 1, 2)
        features = nn.functional.interpolate(
            features, size=self.config.token_grid, mode=self.config.spatial_pool_mode, align_corners=False
        ).permute(0, 2, 3, 1)
        newline = self._read_newline().to(features.device, features.dtype)
        newline = newline.expand(*features.shape[:2], 1, newline.shape[0])
        tokens = torch.cat([features, newline], dim=2).flatten(1, 2)
        outputs.pooler_output = [group.flatten(0, 1) for group in torch.split(tokens, frame_counts)]
        return outputs

    def _read_newline(self) -> torch.Tensor:
        # Accelerate reads a parameter from the disk for the `forward` of its module; `generate` comes here without it.
        hook = getattr(self, "_hf_hook", None)
        if hook is None or not self.image_newline.is_meta:
            return self.image_newline
        hook.pre_forward(self)
        newline = self.image_newline
        hook.post_forward(self, None)
        return newline

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        """Encode images, each as a video of one frame.

        Args:
            pixel_values (`torch.Tensor` of shape `(num_images, 3, H, W)`): Normalised images.
            **kwargs: Passed on to the vision tower. `output_hidden_states` may be a list of layers.

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` is a list with the tokens of each image, of shape
            `(rows * (cols + 1), hidden_size)`.

        Raises:
            ValueError: The images have another shape than the vision tower takes.
        """
        check_pixels(pixel_values, 4, "pixel_values", "(num_images, 3, H, W)", self)
        return self._encode_frames(pixel_values, [1] * len(pixel_values), **kwargs)

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        video_frame_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        """Encode videos frame by frame.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(num_videos, num_frames, 3, H, W)`): Normalised frames.
            video_frame_mask (`torch.Tensor` of shape `(num_videos, num_frames)`, bool, *optional*):
                Frames that exist, where videos of different length are padded to one. Default: all.
            **kwargs: Passed on to the vision tower. `output_hidden_states` may be a list of layers; its states have
                shape `(frames of all videos, patches, vision_hidden_size)`, padded frames are left out. It is no named
                argument because `generate` would then hand it to the vision tower alone.

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` is a list with the tokens of each video, of shape
            `(own frames * rows * (cols + 1), hidden_size)`.

        Raises:
            ValueError: The frames have another shape than the vision tower takes, or a video has no frame.
        """
        check_pixels(pixel_values_videos, 5, "pixel_values_videos", "(num_videos, num_frames, 3, H, W)", self)
        num_videos, num_frames = pixel_values_videos.shape[:2]
        if video_frame_mask is None:
            frames, frame_counts = pixel_values_videos.flatten(0, 1), [num_frames] * num_videos
        else:
            mask = as_frame_mask(video_frame_mask, (num_videos, num_frames))
            frames, frame_counts = pixel_values_videos[mask], mask.sum(-1).tolist()
        if not frame_counts or 0 in frame_counts:
            raise ValueError(f"Every video needs at least one frame, got {frame_counts} frames.")
        return self._encode_frames(frames, frame_counts, **kwargs)

    def encode_inputs(
        self,
        pixel_values: torch.Tensor | None,
        pixel_values_videos: torch.Tensor | None,
        video_frame_mask: torch.Tensor | None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None,
    ) -> dict[str, BaseModelOutputWithPooling]:
        """Encode the pixels of a batch, or return what was encoded before, by modality.

        Raises:
            TypeError: What was encoded before is no dict.
            ValueError: Both are given.
        """
        check_encoded(mm_encoder_outputs, pixel_values, pixel_values_videos)
        encoded = dict(mm_encoder_outputs or {})
        if pixel_values is not None:
            encoded["image"] = self.get_image_features(pixel_values, return_dict=True)
        if pixel_values_videos is not None:
            encoded["video"] = self.get_video_features(pixel_values_videos, video_frame_mask, return_dict=True)
        return encoded

    def get_placeholder_mask(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.Tensor,
        token_id: int,
        features: torch.Tensor,
        modality: str,
    ) -> torch.Tensor:
        """Find the places of visual tokens, of shape `(batch_size, sequence_length, 1)`, and check their number.

        Raises:
            ValueError: If the text has another number of placeholder tokens than there are visual tokens.
        """
        if input_ids is None:
            token = torch.full((), token_id, dtype=torch.long, device=inputs_embeds.device)
            mask = (inputs_embeds == self.get_input_embeddings()(token)).all(-1)
        else:
            mask = input_ids == token_id
        self._check_placeholders(mask, features.shape[0], modality)
        return mask.unsqueeze(-1).to(inputs_embeds.device)

    def _check_placeholders(
        self, mask: torch.Tensor, num_features: int, modality: str, starts_text: bool | torch.Tensor = True
    ) -> None:
        """Raise ValueError if a starting text has another number of placeholders than visual tokens."""
        num_tokens = mask.sum()
        is_right = num_tokens == num_features
        torch_compilable_check(
            is_right if starts_text is True else is_right | ~starts_text,
            f"The text has {num_tokens} {modality} tokens, the {modality}s give {num_features} "
            f"({self.config.tokens_per_frame} a frame). Pass the pixels of every {modality}, let the processor expand "
            f"one <{modality}> per {modality}, and do not truncate its output. Its patch_size, image_size and "
            "spatial_pool_stride must be the model's.",
        )

    def get_frame_features(
        self, input_ids: torch.LongTensor, mm_encoder_outputs: dict[str, BaseModelOutputWithPooling]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Arrange the visual tokens of each sample by frames: videos first, then images.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: `(batch_size, num_frames, rows, cols, hidden_size)`, and the number of
            frames of each sample.

        Raises:
            ValueError: There is neither a video nor an image.
        """
        token_ids = {"video": self.config.video_token_id, "image": self.config.image_token_id}
        tokens = {key: mm_encoder_outputs[key].pooler_output for key in token_ids if mm_encoder_outputs.get(key)}
        if not tokens:
            raise ValueError("region_masks need a video or an image: pass pixel_values_videos or pixel_values.")
        counts = {key: (input_ids == token_ids[key]).sum(-1) for key in tokens}
        return gather_frame_features(tokens, counts, self.config.token_grid)

    def get_region_features(
        self,
        input_ids: torch.LongTensor,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling],
        region_masks: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mean visual token of each region, checked against the grid of the video.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): Tokens.
            mm_encoder_outputs (`dict`): Outputs of `get_video_features` or `get_image_features`, by modality.
            region_masks (`torch.Tensor` of shape `(batch_size, num_regions, num_frames, rows, cols)`, bool): Cells.

        Returns:
            `tuple[torch.Tensor, ...]`: Features of shape `(batch_size, num_regions, hidden_size)`, whether a region is
            empty of shape `(batch_size, num_regions)`, and the mean token of each sample's frames of shape
            `(batch_size, hidden_size)`.

        Raises:
            ValueError: The masks have another grid or number of frames than the video.
        """
        return encode_regions(*self.get_frame_features(input_ids, mm_encoder_outputs), region_masks)

    def _place_visual_tokens(
        self,
        inputs_embeds: torch.Tensor,
        input_ids: torch.LongTensor | None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling],
        starts_text: bool | torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Put visual tokens in the place of their placeholders.

        Returns:
            `tuple[torch.Tensor, dict[str, torch.Tensor]]`: Embeddings of the text, and visual tokens by modality.

        Raises:
            ValueError: If a text starts with placeholders of a modality that was not encoded.
        """
        hidden_states = {}
        for modality, token_id in (("image", self.config.image_token_id), ("video", self.config.video_token_id)):
            if mm_encoder_outputs.get(modality) is None:
                if starts_text is not False:
                    self._check_placeholders(input_ids == token_id, 0, modality, starts_text)
                continue
            features = torch.cat(list(mm_encoder_outputs[modality].pooler_output))
            if features.shape[-1] != inputs_embeds.shape[-1]:
                raise ValueError(
                    f"The {modality} tokens are {features.shape[-1]} wide, the language model takes "
                    f"{inputs_embeds.shape[-1]}. An assistant_model gets those of the model that it assists: give one "
                    "of the same hidden_size, or mm_encoder_outputs of this model."
                )
            features = features.to(inputs_embeds.device, inputs_embeds.dtype)
            mask = self.get_placeholder_mask(input_ids, inputs_embeds, token_id, features, modality)
            inputs_embeds = inputs_embeds.masked_scatter(mask, features)
            hidden_states[modality] = features
        return inputs_embeds, hidden_states

    def _replace_references(
        self,
        inputs_embeds: torch.Tensor,
        input_ids: torch.LongTensor | None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling],
        region_masks: torch.Tensor,
        region_valid: torch.Tensor | None,
        region_references: torch.Tensor | None,
    ) -> torch.Tensor:
        """Replace each `<ground>` token of the prompt by the feature of its region."""
        if input_ids is None:
            raise ValueError("region_masks need input_ids, which say where the <ground> tokens are.")
        is_ground = input_ids == self.config.ground_token_id
        region_valid = complete_region_valid(region_masks, region_valid).to(input_ids.device)
        if region_references is None:
            region_references = select_region_references(is_ground, region_valid)
            num_tokens, num_regions = is_ground.sum(-1).tolist(), region_valid.sum(-1).tolist()
            if any(tokens < regions for tokens, regions in zip(num_tokens, num_regions, strict=True)):
                raise ValueError(
                    f"The prompts have {num_tokens} <ground> tokens for {num_regions} regions: write one <ground> per "
                    "region that you refer to. To score candidate regions call `ground` instead. A prefill in chunks "
                    "(`prefill_chunk_size`) takes no regions."
                )
        features, empty, mean = self.get_region_features(input_ids, mm_encoder_outputs, region_masks)
        # Official: a reference to a region without visible cells falls back to the mean of the video.
        features = fill_empty_regions(features, empty, mean)
        if self.config.detach_region_references:
            features = features.detach()
        region = locate_references(is_ground, region_references.to(input_ids.device))
        exists = nn.functional.pad(region_valid, (0, 1), value=False)  # the last column is every index beyond
        exists = exists.gather(1, region.clamp(min=0, max=region_masks.shape[1]))
        torch_compilable_check(
            (exists | (region < 0)).all(),
            f"region_references name padded regions, or regions beyond the {region_masks.shape[1]} of region_masks.",
        )
        if region_masks.shape[1] == 0:
            return inputs_embeds
        index = region.clamp(min=0).unsqueeze(-1).expand(-1, -1, features.shape[-1])
        replacement = features.gather(1, index.to(features.device)).to(inputs_embeds)
        return torch.where((region >= 0).unsqueeze(-1).to(inputs_embeds.device), replacement, inputs_embeds)

    @can_return_tuple
    @deprecate_kwarg("past_key_values", "6.0.0", new_name="cache")
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_frame_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        region_masks: torch.Tensor | None = None,
        region_valid: torch.Tensor | None = None,
        region_references: torch.Tensor | None = None,
        use_cache: bool | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | IDE3DModelOutputWithPast:
        """Run the model; the arguments are those of [`IDE3DForConditionalGeneration.forward`]."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of input_ids and inputs_embeds.")
        regions = {"region_masks": region_masks, "region_valid": region_valid, "region_references": region_references}
        check_tensors(input_ids=input_ids, inputs_embeds=inputs_embeds, **regions)
        check_cache(cache)
        kwargs = known_keywords(kwargs, cache, self.language_model, self.forward)
        encoded = self.encode_inputs(pixel_values, pixel_values_videos, video_frame_mask, mm_encoder_outputs)
        if inputs_embeds is None:
            check_tokens(input_ids, self)
            inputs_embeds = self.get_input_embeddings()(input_ids)
        else:
            check_embeddings(inputs_embeds, self)

        # The length of a static cache is a tensor: nothing below branches on it, so that one graph serves any fill.
        # A paged cache holds many texts at once and tells no length; `generate_batch` has looked at them.
        is_paged = cache is not None and not isinstance(cache, Cache)
        num_cached = 0 if cache is None or is_paged else cache.get_seq_length()
        is_empty = not is_paged and num_cached == 0
        if not is_paged:
            check_attention_mask(attention_mask, inputs_embeds, num_cached)
            check_positions(position_ids, attention_mask, inputs_embeds)
        # A single token is a step of decoding. Its placeholders are not counted: that would wait for the device.
        starts_text = is_empty if input_ids is not None and input_ids.shape[1] > 1 else False
        inputs_embeds, hidden_states = self._place_visual_tokens(inputs_embeds, input_ids, encoded, starts_text)
        if region_masks is not None:
            torch_compilable_check(
                is_empty, "region_masks were given with a filled cache; pass the whole text and its video."
            )
            inputs_embeds = self._replace_references(
                inputs_embeds, input_ids, encoded, region_masks, region_valid, region_references
            )

        if use_cache is None:  # a Trainer sets it to False here, and the language model looks at its own config
            use_cache = getattr(self.config, "use_cache", None)
        outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        return IDE3DModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_outputs=encoded.get("image"),
            video_outputs=encoded.get("video"),
            image_hidden_states=hidden_states.get("image"),
            video_hidden_states=hidden_states.get("video"),
        )


class IDE3DForConditionalGeneration(IDE3DPreTrainedModel, IDE3DGenerationMixin):
    """The exported model: answers in words, and finds objects among candidate regions."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: IDE3DConfig):
        super().__init__(config)
        self.model = IDE3DModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.grounding_head = GroundingHead(config.text_config.hidden_size)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The language model head."""
        return self.lm_head

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]):
        """See [`IDE3DModel.get_image_features`]."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        video_frame_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ):
        """See [`IDE3DModel.get_video_features`]."""
        return self.model.get_video_features(pixel_values_videos, video_frame_mask, **kwargs)

    @can_return_tuple
    @deprecate_kwarg("past_key_values", "6.0.0", new_name="cache")
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_frame_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        region_masks: torch.Tensor | None = None,
        region_valid: torch.Tensor | None = None,
        region_references: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        mm_token_type_ids: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | IDE3DCausalLMOutputWithPast:
        """Score the next token of each position.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Tokens; each frame takes `rows * (cols + 1)` placeholders, as the processor writes them.
            pixel_values (`torch.Tensor` of shape `(num_images, 3, H, W)`, *optional*): Images of the batch.
            pixel_values_videos (`torch.Tensor` of shape `(num_videos, num_frames, 3, H, W)`, *optional*):
                Videos of the batch in the order of their placeholders.
            video_frame_mask (`torch.Tensor` of shape `(num_videos, num_frames)`, bool, *optional*):
                Frames that exist, where videos of different length are padded to one.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*): Padding is 0.
            position_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*): Positions.
            cache (`Cache`, *optional*): Keys and values of the sequence so far.
            inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*):
                Embeddings instead of `input_ids`.
            region_masks (`torch.Tensor` of shape `(batch_size, num_regions, num_frames, rows, cols)`, *optional*):
                Bool. Cells of the token grid that belong to each region that the prompt refers to by `<ground>`.
            region_valid (`torch.Tensor` of shape `(batch_size, num_regions)`, bool, *optional*): Padding is False.
            region_references (`torch.LongTensor` of shape `(batch_size, num_references)`, *optional*):
                Region that the k-th `<ground>` of a sample stands for, -1 for none. Default: in order of appearance.
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*): Targets, -100 is ignored.
            use_cache (`bool`, *optional*): Whether to return the cache.
            logits_to_keep (`int` or `torch.Tensor`): Last positions, or indices, whose logits are computed; 0 is all.
            mm_token_type_ids (`torch.Tensor`, *optional*): Accepted, as processors return it, and not used.
            mm_encoder_outputs (`dict`, *optional*): Outputs of `get_image_features` and `get_video_features` under
                "image" and "video", instead of pixels: visual features are then not computed again.
            **kwargs: Passed on to the language model and to the loss.

        Returns:
            `IDE3DCausalLMOutputWithPast` or `tuple`.

        Raises:
            ValueError: Placeholders and frames do not match, region masks have another grid than the video, or there
                are fewer `<ground>` tokens than regions. Also for soft masks.
            TypeError: Pixels are no floats, or an argument is unknown.
        """
        check_kept_logits(logits_to_keep)
        language_model = self.model.language_model
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            video_frame_mask=video_frame_mask,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            region_masks=region_masks,
            region_valid=region_valid,
            region_references=region_references,
            use_cache=use_cache,
            mm_encoder_outputs=mm_encoder_outputs,
            return_dict=True,
            **known_keywords(kwargs, cache, language_model, self.forward, self.loss_function),
        )
        states = slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep)
        logits, loss = self._score_next(states, labels, **kwargs)
        return IDE3DCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            last_hidden_state=outputs.last_hidden_state,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_outputs=outputs.image_outputs,
            video_outputs=outputs.video_outputs,
            image_hidden_states=outputs.image_hidden_states,
            video_hidden_states=outputs.video_hidden_states,
        )

    def _score_next(
        self, states: torch.Tensor, labels: torch.LongTensor | None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Score the tokens behind states, and compare them with labels."""
        logits = self.lm_head(states)
        if labels is None:
            return logits, None
        check_labels(labels, logits, **kwargs)
        vocab_size = self.config.text_config.vocab_size
        return logits, self.loss_function(logits=logits, labels=labels, vocab_size=vocab_size, **kwargs)

    def locate_query(self, input_ids: torch.LongTensor, region_references: torch.Tensor | None) -> torch.Tensor:
        """Position of each sample's grounding query, its last `<ground>` that refers to no region.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): Tokens.
            region_references (`torch.LongTensor` of shape `(batch_size, num_references)`, *optional*): See `forward`.

        Returns:
            `torch.LongTensor` of shape `(batch_size,)`, -1 where a sample has no query.
        """
        is_query = input_ids == self.config.ground_token_id
        if region_references is not None:
            is_query = is_query & (locate_references(is_query, region_references.to(input_ids.device)) < 0)
        position = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        return position.masked_fill(~is_query, -1).amax(-1)

    def score_regions(
        self,
        last_hidden_state: torch.Tensor,
        query_position: torch.LongTensor,
        input_ids: torch.LongTensor,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling],
        region_masks: torch.Tensor,
        region_valid: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compare the states at the queries of each sample with its candidate regions; see `ground`.

        `query_position` has shape `(batch_size,)` or `(batch_size, num_queries)`; scores have a row for each query.
        """
        features, empty, _ = self.model.get_region_features(input_ids, mm_encoder_outputs, region_masks)
        sample = torch.arange(len(query_position), device=query_position.device)
        sample = sample.repeat_interleave(query_position[0].numel())
        query = last_hidden_state[sample, query_position.flatten().clamp(min=0)]
        features, empty = features.to(query)[sample], empty.to(query.device)[sample]
        return self.grounding_head(query, features, empty, None if region_valid is None else region_valid[sample])

    @torch.no_grad()
    def ground(
        self,
        input_ids: torch.LongTensor,
        region_masks: torch.Tensor,
        region_valid: torch.Tensor | None = None,
        region_references: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_frame_mask: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Score candidate regions against the last `<ground>` of each sample, the answer.

        No graph is kept, as in `generate`; a training calls `score_regions` with the states of its forward pass.

        Source: 3D-IDE, grounding; official `predict_box`.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): Prompt and answer. Each `<ground>`
                before the last refers to a region, in order, unless `region_references` says otherwise.
            region_masks (`torch.Tensor` of shape `(batch_size, num_regions, num_frames, rows, cols)`): Candidates.
            region_valid (`torch.Tensor` of shape `(batch_size, num_regions)`, bool, *optional*): Padding is False.
            region_references (`torch.LongTensor` of shape `(batch_size, num_references)`, *optional*): See `forward`.
            pixel_values (`torch.Tensor`, *optional*): See `forward`.
            pixel_values_videos (`torch.Tensor`, *optional*): See `forward`.
            video_frame_mask (`torch.Tensor`, *optional*): See `forward`.
            mm_encoder_outputs (`dict`, *optional*): See `forward`.
            **kwargs: `attention_mask` and whatever else the language model takes.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_regions + 1)`, float32: cosine similarities in [-1, 1], -inf for
            padded regions; the last column is "no such object".

        Raises:
            ValueError: A sample has no `<ground>` to answer with, the masks have another grid than the video, or
                scores are not finite.
        """
        regions = {"region_masks": region_masks, "region_valid": region_valid, "region_references": region_references}
        check_tensors(input_ids=input_ids, **regions)
        if input_ids is None or region_masks is None or not input_ids.numel():
            raise ValueError("ground needs input_ids with a prompt, and region_masks of the candidates.")
        check_tokens(input_ids, self)
        is_ground = input_ids == self.config.ground_token_id
        region_valid = complete_region_valid(region_masks, region_valid).to(input_ids.device)
        if region_references is None:
            region_references = select_region_references(is_ground, region_valid, has_query=is_ground.any(-1))
        query_position = self.locate_query(input_ids, region_references)
        if missing := (query_position < 0).nonzero().flatten().tolist():
            raise ValueError(f"Samples {missing} have no <ground> to answer with: end each text with one.")
        encoded = self.model.encode_inputs(pixel_values, pixel_values_videos, video_frame_mask, mm_encoder_outputs)
        kwargs["use_cache"] = False
        outputs = self.model(
            input_ids=input_ids,
            region_masks=region_masks,
            region_valid=region_valid,
            region_references=region_references,
            mm_encoder_outputs=encoded,
            return_dict=True,
            **kwargs,
        )
        scores = self.score_regions(
            outputs.last_hidden_state, query_position, input_ids, encoded, region_masks, region_valid
        )
        check_scores(scores, region_valid.to(scores.device))
        return scores


__all__ = [
    "IDE3DCausalLMOutputWithPast",
    "IDE3DForConditionalGeneration",
    "IDE3DModel",
    "IDE3DModelOutputWithPast",
    "IDE3DPreTrainedModel",
]
