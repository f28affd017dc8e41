"""Configuration of the 3D-IDE inference model."""

import dataclasses
import difflib
import logging
import math
import os
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

logger = logging.getLogger(__name__)

# Transformers judges a class by its name in these tables: Trainer compares smoothed labels with the next token for the
# first alone, and `transformers serve` reads the second before the first, which it takes for text. They are written
# here because `transformers serve` reads them after the config of an export and before its model.
for _names in (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES):
    _names.setdefault("ide3d", "IDE3DForConditionalGeneration")

SIZES = (
    "hidden_size", "intermediate_size", "vocab_size", "image_size", "patch_size", "num_channels", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings",
)  # fmt: skip
MAX_SIZE, MAX_LAYERS = 2**31 - 1, 10_000  # nothing larger can be built
NOT_NEGATIVE = ("_eps", "initializer_range", "initializer_factor")
NEAR = 0.85  # likeness from which a word is a slip of another; `initializer_factor` and `initializer_range` have 0.74
# Keys of configs that Transformers and its like write or read beside the fields.
KNOWN_KEYS = {
    "auto_map", "attn_implementation", "experts_implementation", "name_or_path", "num_labels", "output_attentions",
    "per_layer_config", "quantization_config", "tie_encoder_decoder", "torch_dtype", "transformers_version",
    "transformers_weights", "use_cache",
}  # fmt: skip


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
        language_model_name (`str`, *optional*):
            Pretrained language model that the weights of `text_config` began as, by its name on the Hub where it has
            one. None: they began with this model, or it is not known.
        language_model_license (`str`, *optional*): Licence of that language model, as the Hub names it; None: unknown.

    Raises:
        StrictDataclassFieldValidationError: If a field has a wrong type.
        StrictDataclassClassValidationError: If sizes or token ids contradict each other.
        ValueError: If a field is misspelt. Other unknown ones, as of a newer version, are kept with a warning.
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
    language_model_name: str | None = None
    language_model_license: str | None = None

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> tuple[dict, dict]:
        """Read a config file as [`PreTrainedConfig.get_config_dict`] does; one must be there.

        Raises:
            OSError: There is no config file, or it holds no JSON object.
            ValueError: It is the config of another kind of model.
        """
        try:
            found, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        except (AttributeError, TypeError, RecursionError) as error:
            raise OSError(_no_config(pretrained_model_name_or_path, str(error))) from error
        if not isinstance(found, dict) or not found:
            raise OSError(_no_config(pretrained_model_name_or_path, repr(found) if found else "no file or no field"))
        kind = found.get("model_type", cls.model_type)
        if kind != cls.model_type:
            raise ValueError(
                f"{pretrained_model_name_or_path} is no 3D-IDE model: model_type in its config.json is {kind!r}, "
                f"expected {cls.model_type!r}. Load it by its own class, or convert an original checkpoint first."
            )
        return found, kwargs

    def __post_init__(self, **kwargs):
        given = {name: getattr(self, name) for name in self.sub_configs_defaults}
        _check_dtype("", {"dtype": self.dtype, **kwargs})
        for name, fields in given.items():
            if isinstance(fields, dict):
                _check_model_type(name, fields)
                _check_dtype(f"{name}.", fields)
                _check_largest(name, fields)  # some make a list with an entry for each layer
        super().__post_init__(**kwargs)
        _check_keys(type(self), kwargs, "")
        for name, fields in given.items():
            if isinstance(fields, dict):
                _check_keys(type(getattr(self, name)), fields, f"{name}.")
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
        for name, part in (("vision_config", vision), ("text_config", text)):
            _check_sizes(name, part)
            _check_numbers(name, part)
            _check_activation(f"{name}.hidden_act", getattr(part, "hidden_act", None))
        _check_activation("projector_hidden_act", self.projector_hidden_act)
        if text.num_hidden_layers < 1:
            raise ValueError(f"text_config.num_hidden_layers must be at least 1, got {text.num_hidden_layers}.")
        if getattr(vision, "num_channels", 3) != 3:
            logger.warning(
                "vision_config.num_channels is %d: the processor gives RGB frames, which such a tower does not take.",
                vision.num_channels,
            )
        _check_special_tokens(text)
        if vision.image_size < vision.patch_size:
            raise ValueError(
                f"vision_config.image_size ({vision.image_size}) must be at least vision_config.patch_size "
                f"({vision.patch_size}): a frame needs one patch."
            )
        patches = vision.image_size // vision.patch_size
        if self.spatial_pool_stride > patches:
            raise ValueError(
                f"spatial_pool_stride must be at most {patches}, the patches of a side of the vision tower, got "
                f"{self.spatial_pool_stride}."
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
        if not 0 < self.grounding_temperature < math.inf:
            raise ValueError(f"grounding_temperature must be positive and finite, got {self.grounding_temperature}.")


def _no_config(name: str | os.PathLike, found: str) -> str:
    return (
        f"{name} has no config.json of a model: expected a JSON object with the fields of IDE3DConfig, got {found}. "
        "Name the folder of an export or a checkpoint, and copy or download a damaged one again."
    )


def _check_keys(config_class: type[PreTrainedConfig], keys: dict[str, Any], prefix: str) -> None:
    """Raise ValueError for a misspelt field, and warn of other unknown ones."""
    fields = {field.name for field in dataclasses.fields(config_class)}
    for key in keys:
        if key in fields or key in KNOWN_KEYS or key.startswith("_") or hasattr(config_class, key):
            continue
        near = difflib.get_close_matches(key, fields - keys.keys(), 1, NEAR)
        if near and not prefix:
            raise ValueError(f"{config_class.__name__} has no field {key!r}. Did you mean {near[0]!r}?")
        if near or not prefix:
            logger.warning(
                "%s has no field %r%s; it has no effect. Is it misspelt, or of a newer version?",
                config_class.__name__, prefix + key, f", but {near[0]!r}" if near else "",
            )  # fmt: skip


def _check_model_type(name: str, fields: dict[str, Any]) -> None:
    """Raise ValueError for a `model_type` that Transformers does not have."""
    kind = fields.get("model_type", "")
    if not isinstance(kind, str) or (kind and kind not in CONFIG_MAPPING):
        near = difflib.get_close_matches(str(kind), CONFIG_MAPPING.keys(), 1, 0.7)
        raise ValueError(
            f"{name}.model_type must be a kind of model that Transformers has, such as "
            f"{'siglip_vision_model' if name == 'vision_config' else 'qwen2'!r}, got {kind!r}."
            f"{f' Did you mean {near[0]!r}?' if near else ''}"
        )


def _check_dtype(prefix: str, fields: dict[str, Any]) -> None:
    """Raise ValueError unless a type of weights is one of PyTorch's, or its name."""
    for key in ("dtype", "torch_dtype"):
        name = fields.get(key)
        found = getattr(torch, name, None) if isinstance(name, str) else name
        if name is not None and not isinstance(found, torch.dtype):
            raise ValueError(f"{prefix}{key} must be a type of PyTorch, such as 'bfloat16', got {name!r}.")


def _check_activation(name: str, activation: Any) -> None:
    if isinstance(activation, str) and activation not in ACT2FN:
        near = difflib.get_close_matches(activation, ACT2FN, 1, 0.6)
        raise ValueError(
            f"{name} must be an activation that Transformers has, such as 'gelu' or 'silu', got {activation!r}."
            f"{f' Did you mean {near[0]!r}?' if near else ''}"
        )


def _check_numbers(name: str, part: PreTrainedConfig) -> None:
    """Raise ValueError for rates, ranges and rotary bases that nothing can be computed with."""
    numbers = {field.name: getattr(part, field.name, None) for field in dataclasses.fields(part)}
    rope = numbers.get("rope_parameters")
    for inner in (rope, *rope.values()) if isinstance(rope, dict) else ():
        if isinstance(inner, dict):
            numbers |= {f"rope_parameters {key}": inner[key] for key in ("rope_theta", "factor") if key in inner}
            kind = inner.get("rope_type", inner.get("type", "default"))
            if kind not in ("default", "mrope", *ROPE_INIT_FUNCTIONS):
                raise ValueError(f"{name}.rope_parameters have no rope_type {kind!r}, but {[*ROPE_INIT_FUNCTIONS]}.")
    for key, value in numbers.items():
        if key.startswith("rope_parameters ") and not isinstance(value, (int, float)):
            raise ValueError(f"{name}.{key} must be a number above 0, got {value!r}.")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        least, largest = (0, 1) if "dropout" in key else (0, math.inf) if key.endswith(NOT_NEGATIVE) else (None, None)
        if math.isnan(value):
            raise ValueError(f"{name}.{key} must be a number, got NaN.")
        is_base = key.startswith("rope_parameters ") and value <= 0
        if is_base or (least is not None and not (least <= value <= largest and math.isfinite(value))):
            wanted = "above 0" if is_base else "from 0 to 1" if largest == 1 else "finite and at least 0"
            raise ValueError(f"{name}.{key} must be {wanted}, got {value}.")


def _check_special_tokens(text: PreTrainedConfig) -> None:
    """Raise ValueError for a padding token outside of the vocabulary; tell of others there."""
    pad, size = getattr(text, "pad_token_id", None), text.vocab_size
    if isinstance(pad, int) and not -1 <= pad < size:  # some write -1 for none
        raise ValueError(f"text_config.pad_token_id must be None or lie in [0, {size}), the vocabulary, got {pad}.")
    for name in ("bos_token_id", "eos_token_id"):
        value = getattr(text, name, None)
        if beyond := [token for token in (value if isinstance(value, list) else [value]) if (token or 0) >= size]:
            logger.warning("text_config.%s has %s, which a vocabulary of %d does not hold.", name, beyond, size)


def _check_largest(name: str, sizes: dict[str, Any]) -> None:
    for key in SIZES:
        most = MAX_LAYERS if key == "num_hidden_layers" else MAX_SIZE
        if isinstance(sizes.get(key), int) and sizes[key] > most:
            raise ValueError(f"{name}.{key} must be at most {most}, got {sizes[key]}.")


def _check_sizes(name: str, part: PreTrainedConfig) -> None:
    """Raise ValueError unless sizes are positive and the heads share the width evenly."""
    sizes = {key: getattr(part, key, None) for key in SIZES}
    for key, value in sizes.items():
        least = 0 if key == "num_hidden_layers" else 1
        if isinstance(value, int) and value < least:
            raise ValueError(f"{name}.{key} must be at least {least}, got {value}.")
    _check_largest(name, sizes)
    width, heads, groups = (sizes[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    if not isinstance(width, int) or not isinstance(heads, int):
        return
    if width % heads and getattr(part, "head_dim", None) in (None, width // heads):
        raise ValueError(
            f"{name}.num_attention_heads must divide {name}.hidden_size, got {heads} heads for a width of {width}. "
            "Set `head_dim` where the heads together have another width."
        )
    if isinstance(groups, int) and heads % groups:
        raise ValueError(
            f"{name}.num_key_value_heads must divide {name}.num_attention_heads, got {groups} for {heads}."
        )


__all__ = ["IDE3DConfig"]
