"""Weights of the geometry terms over the steps: off, rising, full, falling; what is off is not computed."""

import copy
import shutil

import pytest
import torch
from training_samples import build_model, make_grounding_sample, make_sample

from trainer import IDE3DTrainingArguments

GEOMETRY = ("loss_depth", "loss_cross_view_depth", "loss_view_consistency", "loss_distillation")
SCHEDULE = {"geometry_start_step": 2, "geometry_warmup_steps": 1}


def entries(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def samples():
    return [make_sample(2, teacher=True), make_grounding_sample(2, teacher=True)]


@pytest.fixture
def scales(tmp_path):
    def compute(num_steps, **options):
        args = IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)
        return [args.geometry_scale(step, num_steps) for step in range(num_steps)]

    return compute


class TestScale:
    def test_without_a_schedule_the_weights_are_constant(self, scales):
        assert scales(4) == [1, 1, 1, 1]

    def test_off_then_rising_then_full_then_falling(self, scales):
        options = {"geometry_start_step": 2, "geometry_warmup_steps": 1, "geometry_decay_steps": 3}
        assert scales(8, **options) == [0, 0, 0.5, 1, 1, 0.75, 0.5, 0.25]

    def test_half_a_cosine(self, scales):
        assert scales(3, geometry_decay_steps=1, geometry_decay_type="cosine") == pytest.approx([1, 1, 0.5])

    def test_a_start_behind_the_end_is_never(self, scales):
        assert scales(3, geometry_start_step=10) == [0, 0, 0]

    def test_grounding_is_a_task_without_a_schedule(self, tmp_path):
        args = IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **SCHEDULE)
        weights = args.loss_weights_at(0, 10)
        assert weights["loss_grounding"] == 1 and all(weights[name] == 0 for name in GEOMETRY)
        assert args.loss_weights_at(5, 10) == args.loss_weights

    @pytest.mark.parametrize("name", ["geometry_start_step", "geometry_warmup_steps", "geometry_decay_steps"])
    def test_negative_steps(self, tmp_path, name):
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 0, got -1"):
            IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **{name: -1})

    def test_another_decay(self, tmp_path):
        with pytest.raises(ValueError, match="geometry_decay_type must be one of .*linear.*, got .step."):
            IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, geometry_decay_type="step")


class TestTraining:
    def test_the_heads_run_only_when_their_terms_have_a_weight(self, make_trainer):
        trainer = make_trainer(samples(), max_steps=4, weight_decay=0.1, **SCHEDULE)
        model, calls = trainer.model, []
        heads = {name: model.get_submodule(name) for name in ("geometric_validator.decoder", "teacher_projector")}
        for name, head in heads.items():
            head.register_forward_hook(lambda *_, name=name: calls.append((trainer.state.global_step, name)))
        trainer.train()
        # The decoder runs for the frames and for the pairs of frames.
        assert sorted(set(calls)) == [(step, name) for step in (2, 3) for name in sorted(heads)]
        assert [set(GEOMETRY) & set(entry) for entry in entries(trainer)] == [
            set(),
            set(),
            set(GEOMETRY),
            set(GEOMETRY),
        ]
        weights = {"loss_language": 1.0, **trainer.args.loss_weights_at(2, 4)}
        entry = entries(trainer)[2]
        assert weights["loss_depth"] == pytest.approx(0.4)
        assert entry["loss"] == pytest.approx(
            sum(weight * entry[name] for name, weight in weights.items() if weight), rel=1e-4
        )

    def test_heads_that_are_off_stay_as_they_are(self, make_trainer):
        """Neither weight decay nor the optimizer's count of steps touches them."""
        trainer = make_trainer(samples(), max_steps=3, weight_decay=0.1, geometry_start_step=3)
        before = copy.deepcopy(trainer.model.geometry_state_dict())
        trainer.train()
        after = trainer.model.geometry_state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        known = {id(parameter) for parameter in trainer.optimizer.state}
        assert not any(id(parameter) in known for parameter in trainer.model.geometric_validator.parameters())

    def test_one_term_of_a_head_alone(self, make_trainer):
        trainer = make_trainer(samples(), max_steps=1, depth_weight=0.0, consistency_weight=0.0)
        trainer.train()
        assert set(GEOMETRY) & set(entries(trainer)[0]) == {"loss_cross_view_depth", "loss_distillation"}
        assert entries(trainer)[0]["loss_cross_view_depth"] > 0

    def test_evaluation_weighs_in_full(self, make_trainer):
        trainer = make_trainer(samples(), eval_dataset=samples(), max_steps=1, geometry_start_step=1)
        trainer.train()
        metrics = trainer.evaluate()
        weights = {"loss_language": 1.0, **trainer.args.loss_weights}
        assert all(metrics[f"eval_{name}"] > 0 for name in GEOMETRY)
        expected = sum(weight * metrics[f"eval_{name}"] for name, weight in weights.items() if weight)
        assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("checkpoint", [1, 3], ids=["while off", "while rising"])
    def test_resume_continues_the_schedule(self, make_trainer, tmp_path, checkpoint):
        options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 1, "geometry_start_step": 2}
        options |= {"geometry_warmup_steps": 2, "geometry_decay_steps": 1}
        whole = make_trainer(samples(), "whole", **options)
        whole.train()
        name = f"checkpoint-{checkpoint}"
        shutil.copytree(tmp_path / "whole" / name, tmp_path / "resumed" / name)
        resumed = make_trainer(samples(), "resumed", model=build_model(seed=9), **options)
        resumed.train(resume_from_checkpoint=True)
        assert [entry["loss"] for entry in entries(resumed)] == [entry["loss"] for entry in entries(whole)]
        state = resumed.model.state_dict()
        assert all(torch.equal(state[name], value) for name, value in whole.model.state_dict().items())
