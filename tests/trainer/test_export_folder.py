"""Where and what `export_inference_model` writes, what it refuses, and that nothing of anybody is lost."""

import copy
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from exporting import (
    EXPORT_FILES,
    build_inputs,
    build_model,
    build_processor,
    build_training_model,
    contents_of,
    names_in,
    write_video,
)
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModel, PreTrainedTokenizerFast

from processing import IDE3DProcessor
from trainer.export import check_agreement, export_inference_model, is_export, replace_folder


@pytest.fixture(scope="module")
def processor() -> IDE3DProcessor:
    return build_processor()


@pytest.fixture(scope="module")
def training_model(processor):
    return build_training_model(processor)


@pytest.fixture(scope="module")
def export(processor, tmp_path_factory) -> Path:
    return export_inference_model(build_model(processor), processor, tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="module")
def inputs(processor, tmp_path_factory) -> dict[str, torch.Tensor]:
    return build_inputs(processor, write_video(tmp_path_factory.mktemp("video") / "room.mp4"))


def test_inference_model_exports_as_well(processor, inputs, tmp_path):
    model = build_model(processor, seed=1)
    loaded = AutoModel.from_pretrained(export_inference_model(model, processor, tmp_path / "out"))
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)


def test_how_a_tokenizer_was_loaded_stays_out(processor, export, tmp_path):
    loaded = IDE3DProcessor.from_pretrained(export, local_files_only=True)
    assert loaded.tokenizer.init_kwargs["local_files_only"]
    again = export_inference_model(build_model(loaded), loaded, tmp_path / "again")
    config = json.loads((again / "tokenizer_config.json").read_text())
    assert not {"is_local", "local_files_only"} & set(config) and config["eos_token"]


def test_tied_embeddings_are_stored_once_and_stay_tied(processor, inputs, tmp_path):
    model = build_model(processor, tie_word_embeddings=True)
    folder = export_inference_model(model, processor, tmp_path / "out")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    loaded = AutoModel.from_pretrained(folder)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)


def test_dtype_changes_the_saved_weights_only(processor, tmp_path):
    model = build_model(processor)
    folder = export_inference_model(model, processor, tmp_path / "out", dtype=torch.bfloat16)
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    config = json.loads((folder / "config.json").read_text())
    assert [config["dtype"], config["text_config"]["dtype"], config["vision_config"]["dtype"]] == ["bfloat16"] * 3
    assert AutoModel.from_pretrained(folder).dtype == torch.bfloat16
    assert model.dtype == torch.float32 and model.config.dtype != torch.bfloat16


def test_dtype_may_be_a_name_and_nothing_else_than_a_type_of_weights(processor, tmp_path):
    model = build_model(processor)
    folder = export_inference_model(model, processor, tmp_path / "out", dtype="bfloat16")
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    for dtype in ("float17", "int8", torch.int8, torch.bool, "nn", 16):
        with pytest.raises(ValueError, match=r"dtype must be one of .*torch\.bfloat16.* or None, got"):
            export_inference_model(model, processor, tmp_path / "none", dtype=dtype)
    assert names_in(tmp_path) == {"out"}


@pytest.mark.parametrize("dtype", ["float16", torch.float16])
def test_weights_beyond_the_type_are_named_and_nothing_is_written(processor, tmp_path, dtype):
    model = build_model(processor)
    model.lm_head.weight.data[0, 0] = -1e6
    with pytest.raises(
        ValueError, match=r"1 weights do not fit into torch.float16, up to 1e\+06: .*lm_head.*bfloat16"
    ):
        export_inference_model(model, processor, tmp_path / "out", dtype=dtype)
    assert not (tmp_path / "out").exists()
    export_inference_model(model, processor, tmp_path / "out", dtype=torch.bfloat16)


def test_what_is_no_name_of_a_folder_is_refused(processor, tmp_path):
    model, file = build_model(processor), tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ValueError, match="`folder` must be a path, not empty and without NUL, got ''"):
        export_inference_model(model, processor, "")
    with pytest.raises(TypeError, match="`folder` must be a path, as text or `pathlib.Path`, got None"):
        export_inference_model(model, processor, None)
    with pytest.raises(FileExistsError, match=f"{file} exists and is not a folder"):
        export_inference_model(model, processor, file)
    assert file.read_text() == "mine"


def test_own_card_is_written(processor, tmp_path):
    card = ModelCard("---\nlicense: mit\n---\n\n# Mine\n")
    folder = export_inference_model(build_model(processor), processor, tmp_path / "out", card=card)
    assert "# Mine" in (folder / "README.md").read_text()


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 10}, "processor.patch_size is 10, model.config.vision_config.patch_size is 14"),
        ({"image_size": 84}, "processor.image_size is 84, model.config.vision_config.image_size is 70"),
        ({"spatial_pool_stride": 1}, "processor.spatial_pool_stride is 1, model.config.spatial_pool_stride is 2"),
    ],
)
def test_other_grid_raises_and_names_both(processor, training_model, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        export_inference_model(training_model, build_processor(**changes), tmp_path / "out")
    assert names_in(tmp_path) == set()


def test_other_token_ids_and_sizes_of_parts_raise(processor, training_model):
    config = copy.deepcopy(training_model.config)
    config.video_token_id = processor.video_token_id - 3
    with pytest.raises(ValueError, match="processor.video_token_id is .* model.config.video_token_id is"):
        check_agreement(config, processor)
    other = copy.deepcopy(processor)
    other.video_processor.size = {"height": 84, "width": 84}
    with pytest.raises(ValueError, match="processor.video_processor.size is"):
        check_agreement(training_model.config, other)


def test_tokenizer_larger_than_the_embedding_raises(training_model):
    processor = build_processor()
    processor.tokenizer.add_tokens(["<extra>"])
    with pytest.raises(ValueError, match="resize_token_embeddings"):
        check_agreement(training_model.config, processor)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_shard_size": 0}, "max_shard_size must be a number of bytes"),
        ({"max_shard_size": float("nan")}, "max_shard_size must be a number of bytes"),
        ({"card": "x"}, "card must be a huggingface_hub.ModelCard or None, got str"),
        ({"model": {}}, "model must be an IDE3DForConditionalGeneration, got dict"),
        ({"folder": "a\0b"}, "`folder` must be a path"),
    ],
)
def test_what_an_export_cannot_be_made_of_is_named(processor, tmp_path, fields, message):
    given = {"model": build_model(processor), "processor": processor, "folder": tmp_path / "export", **fields}
    with pytest.raises((TypeError, ValueError), match=message):
        export_inference_model(**given)
    assert not any(tmp_path.iterdir())


def test_wrong_types_raise(processor, training_model, tmp_path):
    with pytest.raises(TypeError, match="IDE3DForConditionalGeneration"):
        export_inference_model(training_model.model, processor, tmp_path / "out")
    with pytest.raises(TypeError, match="IDE3DProcessor"):
        export_inference_model(training_model, processor.tokenizer, tmp_path / "out")
    with pytest.raises(ValueError, match="auto_model"):
        export_inference_model(training_model, processor, tmp_path / "out", auto_model="bare")
    assert isinstance(processor.tokenizer, PreTrainedTokenizerFast) and names_in(tmp_path) == set()


def test_weights_that_are_not_the_models_own_raise(processor, tmp_path):
    model = build_model(processor)
    model.model.language_model.layers[0].adapter = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"foreign \['model.language_model.layers.0.adapter"):
        export_inference_model(model, processor, tmp_path / "out")


def test_diverged_offloaded_or_mixed_weights_raise(processor, tmp_path):
    model = build_model(processor)
    model.lm_head.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinite weights in \['lm_head.weight'\]"):
        export_inference_model(model, processor, tmp_path / "out")
    model = build_model(processor)
    model.grounding_head.to("meta")
    with pytest.raises(ValueError, match="not in memory"):
        export_inference_model(model, processor, tmp_path / "out")
    model = build_model(processor)
    model.grounding_head.to(torch.bfloat16)
    with pytest.raises(ValueError, match="several types.*dtype="):
        export_inference_model(model, processor, tmp_path / "out")
    assert names_in(tmp_path) == set()


def test_missing_or_truncated_weights_raise_on_loading(processor, export, tmp_path):
    broken = shutil.copytree(export, tmp_path / "truncated")
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(OSError, match="truncated"):
        AutoModel.from_pretrained(broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(OSError, match="model.safetensors"):
        AutoModel.from_pretrained(broken)
    sharded = export_inference_model(build_model(processor), processor, tmp_path / "sharded", max_shard_size="40KB")
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(OSError, match=shard.name):
        AutoModel.from_pretrained(sharded)


# Nothing is lost


def test_earlier_export_is_replaced(processor, tmp_path):
    folder = tmp_path / "out"
    first = build_model(processor, seed=1)
    export_inference_model(first, processor, folder, max_shard_size="40KB")
    second = build_model(processor, seed=2)
    export_inference_model(second, processor, folder)
    assert names_in(folder) == EXPORT_FILES and names_in(tmp_path) == {"out"}
    assert torch.equal(load_file(folder / "model.safetensors")["lm_head.weight"], second.lm_head.weight)


@pytest.mark.parametrize("foreign", ["notes.txt", "training_args.bin", "subfolder/", ".hidden"])
def test_export_with_a_foreign_file_is_never_overwritten(processor, export, tmp_path, foreign):
    folder = shutil.copytree(export, tmp_path / "out")
    (folder / foreign).mkdir() if foreign.endswith("/") else (folder / foreign).write_text("mine")
    before = contents_of(folder)
    with pytest.raises(FileExistsError, match="not an earlier export"):
        export_inference_model(build_model(processor, seed=3), processor, folder)
    assert contents_of(folder) == before and names_in(tmp_path) == {"out"}


def test_folders_of_others_are_never_overwritten(processor, export, tmp_path):
    model = build_model(processor)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text('{"model_type": "bert"}')
    resaved = tmp_path / "resaved"  # the same files, but a card: somebody loaded an export, trained on, saved
    shutil.copytree(export, resaved, ignore=shutil.ignore_patterns("README.md"))
    before = contents_of(resaved)
    for folder in (tmp_path / "file", tmp_path / "folder", resaved):
        with pytest.raises(FileExistsError):
            export_inference_model(model, processor, folder)
    assert contents_of(resaved) == before
    assert (tmp_path / "file").read_text() == "mine" and names_in(tmp_path / "folder") == {"config.json"}


def test_empty_and_new_folders_are_filled(processor, tmp_path):
    (tmp_path / "empty").mkdir()
    model = build_model(processor)
    for folder in (tmp_path / "empty", tmp_path / "new" / "deep"):
        assert names_in(export_inference_model(model, processor, folder)) == EXPORT_FILES


def test_failure_in_the_middle_leaves_what_was_there(processor, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    export_inference_model(build_model(processor, seed=1), processor, folder)
    before = contents_of(folder)

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(IDE3DProcessor, "save_pretrained", fail)
    for target in (folder, tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            export_inference_model(build_model(processor, seed=2), processor, target)
    assert contents_of(folder) == before and names_in(tmp_path) == {"out"}


def test_folder_that_appears_meanwhile_is_not_overwritten(tmp_path):
    with pytest.raises(FileExistsError), replace_folder(tmp_path / "out") as unfinished:
        (unfinished / "new").write_text("")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("mine")
    assert names_in(tmp_path) == {"out"} and names_in(tmp_path / "out") == {"mine"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_export_leaves_nothing_under_its_name(tmp_path, caplog):
    child = os.fork()
    if child == 0:
        try:
            with replace_folder(tmp_path / "out") as unfinished:
                (unfinished / "model.safetensors").write_bytes(b"half of it")
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)  # the child must not go on as a second pytest
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (tmp_path / "out").exists()
    with replace_folder(tmp_path / "out") as unfinished:
        (unfinished / "whole").write_text("")
    assert names_in(tmp_path / "out") == {"whole"} and "was killed" in caplog.text


def test_is_export_knows_ours(export, tmp_path):
    assert is_export(export)
    assert not is_export(tmp_path) and not is_export(tmp_path / "absent")
