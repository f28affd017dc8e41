"""Generation of 3D-IDE beside what Transformers does: references to regions, and options that are refused."""

import copy
import math
import reprlib
from numbers import Integral, Real

import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessor, LogitsProcessorList
from transformers.utils.deprecation import deprecate_kwarg

from .grounding_ide3d import complete_region_valid, find_open_references
from .inputs_ide3d import DIVERGED, check_attention_mask, check_cache, check_tensors

# Options of `generate`: the value that is refused with pixels, or "any" with and without them, and why.
UNSUPPORTED_OPTIONS = {
    "token_healing": (True, "writes the prompt anew, without its image and video tokens"),
    "cache_implementation": ("paged", "hands the tokens to `generate_batch`, which drops images and videos"),
    "assistant_early_exit": ("any", "looks for the layers of a model without a vision tower"),
}
ABOVE_ZERO = math.ulp(0.0)
MANY = 2**31 - 1  # tokens, beams and ids are fewer
# Numbers among the options: whether they are whole, and their range.
NUMBERS = {
    **dict.fromkeys(("max_new_tokens", "max_length", "num_beams", "num_return_sequences"), (True, 1, math.inf)),
    **dict.fromkeys(("min_new_tokens", "min_length", "top_k", "no_repeat_ngram_size"), (True, 0, math.inf)),
    **dict.fromkeys(("repetition_penalty", "max_time"), (False, ABOVE_ZERO, math.inf)),
    **dict.fromkeys(("top_p", "typical_p", "min_p", "epsilon_cutoff", "eta_cutoff"), (False, 0, 1)),
    "temperature": (False, 0, math.inf),
    "length_penalty": (False, -math.inf, math.inf),
}
TOKEN_OPTIONS = ("eos_token_id", "pad_token_id", "bos_token_id", "suppress_tokens")


class FiniteScores(LogitsProcessor):
    """Remembers the samples whose scores of tokens are NaN or +Inf.

    It changes no score and does not wait for the device.
    """

    def __init__(self):
        self.broken: torch.Tensor | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Look at scores of shape `(batch_size * num_beams, vocab_size)`."""
        broken = (scores.isnan() | (scores == math.inf)).any(-1)
        if self.broken is not None:  # the number of rows may change
            broken = broken | (self.broken if len(self.broken) == len(broken) else self.broken.any())
        self.broken = broken
        return scores

    def check(self, batch: torch.Tensor | None) -> None:
        """Raise ValueError if a sample of a batch had scores that are not finite."""
        if self.broken is not None and self.broken.any():
            size = len(self.broken) if batch is None else len(batch)
            rows = self.broken.nonzero().flatten() * size // len(self.broken)  # beams are rows of their own
            raise ValueError(
                f"The scores of the next token are NaN or Inf for the samples {sorted(set(rows.tolist()))}. {DIVERGED}"
            )


class IDE3DGenerationMixin(GenerationMixin):
    """Generation of a model that answers about videos, and whose questions may point at regions."""

    @deprecate_kwarg("past_key_values", "6.0.0", new_name="cache")  # as the method of Transformers, before its check
    def generate(
        self, inputs: torch.Tensor | None = None, generation_config: GenerationConfig | None = None, *args, **kwargs
    ):
        """Generate as [`GenerationMixin.generate`] does, from prompts whose questions have all their regions.

        Raises:
            TypeError: An option is of another type, or tokens are no tensor.
            ValueError: An option is out of its range, or the mask has another length than the text. A question, the
                last turn before the answer, has a `<ground>` without a region; an option
                would drop the pixels, or needs what this model does not have; texts are padded on the right; or the
                scores of a token are not finite.
        """
        _check_options(generation_config, kwargs)
        check_cache(kwargs.get("cache"))
        input_ids = kwargs.get("input_ids", inputs)
        check_tensors(input_ids=input_ids, inputs_embeds=kwargs.get("inputs_embeds"))
        if input_ids is not None:
            _check_length(input_ids, generation_config, kwargs)
            self._check_references(input_ids, generation_config, kwargs)
        _check_padding(kwargs.get("attention_mask"))
        finite = FiniteScores()
        given = args[0] if args else kwargs.pop("logits_processor", None)  # the third argument
        processors = LogitsProcessorList([*(given or []), finite])
        try:
            generated = super().generate(inputs, generation_config, processors, *args[1:], **kwargs)
        except RuntimeError:  # sampling from NaN
            finite.check(input_ids)
            raise
        finite.check(input_ids)
        return generated

    def generate_batch(
        self, inputs: list[list[int]], generation_config: GenerationConfig | None = None, *args, **kwargs
    ) -> dict:
        """Answer texts by continuous batching, as [`GenerationMixin.generate_batch`] does.

        Args:
            inputs (`list[list[int]]`): Tokens of each text. There is no place for videos, images or regions.
            generation_config (`GenerationConfig`, *optional*): Settings.
            *args: Passed on.
            **kwargs: Passed on.

        Returns:
            `dict[str, GenerationOutput]`: Answers by the name of their request, in the order of the texts.

        Raises:
            ValueError: A text has placeholders of a video or an image, or a question a `<ground>`.
        """
        placeholders = torch.tensor([self.config.image_token_id, self.config.video_token_id])
        for index, text in enumerate(inputs):
            input_ids = torch.as_tensor(text).unsqueeze(0)
            if torch.isin(input_ids.cpu(), placeholders).any():
                raise ValueError(
                    f"Text {index} has placeholders of a video or an image, but `generate_batch` takes text alone. "
                    "Call `generate` with the pixels instead."
                )
            self._check_references(input_ids, generation_config, {})
        return super().generate_batch(inputs, generation_config, *args, **kwargs)

    def _check_references(
        self, input_ids: torch.LongTensor, generation_config: GenerationConfig | None, inputs: dict
    ) -> None:
        """Raise ValueError if the question of a prompt points at an absent region."""
        region_masks, region_references = inputs.get("region_masks"), inputs.get("region_references")
        if region_references is not None:
            # An explicit -1 is a decision, a region without masks is none.
            is_given = (region_references < 0) | (region_masks is not None)
            num_references = is_given.long().cumprod(-1).sum(-1)
        elif region_masks is not None:
            num_references = complete_region_valid(region_masks, inputs.get("region_valid")).sum(-1)
        else:
            num_references = torch.zeros(len(input_ids), dtype=torch.long)
        ends: set[int] = set()
        for config in (self.generation_config, generation_config, self.config.get_text_config()):
            end = getattr(config, "eos_token_id", None)
            ends |= set(end if isinstance(end, (list, tuple)) else [end]) - {None}
        cache = inputs.get("cache")
        attention_mask, first_new = inputs.get("attention_mask"), None
        if num_cached := 0 if cache is None else int(cache.get_seq_length()):
            # The prompt is the whole text, as long as its attention mask, or what follows the cached part of it.
            length = input_ids.shape[1]
            left_out = 0 if attention_mask is None else attention_mask.shape[1] - length
            first_new = max(num_cached - left_out, 0) if left_out or length > num_cached else 0
        is_open = find_open_references(
            input_ids, self.config.ground_token_id, sorted(ends), num_references, attention_mask, first_new
        )
        if samples := is_open.nonzero().flatten().tolist():
            raise ValueError(
                f"The questions of the samples {samples} have a <ground> that no region is given for. Pass in "
                "`region_masks` a mask for each <ground>, in order, those of earlier turns included; or say in "
                "`region_references` which region each stands for, -1 for none. A filled cache takes no regions: "
                "pass the whole chat and its video instead."
            )

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs,
    ) -> dict:
        """Prepare a step of `generate`; a `<ground>` behind the prompt refers to no region."""
        cache, length = kwargs.get("cache"), kwargs.get("next_sequence_length")
        if not is_first_iteration and cache is not None and length != 1:
            # Transformers calls no reading of an assistant the first one; it needs the video as much as its model.
            is_first_iteration = int(cache.get_seq_length()) == 0
        if not is_first_iteration and kwargs.get("use_cache", True):
            for key in ("region_masks", "region_valid", "region_references"):
                kwargs.pop(key, None)
        return super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )

    def _expand_inputs_for_generation(self, *args, mm_encoder_outputs: dict | None = None, **kwargs):
        # Beams repeat the visual tokens inside these outputs, which belong to the caller and may serve more questions.
        copies = {key: copy.copy(value) for key, value in (mm_encoder_outputs or {}).items()}
        return super()._expand_inputs_for_generation(*args, mm_encoder_outputs=copies, **kwargs)


def _check_padding(attention_mask: torch.Tensor | None) -> None:
    """Raise ValueError for texts that end with padding: the next token would follow the padding."""
    if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2 and attention_mask.shape[1]:
        if samples := (attention_mask[:, -1] == 0).nonzero().flatten().tolist():
            raise ValueError(
                f"The samples {samples} are padded on the right, and an answer would follow the padding. Pad on the "
                'left: set processor.tokenizer.padding_side = "left", or pass padding_side="left".'
            )


def _check_length(input_ids: torch.Tensor, generation_config: GenerationConfig | None, inputs: dict) -> None:
    """Raise ValueError for a mask of another length, or a `max_length` that leaves nothing."""
    if inputs.get("inputs_embeds") is None and inputs.get("cache") is None:
        check_attention_mask(inputs.get("attention_mask"), input_ids, 0)
        limit = inputs.get("max_length")
        is_counted = inputs.get("max_new_tokens", getattr(generation_config, "max_new_tokens", None)) is None
        if is_counted and limit is not None and limit <= input_ids.shape[1]:  # max_new_tokens wins
            raise ValueError(
                f"max_length={limit} counts the prompt, which has {input_ids.shape[1]} tokens: none is left to "
                "generate. Pass max_new_tokens instead."
            )


def _check_numbers(generation_config: GenerationConfig | None, inputs: dict) -> None:
    """Raise TypeError or ValueError for options that are no number of their range."""
    for name, (is_whole, least, largest) in NUMBERS.items():
        value = inputs.get(name, getattr(generation_config, name, None))
        if value is None or isinstance(value, torch.Tensor):
            continue
        range_words = f"from {least:g} to {largest:g}" if largest < math.inf else f"of at least {least:g}"
        range_words = "above 0" if least == ABOVE_ZERO and largest == math.inf else range_words
        wanted = f"{name} must be a {'whole' if is_whole else 'finite'} number {range_words}"
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{wanted}, got {reprlib.repr(value)} ({type(value).__name__}).")
        # A whole number beyond float64 is compared as it is.
        is_right = (isinstance(value, int) or math.isfinite(value)) and least <= value <= min(largest, MANY)
        if not is_right or (is_whole and value != int(value)):
            raise ValueError(f"{wanted}, got {reprlib.repr(value)}.")
    for name in TOKEN_OPTIONS:
        value = inputs.get(name, getattr(generation_config, name, None))
        is_several = isinstance(value, (list, tuple, range)) or getattr(value, "ndim", 0) == 1
        entries = value if is_several else [value]
        if value is not None and not isinstance(value, torch.Tensor):
            if not all(isinstance(entry, Integral) and not isinstance(entry, bool) for entry in entries):
                raise TypeError(f"{name} must be the id of a token or a list of them, got {reprlib.repr(value)}.")
            if not all(-1 <= entry <= MANY for entry in entries):
                raise ValueError(f"{name} must be the id of a token, or -1 for none, got {reprlib.repr(value)}.")


def _check_options(generation_config: GenerationConfig | None, inputs: dict) -> None:
    """Raise an error for wrong numbers and for what this model cannot do."""
    _check_numbers(generation_config, inputs)
    has_pixels = any(inputs.get(name) is not None for name in ("pixel_values", "pixel_values_videos"))
    for name, (refused, reason) in UNSUPPORTED_OPTIONS.items():
        value = inputs.get(name, getattr(generation_config, name, None))
        if value is not None and refused in (value, "any") and (has_pixels or refused == "any"):
            raise ValueError(f"{name}={value!r} {reason}. Leave it out.")
