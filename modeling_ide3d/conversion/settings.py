"""Config, tokenizer and generation settings of original LLaVA-Qwen checkpoints, read and converted."""

import itertools
import json
import logging
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, SiglipVisionConfig
from transformers.utils import (
    CHAT_TEMPLATE_FILE,
    GENERATION_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    WEIGHTS_INDEX_NAME,
)

from modeling_ide3d.configuration_ide3d import IDE3DConfig
from processing.chat_rules_ide3d import DEFAULT_CHAT_TEMPLATE

__all__ = [
    "SETTINGS_FILES",
    "build_config",
    "choose_token_ids",
    "load_tokenizer",
    "read_original_config",
    "read_tower_config",
    "write_settings",
]

logger = logging.getLogger(__name__)

PLACEHOLDERS = {"image_token_id": "<image>", "video_token_id": "<video>", "ground_token_id": "<ground>"}

DEFAULT_POOL_STRIDE = 2
DEFAULT_TEMPERATURE = 0.07
QWEN2_WORDS = 151_646  # tokens of every Qwen2 tokenizer; later rows of the embedding are free

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
# Files beside the weights that are kept unchanged for the way back.
SETTINGS_FILES = (
    "config.json",
    GENERATION_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    WEIGHTS_INDEX_NAME,
    *TOKENIZER_FILES,
)

# Official: the sizes of the tower follow from its name on the Hub, or from a local folder of that name.
VISION_TOWERS = {
    "siglip-so400m-patch14-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    }
}
TEXT_KEYS = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act "
    "max_position_embeddings initializer_range rms_norm_eps use_cache rope_theta use_sliding_window "
    "sliding_window max_window_layers attention_dropout pad_token_id bos_token_id eos_token_id"
).split()
# Default of the original, and the only value that this model computes.
SUPPORTED_SETTINGS = {
    "mm_projector_type": ("linear", "mlp2x_gelu"),
    "mm_newline_position": ("one_token", "grid"),
    "mm_patch_merge_type": ("flat", "spatial_unpad"),
    "mm_spatial_pool_mode": ("bilinear", "bilinear"),
    "mm_vision_select_feature": ("patch", "patch"),
    "mm_resampler_type": (None, None),
    "add_faster_video": (False, False),
}


def read_original_config(source: Path) -> dict[str, Any]:
    """Read the config of an original checkpoint.

    Raises:
        FileNotFoundError: If `source` has no `config.json`.
        ValueError: If it is not JSON, describes another model, or asks for what this model does not compute.
    """
    path = source / "config.json"
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path} does not exist. `source_dir` must be a folder with an original checkpoint; "
            "`huggingface_hub.snapshot_download` makes one from a name on the Hub."
        )
    original = _read_json(path)
    if original.get("model_type") != "llava_qwen":
        raise ValueError(f'{path} must have `model_type` "llava_qwen", got {original.get("model_type")!r}.')
    for key, (assumed, supported) in SUPPORTED_SETTINGS.items():
        if original.get(key, assumed) != supported:
            raise ValueError(
                f"`{key}` must be {supported!r}, got {original.get(key, assumed)!r}. This model computes nothing else."
            )
    if original.get("ground_head_type") not in (None, "infonce"):
        raise ValueError(f'`ground_head_type` must be "infonce" or absent, got {original["ground_head_type"]!r}.')
    _check_values(original, path)
    return original


def _check_values(original: dict[str, Any], path: Path) -> None:
    """Raise ValueError for values that the original does not write, by file and key."""
    stride = original.get("mm_spatial_pool_stride", DEFAULT_POOL_STRIDE)
    temperature = original.get("ground_head_temperature", DEFAULT_TEMPERATURE)
    ground, tower = original.get("ground_token_ids"), original.get("oracle_vision_config", VISION_TOWERS)
    is_number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    checks = {
        "mm_spatial_pool_stride": (type(stride) is int and stride > 0, "a whole number of at least 1"),
        "ground_head_temperature": (is_number and 0 < temperature < math.inf, "a number above 0"),
        "ground_token_ids": (
            ground is None
            or (isinstance(ground, list) and all(type(token) is int and token >= 0 for token in ground)),
            "a list with the id of <ground>",
        ),
        "oracle_vision_config": (isinstance(tower, dict) and bool(tower), "an object with the sizes of the tower"),
        "rope_scaling": (isinstance(original.get("rope_scaling"), (dict, type(None))), "an object or null"),
    }
    for key, (is_right, wanted) in checks.items():
        if not is_right:
            raise ValueError(f"{path}: `{key}` must be {wanted}, got {original.get(key)!r}.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Download it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}.")
    return content


def read_tower_config(folder: Path) -> dict[str, Any]:
    """Read the sizes of the vision tower of a SigLIP folder, all its layers counted.

    Raises:
        FileNotFoundError: If the folder has no `config.json`.
        ValueError: If it is not JSON or describes another model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. The vision tower must be a folder with a SigLIP checkpoint.")
    config = _read_json(path)
    if config.get("model_type") == "siglip":
        config = config.get("vision_config", {})
    elif config.get("model_type") != "siglip_vision_model":
        raise ValueError(
            f'{path} must have `model_type` "siglip" or "siglip_vision_model", got {config.get("model_type")!r}.'
        )
    return SiglipVisionConfig(**config).to_dict()  # a config may leave out defaults


def load_tokenizer(source: Path) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer beside the weights, None where there is none.

    Raises:
        ValueError: If a tokenizer file is not valid JSON.
    """
    files = [source / name for name in TOKENIZER_FILES if (source / name).is_file()]
    if not any(file.name in ("tokenizer.json", "vocab.json") for file in files):
        return None
    # Read from a separate folder: the model type in the original's config is not registered.
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            if file.suffix == ".json":
                _read_json(file)
            shutil.copy(file, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    # A template saved with the tokenizer would hide the processor's, which handles videos.
    tokenizer.chat_template = None
    return tokenizer


def build_config(
    original: dict[str, Any],
    token_ids: dict[str, int],
    vocab_size: int,
    vision_config: dict[str, Any] | None = None,
) -> IDE3DConfig:
    """Build the config of the converted model.

    Args:
        original: Content of the original `config.json`.
        token_ids: `image_token_id`, `video_token_id`, `ground_token_id`.
        vocab_size: Number of rows of the converted embedding.
        vision_config: Sizes of the original vision tower, all layers counted. Default: those that its name implies.

    Raises:
        ValueError: If the sizes of the vision tower are unknown, or sizes contradict each other.
    """
    if vision_config is not None and not isinstance(vision_config, dict):
        raise TypeError(f"vision_config must be a dict with the sizes of the tower, got {vision_config!r}.")
    name = original.get("mm_vision_tower")
    known = VISION_TOWERS.get(Path(str(name)).name)
    vision = vision_config or original.get("oracle_vision_config") or known
    if vision is None:
        raise ValueError(
            f"The sizes of the vision tower {name!r} are not known; known towers: {sorted(VISION_TOWERS)}. "
            "Pass `vision_tower`, a folder with that SigLIP checkpoint, or `vision_config`, its sizes."
        )
    layers = vision.get("num_hidden_layers")
    if type(layers) is not int or layers < 2:
        raise ValueError(
            "`num_hidden_layers` of the vision tower (`oracle_vision_config`, `vision_config`) must be a whole number "
            f"of at least 2, the last one is not used, got {layers!r}."
        )
    # Official: the last encoder layer is deleted and the pooling head is not built.
    vision = {
        **vision,
        "model_type": "siglip_vision_model",
        "num_hidden_layers": layers - 1,
        "vision_use_head": False,
    }
    text = {key: original[key] for key in TEXT_KEYS if key in original}
    scaling = original.get("rope_scaling")
    if scaling is not None and (scaling.get("rope_type") or scaling.get("type")) != "mrope":
        # Official: "mrope" rotates over three axes with equal positions, which is the ordinary rotation.
        text["rope_scaling"] = scaling
    try:
        return IDE3DConfig(
            vision_config=vision,
            text_config={**text, "model_type": "qwen2", "vocab_size": vocab_size},
            spatial_pool_stride=original.get("mm_spatial_pool_stride", DEFAULT_POOL_STRIDE),
            grounding_temperature=float(original.get("ground_head_temperature", DEFAULT_TEMPERATURE)),
            tie_word_embeddings=bool(original.get("tie_word_embeddings", False)),
            **token_ids,
        )
    except (AttributeError, KeyError, TypeError, StrictDataclassError) as error:
        raise ValueError(f"The sizes in `config.json` make no model: {' '.join(str(error).split())}.") from error


def choose_token_ids(
    original: dict[str, Any], rows: int, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[dict[str, int], int]:
    """Choose the ids of the placeholders: those of the tokenizer, or free embedding rows.

    Args:
        original: Content of the original `config.json`.
        rows: Number of rows of the original embedding.
        tokenizer: Tokenizer of the checkpoint; the placeholders are added to it in place. Without one, Qwen2's
            words are assumed to fill the first 151,646 rows. In a smaller embedding the last rows count as free.

    Returns:
        `image_token_id`, `video_token_id` and `ground_token_id`, and the number of rows that the embedding lacks.

    Raises:
        ValueError: If config and tokenizer disagree about `<ground>`, or the config names several ids for it.
    """
    ground = original.get("ground_token_ids") or []
    if len(ground) > 1:
        raise ValueError(f"`ground_token_ids` must hold one id, got {ground}.")
    if ground and ground[0] >= rows + len(PLACEHOLDERS):
        raise ValueError(
            f"`ground_token_ids` must lie in an embedding of {rows} rows, or just behind it, got {ground}."
        )
    if original.get("ground_head_type") and "ground_token_ids" in original and not ground:
        logger.warning("`ground_token_ids` is empty, though there is a grounding head: <ground> gets a free row.")
    if tokenizer is not None:
        tokenizer.add_special_tokens(
            {"extra_special_tokens": list(PLACEHOLDERS.values())}, replace_extra_special_tokens=False
        )
        ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in PLACEHOLDERS.items()}
        found = ids["ground_token_id"]
        if ground and found != ground[0]:
            raise ValueError(
                f"`ground_token_ids` is {ground}, but the tokenizer gives <ground> the id {found}. Use the tokenizer "
                "files of this checkpoint."
            )
        return ids, max(0, len(tokenizer) - rows)
    taken = set(ground)
    for key in ("pad_token_id", "bos_token_id", "eos_token_id"):
        value = original.get(key)
        taken.update(value if isinstance(value, list) else [value])
    if rows >= QWEN2_WORDS:
        candidates = itertools.count(QWEN2_WORDS)  # the ids that a tokenizer would give
    else:
        candidates = itertools.chain(reversed(range(rows)), itertools.count(rows))
    free = (token for token in candidates if token not in taken)
    image, video = sorted([next(free), next(free)])
    ids = {"image_token_id": image, "video_token_id": video}
    ids["ground_token_id"] = ground[0] if ground else next(free)
    return ids, max(0, max(ids.values()) + 1 - rows)


def write_settings(source: Path, folder: Path, config: IDE3DConfig, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Write config, generation config and, where there is a tokenizer, tokenizer, chat template and processor."""
    config.save_pretrained(folder)
    if (source / GENERATION_CONFIG_NAME).is_file():
        _read_json(source / GENERATION_CONFIG_NAME)
        shutil.copy(source / GENERATION_CONFIG_NAME, folder)
    else:
        text = config.text_config
        generation = GenerationConfig(
            bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
        )
        generation.save_pretrained(folder)
    if tokenizer is None:
        return
    tokenizer.save_pretrained(folder)
    size = {"height": config.vision_config.image_size, "width": config.vision_config.image_size}
    normalization = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = {
        "processor_class": "IDE3DProcessor",
        "patch_size": config.vision_config.patch_size,
        "image_size": config.vision_config.image_size,
        "spatial_pool_stride": config.spatial_pool_stride,
        **{name.removesuffix("_id"): token for name, token in PLACEHOLDERS.items()},
        "image_processor": {"image_processor_type": "SiglipImageProcessor", "size": size, **normalization},
        "video_processor": {"video_processor_type": "IDE3DVideoProcessor", "size": size, **normalization},
    }
    (folder / "processor_config.json").write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
    (folder / CHAT_TEMPLATE_FILE).write_text(DEFAULT_CHAT_TEMPLATE, encoding="utf-8")
