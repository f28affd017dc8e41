"""Attention to what a word names: a training-only term for models that start from nothing.

Questions in words are answered by first finding what a word names among hundreds of visual tokens. From scratch that
is not learned from answers alone within any time that a laptop has. So, where the training data know which cells show
what is named, attention at the word is told to look there; the answers then teach what to do with what was found.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2.modeling_qwen2 import rotate_half

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from modeling_ide3d.auxiliary.targets import GeometryTargets
from trainer.data_collator import IDE3DDataCollator
from trainer.ide3d_trainer import IDE3DTrainer

MENTION_KEYS = ("mention_positions", "mention_targets")
_HIDDEN = -3e4  # whatever the dtype


class MentionCollator(IDE3DDataCollator):
    """Collator that also takes `mentions`: places of words, and tokens that show what they name.

    The target of a word that names nothing in the video is the first token of the chat, which all chats have.

    Shape:
        mentions:          a list for each of the packed chats, of pairs (word, cells (V, rows, cols) bool).
        mention_positions: (B, M), long; the last token of the word, -1 where a sample has fewer.
        mention_targets:   (B, M, L), bool.

    Raises:
        ValueError: If a chat lacks a word that it is said to mention, or `mentions` has no list for a chat.
    """

    optional_keys = (*IDE3DDataCollator.optional_keys, "mentions")

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collate."""
        batch = super().__call__(samples)
        if "segment_ids" not in batch or not any(sample.get("mentions") for sample in samples):
            return batch
        found = [self._locate(sample, batch, index) for index, sample in enumerate(samples)]
        most = max(len(entries) for entries in found)
        if not most:
            return batch
        length = batch["input_ids"].shape[1]
        positions = torch.full((len(samples), most), -1)
        targets = torch.zeros(len(samples), most, length, dtype=torch.bool)
        for index, entries in enumerate(found):
            for number, (position, target) in enumerate(entries):
                positions[index, number], targets[index, number] = position, target
        return {**batch, "mention_positions": positions, "mention_targets": targets}

    def _locate(self, sample: Mapping[str, Any], batch: Mapping[str, Tensor], index: int) -> list[tuple[int, Tensor]]:
        ids, segments = batch["input_ids"][index], batch["segment_ids"][index]
        mentions = sample.get("mentions") or []
        last = int(segments.max())
        if mentions and len(mentions) != max(last, 1):
            raise ValueError(f"Sample {index}: {len(mentions)} lists of mentions for {max(last, 1)} chats.")
        cells = self.grid.split((ids == self.processor.video_token_id).nonzero().flatten())
        first = int((segments >= 0).int().argmax())
        found = []
        for number, entries in enumerate(mentions, start=min(last, 1)):  # a single chat is segment 0, with its video
            places = (segments == number).nonzero().flatten()
            position = 0
            for word, shown in entries:
                position = self._find(word, ids[places].tolist(), position)
                target = torch.zeros(len(ids), dtype=torch.bool)
                target[cells[torch.as_tensor(shown)] if shown.any() else first] = True
                found.append((int(places[position - 1]), target))
        return found

    def _find(self, word: str, ids: list[int], start: int) -> int:
        """Return the position of the first token behind the word."""
        tokenizer = self.processor.tokenizer
        for tokens in (tokenizer.encode(f" {word}"), tokenizer.encode(word.capitalize())):
            for at in range(start, len(ids) - len(tokens) + 1):
                if ids[at : at + len(tokens)] == tokens:
                    return at + len(tokens)
        raise ValueError(f"No {word!r} behind token {start} of the chat {tokenizer.decode(ids)!r}.")


class MentionTrainer(IDE3DTrainer):
    """Trainer that also tells attention where to find what a word names.

    The term, `loss_mention` in the logs, is the negative logarithm of a share of attention. That is the share from the
    last token of a word on the tokens that show what it names. It is a mean over words and over the second half of
    the heads of one layer. As every term of `IDE3DTrainer`, it is a mean over a whole optimizer step: over the words
    of all its batches and processes. The share that hits is logged too. Both figures are means over the words since
    the last log.

    Args:
        model: Training model, its language model of the Qwen 2 family, without activation checkpointing.
        args: Training arguments.
        mention_weight: Weight of the attention term in the total loss.
        mention_layer: Layer of the term; in the layers before, a word gathers what belongs to it, such as a colour.
        **kwargs: Further arguments of `IDE3DTrainer`; the collator is a `MentionCollator`.

    Raises:
        ValueError: If the language model has no such layer, or another attention than Qwen 2 with a key for each head.
    """

    extra_figures = ("loss_mention", "mention_share")

    def __init__(
        self,
        model: IDE3DForConditionalGenerationWithGeometry,
        args: Any,
        *,
        mention_weight: float,
        mention_layer: int = 1,
        **kwargs: Any,
    ):
        super().__init__(model, args, **kwargs)
        layers = self._core.model.language_model.layers
        if not 0 <= mention_layer < len(layers):
            raise ValueError(f"mention_layer must be from 0 to {len(layers) - 1}, got {mention_layer}.")
        config = self._core.config.text_config
        if config.model_type != "qwen2" or config.num_key_value_heads != config.num_attention_heads:
            raise ValueError(
                f"Attention is followed in qwen2 with a key for each head, got {config.model_type} with "
                f"{config.num_attention_heads} heads and {config.num_key_value_heads} keys."
            )
        self.mention_weight = mention_weight
        self._attention = layers[mention_layer].self_attn
        self._states: dict[str, Any] = {}

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Loss of `IDE3DTrainer` and the weighted term; evaluation is left as it is."""
        handle = self._attention.register_forward_pre_hook(
            lambda _, args, named: self._states.update(named), with_kwargs=True
        )
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            handle.remove()
            self._states.clear()

    def compute_extra_terms(self, inputs: dict[str, Any], targets: dict[str, Any]) -> tuple[dict, dict]:
        """Compute the term of a batch that mentions something; see the class."""
        if "mention_positions" not in targets or not self.mention_weight:
            return {}, {}
        hidden, rotary = self._states["hidden_states"], self._states["position_embeddings"]
        if packed := self._states.get("shared_prefix"):
            hidden, rotary = packed.pad(hidden), tuple(packed.pad(part) for part in rotary)
        shares = attention_shares(
            self._attention,
            hidden,
            rotary,
            targets["mention_positions"],
            targets["mention_targets"],
            inputs["segment_ids"],
        )
        by_word = -shares.mean(1)
        figures = {"loss_mention": by_word.detach(), "mention_share": shares.detach().exp().mean(1)}
        return {"loss_mention": by_word.mean()}, {name: (v.sum(), len(v)) for name, v in figures.items()}

    def _want_terms(self, is_training: bool) -> dict[str, float]:
        weights = super()._want_terms(is_training)
        return {**weights, "loss_mention": self.mention_weight} if is_training else weights

    def _add_targets(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Move the mentions, which the model does not take, to the targets."""
        mentions = {name: batch[name] for name in MENTION_KEYS if name in batch}
        batch = super()._add_targets({name: value for name, value in batch.items() if name not in mentions})
        return {**batch, "targets": GeometryTargets({**batch["targets"].tensors, **mentions})}

    def _count_terms(self, targets: dict[str, Any]) -> dict[str, Tensor]:
        counts = super()._count_terms(targets)
        if "mention_positions" in targets:
            counts["loss_mention"] = (targets["mention_positions"] >= 0).sum().float()
        return counts


def attention_shares(
    attention: nn.Module,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    positions: Tensor,
    targets: Tensor,
    segments: Tensor,
) -> Tensor:
    """Compute the logarithm of the share of attention from words to what they name.

    It is taken of the second half of the heads.

    Args:
        attention: Self-attention of a layer, with a key for each head.
        hidden_states: Input of the layer.
        position_embeddings: Cosines and sines of its rotary positions.
        positions: Positions of the words; see `MentionCollator`.
        targets: Tokens that show what they name; see `MentionCollator`.
        segments: Segment of each token, which sees itself, earlier tokens of its segment, and segment 0.

    Shape:
        hidden_states: (B, L, C).
        output:        (words, heads / 2), existing words only.
    """
    there = positions >= 0
    places = positions.clamp(min=0)

    def project(projection: nn.Module, *states: Tensor) -> Tensor:
        hidden, cosines, sines = states
        heads = projection(hidden).unflatten(-1, (-1, attention.head_dim))
        half = heads[:, :, heads.shape[2] // 2 :].transpose(1, 2)
        return half * cosines.unsqueeze(1) + rotate_half(half) * sines.unsqueeze(1)

    states = (hidden_states, *position_embeddings)
    rows = (part.expand(len(places), -1, -1) for part in states)
    at_words = (part.gather(1, places.unsqueeze(-1).expand(-1, -1, part.shape[-1])) for part in rows)
    query, key = project(attention.q_proj, *at_words), project(attention.k_proj, *states)
    scores = query @ key.transpose(2, 3) * attention.scaling
    at = torch.arange(segments.shape[1], device=segments.device)
    own = segments.gather(1, places)[:, :, None]
    visible = ((segments == 0)[:, None] | (segments[:, None] == own)) & (at <= places[:, :, None])
    scores = scores.masked_fill(~visible[:, None], _HIDDEN).log_softmax(-1)
    shares = scores.masked_fill(~targets[:, None], _HIDDEN).logsumexp(-1)
    return shares.transpose(1, 2)[there]


__all__ = ["MentionCollator", "MentionTrainer", "attention_shares"]
