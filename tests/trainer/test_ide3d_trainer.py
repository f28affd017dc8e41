"""The trainer: what it optimises, what it logs, what it writes."""

import copy
import dataclasses
import json
import math

import pytest
import torch
from safetensors.torch import load_file
from training_samples import build_collator, build_model, make_grounding_sample, make_mixed_batch, make_sample
from transformers import Trainer, TrainerCallback

from modeling_ide3d import IDE3DForConditionalGeneration
from trainer import IDE3DTrainer, IDE3DTrainingArguments
from trainer.data_collator import decode_names
from trainer.ide3d_trainer import GEOMETRY_WEIGHTS

TERMS = ("loss_grounding", "loss_depth", "loss_cross_view_depth", "loss_overlap_l1", "loss_distillation")


def logged(trainer, key="loss"):
    return [entry for entry in trainer.state.log_history if key in entry]


def weighted_sum(entry, args, prefix=""):
    weights = {"loss_language": 1.0, **args.loss_weights}
    # A term that nothing was computed for is left out of an evaluation.
    return sum(weight * entry[prefix + name] for name, weight in weights.items() if prefix + name in entry)


class TestLogs:
    @pytest.mark.parametrize("batch, accumulation, logging", [(2, 1, 1), (1, 2, 1), (2, 3, 1), (1, 4, 3)])
    def test_components_add_up_to_the_loss(self, make_trainer, batch, accumulation, logging):
        """Five samples: the last step of an epoch accumulates fewer batches than the others."""
        trainer = make_trainer(
            make_mixed_batch(),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            logging_steps=logging,
            num_train_epochs=2,
            max_steps=-1,
            depth_weight=0.7,
            cross_view_weight=0.3,
            overlap_weight=0.2,
            distillation_weight=0.5,
            grounding_weight=1.5,
        )
        trainer.train()
        entries = logged(trainer)
        assert len(entries) == trainer.state.global_step // logging
        for entry in entries:
            assert entry["loss"] == pytest.approx(weighted_sum(entry, trainer.args), rel=1e-4)

    def test_evaluation_adds_up_too(self, make_trainer):
        """Five samples in batches of two: the last batch counts for one."""
        trainer = make_trainer(make_mixed_batch(), eval_dataset=make_mixed_batch(), max_steps=1, eval_strategy="steps")
        trainer.train()
        (entry,) = logged(trainer, "eval_loss")
        assert entry["eval_loss"] == pytest.approx(weighted_sum(entry, trainer.args, "eval_"), rel=1e-4)
        metrics = trainer.evaluate()
        assert metrics["eval_loss_depth"] == pytest.approx(logged(trainer, "eval_loss")[-1]["eval_loss_depth"])

    def test_each_evaluation_set_has_its_own_components(self, make_trainer):
        near, far = make_sample(2), make_sample(2)
        far["depth"] = far["depth"] * 5
        sets = {"near": [near], "far": [far]}
        trainer = make_trainer([near], eval_dataset=sets, max_steps=1, eval_strategy="steps")
        trainer.predict([far])  # must not leak into the next evaluation
        trainer.train()
        for name in sets:
            (entry,) = logged(trainer, f"eval_{name}_loss")
            assert entry[f"eval_{name}_loss"] == pytest.approx(
                weighted_sum(entry, trainer.args, f"eval_{name}_"), 1e-4
            )
        entries = {name: logged(trainer, f"eval_{name}_loss")[0][f"eval_{name}_loss_depth"] for name in sets}
        assert entries["far"] > 2 * entries["near"]

    def test_an_evaluation_that_failed_leaves_nothing_behind(self, make_trainer):
        good = make_sample(2)
        trainer = make_trainer([good], per_device_eval_batch_size=1)
        expected = trainer.evaluate([good])["eval_loss_depth"]
        far = {**good, "depth": good["depth"] * 5}
        with pytest.raises(ValueError, match="in metres"):
            trainer.evaluate([far, far, {**good, "depth": good["depth"] * 1000}])
        assert trainer.evaluate([good])["eval_loss_depth"] == expected

    def test_metrics_are_computed_from_logits_and_labels(self, make_trainer, collator):
        samples = make_mixed_batch()
        seen = {}

        def accuracy(prediction):
            seen["shape"] = prediction.predictions.shape
            said, right = prediction.predictions[:, :-1].argmax(-1), prediction.label_ids[:, 1:]
            return {"accuracy": (said == right)[right != -100].mean()}

        trainer = make_trainer(samples, eval_dataset=samples, compute_metrics=accuracy)
        metrics = trainer.evaluate()
        assert 0 <= metrics["eval_accuracy"] <= 1 and metrics["eval_loss_depth"] > 0
        assert seen["shape"] == (*collator(samples)["input_ids"].shape, len(collator.processor.tokenizer))

    @pytest.mark.parametrize("accumulation", [1, 2])
    def test_gradient_norms_are_those_without_the_scale_of_float16(self, make_trainer, accumulation):
        samples = [make_sample(2), make_grounding_sample(2, seed=1)]
        options = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": accumulation, "max_grad_norm": 0}
        entries = []
        for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
            trainer = make_trainer(samples, max_steps=1, **options)
            trainer.accelerator.scaler = scaler
            trainer.train()
            entries.append(logged(trainer)[0])
        parts = [name for name in entries[0] if name.startswith("grad_norm_")]
        assert len(parts) == 5 and entries[0]["grad_norm_vision"] > 0.01
        for name in parts:
            assert entries[1][name] == pytest.approx(entries[0][name], rel=1e-4), name

    def test_denominators_are_counted_once_a_batch(self, make_trainer, monkeypatch):
        trainer = make_trainer(
            [make_sample(2)], max_steps=2, per_device_train_batch_size=1, gradient_accumulation_steps=2
        )
        count, calls = trainer.model.criterion.count, []
        monkeypatch.setattr(trainer.model.criterion, "count", lambda targets: calls.append(targets) or count(targets))
        trainer.train()
        assert len(calls) == len({id(targets) for targets in calls}) and len(logged(trainer)) == 2

    def test_terms_without_a_head_are_not_logged(self, make_trainer):
        trainer = make_trainer([make_sample(2)], max_steps=1, model=build_model(validator=False, teacher_size=None))
        trainer.train()
        assert set(logged(trainer)[0]) & set(TERMS) == {"loss_grounding"}

    def test_a_weight_of_zero_turns_a_term_off(self, make_trainer):
        trainer = make_trainer([make_sample(2)], depth_weight=0.0, cross_view_weight=0.0, consistency_weight=0.0)
        before = copy.deepcopy(trainer.model.geometric_validator.state_dict())
        trainer.train()
        after = trainer.model.geometric_validator.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert "loss_depth" not in logged(trainer)[0]


class TestOptimisation:
    def test_every_loss_goes_down(self, make_trainer):
        samples = [make_sample(2, teacher=True), make_grounding_sample(2, teacher=True)]
        trainer = make_trainer(samples, max_steps=10, overlap_weight=0.08)
        trainer.train()
        first, last = logged(trainer)[0], logged(trainer)[-1]
        assert last["loss"] < 0.8 * first["loss"]
        for name in ("loss_language", *TERMS):
            assert last[name] < first[name], name

    def test_each_part_has_its_learning_rate(self, make_trainer):
        trainer = make_trainer(
            [make_sample(2)], vision_learning_rate=1e-5, geometry_learning_rate=2e-5, weight_decay=0.1
        )
        optimizer = trainer.create_optimizer()
        single_vectors = ("model.image_newline", "grounding_head.no_object", "grounding_head.empty_region")
        rates, decays = {}, {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert id(parameter) not in rates
                rates[id(parameter)], decays[id(parameter)] = group["lr"], group["weight_decay"]
        for name, parameter in trainer.model.named_parameters():
            if not parameter.requires_grad:
                assert id(parameter) not in rates
                continue
            expected = {"model.vision": 1e-5, "geometric_": 2e-5, "teacher_pro": 2e-5}
            rate = next((value for prefix, value in expected.items() if name.startswith(prefix)), 3e-3)
            assert rates[id(parameter)] == rate, name
            is_plain = parameter.ndim == 1 and name not in single_vectors
            assert (decays[id(parameter)] == 0) == is_plain, name

    def test_a_learning_rate_of_zero_holds_a_part_still(self, make_trainer, model):
        trainer = make_trainer([make_sample(2, teacher=True)], vision_learning_rate=0.0)
        trainer.train()
        for name, parameter in trainer.model.named_parameters():
            is_still = torch.equal(parameter, model.get_parameter(name))
            assert is_still or not name.startswith("model.vision_tower."), name
        assert not torch.equal(trainer.model.lm_head.weight, model.lm_head.weight)

    def test_bfloat16_training_is_finite(self, make_trainer):
        trainer = make_trainer(make_mixed_batch(), bf16=True, max_steps=3)
        trainer.train()
        assert all(math.isfinite(entry["loss"]) for entry in logged(trainer))

    def test_activation_checkpointing_gives_the_same_losses(self, make_trainer):
        losses = []
        for is_on in (False, True):
            trainer = make_trainer(make_mixed_batch(), max_steps=3, activation_checkpointing=is_on)
            trainer.train()
            losses.append([entry["loss"] for entry in logged(trainer)])
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


class TestCheckpoint:
    def test_weights_and_heads_are_kept_apart(self, make_trainer, tmp_path):
        trainer = make_trainer([make_sample(2, teacher=True)], save_strategy="steps", save_steps=2)
        trainer.train()
        for folder in (tmp_path / "run" / "checkpoint-2", tmp_path / "end"):
            if folder.name == "end":
                trainer.save_model(str(folder))
            saved, heads = load_file(folder / "model.safetensors"), load_file(folder / GEOMETRY_WEIGHTS)
            state = trainer.model.state_dict()
            assert set(saved) == set(IDE3DForConditionalGeneration(trainer.model.config).state_dict())
            assert set(heads) == set(trainer.model.geometry_state_dict())
            assert all(torch.equal(value, state[key]) for key, value in {**saved, **heads}.items())
            config = json.loads((folder / "config.json").read_text())
            assert "auto_map" not in config

    def test_without_heads_there_is_no_file_of_heads(self, make_trainer, tmp_path):
        trainer = make_trainer([make_sample(2)], model=build_model(validator=False, teacher_size=None))
        trainer.save_model(str(tmp_path / "end"))
        assert not (tmp_path / "end" / GEOMETRY_WEIGHTS).exists()

    def test_the_best_model_has_its_own_heads(self, make_trainer):
        """The largest loss is called best here, so that it is not the last one."""
        trainer = make_trainer(
            [make_sample(2, teacher=True)],
            eval_dataset=[make_sample(2, teacher=True)],
            max_steps=3,
            save_strategy="steps",
            eval_strategy="steps",
            save_steps=1,
            eval_steps=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss_depth",
            greater_is_better=True,
        )
        trainer.train()
        best = trainer.state.best_model_checkpoint
        history = {entry["step"]: entry["eval_loss_depth"] for entry in logged(trainer, "eval_loss_depth")}
        assert best.endswith(str(max(history, key=history.get))) and not best.endswith("3")
        heads = load_file(f"{best}/{GEOMETRY_WEIGHTS}")
        assert all(torch.equal(value, heads[key]) for key, value in trainer.model.geometry_state_dict().items())
        assert trainer.evaluate()["eval_loss_depth"] == pytest.approx(max(history.values()), rel=1e-3)

    def test_the_last_checkpoint_can_be_the_best(self, make_trainer, tmp_path):
        trainer = make_trainer(
            [make_sample(2, teacher=True)],
            eval_dataset=[make_sample(2, teacher=True)],
            max_steps=1,
            save_strategy="steps",
            eval_strategy="steps",
            save_steps=1,
            eval_steps=1,
            load_best_model_at_end=True,
        )
        trainer.train()
        folder = tmp_path / "run" / "checkpoint-1"
        state = json.loads((folder / "trainer_state.json").read_text())
        assert trainer.state.best_model_checkpoint == state["best_model_checkpoint"] == str(folder)


def test_few_private_methods_of_trainer_are_overridden():
    """Transformers may rename them without notice; each of ours has its reason beside it."""
    private = {name for name in vars(IDE3DTrainer) if name.startswith("_") and not name.startswith("__")}
    assert private & set(dir(Trainer)) == {"_get_train_sampler", "_load_best_model", "_run_epoch", "_save"}


class TestRefused:
    def test_an_inference_model(self, make_trainer, model):
        with pytest.raises(TypeError, match="got IDE3DForConditionalGeneration. .*transformers.Trainer"):
            make_trainer([make_sample(1)], model=IDE3DForConditionalGeneration(model.config))

    @pytest.mark.parametrize("weight", [-0.1, math.nan])
    @pytest.mark.parametrize("name", ["depth_weight", "cross_view_weight", "overlap_weight", "grounding_weight"])
    def test_negative_weights(self, tmp_path, name, weight):
        with pytest.raises(ValueError, match=f"{name} must be a finite number of at least 0"):
            IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **{name: weight})

    def test_dropping_columns(self, tmp_path):
        with pytest.raises(ValueError, match="remove_unused_columns must stay False"):
            IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, remove_unused_columns=True)

    def test_an_unknown_protocol(self, make_trainer):
        with pytest.raises(ValueError, match="protocol"):
            make_trainer([make_sample(1)], protocol="original")


def test_the_defaults_are_the_weights_of_the_original(tmp_path):
    for protocol, pairs in (("paper", [0.08, 0.08, 0.0]), ("clean", [0.08, 0.0, 0.08])):
        args = IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, protocol=protocol)
        assert list(args.loss_weights.values()) == pytest.approx([0.8, *pairs, 1.0, 1.0, 0.0, 0.0])


@pytest.mark.parametrize("protocol, other", [("clean", "paper"), ("paper", "clean")])
def test_a_copy_with_another_protocol_has_its_weights(tmp_path, protocol, other):
    arguments = {"output_dir": str(tmp_path), "use_cpu": True}
    expected = IDE3DTrainingArguments(**arguments, protocol=other).loss_weights
    args = IDE3DTrainingArguments(**arguments, protocol=protocol)
    by_dict = IDE3DTrainingArguments(**{**dataclasses.asdict(args), "protocol": other})
    assert dataclasses.replace(args, protocol=other).loss_weights == by_dict.loss_weights == expected
    own = IDE3DTrainingArguments(**arguments, protocol=protocol, overlap_weight=0.3, consistency_weight=0.0)
    copied = dataclasses.replace(own, protocol=other).loss_weights
    assert (copied["loss_overlap_l1"], copied["loss_view_consistency"]) == (0.3, 0.0)


@pytest.mark.parametrize("metric", ["loss_depth", "eval_loss_language", "eval_loss"])
def test_a_smaller_loss_is_better(tmp_path, metric):
    arguments = {"output_dir": str(tmp_path), "use_cpu": True, "metric_for_best_model": metric}
    assert IDE3DTrainingArguments(**arguments, save_strategy="best", eval_strategy="epoch").greater_is_better is False


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failing_sample_ends_the_training(make_trainer, workers):
    """Nothing is skipped in silence, and the message names the sample."""
    samples = [make_sample(2), {**make_sample(2), "depth": make_sample(2)["depth"] * 1000, "scene_id": "attic"}]
    trainer = make_trainer(samples, dataloader_num_workers=workers)
    with pytest.raises(ValueError, match="Sample 'attic': `depth` must be in metres"):
        trainer.train()


def test_a_failing_callback_ends_the_training(make_trainer):
    class Broken(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        make_trainer([make_sample(1)], callbacks=[Broken()]).train()


@pytest.mark.parametrize("logging", [1, 50])
def test_losses_that_are_not_finite_end_the_training(make_trainer, logging):
    """Also where the run is over before the next log."""
    trainer = make_trainer([make_sample(2)], learning_rate=100.0, max_grad_norm=0, max_steps=4, logging_steps=logging)
    with pytest.raises(FloatingPointError, match="loss_depth.* became NaN or Inf at step [1-3] for"):
        trainer.train()


class TestNonFiniteBatches:
    """One sample whose depth loss is NaN, among good ones."""

    @pytest.fixture
    def samples(self):
        return [make_sample(2, scene_id=name) for name in ("kitchen", "hall", "cellar", "attic")]

    @pytest.fixture
    def breaking_model(self, model, monkeypatch):
        whole = type(model).forward

        def forward(self, *args, **kwargs):
            outputs = whole(self, *args, **kwargs)
            if "attic" in decode_names(kwargs["sample_names"]):
                outputs.loss_depth = outputs.loss_depth * torch.nan
            return outputs

        monkeypatch.setattr(type(model), "forward", forward)
        return model

    def test_the_message_names_the_sample(self, make_trainer, samples, breaking_model):
        with pytest.raises(FloatingPointError, match=r"loss_depth became NaN .* for the samples \['attic'\]; max_non"):
            make_trainer(samples, model=breaking_model, per_device_train_batch_size=1, max_steps=4).train()

    def test_as_many_as_allowed_are_left_out(self, make_trainer, samples, breaking_model, caplog):
        trainer = make_trainer(
            samples,
            model=breaking_model,
            per_device_train_batch_size=1,
            max_steps=4,
            max_nonfinite=1,
            learning_rate=1e-3,
        )
        with caplog.at_level("WARNING"):
            trainer.train()
        assert "['attic']; the batch is left out (1 so far)" in caplog.text
        assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
        again = make_trainer(
            samples, model=breaking_model, per_device_train_batch_size=1, max_steps=8, max_nonfinite=1
        )
        with pytest.raises(FloatingPointError, match="max_nonfinite=1"):
            again.train()

    def test_a_negative_number(self, tmp_path):
        with pytest.raises(ValueError, match="max_nonfinite"):
            IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, max_nonfinite=-1)


class TestOneProtocol:
    def test_it_reaches_criterion_and_collator(self, make_trainer):
        options = {"pair_mode": "overlap", "neighbor_range": 1, "pairs_per_frame": 3, "depth_range": [0.1, 8.0]}
        model, collator = build_model(validator={"protocol": "paper"}), build_collator()
        trainer = make_trainer([make_sample(2)], protocol="paper", model=model, collator=collator, **options)
        criterion = trainer.model.criterion
        assert {name: getattr(criterion, name) for name in options} == options
        protocols = {criterion.protocol, criterion.depth_loss.protocol, criterion.cross_view_loss.protocol}
        assert protocols == {trainer.data_collator.protocol} == {"paper"}
        trainer.train()
        assert logged(trainer)[0]["loss_overlap_l1"] >= 0

    def test_parts_of_another_protocol_are_refused(self, make_trainer):
        with pytest.raises(ValueError, match="protocol='paper', the geometric validator has 'clean'"):
            make_trainer([make_sample(1)], protocol="paper", collator=build_collator())
        with pytest.raises(ValueError, match="protocol='clean', the collator has 'paper'"):
            make_trainer([make_sample(1)], collator=build_collator(protocol="paper"))


def test_the_trainer_hands_its_options_to_the_criterion(make_trainer):
    trainer = make_trainer([make_sample(1)], pair_mode="random", neighbor_range=1)
    criterion = trainer.model.criterion
    assert (criterion.protocol, criterion.pair_mode, criterion.neighbor_range) == ("clean", "random", 1)
    assert criterion.grounding_loss.temperature == trainer.model.config.grounding_temperature
    assert isinstance(trainer, IDE3DTrainer)
