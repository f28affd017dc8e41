"""A model that holds its heads: what its loss is, what its files are, and what is refused."""

import copy
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from supervised_hosts import ALL, attach, frames, geometry, hooks, moved, teacher
from torch import nn
from training_samples import make_sample

from trainer.supervision import SupervisedTraining
from trainer.supervision.joined_model import HEADS_NAME, PREPARED

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def build(qwen):
    """`build(*samples)` gives a supervised Qwen2.5-VL that is not joined yet, and batches of a sample each."""

    def make(*samples):
        model = qwen.build_model().train()
        supervision = attach(model, loss_weights=ALL)
        batches = []
        for sample in samples:
            inputs = qwen.build_inputs(frames(sample))
            batches.append({**inputs, **geometry(sample), "teacher_features": teacher(supervision, inputs, [sample])})
        return model, supervision, batches

    return make


def gradients(*modules):
    return {name: w.grad for module in modules for name, w in module.named_parameters() if w.grad is not None}


class TestLoss:
    def test_it_is_the_sum_of_both(self, build):
        model, supervision, [batch] = build(make_sample(2))
        targets = {key: batch.pop(key) for key in ("depth", "intrinsics", "camera_to_world", "teacher_features")}
        expected = model(**batch).loss + supervision.compute_loss(**targets)
        expected.backward()
        of_model, of_heads = gradients(model), gradients(supervision)
        model.zero_grad()
        supervision.zero_grad()
        supervision.join(model)
        for given in ({**batch, **targets}, *supervision.prepare_step([{**batch, **targets}])):
            loss = model(**given).loss
            torch.testing.assert_close(loss, expected)
            assert set(supervision.terms) == set(ALL) | {"loss_distillation"}
            loss.backward()
            joined = gradients(model)
            torch.testing.assert_close({f"{HEADS_NAME}.{name}": v for name, v in of_heads.items()} | of_model, joined)
            model.zero_grad()

    @pytest.mark.parametrize("has_count", [False, True], ids=["mean", "by tokens"])
    def test_prepared_batches_of_a_step_are_one_batch(self, build, qwen, has_count):
        """Whether the loss is a mean over batches, or a share of the answer tokens as Trainer has it."""
        samples = [make_sample(4), make_sample(2, seed=1), make_sample(6, seed=2)]
        samples[1]["depth"] = samples[1]["depth"] * (samples[1]["depth"] > 2)
        model, supervision, batches = build(*samples)
        supervision.join(model)
        whole = {**qwen.build_inputs(frames(*samples)), **geometry(*samples)}
        whole["teacher_features"] = [batch["teacher_features"][0] for batch in batches]
        expected = model(**whole).loss
        count = {"num_items_in_batch": 9} if has_count else {}
        losses = [model(**batch, **count).loss for batch in supervision.prepare_step(batches)]
        torch.testing.assert_close(sum(losses) / (1 if has_count else 3), expected, rtol=1e-5, atol=1e-6)

    def test_a_batch_that_was_not_prepared_counts_by_its_answer_tokens(self, build):
        model, supervision, [batch] = build(make_sample(2))
        supervision.join(model)
        whole, part = (model(**batch, num_items_in_batch=count).loss for count in (3, 12))
        torch.testing.assert_close(part, whole / 4)

    def test_it_can_be_taken_apart(self, build):
        model, supervision, [batch] = build(make_sample(2))
        plain = {key: value for key, value in batch.items() if key not in ("depth", "teacher_features")}
        plain = {key: value for key, value in plain.items() if key not in ("intrinsics", "camera_to_world")}
        language = model(**plain).loss
        supervision.join(model, adds_loss=False)
        loss = model(**batch).loss
        assert torch.equal(loss, language)
        auxiliary = supervision.take_loss()
        auxiliary.backward()
        assert auxiliary > 1 and moved(supervision)
        with pytest.raises(RuntimeError, match="adds_loss=False"):
            supervision.take_loss()

    def test_without_labels_the_terms_are_the_loss(self, build):
        model, supervision, [batch] = build(make_sample(2))
        supervision.join(model)
        del batch["labels"]
        loss = model(**batch).loss
        torch.testing.assert_close(loss, supervision.weigh(supervision.terms))

    def test_evaluation_never_sees_the_targets(self, build, qwen):
        model, supervision, [batch] = build(make_sample(2))
        expected = model.eval()(**qwen.build_inputs(frames(make_sample(2)))).loss
        supervision.join(model)
        assert torch.equal(model(**batch).loss, expected)
        assert torch.equal(model(**supervision.prepare_step([batch])[0]).loss, expected)
        with torch.no_grad():
            assert torch.equal(model.train()(**batch).loss, expected)

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
    def test_adapters_hold_the_heads(self, build):
        model, supervision, [batch] = build(make_sample(2))
        adapted = get_peft_model(model, LoraConfig(target_modules=r".*visual\.blocks.*(qkv|proj)")).train()
        supervision.join(adapted)
        adapted(**batch).loss.backward()
        names = moved(adapted)
        assert any("lora" in name for name in names) and any(HEADS_NAME in name for name in names)
        assert all("lora" in name or name.startswith(HEADS_NAME) for name in names)
        supervision.detach()
        assert hooks(adapted) == {} or not any(HEADS_NAME in name for name, _ in adapted.named_modules())


class TestModel:
    def test_files_have_no_heads_and_detaching_leaves_nothing(self, build, qwen, tmp_path):
        model, supervision, [batch] = build(make_sample(2))
        fresh = qwen.build_model().train()
        fresh(**qwen.build_inputs(frames(make_sample(2))))
        attributes = {name for module in fresh.modules() for name in vars(module)}
        supervision.join(model)
        model(**batch).loss.backward()
        assert any(HEADS_NAME in name for name, _ in model.named_parameters())
        model.save_pretrained(tmp_path / "joined")
        supervision.detach()
        fresh.save_pretrained(tmp_path / "never")
        model.save_pretrained(tmp_path / "detached")
        expected = {file.name: file.read_bytes() for file in (tmp_path / "never").iterdir()}
        for folder in ("joined", "detached"):
            assert {file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()} == expected
        with safe_open(tmp_path / "joined" / "model.safetensors", "pt") as file:
            assert not any(HEADS_NAME in key for key in file.keys())
        assert hooks(model) == hooks(fresh) and type(model) is type(fresh)
        assert {name for module in model.modules() for name in vars(module)} == attributes
        assert model._keys_to_ignore_on_save == fresh._keys_to_ignore_on_save
        assert [name for name, _ in model.named_modules()] == [name for name, _ in fresh.named_modules()]
        assert moved(supervision)  # the heads stay with it

    def test_a_copy_is_not_supervised(self, build):
        model, supervision, [batch] = build(make_sample(2))
        supervision.join(model)
        copied = copy.deepcopy(model)
        loss, language = model(**batch).loss, copied(**batch).loss
        assert loss - language > 1
        torch.testing.assert_close(loss, language + supervision.weigh(supervision.terms))

    def test_it_generates_as_before(self, build, qwen):
        model, supervision, _ = build()
        inputs = qwen.build_inputs(frames(make_sample(2)))
        del inputs["labels"]
        expected = model.eval().generate(**inputs, max_new_tokens=3, do_sample=False)
        supervision.join(model)
        assert torch.equal(model.train().generate(**inputs, max_new_tokens=3, do_sample=False), expected)


class TestErrors:
    def test_what_cannot_be_joined(self, build, qwen):
        model, supervision, _ = build()
        with pytest.raises(TypeError, match="join takes the supervised model, got 'model'"):
            supervision.join("model")
        for other in (qwen.build_model(), nn.Linear(2, 2)):
            with pytest.raises(ValueError, match="attached to another model"):
                supervision.join(other)
        supervision.join(model)
        with pytest.raises(ValueError, match="joined to a model already"):
            supervision.join(model)
        supervision.detach()
        with pytest.raises(RuntimeError, match="was detached"):
            supervision.join(model)
        assert hooks(model) == {}

    @pytest.mark.parametrize("name", ["depth", "intrinsics", "camera_to_world"])
    def test_targets_that_were_cast(self, build, name):
        """As FSDP and DeepSpeed do it; those of `prepare_step` they leave alone."""
        model, supervision, [batch] = build(make_sample(2))
        supervision.join(model)
        batch[name] = torch.stack(batch[name]).bfloat16()
        with pytest.raises(ValueError, match=f"{name} came in bfloat16.*prepare_step"):
            model(**batch)

    @pytest.mark.parametrize("stage", [1, 2, 3])
    def test_gradients_that_deepspeed_shards(self, build, stage):
        class Trainer:
            def __init__(self, model):
                plugin = SimpleNamespace(zero_stage=stage)
                self.model, self.is_deepspeed_enabled = model, True
                self.accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin))

        class Supervised(SupervisedTraining, Trainer):
            pass

        model, supervision, _ = build()
        if stage == 1:
            Supervised(model, supervision=supervision)
            return
        with pytest.raises(ValueError, match=f"ZeRO-{stage} sums gradients .* stage to 0 or 1"):
            Supervised(model, supervision=supervision)

    def test_wrong_calls(self, build):
        model, supervision, [batch] = build(make_sample(2))
        supervision.join(model)
        [prepared] = supervision.prepare_step([batch])
        with pytest.raises(ValueError, match=f"Give prepared targets alone, got .*{PREPARED}"):
            model(**prepared, depth=batch["depth"])
        for wrong in (lambda: model(**batch, teacher_feature=1), lambda: supervision.prepare_step([{"depht": 1}])):
            with pytest.raises(TypeError, match="is no target.* Is (teacher_features|depth) meant"):
                wrong()
        with pytest.raises(TypeError, match="return_dict=True"):
            model(**batch, return_dict=False)
        del batch["labels"]
        with pytest.raises(ValueError, match="without labels.*prepare_step"):
            model(**batch, num_items_in_batch=3)
        with pytest.raises(RuntimeError, match="no training pass"):
            supervision.compute_loss()
