"""Conversion of checkpoints in the original layout, built here from a tiny model of ours."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from commanding import run_command
from original_checkpoints import (
    GROUND,
    ORIGINAL_CONFIG,
    TEXT,
    TOWER,
    TRAINING_ONLY,
    VISION,
    VOCAB,
    build_model,
    inputs,
    load_converted,
    original_weights,
    write_source,
    write_tokenizer,
)
from safetensors.torch import load_file
from transformers import AutoProcessor

from modeling_ide3d import IDE3DForConditionalGeneration
from modeling_ide3d.conversion.convert import convert_checkpoint
from modeling_ide3d.conversion.settings import build_config, choose_token_ids
from processing import IDE3DProcessor
from processing.limits import parse_size
from processing.processing_ide3d import DEFAULT_CHAT_TEMPLATE


def assert_nothing_written(folder: Path, kept: set[str] = frozenset({"source"})):
    assert {path.name for path in folder.iterdir()} == set(kept)


def test_converted_model_computes_the_same(tmp_path, model, weights):
    report = convert_checkpoint(write_source(tmp_path / "source", weights), tmp_path / "target")
    converted = load_converted(tmp_path / "target")
    with torch.no_grad():
        expected, got = (m(**inputs(m)).logits for m in (model, converted))
        torch.testing.assert_close(got, expected, atol=0, rtol=0)
        masks = torch.zeros(1, 3, 2, 2, 2, dtype=torch.bool)
        masks[:, 0, 0], masks[:, 1, 1, 0] = True, True  # the third region stays empty
        expected, got = (m.ground(**inputs(m), region_masks=masks) for m in (model, converted))
        torch.testing.assert_close(got, expected, atol=0, rtol=0)
    assert converted.config.grounding_temperature == ORIGINAL_CONFIG["ground_head_temperature"]
    assert converted.config.text_config.rope_parameters["rope_theta"] == ORIGINAL_CONFIG["rope_theta"]
    assert converted.generation_config.eos_token_id == TEXT["eos_token_id"]
    assert report.token_ids == {"image_token_id": 297, "video_token_id": 299, "ground_token_id": GROUND}
    assert not report.newly_initialized and not report.notes and not report.has_tokenizer


def test_every_weight_is_accounted_for(tmp_path, weights):
    report = convert_checkpoint(write_source(tmp_path / "source", weights), tmp_path / "target")
    assert set(report.converted) | set(report.training_only) | set(report.dropped) == set(weights)
    assert set(report.training_only) == set(TRAINING_ONLY)
    assert set(report.dropped.values()) == {
        "last layer of the vision tower, not used",
        "pooling head of the vision tower, not used",
    }
    files = {str(path.relative_to(tmp_path / "target")) for path in (tmp_path / "target").rglob("*.*")}
    settings = {"config.json", "generation_config.json", "conversion_report.json"}
    way_back = {f"original_layout/{name}" for name in ("layout.json", "config.json", "unused_weights.safetensors")}
    assert files == {*settings, *way_back, "model.safetensors", report.training_only_file}
    saved = json.loads((tmp_path / "target" / "conversion_report.json").read_text())
    assert saved["converted"] == report.converted and saved["dropped"] == report.dropped
    assert saved["training_only"] == report.training_only
    aside = load_file(tmp_path / "target" / report.training_only_file)
    assert all(torch.equal(aside[key], weights[key]) for key in TRAINING_ONLY)


def test_shards_in_and_shards_out(tmp_path, model, weights):
    source = write_source(tmp_path / "source", weights, shards=3)
    report = convert_checkpoint(source, tmp_path / "target", max_shard_size="20KB")
    assert len(report.weight_files) > 3
    index = json.loads((tmp_path / "target" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(model.state_dict())
    assert set(index["weight_map"].values()) == set(report.weight_files)
    for name in report.weight_files:
        tensors = load_file(tmp_path / "target" / name)
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 20_000
    converted = load_converted(tmp_path / "target").state_dict()
    assert all(torch.equal(converted[name], tensor) for name, tensor in model.state_dict().items())


def test_shards_are_by_default_as_large_as_those_of_the_source(tmp_path, model, weights):
    """One written file is mapped at a time, so the source's largest one bounds the memory."""
    source = write_source(tmp_path / "source", weights, shards=3)
    report = convert_checkpoint(source, tmp_path / "target")
    largest = max(file.stat().st_size for file in source.glob("*.safetensors"))
    assert len(report.weight_files) > 1
    for name in report.weight_files:
        assert sum(t.nbytes for t in load_file(tmp_path / "target" / name).values()) <= largest
    converted = load_converted(tmp_path / "target").state_dict()
    assert all(torch.equal(converted[name], tensor) for name, tensor in model.state_dict().items())


def test_pickled_tensors_are_read(tmp_path, model, weights):
    source = write_source(tmp_path / "source", {"lm_head.weight": weights["lm_head.weight"]})
    (source / "model.safetensors").unlink()
    torch.save(weights, source / "pytorch_model.bin")
    convert_checkpoint(source, tmp_path / "target")
    converted = load_converted(tmp_path / "target").state_dict()
    assert all(torch.equal(converted[name], tensor) for name, tensor in model.state_dict().items())


def test_tower_names_without_the_inner_level_are_read(tmp_path, model, weights):
    weights = {key.replace(".vision_model.", "."): tensor for key, tensor in weights.items()}
    report = convert_checkpoint(write_source(tmp_path / "source", weights), tmp_path / "target")
    assert set(report.converted.values()) == set(model.state_dict())


def test_half_precision_stays(tmp_path, weights):
    weights = {key: tensor.bfloat16() for key, tensor in weights.items()}
    convert_checkpoint(write_source(tmp_path / "source", weights), tmp_path / "target")
    assert load_converted(tmp_path / "target").dtype == torch.bfloat16
    assert {t.dtype for t in load_file(tmp_path / "target" / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize("with_duplicate", [True, False])
def test_tied_embeddings(tmp_path, with_duplicate):
    model = build_model(tie=True)
    weights = original_weights(model)
    if not with_duplicate:
        del weights["lm_head.weight"]
    source = write_source(tmp_path / "source", weights, tie_word_embeddings=True)
    convert_checkpoint(source, tmp_path / "target")
    converted = load_converted(tmp_path / "target")
    assert converted.lm_head.weight is converted.model.language_model.embed_tokens.weight
    with torch.no_grad():
        torch.testing.assert_close(converted(**inputs(model)).logits, model(**inputs(model)).logits, atol=0, rtol=0)


def test_a_head_that_differs_from_its_embedding_is_not_tied(tmp_path):
    model = build_model(tie=True)
    weights = original_weights(model)
    weights["lm_head.weight"] = weights["lm_head.weight"] + 0.1
    report = convert_checkpoint(
        write_source(tmp_path / "source", weights, tie_word_embeddings=True), tmp_path / "target"
    )
    converted = load_converted(tmp_path / "target")
    assert torch.equal(converted.lm_head.weight, weights["lm_head.weight"])
    assert not converted.config.tie_word_embeddings
    assert any("lm_head.weight differs from model.embed_tokens.weight" in note for note in report.notes)


def test_checkpoint_without_grounding_head_gets_a_new_one(tmp_path, weights):
    weights = {key: t for key, t in weights.items() if not key.startswith(("ground_head", "empty_object"))}
    source = write_source(tmp_path / "source", weights, ground_head_type=..., ground_token_ids=...)
    reports = [convert_checkpoint(source, tmp_path / name) for name in ("first", "second")]
    first, second = (load_converted(report.target_dir) for report in reports)
    names = {name for name in first.state_dict() if name.startswith("grounding_head.")}
    assert set(reports[0].newly_initialized) == names
    for name in names:
        tensor = first.state_dict()[name]
        assert torch.isfinite(tensor).all()
        assert torch.equal(tensor, second.state_dict()[name])
    assert first.grounding_head.key_proj[0].weight.std() > 0
    ids = reports[0].token_ids
    assert len(set(ids.values())) == 3
    assert not set(ids.values()) & {TEXT["bos_token_id"], TEXT["eos_token_id"]}


def test_head_without_empty_vector_is_legal_only_before_3d_ide(tmp_path, weights):
    del weights["empty_object_embedding"]
    with pytest.raises(ValueError, match="lacks 1 weights .*empty_region"):
        convert_checkpoint(write_source(tmp_path / "source", weights), tmp_path / "target")
    weights = {key: tensor for key, tensor in weights.items() if ".dpt_module." not in key}
    older = write_source(tmp_path / "older", weights, use_depth_auxiliary_task=...)
    report = convert_checkpoint(older, tmp_path / "target")
    assert report.newly_initialized == ["grounding_head.empty_region"]
    assert load_converted(tmp_path / "target").grounding_head.empty_region.abs().sum() == 0
    assert "zero" in report.notes[0]


def test_generation_settings_are_kept(tmp_path, weights):
    source = write_source(tmp_path / "source", weights)
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 3], "temperature": 0.7}))
    convert_checkpoint(source, tmp_path / "target")
    assert load_converted(tmp_path / "target").generation_config.eos_token_id == [1, 3]


def test_official_sizes_are_planned_without_weights():
    """The 7B layout with the known vision tower: every name and shape fits, from shapes alone."""
    original = {
        **ORIGINAL_CONFIG,
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
    }
    for key in ("oracle_vision_config", "ground_head_type", "ground_token_ids", "use_depth_auxiliary_task"):
        del original[key]
    ids = choose_token_ids(original, 152064, None)[0]
    with torch.device("meta"):
        model = IDE3DForConditionalGeneration(build_config(original, ids, original["vocab_size"]))
    assert model.config.token_grid == (14, 14)
    assert model.config.tokens_per_frame == 210
    assert model.config.vision_config.num_hidden_layers == 26
    assert model.lm_head.weight.shape == (152064, 3584)
    assert set(ids.values()) == {151646, 151647, 151648}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.update({"model.surprise.weight": torch.zeros(2)}),
            r"1 unknown weights \[model\.surprise\.weight",
        ),
        (lambda w: w.update({f"{TOWER}encoder.layers.3.layer_norm1.bias": torch.zeros(16)}), "1 unknown weights"),
        (lambda w: w.update({f"{TOWER}encoder.layers.2.extra.bias": torch.zeros(16)}), "1 unknown weights"),
        (lambda w: w.pop("model.norm.weight"), r"lacks 1 weights \[model\.language_model\.norm\.weight\]"),
        (lambda w: w.pop("ground_head_zero_target"), r"lacks 1 weights \[grounding_head\.no_object\]"),
        (
            lambda w: w.update({"model.mm_projector.0.bias": torch.zeros(25)}),
            r"model\.mm_projector\.0\.bias: expected \(24,\), got \(25,\)",
        ),
    ],
)
def test_unknown_missing_and_misshaped_weights_fail_and_leave_nothing(tmp_path, weights, change, message):
    change(weights)
    source = write_source(tmp_path / "source", weights)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(source, tmp_path / "target")
    assert_nothing_written(tmp_path)


def test_truncated_file_is_named(tmp_path, weights):
    source = write_source(tmp_path / "source", weights, shards=2)
    damaged = source / "model-00002-of-00002.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model-00002-of-00002.safetensors.* truncated"):
        convert_checkpoint(source, tmp_path / "target")
    assert_nothing_written(tmp_path)


def test_truncated_pickle_is_named(tmp_path, weights):
    source = write_source(tmp_path / "source", weights)
    (source / "model.safetensors").unlink()
    torch.save(weights, source / "pytorch_model.bin")
    data = (source / "pytorch_model.bin").read_bytes()
    (source / "pytorch_model.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="pytorch_model.bin.* truncated"):
        convert_checkpoint(source, tmp_path / "target")
    assert_nothing_written(tmp_path)


def test_missing_files_are_named(tmp_path, weights):
    source = write_source(tmp_path / "source", weights, shards=2)
    (source / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00001-of-00002.safetensors"):
        convert_checkpoint(source, tmp_path / "target")
    (source / "model.safetensors.index.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        convert_checkpoint(source, tmp_path / "target")
    with pytest.raises(FileNotFoundError, match="config.json does not exist"):
        convert_checkpoint(tmp_path / "nowhere", tmp_path / "target")
    assert_nothing_written(tmp_path)


def test_existing_folder_is_never_overwritten(tmp_path, weights):
    source, target = write_source(tmp_path / "source", weights), tmp_path / "target"
    target.mkdir()
    (target / "thesis.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="is not empty. It was left as it is"):
        convert_checkpoint(source, target)
    assert (target / "thesis.txt").read_text() == "keep me"
    assert_nothing_written(tmp_path, {"source", "target"})


def test_failure_while_writing_leaves_nothing(tmp_path, weights, monkeypatch):
    source = write_source(tmp_path / "source", weights)

    def fail(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr("modeling_ide3d.conversion.convert.write_settings", fail)
    with pytest.raises(OSError, match="no space left"):
        convert_checkpoint(source, tmp_path / "target")
    assert_nothing_written(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "llava_llama"),
        ("mm_newline_position", "one_token"),
        ("mm_newline_position", ...),
        ("mm_spatial_pool_mode", "average"),
        ("mm_projector_type", "linear"),
        ("add_faster_video", True),
        ("ground_head_type", "score"),
        ("ground_token_ids", [297, 298]),
    ],
)
def test_settings_of_another_model_are_refused(tmp_path, weights, key, value):
    source = write_source(tmp_path / "source", weights, **{key: value})
    with pytest.raises(ValueError, match=key):
        convert_checkpoint(source, tmp_path / "target")
    assert_nothing_written(tmp_path)


def test_sizes_of_an_unknown_tower_can_be_given(tmp_path, model, weights):
    source = write_source(tmp_path / "source", weights, oracle_vision_config=...)
    with pytest.raises(ValueError, match="google/some-siglip.*vision_config"):
        convert_checkpoint(source, tmp_path / "target")
    report = convert_checkpoint(source, tmp_path / "target", vision_config=VISION)
    assert set(report.converted.values()) == set(model.state_dict())


def test_tokenizer_gets_the_placeholders_and_a_processor_is_written(tmp_path, model, weights):
    source = write_source(tmp_path / "source", weights, ground_token_ids=[270])
    tokenizer = write_tokenizer(source, words=270, extra=["<ground>"])
    assert tokenizer.convert_tokens_to_ids("<ground>") == 270
    report = convert_checkpoint(source, tmp_path / "target")
    assert report.has_tokenizer
    assert report.added_embedding_rows == 0
    assert report.token_ids == {"image_token_id": 271, "video_token_id": 272, "ground_token_id": 270}

    processor = IDE3DProcessor.from_pretrained(tmp_path / "target")
    converted = load_converted(tmp_path / "target")
    assert (processor.video_token_id, processor.ground_token_id) == (272, 270)
    assert processor.token_grid == converted.config.token_grid
    assert processor.chat_template == DEFAULT_CHAT_TEMPLATE
    assert (tmp_path / "target" / "chat_template.jinja").read_text() == DEFAULT_CHAT_TEMPLATE
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Where?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    batch = processor(text=text, videos=[torch.zeros(2, 3, 40, 50, dtype=torch.uint8)], return_tensors="pt")
    assert (batch["input_ids"] == 272).sum() == 2 * converted.config.tokens_per_frame
    with torch.no_grad():
        assert torch.isfinite(converted(**batch).logits).all()
    assert isinstance(AutoProcessor.from_pretrained(tmp_path / "target"), IDE3DProcessor)


def test_embedding_grows_only_where_rows_are_missing(tmp_path, model, weights):
    source = write_source(tmp_path / "source", weights, ground_token_ids=[VOCAB - 1])
    write_tokenizer(source, words=VOCAB - 1, extra=["<ground>"])
    report = convert_checkpoint(source, tmp_path / "target")
    assert report.added_embedding_rows == 2
    converted = load_converted(tmp_path / "target")
    assert converted.config.text_config.vocab_size == VOCAB + 2
    for layer, old in (
        (converted.lm_head, model.lm_head),
        (converted.get_input_embeddings(), model.get_input_embeddings()),
    ):
        assert torch.equal(layer.weight[:VOCAB], old.weight)
        torch.testing.assert_close(layer.weight[VOCAB:], old.weight.mean(0, keepdim=True).expand(2, -1))


def test_tokenizer_of_another_checkpoint_is_refused(tmp_path, weights):
    source = write_source(tmp_path / "source", weights)
    write_tokenizer(source, words=270, extra=["<ground>"])
    with pytest.raises(ValueError, match=r"`ground_token_ids` is \[298\].* the id 270"):
        convert_checkpoint(source, tmp_path / "target")
    assert_nothing_written(tmp_path)


def test_command_line(tmp_path, weights):
    source = write_source(tmp_path / "source", weights)
    told = run_command("convert", source, tmp_path / "target", "--max-shard-size", "30KB").stdout
    assert load_converted(tmp_path / "target").config.video_token_id == 299
    assert "training-only weights" in told
    shutil.rmtree(tmp_path / "target")


@pytest.mark.parametrize(("text", "expected"), [("5GB", 5 * 10**9), ("1.5 kb", 1500), (7, 7), ("2KiB", 2048)])
def test_sizes(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["much", "5XB", "0", "-1GB", 0, math.nan, None, [], True])
def test_wrong_sizes_are_refused(text):
    with pytest.raises(ValueError, match="max_shard_size"):
        parse_size(text)
