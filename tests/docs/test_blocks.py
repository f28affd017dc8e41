"""Code blocks of README and docs are run by their names, in an empty folder, as a reader would."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from capture_rooms import look
from capture_writers import write_scannet
from chat_files import write_rows
from doc_pages import PAGES, REPOSITORY, find_blocks, read
from exporting import write_video
from original_checkpoints import build_model, build_original_heads, original_weights, without, write_source
from PIL import Image
from safetensors.torch import load_file
from tiny_hosts import HOSTS
from training_samples import make_sample

from modeling_ide3d.conversion import convert_checkpoint
from processing import TokenGrid
from processing.benchmarks.export.rooms import export_rooms
from processing.region_files import read_regions
from trainer.export import is_export
from trainer.recipes import read_recipe, run_recipe
from trainer.teachers import ArraySource, FrameSource

BLOCKS = {block.name: block for block in find_blocks("python")}
# Blocks that continue each other, by the test that runs them.
SCRIPTS = {
    "ask": ("ask", "find without a session"),
    "session": ("session", "find", "find in pictures", "draw"),
    "train": ("train",),
    "scans": ("one scan", "train on my scans"),
    "capture": ("open a capture",),
    "folder": ("scans as a benchmark folder",),
    "chats": ("chats in a script",),
    "supervise": ("supervise", "join"),
    "benchmark": ("benchmark",),
    "converted": ("converted",),
    "token grid": ("token grid",),
    "hand over": ("hand over",),
    "boxes in words": ("boxes in words",),
    "ask for boxes": ("ask for boxes",),
    "requirements": ("requirements",),
    "store size": ("store size",),
}
NOT_RUN = {"find by words"}  # names of blocks with the comment that says why


def code_of(script: str, changes: dict[str, str] | None = None) -> str:
    """Code of a script with other names and numbers in it; each must be there, so that docs and test stay in step."""
    code = "\n".join(BLOCKS[name].code for name in SCRIPTS[script])
    for old, new in (changes or {}).items():
        assert old in code, f"{old!r} is no longer in the blocks {SCRIPTS[script]}"
        code = code.replace(old, new)
    return code


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Callable[..., list[str]]:
    """`run(code, **names)` runs code in an empty folder and gives the lines that it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")

    def execute(code: str, **names) -> list[str]:
        names["__name__"] = "block"
        exec(compile(code, "block", "exec"), names)
        return capsys.readouterr().out.splitlines()

    return execute


def write_scans(folder: Path) -> None:
    """Two scans of two frames in the posed_images layout, one pose not finite, and questions about them."""
    for scan in ("scene0000_00", "scene0001_00"):
        (folder / scan).mkdir(parents=True)
        for index, name in enumerate(("00000", "00001", "00002")):
            Image.fromarray(np.full((48, 64, 3), 60 * index, np.uint8)).save(folder / scan / f"{name}.jpg")
            Image.fromarray(np.full((24, 32), 1500, np.uint16)).save(folder / scan / f"{name}.png")
            np.savetxt(folder / scan / f"{name}.txt", np.eye(4) if index < 2 else np.full((4, 4), np.inf))
        np.savetxt(folder / scan / "intrinsic.txt", np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]]))
    rows = [{"scan": scan, "question": "What is on the desk?", "answer": "A lamp."} for scan in os.listdir(folder)]
    (folder / "questions.json").write_text(json.dumps(rows))


def test_every_block_has_a_name_of_its_own():
    blocks = find_blocks("python", "yaml")
    assert not [block.page.name for block in blocks if block.name is None]
    assert max(Counter(block.name for block in blocks).values()) == 1


def test_every_block_is_run_or_says_why_not():
    marked = {block.name for block in BLOCKS.values() if block.reason is not None}
    assert marked == NOT_RUN
    assert {name for names in SCRIPTS.values() for name in names} | NOT_RUN == set(BLOCKS)


def test_every_fence_is_read():
    for page in PAGES:
        languages = re.findall(r"^```(\w*)", read(page), re.MULTILINE)[::2]
        assert len(find_blocks(*set(languages), pages=[page])) == len(languages), page
        assert set(languages) <= {"python", "bash", "json", "yaml", "text"}, page


@pytest.mark.parametrize("name", BLOCKS)
def test_imports_of_every_block_exist(name):
    for node in ast.walk(ast.parse(BLOCKS[name].code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            assert all(importlib.import_module(alias.name) for alias in node.names)


def test_twelve_lines_answer_and_find_in_a_process_of_their_own(tmp_path):
    write_video(tmp_path / "room.mp4")
    assert len([line for line in BLOCKS["ask"].code.splitlines() if line]) <= 12
    (tmp_path / "script.py").write_text(code_of("ask"))
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    process = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-4000:]
    answer, _, found = process.stdout.splitlines()
    assert answer in ("yes", "no")
    assert re.fullmatch(r"region [01]|no such object", found)


def test_session_answers_describes_and_finds(run, tmp_path):
    write_video(tmp_path / "room.mp4")
    printed = run(code_of("session") + "print(len(answers), len(captions), *scores.shape)\n")
    assert printed[-1] == "1 2 2 3"
    *found, _, _, _ = printed[-6:-1]
    assert all(re.fullmatch(r"region [01]|no such object", line) for line in found)
    assert "own tokens" in printed[-4] and printed[-3].startswith("torch.Size([")
    assert "The chair beside the bed" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_training_as_a_library(run, tmp_path):
    small = {
        '"train", 64,': '"train", 3,',
        "max_steps=20": "max_steps=2, use_cpu=True",
        "per_device_train_batch_size=4": "per_device_train_batch_size=2",
    }
    run(code_of("train", small))
    card = (tmp_path / "outputs" / "library" / "export" / "README.md").read_text(encoding="utf-8")
    assert "loss_distillation" in card and "point map" in card


def test_training_on_scans(run, tmp_path):
    write_scans(tmp_path / "scans")
    code = code_of("scans", {"max_steps=1000": "max_steps=2, use_cpu=True"})
    printed = run(code + "print(*sorted(trainer.data_collator([trainer.train_dataset[0]])))\n")
    keys = printed[-1].split()
    assert {"depth", "intrinsics", "camera_to_world", "has_geometry", "labels", "teacher_features"} <= set(keys)
    assert is_export(tmp_path / "outputs" / "my_scans" / "export")
    assert "geometry True" in printed[0] and printed[0].startswith("2 frames")
    page = read(REPOSITORY / "docs" / "batches.md")
    assert all(f"`{key}`" in page for key in keys), "the table of batch keys lacks one"


def test_a_capture_is_opened(run, tmp_path):
    write_scannet(tmp_path / "scans" / "scene0000_00", look(step=0.001))
    assert run(code_of("capture")) == ["4 frames (4, 72, 100, 3) depth (4, 72, 100) geometry True"]


def test_training_on_scans_by_a_recipe(run, tmp_path):
    write_scans(tmp_path / "scans")
    run(code_of("folder"))
    recipe = yaml.safe_load(next(block.code for block in find_blocks("yaml") if block.name == "my_scans.yaml"))
    recipe |= {
        "model_name_or_path": str(REPOSITORY / "examples" / "checkpoints" / "ide3d-nano-rooms"),
        "num_frames": 2,
        "max_steps": 1,
        "use_cpu": True,
    }
    (tmp_path / "my_scans.yaml").write_text(yaml.safe_dump(recipe))
    folder = run_recipe(*read_recipe("my_scans.yaml", []))
    assert folder.resolve() == tmp_path / "outputs" / "my_scans" / "export" and is_export(folder)


def test_training_on_chats_by_a_recipe(run, tmp_path):
    rows = [json.loads(block.code) for block in find_blocks("json") if block.page.name == "chats.md"]
    (tmp_path / "videos").mkdir()
    (tmp_path / "chats").mkdir()
    write_video(tmp_path / "videos" / "kitchen.mp4")
    for name in ("train.jsonl", "more.parquet", "validation.json"):
        write_rows(tmp_path / "chats" / name, rows[:1] if name == "more.parquet" else rows)
    assert run(code_of("chats")) == ["2 chats, the first of 4 frames"]
    recipe = yaml.safe_load(next(block.code for block in find_blocks("yaml") if block.name == "my_chats.yaml"))
    recipe |= {
        "model_name_or_path": str(REPOSITORY / "examples" / "checkpoints" / "ide3d-nano-rooms"),
        "num_frames": 2,
        "max_steps": 1,
        "use_cpu": True,
        "validator": "light",
    }
    (tmp_path / "my_chats.yaml").write_text(yaml.safe_dump(recipe))
    folder = run_recipe(*read_recipe("my_chats.yaml", []))
    assert folder.resolve() == tmp_path / "outputs" / "my_chats" / "export" and is_export(folder)


def test_supervision_of_another_model(run, tmp_path):
    host, sample = HOSTS["qwen2_5_vl"], make_sample(2)
    host.build_model().save_pretrained(tmp_path / "qwen")
    targets = {key: torch.as_tensor(sample[key])[None] for key in ("depth", "intrinsics", "camera_to_world")}
    small = {"path/to/Qwen2.5-VL": "qwen", ".attach(model)": '.attach(model, validator="light")'}
    run(code_of("supervise", small), batches=[(host.build_inputs([sample["frames"]]), targets)] * 2)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("qwen", "outputs/supervised"))
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)


def test_benchmark_folder(run, tmp_path):
    export_rooms(tmp_path / "outputs" / "benchmark_rooms", num_scenes=1, num_frames=2, image_size=64)
    shutil.rmtree(tmp_path / "outputs" / "benchmark_rooms" / "metadata")  # question answering needs frames alone
    samples, frames, answer = run(code_of("benchmark"))[-1].split(maxsplit=2)
    assert int(samples) > 0 and frames == "2" and answer


def test_converted_checkpoint(run, tmp_path):
    weights = without(original_weights(build_model()), "model.dpt_module.", "model.proj_3d.") | build_original_heads()
    convert_checkpoint(write_source(tmp_path / "source", weights), tmp_path / "path" / "to" / "converted")
    run(code_of("converted") + "assert model.teacher_projector.config.teacher_size == 2048\n")


def test_file_of_regions(tmp_path):
    (block,) = (block for block in find_blocks("json") if block.name == "boxes.json")
    (tmp_path / block.name).write_text(block.code)
    grid = TokenGrid(image_size=64, patch_size=8, pool_stride=1)
    regions = read_regions(tmp_path / block.name, grid, frame_indices=(0, 12), total_frames=24)
    assert regions.names == ("chair", "table")
    assert regions.masks.flatten(2).any(2).tolist() == [[True, False], [False, True]]


def test_token_grid(run):
    assert run(code_of("token grid"))[-1] == code_of("token grid").rpartition("# ")[2].strip()


def test_boxes_in_words(run):
    """Half a metre right of a camera at (1, 2, 1.5) that looks along y, 0.3 m below it, 2 m ahead."""
    assert run(code_of("boxes in words"))[-1] == "[1.5, 4.0, 1.2, 1.2, 0.4, 0.8, 0.0]"


def test_boxes_are_asked_for(run, tmp_path):
    """The shipped model was not trained for it: each answer is boxes, or the reason why it is none."""
    write_video(tmp_path / "room.mp4")
    printed = run(code_of("ask for boxes") + "print(len(session.boxes(['the lamp'])))\n")
    assert printed[-1] == "1"
    assert all(line.startswith(("the red chair ", "all lamps ")) for line in printed[:-1])


def test_requirements_of_modes(run):
    files, parts = run(code_of("requirements"))
    assert "posed_images" in files and not re.search(r"\.(png|txt|pkl)", files)
    assert parts == "('frames', 'boxes', 'poses')"


def test_arrays_are_handed_over(run, tmp_path):
    sample, names = make_sample(3), ("00000", "00010", "00020")
    (tmp_path / "outputs" / "arrays" / "scannet").mkdir(parents=True)
    extrinsics = np.linalg.inv(sample["camera_to_world"])[:, :3]
    given = {"frame_names": names, "depth": sample["depth"], "confidence": np.ones_like(sample["depth"])}
    run(code_of("hand over"), **given, intrinsics=sample["intrinsics"], world_to_camera=extrinsics)
    source = ArraySource("outputs/arrays", name="x", version="1", licence="mit", alignment="scale")
    found = source.compute_geometry(None, FrameSource("scannet/scene0000_00", names))
    np.testing.assert_allclose(found.camera_to_world, sample["camera_to_world"], atol=1e-6)
    np.testing.assert_array_equal(found.depth, sample["depth"])


def test_size_of_a_stored_clip_is_that_of_the_page(run):
    size = int(run(code_of("store size"))[0].split()[0])
    page = read(REPOSITORY / "docs" / "jobs.md")
    assert f"{size} bytes" in page and f"{size:,} bytes x 10 million | " in page
    assert f"| {size * 10_000_000 / 1e12:.0f} TB |" in page
