"""A run that is interrupted and resumed is the run that was not."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_samples import build_model, make_grounding_sample, make_mixed_batch, make_sample
from transformers import TrainerCallback

from trainer.loop.checkpoints import GEOMETRY_WEIGHTS, get_last_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

ARGUMENTS = {
    "max_steps": 5,
    "save_strategy": "steps",
    "save_steps": 1,
    "per_device_train_batch_size": 2,
    "lr_scheduler_type": "cosine",
    "vision_learning_rate": 1e-3,
    "geometry_learning_rate": 2e-3,
    "weight_decay": 0.01,
}


def losses_after(trainer, step):
    names = ("loss", "grad_norm", "learning_rate", "loss_language")
    return [
        {key: value for key, value in entry.items() if key.startswith("loss") or key in names}
        for entry in trainer.state.log_history
        if "loss" in entry and entry["step"] > step
    ]


def optimizer_state(folder):
    return torch.load(folder / "optimizer.pt", weights_only=True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1, "pair_mode": "random"},
        {"train_sampling_strategy": "group_by_length"},
    ],
    ids=["plain", "accumulated, random pairs", "one length"],
)
def test_resume_reproduces_the_uninterrupted_run(make_trainer, tmp_path, options):
    """Bit for bit: weights, heads, optimizer and every logged loss, across the border of an epoch."""
    samples = [*make_mixed_batch(), make_grounding_sample(2, seed=7), make_sample(5, seed=4)]
    options = {**ARGUMENTS, **options}
    whole = make_trainer(samples, "whole", **options)
    whole.train()
    (tmp_path / "resumed").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    # Another start: everything that matters has to come from the checkpoint.
    resumed = make_trainer(samples, "resumed", model=build_model(seed=9), **options)
    resumed.train(resume_from_checkpoint=True)

    assert resumed.state.global_step == whole.state.global_step == 5
    assert losses_after(resumed, 2) == losses_after(whole, 2) and len(losses_after(whole, 2)) == 3
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    for name in ("model.safetensors", GEOMETRY_WEIGHTS):
        expected, actual = (load_file(tmp_path / run / "checkpoint-5" / name) for run in ("whole", "resumed"))
        assert expected.keys() == actual.keys() and all(torch.equal(expected[key], actual[key]) for key in expected)
    expected, actual = (optimizer_state(tmp_path / run / "checkpoint-5") for run in ("whole", "resumed"))
    assert expected["param_groups"] == actual["param_groups"]
    for key, state in expected["state"].items():
        assert all(torch.equal(value, actual["state"][key][name]) for name, value in state.items())


@pytest.fixture
def checkpoint(make_trainer, tmp_path):
    trainer = make_trainer([make_sample(2, teacher=True)], "first", max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    return tmp_path / "first" / "checkpoint-1"


def forget_sizes(checkpoint):
    """Make a checkpoint one of an earlier version, which does not name the sizes of its files."""
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text())
    assert state["stateful_callbacks"].pop("CheckpointInProgress")["attributes"]["sizes"]["optimizer.pt"] > 0
    path.write_text(json.dumps(state))


class TestBrokenCheckpoints:
    def resume(self, make_trainer, checkpoint, **options):
        trainer = make_trainer([make_sample(2, teacher=True)], "second", **options)
        trainer.train(resume_from_checkpoint=str(checkpoint))

    def test_missing_heads(self, make_trainer, checkpoint):
        (checkpoint / GEOMETRY_WEIGHTS).unlink()
        with pytest.raises(FileNotFoundError, match=f"{GEOMETRY_WEIGHTS} is missing"):
            self.resume(make_trainer, checkpoint)

    def test_truncated_heads(self, make_trainer, checkpoint):
        path = checkpoint / GEOMETRY_WEIGHTS
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(OSError, match=f"{GEOMETRY_WEIGHTS} is truncated"):
            self.resume(make_trainer, checkpoint)

    def test_heads_of_another_size(self, make_trainer, checkpoint):
        with pytest.raises(ValueError, match="do not fit this model"):
            self.resume(make_trainer, checkpoint, model=build_model(validator={"features": 24}))

    def test_a_folder_without_weights(self, make_trainer, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match="valid checkpoint"):
            self.resume(make_trainer, tmp_path / "empty")

    @pytest.mark.parametrize("is_tied", [False, True])
    def test_nothing_is_reported_missing_when_all_is_there(self, make_trainer, tmp_path, caplog, is_tied):
        model = build_model(tie_word_embeddings=is_tied)
        assert (model.lm_head.weight is model.get_input_embeddings().weight) == is_tied
        options = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1, "model": model}
        make_trainer([make_sample(2, teacher=True)], "first", **options).train()
        saved = load_file(tmp_path / "first" / "checkpoint-1" / "model.safetensors")
        assert ("lm_head.weight" in saved) != is_tied
        again = build_model(tie_word_embeddings=is_tied, seed=9)
        self.resume(make_trainer, tmp_path / "first" / "checkpoint-1", model=again)
        assert "missing keys" not in caplog.text


def leave_half(whole, half):
    """What a run leaves that is killed while it writes: its weights cut off, its state not begun."""
    shutil.copytree(whole, half)
    (half / "model.safetensors").write_bytes(b"cut")
    (half / "trainer_state.json").unlink()
    return half


class TestInterrupted:
    def test_a_full_disk_is_an_error_and_keeps_the_last_checkpoint(self, make_trainer, tmp_path):
        """A limit on the size of files stands for the full disk: writing fails in the midst of the weights."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)

        class FullDisk(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == 2:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))

        options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3, "save_total_limit": 1}
        trainer = make_trainer([make_sample(2)], callbacks=[FullDisk()], **options)
        try:
            with pytest.raises(OSError, match="checkpoint of step 2 could not be written to .*Earlier checkpoints"):
                trainer.train()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-1"]
        make_trainer([make_sample(2)], **options).train(resume_from_checkpoint=True)
        assert (tmp_path / "run" / "checkpoint-3").is_dir()

    def test_what_a_killed_run_left_is_no_checkpoint(self, make_trainer, tmp_path):
        options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
        make_trainer([make_sample(2)], **options).train()
        leave_half(tmp_path / "run" / "checkpoint-2", tmp_path / "run" / "checkpoint-3")
        resumed = make_trainer([make_sample(2)], **{**options, "max_steps": 3})
        resumed.train(resume_from_checkpoint=True)
        assert resumed.state.global_step == 3 and len(resumed.state.log_history) == 4  # three steps and the end
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [f"checkpoint-{k}" for k in (1, 2, 3)]
        assert load_file(tmp_path / "run" / "checkpoint-3" / "model.safetensors")

    def test_resuming_from_half_a_checkpoint_names_the_last_whole_one(self, make_trainer, tmp_path):
        options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
        make_trainer([make_sample(2)], **options).train()
        half = leave_half(tmp_path / "run" / "checkpoint-2", tmp_path / "run" / "checkpoint-3")
        trainer = make_trainer([make_sample(2)], "other", **options)
        with pytest.raises(ValueError, match="checkpoint-3 is no valid checkpoint: .* the last whole one is .*-2"):
            trainer.train(resume_from_checkpoint=str(half))
        with pytest.raises(ValueError, match="other holds no valid checkpoint"):
            trainer.train(resume_from_checkpoint=True)

    def test_a_run_that_stops_while_it_writes_goes_on_from_the_checkpoint_before(
        self, make_trainer, tmp_path, monkeypatch
    ):
        """After each file that Trainer writes; what was there before is written again and does not look whole."""
        options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
        make_trainer([make_sample(2)], **options).train()
        expected = load_file(tmp_path / "run" / "checkpoint-2" / "model.safetensors")
        for method in ("_save", "_save_optimizer_and_scheduler", "_save_rng_state"):
            trainer = make_trainer([make_sample(2)], **options)
            write = getattr(trainer, method)

            def stop_behind(*args, write=write, **kwargs):
                write(*args, **kwargs)
                raise KeyboardInterrupt  # as little is cleaned up as by SIGKILL

            monkeypatch.setattr(trainer, method, stop_behind)
            with pytest.raises(KeyboardInterrupt):
                trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
            assert (tmp_path / "run" / "checkpoint-2" / "model.safetensors").is_file()
            assert get_last_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "checkpoint-1")
        make_trainer([make_sample(2)], **options).train(resume_from_checkpoint=True)
        actual = load_file(tmp_path / "run" / "checkpoint-2" / "model.safetensors")
        assert all(torch.equal(actual[name], value) for name, value in expected.items())

    def test_rotation_keeps_whole_checkpoints(self, make_trainer, tmp_path):
        options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2, "save_total_limit": 2}
        make_trainer([make_sample(2)], **options).train()
        leave_half(tmp_path / "run" / "checkpoint-2", tmp_path / "run" / "checkpoint-3")
        resumed = make_trainer([make_sample(2)], **{**options, "max_steps": 4})
        resumed.train(resume_from_checkpoint=True)
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint-2", "checkpoint-4"]

    def test_a_checkpoint_that_is_written_again_replaces_the_first(self, make_trainer, tmp_path):
        trainer = make_trainer([make_sample(2)], save_strategy="steps", save_steps=2)
        trainer.train()
        mark = tmp_path / "run" / "checkpoint-2" / "mark"
        mark.write_text("old")
        make_trainer([make_sample(2)], save_strategy="steps", save_steps=2).train()
        assert not mark.exists() and (mark.parent / "optimizer.pt").is_file()

    @pytest.mark.parametrize("damage", ["deleted", "cut"])
    def test_a_checkpoint_that_lacks_a_part_is_none(self, make_trainer, tmp_path, damage):
        """As a process leaves it that is killed while it deletes an old one, or a copy that was broken off."""
        options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
        make_trainer([make_sample(2)], **options).train()
        run = tmp_path / "run"
        for name in ("model.safetensors", GEOMETRY_WEIGHTS, "optimizer.pt", "scheduler.pt"):
            path = run / "checkpoint-2" / name
            content = path.read_bytes()
            assert get_last_checkpoint(run) == str(path.parent)
            path.unlink()
            if damage == "cut":
                path.write_bytes(content[:-1])
            assert get_last_checkpoint(run) == str(run / "checkpoint-1"), name
            path.write_bytes(content)

    def test_checkpoints_of_earlier_versions_and_restored_callbacks_go_on(self, make_trainer, tmp_path):
        options = {"save_strategy": "steps", "save_steps": 1}
        make_trainer([make_sample(2)], **options, max_steps=1).train()
        forget_sizes(tmp_path / "run" / "checkpoint-1")
        make_trainer([make_sample(2)], **options).train(resume_from_checkpoint=True)
        options["restore_callback_states_from_checkpoint"] = True
        make_trainer([make_sample(2)], **options, max_steps=3).train(resume_from_checkpoint=True)
        state = json.loads((tmp_path / "run" / "checkpoint-3" / "trainer_state.json").read_text())
        assert "model.safetensors" in state["stateful_callbacks"]["CheckpointInProgress"]["attributes"]["sizes"]

    def test_other_folders_of_the_run_stay(self, make_trainer, tmp_path):
        notes = tmp_path / "run" / "incomplete" / "notes.txt"
        named = tmp_path / "run" / "checkpoint-mine" / "model.safetensors"
        for file in (notes, named):
            file.parent.mkdir(parents=True)
            file.write_text("mine")
        make_trainer([make_sample(2)], save_strategy="steps", save_steps=1).train()
        assert notes.read_text() == named.read_text() == "mine"

    def test_an_error_outside_a_checkpoint_is_not_blamed_on_it(self, make_trainer, tmp_path):
        class Broken(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step == 1:
                    (tmp_path / "run" / "checkpoint-1" / "trainer_state.json").unlink()  # as on a second machine
                    raise RuntimeError("out of memory")

        trainer = make_trainer([make_sample(2)], callbacks=[Broken()], save_strategy="steps", save_steps=1)
        with pytest.raises(RuntimeError, match="^out of memory$"):
            trainer.train()

    @pytest.mark.slow
    def test_killed_again_and_again(self, tmp_path):
        root = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
        script = str(Path(__file__).with_name("kill_and_resume.py"))
        run = subprocess.run([sys.executable, script, str(tmp_path)], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert ", 0 unequal" in run.stderr
