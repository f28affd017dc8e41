"""The supervision on models of four other families: it trains them, and leaves nothing behind."""

import copy
import dataclasses
import gc
import logging
import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_hosts import HOSTS, QUESTION
from torch import nn
from training_samples import build_collator, build_model, make_sample

from modeling_ide3d import IDE3DForConditionalGeneration
from modeling_ide3d.auxiliary import GeometricValidatorConfig
from trainer import GeometrySupervision
from trainer.geometry_criterion import GeometryCriterion
from trainer.training_arguments import IDE3DTrainingArguments
from trainer.vision_layouts import VisionLayout, find_layout

VIEWS, TEACHER_SIZE = 4, 6
DEPTH_TERMS = {"loss_depth", "loss_cross_view_depth", "loss_overlap_l1", "loss_view_consistency"}
ALL = dict.fromkeys(DEPTH_TERMS, 0.1)


@pytest.fixture(params=HOSTS)
def host(request):
    return HOSTS[request.param]


@pytest.fixture(scope="module")
def qwen():
    return HOSTS["qwen2_5_vl"]


def frames(*samples):
    return [None if sample is None else sample["frames"] for sample in samples]


def geometry(*samples, keys=("depth", "intrinsics", "camera_to_world")):
    """Targets as lists. The room's intrinsics are of the frames, whose size its depth has."""
    given = {key: [None if s is None else torch.as_tensor(s[key]).float() for s in samples] for key in keys}
    return {key: values for key, values in given.items() if any(value is not None for value in values)}


def teacher(supervision, inputs, samples, seed=0):
    """Random features on the token grid of each video."""
    generator = torch.Generator().manual_seed(seed)
    places = {place.sample: place for place in supervision.layout.find_videos(inputs["input_ids"], inputs)}
    return [
        torch.randn(len(sample["frames"]), *places[index].grid.shape, TEACHER_SIZE, generator=generator)
        if index in places
        else None
        for index, sample in enumerate(samples)
    ]


def attach(model, seed=0, **options):
    torch.manual_seed(seed)
    options = {"validator": "light", "teacher_size": TEACHER_SIZE, **options}
    return GeometrySupervision.attach(model, **options)


@pytest.fixture
def setting(host):
    """A model with its supervision, a batch of two videos, and all targets."""
    samples = [make_sample(VIEWS), make_sample(VIEWS, seed=1)]
    model, inputs = host.build_model().train(), host.build_inputs(frames(*samples))
    supervision = attach(model, loss_weights=ALL)
    targets = {**geometry(*samples), "teacher_features": teacher(supervision, inputs, samples)}
    return model, supervision, inputs, targets


def hooks(model):
    """Hooks of each module that has any; Transformers puts some in itself when a model first runs."""
    kinds = [kind for kind in vars(nn.Module()) if "hooks" in kind]
    found = {}
    for name, module in model.named_modules():
        for kind in kinds:
            held = getattr(module, kind)
            if held:
                found[name, kind] = len(held)
    return found


def moved(module):
    return {name for name, weight in module.named_parameters() if weight.grad is not None and weight.grad.any()}


class TestTraining:
    def test_the_terms_fall_on_one_batch(self, setting):
        model, supervision, inputs, targets = setting
        optimizer = torch.optim.AdamW([*model.parameters(), *supervision.parameters()], lr=3e-3)
        history = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = model(**inputs).loss
            terms = supervision.compute_terms(**targets)
            (loss + supervision.weigh(terms)).backward()
            optimizer.step()
            history.append({name: term.item() for name, term in {"loss": loss, **terms}.items()})
        assert set(history[0]) == {"loss", "loss_distillation", *DEPTH_TERMS}
        for name in ("loss", "loss_depth", "loss_cross_view_depth", "loss_overlap_l1", "loss_distillation"):
            assert history[-1][name] < 0.9 * history[0][name], name

    def test_three_lines(self, host):
        sample = make_sample(2)
        model, inputs, targets = host.build_model().train(), host.build_inputs(frames(sample)), geometry(sample)
        supervision = GeometrySupervision.attach(model, validator="light")
        loss = model(**inputs).loss + supervision.compute_loss(**targets)
        supervision.detach()
        loss.backward()
        assert moved(supervision) and any("blocks" in name or "encoder" in name for name in moved(model))

    def test_the_weights_are_those_of_our_own_training(self, setting, tmp_path):
        model, _, inputs, targets = setting
        for protocol in ("clean", "paper"):
            copied = HOSTS[model.config.model_type].build_model().train()
            supervision = attach(copied, criterion=GeometryCriterion(protocol=protocol))
            ours = IDE3DTrainingArguments(output_dir=str(tmp_path), report_to="none", protocol=protocol).loss_weights
            assert supervision.loss_weights == {k: w for k, w in ours.items() if k != "loss_grounding"}
            copied(**inputs)
            terms = supervision.compute_terms(**targets)
            expected = sum(ours[name] * term for name, term in terms.items())
            torch.testing.assert_close(supervision.weigh(terms), expected)
            assert terms["loss_cross_view_depth"] > 0

    def test_equal_to_our_own_training_class(self):
        """The same heads on the same model: all terms and gradients, bit for bit."""
        ours, batch = build_model().train(), build_collator()([make_sample(3, teacher=True), make_sample(3, seed=1)])
        ours.criterion = GeometryCriterion()
        ours.criterion.terms = ours.criterion.terms - {"loss_grounding"}
        host = IDE3DForConditionalGeneration(ours.config).train()
        host.load_state_dict(ours.state_dict(), strict=False)
        layout = VisionLayout(
            tower="vision_tower",
            blocks="vision_tower.encoder.layers",
            language_model="language_model",
            video_token_id=ours.config.video_token_id,
            pixels="pixel_values_videos",
            patch_size=ours.config.vision_config.patch_size,
            tokens_stride=ours.config.spatial_pool_stride,
            tokens_after_row=1,
        )
        supervision = attach(host, layout=layout, validator=ours.geometric_validator.config, loss_weights=ALL)
        heads = ours.geometry_state_dict()
        supervision.load_state_dict(heads)
        host(**{key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values_videos", "labels")})
        targets = ("depth", "intrinsics", "camera_to_world", "has_geometry", "teacher_features")
        terms, expected = supervision.compute_terms(**{key: batch[key] for key in targets}), ours(**batch)
        assert all(term.item() > 0 for term in terms.values())
        for name, term in terms.items():
            assert torch.equal(term, expected[name]), name
        sum(terms.values()).backward()
        sum(expected[name] for name in terms).backward()
        gradients = {name: weight.grad for name, weight in ours.named_parameters() if weight.grad is not None}
        actual = {**dict(host.named_parameters()), **dict(supervision.named_parameters())}
        for name, gradient in gradients.items():
            torch.testing.assert_close(actual[name].grad, gradient, atol=0, rtol=0, msg=name)


class TestGradients:
    """Each term moves what it should, and nothing else."""

    def parts(self, model, supervision):
        layout = supervision.layout
        blocks, tower = f"model.{layout.blocks}.", f"model.{layout.tower}."
        found = set()
        for name in moved(model):
            if name.startswith(blocks):
                found.add("blocks")
            elif "merger" in name or "projector" in name:
                found.add("merger")
            elif name.startswith(tower):
                found.add("embeddings" if "norm" not in name else "final norm")
            elif name.startswith("model.language_model"):
                found.add("llm")
            else:
                found.add(name)
        heads = {name.split(".")[1] if "validator" in name else "projector" for name in moved(supervision)}
        return found, heads

    @pytest.mark.parametrize(
        "term, heads",
        [
            ("loss_depth", {"decoder"}),
            ("loss_overlap_l1", {"decoder"}),
            ("loss_view_consistency", {"decoder"}),
            ("loss_cross_view_depth", {"decoder", "relative_pose_embedding"}),
            ("loss_distillation", {"projector"}),
        ],
    )
    def test_terms(self, setting, term, heads):
        model, supervision, inputs, targets = setting
        for feature in targets["teacher_features"]:
            feature.requires_grad_(True)
        model(**inputs)
        supervision.compute_terms(**targets)[term].backward()
        found, moved_heads = self.parts(model, supervision)
        expected = {"blocks", "embeddings"}
        if term == "loss_distillation":
            expected |= {"merger", "llm"}  # LLaVA's newline stands behind all tokens that are compared
            assert not any(feature.grad is not None for feature in targets["teacher_features"])
        assert found == expected and moved_heads == heads

    @pytest.mark.parametrize("use_reentrant", [False, True])
    def test_activation_checkpointing_changes_no_gradient(self, setting, use_reentrant):
        model, supervision, inputs, targets = setting

        def run():
            model.zero_grad()
            supervision.zero_grad()
            loss = model(**inputs, use_cache=False).loss
            (loss + supervision.compute_loss(**targets)).backward()
            return {
                name: weight.grad.clone()
                for name, weight in [*model.named_parameters(), *supervision.named_parameters()]
                if weight.grad is not None
            }

        expected = run()
        options = {"use_reentrant": use_reentrant}
        model.activation_checkpointing_enable(options)
        actual = run()
        assert expected.keys() == actual.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(actual[name], gradient, atol=1e-6, rtol=1e-5, msg=name)

    def test_a_tower_that_ran_without_gradients_is_refused(self, setting):
        model, supervision, inputs, targets = setting
        tower = supervision.layout.find_module(model.model, "tower")
        tower.forward = torch.no_grad()(tower.forward)
        with pytest.raises(RuntimeError, match="ran without gradients"):
            model(**inputs)

    def test_a_frozen_tower_trains_the_decoder_alone(self, qwen, caplog):
        model, sample = qwen.build_model().train(), make_sample(2)
        model.model.visual.requires_grad_(False)
        with caplog.at_level(logging.WARNING, "trainer"):
            supervision = attach(model)
        assert "The vision tower is frozen" in caplog.text
        model(**qwen.build_inputs(frames(sample)))
        supervision.compute_loss(**geometry(sample)).backward()
        assert not moved(model) and moved(supervision)

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
    def test_adapters(self, qwen):
        """PEFT calls the forward of the model inside, past the hooks of its outermost module."""
        sample = make_sample(2)
        adapters = LoraConfig(target_modules=r".*visual\.blocks.*(qkv|proj)")
        adapted = get_peft_model(qwen.build_model(), adapters).train()
        with pytest.raises(TypeError, match=r"got PeftModel.*get_base_model\(\)"):
            attach(adapted)
        supervision = attach(adapted.get_base_model())
        adapted(**qwen.build_inputs(frames(sample)))
        supervision.compute_loss(**geometry(sample)).backward()
        assert moved(adapted) and all("lora" in name for name in moved(adapted))

    def test_mixed_precision(self, setting):
        model, supervision, inputs, targets = setting
        model(**inputs)
        expected = supervision.compute_terms(**targets)
        for kind in ("autocast", "bfloat16"):
            if kind == "bfloat16":
                model.zero_grad()
                model.bfloat16()
            with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
                model(**inputs)
                terms = supervision.compute_terms(**targets)
            for name, term in terms.items():
                assert term.dtype == torch.float32
                assert term.item() == pytest.approx(expected[name].item(), rel=0.1, abs=0.05), name
            supervision.weigh(terms).backward()


class TestBatches:
    """What a term is a mean over does not depend on what else is in the batch."""

    def terms(self, host, samples, targets=None, seed=0):
        model = host.build_model().train()
        inputs = host.build_inputs(frames(*samples))
        supervision = attach(model, loss_weights=ALL)
        model(**inputs)
        if targets is None:
            targets = geometry(*samples)
        terms = supervision.compute_terms(**targets)
        return {name: term.item() for name, term in terms.items()}

    def test_samples_without_video_or_depth_do_not_count(self, host):
        sample, other = make_sample(3), make_sample(3, seed=1)
        alone = self.terms(host, [sample])
        targets = geometry(None, None, sample)
        beside = self.terms(host, [None, other, sample], targets)
        assert alone == pytest.approx(beside, rel=1e-4, abs=1e-6)
        stacked = {
            key: torch.stack([torch.full_like(value[2], torch.nan)] * 2 + [value[2]]) for key, value in targets.items()
        }
        masked = self.terms(
            host, [None, other, sample], {**stacked, "has_geometry": torch.tensor([False, False, True])}
        )
        assert masked == pytest.approx(beside, rel=1e-6)

    @pytest.mark.parametrize("host", ["qwen2_5_vl", "qwen3_vl", "internvl"], indirect=True)
    def test_padding_is_never_looked_at(self, host):
        """Videos of several lengths; LLaVA-OneVision takes one length in a batch."""
        samples = [make_sample(2), make_sample(5, seed=1)]
        listed = geometry(*samples)
        expected = self.terms(host, samples, listed)
        padded = {key: torch.full((2, *value[1].shape), torch.nan) for key, value in listed.items()}
        for key, values in listed.items():
            for index, value in enumerate(values):
                padded[key][index, : len(value)] = value
        assert self.terms(host, samples, padded) == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("sizes", ["one size", "two sizes"])
    def test_the_mean_of_two_videos_is_weighted_by_what_they_measure(self, host, sizes):
        views = 3 if host.name == "llava_onevision" else 2
        samples = [make_sample(3), make_sample(views, seed=1)]
        if sizes == "two sizes":
            samples[1]["frames"] = samples[1]["frames"].repeat(2, axis=2)
            samples[1]["depth"] = samples[1]["depth"].repeat(2, axis=2)
            samples[1]["intrinsics"] = samples[1]["intrinsics"].copy()
            samples[1]["intrinsics"][:, 0, 0] *= 2
            samples[1]["intrinsics"][:, 0, 2] = samples[1]["intrinsics"][:, 0, 2] * 2 + 0.5
        first, second = (self.terms(host, [sample]) for sample in samples)
        both = self.terms(host, samples)
        for name in DEPTH_TERMS:
            low, high = sorted((first[name], second[name]))
            assert low - 1e-6 <= both[name] <= high + 1e-6, name
        share = (both["loss_depth"] - second["loss_depth"]) / (first["loss_depth"] - second["loss_depth"])
        pixels = self.measured_pixels(host, samples)
        assert share == pytest.approx(pixels[0] / sum(pixels), rel=0.01)

    @staticmethod
    def measured_pixels(host, samples):
        layout = find_layout(host.build_model().config)
        inputs = host.build_inputs(frames(*samples))
        counts = []
        for place in layout.find_videos(inputs["input_ids"], inputs):
            height, width = place.grid.covered_size
            counts.append(place.steps * height * width)  # the room is measured everywhere
        return counts

    def test_merged_frames_are_supervised_by_their_first_one(self, qwen):
        sample = make_sample(4)
        expected = self.terms(qwen, [sample])
        targets = geometry(sample)
        for values in targets.values():
            values[0] = values[0].clone()
            values[0][1::2] = torch.nan
        assert self.terms(qwen, [sample], targets) == expected

    def test_images_beside_videos(self, qwen):
        """The tower runs twice, and the videos' states are the ones that are compared."""
        sample, model = make_sample(4), qwen.build_model().train()
        inputs = qwen.build_inputs(frames(sample))
        supervision = attach(model)
        model(**inputs)
        expected = supervision.compute_terms(**geometry(sample))["loss_depth"]
        ids = inputs["input_ids"]
        picture = torch.tensor([[model.config.image_token_id] * 4])
        inputs = {
            **inputs,
            "input_ids": torch.cat([picture, ids], 1),
            "attention_mask": torch.ones(1, 4 + ids.shape[1]).long(),
            "labels": torch.cat([torch.full((1, 4), -100), inputs["labels"]], 1),
            "mm_token_type_ids": torch.cat([torch.ones(1, 4).int(), inputs["mm_token_type_ids"]], 1),
            "pixel_values": torch.randn(16, inputs["pixel_values_videos"].shape[1]),
            "image_grid_thw": torch.tensor([[1, 4, 4]]),
        }
        model(**inputs)
        torch.testing.assert_close(supervision.compute_terms(**geometry(sample))["loss_depth"], expected)

    def test_a_batch_without_targets_keeps_the_heads_in_the_graph(self, host):
        model = host.build_model().train()
        supervision = attach(model)
        for samples in ([None, None], [make_sample(2), None]):
            model(**host.build_inputs(frames(*samples)))
            terms = supervision.compute_terms()
            assert all(term.item() == 0 for term in terms.values())
            supervision.zero_grad()
            supervision.weigh(terms).backward()
            assert all(weight.grad is not None for weight in supervision.parameters())

    def test_weights_may_change_between_steps(self, setting):
        """What has no weight is not computed, and is computed again when it has one."""
        model, supervision, inputs, targets = setting
        for weight in (0.0, 0.5):
            supervision.loss_weights["loss_cross_view_depth"] = weight
            model(**inputs)
            assert (supervision.compute_terms(**targets)["loss_cross_view_depth"] > 0) == (weight > 0)

    def test_depth_alone(self, host):
        sample = make_sample(2)
        terms = self.terms(host, [sample], geometry(sample, keys=("depth",)))
        assert terms["loss_depth"] > 0
        assert all(terms[name] == 0 for name in DEPTH_TERMS - {"loss_depth"})

    def test_depth_of_another_resolution(self, host):
        """Intrinsics go with the pixels of depth."""
        sample = make_sample(3)
        expected = self.terms(host, [sample])
        targets = geometry(sample)
        targets["depth"] = [targets["depth"][0].repeat_interleave(3, 1).repeat_interleave(3, 2)]
        cameras = targets["intrinsics"][0].clone()
        cameras[:, :2] *= 3
        cameras[:, :2, 2] += 1
        targets["intrinsics"] = [cameras]
        assert self.terms(host, [sample], targets) == pytest.approx(expected, rel=0.02, abs=0.01)


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
    "depth of sample 1 has 2 frames, but the model saw 2 time steps of 2": lambda t: t["depth"].__setitem__(
        1, t["depth"][1][:2]
    ),
    r"camera_to_world of sample 0 has 6 frames": lambda t: t["camera_to_world"].__setitem__(
        0, torch.eye(4).repeat(6, 1, 1)
    ),
    "Sample 0: depth must have shape": lambda t: t["depth"].__setitem__(0, torch.ones(4, 9)),
    "Sample 1: intrinsics must have shape": lambda t: t["intrinsics"].__setitem__(1, torch.eye(4).repeat(4, 1, 1)),
    "Sample 1: intrinsics and camera_to_world need each other": lambda t: t["intrinsics"].__setitem__(1, None),
    "Sample 0: depth holds 2 values that are NaN": lambda t: t["depth"][0].__setitem__((0, 0, slice(2)), torch.nan),
    "Sample 0: camera_to_world is not a rigid motion": lambda t: t["camera_to_world"].__setitem__(
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
            ({"loss_weights": {"loss_depth": -1.0}}, "must not be negative"),
            ({"validator": None, "loss_weights": {"loss_distillation": 0.0}}, "not all of them 0"),
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
