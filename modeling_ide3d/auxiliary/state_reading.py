"""Hidden states of the training model that its heads read: kept in the one forward pass, and arranged by frames."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from modeling_ide3d.auxiliary.geometry_heads import pad_frames
from modeling_ide3d.auxiliary.state_layers import LANGUAGE, VISION, split_layer
from modeling_ide3d.grounding_ide3d import split_frames

__all__ = ["StateReading"]


class StateReading:
    """Encoding of a batch with the wanted hidden states; mixed into the training model.

    Attributes:
        is_sharded: Whether the tower's weights are spread over processes, which must run it equally often.
    """

    is_sharded: bool

    def encode_video(
        self,
        pixel_values_videos: torch.Tensor,
        video_frame_mask: torch.Tensor | None,
        layers: Collection[int],
    ) -> BaseModelOutputWithPooling:
        """Encode videos in one pass of the vision tower, and keep hidden states."""
        options = {"output_hidden_states": sorted(set(layers))} if layers else {}
        return self.get_video_features(pixel_values_videos, video_frame_mask, return_dict=True, **options)

    def encode(
        self,
        pixel_values: torch.Tensor | None,
        pixel_values_videos: torch.Tensor | None,
        video_frame_mask: torch.Tensor | None,
        wanted: Collection[str],
    ) -> tuple[dict[str, BaseModelOutputWithPooling], torch.Tensor | float]:
        """Encode images and videos.

        Args:
            pixel_values: Images of the batch.
            pixel_values_videos: Videos of the batch.
            video_frame_mask: Frames that exist.
            wanted: Names of the hidden states that are kept, see `StateLayers`.

        Returns:
            Outputs by modality, and the zero of `encode_nothing` for what is absent.
        """
        encoded, zero = {}, 0.0
        is_text = pixel_values is None and pixel_values_videos is None
        if pixel_values is not None:
            encoded["image"] = self.get_image_features(pixel_values, return_dict=True)
        elif self.is_sharded or (is_text and torch.is_grad_enabled()):
            zero = zero + self.encode_nothing()
        if pixel_values_videos is not None:
            encoded["video"] = self.encode_video(pixel_values_videos, video_frame_mask, _numbers(wanted, VISION))
        elif self.is_sharded:
            zero = zero + self.encode_nothing()
        return encoded, zero

    def encode_nothing(self) -> torch.Tensor:
        """Return a zero that keeps the visual parts in a text batch's graph.

        Where weights are sharded, every process has to run the tower as often as the others and in the same order:
        once for images and then once for videos.
        """
        side = self.config.vision_config.image_size
        frame = torch.zeros(1, 3, side, side, dtype=self.dtype, device=self.device)
        return self.get_image_features(frame, return_dict=True).pooler_output[0].sum() * 0.0

    def keep_states(self, wanted: Collection[str], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a forward pass that keeps the wanted inner states."""
        inner = _numbers(wanted - {self.state_layers.final}, LANGUAGE)
        if not inner:
            return dict(kwargs)
        return {**kwargs, "output_hidden_states": True if kwargs.get("output_hidden_states") else inner}

    def arrange_levels(
        self,
        encoded: BaseModelOutputWithPooling,
        pixel_values_videos: torch.Tensor,
        video_frame_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        """Arrange the levels that the validator reads by videos, (videos, V, P, C) each."""
        indices = self.geometric_validator.config.layer_indices
        levels = (self._take(encoded, f"{VISION}.{index}", index) for index in indices)
        if video_frame_mask is None:
            return tuple(level.unflatten(0, pixel_values_videos.shape[:2]) for level in levels)
        return tuple(pad_frames(level, video_frame_mask.bool()) for level in levels)

    def arrange_states(
        self,
        layers: Collection[str],
        outputs: Any,
        encoded: Mapping[str, BaseModelOutputWithPooling],
        input_ids: torch.LongTensor,
    ) -> dict[str, torch.Tensor]:
        """Arrange hidden states of videos by frames.

        Args:
            layers: Names of the states.
            outputs: Outputs of the model.
            encoded: Outputs of the tower by modality.
            input_ids: Tokens, (B, L).

        Shape:
            output: by name (frames, rows, cols, width), on patches for the tower, on visual tokens for the language
                    model.

        Raises:
            ValueError: If features that were encoded before lack a state of the tower.
        """
        states = {}
        for layer in layers:
            part, number = split_layer(layer)
            if part == VISION:
                states[layer] = self._take(encoded["video"], layer, number).unflatten(1, self.config.patch_grid)
            else:
                is_final = layer == self.state_layers.final
                hidden = outputs.last_hidden_state if is_final else self._take(outputs, layer, number)
                states[layer] = split_frames(hidden[input_ids == self.config.video_token_id], self.config.token_grid)
        return states

    def _take(self, outputs: Any, layer: str, number: int) -> torch.Tensor:
        """Return a hidden state of tower or language model that was kept."""
        if outputs.hidden_states is None or outputs.hidden_states[number] is None:
            raise ValueError(
                f"The heads read {layer}, but features that were encoded before have no such state: give "
                "pixel_values_videos instead of mm_encoder_outputs."
            )
        return outputs.hidden_states[number]


def _numbers(layers: Collection[str], part: str) -> list[int]:
    """Return the numbers of the layers of one part."""
    return sorted(number for name, number in map(split_layer, layers) if name == part)
