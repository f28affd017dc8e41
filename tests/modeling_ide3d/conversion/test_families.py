"""Families of original checkpoints, a vision tower in a folder of its own, and files that nobody should trust."""

import json
import os
import pickle

import pytest
import torch
from commanding import run_command
from original_checkpoints import (
    EMBEDDINGS,
    LLAVA_VIDEO,
    OLDER,
    TOWER,
    VISION,
    llava_video_weights,
    load_converted,
    older_weights,
    with_rows,
    without,
    write_pickled_source,
    write_siglip,
    write_source,
    write_tokenizer,
)
from safetensors.torch import save_file

from modeling_ide3d.conversion.convert import convert_checkpoint
from modeling_ide3d.conversion.settings import build_config


def assert_only(folder, *names: str):
    assert {path.name for path in folder.iterdir()} == set(names)


def test_llava_video_has_spare_rows(tmp_path, model):
    source = write_source(tmp_path / "source", llava_video_weights(model, 152_064), **LLAVA_VIDEO, vocab_size=152_064)
    report = convert_checkpoint(source, tmp_path / "target")
    assert (report.family, report.embedding_rows, report.added_embedding_rows) == ("LLaVA-Video-Qwen2", 152_064, 0)
    # Behind the words of the tokenizer, never one of them.
    assert report.token_ids == {"image_token_id": 151_646, "video_token_id": 151_647, "ground_token_id": 151_648}
    assert "grounding head" in report.notes[0]
    assert load_converted(tmp_path / "target").lm_head.weight.shape[0] == 152_064


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_3d_ide_lacks_one_row(tmp_path, weights, with_tokenizer):
    weights = with_rows(weights, 151_648)
    # The released configs do not agree with their weights about the vocabulary: the weights count.
    source = write_source(tmp_path / "source", weights, ground_token_ids=[151_647], vocab_size=152_064)
    if with_tokenizer:
        write_tokenizer(source, words=151_646, extra=["<image>", "<ground>"])
    report = convert_checkpoint(source, tmp_path / "target")
    assert (report.family, report.embedding_rows, report.added_embedding_rows) == ("3D-IDE", 151_648, 1)
    assert report.token_ids == {"image_token_id": 151_646, "video_token_id": 151_648, "ground_token_id": 151_647}
    assert "`vocab_size` 152064, the embedding has 151648 rows" in report.notes[0]
    converted = load_converted(tmp_path / "target").state_dict()
    for name, key in (("model.language_model.embed_tokens.weight", EMBEDDINGS[0]), ("lm_head.weight", EMBEDDINGS[1])):
        assert torch.equal(converted[name][:-1], weights[key])
        torch.testing.assert_close(converted[name][-1], weights[key].double().mean(0).float(), atol=1e-7, rtol=1e-5)


def test_older_families_are_refused_unless_asked(tmp_path, model):
    source = write_source(tmp_path / "source", older_weights(model, 151_649), **OLDER, vocab_size=151_649)
    with pytest.raises(ValueError, match=r"Video-3D-LLM or 3DRS.*world positions.*--ignore-position-encoding"):
        convert_checkpoint(source, tmp_path / "target")
    assert "world positions" in run_command("convert", source, tmp_path / "target", code=1).stderr
    assert_only(tmp_path, "source")
    told = run_command("convert", source, tmp_path / "target", "--ignore-position-encoding").stdout
    assert "Video-3D-LLM or 3DRS, 151649 embedding rows" in told
    assert "fine-tune it before use" in told
    report = json.loads((tmp_path / "target" / "conversion_report.json").read_text())
    assert {"model.corres_linear.weight", "model.linear_dc.weight"} < set(report["training_only"])
    assert report["newly_initialized"] == ["grounding_head.empty_region"]


@pytest.mark.parametrize(
    ("rows", "changes", "is_refused"),
    [
        (300, {"skip_3d_pe_fusion": False, "world_position_embedding_type": "avg-discrete-sin3d"}, True),
        (300, {"skip_3d_pe_fusion": True, "world_position_embedding_type": "avg-discrete-sin3d"}, False),
        # The original's own default, in a config that does not say it.
        (300, {"skip_3d_pe_fusion": ..., "world_position_embedding_type": "avg-discrete-sin3d"}, False),
        # A config without the word does not make the weights of another family safe.
        (151_649, {**OLDER, "world_position_embedding_type": ...}, True),
        (151_648, OLDER, False),
    ],
)
def test_who_has_a_position_encoding(tmp_path, model, weights, rows, changes, is_refused):
    is_older = changes.get("use_depth_auxiliary_task") is ...
    weights = without(with_rows(weights, rows), "model.dpt_module.") if is_older else weights
    source = write_source(tmp_path / "source", weights, **changes, vocab_size=rows)
    if is_refused:
        with pytest.raises(ValueError, match="`ignore_position_encoding=True`"):
            convert_checkpoint(source, tmp_path / "target")
    assert convert_checkpoint(source, tmp_path / "target", ignore_position_encoding=is_refused).converted


def test_learned_position_encoding_is_refused_and_accounted_for(tmp_path, model):
    weights = llava_video_weights(model, 300)
    weights["model.world_position_embedding.mlp.0.weight"] = torch.zeros(512, 3)
    source = write_source(tmp_path / "source", weights, **LLAVA_VIDEO)
    with pytest.raises(ValueError, match="world positions"):
        convert_checkpoint(source, tmp_path / "target")
    report = convert_checkpoint(source, tmp_path / "target", ignore_position_encoding=True)
    assert "world positions" in report.dropped["model.world_position_embedding.mlp.0.weight"]


@pytest.mark.parametrize("whole", [True, False])
def test_vision_tower_is_taken_from_a_folder(tmp_path, model, weights, whole):
    siglip = write_siglip(tmp_path / "siglip", weights, whole)
    changes = {"oracle_vision_config": ..., "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter"}
    source = write_source(tmp_path / "source", without(weights, TOWER), **changes)
    with pytest.raises(ValueError, match=r"no vision tower.*google/some-siglip.*--vision-tower.*never.*random"):
        convert_checkpoint(source, tmp_path / "target")
    report = convert_checkpoint(source, tmp_path / "target", vision_tower=siglip)
    assert report.vision_tower == str(siglip)
    assert "mm_tunable_parts" in report.notes[0]
    converted = load_converted(tmp_path / "target").state_dict()
    assert all(torch.equal(converted[name], tensor) for name, tensor in model.state_dict().items())


def test_tower_inside_the_checkpoint_comes_first(tmp_path, model, weights, caplog):
    siglip = write_siglip(tmp_path / "siglip", {key: tensor + 1 for key, tensor in weights.items()})
    source = write_source(tmp_path / "source", weights, oracle_vision_config=...)
    run_command("convert", source, tmp_path / "target", "--vision-tower", siglip)
    assert "holds its own vision tower" in caplog.text
    converted = load_converted(tmp_path / "target").state_dict()
    assert all(torch.equal(converted[name], tensor) for name, tensor in model.state_dict().items())


def test_incomplete_or_strange_towers_are_refused(tmp_path, weights):
    source = write_source(tmp_path / "source", without(weights, TOWER), oracle_vision_config=...)
    siglip = write_siglip(tmp_path / "siglip", without(weights, f"{TOWER}encoder.layers.1."))
    with pytest.raises(ValueError, match=r"lacks 16 weights .*vision_tower\.encoder\.layers\.1"):
        convert_checkpoint(source, tmp_path / "target", vision_tower=siglip)
    (siglip / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(ValueError, match=r"siglip.config\.json.*clip"):
        convert_checkpoint(source, tmp_path / "target", vision_tower=siglip)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        convert_checkpoint(source, tmp_path / "target", vision_tower=tmp_path / "nowhere")
    part = {key: tensor for key, tensor in weights.items() if not key.startswith(f"{TOWER}embeddings")}
    with pytest.raises(ValueError, match=r"lacks 3 weights .*vision_tower\.embeddings"):
        convert_checkpoint(write_source(tmp_path / "part", part), tmp_path / "target", vision_config=VISION)
    assert_only(tmp_path, "source", "siglip", "part")


def test_tower_may_be_named_by_a_local_folder():
    original = {
        "mm_vision_tower": "data/models/siglip-so400m-patch14-384",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    }
    ids = {"image_token_id": 1, "video_token_id": 2, "ground_token_id": 3}
    assert build_config(original, ids, 10).vision_config.hidden_size == 1152


def test_placeholders_never_take_the_row_of_a_word(tmp_path, model):
    """Without tokenizer files, 3D-IDE's spare row alone is not enough: rows are added, no mark of the chat is lost."""
    weights = llava_video_weights(model, 151_646)
    report = convert_checkpoint(write_source(tmp_path / "source", weights, **LLAVA_VIDEO), tmp_path / "target")
    assert min(report.token_ids.values()) == 151_646
    assert report.added_embedding_rows == 3


class Evil:
    """Runs a command when a careless reader unpickles it."""

    def __init__(self, trace: str):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("protocol", ["torch", "plain"])
def test_pickle_that_runs_code_is_refused(tmp_path, weights, protocol):
    trace = tmp_path / "trace"
    source = write_pickled_source(tmp_path / "source", weights)
    content = {**weights, "model.norm.bias": Evil(str(trace))}
    if protocol == "torch":
        torch.save(content, source / "pytorch_model.bin")
    else:
        (source / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.bias": Evil(str(trace))}))
    with pytest.raises(ValueError, match=r"source.pytorch_model\.bin was not loaded.*code"):
        convert_checkpoint(source, tmp_path / "target")
    assert_only(tmp_path, "source")
    torch.load(source / "pytorch_model.bin", weights_only=False) if protocol == "torch" else pickle.loads(
        (source / "pytorch_model.bin").read_bytes()
    )
    assert trace.is_dir(), "the file is harmless, so this test shows nothing"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "dict of tensors, got list"),
        ({"model.norm.weight": 3}, "'model.norm.weight': int"),
        ({7: torch.zeros(2)}, "7: Tensor"),
        ({"model.norm.weight": torch.zeros(2).to_sparse()}, "'model.norm.weight': Tensor"),
        ({"model.norm.weight": torch.zeros(2, dtype=torch.complex64)}, "'model.norm.weight': Tensor"),
    ],
)
def test_pickle_of_anything_else_is_refused(tmp_path, content, message):
    source = write_pickled_source(tmp_path / "source", {})
    torch.save(content, source / "pytorch_model.bin")
    with pytest.raises(ValueError, match=f"pytorch_model.bin must hold.*{message}"):
        convert_checkpoint(source, tmp_path / "target")
    assert_only(tmp_path, "source")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pickled_shards_of_every_age_are_read(tmp_path, model, weights, legacy, dtype):
    weights = {key: tensor.to(dtype) for key, tensor in weights.items()}
    weights["lm_head.weight"] = weights["lm_head.weight"].T.contiguous().T  # as a view may be stored
    weights["model.norm.weight"] = torch.nn.Parameter(weights["model.norm.weight"])
    source = write_pickled_source(tmp_path / "source", weights, shards=2)
    if legacy:
        for file in source.glob("*.bin"):
            torch.save(torch.load(file), file, _use_new_zipfile_serialization=False)
    convert_checkpoint(source, tmp_path / "target", max_shard_size="20KB")
    converted = load_converted(tmp_path / "target").state_dict()
    assert all(torch.equal(converted[name], tensor.to(dtype)) for name, tensor in model.state_dict().items())


def test_pickled_names_of_one_storage_are_written_apart(tmp_path, weights):
    """`torch.save` keeps tied weights once, and views of one tensor with the whole of it."""
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    whole = torch.randn(30)
    both = weights["model.norm.weight"], weights["model.image_newline"] = whole[1:25], whole[3:27]
    source = write_pickled_source(tmp_path / "source", weights)
    convert_checkpoint(source, tmp_path / "target")
    converted = load_converted(tmp_path / "target").state_dict()
    assert torch.equal(converted["lm_head.weight"], weights["model.embed_tokens.weight"])
    assert torch.equal(converted["model.language_model.embed_tokens.weight"], weights["model.embed_tokens.weight"])
    assert torch.equal(converted["model.language_model.norm.weight"], both[0])
    assert torch.equal(converted["model.image_newline"], both[1])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "[]", r"config\.json must hold a JSON object"),
        ("config.json", "{", r"config\.json is not valid JSON"),
        ("generation_config.json", "?", r"generation_config\.json is not valid JSON"),
        ("tokenizer.json", '{"version": ', r"tokenizer\.json is not valid JSON"),
        ("model.safetensors.index.json", '{"weight_map": []}', r"index\.json is not a valid weight index"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../a.safetensors"}}', "its own folder"),
        ("model.safetensors.index.json", '{"weight_map": {"model.ghost": "model.safetensors"}}', "model.ghost"),
        ("model.safetensors", "no weights at all", r"model\.safetensors is truncated or no safetensors file"),
    ],
)
def test_damaged_files_are_named(tmp_path, weights, name, content, message):
    source = write_source(tmp_path / "source", weights)
    (source / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(source, tmp_path / "deep" / "down" / "target")
    assert_only(tmp_path, "source")


def test_types_that_nothing_here_knows_are_named(tmp_path, weights):
    source = write_source(tmp_path / "source", weights)
    save_file({"model.norm.weight": torch.zeros(8).to(torch.float8_e4m3fn)}, source / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"model\.safetensors must hold .*'model\.norm\.weight': Tensor of torch\.float8_e4m3fn"
    ):
        convert_checkpoint(source, tmp_path / "target")


@pytest.mark.parametrize("embedding", [torch.zeros(300, 24, dtype=torch.int8), torch.zeros(300)])
def test_strange_embeddings_are_refused(tmp_path, weights, embedding):
    source = write_source(tmp_path / "source", {**weights, EMBEDDINGS[0]: embedding})
    with pytest.raises(ValueError, match=r"model\.embed_tokens\.weight in .*must be a floating-point matrix"):
        convert_checkpoint(source, tmp_path / "target")


def test_adapters_are_not_taken_for_a_checkpoint(tmp_path):
    source = write_source(tmp_path / "source", {"base_model.model.lora_A.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"lack model\.embed_tokens\.weight.*LoRA"):
        convert_checkpoint(source, tmp_path / "target")
