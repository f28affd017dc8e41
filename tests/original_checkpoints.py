"""Tiny checkpoints in the original layout, made from a tiny model of ours."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from modeling_ide3d import IDE3DConfig, IDE3DForConditionalGeneration
from modeling_ide3d.auxiliary import GeometricValidator, GeometricValidatorConfig, TeacherProjector
from modeling_ide3d.auxiliary.geometric_validator import rename_original_key
from modeling_ide3d.auxiliary.teacher_projector import TeacherProjectorConfig

VOCAB, GROUND = 300, 298
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,  # of the original tower, whose last layer is not used
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}
TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
ORIGINAL_CONFIG = {
    **TEXT,
    "model_type": "llava_qwen",
    "rope_theta": 5e5,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "mm_newline_position": "grid",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_projector_type": "mlp2x_gelu",
    "mm_spatial_pool_mode": "bilinear",
    "mm_spatial_pool_stride": 2,
    "mm_vision_tower": "google/some-siglip",
    "oracle_vision_config": VISION,
    "ground_head_type": "infonce",
    "ground_head_temperature": 0.05,
    "ground_token_ids": [GROUND],
    "skip_3d_pe_fusion": True,
    "use_depth_auxiliary_task": True,
}
ORIGINAL_NAMES = [
    ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ("model.language_model.", "model."),
    ("grounding_head.query_proj.", "ground_head_query."),
    ("grounding_head.key_proj.", "ground_head_obj."),
    ("grounding_head.no_object", "ground_head_zero_target"),
    ("grounding_head.empty_region", "empty_object_embedding"),
]
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")
TOWER = "model.vision_tower.vision_tower.vision_model."
TRAINING_ONLY = {
    "model.dpt_module.depth_head.norm.weight": (4,),
    "model.dpt_module.camera_pose_embedding.0": (16, 16),
    "model.proj_3d.0.weight": (48, 24),
}


def build_model(tie: bool = False) -> IDE3DForConditionalGeneration:
    torch.manual_seed(0)
    vision = {**VISION, "model_type": "siglip_vision_model", "num_hidden_layers": 2, "vision_use_head": False}
    text = {**TEXT, "model_type": "qwen2", "rope_theta": 5e5, "initializer_range": 0.2}
    config = IDE3DConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=297,
        video_token_id=299,
        ground_token_id=GROUND,
        tie_word_embeddings=tie,
    )
    return IDE3DForConditionalGeneration(config).eval()


def original_weights(model: IDE3DForConditionalGeneration) -> dict[str, torch.Tensor]:
    """State dict of `model` under the original names, with what the original keeps beside it."""
    weights = {}
    for name, tensor in model.state_dict().items():
        prefix, original = next(((a, b) for a, b in ORIGINAL_NAMES if name.startswith(a)), ("", ""))
        weights[original + name.removeprefix(prefix)] = tensor.clone()
    for key in list(weights):
        if key.startswith(f"{TOWER}encoder.layers.0."):
            weights[key.replace("layers.0.", "layers.2.")] = weights[key] + 1
    weights[f"{TOWER}head.probe"] = torch.zeros(1, 1, VISION["hidden_size"])
    weights[f"{TOWER}head.mlp.fc1.weight"] = torch.zeros(24, 16)
    weights.update({key: torch.randn(shape) for key, shape in TRAINING_ONLY.items()})
    return weights


def write_source(folder: Path, weights: dict[str, torch.Tensor], shards: int = 1, **changes) -> Path:
    folder.mkdir()
    config = {key: value for key, value in {**ORIGINAL_CONFIG, **changes}.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    weights = {key: tensor.contiguous() for key, tensor in weights.items()}
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map = {}
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: weights[key] for key in sorted(weights)[number::shards]}
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def load_converted(folder: Path) -> IDE3DForConditionalGeneration:
    model, info = IDE3DForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.eval()


def inputs(model: IDE3DForConditionalGeneration) -> dict[str, torch.Tensor]:
    size = VISION["image_size"]
    ids = [5, 6, *[model.config.video_token_id] * (2 * model.config.tokens_per_frame), 7, GROUND]
    generator = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.tensor([ids]),
        "pixel_values_videos": torch.randn(1, 2, 3, size, size, generator=generator),
    }


def write_tokenizer(folder: Path, words: int, extra: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level tokenizer of 256 bytes, ChatML marks and made-up words up to `words` tokens, then `extra` ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: number for number, symbol in enumerate(alphabet)}
    vocab.update({f"word{number}": number for number in range(len(vocab), words - 3)})
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=["<|im_start|>", *extra],
        chat_template="{{ messages }} a template that knows no videos",
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def with_rows(weights: dict[str, torch.Tensor], rows: int) -> dict[str, torch.Tensor]:
    """The same weights with an embedding of another number of rows."""
    generator = torch.Generator().manual_seed(2)
    made = {key: torch.randn(rows, TEXT["hidden_size"], generator=generator) for key in EMBEDDINGS}
    return {key: made.get(key, tensor) for key, tensor in weights.items()}


def without(weights: dict[str, torch.Tensor], *prefixes: str) -> dict[str, torch.Tensor]:
    """Weights whose names begin with none of the prefixes."""
    return {key: tensor for key, tensor in weights.items() if not key.startswith(prefixes)}


def older_weights(model: IDE3DForConditionalGeneration, rows: int) -> dict[str, torch.Tensor]:
    """As 3DRS has them: no depth decoder, no vector for empty regions, three layers more."""
    weights = with_rows(without(original_weights(model), "model.dpt_module.", "empty_object_embedding"), rows)
    linears = {
        f"model.{name}.weight": torch.randn(4, 4) for name in ("corres_linear", "geometric_linear", "linear_dc")
    }
    return weights | linears


OLDER = {
    "skip_3d_pe_fusion": ...,
    "use_depth_auxiliary_task": ...,
    "world_position_embedding_type": "avg-discrete-sin3d",
}


def llava_video_weights(model: IDE3DForConditionalGeneration, rows: int) -> dict[str, torch.Tensor]:
    """As LLaVA-Video has them: no grounding head, nothing of the training."""
    heads = ("model.dpt_module.", "model.proj_3d.", "ground_head", "empty_object_embedding")
    return with_rows(without(original_weights(model), *heads), rows)


LLAVA_VIDEO = dict.fromkeys(
    ("skip_3d_pe_fusion", "use_depth_auxiliary_task", "ground_head_type", "ground_token_ids"), ...
)


def write_pickled_source(folder: Path, weights: dict[str, torch.Tensor], shards: int = 1, **changes) -> Path:
    """A source with .bin files."""
    write_source(folder, {"placeholder": torch.zeros(1)}, **changes)
    (folder / "model.safetensors").unlink()
    if shards == 1:
        torch.save(weights, folder / "pytorch_model.bin")
        return folder
    weight_map = {}
    for number in range(shards):
        name = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = {key: weights[key] for key in list(weights)[number::shards]}
        torch.save(part, folder / name)
        weight_map.update(dict.fromkeys(part, name))
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def write_siglip(folder: Path, weights: dict[str, torch.Tensor], whole: bool = True) -> Path:
    """The vision tower of a checkpoint as a SigLIP checkpoint of its own, with a text model or without."""
    folder.mkdir()
    tower = {key.removeprefix(TOWER): tensor for key, tensor in weights.items() if key.startswith(TOWER)}
    if whole:
        tower = {f"vision_model.{key}": tensor for key, tensor in tower.items()}
        tower |= {"text_model.head.weight": torch.zeros(2, 2), "logit_scale": torch.zeros(1)}
        config = {"model_type": "siglip", "vision_config": VISION, "text_config": {}}
    else:
        config = {"model_type": "siglip_vision_model", **VISION}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tower, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def original_decoder_names() -> list[str]:
    """Names of the weights of the original's `dpt_module`, without everything up to it."""
    scratch, both = "depth_head.scratch.", ("weight", "bias")
    names = [f"camera_pose_embedding.{level}" for level in range(4)]
    names += [f"{scratch}layer{level}_rn.weight" for level in range(1, 5)]
    modules = [f"feature_projector.{layer}" for layer in (0, 2, 3)] + ["depth_head.norm"]
    modules += [f"depth_head.projects.{level}" for level in range(4)]
    modules += [f"depth_head.resize_layers.{level}" for level in (0, 1, 3)]
    modules += [f"{scratch}output_conv1", f"{scratch}output_conv2.0", f"{scratch}output_conv2.2"]
    for block in range(1, 5):
        units = (2,) if block == 4 else (1, 2)
        modules.append(f"{scratch}refinenet{block}.out_conv")
        modules += [f"{scratch}refinenet{block}.resConfUnit{unit}.conv{conv}" for unit in units for conv in (1, 2)]
    return names + [f"{module}.{kind}" for module in modules for kind in both]


def build_original_heads() -> dict[str, torch.Tensor]:
    """Weights of a depth decoder and a teacher projection under their original names."""
    torch.manual_seed(3)
    config = GeometricValidatorConfig(
        vision_hidden_size=VISION["hidden_size"],
        patch_size=VISION["patch_size"],
        layer_indices=(0, 1, 1, 2),
        projection_size=16,
        features=8,
        out_channels=(8, 8, 8, 8),
        head_features=8,
    )
    state = GeometricValidator(config).state_dict()
    heads = {}
    for name in original_decoder_names():
        tensor = torch.randn_like(state[rename_original_key(name)])
        heads[f"model.dpt_module.{name}"] = tensor.T.contiguous() if name.startswith("camera_pose") else tensor
    projector = TeacherProjector(TeacherProjectorConfig(hidden_size=TEXT["hidden_size"], teacher_size=6)).state_dict()
    for layer, name in ((0, "linear_1"), (2, "linear_2")):
        heads |= {f"model.proj_3d.{layer}.{kind}": projector[f"{name}.{kind}"] for kind in ("weight", "bias")}
    return heads
