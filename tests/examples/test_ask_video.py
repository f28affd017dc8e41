"""`ask_video.py` with a file, with a folder of images, and with what a person gets wrong."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from example_scripts import EXAMPLES, load_script
from exporting import NUM_FRAMES, build_inputs, build_model, build_processor, write_video
from PIL import Image

from modeling_ide3d import IDE3DForConditionalGeneration
from processing import IDE3DProcessor
from trainer.export import export_inference_model
from trainer.session import SceneSession

SCRIPT = EXAMPLES / "ask_video.py"


@pytest.fixture(scope="module")
def ask_video():
    return load_script("ask_video")


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    processor = build_processor()
    return export_inference_model(build_model(processor), processor, tmp_path_factory.mktemp("export") / "model")


@pytest.fixture
def run(ask_video, monkeypatch, capsys):
    """Run the command line; gives what it printed, or raises SystemExit with the message."""

    def call(*arguments) -> str:
        monkeypatch.setattr(sys, "argv", ["ask_video.py", *map(str, arguments)])
        ask_video.main()
        return capsys.readouterr().out

    return call


@pytest.fixture
def video(tmp_path) -> Path:
    return write_video(tmp_path / "room.mp4")


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(NUM_FRAMES - 1):
        Image.fromarray(np.full((40, 60, 3), 50 * index, np.uint8)).save(folder / f"frame_{index}.png")
    return folder


def test_answers_about_a_file_and_a_folder(run, export, video, images):
    for path in (video, images):
        answer = run(export, path, "Where is the lamp?", "--max-new-tokens", 4, "--device", "cpu")
        assert answer.endswith("\n") and len(answer) > 1


def test_question_frames_and_length_reach_the_model(run, export, video, monkeypatch):
    seen = {}
    answer = SceneSession.answer

    def record(self, questions, regions=None, **kwargs):
        seen.update(kwargs, questions=questions, frames=self.num_frames)
        return answer(self, questions, regions, **kwargs)

    monkeypatch.setattr(SceneSession, "answer", record)
    run(export, video, "How many chairs?", "--num-frames", 2, "--max-new-tokens", 3, "--device", "cpu")
    assert seen["frames"] == 2 and seen["max_new_tokens"] == 3 and seen["questions"] == ["How many chairs?"]


def test_the_answer_is_that_of_generate(run, export, video):
    processor = IDE3DProcessor.from_pretrained(export)
    inputs = build_inputs(processor, video, add_generation_prompt=True)
    tokens = IDE3DForConditionalGeneration.from_pretrained(export).generate(**inputs, max_new_tokens=5)
    text = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert run(export, video, "Where is the lamp?", "--max-new-tokens", 5, "--device", "cpu") == text + "\n"


def test_no_code_of_the_folder_is_run(run, export, video, tmp_path):
    strange = shutil.copytree(export, tmp_path / "strange")
    for file in strange.glob("*.py"):
        file.write_text("raise SystemExit('code of the folder was run')")
    words = ("Hello?", "--max-new-tokens", 3, "--device", "cpu")
    assert run(strange, video, *words) == run(export, video, *words)


@pytest.mark.slow
def test_runs_as_a_script_from_anywhere(export, video, tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "huggingface")}
    command = [sys.executable, str(SCRIPT), str(export), str(video), "Hello?", "--max-new-tokens", "3"]
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-2000:]
    assert process.stdout.endswith("\n") and len(process.stdout) > 1


def fails(run, *arguments) -> str:
    with pytest.raises(SystemExit) as caught:
        run(*arguments, "--device", "cpu")
    assert str(caught.value).startswith("ask_video: ")
    return str(caught.value)


def test_missing_video_is_named(run, export, tmp_path):
    assert f"no video file or folder of images at {tmp_path / 'nothing.mp4'}" in fails(
        run, export, tmp_path / "nothing.mp4", "?"
    )


def test_folder_without_images_and_broken_file_are_named(run, export, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    assert "holds no images" in fails(run, export, tmp_path / "empty", "?")
    assert "broken.mp4" in fails(run, export, tmp_path / "broken.mp4", "?")


def test_more_frames_than_the_video_has(run, export, video):
    assert "num_frames=99" in fails(run, export, video, "?", "--num-frames", 99)


def test_model_that_is_not_ours(run, video, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "'bert', not 'ide3d'" in fails(run, tmp_path / "other", video, "?")
    assert "has no config.json" in fails(run, tmp_path, video, "?")
    assert "There is no model someone/absent" in fails(run, "someone/absent", video, "?")
