"""A nano model of the standard classes: small enough to train on two cores within minutes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, SiglipImageProcessor

from modeling_ide3d import IDE3DConfig
from modeling_ide3d.auxiliary import GeometricValidatorConfig, IDE3DForConditionalGenerationWithGeometry
from processing import IDE3DProcessor, IDE3DVideoProcessor

MAX_POSITIONS = 8192
_SLOW = 1 / 300  # radians a token: frequencies that a video of some hundred tokens hardly turns
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


def build_nano_processor(
    texts: Iterable[str],
    *,
    image_size: int = 64,
    patch_size: int = 8,
    spatial_pool_stride: int = 1,
    num_frames: int = 4,
    vocab_size: int = 768,
    words: Sequence[str] = (),
) -> IDE3DProcessor:
    """Processor with a byte-level tokenizer of a few hundred words, learned from `texts`.

    Common words become one token, digits stay apart, and any other text is spelled in bytes, so nothing is unknown.

    Args:
        texts: Questions and answers of the training data.
        image_size: Side of the vision input in pixels.
        patch_size: Side of a patch in pixels.
        spatial_pool_stride: Patches per visual token and side.
        num_frames: Frames that are taken from a video file.
        vocab_size: Largest number of tokens, special tokens included.
        words: Further words that are one token each, beside `vocab_size`, such as those of
            `processing.boxes_in_words.number_tokens`.

    Raises:
        ValueError: `vocab_size` has no room for the bytes and the special tokens.
    """
    special = [PAD, START, END, "<image>", "<video>", "<ground>"]
    smallest = len(special) + len(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < smallest:
        raise ValueError(f"vocab_size must be at least {smallest}, the bytes and special tokens, got {vocab_size}.")
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    learner = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    chat_words = ["system\nYou are a helpful assistant.", "user\n", "assistant\n"]
    tokenizer.train_from_iterator([*texts, *chat_words * 1000], learner)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[START, "<image>", "<video>", "<ground>"],
        padding_side="left",
        model_max_length=MAX_POSITIONS,
    )
    # Not special tokens: those are left out where answers are decoded.
    fast.add_tokens([AddedToken(word, normalized=False) for word in words])
    size = {"height": image_size, "width": image_size}
    return IDE3DProcessor(
        SiglipImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        fast,
        IDE3DVideoProcessor(size=size, num_frames=num_frames),
        image_size=image_size,
        patch_size=patch_size,
        spatial_pool_stride=spatial_pool_stride,
    )


def build_nano_config(
    processor: IDE3DProcessor,
    *,
    hidden_size: int = 128,
    vision_layers: int = 4,
    text_layers: int = 3,
    heads: int = 4,
    rope_theta: float = 300.0,
    tie_word_embeddings: bool = False,
) -> IDE3DConfig:
    """Configuration of SigLIP and Qwen2 classes at nano size that fits a processor."""
    tokenizer = processor.tokenizer
    return IDE3DConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": hidden_size,
            "intermediate_size": 4 * hidden_size,
            "num_hidden_layers": vision_layers,
            "num_attention_heads": heads,
            "image_size": processor.image_size,
            "patch_size": processor.patch_size,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": hidden_size,
            "intermediate_size": 3 * hidden_size,
            "num_hidden_layers": text_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": MAX_POSITIONS,
            # By default for sequences of hundreds of tokens, not of thousands: every frequency tells near from far.
            "rope_parameters": {"rope_type": "default", "rope_theta": rope_theta},
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": tie_word_embeddings,
            "initializer_range": hidden_size**-0.5,  # 0.02 suits widths of thousands; here it would mute every branch
        },
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        ground_token_id=processor.ground_token_id,
        spatial_pool_stride=processor.spatial_pool_stride,
        detach_region_references=False,  # from scratch, the reference is the shortest way from the answer to the tower
    )


def build_nano_model(
    config: IDE3DConfig,
    *,
    teacher_size: int | None = None,
    validator: dict[str, Any] | None = None,
    position_scale: float = 0.3,
    recency_scale: float = 1.5,
    identity_scale: float = 0.7,
) -> IDE3DForConditionalGenerationWithGeometry:
    """Training model with random weights that start where a small model learns within minutes.

    Three initialisations, no change of the architecture; all weights are trained:

    - position embeddings are waves of row and column: a region is the mean of its tokens, and a random embedding is
      lost in a mean, waves are not;
    - query and key biases are constant in half of the heads: under rotary positions that prefers near tokens, so that
      an answer finds its question behind hundreds of visual tokens;
    - value and output projections are near the identity, so that what is attended to can be read as it is (mimetic
      initialisation, Trockman and Kolter, arXiv 2305.09828).

    Args:
        config: Sizes.
        teacher_size: Width of the teacher's features; None trains without one.
        validator: Changes to `GeometricValidatorConfig.light`; an empty dict changes nothing, None leaves it out.
        position_scale: Amplitude of the waves; 0 keeps the random embeddings.
        recency_scale: The constant of the biases; 0 keeps them at zero.
        identity_scale: Share of the identity; 0 keeps the random projections.
    """
    validator_config = None
    if validator is not None:
        validator_config = GeometricValidatorConfig.light(config.vision_config, **validator)
    model = IDE3DForConditionalGenerationWithGeometry(config, validator_config, teacher_size)
    with torch.no_grad():
        if position_scale:
            weight = model.model.vision_tower.embeddings.position_embedding.weight
            weight.copy_(position_scale * grid_waves(*config.patch_grid, weight.shape[1]))
        for layer in model.model.language_model.layers:
            attention = layer.self_attn
            if recency_scale:
                for projection in (attention.q_proj, attention.k_proj):
                    projection.bias[: len(projection.bias) // 2] = recency_scale
            if identity_scale:
                for projection in (attention.v_proj, attention.o_proj):
                    identity = torch.eye(*projection.weight.shape)
                    projection.weight.mul_(1 - identity_scale).add_(identity, alpha=identity_scale)
    return model


@torch.no_grad()
def search_by_words(
    model: IDE3DForConditionalGenerationWithGeometry,
    groups: Sequence[Sequence[int]],
    scale: float = 1.5,
    mark: float = 6.0,
    preference: float = 5.0,
    recency_scale: float = 3.0,
    branch_scale: float = 0.2,
) -> None:
    """Let half of the heads find visual tokens that show what a word names.

    Query and key of these heads, the second half, are one projection: onto the directions in which the embeddings of
    the words differ, on the dimensions that rotary positions hardly turn. So they search over any distance. A word
    shall not find itself: visual tokens are marked in one direction that no word has, and the heads prefer marked
    tokens. They copy the channels that the other heads copy, so that an answer reads what was found as it reads a
    region. Visual tokens must be made of words, as in a model with tied embeddings that can name what they show.

    Args:
        model: Nano model; changed in place.
        groups: Token ids of words that exclude each other, such as colours, and kinds of furniture.
        scale: Factor of the projection; the scores grow by its square.
        mark: Length of the mark, beside visual tokens of about the root of the width.
        preference: Weight of the mark in query and key.
        recency_scale: Scale as in `build_nano_model`; sharper, as a word has its colour right before it.
        branch_scale: Factor of the random feed-forward branches, which would blur what is looked for.

    Raises:
        ValueError: If embeddings are not tied, the number of heads is odd, heads share keys, or rotary positions turn
            every dimension within a video.
    """
    language_model = model.model.language_model
    slow = (language_model.rotary_emb.inv_freq < _SLOW).repeat(2).nonzero().flatten()
    _check_search(model, len(slow))
    embeddings = model.get_input_embeddings().weight
    words = torch.cat([embeddings[list(group)] - embeddings[list(group)].mean(0) for group in groups])
    directions = torch.linalg.svd(words)[2]
    marked = directions[-1]
    embeddings.sub_(torch.outer(embeddings @ marked, marked))
    projection = model.model.multi_modal_projector.linear_2
    projection.weight.sub_(torch.outer(marked, marked @ projection.weight))
    projection.bias.add_(marked, alpha=mark - float(projection.bias @ marked))
    for index, layer in enumerate(language_model.layers):
        attention = layer.self_attn
        layer.mlp.down_proj.weight.mul_(branch_scale)
        near = len(attention.q_proj.bias) // (2 if index else 1)
        for projection in (attention.q_proj, attention.k_proj):
            projection.bias[:near] = recency_scale
        if index == 0:
            continue
        size, half = attention.head_dim, attention.q_proj.out_features // 2
        for projection in (attention.q_proj, attention.k_proj):
            weight = projection.weight[half:].unflatten(0, (-1, size)).zero_()
            weight[:, slow[1:]] = scale * directions[: len(slow) - 1]
        attention.k_proj.weight[half:].unflatten(0, (-1, size))[:, slow[0]] = preference * marked
        attention.q_proj.bias[half:].unflatten(0, (-1, size))[:, slow[0]] = preference
        attention.v_proj.weight[half:] = attention.v_proj.weight[:half]
        attention.o_proj.weight[:, half:] = attention.o_proj.weight[:, :half]
        # What is found is passed on without the mark.
        attention.v_proj.weight.sub_(torch.outer(attention.v_proj.weight @ marked, marked))


def _check_search(model: IDE3DForConditionalGenerationWithGeometry, num_slow: int) -> None:
    """Raise ValueError unless heads can search; `num_slow` dimensions hardly turn within a video."""
    config = model.model.language_model.config
    if model.lm_head.weight is not model.get_input_embeddings().weight:
        raise ValueError("Words are looked for where embeddings are tied: set tie_word_embeddings.")
    if config.num_attention_heads % 2 or config.num_key_value_heads != config.num_attention_heads:
        raise ValueError(
            f"Half of the heads search: expected an even number with a key each, got {config.num_attention_heads} "
            f"heads and {config.num_key_value_heads} keys."
        )
    if num_slow < 2:
        raise ValueError(f"Every rotary frequency turns within {1 / _SLOW:.0f} tokens: choose a larger rope_theta.")


@torch.no_grad()
def standardize_regions(
    model: IDE3DForConditionalGenerationWithGeometry, batches: Iterable[Mapping[str, torch.Tensor]]
) -> None:
    """Standardise region features: mean 0 and deviation 1 in each channel.

    The projector's output is shifted and scaled. While a model learns to tell objects from walls, the common part of
    all regions grows; it hides how one object differs from the next.

    Args:
        model: Training model; its projector is changed in place.
        batches: Batches of the collator; those without regions are skipped.

    Raises:
        ValueError: If there are fewer than two regions.
    """
    features = []
    for batch in batches:
        if "region_masks" not in batch:
            continue
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        video = model.get_video_features(batch["pixel_values_videos"], batch.get("video_frame_mask"), return_dict=True)
        pooled, empty, _ = model.model.get_region_features(batch["input_ids"], {"video": video}, batch["region_masks"])
        features.append(pooled[batch["region_valid"] & ~empty])
    count = sum(map(len, features))
    if count < 2:
        raise ValueError(f"Expected at least two regions to standardise by, got {count}.")
    features = torch.cat(features)
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    projection = model.model.multi_modal_projector.linear_2
    projection.weight.div_(deviation.unsqueeze(1))
    projection.bias.sub_(mean).div_(deviation)


def grid_waves(rows: int, cols: int, channels: int) -> torch.Tensor:
    """Return sines and cosines of row and column, (rows * cols, channels).

    Wavelengths fall from 4 grids to 2 cells.
    """
    per_axis = channels // 4
    longest, shortest = 4.0, 2.0 / max(rows, cols)
    wavelengths = longest * (shortest / longest) ** torch.linspace(0, 1, per_axis, device="cpu")
    waves = []
    for size, axis in ((rows, 0), (cols, 1)):
        place = (torch.arange(size, device="cpu") + 0.5) / size
        angle = 2 * math.pi * place[:, None] / wavelengths
        both = torch.cat([angle.sin(), angle.cos()], -1)
        waves.append(both[:, None].expand(rows, cols, -1) if axis == 0 else both[None].expand(rows, cols, -1))
    waves = torch.cat(waves, -1).flatten(0, 1)
    return torch.nn.functional.pad(waves, (0, channels - waves.shape[1]))


__all__ = [
    "build_nano_config",
    "build_nano_model",
    "build_nano_processor",
    "grid_waves",
    "search_by_words",
    "standardize_regions",
]
