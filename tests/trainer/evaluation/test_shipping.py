"""Shipping a nano model: what the folder holds, and what is never replaced."""

import json
import shutil
import sys

import pytest
from example_scripts import load_script
from exporting import build_model, build_processor
from huggingface_hub import ModelCard

from trainer.export import export_inference_model, is_export

ROW = {"type": "colour", "reference": "word", "n": 40, "model": 0.625, "band": [0.5, 0.7], "best": "majority"}
ROW |= {"majority": 0.25, "text": 0.2, "mean_row": None, "bottom_row": None, "lead": 0.375, "lead_band": [0.2, 0.5]}
LEVEL = {**ROW, "type": "counting", "model": 0.25, "lead": 0.0, "lead_band": [-0.1, 0.1]}
LOG = [{"step": 1, "loss_language": 3.0}, {"step": 7, "loss_language": 1.5, "loss_depth": 0.2}]


@pytest.fixture
def ship(monkeypatch):
    """`ship(run, "--target", target, ...)` runs the command line of examples/ship_nano.py."""
    script = load_script("ship_nano")

    def call(*words) -> None:
        monkeypatch.setattr(sys, "argv", ["ship_nano.py", *map(str, words)])
        script.main()

    return call


@pytest.fixture
def run(tmp_path):
    """Output folder of a training: export, checkpoint and evaluation."""
    folder = tmp_path / "run"
    processor = build_processor()
    export_inference_model(build_model(processor), processor, folder / "export")
    (folder / "checkpoint-7").mkdir()
    state = {"global_step": 7, "log_history": LOG}
    (folder / "checkpoint-7" / "trainer_state.json").write_text(json.dumps(state))
    evaluation = {"split": "test", "num_rooms": 40, "table": [ROW, LEVEL], "answers": []}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder


def test_the_folder_holds_export_scores_and_record(ship, run, tmp_path):
    target = tmp_path / "shipped"
    ship(run, "--target", target, "--note", "by hand", "--tried", "twice as long.")
    weights = "model.safetensors"
    assert is_export(target) and (target / weights).read_bytes() == (run / "export" / weights).read_bytes()
    card = ModelCard.load(target / "README.md")
    shown = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert shown == {"colour (word)": 0.625, "counting (word)": 0.25} and card.data.license == "apache-2.0"
    assert card.data.model_name == "shipped" and card.text.lstrip().startswith("# shipped\n")
    assert 'model_id = "shipped"' in card.text
    assert "40 rooms of test" in card.text and "7 steps after its lessons" in card.text
    assert "Not surely above the best baseline: counting (word). What was tried: twice as long." in card.text
    record = json.loads((target / "training.json").read_text())
    (stage,) = record["stages"]
    assert stage["log"] == LOG and record["note"] == "by hand" and "num_rooms" in stage["recipe"]
    assert record["table"] == [ROW, LEVEL] and "torch" in record["versions"] and len(record["commands"]) == 6
    assert (target / "training.png").stat().st_size > 1000


def test_stages_go_on_from_those_of_a_shipped_model(ship, run, tmp_path):
    target, later = tmp_path / "shipped", tmp_path / "later"
    ship(run, "--target", target)
    first = json.loads((target / "training.json").read_text())["stages"]
    shutil.copytree(run, later)
    ship(target / "training.json", run, later, "--target", target)
    stages = json.loads((target / "training.json").read_text())["stages"]
    assert [stage["log"] for stage in stages] == [LOG] * 3 and stages[0] == first[0]
    assert "nano_all_tasks" in stages[1]["recipe"] and "nano_benchmark_words" in stages[2]["recipe"]
    assert "21 steps after its lessons" in (target / "README.md").read_text()


def test_more_runs_than_recipes_are_refused(ship, run, tmp_path):
    with pytest.raises(ValueError, match="at most 4 runs, one a recipe, got 5"):
        ship(*(shutil.copytree(run, tmp_path / name) for name in "abcde"), "--target", tmp_path / "target")


def test_a_shipped_model_is_replaced_and_nothing_else(ship, run, tmp_path):
    target = tmp_path / "shipped"
    ship(run, "--target", target)
    ship(run, "--target", target)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="neither empty nor a shipped model"):
        ship(run, "--target", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_what_is_missing_is_named(ship, run, tmp_path):
    (run / "evaluation.json").unlink()
    with pytest.raises(FileNotFoundError, match="evaluation.json"):
        ship(run, "--target", tmp_path / "target")
    shutil.rmtree(run / "checkpoint-7")
    with pytest.raises(FileNotFoundError, match="has no checkpoint"):
        ship(run, "--target", tmp_path / "target")
    shutil.rmtree(run / "export")
    with pytest.raises(FileNotFoundError, match="is no export"):
        ship(run, "--target", tmp_path / "target")
    assert not (tmp_path / "target").exists()
