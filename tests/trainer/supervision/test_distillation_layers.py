"""A teacher of several hidden states, and cameras read from a chosen one: in other models and in our trainings."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from supervised_hosts import attach, frames, geometry, moved, teacher
from torch.nn import functional as F
from training_samples import make_sample

from trainer import GeometrySupervision
from trainer.ide3d_trainer import GEOMETRY_WEIGHTS

pytestmark = pytest.mark.usefixtures("one_thread")
LAYERS = ["vision.1", "language.1", "language.2"]
CAMERAS = {"loss_pose": 1.0, "loss_scale": 1.0}


class TestAnyModel:
    def test_the_terms_fall_and_reach_no_further_than_their_layers(self, host):
        samples = [make_sample(4), make_sample(4, seed=1)]
        for layers, parts in ((["vision.1"], {"tower"}), (LAYERS, {"tower", "language_model"})):
            model, inputs = host.build_model().train(), host.build_inputs(frames(*samples))
            supervision = attach(model, validator=None, distillation_layers=layers)
            targets = teacher(supervision, inputs, samples)
            optimizer = torch.optim.AdamW([*model.parameters(), *supervision.parameters()], lr=3e-3)
            history = []
            for _ in range(10):
                model(**inputs)
                loss = supervision.compute_loss(teacher_features=targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                history.append(loss.item())
            assert history[-1] < 0.95 * history[0]
            names = moved(model)
            reached = {
                part for part in ("tower", "language_model") if any(name_of(supervision, part) in n for n in names)
            }
            assert reached == parts
            assert moved(supervision) == {name for name, _ in supervision.named_parameters()}

    def test_the_loss_is_that_of_the_projected_states(self, qwen):
        """Once more without the supervision: the model's own states, pooled, projected and compared."""
        sample = make_sample(4)
        model, inputs = qwen.build_model().train(), qwen.build_inputs(frames(sample))
        supervision = attach(model, validator=None, distillation_layers=["language.0", "language.2"])
        (target,) = teacher(supervision, inputs, [sample])
        outputs = model(**inputs, output_hidden_states=True)
        loss = supervision.compute_loss(teacher_features=[target])
        is_visual = inputs["input_ids"] == supervision.layout.video_token_id
        wanted = F.normalize(target[::2].flatten(0, 2), dim=-1)  # the first frame of each step
        distances = []
        for layer, number in (("language_0", 0), ("language_2", 2)):
            states = supervision.teacher_projector.norms[layer](outputs.hidden_states[number][is_visual])
            student = supervision.teacher_projector.projectors[layer](states)
            distances.append((F.normalize(student, dim=-1) - wanted).square().sum(-1).mean())
        assert loss.item() == pytest.approx(sum(distances).item() / 2, rel=1e-5)

    @pytest.mark.parametrize("layer", ["vision.1", "language.1"])
    def test_cameras_read_the_chosen_layer(self, host, layer):
        sample = make_sample(4)
        model, inputs = host.build_model().train(), host.build_inputs(frames(sample))
        options = {"validator": None, "teacher_size": None, "loss_weights": CAMERAS}
        supervision = attach(model, camera_layer=layer, **options)
        model(**inputs)
        supervision.compute_loss(**geometry(sample)).backward()
        names = moved(model)
        assert any("language_model" in name for name in names) == (layer == "language.1")
        assert not any("language_model.layers.1." in name for name in names)
        assert all(layer.replace(".", "_") in name for name in moved(supervision))
        other = attach(host.build_model(), camera_layer="vision.2", **options)
        with pytest.raises(RuntimeError, match="vision_2"):
            other.load_state_dict(supervision.state_dict())

    def test_a_batch_without_a_teacher_keeps_all_projectors_in_the_graph(self, qwen):
        model, inputs = qwen.build_model().train(), qwen.build_inputs(frames(make_sample(4)))
        supervision = attach(model, distillation_layers=LAYERS, camera_layer="vision.0", loss_weights=CAMERAS)
        model(**inputs)
        supervision.compute_loss().backward()
        assert all(weight.grad is not None and not weight.grad.any() for weight in supervision.parameters())

    def test_layers_are_checked_before_anything_is_hooked(self, qwen):
        model = qwen.build_model()
        for options, error, message in (
            ({"distillation_layers": ["vision.3"]}, ValueError, r"distillation_layers: 'vision\.3'.* vision\.2"),
            ({"distillation_layers": "vision.1"}, TypeError, "distillation_layers must be a list"),
            ({"camera_layer": "language.9"}, ValueError, r"camera_layer: 'language\.9'"),
            ({"distillation_layers": ["vision.1"], "teacher_size": None}, ValueError, "need a teacher_size"),
        ):
            with pytest.raises(error, match=message):
                attach(model, **options)
        assert not model.model._forward_pre_hooks

    def test_the_default_is_the_head_of_before(self, qwen):
        default, named = (attach(qwen.build_model(), distillation_layers=given) for given in (None, ["language.2"]))
        assert set(default.state_dict()) == set(named.state_dict())
        assert {"teacher_projector.linear_1.weight"} <= set(default.state_dict())

    def test_nothing_is_left_in_the_model(self, qwen, tmp_path):
        model = qwen.build_model().train()
        before = copy.deepcopy(model.state_dict())
        supervision = GeometrySupervision.attach(
            model, validator="light", teacher_size=6, distillation_layers=LAYERS, camera_layer="language.1",
            loss_weights=CAMERAS,
        )  # fmt: skip
        supervision.join(model)
        model.save_pretrained(tmp_path / "joined")
        supervision.detach()
        model.save_pretrained(tmp_path / "detached")
        joined, detached = (load_file(tmp_path / name / "model.safetensors") for name in ("joined", "detached"))
        assert set(joined) == set(detached) and set(model.state_dict()) == set(before)
        assert not any(module._forward_pre_hooks for module in model.model.language_model.layers)


class TestOurTraining:
    def test_heads_are_kept_and_resumed(self, make_trainer, tmp_path):
        samples = [make_sample(3, teacher=True), make_sample(2, seed=1, teacher=True), make_sample(2, geometry=False)]
        options = {
            "max_steps": 2,
            "save_strategy": "steps",
            "save_steps": 1,
            "pose_weight": 1.0,
            "distillation_layers": LAYERS,
            "camera_layer": "vision.2",
        }
        trainer = make_trainer(samples, **options)
        trainer.train()
        folder = tmp_path / "run" / "checkpoint-1"
        heads = load_file(folder / GEOMETRY_WEIGHTS)
        keys = {f"teacher_projector.projectors.{layer.replace('.', '_')}.linear_2.bias" for layer in LAYERS}
        assert {*keys, "pose_head.vision_2.linear_2.bias"} <= set(heads)
        inference = load_file(folder / "model.safetensors")
        assert not any(key.split(".")[0] in ("teacher_projector", "pose_head") for key in inference)
        assert trainer.evaluate(samples)["eval_loss_distillation"] > 0
        resumed = make_trainer(samples, **options)
        resumed.train(resume_from_checkpoint=str(folder))
        expected = dict(trainer.model.named_parameters())
        assert all(torch.equal(weight, expected[name]) for name, weight in resumed.model.named_parameters())
        for changed in ({"camera_layer": "vision.1"}, {"distillation_layers": ["vision.1", "language.2"]}):
            other = make_trainer(samples, **{**options, **changed})
            with pytest.raises(ValueError, match="do not fit this model"):
                other.train(resume_from_checkpoint=str(folder))

    def test_layers_are_checked_where_the_trainer_is_built(self, make_trainer):
        for options, message in (
            ({"distillation_layers": ["vision.9"]}, r"distillation_layers: 'vision\.9'"),
            ({"camera_layer": "tower.1"}, r"camera_layer: 'tower\.1'"),
        ):
            with pytest.raises(ValueError, match=message):
                make_trainer([make_sample(2)], **options)


def name_of(supervision: GeometrySupervision, part: str) -> str:
    """The name that stands in the parameters of a part."""
    return getattr(supervision.layout, part).split(".")[-1] + "."
