"""The start of a training: finished runs, arguments that nothing acts on, folders of another run."""

import json
import logging
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_samples import TEACHER_SIZE, build_collator, build_model, make_sample
from transformers import TrainerCallback, default_data_collator

from trainer.loop.model_parts import PARTS

pytestmark = pytest.mark.usefixtures("one_thread")


class CountSteps(TrainerCallback):
    def __init__(self):
        self.steps = 0

    def on_step_begin(self, *args, **kwargs):
        self.steps += 1


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("trainer")]


def samples(count=6):
    return [make_sample(2, seed=seed) for seed in range(count)]


class TestFinishedRun:
    """Six samples in batches of two: an epoch has three steps."""

    @pytest.mark.parametrize(
        "length",
        [
            pytest.param({"max_steps": 2}, id="within an epoch"),
            pytest.param({"max_steps": 3}, id="an epoch", marks=pytest.mark.slow),
            pytest.param({"max_steps": -1, "num_train_epochs": 2 / 3}, id="less than one", marks=pytest.mark.slow),
        ],
    )
    @pytest.mark.parametrize("strategy", ["steps", pytest.param("epoch", marks=pytest.mark.slow)])
    def test_a_second_start_trains_nothing(self, make_trainer, tmp_path, caplog, length, strategy):
        options = {**length, "save_strategy": strategy, "save_steps": 1, "save_total_limit": 2}
        first = make_trainer(samples(), **options)
        first.train()
        run = tmp_path / "run"
        before = {path: path.read_bytes() for path in run.glob("*/*") if path.is_file()}
        for _ in range(2):
            caplog.clear()
            count = CountSteps()
            again = make_trainer(samples(), model=build_model(seed=9), callbacks=[count], **options)
            result = again.train(resume_from_checkpoint=True)
            assert count.steps == 0 and result.global_step == first.state.global_step
            assert {path: path.read_bytes() for path in run.glob("*/*") if path.is_file()} == before
            for name, value in first.model.state_dict().items():
                assert torch.equal(again.model.state_dict()[name], value), name
            assert any("This run is finished" in text and "larger max_steps" in text for text in told(caplog))

    def test_a_larger_number_of_steps_goes_on(self, make_trainer, caplog):
        options = {"save_strategy": "steps", "save_steps": 1}
        make_trainer(samples(), max_steps=2, **options).train()
        count = CountSteps()
        again = make_trainer(samples(), max_steps=4, callbacks=[count], **options)
        again.train(resume_from_checkpoint=True)
        assert count.steps == 2 and again.state.global_step == 4
        assert not any("finished" in text for text in told(caplog))

    def test_fewer_steps_than_the_checkpoint_has(self, make_trainer, tmp_path, caplog):
        options = {"save_strategy": "steps", "save_steps": 1}
        make_trainer(samples(), max_steps=2, **options).train()
        again = make_trainer(samples(), max_steps=1, **options)
        assert again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2")).global_step == 2
        assert any("of step 2, and 1 are asked for" in text for text in told(caplog))

    def test_the_best_model_is_loaded_again(self, make_trainer, tmp_path):
        options = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
        options |= {"load_best_model_at_end": True, "max_steps": 2, "eval_dataset": samples(2)}
        first = make_trainer(samples(), **options)
        first.train()
        again = make_trainer(samples(), model=build_model(seed=9), **options)
        again.train(resume_from_checkpoint=True)
        best = Path(first.state.best_model_checkpoint)
        weights = load_file(best / "model.safetensors")
        assert all(torch.equal(again.model.state_dict()[name], value) for name, value in weights.items())
        state = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())
        assert state["global_step"] == 2


class TestSchedule:
    @pytest.mark.parametrize(
        "options, message",
        [
            ({"geometry_start_step": 2}, "geometry_start_step=2 of 2 steps: no geometry term is trained"),
            ({"geometry_decay_steps": 9}, "geometry_decay_steps=9 of 2 steps: no geometry term has its full weight"),
            ({"geometry_warmup_steps": 2}, "geometry_warmup_steps=2 of 2 steps: no geometry term has its full weight"),
            (
                {"geometry_warmup_steps": 1, "geometry_decay_steps": 1},
                "geometry_warmup_steps=1, geometry_decay_steps=1 of 2 steps: no geometry term has its full weight",
            ),
            ({"max_steps": -1, "num_train_epochs": 0}, "Nothing is trained: num_train_epochs=0"),
            (
                {"learning_rate": 1e6, "optim": "sgd", "max_steps": 1, "max_nonfinite": 9},
                "learning_rate=1e+06 is above 1",
            ),
        ],
    )
    def test_what_can_be_meant_is_a_warning(self, make_trainer, caplog, options, message):
        make_trainer([make_sample(2)], **options).train()
        assert [message in text for text in told(caplog)].count(True) == 1

    def test_an_ordinary_run_is_silent(self, make_trainer, caplog):
        options = {"geometry_start_step": 1, "label_smoothing_factor": 0.1}
        make_trainer([make_sample(2)], **options).train()
        assert not told(caplog)


class TestContradictions:
    def test_geometry_without_a_validator(self, make_trainer, caplog):
        make_trainer([make_sample(2)], model=build_model(validator=False))
        (text,) = told(caplog)
        assert "no geometric validator: loss_depth, loss_cross_view_depth, loss_view_consistency are not" in text
        caplog.clear()
        off = {"depth_weight": 0, "cross_view_weight": 0, "consistency_weight": 0}
        make_trainer([make_sample(2)], model=build_model(validator=False), **off)
        assert not told(caplog)

    def test_a_teacher_without_a_projector(self, make_trainer):
        class Teacher:
            name, feature_size = "mine", TEACHER_SIZE

        collator, model = build_collator(), build_model(teacher_size=None)
        collator.teacher = Teacher()
        with pytest.raises(ValueError, match=r"a teacher \(mine\), but .* no teacher projector.*teacher_size=6"):
            make_trainer([make_sample(2)], model=model, collator=collator)
        make_trainer([make_sample(2)], model=model, collator=collator, distillation_weight=0)

    def test_teacher_features_without_a_projector(self, make_trainer, caplog):
        logging.Logger.warning_once.cache_clear()
        make_trainer([make_sample(2, teacher=True)], model=build_model(teacher_size=None)).train()
        assert "no teacher projector: they are not trained on" in caplog.text

    def test_no_samples(self, make_trainer):
        with pytest.raises(ValueError, match="train_dataset must hold at least one sample, got 0"):
            make_trainer(torch.utils.data.TensorDataset(torch.zeros(0))).train()

    def test_everything_is_frozen(self, make_trainer):
        with pytest.raises(ValueError, match="frozen_parts=.* leave no weight to train"):
            make_trainer([make_sample(2)], frozen_parts=list(PARTS))

    def test_a_rate_of_a_frozen_part(self, make_trainer, caplog):
        make_trainer([make_sample(2)], frozen_parts=["vision"], vision_learning_rate=1e-4)
        assert any("vision_learning_rate has no effect" in text for text in told(caplog))

    def test_half_precision_on_the_cpu(self, make_trainer):
        with pytest.raises(ValueError, match="fp16=True has no effect on the CPU.*bf16=True"):
            make_trainer([make_sample(2)], fp16=True)
        make_trainer([make_sample(2)], bf16=True)


class TestCollator:
    def test_samples_without_one(self, make_trainer):
        with pytest.raises(ValueError, match="No data_collator was given.*'messages'.*IDE3DDataCollator"):
            make_trainer([make_sample(2)], collator=None).train()

    def test_texts_that_are_tensors_already_need_none(self, make_trainer):
        ids = torch.arange(5, 13)
        made = make_trainer([{"input_ids": ids, "labels": ids}] * 2, collator=None)
        assert made.train().global_step == 2 and made.data_collator.collate is default_data_collator


class TestTeacherFeatures:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_broken_ones_are_named_with_their_sample(self, make_trainer, collator, value):
        def break_features(samples):
            batch = collator(samples)
            batch["teacher_features"][0, 1, 0, 0, 2] = value
            return batch

        sample = make_sample(2, teacher=True, scene_id="scene0007_00")
        trainer = make_trainer([sample], collator=break_features)
        for work in (trainer.train, lambda: trainer.evaluate([sample])):
            with pytest.raises(ValueError, match=r"scene0007_00.*NaN or Inf at 1 tokens, the first at \[1, 0, 0\]"):
                work()


class TestFolderOfAnotherRun:
    def test_it_is_said_before_checkpoints_go(self, make_trainer, caplog):
        options = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
        make_trainer(samples(2), **options).train()
        assert not told(caplog)
        make_trainer(samples(2), save_total_limit=1, **options).train()
        (text,) = told(caplog)
        assert "holds 1 checkpoints of an earlier run" in text and "save_total_limit=1 deletes them" in text
        caplog.clear()
        make_trainer(samples(2), **{**options, "save_strategy": "no"}).train()
        assert not told(caplog)
