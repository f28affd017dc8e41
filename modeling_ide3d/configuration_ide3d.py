"""Configuration of the 3D-IDE inference model."""

import math
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec


@strict
class IDE3DConfig(PreTrainedConfig):
    """Sizes and token ids of [`IDE3DForConditionalGeneration`]; the defaults are those of 3D-IDE (arXiv 2604.03296).

    Args:
        vision_config (`dict` or `PreTrainedConfig`, *optional*):
            Vision tower, a `siglip_vision_model`. Defaults to SigLIP-so400m-patch14-384 without its last encoder
            layer and without its pooling head. Give it whole: a partial dict falls back to the defaults of
            `SiglipVisionConfig`, not to these.
        text_config (`dict` or `PreTrainedConfig`, *optional*):
            Language model, a `qwen2` unless its `model_type` says otherwise.
        image_token_id (`int`): Placeholder that is replaced by the tokens of an image (a video of one frame).
        video_token_id (`int`): Placeholder that is replaced by the tokens of a video.
        ground_token_id (`int`):
            Token for a region that the user points at in a prompt, and for the grounding query in an answer.
        projector_hidden_act (`str`): Activation between the two linear layers of the projector.
        vision_feature_layer (`int`):
            Hidden state of the vision tower that is read, 0 = patch embeddings, before the final layer norm.
        spatial_pool_stride (`int`): Patches per visual token and side; the last token may hold fewer.
        spatial_pool_mode (`str`): Interpolation of the pooling.
        grounding_temperature (`float`): Temperature of the cosine scores when they are read as probabilities.
        detach_region_references (`bool`):
            Whether the feature that replaces a prompt's `<ground>` is cut from the gradient, as in the original.
        tie_word_embeddings (`bool`): Whether the language model head shares the input embeddings.

    Raises:
        StrictDataclassFieldValidationError: If a field has a wrong type.
        StrictDataclassClassValidationError: If sizes or token ids contradict each other.
    """

    model_type = "ide3d"
    # Visual tokens and states belong to no one sample: Trainer, which joins the outputs of batches, leaves them out.
    keys_to_ignore_at_inference = [
        "cache",
        "image_outputs",
        "video_outputs",
        "image_hidden_states",
        "video_hidden_states",
    ]
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="siglip_vision_model",
            init_kwargs={
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "patch_size": 14,
                "image_size": 384,
                "num_hidden_layers": 26,  # Official: the 27th layer of so400m is deleted.
                "num_attention_heads": 16,
                "vision_use_head": False,
            },
        ),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
    }

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    # Qwen2 tokenizers end at 151645; the embedding has spare rows behind that.
    image_token_id: int = 151646
    video_token_id: int = 151647
    ground_token_id: int = 151648
    projector_hidden_act: str = "gelu"
    vision_feature_layer: int = -1
    spatial_pool_stride: int = 2
    spatial_pool_mode: Literal["bilinear"] = "bilinear"
    grounding_temperature: float = 0.07
    detach_region_references: bool = True
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        # Only the top-level flag ties the head; small Qwen2 checkpoints set the one of the language model.
        if not self.tie_word_embeddings and getattr(self.text_config, "tie_word_embeddings", False):
            self.tie_word_embeddings = True

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of patches of the vision tower, before pooling."""
        patches = self.vision_config.image_size // self.vision_config.patch_size
        return patches, patches

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of visual tokens of a frame, without the newline column."""
        rows, cols = self.patch_grid
        return math.ceil(rows / self.spatial_pool_stride), math.ceil(cols / self.spatial_pool_stride)

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of a frame, the newline at the end of each row included."""
        rows, cols = self.token_grid
        return rows * (cols + 1)

    def validate_architecture(self):
        """Check sizes, token ids and the index of the vision layer, which no type tells."""
        super().validate_architecture()
        vision, text = self.vision_config, self.text_config
        if self.spatial_pool_stride < 1:
            raise ValueError(f"spatial_pool_stride must be at least 1, got {self.spatial_pool_stride}.")
        if vision.model_type != "siglip_vision_model":
            raise ValueError(f"vision_config must be a siglip_vision_model, got {vision.model_type}.")
        for name in ("image_size", "patch_size"):
            if not isinstance(getattr(vision, name), int):
                raise ValueError(
                    f"vision_config.{name} must be one number, as frames are squashed to a square, got "
                    f"{getattr(vision, name)}."
                )
        if vision.image_size < vision.patch_size:
            raise ValueError(
                f"vision_config.image_size ({vision.image_size}) must be at least vision_config.patch_size "
                f"({vision.patch_size}): a frame needs one patch."
            )
        states = vision.num_hidden_layers + 1
        if not -states <= self.vision_feature_layer < states:
            raise ValueError(
                f"vision_feature_layer must lie in [{-states}, {states - 1}] for a vision tower of "
                f"{vision.num_hidden_layers} layers, got {self.vision_feature_layer}."
            )
        ids = {
            "image_token_id": self.image_token_id,
            "video_token_id": self.video_token_id,
            "ground_token_id": self.ground_token_id,
        }
        if len(set(ids.values())) < len(ids):
            raise ValueError(f"image_token_id, video_token_id and ground_token_id must differ, got {ids}.")
        for name, value in ids.items():
            if not 0 <= value < text.vocab_size:
                raise ValueError(
                    f"{name} must lie in [0, {text.vocab_size}), the vocabulary of text_config, got {value}. "
                    "Set it to the id that the tokenizer gives to the token, or enlarge text_config.vocab_size."
                )
        if self.grounding_temperature <= 0:
            raise ValueError(f"grounding_temperature must be positive, got {self.grounding_temperature}.")


__all__ = ["IDE3DConfig"]
