"""What attaching and detaching do to a model, what generation sees of it, and what is refused."""

import copy
import dataclasses
import gc
import weakref

import pytest
import torch
from supervised_hosts import ALL, TEACHER_SIZE, attach, frames, geometry, hooks, teacher
from tiny_hosts import HOSTS, QUESTION
from torch import nn
from training_samples import make_sample

from modeling_ide3d.auxiliary import GeometricValidatorConfig
from trainer import GeometrySupervision
from trainer.supervision.criterion import GeometryCriterion
from trainer.supervision.vision_layouts import find_layout

pytestmark = pytest.mark.usefixtures("one_thread")


class TestDetached:
    def test_nothing_is_left(self, setting, tmp_path):
        """After training steps too: what differs from a model that was never supervised are the trained values."""
        model, supervision, inputs, targets = setting
        fresh = HOSTS[model.config.model_type].build_model().train()
        fresh.load_state_dict(model.state_dict())
        fresh(**inputs)
        (model(**inputs).loss + supervision.compute_loss(**targets)).backward()
        model.zero_grad()
        attributes = {name for module in fresh.modules() for name in vars(module)}
        model.save_pretrained(tmp_path / "attached")
        supervision.detach()
        model.save_pretrained(tmp_path / "detached")
        fresh.save_pretrained(tmp_path / "never")
        assert type(model) is type(fresh) and hooks(model) == hooks(fresh)
        assert {name for module in model.modules() for name in vars(module)} == attributes
        assert list(model.state_dict()) == list(fresh.state_dict())
        assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in model.state_dict().items())
        expected = {file.name: file.read_bytes() for file in (tmp_path / "never").iterdir()}
        assert {"config.json", "model.safetensors"} <= set(expected)
        for folder in ("attached", "detached"):
            assert {file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()} == expected
        assert torch.equal(model(**inputs).logits, fresh(**inputs).logits)
        with pytest.raises(RuntimeError, match="was detached"):
            supervision.compute_loss(**targets)

    def test_a_model_that_never_ran_has_no_hook_at_all(self, host):
        model = host.build_model()
        supervision = attach(model)
        assert hooks(model)
        supervision.detach()
        supervision.detach()
        assert hooks(model) == {}

    def test_outputs_while_attached_are_the_model_s_own(self, host):
        model, inputs = host.build_model().eval(), host.build_inputs(frames(make_sample(2)))
        expected = model(**inputs)
        attach(model)
        for mode in (True, False):
            outputs = model.train(mode)(**inputs)
            assert torch.equal(outputs.logits, expected.logits) and torch.equal(outputs.loss, expected.loss)

    def test_attaching_twice_is_an_error(self, host):
        model = host.build_model()
        supervision = attach(model)
        count = hooks(model)
        with pytest.raises(ValueError, match="has a geometry supervision already"):
            attach(model)
        assert hooks(model) == count
        supervision.detach()
        attach(model)

    def test_a_copy_of_the_model_is_not_supervised(self, setting):
        """Say, an average of weights that is made during training: its hooks do nothing, and may be added to."""
        model, supervision, inputs, targets = setting
        model(**inputs)
        copied = copy.deepcopy(model)
        expected = supervision.compute_loss(**targets)
        model(**inputs)
        assert torch.equal(copied(**inputs).logits, model(**inputs).logits)
        assert torch.equal(supervision.compute_loss(**targets), expected)
        copied(**inputs)
        with pytest.raises(RuntimeError, match="no training pass"):
            supervision.compute_loss(**targets)
        again = attach(copied, loss_weights=ALL)
        copied(**inputs)
        assert torch.equal(again.compute_loss(**targets), expected)

    def test_heads_are_saved_by_themselves(self, setting):
        model, supervision, inputs, targets = setting
        model(**inputs)
        expected = supervision.compute_loss(**targets)
        weights = copy.deepcopy(supervision.state_dict())
        supervision.detach()
        again = attach(model, seed=1, loss_weights=ALL)
        again.load_state_dict(weights)
        model(**inputs)
        assert torch.equal(again.compute_loss(**targets), expected)

    def test_the_model_is_not_held(self, qwen):
        model = qwen.build_model()
        reference, supervision = weakref.ref(model), attach(model)
        del model
        gc.collect()
        assert reference() is None
        assert {key.split(".")[0] for key in supervision.state_dict()} == {"geometric_validator", "teacher_projector"}


class TestGeneration:
    @pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
    def test_it_generates_as_before_and_leaves_nothing(self, host, training):
        sample = make_sample(2)
        model, inputs = host.build_model().eval(), host.build_inputs(frames(sample))
        prompt = inputs["input_ids"].shape[1] - 3
        inputs = {key: value[:, :prompt] if value.shape[-1] == prompt + 3 else value for key, value in inputs.items()}
        del inputs["labels"]
        assert inputs["input_ids"][0, -3:].tolist() == QUESTION
        expected = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        supervision = attach(model)
        model.train(training)
        assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False), expected)
        with pytest.raises(RuntimeError, match="no training pass"):
            supervision.compute_loss(**geometry(sample))

    def test_evaluation_between_a_pass_and_its_loss_changes_nothing(self, setting):
        model, supervision, inputs, targets = setting
        model(**inputs)
        expected = supervision.compute_loss(**targets)
        model(**inputs)
        model.eval()(**inputs)
        assert torch.equal(supervision.compute_loss(**targets), expected)

    def test_every_pass_counts_once(self, setting):
        model, supervision, inputs, targets = setting
        model(**inputs)
        supervision.compute_loss(**targets)
        with pytest.raises(RuntimeError, match="no training pass .* before each compute_loss"):
            supervision.compute_loss(**targets)

    def test_a_pass_that_raised_does_not_count(self, qwen):
        model, inputs = qwen.build_model().train(), qwen.build_inputs(frames(make_sample(2)))
        supervision = attach(model)
        with pytest.raises(ValueError, match="do not match"):
            model(**{**inputs, "input_ids": torch.full_like(inputs["input_ids"], 5)})
        with pytest.raises(RuntimeError, match="no training pass"):
            supervision.compute_loss()


WRONG = {
    "one entry a sample, 2, got 1": lambda t: t.update(depth=t["depth"][:1]),
    "depth of sample 1 has 2 frames, but the model saw 2 time steps of 2": lambda t: [
        t[name].__setitem__(1, t[name][1][:2]) for name in ("depth", "intrinsics", "camera_to_world")
    ],
    r"Sample 1: depth, cameras and poses must have one entry a frame, got .'depth': 2": lambda t: t[
        "depth"
    ].__setitem__(1, t["depth"][1][:2]),
    r"Sample 0: depth, cameras and poses must have one entry .*'camera_to_world': 6": lambda t: t[
        "camera_to_world"
    ].__setitem__(0, torch.eye(4).repeat(6, 1, 1)),
    "Sample 0: depth must have shape": lambda t: t["depth"].__setitem__(0, torch.ones(4, 9)),
    "Sample 1: intrinsics must have shape": lambda t: t["intrinsics"].__setitem__(1, torch.eye(4).repeat(4, 1, 1)),
    "Sample 1: intrinsics and camera_to_world need each other": lambda t: t["intrinsics"].__setitem__(1, None),
    "Sample 0: `depth` holds 2 values that are NaN": lambda t: t["depth"][0].__setitem__((0, 0, slice(2)), torch.nan),
    "Sample 0: `camera_to_world` is not a rigid motion": lambda t: t["camera_to_world"].__setitem__(
        0, 2 * torch.eye(4).repeat(4, 1, 1)
    ),
    r"has_geometry must have shape \(2,\), got \(3,\)": lambda t: t.update(has_geometry=torch.ones(3).bool()),
    "Give depth alone, or .* together; got .*'intrinsics'.": lambda t: t.pop("camera_to_world"),
    r"teacher_features of sample 1 must have shape \(V, 2, 2, C\)": lambda t: t["teacher_features"].__setitem__(
        1, torch.ones(4, 3, 2, TEACHER_SIZE)
    ),
    "teacher_features have 5 channels": lambda t: t.update(
        teacher_features=[feature[..., :5] for feature in t["teacher_features"]]
    ),
}


class TestErrors:
    @pytest.mark.parametrize("message", WRONG)
    def test_wrong_targets(self, qwen, message):
        samples = [make_sample(4), make_sample(4, seed=1)]
        model, inputs = qwen.build_model().train(), qwen.build_inputs(frames(*samples))
        supervision = attach(model)
        targets = {**geometry(*samples), "teacher_features": teacher(supervision, inputs, samples)}
        WRONG[message](targets)
        model(**inputs)
        with pytest.raises(ValueError, match=message):
            supervision.compute_loss(**targets)

    def test_a_sample_without_a_video(self, qwen):
        samples = [make_sample(2), make_sample(2)]
        model = qwen.build_model().train()
        supervision = attach(model)
        for given in ([samples[0]["frames"], None], [None, None]):
            model(**qwen.build_inputs(given))
            with pytest.raises(ValueError, match=r"depth is given for the samples \[(0, )?1\], which have no video"):
                supervision.compute_loss(**geometry(*samples))

    def test_visual_features_that_were_computed_before(self, qwen):
        sample, model = make_sample(2), qwen.build_model().train()
        supervision, inputs = attach(model), qwen.build_inputs(frames(sample))
        pixels, grid = inputs.pop("pixel_values_videos"), inputs["video_grid_thw"]
        features = model.get_video_features(pixels, grid, return_dict=True)
        model(**inputs, mm_encoder_outputs={"video": features})
        with pytest.raises(
            ValueError, match=r"\[4\] visual tokens, but the model was called without pixel_values_videos"
        ):
            supervision.compute_loss(**geometry(sample))

    def test_embeddings_instead_of_tokens(self, qwen):
        sample, model = make_sample(2), qwen.build_model().train()
        supervision, inputs = attach(model), qwen.build_inputs(frames(sample))
        embeddings = model.get_input_embeddings()(inputs.pop("input_ids"))
        model(inputs_embeds=embeddings, attention_mask=inputs["attention_mask"], labels=inputs["labels"])
        with pytest.raises(ValueError, match="found by input_ids"):
            supervision.compute_loss(**geometry(sample))

    def test_targets_without_their_head(self, qwen):
        sample, model = make_sample(2), qwen.build_model().train()
        supervision = attach(model, validator=None)
        model(**qwen.build_inputs(frames(sample)))
        with pytest.raises(ValueError, match="no depth decoder: attach with a validator"):
            supervision.compute_loss(**geometry(sample))
        supervision.detach()
        supervision = attach(model, teacher_size=None)
        model(**qwen.build_inputs(frames(sample)))
        with pytest.raises(ValueError, match="no projector: attach with their teacher_size"):
            supervision.compute_loss(teacher_features=[torch.ones(2, 2, 2, 6)])

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"validator": None, "teacher_size": None}, "nothing to supervise"),
            ({"loss_weights": {"loss_grounding": 1.0}}, "must be of .*'loss_depth'.* got .'loss_grounding'."),
            ({"loss_weights": {"loss_depth": -1.0}}, "loss_depth must be a finite number of at least 0"),
            ({"validator": None, "loss_weights": {"loss_distillation": 0.0}}, "Not all weights may be 0"),
            ({"validator": "heavy"}, "got 'heavy'"),
            ({"layout": "internvl"}, "'internvl' was asked for, but the model is of type 'qwen2_5_vl'"),
            ({"validator": GeometricValidatorConfig(vision_hidden_size=16)}, "from_vision_config"),
        ],
    )
    def test_wrong_parts(self, qwen, options, message):
        model = qwen.build_model()
        with pytest.raises(ValueError, match=message):
            attach(model, **options)
        assert hooks(model) == {}

    def test_one_protocol_for_all(self, qwen):
        model = qwen.build_model()
        config = GeometricValidatorConfig.light(model.config.vision_config)
        with pytest.raises(ValueError, match='protocol "paper", the validator "clean"'):
            attach(model, validator=config, criterion=GeometryCriterion(protocol="paper"))

    def test_no_model_of_transformers(self):
        with pytest.raises(TypeError, match="got Linear"):
            GeometrySupervision.attach(nn.Linear(2, 2))

    def test_a_layout_that_does_not_explain_the_tokens(self, qwen):
        model, sample = qwen.build_model().train(), make_sample(2)
        layout = dataclasses.replace(find_layout(model.config), tokens_after_video=1)
        supervision = attach(model, layout=layout)
        model(**qwen.build_inputs(frames(sample)))
        with pytest.raises(ValueError, match="visual tokens, but the samples have .* layout of this model"):
            supervision.compute_loss(**geometry(sample))

    def test_several_processes(self, setting, monkeypatch):
        model, supervision, inputs, targets = setting
        model(**inputs)
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        with pytest.raises(RuntimeError, match="single"):
            supervision.compute_loss(**targets)
