"""The supervision trains models of four other families as it trains ours."""

import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from supervised_hosts import ALL, DEPTH_TERMS, attach, frames, geometry, moved
from tiny_hosts import HOSTS
from training_samples import build_collator, build_model, make_sample

from modeling_ide3d import IDE3DForConditionalGeneration
from trainer import GeometrySupervision
from trainer.supervision.criterion import GeometryCriterion
from trainer.supervision.vision_layouts import VisionLayout, find_layout
from trainer.training_arguments import IDE3DTrainingArguments

pytestmark = pytest.mark.usefixtures("one_thread")


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
            assert supervision.loss_weights == {name: ours[name] for name in {*DEPTH_TERMS, "loss_distillation"}}
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
            pool_stride=ours.config.spatial_pool_stride,
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
