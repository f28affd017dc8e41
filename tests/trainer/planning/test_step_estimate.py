"""The estimate of a step beside the step: memory within 15 % of what the allocator gave out, operations exactly."""

import importlib.util
from pathlib import Path

import pytest
import torch
from benchmarks.step_cost import measure_peak
from training_samples import TEACHER_SIZE, build_collator, build_model, make_grounding_sample, make_sample

from modeling_ide3d import IDE3DConfig
from modeling_ide3d.auxiliary import GeometricValidatorConfig, IDE3DForConditionalGenerationWithGeometry
from trainer import IDE3DTrainer, IDE3DTrainingArguments
from trainer.planning import fake_step
from trainer.planning.step_estimate import Placement, estimate_step, make_batch
from trainer.planning.step_recorder import GRADIENTS, StepRecorder

CONFIG_7B = Path(__file__).parents[3] / "examples" / "recipes" / "ide3d_7b_config.json"
FURTHER = {
    "pose_weight": 1.0,
    "scale_weight": 1.0,
    "distillation_layers": ["vision.1", "language.2"],
    "camera_layer": "language.1",
}
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


def build(on_meta: bool, dtype=torch.float32, lora: bool = False, protocol: str = "clean"):
    """The same model with weights or without."""
    small = build_model()
    with torch.device("meta" if on_meta else "cpu"):
        validator = GeometricValidatorConfig.light(small.config.vision_config, protocol=protocol)
        model = IDE3DForConditionalGenerationWithGeometry(small.config, validator, TEACHER_SIZE).to(dtype)
    if lora:
        from peft import LoraConfig, get_peft_model

        return get_peft_model(model, LoraConfig(r=4, target_modules=r"model\.language_model\..*\.(q_proj|v_proj)"))
    return model


def arguments(folder, **changes) -> IDE3DTrainingArguments:
    fixed = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "max_steps": 10}
    return IDE3DTrainingArguments(output_dir=str(folder), **{**fixed, **changes})


def build_step(model, args, collator, batch):
    """One forward and backward pass of the trainer, gradients gone before."""
    trainer = IDE3DTrainer(model, args, train_dataset=[make_sample()], data_collator=collator)
    trainer.state.max_steps = 10
    trainer.current_gradient_accumulation_steps = 1
    if args.activation_checkpointing:
        trainer._core.activation_checkpointing_enable()
    wrapped = trainer.accelerator.prepare(model) if args.bf16 else model

    def step():
        batches, num_items = trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
        trainer.training_step(wrapped, batches[0], num_items)

    step()
    for parameter in model.parameters():
        parameter.grad = None
    return step, trainer


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
class TestBesideAStep:
    @pytest.mark.parametrize(
        "samples, model, changes",
        [
            (1, {}, {}),
            (2, {}, {}),
            pytest.param(2, {}, {"activation_checkpointing": True}, marks=pytest.mark.slow),
            pytest.param(2, {}, {"bf16": True}, marks=pytest.mark.slow),
            pytest.param(2, {"dtype": torch.bfloat16}, {}, marks=pytest.mark.slow),
            (1, {"protocol": "paper"}, {"protocol": "paper"}),
            pytest.param(
                2,
                {},
                {"frozen_parts": ["vision"], "depth_weight": 0.0, "distillation_weight": 0.0},
                marks=pytest.mark.slow,
            ),
            pytest.param(2, {}, FURTHER, marks=pytest.mark.slow),
            pytest.param(2, {"lora": True}, {}, marks=[needs_peft, pytest.mark.slow]),
            pytest.param(1, {"lora": True}, {"activation_checkpointing": True}, marks=needs_peft),
        ],
        ids=[
            "1",
            "2",
            "checkpointing",
            "mixed",
            "bfloat16",
            "paper",
            "frozen",
            "further",
            "lora",
            "lora checkpointing",
        ],
    )
    def test_memory_and_operations(self, tmp_path, samples, model, changes):
        args = arguments(tmp_path, per_device_train_batch_size=samples, **changes)
        collator = build_collator(protocol=args.protocol)
        kinds = [make_sample(6, teacher=True), make_grounding_sample(6, teacher=True)]
        batch = collator(kinds[:samples])
        if model.get("dtype") is not None:
            batch["pixel_values_videos"] = batch["pixel_values_videos"].to(model["dtype"])
        estimate = estimate_step(build(True, **model), batch, args)
        real = build(False, **model)
        step, trainer = build_step(real, args, collator, batch)
        measured = measure_peak(step) * 2**20
        estimated = estimate.memory["activations"] + estimate.memory["gradients"]
        assert estimated == pytest.approx(measured, rel=0.15)
        for parameter in real.parameters():
            parameter.grad = None
        with StepRecorder(trainer._core) as recorder:
            step()
        assert {part: n for part, n in estimate.operations.items() if n} == {
            part: n for part, n in recorder.operations.items() if n
        }
        trained = [value for value in real.parameters() if value.requires_grad]
        assert sum(estimate.trainable.values()) == sum(value.numel() for value in trained)
        assert estimate.memory["weights"] == sum(v.numel() * v.element_size() for v in real.parameters())
        optimizer = trainer.create_optimizer()
        optimizer.step()  # no gradient: no state yet
        for value in trained:
            value.grad = torch.zeros_like(value)
        optimizer.step()
        states = [s for entry in optimizer.state.values() for key, s in entry.items() if key != "step"]
        assert estimate.memory["optimizer"] == sum(s.numel() * s.element_size() for s in states)


class TestEstimate:
    def test_large_maps_stand_for_themselves(self, tmp_path, collator, monkeypatch):
        """Every second pixel, counted four times, is as good as all."""
        batch, totals = collator([make_sample(6, teacher=True)]), []
        for side in (128, 40):
            monkeypatch.setattr(fake_step, "MAX_SIDE", side)
            recorded, _ = fake_step.run_fake_step(prepared(tmp_path), batch, arguments(tmp_path))
            totals.append(recorded)
        assert totals[1].scale == 4 and totals[0].scale == 1
        assert totals[1].peak == pytest.approx(totals[0].peak, rel=0.02)

    def test_accumulated_gradients_stay(self, tmp_path, collator):
        batch = collator([make_sample(2)])
        found = [
            estimate_step(build(True), batch, arguments(tmp_path, gradient_accumulation_steps=steps))
            for steps in (1, 2)
        ]
        gradients = 4 * sum(found[0].trainable.values())
        assert found[1].memory["gradients"] == gradients > found[0].memory["gradients"]
        assert all(found[1].operations[part] == 2 * n for part, n in found[0].operations.items())

    @pytest.mark.slow
    def test_shares_of_processes(self, tmp_path, collator):
        batch, half = collator([make_sample(2)]), arguments(tmp_path, bf16=True)
        count = sum(estimate_step(build(True), batch, half).parameters.values())
        trained = sum(estimate_step(build(True), batch, half).trainable.values())
        memory = {
            sharding: estimate_step(build(True), batch, half, Placement(4, sharding)).memory
            for sharding in ("none", "zero2", "zero3", "fsdp2")
        }
        assert memory["none"]["weights"] == memory["fsdp2"]["weights"] * 4 == 4 * count
        assert memory["zero2"]["weights"] == memory["zero3"]["weights"] * 4 == 2 * count
        assert memory["none"]["optimizer"] == 8 * trained and memory["fsdp2"]["optimizer"] == 8 * trained / 4
        assert memory["zero2"]["optimizer"] == memory["zero3"]["optimizer"] == 12 * trained / 4
        assert memory["none"]["communication"] == 4 * trained
        assert 0 < memory["fsdp2"]["communication"] < 2 * count

    def test_the_table_has_all_of_it(self, tmp_path, collator):
        estimate = estimate_step(build(True), collator([make_sample(2)]), arguments(tmp_path))
        text = estimate.as_text()
        for word in (*estimate.parameters, *estimate.memory, *estimate.operations, "TFLOP a step", "1 frame pairs"):
            assert word in text

    def test_a_model_with_weights_is_refused(self, tmp_path, collator):
        with pytest.raises(ValueError, match=r"is on cpu, not on meta"):
            estimate_step(build(False), collator([make_sample(2)]), arguments(tmp_path))

    @pytest.mark.parametrize("words", [{"processes": 0}, {"sharding": "zero1"}])
    def test_impossible_placements(self, words):
        with pytest.raises(ValueError, match=next(iter(words))):
            Placement(**words)


def prepared(folder):
    from trainer.ide3d_trainer import prepare_model

    model = build(True)
    prepare_model(model, arguments(folder))
    return model


class TestBatch:
    def test_it_is_one_of_the_collator(self, tmp_path):
        config = build_model().config
        batch = make_batch(config, batch_size=2, num_frames=3, num_regions=4, teacher_size=TEACHER_SIZE)
        expected = build_collator()([make_grounding_sample(3, regions=4, teacher=True)] * 2)
        for name in set(expected) - {"input_ids", "labels", "attention_mask", "region_references", "sample_names"}:
            assert batch[name].shape == expected[name].shape and batch[name].dtype == expected[name].dtype, name
        assert batch["input_ids"].shape == (2, 3 * config.tokens_per_frame + 128)
        estimate = estimate_step(build(True), batch, arguments(tmp_path))
        assert estimate.num_pairs == 2 * 3 and all(estimate.operations[part] for part in ("grounding", "teacher"))

    @pytest.mark.parametrize("sizes", [{"batch_size": 0}, {"num_frames": 0}, {"text_tokens": 3}])
    def test_sizes_that_are_none(self, sizes):
        with pytest.raises(ValueError, match="must be at least 1"):
            make_batch(build_model().config, **sizes)


@pytest.mark.slow
def test_seven_billion_parameters_without_weights(tmp_path):
    config = IDE3DConfig.from_json_file(CONFIG_7B)
    with torch.device("meta"):
        validator = GeometricValidatorConfig.from_vision_config(config.vision_config, protocol="paper")
        model = IDE3DForConditionalGenerationWithGeometry(config, validator, 2048)
    args = arguments(tmp_path, bf16=True, protocol="paper", activation_checkpointing=True)
    batch = make_batch(config, teacher_size=2048, num_regions=50, native_size=(480, 640))
    estimate = estimate_step(model, batch, args, Placement(8, "zero2"))
    # 8.06 billion for inference, by the paper, and the two heads.
    assert sum(estimate.parameters.values()) / 1e9 == pytest.approx(8.06 + 0.08, rel=0.01)
    assert estimate.num_pairs == 62 and estimate.memory["weights"] == 2 * sum(estimate.parameters.values())
    language = 2 * estimate.parameters["language"] * (batch["input_ids"].numel()) * 4  # forward, twice backward, again
    assert estimate.operations["language"] == pytest.approx(language, rel=0.25)
    assert GRADIENTS not in estimate.activations
