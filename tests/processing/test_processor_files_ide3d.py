"""Damaged files of a processor are named by their path."""

import inspect
import json

import pytest
from transformers import AutoProcessor

from modeling_ide3d import loading_ide3d
from processing import IDE3DProcessor, processor_files_ide3d


@pytest.fixture
def folder(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"[1, 2]", b"\xff\xfe\x00\x80", b"[" * 100_000])
@pytest.mark.parametrize("name", ["processor_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_damaged_json_file_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(OSError, match=rf"{folder / name} (is damaged|must hold a JSON object).*Copy or download"):
        IDE3DProcessor.from_pretrained(folder)


def test_template_that_is_no_text_is_named(folder):
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(OSError, match=r"chat_template\.jinja is no text in UTF-8"):
        IDE3DProcessor.from_pretrained(folder)


@pytest.mark.parametrize("name", ["processor_config.json", "tokenizer.json"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(OSError, match=f"{folder} has no {name}"):
        IDE3DProcessor.from_pretrained(folder)


def test_tokenizer_of_another_content_names_the_folder(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": 7}')
    with pytest.raises(OSError, match=f"The files of the processor in {folder} cannot be read"):
        IDE3DProcessor.from_pretrained(folder)


def test_files_through_the_automatic_class(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(OSError, match=r"tokenizer\.json is damaged"):
        AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize("name", ["image_mean", "image_std"])
def test_images_and_videos_are_normalised_alike(folder, name):
    path = folder / "processor_config.json"
    content = json.loads(path.read_text())
    content["video_processor"][name] = [0.1, 0.1, 0.1]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{name} is .*0\.5.* in the image processor and .*0\.1"):
        IDE3DProcessor.from_pretrained(folder)
    content["image_processor"][name] = [0.1, 0.1, 0.1]
    path.write_text(json.dumps(content))
    assert IDE3DProcessor.from_pretrained(folder)


def test_model_and_processor_judge_a_name_alike():
    """Core and processing import nothing of each other, so the rule stands in both."""
    assert inspect.getsource(processor_files_ide3d.check_place) == inspect.getsource(loading_ide3d.check_place)
