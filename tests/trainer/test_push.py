"""Pushing an export: what would be pushed, what is pushed, what is refused, and the script that does it."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from commanding import run_command
from example_scripts import load_script
from exporting import build_model, build_processor
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, eval_result_entries_to_yaml
from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError

from processing.rooms.generate import SPLITS
from trainer import push
from trainer.export import export_inference_model, is_export
from trainer.model_card import LossTerm, TeacherFacts, create_model_card


@pytest.fixture(scope="module")
def push_to_hub():
    return load_script("push_to_hub")


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    processor = build_processor()
    fields = {"task_type": "video-text-to-text", "dataset_type": "rooms", "dataset_name": "Rooms"}
    card = create_model_card(
        model_name="Rooms",
        training_data="12 rooms.",
        losses=[LossTerm("loss_language", 1.0)],
        teacher=TeacherFacts("a teacher", "mit"),
        scores=[EvalResult(**fields, metric_type="accuracy", metric_value=0.5)],
    )
    folder = tmp_path_factory.mktemp("export") / "model"
    return export_inference_model(build_model(processor), processor, folder, card=card)


@pytest.fixture
def run(push_to_hub, monkeypatch, capsys):
    def call(*arguments) -> str:
        monkeypatch.setattr(sys, "argv", ["push_to_hub.py", *map(str, arguments)])
        push_to_hub.main()
        return capsys.readouterr().out

    return call


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(push, "HfApi", refuse)


def test_dry_run_writes_the_folder_and_asks_nobody(run, export, tmp_path, no_network):
    folder = tmp_path / "dry"
    assert run(export, "me/room-model", "--dry-run", folder).strip() == str(folder)
    assert is_export(folder)
    for path in export.iterdir():
        if path.name != "README.md":
            assert (folder / path.name).read_bytes() == path.read_bytes(), path.name
    card = ModelCard.load(folder / "README.md")
    assert 'model_id = "me/room-model"' in card.text and "a teacher, licence: mit" in card.text
    assert card.data.eval_results[0].metric_value == 0.5 and card.data.pipeline_tag == "image-text-to-text"


def test_push_makes_one_commit_of_all_files(run, export, monkeypatch):
    calls = []

    class FakeApi:
        def create_repo(self, repo_id, private, exist_ok):
            calls.append(("repo", repo_id, private))

        def create_commit(self, repo_id, operations, commit_message):
            calls.append(("commit", repo_id, {operation.path_in_repo: operation for operation in operations}))
            return type("Commit", (), {"commit_url": "https://hub/commit"})

    monkeypatch.setattr(push, "HfApi", FakeApi)
    assert run(export, "me/room-model", "--private").strip() == "https://hub/commit"
    assert calls[0] == ("repo", "me/room-model", True)
    operations = calls[1][2]
    assert set(operations) == {path.name for path in export.iterdir()} and len(calls) == 2
    with operations["README.md"].as_file() as card:
        assert b'model_id = "me/room-model"' in card.read()
    with operations["model.safetensors"].as_file() as weights:
        assert weights.read() == (export / "model.safetensors").read_bytes()


def write_results(folder, name="scanqa.yaml", content=None):
    (folder / ".eval_results").mkdir(parents=True)
    entry = EvalResultEntry("someone/scanqa", "default", 30.1, notes="em")
    text = yaml.safe_dump(eval_result_entries_to_yaml([entry])) if content is None else content
    (folder / ".eval_results" / name).write_text(text)
    return folder


def test_scores_of_evaluations_go_along(export, tmp_path, monkeypatch, no_network):
    folders = [write_results(tmp_path / "a"), write_results(tmp_path / "b", "sqa3d.yaml")]
    target = tmp_path / "dry"
    for _ in range(2):  # the second one replaces the first
        push.push_export(export, "me/room-model", target, results=folders)
    assert is_export(target)
    assert sorted(path.name for path in (target / ".eval_results").iterdir()) == ["scanqa.yaml", "sqa3d.yaml"]
    seen = []

    class FakeApi:
        def create_repo(self, *args, **kwargs):
            pass

        def create_commit(self, repo_id, operations, commit_message):
            seen.extend(operation.path_in_repo for operation in operations)
            return type("Commit", (), {"commit_url": "https://hub/commit"})

    monkeypatch.setattr(push, "HfApi", FakeApi)
    push.push_export(target, "me/room-model")
    assert {".eval_results/scanqa.yaml", ".eval_results/sqa3d.yaml", "README.md"} < set(seen)


@pytest.mark.parametrize("content", ["", "- 7", "- {value: 1}", "{: [", "- dataset: {id: a/b}\n  value: 1"])
def test_scores_that_the_hub_does_not_read_are_refused(export, tmp_path, content, no_network):
    folder = write_results(tmp_path / "a", content=content)
    with pytest.raises(ValueError, match=r"scanqa\.yaml is no file of scores that the Hub reads"):
        push.push_export(export, "me/room-model", tmp_path / "dry", results=[folder])


def test_folders_without_scores_or_with_equal_names_are_refused(export, tmp_path, no_network):
    with pytest.raises(FileNotFoundError, match="holds no .yaml file. Evaluate with --dataset-id"):
        push.push_export(export, "me/room-model", tmp_path / "dry", results=[tmp_path])
    folders = [write_results(tmp_path / "a"), write_results(tmp_path / "b")]
    with pytest.raises(ValueError, match="have one name"):
        push.push_export(export, "me/room-model", tmp_path / "dry", results=folders)


def test_rooms_are_pushed_as_a_data_set(tmp_path, monkeypatch):
    folder, calls = tmp_path / "rooms", []

    class FakeApi:
        def create_repo(self, repo_id, private, exist_ok, repo_type):
            calls.append((repo_id, private, repo_type))

        def create_commit(self, repo_id, operations, commit_message, repo_type):
            calls.append((repo_id, repo_type, {operation.path_in_repo for operation in operations}))
            return type("Commit", (), {"commit_url": "https://hub/datasets/commit"})

    monkeypatch.setattr(push, "HfApi", FakeApi)
    words = ("--num-scenes", 1, "--image-size", 32, "--num-frames", 1, "--num-proc", 1)
    told = run_command("rooms", "share", folder, *words, "--push", "me/rooms", "--private").stdout
    assert told.split()[-1] == "https://hub/datasets/commit"
    tables = {f"{table}/{split}-00000.parquet" for table in ("rooms", "questions") for split in SPLITS}
    assert calls == [("me/rooms", True, "dataset"), ("me/rooms", "dataset", {"README.md", *tables})]
    (folder / "diary.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no rooms for the Hub, or other files too"):
        push.push_rooms(folder, "me/rooms")
    run_command("rooms", "share", tmp_path / "other", *words, "--push", "rooms", code=1)
    assert not (tmp_path / "other").exists(), "the name is looked at first"


def fails(run, *arguments) -> str:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert str(caught.value).startswith("push_to_hub: ")
    return str(caught.value)


def test_what_is_no_export_is_refused(run, tmp_path, no_network):
    (tmp_path / "config.json").write_text("{}")
    assert "is no export" in fails(run, tmp_path, "me/model", "--dry-run", tmp_path / "out")
    assert "is no export" in fails(run, tmp_path / "absent", "me/model")


@pytest.mark.parametrize("repo_id", ["me//model", "model", "me/mo del"])
def test_bad_names_are_refused_before_anything_is_written(run, export, tmp_path, repo_id, no_network):
    fails(run, export, repo_id, "--dry-run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_dry_run_never_overwrites_a_foreign_folder(run, export, tmp_path, no_network):
    (tmp_path / "mine").write_text("mine")
    assert "exists and is not an earlier export" in fails(run, export, "me/model", "--dry-run", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_card_of_somebody_else_is_refused(run, export, tmp_path, no_network):
    with pytest.raises(SystemExit, match="model_id"):
        processor = build_processor()
        folder = export_inference_model(
            build_model(processor), processor, tmp_path / "own", card=ModelCard("---\nlicense: mit\n---\n\n# Mine\n")
        )
        run(folder, "me/model", "--dry-run", tmp_path / "out")


def test_compiled_code_is_left_behind(export, tmp_path, no_network):
    """pip compiles the code of the shipped model where it installs it."""
    installed = shutil.copytree(export, tmp_path / "installed")
    (installed / "__pycache__").mkdir()
    (installed / "__pycache__" / "modeling_ide3d.cpython-311.pyc").write_bytes(b"")
    push.push_export(installed, "me/room-model", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in export.iterdir()}


@pytest.mark.parametrize("error", [HTTPError("no route"), LocalTokenNotFoundError("no token")])
def test_a_hub_out_of_reach_is_said_in_words(run, export, monkeypatch, error):
    class FakeApi:
        def create_repo(self, *args, **kwargs):
            raise error

    monkeypatch.setattr(push, "HfApi", FakeApi)
    assert re.search(r"no (route|token) Is the Hub reachable\?.*`hf auth login`", fails(run, export, "me/model"))
