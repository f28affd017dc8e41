"""The way back: a converted checkpoint in its original layout, byte for byte."""

import json
from pathlib import Path

import pytest
import torch
from commanding import run_command
from original_checkpoints import (
    LLAVA_VIDEO,
    OLDER,
    TOWER,
    build_model,
    llava_video_weights,
    load_converted,
    older_weights,
    original_weights,
    with_rows,
    without,
    write_pickled_source,
    write_siglip,
    write_source,
    write_tokenizer,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from modeling_ide3d.conversion.convert import convert_checkpoint
from modeling_ide3d.conversion.restore import restore_checkpoint


@pytest.fixture
def converted(tmp_path, weights) -> Path:
    source = write_source(tmp_path / "source", weights, shards=2)
    return convert_checkpoint(source, tmp_path / "converted", max_shard_size="20KB").target_dir


def assert_same_files(first: Path, second: Path):
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


def round_trip(source: Path, **options) -> Path:
    convert_checkpoint(source, source.parent / "converted", max_shard_size="30KB", **options)
    restore_checkpoint(source.parent / "converted", source.parent / "restored")
    return source.parent / "restored"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shards", [1, 3])
def test_3d_ide_comes_back_byte_for_byte(tmp_path, weights, shards, dtype):
    """What is kept aside and what nothing uses comes back too; mixed types keep theirs."""
    weights = {key: tensor.to(dtype) for key, tensor in weights.items()}
    weights["model.norm.weight"] = weights["model.norm.weight"].double()
    source = write_source(tmp_path / "source", weights, shards=shards)
    assert_same_files(source, round_trip(source))


def test_other_families_and_settings_come_back_byte_for_byte(tmp_path, model):
    source = write_source(tmp_path / "source", llava_video_weights(model, 300), **LLAVA_VIDEO, shards=2)
    write_tokenizer(source, words=270, extra=["<image>"])
    (source / "chat_template.jinja").unlink()
    (source / "generation_config.json").write_text('{"eos_token_id":   [1, 3]}')
    assert_same_files(source, round_trip(source))


def test_added_rows_are_cut_off(tmp_path, weights):
    source = write_source(
        tmp_path / "source", with_rows(weights, 151_648), vocab_size=151_648, ground_token_ids=[151_647]
    )
    restored = round_trip(source)
    assert json.loads((tmp_path / "converted" / "conversion_report.json").read_text())["added_embedding_rows"] == 1
    assert_same_files(source, restored)


def test_older_family_comes_back_without_the_vector_it_never_had(tmp_path, model, caplog):
    source = write_source(tmp_path / "source", older_weights(model, 300), **OLDER)
    restored = round_trip(source, ignore_position_encoding=True)
    assert_same_files(source, restored)
    assert "1 weights: [grounding_head.empty_region]" in caplog.text


def test_separate_tower_stays_separate(tmp_path, weights):
    siglip = write_siglip(tmp_path / "siglip", weights)
    source = write_source(tmp_path / "source", without(weights, TOWER), oracle_vision_config=...)
    assert_same_files(source, round_trip(source, vision_tower=siglip))


@pytest.mark.parametrize("ground", [298, 301])
def test_tied_head_comes_back(tmp_path, ground):
    """Also where the embedding grows: the copy of it that is put aside does not."""
    weights = original_weights(build_model(tie=True))
    source = write_source(tmp_path / "source", weights, tie_word_embeddings=True, ground_token_ids=[ground])
    assert_same_files(source, round_trip(source))
    assert load_converted(tmp_path / "converted").lm_head.weight.shape[0] == max(300, ground + 1)


def test_file_of_another_writer_comes_back_with_its_tensors_and_metadata(tmp_path, weights):
    """Order of tensors and padding are those of safetensors, whatever they were in the source."""
    source = write_source(tmp_path / "source", weights)
    path = source / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + size])
    entries["__metadata__"] = {"format": "pt", "note": "zwölf Räume"}
    header = json.dumps(dict(reversed(entries.items())), ensure_ascii=False).encode() + b" " * 17
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    restored = round_trip(source)
    assert (source / "config.json").read_bytes() == (restored / "config.json").read_bytes()
    before, after = (safe_open(folder / "model.safetensors", framework="pt") for folder in (source, restored))
    assert after.metadata() == before.metadata() == entries["__metadata__"]
    assert set(after.keys()) == set(before.keys())
    assert all(torch.equal(after.get_tensor(key), before.get_tensor(key)) for key in before.keys())


def test_missing_metadata_stays_missing(tmp_path, weights):
    source = write_source(tmp_path / "source", weights)
    save_file(weights, source / "model.safetensors")
    assert_same_files(source, round_trip(source))


def test_folders_of_earlier_conversions_are_restored(tmp_path, converted):
    """Version 0.1 kept the header of each weight file as it is written, offsets included."""
    files = []
    for file in sorted((tmp_path / "source").glob("model-*.safetensors")):
        data = file.read_bytes()
        entries = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        files.append({"name": file.name, "header": json.dumps(dict(reversed(entries.items()))) + "   "})
    (converted / "original_layout" / "layout.json").write_text(json.dumps({"files": files}))
    restore_checkpoint(converted, tmp_path / "restored")
    assert_same_files(tmp_path / "source", tmp_path / "restored")


@pytest.mark.parametrize("shards", [1, 2])
def test_pickled_files_come_back_with_the_same_tensors(tmp_path, weights, shards):
    # Half of them in another type: the order must not depend on it.
    weights = {key: t.bfloat16() if number % 2 else t for number, (key, t) in enumerate(weights.items())}
    source = write_pickled_source(tmp_path / "source", weights, shards=shards)
    restored = round_trip(source)
    assert {path.name for path in source.iterdir()} == {path.name for path in restored.iterdir()}
    for path in source.iterdir():
        if path.suffix != ".bin":
            assert path.read_bytes() == (restored / path.name).read_bytes()
            continue
        before, after = torch.load(path), torch.load(restored / path.name)
        assert list(before) == list(after)
        assert all(before[key].dtype == after[key].dtype and torch.equal(before[key], after[key]) for key in before)


def test_what_was_trained_here_is_written_under_the_original_names(tmp_path, converted, weights):
    model = load_converted(converted)
    with torch.no_grad():
        model.model.multi_modal_projector.linear_1.weight.add_(1)
    for file in converted.glob("model*"):
        file.unlink()
    model.save_pretrained(converted)
    restore_checkpoint(converted, tmp_path / "restored")
    files = sorted((tmp_path / "restored").glob("model-*.safetensors"))
    restored = {key: tensor for file in files for key, tensor in load_file(file).items()}
    assert [file.name for file in files] == [file.name for file in sorted((tmp_path / "source").glob("model-*"))]
    changed = {key for key, tensor in weights.items() if not torch.equal(restored[key], tensor)}
    assert changed == {"model.mm_projector.0.weight"}
    torch.testing.assert_close(restored["model.mm_projector.0.weight"], weights["model.mm_projector.0.weight"] + 1)


def drop_weight(folder: Path, change):
    file = folder / "model.safetensors"
    tensors = {key: tensor for path in folder.glob("model*.safetensors") for key, tensor in load_file(path).items()}
    for path in folder.glob("model*"):
        path.unlink()
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda f: (f / "conversion_report.json").unlink(),
            FileNotFoundError,
            r"conversion_report\.json does not exist",
        ),
        (
            lambda f: (f / "original_layout" / "layout.json").unlink(),
            FileNotFoundError,
            r"layout\.json does not exist",
        ),
        (lambda f: (f / "original_layout" / "layout.json").write_text("{"), ValueError, r"layout\.json is not valid"),
        (lambda f: (f / "conversion_report.json").write_text("[]"), ValueError, "is not what a conversion writes"),
        (
            lambda f: (f / "original_layout" / "layout.json").write_text('{"files": [{"name": "x", "header": "?"}]}'),
            ValueError,
            "is not what a conversion writes",
        ),
        (
            lambda f: (f / "original_layout" / "layout.json").write_text(
                '{"files": [{"name": "../x", "header": "{}"}]}'
            ),
            ValueError,
            "without a folder",
        ),
        (lambda f: (f / "original_layout" / "unused_weights.safetensors").unlink(), ValueError, "lacks 18 weights"),
        (
            lambda f: drop_weight(f, lambda w: w.pop("model.image_newline")),
            ValueError,
            r"lacks 1 weights of the original: \[model\.image_newline\]",
        ),
        (
            lambda f: drop_weight(f, lambda w: w.update({"lm_head.weight": w["lm_head.weight"].half()})),
            ValueError,
            r"lm_head\.weight in .*: expected F32 \(300, 24\)",
        ),
        (
            lambda f: drop_weight(f, lambda w: w.update({"lm_head.weight": w["lm_head.weight"][:-1].clone()})),
            ValueError,
            r"lm_head\.weight in ",
        ),
    ],
)
def test_what_cannot_come_back_is_named_and_leaves_nothing(tmp_path, converted, spoil, error, message):
    spoil(converted)
    with pytest.raises(error, match=message):
        restore_checkpoint(converted, tmp_path / "restored")
    assert run_command("convert", "--back", converted, tmp_path / "restored", code=1).stderr.startswith(
        "ide3d convert: "
    )
    assert {path.name for path in tmp_path.iterdir()} == {"source", "converted"}


def test_truncated_shard_is_named(tmp_path, converted):
    shard = sorted(converted.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{shard.name} is truncated"):
        restore_checkpoint(converted, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_command_line_and_existing_folder(tmp_path, converted):
    told = run_command("convert", "--back", converted, tmp_path / "restored").stdout
    assert_same_files(tmp_path / "source", tmp_path / "restored")
    assert "The original checkpoint is in" in told
    with pytest.raises(FileExistsError, match="is not empty. It was left as it is"):
        restore_checkpoint(converted, tmp_path / "restored")


def test_trained_tied_head_comes_back_as_the_embedding(tmp_path):
    """The copy of the head that was put aside is the embedding before the training."""
    source = write_source(tmp_path / "source", original_weights(build_model(tie=True)), tie_word_embeddings=True)
    convert_checkpoint(source, tmp_path / "converted")
    path = tmp_path / "converted" / "model.safetensors"
    weights = load_file(path)
    weights["model.language_model.embed_tokens.weight"] += 1
    save_file(weights, path, metadata={"format": "pt"})
    restore_checkpoint(tmp_path / "converted", tmp_path / "restored")
    restored = load_file(tmp_path / "restored" / "model.safetensors")
    assert torch.equal(restored["lm_head.weight"], restored["model.embed_tokens.weight"])
    assert torch.equal(restored["lm_head.weight"], weights["model.language_model.embed_tokens.weight"])
