"""A memory of visual tokens, keys and values, for the next question about a video."""

import copy
import logging
import re
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from hashlib import sha256
from threading import Lock
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ide3d.serving.media import Medium

__all__ = ["BoundedStore", "SceneMemory"]

logger = logging.getLogger(__name__)


class BoundedStore:
    """Values of bounded total size; those not used for longest leave first.

    Args:
        max_bytes: Bytes of all values, at most. A larger value is not kept.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = Lock()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Any:
        """Return a value, the last to leave from now on, or None."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: Hashable, value: Any, num_bytes: int) -> None:
        """Keep a value of `num_bytes` if it fits, and let others leave for it."""
        with self._lock:
            self.num_bytes -= self._entries.pop(key, (None, 0))[1]
            if num_bytes > self.max_bytes:
                return
            while self.num_bytes + num_bytes > self.max_bytes:
                self.num_bytes -= self._entries.popitem(last=False)[1][1]
            self._entries[key] = (value, num_bytes)
            self.num_bytes += num_bytes


class SceneMemory:
    """Inputs of `generate` for chats about pictures and videos, each of which is encoded once.

    It keeps the visual tokens of each medium, by its content. It also keeps the keys and values of each beginning of a
    prompt, up to its last visual token. Both share one bound.

    Args:
        model: `IDE3DForConditionalGeneration` in evaluation mode.
        processor: `IDE3DProcessor` of the model.
        max_bytes: Bytes that are kept, at most.
    """

    def __init__(self, model: nn.Module, processor: Any, max_bytes: int):
        self.model, self.processor = model, processor
        self.store = BoundedStore(max_bytes)
        self.context = model.config.get_text_config().max_position_embeddings
        self.max_frames = self.context // processor.tokens_per_frame

    def read_pixels(self, medium: Medium, num_frames: int | None = None) -> torch.Tensor | None:
        """Return the pixels of a medium, or None if its visual tokens are kept.

        Args:
            medium: Picture or video.
            num_frames: Frames of a video, at most; default: as the processor says.

        Returns:
            Normalised frames (V, 3, H, W), V = 1 of a picture.

        Raises:
            ValueError: If it cannot be read, or `num_frames` is no number of frames that fit into the context.
        """
        if self._key(medium, num_frames) in self.store:
            return None
        if medium.kind == "image":
            inputs = self.processor(text=[self.processor.image_token], images=[medium.content], return_tensors="pt")
            return inputs["pixel_values"]
        reader = self.processor.video_processor
        if num_frames is not None:
            # As a setting it is the most of frames, as an argument the exact number, which short videos lack.
            reader = copy.copy(reader)
            reader.num_frames, reader.fps = num_frames, None
        return reader([medium.content], return_tensors="pt")["pixel_values_videos"][0]

    def check_num_frames(self, num_frames: Any) -> None:
        """Raise ValueError for a number of frames that does not fit into the context."""
        is_whole = isinstance(num_frames, int) and not isinstance(num_frames, bool)
        if num_frames is not None and not (is_whole and 1 <= num_frames <= self.max_frames):
            raise ValueError(
                f"num_frames must be a whole number from 1 to {self.max_frames}, the frames that fit into the "
                f"context of {self.context} tokens, got {num_frames!r:.50}."
            )

    @torch.no_grad()
    def prepare(
        self,
        chat: list[dict[str, Any]],
        media: Sequence[Medium],
        pixels: Sequence[torch.Tensor | None],
        num_frames: int | None = None,
    ) -> dict[str, Any]:
        """Return the inputs of `generate` for a chat.

        Args:
            chat: Messages; media are parts without content.
            media: Pictures and videos of the chat, in order.
            pixels: Pixels of each, as `read_pixels` gives them.
            num_frames: See `read_pixels`.

        Returns:
            `input_ids` and `attention_mask` (1, L); with media also `cache`, of all tokens up to the last visual one.

        Raises:
            ValueError: If the template refuses the chat, a text holds a placeholder, or the prompt fills the context.
        """
        tokens = [self._encode(*entry, num_frames) for entry in zip(media, pixels, strict=True)]
        text = self.processor.apply_chat_template(chat, add_generation_prompt=True)
        input_ids = self.processor.tokenizer(self._expand(text, media, tokens), return_tensors="pt")["input_ids"]
        length = input_ids.shape[1]
        if length >= self.context:
            raise ValueError(
                f"The prompt has {length} tokens, and the context of the model holds {self.context} with the answer. "
                "Ask for fewer frames, or leave out earlier turns."
            )
        input_ids = input_ids.to(self.model.device)
        inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        if media:
            digests = tuple(self._key(medium, num_frames) for medium in media)
            inputs["cache"] = self._read_prefix(input_ids, digests, media, tokens)
        return inputs

    def _key(self, medium: Medium, num_frames: int | None) -> tuple:
        return (medium.kind, medium.digest, num_frames if medium.kind == "video" else None)

    def _encode(self, medium: Medium, pixels: torch.Tensor | None, num_frames: int | None) -> torch.Tensor:
        """Return the visual tokens (V * rows * (cols + 1), hidden_size) of a medium."""
        key = self._key(medium, num_frames)
        tokens = self.store.get(key)
        if tokens is None:
            if pixels is None:  # it was there when the pixels were asked for, and has left since
                pixels = self.read_pixels(medium, num_frames)
            frames = pixels.to(self.model.device, self.model.dtype)
            tokens = self.model.get_video_features(frames[None], return_dict=True).pooler_output[0]
            self.store.put(key, tokens, tokens.nbytes)
            logger.info("Encoded a %s of %d frame(s).", medium.kind, len(frames))
        return tokens

    def _expand(self, text: str, media: Sequence[Medium], tokens: Sequence[torch.Tensor]) -> str:
        """Return the prompt with as many placeholders as there are visual tokens."""
        names = {self.processor.image_token: "image", self.processor.video_token: "video"}
        found = re.findall("|".join(map(re.escape, names)), text)
        if [names[token] for token in found] != [
            medium.kind for medium in media
        ] or self.processor.ground_token in text:
            reserved = ", ".join([*names, self.processor.ground_token])
            raise ValueError(f"The texts of a chat may not hold {reserved}: these stand for media and regions.")
        counts = iter(tokens)
        return re.sub("|".join(map(re.escape, names)), lambda token: token[0] * len(next(counts)), text)

    def _read_prefix(
        self, input_ids: torch.Tensor, digests: tuple, media: Sequence[Medium], tokens: Sequence[torch.Tensor]
    ) -> Cache:
        """Return keys and values up to the last visual token; the caller may extend them."""
        config = self.model.config
        places = torch.tensor([config.image_token_id, config.video_token_id], device=input_ids.device)
        end = int(torch.isin(input_ids[0], places).nonzero()[-1]) + 1
        prefix = input_ids[:, :end]
        key = ("prefix", digests, sha256(prefix.cpu().numpy().tobytes()).hexdigest())
        cache = self.store.get(key)
        if cache is None:
            encoded = {
                kind: BaseModelOutputWithPooling(
                    pooler_output=[row for medium, row in zip(media, tokens, strict=True) if medium.kind == kind]
                )
                for kind in {medium.kind for medium in media}
            }
            cache = self.model.model(
                input_ids=prefix, mm_encoder_outputs=encoded, use_cache=True, return_dict=True
            ).cache
            self.store.put(key, cache, sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers))
        # A dynamic layer makes new tensors when it grows, so that copies of the layers leave the kept ones alone.
        fork = copy.copy(cache)
        fork.layers = [copy.copy(layer) for layer in cache.layers]
        return fork
