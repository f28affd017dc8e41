"""Checks of what a model is given: pixels, masks, and the names of arguments."""

import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping, Set
from numbers import Integral
from typing import Any

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask
from transformers.cache_utils import Cache
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.masking_utils import LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import TransformersKwargs, torch_compilable_check

# What every caller of Transformers may pass: flags of outputs, lengths of packed sequences, arguments of the loss, and
# the tokenizers that `generate` takes for its own use and hands on.
COMMON_KEYWORDS = {
    *TransformersKwargs.__annotations__, *inspect.signature(ForCausalLMLoss).parameters, "return_dict", "tokenizer",
    "assistant_tokenizer",
}  # fmt: skip

DIVERGED = "Are the weights damaged, or too large for the model's type? Load them again, or in float32."


def check_tensors(**given: Any) -> None:
    """Raise TypeError for arguments that are neither dense tensors nor None, by name."""
    for name, value in given.items():
        if value is not None and not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}. Convert it by torch.as_tensor.")
        if value is not None and value.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor, got {value.layout}. Convert it by to_dense().")


def as_bool(mask: torch.Tensor, name: str) -> torch.Tensor:
    """Return a mask as bool; other types may hold 0 and 1 alone.

    Args:
        mask (`torch.Tensor`): Mask of any type and shape.
        name (`str`): Name in messages.

    Raises:
        TypeError: It is no tensor, or holds complex numbers.
        ValueError: It holds other numbers, as shares or probabilities.
    """
    check_tensors(**{name: mask})
    if mask.is_complex():
        raise TypeError(f"{name} must be bool, got {mask.dtype}.")
    if mask.dtype != torch.bool:
        torch_compilable_check(
            ((mask == 0) | (mask == 1)).all(),
            f"{name} must be bool, got {mask.dtype} with other numbers than 0 and 1. Choose a threshold, as in "
            f"`{name} > 0.5`.",
        )
    return mask.bool()


def check_pixels(pixels: torch.Tensor, ndim: int, name: str, shape: str, model: nn.Module) -> None:
    """Check the axes and the type of normalised pixels.

    NaN stays NaN; [`warn_of_broken_pixels`] tells. Numbers that are finite in float64 and not in the model's type
    are refused.

    Args:
        pixels (`torch.Tensor`): Pixels.
        ndim (`int`): Number of axes that they must have.
        name (`str`): Name in messages.
        shape (`str`): Shape in messages.
        model (`nn.Module`): Model that takes them.

    Raises:
        TypeError: They are no tensor of floating point numbers.
        ValueError: They have other axes, or do not fit into the model's type.
    """
    if not isinstance(pixels, torch.Tensor) or not pixels.is_floating_point():
        found = pixels.dtype if isinstance(pixels, torch.Tensor) else type(pixels).__name__
        raise TypeError(f"{name} must be a tensor of normalised floats, got {found}: use the processor.")
    if pixels.ndim != ndim:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(pixels.shape)}.")
    if pixels.dtype == torch.float64 and model.dtype != torch.float64:
        if not torch.compiler.is_compiling():
            warnings.warn(f"{name} are float64 and are cast to {model.dtype}. Pass {name}.float().", stacklevel=2)
        torch_compilable_check(
            (torch.isfinite(pixels.to(model.dtype)) | ~torch.isfinite(pixels)).all(),
            f"{name} hold numbers beyond {model.dtype}. Look at how the frames are normalised.",
        )


def as_frame_mask(mask: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Return the mask of a batch's frames as bool.

    Args:
        mask (`torch.Tensor` of shape `(num_videos, num_frames)`):
            Whether a frame is none of padding. vLLM gives the rows as a list.
        shape (`tuple[int, int]`): Shape that it must have.

    Raises:
        TypeError: It is no tensor.
        ValueError: It has another shape, or holds something else than 0 and 1.
    """
    if isinstance(mask, (list, tuple)) and mask and all(isinstance(row, torch.Tensor) for row in mask):
        mask = torch.stack(tuple(mask))
    check_tensors(video_frame_mask=mask)
    if mask.shape != shape:
        raise ValueError(f"video_frame_mask must have shape {shape}, as pixel_values_videos, got {tuple(mask.shape)}.")
    return as_bool(mask, "video_frame_mask")


def warn_of_broken_pixels(frames: torch.Tensor) -> None:
    """Warn of frames that hold NaN or Inf, as their outputs will.

    Only on the CPU: elsewhere it would wait for the device in every step. Traced tensors have no numbers.
    """
    if torch.compiler.is_compiling() or type(frames) is not torch.Tensor or frames.device.type != "cpu":
        return
    broken = ~torch.isfinite(frames).flatten(1).all(1)
    if broken.any():
        warnings.warn(
            f"The pixels of the frames {broken.nonzero().flatten().tolist()} hold NaN or Inf, and so will what "
            "the model says about them. Look at how these frames are read and normalised.",
            stacklevel=2,
        )


def check_attention_mask(attention_mask: Any, inputs: torch.Tensor, num_cached: int | torch.Tensor) -> None:
    """Check that a mask of padding has a number for each token, cached ones included.

    Args:
        attention_mask (`torch.Tensor`): Mask of any kind, or a mapping of masks by kind of layer. The numbers of
            masks of two axes are checked.
        inputs (`torch.Tensor` of shape `(batch_size, sequence_length, ...)`): Tokens or embeddings.
        num_cached (`int` or `torch.Tensor`): Tokens in the cache; a tensor is not read.

    Raises:
        TypeError: It is no mask.
        ValueError: It has another shape, or holds something else than 0 and 1.
    """
    if isinstance(attention_mask, Mapping) and attention_mask.keys() <= LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING.keys():
        return
    if not isinstance(attention_mask, BlockMask):
        check_tensors(attention_mask=attention_mask)
    if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim not in (2, 4):
        raise ValueError(
            "attention_mask must have shape (batch_size, sequence_length), or four axes, got "
            f"{tuple(attention_mask.shape)}. Pass the mask that the processor returns with these input_ids."
        )
    is_padding = isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2
    if not is_padding or isinstance(num_cached, torch.Tensor):
        return
    expected = (inputs.shape[0], num_cached + inputs.shape[1])
    if tuple(attention_mask.shape) != expected:
        behind = f", {num_cached} of them cached" if num_cached else ""
        raise ValueError(
            f"attention_mask must have shape {expected}, one number for each token{behind}, got "
            f"{tuple(attention_mask.shape)}. Pass the mask that the processor returns with these input_ids."
        )
    if attention_mask.is_floating_point() or attention_mask.device.type == "cpu":
        as_bool(attention_mask, "attention_mask")


def is_integer(tensor: torch.Tensor) -> bool:
    """Return whether a tensor holds integers."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def check_embeddings(inputs_embeds: torch.Tensor, model: nn.Module) -> None:
    """Raise ValueError unless embeddings are as wide as those of the model.

    Args:
        inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`): Embeddings.
        model (`nn.Module`): Model that takes them.
    """
    width = model.config.get_text_config().hidden_size
    if inputs_embeds.ndim != 3 or inputs_embeds.shape[-1] != width or not inputs_embeds.is_floating_point():
        raise ValueError(
            f"inputs_embeds must be floats of shape (batch_size, sequence_length, {width}), got {inputs_embeds.dtype} "
            f"{tuple(inputs_embeds.shape)}. Take them from model.get_input_embeddings()."
        )


def check_positions(position_ids: torch.Tensor | None, attention_mask: Any, inputs: torch.Tensor) -> None:
    """Check that there is a position for each token.

    On the CPU, where it costs nothing, no token beside the padding may stand before the first.

    Args:
        position_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*): Positions.
        attention_mask (`torch.Tensor`, *optional*): Mask of padding.
        inputs (`torch.Tensor` of shape `(batch_size, sequence_length, ...)`): Tokens or embeddings.

    Raises:
        TypeError: They are no tensor.
        ValueError: They are no integers, have another shape, or are negative.
    """
    if position_ids is None:
        return
    check_tensors(position_ids=position_ids)
    batch_size, length = inputs.shape[:2]
    is_shaped = position_ids.ndim == 2 and position_ids.shape[1] == length and len(position_ids) in (1, batch_size)
    if not is_shaped or not is_integer(position_ids):
        raise ValueError(
            f"position_ids must be integers of shape ({batch_size}, {length}), one position for each token, got "
            f"{position_ids.dtype} {tuple(position_ids.shape)}."
        )
    if position_ids.device.type == "cpu":
        is_wrong = position_ids < 0
        if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2 and length:
            is_wrong = is_wrong & attention_mask[:, -length:].bool().to(is_wrong.device)
        torch_compilable_check(~is_wrong.any(), "position_ids must be at least 0, got negative ones.")


def check_labels(
    labels: torch.Tensor,
    logits: torch.Tensor,
    shift_labels: torch.Tensor | None = None,
    ignore_index: int = -100,
    **kwargs: Any,
) -> None:
    """Check the targets of the next tokens.

    On the CPU, where it costs nothing, the vocabulary must have them too.

    Args:
        labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`): Targets.
        logits (`torch.Tensor` of shape `(batch_size, sequence_length, vocab_size)`): Scores that they are compared
            with.
        shift_labels (`torch.LongTensor`, *optional*): Tokens behind the logits, which the loss takes instead.
        ignore_index (`int`): Number that stands for no target.
        **kwargs: Other arguments of the loss.

    Raises:
        TypeError: They are no tensor.
        ValueError: They are no int64, have another shape, or lie outside of the vocabulary.
    """
    check_tensors(labels=labels, shift_labels=shift_labels)
    labels = labels if shift_labels is None else shift_labels
    if labels.dtype != torch.int64 or labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels must be int64 of shape {tuple(logits.shape[:-1])}, one for each token with logits, got "
            f"{labels.dtype} {tuple(labels.shape)}."
        )
    if labels.device.type == "cpu":
        torch_compilable_check(
            ((labels == ignore_index) | ((labels >= 0) & (labels < logits.shape[-1]))).all(),
            lambda: (
                f"labels must lie in [0, {logits.shape[-1]}), or be {ignore_index} for no target, got "
                f"{int(labels.min())} to {int(labels.max())}. Use the tokenizer of this model."
            ),
        )


def check_kept_logits(logits_to_keep: Any) -> None:
    """Raise an error unless `logits_to_keep` is a count or a tensor of indices."""
    is_number = isinstance(logits_to_keep, (Integral, torch.SymInt)) and not isinstance(logits_to_keep, bool)
    is_indices = isinstance(logits_to_keep, torch.Tensor) and logits_to_keep.ndim == 1 and is_integer(logits_to_keep)
    if not is_number and not is_indices:
        raise TypeError(
            f"logits_to_keep must be a whole number or a tensor of indices, (num_kept,), got {logits_to_keep!r}."
        )
    if is_number and logits_to_keep < 0:
        raise ValueError(f"logits_to_keep must be at least 0, which keeps all, got {logits_to_keep}.")


def check_encoded(mm_encoder_outputs: Any, *pixels: torch.Tensor | None) -> None:
    """Raise an error for encoded outputs that are no dictionary, or come with pixels."""
    if not isinstance(mm_encoder_outputs, Mapping | None):
        raise TypeError(f"mm_encoder_outputs must be a dict of outputs, got {type(mm_encoder_outputs).__name__}.")
    if mm_encoder_outputs and any(values is not None for values in pixels):
        raise ValueError("Pass either pixels or mm_encoder_outputs, which were computed from them, not both.")


def check_cache(cache: Any) -> None:
    """Raise TypeError unless a cache is one of Transformers, or one of its paged ones."""
    if cache is None or isinstance(cache, Cache):
        return
    if isinstance(cache, (Mapping, Set)) or not callable(getattr(cache, "update", None)):
        raise TypeError(f"cache must be a Cache of Transformers, such as DynamicCache, got {type(cache).__name__}.")


def check_tokens(input_ids: torch.Tensor, model: nn.Module) -> None:
    """Check the type of tokens.

    On the CPU, where it costs nothing, the vocabulary must have them too.

    Args:
        input_ids (`torch.Tensor`): Tokens.
        model (`nn.Module`): Model that takes them. Its embedding may lack a size, in the wrapper of an adapter.

    Raises:
        ValueError: They are no integers, or lie outside of the vocabulary.
    """
    if input_ids.ndim != 2 or not is_integer(input_ids):
        raise ValueError(
            f"input_ids must be integers of shape (batch_size, sequence_length), got {input_ids.dtype} "
            f"{tuple(input_ids.shape)}."
        )
    if input_ids.device.type == "cpu":
        text_config, embedding = model.config.get_text_config(), model.get_input_embeddings()
        vocab_size = max(text_config.vocab_size, getattr(embedding, "num_embeddings", 0))
        torch_compilable_check(
            ((input_ids >= 0) & (input_ids < vocab_size)).all(),
            lambda: (
                f"input_ids must lie in [0, {vocab_size}), got {int(input_ids.min())} to {int(input_ids.max())}. Use "
                "the tokenizer of this model, or call model.resize_token_embeddings(len(tokenizer))."
            ),
        )


def known_keywords(
    kwargs: dict[str, Any],
    cache: Any,
    language_model: nn.Module,
    forward: Callable,
    loss_function: Callable | None = None,
) -> dict[str, Any]:
    """Return the further arguments of a forward pass that the language model takes.

    Args:
        kwargs (`dict`): Arguments that the forward pass does not name.
        cache (`Cache`, *optional*): Cache; a paged one comes with arguments of its own.
        language_model (`nn.Module`): Language model of Transformers.
        forward (`Callable`): The forward pass, for the names that it has.
        loss_function (`Callable`, *optional*): Loss, whose arguments are known too.

    Raises:
        TypeError: An argument is known to none of them, and is not None.
    """
    if kwargs.keys() <= COMMON_KEYWORDS or not isinstance(cache, Cache | None):
        return kwargs
    known = COMMON_KEYWORDS | set(inspect.signature(language_model.forward).parameters)
    if attention := ALL_ATTENTION_FUNCTIONS.get(language_model.config._attn_implementation):
        known |= set(inspect.signature(attention).parameters)
    of_loss = set() if loss_function is None else set(inspect.signature(loss_function).parameters)
    unknown = [name for name, value in kwargs.items() if value is not None and name not in known | of_loss]
    if unknown:
        names = {*inspect.signature(forward).parameters, *known} - {"self", "kwargs", "module"}
        near = {name: difflib.get_close_matches(name, names, 1, 0.7) for name in unknown}
        hints = "".join(f" Did you mean {match[0]!r} for {name!r}?" for name, match in near.items() if match)
        raise TypeError(
            f"The model does not take the arguments {unknown}.{hints} Targets of a training, such as depth, belong to "
            "IDE3DForConditionalGenerationWithGeometry."
        )
    return {name: value for name, value in kwargs.items() if name in known}


def check_scores(scores: torch.Tensor, region_valid: torch.Tensor | None = None, names: Any = None) -> None:
    """Raise ValueError if a sample has scores of regions that are NaN or Inf.

    Args:
        scores (`torch.Tensor` of shape `(batch_size, num_regions + 1)`): Cosine similarities.
        region_valid (`torch.Tensor` of shape `(batch_size, num_regions)`, bool, *optional*): Padding is not looked at.
        names (`list[str]`, *optional*): Names of the samples in the message; default: their indices.
    """
    broken = ~torch.isfinite(scores)
    if region_valid is not None:
        broken = broken & nn.functional.pad(region_valid, (0, 1), value=True)
    if samples := broken.any(-1).nonzero().flatten().tolist():
        raise ValueError(
            f"The scores of regions are NaN or Inf for {[names[index] if names else index for index in samples]}. "
            f"{DIVERGED}"
        )


__all__ = [
    "DIVERGED",
    "as_bool",
    "as_frame_mask",
    "check_attention_mask",
    "check_cache",
    "check_embeddings",
    "check_encoded",
    "check_kept_logits",
    "check_labels",
    "check_pixels",
    "check_positions",
    "check_scores",
    "check_tensors",
    "check_tokens",
    "known_keywords",
    "warn_of_broken_pixels",
]
