"""Sizes of batches, of frames and of questions, that fit into a given memory."""

from collections.abc import Sequence
from numbers import Real

from torch import nn

from processing.argument_rules import check_whole
from trainer.session.questions import check_model

__all__ = ["MemoryPlan"]

# Tensors of the hidden size that live at the same time inside a layer: residual, norm, queries, output, ...
HIDDEN_COPIES = 6
PART_COPIES = 6  # queries, keys, values and outputs of attention in parts, side by side
MLP_COPIES = 3  # gate, up and their product
MIN_PACKED_TOKENS = 512  # enough rows to keep a matrix product busy
PIXEL_BYTES = 4 * 4  # float32, held up to four times by the processor: resized, scaled, normalised, cast


class MemoryPlan:
    """Estimate of the bytes that a scene and its questions take beside the weights.

    The estimate is an upper bound for the classes of Transformers. It counts the tensors of a layer at its peak, keys
    and values, masks with their float copies, and logits.

    Args:
        model: `IDE3DForConditionalGeneration`.
        max_memory: Bytes that may be used beside the weights.
        prefix_length: Number of tokens before the questions.
        num_frames: Number of frames of the video.
        is_packed: Whether questions follow each other in one sequence behind one prefix, instead of side by side in a
            batch, each behind a copy of it.
        needs_pairs: Whether questions in one sequence take a mask for every pair of tokens.
        needs_equal_lengths: Whether the questions of a batch must be equally long.

    Raises:
        TypeError: If `model` is of another kind, `max_memory` no number, or a count no integer.
        ValueError: If the scene alone takes more than `max_memory`.
    """

    def __init__(
        self,
        model: nn.Module,
        max_memory: int,
        prefix_length: int,
        num_frames: int,
        *,
        is_packed: bool = True,
        needs_pairs: bool = False,
        needs_equal_lengths: bool = False,
    ):
        check_model(model)
        if isinstance(max_memory, bool) or not isinstance(max_memory, Real):
            raise TypeError(f"`max_memory` must be a number of bytes, got {type(max_memory).__name__} {max_memory!r}.")
        check_whole(prefix_length, "prefix_length", 1)
        check_whole(num_frames, "num_frames", 1)
        self.text, vision = model.config.get_text_config(), model.config.vision_config
        self.size, self.max_memory, self.prefix_length = model.dtype.itemsize, max_memory, prefix_length
        self.is_packed, self.needs_pairs, self.needs_equal_lengths = is_packed, needs_pairs, needs_equal_lengths
        self.heads = self.text.num_attention_heads
        self.head_size = getattr(self.text, "head_dim", None) or self.text.hidden_size // self.heads
        self.token_cache = 2 * self.text.num_hidden_layers * self.text.num_key_value_heads * self.head_size * self.size
        self.scene = prefix_length * (self.token_cache + 2 * self.text.hidden_size * self.size)
        patches = (vision.image_size // vision.patch_size) ** 2
        per_patch = HIDDEN_COPIES * vision.hidden_size + 2 * vision.intermediate_size + 2 * self.text.hidden_size
        frame = patches * per_patch * self.size
        if vision._attn_implementation == "eager":
            frame += 3 * vision.num_attention_heads * patches**2 * self.size
        pixels = PIXEL_BYTES * num_frames * vision.num_channels * vision.image_size**2
        features = prefix_length * self.text.hidden_size * self.size
        prefill = self.activations(prefix_length, prefix_length, masked=False)
        self.smallest = int(max(pixels + features + frame, self.scene + prefill))
        if not max_memory >= self.smallest:  # NaN is less than nothing
            raise ValueError(
                f"The scene takes {self.smallest / 1e6:.1f} MB ({num_frames} frames, {prefix_length} tokens), "
                f"`max_memory` is {max_memory / 1e6:.1f} MB: give more, or fewer frames."
            )
        self.frames_at_once = int(min(num_frames, (max_memory - pixels - features) // frame))

    def activations(self, queries: int, keys: int, masked: bool = True) -> int:
        """Return the bytes at the peak of a layer for one sequence.

        Args:
            queries: Number of tokens that are read.
            keys: Number of tokens that they see, themselves included.
            masked: Whether the attention takes a mask of pairs.
        """
        hidden = HIDDEN_COPIES * self.text.hidden_size + MLP_COPIES * self.text.intermediate_size
        total = queries * hidden * self.size + 2 * keys * self.heads * self.head_size * self.size
        if masked:
            total += queries * keys * (3 + self.size)  # the bool mask and its copies, and the mask that is added
        if self.text._attn_implementation == "eager":
            total += queries * keys * self.heads * (2 * self.size + 4)  # the softmax is taken in float32
        return total

    def questions(self, lengths: Sequence[int], max_new_tokens: int) -> int:
        """Return the bytes of questions that are asked together, beside the scene.

        Args:
            lengths: Number of tokens of each question.
            max_new_tokens: Largest number of tokens of an answer.
        """
        count, longest = len(lengths), max(lengths)
        logits = count * self.text.vocab_size * (self.size + 4)
        suffix = sum(lengths)
        if self.is_packed and not self.needs_pairs:
            # Where some questions have ended, a layer's keys and values move; while they are read, they exist twice.
            cache = count * (longest + max_new_tokens) * self.token_cache * (1 + 2 / self.text.num_hidden_layers)
            side_by_side = PART_COPIES * count * longest * self.heads * self.head_size * self.size
            activations = self.activations(suffix, self.prefix_length, masked=False)
            return int(cache) + side_by_side + activations + logits
        if self.is_packed:
            tokens = suffix + count * max_new_tokens
            # A buffer that grows exists twice while one layer moves.
            moving = 2 * self.prefix_length * self.token_cache // self.text.num_hidden_layers
            cache = tokens * self.token_cache + moving
            return cache + self.activations(suffix, self.prefix_length + tokens) + logits
        width = self.prefix_length + longest + max_new_tokens
        # Every step writes a new copy of a layer's keys and values.
        cache = count * width * self.token_cache * (1 + 2 / self.text.num_hidden_layers)
        return int(cache) + count * self.activations(longest, width) + logits

    def group(self, lengths: Sequence[int], max_new_tokens: int, batch_size: int | None = None) -> list[list[int]]:
        """Split questions of these lengths into groups that fit, as few as possible.

        Packed questions keep their order; others are sorted, so that a batch has little padding.

        Args:
            lengths: Number of tokens of each question.
            max_new_tokens: Largest number of tokens of an answer.
            batch_size: Largest number of questions in a group; default: no limit.

        Returns:
            Indices of the questions of each group.

        Raises:
            ValueError: If one question alone does not fit.
        """
        left = self.max_memory - self.scene
        for index, length in enumerate(lengths):
            if (needed := self.questions([length], max_new_tokens)) > left:
                raise ValueError(
                    f"Question {index} of {length} tokens takes {needed / 1e6:.1f} MB; beside the scene "
                    f"{left / 1e6:.1f} MB of `max_memory` are left: give more, or lower `max_new_tokens`."
                )
        order = range(len(lengths)) if self.needs_pairs else sorted(range(len(lengths)), key=lengths.__getitem__)
        groups: list[list[int]] = []
        for index in order:
            together = [lengths[other] for other in groups[-1]] + [lengths[index]] if groups else []
            if together and len(together) <= (batch_size or len(lengths)) and self._fits(together, max_new_tokens):
                groups[-1].append(index)
            else:
                groups.append([index])
        return groups

    def _fits(self, lengths: list[int], max_new_tokens: int) -> bool:
        if self.questions(lengths, max_new_tokens) > self.max_memory - self.scene:
            return False
        if self.needs_pairs:  # beyond a third of the prefix, masked pairs cost more than large products gain
            return sum(lengths) <= max(self.prefix_length // 3, MIN_PACKED_TOKENS)
        return not self.needs_equal_lengths or len(set(lengths)) == 1
