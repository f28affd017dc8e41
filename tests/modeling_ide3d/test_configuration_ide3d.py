"""The config: round trips, defaults, derived sizes, and errors for what cannot work."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from transformers import AutoConfig, Qwen2Config, SiglipVisionConfig

from modeling_ide3d import IDE3DConfig


def test_dict_round_trip_is_equal(tiny_config):
    config = tiny_config(spatial_pool_stride=3, vision_feature_layer=1)
    again = IDE3DConfig.from_dict(config.to_dict())
    assert again.to_dict() == config.to_dict()
    assert isinstance(again.vision_config, SiglipVisionConfig)
    assert isinstance(again.text_config, Qwen2Config)


def test_json_string_names_every_part(tiny_config):
    config = tiny_config(grounding_temperature=0.5)
    written = json.loads(config.to_json_string())
    assert written["model_type"] == "ide3d"
    assert written["grounding_temperature"] == 0.5
    assert written["text_config"]["model_type"] == "qwen2"
    assert written["vision_config"]["model_type"] == "siglip_vision_model"


def test_file_round_trip_through_both_loaders(tiny_config, tmp_path):
    config = tiny_config(detach_region_references=False, tie_word_embeddings=True)
    config.save_pretrained(tmp_path)
    for loader in (IDE3DConfig, AutoConfig):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is IDE3DConfig
        assert loaded.to_json_string() == config.to_json_string()


def test_parts_load_from_the_folder_of_the_whole(tiny_config, tmp_path):
    config = tiny_config()
    config.save_pretrained(tmp_path)
    assert SiglipVisionConfig.from_pretrained(tmp_path).image_size == config.vision_config.image_size
    assert Qwen2Config.from_pretrained(tmp_path).hidden_size == config.text_config.hidden_size


def test_overrides_at_load(tiny_config, tmp_path):
    tiny_config().save_pretrained(tmp_path)
    assert IDE3DConfig.from_pretrained(tmp_path, grounding_temperature=0.2).grounding_temperature == 0.2


def test_parts_given_as_objects_are_kept(tiny_config):
    source = tiny_config()
    config = IDE3DConfig(
        vision_config=source.vision_config,
        text_config=source.text_config,
        image_token_id=10,
        video_token_id=11,
        ground_token_id=12,
    )
    assert config.text_config is source.text_config
    assert config.get_text_config() is source.text_config


def test_defaults_are_those_of_the_paper():
    config = IDE3DConfig()
    assert config.patch_grid == (27, 27)
    assert config.token_grid == (14, 14)
    assert config.tokens_per_frame == 210
    assert config.vision_config.num_hidden_layers == 26
    assert config.vision_config.vision_use_head is False
    assert config.grounding_temperature == 0.07


@pytest.mark.parametrize(("image_size", "patch_size", "stride"), [(70, 14, 2), (72, 14, 2), (64, 16, 1), (98, 14, 3)])
def test_token_grid_follows_the_sizes(tiny_config, image_size, patch_size, stride):
    config = tiny_config(vision={"image_size": image_size, "patch_size": patch_size}, spatial_pool_stride=stride)
    patches = image_size // patch_size
    cells = math.ceil(patches / stride)
    assert config.patch_grid == (patches, patches)
    assert config.token_grid == (cells, cells)
    assert config.tokens_per_frame == cells * (cells + 1)


@pytest.mark.parametrize("text", [{"model_type": "llama"}, {"model_type": "qwen3", "head_dim": 12}])
def test_other_language_models_by_model_type(tiny_config, text):
    config = tiny_config(text=text)
    assert config.text_config.model_type == text["model_type"]
    assert IDE3DConfig.from_dict(config.to_dict()).text_config.model_type == text["model_type"]


def test_tied_language_model_ties_the_head(tiny_config):
    assert tiny_config(text={"tie_word_embeddings": True}).tie_word_embeddings is True
    assert tiny_config().tie_word_embeddings is False


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("video_token_id", "101"),
        ("spatial_pool_stride", 2.5),
        ("grounding_temperature", "warm"),
        ("spatial_pool_mode", "nearest-ish"),
        ("detach_region_references", "yes"),
        ("vision_config", 14),
    ],
)
def test_wrong_type_raises_and_names_the_field(tiny_config, field, value):
    with pytest.raises(StrictDataclassFieldValidationError, match=field):
        tiny_config(**{field: value}) if field != "vision_config" else IDE3DConfig(vision_config=value)


def test_wrong_type_raises_on_assignment(tiny_config):
    config = tiny_config()
    with pytest.raises(StrictDataclassFieldValidationError, match="ground_token_id"):
        config.ground_token_id = "<ground>"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spatial_pool_stride": 0}, "spatial_pool_stride must be at least 1, got 0"),
        ({"vision": {"image_size": 10}}, "image_size .10. must be at least"),
        ({"vision": {"image_size": [70, 84]}}, "image_size must be one number"),
        ({"vision": {"model_type": "clip_vision_model"}}, "must be a siglip_vision_model, got clip_vision_model"),
        ({"vision_feature_layer": 3}, r"vision_feature_layer must lie in \[-3, 2\]"),
        ({"vision_feature_layer": -4}, r"vision_feature_layer must lie in \[-3, 2\]"),
        ({"image_token_id": 101}, "must differ"),
        ({"ground_token_id": 120}, r"ground_token_id must lie in \[0, 120\)"),
        ({"video_token_id": -1}, r"video_token_id must lie in \[0, 120\)"),
        ({"grounding_temperature": 0.0}, "grounding_temperature must be positive"),
        ({"grounding_temperature": math.inf}, "grounding_temperature must be positive and finite, got inf"),
        ({"grounding_temperature": math.nan}, "grounding_temperature must be positive and finite, got nan"),
        ({"vision": {"patch_size": -14}}, "vision_config.patch_size must be at least 1, got -14"),
        ({"vision": {"num_channels": 0}}, "vision_config.num_channels must be at least 1, got 0"),
        ({"text": {"hidden_size": -48}}, "text_config.hidden_size must be at least 1, got -48"),
        ({"text": {"num_attention_heads": 5}}, "heads must divide text_config.hidden_size, got 5 heads"),
        ({"vision": {"num_attention_heads": 3}}, "heads must divide vision_config.hidden_size, got 3 heads"),
        ({"spatial_pool_stride": 99}, "spatial_pool_stride must be at most 5"),
        ({"projector_hidden_act": "gelo"}, "projector_hidden_act must be an activation .* Did you mean 'gelu'"),
        ({"text": {"hidden_act": "x"}}, "text_config.hidden_act must be an activation"),
        ({"text": {"num_hidden_layers": 0}}, "text_config.num_hidden_layers must be at least 1"),
        ({"text": {"pad_token_id": 999}}, "text_config.pad_token_id must be None or lie in"),
        ({"text": {"attention_dropout": 2.0}}, "text_config.attention_dropout must be from 0 to 1, got 2.0"),
        ({"vision": {"layer_norm_eps": math.nan}}, "vision_config.layer_norm_eps must be a number, got NaN"),
        ({"text": {"num_key_value_heads": 3}}, "must divide text_config.num_attention_heads, got 3 for 4"),
    ],
)
def test_contradictions_raise_at_birth(tiny_config, fields, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        tiny_config(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": {"model_type": "qwen22"}}, "text_config.model_type must be .* got 'qwen22'. Did you mean 'qwen2'"),
        ({"vision": {"model_type": 5}}, "vision_config.model_type must be .* got 5"),
        ({"text": {"num_hidden_layers": 10**30}}, "text_config.num_hidden_layers must be at most 10000"),
        ({"dtype": "float99"}, "dtype must be a type of PyTorch, .* got 'float99'"),
    ],
)
def test_what_no_part_can_be_made_of_is_named(tiny_config, fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**fields)


def test_the_config_of_another_model_is_refused(tiny_config, tmp_path):
    tiny_config().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "model_type": "llama"}))
    with pytest.raises(ValueError, match="no 3D-IDE model: model_type in its config.json is 'llama'"):
        IDE3DConfig.from_pretrained(tmp_path)


def test_heads_may_have_a_width_of_their_own(tiny_config):
    assert tiny_config(
        text={"model_type": "qwen3", "num_attention_heads": 5, "head_dim": 12, "num_key_value_heads": 5}
    )


@pytest.mark.parametrize("field", ["grounding_temprature", "spatial_pool_strides", "image_token", "vison_config"])
def test_misspelt_fields_raise_with_the_right_name(tiny_config, field):
    fields = tiny_config().to_dict()
    del fields["image_token_id"], fields["vision_config"], fields["grounding_temperature"]
    del fields["spatial_pool_stride"]
    with pytest.raises(ValueError, match=f"IDE3DConfig has no field '{field}'. Did you mean '"):
        IDE3DConfig(**fields, **{field: 1})


def test_fields_of_a_newer_version_are_told_and_kept(tiny_config, tmp_path, caplog):
    tiny_config().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "memory_tokens": 7}))
    config = IDE3DConfig.from_pretrained(tmp_path)
    assert config.memory_tokens == 7
    assert "no field 'memory_tokens'" in caplog.text


def test_misspelt_fields_of_a_part_are_told(tiny_config, caplog):
    tiny_config(text={"atention_dropout": 0.5})
    assert "no field 'text_config.atention_dropout'" in caplog.text
    assert "'attention_dropout'" in caplog.text


def test_keys_that_transformers_stores_are_not_told(tiny_config, tmp_path, caplog):
    stored = {"use_cache": False, "torch_dtype": "float32", "transformers_version": "5.0.0", "auto_map": {}}
    tiny_config(**stored, architectures=["IDE3DModel"], text={"use_cache": False}).save_pretrained(tmp_path)
    IDE3DConfig.from_pretrained(tmp_path)
    AutoConfig.from_pretrained(tmp_path)
    assert "no field" not in caplog.text


@pytest.mark.parametrize("content", [None, "[1, 2]", "3", "{}", '{"model_type"', "[" * 100_000])
def test_no_config_is_named_and_gives_no_default(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        IDE3DConfig.from_pretrained(tmp_path)


def test_contradictions_raise_before_saving(tiny_config, tmp_path):
    config = tiny_config()
    config.text_config.vocab_size = 50
    with pytest.raises(StrictDataclassClassValidationError, match="vocabulary of text_config"):
        config.save_pretrained(tmp_path)


def test_positional_arguments_are_refused():
    with pytest.raises((TypeError, ValueError), match="positional|keyword"):
        IDE3DConfig({"hidden_size": 32})


@pytest.mark.slow
def test_transformers_serve_finds_an_export_by_its_config(tmp_path):
    """`transformers serve` looks for the model type between config and model; a fresh process knows no more."""
    folder = Path(__file__).parents[2] / "examples" / "checkpoints" / "ide3d-nano-rooms"
    code = f"""
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES as names
config = AutoConfig.from_pretrained({str(folder)!r}, trust_remote_code=True)
assert names[config.model_type] == config.architectures[0], names
"""
    environment = {name: os.environ[name] for name in ("PATH", "HOME")} | {"HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
