"""Outputs of the 3D-IDE inference model."""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import MultimodalBaseModelOutputWithPast, MultimodalCausalLMOutputWithPast


@dataclass
class IDE3DModelOutputWithPast(MultimodalBaseModelOutputWithPast):
    """Outputs of [`IDE3DModel`].

    Args:
        last_hidden_state (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`):
            States of the language model after its final norm.
        cache (`Cache`, *optional*): Keys and values so far.
        hidden_states (`tuple[torch.Tensor]`, *optional*): States of the language model, layer by layer.
        attentions (`tuple[torch.Tensor]`, *optional*): Attention weights of the language model.
        image_outputs (`BaseModelOutputWithPooling`, *optional*): Output of `get_image_features` for all images.
        video_outputs (`BaseModelOutputWithPooling`, *optional*): Output of `get_video_features` for all videos.
        audio_outputs (*optional*): Always None.
        image_hidden_states (`torch.Tensor` of shape `(image_tokens, hidden_size)`, *optional*):
            Visual tokens of all images, newline tokens included.
        video_hidden_states (`torch.Tensor` of shape `(video_tokens, hidden_size)`, *optional*):
            Visual tokens of all videos, newline tokens included.
    """

    image_hidden_states: torch.Tensor | None = None
    video_hidden_states: torch.Tensor | None = None


@dataclass
class IDE3DCausalLMOutputWithPast(MultimodalCausalLMOutputWithPast):
    """Outputs of [`IDE3DForConditionalGeneration`].

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): Next-token loss, where `labels` are given.
        logits (`torch.Tensor` of shape `(batch_size, sequence_length, vocab_size)`): Scores of the vocabulary.
        last_hidden_state (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`):
            States of the language model after its final norm.
        cache (`Cache`, *optional*): Keys and values so far.
        hidden_states (`tuple[torch.Tensor]`, *optional*): States of the language model, layer by layer.
        attentions (`tuple[torch.Tensor]`, *optional*): Attention weights of the language model.
        image_outputs (`BaseModelOutputWithPooling`, *optional*): See the base model.
        video_outputs (`BaseModelOutputWithPooling`, *optional*): See the base model.
        audio_outputs (*optional*): Always None.
        image_hidden_states (`torch.Tensor` of shape `(image_tokens, hidden_size)`, *optional*): See the base model.
        video_hidden_states (`torch.Tensor` of shape `(video_tokens, hidden_size)`, *optional*): See the base model.
    """

    last_hidden_state: torch.Tensor | None = None
    image_hidden_states: torch.Tensor | None = None
    video_hidden_states: torch.Tensor | None = None


__all__ = ["IDE3DCausalLMOutputWithPast", "IDE3DModelOutputWithPast"]
