"""Weights: initialisation, saving and loading, broken files, embeddings, devices and number types."""

import json
import math
import re

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    Qwen2Model,
    SiglipVisionModel,
)

from modeling_ide3d import IDE3DForConditionalGeneration, IDE3DModel
from modeling_ide3d.auxiliary import GeometricValidatorConfig, IDE3DForConditionalGenerationWithGeometry


def weights_equal(left, right) -> bool:
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@torch.no_grad()
def logits_of(model, inputs):
    return model(**inputs).logits


@pytest.fixture
def batch(tiny_inputs):
    """Two videos of different length and an image, with regions."""
    return tiny_inputs([2, "text", "ground", "text"], ["image", 1, "text", "ground"], regions=1)


# Initialisation


def build_from_meta(config, seed):
    torch.manual_seed(seed)
    return IDE3DForConditionalGeneration.from_pretrained(None, config=config, state_dict={})


def test_every_parameter_is_initialised_from_meta(tiny_config):
    first = build_from_meta(tiny_config(), seed=0)
    for name, weight in first.named_parameters():
        assert weight.device.type == "cpu", name
        assert weight.isfinite().all(), name
        assert weight.abs().max() < 5, name
    assert weights_equal(first, build_from_meta(tiny_config(), seed=0))
    assert not weights_equal(first, build_from_meta(tiny_config(), seed=1))


def test_learned_vectors_have_the_width_of_a_unit_vector(make_tiny_model, tiny_config):
    hidden_size = 512
    config = tiny_config(text={"hidden_size": hidden_size, "num_hidden_layers": 1})
    for model in (make_tiny_model(config), build_from_meta(config, seed=0)):
        head = model.grounding_head
        for vector in (model.model.image_newline, head.no_object, head.empty_region):
            assert abs(vector.std().item() * math.sqrt(hidden_size) - 1) < 0.15
            assert abs(vector.mean().item()) < 0.2 / math.sqrt(hidden_size) * 3


# Missing weights


DAMAGES = {
    "half are missing": lambda state: dict(list(sorted(state.items()))[::2]),
    "all are renamed": lambda state: {f"other.{key}": value for key, value in state.items()},
    "one is missing": lambda state: {key: state[key] for key in state if key != "model.image_newline"},
}


def save_damaged(model, folder, damage) -> list[str]:
    """Save a model whose weights are damaged; return the missing names."""
    state = model.state_dict()
    damaged = DAMAGES[damage](state)
    model.save_pretrained(folder)
    save_file({key: value.clone() for key, value in damaged.items()}, folder / "model.safetensors", {"format": "pt"})
    return sorted(state.keys() - damaged.keys())


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("auto_class", [IDE3DForConditionalGeneration, AutoModel, AutoModelForImageTextToText])
def test_missing_weights_are_refused_by_name(tiny_model, tmp_path, auto_class, damage):
    missing = save_damaged(tiny_model, tmp_path, damage)
    with pytest.raises(ValueError, match=rf"lacks {len(missing)} of the .*{re.escape(missing[0])}.*allow_missing"):
        auto_class.from_pretrained(tmp_path)
    loaded = auto_class.from_pretrained(tmp_path, allow_missing=True)
    assert all(weight.isfinite().all() for weight in loaded.parameters())


def test_a_report_that_is_asked_for_names_missing_weights(tiny_model, tmp_path):
    missing = save_damaged(tiny_model, tmp_path, "half are missing")
    _, report = IDE3DForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert sorted(report["missing_keys"]) == missing


def test_missing_weights_of_the_base_model_are_refused(tiny_model, tmp_path):
    save_damaged(tiny_model, tmp_path, "one is missing")
    with pytest.raises(ValueError, match="image_newline"):
        IDE3DModel.from_pretrained(tmp_path)


def test_training_starts_without_its_heads_and_from_nothing_less(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "whole")
    heads = {"validator_config": GeometricValidatorConfig.light(tiny_model.config.vision_config), "teacher_size": 8}
    model = IDE3DForConditionalGenerationWithGeometry.from_pretrained(tmp_path / "whole", **heads)
    assert all(weight.isfinite().all() for weight in model.parameters())
    save_damaged(tiny_model, tmp_path / "damaged", "one is missing")
    with pytest.raises(ValueError, match="image_newline"):
        IDE3DForConditionalGenerationWithGeometry.from_pretrained(tmp_path / "damaged", **heads)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it
def test_an_adapter_on_a_damaged_base_is_refused(tiny_model, tmp_path):
    peft = pytest.importorskip("peft")
    missing = save_damaged(tiny_model, tmp_path / "base", "half are missing")
    tiny_model.config._name_or_path = tiny_model.name_or_path = str(tmp_path / "base")
    adapter = peft.get_peft_model(tiny_model, peft.LoraConfig(target_modules=["q_proj"], r=2))
    adapter.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match=f"lacks {len(missing)} of"):
        IDE3DForConditionalGeneration.from_pretrained(tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(OSError, match=r"adapter_model\.safetensors is truncated"):
        IDE3DForConditionalGeneration.from_pretrained(tmp_path / "adapter")


def test_missing_grounding_head_is_initialised_and_reported(tiny_model, tmp_path, caplog):
    state = {key: value for key, value in tiny_model.state_dict().items() if not key.startswith("grounding_head")}
    tiny_model.save_pretrained(tmp_path, state_dict=state)
    loaded, report = IDE3DForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    expected = {key for key in tiny_model.state_dict() if key.startswith("grounding_head")}
    assert set(report["missing_keys"]) == expected
    assert not report["unexpected_keys"]
    assert all(weight.isfinite().all() for weight in loaded.parameters())
    assert loaded.grounding_head.no_object.abs().sum() > 0


def test_weights_that_are_not_finite_are_told(tiny_model, tmp_path, caplog):
    tiny_model.model.image_newline.data[0] = math.nan
    tiny_model.save_pretrained(tmp_path)
    IDE3DForConditionalGeneration.from_pretrained(tmp_path)
    assert "1 weights with NaN or infinite numbers, such as ['model.image_newline']" in caplog.text


def test_layers_that_the_config_leaves_out_are_told(tiny_model, tmp_path, caplog):
    tiny_model.save_pretrained(tmp_path)
    IDE3DForConditionalGeneration.from_pretrained(tmp_path)
    assert not [record for record in caplog.records if record.name.startswith("modeling_ide3d")]
    content = json.loads((tmp_path / "config.json").read_text())
    content["text_config"] |= {"num_hidden_layers": 1, "layer_types": ["full_attention"]}
    (tmp_path / "config.json").write_text(json.dumps(content))
    IDE3DForConditionalGeneration.from_pretrained(tmp_path)
    assert "weights of layers that the model does not have" in caplog.text


def test_whole_numbers_are_no_weights(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    save_file({key: value.int() for key, value in tiny_model.state_dict().items()}, tmp_path / "model.safetensors")
    with pytest.raises(OSError, match=r"model\.safetensors holds whole numbers for"):
        IDE3DForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [(None, TypeError, "got None"), (5, TypeError, "got 5"), ("a/b/c", OSError, "no folder 'a/b/c'")],
)
def test_what_is_no_place_of_a_model_is_refused(name, error, message):
    with pytest.raises(error, match=message):
        IDE3DForConditionalGeneration.from_pretrained(name)


# Saving and loading


def test_save_and_load_give_equal_logits(tiny_model, batch, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    loaded, report = IDE3DForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert not loaded.training
    assert weights_equal(loaded, tiny_model)
    assert torch.equal(logits_of(loaded, batch), logits_of(tiny_model, batch))
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["IDE3DForConditionalGeneration"]


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM])
def test_auto_classes_give_the_generating_model(tiny_model, tmp_path, auto_class):
    tiny_model.save_pretrained(tmp_path)
    loaded = auto_class.from_pretrained(tmp_path)
    assert type(loaded) is IDE3DForConditionalGeneration
    assert weights_equal(loaded, tiny_model)


def test_sharded_save_and_load(tiny_model, batch, tmp_path):
    tiny_model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    loaded, report = IDE3DForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(logits_of(loaded, batch), logits_of(tiny_model, batch))


def test_base_model_loads_from_the_generating_checkpoint(tiny_model, tiny_inputs, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    loaded, report = IDE3DModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    inputs = tiny_inputs([2, "text"])
    with torch.no_grad():
        assert torch.equal(
            loaded(**inputs).last_hidden_state, tiny_model(**inputs, logits_to_keep=1).last_hidden_state
        )


def test_generating_model_loads_from_the_base_checkpoint(tiny_model, tmp_path):
    tiny_model.model.save_pretrained(tmp_path)
    loaded, report = IDE3DForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert weights_equal(loaded.model, tiny_model.model)
    assert {key.split(".")[0] for key in report["missing_keys"]} == {"grounding_head", "lm_head"}


def test_plain_torch_round_trip(tiny_model, make_tiny_model, batch, tmp_path):
    torch.save(tiny_model.state_dict(), tmp_path / "weights.pt")
    other = make_tiny_model(seed=1)
    assert not torch.equal(logits_of(other, batch), logits_of(tiny_model, batch))
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(logits_of(other, batch), logits_of(tiny_model, batch))


def test_generation_settings_are_saved_beside_the_config(tiny_model, tmp_path):
    tiny_model.generation_config.max_new_tokens = 7
    tiny_model.save_pretrained(tmp_path)
    assert IDE3DForConditionalGeneration.from_pretrained(tmp_path).generation_config.max_new_tokens == 7


def test_wrong_size_of_a_saved_weight_raises(tiny_model, tiny_config, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    config = tiny_config(text={"intermediate_size": 96})
    name = r"language_model\.layers\.0\.mlp\.down_proj\.weight is \(48, 64\), expected \(48, 96\)"
    with pytest.raises(RuntimeError, match=f"mismatched: .*{name}"):
        IDE3DForConditionalGeneration.from_pretrained(tmp_path, config=config)
    IDE3DForConditionalGeneration.from_pretrained(tmp_path, config=config, ignore_mismatched_sizes=True)


# Missing and broken weight files


@pytest.mark.parametrize("model_class", [IDE3DForConditionalGeneration, IDE3DModel, AutoModel])
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_truncated_weight_file_is_named(tiny_model, tmp_path, model_class, sharded, kept):
    tiny_model.save_pretrained(tmp_path, max_shard_size="50KB" if sharded else "5GB")
    file = sorted(tmp_path.glob("*.safetensors"))[-1]
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(OSError, match=rf"{file.name} is truncated or no safetensors file \(.*header"):
        model_class.from_pretrained(tmp_path)


def test_file_of_another_kind_is_named(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes((100).to_bytes(8, "little") + b"<html>" * 100)
    with pytest.raises(OSError, match=r"model\.safetensors is .*no safetensors file \(.*invalid JSON in header"):
        IDE3DForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize("sharded", [False, True])
def test_missing_weight_file_is_named(tiny_model, tmp_path, sharded):
    tiny_model.save_pretrained(tmp_path, max_shard_size="50KB" if sharded else "5GB")
    file = sorted(tmp_path.glob("*.safetensors"))[-1]
    file.unlink()
    with pytest.raises(OSError, match=file.name):
        IDE3DForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors.index.json"])
def test_damaged_json_file_is_named(tiny_model, tmp_path, name, content):
    tiny_model.save_pretrained(tmp_path, max_shard_size="50KB")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match=rf"{name} (is damaged|must hold a JSON object).*Copy or download"):
        IDE3DForConditionalGeneration.from_pretrained(tmp_path)


def test_folder_without_config_gives_no_default_model(tiny_model, tiny_config, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        IDE3DForConditionalGeneration.from_pretrained(tmp_path)
    assert weights_equal(IDE3DForConditionalGeneration.from_pretrained(tmp_path, config=tiny_config()), tiny_model)


def test_folder_without_generation_settings_is_told(tiny_model, tmp_path, caplog):
    tiny_model.save_pretrained(tmp_path)
    IDE3DForConditionalGeneration.from_pretrained(tmp_path)
    assert not caplog.text
    (tmp_path / "generation_config.json").unlink()
    IDE3DForConditionalGeneration.from_pretrained(tmp_path)
    assert "has no generation_config.json" in caplog.text
    caplog.clear()
    IDE3DModel.from_pretrained(tmp_path)
    assert not caplog.text


def test_missing_folder_raises(tmp_path):
    with pytest.raises(OSError, match="nothing_here"):
        IDE3DForConditionalGeneration.from_pretrained(tmp_path / "nothing_here")


# Embeddings


def test_parts_by_their_usual_names(tiny_model):
    assert type(tiny_model.get_encoder("video")) is type(tiny_model.get_encoder("image")) is SiglipVisionModel
    assert type(tiny_model.get_decoder()) is Qwen2Model
    assert tiny_model.get_input_embeddings() is tiny_model.model.language_model.embed_tokens
    assert tiny_model.get_output_embeddings() is tiny_model.lm_head


def test_embeddings_can_be_set(tiny_model):
    inputs, outputs = torch.nn.Embedding(120, 48), torch.nn.Linear(48, 120, bias=False)
    tiny_model.set_input_embeddings(inputs)
    tiny_model.set_output_embeddings(outputs)
    assert tiny_model.model.language_model.embed_tokens is inputs
    assert tiny_model.get_output_embeddings() is outputs


@pytest.mark.parametrize("tied", [False, True])
def test_resized_embeddings_keep_the_logits_of_the_old_words(make_tiny_model, tiny_config, batch, tied, tmp_path):
    model = make_tiny_model(tiny_config(tie_word_embeddings=tied))
    logits = logits_of(model, batch)
    model.resize_token_embeddings(133)
    assert model.config.text_config.vocab_size == model.lm_head.out_features == 133
    assert model.get_input_embeddings().num_embeddings == 133
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    resized = logits_of(model, batch)
    assert resized.shape[-1] == 133
    torch.testing.assert_close(resized[..., :120], logits)
    loss = model(**batch, labels=batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 132)).loss
    assert loss.isfinite()
    model.save_pretrained(tmp_path)
    assert torch.equal(logits_of(IDE3DForConditionalGeneration.from_pretrained(tmp_path), batch), resized)


def test_tied_head_is_one_weight_and_saved_once(make_tiny_model, tiny_config, batch, tmp_path):
    model = make_tiny_model(tiny_config(text={"tie_word_embeddings": True}))
    assert model.lm_head.weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    loaded, report = IDE3DForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    assert not report["missing_keys"]
    assert torch.equal(logits_of(loaded, batch), logits_of(model, batch))


def test_untied_head_is_its_own_weight(tiny_model):
    assert tiny_model.lm_head.weight is not tiny_model.get_input_embeddings().weight


# Devices and number types


@pytest.mark.filterwarnings("ignore:The following device_map keys")
def test_disk_offload(tiny_model, batch, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    device_map = {
        "model.vision_tower": "cpu",
        "model.multi_modal_projector": "cpu",
        "model.image_newline": "cpu",
        "model.language_model": "disk",
        "lm_head": "cpu",
        "grounding_head": "disk",
    }
    offloaded = IDE3DForConditionalGeneration.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert offloaded.model.language_model.embed_tokens.weight.device.type == "meta"
    assert torch.equal(logits_of(offloaded, batch), logits_of(tiny_model, batch))
    settings = {"max_new_tokens": 3, "do_sample": False, "suppress_tokens": [100, 101]}
    assert torch.equal(offloaded.generate(**batch, **settings), tiny_model.generate(**batch, **settings))
    with torch.no_grad():
        assert torch.equal(offloaded.ground(**batch), tiny_model.ground(**batch))


@pytest.mark.filterwarnings("ignore:The following device_map keys")
def test_disk_offload_by_memory_limit(tiny_model, tiny_inputs, tmp_path):
    inputs = tiny_inputs([1, "text"])
    tiny_model.save_pretrained(tmp_path / "model", max_shard_size="50KB")
    offloaded = IDE3DForConditionalGeneration.from_pretrained(
        tmp_path / "model", device_map="auto", max_memory={"cpu": 200_000}, offload_folder=tmp_path / "offload"
    )
    assert {"cpu", "disk"} == set(offloaded.hf_device_map.values())
    assert torch.equal(logits_of(offloaded, inputs), logits_of(tiny_model, inputs))


def test_a_model_wholly_on_disk(tiny_model, batch, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    offloaded = IDE3DForConditionalGeneration.from_pretrained(
        tmp_path / "model", device_map={"": "disk"}, offload_folder=tmp_path / "offload"
    )
    assert {weight.device.type for weight in offloaded.parameters()} == {"meta"}
    settings = {"max_new_tokens": 3, "do_sample": False, "suppress_tokens": [100, 101]}
    assert torch.equal(offloaded.generate(**batch, **settings), tiny_model.generate(**batch, **settings))
    with torch.no_grad():
        assert torch.equal(offloaded.ground(**batch), tiny_model.ground(**batch))
    assert torch.equal(logits_of(offloaded, batch), logits_of(tiny_model, batch))
    assert {weight.device.type for weight in offloaded.parameters()} == {"meta"}


@pytest.mark.gpu
def test_cpu_offload_beside_a_gpu(tiny_model, batch, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    offloaded = IDE3DForConditionalGeneration.from_pretrained(
        tmp_path, device_map="auto", max_memory={0: 200_000, "cpu": "1GB"}
    )
    expected = logits_of(tiny_model, batch)
    torch.testing.assert_close(logits_of(offloaded, batch).cpu(), expected, atol=1e-3, rtol=1e-3)


def test_no_layer_with_a_residual_is_split(tiny_model):
    assert {"Qwen2DecoderLayer", "SiglipEncoderLayer"} <= set(tiny_model._no_split_modules)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_near(tiny_model, batch, dtype, tmp_path):
    expected = logits_of(tiny_model, batch)
    tiny_model.save_pretrained(tmp_path)
    model = IDE3DForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype)
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    logits = logits_of(model, batch)  # float32 pixels, as the processor gives them
    assert logits.dtype == dtype
    assert logits.isfinite().all()
    assert (logits.float() - expected).abs().mean() < 0.05 * expected.abs().mean()
    with torch.no_grad():
        scores = model.ground(**batch)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()
    assert model.generate(**batch, max_new_tokens=2, suppress_tokens=[100, 101]).shape[0] == 2


def test_saved_number_type_is_the_loaded_one(tiny_model, tmp_path):
    tiny_model.bfloat16().save_pretrained(tmp_path)
    loaded = IDE3DForConditionalGeneration.from_pretrained(tmp_path)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    assert loaded.get_encoder("video").config.dtype == torch.bfloat16


def test_double_precision(tiny_model, batch):
    expected = logits_of(tiny_model, batch)
    torch.testing.assert_close(logits_of(tiny_model.double(), batch).float(), expected, atol=1e-4, rtol=1e-3)
