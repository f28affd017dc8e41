"""What is trained: everything, some parts, or low-rank adapters; and what is exported of it."""

import copy
import importlib.util

import pytest
import torch
from training_samples import build_model, make_grounding_sample, make_sample
from transformers import AutoModel

from trainer import export_inference_model
from trainer.loop.model_parts import PARTS, find_part

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


def samples():
    return [make_sample(2, teacher=True), make_grounding_sample(2, teacher=True)]


def adapt(model):
    from peft import LoraConfig, get_peft_model

    targets = r"model\.language_model\..*\.(q_proj|v_proj)"
    return get_peft_model(model, LoraConfig(r=4, target_modules=targets, modules_to_save=["multi_modal_projector"]))


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def changed_parts(trainer, before):
    pairs = ((name, value, before[name]) for name, value in trainer._core.named_parameters())
    return {find_part(name) for name, value, old in pairs if not torch.equal(value, old)}


class TestParts:
    @pytest.mark.parametrize("frozen", [[], ["vision"], ["language"], ["vision", "language", "geometry"]])
    def test_frozen_parts_stay_and_the_loss_goes_down(self, make_trainer, model, frozen):
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        trainer = make_trainer(samples(), frozen_parts=frozen, max_steps=8, learning_rate=1e-3)
        trainer.train()
        assert changed_parts(trainer, before) == set(PARTS) - set(frozen)
        assert losses(trainer)[-1] < losses(trainer)[0]
        trained = {id(value) for group in trainer.optimizer.param_groups for value in group["params"]}
        assert all((id(value) in trained) == value.requires_grad for value in trainer.model.parameters())

    def test_a_part_that_there_is_not(self, make_trainer):
        with pytest.raises(ValueError, match=r"frozen_parts must be of .*got \['tower'\]"):
            make_trainer(samples(), frozen_parts=["tower"])

    def test_each_part_has_its_own_rate(self, make_trainer):
        rates = {part: 10.0**-k for k, part in enumerate(PARTS, start=3)}
        trainer = make_trainer(samples(), **{f"{part}_learning_rate": rate for part, rate in rates.items()})
        names = {id(value): name for name, value in trainer.model.named_parameters()}
        for group in trainer.create_optimizer().param_groups:
            assert all(group["lr"] == rates[find_part(names[id(value)])] for value in group["params"])

    @pytest.mark.parametrize(
        "term, reached",
        [
            ("loss_depth", {"vision", "geometry"}),
            ("loss_cross_view_depth", {"vision", "geometry"}),
            ("loss_distillation", {"vision", "projector", "language", "geometry"}),
        ],
    )
    def test_terms_reach_the_parts_that_they_supervise(self, make_trainer, collator, term, reached):
        model = make_trainer([]).model
        outputs = model(**collator(samples()))
        outputs[term].backward()
        named = [(name, value.grad) for name, value in model.named_parameters()]
        assert {find_part(name) for name, grad in named if grad is not None and grad.abs().max() > 0} == reached


@needs_peft
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
class TestAdapters:
    @pytest.fixture
    def adapted(self, model):
        return adapt(copy.deepcopy(model))

    @pytest.fixture
    def trained(self, make_trainer, adapted):
        trainer = make_trainer(samples(), model=adapted, max_steps=8, save_strategy="steps", save_steps=4)
        before = {name: value.detach().clone() for name, value in adapted.get_base_model().named_parameters()}
        trainer.train()
        return trainer, before

    def test_adapters_projector_and_heads_are_trained_and_nothing_else(self, trained):
        trainer, before = trained
        pairs = list(trainer._core.named_parameters())
        changed = {name for name, value in pairs if not torch.equal(value, before[name])}
        markers = ("lora_", "modules_to_save", "geometric_validator.", "teacher_projector.")
        assert all(any(marker in name for marker in markers) for name in changed)
        assert all(any(marker in name for name in changed) for marker in markers)
        assert losses(trainer)[-1] < losses(trainer)[0]

    def test_a_resumed_run_is_the_run(self, trained, make_trainer, tmp_path):
        trainer, _ = trained
        resumed = make_trainer(samples(), "again", model=adapt(build_model()), max_steps=8)
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
        assert losses(resumed)[-4:] == losses(trainer)[-4:]

    def test_the_export_is_merged_or_an_adapter_of_the_exported_base(self, trained, model, collator, tmp_path):
        from peft import PeftModel

        trainer, _ = trained
        trainer.save_model(str(tmp_path / "adapter"))
        base = export_inference_model(model, collator.processor, tmp_path / "base")
        merged_model = trainer.model.merge_and_unload()
        merged = export_inference_model(merged_model, collator.processor, tmp_path / "merged")
        inputs = {
            name: value
            for name, value in collator([make_sample(2)]).items()
            if name in ("input_ids", "attention_mask", "pixel_values_videos")
        }
        with torch.no_grad():
            loaded = AutoModel.from_pretrained(merged, trust_remote_code=True).eval()
            expected = loaded(**inputs).logits
            plain = AutoModel.from_pretrained(base, trust_remote_code=True).eval()
            untrained = plain(**inputs).logits
            adapted = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()(**inputs).logits
        torch.testing.assert_close(adapted, expected, atol=1e-4, rtol=1e-4)
        assert (untrained - expected).abs().max() > 1e-2
