"""Resuming from a checkpoint whose files are cut off, foreign or missing: each is named, with what to do."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_samples import make_sample

from trainer.loop.resuming import check_resumable, choose_checkpoint

OPTIONS = {"save_strategy": "steps", "save_steps": 1}
PARTS = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "config.json", "trainer_state.json")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "half": cut,
    "empty": lambda path: path.write_bytes(b""),
    "foreign": lambda path: path.write_bytes(b"\x80\xff" * 400),
    "a list": lambda path: path.write_text("[1]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory):
    """Place of a run of two steps, which the first test of this file trains."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def run(make_trainer, tmp_path, kept_run):
    """A run of two steps, with a checkpoint of each."""
    if not kept_run.exists():
        trainer = make_trainer([make_sample(2)], "kept", **OPTIONS)
        trainer.train()
        shutil.copytree(trainer.args.output_dir, kept_run)
    return shutil.copytree(kept_run, tmp_path / "run")


def resume(make_trainer, folder, **options):
    trainer = make_trainer([make_sample(2)], "again", **{"max_steps": 3, **options})
    trainer.train(resume_from_checkpoint=str(folder))
    return trainer


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", PARTS)
def test_a_damaged_file_is_named_with_the_checkpoint_before_it(run, model, name, damage):
    folder = run / "checkpoint-2"
    DAMAGES[damage](folder / name)
    with pytest.raises((OSError, ValueError)) as error:
        check_resumable(choose_checkpoint(folder, str(run)), model, model, 1, 0)
    assert str(run / "checkpoint-2") in str(error.value) and name in str(error.value)
    assert str(run / "checkpoint-1") in str(error.value)


def test_the_trainer_asks_for_whole_files(make_trainer, run):
    cut(run / "checkpoint-2" / "optimizer.pt")
    with pytest.raises(OSError, match=r"optimizer.pt cannot be read .* resume from the checkpoint before it, .*-1\."):
        resume(make_trainer, run / "checkpoint-2")


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "config.json", "training_args.bin"])
def test_what_is_missing_is_said_and_what_it_means(make_trainer, run, caplog, name):
    (run / "checkpoint-2" / name).unlink()
    assert resume(make_trainer, run / "checkpoint-2").state.global_step == 3
    told = [record.getMessage() for record in caplog.records if "is missing" in record.getMessage()]
    assert len(told) == 1 and str(run / "checkpoint-2" / name) in told[0] and "checkpoint-1" in told[0]


def test_a_whole_checkpoint_is_resumed_without_a_word(make_trainer, run, caplog):
    resume(make_trainer, run / "checkpoint-2")
    assert not [record for record in caplog.records if record.name.startswith("trainer")]


def change_weights(run, change):
    path = run / "checkpoint-2" / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_missing_weights_are_counted(make_trainer, run):
    change_weights(run, lambda weights: [weights.pop(name) for name in sorted(weights)[:3]])
    with pytest.raises(ValueError, match=r"model.safetensors has no .* \(3 of \d+ weights are missing\)"):
        resume(make_trainer, run / "checkpoint-2")


def test_weights_of_another_shape(make_trainer, run):
    change_weights(run, lambda weights: weights.update({"model.image_newline": torch.zeros(5)}))
    with pytest.raises(ValueError, match=r"model.safetensors has model.image_newline of shape \[5\], this model of"):
        resume(make_trainer, run / "checkpoint-2")


def test_missing_weights_file(make_trainer, run):
    (run / "checkpoint-2" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors is missing. .*checkpoint-1"):
        resume(make_trainer, run / "checkpoint-2")


def test_an_optimizer_of_other_groups(make_trainer, run):
    with pytest.raises(ValueError, match=r"optimizer.pt has parameter groups of .* Resume with the frozen_parts"):
        resume(make_trainer, run / "checkpoint-2", vision_learning_rate=1e-4)


@pytest.mark.parametrize("change", [{"global_step": "two"}, {"no_such_field": 1}, {"global_step": -4}])
def test_a_state_of_another_kind(make_trainer, run, change):
    path = run / "checkpoint-2" / "trainer_state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(OSError, match=f"trainer_state.json cannot be read .*{next(iter(change))}"):
        resume(make_trainer, run / "checkpoint-2")


@pytest.mark.parametrize("folder", [5, 2.5, ["checkpoint-1"], ""])
def test_no_folder(make_trainer, folder):
    with pytest.raises(TypeError, match="resume_from_checkpoint must be the folder of a checkpoint, or True, got"):
        make_trainer([make_sample(2)]).train(resume_from_checkpoint=folder)
