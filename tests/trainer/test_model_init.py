"""Trainings that make their own model: `model_init`, and the search for hyperparameters that needs it."""

import pytest
import torch
from training_samples import build_collator, build_model, make_mixed_batch
from transformers.trainer_utils import HPSearchBackend

from trainer import IDE3DTrainer, IDE3DTrainingArguments


@pytest.fixture
def make_trainer(tmp_path):
    def build(output="run", model=None, model_init=None, **fields):
        defaults = {"max_steps": 2, "logging_steps": 1, "learning_rate": 3e-3, "lr_scheduler_type": "constant"}
        options = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "seed": 0}
        args = IDE3DTrainingArguments(output_dir=str(tmp_path / output), **{**defaults, **options, **fields})
        data = {"train_dataset": make_mixed_batch(), "eval_dataset": make_mixed_batch()}
        return IDE3DTrainer(model, args, model_init=model_init, data_collator=build_collator(), **data)

    return build


def losses(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_every_training_starts_from_a_new_model(make_trainer):
    given = make_trainer(model=build_model())
    given.train()
    trainer = make_trainer(model_init=lambda: build_model())
    for _ in range(2):
        trainer.train()
        assert [entry["loss_depth"] for entry in losses(trainer)] == [entry["loss_depth"] for entry in losses(given)]
    for name, weight in given.model.named_parameters():
        assert torch.equal(weight, trainer.model.get_parameter(name)), name
    assert trainer.evaluate()["eval_loss"] == pytest.approx(given.evaluate()["eval_loss"])


def test_a_resumed_training_has_the_heads_of_its_checkpoint(make_trainer, tmp_path):
    whole = make_trainer("whole", model_init=lambda: build_model(), max_steps=4, save_strategy="steps", save_steps=2)
    whole.train()
    resumed = make_trainer("resumed", model_init=lambda: build_model(), max_steps=4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name, weight in whole.model.named_parameters():
        assert torch.equal(weight, resumed.model.get_parameter(name)), name


class Trial:
    """A trial as Optuna hands it in."""

    def __init__(self, number, **params):
        self.number, self.params = number, params


def test_a_trial_trains_by_its_own_arguments(make_trainer, monkeypatch):
    monkeypatch.setattr("transformers.integrations.hp_params", lambda trial: trial.params)
    params = {"depth_weight": 0.25, "pairs_per_frame": 3, "frozen_parts": ["vision"]}
    trainer = make_trainer(model_init=lambda trial: build_model())
    trainer.hp_search_backend, trainer.hp_name = HPSearchBackend.OPTUNA, None
    trainer.hp_space = lambda trial: trial.params
    trainer.train(trial=Trial(0, **params))
    expected = make_trainer("alone", model=build_model(), **params)
    expected.train()
    assert [entry["loss"] for entry in losses(trainer)] == [entry["loss"] for entry in losses(expected)]
    for name, weight in expected.model.named_parameters():
        assert weight.requires_grad == trainer.model.get_parameter(name).requires_grad, name
        assert torch.equal(weight, trainer.model.get_parameter(name)), name


def test_without_arguments_it_says_what_it_needs():
    with pytest.raises(TypeError, match="IDE3DTrainingArguments"):
        IDE3DTrainer(build_model())
